"""The scrambler: a pseudo-random sequence added to a frame, so that any payload uses all symbols alike.

The sequence is the length-31 Gold sequence of 3GPP TS 38.211, clause 5.2.1:

    x1(n+31) = x1(n+3) + x1(n),  x2(n+31) = x2(n+3) + x2(n+2) + x2(n+1) + x2(n)  (mod 2)
    c(n) = x1(n + 1600) + x2(n + 1600)  (mod 2)

with x1 starting as 1, 0, 0, ... and x2 as the binary digits of c_init, least significant first. It starts
anew with every frame; `C_INIT` is fixed.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from flowgraph.block import Block, Packet, Port

C_INIT = 0x5EED_F10  # any number would do: both ends know it
_SKIP = 1600
_PERIOD = 1 << 20  # bytes after which the block `scrambler` begins anew
_known = np.empty(0, np.uint8)  # the beginning of the sequence, packed


def _m_sequence(start: int, taps: tuple[int, ...], length: int) -> np.ndarray:
    """Return `length` bits of x(n+31) = sum of x(n+t) over `taps`, the first 31 being the digits of `start`.

    Squaring a polynomial over GF(2) doubles its exponents, so x(n + 31d) = sum of x(n + td) for every power
    of two d: what is known so far gives the next bits a stretch at a time.
    """
    x = np.zeros(max(length, 31), np.uint8)
    x[:31] = start >> np.arange(31) & 1
    known = 31
    while known < length:
        d = 1 << ((known // 31).bit_length() - 1)
        n = known - 31 * d
        step = min((31 - max(taps)) * d, length - known)
        for tap in taps:
            x[known : known + step] ^= x[n + tap * d : n + tap * d + step]
        known += step
    return x[:length]


def gold_sequence(c_init: int, length: int) -> np.ndarray:
    """Return the first `length` bits c(0), c(1), ... (uint8, 0 or 1)."""
    x1 = _m_sequence(1, (0, 3), _SKIP + length)
    x2 = _m_sequence(c_init, (0, 1, 2, 3), _SKIP + length)
    return (x1 ^ x2)[_SKIP:]


def scrambling(start: int, stop: int) -> np.ndarray:
    """Return bytes `start` to `stop` of the packed sequence, to be added to a frame's bytes by XOR."""
    global _known
    known = _known
    if len(known) < stop:
        known = np.packbits(gold_sequence(C_INIT, 8 * max(stop, 2 * len(known), 1 << 14)))
        known.flags.writeable = False
        _known = known
    return known[start:stop]


class Scrambler(Block):
    """Add the scrambling sequence to every frame; once more takes it off again. Of LLRs it turns the signs.

    The sequence begins anew with a frame, and after every 8,388,608 bits.
    """

    inputs = (Port("bits", ("bits", "int8", "float32"), "bits or LLRs", align=8),)
    outputs = (Port("bits", ("bits", "int8", "float32"), "scrambled, or no more so"),)
    ratio = Fraction(1)

    def work(self, bits: Packet) -> Packet:
        first, size = bits.offset // 8, -(-bits.count // 8)
        parts = []
        while size:
            start = first % _PERIOD
            parts.append(scrambling(start, min(start + size, _PERIOD)))
            first, size = first + len(parts[-1]), size - len(parts[-1])
        sequence = np.concatenate(parts) if parts else np.empty(0, np.uint8)
        if bits.packed:
            data = bits.data ^ sequence
            if bits.count % 8:
                data[-1] &= 0xFF << (-bits.count % 8) & 0xFF
        else:
            flips = np.unpackbits(sequence, count=bits.count).view(np.bool_)
            data = np.negative(bits.data, out=bits.data.copy(), where=flips)
        return bits.derive(data, count=bits.count, packed=bits.packed)
