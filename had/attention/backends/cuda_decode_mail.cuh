// Decoding in one kernel: how the blocks that share a key head tell each other what they have found.
//
// All words of the mail are EMPTY between launches. A block posts other words, and whoever wants them
// looks until they are there: that a word has come needs no sign but the word, no barrier, and no order
// among words. The block that reads a row's sums, which come after all else, leaves the row's mail EMPTY.

constexpr u32 EMPTY = ALL;
constexpr int COUNT_WORDS = BINS / 2;  // of a histogram: two bins each
constexpr int MOST_LOOKS = 1 << 24;    // ten seconds: blocks that are not all resident wait in vain
constexpr int TOGETHER = 16;           // blocks whose mail is on its way at a time

DEVICE bool is_empty(u32 word) { return word == EMPTY; }
DEVICE bool is_empty(const uint2& words) { return words.x == EMPTY || words.y == EMPTY; }

// What comes at the first `count` of TOGETHER places, STRIDE apart; zero for the others.
template <int STRIDE, class T>
DEVICE void receive(T (&words)[TOGETHER], const T* place, int count) {
#pragma unroll 1
  for (int looks = 0;; looks++) {
    bool missing = false;
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) words[i] = i < count ? look(place + i * STRIDE) : T{};
#pragma unroll
    for (int i = 0; i < TOGETHER; i++) missing |= is_empty(words[i]);
    if (!missing) return;
    if (looks == MOST_LOOKS) give_up();
  }
}

// The mail of one row: its histogram and its weighted values from each of the splits.
struct Mail {
  u32* counts;  // (splits, COUNT_WORDS)
  u32* sums;    // (splits, VALUE)

  DEVICE Mail(const Arguments& a, i64 row, i64 rows) {
    counts = a.mail + row * a.splits * COUNT_WORDS;
    sums = a.mail + rows * a.splits * COUNT_WORDS + row * a.splits * VALUE;
  }

  // A split has fewer than 2^16 - 1 keys, so that no word is EMPTY.
  DEVICE void post_counts(int split, int word, const int* histogram) const {
    post(counts + split * COUNT_WORDS + word, histogram[2 * word] | histogram[2 * word + 1] << 16);
  }

  DEVICE void post_sum(int split, int v, float sum) const {
    const u32 bits = __float_as_uint(sum);
    post(sums + split * VALUE + v, is_empty(bits) ? 0x7fffffffu : bits);  // one NaN for another
  }

  // The sum of all splits, in order, by the one thread that reads them.
  DEVICE float collect_sums(int splits, int v) const {
    float whole = 0.f;
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      u32* place = sums + first * VALUE + v;
      u32 words[TOGETHER];
      receive<VALUE>(words, place, splits - first);
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) whole += __uint_as_float(words[i]);
#pragma unroll 1
      for (int i = 0; i < min(TOGETHER, splits - first); i++) post(place + i * VALUE, EMPTY);
    }
    return whole;
  }

  DEVICE void empty_counts(int splits, int worker, int workers) const {
#pragma unroll 1
    for (int i = worker; i < splits * COUNT_WORDS; i += workers) post(counts + i, EMPTY);
  }
};

// A row's histogram from all splits. `before`: from those before this one, whose keys come first.
struct AllCounts {
  Counts<4> all, before;

  // By one warp.
  DEVICE AllCounts(const Mail& mail, int splits, int split, int lane) : all{}, before{} {
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      const u32* counts = mail.counts + first * COUNT_WORDS;
      const u32* last_place = counts + min(lane, splits - first - 1) % TOGETHER * COUNT_WORDS + 64;
      u32 last = look(last_place);
      uint2 pairs[TOGETHER];
      receive<COUNT_WORDS / 2>(pairs, (const uint2*)counts + lane, splits - first);
      for (int looks = 0; is_empty(last); looks++) {
        if (looks == MOST_LOOKS) give_up();
        last = look(last_place);
      }
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) {
        const int own[4] = {(int)(pairs[i].x & 0xffff), (int)(pairs[i].x >> 16),
                            (int)(pairs[i].y & 0xffff), (int)(pairs[i].y >> 16)};
#pragma unroll
        for (int k = 0; k < 4; k++) {
          all.bins[k] += own[k];
          if (first + i < split) before.bins[k] += own[k];
        }
      }
      const int split_here = first + lane;
      if (lane >= TOGETHER || split_here >= splits) last = 0;
      all.last += last, before.last += split_here < split ? last : 0;
    }
    all.last = warp_sum(all.last), before.last = warp_sum(before.last);
  }
};
