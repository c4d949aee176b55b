"""Packets of a waveform put together to frames, and what is missing of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blocks.phy import theory
from blocks.sdr.burst import Header
from flowgraph.block import ERASED, Packet, Tag

MOST_SKIPPED = 1024  # frames in a row that may be lost: a number farther away is that of a transmitter begun anew
MOST_ERASED = 1 << 20  # items that one packet tells to be missing


@dataclass
class Means:
    """Means over packets, weighed by their bits, of what was estimated: every figure is one that may be added up."""

    weight: float = 0.0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, figures: dict[str, float], weight: float) -> None:
        """Take in the figures of a packet."""
        self.weight += weight
        for key, value in figures.items():
            self.sums[key] = self.sums.get(key, 0.0) + weight * value

    def told(self) -> dict[str, Any]:
        """Return the means as the tag `estimate` has them: powers as dB, too, the squared error as its root."""
        means = {key: total / self.weight for key, total in self.sums.items()}
        evm, gain = means.pop("squared_error") ** 0.5, theory.ratio_to_db(means.pop("power"))
        told = {"n0": means["n0"], "esn0_db": -theory.ratio_to_db(means["n0"]), "evm": evm, "gain_db": gain}
        return told | means | {"source": "decision-directed"}


def told(figures: dict[str, float]) -> dict[str, Any]:
    """Return the tag `estimate` of one packet."""
    return Means(1.0, dict(figures)).told()


class Assembler:
    """Hands on packets of frames in order, with erasures, as long as what is missing, in between.

    dtype  of the items: `bits`, `float32` or `int8`
    lost   packets that did not come, by their numbers
    """

    def __init__(self, dtype: str):
        self.dtype = dtype
        self.lost = 0
        self.header: Header | None = None  # of the newest packet
        self.frame = 0  # its frame, counted on
        self.reached = 0  # bits of the frame that went out
        self.longest = 1  # bits of the longest packet
        self.means = Means()  # over the frame

    @property
    def open(self) -> bool:
        """Whether something of the frame is still to come."""
        return self.header is not None and self.reached >= 0

    def turn_to(self, header: Header) -> Iterator[Packet]:
        """Hand out what has to go before a packet: the end of the frame before, frames of which nothing came."""
        before, self.longest = self.header, max(self.longest, header.count)
        if before is None:
            self.frame = header.frame
            self.lost = -(-header.offset // self.longest)
        else:
            missed = (header.sequence - before.sequence - 1) & 0xFFFF
            ahead = (header.frame - before.frame) & 0xFFFF
            if self.open and ahead == 0 and header.frame_bits == before.frame_bits and header.offset >= self.reached:
                self.lost += missed if missed <= MOST_SKIPPED * 16 else 0
                self.header = header
                return
            yield from self.close()
            if 0 < ahead <= MOST_SKIPPED:
                self.lost += missed
                for frame in range(self.frame + 1, self.frame + ahead):
                    yield Packet(self._zeros(0), frame, count=0, packed=self.dtype == "bits", last=True)
            self.frame += ahead if 0 < ahead <= MOST_SKIPPED else 1
        self.header, self.reached, self.means = header, 0, Means()

    def add(self, data: np.ndarray, figures: dict[str, float], tags: dict[str, Any]) -> Iterator[Packet]:
        """Hand out the items of the packet that was turned to last."""
        header = self.header
        assert header is not None
        yield from self._erased(header.offset)
        self.means.add(figures, max(header.count, 1))
        self.reached = header.offset + header.count
        last = self.reached == header.frame_bits
        facts = [Tag(header.offset, key, value) for key, value in tags.items()]
        if last:
            facts.append(Tag(self.reached, "estimate", self.means.told()))
        yield self._packet(data, header.offset, header.count, facts, last)
        if last:
            self.reached = -1

    def close(self) -> Iterator[Packet]:
        """End the frame; what has not come of it is erased."""
        if self.open:
            assert self.header is not None
            yield from self._erased(self.header.frame_bits, last=True)
            self.reached = -1

    def end(self) -> Iterator[Packet]:
        """End the stream."""
        if self.open:
            assert self.header is not None
            known = self.header.offset + self.header.count  # of a packet that may have been lost itself
            self.lost += -(-(self.header.frame_bits - known) // self.longest)
            yield from self.close()

    def _erased(self, until: int, last: bool = False) -> Iterator[Packet]:
        while self.reached < until or last:
            count = min(until - self.reached, MOST_ERASED)
            ends = last and self.reached + count == until
            facts = [Tag(self.reached, ERASED, count)] if count else []
            if ends and self.means.weight:
                facts.append(Tag(until, "estimate", self.means.told()))
            yield self._packet(self._zeros(count), self.reached, count, facts, ends)
            self.reached += count
            if ends:
                return

    def _zeros(self, count: int) -> np.ndarray:
        return np.zeros(-(-count // 8), np.uint8) if self.dtype == "bits" else np.zeros(count, self.dtype)

    def _packet(self, data: np.ndarray, offset: int, count: int, tags: list[Tag], last: bool) -> Packet:
        return Packet(data, self.frame, offset, count, self.dtype == "bits", tuple(tags), last)
