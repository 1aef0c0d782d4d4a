// Decoding: what a row's histogram says about its kept keys and their weights.

struct Row {
  int level;        // of the last kept key
  int room;         // keys at the level that are kept
  int top;          // the largest score
  float per_match;  // log2 of the weight that one more equal bit brings
  float total;      // sum of the weights
};

// Numbers of keys above and at the level.
struct Found {
  int above, ties;

  DEVICE Found operator+(const Found& other) const {
    return {above + other.above, ties + other.ties};
  }

  // In one word, to be added up together: of fewer than 2^16 keys.
  DEVICE u32 packed() const { return above | ties << 16; }
};

DEVICE Found unpacked(u32 word) { return {(int)(word & 0xffff), (int)(word >> 16)}; }

DEVICE float log2_per_match(const Arguments& a, int batch, int h) {
  const float gain = a.gain ? a.gain[batch * a.gain_batch + h * a.gain_head] : a.gain_number;
  return 2.f * gain * 1.4426950408889634f;
}

// The sum of a row's weights, of which the largest is 1.
DEVICE float weight_sum(const Row& row, const Counts<4>& counts, int lane) {
  float total = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int score = 4 * lane + i;
    const int kept = score > row.level ? counts.bins[i] : score == row.level ? row.room : 0;
    if (kept) total += kept * exp2f((score - row.top) * row.per_match);
  }
  return warp_sum(total) + (row.level == 128 ? row.room : counts.last);
}

// Of the exponentials of the kept keys' scores, gain * (2 * equal bits - bits of a key).
DEVICE float log_sum(const Row& row) {
  if (!(row.total > 0.f)) return __uint_as_float(0xff800000u);  // minus infinity
  return 0.6931471805599453f * ((row.top - 16 * WORDS) * row.per_match + log2f(row.total));
}

// By one warp, from the histogram of all keys of a row.
DEVICE Row settled(const Counts<4>& counts, int keep, float per_match, int lane) {
  const Cut cut = find_cut(counts, keep, lane);
  int top = counts.last ? 128 : -1;
#pragma unroll
  for (int i = 0; i < 4; i++) top = counts.bins[i] ? max(top, 4 * lane + i) : top;
  top = __reduce_max_sync(ALL, top);
  Row row = {cut.level, keep - cut.above, top, per_match, 0.f};
  row.total = weight_sum(row, counts, lane);
  return row;
}

// By one warp, from the histogram of some keys of a row.
DEVICE Found found_in(const Counts<4>& counts, int level, int lane) {
  Found found = {0, 0};
#pragma unroll
  for (int i = 0; i < 4; i++) {
    found.above += 4 * lane + i > level ? counts.bins[i] : 0;
    found.ties += 4 * lane + i == level ? counts.bins[i] : 0;
  }
  const int last = level < 128 ? counts.last : 0;
  return {warp_sum(found.above) + last, warp_sum(found.ties) + counts.last - last};
}
