"""Compiled kernels behind `blocks.phy.noise`: Philox words, Gaussian noise, fading, bit flips.

All are written so that LLVM vectorises them and every machine computes the same bits: products and sums are rounded
one by one or fused where `fma` says so, never as the compiler likes. Numba widens the sum of two int32 to int64,
which halves the speed: hence the casts. Arrays in may be read-only and unaligned.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import float32, int32, njit, types, uint8, uint32, uint64
from numba.extending import intrinsic

from blocks._compiled import FLAGS, FLOATS_IN


@intrinsic
def fma(context, a, b, c):
    """a b + c, rounded once."""

    def build(context, builder, signature, args):
        return builder.fma(*args)

    return float32(float32, float32, float32), build


@intrinsic
def _bits_of(context, x):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.IntType(32))

    return int32(float32), build


@intrinsic
def _float_of(context, x):
    def build(context, builder, signature, args):
        return builder.bitcast(args[0], ir.FloatType())

    return float32(int32), build


@njit(inline="always", **FLAGS)
def _low(x):
    return x & uint64(0xFFFFFFFF)


@njit(inline="always", **FLAGS)
def philox(index, frame, stream, key):
    """Four words of a counter by Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011).

    Each is the lower half of a uint64, whose upper half is anything: multipliers of vectors read lower halves alone,
    and nothing then needs to be moved between lanes.
    """
    c0, c1, c2, c3 = index, index >> uint64(32), frame, stream
    k0, k1 = _low(key), key >> uint64(32)
    for _ in range(10):
        a = _low(c0) * uint64(0xD2511F53)
        b = _low(c2) * uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (b >> uint64(32)) ^ c1 ^ k0, b, (a >> uint64(32)) ^ c3 ^ k1, a
        k0 = _low(k0 + uint64(0x9E3779B9))
        k1 = _low(k1 + uint64(0xBB67AE85))
    return c0, c1, c2, c3


@njit(inline="always", **FLAGS)
def _with_sign(x, place):
    """x, or -x where `place` has its second bit set."""
    return _float_of(int32(uint32(_bits_of(x)) ^ uint32(uint32(place & uint32(2)) << uint32(30))))


# Minimax polynomials by Lawson's algorithm, rounded to float32: ln(1+m)/m on [sqrt(1/2)-1, sqrt(2)-1] (relative error
# 3e-8), sin(pi/4 y)/y and cos(pi/4 y) in y^2 on [0, 1] (2e-9 and 5e-11).
L0, L1, L2, L3, L4, L5, L6, L7, L8 = (
    float32(c)
    for c in (
        1.0,
        -0.4999997913837433,
        0.3333415985107422,
        -0.25002947449684143,
        0.19958417117595673,
        -0.16543737053871155,
        0.149173766374588,
        -0.1448218822479248,
        0.08959918469190598,
    )
)
S0, S1, S2, S3 = (
    float32(c) for c in (0.7853981852531433, -0.08074543625116348, 0.002490007085725665, -3.595450834836811e-05)
)
C0, C1, C2, C3, C4 = (
    float32(c) for c in (1.0, -0.3084251284599304, 0.015854325145483017, -0.00032593862852081656, 3.529811237967806e-06)
)
LN2 = float32(0.6931471805599453)
SQRT_HALF_BITS = int32(0x3F3504F3)
ZERO = float32(0.0)
HALF = float32(0.5)
ONE = float32(1.0)
SMALLEST = float32(np.finfo(np.float32).smallest_normal)
LARGEST = float32(np.finfo(np.float32).max)


@njit(inline="always", **FLAGS)
def _neglog(word):
    """-ln((w + 1/2) / 2^31) of the upper 31 bits w: from 22.2 (a radius of 6.66 sigma) down to 0."""
    x = float32(int32(word >> uint32(1))) + HALF
    bits = _bits_of(x)
    exponent = int32(int32(bits - SQRT_HALF_BITS) >> int32(23))
    m = _float_of(int32(bits - int32(exponent << int32(23)))) - ONE
    p = fma(m, L8, L7)
    p = fma(m, p, L6)
    p = fma(m, p, L5)
    p = fma(m, p, L4)
    p = fma(m, p, L3)
    p = fma(m, p, L2)
    p = fma(m, p, L1)
    p = fma(m, p, L0)
    return fma(float32(int32(int32(31) - exponent)), LN2, -(m * p))


@njit(inline="always", **FLAGS)
def turn(v):
    """cos and sin of 2 pi v / 2^32."""
    y = float32(int32(uint32(v << uint32(2)))) * float32(2.0**-31)  # within the quarter turn `quarter`, from -1 to 1
    quarter = uint32(uint32(v + uint32(0x20000000)) >> uint32(30))
    w = y * y
    sine = y * fma(w, fma(w, fma(w, S3, S2), S1), S0)
    cosine = fma(w, fma(w, fma(w, fma(w, C4, C3), C2), C1), C0)
    odd = uint32(quarter & uint32(1)) != uint32(0)
    i = sine if odd else cosine
    q = cosine if odd else sine
    return _with_sign(i, uint32(quarter + uint32(1))), _with_sign(q, quarter)


@njit(inline="always", **FLAGS)
def _normal(u, v, scale):
    """Box-Muller: `scale` sqrt(-ln U) (cos 2 pi V, sin 2 pi V), each part of variance scale^2 / 2."""
    radius = scale * np.sqrt(max(_neglog(u), float32(0.0)))
    i, q = turn(v)
    return radius * i, radius * q


@njit("void(uint64, uint64, uint64, uint64, uint64[::1], uint64[::1])", **FLAGS)
def _fill(index, frame, stream, key, u, v):
    """The words of the counters from number `index` on, the first and third in `u`, the second and fourth in `v`."""
    for i in range(u.size):
        c0, c1, c2, c3 = philox(index + uint64(i), frame, stream, key)
        u[i] = _low(c0) | (c2 << uint64(32))
        v[i] = _low(c1) | (c3 << uint64(32))


@njit("void(uint32[::1], uint32[::1], float32, float32[::1])", **FLAGS)
def _normals(u, v, scale, out):
    for i in range(u.size):
        out[2 * i], out[2 * i + 1] = _normal(u[i], v[i], scale)


@njit("void(uint64, uint64, uint64, uint64, float32, float32[::1], uint64[::1], uint64[::1])", **FLAGS)
def _draw(offset, frame, stream, key, scale, out, u, v):
    """`complex_normal` of at most CHUNK numbers, by way of the scratch `u` and `v`: a counter gives two."""
    odd = np.int64(offset & uint64(1))
    n = out.size // 2
    count = (odd + n + 1) // 2
    _fill(offset >> uint64(1), frame, stream, key, u[:count], v[:count])
    _normals(u.view(np.uint32)[odd : odd + n], v.view(np.uint32)[odd : odd + n], scale, out)


CHUNK = 2048  # numbers whose words stay in the first-level cache until they are used


@njit("void(uint64, uint64, uint64, uint64, float32, float32[::1])", **FLAGS)
def complex_normal(offset, frame, stream, key, scale, out):
    """Fill `out` (I, Q, I, Q, ...) with the stream's complex normals from number `offset` on; E|n|^2 = scale^2."""
    u, v = np.empty(CHUNK // 2 + 1, np.uint64), np.empty(CHUNK // 2 + 1, np.uint64)
    for i in range(0, out.size // 2, CHUNK):
        _draw(offset + uint64(i), frame, stream, key, scale, out[2 * i : 2 * (i + CHUNK)], u, v)


@njit(types.void(FLOATS_IN, float32[::1]), **FLAGS)
def _add(x, out):
    for i in range(out.size):
        out[i] += x[i]


@njit(types.void(uint64, uint64, uint64, uint64, float32, FLOATS_IN, float32[::1]), **FLAGS)
def awgn(offset, frame, stream, key, scale, x, out):
    """out = x + n with the complex normals of `complex_normal`."""
    u, v = np.empty(CHUNK // 2 + 1, np.uint64), np.empty(CHUNK // 2 + 1, np.uint64)
    for i in range(0, out.size // 2, CHUNK):
        part = out[2 * i : 2 * (i + CHUNK)]
        _draw(offset + uint64(i), frame, stream, key, scale, part, u, v)
        _add(x[2 * i : 2 * (i + CHUNK)], part)


@njit(types.void(FLOATS_IN, FLOATS_IN, float32[::1]), **FLAGS)
def _add_faded(h, x, out):
    for i in range(out.size // 2):
        a = h[2 * i]
        b = h[2 * i + 1]
        c = x[2 * i]
        d = x[2 * i + 1]
        out[2 * i] = fma(a, c, fma(-b, d, out[2 * i]))
        out[2 * i + 1] = fma(a, d, fma(b, c, out[2 * i + 1]))


@njit(types.void(uint64, uint64, uint64, uint64, float32, FLOATS_IN, FLOATS_IN, float32[::1]), **FLAGS)
def fade(offset, frame, stream, key, scale, h, x, out):
    """out = h x + n with the complex normals of `complex_normal`."""
    u, v = np.empty(CHUNK // 2 + 1, np.uint64), np.empty(CHUNK // 2 + 1, np.uint64)
    for i in range(0, out.size // 2, CHUNK):
        part = slice(2 * i, 2 * (i + CHUNK))
        _draw(offset + uint64(i), frame, stream, key, scale, out[part], u, v)
        _add_faded(h[part], x[part], out[part])


@njit("void(int64[::1], float32[::1], int64, int64, float32[::1], float32[::1])", **FLAGS)
def sum_of_tones(rates, amplitudes, first, step, real, imag):
    """Add up tones a_m e^(2 pi i r_m n), n = first, first + step, ...; rates r_m in 2^-64 turns an item."""
    for m in range(rates.size):
        a = amplitudes[2 * m]
        b = amplitudes[2 * m + 1]
        phase = uint64(rates[m]) * uint64(first)
        turned = uint64(rates[m]) * uint64(step)
        for i in range(real.size):
            c, s = turn(uint32(phase >> uint64(32)))
            phase += turned
            real[i] = fma(a, c, fma(-b, s, real[i]))
            imag[i] = fma(a, s, fma(b, c, imag[i]))


@njit(types.void(float32, FLOATS_IN, FLOATS_IN, float32[::1]), **FLAGS)
def equalize(n0, h, y, out):
    """out = y h* / (|h|^2 + N0), 0 where float32 holds |h|^2 + N0 or its inverse not, as where h is 0."""
    for i in range(out.size // 2):
        a = h[2 * i]
        b = h[2 * i + 1]
        power = fma(a, a, fma(b, b, n0))
        beyond = (power < SMALLEST) | (power > LARGEST)
        weight = ONE / power
        out[2 * i] = ZERO if beyond else fma(a, y[2 * i], b * y[2 * i + 1]) * weight
        out[2 * i + 1] = ZERO if beyond else fma(a, y[2 * i + 1], -(b * y[2 * i])) * weight


@njit("void(uint64, uint64, uint64, uint64, uint32[::1])", **FLAGS)
def words(index, frame, stream, key, out):
    """Fill `out` with the words of the counters from number `index` on, four each."""
    for i in range(out.size // 4):
        c0, c1, c2, c3 = philox(index + uint64(i), frame, stream, key)
        out[4 * i], out[4 * i + 1], out[4 * i + 2], out[4 * i + 3] = uint32(c0), uint32(c1), uint32(c2), uint32(c3)


@njit("void(uint64, uint64, uint64, uint64, uint64, uint8[::1])", **FLAGS)
def rare_bits(index, frame, stream, key, threshold, out):
    """Fill `out` with packed bits from byte `index` on: bit b is 1 where word b of the stream is below `threshold`."""
    for i in range(out.size):
        byte = uint64(0)
        for half in range(2):
            c = uint64(2) * (index + uint64(i)) + uint64(half)
            c0, c1, c2, c3 = philox(c, frame, stream, key)
            for word in (c0, c1, c2, c3):
                byte = (byte << uint64(1)) | uint64(_low(word) < threshold)
        out[i] = uint8(byte)
