# mypy: allow-untyped-defs
"""What the vector operations of the CPU kernels are generated with: their type, LLVM shorthand."""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

KEYS = 64
"""Keys of a block: one bit of a uint64 mask and one lane of a score vector each."""

FLOAT_LANES = 16
INT8, INT16, INT32, INT64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()


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


@intrinsic
def pointer(typing, address, element):
    """A pointer to numbers of a NumPy type; what it points at must be kept alive by others."""
    result = types.CPointer(element.dtype)

    def generate(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(result))

    return result(types.int64, element), generate


@intrinsic
def start_of(typing, array):
    """A pointer to the first element of an array, which others must keep alive."""

    def generate(context, builder, signature, arguments):
        return context.make_array(array)(context, builder, arguments[0]).data

    return types.CPointer(array.dtype)(array), generate


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, vector):
        super().__init__(manager, vector, vector.ir)


FLOATS = Vector(types.float32, FLOAT_LANES)


def scores_of(element):
    """The vector type of the scores of one block of keys."""
    return Vector(element, KEYS)


def spread_scalar(builder, scalar, lanes):
    """A vector with the same scalar in every lane."""
    single = builder.insert_element(
        ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined), scalar, INT32(0)
    )
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(INT32, lanes), None))


def pointer_to(builder, memory, index, pointee):
    """Where the element `index` behind a pointer lies, as a pointer to something else."""
    return builder.bitcast(builder.gep(memory, [index]), pointee.as_pointer())


def read(builder, pointer, align=1):
    """What a pointer leads to; nothing is promised of its address unless `align` says so."""
    loaded = builder.load(pointer)
    loaded.align = align
    return loaded


def call_llvm(builder, name, result, arguments):
    """A call of an LLVM intrinsic."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    function = builder.module.declare_intrinsic(name, (), kind)
    return builder.call(function, arguments)


def call_on_vector(builder, name, vector, *arguments):
    """A call of the form that an LLVM intrinsic has for this vector type."""
    full = f"llvm.{name}.v{vector.count}i{vector.element.width}"
    return call_llvm(builder, full, vector, list(arguments))


def widen(builder, vector, kind):
    """The vector's unsigned numbers in lanes of another vector type, as wide or wider."""
    return vector if vector.type == kind else builder.zext(vector, kind)


def shuffle(builder, left, right, places):
    """Lanes of one or two vectors at fixed places, in their order."""
    mask = ir.Constant(ir.VectorType(INT32, len(places)), places)
    return builder.shuffle_vector(left, left if right is None else right, mask)


def has_feature(context, feature):
    """Whether the machine that code is generated for has a feature, by LLVM's name of it."""
    return f"+{feature}" in context.codegen().magic_tuple()[2].split(",")


def processor(context):
    """The processor that code is generated for, by LLVM's name of it."""
    return context.codegen().magic_tuple()[1]
