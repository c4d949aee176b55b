"""Cyclic redundancy checks over packed bits, as pure functions."""

from __future__ import annotations

import functools
import zlib
from typing import Literal, NamedTuple, get_args

import numpy as np

from blocks.arrays import packed_bits

Checksum = Literal["crc16", "crc24a", "crc24b", "crc32"]


class _Polynomial(NamedTuple):
    width: int
    value: int  # without the leading one


# 3GPP TS 38.212, clause 5.1; they begin with zero, and no bits are reflected.
POLYNOMIALS = {
    "crc16": _Polynomial(16, 0x1021),
    "crc24a": _Polynomial(24, 0x864CFB),
    "crc24b": _Polynomial(24, 0x800063),
}


def width(kind: Checksum) -> int:
    """Return how many bits a checksum has. Raises `ValueError` for one that there is not."""
    if kind == "crc32":
        return 32
    if kind not in POLYNOMIALS:
        raise ValueError(f"checksum must be {', '.join(get_args(Checksum))}, not {kind}")
    return POLYNOMIALS[kind].width


def checksum(packed: np.ndarray, count: int, kind: Checksum = "crc24a") -> int:
    """Return the checksum of the first `count` packed bits.

    Those of 3GPP TS 38.212, clause 5.1, go bit by bit; `crc32` is that of IEEE 802.3, over whole bytes: bits past the
    end count as zeros.

    >>> hex(checksum(np.frombuffer(b"123456789", np.uint8), 72, "crc24a")), hex(checksum(np.zeros(1, np.uint8), 5))
    ('0xcde703', '0x0')

    Raises `ValueError` for fewer bits than `count`, and a checksum that there is not.
    """
    bits, packed = width(kind), packed_bits("packed", packed, count)
    whole, rest = divmod(count, 8)
    last = int(packed[whole]) >> (8 - rest) if rest else 0
    if kind == "crc32":
        data = packed[:whole].tobytes() + (bytes([last << (8 - rest)]) if rest else b"")
        return zlib.crc32(data)
    from blocks.fec import _crc

    polynomial = POLYNOMIALS[kind].value
    register = int(_crc.remainder(packed[:whole], _table(kind)))
    for place in range(rest - 1, -1, -1):
        carry = register >> 31 ^ last >> place & 1
        register = (register << 1 ^ (polynomial << (32 - bits) if carry else 0)) & 0xFFFFFFFF
    return register >> (32 - bits)


@functools.cache
def _table(kind: str) -> np.ndarray:
    """The remainder of every byte, at the top of 32 bits."""
    bits, polynomial = POLYNOMIALS[kind]
    table = np.arange(256, dtype=np.uint32) << np.uint32(24)
    divisor = np.uint32(polynomial << (32 - bits))
    for _ in range(8):
        table = (table << np.uint32(1)) ^ (table >> np.uint32(31)) * divisor
    return table
