// Decoding: sizes that its kernels agree on, and their arguments.
//
// Compile-time constants: WORDS (32-bit words of a key, 2 or 4), VALUE (width of a value, 64 or 128),
// VALUE_BYTES (of one of its elements: 1 for float8 e4m3, or 2), BFLOAT16 (2 bytes: else float16),
// ROWS (1 .. 8 query rows that share a key head), GROUP (heads among them), MASKED, PART (whether the
// keys are a part of every row's, the rest of which is attended to elsewhere), THREADS.

#include "cuda_common.cuh"

constexpr int WARPS = THREADS / 32;
constexpr int RANGES = 8;  // of keys, in a split, where two kernels do the step
constexpr bool WIDE = VALUE_BYTES == 1 || PART;  // outputs are float32
constexpr int BINS = 132;  // scores 0 .. 128, padded to 16 bytes

// A row's keys are cut into splits, one for a block that scores them, and these into ranges, one for a
// warp. Where two kernels do the step, a range's list has room for all its keys: it begins at the place
// of the first of them in an array as long as the row.
struct Arguments {
  const u32* query;    // (B, H, T, WORDS), strides in words
  const u32* key;      // (B, G, S, WORDS)
  const char* value;   // (B, G, S, VALUE), strides in elements
  const u8* mask;      // (B, S) or null
  const float* gain;   // (B, H) or null
  void* output;        // (B, H, T, VALUE), contiguous; float32 if WIDE
  float* log_sums;     // of a part: (B, H, T), of the exponentials of the kept scores; -inf for none
  const i64* elsewhere;  // of a part: (B) keys that a row keeps in the rest, or null
  u32* mail;           // between the blocks of the one kernel; otherwise, between the two:
  u32* list;           // (B, G, ROWS, row_keys): key and, in the highest byte, its score
  int* listed;         // (B, G, ROWS, splits, RANGES): entries of a list
  int* histogram;      // (B, G, ROWS, splits, BINS): of the scores in the lists
  int* allowed;        // (B, G, splits): keys that the mask allows
  i64 query_batch, query_head, query_token;
  i64 key_batch, key_head;
  i64 value_batch, value_head, value_key;
  i64 mask_batch;
  i64 gain_batch, gain_head;
  i64 elsewhere_batch;
  i64 row_keys;
  double share;        // of the allowed keys to keep, if that is more than `keep`
  float gain_number;
  int heads, tokens, keys, keep;
  int elsewhere_number;
  int splits, split_keys, range_keys;
  int sampled;         // whether a sample tells which keys to list; if not, all are
};

// Keys that a sequence's rows keep in the rest, beside a part.
DEVICE int kept_elsewhere(const Arguments& a, int batch) {
  if (!PART) return 0;
  return a.elsewhere ? (int)a.elsewhere[batch * a.elsewhere_batch] : a.elsewhere_number;
}

// As `keys_to_keep_of_part`: a number, or the ceiling of a share of all allowed keys, less those kept
// elsewhere; never more than there are allowed ones.
DEVICE int keys_to_keep(const Arguments& a, int allowed, int elsewhere) {
  const int all = allowed + elsewhere;
  const double share = __dmul_rn(__dmul_rn(a.share, (double)all), 1 - 1e-12);
  return max(min(max(a.keep, (int)ceil(share)), all) - elsewhere, 0);
}

// Row r of those that share a key head.
DEVICE const u32* query_words(const Arguments& a, int batch, int head, int r) {
  return a.query + batch * a.query_batch + (head * GROUP + r % GROUP) * a.query_head +
         r / GROUP * a.query_token;
}

DEVICE const u32* key_words(const Arguments& a, int batch, int head, i64 key) {
  return a.key + batch * a.key_batch + head * a.key_head + key * WORDS;
}
