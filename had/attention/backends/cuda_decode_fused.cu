// Exact top-N Hamming attention of a few query rows over a long binary key cache, in one kernel, for
// steps that are so small that all its blocks are resident at a time.
//
// A block owns one split of the keys of one key head, and the up to eight query rows that share it. It
// scores its keys with one-bit tensor-core products, keeps the scores in shared memory and counts them.
// The histograms of all blocks of the head tell each of them the level of the N-th key, how many of its
// own keys at that level are kept, the lowest index first, and the softmax's maximum and denominator. A
// block averages the values of its own kept keys; the blocks' sums are added in fixed order.

#include "cuda_decode_layout.cuh"
#include "cuda_list.cuh"
#include "cuda_decode_mask.cuh"
#include "cuda_decode_keys.cuh"
#include "cuda_decode_stream.cuh"
#include "cuda_decode_row.cuh"
#include "cuda_decode_values.cuh"
#include "cuda_decode_mail.cuh"
#include "cuda_decode_kept.cuh"
#include "cuda_decode_likely.cuh"

constexpr int FIXED_BYTES = 149500;  // of shared memory that the host reserves beside the scores
constexpr int TEAM = WARPS / ROWS;   // warps that share a row's scores and values
constexpr int GROUPS = TEAM * 32 / LANES;
constexpr int SPARE_BYTES = 32;      // between the scores of two rows: they begin in different banks

struct Shared {
  union {
    char ring[WARPS][STAGES][BLOCK_BYTES];
    Likely likely[ROWS];  // once all keys have been scored
  };
  alignas(16) float sums[WARPS][VALUE];
  alignas(16) Histograms histograms;
  Row row[ROWS];
  int room[ROWS];    // for this split's keys at the level
  int picked[ROWS];  // of the listed keys
};
static_assert(sizeof(Shared) % 16 == 0 && sizeof(Shared) <= FIXED_BYTES,
              "the host reserves less than the kernel needs");

DEVICE void clear(void* memory, int bytes) {
#pragma unroll 1
  for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16) *(uint4*)((char*)memory + i) = uint4{};
}

// The keys of a warp.
DEVICE Range range_of(const Arguments& a, int split, int batch, int warp) {
  const int first = split * a.split_keys, end = min(a.keys, first + a.split_keys);
  const int begin = first + warp * a.range_keys;
  const u8* mask = a.mask + batch * a.mask_batch;
  return {begin, max(0, min(a.range_keys, end - begin)), 0, nullptr, mask + begin};
}

// Scores the keys of a warp.
DEVICE void score(Shared& s, u8* kept_scores, int stride, const Arguments& a, Range range, int split,
                  int head, int batch, int warp, int lane) {
  const Ring ring(s.ring[warp][0], lane);
  const int first = split * a.split_keys;
  if (MASKED) leave_out_padding(range, lane);
  range.words = key_words(a, batch, head, range.start);
  const char* words = (const char*)range.words + lane * 16;
#pragma unroll 1
  for (int b = 0; b < STAGES; b++)
    ring.fill(b, words + b * BLOCK_BYTES, range.count - b * BLOCK_KEYS);
  const Lane l(a, head, batch);
  Histogram* histogram = s.histograms.of_lane(lane);
  __syncthreads();  // scores and histogram are cleared
  stream<1>(ring, range, l, [&](const Scores& scores, int key, int left) {
    const u32 allowed = MASKED || left < BLOCK_KEYS ? range.allows(key - range.start) : 255;
    keep_scores(l, scores, allowed, kept_scores + key - first, stride, histogram);
  });
}

// By one warp: what the histograms of all splits mean for a row and for this split's share of it.
DEVICE void settle(Shared& s, const Arguments& a, const Mail& mail, int r, int split, float per_match,
                   int lane) {
  const AllCounts counts(mail, a.splits, split, lane);
  const int keep = keys_to_keep(a, MASKED ? count_all(counts.all) : a.keys);
  const Row row = settled(counts.all, keep, per_match, lane);
  const int room = max(0, row.room - count_at(counts.before, row.level, lane));
  if (lane == 0) s.row[r] = row, s.room[r] = room;
}

// By one of a row's helpers, while the other splits' counts are on their way: lists the keys that may be
// kept, and brings the values of those closer that would be if all splits were alike.
DEVICE void list_likely(Shared& s, const Arguments& a, const u8* scores, int split, const char* values,
                        int r, int helper, int lane) {
  constexpr float OF_ONE_SPLIT = 256;  // keys that often lie side by side
  const Counts<4> counts = s.histograms.counts(r, lane);
  const float keep = max((float)a.keep, (float)a.share * a.keys), expected = keep / a.splits;
  const int wanted = (int)max(2 * expected, min(keep, OF_ONE_SPLIT));
  const int level = max(find_cut(counts, wanted, lane).level, 0);
  const int closer = find_cut(counts, (int)(1.5f * expected) + 1, lane).level;
  s.likely[r].list(scores, 0, a.split_keys, split * a.split_keys, level, helper, lane,
                   [&](int byte, int key) {
                     const char* value = values + key * a.value_key * VALUE_BYTES;
                     if (byte > closer + 1) bring_closer(value, VALUE * VALUE_BYTES);
                   });
}

// Whether all keys have been listed that may be kept.
DEVICE bool all_listed(const Shared& s) {
  bool all = true;
  for (int r = 0; r < ROWS; r++) all &= s.likely[r].complete(s.row[r].level);
  return all;
}

// Lists STRETCH keys of the split from `begin` on, by their rows' levels.
DEVICE void list_again(Shared& s, const Arguments& a, const u8* kept_scores, int stride, int split,
                       int begin, int warp, int lane) {
  const Helper own(warp);
  const int r = own.row, end = min(a.split_keys, begin + STRETCH);
  __syncthreads();  // all warps have done with the lists before
  if (own.helps)
    s.likely[r].list(kept_scores + r * stride, begin, end, split * a.split_keys, s.row[r].level,
                     own.number, lane, [](int, int) {});
  __syncthreads();
}

// Adds up the weighted values of this split's kept keys, a team's row each.
DEVICE void average(Shared& s, const Arguments& a, const u8* kept_scores, int stride, int split,
                    const char* values, int warp, int lane) {
  const bool idle = warp >= TEAM * ROWS, listed = all_listed(s);
  const int r = idle ? 0 : warp / TEAM, worker = warp % TEAM * 32 + lane;
  const Row row = s.row[r];
  Sum sum = {};
  int ties = 0;
  for (int begin = 0; begin < a.split_keys; begin += listed ? a.split_keys : STRETCH) {
    if (!listed) list_again(s, a, kept_scores, stride, split, begin, warp, lane);
    if (warp < ROWS) {
      const int picked = s.likely[warp].pick(s.row[warp].level, s.room[warp], ties, lane);
      if (lane == 0) s.picked[warp] = picked;
    }
    __syncthreads();
    gather<GROUPS, 8>(sum, row, s.likely[r].picks, idle ? 0 : s.picked[r], values,
                      a.value_key * VALUE_BYTES, worker / LANES, lane);
  }
  add_lanes(s.sums[warp], sum, lane);
  __syncthreads();
}

extern "C" __global__ void __launch_bounds__(THREADS, 1)
attend(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  u8* kept_scores = (u8*)memory + sizeof(Shared);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int split = blockIdx.x, head = blockIdx.y, batch = blockIdx.z;
  const i64 rows = (i64)gridDim.z * gridDim.y * ROWS, first = (i64)(batch * gridDim.y + head) * ROWS;
  const int stride = a.split_keys + SPARE_BYTES;
  const auto head_of = [&](int r) { return head * GROUP + r % GROUP; };
  let_next_kernel_start();
  const Range range = range_of(a, split, batch, warp);
  bring_first_closer(key_words(a, batch, head, range.start), range.count, lane);
  clear(&s.histograms, sizeof(s.histograms));
  clear(kept_scores, ROWS * stride);
  wait_for_earlier_kernels();

  const float per_match = warp < ROWS ? log2_per_match(a, batch, head_of(warp)) : 0.f;
  score(s, kept_scores, stride, a, range, split, head, batch, warp, lane);
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * COUNT_WORDS; i += THREADS) {
    const int r = i / COUNT_WORDS, word = i % COUNT_WORDS;
    Mail(a, first + r, rows)
        .post_counts(split, word, s.histograms.count(r, 2 * word), s.histograms.count(r, 2 * word + 1));
  }
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * VALUE_BYTES;
  if (warp < ROWS)
    settle(s, a, Mail(a, first + warp, rows), warp, split, per_match, lane);
  else if (const Helper own(warp); own.helps)
    list_likely(s, a, kept_scores + own.row * stride, split, values, own.row, own.number, lane);
  __syncthreads();
  average(s, a, kept_scores, stride, split, values, warp, lane);

  const int v = threadIdx.x % VALUE;
  for (int r = threadIdx.x / VALUE; r < ROWS; r += THREADS / VALUE) {
    float sum = 0.f;
#pragma unroll
    for (int k = 0; k < TEAM; k++) sum += s.sums[r * TEAM + k][v];
    Mail(a, first + r, rows).post_sum(split, v, sum);
  }
  // The splits share the rows.
  for (int r = split + a.splits * (threadIdx.x / VALUE); r < ROWS; r += a.splits * (THREADS / VALUE)) {
    const Mail mail(a, first + r, rows);
    const float sum = mail.collect_sums(a.splits, v), total = s.row[r].total;
    const i64 place = ((i64)batch * a.heads + head_of(r)) * a.tokens + r / GROUP;
    write(a.output, place * VALUE + v, total > 0.f ? sum / total : 0.f);
    mail.empty_counts(a.splits, v, VALUE);
  }
}
