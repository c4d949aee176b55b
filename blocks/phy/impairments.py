"""`impairments`: what amplifiers, oscillators, mixers and clocks of real radios do to samples."""

from __future__ import annotations

import cmath
import functools
import math
from fractions import Fraction
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from blocks.phy import noise
from flowgraph.block import ERASED, LIVE, Block, Packet, Port, Tag
from flowgraph.block import Params as BlockParams
from flowgraph.units import Decibel, DecibelOfCarrier, Degrees, Hertz, PartsPerMillion, Samples

REACH = 12  # samples to either side that the interpolator weighs
SHAPE = 7.4  # of its Kaiser window
SHARES = 512  # places within a sample at which its taps are worked out; between them they run straight
MARGIN = REACH + 3  # samples to either side that the kernel may touch


class Impairments(Block):
    """Distort samples as radios do, each fault by its parameter; without any, samples pass untouched.

    In the order from transmitter to receiver, for sample n of a frame:

        amplifier   u = x min(1, 10^(clip / 20) / |x|)
        path        v[n] = 10^(gain / 20) u(n / (1 + clock_offset) - delay)
        oscillator  w[n] = v[n] e^(i (2 pi carrier_offset n / sample_rate + phase + theta[n]))
        mixer       y_I = w_I,  y_Q = g (w_Q cos p - w_I sin p), where g = 10^(iq_gain / 20) and p = iq_phase
                    y = y_I + i y_Q + 10^(dc_offset / 20) e^(i dc_phase)

    The receiver's clock runs faster by `clock_offset`. u between samples is interpolated by a windowed sinc of 24
    samples, wrong by less than -68 dB within 80 % of the band; before a frame and after its end u is 0, and frames keep
    their lengths: what is late falls off the end. theta is a Wiener process, theta[0] = 0, whose variance grows by
    2 pi linewidth a second (an oscillator whose line is that wide at half its power). A mixer of gain g and phase p
    adds the image w*, weaker by (1 + 2 g cos p + g^2) / (1 - 2 g cos p + g^2).

    Every frame begins anew, with a phase noise of its own. A sample that is NaN or infinite makes NaN or infinite those
    that are interpolated from it. Lost stretches stay lost; where u is interpolated, they are silence, tagged `erased`.
    Tags keep their places.
    """

    class Params(BlockParams):
        sample_rate: Annotated[Hertz, Field(gt=0)] = Field(1e6, description="samples a second")
        clip: Annotated[Decibel, Field(ge=-300, le=300)] | None = Field(
            None,
            description="largest power of a sample, over the mean power 1 of symbols: the clipping ratio",
            json_schema_extra=LIVE,
        )
        gain: Annotated[Decibel, Field(ge=-300, le=300)] = Field(
            0.0, description="power gain of the path", json_schema_extra=LIVE
        )
        clock_offset: Annotated[PartsPerMillion, Field(ge=-10_000, le=10_000)] = Field(
            0.0, description="by how much the receiver's sampling clock is faster"
        )
        delay: Annotated[Samples, Field(ge=0, le=1 << 20)] = Field(
            0.0, description="by which all is late, whole or not"
        )
        carrier_offset: Hertz = Field(0.0, description="of the carrier from the receiver's", json_schema_extra=LIVE)
        phase: Degrees = Field(0.0, description="of the carrier at a frame's start", json_schema_extra=LIVE)
        linewidth: Annotated[Hertz, Field(ge=0)] = Field(
            0.0, description="width of the oscillator's line at half its power", json_schema_extra=LIVE
        )
        iq_gain: Annotated[Decibel, Field(ge=-60, le=60)] = Field(
            0.0, description="gain of Q over that of I", json_schema_extra=LIVE
        )
        iq_phase: Degrees = Field(0.0, description="by which Q's oscillator misses 90 degrees", json_schema_extra=LIVE)
        dc_offset: Annotated[DecibelOfCarrier, Field(ge=-300, le=300)] | None = Field(
            None,
            description="power that the mixer adds, over the mean power 1 of symbols",
            json_schema_extra=LIVE,
        )
        dc_phase: Degrees = Field(0.0, description="of what it adds: 0 on I, 90 on Q", json_schema_extra=LIVE)

        @model_validator(mode="after")
        def _within_the_band(self) -> Impairments.Params:
            most = self.sample_rate / 2
            if abs(self.carrier_offset) > most or self.linewidth > most:
                raise ValueError(f"must have carrier_offset and linewidth of at most half the sample_rate, {most:g} Hz")
            return self

    inputs = (Port("samples", "complex64", "as they should be"),)
    outputs = (Port("samples", "complex64", "as they come"),)
    ratio = Fraction(1)

    def start(self) -> None:
        from blocks.phy import _impairments

        self.kernels = _impairments
        p = self.params
        self.interpolator = Interpolator(p.clock_offset * 1e-6, p.delay) if p.clock_offset or p.delay else None
        self.oscillator = Oscillator(self.key)

    def work(self, samples: Packet) -> Packet | None:
        if self.params.clip is not None:
            samples = samples.derive(self._clipped(samples.data))
        if self.interpolator is None:
            return self._mixed(samples)
        heard = self.interpolator.push(samples)
        return self._mixed(heard) if heard else None

    def _clipped(self, x: np.ndarray) -> np.ndarray:
        out = np.empty(len(x), np.complex64)
        self.kernels.clip(x.view(np.float32), np.float32(10 ** (self.params.clip / 20)), out.view(np.float32))
        return out

    def _mixed(self, samples: Packet) -> Packet:
        p = self.params
        dc = 0j if p.dc_offset is None else cmath.rect(10 ** (p.dc_offset / 20), math.radians(p.dc_phase))
        if not any((p.gain, p.carrier_offset, p.phase, p.linewidth, p.iq_gain, p.iq_phase, dc)):
            return samples
        step, scatter = p.carrier_offset / p.sample_rate, p.linewidth / p.sample_rate
        phases = self.oscillator.phases(samples.frame, samples.offset, samples.count, step, scatter, p.phase / 360)
        gain, q = 10 ** (p.gain / 20), 10 ** (p.iq_gain / 20) * np.exp(1j * math.radians(p.iq_phase))
        out = np.empty(samples.count, np.complex64)
        x, y = samples.data.view(np.float32), out.view(np.float32)
        self.kernels.mix(x, phases, gain, q.real, -q.imag, dc.real, dc.imag, y)
        return samples.derive(out)


class Oscillator:
    """Phases of an oscillator that is off its frequency and wanders, anew in every frame, in 2^-32 turns.

    They are counted in 2^-64 turns, of which the whole ones drop out: no rounding piles up, and no packet matters.
    """

    def __init__(self, key: int):
        self.key = key
        self.frame, self.reached, self.phase = -1, 0, 0

    def phases(self, frame: int, offset: int, count: int, step: float, scatter: float, start: float) -> np.ndarray:
        """Return the phases of items from `offset` on, uint32: `start` + `step` n + a Wiener process, in turns.

        The process's variance grows by 2 pi `scatter` an item, in square radians.
        """
        if frame != self.frame:
            self.frame, self.reached, self.phase = frame, 0, 0
        for at in range(self.reached, offset, 1 << 20):  # what was lost
            self._advance(at, np.empty(min(1 << 20, offset - at), np.uint32), step, scatter)
        out = np.empty(count, np.uint32)
        self._advance(offset, out, step, scatter)
        self.reached = offset + count
        return out + np.uint32(round(start % 1 * 2**32) % 2**32) if start else out

    def _advance(self, offset: int, out: np.ndarray, step: float, scatter: float) -> None:
        from blocks.phy import _impairments

        turns = np.empty(0, np.complex64)
        if scatter:
            turns = noise.complex_normal(len(out), self.key, self.frame, offset, power=scatter / math.pi)
        word = np.uint64(round(step * 2**64) % 2**64)
        self.phase = _impairments.wander(np.uint64(self.phase), word, turns.view(np.float32), out)


@functools.cache
def pulses() -> np.ndarray:
    """Return the interpolator's taps, float32 [shares, 26]: sinc times Kaiser's window, for -1/2 to 3/2 of a sample.

    Tap k weighs sample k - 12 from the place's whole number on; for whole places all but one are 0.
    """
    share = np.linspace(-0.5, 1.5, 2 * SHARES + 1)[:, None]
    apart = share - np.arange(-REACH, REACH + 2)
    window = np.i0(SHAPE * np.sqrt(np.maximum(1 - (apart / REACH) ** 2, 0))) / np.i0(SHAPE)
    taps = np.where(np.abs(apart) < REACH, np.sinc(apart) * window, 0.0)
    whole = share[:, 0] % 1 == 0
    taps[whole] = np.round(taps[whole])
    return taps.astype(np.float32)


class Interpolator:
    """Takes the samples of a frame anew, at n / (1 + clock offset) - delay, as far as it has come."""

    def __init__(self, clock_offset: float, delay: float):
        self.pace, self.delay = 1 / (1 + clock_offset), delay
        # Over this many items places shift by at most 1/128 of a sample: that taps run straight adds -86 dB
        self.interval = 1 << int(np.clip(np.floor(-np.log2(128 * max(abs(clock_offset), 1e-12))), 0, 12))
        self.pulses = pulses()
        self.tags: list[Tag] = []  # of items that are still to come
        self._begin(-1)

    def _begin(self, frame: int) -> None:
        self.frame, self.made = frame, 0
        self.tags.clear()
        self.first = self._lowest(0)  # place of what is held from there on
        self.held = np.zeros(-self.first, np.complex64)

    def _lowest(self, item: int) -> int:
        """First sample of the frame that an item may be made of."""
        return math.floor(item * self.pace - self.delay) - MARGIN

    def push(self, samples: Packet) -> Packet | None:
        """Return the items that can be told by now, with their tags: all that are left, once a frame is complete."""
        from blocks.phy import _impairments

        if samples.frame != self.frame:
            self._begin(samples.frame)
        reached = self.first + len(self.held)
        lost = samples.offset - reached
        self.tags += [*([Tag(reached, ERASED, lost)] if lost else []), *samples.tags]
        parts = [self.held, np.zeros(lost, np.complex64), samples.data]
        if samples.last:
            stop = samples.end
            parts.append(np.zeros(max(0, self._lowest(stop) + 2 * MARGIN - stop), np.complex64))
        else:
            known = math.floor((samples.end - MARGIN + self.delay) / self.pace) - 1
            stop = max(self.made, min(samples.end, known))
        held = np.concatenate(parts)
        out = np.empty(stop - self.made, np.complex64)
        place = (self.first, self.made, self.pace, self.delay, self.interval)
        _impairments.sample_at(held.view(np.float32), *place, self.pulses, out.view(np.float32))
        tags = self._due_tags(stop, samples.last)
        made = Packet(out, samples.frame, self.made, tags=tags, last=samples.last)
        drop = max(0, self._lowest(stop) - self.first)
        self.held, self.first, self.made = held[drop:].copy(), self.first + drop, stop
        return made if made.count or made.last else None

    def _due_tags(self, stop: int, last: bool) -> tuple[Tag, ...]:
        """Take out the tags of items before `stop`; a stretch that is missing is told in two parts if it goes on."""
        due, later = [], []
        for tag in self.tags:
            if tag.offset >= stop and not last:
                later.append(tag)
                continue
            over = tag.offset + tag.value - stop if tag.key == ERASED else 0
            if over > 0:
                tag = Tag(tag.offset, ERASED, tag.value - over)
                later.append(Tag(stop, ERASED, over))
            due.append(tag)
        self.tags = later
        return tuple(due)
