// Indices of the n largest of every row of uint8 scores, ascending; of equal scores the lowest first.
//
// A cluster of thread blocks owns a row, whose scores are dealt out to the warps of all blocks in
// order, a contiguous range each. A sample of the scores gives a level that a little more than n
// should reach; those that do go to the warp's list, in order, and into a histogram, which gives the
// exact level and how many scores at it are still kept. Had the sample misled, the level is lowered
// and the scores are read again. Compile-time constants: THREADS, SHARED_BYTES.

#include "cuda_common.cuh"

constexpr int WARPS = THREADS / 32;
constexpr int LISTED = 512;           // entries of a warp's list
constexpr int BINS = 260;             // 0 .. 255 and an empty one, padded to 16 bytes
constexpr int DEPTH = 4;              // loads of 16 bytes that a lane has in flight
constexpr int BLOCK = 512;            // scores that a warp loads at a time
static_assert(WARPS == 32, "warp r's lane w stands for warp w");

struct Arguments {
  const u8* scores;  // (rows, count), rows contiguous and 16-byte aligned
  i64* indices;      // (rows, keep)
  i64 row;           // stride of the scores
  int count, keep;   // count: a multiple of 16
};

struct Shared {
  u32 list[WARPS][LISTED];
  alignas(16) int sample[BINS];
  alignas(16) int histogram[BINS];
  int above[WARPS], ties[WARPS];
  int level, room, above_before, ties_before;
  bool lacking;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host reserves less than the kernel needs");

struct Range {
  const u8* scores;
  int start, count;
};

DEVICE void load(uint4 (&v)[DEPTH], const Range& range, int first, int lane) {
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
    const int at = first + i * BLOCK + lane * 16;
    v[i] = at < range.count ? __ldg((const uint4*)(range.scores + at)) : uint4{};
  }
}

DEVICE u64 sum_before(u64 x, int lane) {
  u64 sum = x;
#pragma unroll
  for (int step = 1; step < 32; step *= 2) {
    const u64 other = __shfl_up_sync(ALL, sum, step);
    if (lane >= step) sum += other;
  }
  return sum - x;
}

// Appends those of DEPTH loaded blocks' scores that reach the level, in order of their index.
DEVICE void append(Shared& s, u32* list, int& listed, const Range& range, const uint4 (&v)[DEPTH],
                   int first, u32 level, int lane) {
  u64 hits = 0, counts = 0;  // a bit for each score, 16 bits of count for each block
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
    const u32 own = reaching(v[i], level);
    if (first + i * BLOCK + lane * 16 < range.count) {
      hits |= (u64)own << 16 * i;
      counts |= (u64)__popc(own) << 16 * i;
    }
  }
  if (!__any_sync(ALL, hits != 0)) return;
  const u64 before = sum_before(counts, lane);
  const u64 total = __shfl_sync(ALL, before + counts, 31);
  u64 place = before;  // of a block's next entry
#pragma unroll
  for (int i = 0; i < DEPTH; i++) {
    place += (u64)min(listed, LISTED) << 16 * i;
    listed += total >> 16 * i & 0xffff;
  }
  for (; hits; hits &= hits - 1) {
    const int bit = __ffsll(hits) - 1, block = bit / 16;
    const int at = first + block * BLOCK + lane * 16 + bit % 16;
    const u32 score = range.scores[at], slot = place >> 16 * block & 0xffff;
    if (slot < LISTED) list[slot] = score << 24 | at;
    place += 1ull << 16 * block;
    atomicAdd(&s.histogram[score], 1);
  }
}

DEVICE int collect(Shared& s, u32* list, const Range& range, const uint4 (&loaded)[DEPTH], u32 level,
                   int lane) {
  int listed = 0;
  append(s, list, listed, range, loaded, 0, level, lane);
  for (int first = DEPTH * BLOCK; first < range.count; first += DEPTH * BLOCK) {
    uint4 v[DEPTH];
    load(v, range, first, lane);
    append(s, list, listed, range, v, first, level, lane);
  }
  __syncwarp();
  return listed;
}

// Calls visit(real, score, index in the range), 32 lanes at a time, in order: from the list, or from
// all scores if the list was too short.
template <class Visit>
DEVICE void walk(const Range& range, const u32* list, int listed, int lane, Visit visit) {
  const bool short_list = listed > LISTED;
  const int count = short_list ? range.count : listed;
  for (int first = 0; first < count; first += 32) {
    const int i = first + lane;
    const bool real = i < count;
    const u32 entry = !real ? 0 : short_list ? (u32)range.scores[i] << 24 | i : list[i];
    visit(real, (int)(entry >> 24), (int)(entry & 0xffffff));
  }
}

// The level that a little more than n scores should reach, from four scores a thread, spread evenly
// over the row: the same in all blocks of the cluster, which need not meet for it.
DEVICE u32 sampled_word(const Arguments& a) {
  const int words = a.count / 4, at = (int)((i64)threadIdx.x * words / THREADS);
  return __ldg((const u32*)(a.scores + blockIdx.y * a.row) + at);
}

DEVICE void take_sample(Shared& s, u32 word) {
#pragma unroll
  for (int b = 0; b < 4; b++) atomicAdd(&s.sample[word >> 8 * b & 255], 1);
}

DEVICE void find_level(Shared& s, const Arguments& a, int lane) {
  const float expected = (float)a.keep * (4 * THREADS) / a.count;
  const Cut cut = find_cut(counts_of<8>(s.sample, lane), sample_goal(expected), lane);
  if (lane == 0) s.level = max(cut.level, 0);
}

// The histogram of all blocks of the cluster. `before`: the share of those of lower rank, whose
// scores come first.
struct ClusterCounts {
  Counts<8> all, before;
};

DEVICE ClusterCounts cluster_counts(const int* histogram, int rank, int blocks, int lane) {
  ClusterCounts counts = {};
#pragma unroll 8
  for (int block = 0; block < blocks; block++)
#pragma unroll
    for (int part = 0; part < 8; part += 4) {
      const int4 v = load_remote4(histogram + 8 * lane + part, block);
      const int own[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        counts.all.bins[part + i] += own[i];
        counts.before.bins[part + i] += block < rank ? own[i] : 0;
      }
    }
  return counts;
}

DEVICE void settle(Shared& s, const Arguments& a, int attempt, int rank, int blocks, int lane) {
  const ClusterCounts counts = cluster_counts(s.histogram, rank, blocks, lane);
  const Cut cut = find_cut(counts.all, a.keep, lane);
  int above = 0, ties = 0;  // in the blocks of lower rank
#pragma unroll
  for (int i = 0; i < 8; i++) {
    above += 8 * lane + i > cut.level ? counts.before.bins[i] : 0;
    ties += 8 * lane + i == cut.level ? counts.before.bins[i] : 0;
  }
  above = warp_sum(above), ties = warp_sum(ties);
  if (lane) return;
  s.lacking = cut.level < 0;
  s.level = !s.lacking ? cut.level : attempt ? 0 : max(0, s.level - 16);
  s.room = a.keep - cut.above;
  s.above_before = above, s.ties_before = ties;
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
topn_indices(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x;
  const u32 below = (1u << lane) - 1;
  let_next_kernel_start();
  wait_for_earlier_kernels();

  const int length = (a.count + blocks * WARPS * BLOCK - 1) / (blocks * WARPS * BLOCK) * BLOCK;
  Range range;
  range.start = (rank * WARPS + warp) * length;
  range.count = max(0, min(length, a.count - range.start));
  range.scores = a.scores + blockIdx.y * a.row + range.start;
  const u32 word = sampled_word(a);
  uint4 loaded[DEPTH];
  load(loaded, range, 0, lane);
  for (int i = threadIdx.x; i < BINS; i += THREADS) s.sample[i] = s.histogram[i] = 0;
  __syncthreads();
  take_sample(s, word);
  __syncthreads();
  if (warp == 0) find_level(s, a, lane);
  __syncthreads();

  int listed;
  for (int attempt = 0;; attempt++) {
    listed = collect(s, s.list[warp], range, loaded, s.level, lane);
    cluster_barrier();
    if (warp == 0) settle(s, a, attempt, rank, blocks, lane);
    __syncthreads();
    if (!s.lacking) break;
    cluster_barrier();  // before the histograms that other blocks read are cleared
    for (int i = threadIdx.x; i < BINS; i += THREADS) s.histogram[i] = 0;
    __syncthreads();
  }

  cluster_arrive();  // has read the other blocks' counts: `cluster_wait` below lets them go

  const int level = s.level, room = s.room;
  int above = 0, ties = 0;
  walk(range, s.list[warp], listed, lane, [&](bool real, int score, int) {
    above += __popc(__ballot_sync(ALL, real && score > level));
    ties += __popc(__ballot_sync(ALL, real && score == level));
  });
  if (lane == 0) s.above[warp] = above, s.ties[warp] = ties;
  __syncthreads();
  above = s.above_before + __reduce_add_sync(ALL, lane < warp ? s.above[lane] : 0);
  ties = s.ties_before + __reduce_add_sync(ALL, lane < warp ? s.ties[lane] : 0);
  i64* indices = a.indices + (i64)blockIdx.y * a.keep;
  walk(range, s.list[warp], listed, lane, [&](bool real, int score, int index) {
    const bool over = real && score > level, tie = real && score == level;
    const u32 overs = __ballot_sync(ALL, over), tied = __ballot_sync(ALL, tie);
    const int ties_here = ties + __popc(tied & below);
    if (over || (tie && ties_here < room))
      indices[above + __popc(overs & below) + min(ties_here, room)] = range.start + index;
    above += __popc(overs), ties += __popc(tied);
  });
  cluster_wait();
}
