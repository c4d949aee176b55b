"""The receiver of bursts: finds them in continuous samples, and hands out their symbols.

`docs/waveform.md` explains its chain. Behind the matched filter there are two samples a symbol, y. Everything is a
function of the places of samples in the stream, and not of the packets that they come in.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from blocks.phy import theory
from blocks.phy.constellation import constellation
from blocks.phy.qam import llr
from blocks.sdr import pulse
from blocks.sdr.burst import BARKER, KNOWN, PILOTS, PREAMBLE, SIGNS, Header, header_symbols, read_header

THRESHOLD = 0.22  # of the metric, which is 1 for a preamble without noise
EQUALIZER = 27  # taps, half a symbol apart
FEEDBACK = 3  # symbols before, whose interference is taken off
REACH = 5  # samples to either side that the interpolator weighs
PHASES = 64  # places within a sample at which the equaliser is worked out
RIDGE = 1e-4  # power that the equaliser takes for noise on top of what there is
MARGIN = EQUALIZER // 2 + REACH + 8  # samples around a burst that are looked at: 4 symbols of drift
WINDOW = 2 * len(PREAMBLE)
SEARCHED = 4096  # samples that a preamble is looked for in at a time
REFERENCE = 8  # samples to either side of a correlation's peak that tell where it is

# Of the error that a block of 33 symbols shows, these shares go into phase, carrier, place and clock
PHASE_LOOP, TIMING_LOOP = (0.3, 0.3**2 / 4), (0.1, 0.1**2 / 4)


@dataclass(frozen=True, slots=True)
class Burst:
    """A burst that was found.

    place           where its first symbol is, in samples of the stream
    header          what it tells of itself
    symbols         data, equalised and corrected, complex64; None where the stream ended before
    carrier_offset  periods a symbol, by preamble and header
    clock_offset    by how much the receiver's clock is faster, at the end of the burst
    gain            amplitude of the channel, symbols being 1
    phase           of the carrier at the first symbol, radians
    n0              noise and what else the equaliser leaves over, by preamble and header; symbols being 1
    """

    place: float
    header: Header
    symbols: np.ndarray | None
    carrier_offset: float
    clock_offset: float
    gain: float
    phase: float
    n0: float


# Detection


def metric(y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return P, complex64, and how much of the energy it holds, at every sample that a preamble may begin at.

    c(n) correlates with Barker's code, P(n) = sum over k of d_k c(n + 26 k) c*(n + 26 (k - 1)), d being the changes of
    the signs: an offset of f periods a symbol turns P by 2 pi 13 f and does no harm (Z. Y. Choi and Y. H. Lee,
    "Frame synchronization in the presence of frequency offset", 2002). |P| / (13 x 7/8 sum of |y|^2) is at most 1.
    """
    period, ones = 2 * len(BARKER), np.ones(len(BARKER), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # samples too large to be squared hold no preamble
        c = pulse.filtered(y, BARKER, 2)
        p = pulse.filtered(c[period:] * np.conj(c[:-period]), SIGNS[1:] * SIGNS[:-1], period)
        energy = pulse.filtered(pulse.filtered(y.real**2 + y.imag**2, ones, 2), np.ones(len(SIGNS)), period)
        most = np.float32(len(BARKER) * 7 / 8) * energy[: len(p)]
        return p, np.abs(p) / np.maximum(most, np.float32(1e-30))


# Acquisition


class Training(NamedTuple):
    """An equaliser, and how well it does.

    taps      weights of the samples around a symbol, complex128 [EQUALIZER]
    feedback  what symbols before leave over, complex128 [FEEDBACK] or, without decision feedback, [0]
    error     mean squared error
    symbols   known symbols behind it
    """

    taps: np.ndarray
    feedback: np.ndarray
    error: float
    symbols: np.ndarray


def _around(y: np.ndarray, first: int, count: int) -> np.ndarray:
    """Return the EQUALIZER samples around every one of `count` symbols from sample `first` on, complex128."""
    half = EQUALIZER // 2
    near, step = y[first - half : first + half + 2 * count - 1], y.strides[0]
    return np.lib.stride_tricks.as_strided(near, (count, EQUALIZER), (2 * step, step)).copy()


def train(y: np.ndarray, first: int, known: np.ndarray, feedback: int = 0) -> Training:
    """Return the equaliser of least squares for `known` symbols, two samples apart from sample `first` of y on.

    w = (X^H X + r I)^-1 X^H a; the error is ||a - X w||^2 over as many symbols as w leaves free. With `feedback` X has,
    beside samples, so many symbols before each one; before the known ones there is silence.
    """
    a = known.astype(np.complex128)
    x = np.zeros((len(a), EQUALIZER + feedback), np.complex128)
    x[:, :EQUALIZER] = _around(y, first, len(a))
    for lag in range(1, feedback + 1):
        x[lag:, -lag] = a[:-lag]
    correlation = x.conj().T @ x
    ridge = np.full(EQUALIZER + feedback, RIDGE * len(a))
    ridge[:EQUALIZER] = RIDGE * np.trace(correlation[:EQUALIZER]).real / EQUALIZER + 1e-30
    inverse = np.linalg.inv(correlation + np.diag(ridge))
    taps = inverse @ (x.conj().T @ a)
    symbols = x @ taps
    free = len(a) - (inverse * correlation.T).sum().real
    error = float((np.abs(a - symbols) ** 2).sum() / free)
    return Training(taps[:EQUALIZER], -taps[EQUALIZER:], error, symbols)


def frequency(z: np.ndarray, spacing: int = 1) -> float:
    """Return the f, periods a symbol, of greatest |sum of z_k e^(-2 pi i f k)| next to 0, z being `spacing` apart.

    Newton's steps on the square: the maximum-likelihood estimate for a tone in white noise.
    """
    k = np.arange(len(z)) - (len(z) - 1) / 2
    w = 0.0
    for _ in range(4):
        turned = z * np.exp(-1j * w * k)
        s, s1, s2 = turned.sum(), (turned * -1j * k).sum(), -(turned * k * k).sum()
        slope, bend = 2 * (s.conjugate() * s1).real, 2 * (abs(s1) ** 2 + (s.conjugate() * s2).real)
        w -= slope / bend if bend < 0 else 0.0
    return float(w / (2 * np.pi * spacing))


@functools.cache
def _fractions(count: int, reach: int, taps: int) -> np.ndarray:
    """Return interpolators, float64 [count, 2 taps + 1], for places evenly over `reach` samples to either side.

    Sinc pulses under Kaiser's window; tap j weighs sample j - taps.
    """
    place = ((np.arange(count) + 0.5) / count * 2 - 1) * reach
    apart = place[:, None] - np.arange(-taps, taps + 1)
    window = np.i0(5 * np.sqrt(np.maximum(1 - (apart / (taps + reach)) ** 2, 0))) / np.i0(5)
    return np.sinc(apart) * window


def peak(y: np.ndarray, first: int, known: np.ndarray) -> tuple[float, complex]:
    """Return where within a sample of `first` known symbols correlate most, and their mean gain there.

    C(t) = sum over k of a_k* y(2 k + t), whose greatest magnitude is the maximum-likelihood estimate of the delay of a
    flat channel; between samples it is interpolated, at its peak by a parabola.
    """
    a = known.conj().astype(np.complex128)
    near = y[first - REFERENCE : first + REFERENCE + 2 * len(a)].astype(np.complex128)
    c = np.array([a @ near[lag : lag + 2 * len(a) : 2] for lag in range(2 * REFERENCE + 1)])
    count = 96
    between = _fractions(count, 1, REFERENCE) @ c
    size = np.abs(between)
    top = int(np.clip(size.argmax(), 1, count - 2))
    left, here, right = size[top - 1 : top + 2]
    bend = left - 2 * here + right
    shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
    place = (top + 0.5 + shift) / count * 2 - 1
    highest = here - 0.25 * (left - right) * shift
    return float(place), complex(between[top] / max(here, 1e-30) * highest / len(a))


class Acquired(NamedTuple):
    """What preamble and header tell of a burst."""

    header: Header
    carrier_offset: float
    equalizer: Training
    late: float
    gain: complex


def acquire(y: np.ndarray, first: int, p: complex) -> Acquired | None:
    """Read the header of a burst whose preamble begins at sample `first` of y, with the metric's P there, or None."""
    barker = 2 * len(BARKER)
    f = float(np.angle(p)) / (2 * np.pi * len(BARKER))
    near = slice(first - MARGIN, first + 2 * KNOWN + MARGIN)
    z = y[near].astype(np.complex128)
    n = np.arange(len(z)) - MARGIN
    z *= np.exp(-1j * np.pi * f * n)
    c = z[MARGIN : MARGIN + WINDOW : 2].reshape(len(SIGNS), -1) @ BARKER.astype(np.complex128)
    more = frequency(c * SIGNS, barker // 2)
    z *= np.exp(-1j * np.pi * more * n)
    f += more
    training = train(z, MARGIN, PREAMBLE)
    unbiased = max(1 - training.error, 1e-3)
    came = _around(z, MARGIN + WINDOW, KNOWN - len(PREAMBLE)) @ training.taps / unbiased
    header = read_header(llr(came.astype(np.complex64), training.error / unbiased, "qpsk", int8=True))
    if header is None:
        return None
    known = np.concatenate([PREAMBLE, header_symbols(header)])
    more = frequency(np.concatenate([training.symbols, came]) * known.conj())
    z *= np.exp(-1j * np.pi * more * n)
    equalizer = train(z, MARGIN, known, FEEDBACK)
    late, gain = peak(z, MARGIN, known)
    return Acquired(header, f + more, equalizer, late, gain)


# The body


@functools.lru_cache(32)
def expected_symbols(modulation: str, n0_db: int) -> np.ndarray:
    """Return E[x | y] for noise of a power in dB, float32 [I, Q, 2], over the square that `_waveform.REACH` tells.

    As a stand-in for what was sent it is right on average, at any noise: E[E[x | y] y*] = E[x y*], which decisions fail
    where they are often wrong.
    """
    from blocks.sdr._waveform import REACH

    cells, points = 128, constellation(modulation).points
    axis = ((np.arange(cells) + 0.5) / cells * 2 - 1) * REACH
    i, q = -((axis[:, None] - points.real) ** 2), -((axis[:, None] - points.imag) ** 2)
    out = np.empty((cells, cells, 2), np.float32)
    for row in range(cells):
        exponent = (i[row] + q) / theory.db_to_ratio(n0_db)
        weight = np.exp(exponent - exponent.max(1, keepdims=True))
        weight /= weight.sum(1, keepdims=True)
        out[row] = np.stack([weight @ points.real, weight @ points.imag], axis=1)
    return out


@functools.cache
def _timing_slope(rolloff: float) -> float:
    """Slope per sample of E[a*_(k-1) x_k - a*_k x_(k-1)] by the delay of raised-cosine pulses: q'(1), half a symbol."""
    if abs(rolloff - 0.5) < 1e-6:
        rolloff += 1e-5
    return -math.cos(math.pi * rolloff) / (1 - 4 * rolloff**2)


@functools.cache
def _pilots(count: int) -> np.ndarray:
    """Return the pilots of a body of so many data symbols, 0 where the data are."""
    known = PILOTS.insert(np.zeros(count, np.complex64))
    known.flags.writeable = False
    return known


def follow(y: np.ndarray, first: int, found: Acquired, rolloff: float) -> tuple[np.ndarray, float]:
    """Return the data of a burst's body, and the clock's drift at its end, samples a symbol.

    Between blocks that begin with a pilot, second-order loops follow the carrier's phase and the clock; the timing
    error is that of K. H. Mueller and M. Mueller, "Timing recovery in digital synchronous data receivers", 1976.
    """
    from blocks.sdr import _waveform

    f, half = found.carrier_offset, EQUALIZER // 2
    equalizer = found.equalizer
    unbiased = max(1 - equalizer.error, 1e-3)
    taps = equalizer.taps / unbiased * np.exp(-1j * np.pi * f * (np.arange(EQUALIZER) - half))
    between = _fractions(PHASES, 0.5, REACH)
    bank = np.zeros((PHASES, EQUALIZER + 2 * REACH), np.complex128)
    for at in range(2 * REACH + 1):
        bank[:, at : at + EQUALIZER] += between[:, at, None] * taps
    n0_db = round(min(max(theory.ratio_to_db(equalizer.error / unbiased), -40), 10))
    feedback = (equalizer.feedback / unbiased).astype(np.complex64)
    past = header_symbols(found.header)[-FEEDBACK:]
    pilots = _pilots(found.header.data_symbols)
    out = np.empty(len(pilots), np.complex64)
    drift = _waveform.track(
        y.view(np.float32),
        float(first + 2 * KNOWN),
        2 * np.pi * f * KNOWN,
        2 * np.pi * f,
        bank.astype(np.complex64).view(np.float32),
        feedback.view(np.float32).reshape(-1, 2),
        past.view(np.float32).reshape(-1, 2),
        pilots.view(np.float32),
        expected_symbols(found.header.modulation, n0_db),
        PILOTS.period,
        np.array([*PHASE_LOOP, *TIMING_LOOP, _timing_slope(rolloff)]),
        out.view(np.float32),
    )
    return PILOTS.data(out, found.header.data_symbols), drift


# The stream


class Receiver:
    """Finds bursts in samples that come piece by piece, and holds no more of them than a burst takes.

    `headers_failed` counts what looked like a preamble and had no header that could be read.
    """

    def __init__(self, samples_per_symbol: int, rolloff: float):
        self.every, self.rolloff = samples_per_symbol // 2, rolloff
        self.taps = pulse.root_raised_cosine(samples_per_symbol, rolloff).astype(np.float32)
        self.headers_failed = 0
        self.begin()

    def begin(self) -> None:
        """Begin a stream."""
        self.raw: list[np.ndarray] = [np.zeros(len(self.taps) // 2, np.complex64)]  # not filtered yet
        self.y, self.first = np.zeros(MARGIN, np.complex64), -MARGIN  # filtered, from which place on
        self.place = 0  # from which place on bursts are looked for
        self.needed = WINDOW + 256  # place up to which samples must have come for anything to happen
        self.came = 0  # samples
        self.last: float = math.inf  # place that the stream ends at, once it has ended
        self.found: tuple[int, complex] | None = None  # a preamble, and the metric's P there
        self.acquired: Acquired | None = None

    def push(self, samples: np.ndarray) -> Iterator[Burst]:
        """Take in samples, complex64, and hand out the bursts that are complete."""
        self.raw.append(samples)
        self.came += len(samples)
        if self.came // self.every - SPARE >= self.needed:
            self._filter()
            yield from self._bursts()

    def end(self) -> Iterator[Burst]:
        """Hand out what is left at the end of a stream."""
        self.last, self.needed = self.came // self.every, 0
        yield from self.push(np.zeros((2 * KNOWN + 2 * WINDOW + 2 * MARGIN + SPARE) * self.every, np.complex64))
        self.begin()

    def _filter(self) -> None:
        """Pass what came through the matched filter."""
        x = np.concatenate(self.raw)
        made = pulse.filtered(x, self.taps)[:: self.every]
        self.raw = [x[len(made) * self.every :].copy()]
        keep = min(self.place, self.found[0] if self.found else self.place) - MARGIN - self.first
        self.y = np.concatenate([self.y[max(keep, 0) :], made])
        self.first += max(keep, 0)

    def _bursts(self) -> Iterator[Burst]:
        while True:
            end = self.first + len(self.y)
            if self.found is None and not self._search(end):
                return
            assert self.found is not None
            place, p = self.found
            if not self._have(place + 2 * KNOWN + MARGIN, end):
                return
            if self.acquired is None:
                self.acquired = acquire(self.y, place - self.first, p)
            if self.acquired is None:
                self.headers_failed += 1
                self.found, self.place = None, place + len(BARKER)
                continue
            stop = place + 2 * self.acquired.header.symbols
            data, drift = None, 0.0
            if stop - 2 <= self.last:
                if not self._have(stop + MARGIN, end):
                    return
                data, drift = follow(self.y, place - self.first, self.acquired, self.rolloff)
            yield self._burst(place, self.acquired, data, drift)
            self.found = self.acquired = None
            self.place = stop

    def _have(self, needed: int, end: int) -> bool:
        self.needed = needed
        return end >= needed

    def _search(self, end: int) -> bool:
        """Look for the preamble next to `place`; False where more must come before one can be told."""
        looked = end - 2 * WINDOW  # places with as many behind them as a peak may be away
        if looked <= self.place:
            return self._have(self.place + 2 * WINDOW + 256, end) and False
        looked = min(looked, self.place + SEARCHED)
        y = self.y[self.place - self.first :][: SEARCHED + 2 * WINDOW]
        p, share = metric(y)
        above = np.flatnonzero(share[: looked - self.place] > THRESHOLD)
        if not len(above):
            self.place = looked
            return self._search(end)
        candidates = np.abs(p[above[0] : above[0] + WINDOW])
        best = int(above[0] + candidates.argmax())
        self.found = self.place + best, complex(p[best])
        return True

    def _burst(self, place: int, found: Acquired, data: np.ndarray | None, drift: float) -> Burst:
        error = found.equalizer.error
        return Burst(
            place=(place + found.late) * self.every,
            header=found.header,
            symbols=data,
            carrier_offset=found.carrier_offset,
            clock_offset=drift / 2,
            gain=abs(found.gain),
            phase=float(np.angle(found.gain)),
            n0=error / max(1 - error, 1e-3),
        )


SPARE = 2 * pulse.SPAN
