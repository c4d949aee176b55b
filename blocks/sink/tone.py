"""`tone_meter`: what became of a tone: level, frequency, noise, DC and I/Q image."""

from __future__ import annotations

import time
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from blocks.arrays import array
from blocks.phy import theory
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import Hertz

REPORT_EVERY_S = 0.25
STEPS = 3  # of the frequency estimator: the second is as good as any, but for what DC and image had moved
NOISE_ALONE = 16.0  # peak of a periodogram over its mean, less ln(N): noise reaches it once in 10^7 windows
FEWEST = 64  # samples of a window
NEAREST = 4  # periods of a window that tone, image and DC must be apart, to be told from each other


class Tone(NamedTuple):
    """A tone in noise: x[n] = a e^(2 pi i f n) + b e^(-2 pi i f n) + c + w[n], E|w|^2 = N0.

    frequency  f, in periods a sample, -1/2 to 1/2
    power      |a|^2
    noise      N0: all that is neither tone nor image nor DC
    image      |b|^2, the tone's mirror image by unequal I and Q; None where the tone is too near to 0 or to 1/2
    dc         |c|^2; None likewise
    found      whether noise alone would reach its peak in no more than one of 10^7 windows; one at 0 is taken for DC
    """

    frequency: float
    power: float
    noise: float
    image: float | None
    dc: float | None
    found: bool


def find_tone(samples: np.ndarray) -> Tone:
    """Return the strongest tone of samples, complex64 or complex128 [N], N >= 64.

    The peak of the periodogram, then interpolated between S(f - 1/2N) and S(f + 1/2N), with image and DC, fitted by
    least squares, taken out: variance 1.015 of the Cramer-Rao bound 6 N0 / ((2 pi)^2 |a|^2 N (N^2 - 1)) (Aboutanios and
    Mulgrew, 2005; Rife and Boorstyn, 1974). Raises `ValueError` for fewer samples.

    >>> tone = find_tone(0.5 * np.exp(2j * np.pi * 0.1 * np.arange(1000)) + 0.01)
    >>> round(tone.frequency, 9), round(tone.power, 6), round(tone.dc, 6)
    (0.1, 0.25, 0.0001)
    """
    x = array("samples", samples, np.complex128, None)
    count = len(x)
    if count < FEWEST:
        raise ValueError(f"samples must be at least {FEWEST}, not {count}")
    periodogram = np.abs(np.fft.fft(x - x.mean())) ** 2
    peak, mean = int(periodogram.argmax()), float(periodogram.mean())
    f = peak / count
    half = 0.5 / count
    for _ in range(STEPS):
        others, gains = _fit(x, f)
        below, above = (
            _mean(x, at) - sum(g * _kernel(o - at, count) for o, g in zip(others[1:], gains[1:], strict=True))
            for at in (f - half, f + half)
        )
        if above != below:
            f += half * float(((above + below) / (above - below)).real)
    others, gains = _fit(x, f)
    explained = sum((g.conjugate() * _mean(x, o)).real for o, g in zip(others, gains, strict=True))
    power = float(np.vdot(x, x).real) / count
    noise = max(power - explained, 0.0) * count / (count - len(gains))
    squares = [max(abs(gain) ** 2 - noise / count, 0.0) for gain in gains]
    image, dc = squares[1:] if len(squares) > 1 else (None, None)
    found = bool(periodogram[peak] > mean * (np.log(count) + NOISE_ALONE))
    return Tone((f + 0.5) % 1 - 0.5, squares[0], noise, image, dc, found)


def _mean(x: np.ndarray, f: float) -> complex:
    """Return the mean of x[n] e^(-2 pi i f n), whose phases are made of those of rows and those within one."""
    rows, row = divmod(len(x), 64)
    within = np.exp(-2j * np.pi * f * np.arange(64))
    sums = x[: 64 * rows].reshape(rows, 64) @ within
    total = np.exp(-2j * np.pi * f * 64 * np.arange(rows)) @ sums
    if row:
        total += np.exp(-2j * np.pi * f * 64 * rows) * (x[64 * rows :] @ within[:row])
    return complex(total) / len(x)


def _kernel(f: float, count: int) -> complex:
    """Return the mean of e^(2 pi i f n) over n = 0 to count - 1."""
    f = (f + 0.5) % 1 - 0.5
    if abs(f) * count < 1e-6:
        return 1.0 + 0j
    return complex(np.exp(1j * np.pi * f * (count - 1)) * np.sin(np.pi * f * count) / (count * np.sin(np.pi * f)))


def _fit(x: np.ndarray, f: float) -> tuple[list[float], list[complex]]:
    """Return frequencies of tone, image and DC, the tone's alone where they are too near, and their gains."""
    apart = abs((2 * f + 0.5) % 1 - 0.5) * len(x)
    at = [f, -f, 0.0] if apart >= NEAREST else [f]
    gram = np.array([[_kernel(b - a, len(x)) for b in at] for a in at])
    return at, np.linalg.solve(gram, np.array([_mean(x, each) for each in at])).tolist()


class ToneMeter(Block):
    """Measure a tone, such as `tone_source` sends over a radio.

    Window by window; the report's `link` has means over those in which there is a tone, `windows` and
    `windows_without_tone`:

    level_dbfs, dc_dbfs  power of tone and DC, over that of a tone of amplitude 1: full scale, as radios give it
    image_dbc            power of the tone's mirror image, over the tone's
    frequency_hz         of the tone, and `frequency_offset_hz`, by which it is above `frequency`; `frequency_spread_hz`
                         is the standard deviation from window to window
    tone_snr_db          power of the tone over all that is neither image nor DC, in the whole band

    DC and image are null where the tone is within 2 periods a window of 0 or of half the sample rate.
    """

    class Params(BlockParams):
        frequency: Hertz = Field(0.0, description="of the tone that was sent")
        sample_rate: Annotated[Hertz, Field(gt=0)] | None = Field(
            None, description="by default what the tag `sample_rate` tells"
        )
        window: int = Field(1 << 16, ge=FEWEST, le=1 << 22, description="samples of a measurement")

    inputs = (Port("samples", "complex64", "from the radio"),)

    def start(self) -> None:
        self.sample_rate = self.params.sample_rate
        self.parts: list[np.ndarray] = []  # of a window that is not complete
        self.held = self.windows = self.found = 0
        self.reference = 0.0  # the first tone's frequency: what is summed up are the others' differences from it
        self.sums: dict[str, float] = {}
        self.strange = False
        self.reported = time.monotonic()

    def work(self, samples: Packet) -> None:
        rate = samples.tag("sample_rate")
        if self.params.sample_rate is None and isinstance(rate, float | int) and rate > 0:
            self.sample_rate = rate
        self.parts.append(samples.data)
        self.held += samples.count
        size = self.params.window
        if self.held < size:
            return
        held = np.concatenate(self.parts)
        whole = len(held) // size * size
        for at in range(0, whole, size):
            self._measure(held[at : at + size])
        self.parts, self.held = [held[whole:].copy()], len(held) - whole
        if time.monotonic() - self.reported > REPORT_EVERY_S:
            self.reported = time.monotonic()
            self.report("link", **self._figures())

    def flush(self) -> None:
        """Measure what there is of a stream that is shorter than a window."""
        if not self.windows and self.held >= FEWEST:
            self._measure(np.concatenate(self.parts))

    def stop(self) -> None:
        if self.windows:
            self.report("link", **self._figures())
        if not self.found and (self.windows or self.held):
            self.warn(f"no tone was found in {self.windows} windows of up to {self.params.window} samples")

    def _measure(self, window: np.ndarray) -> None:
        self.windows += 1
        if not np.isfinite(window).all():
            if not self.strange:
                self.strange = True
                self.warn("samples that are NaN or infinite came in; no tone is looked for in such windows")
            return
        tone = find_tone(window)
        if not tone.found:
            return
        if not self.found:
            self.reference = tone.frequency
        self.found += 1
        beyond = (tone.frequency - self.reference + 0.5) % 1 - 0.5
        figures = {"power": tone.power, "noise": tone.noise, "beyond": beyond, "beyond_squared": beyond**2}
        if tone.image is not None and tone.dc is not None:
            figures |= {"apart": 1.0, "image": tone.image, "dc": tone.dc, "imaged": tone.power}
        for name, value in figures.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def _figures(self) -> dict[str, Any]:
        told: dict[str, Any] = {"windows": self.windows, "windows_without_tone": self.windows - self.found}
        if not self.found:
            return told
        sums, count = self.sums, self.found
        told["level_dbfs"] = theory.ratio_to_db(sums["power"] / count)
        told["tone_snr_db"] = theory.ratio_to_db(sums["power"] / sums["noise"]) if sums["noise"] else None
        told["image_dbc"] = told["dc_dbfs"] = None
        if "apart" in sums:
            told["image_dbc"] = theory.ratio_to_db(sums["image"] / sums["imaged"])
            told["dc_dbfs"] = theory.ratio_to_db(sums["dc"] / sums["apart"])
        if self.sample_rate is not None:
            mean = sums["beyond"] / count
            frequency = ((self.reference + mean + 0.5) % 1 - 0.5) * self.sample_rate
            told["frequency_hz"] = frequency
            told["frequency_offset_hz"] = frequency - self.params.frequency
            told["frequency_spread_hz"] = max(sums["beyond_squared"] / count - mean**2, 0.0) ** 0.5 * self.sample_rate
        return told
