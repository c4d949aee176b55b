"""Vectors of 64 int8 lanes for Numba kernels; LLVM makes one AVX-512, two AVX2 or four NEON registers of each."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

LANES = 64

_BYTE, _BIT = ir.IntType(8), ir.IntType(1)
VECTOR = ir.VectorType(_BYTE, LANES)
NOTHING = ir.Constant(VECTOR, ir.Undefined)


class _Lanes(types.Type):
    def __init__(self):
        super().__init__(name="Lanes64xi8")


LANES_TYPE = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, VECTOR)


def _place(context, builder, signature, args):
    """Pointer to lanes that begin at an index of an array, which need not be aligned."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    return builder.bitcast(builder.gep(array.data, [args[1]]), VECTOR.as_pointer())


@intrinsic
def load(context, array, index):
    """array[index : index + 64]"""

    def build(context, builder, signature, args):
        loaded = builder.load(_place(context, builder, signature, args))
        loaded.align = 1
        return loaded

    return LANES_TYPE(array, types.intp), build


@intrinsic
def store(context, array, index, lanes):
    """array[index : index + 64] = lanes"""

    def build(context, builder, signature, args):
        builder.store(args[2], _place(context, builder, signature, args)).align = 1
        return context.get_dummy_value()

    return types.void(array, types.intp, LANES_TYPE), build


@intrinsic
def splat(context, value):
    """The low byte of an integer in every lane."""

    def build(context, builder, signature, args):
        one = builder.insert_element(NOTHING, builder.trunc(args[0], _BYTE), ir.Constant(ir.IntType(32), 0))
        first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, NOTHING, first)

    return LANES_TYPE(types.intp), build


def _binary(name):
    @intrinsic
    def operation(context, a, b):
        def build(context, builder, signature, args):
            kind = ir.FunctionType(VECTOR, [VECTOR, VECTOR])
            return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v64i8"), args)

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), build

    return operation


add_saturated = _binary("sadd.sat")
subtract_saturated = _binary("ssub.sat")
minimum = _binary("smin")
maximum = _binary("smax")


@intrinsic
def absolute(context, a):
    """|a|; of -128 it is -128."""

    def build(context, builder, signature, args):
        kind = ir.FunctionType(VECTOR, [VECTOR, _BIT])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.abs.v64i8")
        return builder.call(function, [args[0], ir.Constant(_BIT, 0)])

    return LANES_TYPE(LANES_TYPE), build


@intrinsic
def exclusive_or(context, a, b):
    """a ^ b"""

    def build(context, builder, signature, args):
        return builder.xor(*args)

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), build


@intrinsic
def signed_as(context, a, sign):
    """a, or -a where `sign` is negative."""

    def build(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0] * LANES)
        return builder.select(builder.icmp_signed("<", args[1], zero), builder.sub(zero, args[0]), args[0])

    return LANES_TYPE(LANES_TYPE, LANES_TYPE), build


@intrinsic
def where_equal(context, a, b, yes, no):
    """yes where a == b, else no"""

    def build(context, builder, signature, args):
        return builder.select(builder.icmp_signed("==", args[0], args[1]), args[2], args[3])

    return LANES_TYPE(*[LANES_TYPE] * 4), build


@intrinsic
def negative(context, a):
    """The signs of all lanes, lane 0 in the lowest bit: uint64."""

    def build(context, builder, signature, args):
        zero = ir.Constant(VECTOR, [0] * LANES)
        return builder.bitcast(builder.icmp_signed("<", args[0], zero), ir.IntType(LANES))

    return types.uint64(LANES_TYPE), build
