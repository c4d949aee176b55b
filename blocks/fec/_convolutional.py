"""Compiled kernels of the K = 7 convolutional code: encoding by the byte, and Viterbi's algorithm on 64 lanes."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import int8, int64, njit, types, uint8, uint16, uint64
from numba.extending import intrinsic

from blocks._compiled import BYTES_IN, FLAGS, array_in
from blocks.fec._lanes import LANES, LANES_TYPE, NOTHING, VECTOR, load, splat

SOFTEST = 9  # |LLR|, quantised: 6 steps of 2 costs each then differ by less than half of int8's range
GENERATORS = (0b1101101, 0b1001111)  # 133 and 171 octal from the right: the newest bit stands lowest


def _parity(bits: int) -> int:
    return bits.bit_count() & 1


def byte_table() -> np.ndarray:
    """The 16 output bits for 6 bits of state and a byte, the first the most significant: uint16 [64, 256]."""
    state, byte = np.meshgrid(np.arange(64), np.arange(256), indexing="ij")
    register, out = state << 8 | byte, np.zeros((64, 256), np.uint16)
    for place in range(7, -1, -1):
        for generator in GENERATORS:
            taps = register >> place & 127 & generator
            parity = sum(taps >> bit & 1 for bit in range(7)) & 1
            out = out << 1 | parity.astype(np.uint16)
    return out


def cost_table() -> np.ndarray:
    """Cost of the branch into each state from that with a 0 in the oldest bit: int8 [19, 19, 64].

    A branch whose output bit contradicts the sign of an LLR costs its magnitude.
    """
    llr = np.arange(-SOFTEST, SOFTEST + 1)
    total = np.zeros((len(llr), len(llr), LANES), np.int8)
    for axis, generator in enumerate(GENERATORS):
        sent = np.array([_parity(new & generator) for new in range(64)])  # the register is the new state, oldest bit 0
        cost = np.where(sent, np.maximum(llr, 0)[:, None], np.maximum(-llr, 0)[:, None])
        total += (cost[:, None] if axis == 0 else cost[None]).astype(np.int8)
    return total


@njit(types.void(BYTES_IN, uint16[:, ::1], uint8[::1]), **FLAGS)
def encode(packed, table, out):
    """Encode bytes from state 0 into twice as many."""
    state = 0
    for i in range(packed.size):
        both = table[state, packed[i]]
        out[2 * i] = both >> 8
        out[2 * i + 1] = both & 255
        state = packed[i] & 63


def _shuffled(order):
    @intrinsic
    def shuffle(context, a):
        def build(context, builder, signature, args):
            return builder.shuffle_vector(args[0], NOTHING, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order))

        return LANES_TYPE(LANES_TYPE), build

    return shuffle


_from_low = _shuffled([i // 2 for i in range(LANES)])
_from_high = _shuffled([32 + i // 2 for i in range(LANES)])


def _wrapping(operation):
    @intrinsic
    def combine(context, a, b):
        def build(context, builder, signature, args):
            return getattr(builder, operation)(*args)

        return LANES_TYPE(LANES_TYPE, LANES_TYPE), build

    return combine


_add = _wrapping("add")
_subtract = _wrapping("sub")


@intrinsic
def _choose(context, difference, yes, no):
    """yes where difference > 0, else no; and the bits of that choice, lane 0 lowest."""

    def build(context, builder, signature, args):
        positive = builder.icmp_signed(">", args[0], ir.Constant(VECTOR, [0] * LANES))
        return context.make_tuple(
            builder,
            signature.return_type,
            [builder.select(positive, args[1], args[2]), builder.bitcast(positive, ir.IntType(LANES))],
        )

    return types.Tuple([LANES_TYPE, types.uint64])(*[LANES_TYPE] * 3), build


@njit(types.void(array_in(int8), types.float64, int8[::1]), **FLAGS)
def quantise(llrs, mean, out):
    """LLRs scaled to a mean magnitude of `mean`, zeros left out, rounded and bounded at SOFTEST."""
    total, counted = 0, 0
    for i in range(llrs.size):
        total += abs(int64(llrs[i]))
        counted += int64(llrs[i] != 0)
    scale = mean * counted / max(total, 1)
    for i in range(llrs.size):
        out[i] = int8(min(max(np.rint(llrs[i] * scale), -SOFTEST), SOFTEST))


@njit(types.int64(int8[::1], int8[::1], int8[::1], uint64[::1], uint8[::1]), **FLAGS)
def decode(llrs, costs, start, decisions, out):
    """Decode pairs of quantised LLRs of a block that begins and ends in state 0; `out` has the bits, packed.

    State s holds the last six bits, the newest lowest. Metrics wrap around: they never differ by half of int8's range.
    """
    steps = decisions.size
    side = 2 * SOFTEST + 1
    metric = load(start, 0)
    for step in range(steps):
        first, second = int64(llrs[2 * step]), int64(llrs[2 * step + 1])
        low = load(costs, ((first + SOFTEST) * side + second + SOFTEST) * LANES)
        # Both generators tap the oldest bit: where that is 1, all outputs are the opposite.
        high = _subtract(splat(abs(first) + abs(second)), low)
        a = _add(_from_low(metric), low)
        b = _add(_from_high(metric), high)
        metric, chosen = _choose(_subtract(a, b), b, a)
        decisions[step] = chosen
    state = uint64(0)
    byte = uint64(0)
    for step in range(steps - 1, -1, -1):
        byte |= (state & uint64(1)) << uint64(7 - (step & 7))
        if step & 7 == 0:
            out[step >> 3] = byte
            byte = uint64(0)
        state = state >> uint64(1) | (decisions[step] >> state & uint64(1)) << uint64(5)
    return int64(state)
