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
//   4 share    The kept keys of a row are numbered in key order and dealt out evenly to the blocks
//              of the cluster, wherever they were found.
//   5 gather   Every block adds up its share of weighted values; the sums are added in fixed order.
//
// Nothing but the output is written to global memory. The result does not depend on the sample.
//
// match = popc([q, ~q] & [k, ~k]) is the number of equal bits, one AND.POPC instruction for 16 keys
// and 8 rows. Compile-time constants: WORDS (32-bit words of a key, 2 or 4), VALUE (width of a
// value, 64 or 128), BFLOAT16 (else float16), ROWS (1 .. 8), GROUP (heads that share a key head),
// MASKED, SHARED_BYTES.

constexpr int WARPS = THREADS / 32;
constexpr int STAGE_BYTES = 2048;
constexpr int STAGE_KEYS = STAGE_BYTES / (4 * WORDS);
constexpr int STAGES = 2;
constexpr int LISTED = 512;  // entries of a warp's list
constexpr int BINS = 132;    // scores 0 .. 128, padded to 16 bytes
constexpr int PICKS = WARPS * 512 / ROWS;  // of a row in a block at a time
constexpr int ROW_WARPS = WARPS / ROWS;    // warps that gather for one row
constexpr int MOST_BLOCKS = 16;
constexpr int PARTS = (ROWS + MOST_BLOCKS - 1) / MOST_BLOCKS * MOST_BLOCKS;

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

struct Shared {
  union {
    u32 ring[WARPS][STAGES][STAGE_BYTES / 4];
    struct {
      u32 picks[ROWS][PICKS];
      float sums[WARPS][VALUE];
      float parts[PARTS][VALUE];
    };
  };
  u32 list[WARPS][LISTED];
  int sample[ROWS][BINS], histogram[ROWS][BINS];
  int above[ROWS][WARPS], ties[ROWS][WARPS];
  Row row[ROWS];
  u64 arrived[WARPS][STAGES];
  int allowed, lacking;
};
static_assert(sizeof(Shared) <= SHARED_BYTES, "the host reserves less than the kernel needs");

#define STAMP(phase) if (a.stamps && threadIdx.x == 0) a.stamps[(blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z)) * 8 + phase] = clock_ns();

// ---- scores ------------------------------------------------------------------------------------

// 16 keys x 8 rows. Lane 4g + t gives words t of keys g and g + 8 and of row g; it receives the
// scores of those two keys for the rows 2t and 2t + 1.
DEVICE void count_matches(int (&c)[4], u32 first, u32 second, u32 query, u32 inverse) {
#if WORDS == 4
  asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc"
      " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%10,%10,%10,%10};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(first), "r"(second), "r"(~first), "r"(~second), "r"(query), "r"(inverse), "r"(0));
#else
  asm("mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc"
      " {%0,%1,%2,%3}, {%4,%5}, {%6}, {%7,%7,%7,%7};"
      : "=r"(c[0]), "=r"(c[1]), "=r"(c[2]), "=r"(c[3])
      : "r"(first ^ inverse), "r"(second ^ inverse), "r"(query), "r"(0));
#endif
}

// A warp's view of the query rows: what each lane multiplies with, and compares with.
struct Lane {
  int lane, g, t;
  u32 query, inverse;
  u32 add[2], all[2];  // byte-wise: x + add has its top bit set where x reaches the level

  DEVICE Lane(const Arguments& a, int head, int batch) {
    lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    query = inverse = 0;
#if WORDS == 2
    inverse = t < 2 ? 0 : ALL;
#endif
    if (g < ROWS) {
      const u32* row = a.query + batch * a.query_batch + (head * GROUP + g % GROUP) * a.query_head +
                       g / GROUP * a.query_token;
#if WORDS == 4
      query = row[t];
      inverse = ~query;
#else
      query = row[t & 1] ^ inverse;
#endif
    }
  }

  DEVICE void set_levels(const Row* rows) {
#pragma unroll
    for (int i = 0; i < 2; i++) {
      const bool real = 2 * t + i < ROWS;
      const int level = real ? rows[min(2 * t + i, ROWS - 1)].level : 128;
      add[i] = real ? (128 - max(level, 1)) * 0x01010101u : 0;
      all[i] = level == 0 ? 0x80808080u : 0;
    }
  }
};

// Scores of 32 keys for the lane's two rows: byte b of x[i] belongs to key 8b + g, row 2t + i.
struct Scores {
  u32 x[2];

  DEVICE Scores(const u32 (&words)[4], const Lane& l) {
    int c[2][4];
    count_matches(c[0], words[0], words[1], l.query, l.inverse);
    count_matches(c[1], words[2], words[3], l.query, l.inverse);
#pragma unroll
    for (int i = 0; i < 2; i++)
      x[i] = c[0][i] | c[0][2 + i] << 8 | c[1][i] << 16 | c[1][2 + i] << 24;
  }

  // Bit 8b + i: key 8b + g reaches the level of row 2t + i and is allowed (bit 8b + g of `allowed`).
  DEVICE u32 hits(const Lane& l, u32 allowed) const {
    const u32 first = ((x[0] + l.add[0] | l.all[0]) >> 7) & 0x01010101u;
    const u32 second = ((x[1] + l.add[1] | l.all[1]) >> 6) & 0x02020202u;
    return (first | second) & (((allowed >> l.g) & 0x01010101u) * 3);
  }

  DEVICE int at(int bit) const { return ((bit & 1 ? x[1] : x[0]) >> (bit & 24)) & 255; }
};

// The warp's contiguous range of keys.
struct Range {
  const u32* keys;            // the first one's words
  const unsigned char* mask;  // its byte
  int start, count;

  // Bits of the 32 keys from `first` on: inside the range, and allowed (`byte` is lane's own).
  DEVICE u32 allowed(int first, int byte) const {
    const int inside = count - first;
    const u32 real = inside >= 32 ? ALL : inside > 0 ? (1u << inside) - 1 : 0;
    return MASKED ? real & __ballot_sync(ALL, byte) : real;
  }

  DEVICE int mask_byte(int key) const { return MASKED && key < count ? mask[key] : 0; }
};

DEVICE void load_words(u32 (&words)[4], const u32* keys, const Lane& l) {
#pragma unroll
  for (int j = 0; j < 4; j++) words[j] = keys[(8 * j + l.g) * WORDS + (l.t & (WORDS - 1))];
}

// ---- the stream of keys: bulk copies into a ring of stages, which no other warp touches ----------

struct Ring {
  u32 (&stages)[STAGES][STAGE_BYTES / 4];
  u64* arrived;
  const Range& range;
  int turn;  // stages consumed so far, over all passes

  DEVICE void start(int lane) {
    if (lane == 0)
      for (int i = 0; i < STAGES; i++) load(i * STAGE_KEYS, turn + i);
  }

  // The copy engine moves multiples of 16 bytes: of an odd number of 8-byte keys, `wait` adds one.
  DEVICE void load(int first, int turn) {
    if (first >= range.count) return;
    const u32 bytes = min(STAGE_KEYS, range.count - first) * WORDS * 4 & ~15;
    const u32 barrier = shared_address(arrived + turn % STAGES);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
    if (bytes)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
              "r"(shared_address(stages[turn % STAGES])),
          "l"(range.keys + (i64)first * WORDS), "r"(bytes), "r"(barrier)
          : "memory");
  }

  DEVICE const u32* wait(int first, int lane) {
    const u32 barrier = shared_address(arrived + turn % STAGES), parity = turn / STAGES & 1;
    u32 done;
    do {
      asm volatile(
          "{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.b32 %0, 1, 0, p;}"
          : "=r"(done)
          : "r"(barrier), "r"(parity)
          : "memory");
    } while (!done);
    u32* stage = stages[turn % STAGES];
#if WORDS == 2
    const int last = range.count - first - 1;
    if (last >= 0 && last < STAGE_KEYS && last % 2 == 0) {
      if (lane < 2) stage[2 * last + lane] = range.keys[(i64)(first + last) * 2 + lane];
      __syncwarp();
    }
#endif
    return stage;
  }

  // Called when the products have consumed the stage: only then may the copy engine overwrite it.
  DEVICE void release(int first, int lane) {
    __syncwarp();
    if (lane == 0) load(first + STAGES * STAGE_KEYS, turn + STAGES);
    turn++;
  }
};

// Step 2. Returns how many keys the list should hold; beyond LISTED they are only counted.
DEVICE int stream(Ring& ring, const Range& range, const Lane& l, u32* list, int (*histogram)[BINS]) {
  const u32 below = (1u << l.lane) - 1;
  int listed = 0;
  int byte = range.mask_byte(l.lane);
  for (int first = 0; first < range.count; first += STAGE_KEYS) {
    const u32* stage = ring.wait(first, l.lane);
#pragma unroll 1
    for (int part = 0; part < STAGE_KEYS; part += 32) {
      u32 words[4];
      load_words(words, stage + part * WORDS, l);
      const Scores scores(words, l);
      const u32 hit = scores.hits(l, range.allowed(first + part, byte));
      byte = range.mask_byte(first + part + 32 + l.lane);
      // One bit at a time for all lanes: the entries of a row stay in the order of its keys.
      for (u32 bits = __reduce_or_sync(ALL, hit); bits; bits &= bits - 1) {
        const int bit = __ffs(bits) - 1;
        const bool taken = hit >> bit & 1;
        const u32 takers = __ballot_sync(ALL, taken);
        if (taken) {
          const int place = listed + __popc(takers & below), row = 2 * l.t + (bit & 1);
          const u32 score = scores.at(bit), key = first + part + (bit & 24) + l.g;
          if (place < LISTED) list[place] = score << 24 | row << 21 | key;
          atomicAdd(&histogram[row][score], 1);
        }
        listed += __popc(takers);
      }
    }
    ring.release(first, l.lane);
  }
  __syncwarp();
  return listed;
}

// Calls visit(real, row, score, key), 32 lanes at a time, for the keys found by `stream`, the keys
// of a row in order: from the list, or by scoring them again if the list was too short.
template <class Visit>
DEVICE void walk(const Range& range, const Lane& l, const u32* list, int listed, Visit visit) {
  if (listed <= LISTED) {
    for (int first = 0; first < listed; first += 32) {
      const bool real = first + l.lane < listed;
      const u32 entry = real ? list[first + l.lane] : 0;
      visit(real, entry >> 21 & 7, entry >> 24, entry & 0x1fffff);
    }
    return;
  }
  for (int first = 0; first < range.count; first += 32) {
    u32 words[4];
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int key = min(first + 8 * j + l.g, range.count - 1);
      words[j] = range.keys[(i64)key * WORDS + (l.t & (WORDS - 1))];
    }
    const Scores scores(words, l);
    const u32 hit = scores.hits(l, range.allowed(first, range.mask_byte(first + l.lane)));
    for (u32 bits = __reduce_or_sync(ALL, hit); bits; bits &= bits - 1) {
      const int bit = __ffs(bits) - 1;
      visit(hit >> bit & 1, 2 * l.t + (bit & 1), scores.at(bit), first + (bit & 24) + l.g);
    }
  }
}

// ---- steps 1 and 3: levels -----------------------------------------------------------------------

DEVICE void take_sample(Shared& s, Ring& ring, const Range& range, const Lane& l) {
  if (range.count <= 0) return;
  u32 words[4];
  load_words(words, ring.wait(0, l.lane), l);
  const Scores scores(words, l);
  const u32 real = range.allowed(0, range.mask_byte(l.lane)) >> l.g;
#pragma unroll
  for (int i = 0; i < 2; i++)
#pragma unroll
    for (int b = 0; b < 4; b++)
      if (2 * l.t + i < ROWS && real >> (8 * b) & 1)
        atomicAdd(&s.sample[2 * l.t + i][scores.at(8 * b + i)], 1);
}

// As `keys_to_keep`: N, or the ceiling of the fraction of the allowed keys; never more than allowed.
DEVICE int keys_to_keep(const Arguments& a, int allowed) {
  if (a.fraction == 0.) return min(a.keep, allowed);
  return (int)ceil(__dmul_rn(__dmul_rn(a.fraction, (double)allowed), 1 - 1e-12));
}

// Final level, room, maximum and denominator of a row, from counts that hold at least `keep` keys.
DEVICE void settle(Row& row, const Counts<4>& counts, const Cut& cut, int keep, int lane) {
  const int room = keep - cut.above;
  int top = counts.last ? 128 : -1;
#pragma unroll
  for (int i = 0; i < 4; i++) top = counts.bins[i] ? max(top, 4 * lane + i) : top;
  top = __reduce_max_sync(ALL, top);
  float total = 0.f;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int score = 4 * lane + i;
    const int kept = score > cut.level ? counts.bins[i] : score == cut.level ? room : 0;
    if (kept) total += kept * exp2f((score - top) * row.per_match);
  }
  total = warp_sum(total);
  // Its weight is 1: no score is larger.
  if (counts.last) total += cut.level == 128 ? room : counts.last;
  const Before before = before_block(counts, cut.level, lane);
  __syncwarp();
  if (lane == 0) {
    row.level = cut.level, row.room = room, row.top = top, row.total = total;
    row.above = before.above, row.ties = before.ties;
  }
}

// ---- steps 4 and 5 -------------------------------------------------------------------------------

// Keys of each row above and at its level that precede this warp's range.
DEVICE void count_before(Shared& s, const Range& range, const Lane& l, int listed, int warp) {
  for (int i = threadIdx.x; i < ROWS * WARPS; i += THREADS) s.above[0][i] = s.ties[0][i] = 0;
  __syncthreads();
  walk(range, l, s.list[warp], listed, [&](bool real, int row, int score, int) {
    const int level = s.row[min(row, ROWS - 1)].level;
    if (real && score > level) atomicAdd(&s.above[row][warp], 1);
    if (real && score == level) atomicAdd(&s.ties[row][warp], 1);
  });
  __syncthreads();
  if (warp < ROWS && WARPS <= 32) {
    const int above = l.lane < WARPS ? s.above[warp][l.lane] : 0;
    const int ties = l.lane < WARPS ? s.ties[warp][l.lane] : 0;
    const int above_before = s.row[warp].above + sum_before(above, l.lane);
    const int ties_before = s.row[warp].ties + sum_before(ties, l.lane);
    if (l.lane < WARPS) s.above[warp][l.lane] = above_before, s.ties[warp][l.lane] = ties_before;
  }
  __syncthreads();
}

// Hands the kept keys numbered `first` .. `first + blocks * share - 1` to the blocks that gather
// their values, `share` each. Lists may be walked for several such windows.
DEVICE void share_out(Shared& s, const Range& range, const Lane& l, int listed, int warp, int first,
                      int share, int blocks) {
  const u32 below = (1u << l.lane) - 1;
  int above[ROWS], ties[ROWS];
#pragma unroll
  for (int r = 0; r < ROWS; r++) above[r] = s.above[r][warp], ties[r] = s.ties[r][warp];
  walk(range, l, s.list[warp], listed, [&](bool real, int row, int score, int key) {
    const Row& info = s.row[min(row, ROWS - 1)];
    const bool over = real && score > info.level, tie = real && score == info.level;
    const u32 overs = __ballot_sync(ALL, over), tied = __ballot_sync(ALL, tie);
    int place = -1;
#pragma unroll
    for (int r = 0; r < ROWS; r++) {
      const u32 here = __ballot_sync(ALL, row == r);
      const int over_before = above[r] + __popc(overs & here & below);
      const int ties_before = ties[r] + __popc(tied & here & below);
      if (row == r && (over || (tie && ties_before < info.room)))
        place = over_before + min(ties_before, info.room) - first;
      above[r] += __popc(overs & here), ties[r] += __popc(tied & here);
    }
    if (place >= 0 && place < blocks * share)
      store_remote(&s.picks[row][place % share], place / share,
                   (u32)score << 24 | (u32)(range.start + key));
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
  constexpr int LANES = VALUE / 8, AT_ONCE = 32 / LANES, DEPTH = 4;
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
      const u32 pick = real ? s.picks[r][i + k * step] : 0;
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

// Adds the warps' sums in order, then the blocks': row r in block r mod `blocks`, which divides.
DEVICE void combine(Shared& s, Sum& sum, const Arguments& a, int warp, int lane, int rank,
                    int blocks, int head, int batch) {
  constexpr int LANES = VALUE / 8;
#pragma unroll
  for (int i = 0; i < 8; i++) {
#pragma unroll
    for (int step = 16; step >= LANES; step /= 2)
      sum.x[i] += __shfl_xor_sync(ALL, sum.x[i], step);
    if (lane < LANES) s.sums[warp][8 * lane + i] = sum.x[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < ROWS * VALUE; i += THREADS) {
    const int r = i / VALUE, v = i % VALUE;
    float part = 0.f;
    for (int k = 0; k < ROW_WARPS; k++) part += s.sums[r * ROW_WARPS + k][v];
    store_remote(&s.parts[r / blocks * blocks + rank][v], r % blocks, __float_as_uint(part));
  }
  cluster_barrier();
  for (int r = rank; r < ROWS; r += blocks)
    for (int v = threadIdx.x; v < VALUE; v += THREADS) {
      float whole = 0.f;
      for (int k = 0; k < blocks; k++) whole += s.parts[r / blocks * blocks + k][v];
      const i64 row = ((i64)batch * a.heads + head * GROUP + r % GROUP) * a.tokens + r / GROUP;
      const float total = s.row[r].total;
      write(a.output, row * VALUE + v, total > 0.f ? whole / total : 0.f);
    }
}

// ---- the kernel ----------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 1024 / THREADS) hamming_decode(const __grid_constant__ Arguments a) {
  extern __shared__ __align__(128) char memory[];
  Shared& s = *(Shared*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int rank = cluster_rank(), blocks = gridDim.x, head = blockIdx.y, batch = blockIdx.z;
  STAMP(0)

  const int length = (a.keys + blocks * WARPS * 32 - 1) / (blocks * WARPS * 32) * 32;
  Range range;
  range.start = (rank * WARPS + warp) * length;
  range.count = max(0, min(length, a.keys - range.start));
  range.keys = a.key + batch * a.key_batch + head * a.key_head + (i64)range.start * WORDS;
  range.mask = MASKED ? a.mask + batch * a.mask_batch + range.start : nullptr;

  Ring ring = {s.ring[warp], s.arrived[warp], range, 0};
  if (lane == 0) {
    for (int i = 0; i < STAGES; i++)
      asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(ring.arrived + i)));
    asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncwarp();
  ring.start(lane);

  Lane l(a, head, batch);
  for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.sample[0][i] = s.histogram[0][i] = 0;
  if (threadIdx.x < ROWS) {
    const int r = threadIdx.x;
    const float gain = a.gain ? a.gain[batch * a.gain_batch + (head * GROUP + r % GROUP) * a.gain_head]
                              : a.gain_number;
    s.row[r].per_match = 2.f * gain * 1.4426950408889634f;
  }
  if (threadIdx.x == 0) s.allowed = 0;
  __syncthreads();

  take_sample(s, ring, range, l);
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
  const bool complete = length <= 32;  // the sample was everything
  if (warp < ROWS) {
    const Counts<4> counts = cluster_counts<4>(s.sample[warp], rank, blocks, lane);
    const int sampled = warp_sum(counts.bins[0] + counts.bins[1] + counts.bins[2] + counts.bins[3]) +
                        counts.last;
    const int goal = complete ? keep : sample_goal(keep, sampled, allowed);
    const Cut cut = find_cut(counts, goal, lane);
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
      const Counts<4> counts = cluster_counts<4>(s.histogram[warp], rank, blocks, lane);
      const Cut cut = find_cut(counts, keep, lane);
      if (cut.total >= keep)
        settle(s.row[warp], counts, cut, keep, lane);
      else if (lane == 0) {  // the sample misled: fewer than N keys reach the level
        s.row[warp].level = attempt ? 0 : max(0, s.row[warp].level - 6);
        s.lacking = 1;
      }
    }
    __syncthreads();
    if (!s.lacking) break;
    cluster_barrier();  // before the histograms that other blocks read are cleared
    for (int i = threadIdx.x; i < ROWS * BINS; i += THREADS) s.histogram[0][i] = 0;
    ring.start(lane);
    __syncthreads();
  }

  l.set_levels(s.row);
  count_before(s, range, l, listed, warp);
  STAMP(5)
  const char* values = a.value + (batch * a.value_batch + head * a.value_head) * 2;
  const int share = max(1, min(PICKS, (keep + blocks - 1) / blocks));
  Sum sum = {};
  for (int first = 0; first < keep; first += blocks * share) {
    if (first) cluster_barrier();  // the picks of the previous window have been used
    share_out(s, range, l, listed, warp, first, share, blocks);
    cluster_barrier();
    STAMP(6)
    gather(sum, s, values, a.value_key, max(0, min(share, keep - first - rank * share)), warp, lane);
  }
  STAMP(7)
  combine(s, sum, a, warp, lane, rank, blocks, head, batch);
}
