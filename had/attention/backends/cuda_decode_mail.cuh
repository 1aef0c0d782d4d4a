// Decoding in one kernel: how the blocks that share a key head tell each other what they have found, if
// they are no cluster: by words in memory.
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

// What the blocks of a key head exchange: of each row a histogram, and then the weighted values.
struct Exchange {
  u32 *counts, *sums;  // of the first row: (splits, COUNT_WORDS) and (splits, VALUE), row by row
  int splits, split;   // and this block's

  // `first`: the head's first row, of `rows` of all heads.
  DEVICE Exchange(const Arguments& a, i64 first, i64 rows, int split)
      : splits(a.splits), split(split) {
    counts = a.mail + first * splits * COUNT_WORDS;
    sums = a.mail + rows * splits * COUNT_WORDS + first * splits * VALUE;
  }

  DEVICE u32* counts_of_row(int r) const { return counts + (i64)r * splits * COUNT_WORDS; }
  DEVICE u32* sums_of_row(int r) const { return sums + (i64)r * splits * VALUE; }

  // By all threads. A split has fewer than 2^16 - 1 keys, so that no word is EMPTY.
  DEVICE void send_counts(const Histogram* histograms) const {
    for (int i = threadIdx.x; i < ROWS * COUNT_WORDS; i += THREADS) {
      const int r = i / COUNT_WORDS, word = i % COUNT_WORDS;
      const int* bins = histograms[r].bins + 2 * word;
      post(counts_of_row(r) + split * COUNT_WORDS + word, bins[0] | bins[1] << 16);
    }
  }

  DEVICE void await_counts() const {}

  // By one warp: the histograms of a row.
  DEVICE AllCounts all_counts(int r, const Histogram&, int lane) const {
    AllCounts found = {};
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      const u32* here = counts_of_row(r) + first * COUNT_WORDS;
      const u32* last_place = here + min(lane, splits - first - 1) % TOGETHER * COUNT_WORDS + 64;
      u32 last = look(last_place);
      uint2 pairs[TOGETHER];
      receive<COUNT_WORDS / 2>(pairs, (const uint2*)here + lane, splits - first);
      for (int looks = 0; is_empty(last); looks++) {
        if (looks == MOST_LOOKS) give_up();
        last = look(last_place);
      }
#pragma unroll
      for (int i = 0; i < TOGETHER; i++)
        found.add({(int)(pairs[i].x & 0xffff), (int)(pairs[i].x >> 16), (int)(pairs[i].y & 0xffff),
                   (int)(pairs[i].y >> 16)},
                  first + i < split);
      found.add_last(lane < TOGETHER && first + lane < splits ? last : 0, first + lane < split);
    }
    return found.of_warp();
  }

  DEVICE void send_sum(int r, int v, float* place) const {
    const u32 bits = __float_as_uint(*place);
    post(sums_of_row(r) + split * VALUE + v, is_empty(bits) ? 0x7fffffffu : bits);  // one NaN for another
  }

  DEVICE void await_sums() const {}

  // The sum of all splits, in order, by the one thread that reads them.
  DEVICE float all_sums(int r, int v, const float*) const {
    float whole = 0.f;
#pragma unroll 1
    for (int first = 0; first < splits; first += TOGETHER) {
      u32* place = sums_of_row(r) + first * VALUE + v;
      u32 words[TOGETHER];
      receive<VALUE>(words, place, splits - first);
#pragma unroll
      for (int i = 0; i < TOGETHER; i++) whole += __uint_as_float(words[i]);
#pragma unroll 1
      for (int i = 0; i < min(TOGETHER, splits - first); i++) post(place + i * VALUE, EMPTY);
    }
    return whole;
  }

  // By the threads that have read a row's sums.
  DEVICE void leave_row(int r, int v) const {
#pragma unroll 1
    for (int i = v; i < splits * COUNT_WORDS; i += VALUE) post(counts_of_row(r) + i, EMPTY);
  }

  DEVICE void leave() const {}
};
