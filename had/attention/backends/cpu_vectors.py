# mypy: allow-untyped-defs
"""Operations on the scores of 64 keys and on 16 values, for numba.

Written once for every instruction set: LLVM splits a vector into as many registers as the machine
has to give it (one with AVX-512, two with AVX2, four with SSE2 or NEON) and lowers a population
count to the best that it finds (VPOPCNTB, a table in a shuffle, bit tricks).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from had.attention.backends.cpu_emit import (
    FLOAT_LANES,
    FLOATS,
    INT16,
    INT32,
    INT64,
    KEYS,
    call_llvm,
    call_on_vector,
    pointer_to,
    read,
    scores_of,
    spread_scalar,
    widen,
)

_FUSED = ("contract",)  # a multiplication and an addition may become one instruction


@intrinsic
def load(typing, memory, index):
    """64 elements, uint8 or uint16, from `index` on."""
    vector = scores_of(memory.dtype)

    def generate(context, builder, signature, arguments):
        pointer = pointer_to(builder, *arguments, vector.ir)
        return read(builder, pointer)

    return vector(memory, types.intp), generate


@intrinsic
def store(typing, memory, index, vector):
    """Write a vector's lanes from `index` on."""

    def generate(context, builder, signature, arguments):
        source, position, value = arguments
        pointer = pointer_to(builder, source, position, vector.ir)
        builder.store(value, pointer).align = 1
        return context.get_dummy_value()

    return types.void(memory, types.intp, vector), generate


@intrinsic
def splat(typing, memory, scalar):
    """The scalar in 64 lanes of the type that the pointer is to."""
    vector = scores_of(memory.dtype)

    def generate(context, builder, signature, arguments):
        return spread_scalar(builder, builder.trunc(arguments[1], vector.ir.element), KEYS)

    return vector(memory, types.int64), generate


@intrinsic
def subtract(typing, left, right):
    """left - right, lane by lane."""

    def generate(context, builder, signature, arguments):
        return builder.sub(*arguments)

    return left(left, right), generate


@intrinsic
def add_differences(typing, total, key, query):
    """total + the number of differing bits of two uint8 vectors, lane by lane."""

    def generate(context, builder, signature, arguments):
        before, x, y = arguments
        count = call_on_vector(builder, "ctpop", key.ir, builder.xor(x, y))
        return builder.add(before, widen(builder, count, total.ir))

    return total(total, key, query), generate


@intrinsic
def maximum(typing, left, right):
    """The larger of two unsigned vectors, lane by lane."""

    def generate(context, builder, signature, arguments):
        return call_on_vector(builder, "umax", left.ir, *arguments)

    return left(left, right), generate


@intrinsic
def largest(typing, vector):
    """The largest lane of an unsigned vector."""

    def generate(context, builder, signature, arguments):
        name = f"llvm.vector.reduce.umax.v{vector.lanes}i{vector.ir.element.width}"
        return builder.zext(call_llvm(builder, name, vector.ir.element, list(arguments)), INT64)

    return types.int64(vector), generate


@intrinsic
def where(typing, mask, vector):
    """The lanes whose bit of the mask is set; zero in the others."""

    def generate(context, builder, signature, arguments):
        chosen = builder.bitcast(arguments[0], ir.VectorType(ir.IntType(1), KEYS))
        return builder.select(chosen, arguments[1], ir.Constant(vector.ir, None))

    return vector(types.uint64, vector), generate


@intrinsic
def at_least(typing, vector, level):
    """A bit for every lane: whether it reaches the level."""

    def generate(context, builder, signature, arguments):
        scalar = builder.trunc(arguments[1], vector.ir.element)
        reached = builder.icmp_unsigned(">=", arguments[0], spread_scalar(builder, scalar, KEYS))
        return builder.bitcast(reached, INT64)

    return types.uint64(vector, types.int64), generate


@intrinsic
def no_floats(typing):
    """16 zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(FLOATS.ir, None)

    return FLOATS(), generate


@intrinsic
def add_scaled(typing, total, factor, memory, index):
    """total + factor * 16 numbers from `index` on.

    bfloat16 travels as uint16 and float16 as int16, since numba knows neither.
    """

    def generate(context, builder, signature, arguments):
        before, scalar, source, position = arguments
        values = _as_floats(builder, memory, source, position)
        product = builder.fmul(spread_scalar(builder, scalar, FLOAT_LANES), values, flags=_FUSED)
        return builder.fadd(before, product, flags=_FUSED)

    return FLOATS(FLOATS, types.float32, memory, types.intp), generate


def _as_floats(builder, memory, source, position):
    """16 float32 from an array of float32, bfloat16 bits (uint16) or float16 bits (int16)."""
    if memory.dtype == types.float32:
        return read(builder, pointer_to(builder, source, position, FLOATS.ir), 4)
    half = ir.VectorType(INT16, FLOAT_LANES)
    words = ir.VectorType(INT32, FLOAT_LANES)
    narrow = read(builder, pointer_to(builder, source, position, half), 2)
    if memory.dtype == types.uint16:
        places = ir.Constant(words, [16] * FLOAT_LANES)
        return builder.bitcast(builder.shl(builder.zext(narrow, words), places), FLOATS.ir)
    return _half_to_float(builder, builder.zext(narrow, words))


def _half_to_float(builder, bits):
    """float32 of float16 bits in 32-bit lanes, without instructions that an old machine lacks.

    Exponent and fraction move to their places in float32 and a multiplication by 2^112 mends the
    bias of the exponent, subnormal numbers included; infinities and NaN keep theirs at its largest.
    """

    def constant(value):
        return ir.Constant(bits.type, [value] * FLOAT_LANES)

    magnitude = builder.shl(builder.and_(bits, constant(0x7FFF)), constant(13))
    scale = ir.Constant(FLOATS.ir, [2.0**112] * FLOAT_LANES)
    scaled = builder.bitcast(builder.fmul(builder.bitcast(magnitude, FLOATS.ir), scale), bits.type)
    special = builder.icmp_unsigned(">=", magnitude, constant(0x7C00 << 13))
    finite = builder.select(special, builder.or_(magnitude, constant(0xFF << 23)), scaled)
    sign = builder.shl(builder.and_(bits, constant(0x8000)), constant(16))
    return builder.bitcast(builder.or_(finite, sign), FLOATS.ir)


@intrinsic
def store_scaled(typing, memory, index, factor, vector):
    """Write factor * vector, float32, from `index` on."""

    def generate(context, builder, signature, arguments):
        target, position, scalar, value = arguments
        pointer = pointer_to(builder, target, position, FLOATS.ir)
        builder.store(
            builder.fmul(spread_scalar(builder, scalar, FLOAT_LANES), value), pointer
        ).align = 4
        return context.get_dummy_value()

    return types.void(memory, types.intp, types.float32, FLOATS), generate
