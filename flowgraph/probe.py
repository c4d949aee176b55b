"""Taps on a block's outputs: a little of what a wire carries, for whoever looks on, beside the data path.

A piece is taken only when one is asked for, of the next packet; what comes in between is let pass. Whoever asks sets
the rate, and who stops asking costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from flowgraph.block import ERASED, Packet, Tag
from flowgraph.runner import split

PIECE_BYTES = 8 << 10  # of a packet, from its start (1024 symbols), or one item where that is larger
LARGEST_BYTES = 4 << 20  # of an item, a picture, that is still taken


class Tap:
    """Looks on at the packets of one output; `take(piece)` gets the beginning of one whenever `wanted` is set.

    A piece carries the tags that hold from its first item on, also where an earlier packet of the frame brought them;
    a tap that is set within a frame knows those from then on.
    """

    def __init__(self, take: Callable[[Packet], None]):
        self.take = take
        self.wanted = False
        self.holding: dict[str, Any] = {}

    def see(self, packet: Packet) -> None:
        """Look at a packet."""
        if packet.offset == 0:
            self.holding.clear()
        if self.wanted and 0 < packet.data.nbytes <= LARGEST_BYTES * packet.count:
            self.wanted = False
            self.take(self._piece(packet))
        for tag in packet.tags:
            if tag.key != ERASED:
                self.holding[tag.key] = tag.value

    def _piece(self, packet: Packet) -> Packet:
        fitting = max(1, PIECE_BYTES * packet.count // packet.data.nbytes)
        piece = packet if packet.count <= fitting else split(packet, fitting)[0]
        held = tuple(Tag(piece.offset, key, value) for key, value in self.holding.items())
        return replace(piece, tags=held + piece.tags)
