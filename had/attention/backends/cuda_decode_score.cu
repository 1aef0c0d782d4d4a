// Exact top-N Hamming attention of a few query rows over a long binary key cache: kernel 1 of 2.
//
// A block owns one split of the keys of one key head, and the up to eight query rows that share it; a
// warp owns a range of the split. All blocks score the same sample of the row's keys, which gives
// each query row a level that a little more than N keys should reach. Warps then score their keys
// with one-bit tensor-core products and list, in order, those that reach the level. Lists and their
// histogram are all that kernel 2 needs. The result does not depend on the sample.

#include "cuda_decode_layout.cuh"
#include "cuda_decode_mask.cuh"
#include "cuda_decode_keys.cuh"
#include "cuda_decode_stream.cuh"

static_assert(WARPS == RANGES && WARPS >= ROWS, "a warp has a range, and finds a row's level");

constexpr int SAMPLE_BLOCKS = 2 / SETS;  // of a warp, in the last stages of its ring
constexpr int SAMPLE = SAMPLE_BLOCKS * BLOCK_KEYS * WARPS;

struct Shared {
  char ring[WARPS][STAGES][BLOCK_BYTES];
  alignas(16) int histogram[ROWS][BINS];
  int level[ROWS];
  int allowed;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host reserves less than the kernel needs");

// The sample is spread over all keys of the row, at irregular distances: first key of a chunk of a
// warp's. Chunks of two keys are sampled together.
DEVICE int sampled_key(const Arguments& a, int warp, int chunk) {
  const u32 distance = a.keys / SAMPLE, i = warp * SAMPLE_BLOCKS * CHUNKS + chunk;
  return (i * distance + __umulhi(i * 2654435761u, distance)) * (4 / WORDS);
}

// As `Ring::fill`, for a block of the warp's part of the sample.
DEVICE void fill_with_sample(const Ring& ring, const Arguments& a, const u32* words, int warp, int b) {
#pragma unroll
  for (int k = 0; k < Ring::COPIES; k++) {
    const i64 key = sampled_key(a, warp, b * CHUNKS + 32 * k + ring.lane);
    copy_16(ring.stage(STAGES - SAMPLE_BLOCKS + b) + ring.places[k], words + key * WORDS);
  }
  close_copies();
}

DEVICE void count_sample(Shared& s, const Arguments& a, const Lane& l, const Ring& ring,
                         const u8* mask, int warp, int b) {
  u32 allowed = 255;
  if (MASKED) {
    allowed = 0;
    for (int j = 0; j < LANE_KEYS; j++) {
      const int chunk = b * CHUNKS + (l.key + j) * WORDS / 4;
      allowed |= (u32)mask[sampled_key(a, warp, chunk) + j % (4 / WORDS)] << j;
    }
  }
  const Scores scores(l, ring.stage(STAGES - SAMPLE_BLOCKS + b));
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int j = 0; j < LANE_KEYS; j++)
      if (l.row + i < ROWS && allowed >> j & 1) atomicAdd(&s.histogram[l.row + i][scores.at(i, j)], 1);
}

// The level that N keys of a row should reach, and a few more; 0, which all reach, if in doubt.
DEVICE int level_of_sample(const Arguments& a, const int* histogram, int lane) {
  const Counts<4> counts = counts_of<4>(histogram, lane);
  const float expected = max((float)a.keep * SAMPLE / a.keys, (float)a.share * count_all(counts));
  return max(find_cut(counts, sample_goal(expected), lane).level, 0);
}

// Levels of all rows, from the sample.
DEVICE void find_levels(Shared& s, const Arguments& a, const Lane& l, const Ring& ring,
                        const u8* mask, int warp) {
  wait_for_copies<STAGES - SAMPLE_BLOCKS>();
  __syncwarp();  // for copies by all lanes
  for (int b = 0; b < SAMPLE_BLOCKS; b++) count_sample(s, a, l, ring, mask, warp, b);
  __syncthreads();
  if (warp < ROWS) {
    const int level = level_of_sample(a, s.histogram[warp], l.lane);
    __syncwarp();
    for (int i = l.lane; i < BINS; i += 32) s.histogram[warp][i] = 0;
    if (l.lane == 0) s.level[warp] = level;
  }
  __syncthreads();
}

// Bits 4j and 4j + 1 for every bit j of eight.
DEVICE u32 spread(u32 bits) {
  bits = (bits | bits << 12) & 0x000f000fu;
  bits = (bits | bits << 6) & 0x03030303u;
  return ((bits | bits << 3) & 0x11111111u) * 3;
}

// Where a lane's two rows list their keys.
struct Lists {
  u32* entries;      // of the first row
  int* histogram;
  u32 next[2];       // free places
  u32 begin[2];

  DEVICE Lists(const Arguments& a, Shared& s, const Lane& l, i64 row, int place) {
    const int r = min(l.row, ROWS - 1);
    entries = kept(a.list + (row + r) * a.row_keys);
    histogram = s.histogram[r];
    next[0] = begin[0] = place, next[1] = begin[1] = place + a.row_keys;
  }

  // Lists the hits of a block, keys in order; `first` is the lane's first key.
  DEVICE void append(const Lane& l, const Scores& scores, u32 hits, int first) {
    const u32 own = __popc(hits & 0x11111111u) | __popc(hits & 0x22222222u) << 16;
    u32 sum = own;  // of the lanes that share the rows, up to this one
#pragma unroll
    for (int step = STEP; step < 32; step *= 2) {
      const u32 other = __shfl_up_sync(ALL, sum, step);
      if (l.lane >= step) sum += other;
    }
    const u32 total = __shfl_sync(ALL, sum, 32 - STEP + l.lane % STEP);
    u32 place0 = next[0] + (sum - own & 0xffff), place1 = next[1] + (sum - own >> 16);
    next[0] += total & 0xffff, next[1] += total >> 16;
    for (; hits; hits &= hits - 1) {
      const int bit = __ffs(hits) - 1, i = bit & 1, j = bit >> 2, score = scores.at(i, j);
      entries[i ? place1 : place0] = (u32)score << 24 | (first + j);
      place0 += 1 - i, place1 += i;
      atomicAdd(histogram + i * BINS + score, 1);
    }
  }
};

extern "C" __global__ void __launch_bounds__(THREADS, 3)
score_keys(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int split = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.histogram[i / BINS][i % BINS] = 0;
  if (threadIdx.x < ROWS) s.level[threadIdx.x] = 0;
  if (threadIdx.x == 0) s.allowed = 0;
  let_next_kernel_start();
  wait_for_earlier_kernels();

  const Ring ring(s.ring[warp][0], lane);
  const int sampled = a.sampled ? SAMPLE_BLOCKS : 0;
  for (int b = 0; b < sampled; b++) fill_with_sample(ring, a, key_words(a, batch, head, 0), warp, b);
  const u8* mask = a.mask + batch * a.mask_batch;
  const int begin = (split * RANGES + warp) * a.range_keys;
  Range range = {begin, max(0, min(a.range_keys, a.keys - begin)), 0, nullptr, mask + begin};
  if (MASKED) leave_out_padding(range, lane);
  range.words = key_words(a, batch, head, range.start);
  const char* words = (const char*)range.words + lane * 16;
  const auto fill = [&](int b) {
    ring.fill(b, words + b * BLOCK_BYTES, range.count - b * BLOCK_KEYS);
  };
  for (int b = 0; b < STAGES - sampled; b++) fill(b);

  Lane l(a, head, batch);
  __syncthreads();  // the histogram is cleared
  if (sampled) find_levels(s, a, l, ring, mask, warp);
  for (int b = STAGES - sampled; b < STAGES; b++) fill(b);
  l.set_levels(s.level);
  const i64 row = (i64)(batch * gridDim.y + head) * ROWS;
  Lists lists(a, s, l, row, begin);
  stream<STAGES>(ring, range, l, [&](const Scores& scores, int key, int left) {
    if (!__any_sync(ALL, scores.any(l))) return;
    u32 hits = scores.hits(l);
    if (MASKED || left < BLOCK_KEYS) hits &= spread(range.allows(key - range.start));
    lists.append(l, scores, hits, key);
  });

#pragma unroll
  for (int i = 0; i < 2; i++)
    if (lane < STEP && l.row + i < ROWS)
      a.listed[((row + l.row + i) * a.splits + split) * RANGES + warp] =
          lists.next[i] - lists.begin[i];
  if (MASKED && lane == 0 && range.allowed) atomicAdd(&s.allowed, range.allowed);
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS)
    a.histogram[((row + i / BINS) * a.splits + split) * BINS + i % BINS] =
        s.histogram[i / BINS][i % BINS];
  if (MASKED && threadIdx.x == 0) a.allowed[row / ROWS * a.splits + split] = s.allowed;
}
