"""Compiled kernels of the waveform: correlation with real taps, and the tracking of a burst.

Complex numbers come and go as float32 (I, Q, I, Q, ...). Every value is made of its own inputs in one order, wherever
in an array they are, so that no packet matters.
"""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from numba import float32, float64, int64, njit, types

from blocks._compiled import FLAGS, FLOATS_IN, array_in
from blocks.phy._noise import fma

TILE = 2048  # floats that are worked on at a time, within the first-level cache
REACH = 1.5  # of the table of expected symbols, to either side of 0
BANK_IN = types.Array(float32, 2, "C", readonly=True, aligned=False)
TABLE_IN = types.Array(float32, 3, "C", readonly=True, aligned=False)


@njit(types.void(FLOATS_IN, FLOATS_IN, int64, float32[::1]), **FLAGS)
def correlate(x, taps, spacing, out):
    """out[i] = sum over j of taps[j] x[i + j spacing]."""
    for begin in range(0, out.size, TILE):
        part = out[begin : begin + TILE]
        part[:] = float32(0)
        for j in range(taps.size):
            source = x[begin + j * spacing : begin + j * spacing + part.size]
            tap = taps[j]
            for i in range(part.size):
                part[i] = fma(tap, source[i], part[i])


@njit(
    float64(
        FLOATS_IN, float64, float64, float64, BANK_IN, BANK_IN, BANK_IN, FLOATS_IN, TABLE_IN, int64,
        array_in(float64), float32[::1]
    ),
    **FLAGS,
)  # fmt: skip
def track(y, place, phase, step, bank, feedback, past, pilots, expected, block, loop, out):
    """Equalise the symbols of a burst, two samples of y apart, and follow phase and clock from block to block.

    `place` is where the first symbol lies in y, `phase` (radians) the carrier's there and `step` what it grows by in a
    symbol. Row r of `bank` equalises at the fraction (r + 1/2) / rows - 1/2 of a sample past the middle tap. `pilots`
    are 0 where data are, for which `expected` [I, Q, 2] tells the mean symbol by what came. `loop` holds the share of
    an error that corrects phase, carrier, place and clock, and the slope of the timing error. Returns by how
    many samples two symbols are farther apart than 2, in the last block.
    """
    rows, taps = bank.shape[0], bank.shape[1] // 2
    half = block + taps // 2 + 1
    x = np.empty((4, half), np.float32)  # I and Q of even samples, I and Q of odd ones
    re, im = np.empty(block, np.float32), np.empty(block, np.float32)
    fed = feedback.shape[0]
    sent = np.empty((fed + block, 2), np.float32)
    sent[:fed] = past
    cells, drift = expected.shape[0], 0.0
    for begin in range(0, out.size // 2, block):
        size = min(block, out.size // 2 - begin)
        whole = np.floor(place + 0.5)
        row = min(max(int64((place - whole + 0.5) * rows), 0), rows - 1)
        first = min(max(2 * (int64(whole) - taps // 2), 0), y.size - 4 * (size + taps // 2))  # however far it strays
        for i in range(size + taps // 2):
            for part in range(4):
                x[part, i] = y[first + 4 * i + part]
        re[:] = float32(0)
        im[:] = float32(0)
        for j in range(taps):
            odd, at = 2 * (j & 1), j >> 1
            a, b = bank[row, 2 * j], bank[row, 2 * j + 1]
            for i in range(size):
                re[i] = fma(a, x[odd, at + i], fma(-b, x[odd + 1, at + i], re[i]))
                im[i] = fma(a, x[odd + 1, at + i], fma(b, x[odd, at + i], im[i]))
        turn_re, turn_im = np.cos(phase), -np.sin(phase)
        step_re, step_im = np.cos(step), -np.sin(step)
        sum_re = sum_im = power = timing = 0.0
        before_i = before_q = sent_i = sent_q = float32(0)
        for i in range(size):
            a = float32(re[i] * turn_re - im[i] * turn_im)
            b = float32(re[i] * turn_im + im[i] * turn_re)
            turn_re, turn_im = turn_re * step_re - turn_im * step_im, turn_re * step_im + turn_im * step_re
            for j in range(fed):  # the symbol decided last comes last, as it is waited for
                g, h, p, q = feedback[j, 0], feedback[j, 1], sent[i + j, 0], sent[i + j, 1]
                a = fma(-g, p, fma(h, q, a))
                b = fma(-g, q, fma(-h, p, b))
            re[i], im[i] = a, b
            p, q = pilots[2 * (begin + i)], pilots[2 * (begin + i) + 1]
            if p == 0 and q == 0:
                u = min(max(int64((a + REACH) * (cells / (2 * REACH))), 0), cells - 1)
                v = min(max(int64((b + REACH) * (cells / (2 * REACH))), 0), cells - 1)
                p, q = expected[u, v, 0], expected[u, v, 1]
            sum_re += a * p + b * q
            sum_im += b * p - a * q
            power += p * p + q * q
            timing += (sent_i * a + sent_q * b) - (p * before_i + q * before_q)
            before_i, before_q, sent_i, sent_q = a, b, p, q
            sent[fed + i, 0], sent[fed + i, 1] = p, q
        angle = np.arctan2(sum_im, sum_re) if power > 0 else 0.0
        late = timing / (power * loop[4]) if power > 0 else 0.0  # in samples
        turn = loop[0] * angle
        c, s = float32(np.cos(turn)), float32(-np.sin(turn))
        for i in range(size):
            out[2 * (begin + i)] = re[i] * c - im[i] * s
            out[2 * (begin + i) + 1] = re[i] * s + im[i] * c
        sent[:fed] = sent[size : size + fed]
        share = size / block
        phase += step * size + turn
        step += share * loop[1] * angle / block
        drift -= share * loop[3] * late / block
        place += 2 * size + drift * size - share * loop[2] * late
    return drift
