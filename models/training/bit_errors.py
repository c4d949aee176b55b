"""The paper's link in a few lines of NumPy: float64 latents, 16QAM bit error rates, and the rule for absurd
floats.

Training and evaluation use it; a flowgraph simulates the real chain instead.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np


def bit_error_rates(ebn0_db: float) -> np.ndarray:
    """Error probability of the four bits of a 16QAM symbol over AWGN, hard decisions, labelling of 3GPP TS
    38.211 5.1.4.

    With Q(x) = erfc(x / sqrt 2) / 2 and a = sqrt(0.8 Eb/N0), the sign bits (first two) err with (Q(a) +
    Q(3a)) / 2 and the amplitude bits with Q(a) + Q(3a) / 2 - Q(5a) / 2.

    >>> float(bit_error_rates(7.5).mean().round(4))
    0.0127
    """
    a = math.sqrt(0.8 * 10 ** (ebn0_db / 10))
    q1, q3, q5 = (0.5 * math.erfc(k * a / math.sqrt(2)) for k in (1, 3, 5))
    sign, amplitude = (q1 + q3) / 2, q1 + q3 / 2 - q5 / 2
    return np.array([sign, sign, amplitude, amplitude])


def flip_bits(latents: np.ndarray, rates: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Send latents as big-endian float64, bit i of every four flipped with probability `rates[i]`."""
    bits = np.unpackbits(np.ascontiguousarray(latents, ">f8").view(np.uint8)).reshape(-1, 4)
    bits ^= random.random(bits.shape, np.float32) < rates
    return np.packbits(bits).view(">f8").astype(np.float64).reshape(latents.shape)


def repair(latents: np.ndarray, rule: Literal["paper", "clip"], random: np.random.Generator) -> np.ndarray:
    """Replace absurd floats; float32 result.

    `paper`: NaN, Inf, |z| > 10 and |z| < 0.01 become fresh N(0, 1) draws. `clip`: NaN, Inf and |z| > 10
    become 0 and the rest is limited to |z| <= 4.
    """
    absurd = ~(np.abs(latents) <= 10)
    if rule == "paper":
        absurd |= np.abs(latents) < 0.01
        return np.where(absurd, random.standard_normal(latents.shape), latents).astype(np.float32)
    return np.where(absurd, 0, np.clip(latents, -4, 4)).astype(np.float32)
