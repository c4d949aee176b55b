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

TILE = 512  # items that are worked on at a time, within the first-level cache
ROWS = types.Array(float32, 2, "C", readonly=True)


@njit(types.void(FLOATS_IN, float32[::1], float32[::1]), **FLAGS)
def _turn(items, x, turned):
    """Copy items to x, and i times them to `turned`."""
    for j in range(items.size // 2):
        a = items[2 * j]
        b = items[2 * j + 1]
        x[2 * j] = a
        x[2 * j + 1] = b
        turned[2 * j] = -b
        turned[2 * j + 1] = a


@njit("void(float32, float32, float32[::1], float32[::1], float32[::1])", **FLAGS)
def _add(real, imag, x, turned, total):
    """total += (real + i imag) x, with i x in `turned`."""
    for j in range(total.size):
        total[j] = fma(real, x[j], fma(imag, turned[j], total[j]))


@njit("void(int64, int64, float32[::1], float32[::1], float32[::1])", **FLAGS)
def run_straight(into, interval, now, slope, out):
    """out = now + t slope, where t, the share of the interval that has passed, begins `into` items after its start."""
    scale = float32(1) / float32(interval)
    for j in range(out.size):
        t = float32(int32(into) + int32(int32(j) >> int32(1))) * scale
        out[j] = fma(t, slope[j], now[j])


@njit(types.void(ROWS, int64, int64, FLOATS_IN, float32[::1]), **FLAGS)
def convolve(taps, interval, offset, items, out):
    """out[n] = sum over l of h_l(offset + n) x[n - l], all complex as (I, Q, I, Q, ...).

    Row k of `taps` is h at item k `interval`, a power of two, and h runs straight from row to row. `items` are x, with
    as many before the first one that is wanted as there are taps, less one.
    """
    length = taps.shape[1] // 2
    x, turned = np.empty(2 * (TILE + length - 1), np.float32), np.empty(2 * (TILE + length - 1), np.float32)
    now, slope = np.empty(2 * TILE, np.float32), np.empty(2 * TILE, np.float32)
    n, count = 0, out.size // 2
    while n < count:
        row = (offset + n) // interval
        into = offset + n - row * interval
        size = min(TILE, interval - into, count - n)
        _turn(items[2 * n : 2 * (n + size + length - 1)], x, turned)
        now[: 2 * size] = float32(0)
        slope[: 2 * size] = float32(0)
        for tap in range(length):
            part = slice(2 * (length - 1 - tap), 2 * (length - 1 - tap + size))
            a, b = taps[row, 2 * tap], taps[row, 2 * tap + 1]
            c, d = taps[row + 1, 2 * tap] - a, taps[row + 1, 2 * tap + 1] - b
            _add(a, b, x[part], turned[part], now[: 2 * size])
            if c != float32(0) or d != float32(0):
                _add(c, d, x[part], turned[part], slope[: 2 * size])
        run_straight(into, interval, now, slope, out[2 * n : 2 * (n + size)])
        n += size
