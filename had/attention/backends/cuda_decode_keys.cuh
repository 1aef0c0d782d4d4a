// Decoding: scores of keys that are in shared memory.

constexpr int SETS = ROWS <= 4 ? 2 : 1;   // keys that a row of a product's first operand holds
constexpr int STEP = SETS == 2 ? 2 : 4;   // lanes that are so far apart score the same query rows
constexpr int LANE_KEYS = 8;              // that follow each other; a lane scores them for two rows
constexpr int BLOCK_KEYS = 32 / STEP * LANE_KEYS;  // that a warp scores at a time
constexpr int BLOCK_BYTES = BLOCK_KEYS * WORDS * 4;
constexpr int CHUNKS = BLOCK_BYTES / 16;  // pieces that are copied
constexpr int STAGES = BLOCK_BYTES == 2048 ? 4 : 8;  // blocks of a warp that are under way
constexpr u32 TOPS = 0x80808080u;         // the top bits of four bytes

// A lane's part of the query rows, its place among keys and rows, and the levels of its two rows.
//
// Which keys go into which row of a product's first operand is free: lanes that score the same query
// rows have eight keys each, in the order of the lanes. SETS = 2: a row holds the bits of two keys;
// columns 0 .. 3 are the query rows against the first, columns 4 .. 7 against the second key, and zero
// elsewhere. SETS = 1: a row holds a key and its complement (128 bits), or a key's words and
// complements (64 bits).
struct Lane {
  int lane;
  int key;             // first of the lane's keys in a block
  int row;             // first of its two query rows
  u32 low, high;       // its column of the product
  u32 not_low, not_high;  // and of the one with the keys' complements, if that is another one
  u32 offset;          // of what it reads of a block first, in bytes
  u32 add[2], all[2];  // byte-wise: x + add | all has its top bit set where x reaches the level

  DEVICE Lane(const Arguments& a, int head, int batch) {
    lane = threadIdx.x & 31;
    const int g = lane >> 2, t = lane & 3;
    key = LANE_KEYS * (lane / STEP), row = 2 * (t % STEP);
    offset = WORDS == 4 ? matrix_row() : swizzled(key / 2) * 16 + (t & 1) * 4;
    const int column = SETS == 2 ? g & 3 : g, set = g >> 2;
    low = high = not_low = not_high = 0;
    if (column >= ROWS) return;
    const u32 word = query_words(a, batch, head, column)[WORDS == 4 ? t : t & 1];
    if (WORDS == 4 && SETS == 2) {
      low = set ? 0 : word, high = set ? word : 0;
      not_low = set ? 0 : ~word, not_high = set ? ~word : 0;
    } else if (WORDS == 4 || (SETS == 2 ? set == t >> 1 : t < 2)) {
      low = word, high = ~word;
    }
  }

  // Where a block's chunk is kept: what lanes read together lies in different banks.
  DEVICE static int swizzled(int chunk) {
    return chunk ^ (chunk >> (WORDS == 4 && SETS == 2 ? 4 : 3) & 7);
  }

  // Where the key is kept that the lane points to as a row of a matrix: the matrices are keys j and
  // j + 1 of the first and the second set, or keys j .. j + 3.
  DEVICE int matrix_row() const {
    const int matrix = lane >> 3, g = lane & 7;
    const int chunk = SETS == 2 ? 16 * g + 8 * (matrix >> 1) + (matrix & 1) : 8 * g + matrix;
    return swizzled(chunk) * 16;
  }

  DEVICE void set_levels(const int* levels) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const bool mine = row + i < ROWS;
      const int level = mine ? levels[min(row + i, ROWS - 1)] : 128;
      add[i] = mine ? (128 - max(level, 1)) * 0x01010101u : 0;
      all[i] = level == 0 ? TOPS : 0;
    }
  }
};

// The numbers of equal bits of the lane's eight keys in a block, for its two query rows:
// popc([q, ~q] & [k, ~k]) counts them. Byte b of x[i][odd] belongs to key 2b + odd and row i.
struct Scores {
  u32 x[2][2];

  DEVICE Scores(const Lane& l, const char* block) {
    int c[4][4] = {};
    products(c, l, block, l.offset);
#pragma unroll
    for (int i = 0; i < 2; i++)
#pragma unroll
      for (int odd = 0; odd < 2; odd++)
        x[i][odd] = c[0][2 * odd + i] | c[1][2 * odd + i] << 8 | c[2][2 * odd + i] << 16 |
                    c[3][2 * odd + i] << 24;
  }

  // c[u]: keys 2u and 2u + 1 of every lane.
#if WORDS == 4 && ROWS <= 4
  DEVICE static void products(int (&c)[4][4], const Lane& l, const char* block, u32 offset) {
#pragma unroll
    for (int u = 0; u < 4; u++) {
      u32 k[4];
      load_matrices(k, block + (offset ^ u * 32));
      and_popc(c[u], k[0], k[1], k[2], k[3], l.low, l.high);
      and_popc(c[u], ~k[0], ~k[1], ~k[2], ~k[3], l.not_low, l.not_high);
    }
  }
#elif WORDS == 4
  DEVICE static void products(int (&c)[4][4], const Lane& l, const char* block, u32 offset) {
#pragma unroll
    for (int u = 0; u < 4; u += 2) {
      u32 k[4];
      load_matrices(k, block + (offset ^ u * 32));
      and_popc(c[u], k[0], k[1], ~k[0], ~k[1], l.low, l.high);
      and_popc(c[u + 1], k[2], k[3], ~k[2], ~k[3], l.low, l.high);
    }
  }
#else
  DEVICE static void products(int (&c)[4][4], const Lane& l, const char* block, u32 offset) {
#pragma unroll
    for (int u = 0; u < 4; u++) {
      const u32 k = *(const u32*)(block + (offset ^ u * 16));
      const u32 next = *(const u32*)(block + (offset ^ (u * 16 + 8)));
      and_popc(c[u], k, next, ~k, ~next, l.low, l.high);
    }
  }
#endif

  // The top bits of bytes that reach the level.
  DEVICE u32 reached(const Lane& l, int i, int odd) const {
    return (x[i][odd] + l.add[i] | l.all[i]) & TOPS;
  }

  DEVICE bool any(const Lane& l) const {
    return reached(l, 0, 0) | reached(l, 0, 1) | reached(l, 1, 0) | reached(l, 1, 1);
  }

  // Bit 4j + i: key j reaches the level of row i.
  DEVICE u32 hits(const Lane& l) const {
    return reached(l, 0, 0) >> 7 | reached(l, 0, 1) >> 3 | reached(l, 1, 0) >> 6 |
           reached(l, 1, 1) >> 2;
  }

  DEVICE int at(int i, int j) const {
    return __byte_perm(i ? x[1][0] : x[0][0], i ? x[1][1] : x[0][1], j >> 1 | (j & 1) << 2) & 255;
  }

  // Of row i, key by key.
  DEVICE uint2 in_order(int i) const {
    return {__byte_perm(x[i][0], x[i][1], 0x5140), __byte_perm(x[i][0], x[i][1], 0x7362)};
  }
};
