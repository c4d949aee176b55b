"""`channel_estimator`: the gain of every symbol and the noise of a frame, found by pilots.

y = h x + n: at a pilot p the gain is y p* (least squares, |p| = 1), between pilots it is interpolated.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from blocks.arrays import array
from blocks.phy import theory
from blocks.phy.pilots import Parts, Pattern, PilotParams, moved, sequence
from flowgraph.block import Block, Packet, Port, Tag
from flowgraph.units import Hertz

STRETCH = 16  # groups of pilots that are looked at together, for the noise and by Wiener's interpolation
UNSEEN = 1e-5  # what fading may add to the noise: -50 dB
WAVES = 64  # by which fading is made up
FOLLOWED = 25  # groups a period of the fastest fading that a straight line between them follows, to -50 dB
LEAST_N0 = 1e-30  # told where no noise is seen at all


def gains_at_pilots(
    symbols: np.ndarray, pattern: Pattern, count: int, first: int = 0, before: complex = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `count` groups of pilots tell of the gain by least squares, one by one and together.

    pilots  y p*, complex64 [count, length]
    gains   mean over a group, complex64 [count], of variance N0 / length, which is the Cramer-Rao bound

    The symbols, complex64, begin with the group number `first`. A group with a symbol that is NaN, infinite or beyond
    1e18 has pilots of NaN, and the gain of the group before, the first one `before`. Raises `ValueError` for symbols
    that end before the last group does.

    >>> pattern = Pattern(spacing=3, length=1)
    >>> gains_at_pilots(2j * pattern.insert(np.zeros(3, np.complex64)), pattern, 2)[1].round(3)
    array([0.+2.j, 0.+2.j], dtype=complex64)
    """
    from blocks.phy import _pilots

    pilots, gains = np.empty((count, pattern.length), np.complex64), np.empty(count + 1, np.complex64)
    gains[0] = before
    symbols = array("symbols", symbols, np.complex64, None)
    reached = (count - 1) * pattern.period + pattern.length if count else 0
    if reached > len(symbols):
        raise ValueError(f"symbols must reach to {reached}, the end of {count} groups of pilots, not {len(symbols)}")
    y, known = symbols.view(np.float32), sequence(pattern.length).view(np.float32)
    _pilots.gains_at_pilots(
        y, pattern.period, known, first, pattern.length, pilots.view(np.float32).ravel(), gains.view(np.float32)
    )
    return pilots, gains[1:]


def correlation(distance: np.ndarray, doppler: float) -> np.ndarray:
    """Return the correlation J0(2 pi f d) of gains d symbols apart, for `doppler` f in periods a symbol (Clarke).

    >>> correlation(np.array([0, 10, 1000]), 0.01).round(3)
    array([1.   , 0.904, 0.071])

    Raises `ValueError` for a `doppler` that is not 0 to 1/2.
    """
    from scipy.special import j0

    return j0(2 * np.pi * _checked(doppler) * distance)


def _checked(doppler: float) -> float:
    if not 0 <= doppler <= 0.5:
        raise ValueError(f"doppler must be 0 to 1/2 period a symbol, not {doppler:g}")
    return doppler


def _places(pattern: Pattern, groups: int, last: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return where groups [groups] and the data behind each [groups, spacing] are, seen from the first group."""
    places = pattern.period * np.arange(groups, dtype=float)
    data = places[:, None] + np.arange(pattern.spacing) + (pattern.length + 1) / 2  # from the middle of a group
    if last is not None:
        places[-1] = last
    return places, data


# Noise


@functools.lru_cache(64)
def fading_basis(pattern: Pattern, groups: int, doppler: float, last: int | None = None) -> np.ndarray:
    """Return an orthonormal basis, float64 [rows, pilots], of what gains do at pilots with Clarke's spectrum.

    Singular vectors of waves with the Doppler shifts `doppler` cos b, as many as it takes to leave at most `UNSEEN` of
    a gain's power to each of the other dimensions. Groups are a period apart, but that the last one begins at `last`,
    if given.

    >>> fading_basis(Pattern(spacing=31, length=1), 16, 0.0).shape, fading_basis(Pattern(31, 1), 16, 0.001).shape
    ((1, 16), (4, 16))

    Raises `ValueError` for a `doppler` that is not 0 to 1/2.
    """
    places, _ = _places(pattern, groups, last)
    each = (places[:, None] + np.arange(pattern.length)).ravel()
    shifts = 2 * np.pi * _checked(doppler) * np.cos(np.pi * (np.arange(WAVES) + 0.5) / WAVES)
    phases = np.outer(each - each.mean(), shifts)
    vectors, size, _ = np.linalg.svd(np.hstack([np.cos(phases), np.sin(phases)]) / WAVES**0.5, full_matrices=False)
    left = np.cumsum((size**2)[::-1])[::-1] / (len(each) - np.arange(len(size)))
    return np.ascontiguousarray(vectors[:, left > UNSEEN].T)


class PilotNoise:
    """Estimates N0 from the pilots of a frame, the same however it is cut.

    N0 = sum of |r|^2 / n, r being what pilots of 16 groups have beyond what fading does (`fading_basis`) with Clarke's
    spectrum and `doppler`, in periods a symbol, and n the dimensions of that. Its variance N0^2 / n is above the
    Cramer-Rao bound N0^2 / pilots (S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", 1993,
    example 3.6), for one pilot a group, by 0.3 dB where gains stay, by 0.9 dB with 100 groups a period of `doppler`, by
    1.6 dB with 25; for more pilots by less.
    """

    def __init__(self, pattern: Pattern, doppler: float):
        self.pattern, self.doppler = pattern, doppler
        self.energy = self.freedom = 0.0

    def add(self, pilots: np.ndarray, last: int | None = None) -> None:
        """Take in groups a period apart, but that the last one begins at `last`, if given.

        They are whole stretches or end a frame: the last of its stretches then reaches back as far as it needs.
        """
        whole = (len(pilots) - (last is not None)) // STRETCH * STRETCH
        self._add(pilots[:whole], fading_basis(self.pattern, STRETCH, self.doppler))
        if len(pilots) > whole:
            tail = pilots[-STRETCH:]
            if last is not None:
                last -= (len(pilots) - len(tail)) * self.pattern.period
            self._add(tail, fading_basis(self.pattern, len(tail), self.doppler, last))

    def _add(self, pilots: np.ndarray, fading: np.ndarray) -> None:
        from blocks.phy import _pilots

        parts = pilots.view(np.float32).ravel()
        self.energy, self.freedom = _pilots.beyond_fading(parts, fading, self.energy, self.freedom)

    @property
    def n0(self) -> float | None:
        """The estimate so far; None where nothing tells it."""
        return max(self.energy / self.freedom, LEAST_N0) if self.freedom else None


# Between the pilots


class Interpolation(NamedTuple):
    """Weights of gains at groups of pilots for the data behind each group, and the error of those in the middle.

    weights  float32 [group that the data are behind, group, data symbol]
    noise    mean of the sum of squared weights: N0 / length times this is in the error
    missed   mean squared error that is there without noise
    """

    weights: np.ndarray
    noise: float
    missed: float


@functools.lru_cache(16)
def linear(pattern: Pattern, groups: int, last: int | None = None) -> Interpolation:
    """Return the straight line between two groups; the gain of the last one, of two or one, for the data behind it.

    Groups are a period apart, but that the last one begins at `last`, if given.

    >>> linear(Pattern(spacing=3, length=1), 2).weights[0].round(2)
    array([[0.75, 0.5 , 0.25],
           [0.25, 0.5 , 0.75]], dtype=float32)
    """
    places, data = _places(pattern, groups, last)
    share = (np.clip(data / places[1], 0, 1) if groups > 1 else np.ones_like(data))[:, None]
    weights = np.concatenate([1 - share, share], axis=1)[:, -groups:]
    return Interpolation(weights.astype(np.float32), _noise(weights), 0.0)


@functools.lru_cache(16)
def wiener(pattern: Pattern, groups: int, doppler: float, n0_db: float, last: int | None = None) -> Interpolation:
    """Return the weights of least mean squared error for gains of unit power with Clarke's spectrum.

    w = (R + N0/length I)^-1 r, R and r being the correlations J0(2 pi f d) of gains d symbols apart, for `doppler` f in
    periods a symbol (J. K. Cavers, "An analysis of pilot symbol assisted modulation for Rayleigh fading channels",
    1991), and N0 at least -90 dB. Groups are a period apart, but that the last one begins at `last`, if given.

    >>> wiener(Pattern(spacing=3, length=1), 2, 0.0, 0.0).weights[0].round(2)
    array([[0.33, 0.33, 0.33],
           [0.33, 0.33, 0.33]], dtype=float32)

    Raises `ValueError` for a `doppler` that is not 0 to 1/2, and an N0 that is NaN.
    """
    places, data = _places(pattern, groups, last)
    between = correlation(places[:, None] - places, doppler)
    to_data = correlation(places[:, None] - data[:, None, :], doppler)
    noise = max(theory.db_to_ratio(n0_db), 1e-9) / pattern.length
    weights = np.linalg.solve(between + noise * np.eye(groups), to_data)
    w, r = weights[_middle(groups)], to_data[_middle(groups)]
    missed = (1 - 2 * (w * r).sum(0) + (w * (between @ w)).sum(0)).mean()
    return Interpolation(weights.astype(np.float32), _noise(weights), float(missed))


def _middle(groups: int) -> int:
    """Return which of some groups has the data in their middle behind it."""
    return max(groups // 2 - 1, 0)


def _noise(weights: np.ndarray) -> float:
    return float((weights[_middle(len(weights))] ** 2).sum(0).mean())


def _behind(packet: Packet, cut: int) -> Packet:
    """Return a packet without its first `cut` symbols."""
    tags = tuple(tag for tag in packet.tags if tag.offset >= packet.offset + cut)
    return Packet(packet.data[cut:], packet.frame, packet.offset + cut, tags=tags, last=packet.last)


class ChannelEstimator(Block):
    """Take out the pilots of `pilot_inserter`, and find by them the gain of every data symbol and the noise.

    Gains are least-squares estimates at the pilots, means over a group, with a straight line between groups, or
    Wiener's interpolation by the 16 groups around: of least mean squared error for Clarke's spectrum with a largest
    Doppler shift, E|h|^2 = 1, and the noise that the first 16 groups of a frame show.

    N0 is found in what the pilots do beyond fading (`PilotNoise`): beyond that of the Doppler shift given, with a
    straight line beyond what takes 25 groups a period or more. Frames end with the tag `estimate`: n0, esn0_db,
    gain_error (mean squared, as expected), effective_n0 (n0 and gain_error, which symbols of unit power meet as noise),
    source. It is missing where the pilots are too few to tell the noise.

    A frame that breaks off has the gains of its last data extrapolated. Where a pilot is NaN or infinite, which is told
    once, the gain of the group before stands in, 0 for the first. A frame without pilots has no data.
    """

    class Params(PilotParams):
        interpolation: Literal["linear", "wiener"] = Field(
            "linear", description="a straight line between two groups, or least mean squared error by 16"
        )
        doppler: Annotated[Hertz, Field(ge=0)] | None = Field(
            None, description="largest Doppler shift to be followed, for interpolation: wiener"
        )
        symbol_rate: Annotated[Hertz, Field(gt=0)] = Field(1e6, description="symbols a second, pilots too")

        @model_validator(mode="after")
        def _fits(self) -> Any:
            if (self.interpolation == "wiener") != (self.doppler is not None):
                raise ValueError("must have doppler with interpolation: wiener, and only then")
            if self.doppler and 4 * self.doppler > self.symbol_rate:
                raise ValueError(
                    f"must have a doppler of at most a quarter of symbol_rate, {self.symbol_rate / 4:g} Hz"
                )
            if self.doppler and 2 * self.doppler * self.pattern.period > self.symbol_rate:
                most = self.symbol_rate / (2 * self.doppler)
                raise ValueError(
                    f"must have groups of pilots at most {most:.0f} symbols apart, half a period of doppler"
                )
            return self

    inputs = (Port("symbols", "complex64", "received, data and pilots"),)
    outputs = (Port("symbols", "complex64", "data, still faded"), Port("gains", "complex64", "h of every data symbol"))

    def start(self) -> None:
        from blocks.phy import _pilots  # noqa: F401  compiles before the graph runs

        p = self.params
        self.pattern: Pattern = p.pattern
        followed = p.symbol_rate / (FOLLOWED * self.pattern.period) if p.doppler is None else p.doppler
        self.doppler: float = followed / p.symbol_rate  # periods a symbol
        self.rest: Packet | None = None  # what came and waits for the groups behind it
        self.frame = -1
        self.strange = False

    def work(self, symbols: Packet) -> Iterator[dict[str, Packet]]:
        if self.rest is not None and (self.rest.frame, self.rest.end) != (symbols.frame, symbols.offset):
            yield from self.flush()
        if symbols.frame != self.frame:
            self.frame, self.noise = symbols.frame, PilotNoise(self.pattern, self.doppler)
            self.shown_db: int | None = None  # N0 by the frame's first stretch
        if self.rest is None:
            self.past = np.empty(0, np.complex64)  # gains of the groups before the rest
            symbols = _behind(symbols, min(-symbols.offset % self.pattern.period, symbols.count))  # a loss ended within
            if not (symbols.count or symbols.last):
                return
            self.rest = symbols
        else:
            data, tags = np.concatenate([self.rest.data, symbols.data]), self.rest.tags + symbols.tags
            self.rest = Packet(data, symbols.frame, self.rest.offset, tags=tags, last=symbols.last)
        if symbols.last:
            yield from self.flush()
            return
        groups = (self.rest.count // (STRETCH * self.pattern.period) - 1) * STRETCH  # with a stretch behind them
        if groups > 0:
            yield self._hand_out(self.rest, Parts(groups * self.pattern.spacing, groups + STRETCH), groups)
            self.rest = _behind(self.rest, groups * self.pattern.period)

    def flush(self) -> Iterator[dict[str, Packet]]:
        """Hand out what is left of a frame, ended or broken off."""
        rest, self.rest = self.rest, None
        if rest is None:
            return
        parts = self.pattern.parts(rest.count, rest.last)
        if parts is None:
            if rest.end:
                self.warn(
                    f"frame {rest.frame} of {rest.end} symbols does not end with pilots: its end was lost, or spacing "
                    "and length are not those of pilot_inserter"
                )
            parts = self.pattern.parts(rest.count, ended=False)
            assert parts is not None
        if parts.data or rest.last:
            yield self._hand_out(rest, parts, parts.groups + (parts.last is not None))

    def _hand_out(self, symbols: Packet, parts: Parts, settled: int) -> dict[str, Packet]:
        """Return data and gains; the first `settled` groups do not come again."""
        pilots, gains = self._at_pilots(symbols, parts)
        if self.shown_db is None:
            self.shown_db = self._shown_db(pilots, parts.last)
        self.noise.add(pilots[:settled], parts.last)
        h, between = self._between(gains, parts)
        self.past = np.concatenate([self.past, gains[:settled]])[-STRETCH:]
        offset = self.pattern.data_before(symbols.offset)
        end = symbols.end if settled == len(gains) else symbols.offset + settled * self.pattern.period
        tags = moved(tuple(tag for tag in symbols.tags if tag.offset < end or symbols.last), self.pattern.data_before)
        if symbols.last and self.noise.n0 is not None:
            tags += (Tag(offset + parts.data, "estimate", self._estimate(self.noise.n0, between)),)
        data = Packet(self.pattern.data(symbols.data, parts.data), symbols.frame, offset, tags=tags, last=symbols.last)
        return {"symbols": data, "gains": replace(data, data=h)}

    def _at_pilots(self, symbols: Packet, parts: Parts) -> tuple[np.ndarray, np.ndarray]:
        first = symbols.offset // self.pattern.period
        before = complex(self.past[-1]) if len(self.past) else 0
        pilots, gains = gains_at_pilots(symbols.data, self.pattern, parts.groups, first, before)
        if parts.last is not None:
            end = symbols.data[parts.last :]
            last = gains_at_pilots(end, self.pattern, 1, first + parts.groups, complex(gains[-1]))
            pilots, gains = np.concatenate([pilots, last[0]]), np.concatenate([gains, last[1]])
        if not self.strange and np.isnan(pilots[:, 0]).any():
            self.strange = True
            self.warn("pilots that are NaN or infinite came in; the gains before them stand in")
        return pilots, gains

    def _shown_db(self, pilots: np.ndarray, last: int | None) -> int:
        """Return the noise of a frame's first stretch in dB, a multiple of 3: what Wiener's interpolation goes by."""
        shown = PilotNoise(self.pattern, self.doppler)
        shown.add(pilots[:STRETCH], last if len(pilots) <= STRETCH else None)
        return 3 * round(min(max(theory.ratio_to_db(shown.n0 or LEAST_N0), -60), 60) / 3)

    def _between(self, gains: np.ndarray, parts: Parts) -> tuple[np.ndarray, Interpolation | None]:
        """Return the gains of all data, and how they were interpolated."""
        from blocks.phy import _pilots

        h = np.empty(parts.data, np.complex64)
        if not parts.data:
            return h, None
        known = np.concatenate([self.past, gains])
        window = min(len(known), STRETCH if self.params.interpolation == "wiener" else 2)
        regular = at_end = self._interpolation(window)
        if parts.last is not None:
            at_end = self._interpolation(window, parts.last - (len(gains) - window) * self.pattern.period)
        _pilots.interpolate(known.view(np.float32), len(self.past), regular.weights, at_end.weights, h.view(np.float32))
        return h, at_end if window == len(known) else regular

    def _interpolation(self, groups: int, last: int | None = None) -> Interpolation:
        if self.params.interpolation == "linear":
            return linear(self.pattern, groups, last)
        assert self.shown_db is not None
        return wiener(self.pattern, groups, self.doppler, self.shown_db, last)

    def _estimate(self, n0: float, between: Interpolation | None) -> dict[str, Any]:
        """Return the tag `estimate` of a frame."""
        error = between.noise * n0 / self.pattern.length + between.missed if between else 0.0
        return {
            "n0": n0,
            "esn0_db": -theory.ratio_to_db(n0),
            "gain_error": error,
            "effective_n0": n0 + error,
            "source": "pilots",
        }
