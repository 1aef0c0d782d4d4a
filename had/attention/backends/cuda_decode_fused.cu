// Exact top-N Hamming attention of a few query rows over a long binary key cache, in one kernel, for
// steps that are so small that all its blocks are resident at a time.
//
// A block owns one split of the keys of one key head, and the up to eight query rows that share it. It
// scores its keys with one-bit tensor-core products, keeps the scores in shared memory and counts them.
// The histograms of all blocks of the head tell each of them the level of the N-th key, how many of its
// own keys at that level are kept, the lowest index first, and the softmax's maximum and denominator. A
// block averages the values of its own kept keys; the blocks' sums are added in fixed order.

#include "cuda_decode_layout.cuh"
#include "cuda_decode_mask.cuh"
#include "cuda_decode_keys.cuh"
#include "cuda_decode_stream.cuh"
#include "cuda_decode_row.cuh"
#include "cuda_decode_values.cuh"
#include "cuda_decode_mail.cuh"
#include "cuda_decode_kept.cuh"

constexpr int FIXED_BYTES = 144000; // of shared memory that the host reserves beside the scores
constexpr int PICKS = 4096;          // kept keys of a row that a block notes at a time
constexpr int TEAM = WARPS / ROWS;   // warps that share a row's scores and values
constexpr int HELPERS = (WARPS - ROWS) / ROWS;  // warps for each row beside the one that settles it
constexpr int GROUPS = TEAM * 32 / LANES;
constexpr int SPARE_BYTES = 32;      // between the scores of two rows: they begin in different banks

// A row's kept keys of this split.
struct Share {
  int count;  // above and at the level
  int ties;   // at the level
};

struct Shared {
  union {
    char ring[WARPS][STAGES][BLOCK_BYTES];
    u32 picks[ROWS][PICKS];  // once all keys have been scored
  };
  alignas(16) float sums[WARPS][VALUE];
  alignas(16) Histogram histogram[ROWS];
  Row row[ROWS];
  Share share[ROWS];
  u32 found[WARPS];  // by a warp in the scores it looks through
};
static_assert(sizeof(Shared) % 16 == 0 && sizeof(Shared) <= FIXED_BYTES,
              "the host reserves less than the kernel needs");

DEVICE void clear(void* memory, int bytes) {
#pragma unroll 1
  for (int i = threadIdx.x * 16; i < bytes; i += THREADS * 16) *(uint4*)((char*)memory + i) = uint4{};
}

// Scores the keys of a warp.
DEVICE void score(Shared& s, u8* kept_scores, int stride, const Arguments& a, int split, int head,
                  int batch, int warp, int lane) {
  const Ring ring(s.ring[warp][0], lane);
  const u8* mask = a.mask + batch * a.mask_batch;
  const int first = split * a.split_keys, end = min(a.keys, first + a.split_keys);
  const int begin = first + warp * a.range_keys;
  Range range = {begin, max(0, min(a.range_keys, end - begin)), 0, nullptr, mask + begin};
  if (MASKED) leave_out_padding(range, lane);
  range.words = key_words(a, batch, head, range.start);
  const char* words = (const char*)range.words + lane * 16;
#pragma unroll 1
  for (int b = 0; b < STAGES; b++)
    ring.fill(b, words + b * BLOCK_BYTES, range.count - b * BLOCK_KEYS);
  const Lane l(a, head, batch);
  __syncthreads();  // scores and histogram are cleared
  stream<1>(ring, range, l, [&](const Scores& scores, int key, int left) {
    const u32 allowed = MASKED || left < BLOCK_KEYS ? range.allows(key - range.start) : 255;
    keep_scores(l, scores, allowed, kept_scores + key - first, stride, s.histogram);
  });
}

// By one warp: what the histograms of all splits mean for a row and for this split's share of it.
DEVICE void settle(Shared& s, const Arguments& a, const Mail& mail, int r, int split, float per_match,
                   int elsewhere, int lane) {
  const AllCounts counts(mail, a.splits, split, lane);
  const int keep = keys_to_keep(a, MASKED ? count_all(counts.all) : a.keys, elsewhere);
  const Row row = settled(counts.all, keep, per_match, lane);
  const Found own = found_in(counts_of<4>(s.histogram[r].bins, lane), row.level, lane);
  const Found before = found_in(counts.before, row.level, lane);
  const int ties = max(0, min(row.room - before.ties, own.ties));
  if (lane == 0) s.row[r] = row, s.share[r] = {own.above + ties, ties};
}

// By the warps that do not settle a row, while the other splits' counts are on their way: brings the
// values of those keys closer that would be kept if all splits were alike.
DEVICE void guess(const Shared& s, const Arguments& a, const u8* kept_scores, int stride, int split,
                  const char* values, int warp, int lane) {
  const int r = (warp - ROWS) % ROWS, helper = (warp - ROWS) / ROWS;
  if (helper >= HELPERS) return;
  const float expected = max((float)a.keep, (float)a.share * a.keys) / a.splits;
  const int wanted = (int)(1.5f * expected) + 1;  // and fewer than that are above the level
  const int level = find_cut(counts_of<4>(s.histogram[r].bins, lane), wanted, lane).level;
  const Section section(kept_scores + r * stride, a.split_keys, helper * 32 + lane, HELPERS * 32);
  section.walk(level + 1, [&](int place, int) {
    const i64 key = (i64)split * a.split_keys + place;
    bring_closer(values + key * a.value_key * VALUE_BYTES, VALUE * VALUE_BYTES);
  });
}

// Adds up the weighted values of this split's kept keys, a team's row each.
DEVICE void average(Shared& s, const Arguments& a, const u8* kept_scores, int stride, int split,
                    const char* values, int warp, int lane) {
  const bool idle = warp >= TEAM * ROWS;
  const int r = idle ? 0 : warp / TEAM, member = warp % TEAM, worker = member * 32 + lane;
  const Row row = s.row[r];
  const Share share = idle ? Share{} : s.share[r];
  const Section section(kept_scores + r * stride, idle ? 0 : a.split_keys, worker, TEAM * 32);
  const u32 found = section.count(row.level).packed();
  u32 before = sum_before((int)found, lane);
  const u32 whole = __reduce_add_sync(ALL, found);
  if (lane == 0) s.found[warp] = whole;
  __syncthreads();
  for (int k = warp - member; k < warp; k++) before += s.found[k];

  int most = 0;
  for (int k = 0; k < ROWS; k++) most = max(most, s.share[k].count);
  Sum sum = {};
  for (int from = 0; from < most; from += PICKS) {
    if (found)
      section.pick(s.picks[r], unpacked(before), row.level, share.ties, from, from + PICKS,
                   split * a.split_keys);
    __syncthreads();
    gather<GROUPS, 8>(sum, row, s.picks[r], min(PICKS, share.count - from), values,
                      a.value_key * VALUE_BYTES, worker / LANES, lane);
    __syncthreads();  // the picks have been used
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
  clear(s.histogram, sizeof(s.histogram));
  clear(kept_scores, ROWS * stride);
  wait_for_earlier_kernels();

  const float per_match = warp < ROWS ? log2_per_match(a, batch, head_of(warp)) : 0.f;
  const int elsewhere = kept_elsewhere(a, batch);
  score(s, kept_scores, stride, a, split, head, batch, warp, lane);
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * COUNT_WORDS; i += THREADS) {
    const int r = i / COUNT_WORDS;
    Mail(a, first + r, rows).post_counts(split, i % COUNT_WORDS, s.histogram[r].bins);
  }
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * VALUE_BYTES;
  if (warp < ROWS)
    settle(s, a, Mail(a, first + warp, rows), warp, split, per_match, elsewhere, lane);
  else
    guess(s, a, kept_scores, stride, split, values, warp, lane);
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
    if (PART && v == 0) a.log_sums[place] = log_sum(s.row[r]);
    mail.empty_counts(a.splits, v, VALUE);
  }
}
