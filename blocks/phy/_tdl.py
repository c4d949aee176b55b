"""Compiled kernel behind `blocks.phy.tdl`: a filter whose taps change with time.

Sums run in the order of the taps, fused as `fma` says, so that an item comes out the same wherever its packet begins.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from numba import float32, int32, int64, njit, types

from blocks._compiled import FLAGS, FLOATS_IN
from blocks.phy._noise import fma

TILE = 512  # floats of I and Q that are worked on at a time, within the first cache
ROWS = types.Array(float32, 2, "C", readonly=True)


@njit("void(float32, float32, float32[::1], float32[::1], float32[::1])", **FLAGS)
def _add(real, imag, x, turned, total):
    """total += tap x, with i x in `turned`."""
    for j in range(total.size):
        total[j] = fma(real, x[j], fma(imag, turned[j], total[j]))


@njit(types.void(ROWS, int64, int64, FLOATS_IN, float32[::1]), **FLAGS)
def convolve(taps, interval, offset, items, out):
    """out[n] = sum over l of h_l(offset + n) x[n - l], all complex as (I, Q, I, Q, ...).

    Row k of `taps` is h at item k `interval`, a power of two, and h runs straight from row to row. `items` are x, with
    as many before the first one that is wanted as there are taps, less one.
    """
    length = taps.shape[1] // 2
    x = np.empty(items.size, np.float32)
    turned = np.empty(items.size, np.float32)
    for j in range(items.size // 2):
        x[2 * j] = items[2 * j]
        x[2 * j + 1] = items[2 * j + 1]
        turned[2 * j] = -items[2 * j + 1]
        turned[2 * j + 1] = items[2 * j]
    now = np.empty(TILE, np.float32)
    slope = np.empty(TILE, np.float32)
    scale = float32(1) / float32(interval)
    n, count = 0, out.size // 2
    while n < count:
        row = (offset + n) // interval
        into = offset + n - row * interval
        size = 2 * min(TILE // 2, interval - into, count - n)
        now[:size] = float32(0)
        slope[:size] = float32(0)
        for tap in range(length):
            first = 2 * (n + length - 1 - tap)
            part, part_turned = x[first : first + size], turned[first : first + size]
            a, b = taps[row, 2 * tap], taps[row, 2 * tap + 1]
            c, d = taps[row + 1, 2 * tap] - a, taps[row + 1, 2 * tap + 1] - b
            _add(a, b, part, part_turned, now[:size])
            if c != float32(0) or d != float32(0):
                _add(c, d, part, part_turned, slope[:size])
        y = out[2 * n : 2 * n + size]
        for j in range(size):
            t = float32(int32(into) + int32(int32(j) >> int32(1))) * scale
            y[j] = fma(t, slope[j], now[j])
        n += size // 2
