"""`ofdm_modulator` and `ofdm_demodulator`: symbols side by side on subcarriers, each of which sees a flat channel.

With a cyclic prefix at least as long as the channel's memory, Y_k = H_k X_k + W_k on every subcarrier k, where H is the
Fourier transform of the impulse response (S. B. Weinstein and P. M. Ebert, 1971; A. Peled and A. Ruiz, 1980).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
from pydantic import Field, model_validator

from blocks.arrays import array
from flowgraph.block import Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams


def modulate(symbols: np.ndarray, fft_size: int, cyclic_prefix: int) -> np.ndarray:
    """Return the samples of OFDM symbols, complex64 [n, cyclic_prefix + fft_size], for complex64 [n, subcarriers].

    x[n] = sum of X_k e^(2 pi i k n / N) / sqrt(N), where the first k is -floor(M/2) for M subcarriers: as in 3GPP TS
    38.211, clause 5.3.1, but unitary. A prefix is the end of x. Raises `ValueError` for more than N subcarriers or
    samples of a prefix.
    """
    symbols = array("symbols", symbols, np.complex64, None, None)
    _at_most(fft_size, cyclic_prefix=cyclic_prefix, subcarriers=symbols.shape[1])
    spectrum = np.zeros((len(symbols), fft_size), np.complex64)
    spectrum[:, _bins(symbols.shape[1], fft_size)] = symbols
    with np.errstate(over="ignore", invalid="ignore"):  # symbols that are huge or infinite
        body = np.fft.ifft(spectrum, norm="ortho")
    return np.concatenate([body[:, fft_size - cyclic_prefix :], body], axis=1)


def demodulate(samples: np.ndarray, subcarriers: int, fft_size: int) -> np.ndarray:
    """Return Y_k, complex64 [n, subcarriers], of complex64 [n, cyclic prefix + fft_size]: `modulate` undone.

    Raises `ValueError` for fewer samples, and for more than `fft_size` subcarriers.
    """
    samples = array("samples", samples, np.complex64, None, None)
    _at_most(fft_size, subcarriers=subcarriers)
    _at_most(samples.shape[1], fft_size=fft_size)
    body = np.ascontiguousarray(samples[:, samples.shape[1] - fft_size :])
    with np.errstate(over="ignore", invalid="ignore"):  # samples that are huge or infinite
        return np.fft.fft(body, norm="ortho")[:, _bins(subcarriers, fft_size)]


def frequency_response(taps: np.ndarray, subcarriers: int, fft_size: int) -> np.ndarray:
    """Return H_k = sum of h_l e^(-2 pi i k l / N), complex64 [n, subcarriers], of complex64 [n, at most N taps].

    Raises `ValueError` for more than N taps or subcarriers.
    """
    taps = array("taps", taps, np.complex64, None, None)
    _at_most(fft_size, subcarriers=subcarriers, taps=taps.shape[1])
    return np.fft.fft(taps, fft_size)[:, _bins(subcarriers, fft_size)]


def _at_most(samples: int, **counts: int) -> None:
    for name, count in counts.items():
        if not 0 <= count <= samples:
            raise ValueError(f"{name} must be at most {samples}, the samples of an OFDM symbol, not {count}")


def _bins(subcarriers: int, fft_size: int) -> np.ndarray:
    return (np.arange(subcarriers) - subcarriers // 2) % fft_size


class _OfdmParams(BlockParams):
    fft_size: int = Field(2048, ge=2, le=1 << 16, description="samples of an OFDM symbol without its prefix")
    cyclic_prefix: int = Field(144, ge=0, description="samples of its end that go before it")
    subcarriers: int = Field(1200, ge=1, description="subcarriers that carry symbols, around the middle")

    @model_validator(mode="after")
    def _extent(self) -> _OfdmParams:
        for name in ("cyclic_prefix", "subcarriers"):
            if getattr(self, name) > self.fft_size:
                raise ValueError(f"must have {name} of at most fft_size, {self.fft_size}")
        return self

    @property
    def samples(self) -> int:
        """Samples of an OFDM symbol with its prefix."""
        return self.fft_size + self.cyclic_prefix


class OfdmModulator(Block):
    """Put symbols on subcarriers, and a cyclic prefix before every OFDM symbol.

    Subcarriers have the symbols' energy, so that N0 a sample is N0 a symbol again. The prefix costs energy too: the tag
    `link_rate`, by which a channel with `ebn0` counts, is lowered by the share that it takes. Subcarriers that a
    frame's last OFDM symbol leaves empty are counted by the tag `empty_subcarriers` at the frame's end.
    """

    Params = _OfdmParams
    inputs = (Port("symbols", "complex64", "Es = 1", align=lambda p: p.subcarriers),)
    outputs = (Port("samples", "complex64", "OFDM symbols with their prefixes"),)
    ratio = staticmethod(lambda p: Fraction(p.samples, p.subcarriers))

    def work(self, symbols: Packet) -> Packet:
        p = self.params
        grid = np.zeros((-(-symbols.count // p.subcarriers), p.subcarriers), np.complex64)
        grid.ravel()[: symbols.count] = symbols.data
        samples = modulate(grid, p.fft_size, p.cyclic_prefix).ravel()
        out = symbols.derive(samples, Fraction(p.samples, p.subcarriers))
        tags = out.tags
        if symbols.offset == 0:
            rate = symbols.tag("link_rate", 1.0) * p.fft_size / p.samples
            tags = (*(tag for tag in tags if tag.key != "link_rate"), Tag(0, "link_rate", rate))
        if empty := grid.size - symbols.count:
            tags += (Tag(out.end, "empty_subcarriers", empty),)
        return replace(out, tags=tags)


class OfdmDemodulator(Block):
    """Drop the cyclic prefixes and take the symbols from the subcarriers, undoing `ofdm_modulator`.

    With `taps`, the impulse responses of a simulated channel, H_k at the middle of every OFDM symbol goes out at
    `gains`, for `equalizer` and `qam_demapper`: what a receiver does that knows the channel. A response that is longer
    than the prefix, or that changes within a symbol, leaves interference that no gain undoes.
    """

    Params = _OfdmParams
    inputs = (
        Port("samples", "complex64", "OFDM symbols with their prefixes", align=lambda p: p.samples),
        Port("taps", "complex64", "impulse responses of the channel", shape=(None,), optional=True),
    )
    outputs = (
        Port("symbols", "complex64", "Y of every subcarrier"),
        Port("gains", "complex64", "H of every subcarrier; only where taps come in"),
    )
    ratio = staticmethod(lambda p: Fraction(p.subcarriers, p.samples))

    def work(self, samples: Packet | None, taps: Packet | None = None) -> dict[str, Packet] | None:
        if samples is None:
            return None
        p = self.params
        grid = np.zeros((-(-samples.count // p.samples), p.samples), np.complex64)
        grid.ravel()[: samples.count] = samples.data  # of a symbol cut short, what came
        made = {"symbols": self._packet(samples, demodulate(grid, p.subcarriers, p.fft_size))}
        if taps is not None:
            h = frequency_response(self._at_middles(taps, len(grid)), p.subcarriers, p.fft_size)
            made["gains"] = self._packet(samples, h)
        return made

    def _packet(self, samples: Packet, grid: np.ndarray) -> Packet:
        data = grid.ravel()
        if samples.last:
            data = data[: data.size - samples.tag("empty_subcarriers", 0)]
        out = samples.derive(data, Fraction(self.params.subcarriers, self.params.samples))
        return replace(out, tags=tuple(tag for tag in out.tags if tag.key != "empty_subcarriers"))

    def _at_middles(self, taps: Packet, symbols: int) -> np.ndarray:
        """Return the impulse response at the middle of every OFDM symbol, complex64 [symbols, taps]."""
        p, h = self.params, taps.data
        if h.shape[1] > p.fft_size:
            raise BlockError(f"the channel's response has {h.shape[1]} taps: fft_size must be at least as many")
        if h.shape[1] > p.cyclic_prefix + 1:
            self.warn(
                f"the channel's response has {h.shape[1]} taps, of which a cyclic prefix of {p.cyclic_prefix} samples "
                f"covers {p.cyclic_prefix + 1}: OFDM symbols interfere"
            )
        knots, into = np.divmod(
            np.arange(symbols) * p.samples + p.cyclic_prefix + p.fft_size // 2, taps.tag("interval")
        )
        t = (into / taps.tag("interval")).astype(np.float32)[:, None]
        return h[knots] * (1 - t) + h[knots + 1] * t
