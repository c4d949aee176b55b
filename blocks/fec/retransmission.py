"""Semantic retransmission: the receiver asks again for a damaged caption and for what leaves its latent unsure.

A frame is cut into parts of `part_bits` bits. A request has a byte for each, 1 where it is wanted again; the LLRs of
both times are added up. Common ARQ asks for what is wrong; this asks for what would change the picture: a part may
have errors and not be asked for.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field

from blocks.fec.stretch import behind
from blocks.framing import latents
from blocks.framing.frame import HEADER_BITS, FrameError, Header
from blocks.framing.scrambler import scrambling
from flowgraph.block import Block, BlockError, Packet, Port
from flowgraph.block import Params as BlockParams

PART_BITS = Field(384, ge=8, multiple_of=8, description="bits of a part, the same at all three blocks")


class _Params(BlockParams):
    part_bits: int = PART_BITS


def _chosen(wanted: Packet, part_bits: int, count: int, frame: int) -> np.ndarray:
    """Return which of a frame's `count` bits a request asks for: bool."""
    parts = -(-count // part_bits)
    if wanted.count != parts:
        raise BlockError(
            f"request for frame {frame} has {wanted.count} parts, not {parts}: give all blocks the same part_bits"
        )
    return np.repeat(wanted.data.astype(np.bool_), part_bits)[:count]


class RetransmissionRequester(Block):
    """Ask again for the parts of a frame that hold a damaged caption, or a latent of which the receiver is unsure.

    A caption is damaged where its CRC fails: all parts with bits of it are asked for. Of the latent those are whose
    mean posterior variance Var[z | y] (`blocks.framing.latents.read_quantised`, of LLRs and N(0, 1)) is above a limit,
    every bit of a value counting with it. Where the header cannot be read, all parts are asked for.
    """

    class Params(BlockParams):
        above: float | None = Field(
            0.05,
            ge=0,
            lt=1,
            description="variance from which a part of the latent is asked for, of a quantiser in groups; N(0, 1) has "
            "1; null asks for captions alone, beside any latent",
        )
        part_bits: int = PART_BITS

    inputs = (Port("bits", "int8", "LLRs of frames of a bit_serializer, in quarters", whole=True),)
    outputs = (Port("wanted", "uint8", "1 for each part that is asked for"),)

    def work(self, bits: Packet | None) -> Packet | None:
        if bits is None:
            return None
        size, above = self.params.part_bits, self.params.above
        try:
            doubt = _doubt(bits, above is not None)
        except FrameError:
            doubt = np.full(bits.count, np.inf, np.float32)
        sums = np.add.reduceat(doubt, np.arange(0, bits.count, size)) if bits.count else np.empty(0, np.float32)
        lengths = np.minimum(bits.count - size * np.arange(len(sums)), size)
        return Packet((sums > (above or 0.0) * lengths).astype(np.uint8), bits.frame, last=True)


def _doubt(bits: Packet, latent: bool) -> np.ndarray:
    """Return for every bit of a frame how unsure what it belongs to is: float32. Raises `FrameError`.

    Of a latent the posterior variance of the value, where asked for; of a damaged caption infinity; else 0.
    """
    if bits.count < HEADER_BITS:
        raise FrameError("header cut short")
    llrs = bits.data.astype(np.float32) / 4
    signs = 1 - 2 * np.unpackbits(scrambling(0, -(-bits.count // 8)), count=bits.count).astype(np.float32)
    header = Header.unpack(llrs[:HEADER_BITS] * signs[:HEADER_BITS])
    if header.bits != bits.count:
        raise FrameError("frame cut short")
    if header.scrambled:
        llrs *= signs
    caption = slice(header.caption_start, header.latent_start)
    doubt = np.zeros(bits.count, np.float32)
    if header.text and header.read_caption(llrs[caption])[1] is None:
        doubt[caption] = np.inf
    if latent and header.latent:
        if header.by_plane or not latents.is_quantised(header.latent):
            form = f"{header.latent} by planes" if header.by_plane else header.latent
            raise BlockError(
                f"semantic retransmission needs a latent of quant2 to quant8 in groups, not {form}: give above: null "
                "to have captions sent again alone"
            )
        _, variance = latents.read_quantised(llrs[header.latent_start :], header.latent)
        groups = [variance[at : at + 4] for at in range(0, len(variance), 4)]  # which share their bits' places
        each = latents.bits_per_value(header.latent)
        doubt[header.latent_start :] = np.concatenate([np.repeat(group.mean(), group.size * each) for group in groups])
    return doubt


class Retransmitter(Block):
    """Send again the parts of a frame that were asked for, one behind the other.

    The report has `bits_again` under `link`, bits sent again over bits of frames.
    """

    Params: ClassVar[type[BlockParams]] = _Params
    inputs = (
        Port("bits", "bits", "frames as they were sent", whole=True),
        Port("wanted", "uint8", "request of a retransmission_requester", whole=True),
    )
    outputs = (Port("bits", "bits", "parts that were asked for"),)

    def start(self) -> None:
        self.total = self.again = 0

    def work(self, bits: Packet | None, wanted: Packet | None) -> Packet | None:
        if bits is None or wanted is None:
            return None
        chosen = _chosen(wanted, self.params.part_bits, bits.count, bits.frame)
        again = np.unpackbits(bits.data, count=bits.count)[chosen]
        self.total, self.again = self.total + bits.count, self.again + again.size
        return Packet(np.packbits(again), bits.frame, 0, again.size, packed=True, last=True)

    def stop(self) -> None:
        if self.total:
            self.report("link", bits_again=self.again / self.total)


class ChaseCombiner(Block):
    """Add the LLRs of parts that came again to those of the frame (D. Chase, "Code combining", 1985)."""

    Params: ClassVar[type[BlockParams]] = _Params
    inputs = (
        Port("bits", "int8", "LLRs of the frame, in quarters", whole=True),
        Port("again", "int8", "LLRs of what was sent again", whole=True),
        Port("wanted", "uint8", "request of a retransmission_requester", whole=True),
    )
    outputs = (Port("bits", "int8", "LLRs in quarters"),)

    def work(self, bits: Packet | None, again: Packet | None, wanted: Packet | None) -> Packet | None:
        if bits is None or wanted is None:
            return bits
        places = np.flatnonzero(_chosen(wanted, self.params.part_bits, bits.count, bits.frame))
        came = again.data[: places.size] if again is not None else np.empty(0, np.int8)
        sums = bits.data.astype(np.int16)
        sums[places[: came.size]] += came
        tags = tuple(behind(tag) for tag in bits.tags if tag.key != "estimate")  # that is of the first time alone
        return Packet(np.clip(sums, -127, 127).astype(np.int8), bits.frame, tags=tags, last=True)
