"""Compiled kernels behind `blocks.phy.pilots`: gains at the pilots, what they leave over, gains between them.

Complex numbers come and go as float32 (I, Q, I, Q, ...). Sums are made in one order whatever the length of the arrays,
so that every packet gives the same bits.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from numba import float32, float64, int64, njit, types

from blocks._compiled import FLAGS, FLOATS_IN
from blocks.phy._noise import fma

LARGEST = float32(1e18)  # whose square float32 still holds
WEIGHTS_IN = types.Array(float32, 3, "C", readonly=True, aligned=False)
BASIS_IN = types.Array(float64, 2, "C", readonly=True, aligned=False)


@njit(types.void(FLOATS_IN, int64, FLOATS_IN, int64, int64, float32[::1], float32[::1]), **FLAGS)
def gains_at_pilots(y, period, known, first, length, pilots, gains):
    """Fill `pilots` with the y p* of groups number `first` and so on, and `gains` with the mean of each group.

    `gains` begins with that of the group before, which stands in for a group with a symbol that is not finite; the
    pilots of that one are NaN.
    """
    for k in range(gains.size // 2 - 1):
        p = (2 * length * (first + k)) % known.size
        at = 2 * period * k
        re = im = 0.0
        usable = True
        for m in range(0, 2 * length, 2):
            a, b, c, d = y[at + m], y[at + m + 1], known[p + m], known[p + m + 1]
            usable &= (abs(a) <= LARGEST) & (abs(b) <= LARGEST)
            x, z = fma(a, c, b * d), fma(b, c, -(a * d))
            pilots[2 * length * k + m], pilots[2 * length * k + m + 1] = x, z
            re += x
            im += z
        gains[2 * k + 2] = re / length if usable else gains[2 * k]
        gains[2 * k + 3] = im / length if usable else gains[2 * k + 1]
        if not usable:
            pilots[2 * length * k : 2 * length * (k + 1)] = np.nan


@njit(types.UniTuple(float64, 2)(FLOATS_IN, BASIS_IN, float64, float64), **FLAGS)
def beyond_fading(pilots, fading, energy, freedom):
    """Add to `energy` what pilots have beyond the rows of `fading`, stretch by stretch, to `freedom` its dimensions.

    A stretch with a pilot that is NaN is left out.
    """
    rows, count = fading.shape
    for begin in range(0, pilots.size, 2 * count):
        z = pilots[begin : begin + 2 * count]
        rest = 0.0
        for i in range(2 * count):
            rest += float64(z[i]) * z[i]
        for row in range(rows):
            re = im = 0.0
            for i in range(count):
                re += fading[row, i] * z[2 * i]
                im += fading[row, i] * z[2 * i + 1]
            rest -= re * re + im * im
        if not np.isnan(rest):
            energy += max(rest, 0.0)
            freedom += count - rows
    return energy, freedom


@njit(types.void(FLOATS_IN, int64, WEIGHTS_IN, WEIGHTS_IN, float32[::1]), **FLAGS)
def interpolate(gains, first, weights, last_weights, out):
    """out[i, s] = sum over t of w[j, t, s] gains[start + t]: gains of the symbols s behind group `first` + i.

    A group is number j of the window of groups that it lies in the middle of, or as near to it as the first and the
    last group allow. The last window of all has the weights `last_weights`.
    """
    window, spacing = weights.shape[1], weights.shape[2]
    last_start = gains.size // 2 - window
    re, im = np.empty(spacing, np.float32), np.empty(spacing, np.float32)
    for begin in range(0, out.size, 2 * spacing):
        at = first + begin // (2 * spacing)
        start = min(max(at - (window // 2 - 1), 0), last_start)
        w = last_weights[at - start] if start == last_start else weights[at - start]
        re[:] = 0
        im[:] = 0
        fours = window // 4 * 4
        for t in range(0, fours, 4):  # four at a time, so that sums are loaded and stored less
            k = 2 * (start + t)
            a0, b0, a1, b1 = gains[k], gains[k + 1], gains[k + 2], gains[k + 3]
            a2, b2, a3, b3 = gains[k + 4], gains[k + 5], gains[k + 6], gains[k + 7]
            w0, w1, w2, w3 = w[t], w[t + 1], w[t + 2], w[t + 3]
            for s in range(spacing):
                re[s] = fma(w3[s], a3, fma(w2[s], a2, fma(w1[s], a1, fma(w0[s], a0, re[s]))))
                im[s] = fma(w3[s], b3, fma(w2[s], b2, fma(w1[s], b1, fma(w0[s], b0, im[s]))))
        for t in range(fours, window):
            a, b = gains[2 * (start + t)], gains[2 * (start + t) + 1]
            for s in range(spacing):
                re[s] = fma(w[t, s], a, re[s])
                im[s] = fma(w[t, s], b, im[s])
        for s in range(min(spacing, (out.size - begin) // 2)):
            out[begin + 2 * s] = re[s]
            out[begin + 2 * s + 1] = im[s]
