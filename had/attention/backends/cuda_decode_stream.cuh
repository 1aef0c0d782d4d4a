// Decoding: keys on their way through shared memory.

// The keys of one warp: a range of a row, or what is left of it.
struct Range {
  int start, count;
  int allowed;       // by the mask
  const u32* words;  // of the first one
  const u8* mask;    // its byte

  // Bit j: key j of the eight from `first` on exists and is allowed.
  DEVICE u32 allows(int first) const {
    if (MASKED) return allowed_of_eight(mask + first, mask + count);
    const int left = count - first;
    return left >= LANE_KEYS ? 255 : left > 0 ? (1u << left) - 1 : 0;
  }
};

// A warp's blocks, copied ahead of their use.
struct Ring {
  static constexpr int COPIES = CHUNKS / 32;  // of a lane for a block
  char* memory;
  int lane;
  int places[COPIES];

  DEVICE Ring(char* memory, int lane) : memory(memory), lane(lane) {
#pragma unroll
    for (int k = 0; k < COPIES; k++) places[k] = kept(Lane::swizzled(32 * k + lane) * 16);
  }

  DEVICE char* stage(int i) const { return memory + i * BLOCK_BYTES; }

  // Copies the block of which `left` keys lie before the end of the range; `from` is the lane's chunk.
  DEVICE void fill(int i, const char* from, int left) const {
    if (left >= BLOCK_KEYS) {
#pragma unroll
      for (int k = 0; k < COPIES; k++) copy_16(stage(i) + places[k], from + k * 512);
    } else if (left > 0) {
#pragma unroll
      for (int k = 0; k < COPIES; k++) {
        const int bytes = min(16, left * WORDS * 4 - (32 * k + lane) * 16);
        if (bytes > 0) copy_16(stage(i) + places[k], from + k * 512, bytes);
      }
    }
    close_copies();
  }
};

// The part of the range between its first and last allowed key, in whole blocks.
DEVICE void leave_out_padding(Range& range, int lane) {
  const Span span = allowed_span(range.mask, range.count, lane);
  range.allowed = span.allowed;
  const int skipped = span.allowed ? span.first & -BLOCK_KEYS : 0;
  range.start += skipped, range.mask += skipped;
  range.count = span.last + 1 - skipped;
}

// Calls visit(scores, the lane's first key, keys left from the block's first on) for every block of a
// range, and copies those that follow the first STAGES, which are under way: block b waits in stage
// b % STAGES. UNROLLED blocks are one stretch of code.
template <int UNROLLED, class Visit>
DEVICE void stream(const Ring& ring, const Range& range, const Lane& l, Visit visit) {
  const char* from = kept((const char*)range.words + STAGES * BLOCK_BYTES + l.lane * 16);
  int left = range.count;
  int key = range.start + l.key;
  for (; left > 0;)
#pragma unroll UNROLLED
    for (int i = 0; i < STAGES; i++) {
      if (left <= 0) return;
      wait_for_copies<STAGES - 1>();
      __syncwarp();  // for copies by all lanes
      const Scores scores(l, ring.stage(i));
      __syncwarp();  // all lanes have read the stage
      ring.fill(i, from, left - STAGES * BLOCK_KEYS);
      visit(scores, key, left);
      from += BLOCK_BYTES, key += BLOCK_KEYS, left -= BLOCK_KEYS;
    }
}
