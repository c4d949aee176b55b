"""Unequal protection: every stretch of a frame goes by the code and the modulation that its class has in a profile.

To its coder a stretch is a frame of its own, cut into even blocks: `blocks.fec.coders` does the work. Where stretches
lie travels before them, in a preamble in QPSK (`blocks.fec.preamble`), which also tells the receiver the noise.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator

from blocks.fec import coders, preamble
from blocks.fec.preamble import Stretch
from blocks.framing.frame import FrameError, Protection
from blocks.phy.constellation import Modulation, constellation
from blocks.phy.qam import NoiseEstimator, llr, map_symbols
from flowgraph.block import ERASED, Block, BlockError, Context, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

PREAMBLE = "qpsk"
LEAST_N0 = 1e-6
SLACK = 4096  # symbols that a preamble may always claim beyond twice those that came
SUREST = 1e-13  # error rate: its LLR is the largest in int8

# Encoder, decoder, and the rates that they can do.
_CODERS: dict[str, tuple[type[Block], type[Block], str]] = {
    "none": (coders.Repeater, coders.Combiner, "1"),
    "repetition": (coders.Repeater, coders.Combiner, "1/2, 1/3, ... 1/1000"),
    "convolutional": (coders.ConvolutionalEncoder, coders.ViterbiDecoder, "1/2, 2/3, 3/4 or 5/6"),
    "ldpc": (coders.LdpcEncoder, coders.LdpcDecoder, "1/5 to 9/10"),
}


def _fraction(value: str | float) -> str:
    try:
        rate = Fraction(str(value))
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if rate <= 0:
        raise ValueError(f'must be a fraction such as "1/2" or 0.5, not {value!r}')
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


class _Coder:
    """A scheme at work: its encoder, or its decoder, and how long what they make is."""

    def __init__(self, scheme: Scheme, decoder: bool, context: Context, **params: Any):
        self.scheme, self.bits_per_symbol = scheme, scheme.bits_per_symbol
        encoder_type, decoder_type, _ = _CODERS[scheme.code]
        kind = decoder_type if decoder else encoder_type
        chosen = {key: value for key, value in params.items() if key in kind.Params.model_fields}
        self.block = kind(scheme.coder_params | chosen, context=context)
        self.params = self.block.params
        self.block.start()
        map_symbols(np.zeros(0, np.uint8), 0, scheme.modulation)  # compiles before the graph runs

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


class _Params(BlockParams):
    """A profile, of which both ends must be told the same."""

    profile: dict[str, Scheme] = Field(
        description="code, rate and modulation by the class of a stretch; `default` is for classes that are not named"
    )

    @field_validator("profile")
    @classmethod
    def _complete(cls, profile: dict[str, Scheme]) -> dict[str, Scheme]:
        classes = (*get_args(Protection), "default")
        for name in profile:
            if name not in classes:
                raise ValueError(f"must have classes out of {', '.join(classes)}, not {name!r}")
        if "default" not in profile:
            raise ValueError("must have an entry `default`, for bits of no class that is named")
        return profile

    @property
    def schemes(self) -> list[Scheme]:
        """The different schemes of the profile, in order."""
        return list(dict.fromkeys(self.profile.values()))

    @property
    def fingerprint(self) -> bytes:
        """What the preamble's checksum covers of the schemes."""
        return json.dumps([scheme.model_dump() for scheme in self.schemes]).encode()


def _stretches(frame: Packet, params: _Params) -> list[Stretch]:
    """Return the stretches of a frame of bits: neighbours of one scheme are one."""
    schemes = params.schemes
    starts = {0: "default"} | {tag.offset: str(tag.value) for tag in frame.tags if tag.key == "protection"}
    places = [*sorted(place for place in starts if place < frame.count), frame.count]
    found: list[Stretch] = []
    for begin, end in pairwise(places):
        scheme = schemes.index(params.profile.get(starts[begin], params.profile["default"]))
        bits = end - begin
        if found and found[-1].scheme == scheme:
            bits += found.pop().bits
        found.append(Stretch(scheme, bits))
    return [Stretch(scheme, part) for scheme, bits in found for part in _parts(bits)]


def _parts(bits: int) -> Iterator[int]:
    """Cut a stretch so that its parts can be told of in a preamble."""
    for begin in range(0, bits, preamble.LONGEST):
        yield min(preamble.LONGEST, bits - begin)


def _cut(frame: Packet, gone: np.ndarray | None, data: np.ndarray, begin: int, end: int) -> Packet:
    """Return items `begin` to `end` of a frame as a frame of its own: `data`, with what is told of them."""
    tags = tuple(
        tag._replace(offset=tag.offset - begin)
        for tag in frame.tags
        if begin <= tag.offset < end and tag.key not in (ERASED, "link_rate")
    )
    piece = Packet(data, frame.frame, 0, end - begin, frame.packed, tags, last=True)
    return piece.with_erased(None if gone is None else gone[begin:end])


def _at_the_end(frame: Packet, end: int) -> list[Tag]:
    """Return the tags that stand behind a frame's last item, put behind its new last item."""
    return [tag._replace(offset=end) for tag in frame.tags if tag.offset >= frame.count > 0]


class UnequalModulator(Block):
    """Code and map each stretch of a frame as the profile has it for its class, behind a preamble that tells of them.

    Classes are the tags `protection` of a frame's bits, which a `bit_serializer` gives; bits without one, and of
    classes that the profile does not name, go by its `default`. Neighbouring stretches with the same code, rate and
    modulation are coded as one. A frame of no bits is sent as no symbols.

    Frames begin with the tags `bits_per_symbol`, the mean over the frame, and `link_rate`, payload bits over the bits
    that the frame's symbols hold: a channel with `ebn0` counts all energy, of parity, preamble and padding too, over
    the payload. Every stretch begins with the tag `modulation`.
    """

    Params = _Params
    inputs = (Port("bits", "bits", "payload", whole=True),)
    outputs = (Port("symbols", "complex64", "Es = 1"),)

    def start(self) -> None:
        self.coders = [_Coder(scheme, False, self.context) for scheme in self.params.schemes]
        gray = all(constellation(scheme.modulation).gray for scheme in self.params.schemes)
        self.report("link", gray=gray)

    def work(self, bits: Packet) -> Packet:
        stretches = _stretches(bits, self.params)
        if len(stretches) > preamble.MOST:
            raise BlockError(f"frame {bits.frame} must have at most {preamble.MOST} stretches, not {len(stretches)}")
        if not bits.count:
            return replace(bits, data=np.empty(0, np.complex64), packed=False)
        told = preamble.encode(stretches, self.params.fingerprint)
        parts = [map_symbols(np.packbits(told), told.size, PREAMBLE)]
        held, begin, at = told.size, 0, len(parts[0])
        tags: list[Tag] = [Tag(0, "modulation", PREAMBLE)]
        payload, gone = np.unpackbits(bits.data, count=bits.count), bits.erased()
        for scheme, size in stretches:
            coder, end = self.coders[scheme], begin + size
            coded = coder.work(_cut(bits, gone, np.packbits(payload[begin:end]), begin, end), size)
            symbols = map_symbols(coded.data, coded.count, coder.scheme.modulation)
            made = coded.derive(symbols, Fraction(1, coder.bits_per_symbol))
            for tag in made.tags:
                first = begin == tag.offset == 0 and tag.key != ERASED  # tells of the frame: goes before the preamble
                if tag.key != "link_rate":
                    tags.append(tag._replace(offset=0 if first else at + tag.offset))
            tags.append(Tag(at, "modulation", coder.scheme.modulation))
            parts.append(symbols)
            held += len(symbols) * coder.bits_per_symbol
            begin, at = end, at + len(symbols)
        tags += _at_the_end(bits, at)
        tags.append(Tag(0, "bits_per_symbol", held / at))
        tags.append(Tag(0, "link_rate", bits.count / held * bits.tag("link_rate", 1.0)))
        tags.sort(key=lambda tag: tag.offset)
        return Packet(np.concatenate(parts), bits.frame, tags=tuple(tags), last=True)


class UnequalDemodulator(Block):
    """Undo `unequal_modulator`: read the preamble, then demap and decode every stretch.

    The noise power N0 is the mean squared distance of the preamble's symbols to what was evidently sent. With `gains`
    the symbols are taken as equalised by them, and where a channel estimator told its `estimate`, that is taken.

    Every stretch begins with the tag `estimate`: n0, esn0_db, as `channel_ber` the error rate of its symbols' bits and
    as `ber` that to be expected of its decoded ones. What did not come, and symbols that are NaN or infinite, are
    erasures. Of a frame whose preamble cannot be read the bits are not known, nor how many: it is empty. The report
    counts such frames in `preambles_wrong`, and has under `protection` what the decoders tell: of LDPC stretches, by
    scheme and in all, `blocks`, `blocks_wrong`, `bler` and `iterations`.
    """

    class Params(_Params):
        output: Literal["hard", "llr8"] = Field(
            "hard", description="decisions, or int8 LLRs: of a Viterbi decoder's bits, those of their error rate"
        )

    inputs = (
        Port("symbols", "complex64", "Es = 1, equalised", whole=True),
        Port("gains", "complex64", "channel gains that were equalised", optional=True),
    )
    outputs = (Port("bits", ("bits", "int8"), "payload", chosen=lambda p: {"hard": "bits", "llr8": "int8"}[p.output]),)
    equal_rates = ("symbols", "gains")

    def start(self) -> None:
        self.coders: list[_Coder] = []
        self.figures: dict[str, dict[str, Any]] = {}  # that decoders report, by scheme
        for scheme in self.params.schemes:
            told = self.figures.setdefault(str(scheme), {})
            context = replace(self.context, report=partial(_note, told))
            self.coders.append(_Coder(scheme, True, context, output=self.params.output))
            llr(np.zeros(1, np.complex64), 1.0, scheme.modulation, int8=True)  # compiles before the graph runs
        self.estimators = [NoiseEstimator(constellation(scheme.modulation)) for scheme in self.params.schemes]
        self.preambles_wrong = 0

    def work(self, symbols: Packet | None, gains: Packet | None = None) -> Packet | None:
        if symbols is None:
            return None
        frame, stretches, at = _Received(symbols, gains), list[Stretch](), symbols.count
        if symbols.count:
            try:
                stretches, at = self._read_preamble(frame)
            except FrameError as error:
                self.preambles_wrong += 1
                self.warn(f"frame {symbols.frame} is lost: {error}")
        pieces, end = [Packet(np.empty(0, np.int8), symbols.frame, last=True)], 0
        tags = [tag._replace(offset=0) for tag in symbols.tags if tag.offset < at and tag.key != ERASED]
        for scheme, bits in stretches:
            piece = self._decode(frame, scheme, at, bits)
            tags += [tag._replace(offset=end + tag.offset) for tag in piece.tags]
            pieces.append(piece)
            at, end = at + self.coders[scheme].symbols(bits), end + bits
        tags += _at_the_end(symbols, end)
        tags = [_behind(tag) for tag in tags if tag.key != "modulation"]
        data = np.concatenate([piece.data for piece in pieces])
        hard = self.params.output == "hard"
        return Packet(np.packbits(data < 0) if hard else data, symbols.frame, 0, end, hard, tuple(tags), last=True)

    def _read_preamble(self, frame: _Received) -> tuple[list[Stretch], int]:
        """Return the stretches and where the first one begins; the frame learns its noise, and gets its full length.

        Raises `FrameError`.
        """
        per_symbol = constellation(PREAMBLE).bits_per_symbol
        if frame.count * per_symbol < preamble.COUNT_BITS:
            raise FrameError("preamble cut short")
        soft = frame.soft(0, preamble.COUNT_BITS // per_symbol, PREAMBLE)
        size = preamble.coded_bits(preamble.count(soft)) // per_symbol
        if frame.count < size:
            raise FrameError("preamble cut short, or damaged")
        stretches = preamble.decode(frame.soft(0, size, PREAMBLE), self.params.fingerprint)
        if any(stretch.scheme >= len(self.coders) for stretch in stretches):
            raise FrameError("preamble tells of a scheme that the profile does not have")
        length = size + sum(self.coders[scheme].symbols(bits) for scheme, bits in stretches)
        if length > 2 * frame.count + SLACK:
            raise FrameError(f"{frame.count} symbols came where the preamble tells of {length}")
        sent = preamble.encode(stretches, self.params.fingerprint)
        frame.learn_noise(map_symbols(np.packbits(sent), sent.size, PREAMBLE))
        frame.extend(length)
        return stretches, size

    def _decode(self, frame: _Received, scheme: int, at: int, bits: int) -> Packet:
        """Return the `bits` payload bits of the stretch whose symbols begin at `at`: LLRs in quarters."""
        coder, estimator = self.coders[scheme], self.estimators[scheme]
        count, end = coder.coded_bits(bits), at + coder.symbols(bits)
        piece = _cut(frame.symbols, frame.gone, frame.y[at:end], at, end)
        llrs = llr(frame.y[at:end], frame.n0, coder.scheme.modulation, frame.part(at, end), int8=True)[:count]
        estimator.weigh(*frame.came(at, end), frame.n0)
        told = [Tag(0, "estimate", {**estimator.estimate(), "source": frame.source})] if estimator.symbols else []
        soft = piece.derive(llrs, coder.bits_per_symbol, count)
        made = coder.work(replace(soft, tags=(*(t for t in soft.tags if t.key != "estimate"), *told)), bits)
        quarters = _quarters(made)
        return replace(made, data=quarters, packed=False, tags=tuple(_retold(tag, quarters) for tag in made.tags))

    def stop(self) -> None:
        for coder in self.coders:
            coder.block.stop()
        told = {name: figures for name, figures in self.figures.items() if figures}
        figures: dict[str, Any] = {"preambles_wrong": self.preambles_wrong}
        if told:
            blocks = sum(each["blocks"] for each in told.values())
            wrong = sum(each["blocks_wrong"] for each in told.values())
            rounds = sum(each["iterations"] * each["blocks"] for each in told.values())
            figures |= {"blocks": blocks, "blocks_wrong": wrong, "bler": wrong / blocks, "iterations": rounds / blocks}
            figures["protection"] = told
        self.report("link", **figures)


class _Received:
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

    def learn_noise(self, sent: np.ndarray) -> None:
        """Take N0 from symbols at the frame's start that are known, or as a channel estimator told it."""
        if self.told:
            self.n0, self.source = self.told["effective_n0"], self.told["source"]
            return
        y, h = self.came(0, len(sent))
        with np.errstate(invalid="ignore"):  # symbols that are infinite
            errors = np.abs(h * (y - sent[~self.gone[: len(sent)]])).astype(np.float64) ** 2
        errors = errors[np.isfinite(errors)]
        self.n0 = max(float(errors.mean()), LEAST_N0) if len(errors) else 1.0

    def extend(self, length: int) -> None:
        """Fill up to a length with symbols that did not come; drop those beyond."""
        more = max(length - self.count, 0)
        self.y = np.pad(self.y[:length], (0, more))
        self.gone = np.pad(self.gone[:length], (0, more), constant_values=True)
        if self.h is not None:
            self.h = np.pad(self.h[:length], (0, more))


def _note(figures: dict[str, Any], section: str, frame: int | None, values: dict[str, Any]) -> None:
    """Keep what a decoder reports."""
    figures.update(values)


def _quarters(made: Packet) -> np.ndarray:
    """Return a decoder's bits as LLRs in quarters, int8: decisions by the error rate that is expected of them."""
    if not made.packed:
        return made.data
    estimate = made.tag("estimate")
    p = min(max(estimate["ber"] if estimate else 0.5, SUREST), 0.5)
    size = min(max(round(4 * math.log((1 - p) / p)), 1), 127)
    return np.where(np.unpackbits(made.data, count=made.count), -size, size).astype(np.int8)


def _retold(tag: Tag, quarters: np.ndarray) -> Tag:
    """Return a tag as it holds behind a decoder: where that did not see to it, the LLRs tell their error rate."""
    if tag.key == "estimate" and "channel_ber" not in tag.value:
        wrong = float((1 / (1 + np.exp(np.abs(quarters.astype(np.float32)) / 4))).mean())
        return tag._replace(value={**tag.value, "channel_ber": tag.value["ber"], "ber": wrong})
    return tag


def _behind(tag: Tag) -> Tag:
    """Return a tag of symbols as it holds of the bits made of them, whose error rate no closed form tells."""
    return tag._replace(value={**tag.value, "coded": True}) if tag.key == "true_channel" else tag
