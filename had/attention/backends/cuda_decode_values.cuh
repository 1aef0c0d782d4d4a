// Decoding: the average of the kept keys' values.

#include "cuda_decode_floats.cuh"

constexpr int ELEMENTS = 16 / VALUE_BYTES;  // of a value that a lane adds up
constexpr int LANES = VALUE / ELEMENTS;     // that share a value

struct Sum {
  float x[ELEMENTS];

  // Adds weight times the elements in 16 bytes.
  DEVICE void add(const uint4& packed, float weight) {
    const u32 words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
    for (int i = 0; i < ELEMENTS / 2; i++) {
      const u32 word = words[i * VALUE_BYTES / 2];
      const float2 v = two_values(VALUE_BYTES == 1 && i & 1 ? word >> 16 : word);
      x[2 * i] += weight * v.x, x[2 * i + 1] += weight * v.y;
    }
  }
};

// Adds the weighted values of `count` picks, keys with their scores, of which every group of LANES
// lanes, numbered by `group` among GROUPS, has its share, AHEAD at a time. `stride` of a value, in bytes.
template <int GROUPS, int AHEAD>
DEVICE void gather(Sum& sum, const Row& row, const u32* picks, int count, const char* values,
                   i64 stride, int group, int lane) {
  const char* column = values + lane % LANES * 16;
  const int top = row.top;
  const float per_match = row.per_match;
  for (int i = group; i < count; i += AHEAD * GROUPS) {
    uint4 packed[AHEAD];
    float weight[AHEAD];
#pragma unroll
    for (int k = 0; k < AHEAD; k++) {
      const bool real = i + k * GROUPS < count;
      const u32 pick = real ? picks[i + k * GROUPS] : 0;
      packed[k] = real ? load_once(column + (pick & 0xffffff) * stride) : uint4{};
      weight[k] = real ? exp2f(((int)(pick >> 24) - top) * per_match) : 0.f;
    }
#pragma unroll
    for (int k = 0; k < AHEAD; k++) sum.add(packed[k], weight[k]);
  }
}

// Adds up the sums of a warp's lanes.
DEVICE void add_lanes(float* sums, Sum& sum, int lane) {
#pragma unroll
  for (int i = 0; i < ELEMENTS; i++)
#pragma unroll
    for (int step = 16; step >= LANES; step /= 2)
      sum.x[i] += __shfl_xor_sync(ALL, sum.x[i], step);
  if (lane < LANES)
#pragma unroll
    for (int i = 0; i < ELEMENTS; i += 4)
      *(float4*)(sums + lane * ELEMENTS + i) =
          make_float4(sum.x[i], sum.x[i + 1], sum.x[i + 2], sum.x[i + 3]);
}
