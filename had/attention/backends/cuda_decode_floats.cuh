// Decoding: values as floats, and outputs. VALUE_BYTES, BFLOAT16 and WIDE say what they are.

// Two elements, of the lower half of a word if they have one byte each.
DEVICE float2 two_values(u32 word) {
  if (VALUE_BYTES == 1) return from_float16(from_float8(word));
  return BFLOAT16 ? from_bfloat16(word) : from_float16(word);
}

DEVICE void write(void* output, i64 index, float x) {
  if (WIDE)
    ((float*)output)[index] = x;
  else
    ((unsigned short*)output)[index] = BFLOAT16 ? to_bfloat16(x) : to_float16(x);
}
