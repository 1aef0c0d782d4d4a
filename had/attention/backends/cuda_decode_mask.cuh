// Decoding: masks of keys, a byte each, nonzero where a key is allowed. Rows may begin anywhere.

// The lowest bits of four bytes: of a mask's, which are 0 or 1, and of others beyond its end.
DEVICE u32 lowest_bits(u32 bytes) { return (bytes & 0x01010101u) * 0x10204080u >> 28; }

// Bit j: byte j of eight that begin at `mask` is set, and they begin before `end`.
DEVICE u32 allowed_of_eight(const u8* mask, const u8* end) {
  if (mask >= end) return 0;
  const int shift = (int)((u64)mask & 7) * 8;
  const u64* aligned = (const u64*)((u64)mask & ~7ull);
  u64 bytes = aligned[0] >> shift;
  if (shift && (const u8*)(aligned + 1) < end) bytes |= aligned[1] << (64 - shift);
  const u32 bits = lowest_bits((u32)bytes) | lowest_bits((u32)(bytes >> 32)) << 4;
  return end - mask >= 8 ? bits : bits & ((1u << (end - mask)) - 1);
}

// First and last allowed key of a range, as far as a lane, or a warp, has seen.
struct Span {
  int first, last, allowed;
};

// Of `count` keys, found by a warp.
DEVICE Span allowed_span(const u8* mask, int count, int lane) {
  Span span = {count, -1, 0};
  const u8* end = mask + count;
#pragma unroll 4
  for (int key = 8 * lane; key < count; key += 256) {
    const u32 bits = allowed_of_eight(mask + key, end);
    if (!bits) continue;
    span.first = min(span.first, key + __ffs(bits) - 1);
    span.last = key + 31 - __clz(bits);
    span.allowed += __popc(bits);
  }
  span.first = __reduce_min_sync(ALL, span.first);
  span.last = __reduce_max_sync(ALL, span.last);
  span.allowed = warp_sum(span.allowed);
  return span;
}
