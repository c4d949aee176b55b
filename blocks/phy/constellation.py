"""Constellations as data: the points of a modulation by their labels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import BeforeValidator


@dataclass(frozen=True)
class Constellation:
    """The points of a modulation, of unit mean power, in the order of their labels (most significant bit first).

    axis  for a square QAM, the amplitudes of one axis by label, equidistant: the label's even bits choose the in-phase
          amplitude, its odd bits the quadrature one; else empty
    """

    name: str
    places: tuple[complex, ...]
    axis: tuple[float, ...] = ()

    @property
    def bits_per_symbol(self) -> int:
        return len(self.places).bit_length() - 1

    @property
    def half_step(self) -> float:
        """Half the distance of two neighbours on an axis of a square QAM: 1 / sqrt(10) for 16QAM."""
        return min(abs(a) for a in self.axis)

    @functools.cached_property
    def points(self) -> np.ndarray:
        """The points by label, complex128."""
        return np.array(self.places)

    @functools.cached_property
    def gray(self) -> bool:
        """Whether neighbours differ in one bit: what makes few bit errors of a wrong symbol.

        Neighbours are two points a and b to whose middle no third point c is as near: (a - c) (b - c) > 0 for all c.
        """
        labels, inner = np.arange(len(self.points)), (self.points[:, None] * self.points.conj()).real
        for a in labels:
            others = inner[a][:, None] - inner[a] - inner + np.diag(inner)  # (a - c) (b - c), [b, c]
            others[labels, labels] = others[:, a] = np.inf
            near = (others > 1e-9).all(1) & (labels != a)
            if (np.bitwise_count(labels[near] ^ a) != 1).any():
                return False
        return True


def square(name: str, axis: Sequence[float]) -> Constellation:
    """Return the square QAM of an axis."""
    bits = len(axis).bit_length() - 1
    labels = [f"{label:0{2 * bits}b}" for label in range(1 << 2 * bits)]
    places = (complex(axis[int(label[0::2], 2)], axis[int(label[1::2], 2)]) for label in labels)
    return Constellation(name, tuple(places), tuple(axis))


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


def _psk8() -> tuple[complex, ...]:
    """Gray-labelled 8PSK: the point at the angle 2 pi i / 8 has the label i xor i/2."""
    by_label = sorted(range(8), key=lambda i: i ^ i >> 1)
    return tuple(complex(math.cos(math.pi / 4 * i), math.sin(math.pi / 4 * i)) for i in by_label)


_DIAGONAL = math.sqrt(0.5)
Standard = Literal["bpsk", "qpsk", "8psk", "16qam", "64qam", "256qam"]
WANTED = f"{', '.join(get_args(Standard))} or a list of points [I, Q]"
CONSTELLATIONS: dict[str, Constellation] = {
    "bpsk": Constellation("bpsk", (complex(_DIAGONAL, _DIAGONAL), complex(-_DIAGONAL, -_DIAGONAL))),  # clause 5.1.2
    "8psk": Constellation("8psk", _psk8()),
    **{name: square(name, _gray_axis(1 + i)) for i, name in enumerate(("qpsk", "16qam", "64qam", "256qam"))},
}


def _checked(value: Any) -> Any:
    """Return a modulation's name, or its points as pairs, once they are what a modulation can be."""
    if not isinstance(value, list | tuple):
        if value not in get_args(Standard):
            raise ValueError(f"must be {WANTED}, not {value!r}")
        return value
    try:
        points = np.array(value, float).reshape(len(value), 2)
    except (TypeError, ValueError):
        raise ValueError("must be a list of points [I, Q], two numbers each") from None
    if not 2 <= len(points) <= 256 or len(points) & (len(points) - 1):
        raise ValueError(f"must have 2, 4, 8, ... 256 points, not {len(points)}")
    if not np.isfinite(points).all() or len(np.unique(points, axis=0)) < len(points):
        raise ValueError("must have points that are finite and differ")
    power = float((points**2).sum(1).mean())
    if abs(power - 1) > 1e-3:
        raise ValueError(f"must have unit mean power, not {power:.4g}: divide the points by {power**0.5:.6g}")
    points /= power**0.5
    return tuple((float(i), float(q)) for i, q in points)


# A parameter that takes the name of a modulation, or its points by label.
Modulation = Annotated[str | tuple[tuple[float, float], ...], BeforeValidator(_checked)]


# What functions take: a name, points [I, Q] by label, or the constellation itself.
AnyModulation = str | Sequence[Sequence[float]] | Constellation


def constellation(modulation: AnyModulation) -> Constellation:
    """Return the constellation of a name, or of points [I, Q] by label.

    >>> constellation("16qam").bits_per_symbol, constellation([[1, 0], [0, 1], [-1, 0], [0, -1]]).gray
    (4, False)

    Raises `ValueError` for a name that there is not, and for points that cannot be: not 2, 4, 8, ... 256 of them, twice
    the same, not finite, or of another mean power than 1.
    """
    if isinstance(modulation, Constellation):
        return modulation
    if isinstance(modulation, str):
        return CONSTELLATIONS.get(modulation) or _of_points(modulation)
    try:
        return _of_points(tuple(map(tuple, modulation)))
    except TypeError:
        raise ValueError(f"modulation must be {WANTED}, not {modulation!r}") from None


@functools.lru_cache(64)
def _of_points(points: Any) -> Constellation:
    try:
        return Constellation("custom", tuple(complex(i, q) for i, q in _checked(points)))
    except ValueError as error:
        raise ValueError(f"modulation {error}") from None
