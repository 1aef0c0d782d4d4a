// Decoding with exact recent keys: their attention, and what a kernel of `cuda_decode` has found among all
// others, which is one key more. A block does one query head of a sequence.
//
// Compile-time constants: WIDTH (of a key, a multiple of 32), KEY_FLOAT (of queries and keys: 0 for
// float32, 1 for float16, 2 for bfloat16), VALUE, VALUE_BYTES and BFLOAT16 (of values, as in
// `cuda_decode_layout.cuh`), GROUP (query heads that share a key head), MASKED, THREADS, SHARED_BYTES.

#include "cuda_common.cuh"

constexpr bool WIDE = VALUE_BYTES == 1;  // the output is float32

#include "cuda_decode_floats.cuh"

constexpr int WARPS = THREADS / 32;
constexpr int MOST_KEYS = SHARED_BYTES / 4 - 1;
static_assert(VALUE <= 2 * THREADS, "a thread has two elements of the output");

struct Arguments {
  const char* query;      // (B, H, WIDTH), strides in elements
  const char* key;        // (B, G, keys, WIDTH)
  const char* value;      // (B, G, keys, VALUE)
  const u8* mask;         // (B, keys) or null
  const float* far;       // (B, H, VALUE), contiguous: the output for all other keys
  const float* log_sums;  // (B, H): of the exponentials of their scores
  void* output;           // (B, H, VALUE), contiguous; float32 if WIDE
  i64 query_batch, query_head;
  i64 key_batch, key_head, key_token;
  i64 value_batch, value_head, value_token;
  i64 mask_batch;
  float gain;
  int keys;
};

DEVICE float number(const char* x, i64 i) {
  if (KEY_FLOAT == 0) return ((const float*)x)[i];
  const u32 bits = ((const unsigned short*)x)[i];
  return KEY_FLOAT == 1 ? from_float16(bits).x : from_bfloat16(bits).x;
}

DEVICE float warp_max(float x) {
#pragma unroll
  for (int step = 16; step; step /= 2) x = fmaxf(x, __shfl_xor_sync(ALL, x, step));
  return x;
}

// Scores of the exact keys, a warp a key, and that of all others behind them.
DEVICE void score(float* scores, const Arguments& a, int head, int batch, int warp, int lane) {
  const i64 query = batch * a.query_batch + head * a.query_head;
  const i64 key = batch * a.key_batch + head / GROUP * a.key_head;
  float own[WIDTH / 32];
#pragma unroll
  for (int i = 0; i < WIDTH / 32; i++) own[i] = number(a.query, query + 32 * i + lane);
  for (int k = warp; k < a.keys; k += WARPS) {
    float sum = 0.f;
#pragma unroll
    for (int i = 0; i < WIDTH / 32; i++)
      sum += own[i] * number(a.key, key + k * a.key_token + 32 * i + lane);
    sum = warp_sum(sum);
    const bool allowed = !MASKED || a.mask[batch * a.mask_batch + k];
    if (lane == 0) scores[k] = allowed ? a.gain * sum : __uint_as_float(0xff800000u);
  }
  if (threadIdx.x == 0) scores[a.keys] = a.log_sums[batch * gridDim.x + head];
}

extern "C" __global__ void __launch_bounds__(THREADS) merge(const __grid_constant__ Arguments a) {
  SHARED_MEMORY(memory);
  float* scores = (float*)memory;
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  const int head = blockIdx.x, batch = blockIdx.y;
  let_next_kernel_start();
  wait_for_earlier_kernels();
  score(scores, a, head, batch, warp, lane);
  __syncthreads();

  float top = -3.4e38f;  // finite, so that rows without any key have the output of the others: zero
  for (int k = lane; k <= a.keys; k += 32) top = fmaxf(top, scores[k]);
  top = warp_max(top);
  __syncthreads();  // all have read the scores
  for (int k = threadIdx.x; k <= a.keys; k += THREADS)
    scores[k] = exp2f((scores[k] - top) * 1.4426950408889634f);
  __syncthreads();

  const int v = 2 * threadIdx.x;
  if (v >= VALUE) return;
  const i64 row = (i64)batch * gridDim.x + head;
  const char* values = a.value + (batch * a.value_batch + head / GROUP * a.value_head + v) * VALUE_BYTES;
  float total = scores[a.keys];
  float2 sum = {total * a.far[row * VALUE + v], total * a.far[row * VALUE + v + 1]};
  for (int k = 0; k < a.keys; k++) {
    const char* place = values + k * a.value_token * VALUE_BYTES;
    const float2 x = two_values(VALUE_BYTES == 1 ? *(const unsigned short*)place : *(const u32*)place);
    sum.x += scores[k] * x.x, sum.y += scores[k] * x.y, total += scores[k];
  }
  const float share = total > 0.f ? 1.f / total : 0.f;
  write(a.output, row * VALUE + v, sum.x * share);
  write(a.output, row * VALUE + v + 1, sum.y * share);
}
