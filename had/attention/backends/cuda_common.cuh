// What the CUDA kernels share: shared memory across the thread blocks of a cluster, and the search
// for the level (score) at which a histogram of scores is cut.

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#define DEVICE __device__ __forceinline__

constexpr u32 ALL = 0xffffffffu;

DEVICE u32 shared_address(const void* pointer) { return (u32)__cvta_generic_to_shared(pointer); }

DEVICE int cluster_rank() {
  int rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}

// Barrier of the cluster in two halves: what a thread wrote to its own block's shared memory before
// `cluster_arrive` may be read by other blocks after `cluster_wait`. The restricted fences leave out
// the wait for global memory, about a microsecond, that the default ones bring.
DEVICE void cluster_arrive() {
  __syncwarp();  // the barrier wants whole warps
  asm volatile(
      "fence.release.sync_restrict::shared::cta.cluster;\n\t"
      "barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}

DEVICE void cluster_wait() {
  __syncwarp();
  asm volatile(
      "barrier.cluster.wait.aligned;\n\t"
      "fence.acquire.sync_restrict::shared::cluster.cluster;" ::: "memory");
}

DEVICE void cluster_barrier() {
  cluster_arrive();
  cluster_wait();
}

// ---- mailboxes: shared memory that other blocks write to, counted by a barrier object ------------

DEVICE void barrier_init(u64* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)) : "memory");
}

// Makes initialised barriers visible to the copy engine and to other blocks.
DEVICE void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

DEVICE void barrier_expect(u64* barrier, u32 bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(bytes)
               : "memory");
}

DEVICE void barrier_wait(u64* barrier, u32 parity) {
  u32 done;
  do {
    asm volatile(
        "{.reg .pred p;\n\t"
        "mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2;\n\t"
        "selp.b32 %0, 1, 0, p;}"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
  } while (!done);
  __syncwarp();
}

// The address that block `rank` of the cluster knows as the local `pointer`.
DEVICE u32 remote_address(const void* pointer, int rank) {
  u32 address;
  asm volatile("mapa.shared::cluster.u32 %0, %1, %2;"
               : "=r"(address)
               : "r"(shared_address(pointer)), "r"(rank));
  return address;
}

DEVICE int load_remote(const int* pointer, int rank) {
  int value;
  asm volatile("ld.shared::cluster.u32 %0, [%1];"
               : "=r"(value)
               : "r"(remote_address(pointer, rank))
               : "memory");
  return value;
}

DEVICE int4 load_remote4(const int* pointer, int rank) {
  int4 v;
  asm volatile("ld.shared::cluster.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "r"(remote_address(pointer, rank))
               : "memory");
  return v;
}

// Writes to what block `rank` knows as `place`, and counts 4 bytes at its `barrier`.
DEVICE void send(void* place, u64* barrier, int rank, u32 value) {
  asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%0], %1, [%2];" ::"r"(
                   remote_address(place, rank)),
               "r"(value), "r"(remote_address(barrier, rank))
               : "memory");
}

DEVICE int warp_sum(int x) { return __reduce_add_sync(ALL, x); }

DEVICE float warp_sum(float x) {
#pragma unroll
  for (int step = 16; step; step /= 2) x += __shfl_xor_sync(ALL, x, step);
  return x;
}

// Sum over this lane and all lanes above it.
DEVICE int sum_from(int x, int lane) {
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_down_sync(ALL, x, step);
    if (lane + step < 32) x += other;
  }
  return x;
}

// Sum over all lanes below this one.
DEVICE int sum_before(int x, int lane) {
  int sum = x;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const int other = __shfl_up_sync(ALL, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - x;
}

// One row's histogram, summed over the cluster: lane l holds the bins N l .. N l + N - 1, and every
// lane the last bin, 32 N. `before`: the share of the blocks of lower rank, whose keys come first.
template <int N>
struct Counts {
  int bins[N], last;
  int before[N], last_before;
};

template <int N>
DEVICE Counts<N> cluster_counts(const int* histogram, int rank, int blocks, int lane) {
  Counts<N> counts = {};
#pragma unroll 8
  for (int block = 0; block < blocks; block++) {
#pragma unroll
    for (int part = 0; part < N; part += 4) {
      const int4 v = load_remote4(histogram + N * lane + part, block);
      const int own[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        counts.bins[part + i] += own[i];
        counts.before[part + i] += block < rank ? own[i] : 0;
      }
    }
    const int last = load_remote(histogram + 32 * N, block);
    counts.last += last;
    counts.last_before += block < rank ? last : 0;
  }
  return counts;
}

template <int N>
DEVICE int count_all(const Counts<N>& counts) {
  int own = 0;
#pragma unroll
  for (int i = 0; i < N; i++) own += counts.bins[i];
  return warp_sum(own) + counts.last;
}

// Where a histogram is cut so that `wanted` scores are kept.
struct Cut {
  int level;  // of the last one kept; -1: there are fewer than wanted
  int above;  // scores beyond the level
  int total;  // all scores
};

template <int N>
DEVICE Cut find_cut(const Counts<N>& counts, int wanted, int lane) {
  int own = 0;
#pragma unroll
  for (int i = 0; i < N; i++) own += counts.bins[i];
  const int from = sum_from(own, lane) + counts.last;
  Cut cut = {-1, 0, __shfl_sync(ALL, from, 0)};
  int above = from - own;
#pragma unroll
  for (int i = N - 1; i >= 0; i--) {
    if (above < wanted && above + counts.bins[i] >= wanted)
      cut.level = N * lane + i, cut.above = above;
    above += counts.bins[i];
  }
  if (counts.last >= wanted) cut.level = lane ? -1 : 32 * N, cut.above = 0;
  const u32 found = __ballot_sync(ALL, cut.level >= 0);
  const int owner = found ? __ffs(found) - 1 : 0;
  cut.level = __shfl_sync(ALL, cut.level, owner);
  cut.above = __shfl_sync(ALL, cut.above, owner);
  return cut;
}

// Scores above and at `level` in the blocks of lower rank.
struct Before {
  int above, ties;
};

template <int N>
DEVICE Before before_block(const Counts<N>& counts, int level, int lane) {
  int above = 0, ties = 0;
#pragma unroll
  for (int i = 0; i < N; i++) {
    above += N * lane + i > level ? counts.before[i] : 0;
    ties += N * lane + i == level ? counts.before[i] : 0;
  }
  const int last = counts.last_before;
  return {warp_sum(above) + (level < 32 * N ? last : 0), warp_sum(ties) + (level == 32 * N ? last : 0)};
}

// How many scores to let through so that, going by a sample of `sampled` of `all`, hardly ever fewer
// than `keep` pass: the expectation in the sample and four standard deviations.
DEVICE int sample_goal(int keep, int sampled, int all) {
  const float expected = (float)keep * (float)sampled / (float)max(all, 1);
  return (int)(expected + 4.f * sqrtf(expected) + 4.f);
}

DEVICE u64 clock_ns() {
  u64 now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}
