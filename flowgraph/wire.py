"""The wire: a packet as a self-describing ZeroMQ message `[header | raw array bytes]`.

The header is the four bytes `SFW1` (the 1 is the version) and a MessagePack array, in the order of `Header`. Everything
is checked against it before an array is made; nothing that arrives can execute, and nothing is allocated on its word.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from flowgraph.block import BITS, ERASED, NUMBERS, BlockError, Packet, Tag

MAGIC, VERSION = b"SFW", b"1"
DTYPES = {name: np.dtype(name) for name in NUMBERS}
MAX_DIMENSIONS = 8
MAX_NUMBER = 1 << 62  # of frames, items, messages: all that is counted stays below


class WireError(Exception):
    """A message that is none of ours, or broken: one sentence."""


class End(msgspec.Struct, frozen=True):
    """End of stream: how much was sent, so that the other side can tell what it lost."""

    packets: int
    items: int


class Header(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What stands before an array on the wire; `dtype` is empty in the message that ends a stream."""

    token: str
    seq: int
    dtype: str
    shape: tuple[int, ...]
    count: int
    frame: int
    offset: int
    last: bool
    tags: list[tuple[int, str, Any]]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"a tag or figure must be plain data, not {type(value).__name__}")


encode_plain = msgspec.msgpack.Encoder(enc_hook=_plain).encode


def decoder(kind: Any) -> Callable[[bytes], Any]:
    """Return a function that reads a record of that type, or union of types, from MessagePack.

    It raises `WireError` for any bytes that are none.
    """
    decode = msgspec.msgpack.Decoder(kind).decode

    def read(data: bytes) -> Any:
        try:
            return decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise WireError(str(error)) from None

    return read


_decode_header = decoder(Header)


def encode(message: Packet | End, seq: int, token: str) -> tuple[bytes, np.ndarray | None]:
    """Return the header and the array of a message, the array contiguous.

    Raises `BlockError` for an array that the wire does not carry.
    """
    if isinstance(message, End):
        header = Header(token, seq, "", (), message.items, message.packets, 0, True, [])
        return MAGIC + VERSION + encode_plain(header), None
    data = np.ascontiguousarray(message.data) if message.data.ndim else message.data.reshape(1)
    if data.ndim > MAX_DIMENSIONS or (message.dtype != BITS and message.dtype not in DTYPES):
        raise BlockError(f"a wire carries no array of {data.ndim} dimensions of {message.dtype}")
    header = Header(
        token,
        seq,
        message.dtype,
        data.shape,
        message.count,
        message.frame,
        message.offset,
        message.last,
        [tuple(tag) for tag in message.tags],
    )
    return MAGIC + VERSION + encode_plain(header), data


def decode(frames: list[Any], token: str) -> tuple[int, Packet | End]:
    """Return the sequence number and the message; its array is a view of the last frame.

    `frames` are bytes-like. Raises `WireError` for anything that `encode` with the same token would not have made.
    """
    if not frames or len(frames) > 2:
        raise WireError(f"{len(frames)} parts where one or two belong")
    head = bytes(frames[0])
    if head[:3] != MAGIC:
        raise WireError("no Semflow message")
    if head[3:4] != VERSION:
        raise WireError(f"wire version {head[3:4].decode('latin-1')!r}, not {VERSION.decode()!r}")
    try:
        header = _decode_header(head[4:])
    except WireError as error:
        raise WireError(f"broken header: {error}") from None
    if header.token != token:
        raise WireError("message of another run")
    numbers = header.seq, header.count, header.frame, header.offset, *header.shape
    if min(numbers) < 0:
        raise WireError("negative number in the header")
    if max(numbers) >= MAX_NUMBER:
        raise WireError(f"number beyond {MAX_NUMBER} in the header")
    if not header.dtype:
        if len(frames) != 1:
            raise WireError("end of stream with an array")
        return header.seq, End(header.frame, header.count)
    packed = header.dtype == BITS
    dtype = DTYPES["uint8"] if packed else DTYPES.get(header.dtype)
    if dtype is None:
        raise WireError(f"unknown item type {header.dtype[:20]!r}")
    if len(frames) != 2:
        raise WireError("header without its array")
    if not 1 <= len(header.shape) <= MAX_DIMENSIONS:
        raise WireError(f"array of {len(header.shape)} dimensions")
    payload = memoryview(frames[1])
    claimed = math.prod(header.shape) * dtype.itemsize
    if claimed != payload.nbytes:
        raise WireError(f"header claims {claimed} bytes, {payload.nbytes} came")
    items = header.shape[0]
    if packed and (len(header.shape) != 1 or (header.count + 7) // 8 != items):
        raise WireError(f"{header.count} bits cannot be {items} bytes")
    if not packed and header.count != items:
        raise WireError(f"header claims {header.count} items, {items} came")
    try:
        data = np.frombuffer(payload, dtype).reshape(header.shape)
    except ValueError:  # no items, of an enormous shape
        raise WireError("array too large for this machine") from None
    data.flags.writeable = False
    tags = tuple(Tag(*tag) for tag in header.tags)
    for tag in tags:
        if tag.offset < 0 or (tag.key == ERASED and not (type(tag.value) is int and tag.value >= 0)):
            raise WireError(f"tag {tag.key[:20]!r} of item {tag.offset} that cannot be")
    return header.seq, Packet(data, header.frame, header.offset, header.count, packed, tags, header.last)
