// What the CUDA kernels share: sums over a warp, the search for the level (score) at which a histogram
// of scores is cut, and the comparison of scores with a level, four at a time.

#include "cuda_device.cuh"

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

// One row's histogram: lane l holds the bins N l .. N l + N - 1, and every lane the last bin, 32 N.
template <int N>
struct Counts {
  int bins[N], last;
};

// From shared memory, aligned to 16 bytes.
template <int N>
DEVICE Counts<N> counts_of(const int* histogram, int lane) {
  Counts<N> counts;
#pragma unroll
  for (int part = 0; part < N; part += 4) {
    const int4 v = *(const int4*)(histogram + N * lane + part);
    counts.bins[part] = v.x, counts.bins[part + 1] = v.y;
    counts.bins[part + 2] = v.z, counts.bins[part + 3] = v.w;
  }
  counts.last = histogram[32 * N];
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

// The top bits of the bytes of x that reach the level.
DEVICE u32 tops_reaching(u32 x, u32 level) {
  const u32 low = (x & 0x7f7f7f7fu) + (0x80 - (level & 0x7f)) * 0x01010101u;
  return (level & 0x80 ? x & low : x | low) & 0x80808080u;
}

// Bit b: byte b of x reaches the level.
DEVICE u32 reaching(u32 x, u32 level) { return tops_reaching(x, level) * 0x00204081u >> 28; }

// Bit b: byte b of sixteen reaches the level.
DEVICE u32 reaching(const uint4& x, u32 level) {
  return reaching(x.x, level) | reaching(x.y, level) << 4 | reaching(x.z, level) << 8 |
         reaching(x.w, level) << 12;
}

// How many bytes of sixteen reach the level.
DEVICE int count_reaching(const uint4& x, u32 level) {
  return __popc(tops_reaching(x.x, level) | tops_reaching(x.y, level) >> 1 |
                tops_reaching(x.z, level) >> 2 | tops_reaching(x.w, level) >> 3);
}

// How many scores of a sample to let through, where `expected` are wanted, so that hardly ever too
// few of all scores pass: four standard deviations more.
DEVICE int sample_goal(float expected) { return (int)(expected + 4.f * sqrtf(expected) + 4.f); }
