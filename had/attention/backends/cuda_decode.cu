// Exact top-N Hamming attention of a few query rows over a long binary key cache, in one kernel.
//
// A cluster of thread blocks owns one key head of one sequence, and the up to eight query rows that
// share it. Its keys are dealt out to the warps of all blocks in order, a contiguous range each.
//
//   1 sample   Every warp scores the first 32 keys of its range. From the cluster's histogram of
//              those scores each row gets a level that a little more than N keys should reach.
//   2 stream   Warps score their keys with one-bit tensor-core products; keys that reach the level
//              go to the warp's list, in order, and into the row's histogram.
//   3 settle   The histogram gives the level of the N-th key, how many of the keys at that level
//              are still kept, and the softmax's maximum and denominator. Had the sample misled
//              (fewer than N keys on the lists), step 2 is repeated with a lower level.
//   4 share    The kept keys of a row are numbered and dealt out evenly to the blocks of the cluster,
//              wherever they were found.
//   5 gather   Every block adds up its share of weighted values; the sums are added in fixed order.
//
// Nothing but the output is written to global memory. The result does not depend on the sample.
//
// match = popc([q, ~q] & [k, ~k]) is the number of equal bits, one AND.POPC instruction for 16 keys
// and 8 rows. Compile-time constants: WORDS (32-bit words of a key, 2 or 4), VALUE (width of a
// value, 64 or 128), BFLOAT16 (else float16), ROWS (1 .. 8), GROUP (heads that share a key head),
// MASKED, SHARED_BYTES.

constexpr int WARPS = THREADS / 32;
constexpr int SETS = ROWS <= 4 ? 2 : 1;        // keys that a row of a product's first operand holds
constexpr int GROUP_KEYS = 32 * SETS;          // keys of two products
constexpr int GROUPS = 4;                      // that a warp scores at a time
constexpr int STAGE_KEYS = GROUPS * GROUP_KEYS;
constexpr int STAGE_WORDS = STAGE_KEYS * WORDS;
constexpr int STAGES = 2048 / STAGE_WORDS;     // 8 KB a warp
constexpr int LISTED = 1024;                   // entries of a warp's list
constexpr int BINS = 132;                      // scores 0 .. 128, padded to 16 bytes
constexpr int PICKS = 8192 / ROWS / 4 * 4;     // of a row in a block at a time
constexpr int ROW_WARPS = WARPS / ROWS;        // warps that gather for one row
constexpr int PARTS = 16;                      // blocks of a cluster at most, and more than rows

struct Arguments {
  const u32* query;    // (B, H, T, WORDS), strides in words
  const u32* key;      // (B, G, S, WORDS)
  const char* value;   // (B, G, S, VALUE), strides in elements
  const unsigned char* mask;  // (B, S) or null
  const float* gain;   // (B, H) or null
  char* output;        // (B, H, T, VALUE), contiguous
  i64 query_batch, query_head, query_token;
  i64 key_batch, key_head;
  i64 value_batch, value_head, value_key;
  i64 mask_batch;
  i64 gain_batch, gain_head;
  double fraction;     // of the allowed keys to keep; 0: `keep` counts
  float gain_number;
  int heads, tokens, keys, keep;
  u64* stamps;         // null, or times of block 0's phases
};

struct Row {
  int level;        // keys below it are of no interest
  int room;         // keys at the level that are kept
  int top;          // the largest score
  int above, ties;  // keys above and at the level in blocks of lower rank
  float per_match;  // log2 of the weight that one more equal bit brings
  float total;      // sum of the weights
};

// Written when all blocks have read their keys, or have no more than the ring's first stage to read.
struct Late {
  u32 picks[ROWS][PICKS];
  float sums[WARPS][VALUE];
  float parts[PARTS][VALUE];
};

struct Shared {
  u32 first_stage[WARPS][STAGE_WORDS];
  union {
    u32 more_stages[STAGES - 1][WARPS][STAGE_WORDS];
    Late late;
  };
  u32 list[WARPS][LISTED];
  int sample[ROWS][BINS], histogram[ROWS][BINS];
  int above[ROWS][WARPS], ties[ROWS][WARPS];  // of a warp's range
  int number[ROWS][WARPS], room[ROWS][WARPS];  // of its first kept key; for its keys at the level
  Row row[ROWS];
  u64 arrived[WARPS][STAGES], picked, summed;
  int allowed, lacking;
};
static_assert(sizeof(Late) <= sizeof(Shared::more_stages), "");
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host reserves less than the kernel needs");
static_assert(WARPS >= ROWS && WARPS <= 32, "warp r settles row r, its lane w stands for warp w");

#define STAMP(phase) if (a.stamps && threadIdx.x == 0) a.stamps[(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z)) * 8 + phase] = clock_ns();

// ---- scores ------------------------------------------------------------------------------------

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

// ---- the stream of keys: bulk copies into a ring of stages, which no other warp touches ----------

struct Ring {
  Shared& shared;
  int warp;
  const Range& range;
  int turn;  // stages consumed so far, over all passes

  DEVICE u32* stage(int turn) const {
    static_assert(sizeof(Shared::first_stage) % 16 == 0, "");
    return (u32*)&shared + (turn % STAGES * WARPS + warp) * STAGE_WORDS;
  }
  DEVICE u64* arrived(int turn) const { return &shared.arrived[warp][turn % STAGES]; }

  // Fills the stages `from` .. `to - 1` before a pass over the range.
  DEVICE void fill(int from, int to, int lane) {
    if (lane == 0)
      for (int i = from; i < to; i++) load(i * STAGE_KEYS, turn + i);
  }

  // The copy engine moves multiples of 16 bytes: of an odd number of 8-byte keys, `wait` adds one.
  DEVICE void load(int first, int turn) {
    if (first >= range.count) return;
    const u32 bytes = min(STAGE_KEYS, range.count - first) * WORDS * 4 & ~15;
    u64* barrier = arrived(turn);
    barrier_expect(barrier, bytes);
    if (bytes)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
              "r"(shared_address(stage(turn))),
          "l"(range.keys + (i64)first * WORDS), "r"(bytes), "r"(shared_address(barrier))
          : "memory");
  }

  DEVICE const u32* wait(int first, int lane) {
    barrier_wait(arrived(turn), turn / STAGES & 1);
    u32* words = stage(turn);
#if WORDS == 2
    const int last = range.count - first - 1;
    if (last >= 0 && last < STAGE_KEYS && last % 2 == 0) {
      if (lane < 2) words[2 * last + lane] = range.keys[(i64)(first + last) * 2 + lane];
      __syncwarp();
    }
#endif
    return words;
  }

  // Called when the products have consumed the stage: only then may the copy engine overwrite it.
  DEVICE void release(int first, int lane) {
    __syncwarp();
    if (lane == 0) load(first + STAGES * STAGE_KEYS, turn + STAGES);
    turn++;
  }
};

// x[index] of registers.
DEVICE u32 select(const u32 (&x)[8], int index) {
  const u32 a = index & 1 ? x[1] : x[0], b = index & 1 ? x[3] : x[2];
  const u32 c = index & 1 ? x[5] : x[4], d = index & 1 ? x[7] : x[6];
  const u32 low = index & 2 ? b : a, high = index & 2 ? d : c;
  return index & 4 ? high : low;
}

// Step 2. Returns how many keys the list should hold; beyond LISTED they are only counted.
DEVICE int stream(Ring& ring, const Range& range, const Lane& l, u32* list, int (*histogram)[BINS]) {
  const u32 below = (1u << l.lane) - 1;
  int listed = 0;
  for (int first = 0; first < range.count; first += STAGE_KEYS) {
    int4 bytes[GROUPS];
    if (MASKED)
#pragma unroll
      for (int u = 0; u < GROUPS; u++) bytes[u] = range.mask_bytes(first + u * GROUP_KEYS, l);
    const u32* stage = ring.wait(first, l.lane);
    u32 x[2 * GROUPS], hits = 0;  // bit 8b + 2u + i: byte b of x[2u + i] reaches the level
#pragma unroll
    for (int u = 0; u < GROUPS; u++) {
      const Scores scores(l, StagedWords{stage + u * GROUP_KEYS * WORDS});
      x[2 * u] = scores.x[0], x[2 * u + 1] = scores.x[1];
      const u32 allowed = range.allowed(first + u * GROUP_KEYS, bytes[u], l);
      hits |= (scores.hits(l) & allowed) << 2 * u;
    }
    // A lane's entries follow those of the lanes below it.
    const int own = __popc(hits);
    int place = listed;
    for (u32 bit = 0, most = __reduce_or_sync(ALL, own); most >> bit; bit++) {
      const u32 lanes = __ballot_sync(ALL, own >> bit & 1);
      place += __popc(lanes & below) << bit, listed += __popc(lanes) << bit;
    }
    ring.release(first, l.lane);  // the ballots depend on all products of the stage
    for (; hits; hits &= hits - 1, place++) {
      const int bit = __ffs(hits) - 1, u = bit >> 1 & 3, row = l.row_of(bit);
      const u32 score = select(x, bit & 7) >> (bit & 24) & 255;
      const u32 key = first + u * GROUP_KEYS + l.key_of(bit);
      if (place < LISTED) list[place] = score << 24 | row << 21 | key;
      atomicAdd(&histogram[row][score], 1);
    }
    __syncwarp();
  }
  return listed;
}

// Calls visit(real, row, score, key), 32 lanes at a time, for the keys found by `stream`: from the
// list, or by scoring them again if the list was too short.
template <class Visit>
DEVICE void walk(const Range& range, const Lane& l, const u32* list, int listed, Visit visit) {
  if (listed <= LISTED) {
    for (int first = 0; first < listed; first += 32) {
      const bool real = first + l.lane < listed;
      const u32 entry = real ? list[first + l.lane] : 0;
      visit(real, (int)(entry >> 21 & 7), (int)(entry >> 24), (int)(entry & 0x1fffff));
    }
    return;
  }
  for (int first = 0; first < range.count; first += GROUP_KEYS) {
    const i64 last = (i64)(range.count - first) * WORDS - 1;
    const Scores scores(l, GlobalWords{range.keys + (i64)first * WORDS, last});
    const u32 hit = scores.hits(l) & range.allowed(first, range.mask_bytes(first, l), l);
    for (u32 bits = __reduce_or_sync(ALL, hit); bits; bits &= bits - 1) {
      const int bit = __ffs(bits) - 1;
      visit(hit >> bit & 1, min(l.row_of(bit), ROWS - 1), scores.at(bit), first + l.key_of(bit));
    }
  }
}

// ---- steps 1 and 3: levels -----------------------------------------------------------------------

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

// ---- steps 4 and 5 -------------------------------------------------------------------------------

// Counts each row's keys above and at its level, by warp, and from that numbers the kept ones: those
// of the ranges before come first.
DEVICE void number_kept(Shared& s, const Range& range, const Lane& l, int listed, int warp) {
  walk(range, l, s.list[warp], listed, [&](bool real, int row, int score, int) {
    const int level = s.row[row].level;
    if (real && score > level) atomicAdd(&s.above[row][warp], 1);
    if (real && score == level) atomicAdd(&s.ties[row][warp], 1);
  });
  __syncthreads();
  if (warp < ROWS) {
    const Row& row = s.row[warp];
    const bool real = l.lane < WARPS;
    const int above = row.above + sum_before(real ? s.above[warp][l.lane] : 0, l.lane);
    const int ties = row.ties + sum_before(real ? s.ties[warp][l.lane] : 0, l.lane);
    if (real) s.number[warp][l.lane] = above + min(ties, row.room);
    if (real) s.room[warp][l.lane] = row.room - ties;
  }
  __syncthreads();
}

// For lane r: of the warp's keys at the level of row r those before this one are kept. At most one
// warp of a cluster has to search for it.
DEVICE int tie_cut(const Shared& s, const Range& range, const Lane& l, int listed, int warp) {
  const bool real = l.lane < ROWS;
  const int room = real ? s.room[l.lane][warp] : 0, ties = real ? s.ties[l.lane][warp] : 0;
  int cut = room >= ties ? range.count : 0;
  for (u32 rows = __ballot_sync(ALL, room > 0 && room < ties); rows; rows &= rows - 1) {
    const int r = __ffs(rows) - 1, wanted = __shfl_sync(ALL, room, r), level = s.row[r].level;
    int low = 0, high = range.count;  // the least key with `wanted` ties before it is in between
    while (low < high) {
      const int middle = (low + high) / 2;
      int before = 0;
      walk(range, l, s.list[warp], listed, [&](bool real, int row, int score, int key) {
        const bool tie = real && row == r && score == level && key < middle;
        before += __popc(__ballot_sync(ALL, tie));
      });
      if (before < wanted)
        low = middle + 1;
      else
        high = middle;
    }
    if (l.lane == r) cut = low;
  }
  return cut;
}

// Sends the kept keys numbered `first` .. `first + blocks * share - 1` to the blocks that gather
// their values, `share` each.
DEVICE void share_out(Shared& s, const Range& range, const Lane& l, int listed, int warp, int cut,
                      int first, int share, int blocks) {
  const u32 below = (1u << l.lane) - 1, reciprocal = ALL / share + 1;
  int next = l.lane < ROWS ? s.number[l.lane][warp] - first : 0;  // of row `lane`
  walk(range, l, s.list[warp], listed, [&](bool real, int row, int score, int key) {
    const int level = s.row[row].level, row_cut = __shfl_sync(ALL, cut, row);
    const bool kept = real && (score > level || (score == level && key < row_cut));
    const u32 all = __ballot_sync(ALL, kept);
    const u32 bit0 = __ballot_sync(ALL, row & 1), bit1 = __ballot_sync(ALL, row & 2);
    const u32 bit2 = ROWS > 4 ? __ballot_sync(ALL, row & 4) : 0;
    const auto of_row = [&](int r) {
      return all & (r & 1 ? bit0 : ~bit0) & (r & 2 ? bit1 : ~bit1) & (r & 4 ? bit2 : ~bit2);
    };
    const u32 place = __shfl_sync(ALL, next, row) + __popc(of_row(row) & below);
    if (kept && place < blocks * share) {
      const int block = share > 1 ? __umulhi(place, reciprocal) : place;  // place / share
      send(&s.late.picks[row][place - block * share], &s.picked, block,
           (u32)score << 24 | (u32)(range.start + key));
    }
    next += __popc(of_row(l.lane & 7));
  });
}

struct Sum {
  float x[8];

  // Adds weight times eight 16-bit values.
  DEVICE void add(const uint4& packed, float weight) {
    const u32 pairs[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
      float low, high;
#if BFLOAT16
      low = __uint_as_float(pairs[i] << 16), high = __uint_as_float(pairs[i] & 0xffff0000u);
#else
      asm("{.reg .b16 a, b; mov.b32 {a, b}, %2; cvt.f32.f16 %0, a; cvt.f32.f16 %1, b;}"
          : "=f"(low), "=f"(high)
          : "r"(pairs[i]));
#endif
      x[2 * i] += weight * low, x[2 * i + 1] += weight * high;
    }
  }
};

DEVICE uint4 load_once(const char* pointer) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(pointer));
  return v;
}

// Adds the weighted values of `count` picks of this warp's row; ROW_WARPS warps divide them.
DEVICE void gather(Sum& sum, const Shared& s, const char* values, i64 stride, int count, int warp,
                   int lane) {
  constexpr int LANES = VALUE / 8, AT_ONCE = 32 / LANES, DEPTH = 8;
  const int r = warp / ROW_WARPS, step = ROW_WARPS * AT_ONCE;
  if (r >= ROWS) return;
  const Row& row = s.row[r];
  const char* column = values + lane % LANES * 16;
  for (int i = warp % ROW_WARPS * AT_ONCE + lane / LANES; i < count; i += DEPTH * step) {
    uint4 packed[DEPTH];
    float weight[DEPTH];
#pragma unroll
    for (int k = 0; k < DEPTH; k++) {
      const bool real = i + k * step < count;
      const u32 pick = real ? s.late.picks[r][i + k * step] : 0;
      packed[k] = real ? load_once(column + (i64)(pick & 0xffffff) * stride * 2) : uint4{};
      weight[k] = real ? exp2f(((int)(pick >> 24) - row.top) * row.per_match) : 0.f;
    }
#pragma unroll
    for (int k = 0; k < DEPTH; k++) sum.add(packed[k], weight[k]);
  }
}

DEVICE void write(char* output, i64 index, float x) {
  unsigned short bits;
#if BFLOAT16
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#endif
  ((unsigned short*)output)[index] = bits;
}

// Adds the warps' sums in order, then the blocks': row r in block r % blocks.
DEVICE void combine(Shared& s, Sum& sum, const Arguments& a, int warp, int lane, int rank,
                    int blocks, int head, int batch) {
  constexpr int LANES = VALUE / 8;
#pragma unroll
  for (int i = 0; i < 8; i++)
#pragma unroll
    for (int step = 16; step >= LANES; step /= 2)
      sum.x[i] += __shfl_xor_sync(ALL, sum.x[i], step);
  if (lane < LANES)
#pragma unroll
    for (int i = 0; i < 2; i++)
      ((float4*)s.late.sums[warp])[2 * lane + i] =
          make_float4(sum.x[4 * i], sum.x[4 * i + 1], sum.x[4 * i + 2], sum.x[4 * i + 3]);
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * VALUE; i += THREADS) {
    const int r = i / VALUE, v = i % VALUE;
    float part = 0.f;
#pragma unroll
    for (int k = 0; k < ROW_WARPS; k++) part += s.late.sums[r * ROW_WARPS + k][v];
    send(&s.late.parts[r / blocks * blocks + rank][v], &s.summed, r % blocks, __float_as_uint(part));
  }
  if (rank >= ROWS) return;
  barrier_wait(&s.summed, 0);
  for (int r = rank; r < ROWS; r += blocks)
    for (int v = threadIdx.x; v < VALUE; v += THREADS) {
      float whole = 0.f;
      for (int k = 0; k < blocks; k++) whole += s.late.parts[r / blocks * blocks + k][v];
      const i64 row = ((i64)batch * a.heads + head * GROUP + r % GROUP) * a.tokens + r / GROUP;
      const float total = s.row[r].total;
      write(a.output, row * VALUE + v, total > 0.f ? whole / total : 0.f);
    }
}

// ---- the kernel ----------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 1)
hamming_decode(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) char memory[];
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x, head = blockIdx.y, batch = blockIdx.z;
  STAMP(0)

  const int unit = blocks * WARPS * GROUP_KEYS, length = (a.keys + unit - 1) / unit * GROUP_KEYS;
  Range range;
  range.start = (rank * WARPS + warp) * length;
  range.count = max(0, min(length, a.keys - range.start));
  range.keys = a.key + batch * a.key_batch + head * a.key_head + (i64)range.start * WORDS;
  range.mask = MASKED ? a.mask + batch * a.mask_batch + range.start : nullptr;

  Ring ring = {s, warp, range, 0};
  if (lane == 0)
    for (int i = 0; i < STAGES; i++) barrier_init(ring.arrived(i));
  if (threadIdx.x == 0) barrier_init(&s.picked), barrier_init(&s.summed), s.allowed = 0;
  if (lane == 0) barrier_init_fence();
  __syncwarp();
  ring.fill(0, 1, lane);  // the sample is in the first stage, which the others must not delay

  Lane l(a, head, batch);
  for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.sample[0][i] = s.histogram[0][i] = 0;
  for (int i = threadIdx.x; i < ROWS * WARPS; i += THREADS) s.above[0][i] = s.ties[0][i] = 0;
  if (threadIdx.x < ROWS) {
    const int r = threadIdx.x;
    const float gain = a.gain ? a.gain[batch * a.gain_batch + (head * GROUP + r % GROUP) * a.gain_head]
                              : a.gain_number;
    s.row[r].per_match = 2.f * gain * 1.4426950408889634f;
  }
  __syncthreads();
  ring.fill(1, STAGES, lane);

  const bool complete = length <= GROUP_KEYS;  // the sample is everything
  take_sample(s, ring, range, l, min(blocks < 8 ? GROUPS : 1, length / GROUP_KEYS));
  if (MASKED) {
    int allowed = 0;
    for (int key = lane; key < range.count; key += 32) allowed += range.mask[key] != 0;
    allowed = warp_sum(allowed);
    if (lane == 0 && allowed) atomicAdd(&s.allowed, allowed);
  }
  cluster_barrier();
  STAMP(1)
  int allowed = a.keys;
  if (MASKED) allowed = warp_sum(lane < blocks ? load_remote(&s.allowed, lane) : 0);
  const int keep = keys_to_keep(a, allowed);
  Counts<4> counts;  // of row `warp`
  if (warp < ROWS) {
    counts = cluster_counts<4>(s.sample[warp], rank, blocks, lane);
    const int sampled = complete ? 0 : count_all(counts);
    const Cut cut = find_cut(counts, complete ? keep : sample_goal(keep, sampled, allowed), lane);
    if (complete)
      settle(s.row[warp], counts, cut, keep, lane);
    else if (lane == 0)
      s.row[warp].level = max(cut.level, 0);
  }
  STAMP(2)

  int listed;
  for (int attempt = 0;; attempt++) {
    if (threadIdx.x == 0) s.lacking = 0;
    __syncthreads();
    l.set_levels(s.row);
    listed = stream(ring, range, l, s.list[warp], s.histogram);
    STAMP(3)
    if (complete) break;
    cluster_barrier();
    STAMP(4)
    if (warp < ROWS) {
      counts = cluster_counts<4>(s.histogram[warp], rank, blocks, lane);
      const Cut cut = find_cut(counts, keep, lane);
      if (cut.total >= keep) {
        settle(s.row[warp], counts, cut, keep, lane);
      } else if (lane == 0) {  // the sample misled: fewer than N keys reach the level
        s.row[warp].level = attempt ? 0 : max(0, s.row[warp].level - 6);
        s.lacking = 1;
      }
    }
    __syncthreads();
    if (!s.lacking) break;
    cluster_barrier();  // before the histograms that other blocks read are cleared
    for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.histogram[0][i] = 0;
    ring.fill(0, STAGES, lane);
    __syncthreads();
  }
  cluster_arrive();  // has read the other blocks' counts: `cluster_wait` below lets them go

  const int share = max(1, min(PICKS, (keep + blocks - 1) / blocks));
  const auto picks_from = [&](int first) { return max(0, min(share, keep - first - rank * share)); };
  if (threadIdx.x == 0) {
    barrier_expect(&s.picked, picks_from(0) * ROWS * 4);
    const int rows = rank < ROWS ? (ROWS - 1 - rank) / blocks + 1 : 0;
    barrier_expect(&s.summed, rows * blocks * VALUE * 4);
  }
  l.set_levels(s.row);
  number_kept(s, range, l, listed, warp);
  const int cut = tie_cut(s, range, l, listed, warp);
  STAMP(5)
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * 2;
  Sum sum = {};
  for (int first = 0, parity = 0; first < keep; first += blocks * share, parity ^= 1) {
    if (first) {
      cluster_wait();
      cluster_barrier();  // the picks of the previous window have been used, by all warps
      if (threadIdx.x == 0) barrier_expect(&s.picked, picks_from(first) * ROWS * 4);
      cluster_arrive();
    }
    share_out(s, range, l, listed, warp, cut, first, share, blocks);
    if (first == 0 && warp < ROWS) {
      const float total = weight_sum(s.row[warp], counts, lane);
      if (lane == 0) s.row[warp].total = total;
    }
    barrier_wait(&s.picked, parity);
    STAMP(6)
    gather(sum, s, values, a.value_key, picks_from(first), warp, lane);
  }
  STAMP(7)
  if (keep == 0 && warp < ROWS && lane == 0) s.row[warp].total = 0.f;
  combine(s, sum, a, warp, lane, rank, blocks, head, batch);
  cluster_wait();
}
