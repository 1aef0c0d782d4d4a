// Decoding in one kernel: the scores of a split's keys, which stay in shared memory.
//
// A byte each, row by row: 0 where there is no key or the mask forbids it, otherwise one more than the
// key's score. So a key reaches a level where its byte reaches level + 1.

// Set bytes for the set ones of four bits.
DEVICE u32 whole_bytes(u32 bits) { return (bits * 0x00204081u & 0x01010101u) * 255; }

// A row's histogram, by bytes: the score of a byte is one less, and bytes of 0 are counted in vain.
struct Histogram {
  int spare[3], none;
  int bins[BINS];  // aligned to 16 bytes
};

// The rows' histograms, in two parts for neighbours that score the same row: lanes that count the same
// score wait for each other, and the most frequent ones are many. Parts and rows that are counted
// together have their middles in different banks.
struct Histograms {
  Histogram part[2][ROWS | 1];

  DEVICE Histogram* of_lane(int lane) { return part[lane / STEP & 1]; }

  DEVICE int count(int r, int score) const {
    return part[0][r].bins[score] + part[1][r].bins[score];
  }

  DEVICE Counts<4> counts(int r, int lane) const {
    return counts_of<4>(part[0][r].bins, lane) + counts_of<4>(part[1][r].bins, lane);
  }
};

// Keeps the scores of a lane's keys for its two rows, and counts them. Bit j of `allowed`: key j counts.
// `place`: of the first key, among the scores of a row, which are `stride` apart.
DEVICE void keep_scores(const Lane& l, const Scores& scores, u32 allowed, u8* place, int stride,
                        Histogram* histograms) {
  const u32 low = whole_bytes(allowed & 15), high = whole_bytes(allowed >> 4);
#pragma unroll
  for (int i = 0; i < 2; i++) {
    if (l.row + i >= ROWS) break;
    uint2 x = scores.in_order(i);
    x = {x.x + 0x01010101u & low, x.y + 0x01010101u & high};
    *(uint2*)(place + (l.row + i) * stride) = x;
    int* counts = &histograms[l.row + i].none;
#pragma unroll
    for (int j = 0; j < LANE_KEYS; j++)
      atomicAdd(counts + __byte_perm(j < 4 ? x.x : x.y, 0, 0x4440 | j % 4), 1);
  }
}
