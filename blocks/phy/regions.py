"""What minimum-distance decisions do with any constellation over white Gaussian noise, exactly.

A point's decision region is a polygon, within which no other point is nearer. Seen from a sent point, a plane integral
over the region becomes a sum over its edges, in the angle under which each is seen (J. Craig, "A new, simple and exact
result for calculating the probability of error for two-dimensional signal constellations", 1991).
"""

from __future__ import annotations

import functools

import numpy as np

FAR = 1e5  # side of the box in which regions are worked out; the mean power of the points is 1
LEAST_N0 = 1e-290  # so that squared distances over it are finite
NODES = 64  # of Gauss and Legendre, on each side of an edge's nearest point


def polygon(points: np.ndarray, label: int) -> np.ndarray:
    """Return the corners of a point's region, complex128, counterclockwise; those at infinity lie on a box."""
    corners = FAR * np.array([-1 - 1j, 1 - 1j, 1 + 1j, -1 + 1j])
    own = points[label]
    for other in np.delete(points, label):
        normal, middle = other - own, (other + own) / 2
        beyond = ((corners - middle) * np.conj(normal)).real
        kept = []
        for i in range(len(corners)):
            a, b, at, to = corners[i - 1], corners[i], beyond[i - 1], beyond[i]
            if (at > 0) != (to > 0):
                kept.append(a + (b - a) * at / (at - to))
            if to <= 0:
                kept.append(b)
        corners = np.array(kept)
    return corners


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    x, weights = np.polynomial.legendre.leggauss(NODES)
    turned = np.pi / 2 * x  # closer at both ends: strong noise changes little but at the far one
    return (np.sin(turned) + 1) / 2, weights * np.cos(turned) * np.pi / 4


def _at_infinity(corners: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(corners.real), np.abs(corners.imag)) == FAR


class _Views:
    """All edges of all regions as seen from all points: places on them, and the angle that each stands for.

    At infinity, where no noise reaches, there are no edges; those that lead there do not end.

    place   offset of a place from the point that it is seen from, complex128 [n]
    weight  signed angle over 2 pi, float64 [n]
    sent    label of the point that it is seen from, int64 [n]; decided: label whose region it bounds
    """

    def __init__(self, points: np.ndarray) -> None:
        nodes, weights = _quadrature()
        place, weight, sent, decided = [], [], [], []
        for j in range(len(points)):
            to = polygon(points, j)
            begin = np.roll(to, 1)
            of_box = (begin.real == to.real) & (np.abs(to.real) == FAR)
            of_box |= (begin.imag == to.imag) & (np.abs(to.imag) == FAR)
            edges = np.abs(to - begin) > 1e-12 * FAR
            begin, to = begin[edges & ~of_box], to[edges & ~of_box]
            along = (to - begin) / np.abs(to - begin)
            for s, point in enumerate(points):
                a, b = begin - point, to - point
                foot = a - (a * np.conj(along)).real * along  # of the perpendicular on the edge's line
                distance = np.abs(foot)
                side = np.sign((np.conj(a) * b).imag)  # positive where the edge runs counterclockwise around the point
                first = np.arctan2((a * np.conj(along)).real, distance)
                last = np.arctan2((b * np.conj(along)).real, distance)
                first = np.where(_at_infinity(begin), -np.pi / 2, first)
                last = np.where(_at_infinity(to), np.pi / 2, last)
                side[distance < 1e-12 * FAR] = 0  # seen from a point on its line, it is nothing
                nearest = np.clip(0.0, first, last)
                for left, right in ((first, nearest), (nearest, last)):
                    angle = left[:, None] + (right - left)[:, None] * nodes
                    place.append((foot[:, None] + along[:, None] * distance[:, None] * np.tan(angle)).ravel())
                    weight.append((side[:, None] * (right - left)[:, None] * weights / (2 * np.pi)).ravel())
                    sent.append(np.full(angle.size, s))
                    decided.append(np.full(angle.size, j))
        self.points, self.labels = points, len(points)
        self.place, self.weight = np.concatenate(place), np.concatenate(weight)
        self.sent, self.decided = np.concatenate(sent), np.concatenate(decided)


def checked_noise(n0: float, infinite: bool = False) -> float:
    """Return a noise power. Raises `ValueError` for one below 0, NaN, or infinite unless that is allowed."""
    if not 0 <= n0 <= (np.inf if infinite else np.finfo(float).max):
        raise ValueError(f"n0 must be at least 0{'' if infinite else ' and finite'}, not {n0:g}")
    return n0


@functools.lru_cache(16)
def _views(points: tuple[complex, ...]) -> _Views:
    return _Views(np.array(points))


def transitions(points: np.ndarray, n0: float, rayleigh: bool = False, k_factor: float = 0.0) -> np.ndarray:
    """Return P(decided | sent), float64 [sent, decided], for noise of power `n0` a complex sample.

    `rayleigh`: flat fading of unit power, of which the receiver knows the gain; with a direct path that is `k_factor`
    times as strong as the scattered ones together, Rician. E[exp(-u |h|^2)] = (1+K)/(1+K+u) exp(-K u/(1+K+u)), after
    M. K. Simon and M.-S. Alouini, "Digital Communication over Fading Channels", 2.2.1.

    >>> transitions(np.array([1, -1]), 0.5).round(6).tolist()
    [[0.97725, 0.02275], [0.02275, 0.97725]]

    Raises `ValueError` for noise below 0 or NaN, and for a `k_factor` that is not at least 0 and finite.
    """
    if not 0 <= k_factor < np.inf:
        raise ValueError(f"k_factor must be at least 0 and finite, not {k_factor:g}")
    v = _views(tuple(np.asarray(points, complex).tolist()))
    u = np.abs(v.place) ** 2 / max(checked_noise(n0, infinite=True), LEAST_N0)
    if rayleigh:
        share = 1 / (1 + k_factor + u)
        seen = v.weight * (1 + k_factor) * share * np.exp(-k_factor * u * share)
    else:
        seen = v.weight * np.exp(-u)
    table = -np.bincount(v.sent * v.labels + v.decided, seen, v.labels**2).reshape(v.labels, -1)
    return table + np.eye(v.labels)


def decision_error(points: np.ndarray, n0: float) -> float:
    """Return E|y - x^|^2 for y = x + n and x^ the point next to y.

    N0, were every decision right, and for each edge what lies behind it of |n + x - x^|^2 for the point x^ that it
    bounds. Raises `ValueError` for an `n0` below 0, infinite or NaN.
    """
    from scipy.special import erfc

    v = _views(tuple(np.asarray(points, complex).tolist()))
    far = np.abs(v.place)
    u = far**2 / max(checked_noise(n0), LEAST_N0)
    fallen = np.exp(-u)
    miss = v.points[v.sent] - v.points[v.decided]
    zeroth = np.abs(miss) ** 2 * fallen
    first = (np.conj(miss) * v.place / far).real * (np.sqrt(np.pi * n0) * erfc(np.sqrt(u)) + 2 * far * fallen)
    second = n0 * (1 + u) * fallen
    return n0 - float((v.weight * (zeroth + first + second)).sum()) / v.labels
