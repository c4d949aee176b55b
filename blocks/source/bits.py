"""`bit_source`: random or given bits, in frames."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from pydantic import Field, field_validator

from blocks.phy import noise
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import BitCount


class BitSource(Block):
    """Send so many bits: uniformly random ones, or a pattern that every frame repeats from its start.

    A bit depends on the run's seed, the block's name, its frame and its place there, and not on the size of packets.
    """

    class Params(BlockParams):
        bits: BitCount = Field(1_000_000, ge=0, description="bits in all")
        frame: BitCount = Field(1 << 23, ge=1, description="bits of a frame; the last one may be shorter")
        packet: BitCount = Field(1 << 20, ge=128, multiple_of=128, description="most bits of a packet")
        pattern: str | None = Field(None, description='bytes to repeat in place of random bits, as hex: "ff 00"')

        @field_validator("pattern")
        @classmethod
        def _hex(cls, text: str | None) -> str | None:
            if text is not None:
                try:
                    empty = not bytes.fromhex(text)
                except ValueError:
                    empty = True
                if empty:
                    raise ValueError(f'must be bytes in hex such as "ff 00", not {text!r}')
            return text

    outputs = (Port("bits", "bits", "random bits or the pattern"),)

    def start(self) -> None:
        noise.kernels()

    def produce(self) -> Iterator[Packet]:
        p = self.params
        for frame in range(-(-p.bits // p.frame)):
            size = min(p.frame, p.bits - frame * p.frame)
            for offset in range(0, size, p.packet):
                count = min(p.packet, size - offset)
                data = self._bytes(-(-count // 8), frame, offset // 8)
                if count % 8:
                    data[-1] &= 0xFF << (-count % 8) & 0xFF
                yield Packet(data, frame, offset, count, packed=True, last=offset + count == size)

    def _bytes(self, count: int, frame: int, offset: int) -> np.ndarray:
        if self.params.pattern is None:
            return noise.random_bytes(count, self.key, frame, offset)
        pattern = np.frombuffer(bytes.fromhex(self.params.pattern), np.uint8)
        return np.resize(np.roll(pattern, -offset), count)
