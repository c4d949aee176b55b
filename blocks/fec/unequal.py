"""Unequal protection: every stretch of a frame goes by the code and the modulation that its class has in a profile.

To its coder a stretch is a frame of its own, cut into even blocks: `blocks.fec.coders` does the work. Where stretches
lie travels before them, in a preamble in QPSK (`blocks.fec.preamble`), which also tells the receiver the noise.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Any, Literal, get_args

import numpy as np
from pydantic import Field, field_validator

from blocks.fec import preamble
from blocks.fec.preamble import Stretch
from blocks.fec.stretch import SLACK, Coder, Received, Scheme, at_the_end, behind, cut
from blocks.framing.frame import FrameError, Protection
from blocks.phy.constellation import constellation
from blocks.phy.qam import map_symbols
from flowgraph.block import ERASED, Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

PREAMBLE = "qpsk"


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
        self.coders = [Coder(scheme, False, self.context) for scheme in self.params.schemes]
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
            coded = coder.work(cut(bits, gone, np.packbits(payload[begin:end]), begin, end), size)
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
        tags += at_the_end(bits, at)
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
        self.coders: list[Coder] = []
        self.figures: dict[str, dict[str, Any]] = {}  # that decoders report, by scheme
        for scheme in self.params.schemes:
            told = self.figures.setdefault(str(scheme), {})
            context = replace(self.context, report=partial(_note, told))
            self.coders.append(Coder(scheme, True, context, output=self.params.output))
        self.preambles_wrong = 0

    def work(self, symbols: Packet | None, gains: Packet | None = None) -> Packet | None:
        if symbols is None:
            return None
        frame, stretches, at = Received(symbols, gains), list[Stretch](), symbols.count
        if symbols.count:
            try:
                stretches, at = self._read_preamble(frame)
            except FrameError as error:
                self.preambles_wrong += 1
                self.warn(f"frame {symbols.frame} is lost: {error}")
        pieces, end = [Packet(np.empty(0, np.int8), symbols.frame, last=True)], 0
        tags = [tag._replace(offset=0) for tag in symbols.tags if tag.offset < at and tag.key != ERASED]
        for scheme, bits in stretches:
            piece = self.coders[scheme].receive(frame, at, bits)
            tags += [tag._replace(offset=end + tag.offset) for tag in piece.tags]
            pieces.append(piece)
            at, end = at + self.coders[scheme].symbols(bits), end + bits
        tags += at_the_end(symbols, end)
        tags = [behind(tag) for tag in tags if tag.key != "modulation"]
        data = np.concatenate([piece.data for piece in pieces])
        hard = self.params.output == "hard"
        return Packet(np.packbits(data < 0) if hard else data, symbols.frame, 0, end, hard, tuple(tags), last=True)

    def _read_preamble(self, frame: Received) -> tuple[list[Stretch], int]:
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


def _note(figures: dict[str, Any], section: str, frame: int | None, values: dict[str, Any]) -> None:
    """Keep what a decoder reports."""
    figures.update(values)
