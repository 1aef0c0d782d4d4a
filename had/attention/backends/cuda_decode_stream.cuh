// Decoding, steps 1 and 2: keys by bulk copies into a ring of stages that no other warp touches, and
// the lists of those that reach a level.

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
