"""Compiled kernels of the modem: map, decide, LLRs, decision errors.

Symbols come and go as float32 (I, Q, I, Q, ...), bits packed, most significant first. 16QAM (TS 38.211 labelling) has
kernels of its own, made of comparisons; any other constellation goes by its table of points.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import complex64, complex128, float32, float64, int8, int32, int64, njit, types, uint8, uint16, uint32
from numba.core import cgutils
from numba.extending import intrinsic

from blocks._compiled import BYTES_IN, FLAGS, FLOATS_IN, WORDS_IN

THRESHOLD = float32(2 / np.sqrt(10))  # between the inner and the outer points of 16QAM
ZERO = float32(0)
LARGEST = float32(np.finfo(np.float32).max)
LLR_LARGEST = float32(1e30)
ROUND = float32(1.5 * 2**23)  # (x + ROUND) - ROUND is x rounded, halves to even


@njit(types.void(BYTES_IN, complex128[::1], complex128[::1]), **FLAGS)
def map_byte_pairs(packed, table, out):
    """Map bytes to the two 4-bit symbols of `table`, which lie in one complex128."""
    for i in range(out.size):
        out[i] = table[packed[i]]


@njit(types.void(BYTES_IN, int64, complex64[::1], complex64[::1]), **FLAGS)
def map_table(packed, bits_per_symbol, points, out):
    """Map every `bits_per_symbol` bits to a point; bits past the end are 0."""
    mask = uint32((1 << bits_per_symbol) - 1)
    for i in range(out.size):
        first = i * bits_per_symbol
        byte = first >> 3
        window = uint32(packed[byte]) << uint32(8)
        if byte + 1 < packed.size:
            window |= uint32(packed[byte + 1])
        out[i] = points[(window >> uint32(16 - bits_per_symbol - (first & 7))) & mask]


@njit(inline="always", **FLAGS)
def _finite(i, q):
    return (abs(i) <= LARGEST) & (abs(q) <= LARGEST)


@njit(inline="always", **FLAGS)
def _decide_16qam(i, q):
    label = (
        (int32(i < ZERO) << 3) | (int32(q < ZERO) << 2) | (int32(abs(i) > THRESHOLD) << 1) | int32(abs(q) > THRESHOLD)
    )
    return label & -int32(_finite(i, q))


@njit(inline="always", **FLAGS)
def _count_not_finite(y, begin, end):
    count = 0
    for s in range(begin, end):
        count += not _finite(y[2 * s], y[2 * s + 1])
    return count


@intrinsic
def _ones(context, word):
    """Number of ones in a word."""
    return int64(types.uint64), lambda context, builder, signature, args: builder.ctpop(args[0])


EIGHT = ir.VectorType(ir.FloatType(), 8)


def _mask_of_eight(compare: Callable[[Any, ir.Value, ir.Value], ir.Value]) -> Any:
    """Return an intrinsic (y, at) -> 8 bits, the first lowest: what `compare` finds of the 8 floats from `at` on.

    One comparison and one `movmskps` on x86; LLVM finds neither by itself.
    """

    @intrinsic
    def mask(context, y, at):
        def build(context, builder, signature, args):
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            floats = builder.load(builder.bitcast(builder.gep(data, [args[1]]), EIGHT.as_pointer()))
            floats.align = 1
            fabs = cgutils.get_or_insert_function(builder.module, ir.FunctionType(EIGHT, [EIGHT]), "llvm.fabs.v8f32")
            holds = compare(builder, floats, builder.call(fabs, [floats]))
            return builder.zext(builder.bitcast(holds, ir.IntType(8)), ir.IntType(64))

        return int64(y, types.intp), build

    return mask


def _eight(value: float) -> ir.Constant:
    return ir.Constant(EIGHT, [float(value)] * 8)


_negative = _mask_of_eight(lambda builder, x, size: builder.fcmp_ordered("<", x, _eight(0)))
_outer = _mask_of_eight(lambda builder, x, size: builder.fcmp_ordered(">", size, _eight(THRESHOLD)))
_strange = _mask_of_eight(lambda builder, x, size: builder.fcmp_unordered(">", size, _eight(LARGEST)))


def _spread(first: int) -> np.ndarray:
    """Table from the mask of four symbols (I Q I Q ...) to their bits, packed: two of each label, from `first` on."""
    table = np.zeros((256, 16), np.uint8)
    for mask in range(256):
        for place in range(8):
            table[mask, place // 2 * 4 + first + place % 2] = mask >> place & 1
    return np.packbits(table, axis=1).view(np.uint16).ravel()


SIGN_BITS, SIZE_BITS = _spread(0), _spread(2)


@njit(int64(FLOATS_IN, uint16[::1], uint16[::1], uint16[::1], uint8[::1]), **FLAGS)
def _decide_fours(y, sign_bits, size_bits, out, out_bytes):
    strange = 0
    for k in range(out.size):
        out[k] = sign_bits[_negative(y, 8 * k)] | size_bits[_outer(y, 8 * k)]
        if _strange(y, 8 * k):
            strange += _count_not_finite(y, 4 * k, 4 * k + 4)
            for j in range(2):
                at = 8 * k + 4 * j
                first = _decide_16qam(y[at], y[at + 1])
                second = _decide_16qam(y[at + 2], y[at + 3])
                out_bytes[2 * k + j] = uint8((first << 4) | second)
    return strange


@njit(int64(FLOATS_IN, uint16[::1], uint16[::1], uint8[::1]), **FLAGS)
def decide_16qam(y, sign_bits, size_bits, out):
    """Decide two symbols a byte; return how many are not finite, and give 0000.

    The tables are `SIGN_BITS` and `SIZE_BITS`.
    """
    fours = y.size // 8
    strange = _decide_fours(y, sign_bits, size_bits, out[: 2 * fours].view(np.uint16), out)
    for i in range(2 * fours, out.size):
        out[i] = uint8(_decide_16qam(y[4 * i], y[4 * i + 1]) << 4)
        if 4 * i + 2 < y.size:
            out[i] |= uint8(_decide_16qam(y[4 * i + 2], y[4 * i + 3]))
    return strange + _count_not_finite(y, 4 * fours, y.size // 2)


@njit(inline="always", **FLAGS)
def _distance(i, q, point):
    """|y - x|^2 less |y|^2, which all points x have in common: of a huge y nothing else would be left."""
    a = float64(point.real)
    b = float64(point.imag)
    return a * (a - 2 * float64(i)) + b * (b - 2 * float64(q))


@njit(inline="always", **FLAGS)
def _nearest(i, q, points):
    """Label of the point next to i + jq, and its squared distance."""
    best = 0
    least = np.inf
    for label in range(points.size):
        distance = _distance(i, q, points[label])
        if distance < least:
            least = distance
            best = label
    a = float64(i) - float64(points[best].real)
    b = float64(q) - float64(points[best].imag)
    return best, a * a + b * b


@njit(types.void(FLOATS_IN, int64, complex64[::1], uint8[::1]), **FLAGS)
def decide_table(y, bits_per_symbol, points, out):
    """Decide for the next point; a symbol that is not finite gives zeros."""
    out[:] = 0
    for s in range(y.size // 2):
        i = y[2 * s]
        q = y[2 * s + 1]
        best, _ = _nearest(i, q, points)  # of none, a symbol that is not finite, the first
        window = uint32(best if _finite(i, q) else 0) << uint32(16 - bits_per_symbol - ((s * bits_per_symbol) & 7))
        byte = (s * bits_per_symbol) >> 3
        out[byte] |= uint8(window >> uint32(8))
        if byte + 1 < out.size:
            out[byte + 1] |= uint8(window & uint32(255))


@njit(inline="always", **FLAGS)
def _bounded(x, bound):
    return min(max(x, -bound), bound)


@njit(inline="always", **FLAGS)
def _axis_llr(x, scale, usable):
    excess = abs(x) - THRESHOLD
    beyond = max(excess, ZERO)
    sign = scale * (x + (beyond if x >= ZERO else -beyond))
    size = -scale * excess
    return (sign if usable else ZERO), (size if usable else ZERO)


@njit(types.void(FLOATS_IN, float32, float32[::1]), **FLAGS)
def llr_16qam(y, scale, out):
    """Max-log LLRs of 16QAM, four a symbol; `scale` = 4 / (sqrt(10) N0). A symbol that is not finite gives zeros."""
    for s in range(y.size // 2):
        i = y[2 * s]
        q = y[2 * s + 1]
        usable = _finite(i, q)
        a, c = _axis_llr(i, scale, usable)
        b, d = _axis_llr(q, scale, usable)
        out[4 * s] = _bounded(a, LLR_LARGEST)
        out[4 * s + 1] = _bounded(b, LLR_LARGEST)
        out[4 * s + 2] = _bounded(c, LLR_LARGEST)
        out[4 * s + 3] = _bounded(d, LLR_LARGEST)


@njit(inline="always", **FLAGS)
def _rounded(x):
    return int8(int32((_bounded(x, float32(127)) + ROUND) - ROUND))


@njit(types.void(FLOATS_IN, float32, int8[::1]), **FLAGS)
def llr8_16qam(y, scale, out):
    """The LLRs of `llr_16qam` times 4, as int8: `scale` = 16 / (sqrt(10) N0)."""
    for s in range(y.size // 2):
        i = y[2 * s]
        q = y[2 * s + 1]
        usable = _finite(i, q)
        a, c = _axis_llr(i, scale, usable)
        b, d = _axis_llr(q, scale, usable)
        out[4 * s] = _rounded(a)
        out[4 * s + 1] = _rounded(b)
        out[4 * s + 2] = _rounded(c)
        out[4 * s + 3] = _rounded(d)


@njit(types.void(FLOATS_IN, float32, int64, complex64[::1], float32[::1]), **FLAGS)
def llr_table(y, scale, bits_per_symbol, points, out):
    """Max-log LLRs by search: (min over points with bit 1 of |y-x|^2, less that with bit 0) times `scale` = 1 / N0."""
    re = points.real.astype(np.float64)
    im = points.imag.astype(np.float64)
    energy = re * re + im * im
    for s in range(y.size // 2):
        i = y[2 * s]
        q = y[2 * s + 1]
        a = 2 * float64(i)
        b = 2 * float64(q)
        for bit in range(bits_per_symbol):
            zero = np.inf
            one = np.inf
            for label in range(points.size):
                distance = energy[label] - (a * re[label] + b * im[label])
                if (label >> (bits_per_symbol - 1 - bit)) & 1:
                    one = min(one, distance)
                else:
                    zero = min(zero, distance)
            llr = float32((one - zero) * scale) if _finite(i, q) else ZERO
            out[s * bits_per_symbol + bit] = _bounded(llr, LLR_LARGEST)


@njit(types.void(FLOATS_IN, float64[::1], int64, complex64[::1], float32[::1]), **FLAGS)
def llr_exact(y, scale, bits_per_symbol, points, out):
    """Exact LLRs: ln of the sum over points with bit 0 of exp(-|y-x|^2 scale), less that with bit 1.

    `scale` = 1 / N0, one for all symbols or one each. A symbol or a scale that is not finite gives zeros.
    """
    metric = np.empty(points.size)
    for s in range(y.size // 2):
        i = y[2 * s]
        q = y[2 * s + 1]
        by = scale[s] if scale.size > 1 else scale[0]
        usable = _finite(i, q) and by < np.inf
        for label in range(points.size):
            metric[label] = -_distance(i, q, points[label]) * by
        for bit in range(bits_per_symbol):
            shift = bits_per_symbol - 1 - bit
            top0 = top1 = -np.inf
            for label in range(points.size):
                if (label >> shift) & 1:
                    top1 = max(top1, metric[label])
                else:
                    top0 = max(top0, metric[label])
            sum0 = sum1 = 0.0
            if usable:
                for label in range(points.size):
                    if (label >> shift) & 1:
                        sum1 += np.exp(metric[label] - top1)
                    else:
                        sum0 += np.exp(metric[label] - top0)
            llr = float32(top0 - top1 + np.log(sum0 / sum1)) if usable else ZERO
            out[s * bits_per_symbol + bit] = _bounded(llr, LLR_LARGEST)


@njit(types.void(float32[::1], int64, FLOATS_IN), **FLAGS)
def weigh(llr, bits_per_symbol, h):
    """Multiply the LLRs of every symbol by |h|^2, in place; by 0 where that is not finite."""
    for s in range(h.size // 2):
        weight = h[2 * s] * h[2 * s] + h[2 * s + 1] * h[2 * s + 1]
        weight = weight if weight <= LARGEST else ZERO
        for bit in range(bits_per_symbol):
            at = s * bits_per_symbol + bit
            llr[at] = _bounded(llr[at] * weight, LLR_LARGEST)


@njit(types.void(FLOATS_IN, int8[::1]), **FLAGS)
def to_int8(llr, out):
    """out = round(4 LLR), saturated at +-127."""
    for i in range(out.size):
        out[i] = _rounded(float32(4) * llr[i])


@njit(int64(FLOATS_IN), **FLAGS)
def count_not_finite(y):
    """Number of symbols with a part that is NaN or infinite."""
    count = 0
    fours = y.size // 8
    for k in range(fours):
        if _strange(y, 8 * k):
            count += _count_not_finite(y, 4 * k, 4 * k + 4)
    return count + _count_not_finite(y, 4 * fours, y.size // 2)


@njit(int64(WORDS_IN, WORDS_IN), **FLAGS)
def differing_bits(sent, received):
    """Number of bits in which two rows of 64-bit words differ."""
    count = 0
    for k in range(sent.size):
        count += _ones(sent[k] ^ received[k])
    return count


@njit(inline="always", **FLAGS)
def _next_amplitude(x, half_step, levels):
    """The one next to x of `levels` amplitudes: odd multiples of `half_step`, about 0."""
    place = (x / half_step + float32(levels - 1)) * float32(0.5)
    place = (min(max(place, ZERO), float32(levels - 1)) + ROUND) - ROUND
    return half_step * (float32(2) * place - float32(levels - 1))


@njit(inline="always", **FLAGS)
def _sampled(begin, offset, stretch, sampled):
    """Of symbols from `offset` of a frame on, where those sampled end that begin at `begin`, and its stretch."""
    at = (offset + begin) % stretch
    end = begin + stretch - at
    return (end if offset + begin < stretch else begin + max(sampled - at, 0)), end


@njit(types.UniTuple(int64, 2)(FLOATS_IN, int64, int64, int64, float32, int64), **FLAGS)
def decision_errors(y, offset, stretch, sampled, half_step, levels):
    """Sum of |y - next point|^2 in units of 2^-20, each part at most 2^9, and the number of parts that are finite.

    Whole numbers, so that the sum over a frame is the same however it is cut. Of symbols from `offset` of the frame on
    are looked at: all of its first `stretch`, and the first `sampled` of each further one.
    """
    total = int64(0)
    count = int64(0)
    begin = int64(0)
    while begin < y.size // 2:
        stop, end = _sampled(begin, offset, stretch, sampled)
        parts = y[2 * begin : 2 * min(stop, y.size // 2)]
        for k in range(parts.size):
            usable = abs(parts[k]) <= LARGEST
            miss = parts[k] - _next_amplitude(parts[k], half_step, levels)
            error = min(miss * miss, float32(1 << 9))
            total += int64(int32(error * float32(1 << 20) + float32(0.5))) if usable else int64(0)
            count += int64(usable)
        begin = end
    return total, count


@njit(types.UniTuple(int64, 2)(FLOATS_IN, int64, int64, int64, complex64[::1]), **FLAGS)
def decision_errors_table(y, offset, stretch, sampled, points):
    """As `decision_errors`, for any points."""
    total = int64(0)
    count = int64(0)
    begin = int64(0)
    while begin < y.size // 2:
        stop, end = _sampled(begin, offset, stretch, sampled)
        for s in range(begin, min(stop, y.size // 2)):
            if _finite(y[2 * s], y[2 * s + 1]):
                _, error = _nearest(y[2 * s], y[2 * s + 1], points)
                total += int64(min(error, 1024.0) * 1048576.0 + 0.5)
                count += 2
        begin = end
    return total, count


@njit(types.UniTuple(float64, 6)(FLOATS_IN, FLOATS_IN, complex64[::1]), **FLAGS)
def compare_table(sent, received, points):
    """As `compare`, for any points."""
    measured = 0
    wrong = 0
    s2 = e2 = re = im = 0.0
    for k in range(sent.size // 2):
        i, q = received[2 * k], received[2 * k + 1]
        if not _finite(i, q):
            wrong += 1
            continue
        decided, _ = _nearest(i, q, points)
        meant, _ = _nearest(sent[2 * k], sent[2 * k + 1], points)
        wrong += int64(decided != meant)
        measured += 1
        a, b = float64(sent[2 * k]), float64(sent[2 * k + 1])
        x, y = float64(i) - a, float64(q) - b
        s2 += a * a + b * b
        e2 += x * x + y * y
        re += x * a + y * b
        im += y * a - x * b
    return measured, wrong, s2, e2, re, im


@njit(types.UniTuple(float64, 6)(FLOATS_IN, FLOATS_IN, float32, int64), fastmath={"reassoc"}, **FLAGS)
def compare(sent, received, half_step, levels):
    """Of sent s and received s + e: symbols measured, decided wrongly, and the sums of |s|^2, |e|^2, Re e s*, Im e s*.

    A symbol that is not finite is a wrong one, and is left out of the sums. These are added in any order.
    """
    measured = 0
    wrong = 0
    s2 = e2 = re = im = 0.0
    for k in range(sent.size // 2):
        i = received[2 * k]
        q = received[2 * k + 1]
        a = sent[2 * k]
        b = sent[2 * k + 1]
        usable = _finite(i, q)
        miss_i = abs(_next_amplitude(i, half_step, levels) - a)
        miss_q = abs(_next_amplitude(q, half_step, levels) - b)
        wrong += int64((miss_i > half_step) | (miss_q > half_step) | (not usable))
        measured += int64(usable)
        x = float64(i - a) if usable else 0.0
        y = float64(q - b) if usable else 0.0
        a = a if usable else ZERO
        b = b if usable else ZERO
        s2 += float64(a) * a + float64(b) * b
        e2 += x * x + y * y
        re += x * a + y * b
        im += y * a - x * b
    return float64(measured), float64(wrong), s2, e2, re, im
