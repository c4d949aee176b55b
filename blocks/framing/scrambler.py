"""The scrambler: a pseudo-random sequence added to a frame, so that any payload uses all symbols alike.

The sequence is a Gold sequence (`blocks.gold`). It starts anew with every frame; `C_INIT` is fixed.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from blocks.gold import gold_sequence
from flowgraph.block import Block, Packet, Port

C_INIT = 0x5EED_F10  # any number would do: both ends know it
_PERIOD = 1 << 20  # bytes after which the block `scrambler` begins anew
_known = np.empty(0, np.uint8)  # the beginning of the sequence, packed


def scrambling(start: int, stop: int) -> np.ndarray:
    """Return bytes `start` to `stop` of the packed sequence, uint8, to be added to a frame's bytes by XOR.

    >>> scrambling(0, 3)
    array([ 91,   2, 132], dtype=uint8)

    Raises `ValueError` unless 0 <= `start` <= `stop`.
    """
    global _known
    if not 0 <= start <= stop:
        raise ValueError(f"start and stop must be 0 <= start <= stop, not {start} and {stop}")
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
