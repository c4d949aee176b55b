"""`tdl_channel`: fading over many paths with delays, by the tapped delay lines of 3GPP TR 38.901, clause 7.7.2."""

from __future__ import annotations

import csv
import functools
import math
from importlib import resources
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field, model_validator

from blocks.arrays import array
from blocks.phy import noise, theory
from blocks.phy.channel import MEASURED, _NoisyChannel, _SnrParams
from flowgraph.block import Packet, Port, Tag
from flowgraph.block import Params as BlockParams
from flowgraph.units import Hertz, Seconds

REACH = 6  # samples that a path's pulse extends to either side, and by which all paths are late
MOST_TAPS = 4096
LOS_DOPPLER = 0.7  # of the largest shift: that of the line of sight
STEADY = 64  # knots a period of the Doppler frequency at least; between them taps run straight, to -58 dB
LONGEST = 1 << 16  # samples between knots, where nothing moves
KNOTS = 256  # intervals between knots that are worked out at once


ProfileName = Literal["A", "B", "C", "D", "E"]


class Profile(NamedTuple):
    """Paths of a tapped delay line.

    delays         of the scattered paths, float64 [paths], over the rms delay spread
    powers         their mean powers, float64 [paths]
    line_of_sight  power of the path without delay that does not fade; all powers add up to 1
    """

    delays: np.ndarray
    powers: np.ndarray
    line_of_sight: float


@functools.cache
def profile(name: str) -> Profile:
    """Return TDL-A, -B, -C, -D or -E, tables 7.7.2-1 to 7.7.2-5.

    >>> round(10 * math.log10(profile("D").line_of_sight / profile("D").powers[0]), 1)  # K, in dB
    13.3

    Raises `ValueError` for another name.
    """
    if name not in get_args(ProfileName):
        raise ValueError(f"profile must be {', '.join(get_args(ProfileName))}, not {name}")
    text = (resources.files("blocks.phy") / "tdl_profiles.csv").read_text(encoding="ascii")
    rows = [row for row in csv.DictReader(text.splitlines()) if row["profile"] == name]
    powers = np.array([theory.db_to_ratio(float(row["power_db"])) for row in rows])
    powers /= powers.sum()
    scattered = np.array([row["fading"] == "rayleigh" for row in rows])
    delays = np.array([float(row["delay"]) for row in rows])
    return Profile(delays[scattered], powers[scattered], float(powers[~scattered].sum()))


@functools.cache
def pulses(name: str, delay_spread: float) -> np.ndarray:
    """Return what each path adds to every tap, float64 [taps, paths]: g[l, p] = c sqrt(P_p) sinc(l - 6 - d_p).

    Delays d are in samples, as is the `delay_spread` that they are multiples of. The line of sight is the last path,
    if there is one. c, at most 1.02, makes the sum of all g^2 = E[sum |h_l|^2] equal to 1. Raises `ValueError` for a
    delay spread below 0, infinite or NaN.
    """
    line = profile(name)
    if not 0 <= delay_spread < math.inf:
        raise ValueError(f"delay_spread must be at least 0 and finite, not {delay_spread:g}")
    delays, powers = line.delays * delay_spread, line.powers
    if line.line_of_sight:
        delays, powers = np.append(delays, 0.0), np.append(powers, line.line_of_sight)
    taps = np.arange(2 * REACH + 1 + math.ceil(delays.max()))[:, None]
    g = np.sqrt(powers) * np.sinc(taps - REACH - delays)
    return g / np.sqrt((g**2).sum())


def knot_interval(doppler: float) -> int:
    """Return the samples between knots, a power of two, for a largest `doppler` shift in periods a sample.

    >>> knot_interval(0.0001), knot_interval(0)
    (128, 65536)

    Raises `ValueError` for one that is not 0 to 1/2.
    """
    if not 0 <= doppler <= 0.5:
        raise ValueError(f"doppler must be 0 to 1/2 period a sample, not {doppler:g}")
    return 1 << int(np.clip(np.floor(-np.log2(max(doppler, 1e-12) * STEADY)), 0, math.log2(LONGEST)))


def impulse_responses(
    name: str, delay_spread: float, doppler: float, key: int, frame: int, first: int, last: int
) -> np.ndarray:
    """Return the taps h at a frame's knots `first` to `last`, complex64 [knots, taps].

    Knot k lies at sample k `knot_interval(doppler)`. `delay_spread` is in samples, `doppler` in periods a sample.

    >>> impulse_responses("A", 3.0, 0.001, key=1, frame=0, first=0, last=4).shape
    (5, 42)

    Raises `ValueError` as the functions above do.
    """
    parts = []
    for stretch in range(first // KNOTS, last // KNOTS + 1):
        begin = stretch * KNOTS
        rows = _stretch(name, delay_spread, doppler, key, frame, stretch)
        parts.append(rows[max(first - begin, 0) : last + 1 - begin])
    return np.concatenate(parts)


@functools.lru_cache(8)
def _stretch(name: str, delay_spread: float, doppler: float, key: int, frame: int, stretch: int) -> np.ndarray:
    """Taps at `KNOTS` knots, complex64."""
    line, first, per_knot = profile(name), stretch * KNOTS, doppler * knot_interval(doppler)
    gains = [noise.doppler_gains(KNOTS, per_knot, key, frame, first, path) for path in range(len(line.powers))]
    if line.line_of_sight:
        phase = noise.random_bytes(4, key, frame, 4 * noise.SCATTERERS * len(line.powers)).view("<u4")[0] / 2.0**32
        turns = LOS_DOPPLER * per_knot * np.arange(first, first + KNOTS) + phase
        gains.append(np.exp(2j * np.pi * turns).astype(np.complex64))
    g = pulses(name, delay_spread).T.astype(np.float32)
    h = np.zeros((KNOTS, g.shape[1]), np.complex64)
    for gain, pulse in zip(gains, g, strict=True):  # not a matrix product, which rounds as the machine's cores have it
        h.real += np.outer(gain.real, pulse)
        h.imag += np.outer(gain.imag, pulse)
    return h


def convolve(items: np.ndarray, taps: np.ndarray, interval: int, offset: int = 0) -> np.ndarray:
    """Return y[n] = sum over l of h_l(n) x[n - l], complex64, for all n that x reaches back far enough for.

    x: complex64 [taps - 1 + n]. `taps` h: complex64 [knots, taps], a row every `interval` items, a power of two, and
    running straight between; y[0] lies `offset` items after the first row.

    >>> convolve(np.array([0, 1, 2, 3]), np.array([[1, 0.5], [1, 0.5]]), 4)
    array([1. +0.j, 2.5+0.j, 4. +0.j], dtype=complex64)

    Raises `ValueError` where x or h is short.
    """
    from blocks.phy import _tdl

    items, taps = array("items", items, np.complex64, None), array("taps", taps, np.complex64, None, None)
    knots, length = taps.shape
    count = len(items) - length + 1
    if count < 0:
        raise ValueError(f"items must be at least {length - 1}, one less than there are taps, not {len(items)}")
    if count and not 0 <= offset <= (knots - 1) * interval - count:
        raise ValueError(f"taps must have a row up to item {offset + count}, not {knots} rows {interval} items apart")
    out = np.empty(count, np.complex64)
    rows = taps.view(np.float32)
    _tdl.convolve(rows, interval, offset, items.view(np.float32), out.view(np.float32))
    return out


class _TdlParams(_SnrParams):
    profile: ProfileName = Field(
        "A", description="TDL-A to TDL-C without a line of sight, TDL-D and TDL-E with one, K = 13.3 and 22 dB"
    )
    delay_spread: Annotated[Seconds, Field(ge=0)] = Field(
        100e-9, description="rms delay spread: 10 ns is very short, 30 short, 100 nominal, 300 long, 1000 very long"
    )
    doppler: Annotated[Hertz, Field(ge=0)] = Field(
        0.0, description="largest Doppler shift, speed / wavelength; 0: nothing moves within a frame"
    )
    sample_rate: Annotated[Hertz, Field(gt=0)] = Field(30.72e6, description="samples a second")

    @model_validator(mode="after")
    def _extent(self) -> _TdlParams:
        if self.doppler > self.sample_rate / 2:
            raise ValueError(f"must have a doppler of at most half the sample rate, {self.sample_rate / 2:g} Hz")
        longest = MOST_TAPS / profile(self.profile).delays.max() / self.sample_rate
        if self.delay_spread > longest:
            raise ValueError(f"must have a delay_spread of at most {longest:.3g} s at this sample rate")
        return self


class TdlChannel(_NoisyChannel):
    """Fade over the paths of a tapped delay line and add white Gaussian noise: y[n] = sum_l h_l[n] x[n - l] + w[n].

    h_l[n] = sum over paths p of sqrt(P_p) a_p[n] sinc(l - 6 - tau_p fs): delays tau_p, the table's times
    `delay_spread`, fall between samples, and sinc pulses cut off 6 samples to either side bring them onto the grid. So
    all is 6 samples late, and the longest path 6 + tau fs. E[sum |h_l|^2] = 1, E|w|^2 = N0.

    Path gains a_p are complex Gaussian with Clarke's spectrum, E[a(t + s) a*(t)] = J0(2 pi f s), and independent; a
    line of sight keeps its power and turns at 0.7 f from a phase drawn for the frame. Every frame is a channel of its
    own, before it there is silence, and what would come after its end is cut off, so that frames keep their lengths. A
    lost stretch counts as silence, and a sample that is NaN spoils those that it reaches.

    What receivers that know the channel need goes out at `taps`: h at samples 0, S, 2S and so on, up to the first one
    past the frame's end; the tag `interval` is S, and between its rows h runs straight. The closed forms that meters
    show are those of a flat channel, such as a subcarrier of OFDM sees.
    """

    Params: ClassVar[type[BlockParams]] = _TdlParams
    inputs = (Port("samples", "complex64", "Es = 1", align=lambda p: 1 if p.snr is None else MEASURED),)
    outputs = (
        Port("samples", "complex64", "faded, with noise"),
        Port("taps", "complex64", "impulse responses", shape=(None,)),
    )
    ratio: ClassVar[Any] = None

    def start(self) -> None:
        super().start()
        p = self.params
        self.line = (p.profile, p.delay_spread * p.sample_rate, p.doppler / p.sample_rate, self.key)
        self.interval = knot_interval(p.doppler / p.sample_rate)
        self.taps = len(pulses(*self.line[:2]))
        self.frame, self.reached, self.handed_out = -1, 0, 0
        self.past = np.zeros(self.taps - 1, np.complex64)
        convolve(self.past, np.zeros((1, self.taps), np.complex64), 1)  # compiles before the graph runs

    def work(self, samples: Packet) -> dict[str, Packet]:
        n0, tags = self._look(samples, **self._fades())
        if samples.frame != self.frame:
            self.frame, self.reached, self.handed_out = samples.frame, 0, 0
            self.past = np.zeros(self.taps - 1, np.complex64)
        lost = np.zeros(min(samples.offset - self.reached, self.taps), np.complex64)
        heard = np.concatenate([self.past, lost, samples.data])
        self.past, self.reached = heard[len(heard) - self.taps + 1 :], samples.end
        first, last = samples.offset // self.interval, (samples.end - 1) // self.interval + 1
        h = impulse_responses(*self.line, samples.frame, first, last)
        x = heard[len(heard) - samples.count - self.taps + 1 :]
        y = convolve(x, h, self.interval, samples.offset - first * self.interval)
        made = {"samples": samples.derive(noise.awgn(y, n0, self.key, samples.frame, samples.offset), **tags)}
        if last >= self.handed_out or samples.last:
            made["taps"] = self._taps(samples, max(last + 1, self.handed_out))
        return made

    def _taps(self, samples: Packet, end: int) -> Packet:
        """What the output `taps` has not had yet, up to knot `end`."""
        first, self.handed_out = self.handed_out, end
        rows = np.empty((0, self.taps), np.complex64)
        if first < end:
            rows = impulse_responses(*self.line, samples.frame, first, end - 1)
        tags = () if first else (Tag(0, "interval", self.interval),)
        return Packet(rows, samples.frame, first, tags=tags, last=samples.last)

    def _fades(self) -> dict[str, Any]:
        """What the tag `true_channel` tells of the fading."""
        line_of_sight = profile(self.params.profile).line_of_sight
        fades = {"kind": "rayleigh", "fading": "doppler", "block_symbols": None, "profile": self.params.profile}
        if line_of_sight:
            fades |= {"kind": "rician", "k_factor": theory.ratio_to_db(line_of_sight / (1 - line_of_sight))}
        return fades
