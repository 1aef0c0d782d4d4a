# mypy: allow-untyped-defs
"""Vectors of 64 keys for numba: a type, and the few operations that the CPU kernels need.

Written once for every instruction set: LLVM splits a vector into as many registers as the machine
has to give it (one with AVX-512, two with AVX2, four with SSE2 or NEON) and lowers a population
count to the best that it finds (VPOPCNTB, a table in a shuffle, bit tricks).

Element types: uint8 or uint16 scores (64 lanes), float32 values (16 lanes).
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

KEYS = 64
"""Keys of a block: one bit of a uint64 mask and one lane of a score vector each."""

_INT8, _INT16, _INT32, _INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
_FLOATS = 16
_SLOW_DEPOSIT = ("znver1", "znver2")  # hundreds of cycles a PDEP
_FUSED = ("contract",)  # a multiplication and an addition may become one instruction


class Vector(types.Type):
    """A vector register, or several, holding numbers of one numba type."""

    def __init__(self, element, lanes):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")

    @property
    def ir(self):
        """Its type in LLVM."""
        scalar = _FLOAT if self.element == types.float32 else ir.IntType(self.element.bitwidth)
        return ir.VectorType(scalar, self.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


FLOATS = Vector(types.float32, _FLOATS)


def _scores(element):
    return Vector(element, KEYS)


def _splat(builder, scalar, lanes):
    single = builder.insert_element(
        ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined), scalar, _INT32(0)
    )
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_INT32, lanes), None))


def _pointer(context, builder, array_type, array, index, pointee):
    """Where element `index` of a contiguous one-dimensional array lies, as a pointer."""
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), pointee.as_pointer())


def _read(builder, pointer, align=1):
    loaded = builder.load(pointer)
    loaded.align = align
    return loaded


def _call(builder, name, result, arguments):
    """A call of an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.declare_intrinsic(name, (), kind)
    return builder.call(function, arguments)


def _vector_call(builder, name, vector, *arguments):
    full = f"llvm.{name}.v{vector.count}i{vector.element.width}"
    return _call(builder, full, vector, list(arguments))


@intrinsic
def load(typing, array, index):
    """64 elements of a uint8 or uint16 array from `index` on."""
    vector = _scores(array.dtype)

    def generate(context, builder, signature, arguments):
        pointer = _pointer(context, builder, array, *arguments, vector.ir)
        return _read(builder, pointer)

    return vector(array, types.intp), generate


@intrinsic
def store(typing, array, index, vector):
    """Write a vector's lanes to the array from `index` on."""

    def generate(context, builder, signature, arguments):
        source, position, value = arguments
        pointer = _pointer(context, builder, array, source, position, vector.ir)
        builder.store(value, pointer).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), generate


@intrinsic
def splat(typing, array, scalar):
    """The scalar in 64 lanes of the array's element type."""
    vector = _scores(array.dtype)

    def generate(context, builder, signature, arguments):
        return _splat(builder, builder.trunc(arguments[1], vector.ir.element), KEYS)

    return vector(array, types.int64), generate


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
        count = _vector_call(builder, "ctpop", key.ir, builder.xor(x, y))
        wide = count if total.ir == key.ir else builder.zext(count, total.ir)
        return builder.add(before, wide)

    return total(total, key, query), generate


@intrinsic
def maximum(typing, left, right):
    """The larger of two unsigned vectors, lane by lane."""

    def generate(context, builder, signature, arguments):
        return _vector_call(builder, "umax", left.ir, *arguments)

    return left(left, right), generate


@intrinsic
def largest(typing, vector):
    """The largest lane of an unsigned vector."""

    def generate(context, builder, signature, arguments):
        name = f"llvm.vector.reduce.umax.v{vector.lanes}i{vector.ir.element.width}"
        return builder.zext(_call(builder, name, vector.ir.element, list(arguments)), _INT64)

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
        reached = builder.icmp_unsigned(">=", arguments[0], _splat(builder, scalar, KEYS))
        return builder.bitcast(reached, _INT64)

    return types.uint64(vector, types.int64), generate


@intrinsic
def nonnegative(typing, array, index):
    """A bit for each of 64 float32 from `index` on: whether it is >= 0."""
    vector = ir.VectorType(_FLOAT, KEYS)

    def generate(context, builder, signature, arguments):
        loaded = _read(builder, _pointer(context, builder, array, *arguments, vector), 4)
        return builder.bitcast(
            builder.fcmp_ordered(">=", loaded, ir.Constant(vector, None)), _INT64
        )

    return types.uint64(array, types.intp), generate


@intrinsic
def bit_count(typing, word):
    """How many bits of a uint64 are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def item(typing, array, index):
    """One element; unlike `array[index]` it never counts from the end, which would cost a test."""

    def generate(context, builder, signature, arguments):
        source, position = arguments
        data = context.make_array(array)(context, builder, source).data
        return builder.load(builder.gep(data, [position]))

    return array.dtype(array, types.intp), generate


def _has(context, feature):
    """Whether the machine that code is generated for has a feature, by LLVM's name of it."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def _processor(context):
    return context.codegen().magic_tuple()[1]


@intrinsic
def keep_lowest(typing, word, count):
    """The word's `count` lowest set bits, in one instruction (BMI2) where that is fast."""

    def generate(context, builder, signature, arguments):
        bits, wanted = arguments
        if _has(context, "bmi2") and _processor(context) not in _SLOW_DEPOSIT:
            ones = builder.sub(builder.shl(_INT64(1), wanted), _INT64(1))
            everything = builder.icmp_signed(">=", wanted, _INT64(KEYS))
            ones = builder.select(everything, _INT64(-1), ones)
            return _call(builder, "llvm.x86.bmi.pdep.64", _INT64, [ones, bits])
        rest = cgutils.alloca_once_value(builder, bits)
        with cgutils.for_range(builder, wanted):
            left = builder.load(rest)
            builder.store(builder.and_(left, builder.sub(left, _INT64(1))), rest)
        return builder.xor(bits, builder.load(rest))

    return types.uint64(types.uint64, types.int64), generate


@intrinsic
def append_positions(typing, word, first, array, index):
    """Write `first` + the position of every set bit to an int32 array from `index` on.

    Several are written at a time, wanted or not: up to 64 elements beyond may be overwritten. That
    takes no branch a bit, which would often be mispredicted.
    """

    def generate(context, builder, signature, arguments):
        write = _compress_positions if _has(context, "avx512vbmi2") else _peel_positions
        bits, base, target, position = arguments
        pointer = _pointer(context, builder, array, target, position, _INT32)
        write(builder, bits, builder.trunc(base, _INT32), pointer)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, array, types.intp), generate


def _compress_positions(builder, bits, base, pointer):
    """16 positions at a time: bytes 0 .. 63 squeezed together in a register, then widened."""
    bytes_, words = ir.VectorType(_INT8, KEYS), ir.VectorType(_INT32, 16)
    mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), KEYS))
    arguments = [ir.Constant(bytes_, list(range(KEYS))), mask, ir.Constant(bytes_, ir.Undefined)]
    positions = _call(builder, "llvm.experimental.vector.compress.v64i8", bytes_, arguments)
    count = builder.ctpop(bits)
    for part in range(4):
        quarter = _shuffle(builder, positions, None, list(range(16 * part, 16 * part + 16)))
        with builder.if_then(builder.icmp_signed(">", count, _INT64(16 * part)), likely=part == 0):
            wide = builder.add(builder.zext(quarter, words), _splat(builder, base, 16))
            into = builder.bitcast(pointer, words.as_pointer())
            builder.store(wide, builder.gep(into, [_INT32(part)])).align = 4


def _peel_positions(builder, bits, base, pointer):
    """8 positions at a time: count trailing zeros, clear the lowest bit."""
    count, rest = builder.ctpop(bits), cgutils.alloca_once_value(builder, bits)
    eighths = builder.lshr(builder.add(count, _INT64(7)), _INT64(3))
    with cgutils.for_range(builder, eighths) as loop:
        left, start = builder.load(rest), builder.mul(loop.index, _INT64(8))
        for i in range(8):
            lowest = builder.trunc(builder.cttz(left, ir.Constant(ir.IntType(1), 0)), _INT32)
            place = builder.gep(pointer, [builder.add(start, _INT64(i))])
            builder.store(builder.add(base, lowest), place).align = 4
            left = builder.and_(left, builder.sub(left, _INT64(1)))
        builder.store(left, rest)


@intrinsic
def transpose_bytes(typing, words, start, planes, index):
    """Split 64 pairs of int32 words into 8 planes of 64 bytes: byte i of plane p is p of pair i."""
    eight = ir.VectorType(_INT64, 8)

    def generate(context, builder, signature, arguments):
        source, first, target, position = arguments
        pointer = _pointer(context, builder, words, source, first, eight)
        into = _pointer(context, builder, planes, target, position, eight)
        pairs = [_read(builder, builder.gep(pointer, [_INT32(i)]), 4) for i in range(8)]
        _write_planes(builder, pairs, into, 0)
        return context.get_dummy_value()

    return types.void(words, types.intp, planes, types.intp), generate


@intrinsic
def transpose_double(typing, words, start, planes, index):
    """As `transpose_bytes`, of 64 keys with two pairs of words each: 16 planes."""
    eight = ir.VectorType(_INT64, 8)

    def generate(context, builder, signature, arguments):
        source, first, target, position = arguments
        pointer = _pointer(context, builder, words, source, first, eight)
        into = _pointer(context, builder, planes, target, position, eight)
        loaded = [_read(builder, builder.gep(pointer, [_INT32(i)]), 4) for i in range(16)]
        for pair in range(2):
            places = list(range(pair, 16, 2))
            pairs = [_shuffle(builder, *loaded[i : i + 2], places) for i in range(0, 16, 2)]
            _write_planes(builder, pairs, into, 8 * pair)
        return context.get_dummy_value()

    return types.void(words, types.intp, planes, types.intp), generate


def _write_planes(builder, rows, pointer, first):
    """Transpose 64 groups of 8 bytes, in 8 vectors, and store them from vector `first` on.

    A byte shuffle within every 8 groups gathers their p-th bytes in 64 bits; a transposition of
    8 x 8 such parts brings the planes together.
    """
    bytes_, eight = ir.VectorType(_INT8, KEYS), ir.VectorType(_INT64, 8)
    within = [8 * (place % 8) + place // 8 for place in range(KEYS)]
    rows = [_shuffle(builder, builder.bitcast(row, bytes_), None, within) for row in rows]
    rows = [builder.bitcast(row, eight) for row in rows]
    for step in (1, 2, 4):
        rows = _exchange(builder, rows, step)
    for i, row in enumerate(rows):
        builder.store(row, builder.gep(pointer, [_INT32(first + i)])).align = 1


def _shuffle(builder, left, right, places):
    mask = ir.Constant(ir.VectorType(_INT32, len(places)), places)
    return builder.shuffle_vector(left, left if right is None else right, mask)


def _exchange(builder, rows, step):
    """One step of an 8 x 8 transposition: swap the off-diagonal squares `step` wide."""
    result = list(rows)
    for i in range(8):
        if i & step == 0:
            upper, lower = rows[i], rows[i + step]
            left = [k if k & step == 0 else 8 + k - step for k in range(8)]
            right = [k + step if k & step == 0 else 8 + k for k in range(8)]
            result[i] = _shuffle(builder, upper, lower, left)
            result[i + step] = _shuffle(builder, upper, lower, right)
    return result


@intrinsic
def no_floats(typing):
    """16 zeros."""

    def generate(context, builder, signature, arguments):
        return ir.Constant(FLOATS.ir, None)

    return FLOATS(), generate


@intrinsic
def add_scaled(typing, total, factor, array, index):
    """total + factor * 16 numbers of the array from `index` on.

    bfloat16 travels as uint16 and float16 as int16, since numba knows neither.
    """

    def generate(context, builder, signature, arguments):
        before, scalar, source, position = arguments
        values = _as_floats(context, builder, array, source, position)
        product = builder.fmul(_splat(builder, scalar, _FLOATS), values, flags=_FUSED)
        return builder.fadd(before, product, flags=_FUSED)

    return FLOATS(FLOATS, types.float32, array, types.intp), generate


def _as_floats(context, builder, array, source, position):
    """16 float32 from an array of float32, bfloat16 bits (uint16) or float16 bits (int16)."""
    if array.dtype == types.float32:
        return _read(builder, _pointer(context, builder, array, source, position, FLOATS.ir), 4)
    half = ir.VectorType(_INT16, _FLOATS)
    words = ir.VectorType(_INT32, _FLOATS)
    narrow = _read(builder, _pointer(context, builder, array, source, position, half), 2)
    if array.dtype == types.uint16:
        places = ir.Constant(words, [16] * _FLOATS)
        return builder.bitcast(builder.shl(builder.zext(narrow, words), places), FLOATS.ir)
    return _half_to_float(builder, builder.zext(narrow, words))


def _half_to_float(builder, bits):
    """float32 of float16 bits in 32-bit lanes, without instructions that an old machine lacks.

    Exponent and fraction move to their places in float32 and a multiplication by 2^112 mends the
    bias of the exponent, subnormal numbers included; infinities and NaN keep theirs at its largest.
    """

    def constant(value):
        return ir.Constant(bits.type, [value] * _FLOATS)

    magnitude = builder.shl(builder.and_(bits, constant(0x7FFF)), constant(13))
    scale = ir.Constant(FLOATS.ir, [2.0**112] * _FLOATS)
    scaled = builder.bitcast(builder.fmul(builder.bitcast(magnitude, FLOATS.ir), scale), bits.type)
    special = builder.icmp_unsigned(">=", magnitude, constant(0x7C00 << 13))
    finite = builder.select(special, builder.or_(magnitude, constant(0xFF << 23)), scaled)
    sign = builder.shl(builder.and_(bits, constant(0x8000)), constant(16))
    return builder.bitcast(builder.or_(finite, sign), FLOATS.ir)


@intrinsic
def store_scaled(typing, array, index, factor, vector):
    """Write factor * vector to a float32 array from `index` on."""

    def generate(context, builder, signature, arguments):
        target, position, scalar, value = arguments
        pointer = _pointer(context, builder, array, target, position, FLOATS.ir)
        builder.store(builder.fmul(_splat(builder, scalar, _FLOATS), value), pointer).align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, types.float32, FLOATS), generate
