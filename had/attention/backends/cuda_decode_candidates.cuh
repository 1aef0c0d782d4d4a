// Decoding, kernel 2: where the keys come from among which it selects. Both sources are a sequence of
// entries in the order of the keys, each a key and, in the highest byte, its score; a block brings
// STAGED of them at a time to shared memory.

constexpr int STAGED = 10240;
constexpr int MOST_RANGES = 512;
constexpr u32 NO_KEY = ALL;  // an entry of a key that the mask forbids

// The lists of kernel 1. `first[r]`: place in the sequence of the first entry of range r.
struct Listed {
  const u32* list;  // of the row
  const int* first;
  int ranges, range_keys;

  // Begins to copy the entries from `start` on.
  DEVICE void stage(u32* staged, int start, int warp, int lane) const {
    for (int range = warp; range < ranges; range += WARPS) {
      const int shift = first[range] - start, end = min(first[range + 1] - start, STAGED);
      const u32* entries = list + (i64)range * range_keys;
      for (int i = max(shift, 0) + lane; i < end; i += 32) copy_4(staged + i, entries + i - shift);
    }
    close_copies();
  }
};

// All keys, scored again: should the sample have misled kernel 1, so that its lists are too short.
struct Rescored {
  const u32* keys;
  const u8* mask;
  int count;
  u32 query[WORDS];

  DEVICE Rescored(const Arguments& a, int batch, int head, int r) {
    keys = key_words(a, batch, head, 0), count = a.keys;
    mask = a.mask + batch * a.mask_batch;
    const u32* words = query_words(a, batch, head, r);
#pragma unroll
    for (int w = 0; w < WORDS; w++) query[w] = words[w];
  }

  DEVICE u32 entry(int key) const {
    if (MASKED && !mask[key]) return NO_KEY;
    u32 equal = 32 * WORDS;
#pragma unroll
    for (int w = 0; w < WORDS; w++) equal -= __popc(keys[(i64)key * WORDS + w] ^ query[w]);
    return equal << 24 | key;
  }

  DEVICE void stage(u32* staged, int start) const {
#pragma unroll 1
    for (int i = threadIdx.x; i < min(STAGED, count - start); i += THREADS)
      staged[i] = entry(start + i);
  }
};
