// Indices of the n largest of every row of uint8 scores, ascending; of equal scores the lowest first.
//
// A cluster of thread blocks owns a row, whose scores are dealt out to the warps of all blocks in
// order, a contiguous range each. A sample of the scores gives a level that a little more than n
// should reach; those that do go to the warp's list, in order, and into a histogram, which gives the
// exact level and how many scores at it are still kept. Had the sample misled, the level is lowered
// and the scores are read again. Compile-time constants: THREADS, SHARED_BYTES.

#include "cuda_common.cuh"
#include "cuda_list.cuh"

constexpr int WARPS = THREADS / 32;
constexpr int LISTED = 512;           // entries of a warp's list
constexpr int BINS = 260;             // 0 .. 255 and an empty one, padded to 16 bytes
constexpr int BLOCK = 512;            // scores that a warp looks at together, 16 a lane
constexpr int STAGES = 8;             // blocks of a warp that are under way
constexpr int SAMPLED = 8;            // scores of a thread's sample, which follow each other
static_assert(WARPS <= 32, "lane w stands for warp w");

struct Arguments {
  const u8* scores;  // (rows, count), rows contiguous and 16-byte aligned
  i64* indices;      // (rows, keep)
  i64 row;           // stride of the scores
  int count, keep;   // count: a multiple of 16
};

struct Shared {
  u8 ring[WARPS][STAGES][BLOCK];
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

// A lane's part of the warp's blocks, copied ahead of their use by the lane itself.
struct Ring {
  u8* memory;
  int lane;

  DEVICE u8* stage(int block) const { return memory + block % STAGES * BLOCK + lane * 16; }

  DEVICE void fill(const Range& range, int block) const {
    const int at = block * BLOCK + lane * 16;
    if (at < range.count) copy_16(stage(block), range.scores + at);
    close_copies();
  }

  DEVICE void begin(const Range& range) const {
#pragma unroll 1
    for (int block = 0; block < STAGES; block++) fill(range, block);
  }
};

// Lists the scores of a range that reach the level; the ring has begun to copy them.
DEVICE void collect(List<LISTED>& list, int* histogram, const Ring& ring, const Range& range, u32 level) {
  list.count = 0;
#pragma unroll 1
  for (int block = 0; block * BLOCK < range.count; block++) {
    wait_for_copies<STAGES - 1>();
    const u8* scores = ring.stage(block);
    const int index = block * BLOCK + ring.lane * 16;
    const u32 hits = index < range.count ? reaching(*(const uint4*)scores, level) : 0;
    list.append(hits, scores, index, ring.lane, [&](int score, int) {
      atomicAdd(histogram + score, 1);
    });
    ring.fill(range, block + STAGES);
  }
  __syncwarp();
}

// Calls visit(over, tie, index) for the scores of a range that may be kept, in order: bit j of `over` is
// set if the lane's score `index` + j is above the level, of `tie` if it is at the level. They come from
// the list, or, if it was too short, from all scores.
template <class Visit>
DEVICE void walk(const Range& range, const List<LISTED>& list, int level, int lane, Visit visit) {
  if (list.count <= LISTED) {
    for (int i = lane; i - lane < list.count; i += 32) {
      const u32 entry = i < list.count ? list.entries[i] : 0;
      const int score = i < list.count ? entry >> 24 : -1;
      visit(score > level, score == level, entry & 0xffffff);
    }
    return;
  }
#pragma unroll 1
  for (int i = 16 * lane; i - 16 * lane < range.count; i += BLOCK) {
    const uint4 scores = i < range.count ? *(const uint4*)(range.scores + i) : uint4{};
    const u32 reached = i < range.count ? reaching(scores, level) : 0;
    const u32 over = level < 255 ? reached & reaching(scores, level + 1) : 0;
    visit(over, reached & ~over, i);
  }
}

// The level that a little more than n scores should reach, from eight scores a thread, spread evenly
// over the row: the same in all blocks of the cluster, which need not meet for it.
DEVICE uint2 sampled_scores(const Arguments& a) {
  const int places = a.count / SAMPLED, at = (int)((i64)threadIdx.x * places / THREADS);
  return __ldg((const uint2*)(a.scores + blockIdx.y * a.row) + at);
}

DEVICE void take_sample(Shared& s, const uint2& scores) {
#pragma unroll
  for (int i = 0; i < SAMPLED; i++)
    atomicAdd(&s.sample[__byte_perm(scores.x, scores.y, 0x4440 | i) & 255], 1);
}

DEVICE void find_level(Shared& s, const Arguments& a, int lane) {
  const float expected = (float)a.keep * (SAMPLED * THREADS) / a.count;
  const Cut cut = find_cut(counts_of<8>(s.sample, lane), sample_goal(expected), lane);
  if (lane == 0) s.level = max(cut.level, 0);
}

// The sum of the histograms of the cluster's first `blocks` blocks.
DEVICE Counts<8> cluster_counts(const int* histogram, int blocks, int lane) {
  Counts<8> counts = {};
#pragma unroll 4
  for (int block = 0; block < blocks; block++)
#pragma unroll
    for (int part = 0; part < 8; part += 4) {
      const int4 v = load_remote4(histogram + 8 * lane + part, block);
      counts.bins[part] += v.x, counts.bins[part + 1] += v.y;
      counts.bins[part + 2] += v.z, counts.bins[part + 3] += v.w;
    }
  return counts;
}

// By one warp, from the row's histogram.
DEVICE void settle(Shared& s, const Arguments& a, const Counts<8>& counts, int attempt, int lane) {
  const Cut cut = find_cut(counts, a.keep, lane);
  if (lane) return;
  s.lacking = cut.level < 0;
  s.level = !s.lacking ? cut.level : attempt ? 0 : max(0, s.level - 16);
  s.room = a.keep - cut.above;
}

// By another one, from the histogram of the blocks of lower rank, whose scores come first.
DEVICE void settle_before(Shared& s, const Counts<8>& counts, int lane) {
  int above = 0, ties = 0;
#pragma unroll
  for (int i = 0; i < 8; i++) {
    above += 8 * lane + i > s.level ? counts.bins[i] : 0;
    ties += 8 * lane + i == s.level ? counts.bins[i] : 0;
  }
  above = warp_sum(above), ties = warp_sum(ties);
  if (lane == 0) s.above_before = above, s.ties_before = ties;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
topn_indices(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x;
  let_next_kernel_start();
  for (int i = threadIdx.x; i < BINS; i += THREADS) s.sample[i] = s.histogram[i] = 0;
  const int length = (a.count + blocks * WARPS * BLOCK - 1) / (blocks * WARPS * BLOCK) * BLOCK;
  Range range;
  range.start = (rank * WARPS + warp) * length;
  range.count = max(0, min(length, a.count - range.start));
  range.scores = a.scores + blockIdx.y * a.row + range.start;
  const Ring ring = {s.ring[warp][0], lane};
  // Not a read: an earlier kernel that still writes scores writes them to the L2 cache, too.
  if (lane == 0 && range.count) bring_closer(range.scores, min(range.count, STAGES * BLOCK));
  wait_for_earlier_kernels();

  const uint2 sampled = sampled_scores(a);  // before all others, or it would queue behind them
  ring.begin(range);
  __syncthreads();
  take_sample(s, sampled);
  __syncthreads();
  if (warp == 0) find_level(s, a, lane);
  __syncthreads();

  List<LISTED> list = {s.list[warp], 0};
  Counts<8> counts;
  for (int attempt = 0;; attempt++) {
    collect(list, s.histogram, ring, range, s.level);
    cluster_barrier();
    if (warp < 2) counts = cluster_counts(s.histogram, warp ? rank : blocks, lane);
    if (warp == 0) settle(s, a, counts, attempt, lane);
    __syncthreads();
    if (!s.lacking) break;
    ring.begin(range);
    cluster_barrier();  // before the histograms that other blocks read are cleared
    for (int i = threadIdx.x; i < BINS; i += THREADS) s.histogram[i] = 0;
    __syncthreads();
  }

  cluster_arrive();  // has read the other blocks' counts: `cluster_wait` below lets them go

  if (warp == 1) settle_before(s, counts, lane);
  const int level = s.level, room = s.room;
  int above = 0, ties = 0;
  walk(range, list, level, lane, [&](u32 over, u32 tie, int) {
    above += __popc(over), ties += __popc(tie);
  });
  above = warp_sum(above), ties = warp_sum(ties);
  if (lane == 0) s.above[warp] = above, s.ties[warp] = ties;
  __syncthreads();
  above = s.above_before + warp_sum(lane < warp ? s.above[lane] : 0);
  ties = s.ties_before + warp_sum(lane < warp ? s.ties[lane] : 0);
  i64* indices = a.indices + (i64)blockIdx.y * a.keep;
  walk(range, list, level, lane, [&](u32 over, u32 tie, int index) {
    const Sums overs(__popc(over), lane), tied(__popc(tie), lane);
    int above_here = above + overs.before, ties_here = ties + tied.before;
    for (u32 hits = over | tie; hits; hits &= hits - 1) {
      const int j = __ffs(hits) - 1, is_over = over >> j & 1;
      if (is_over || ties_here < room)
        indices[above_here + min(ties_here, room)] = range.start + index + j;
      above_here += is_over, ties_here += 1 - is_over;
    }
    above += overs.all, ties += tied.all;
  });
  cluster_wait();
}
