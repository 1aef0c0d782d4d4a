// Exact top-N Hamming attention of a few query rows over a long binary key cache, in one kernel.
//
// A cluster of thread blocks owns one key head of one sequence, and the up to eight query rows that
// share it. Its keys are dealt out to the warps of all blocks in order, a contiguous range each.
//
//   1 sample   Every warp scores the first 32 keys of its range. From the cluster's histogram of
//              those scores each row gets a level that a little more than N keys should reach.
//   2 stream   Warps score their keys with one-bit tensor-core products; keys that reach the level
//              go to the warp's list, in order, and into the row's histogram.
//   3 settle   The histogram gives the level of the N-th key, how many of the keys at that level
//              are still kept, and the softmax's maximum and denominator. Had the sample misled
//              (fewer than N keys on the lists), step 2 is repeated with a lower level.
//   4 share    The kept keys of a row are numbered and dealt out evenly to the blocks of the cluster,
//              wherever they were found.
//   5 gather   Every block adds up its share of weighted values; the sums are added in fixed order.
//
// Nothing but the output is written to global memory. The result does not depend on the sample.
//
// match = popc([q, ~q] & [k, ~k]) is the number of equal bits, one AND.POPC instruction for 16 keys
// and 8 rows. Compile-time constants: WORDS (32-bit words of a key, 2 or 4), VALUE (width of a
// value, 64 or 128), BFLOAT16 (else float16), ROWS (1 .. 8), GROUP (heads that share a key head),
// MASKED, SHARED_BYTES.

#include "cuda_common.cuh"
#include "cuda_decode_layout.cuh"
#include "cuda_decode_scores.cuh"
#include "cuda_decode_stream.cuh"
#include "cuda_decode_levels.cuh"
#include "cuda_decode_gather.cuh"

extern "C" __global__ void __launch_bounds__(THREADS, 1)
hamming_decode(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) char memory[];
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x, head = blockIdx.y, batch = blockIdx.z;
  STAMP(0)

  const int unit = blocks * WARPS * GROUP_KEYS, length = (a.keys + unit - 1) / unit * GROUP_KEYS;
  Range range;
  range.start = (rank * WARPS + warp) * length;
  range.count = max(0, min(length, a.keys - range.start));
  range.keys = a.key + batch * a.key_batch + head * a.key_head + (i64)range.start * WORDS;
  range.mask = MASKED ? a.mask + batch * a.mask_batch + range.start : nullptr;

  Ring ring = {s, warp, range, 0};
  if (lane == 0)
    for (int i = 0; i < STAGES; i++) barrier_init(ring.arrived(i));
  if (threadIdx.x == 0) barrier_init(&s.picked), barrier_init(&s.summed), s.allowed = 0;
  if (lane == 0) barrier_init_fence();
  __syncwarp();
  ring.fill(0, 1, lane);  // the sample is in the first stage, which the others must not delay

  Lane l(a, head, batch);
  for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.sample[0][i] = s.histogram[0][i] = 0;
  for (int i = threadIdx.x; i < ROWS * WARPS; i += THREADS) s.above[0][i] = s.ties[0][i] = 0;
  if (threadIdx.x < ROWS) {
    const int r = threadIdx.x;
    const float gain = a.gain ? a.gain[batch * a.gain_batch + (head * GROUP + r % GROUP) * a.gain_head]
                              : a.gain_number;
    s.row[r].per_match = 2.f * gain * 1.4426950408889634f;
  }
  __syncthreads();
  ring.fill(1, STAGES, lane);

  const bool complete = length <= GROUP_KEYS;  // the sample is everything
  take_sample(s, ring, range, l, min(blocks < 8 ? GROUPS : 1, length / GROUP_KEYS));
  if (MASKED) {
    int allowed = 0;
    for (int key = lane; key < range.count; key += 32) allowed += range.mask[key] != 0;
    allowed = warp_sum(allowed);
    if (lane == 0 && allowed) atomicAdd(&s.allowed, allowed);
  }
  cluster_barrier();
  STAMP(1)
  int allowed = a.keys;
  if (MASKED) allowed = warp_sum(lane < blocks ? load_remote(&s.allowed, lane) : 0);
  const int keep = keys_to_keep(a, allowed);
  Counts<4> counts;  // of row `warp`
  if (warp < ROWS) {
    counts = cluster_counts<4>(s.sample[warp], rank, blocks, lane);
    const int sampled = complete ? 0 : count_all(counts);
    const Cut cut = find_cut(counts, complete ? keep : sample_goal(keep, sampled, allowed), lane);
    if (complete)
      settle(s.row[warp], counts, cut, keep, lane);
    else if (lane == 0)
      s.row[warp].level = max(cut.level, 0);
  }
  STAMP(2)

  int listed;
  for (int attempt = 0;; attempt++) {
    if (threadIdx.x == 0) s.lacking = 0;
    __syncthreads();
    l.set_levels(s.row);
    listed = stream(ring, range, l, s.list[warp], s.histogram);
    STAMP(3)
    if (complete) break;
    cluster_barrier();
    STAMP(4)
    if (warp < ROWS) {
      counts = cluster_counts<4>(s.histogram[warp], rank, blocks, lane);
      const Cut cut = find_cut(counts, keep, lane);
      if (cut.total >= keep) {
        settle(s.row[warp], counts, cut, keep, lane);
      } else if (lane == 0) {  // the sample misled: fewer than N keys reach the level
        s.row[warp].level = attempt ? 0 : max(0, s.row[warp].level - 6);
        s.lacking = 1;
      }
    }
    __syncthreads();
    if (!s.lacking) break;
    cluster_barrier();  // before the histograms that other blocks read are cleared
    for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.histogram[0][i] = 0;
    ring.fill(0, STAGES, lane);
    __syncthreads();
  }
  cluster_arrive();  // has read the other blocks' counts: `cluster_wait` below lets them go

  const int share = max(1, min(PICKS, (keep + blocks - 1) / blocks));
  const auto picks_from = [&](int first) { return max(0, min(share, keep - first - rank * share)); };
  if (threadIdx.x == 0) {
    barrier_expect(&s.picked, picks_from(0) * ROWS * 4);
    const int rows = rank < ROWS ? (ROWS - 1 - rank) / blocks + 1 : 0;
    barrier_expect(&s.summed, rows * blocks * VALUE * 4);
  }
  l.set_levels(s.row);
  number_kept(s, range, l, listed, warp);
  const int cut = tie_cut(s, range, l, listed, warp);
  STAMP(5)
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * 2;
  Sum sum = {};
  for (int first = 0, parity = 0; first < keep; first += blocks * share, parity ^= 1) {
    if (first) {
      cluster_wait();
      cluster_barrier();  // the picks of the previous window have been used, by all warps
      if (threadIdx.x == 0) barrier_expect(&s.picked, picks_from(first) * ROWS * 4);
      cluster_arrive();
    }
    share_out(s, range, l, listed, warp, cut, first, share, blocks);
    if (first == 0 && warp < ROWS) {
      const float total = weight_sum(s.row[warp], counts, lane);
      if (lane == 0) s.row[warp].total = total;
    }
    barrier_wait(&s.picked, parity);
    STAMP(6)
    gather(sum, s, values, a.value_key, picks_from(first), warp, lane);
  }
  STAMP(7)
  if (keep == 0 && warp < ROWS && lane == 0) s.row[warp].total = 0.f;
  combine(s, sum, a, warp, lane, rank, blocks, head, batch);
  cluster_wait();
}
