// Decoding, kernel 2: which keys of a row are kept.

constexpr int PICKS = 4096;  // kept keys that a block notes at a time
constexpr int MOST_SPLITS = MOST_RANGES / RANGES;
static_assert(MOST_RANGES == THREADS, "a thread counts a range");
static_assert(MOST_SPLITS == 64 && MOST_SPLITS % WARPS == 0, "a lane looks at two splits");

struct Shared {
  u32 staged[STAGED];
  u32 picks[PICKS];
  alignas(16) float sums[WARPS][VALUE];
  float part[VALUE];
  alignas(16) int total[BINS];
  int first[MOST_RANGES + 1];
  int listed[WARPS];                    // in the ranges of a warp's threads
  int above[2][WARPS], ties[2][WARPS];  // keys above and at the level that a warp has found
  Found of_split[MOST_SPLITS];
  Row row;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host reserves less than the kernel needs");

// The row's histogram and where in the sequence of entries each range begins.
DEVICE void add_up(Shared& s, const Arguments& a, i64 row, int warp, int lane) {
  const int ranges = a.splits * RANGES, range = threadIdx.x;
  const int listed = range < ranges ? a.listed[row * ranges + range] : 0;
  if (threadIdx.x < BINS) {
    const int* bin = a.histogram + row * a.splits * BINS + threadIdx.x;
    int total = 0;
    for (int split = 0; split < a.splits; split += 16)
#pragma unroll
      for (int i = 0; i < 16; i++)  // loads that do not wait for each other
        total += split + i < a.splits ? bin[(split + i) * BINS] : 0;
    s.total[threadIdx.x] = total;
  }
  const int before = sum_before(listed, lane);
  if (lane == 31) s.listed[warp] = before + listed;
  __syncthreads();
  const int first = before + warp_sum(lane < warp ? s.listed[lane] : 0);
  if (range <= ranges) s.first[range] = first;
  if (range == THREADS - 1) s.first[THREADS] = first + listed;
  __syncthreads();
}

// The histogram of all keys, scored again.
DEVICE void count_again(Shared& s, const Rescored& source) {
  __syncthreads();
  for (int bin = threadIdx.x; bin < BINS; bin += THREADS) s.total[bin] = 0;
  __syncthreads();
#pragma unroll 1
  for (int key = threadIdx.x; key < source.count; key += THREADS) {
    const u32 entry = source.entry(key);
    if (entry != NO_KEY) atomicAdd(&s.total[entry >> 24], 1);
  }
  __syncthreads();
}

// Notes the keys numbered from .. to - 1 among the first `count` staged entries, the lowest index
// first. `before`: what has been found in the entries before these; is brought up to date.
DEVICE void pick(Shared& s, Found& before, int count, int turn, int from, int to, int warp, int lane) {
  const int level = s.row.level, room = s.row.room;
  const u32 below = (1u << lane) - 1;
  const int length = (count + 32 * WARPS - 1) / (32 * WARPS) * 32;
  const int begin = warp * length, end = min(count, begin + length);
  int above = 0, ties = 0;
  for (int i = begin + lane; i < end; i += 32) {
    const int score = s.staged[i] >> 24;
    above += score > level && s.staged[i] != NO_KEY, ties += score == level;
  }
  above = warp_sum(above), ties = warp_sum(ties);
  if (lane == 0) s.above[turn][warp] = above, s.ties[turn][warp] = ties;
  __syncthreads();
  above = lane < WARPS ? s.above[turn][lane] : 0, ties = lane < WARPS ? s.ties[turn][lane] : 0;
  const Found found = {before.above + warp_sum(above), before.ties + warp_sum(ties)};
  above = before.above + warp_sum(lane < warp ? above : 0);
  ties = before.ties + warp_sum(lane < warp ? ties : 0);
  before = found;
  for (int i = begin; i < end; i += 32) {
    const u32 entry = i + lane < end ? s.staged[i + lane] : NO_KEY;
    const int score = entry >> 24;
    const bool over = score > level && entry != NO_KEY, tie = score == level;
    const u32 overs = __ballot_sync(ALL, over), tied = __ballot_sync(ALL, tie);
    const int ties_before = ties + __popc(tied & below);
    const int number = above + __popc(overs & below) + min(ties_before, room);
    if ((over || tie && ties_before < room) && from <= number && number < to)
      s.picks[number - from] = entry;
    above += __popc(overs), ties += __popc(tied);
  }
}

// Part of the sequence of entries, and what has been found before it.
struct Stretch {
  int begin, end;
  Found before;
};

// What has been found in each split, of which there may be MOST_SPLITS.
DEVICE void find_in_splits(Shared& s, const Arguments& a, i64 row, int warp, int lane) {
  constexpr int TURNS = MOST_SPLITS / WARPS;
  Found found[TURNS];
#pragma unroll
  for (int i = 0; i < TURNS; i++) {
    const int split = min(warp + i * WARPS, a.splits - 1);
    const int* histogram = a.histogram + (row * a.splits + split) * BINS;
    found[i] = found_in(counts_of<4>(histogram, lane), s.row.level, lane);
  }
  if (lane) return;
#pragma unroll
  for (int i = 0; i < TURNS; i++) {
    const int split = warp + i * WARPS;
    s.of_split[split] = split < a.splits ? found[i] : Found{0, 0};
  }
}

// The splits in which the keys numbered from .. to - 1 lie; a lane looks at two.
DEVICE Stretch stretch_of(Shared& s, const Arguments& a, i64 row, int from, int to, int warp, int lane) {
  find_in_splits(s, a, row, warp, lane);
  __syncthreads();
  const Found first = s.of_split[2 * lane], second = s.of_split[2 * lane + 1];
  const Found before = {sum_before(first.above + second.above, lane),
                        sum_before(first.ties + second.ties, lane)};
  const Found between = before + first, after = between + second;
  const auto splits = [](bool first, bool second) {
    return __popc(__ballot_sync(ALL, first)) + __popc(__ballot_sync(ALL, second));
  };
  const auto kept = [&](const Found& found) { return found.above + min(found.ties, s.row.room); };
  const int skipped = splits(kept(between) <= from, kept(after) <= from);
  const int reached = splits(kept(before) < to, kept(between) < to);
  const int above = skipped & 1 ? between.above : before.above;
  const int ties = skipped & 1 ? between.ties : before.ties;
  const Found found = {__shfl_sync(ALL, above, skipped / 2), __shfl_sync(ALL, ties, skipped / 2)};
  return {s.first[skipped * RANGES], s.first[reached * RANGES], found};
}
