// Exact top-N Hamming attention, kernel 2 of 2: select among the listed keys and average their values.
//
// A cluster of blocks owns one query row. Each block adds up the histograms of the row's splits and
// reads off the level of the N-th key, how many keys at that level are kept, and the softmax's maximum
// and denominator. It numbers the kept keys, the lowest index first, and adds up the weighted values of
// its share of them. The first block adds the blocks' sums in fixed order.

#include "cuda_decode_layout.cuh"
#include "cuda_decode_row.cuh"
#include "cuda_decode_candidates.cuh"
#include "cuda_decode_pick.cuh"
#include "cuda_decode_values.cuh"

DEVICE void stage_again(Shared& s, bool misled, const Listed& listed, const Rescored& rescored,
                        int start, int warp, int lane) {
  __syncthreads();  // the entries before have been read
  if (misled)
    rescored.stage(s.staged, start);
  else
    listed.stage(s.staged, start, warp, lane);
  wait_for_copies<0>();
  __syncthreads();
}

// Adds the warps' sums in order, then the blocks', and divides by the weights' sum. `place` of the
// row in the output.
DEVICE void combine(Shared& s, Sum& sum, const Arguments& a, i64 place, int warp, int lane) {
  const int rank = cluster_rank(), blocks = gridDim.x;
  add_lanes(s.sums[warp], sum, lane);
  __syncthreads();
  const int v = threadIdx.x;
  float whole = 0.f;
  if (v < VALUE)
#pragma unroll
    for (int k = 0; k < WARPS; k++) whole += s.sums[k][v];
  if (blocks > 1) {
    if (v < VALUE) s.part[v] = whole;
    cluster_barrier();
    if (rank == 0 && v < VALUE)
      for (int block = 1; block < blocks; block++) whole += load_remote(&s.part[v], block);
    cluster_barrier();  // no block ends before its sums have been read
  }
  if (rank || v >= VALUE) return;
  write(a.output, place * VALUE + v, s.row.total > 0.f ? whole / s.row.total : 0.f);
  if (PART && v == 0) a.log_sums[place] = log_sum(s.row);
}

extern "C" __global__ void __launch_bounds__(THREADS, 2)
gather_values(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x;
  const int head = blockIdx.y / ROWS, r = blockIdx.y % ROWS, batch = blockIdx.z;
  const int h = head * GROUP + r % GROUP, groups = gridDim.y / ROWS;
  const i64 row = (i64)(batch * groups + head) * ROWS + r;
  let_next_kernel_start();
  wait_for_earlier_kernels();
  const float per_match = log2_per_match(a, batch, h);
  const int elsewhere = kept_elsewhere(a, batch);

  add_up(s, a, row, warp, lane);
  const int ranges = a.splits * RANGES, count = s.first[ranges];
  const Listed listed = {a.list + row * a.row_keys, s.first, ranges, a.range_keys};
  if (count <= STAGED) listed.stage(s.staged, 0, warp, lane);  // while the level is found
  int allowed = a.keys;
  if (MASKED) {
    allowed = 0;
    for (int i = lane; i < a.splits; i += 32) allowed += a.allowed[row / ROWS * a.splits + i];
    allowed = warp_sum(allowed);
  }
  const int keep = keys_to_keep(a, allowed, elsewhere);
  const bool misled = count < keep, staged = !misled && count <= STAGED;
  const Rescored rescored(a, batch, head, r);
  if (misled) count_again(s, rescored);
  if (warp == 0) {
    const Row found = settled(counts_of<4>(s.total, lane), keep, per_match, lane);
    if (lane == 0) s.row = found;
  }
  wait_for_copies<0>();
  __syncthreads();

  const int share = (keep + blocks - 1) / blocks, end = min(keep, (rank + 1) * share);
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * VALUE_BYTES;
  Sum sum = {};
  for (int first = rank * share; first < end; first += PICKS) {
    const int last = min(first + PICKS, end);
    Stretch stretch = {0, misled ? a.keys : count, {0, 0}};
    if (!misled && !staged) stretch = stretch_of(s, a, row, first, last, warp, lane);
    int turn = 0;
    for (int start = stretch.begin; start < stretch.end; start += STAGED, turn ^= 1) {
      if (!staged) stage_again(s, misled, listed, rescored, start, warp, lane);
      const int here = min(STAGED, stretch.end - start);
      pick(s, stretch.before, here, turn, first, last, warp, lane);
    }
    __syncthreads();
    gather<THREADS / LANES, 4>(sum, s.row, s.picks, last - first, values, a.value_key * VALUE_BYTES,
                               threadIdx.x / LANES, lane);
    __syncthreads();  // the picks have been used
  }
  const i64 place = ((i64)batch * a.heads + h) * a.tokens + r / GROUP;
  combine(s, sum, a, place, warp, lane);
}
