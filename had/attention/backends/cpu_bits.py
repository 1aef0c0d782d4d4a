# mypy: allow-untyped-defs
"""Operations on bits, for numba: signs to bits, bits to positions, words of keys to planes."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from had.attention.backends.cpu_emit import (
    INT8,
    INT16,
    INT32,
    INT64,
    KEYS,
    call_llvm,
    call_on_vector,
    has_feature,
    pointer_to,
    processor,
    read,
    shuffle,
    spread_scalar,
    widen,
)

_SLOW_DEPOSIT = ("znver1", "znver2")  # hundreds of cycles a PDEP


@intrinsic
def nonnegative(typing, memory, index):
    """A bit for each of 64 float32 from `index` on: whether it is >= 0."""
    vector = ir.VectorType(ir.FloatType(), KEYS)

    def generate(context, builder, signature, arguments):
        loaded = read(builder, pointer_to(builder, *arguments, vector), 4)
        return builder.bitcast(builder.fcmp_ordered(">=", loaded, ir.Constant(vector, None)), INT64)

    return types.uint64(memory, types.intp), generate


@intrinsic
def bit_count(typing, word):
    """How many bits of a uint64 are set."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), generate


@intrinsic
def keep_lowest(typing, word, count):
    """The word's `count` lowest set bits, in one instruction (BMI2) where that is fast."""

    def generate(context, builder, signature, arguments):
        bits, wanted = arguments
        if has_feature(context, "bmi2") and processor(context) not in _SLOW_DEPOSIT:
            ones = builder.sub(builder.shl(INT64(1), wanted), INT64(1))
            everything = builder.icmp_signed(">=", wanted, INT64(KEYS))
            ones = builder.select(everything, INT64(-1), ones)
            return call_llvm(builder, "llvm.x86.bmi.pdep.64", INT64, [ones, bits])
        rest = cgutils.alloca_once_value(builder, bits)
        with cgutils.for_range(builder, wanted):
            left = builder.load(rest)
            builder.store(builder.and_(left, builder.sub(left, INT64(1))), rest)
        return builder.xor(bits, builder.load(rest))

    return types.uint64(types.uint64, types.int64), generate


@intrinsic
def append_positions(typing, word, first, memory, index):
    """Write `first` + the position of every set bit, int32, from `index` on.

    Several are written at a time, wanted or not: up to 64 elements beyond may be overwritten. That
    takes no branch a bit, which would often be mispredicted.
    """

    def generate(context, builder, signature, arguments):
        write = _compress_positions if has_feature(context, "avx512vbmi2") else _peel_positions
        bits, base, target, position = arguments
        pointer = pointer_to(builder, target, position, INT32)
        write(builder, bits, builder.trunc(base, INT32), pointer)
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64, memory, types.intp), generate


def _compress_positions(builder, bits, base, pointer):
    """16 positions at a time: bytes 0 .. 63 squeezed together in a register, then widened."""
    bytes_, words = ir.VectorType(INT8, KEYS), ir.VectorType(INT32, 16)
    mask = builder.bitcast(bits, ir.VectorType(ir.IntType(1), KEYS))
    arguments = [ir.Constant(bytes_, list(range(KEYS))), mask, ir.Constant(bytes_, ir.Undefined)]
    positions = call_llvm(builder, "llvm.experimental.vector.compress.v64i8", bytes_, arguments)
    count = builder.ctpop(bits)
    for part in range(4):
        quarter = shuffle(builder, positions, None, list(range(16 * part, 16 * part + 16)))
        with builder.if_then(builder.icmp_signed(">", count, INT64(16 * part)), likely=part == 0):
            wide = builder.add(builder.zext(quarter, words), spread_scalar(builder, base, 16))
            into = builder.bitcast(pointer, words.as_pointer())
            builder.store(wide, builder.gep(into, [INT32(part)])).align = 4


def _peel_positions(builder, bits, base, pointer):
    """8 positions at a time: count trailing zeros, clear the lowest bit."""
    count, rest = builder.ctpop(bits), cgutils.alloca_once_value(builder, bits)
    eighths = builder.lshr(builder.add(count, INT64(7)), INT64(3))
    with cgutils.for_range(builder, eighths) as loop:
        left, start = builder.load(rest), builder.mul(loop.index, INT64(8))
        for i in range(8):
            lowest = builder.trunc(builder.cttz(left, ir.Constant(ir.IntType(1), 0)), INT32)
            place = builder.gep(pointer, [builder.add(start, INT64(i))])
            builder.store(builder.add(base, lowest), place).align = 4
            left = builder.and_(left, builder.sub(left, INT64(1)))
        builder.store(left, rest)


def _word_differences(pairs):
    """An intrinsic that adds the differing bits of 64 adjacent keys of `pairs` pairs of words."""

    @intrinsic
    def add(typing, total, words, start, queries, place):
        eight = ir.VectorType(INT64, 8)

        def generate(context, builder, signature, arguments):
            before, keys, first, rows, row = arguments
            pointer = pointer_to(builder, keys, first, eight)
            own = read(builder, pointer_to(builder, rows, row, eight), 4)
            counts = []
            for i in range(8 * pairs):
                key = read(builder, builder.gep(pointer, [INT32(i)]), 4)
                counts.append(call_on_vector(builder, "ctpop", eight, builder.xor(key, own)))
            count = _narrow(builder, counts, pairs)
            return builder.add(before, widen(builder, count, total.ir))

        return total(total, words, types.intp, queries, types.intp), generate

    return add


add_pair_differences = _word_differences(1)
add_double_differences = _word_differences(2)


def _narrow(builder, counts, pairs):
    """64 bytes from the counts of 64 keys, `pairs` numbers of 64 bits each, in order."""
    for width in (32, 16, 8):
        counts = _halve(builder, counts, width)
    if pairs == 1:
        return counts[0]
    words = ir.VectorType(INT16, KEYS // 2)
    eight, low = ir.Constant(words, [8] * 32), ir.Constant(words, [255] * 32)
    both = [builder.bitcast(count, words) for count in counts]
    sums = [builder.add(builder.lshr(x, eight), builder.and_(x, low)) for x in both]
    return _halve(builder, sums, 8)[0]


def _halve(builder, vectors, width):
    """The lower halves, `width` bits each, of the numbers in two neighbouring vectors, in one."""
    narrow = ir.VectorType(ir.IntType(width), 512 // width)
    parts = [builder.bitcast(vector, narrow) for vector in vectors]
    lower = list(range(0, 2 * narrow.count, 2))
    return [shuffle(builder, *parts[i : i + 2], lower) for i in range(0, len(parts), 2)]


@intrinsic
def transpose_bytes(typing, words, start, planes, index):
    """Split 64 pairs of int32 words into 8 planes of 64 bytes: byte i of plane p is p of pair i."""
    eight = ir.VectorType(INT64, 8)

    def generate(context, builder, signature, arguments):
        source, first, target, position = arguments
        pointer = pointer_to(builder, source, first, eight)
        into = pointer_to(builder, target, position, eight)
        pairs = [read(builder, builder.gep(pointer, [INT32(i)]), 4) for i in range(8)]
        _write_planes(builder, pairs, into, 0)
        return context.get_dummy_value()

    return types.void(words, types.intp, planes, types.intp), generate


@intrinsic
def transpose_double(typing, words, start, planes, index):
    """As `transpose_bytes`, of 64 keys with two pairs of words each: 16 planes."""
    eight = ir.VectorType(INT64, 8)

    def generate(context, builder, signature, arguments):
        source, first, target, position = arguments
        pointer = pointer_to(builder, source, first, eight)
        into = pointer_to(builder, target, position, eight)
        loaded = [read(builder, builder.gep(pointer, [INT32(i)]), 4) for i in range(16)]
        for pair in range(2):
            places = list(range(pair, 16, 2))
            pairs = [shuffle(builder, *loaded[i : i + 2], places) for i in range(0, 16, 2)]
            _write_planes(builder, pairs, into, 8 * pair)
        return context.get_dummy_value()

    return types.void(words, types.intp, planes, types.intp), generate


def _write_planes(builder, rows, pointer, first):
    """Transpose 64 groups of 8 bytes, in 8 vectors, and store them from vector `first` on.

    A byte shuffle within every 8 groups gathers their p-th bytes in 64 bits; a transposition of
    8 x 8 such parts brings the planes together. Its steps commute; in this order they take the
    fewest instructions, and the least time to compile.
    """
    bytes_, eight = ir.VectorType(INT8, KEYS), ir.VectorType(INT64, 8)
    within = [8 * (place % 8) + place // 8 for place in range(KEYS)]
    rows = [shuffle(builder, builder.bitcast(row, bytes_), None, within) for row in rows]
    rows = [builder.bitcast(row, eight) for row in rows]
    for step in (4, 2, 1):
        rows = _exchange(builder, rows, step)
    for i, row in enumerate(rows):
        builder.store(row, builder.gep(pointer, [INT32(first + i)])).align = 1


def _exchange(builder, rows, step):
    """One step of an 8 x 8 transposition: swap the off-diagonal squares `step` wide."""
    result = list(rows)
    for i in range(8):
        if i & step == 0:
            upper, lower = rows[i], rows[i + step]
            left = [k if k & step == 0 else 8 + k - step for k in range(8)]
            right = [k + step if k & step == 0 else 8 + k for k in range(8)]
            result[i] = shuffle(builder, upper, lower, left)
            result[i + step] = shuffle(builder, upper, lower, right)
    return result
