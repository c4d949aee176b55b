"""What views show of a signal, as arrays: densities, decision boundaries, spectra."""

from __future__ import annotations

import numpy as np

from blocks.phy import regions
from blocks.phy.constellation import Constellation

QUIET_DB = -120.0  # what no power at all is shown as


def density(symbols: np.ndarray, reach: float, bins: int) -> np.ndarray:
    """Return how many complex symbols fall into each of `bins` x `bins` squares within +-`reach`: float64, [Q, I]."""
    edges = np.linspace(-reach, reach, bins + 1)
    return np.histogram2d(symbols.imag, symbols.real, bins=[edges, edges])[0]


def reach_of(symbols: np.ndarray) -> float:
    """Return half the width of a square about 0 that shows nearly all finite complex symbols; at least 2."""
    parts = np.maximum(np.abs(symbols.real), np.abs(symbols.imag))
    return max(2.0, 1.2 * float(np.quantile(parts, 0.95))) if len(symbols) else 2.0


def boundaries(known: Constellation) -> np.ndarray:
    """Return the line segments between decision regions, complex128 [segments, 2]; outer ones go very far.

    >>> from blocks.phy.constellation import constellation
    >>> len(boundaries(constellation("bpsk")))
    1
    """
    if known.axis:
        steps = np.sort(known.axis)
        middles, far = (steps[:-1] + steps[1:]) / 2, regions.FAR
        upright = np.stack([middles - 1j * far, middles + 1j * far], axis=1)
        return np.concatenate([upright, 1j * upright])
    segments = []
    for label in range(len(known.points)):
        corners = regions.polygon(known.points, label)
        for a, b in zip(np.roll(corners, 1), corners, strict=True):
            inner = max(abs(middle := (a + b) / 2).real, abs(middle.imag)) < 0.99 * regions.FAR
            if inner and (a.real, a.imag) < (b.real, b.imag):  # each is seen from both sides
                segments.append((a, b))
    return np.array(segments)


def spectrogram(samples: np.ndarray, bins: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Return frequencies in cycles a sample, float64 [bins], and power densities over time, float64 [times, bins].

    Hann windows of `bins` samples, each half over the one before (P. D. Welch, 1967); scaled so that white samples of
    unit power have a density of 1 throughout. Fewer samples than `bins` are filled up with zeros.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(bins) + 0.5) / bins)
    if len(samples) < bins:
        samples = np.pad(samples, (0, bins - len(samples)))
    pieces = np.lib.stride_tricks.sliding_window_view(samples, bins)[:: bins // 2]
    power = np.abs(np.fft.fft(pieces * window, axis=1)) ** 2 / (window @ window)
    return np.fft.fftshift(np.fft.fftfreq(bins)), np.fft.fftshift(power, axes=1)


def decibel(power: np.ndarray) -> np.ndarray:
    """Return 10 log10 of powers, not below -120."""
    return 10 * np.log10(np.maximum(power, 10 ** (QUIET_DB / 10)))
