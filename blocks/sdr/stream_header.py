"""What a gr-zeromq stream block with `pass_tags` puts before the items of a message: their offset, and their tags.

    f0 5f | 01 | u64 offset of the first item | u64 number of tags        little-endian, 19 bytes
    for each tag: u64 offset, little-endian | key | value | source        PMTs, big-endian

Offsets count the items that the sending block has sent before.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any, NamedTuple

from blocks.sdr.pmt import PmtError, decode_from, encode

MAGIC, VERSION = 0x5FF0, 1
_FIXED = struct.Struct("<HBQQ")
_OFFSET = struct.Struct("<Q")
SMALLEST_TAG = _OFFSET.size + 3  # three values of a byte each


class HeaderError(ValueError):
    """Bytes that do not begin with such a header: one sentence."""


class StreamTag(NamedTuple):
    """A tag of GNU Radio: of the item at an offset of the stream."""

    offset: int
    key: Any
    value: Any
    source: Any = False


class StreamHeader(NamedTuple):
    """Offset of a message's first item, its tags, and how many bytes stand before the items."""

    offset: int
    tags: list[StreamTag]
    length: int


def encode_header(offset: int, tags: Iterable[StreamTag] = ()) -> bytes:
    """Return the header of a message. Raises `PmtError` for a tag that no PMT holds.

    >>> encode_header(7, [StreamTag(9, "a", True)]).hex(" ")
    'f0 5f 01 07 00 00 00 00 00 00 00 01 00 00 00 00 00 00 00 09 00 00 00 00 00 00 00 02 00 01 61 00 01'
    """
    parts = [_OFFSET.pack(tag.offset) + encode(tag.key) + encode(tag.value) + encode(tag.source) for tag in tags]
    return _FIXED.pack(MAGIC, VERSION, offset, len(parts)) + b"".join(parts)


def begins_with_header(message: memoryview) -> bool:
    """Tell whether a message looks as if it came from a block with `pass_tags`."""
    return len(message) >= _FIXED.size and _FIXED.unpack_from(message)[:2] == (MAGIC, VERSION)


def decode_header(message: memoryview) -> StreamHeader:
    """Return what stands before the items of a message. Raises `HeaderError`."""
    if not begins_with_header(message):
        raise HeaderError("it does not begin with GNU Radio's header for tags: does the sender have `pass_tags`?")
    _, _, first, count = _FIXED.unpack_from(message)
    if count > (len(message) - _FIXED.size) // SMALLEST_TAG:
        raise HeaderError(f"{count} tags cannot be in {len(message)} bytes")
    tags, at = [], _FIXED.size
    try:
        for _ in range(count):
            (offset,) = _OFFSET.unpack_from(message, at)
            key, at = decode_from(message, at + _OFFSET.size)
            value, at = decode_from(message, at)
            source, at = decode_from(message, at)
            tags.append(StreamTag(offset, key, value, source))
    except (PmtError, struct.error) as error:
        raise HeaderError(f"a tag is broken: {error}") from None
    return StreamHeader(first, tags, at)
