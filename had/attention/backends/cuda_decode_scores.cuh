// Decoding: one-bit tensor-core products of query rows and keys.

// One-bit product of 16 x 256 and 256 x 8 bits, added to c. Lane 4g + t gives word t of each half of
// rows g (low0, high0) and g + 8 (low1, high1), and of column g; it receives the elements (g, 2t),
// (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1).
DEVICE void and_popc(int (&c)[4], u32 low0, u32 low1, u32 high0, u32 high1, u32 low, u32 high) {
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc"
      " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
      : "r"(low0), "r"(low1), "r"(high0), "r"(high1), "r"(low), "r"(high));
}

// A lane's part of the query rows, its place among keys and rows, and the levels of its two rows.
//
// SETS = 2: a product's row holds the bits of keys 2g and 2g + 1; columns 0 .. 3 are the query rows
// against the first, columns 4 .. 7 against the second key, and zero elsewhere. SETS = 1: a product's
// row holds key g and its complement (128 bits), or key g's words and complements (64 bits).
struct Lane {
  int lane, g, t;
  int key;             // offset of the lane's keys
  int row;             // first of its two rows
  u32 low, high;       // its column of the product
  u32 real;            // ALL where the column's words are not padding
  u32 add[2], all[2];  // byte-wise: x + add has its top bit set where x reaches the level

  DEVICE Lane(const Arguments& a, int head, int batch) {
    lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    key = SETS == 2 ? 2 * g + (t >> 1) : g;
    row = SETS == 2 ? 2 * (t & 1) : 2 * t;
    const int column = SETS == 2 ? g & 3 : g;
    const bool mine = column < ROWS && (SETS == 1 || g >> 2 == t >> 1);
    real = mine ? ALL : 0;
    low = high = 0;
    if (!mine) return;
    const u32* words = a.query + batch * a.query_batch +
                       (head * GROUP + column % GROUP) * a.query_head +
                       column / GROUP * a.query_token;
#if WORDS == 4
    low = SETS == 2 ? words[2 * (t & 1)] : words[t];
    high = SETS == 2 ? words[2 * (t & 1) + 1] : ~low;
#else
    low = words[t & 1];
    if (SETS == 1 && t >= 2) low = 0;  // 64 bits and their complement fill half of the depth
    high = SETS == 1 && t >= 2 ? 0 : ~low;
#endif
  }

  DEVICE void set_levels(const Row* rows) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const bool mine = row + i < ROWS;
      const int level = mine ? rows[min(row + i, ROWS - 1)].level : 128;
      add[i] = mine ? (128 - max(level, 1)) * 0x01010101u : 0;
      all[i] = level == 0 ? 0x80808080u : 0;
    }
  }

  // Where byte b of `Scores::x` belongs, given bit 8b + i of a set of hits.
  DEVICE int key_of(int bit) const { return (bit & 24) * SETS + key; }
  DEVICE int row_of(int bit) const { return row + (bit & 1); }
};

// Scores of GROUP_KEYS keys for the lane's two rows: byte b of x[i] belongs to key 8 SETS b + l.key
// and row l.row + i.
struct Scores {
  u32 x[2];

  // `words(key, word)` reads from the group's keys.
  template <class Words>
  DEVICE Scores(const Lane& l, Words words) {
    int c[2][4] = {};
#pragma unroll
    for (int u = 0; u < 2; u++) {
#if WORDS == 4
      if (SETS == 2) {
        const uint2 v = words.pair(32 * u + 2 * l.g, l.t), w = words.pair(32 * u + 16 + 2 * l.g, l.t);
        and_popc(c[u], v.x, w.x, v.y, w.y, l.low, l.high);
        and_popc(c[u], ~v.x, ~w.x, ~v.y, ~w.y, ~l.low & l.real, ~l.high & l.real);
      } else {
        const u32 v = words.word(16 * u + l.g, l.t), w = words.word(16 * u + 8 + l.g, l.t);
        and_popc(c[u], v, w, ~v, ~w, l.low, l.high);
      }
#else
      const u32 v = words.word(16 * SETS * u + SETS * l.g, SETS == 2 ? l.t : l.t & 1);
      const u32 w = words.word(16 * SETS * u + 8 * SETS + SETS * l.g, SETS == 2 ? l.t : l.t & 1);
      and_popc(c[u], v, w, ~v, ~w, l.low, l.high);
#endif
    }
#pragma unroll
    for (int i = 0; i < 2; i++)
      x[i] = c[0][i] | c[0][2 + i] << 8 | c[1][i] << 16 | c[1][2 + i] << 24;
  }

  // Bit 8b + i: that key reaches the level of that row.
  DEVICE u32 hits(const Lane& l) const {
    const u32 first = ((x[0] + l.add[0] | l.all[0]) >> 7) & 0x01010101u;
    const u32 second = ((x[1] + l.add[1] | l.all[1]) >> 6) & 0x02020202u;
    return first | second;
  }

  DEVICE int at(int bit) const { return ((bit & 1 ? x[1] : x[0]) >> (bit & 24)) & 255; }
};

// Words of keys that follow each other in shared memory; `word` may run on into the next key.
struct StagedWords {
  const u32* keys;
  DEVICE u32 word(int key, int word) const { return keys[key * WORDS + word]; }
  DEVICE uint2 pair(int key, int pair) const { return ((const uint2*)(keys + key * WORDS))[pair]; }
};

// The same in global memory; beyond the last word it is repeated.
struct GlobalWords {
  const u32* keys;
  i64 last;
  DEVICE u32 word(int key, int word) const { return keys[min((i64)key * WORDS + word, last)]; }
  DEVICE uint2 pair(int key, int pair) const { return {word(key, 2 * pair), word(key, 2 * pair + 1)}; }
};

// The warp's contiguous range of keys.
struct Range {
  const u32* keys;            // the first one's words
  const unsigned char* mask;  // its byte
  int start, count;

  // The mask's bytes for the lane's keys of the group at `first`, to be loaded ahead of their use.
  DEVICE int4 mask_bytes(int first, const Lane& l) const {
    const auto byte = [&](int b) {
      const int key = first + 8 * SETS * b + l.key;
      return MASKED && key < count ? (int)mask[key] : 0;
    };
    return {byte(0), byte(1), byte(2), byte(3)};
  }

  // Bits 8b and 8b + 1 for the lane's keys of the group at `first` that exist and are allowed.
  DEVICE u32 allowed(int first, const int4& bytes, const Lane& l) const {
    if (!MASKED && first + GROUP_KEYS <= count) return ALL;
    const int byte[4] = {bytes.x, bytes.y, bytes.z, bytes.w};
    u32 bits = 0;
#pragma unroll
    for (int b = 0; b < 4; b++)
      if (MASKED ? byte[b] : first + 8 * SETS * b + l.key < count) bits |= 3u << 8 * b;
    return bits;
  }
};
