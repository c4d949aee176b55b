"""Simulated channels: AWGN, flat Rayleigh and Rician fading, bit flips, erasures; and `equalizer`, which undoes fading.

Physics and receiver are blocks of their own: what estimates gains over a real channel feeds the same equaliser that
here is fed the true ones.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.phy import noise, theory
from flowgraph.block import LIVE, Block, BlockError, Output, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import BitCount, Decibel, Hertz


def _live_instead_of(*others: str) -> dict[str, Any]:
    return LIVE | {"instead_of": list(others)}


MEASURED = 65536  # items at a frame's start whose mean power `snr` is relative to


class _SnrParams(BlockParams):
    """How strong the noise is: relative to symbols of unit power, or to the power that is measured."""

    ebn0: Annotated[Decibel, Field(ge=-300, le=300)] | None = Field(
        None,
        description="energy per bit that the link carries over N0: Es/N0 = Eb/N0 x bits per symbol x rate of its codes "
        "and pilots",
        json_schema_extra=_live_instead_of("esn0", "snr"),
    )
    esn0: Annotated[Decibel, Field(ge=-300, le=300)] | None = Field(
        None, description="energy per symbol over N0", json_schema_extra=_live_instead_of("ebn0", "snr")
    )
    snr: Annotated[Decibel, Field(ge=-300, le=300)] | None = Field(
        None,
        description="power measured over the first 65536 items of a frame over noise power, for any samples; silence "
        "stays silent",
        json_schema_extra=_live_instead_of("ebn0", "esn0"),
    )

    @model_validator(mode="after")
    def _one(self) -> _SnrParams:
        if sum(each is not None for each in (self.ebn0, self.esn0, self.snr)) != 1:
            raise ValueError("must have exactly one of ebn0, esn0 and snr")
        return self


def _symbols_in(doc: str) -> Port:
    return Port("symbols", "complex64", doc, align=lambda p: 1 if p.snr is None else MEASURED)


class _NoisyChannel(Block):
    """What the channels with Gaussian noise share: how strong it is, and the tag that tells meters.

    The link's own codes and pilots tag `link_rate`, which `ebn0` counts with. The tag's `ebn0_db` spreads the energy of
    a frame over its information bits: Es/N0 / (bits per symbol x link rate x code rate of the frame).
    """

    def start(self) -> None:
        self.bits_per_symbol: int | None = None
        self.modulation: Any = None
        self.code_rate = self.link_rate = self.power = 1.0
        self.told: dict[str, Any] | None = None
        noise.kernels()

    def _look(self, symbols: Packet, shadow: float = 0.0, **fading: Any) -> tuple[float, dict[str, Any]]:
        """Return N0, and the tag `true_channel` where it is due: at a frame's start and after a change.

        The parameters hold for a `shadow` of 0 dB, by which the signal is stronger.
        """
        self.bits_per_symbol = symbols.tag("bits_per_symbol", self.bits_per_symbol)
        for tag in symbols.tags:
            if (tag.offset, tag.key) == (0, "modulation"):  # what a frame begins with
                self.modulation = tag.value
        self.code_rate = symbols.tag("code_rate", self.code_rate if symbols.offset else 1.0)
        self.link_rate = symbols.tag("link_rate", self.link_rate if symbols.offset else 1.0)
        per_symbol = theory.ratio_to_db(self.bits_per_symbol * self.link_rate) if self.bits_per_symbol else None
        ebn0, esn0 = self.params.ebn0, self.params.esn0
        if symbols.offset == 0:
            self.power = self._power(symbols)
        if self.params.snr is not None:
            esn0 = self.params.snr
        if esn0 is None:
            if per_symbol is None:
                raise BlockError("ebn0 needs to know the bits per symbol, which a mapper tags: give esn0 instead")
            esn0 = ebn0 + per_symbol
        elif per_symbol is not None:
            ebn0 = esn0 - per_symbol
        esn0 += shadow
        ebn0 = None if ebn0 is None else ebn0 + shadow
        n0 = self.power * theory.db_to_ratio(-esn0)
        if ebn0 is not None:
            ebn0 -= theory.ratio_to_db(self.code_rate)
        channel = {
            "n0": n0,
            "esn0_db": esn0,
            "ebn0_db": ebn0,
            "bits_per_symbol": self.bits_per_symbol,
            "bits_per_use": self.bits_per_symbol and self.bits_per_symbol * self.link_rate,
            "modulation": self.modulation,
            **fading,
        }
        due = symbols.offset == 0 or channel != self.told
        self.told = channel
        return n0, {"true_channel": channel} if due else {}

    def _with_noise(self, symbols: Packet, shadow: float = 0.0) -> Output:
        n0, tags = self._look(symbols, shadow, kind="awgn", fading="none", block_symbols=None)
        return self.later(
            lambda: symbols.derive(noise.awgn(symbols.data, n0, self.key, symbols.frame, symbols.offset), **tags)
        )

    def _power(self, symbols: Packet) -> float:
        """Return what the noise is relative to: 1, or the mean power at a frame's start, items not finite left out."""
        if self.params.snr is None:
            return 1.0
        power = np.abs(symbols.data[:MEASURED].astype(np.complex128)) ** 2
        power = power[np.isfinite(power)]
        return float(power.mean()) if len(power) else 0.0


class AwgnChannel(_NoisyChannel):
    """Add white Gaussian noise: y = x + n, E|n|^2 = N0 (N0/2 in each of I and Q)."""

    Params = _SnrParams
    inputs = (_symbols_in("Es = 1"),)
    outputs = (Port("symbols", "complex64", "with noise"),)
    ratio = Fraction(1)

    def work(self, symbols: Packet) -> Output:
        return self._with_noise(symbols)


class ShadowingChannel(_NoisyChannel):
    """Add white Gaussian noise whose level wanders from frame to frame: log-normal shadowing.

    Es/N0 is that of `esn0` (or `ebn0`, `snr`) plus x dB, where x is N(0, `deviation`^2) and correlated by a^n between
    frames n apart, a = `correlation`: M. Gudmundson, "Correlation model for shadow fading in mobile radio systems",
    1991. The receiver is taken to hold the signal at Es = 1, so that the noise is what changes.
    """

    class Params(_SnrParams):
        deviation: Annotated[Decibel, Field(ge=0, le=100)] = Field(6.0, description="standard deviation of Es/N0 in dB")
        correlation: float = Field(0.9, ge=0, lt=1, description="of one frame's shadow with the next")

    inputs = (_symbols_in("Es = 1"),)
    outputs = (Port("symbols", "complex64", "with noise"),)
    ratio = Fraction(1)

    def start(self) -> None:
        super().start()
        self.reached = 0  # frames that the shadow was followed over
        self.shadow = 0.0

    def work(self, symbols: Packet) -> Output:
        return self._with_noise(symbols, self._shadow(symbols.frame))

    def _shadow(self, frame: int) -> float:
        """Return x of a frame in dB; frames come in rising order."""
        p = self.params
        while self.reached <= frame:
            drawn = noise.complex_normal(1, self.key, self.reached, 0, stream=noise.FADES)[0].real * 2**0.5
            share = p.correlation if self.reached else 0.0
            self.shadow = share * self.shadow + (1 - share**2) ** 0.5 * float(drawn)
            self.reached += 1
        return p.deviation * self.shadow


class _FadingParams(_SnrParams):
    fading: Literal["symbol", "block", "doppler"] = Field(
        "symbol", description="a gain for every symbol, one for every block, or gains that change with time"
    )
    block_symbols: int | None = Field(None, ge=1, description="symbols of a block, for fading: block")
    doppler: Annotated[Hertz, Field(gt=0)] | None = Field(
        None, description="largest Doppler shift, speed / wavelength, for fading: doppler"
    )
    symbol_rate: Annotated[Hertz, Field(gt=0)] = Field(1e6, description="symbols a second, for fading: doppler")

    @model_validator(mode="after")
    def _extent(self) -> _FadingParams:
        for kind, name in (("block", "block_symbols"), ("doppler", "doppler")):
            if (self.fading == kind) != (getattr(self, name) is not None):
                raise ValueError(f"must have {name} with fading: {kind}, and only then")
        if self.doppler and self.doppler > self.symbol_rate / 2:
            raise ValueError(f"must have a doppler of at most half the symbol rate, {self.symbol_rate / 2:g} Hz")
        return self


class RayleighChannel(_NoisyChannel):
    """Fade flatly and add white Gaussian noise: y = h x + n, h complex Gaussian with E|h|^2 = 1, E|n|^2 = N0.

    A gain is drawn for every symbol, or for every block of symbols, the first of which begins with the frame, and gains
    are independent; or they change with time as for a receiver that moves among scatterers, with the autocorrelation
    J0(2 pi f t) of R. H. Clarke (1968), in every frame anew. They go out beside the symbols for receivers that know the
    channel.
    """

    Params: ClassVar[type[BlockParams]] = _FadingParams
    inputs = (_symbols_in("Es = 1"),)
    outputs = (Port("symbols", "complex64", "faded, with noise"), Port("gains", "complex64", "h of every symbol"))
    ratio = Fraction(1)

    def work(self, symbols: Packet) -> Output:
        n0, tags = self._look(symbols, **self._fades())

        def fade() -> dict[str, Packet]:
            gains = self._gains(symbols.frame, symbols.offset, symbols.count)
            faded = noise.fade(symbols.data, gains, n0, self.key, symbols.frame, symbols.offset)
            return {"symbols": symbols.derive(faded, **tags), "gains": symbols.derive(gains, **tags)}

        return self.later(fade)

    def _fades(self) -> dict[str, Any]:
        """What the tag `true_channel` tells of the fading."""
        return {"kind": "rayleigh", "fading": self.params.fading, "block_symbols": self.params.block_symbols}

    def _gains(self, frame: int, offset: int, count: int) -> np.ndarray:
        p = self.params
        if p.fading == "doppler":
            return noise.doppler_gains(count, p.doppler / p.symbol_rate, self.key, frame, offset)
        if p.fading == "symbol":
            return noise.complex_normal(count, self.key, frame, offset, stream=noise.FADES)
        block = p.block_symbols
        first, last = offset // block, -(-(offset + count) // block)
        drawn = noise.complex_normal(last - first, self.key, frame, first, stream=noise.FADES)
        return np.repeat(drawn, block)[offset - first * block :][:count]


class RicianChannel(RayleighChannel):
    """Fade as `rayleigh_channel`, with a direct path beside the scattered ones: h = sqrt(K/(K+1)) + h' / sqrt(K+1)."""

    class Params(_FadingParams):
        k_factor: Annotated[Decibel, Field(ge=-100, le=100)] = Field(
            6.0, description="power of the direct path over that of the scattered ones", json_schema_extra=LIVE
        )

    def _fades(self) -> dict[str, Any]:
        return super()._fades() | {"kind": "rician", "k_factor": self.params.k_factor}

    def _gains(self, frame: int, offset: int, count: int) -> np.ndarray:
        k = theory.db_to_ratio(self.params.k_factor)
        scattered = super()._gains(frame, offset, count)
        return scattered * np.float32((1 / (k + 1)) ** 0.5) + np.float32((k / (k + 1)) ** 0.5)


class Equalizer(Block):
    """Undo a gain for every symbol: y / h (zero forcing), or y h* / (|h|^2 + N0) (minimum mean squared error).

    Zero forcing keeps the constellation's size: take it before a demapper, and give that the gains too. MMSE comes
    nearest to the sent value on average, and shrinks it: take it for analog values. A gain of 0 gives 0.
    """

    class Params(BlockParams):
        method: Literal["zf", "mmse"] = Field("zf", description="zero forcing or minimum mean squared error")
        noise: Literal["known", "estimate"] | Annotated[float, Field(ge=0)] = Field(
            "known",
            description="N0 for mmse: the simulated channel's own (tag true_channel), what a channel estimator found "
            "(tag estimate), or a number",
        )

    inputs = (Port("symbols", "complex64", "faded"), Port("gains", "complex64", "h of every symbol"))
    outputs = (Port("symbols", "complex64", "Es = 1"),)
    equal_rates = ("symbols", "gains")
    ratio = Fraction(1)

    def start(self) -> None:
        self.known: float | None = None
        noise.kernels()

    def work(self, symbols: Packet | None, gains: Packet | None) -> Packet | None:
        if symbols is None:
            return None
        if gains is None or gains.count < symbols.count:
            came = 0 if gains is None else gains.count
            self.warn(f"frame {symbols.frame} has {symbols.count} symbols but {came} gains; the others are taken as 0")
        h = np.zeros(symbols.count, np.complex64)
        if gains is not None:
            h[: gains.count] = gains.data[: symbols.count]
        return symbols.derive(noise.equalize(symbols.data, h, self._n0(symbols)))

    def _n0(self, symbols: Packet) -> float:
        true_channel = symbols.tag("true_channel")
        if true_channel:
            self.known = true_channel["n0"]
        if self.params.method == "zf":
            return 0.0
        if self.params.noise == "estimate":
            return self._estimated(symbols)
        if self.params.noise != "known":
            return self.params.noise
        if self.known is None:
            raise BlockError(
                "noise: known needs symbols with the tag true_channel of a simulated channel: give a number"
            )
        return self.known

    def _estimated(self, symbols: Packet) -> float:
        estimate = symbols.tag("estimate")
        if estimate is not None:
            return estimate["effective_n0"]
        if symbols.count:
            self.warn(f"frame {symbols.frame} came without a channel estimator's noise, which is taken as 0")
        return 0.0


class BitFlipChannel(Block):
    """Flip every bit independently with 16QAM's bit error rate at an Eb/N0, the paper's own stand-in for a radio.

    `formula: exact` is the true mean over a symbol's bits, `paper` the rate that the paper's program takes
    (`theory.paper_bit_error_rate`), both of the energy of a bit on the air. Either is rounded to a multiple of 2^-32.
    """

    class Params(BlockParams):
        ebn0: Annotated[Decibel, Field(ge=-300, le=300)] = Field(
            description="energy per bit that the link carries over N0: Es/N0 = Eb/N0 x 4 x rate of its codes",
            json_schema_extra=LIVE,
        )
        formula: Literal["exact", "paper"] = Field("exact", description="how Eb/N0 becomes an error rate")

    inputs = (Port("bits", "bits", "sent"),)
    outputs = (Port("bits", "bits", "received"),)
    ratio = Fraction(1)

    def start(self) -> None:
        self.told: dict[str, Any] | None = None
        self.code_rate = self.link_rate = 1.0
        noise.kernels()

    def work(self, bits: Packet) -> Packet:
        self.code_rate = bits.tag("code_rate", self.code_rate if bits.offset else 1.0)
        self.link_rate = bits.tag("link_rate", self.link_rate if bits.offset else 1.0)
        ebn0 = self.params.ebn0
        sent = ebn0 + theory.ratio_to_db(self.link_rate)  # of a bit on the air
        esn0 = sent + theory.ratio_to_db(4)
        rate = theory.paper_bit_error_rate(sent) if self.params.formula == "paper" else theory.bit_error_rate(esn0)
        channel = {
            "kind": "bit_flip",
            "n0": None,
            "esn0_db": esn0,
            "ebn0_db": ebn0 - theory.ratio_to_db(self.code_rate),
            "bits_per_symbol": 4,
            "bits_per_use": 4 * self.link_rate,
            "modulation": "16qam",
            "fading": "none",
            "block_symbols": None,
            "ber": rate,
        }
        due = bits.offset == 0 or channel != self.told
        self.told = channel
        flipped = bits.data ^ noise.flips(bits.count, rate, self.key, bits.frame, bits.offset)
        made = bits.derive(flipped, count=bits.count, packed=True)
        return made.tagged(true_channel=channel) if due else made


class ErasureChannel(Block):
    """Lose stretches of bits: each of `length` bits, the first of which begins with the frame, is erased with `rate`.

    What is erased comes as 0 and is told by the tag `erased`, as where packets of a radio are lost. Frames keep their
    lengths.
    """

    class Params(BlockParams):
        rate: float = Field(0.1, ge=0, le=1, description="share of the stretches that is lost", json_schema_extra=LIVE)
        length: Annotated[BitCount, Field(ge=8, multiple_of=8)] = Field(8192, description="bits of a stretch")

    inputs = (Port("bits", "bits", "sent", align=lambda p: p.length),)
    outputs = (Port("bits", "bits", "received"),)
    ratio = Fraction(1)

    def work(self, bits: Packet) -> Packet:
        length = self.params.length
        first, count = bits.offset // length, -(-bits.count // length)
        lost = np.unpackbits(noise.flips(count, self.params.rate, self.key, bits.frame, first), count=count)
        gone = np.repeat(lost.view(np.bool_), length)[: bits.count]
        data = bits.data & ~np.packbits(gone)
        before = bits.erased()
        return bits.derive(data, count=bits.count, packed=True).with_erased(gone if before is None else gone | before)
