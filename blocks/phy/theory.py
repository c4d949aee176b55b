"""Closed forms that measurements are held against: error rates, decision errors, confidence intervals.

Es/N0 and Eb/N0 are in dB, infinite ones too; N0 is the noise power of a complex sample; symbols have unit power. What
is NaN, and an N0 or a ratio below 0, is refused by a `ValueError`.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Literal

import numpy as np

from blocks.phy import regions
from blocks.phy.constellation import AnyModulation, Constellation, constellation


def db_to_ratio(decibel: float) -> float:
    """Return 10^(dB/10)."""
    if math.isnan(decibel):
        raise ValueError("a ratio in dB must be a number, not NaN")
    return 10 ** (decibel / 10) if decibel < 3080 else math.inf  # a float ends there


def ratio_to_db(ratio: float) -> float:
    """Return 10 log10(ratio); minus infinity for 0."""
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def gaussian_tail(x: float) -> float:
    """Return Q(x), the probability that a standard normal variable exceeds x."""
    return 0.5 * math.erfc(x / math.sqrt(2))


def rayleigh_tail(x: float) -> float:
    """Return E[Q(|h| x)] for complex Gaussian h of unit power: (1 - mu) / 2, mu = x / sqrt(2 + x^2).

    M. K. Simon and M.-S. Alouini, "Digital Communication over Fading Channels", 5.1.
    """
    if math.isinf(x):
        return 0.0 if x > 0 else 1.0
    if x < 0:
        return 1 - rayleigh_tail(-x)
    return 1 / ((2 + x * x) * (1 + x / math.sqrt(2 + x * x)))


def _cells(axis: tuple[float, ...]) -> list[tuple[int, float, float, float]]:
    """Return (label, amplitude, lower and upper decision threshold) of an axis, in order of amplitude."""
    order = sorted(range(len(axis)), key=lambda label: axis[label])
    middles = [(axis[a] + axis[b]) / 2 for a, b in itertools.pairwise(order)]
    edges = [-math.inf, *middles, math.inf]
    return [(label, axis[label], edges[i], edges[i + 1]) for i, label in enumerate(order)]


def bit_error_rate(
    esn0_db: float, modulation: AnyModulation = "16qam", rayleigh: bool = False, k_factor: float = 0.0
) -> float:
    """Return the exact bit error rate of minimum-distance decisions.

    The mean over sent points, decided points and bits of P(decided | sent) times differing bits; for Gray 16QAM that
    is 3/8 erfc(x) + 1/4 erfc(3x) - 1/8 erfc(5x), x = sqrt(0.4 Eb/N0) (K. Cho and D. Yoon, 2002).
    `rayleigh`: flat fading with the gain known to the receiver, Rician where there is a `k_factor` (a ratio).

    >>> round(bit_error_rate(16.02), 6), round(bit_error_rate(16.02, rayleigh=True), 5)
    (0.001755, 0.04238)
    """
    return _bit_error_rate(esn0_db, constellation(modulation), rayleigh, k_factor)


@functools.lru_cache(1024)  # meters ask for every frame, of a channel that seldom changes
def _bit_error_rate(esn0_db: float, known: Constellation, rayleigh: bool, k_factor: float) -> float:
    axis, tail = known.axis, rayleigh_tail if rayleigh else gaussian_tail
    if not axis or k_factor:
        labels = np.arange(len(known.points))
        differ = np.bitwise_count(labels[:, None] ^ labels)
        table = regions.transitions(known.points, db_to_ratio(-esn0_db), rayleigh, k_factor)
        return float((table * differ).sum() / (len(labels) * known.bits_per_symbol))
    root = max(math.sqrt(2 * db_to_ratio(esn0_db)), 1e-150)  # that infinity times it is infinity
    total = 0.0
    for sent, x, _, _ in _cells(axis):
        for decided, level, low, high in _cells(axis):
            if level > x:
                probability = tail((low - x) * root) - tail((high - x) * root)
            else:
                probability = tail((x - high) * root) - tail((x - low) * root)
            total += (sent ^ decided).bit_count() * probability
    return total / (len(axis) * (len(axis).bit_length() - 1))


def estimated_gain_error_rate(correlation: float, modulation: Literal["bpsk", "qpsk"] = "qpsk") -> float:
    """Return the bit error rate over Rayleigh fading of decisions by y h'*, h' being an estimate of the gain h.

    (1 - mu) / 2 for BPSK, (1 - mu / sqrt(2 - mu^2)) / 2 for QPSK, where the `correlation` mu of y and h' is
    E[h h'*] / sqrt((1 + N0) E|h'|^2) (J. G. Proakis, "Digital Communications", 4th edition, appendix C).

    >>> round(estimated_gain_error_rate((1 + 0.1) ** -0.5) - bit_error_rate(10, "qpsk", rayleigh=True), 9)
    0.0
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation must be 0 to 1, not {correlation:g}")
    mu = correlation if modulation == "bpsk" else correlation / math.sqrt(2 - correlation**2)
    return (1 - mu) / 2


def symbol_error_rate(
    esn0_db: float, modulation: AnyModulation = "16qam", rayleigh: bool = False, k_factor: float = 0.0
) -> float:
    """Return the exact symbol error rate: for a square QAM of L x L points 2p - p^2, p = 2 (1 - 1/L) Q(sqrt(2 d^2/N0)).

    Under Rayleigh fading E[Q^2] = (1 - mu (4/pi) arctan(1/mu)) / 4 (Simon and Alouini, 5.1).

    >>> round(symbol_error_rate(16.02), 6), round(symbol_error_rate(16.02, rayleigh=True), 5)
    (0.007009, 0.13465)
    """
    return _symbol_error_rate(esn0_db, constellation(modulation), rayleigh, k_factor)


@functools.lru_cache(1024)
def _symbol_error_rate(esn0_db: float, known: Constellation, rayleigh: bool, k_factor: float) -> float:
    if not known.axis or k_factor:
        table = regions.transitions(known.points, db_to_ratio(-esn0_db), rayleigh, k_factor)
        return float(table[~np.eye(len(table), dtype=bool)].sum() / len(table))
    weight = 2 * (1 - 1 / len(known.axis))
    x = known.half_step * math.sqrt(2 * db_to_ratio(esn0_db))
    if not rayleigh:
        p = weight * gaussian_tail(x)
        return p * (2 - p)
    mu = 1 / math.sqrt(1 + 2 / x**2) if x else 0.0
    square = (1 - mu * 4 / math.pi * math.atan2(1, mu)) / 4
    return 2 * weight * rayleigh_tail(x) - weight**2 * square


def paper_bit_error_rate(ebn0_db: float) -> float:
    """Return the bit error rate that the paper's own program takes for 16QAM.

    Pb = Ps/4, Ps = 1 - (1 - Pm)^2, Pm = 3/4 erfc(sqrt(0.4 Eb/N0)): the exact symbol error rate, one wrong bit to each
    wrong symbol.
    """
    pm = 0.75 * math.erfc(math.sqrt(0.4 * db_to_ratio(ebn0_db)))
    return pm * (2 - pm) / 4


def decision_error(n0: float, modulation: AnyModulation = "16qam") -> float:
    """Return E|y - x^|^2 for y = x + n and x^ the point next to y: what a receiver sees of noise of power `n0`.

    The sum over sent and decided amplitudes of second moments of truncated Gaussians. It is near `n0` for little noise
    and falls below it as wrong points come to lie nearer than the sent ones; it always rises with `n0`.
    """
    known = constellation(modulation)
    if not known.axis:
        return regions.decision_error(known.points, n0)
    if regions.checked_noise(n0) == 0:
        return 0.0
    axis, sigma = known.axis, math.sqrt(n0 / 2)

    def density(u: float) -> float:
        return math.exp(-u * u / 2) / math.sqrt(2 * math.pi)

    def moment(u: float) -> float:  # of the density times u, 0 at infinity
        return 0.0 if math.isinf(u) else u * density(u)

    total = 0.0
    for _, x, _, _ in _cells(axis):
        for _, level, low, high in _cells(axis):
            u, v, miss = (low - x) / sigma, (high - x) / sigma, x - level
            inside = gaussian_tail(u) - gaussian_tail(v)
            total += miss * miss * inside + 2 * miss * sigma * (density(u) - density(v))
            total += sigma * sigma * (inside + moment(u) - moment(v))
    return 2 * total / len(axis)


def binomial_interval(errors: float, trials: float, confidence: float = 0.99) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of an error probability.

    >>> [round(bound, 4) for bound in binomial_interval(0, 1000)]
    [0.0, 0.0053]
    """
    from scipy.special import betaincinv

    if not 0 <= errors <= trials:
        raise ValueError(f"errors must be 0 to {trials:g}, the number of trials, not {errors:g}")
    rest = (1 - confidence) / 2
    low = float(betaincinv(errors, trials - errors + 1, rest)) if errors else 0.0
    high = float(betaincinv(errors + 1, trials - errors, 1 - rest)) if errors < trials else 1.0
    return low, high


def clustered_interval(
    clusters: float,
    errors: float,
    trials: float,
    errors2: float,
    errors_trials: float,
    trials2: float,
    confidence: float = 0.99,
) -> tuple[float, float] | None:
    """Return an interval for an error rate whose errors come in independent clusters, such as fades.

    With e errors in n trials of a cluster: errors and trials are the sums of e and n, errors2, errors_trials and
    trials2 those of e^2, e n and n^2. It is the binomial interval for as many trials as would have the ratio
    estimator's variance (W. G. Cochran, "Sampling Techniques", 6.4; E. Korn and B. Graubard, "Confidence intervals for
    proportions with small expected number of positive counts", 1998), approximate where few clusters have errors;
    where no error was seen, the upper bound on the probability that a cluster has one, and where nothing but errors
    was, the lower bound on the probability that a cluster has no other. Where clusters are all alike, trials count as
    independent. A bound under 1e-12 is 0, for few clusters cannot tell. None for fewer than two.
    """
    from scipy.special import betaincinv, ndtri, stdtrit

    if clusters < 2 or not trials:
        return None
    alone = binomial_interval(0, clusters, confidence)[1]  # of clusters none of which was seen
    if not errors:
        return 0.0, alone
    if errors == trials:
        return 1 - alone, 1.0
    rate, upper = errors / trials, (1 + confidence) / 2
    squares = errors2 - 2 * rate * errors_trials + rate * rate * trials2
    variance = max(squares, 0.0) * clusters / (clusters - 1) / trials**2
    independent = rate * (1 - rate) / variance if variance else trials
    effective = independent * float(ndtri(upper) / stdtrit(clusters - 1, upper)) ** 2
    right, wrong = (1 - rate) * effective, rate * effective
    low = float(betaincinv(wrong, right + 1, 1 - upper))
    return low if low > 1e-12 else 0.0, float(betaincinv(wrong + 1, right, upper))
