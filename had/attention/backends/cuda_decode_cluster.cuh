// Decoding in one kernel: how the blocks that share a key head tell each other what they have found, if
// they are a cluster: they read it in each other's shared memory.

constexpr int TOGETHER = 16;  // blocks whose shared memory is being read at a time

// What the blocks of a key head exchange: of each row a histogram, and then the weighted values.
struct Exchange {
  int splits, split;  // and this block's

  DEVICE Exchange(const Arguments& a, i64, i64, int split) : splits(a.splits), split(split) {}

  // By all threads, and so is all else that names no row.
  DEVICE void send_counts(const Histogram*) const { cluster_arrive(); }
  DEVICE void await_counts() const { cluster_wait(); }

  // By one warp: the histograms of a row. `own`: that of this block.
  DEVICE AllCounts all_counts(int, const Histogram& own, int lane) const {
    AllCounts found = {};
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      int4 bins[TOGETHER];
#pragma unroll
      for (int i = 0; i < TOGETHER; i++)
        bins[i] = first + i < splits ? load_remote4(own.bins + 4 * lane, first + i) : int4{};
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) found.add(bins[i], first + i < split);
    }
    for (int i = lane; i < splits; i += 32) found.add_last(load_remote(own.bins + 128, i), i < split);
    return found.of_warp();
  }

  DEVICE void send_sum(int, int, float*) const {}
  DEVICE void await_sums() const { cluster_barrier(); }

  // The sum of all splits, in order. `place`: of this block's.
  DEVICE float all_sums(int, int, const float* place) const {
    float whole = 0.f;
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      float sums[TOGETHER];
#pragma unroll
      for (int i = 0; i < TOGETHER; i++)
        sums[i] = first + i < splits ? load_remote(place, first + i) : 0.f;
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) whole += sums[i];
    }
    return whole;
  }

  DEVICE void leave_row(int, int) const {}

  // No block ends before its sums have been read.
  DEVICE void leave() const { cluster_barrier(); }
};
