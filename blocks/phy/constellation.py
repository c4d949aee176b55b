"""Constellations as data: the points of a modulation by their labels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np


@dataclass(frozen=True)
class Constellation:
    """A square QAM: the label's even bits choose the in-phase amplitude, its odd bits the quadrature one.

    axis   amplitudes of one axis by label, most significant bit first, equidistant; two axes make a mean power of 1
    """

    name: str
    axis: tuple[float, ...]

    @property
    def bits_per_symbol(self) -> int:
        return 2 * (len(self.axis).bit_length() - 1)

    @property
    def half_step(self) -> float:
        """Half the distance of two neighbours on an axis: 1 / sqrt(10) for 16QAM."""
        return min(abs(a) for a in self.axis)

    @cached_property
    def points(self) -> np.ndarray:
        """The points by label, complex128."""
        bits_per_axis = self.bits_per_symbol // 2
        points = []
        for label in range(1 << self.bits_per_symbol):
            bits = f"{label:0{2 * bits_per_axis}b}"
            points.append(complex(self.axis[int(bits[0::2], 2)], self.axis[int(bits[1::2], 2)]))
        return np.array(points)


def _gray_axis(bits: int) -> tuple[float, ...]:
    """Amplitudes of one axis of a square QAM, 3GPP TS 38.211 clause 5.1: (1-2b0)[2^(n-1) - (1-2b1)[2^(n-2) - ...]]."""
    amplitudes = []
    for label in range(1 << bits):
        inner = 1
        for place in range(bits - 1):
            inner = (2 << place) - (1 - 2 * (label >> place & 1)) * inner
        amplitudes.append((1 - 2 * (label >> (bits - 1))) * inner)
    norm = math.sqrt(2 * sum(a * a for a in amplitudes) / len(amplitudes))
    return tuple(a / norm for a in amplitudes)


Modulation = Literal["qpsk", "16qam", "64qam", "256qam"]
CONSTELLATIONS: dict[Any, Constellation] = {
    name: Constellation(name, _gray_axis(1 + order)) for order, name in enumerate(get_args(Modulation))
}
