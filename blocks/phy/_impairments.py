"""Compiled kernels behind `blocks.phy.impairments`: clip, sample anew, let the phase wander, mix.

Complex samples come and go as float32 (I, Q, I, Q, ...). What becomes of an item depends on its place in the frame
alone, to the last bit.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from numba import float32, float64, int64, njit, types, uint32, uint64

from blocks._compiled import FLAGS, FLOATS_IN
from blocks.phy._noise import fma, turn
from blocks.phy._tdl import run_straight

TILE = 512  # items that are worked on at a time, within the first-level cache


@njit(types.void(FLOATS_IN, float32, float32[::1]), **FLAGS)
def clip(x, level, out):
    """out = x min(1, level / |x|)."""
    for i in range(out.size // 2):
        a = x[2 * i]
        b = x[2 * i + 1]
        size = float32(np.sqrt(float64(a) * float64(a) + float64(b) * float64(b)))
        scale = level / size if size > level else float32(1)
        out[2 * i] = a * scale
        out[2 * i + 1] = b * scale


@njit("void(float32, float32[::1], float32[::1])", **FLAGS)
def _add(tap, x, total):
    for j in range(total.size):
        total[j] = fma(tap, x[j], total[j])


@njit("void(float32[:, ::1], float64, float32[::1])", **FLAGS)
def _pulse(pulses, share, taps):
    """The interpolator's taps for a `share` of a sample, -1/2 to 3/2, between rows of `pulses`."""
    place = (share + 0.5) * 0.5 * (pulses.shape[0] - 1)
    row = min(int64(place), pulses.shape[0] - 2)
    t = float32(place - row)
    for j in range(taps.size):
        taps[j] = fma(t, pulses[row + 1, j] - pulses[row, j], pulses[row, j])


@njit("void(float32[::1], int64, int64, float64, float64, int64, float32[:, ::1], float32[::1])", **FLAGS)
def sample_at(x, first, offset, pace, delay, interval, pulses, out):
    """out[n] = x at (offset + n) `pace` - `delay`, where x[0] lies at `first`.

    The interpolator's taps run straight over every `interval` items of the frame. Their middle two are next to the
    place that is wanted, and x must reach as far as they do.
    """
    width = pulses.shape[1]
    begin_taps, end_taps = np.empty(width, np.float32), np.empty(width, np.float32)
    now, slope = np.empty(2 * TILE, np.float32), np.empty(2 * TILE, np.float32)
    n, count = 0, out.size // 2
    while n < count:
        into = (offset + n) % interval
        size = min(TILE, interval - into, count - n)
        start = offset + n - into
        begin = float64(start) * pace - delay
        whole = np.floor(begin)
        end = float64(start + interval) * pace - delay
        _pulse(pulses, begin - whole, begin_taps)
        _pulse(pulses, end - whole - interval, end_taps)
        now[: 2 * size] = float32(0)
        slope[: 2 * size] = float32(0)
        heard = int64(whole) - first + into - width // 2 + 1
        for tap in range(width):
            part = x[2 * (heard + tap) : 2 * (heard + tap + size)]
            _add(begin_taps[tap], part, now[: 2 * size])
            if end_taps[tap] != begin_taps[tap]:
                _add(end_taps[tap] - begin_taps[tap], part, slope[: 2 * size])
        run_straight(into, interval, now, slope, out[2 * n : 2 * (n + size)])
        n += size


@njit("uint64(uint64, uint64, float32[::1], uint32[::1])", **FLAGS)
def wander(phase, step, noise, out):
    """Phases in 2^-32 turns, from `phase` on by `step` an item, both in 2^-64 turns; returns the next item's.

    Where there is `noise`, item n adds the turns noise[2 n] to the next item's phase.
    """
    for i in range(out.size):
        out[i] = uint32(phase >> uint64(32))
        phase += step
        if noise.size:
            phase += uint64(int64(float64(noise[2 * i]) * 2.0**48)) << uint64(16)
    return phase


@njit(types.void(FLOATS_IN, uint32[::1], float32, float32, float32, float32, float32, float32[::1]), **FLAGS)
def mix(x, phases, gain, q_of_q, q_of_i, dc_i, dc_q, out):
    """w = gain e^(i phase) x; out = w_I + dc_i, and q_of_q w_Q + q_of_i w_I + dc_q."""
    for i in range(out.size // 2):
        c, s = turn(phases[i])
        c *= gain
        s *= gain
        a = x[2 * i]
        b = x[2 * i + 1]
        u = fma(c, a, -(s * b))
        v = fma(s, a, c * b)
        out[2 * i] = u + dc_i
        out[2 * i + 1] = fma(q_of_q, v, fma(q_of_i, u, dc_q))
