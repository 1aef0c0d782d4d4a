// Decoding, steps 4 and 5: the kept keys dealt out to the blocks, and the average of their values.

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
