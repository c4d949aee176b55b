"""The frame: what stands in its header, and where everything lies. `docs/frame.md` draws it.

A frame is a header, a caption and a latent, in this order, each a whole number of bytes but the last.
"""

from __future__ import annotations

import binascii
import math
import struct
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

import msgspec
import numpy as np

from blocks.framing import golay
from blocks.framing.latents import Format, bits_per_value, is_quantised

VERSION = 1
_FIELDS = struct.Struct(">BBHHHH")  # version and format, flags, caption's bytes, channels, height, width
_CODES = {"float64": 1, "float32": 2, "float16": 3, "quant2": 10, "quant3": 11, "analog": 12} | {
    f"quant{b}": b for b in range(4, 9)
}
_FORMATS = {0: None} | {code: form for form, code in _CODES.items()}
_TEXT, _CODED, _SCRAMBLED, _BY_PLANE, _COMPRESSED = 0x80, 0x40, 0x20, 0x10, 0x08
CHECK_BITS = 16
HEADER_BITS = golay.coded_length(8 * _FIELDS.size + CHECK_BITS)
LONGEST = (1 << 16) - 1  # bytes of a caption, and each side of a latent

# What a part of a frame is, for links that protect some better than others: the tag `protection`.
Protection = Literal[
    "header", "caption", "latent", "plane1", "plane2", "plane3", "plane4", "plane5", "plane6", "plane7", "plane8"
]
PLANES: tuple[Protection, ...] = get_args(Protection)[3:]  # bits of a quantised latent, most significant first

U16 = Annotated[int, msgspec.Meta(ge=0, le=LONGEST)]


class FrameError(Exception):
    """A header that cannot be read: why, in a few words."""


def check(data: bytes) -> bytes:
    """Return the CRC-16 of 3GPP TS 38.212, clause 5.1 (x^16 + x^12 + x^5 + 1), starting from all ones."""
    return binascii.crc_hqx(data, 0xFFFF).to_bytes(2, "big")


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a receiver must know of a frame.

    latent         format of the latent, None where there is none
    shape          channels, height and width of the latent
    text           whether there is a caption (an empty one is one, too)
    caption_bytes  length of the caption
    coded          whether the caption is coded like the header, not plain
    scrambled      whether all that follows the header is scrambled; a header that is sent always is
    side           whether the header is not sent: the receiver has it from a genie
    by_plane       whether the latent's bits are sent plane by plane, not in groups of four values
    compressed     whether the caption is entropy-coded, not ASCII
    """

    latent: Format | None = None
    shape: tuple[U16, U16, U16] = (0, 0, 0)
    text: bool = False
    caption_bytes: U16 = 0
    coded: bool = True
    scrambled: bool = True
    side: bool = False
    by_plane: bool = False
    compressed: bool = False

    def __post_init__(self) -> None:
        if bool(self.latent) != (0 not in self.shape):
            raise ValueError(f"latent {self.latent} cannot be of shape {self.shape}")
        if self.by_plane and not (self.latent and is_quantised(self.latent)):
            raise ValueError(f"latent {self.latent} has no planes")

    @property
    def checked(self) -> bool:
        """Whether a CRC follows the caption: always, but for the paper's bare frame."""
        return self.text and (self.coded or not self.side)

    @property
    def caption_start(self) -> int:
        return 0 if self.side else HEADER_BITS

    @property
    def caption_bits(self) -> int:
        """Bits of the caption as sent."""
        if not self.text:
            return 0
        bits = 8 * self.caption_bytes + CHECK_BITS * self.checked
        return golay.coded_length(bits) if self.coded else bits

    @property
    def latent_start(self) -> int:
        return self.caption_start + self.caption_bits

    @property
    def values(self) -> int:
        """Numbers in the latent."""
        return math.prod(self.shape) if self.latent else 0

    @property
    def latent_bits(self) -> int:
        return self.values * bits_per_value(self.latent) if self.latent else 0

    @property
    def parts(self) -> Iterator[tuple[int, Protection]]:
        """Where each part of the frame begins, and its protection class."""
        if not self.side:
            yield 0, "header"
        if self.caption_bits:
            yield self.caption_start, "caption"
        if self.by_plane:
            for plane in range(self.latent_bits // self.values):
                yield self.latent_start + plane * self.values, PLANES[plane]
        elif self.latent_bits:
            yield self.latent_start, "latent"

    @property
    def bits(self) -> int:
        """Bits of the frame."""
        return self.latent_start + self.latent_bits

    def pack(self) -> np.ndarray:
        """Return the coded header: `HEADER_BITS` bits (uint8, 0 or 1), not yet scrambled."""
        flags = _TEXT * self.text | _CODED * self.coded | _SCRAMBLED * self.scrambled | _BY_PLANE * self.by_plane
        flags |= _COMPRESSED * self.compressed
        kind = _CODES[self.latent] if self.latent else 0
        fields = _FIELDS.pack(VERSION << 4 | kind, flags, self.caption_bytes, *self.shape)
        return golay.encode(np.unpackbits(np.frombuffer(fields + check(fields), np.uint8)))

    @classmethod
    def unpack(cls, soft: np.ndarray, repair: int = 0) -> Header:
        """Return the header in soft values (positive for 0) of `HEADER_BITS` bits. Raises `FrameError`.

        Of one that is damaged `golay.candidates` are tried, with so many unsure words.
        """
        for bits in golay.candidates(soft, repair):
            data = np.packbits(bits).tobytes()
            fields = data[: _FIELDS.size]
            if check(fields) == data[_FIELDS.size :]:
                break
        else:
            raise FrameError("header damaged")
        kind, flags, caption_bytes, *shape = _FIELDS.unpack(fields)
        if kind >> 4 != VERSION:
            raise FrameError(f"frame of version {kind >> 4}, not {VERSION}")
        if flags & ~(_TEXT | _CODED | _SCRAMBLED | _BY_PLANE | _COMPRESSED):
            raise FrameError("header with unknown flags")
        return cls.from_tag(
            {
                "latent": _FORMATS.get(kind & 15, "unknown"),
                "shape": shape,
                "text": bool(flags & _TEXT),
                "caption_bytes": caption_bytes,
                "coded": bool(flags & _CODED),
                "scrambled": bool(flags & _SCRAMBLED),
                "by_plane": bool(flags & _BY_PLANE),
                "compressed": bool(flags & _COMPRESSED),
            }
        )

    def read_caption(self, soft: np.ndarray, repair: int = 0) -> tuple[bytes, np.ndarray | None]:
        """Return the caption in soft values of its `caption_bits` bits, and the message bits that it is part of.

        Of one that is damaged `golay.candidates` are tried, with so many unsure words. Where the CRC holds for none of
        them, or there is no CRC, the caption is the likeliest one, and there are no message bits.
        """
        candidates = golay.candidates(soft, repair) if self.coded else iter([(soft < 0).view(np.uint8)])
        likeliest = None
        for bits in candidates:
            data = np.packbits(bits).tobytes()
            caption, checksum = data[: self.caption_bytes], data[self.caption_bytes :][:2]
            if self.checked and check(caption) == checksum and (self.compressed or caption.isascii()):
                return caption, bits
            likeliest = caption if likeliest is None else likeliest
        return likeliest or b"", None

    def as_tag(self) -> dict[str, Any]:
        """Return the header as plain data, for the genie."""
        return msgspec.to_builtins(self)

    @classmethod
    def from_tag(cls, value: Any) -> Header:
        """Return the header that the genie hands over. Raises `FrameError`."""
        if value is None:
            raise FrameError("no header came beside the frame")
        try:
            return msgspec.convert(value, cls)
        except msgspec.ValidationError as error:
            raise FrameError(f"header makes no sense: {error}") from None
