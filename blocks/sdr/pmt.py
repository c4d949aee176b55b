"""GNU Radio's polymorphic types (PMT) as bytes: what its messages and stream tags carry.

    PMT                                     here
    #t, #f, nil                             True, False, None
    symbol                                  str (UTF-8; other bytes as surrogate escapes)
    int32, int64, uint64                    int; written as the first of these that holds it
    double, complex                         float, complex
    pair                                    Pair
    dict                                    dict, the oldest entry first; an empty one is nil
    vector, tuple                           list, tuple
    u8vector ... c64vector                  one-dimensional array

Sources: the documentation of GNU Radio 3.10 (Polymorphic Types), and bytes that its `pmt.serialize_str` made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

TRUE, FALSE, SYMBOL, INT32, DOUBLE, COMPLEX, NIL, PAIR, VECTOR, DICT, UNIFORM, UINT64, TUPLE, INT64 = range(14)
# The items of uniform vectors, by subtype.
ITEMS = tuple(map(np.dtype, (">u1", ">i1", ">u2", ">i2", ">u4", ">i4", ">u8", ">i8", ">f4", ">f8", ">c8", ">c16")))
SUBTYPES = {dtype.newbyteorder("="): number for number, dtype in enumerate(ITEMS)}
MAX_DEPTH = 100  # of values within values; a list may be as long as it likes


class PmtError(ValueError):
    """Bytes that are no PMT, or a value that no PMT holds: one sentence."""


class Pair(NamedTuple):
    """Two values; a list is a pair of its first value and of the rest, which ends in None."""

    car: Any
    cdr: Any


def encode(value: Any) -> bytes:
    """Return a value as `pmt.serialize_str` writes it. Raises `PmtError` for what no PMT holds.

    >>> encode(Pair({"len": 4}, np.frombuffer(b"abcd", np.uint8))).hex(" ")
    '07 09 07 02 00 03 6c 65 6e 03 00 00 00 04 06 0a 00 00 00 00 04 01 00 61 62 63 64'
    """
    return b"".join(_pieces(value, 0))


def _pieces(value: Any, depth: int) -> Iterator[bytes]:
    if depth > MAX_DEPTH:
        raise PmtError(f"values within values must be at most {MAX_DEPTH} deep")
    depth += 1
    if isinstance(value, np.generic):
        value = value.item()
    if value is None:
        yield bytes([NIL])
    elif isinstance(value, bool):
        yield bytes([TRUE if value else FALSE])
    elif isinstance(value, int):
        yield _integer(value)
    elif isinstance(value, float):
        yield struct.pack(">Bd", DOUBLE, value)
    elif isinstance(value, complex):
        yield struct.pack(">Bdd", COMPLEX, value.real, value.imag)
    elif isinstance(value, str):
        text = value.encode("utf-8", "surrogateescape")
        if len(text) > 0xFFFF:
            raise PmtError(f"a symbol must be at most 65535 bytes long, not {len(text)}")
        yield struct.pack(">BH", SYMBOL, len(text)) + text
    elif isinstance(value, Pair):
        while isinstance(value, Pair):
            yield bytes([PAIR])
            yield from _pieces(value.car, depth)
            value = value.cdr
        yield from _pieces(value, depth)
    elif isinstance(value, dict):
        for key, each in reversed(value.items()):
            yield bytes([DICT, PAIR])
            yield from _pieces(key, depth)
            yield from _pieces(each, depth)
        yield bytes([NIL])
    elif isinstance(value, list | tuple):
        yield struct.pack(">BI", TUPLE if isinstance(value, tuple) else VECTOR, len(value))
        for each in value:
            yield from _pieces(each, depth)
    elif isinstance(value, bytes | np.ndarray):
        yield from _uniform(np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value)
    else:
        raise PmtError(f"no PMT holds a {type(value).__name__}")


def _integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return struct.pack(">Bi", INT32, value)
    if -(1 << 63) <= value < 1 << 63:
        return struct.pack(">Bq", INT64, value)
    if 0 <= value < 1 << 64:
        return struct.pack(">BQ", UINT64, value)
    raise PmtError(f"an integer must have at most 64 bits, not {value.bit_length()}")


def _uniform(array: np.ndarray) -> Iterator[bytes]:
    subtype = SUBTYPES.get(array.dtype.newbyteorder("="))
    if subtype is None or array.ndim != 1:
        raise PmtError(f"no uniform vector holds an array of {array.ndim} dimensions of {array.dtype}")
    yield struct.pack(">BBIBB", UNIFORM, subtype, len(array), 1, 0)
    yield array.astype(ITEMS[subtype]).tobytes()


def decode(data: bytes | memoryview) -> Any:
    """Return the value of a serialized PMT. Raises `PmtError` for anything else; nothing is made on its word.

    >>> decode(bytes.fromhex("07 06 0a 0a 00 00 00 01 01 00 3f 80 00 00 c0 00 00 00"))
    Pair(car=None, cdr=array([1.-2.j], dtype=complex64))
    """
    value, at = decode_from(memoryview(data), 0)
    if at != len(data):
        raise PmtError(f"{len(data) - at} bytes stand behind the value")
    return value


def decode_from(data: memoryview, at: int) -> tuple[Any, int]:
    """Return the value that begins at a byte, and where it ends. Raises `PmtError` as `decode` does."""
    reader = _Reader(data, at)
    return reader.value(0), reader.at


class _Reader:
    def __init__(self, data: memoryview, at: int):
        self.data, self.at = data, at

    def take(self, layout: str) -> Any:
        """Read one number in the layout of `struct`, big-endian."""
        return self.several(layout)[0]

    def several(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(">" + layout, self.bytes(struct.calcsize(">" + layout)))

    def bytes(self, count: int) -> memoryview:
        begin, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise PmtError(f"it ends {self.at - len(self.data)} bytes early")
        return self.data[begin : self.at]

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise PmtError(f"values within values are more than {MAX_DEPTH} deep")
        depth += 1
        kind = self.take("B")
        if kind in (TRUE, FALSE):
            return kind == TRUE
        if kind == NIL:
            return None
        if kind == SYMBOL:
            return str(self.bytes(self.take("H")), "utf-8", "surrogateescape")
        if kind in (INT32, INT64, UINT64, DOUBLE):
            return self.take({INT32: "i", INT64: "q", UINT64: "Q", DOUBLE: "d"}[kind])
        if kind == COMPLEX:
            return complex(*self.several("dd"))
        if kind == PAIR:
            return self.pair(depth)
        if kind == DICT:
            return self.dict(depth)
        if kind in (VECTOR, TUPLE):
            count = self.take("I")
            if count > len(self.data) - self.at:  # every value takes a byte or more
                raise PmtError(f"a vector of {count} values cannot be in {len(self.data) - self.at} bytes")
            values = [self.value(depth) for _ in range(count)]
            return values if kind == VECTOR else tuple(values)
        if kind == UNIFORM:
            return self.uniform()
        raise PmtError(f"there is no type {kind:#04x}")

    def pair(self, depth: int) -> Any:
        cars = [self.value(depth)]
        while self.data[self.at : self.at + 1] == bytes([PAIR]):
            self.at += 1
            cars.append(self.value(depth))
        value = self.value(depth)
        for car in reversed(cars):
            value = Pair(car, value)
        return value

    def dict(self, depth: int) -> Any:
        entries = []
        kind = DICT
        while kind == DICT:
            if self.take("B") != PAIR:
                raise PmtError("a dict must be of pairs")
            entries.append((self.value(depth), self.value(depth)))
            kind = self.take("B")
        if kind != NIL:
            raise PmtError(f"a dict must end in nil, not in type {kind:#04x}")
        try:
            return dict(reversed(entries))
        except TypeError:
            raise PmtError("a key of a dict must be a symbol or a number") from None

    def uniform(self) -> np.ndarray:
        subtype, count, padding = self.several("BIB")
        self.bytes(padding)
        if subtype >= len(ITEMS):
            raise PmtError(f"there is no uniform vector {subtype:#04x}")
        dtype = ITEMS[subtype]
        return np.frombuffer(self.bytes(count * dtype.itemsize), dtype).astype(dtype.newbyteorder("="))


def plain(value: Any) -> Any:
    """Return a value as tags carry it on: complex numbers as [re, im], pairs and arrays as lists."""
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, np.ndarray):
        return [plain(each) for each in value.tolist()]
    if isinstance(value, dict):
        return {plain_key(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def plain_key(key: Any) -> str | int | float:
    """Return a key as tags carry it on."""
    return key if isinstance(key, str | int | float) else repr(key)
