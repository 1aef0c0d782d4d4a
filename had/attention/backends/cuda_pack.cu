// Signs of floats as bits, as `had.attention.bits` defines them: one kernel in place of three, and of
// the copies into a cache. A warp packs the row of one token and head, and copies its value, if any.
//
// Compile-time constants: BYTES (of a float, 2 or 4), HIGHEST (bits of its infinity), THREADS.

#include "cuda_device.cuh"

struct Arguments {
  const char* x;     // (B, H, T, width), strides in elements
  u32* words;        // (B, H, T, ceil(width / 32)), strides in words
  const char* value; // (B, H, T, value_words words), strides in bytes: of whatever type
  char* stored;      // likewise
  i64 x_batch, x_head, x_token;
  i64 words_batch, words_head, words_token;
  i64 value_batch, value_head, value_token;
  i64 stored_batch, stored_head, stored_token;
  int tokens, width, value_words;
};

constexpr u32 SIGN = 1u << (8 * BYTES - 1);

// x >= 0, which -0 is and no number that is none.
DEVICE bool positive(u32 bits) { return bits <= HIGHEST || bits == SIGN; }

DEVICE u32 bits_of(const char* x, i64 i) {
  return BYTES == 2 ? ((const unsigned short*)x)[i] : ((const u32*)x)[i];
}

// Blocks: groups of tokens, heads, sequences.
extern "C" __global__ void __launch_bounds__(THREADS) pack_signs(const __grid_constant__ Arguments a) {
  const int lane = threadIdx.x % 32, token = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
  if (token >= a.tokens) return;
  const i64 x = blockIdx.z * a.x_batch + blockIdx.y * a.x_head + token * a.x_token;
  u32* words = a.words + blockIdx.z * a.words_batch + blockIdx.y * a.words_head +
               token * a.words_token;
  for (int first = 0; first < a.width; first += 32) {
    const int i = first + lane;
    const u32 word = __ballot_sync(ALL, i < a.width && positive(bits_of(a.x, x + i)));
    if (lane == 0) words[first / 32] = word;
  }
  const u32* value = (const u32*)(a.value + blockIdx.z * a.value_batch + blockIdx.y * a.value_head +
                                  token * a.value_token);
  u32* stored = (u32*)(a.stored + blockIdx.z * a.stored_batch + blockIdx.y * a.stored_head +
                       token * a.stored_token);
  for (int i = lane; i < a.value_words; i += 32) stored[i] = value[i];
}
