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

// A part of a row's scores that one lane looks through, of several lanes in order. Its length is an odd
// multiple of 16: lanes that read together do so from different banks.
struct Section {
  const u8* scores;
  int begin, end;

  DEVICE Section(const u8* scores, int keys, int worker, int workers) : scores(scores) {
    const int length = ((keys + 16 * workers - 1) / (16 * workers) | 1) * 16;
    begin = min(keys, worker * length), end = min(keys, begin + length);
  }

  DEVICE uint4 at(int i) const { return *(const uint4*)(scores + i); }

  DEVICE Found count(int level) const {
    Found found = {0, 0};
    for (int i = begin; i < end; i += 16) {
      const uint4 x = at(i);
      const int above = count_reaching(x, level + 2);
      found.above += above, found.ties += count_reaching(x, level + 1) - above;
    }
    return found;
  }

  // Calls visit(place among the scores, score) for those that reach the level, in order.
  template <class Visit>
  DEVICE void walk(int level, Visit visit) const {
    for (int i = begin; i < end; i += 16)
      for (u32 hits = reaching(at(i), level + 1); hits; hits &= hits - 1) {
        const int place = i + __ffs(hits) - 1;
        visit(place, scores[place] - 1);
      }
  }

  // Notes the kept keys numbered from .. to - 1 of the split. `before`: found in the sections before
  // this one. `ties`: how many of the split's ties are kept, the lowest index first.
  DEVICE void pick(u32* picks, Found before, int level, int ties, int from, int to, int split) const {
    walk(level, [&](int place, int score) {
      const int number = before.above + min(before.ties, ties);
      if ((score > level || before.ties < ties) && from <= number && number < to)
        picks[number - from] = (u32)score << 24 | (split + place);
      before.above += score > level, before.ties += score == level;
    });
  }
};
