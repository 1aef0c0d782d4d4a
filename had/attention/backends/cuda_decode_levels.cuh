// Decoding, steps 1 and 3: the level at which a row's histogram is cut, and the sum of its weights.

DEVICE void take_sample(Shared& s, Ring& ring, const Range& range, const Lane& l, int groups) {
  if (range.count <= 0) return;
  const u32* stage = ring.wait(0, l.lane);
  for (int group = 0; group < groups; group++) {
    const Scores scores(l, StagedWords{stage + group * GROUP_KEYS * WORDS});
    const int first = group * GROUP_KEYS;
    const u32 allowed = range.allowed(first, range.mask_bytes(first, l), l);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int b = 0; b < 4; b++)
        if (l.row + i < ROWS && allowed >> (8 * b) & 1)
          atomicAdd(&s.sample[l.row + i][scores.at(8 * b + i)], 1);
  }
}

// As `keys_to_keep`: N, or the ceiling of the fraction of the allowed keys; never more than allowed.
DEVICE int keys_to_keep(const Arguments& a, int allowed) {
  if (a.fraction == 0.) return min(a.keep, allowed);
  return (int)ceil(__dmul_rn(__dmul_rn(a.fraction, (double)allowed), 1 - 1e-12));
}

// Final level, room and maximum of a row, from counts that hold at least `keep` keys.
DEVICE void settle(Row& row, const Counts<4>& counts, const Cut& cut, int keep, int lane) {
  const Before before = before_block(counts, cut.level, lane);
  int top = counts.last ? 128 : -1;
#pragma unroll
  for (int i = 0; i < 4; i++) top = counts.bins[i] ? max(top, 4 * lane + i) : top;
  top = __reduce_max_sync(ALL, top);
  if (lane == 0) {
    row.level = cut.level, row.room = keep - cut.above, row.top = top;
    row.above = before.above, row.ties = before.ties;
  }
}

// The sum of a settled row's weights.
DEVICE float weight_sum(const Row& row, const Counts<4>& counts, int lane) {
  float total = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int score = 4 * lane + i;
    const int kept = score > row.level ? counts.bins[i] : score == row.level ? row.room : 0;
    if (kept) total += kept * exp2f((score - row.top) * row.per_match);
  }
  // The weight of score 128, if there is any, is 1: no score is larger.
  return warp_sum(total) + (row.level == 128 ? row.room : counts.last);
}
