"""Stretches of a frame that are coded and mapped each by a scheme of its own: what both ends of such links share.

To its coder a stretch is a frame of its own, cut into even blocks: `blocks.fec.coders` does the work.
"""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field, ValidationError, model_validator

from blocks.fec import coders
from blocks.phy.constellation import Modulation, constellation
from blocks.phy.qam import NoiseEstimator, llr, map_symbols
from flowgraph.block import ERASED, Block, Context, Packet, Tag
from flowgraph.block import Params as BlockParams

LEAST_N0 = 1e-6
SLACK = 4096  # symbols that a frame's beginning may always claim beyond twice those that came
SUREST = 1e-13  # error rate: its LLR is the largest in int8

# Encoder, decoder, and the rates that they can do.
_CODERS: dict[str, tuple[type[Block], type[Block], str]] = {
    "none": (coders.Repeater, coders.Combiner, "1"),
    "repetition": (coders.Repeater, coders.Combiner, "1/2, 1/3, ... 1/1000"),
    "convolutional": (coders.ConvolutionalEncoder, coders.ViterbiDecoder, "1/2, 2/3, 3/4 or 5/6"),
    "ldpc": (coders.LdpcEncoder, coders.LdpcDecoder, "1/5 to 9/10"),
}


def _fraction(value: str | float) -> str:
    rate = coders.code_rate(value)
    if not rate:
        raise ValueError("must be more than 0")
    return str(rate)


class Scheme(BlockParams):
    """A code and a modulation."""

    code: Literal["none", "repetition", "convolutional", "ldpc"] = Field("none", description="the code")
    rate: Annotated[str | float, AfterValidator(_fraction)] = Field("1", description="payload bits a sent bit")
    modulation: Modulation = Field("16qam", description="name, or points [I, Q] in the order of labels")

    @model_validator(mode="after")
    def _possible(self) -> Scheme:
        encoder, _, rates = _CODERS[self.code]
        try:
            encoder.Params(**self.coder_params)
            possible = self.code != "none" or self.rate == "1"
        except ValidationError:
            possible = False
        if not possible:
            raise ValueError(f"must have a rate of {rates} for code: {self.code}, not {self.rate}")
        return self

    @property
    def coder_params(self) -> dict[str, Any]:
        """The parameters of encoder and decoder."""
        if self.code in ("none", "repetition"):
            return {"times": float(1 / Fraction(self.rate))}
        return {"rate": self.rate} | ({"order": self.bits_per_symbol} if self.code == "ldpc" else {})

    @property
    def bits_per_symbol(self) -> int:
        return constellation(self.modulation).bits_per_symbol

    def __str__(self) -> str:
        coded = "uncoded" if self.code == "none" else f"{self.code} {self.rate}"
        return f"{constellation(self.modulation).name}, {coded}"


class Coder:
    """A scheme at work: its encoder, or its decoder, and how long what they make is."""

    def __init__(self, scheme: Scheme, decoder: bool, context: Context, **params: Any):
        self.scheme, self.bits_per_symbol = scheme, scheme.bits_per_symbol
        encoder_type, decoder_type, _ = _CODERS[scheme.code]
        kind = decoder_type if decoder else encoder_type
        chosen = {key: value for key, value in params.items() if key in kind.Params.model_fields}
        self.block = kind(scheme.coder_params | chosen, context=context)
        self.params = self.block.params
        self.block.start()
        self.estimator = NoiseEstimator(constellation(scheme.modulation))
        map_symbols(np.zeros(0, np.uint8), 0, scheme.modulation)  # compiles before the graph runs
        llr(np.zeros(1, np.complex64), 1.0, scheme.modulation, int8=True)

    def coded_bits(self, bits: int) -> int:
        """Bits that a stretch of so many payload bits is coded as."""
        return coders.coded_length(coders.even(self.params, bits), bits)

    def symbols(self, bits: int) -> int:
        """Symbols that a stretch of so many payload bits is sent as."""
        return -(-self.coded_bits(bits) // self.bits_per_symbol)

    def work(self, piece: Packet, bits: int) -> Packet:
        """Encode or decode a stretch of so many payload bits."""
        self.block.params = coders.even(self.params, bits)
        made: Any = self.block.work(piece)
        return made

    def receive(self, frame: Received, at: int, bits: int) -> Packet:
        """Return the `bits` payload bits of the stretch whose symbols begin at `at`: LLRs in quarters."""
        count, end = self.coded_bits(bits), at + self.symbols(bits)
        piece = cut(frame.symbols, frame.gone, frame.y[at:end], at, end)
        llrs = llr(frame.y[at:end], frame.n0, self.scheme.modulation, frame.part(at, end), int8=True)[:count]
        self.estimator.weigh(*frame.came(at, end), frame.n0)
        told = [Tag(0, "estimate", {**self.estimator.estimate(), "source": frame.source})] * bool(self.estimator.parts)
        soft = piece.derive(llrs, self.bits_per_symbol, count)
        made = self.work(replace(soft, tags=(*(t for t in soft.tags if t.key != "estimate"), *told)), bits)
        return replace(made, data=_quarters(made), packed=False)


def cut(frame: Packet, gone: np.ndarray | None, data: np.ndarray, begin: int, end: int) -> Packet:
    """Return items `begin` to `end` of a frame as a frame of its own: `data`, with what is told of them."""
    tags = tuple(
        tag._replace(offset=tag.offset - begin)
        for tag in frame.tags
        if begin <= tag.offset < end and tag.key not in (ERASED, "link_rate")
    )
    piece = Packet(data, frame.frame, 0, end - begin, frame.packed, tags, last=True)
    return piece.with_erased(None if gone is None else gone[begin:end])


def at_the_end(frame: Packet, end: int) -> list[Tag]:
    """Return the tags that stand behind a frame's last item, put behind its new last item."""
    return [tag._replace(offset=end) for tag in frame.tags if tag.offset >= frame.count > 0]


class Received:
    """The symbols of a frame as they came, filled up with erasures to its full length; the noise, once it is known."""

    def __init__(self, symbols: Packet, gains: Packet | None):
        gone = symbols.erased()
        self.symbols, self.y, self.count = symbols, symbols.data, symbols.count
        self.gone = np.zeros(self.count, np.bool_) if gone is None else gone
        self.h: np.ndarray | None = None
        self.told: dict[str, Any] | None = None  # by a channel estimator
        if gains is not None:
            self.h = np.zeros(self.count, np.complex64)
            self.h[: gains.count] = gains.data[: self.count]
            self.told = symbols.tag("estimate")
        self.n0, self.source = 1.0, "preamble"
        self._energy, self._learnt = 0.0, 0

    def part(self, begin: int, end: int) -> np.ndarray | None:
        """Return the gains of symbols, None where there are none."""
        return None if self.h is None else self.h[begin:end]

    def came(self, begin: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Return those symbols of a stretch that came, and their gains, 1 where there are none."""
        here = ~self.gone[begin:end]
        h = np.ones(end - begin, np.complex64) if self.h is None else self.h[begin:end]
        return self.y[begin:end][here], h[here]

    def soft(self, begin: int, end: int, modulation: str) -> np.ndarray:
        """Return LLRs, but for a factor; 0 where symbols are erased."""
        llrs = llr(self.y[begin:end], 1.0, modulation, self.part(begin, end))
        return np.where(np.repeat(self.gone[begin:end], len(llrs) // (end - begin)), np.float32(0), llrs)

    def learn_noise(self, sent: np.ndarray, at: int = 0) -> None:
        """Take N0 from symbols from `at` on that are known, and those learnt from before."""
        y, h = self.came(at, at + len(sent))
        with np.errstate(invalid="ignore"):  # symbols that are infinite
            errors = np.abs(h * (y - sent[~self.gone[at : at + len(sent)]])).astype(np.float64) ** 2
        errors = errors[np.isfinite(errors)]
        self.add_noise(float(errors.sum()), len(errors))

    def add_noise(self, energy: float, count: int) -> None:
        """Take N0 from the noise's energy in so many more symbols, or as a channel estimator told it."""
        self._energy, self._learnt = self._energy + energy, self._learnt + count
        if self.told:
            self.n0, self.source = self.told["effective_n0"], self.told["source"]
        else:
            self.n0 = max(self._energy / self._learnt, LEAST_N0) if self._learnt else 1.0

    def extend(self, length: int) -> None:
        """Fill up to a length with symbols that did not come; drop those beyond."""
        more = max(length - self.count, 0)
        self.y = np.pad(self.y[:length], (0, more))
        self.gone = np.pad(self.gone[:length], (0, more), constant_values=True)
        if self.h is not None:
            self.h = np.pad(self.h[:length], (0, more))


def _quarters(made: Packet) -> np.ndarray:
    """Return a decoder's bits as LLRs in quarters, int8: decisions by the error rate that is expected of them."""
    if not made.packed:
        return made.data
    estimate = made.tag("estimate")
    p = min(max(estimate["ber"] if estimate else 0.5, SUREST), 0.5)
    size = min(max(round(4 * math.log((1 - p) / p)), 1), 127)
    return np.where(np.unpackbits(made.data, count=made.count), -size, size).astype(np.int8)


def behind(tag: Tag) -> Tag:
    """Return a tag of symbols as it holds of the bits made of them, whose error rate no closed form tells."""
    return tag._replace(value={**tag.value, "coded": True}) if tag.key == "true_channel" else tag
