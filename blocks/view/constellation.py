"""`constellation_view`: what symbols look like, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from blocks.phy.constellation import AnyModulation, Constellation, constellation
from blocks.view import figures
from blocks.view.style import keep_figure
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ConstellationView(Block):
    """Draw the density of symbols over the points sent and the decision regions, when the run ends.

    `<block>.pdf` and `<block>.png` show the first `shown` symbols of the run; the tag `modulation` tells the points.
    """

    class Params(BlockParams):
        shown: int = Field(200_000, ge=1, le=10_000_000, description="symbols that are drawn, the first of the run")

    inputs = (Port("symbols", "complex64", "Es = 1"),)

    def start(self) -> None:
        self.first = FirstSymbols(self.params.shown)

    def work(self, symbols: Packet) -> None:
        for tag in symbols.tags:
            if tag.key == "modulation":
                self.first.told(tag.value)
        self.first.add(symbols.data)

    def stop(self) -> None:
        if self.first.parts:
            keep_figure(self, self.name, self.first.figure)


class FirstSymbols:
    """Keeps the first symbols of a stream, and draws them."""

    def __init__(self, room: int):
        self.room, self.count = room, 0
        self.parts: list[np.ndarray] = []
        self.modulations: dict[Constellation, None] = {}  # in the order in which they came

    def told(self, modulation: AnyModulation) -> None:
        """Take note of a modulation that is in use."""
        self.modulations[constellation(modulation)] = None

    def add(self, symbols: np.ndarray) -> None:
        """Take in symbols, as far as there is room."""
        if self.count <= self.room:
            self.parts.append(symbols[: self.room - self.count].copy())
        self.count += len(symbols)

    def figure(self) -> Figure:
        """Draw what was kept."""
        symbols = np.concatenate(self.parts)
        title = f"{len(symbols):,} symbols received"
        if self.count > len(symbols):
            title = f"the first {len(symbols):,} of {self.count:,} symbols received"
        return figures.constellation(symbols, *self.modulations, title=title)
