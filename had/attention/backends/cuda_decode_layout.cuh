// Decoding: sizes, arguments, and what a block of the kernel holds in shared memory.

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
