"""Encoders and decoders as blocks: LDPC, convolutional, repetition.

A frame is cut into code blocks of equal size, the last of which is what is left; every block can be told from the
number of bits that came, so that nothing but the coded bits crosses the link. Coded frames begin with the tag
`link_rate`, payload bits a sent bit, by which a channel with `ebn0` spreads the energy: that of a full block, or of a
frame that is shorter than one.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from dataclasses import replace
from fractions import Fraction
from statistics import NormalDist
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field, model_validator

from blocks.fec import convolutional, crc
from blocks.fec.ldpc import LARGEST, LdpcCode, base_graph
from blocks.model import KERNEL_DEVICE, KernelDevice, gpu
from flowgraph.block import Block, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

SURE = 20  # quarters: the LLR that a hard decision is taken for
CERTAIN = 127  # quarters: the largest LLR
LEAST_CHECKS = 24  # bits by which the shortest LDPC block is longer than its payload and checksum
DISPERSION = 3.0  # by which the rate of an LDPC block of n bits stays below capacity, times sqrt(n)


def coded_length(code: Any, bits: int) -> int:
    """Return how many bits a frame of so many is sent as by the encoder with the parameters `code`."""
    full, rest = divmod(bits, code.block_bits)
    return full * code.coded(code.block_bits) + (code.coded(rest) if rest else 0)


def even(code: Any, bits: int) -> Any:
    """Return the parameters `code` with LDPC blocks of one length, all at its rate, for a frame of so many bits."""
    if not isinstance(code, _LdpcParams) or not bits:
        return code
    blocks = -(-bits // code.block_bits)
    return code.model_copy(update={"block_bits": -(-bits // blocks)})


class _Encoder(Block):
    """What encoders share: blocks of `block_bits` bits become `params.coded(block_bits)` bits."""

    outputs = (Port("bits", "bits", "coded"),)

    def work(self, bits: Packet) -> Packet:
        payload, k = np.unpackbits(bits.data, count=bits.count), self.params.block_bits
        full, rest = divmod(bits.count, k)
        parts = [np.empty(0, np.uint8)]
        if full:
            parts.append(self.encode(payload[: full * k].reshape(full, k)).ravel())
        if rest:
            parts.append(self.encode(payload[full * k :][None])[0])
        coded, ratio = np.concatenate(parts), Fraction(self.params.coded(k), k)
        out = bits.derive(np.packbits(coded), ratio, len(coded), packed=True)
        return _with_link_rate(out, bits, rest / len(coded) if rest and not full else float(1 / ratio))

    @abstractmethod
    def encode(self, bits: np.ndarray) -> np.ndarray:
        """Return uint8 [blocks, coded(k)] of 0 and 1 for [blocks, k]."""


def _with_link_rate(out: Packet, bits: Packet, rate: float) -> Packet:
    """Return a coded packet with the rate of all codes so far, at the frame's start."""
    if bits.offset:
        return out
    others = tuple(tag for tag in out.tags if tag.key != "link_rate")
    return replace(out, tags=others).tagged(link_rate=rate * bits.tag("link_rate", 1.0))


class _Teller(Block):
    """What all that decodes tells of its bits: error rates of the channel are no more theirs."""

    frame = -1
    items = 0  # of this frame
    wrong = 0.0  # how many of them are expected to be

    def _told(self, made: Packet) -> Packet:
        """Return a packet with its tags as they hold behind the decoder."""
        return replace(made, tags=tuple(self._retold(tag, made.end) for tag in made.tags))

    def _retold(self, tag: Tag, end: int) -> Tag:
        value = tag.value
        if tag.key == "true_channel":
            spread = value.get("coded") and "code_bits" not in value  # by an interleaver behind another decoder
            blocks = {} if spread else {"code_bits": max(self.params.block_bits, value.get("code_bits", 0))}
            value = {**value, **blocks, "coded": True}
        elif tag.key == "estimate":
            value = {**value, "channel_ber": value.get("ber"), "ber": self.wrong / max(self.items, 1)}
        return Tag(min(tag.offset, end), tag.key, value)


class _Decoder(_Teller):
    """What decoders share: blocks of `params.coded(block_bits)` LLRs become `block_bits` bits."""

    def work(self, bits: Packet) -> Packet:
        llrs, k = _quarters(bits), self.params.block_bits
        n = self.params.coded(k)
        if bits.frame != self.frame:
            self.frame, self.items, self.wrong = bits.frame, 0, 0.0
        full, rest = divmod(bits.count, n)
        parts = [(np.empty(0, np.int8), np.empty(0, np.bool_))]
        if full:
            parts.append(self._decode(llrs[: full * n].reshape(full, n), k))
        if rest:
            left = self._payload_of(rest)
            padded = np.zeros(self.params.coded(left), np.int8)
            padded[:rest] = llrs[full * n :]
            if len(padded) != rest:
                self.warn(f"frame {bits.frame} ends within a code block; what is missing is taken for erased")
            parts.append(self._decode(padded[None], left))
        out, gone = (np.concatenate(each) for each in zip(*parts, strict=True))
        soft = getattr(self.params, "output", "hard") == "llr8"
        made = bits.derive(out if soft else np.packbits(out < 0), Fraction(k, n), len(out), packed=not soft)
        made = made.with_erased(gone if gone.any() else None)  # what is missing in part has been filled in
        return self._told(made)

    def _decode(self, llrs: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the bits of blocks as LLRs, and which are missing: those of blocks of which nothing came."""
        came = llrs.any(1)
        decoded = np.zeros((len(llrs), bits), np.int8)
        if came.any():
            decoded[came], wrong = self.decode(llrs[came], bits)
            self.items += int(came.sum()) * bits
            self.wrong += wrong
        return decoded.ravel(), np.repeat(~came, bits)

    def _payload_of(self, coded: int) -> int:
        """Return the fewest bits of which at least so many coded ones are made."""
        low, high = 1, self.params.block_bits
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.params.coded(middle) >= coded else (middle + 1, high)
        return low

    @abstractmethod
    def decode(self, llrs: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
        """Return LLRs int8 [blocks, bits] for [blocks, coded(bits)], and how many of them are expected to be wrong."""


def _quarters(packet: Packet) -> np.ndarray:
    """Decisions or LLRs as LLRs in quarters, int8; 0 where they are NaN or erased."""
    if packet.packed:
        llrs = SURE - 2 * SURE * np.unpackbits(packet.data, count=packet.count).view(np.int8)
    elif packet.dtype == "int8":
        llrs = packet.data
    else:
        llrs = np.rint(4 * np.clip(np.nan_to_num(packet.data, nan=0.0), -31.75, 31.75)).astype(np.int8)
    gone = packet.erased()
    return llrs if gone is None else np.where(gone, np.int8(0), llrs)


def expected_errors(llrs: np.ndarray) -> float:
    """Return how many bits of LLRs in quarters, int8, are expected to be wrong: the sum of 1 / (1 + exp |LLR|)."""
    sizes = np.bincount(np.abs(llrs.ravel().astype(np.int16)), minlength=129)
    return float(sizes @ (1 / (1 + np.exp(np.arange(129) / 4))))


SOFT_OR_HARD = ("bits", "float32", "int8")


def code_rate(value: str | float) -> Fraction:
    """Return the rate that a text or a number stands for. Raises `ValueError`, for powers of 10 too: they may be huge.

    >>> code_rate("2/3"), code_rate(0.5)
    (Fraction(2, 3), Fraction(1, 2))
    """
    text = str(value)
    if re.fullmatch(r"(\d+(\.\d*)?|\.\d+|\d+/0*[1-9]\d*)", text) and len(text) <= 24:
        return Fraction(text)
    raise ValueError(f'must be a fraction such as "1/2" or 0.5, not {text[:24]!r}')


# LDPC


def _ldpc_rate(value: str | float) -> str:
    rate = code_rate(value)
    if not Fraction(1, 5) <= rate <= Fraction(9, 10):
        raise ValueError(f"must be 1/5 to 9/10, not {value}")
    return str(rate)


def _decodable(versions: tuple[int, ...]) -> tuple[int, ...]:
    if not {0} <= {*versions} <= {0, 1, 2, 3}:
        raise ValueError(f"must be a list of versions 0 to 3, with 0, which holds the payload, not {list(versions)}")
    return versions


class _LdpcParams(BlockParams):
    """A code, of which encoder and decoder must be told the same."""

    rate: Annotated[str | float, AfterValidator(_ldpc_rate)] = Field(
        "1/2",
        description="payload bits a sent bit of one version of a full block, 1/5 to 9/10; a checksum is no payload",
    )
    redundancy_versions: Annotated[tuple[int, ...], AfterValidator(_decodable)] = Field(
        (0,),
        description="versions 0 to 3 that every block is sent in, one after the other, and that the decoder combines: "
        "[0, 2] halves the rate",
    )
    block_bits: int = Field(
        8400, ge=64, le=8424, multiple_of=8, description="payload bits of a code block; long ones mend more errors"
    )
    checksum: Literal["none", "crc16", "crc24a", "crc24b", "crc32"] = Field(
        "crc24b", description="checksum at the end of every block"
    )
    order: int = Field(4, ge=1, le=10, description="bits a symbol, which blocks are interleaved for: 4 for 16QAM")

    @model_validator(mode="after")
    def _fits(self) -> _LdpcParams:
        most = LARGEST[1] - self._checksum_bits
        if self.block_bits > most:
            raise ValueError(f"must have block_bits of at most {most} with checksum: {self.checksum}")
        return self

    def coded(self, bits: int) -> int:
        """Bits that a block of so many payload bits is sent as."""
        return len(self.redundancy_versions) * self._coded_once(bits)

    def _coded_once(self, bits: int) -> int:
        """Bits of a version: a block shorter than `block_bits` has the more checks for it, so as to be as safe.

        At one SNR and error rate k = C n - c sqrt(n), with c the `DISPERSION`: the normal approximation of Y.
        Polyanskiy, H. V. Poor and S. Verdu, "Channel coding rate in the finite blocklength regime", 2010.
        """
        k, longest = bits + self._checksum_bits, self.block_bits + self._checksum_bits
        n = max(math.ceil(self.block_bits / Fraction(self.rate)), longest + LEAST_CHECKS)  # of a full block
        capacity = longest / n + DISPERSION / math.sqrt(n)
        root = (DISPERSION + math.sqrt(DISPERSION**2 + 4 * capacity * k)) / (2 * capacity)
        return k + min(max(math.ceil(root**2) - k, LEAST_CHECKS), n - longest)

    @property
    def _checksum_bits(self) -> int:
        return 0 if self.checksum == "none" else crc.width(self.checksum)

    def code(self, bits: int) -> LdpcCode:
        """The code of a block of so many payload bits."""
        k, n = bits + self._checksum_bits, self._coded_once(bits)
        graph = base_graph(k, k / n)
        return LdpcCode(k, n, graph if k <= LARGEST[graph] else 1, self.order, self.redundancy_versions)


class LdpcEncoder(_Encoder):
    """Protect frames by the LDPC code of 5G NR (3GPP TS 38.212), in blocks of `block_bits`, each with a checksum.

    A frame's last block is what is left, at a lower rate, so that it is lost no more often. Of each block all
    `redundancy_versions` are sent before the next begins. Frames begin with the tag `link_rate`, payload bits a sent
    bit, all versions counted.
    """

    Params = _LdpcParams
    inputs = (Port("bits", "bits", "payload", align=lambda p: p.block_bits),)
    ratio = staticmethod(lambda p: Fraction(p.coded(p.block_bits), p.block_bits))

    def start(self) -> None:
        self.encode(np.zeros((1, self.params.block_bits), np.uint8))  # compiles before the graph runs

    def encode(self, bits: np.ndarray) -> np.ndarray:
        return self.params.code(bits.shape[1]).encode(_with_checksum(bits, self.params.checksum))


class LdpcDecoder(_Decoder):
    """Undo `ldpc_encoder`: layered offset min-sum in int8, until all checks of a block hold.

    The tag `estimate` of a frame then has as `ber` the share of bits that are expected to be wrong now, and as
    `channel_ber` that before decoding. The report counts `blocks` and `blocks_wrong`, those whose checks or checksum
    do not hold, and has their ratio `bler` and the mean number of `iterations`. A frame that ends within a block is
    filled up with erasures. An LLR of 0 or NaN is an erasure, an infinite one the largest. On a GPU (`device`) results
    are the same to the last bit.
    """

    class Params(_LdpcParams):
        iterations: int = Field(20, ge=1, le=200, description="iterations at most")
        output: Literal["hard", "llr8"] = Field(
            "hard",
            description="decisions, or int8 LLRs: those of a block that came right are the largest, of others too sure",
        )
        device: KernelDevice = KERNEL_DEVICE

    inputs = (Port("bits", SOFT_OR_HARD, "LLRs, or decisions", align=lambda p: p.coded(p.block_bits)),)
    outputs = (Port("bits", ("bits", "int8"), "payload", chosen=lambda p: {"hard": "bits", "llr8": "int8"}[p.output]),)
    ratio = staticmethod(lambda p: Fraction(p.block_bits, p.coded(p.block_bits)))

    def start(self) -> None:
        self.blocks = self.blocks_wrong = self.rounds = 0
        k, self.device = self.params.block_bits, gpu(self.params.device)
        self.params.code(k).decode(np.full((1, self.params.coded(k)), SURE, np.int8), device=self.device)  # compiles

    def decode(self, llrs: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
        decoded, ok, rounds = self.params.code(bits).decode(llrs, self.params.iterations, self.device)
        good = ok & _checksum_holds((decoded < 0).view(np.uint8), self.params.checksum)
        payload = decoded[:, :bits]
        payload[good] = np.where(payload[good] < 0, -CERTAIN, CERTAIN)
        self.blocks += len(good)
        self.blocks_wrong += int((~good).sum())
        self.rounds += int(rounds.sum())
        return payload, expected_errors(payload[~good])

    def stop(self) -> None:
        if self.blocks:
            self.report(
                "link",
                blocks=self.blocks,
                blocks_wrong=self.blocks_wrong,
                bler=self.blocks_wrong / self.blocks,
                iterations=self.rounds / self.blocks,
            )


def _with_checksum(bits: np.ndarray, kind: Any) -> np.ndarray:
    """Append to every row of bits uint8 [blocks, k] its checksum."""
    if kind == "none":
        return bits
    packed, width = np.packbits(bits, axis=1), crc.width(kind)
    sums = np.array([crc.checksum(row, bits.shape[1], kind) for row in packed], ">u4").view(np.uint8).reshape(-1, 4)
    return np.hstack([bits, np.unpackbits(sums, axis=1)[:, 32 - width :]])


def _checksum_holds(bits: np.ndarray, kind: Any) -> np.ndarray:
    """Tell of every row of bits uint8 [blocks, k] whether it ends with the checksum of the rest: bool [blocks]."""
    if kind == "none":
        return np.ones(len(bits), np.bool_)
    width = crc.width(kind)
    return (_with_checksum(bits[:, :-width], kind)[:, -width:] == bits[:, -width:]).all(1)


# Convolutional


class _ConvolutionalParams(BlockParams):
    """A code, of which encoder and decoder must be told the same."""

    rate: Literal["1/2", "2/3", "3/4", "5/6"] = Field("1/2", description="bits a sent bit, the tail not counted")
    block_bits: int = Field(
        8192, ge=8, le=1 << 20, multiple_of=8, description="payload bits of a block, which a tail of 6 bits ends"
    )
    engine: Literal["semflow", "commpy"] = Field(
        "semflow", description="own kernels, or those of CommPy: thousands of times slower, to compare with"
    )

    def coded(self, bits: int) -> int:
        """Bits that a block of so many payload bits is sent as."""
        return convolutional.coded_bits(bits, self.rate)

    @property
    def code(self) -> Any:
        """The module whose `encode` and `decode` are called."""
        if self.engine == "commpy":
            from blocks import commpy_reference

            return commpy_reference
        return convolutional


class ConvolutionalEncoder(_Encoder):
    """Protect frames by the K = 7 convolutional code (133, 171 octal), in blocks of `block_bits`, each with its tail.

    A frame's last block is shorter. Frames begin with the tag `link_rate`, payload bits a sent bit.
    """

    Params = _ConvolutionalParams
    inputs = (Port("bits", "bits", "payload", align=lambda p: p.block_bits),)
    ratio = staticmethod(lambda p: Fraction(p.coded(p.block_bits), p.block_bits))

    def start(self) -> None:
        self.encode(np.zeros((1, 8), np.uint8))  # compiles before the graph runs

    def encode(self, bits: np.ndarray) -> np.ndarray:
        count, rate = bits.shape[1], self.params.rate
        n = self.params.coded(count)
        rows = [self.params.code.encode(row, count, rate) for row in np.packbits(bits, axis=1)]
        return np.stack([np.unpackbits(row, count=n) for row in rows])


class ViterbiDecoder(_Decoder):
    """Undo `convolutional_encoder`: the likeliest bits, by Viterbi's algorithm on soft values.

    The tag `estimate` of a frame then has as `channel_ber` its `ber`, and as `ber` the union bound for a channel on
    which as many decisions are wrong as differ from what was decoded, encoded again. A frame that ends within a block
    is filled up with erasures. An LLR of 0 or NaN is an erasure, an infinite one the largest.
    """

    Params = _ConvolutionalParams
    inputs = (Port("bits", SOFT_OR_HARD, "LLRs, or decisions", align=lambda p: p.coded(p.block_bits)),)
    outputs = (Port("bits", "bits", "payload"),)
    ratio = staticmethod(lambda p: Fraction(p.block_bits, p.coded(p.block_bits)))

    def start(self) -> None:
        self.params.code.decode(np.full(self.params.coded(8), SURE, np.int8), 8, self.params.rate)  # compiles

    def decode(self, llrs: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
        rate, out, wrong = self.params.rate, np.empty((len(llrs), bits), np.int8), 0.0
        for row, made in zip(llrs, out, strict=True):
            packed = self.params.code.decode(row, bits, rate)
            made[:] = SURE - 2 * SURE * np.unpackbits(packed, count=bits).view(np.int8)
            sent = np.unpackbits(convolutional.encode(packed, bits, rate), count=len(row)).view(np.bool_)
            differ = float(((row < 0) != sent)[row != 0].mean()) if row.any() else 0.5
            wrong += bits * convolutional.error_rate(_esn0_of(differ), rate)
        return out, wrong


def _esn0_of(error_rate: float) -> float:
    """Es/N0 of BPSK with an error rate, Q(sqrt(2 Es/N0))."""
    return NormalDist().inv_cdf(min(max(1 - error_rate, 0.5), 1 - 1e-12)) ** 2 / 2


# Repetition


class _RepetitionParams(BlockParams):
    times: int = Field(3, ge=1, le=1000, description="how often every bit is sent")
    block_bits: ClassVar[int] = 64  # that errors are counted together of: bits of one symbol hang together

    def coded(self, bits: int) -> int:
        """Bits that so many are sent as."""
        return bits * self.times


class Repeater(_Encoder):
    """Send every bit several times, one after the other; frames begin with the tag `link_rate`."""

    Params = _RepetitionParams
    inputs = (Port("bits", "bits", "payload", align=lambda p: p.block_bits),)
    ratio = staticmethod(lambda p: Fraction(p.times))

    def encode(self, bits: np.ndarray) -> np.ndarray:
        return np.repeat(bits, self.params.times, axis=1)


class Combiner(_Teller):
    """Undo `repeater`: add up the LLRs of every bit, bounded at 127 quarters.

    The tag `estimate` of a frame then has as `channel_ber` its `ber`, and as `ber` what the sums tell. An LLR of 0 or
    NaN is an erasure and adds nothing, an infinite one counts as 127 quarters.
    """

    Params = _RepetitionParams
    inputs = (Port("bits", SOFT_OR_HARD, "LLRs, or decisions", align=lambda p: p.coded(p.block_bits)),)
    outputs = (Port("bits", "int8", "LLRs in quarters"),)
    ratio = staticmethod(lambda p: Fraction(1, p.times))

    def work(self, bits: Packet) -> Packet:
        times, llrs = self.params.times, _quarters(bits)
        if bits.frame != self.frame:
            self.frame, self.items, self.wrong = bits.frame, 0, 0.0
        whole = np.zeros(-(-len(llrs) // times) * times, np.int32)  # of a bit cut short, what came
        whole[: len(llrs)] = llrs
        data = np.clip(whole.reshape(-1, times).sum(1), -CERTAIN, CERTAIN).astype(np.int8)
        self.items += len(data)
        self.wrong += expected_errors(data)
        made, gone = bits.derive(data, Fraction(1, times)), bits.erased()
        if gone is not None:
            missing = np.ones(len(whole), np.bool_)
            missing[: len(gone)] = gone
            made = made.with_erased(np.asarray(missing.reshape(-1, times).all(1)))
        return self._told(made)
