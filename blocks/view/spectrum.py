"""`spectrum_view`: the spectrum of a signal, as figures."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from blocks.view import figures
from blocks.view.style import keep_figure
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams
from flowgraph.units import Hertz


class SpectrumView(Block):
    """Draw the power spectrum of a signal, and how it changes in time, when the run ends.

    `<block>.pdf` and `.png` for the spectrum, `<block>_over_time.pdf` and `.png` for the spectrogram, of the first
    `shown` samples of the run.
    """

    class Params(BlockParams):
        shown: int = Field(100_000, ge=256, le=10_000_000, description="samples that are drawn, the first of the run")
        sample_rate: Annotated[Hertz, Field(gt=0)] | None = Field(None, description="for axes in Hz and seconds")

    inputs = (Port("samples", "complex64", "signal"),)

    def start(self) -> None:
        self.parts: list[np.ndarray] = []
        self.room = self.params.shown

    def work(self, samples: Packet) -> None:
        if self.room:
            self.parts.append(samples.data[: self.room].copy())
            self.room -= len(self.parts[-1])

    def stop(self) -> None:
        if not self.parts:
            return
        samples = np.nan_to_num(np.concatenate(self.parts), posinf=0.0, neginf=0.0)
        rate = self.params.sample_rate
        keep_figure(self, self.name, lambda: figures.spectrum(samples, rate))
        keep_figure(self, f"{self.name}_over_time", lambda: figures.spectrogram(samples, rate))
