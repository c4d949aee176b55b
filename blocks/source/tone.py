"""`tone_source`: a complex tone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import Hertz


class ToneSource(Block):
    """Send x[n] = a e^(2 pi i f n / fs); the phase goes on from frame to frame."""

    class Params(BlockParams):
        samples: int = Field(1_000_000, ge=0, description="samples in all")
        frequency: Hertz = Field(1000.0, description="f, negative ones turn the other way")
        sample_rate: Annotated[Hertz, Field(gt=0)] = Field(48000.0, description="fs")
        amplitude: float = Field(1.0, ge=0, description="a; the power is its square")
        frame: int = Field(1 << 20, ge=1, description="samples of a frame; the last one may be shorter")
        packet: int = Field(1 << 16, ge=1, description="most samples of a packet")

        @model_validator(mode="after")
        def _in_band(self) -> ToneSource.Params:
            half = self.sample_rate / 2
            if abs(self.frequency) > half:
                raise ValueError(f"must have a frequency of at most half the sample rate, {half:g} Hz")
            return self

    outputs = (Port("samples", "complex64", "the tone"),)

    def produce(self) -> Iterator[Packet]:
        p = self.params
        for frame in range(-(-p.samples // p.frame)):
            size = min(p.frame, p.samples - frame * p.frame)
            for offset in range(0, size, p.packet):
                count = min(p.packet, size - offset)
                first = frame * p.frame + offset
                yield Packet(self._tone(first, count), frame, offset, last=offset + count == size)

    def _tone(self, first: int, count: int) -> np.ndarray:
        turns = np.arange(first, first + count) * (self.params.frequency / self.params.sample_rate) % 1.0
        return (self.params.amplitude * np.exp(2j * np.pi * turns)).astype(np.complex64)
