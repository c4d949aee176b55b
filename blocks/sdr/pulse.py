"""Root-raised-cosine pulses: symbols to samples, and the matched filter, as pure functions."""

from __future__ import annotations

import functools

import numpy as np

SPAN = 10  # symbols that a pulse reaches to either side


@functools.cache
def root_raised_cosine(samples_per_symbol: int, rolloff: float) -> np.ndarray:
    """Return the pulse p(t), float64 [2 SPAN samples_per_symbol + 1], t in symbols, of unit energy.

    p(t) ~ (sin(pi t (1 - b)) + 4 b t cos(pi t (1 + b))) / (pi t (1 - (4 b t)^2)) for a `rolloff` b of above 0 (J. G.
    Proakis, "Digital Communications", 4th edition, 9.2); behind a filter like it symbols do not interfere, but for what
    was cut off behind `SPAN` symbols.

    >>> pulse = root_raised_cosine(2, 0.25)
    >>> len(pulse), round(float(pulse @ pulse), 12)
    (41, 1.0)
    """
    b, t = rolloff, np.arange(-SPAN * samples_per_symbol, SPAN * samples_per_symbol + 1) / samples_per_symbol
    with np.errstate(divide="ignore", invalid="ignore"):
        pulse = (np.sin(np.pi * t * (1 - b)) + 4 * b * t * np.cos(np.pi * t * (1 + b))) / (
            np.pi * t * (1 - (4 * b * t) ** 2)
        )
    pulse[t == 0] = 1 + b * (4 / np.pi - 1)
    corner = np.pi / (4 * b)
    pulse[np.isclose(np.abs(t), 1 / (4 * b))] = (
        b / 2**0.5 * ((1 + 2 / np.pi) * np.sin(corner) + (1 - 2 / np.pi) * np.cos(corner))
    )
    pulse /= np.sqrt(pulse @ pulse)
    pulse.flags.writeable = False
    return pulse


def shape(symbols: np.ndarray, samples_per_symbol: int, rolloff: float) -> np.ndarray:
    """Return complex64 symbols as samples, the sum of a_k p(n / samples_per_symbol - SPAN - k).

    The first symbol's pulse is highest at sample SPAN samples_per_symbol, the last one's as far from the end. A symbol
    has the energy |a_k|^2, so that white noise of power N0 a sample is N0 a symbol behind a matched filter.
    """
    pulse = np.zeros((2 * SPAN + 1) * samples_per_symbol, np.float32)
    pulse[: 2 * SPAN * samples_per_symbol + 1] = root_raised_cosine(samples_per_symbol, rolloff)
    padded = np.pad(symbols, 2 * SPAN)
    out = np.empty((len(symbols) + 2 * SPAN, samples_per_symbol), np.complex64)
    for phase in range(samples_per_symbol):
        out[:, phase] = filtered(padded, pulse[phase::samples_per_symbol][::-1])
    return out.ravel()[: (len(symbols) - 1 + 2 * SPAN) * samples_per_symbol + 1]


def filtered(x: np.ndarray, taps: np.ndarray, spacing: int = 1) -> np.ndarray:
    """Return y[n] = sum over j of taps[j] x[n + j spacing], for all n that x reaches far enough for.

    `taps` and x are float32, or x is complex64. Every y is made alike, to the last bit, wherever in an array it is.
    """
    from blocks.sdr import _waveform

    per_item = x.itemsize // 4
    out = np.empty(max(len(x) - (len(taps) - 1) * spacing, 0), x.dtype)
    used = np.ascontiguousarray(taps, np.float32)
    _waveform.correlate(x.view(np.float32), used, spacing * per_item, out.view(np.float32))
    return out
