"""`qam_mapper` and `qam_demapper`: bits to complex symbols, and back as hard decisions or LLRs."""

from __future__ import annotations

import functools
import math
import sys
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.arrays import array, packed_bits
from blocks.model import KERNEL_DEVICE, KernelDevice, gpu
from blocks.phy import theory
from blocks.phy.constellation import AnyModulation, Constellation, Modulation, constellation
from flowgraph.block import Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

STRETCH = 16384  # symbols: LLRs are scaled anew every so many
SAMPLED = 1024  # of each stretch so many symbols, the first, tell the noise; all of a frame's first stretch do
WEIGHTED = 2048  # symbols of a frame that tell the noise where gains are known


def map_symbols(packed: np.ndarray, count: int, modulation: AnyModulation = "16qam") -> np.ndarray:
    """Return the complex64 symbols of `count` packed bits; the last one is filled up with zero bits.

    >>> map_symbols(np.array([0x2F], np.uint8), 8) * 10**0.5
    array([ 3.+1.j, -3.-3.j], dtype=complex64)

    Raises `ValueError` for a modulation that there is not, and for fewer bits than `count`.
    """
    from blocks.phy import _symbols

    known, packed = constellation(modulation), packed_bits("packed", packed, count)
    bits = known.bits_per_symbol
    symbols = -(-count // bits)
    if bits != 4:
        out = np.empty(symbols, np.complex64)
        _symbols.map_table(packed, bits, known.points.astype(np.complex64), out)
        return out
    out = np.empty(symbols + symbols % 2, np.complex64)
    _symbols.map_byte_pairs(packed, _byte_table(known), out.view(np.complex128))
    return out[:symbols]


@functools.lru_cache(16)
def _byte_table(known: Constellation) -> np.ndarray:
    """Two 4-bit symbols by byte, side by side in one complex128."""
    byte, points = np.arange(256), known.points.astype(np.complex64)
    return np.stack([points[byte >> 4], points[byte & 15]], axis=1).view(np.complex128).ravel()


def decide(symbols: np.ndarray, modulation: AnyModulation = "16qam") -> np.ndarray:
    """Return the packed bits of the points next to complex64 symbols; zeros for a symbol that is NaN or infinite."""
    return _decide(array("symbols", symbols, np.complex64, None), constellation(modulation))[0]


def _decide(symbols: np.ndarray, known: Constellation) -> tuple[np.ndarray, int]:
    """Return packed bits, and how many symbols are NaN or infinite."""
    from blocks.phy import _symbols

    bits, y = known.bits_per_symbol, symbols.view(np.float32)
    out = np.empty(-(-len(symbols) * bits // 8), np.uint8)
    if known.name == "16qam":
        return out, _symbols.decide_16qam(y, _symbols.SIGN_BITS, _symbols.SIZE_BITS, out)
    _symbols.decide_table(y, bits, known.points.astype(np.complex64), out)
    return out, _not_finite(symbols)


def _not_finite(symbols: np.ndarray) -> int:
    from blocks.phy import _symbols

    return _symbols.count_not_finite(symbols.view(np.float32))


def llr(
    symbols: np.ndarray,
    n0: float,
    modulation: AnyModulation = "16qam",
    gains: np.ndarray | None = None,
    int8: bool = False,
    exact: bool = False,
) -> np.ndarray:
    """Return the LLRs ln p(bit = 0) / p(bit = 1) of complex64 symbols, float32, or 4 times them as int8.

    Max-log, for every bit: (min over points x with bit 1 of |y-x|^2, less that with bit 0) / N0. `exact`: ln of the sum
    over points with bit 0 of exp(-|y-x|^2 / N0), less that with bit 1. Where `gains` h were equalised, N0 / |h|^2 is in
    place of N0. Bounded to +-1e30 (+-127 for int8), with the right sign for symbols of any size and gains up to 1e19.
    LLRs of a symbol or gain that is NaN or infinite are 0, erasures, as they may be of larger gains; so are those of a
    gain of 0, and all where N0 is above 1e36, infinite too. An N0 below 1e-36 is taken for that.

    >>> llr([0.9 - 0.9j], 0.1, "qpsk").round(2)
    array([ 25.46, -25.46], dtype=float32)

    Raises `ValueError` for a modulation that there is not, an N0 below 0 or NaN, and not as many gains as symbols.
    """
    from blocks.phy import _symbols

    if not n0 >= 0:
        raise ValueError(f"n0 must be at least 0, not {n0:g}")
    known, n0 = constellation(modulation), max(n0, 1e-36)
    bits, fast = known.bits_per_symbol, known.name == "16qam"
    symbols = array("symbols", symbols, np.complex64, None)
    if gains is not None:
        gains = array("gains", gains, np.complex64, len(symbols))
    if n0 > 1e36:
        return np.zeros(len(symbols) * bits, np.int8 if int8 else np.float32)
    y = symbols.view(np.float32)
    scale = 4 / math.sqrt(10) / n0
    if fast and int8 and gains is None and not exact:
        small = np.empty(len(symbols) * bits, np.int8)
        _symbols.llr8_16qam(y, np.float32(min(4 * scale, 1e36)), small)
        return small
    out = np.empty(len(symbols) * bits, np.float32)
    if exact:
        weights = np.ones(1) if gains is None else np.abs(gains.astype(np.complex128)) ** 2
        _symbols.llr_exact(y, weights / n0, bits, known.points.astype(np.complex64), out)
        gains = None
    elif fast:
        _symbols.llr_16qam(y, np.float32(min(scale, 1e36)), out)
    else:
        _symbols.llr_table(y, np.float32(1 / n0), bits, known.points.astype(np.complex64), out)
    if gains is not None:
        _symbols.weigh(out, bits, gains.view(np.float32))
    if not int8:
        return out
    small = np.empty(len(out), np.int8)
    _symbols.to_int8(out, small)
    return small


ENGINE: Any = Field(
    "semflow", description="own kernels, or those of CommPy: thousands of times slower, LLRs exact, to compare with"
)


def _engine(name: str, device: Any = None) -> Any:
    """Return what has the functions `map_symbols`, `decide` and `llr` that a block calls; on a GPU the last two."""
    if name == "commpy":
        from blocks import commpy_reference

        return commpy_reference
    if device is not None:
        from blocks.phy._symbols_triton import Modem

        return Modem(device)
    return sys.modules[__name__]


class QamMapper(Block):
    """Map bits to symbols of unit mean power, labelled as in 3GPP TS 38.211, clause 5.1.

    A frame's last symbol is filled up with zero bits; their number is the tag `pad` at the frame's end. A frame
    begins with the tags `bits_per_symbol` and `modulation`. Points that are not Gray-labelled are sent all the same,
    which is told, and is `gray` in the report.
    """

    class Params(BlockParams):
        modulation: Modulation = Field("16qam", description="name, or points [I, Q] in the order of labels")
        engine: Literal["semflow", "commpy"] = ENGINE

    inputs = (
        Port("bits", "bits", "what to send", align=lambda p: math.lcm(8, constellation(p.modulation).bits_per_symbol)),
    )
    outputs = (Port("symbols", "complex64", "Es = 1"),)
    ratio = staticmethod(lambda p: Fraction(1, constellation(p.modulation).bits_per_symbol))

    def start(self) -> None:
        self.engine = _engine(self.params.engine)
        self.engine.map_symbols(np.zeros(0, np.uint8), 0, self.params.modulation)  # compiles before the graph runs
        gray = constellation(self.params.modulation).gray
        self.report("link", gray=gray)
        if not gray:
            self.warn("the points are not Gray-labelled: neighbours differ in several bits, which all err together")

    def work(self, bits: Packet) -> Packet:
        per_symbol = constellation(self.params.modulation).bits_per_symbol
        symbols = self.engine.map_symbols(bits.data, bits.count, self.params.modulation)
        out = bits.derive(symbols, Fraction(1, per_symbol))
        pad = len(symbols) * per_symbol - bits.count
        tags = out.tags
        if bits.offset == 0:
            tags += (Tag(0, "bits_per_symbol", per_symbol), Tag(0, "modulation", self.params.modulation))
        if pad:
            tags += (Tag(out.end, "pad", pad),)
        out.tags = tags
        return out


def _demapper_align(params: Any) -> int:
    """Whole bytes for decisions; whole stretches where each is scaled by the noise estimated so far."""
    bits = constellation(params.modulation).bits_per_symbol
    return STRETCH if params.output != "hard" and params.noise == "estimate" else math.lcm(8, bits) // bits


class QamDemapper(Block):
    """Turn symbols into bits: hard decisions, or LLRs ln p(0)/p(1).

    LLRs are float32, or int8: 4 times the LLR, rounded, within +-127.

    The noise power N0, which scales LLRs, is estimated from the symbols themselves: the mean squared distance to the
    next point is set equal to its expectation (`theory.decision_error`), unbiased from Eb/N0 = 0 dB up. Every frame
    ends with what was found, tag `estimate`: n0, esn0_db, ber (closed form), source. An estimate reaches from -30 to
    60 dB.

    With `gains` the symbols are taken as equalised by them (y / h): LLRs and estimate weigh each symbol by |h|^2. Where
    a channel estimator told its own `estimate` of a frame, that is taken: its effective_n0, as errors of the gains are
    noise to a symbol.

    A symbol that is NaN or infinite gives bits 0 or LLRs 0, erasures to a decoder; the estimate does without what of it
    is, and it is told once. LLRs are 0 too where a gain is 0 or did not come. A symbol of 0 is decided as any other.
    LLRs are never NaN, and finite.

    On a GPU (`device`) LLRs differ by the rounding of float32 alone, one of int8 at times by 1. While the noise is
    estimated, it gets no more than 16384 symbols at a time.
    """

    class Params(BlockParams):
        modulation: Modulation = Field("16qam", description="name, or points [I, Q] in the order of labels")
        output: Literal["hard", "llr", "llr8"] = Field("hard", description="decisions, float32 LLRs or int8 LLRs")
        method: Literal["max-log", "exact"] = Field(
            "max-log", description="LLRs by the nearest points alone, or by all: better at low SNR, and slower"
        )
        noise: Literal["estimate", "known"] | Annotated[float, Field(gt=0)] = Field(
            "estimate",
            description="N0 for the LLRs: estimated by this receiver, the simulated channel's own (tag true_channel), "
            "or a number",
        )
        engine: Literal["semflow", "commpy"] = ENGINE
        device: KernelDevice = KERNEL_DEVICE

        @model_validator(mode="after")
        def _of_one_kind(self) -> QamDemapper.Params:
            if self.engine == "commpy" and self.device != "cpu":
                raise ValueError(f"must have device: cpu with engine: commpy, not {self.device}")
            return self

    inputs = (
        Port("symbols", "complex64", "Es = 1, equalised", align=_demapper_align),
        Port("gains", "complex64", "channel gains that were equalised", optional=True),
    )
    outputs = (
        Port(
            "bits",
            ("bits", "float32", "int8"),
            "decisions or LLRs",
            chosen=lambda p: {"hard": "bits", "llr": "float32", "llr8": "int8"}[p.output],
        ),
    )
    equal_rates = ("symbols", "gains")
    ratio = staticmethod(lambda p: Fraction(constellation(p.modulation).bits_per_symbol))

    def start(self) -> None:
        self.constellation = constellation(self.params.modulation)
        self.estimator = NoiseEstimator(self.constellation)
        self.exact = self.params.method == "exact"
        self.known: float | None = None
        self.frame = -1
        self.strange = 0
        self.engine = _engine(self.params.engine, gpu(self.params.device))
        self.engine.decide(np.zeros(0, np.complex64), self.params.modulation)  # compiles before the graph runs

    def work(self, symbols: Packet | None, gains: Packet | None = None) -> Packet | None:
        if symbols is None:
            return None
        y, bits = symbols.data, self.constellation.bits_per_symbol
        h = None
        if gains is not None:  # of a frame whose gains were lost, all symbols weigh the same
            h = np.zeros(len(y), np.complex64)
            h[: gains.count] = gains.data[: len(y)]
        if symbols.frame != self.frame:
            self.frame = symbols.frame
            self.estimator.reset()
        true_channel = symbols.tag("true_channel")
        if true_channel:
            self.known = true_channel["n0"]
        if h is not None:
            told = symbols.tag("estimate")
            self.estimator.weigh(y, h, told["effective_n0"] if told else None)
        if self.params.output == "hard":
            if h is None:
                self.estimator.add(y, symbols.offset)
            data = self._decisions(y)
        else:
            self._tell_strange(_not_finite(y))
            data = self._llrs(y, h, symbols.offset)
        pad = symbols.tag("pad", 0) if symbols.last else 0
        return self._packet(symbols, data, len(y) * bits - pad)

    def _decisions(self, y: np.ndarray) -> np.ndarray:
        if self.engine is not sys.modules[__name__]:
            self._tell_strange(_not_finite(y))
            return self.engine.decide(y, self.params.modulation)
        data, strange = _decide(y, self.constellation)
        self._tell_strange(strange)
        return data

    def _llrs(self, y: np.ndarray, h: np.ndarray | None, offset: int) -> np.ndarray:
        int8 = self.params.output == "llr8"
        if self.params.noise == "estimate" and h is None:
            parts = []
            for at in range(0, len(y), STRETCH):
                part = y[at : at + STRETCH]
                self.estimator.add(part, offset + at)
                parts.append(self.engine.llr(part, self.estimator.n0, self.params.modulation, None, int8, self.exact))
            return np.concatenate(parts) if parts else np.empty(0, np.int8 if int8 else np.float32)
        if h is None:
            self.estimator.add(y, offset)
        return self.engine.llr(y, self._n0(), self.params.modulation, h, int8, self.exact)

    def _n0(self) -> float:
        if self.params.noise == "estimate":
            return self.estimator.n0
        if self.params.noise != "known":
            return self.params.noise
        if self.known is None:
            raise BlockError(
                "noise: known needs symbols from a simulated channel, and these carry no tag true_channel: "
                "set noise: estimate, or a number"
            )
        return self.known

    def _packet(self, symbols: Packet, data: np.ndarray, count: int) -> Packet:
        hard, bits = self.params.output == "hard", self.constellation.bits_per_symbol
        if not hard:
            data = data[:count]
        elif count % 8:
            data = data[: -(-count // 8)]
            data[-1] &= 0xFF << (-count % 8) & 0xFF
        elif len(data) * 8 > count:
            data = data[: count // 8]
        out = symbols.derive(data, bits, count, packed=hard)
        tags = tuple(tag for tag in out.tags if tag.key not in ("pad", "estimate"))
        if symbols.last and self.estimator.parts:
            tags += (Tag(out.end, "estimate", self.estimator.estimate()),)
        out.tags = tags
        return out

    def _tell_strange(self, strange: int) -> None:
        if strange and not self.strange:
            self.warn("symbols that are NaN or infinite came in; their bits are 0 (LLRs 0)")
        self.strange += strange


@functools.lru_cache(16)
def _tables(known: Constellation) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return log10 N0, and there log10 of the expected squared distance to the next point, and the bit error rate."""
    log_n0 = np.linspace(-6, 3, 451 if known.axis else 91)
    error = np.array([theory.decision_error(10**x, known) for x in log_n0])
    return log_n0, np.log10(error), np.array([theory.bit_error_rate(-10 * x, known) for x in log_n0])


class NoiseEstimator:
    """Estimates N0 from a frame's symbols alone, the same however the frame is cut.

    Sums squared distances to the next point (16QAM at Es/N0 12 dB: 1 % off after 16384 symbols) and finds the N0 for
    which `theory.decision_error` is their mean. Long frames are sampled: all of the first 16384 symbols, a 16th of
    the rest; 2048 of a frame where gains are known. For the symbols looked at the variance is within 2 dB of the
    Cramer-Rao bound, from Eb/N0 = 0 dB up.
    """

    def __init__(self, constellation: Constellation):
        self.points, self.levels = constellation.points.astype(np.complex64), len(constellation.axis)
        self.half_step = np.float32(constellation.half_step) if constellation.axis else None
        self.log_n0, self.log_error, self.ber = _tables(constellation)
        self.reset()

    def reset(self) -> None:
        """Begin a frame."""
        self.total = 0
        self.parts = 0  # real and imaginary ones
        self.source = "decision-directed"
        self._weights = np.ones(1)
        self._n0: float | None = None

    def add(self, y: np.ndarray, offset: int) -> None:
        """Take in symbols from `offset` of the frame on."""
        from blocks.phy import _symbols

        where = y.view(np.float32), offset, STRETCH, SAMPLED
        if self.half_step is None:
            total, count = _symbols.decision_errors_table(*where, self.points)
        else:
            total, count = _symbols.decision_errors(*where, self.half_step, self.levels)
        self.total += total
        self.parts += count
        self._n0 = None

    def weigh(self, y: np.ndarray, h: np.ndarray, n0: float | None = None) -> None:
        """Take in a whole frame of symbols that were equalised by the gains h, and N0 if pilots told it."""
        every = max(1, -(-len(y) // WEIGHTED))
        y, weights = y[::every].astype(np.complex128), np.abs(h[::every].astype(np.complex128)) ** 2
        usable = np.isfinite(y) & np.isfinite(weights) & (weights > 0)
        y, weights = y[usable], weights[usable]
        self.parts = 2 * len(y)
        if not len(y):
            return
        if n0 is not None:
            self._weights, self._n0, self.source = weights, n0, "pilots"
            return
        seen = float(weights @ self._errors(y))
        target, log_weights = math.log10(max(seen, 1e-30)), np.log10(weights)
        log_n0 = 0.0
        for _ in range(40):
            expected = weights @ 10 ** np.interp(log_n0 - log_weights, self.log_n0, self.log_error)
            step = target - math.log10(expected)
            log_n0 = min(max(log_n0 + step, -6.0), 3.0)
            if abs(step) < 1e-4:  # the expectation rises with N0^0.5 to N0^1, so that no step overshoots
                break
        self._weights, self._n0 = weights, 10**log_n0

    def _errors(self, y: np.ndarray) -> np.ndarray:
        """Squared distances to the next points."""
        return np.min([np.abs(y - point) ** 2 for point in self.points], axis=0)

    @property
    def n0(self) -> float:
        """The estimate so far; 1 while nothing is known."""
        if self._n0 is None:
            if not self.parts:
                return 1.0
            mean = math.log10(max(self.mean_error, 1e-6))
            self._n0 = float(10 ** np.interp(mean, self.log_error, self.log_n0))
        return self._n0

    @property
    def mean_error(self) -> float:
        """The mean squared distance of a symbol to the next point, of those looked at; 0 while there is none."""
        return 2 * self.total / max(self.parts, 1) / 2**20

    def estimate(self) -> dict[str, Any]:
        """Return the tag `estimate` of a frame."""
        n0 = self.n0
        ber = np.interp(math.log10(n0) - np.log10(self._weights), self.log_n0, self.ber).mean()
        return {"n0": n0, "esn0_db": -theory.ratio_to_db(n0), "ber": float(ber), "source": self.source}
