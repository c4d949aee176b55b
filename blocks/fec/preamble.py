"""The preamble of a frame whose stretches are protected unequally: how long each is, and how protected.

A first word of 12 bits counts the stretches. Every stretch then takes 24 bits: 4 for its scheme and 20 for its length
in payload bits, less one. Last comes the CRC of frame headers (16 bits) over all that and over the profile, which is
not sent: ends with different profiles do not understand each other. The first word and the rest are coded like a frame
header (`blocks.framing.golay`, rate 1/6).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from blocks.framing import golay
from blocks.framing.frame import FrameError, check

COUNT_BITS = golay.coded_length(golay.MESSAGE)  # bits that tell the length of the rest
LONGEST = 1 << 20  # payload bits of a stretch
SCHEMES = 16  # that a profile may have
MOST = (1 << golay.MESSAGE) - 1  # stretches of a frame


class Stretch(NamedTuple):
    """Payload bits in a row that are protected alike: which scheme of the profile, and how many."""

    scheme: int
    bits: int


def coded_bits(stretches: int) -> int:
    """Return the bits of the preamble for so many stretches."""
    return COUNT_BITS + golay.coded_length(24 * stretches + 16)


def encode(stretches: list[Stretch], profile: bytes) -> np.ndarray:
    """Return the coded preamble, uint8 of 0 and 1, of stretches whose schemes are 0 to 15, with 1 to 2^20 bits.

    >>> encode([Stretch(0, 576), Stretch(1, 18432)], b"").size == coded_bits(2) == 504
    True

    Raises `ValueError` for others, and for more than 4095 of them.
    """
    if len(stretches) > MOST:
        raise ValueError(f"stretches must be at most {MOST}, not {len(stretches)}")
    for s in stretches:
        if not (0 <= s.scheme < SCHEMES and 1 <= s.bits <= LONGEST):
            raise ValueError(f"stretches must have schemes 0 to {SCHEMES - 1} and 1 to {LONGEST} bits, not {s}")
    fields = b"".join((s.scheme << 20 | s.bits - 1).to_bytes(3, "big") for s in stretches)
    counted = len(stretches).to_bytes(2, "big")
    rest = np.frombuffer(fields + check(profile + counted + fields), np.uint8)
    first = np.unpackbits(np.frombuffer(counted, np.uint8))[-golay.MESSAGE :]
    return np.concatenate([golay.encode(first), golay.encode(np.unpackbits(rest))])


def count(soft: np.ndarray) -> int:
    """Return how many stretches the first `COUNT_BITS` soft values (positive for 0) tell of."""
    return int(golay.decode(soft) @ (1 << np.arange(golay.MESSAGE - 1, -1, -1)))


def decode(soft: np.ndarray, profile: bytes) -> list[Stretch]:
    """Return the stretches that soft values of a whole preamble tell of. Raises `FrameError`."""
    counted = count(soft[:COUNT_BITS])
    data = np.packbits(golay.decode(soft[COUNT_BITS:])).tobytes()
    fields, checksum = data[: 3 * counted], data[3 * counted :][:2]
    if not counted or check(profile + counted.to_bytes(2, "big") + fields) != checksum:
        raise FrameError("preamble damaged, or made by another profile")
    words = [int.from_bytes(fields[at : at + 3], "big") for at in range(0, len(fields), 3)]
    return [Stretch(word >> 20, (word & LONGEST - 1) + 1) for word in words]
