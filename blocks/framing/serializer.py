"""`bit_serializer`: captions and latents in, frames of bits out."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.framing import entropy, golay, latents
from blocks.framing.frame import LONGEST, Header, check
from blocks.framing.scrambler import scrambling
from flowgraph.block import LIVE, Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams
from flowgraph.units import Decibel


class Step(BlockParams):
    """What a latent is sent as from an Es/N0 up."""

    above: Decibel = Field(description="Es/N0 that the receiver told of")
    latent: latents.Format = Field(description="format from there on")


class BitSerializer(Block):
    """Turn captions and latents into frames of bits: a header, the caption, the latent, scrambled.

    The header (shape and format of the latent, length of the caption) is sent within the frame, coded at rate
    1/6, and so is the caption. `header: side`, a genie, hands it to the receiver in the tag `side_header`
    instead, for configs that reproduce the paper. With `caption: plain` as well, a frame is what the paper
    counts: the caption's ASCII bytes, then the latent's numbers. Bits are tagged `protection` where the
    header, the caption and the latent begin (with `layout: planes` each bit-plane of the latent, `plane1` being the
    most significant), and `code_rate`, information bits over bits sent (1 where there are none), where the frame
    begins. A part whose frame was lost before it came here is left out.

    `payload` is reported as means over the frames so far: bytes; complex symbols an image; those per pixel
    value (`cbr`); bytes as shares of the image in float64 and in 8-bit RGB. The last three are null once a
    frame had no latent: its image's size is not known here.

    With `adapt` the format follows the channel: that of the highest step that is not above the Es/N0 in dB which comes
    by `esn0`, such as a receiver's estimate of an earlier frame on a wire with a delay. Below all of them the
    caption goes alone. Where it is NaN, and while nothing has come, the lowest step is taken. Each frame's row has the
    `format`, and `latent` cannot be turned. Else it can be while the graph runs: to `analog` where the run began so,
    and before a `hybrid_modulator` to formats that its `profile` has; it cannot send others.

    >>> block = BitSerializer({"latent": "float64", "header": "side", "caption": "plain", "scramble": False})
    >>> block.start()
    >>> bytes(block.work(latent=Packet(np.full((1, 1, 1, 1), -2, np.float32), last=True)).data).hex()
    'c000000000000000'
    """

    class Params(BlockParams):
        latent: latents.Format = Field(
            "quant8",
            description="IEEE-754 numbers, a quantiser of 2 to 8 bits, or analog: no bits, see hybrid_modulator",
            json_schema_extra=LIVE,
        )
        adapt: tuple[Step, ...] = Field((), description="formats by Es/N0, in place of `latent`")
        layout: Literal["groups", "planes"] = Field(
            "groups",
            description="bits of a quantised latent in groups of four values, laid out for 16QAM, or plane by plane, "
            "for links that protect planes unequally",
        )
        header: Literal["coded", "side"] = Field(
            "coded", description="sent within the frame, or known to the receiver beforehand (a genie)"
        )
        caption: Literal["coded", "plain"] = Field(
            "coded", description="protected as the header is, or bare ASCII bytes"
        )
        compress: bool = Field(False, description="entropy-code the caption, by a model of English captions")
        scramble: bool = Field(True, description="add a pseudo-random sequence (3GPP TS 38.211, clause 5.2.1)")
        bits_per_symbol: int = Field(4, ge=1, le=16, description="for the report: bits in a complex symbol")
        pixels_per_latent: int = Field(
            8, ge=1, le=64, description="for the report: how many times larger than the latent the image is"
        )

        @model_validator(mode="after")
        def _planes(self) -> BitSerializer.Params:
            for form in [step.latent for step in self.adapt] or [self.latent]:
                if self.layout == "planes" and not latents.is_quantised(form):
                    raise ValueError(f"must have a quantiser as latent with layout: planes, not {form}")
            return self

    inputs = (
        Port("text", "uint8", "caption, one frame a caption", unit="ASCII", whole=True, optional=True),
        Port(
            "latent",
            "float32",
            "scaled latent: channels, height, width",
            (None, None, None),
            whole=True,
            optional=True,
        ),
        Port("esn0", "float32", "of the channel, for `adapt`", unit="dB", whole=True, optional=True),
    )
    outputs = (Port("bits", "bits", "one frame an image"),)

    def start(self) -> None:
        self.sums = dict.fromkeys(("frames", "caption", "latent", "total", "symbols", "pixel_values"), 0)
        self.without_latent = False
        self.began = self.params.latent

    def changed(self, name: str) -> None:
        if self.params.adapt:
            raise BlockError("latent must stay as it is: adapt says what is sent")
        if self.params.latent == "analog" != self.began:
            raise BlockError("latent must be of bits, as the run began, not analog: the link may carry bits alone")

    def work(
        self, text: Packet | None = None, latent: Packet | None = None, esn0: Packet | None = None
    ) -> Packet | None:
        p = self.params
        present = [packet for packet in (text, latent) if packet is not None]
        if not present:
            return None
        frame, form = present[0].frame, self._format(esn0)
        if p.adapt:
            self.report("frames", frame, format=form)
        caption = _caption(text)
        if caption is not None and p.compress:
            caption = entropy.compress(caption)
        values = None if latent is None or not latent.count or form is None else self._values(latent)
        header = Header(
            latent=None if values is None else form,
            shape=(0, 0, 0) if values is None else values.shape,
            text=caption is not None,
            caption_bytes=len(caption or b""),
            coded=p.caption == "coded",
            scrambled=p.scramble,
            by_plane=values is not None and p.layout == "planes",
            side=p.header == "side",
            compressed=caption is not None and p.compress,
        )
        parts = [] if header.side else [np.packbits(header.pack()) ^ scrambling(0, header.caption_start // 8)]
        if caption is not None:
            caption_data = np.frombuffer(caption + check(caption) * header.checked, np.uint8)
            if header.coded:
                caption_data = np.packbits(golay.encode(np.unpackbits(caption_data)))
            parts.append(caption_data)
        if values is not None:
            assert form is not None
            if latents.is_float(form):
                parts.append(latents.write_floats(values.ravel(), form))
            elif latents.is_quantised(form):
                parts.append(np.packbits(latents.write_quantised(values.ravel(), form, header.by_plane)))
        data = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        if header.scrambled:
            after = header.caption_start // 8
            data[after:] ^= scrambling(after, len(data))
            data[-1:] &= 0xFF << -header.bits % 8 & 0xFF
        self._report(header)
        tags = [Tag(at, "protection", part) for at, part in header.parts]
        information = 8 * header.caption_bytes + header.latent_bits
        if header.bits:
            tags.append(Tag(0, "code_rate", information / header.bits if information else 1.0))
        if header.values:
            _, height, width = header.shape
            tags.append(Tag(0, "pixel_values", 3 * height * width * p.pixels_per_latent**2))
        if header.side:
            tags.append(Tag(0, "side_header", header.as_tag()))
        return Packet(data, frame, 0, header.bits, True, tuple(tags), True)

    def flush(self) -> None:
        if not self.sums["frames"]:
            self.warn("nothing came to be sent: connect text, latent or both")

    def _format(self, esn0: Packet | None) -> latents.Format | None:
        """Return what a latent is sent as; None where it is left out."""
        p = self.params
        if not p.adapt:
            return p.latent
        steps = sorted(p.adapt, key=lambda step: step.above)
        told = float(esn0.data[-1]) if esn0 is not None and esn0.count else math.nan
        if math.isnan(told):
            return steps[0].latent
        reached = [step for step in steps if step.above <= told]
        return reached[-1].latent if reached else None

    def _values(self, packet: Packet) -> np.ndarray:
        """Return the numbers to be sent: finite, (channels, height, width)."""
        if packet.data.ndim != 4 or packet.count != 1:
            raise BlockError(
                f"latent must be one array of channels x height x width a frame, not {packet.count} of "
                f"{packet.data.ndim - 1} dimensions (frame {packet.frame})"
            )
        values = packet.data[0]
        if not all(1 <= side <= LONGEST for side in values.shape):
            raise BlockError(f"latent must have 1 to {LONGEST} values a side, not {'x'.join(map(str, values.shape))}")
        bad = np.count_nonzero(~np.isfinite(values))
        if bad:
            self.warn(f"frame {packet.frame}: {bad} of {values.size} latent values are not finite: sent as 0")
            values = np.nan_to_num(values, nan=0, posinf=0, neginf=0)
        return values

    def _report(self, header: Header) -> None:
        p, sums = self.params, self.sums
        sums["frames"] += 1
        sums["caption"] += 8 * header.caption_bytes
        sums["latent"] += header.latent_bits
        sums["total"] += header.bits
        sums["symbols"] += -(-header.bits // p.bits_per_symbol)
        _, height, width = header.shape
        sums["pixel_values"] += 3 * height * width * p.pixels_per_latent**2
        self.without_latent |= not header.values
        pixel_values = None if self.without_latent else sums["pixel_values"]
        self.report(
            "payload",
            caption_bytes=sums["caption"] / 8 / sums["frames"],
            latent_bytes=sums["latent"] / 8 / sums["frames"],
            overhead_bytes=(sums["total"] - sums["caption"] - sums["latent"]) / 8 / sums["frames"],
            symbols_per_image=sums["symbols"] / sums["frames"],
            cbr=pixel_values and sums["symbols"] / pixel_values,
            share_of_float64_image=pixel_values and sums["total"] / 64 / pixel_values,
            share_of_rgb8_image=pixel_values and sums["total"] / 8 / pixel_values,
        )


def _caption(packet: Packet | None) -> bytes | None:
    """Return the caption to be sent, None where there is none."""
    if packet is None:
        return None
    if packet.count > LONGEST:
        raise BlockError(f"caption must be at most {LONGEST} bytes, not {packet.count} (frame {packet.frame})")
    if packet.data.size and packet.data.max() > 127:
        shown = packet.data.tobytes()[:40].decode("utf-8", "replace")
        raise BlockError(f"caption must be ASCII, not {shown!r} (frame {packet.frame})")
    return packet.data.tobytes()
