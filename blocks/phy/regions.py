"""What minimum-distance decisions do with any constellation over white Gaussian noise, exactly.

A point's decision region is a polygon, within which no other point is nearer. Seen from a sent point, a plane integral
over the region becomes a sum over its edges, in the angle under which each is seen (J. Craig, "A new, simple and exact
result for calculating the probability of error for two-dimensional signal constellations", 1991).
"""

from __future__ import annotations

import functools

import numpy as np

FAR = 1e5  # where regions without an end are cut off; the mean power of the points is 1
NODES = 64  # of Gauss and Legendre, on each side of an edge's nearest point


def polygon(points: np.ndarray, label: int) -> np.ndarray:
    """Return the corners of a point's region, complex128, counterclockwise."""
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
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    return (nodes + 1) / 2, weights / 2


class _Views:
    """All edges of all regions as seen from all points: places on them, and the angle that each stands for.

    place   offset of a place from the point that it is seen from, complex128 [n]
    weight  signed angle over 2 pi, float64 [n]
    sent    label of the point that it is seen from, int64 [n]; decided: label whose region it bounds
    """

    def __init__(self, points: np.ndarray) -> None:
        nodes, weights = _quadrature()
        place, weight, sent, decided = [], [], [], []
        for j in range(len(points)):
            corners = polygon(points, j)
            for s, point in enumerate(points):
                a, b = np.roll(corners, 1) - point, corners - point
                a, b = a[a != b], b[a != b]
                along = (b - a) / np.abs(b - a)
                foot = a - (a * np.conj(along)).real * along  # of the perpendicular on the edge's line
                distance = np.abs(foot)
                side = np.sign((np.conj(a) * b).imag)  # positive where the edge runs counterclockwise around the point
                seen = distance > 1e-12 * FAR
                a, b, foot, along, distance, side = (x[seen] for x in (a, b, foot, along, distance, side))
                first = np.arctan2((a * np.conj(along)).real, distance)
                last = np.arctan2((b * np.conj(along)).real, distance)
                nearest = np.clip(0.0, first, last)
                for begin, end in ((first, nearest), (nearest, last)):
                    angle = begin[:, None] + (end - begin)[:, None] * nodes
                    place.append((foot[:, None] + along[:, None] * distance[:, None] * np.tan(angle)).ravel())
                    weight.append((side[:, None] * (end - begin)[:, None] * weights / (2 * np.pi)).ravel())
                    sent.append(np.full(angle.size, s))
                    decided.append(np.full(angle.size, j))
        self.points, self.labels = points, len(points)
        self.place, self.weight = np.concatenate(place), np.concatenate(weight)
        self.sent, self.decided = np.concatenate(sent), np.concatenate(decided)


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
    """
    v = _views(tuple(np.asarray(points, complex).tolist()))
    u = np.abs(v.place) ** 2 / n0
    if rayleigh:
        share = 1 / (1 + k_factor + u)
        seen = v.weight * (1 + k_factor) * share * np.exp(-k_factor * u * share)
    else:
        seen = v.weight * np.exp(-u)
    table = -np.bincount(v.sent * v.labels + v.decided, seen, v.labels**2).reshape(v.labels, -1)
    return table + np.eye(v.labels)


def decision_error(points: np.ndarray, n0: float) -> float:
    """Return E|y - x^|^2 for y = x + n and x^ the point next to y."""
    from scipy.special import erf

    v = _views(tuple(np.asarray(points, complex).tolist()))
    far = np.abs(v.place)
    u = far**2 / n0
    fallen = np.exp(-u)
    direction = v.place / far
    miss = v.points[v.sent] - v.points[v.decided]
    zeroth = 1 - fallen
    first = np.sqrt(np.pi * n0) / 2 * erf(np.sqrt(u)) - far * fallen
    second = n0 * (1 - (1 + u) * fallen)
    inner = np.abs(miss) ** 2 * zeroth + 2 * (np.conj(miss) * direction).real * first + second
    return float((v.weight * inner).sum()) / v.labels
