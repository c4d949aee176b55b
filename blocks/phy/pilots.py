"""Pilots: symbols among the data that both ends know; `pilot_inserter` puts them in, `channel_estimator` uses them.

A frame is a group of pilots, `spacing` data symbols, a group of pilots, and so on. Its last data may be fewer, and a
group of pilots ends it:

    P P D D D D D D P P D D D D D D P P D D D P P        length 2, spacing 6, 15 data symbols

Pilot m of a frame is p(m) = (1 - 2 c(2m) + j (1 - 2 c(2m+1))) / sqrt(2), as the reference signals of 3GPP TS 38.211,
7.4.1.1.1, with the Gold sequence c of clause 5.2.1 and c_init = `C_INIT`. The pilots begin anew with every frame, and
after every 4096 groups.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from pydantic import Field

from blocks.gold import gold_sequence
from flowgraph.block import ERASED, Block, Packet, Port, Tag
from flowgraph.block import Params as BlockParams

C_INIT = 0x911_07  # any number would do: both ends know it
GROUPS = 4096  # after which the pilots begin anew


@functools.lru_cache(16)
def sequence(length: int) -> np.ndarray:
    """Return the pilots of a frame's first 4096 groups of `length`, complex64."""
    c = gold_sequence(C_INIT, 2 * GROUPS * length).astype(np.float32)
    pilots = ((1 - 2 * c) / np.float32(2**0.5)).view(np.complex64)
    pilots.flags.writeable = False
    return pilots


class Parts(NamedTuple):
    """How symbols that begin with a group divide.

    data    how many data symbols there are
    groups  how many groups there are, a period apart
    last    where one more group begins, which is less than a period behind the others, and ends the frame; None without
    """

    data: int
    groups: int
    last: int | None = None


@dataclass(frozen=True)
class Pattern:
    """Where the pilots of a frame are: a group of `length` before every `spacing` data symbols, and one at the end.

    Raises `ValueError` where either is below 1.
    """

    spacing: int
    length: int = 1

    def __post_init__(self) -> None:
        if self.spacing < 1 or self.length < 1:
            raise ValueError(f"spacing and length must be at least 1, not {self.spacing} and {self.length}")

    @property
    def period(self) -> int:
        """Symbols from the beginning of a group to that of the next."""
        return self.spacing + self.length

    def place(self, data: int) -> int:
        """Return where a data symbol of a frame is sent; for one right behind a group, where the group begins."""
        periods, rest = divmod(data, self.spacing)
        return periods * self.period + (rest + self.length if rest else 0)

    def data_before(self, place: int) -> int:
        """Return how many data symbols are sent before a place."""
        periods, rest = divmod(place, self.period)
        return periods * self.spacing + max(rest - self.length, 0)

    def parts(self, count: int, ended: bool) -> Parts | None:
        """Return how the last `count` symbols of a frame divide, `ended` or broken off; None if no frame ends so."""
        body = count - self.length if ended else count
        periods, rest = divmod(body, self.period)
        if ended and (body < 0 or 0 < rest <= self.length):
            return None
        groups = periods + (ended or rest >= self.length)
        return Parts(self.data_before(body), groups, body if ended and rest else None)

    def insert(self, data: np.ndarray, first: int = 0, ends: bool = True) -> np.ndarray:
        """Return complex64 data with the group number `first` before it, the next behind `spacing` symbols, and so on.

        Where it `ends` the frame, a group ends it, else it is a multiple of `spacing`.

        >>> sent = Pattern(spacing=2).insert(np.zeros(3, np.complex64))
        >>> np.abs(sent).round(3).tolist()
        [1.0, 0.0, 0.0, 1.0, 0.0, 1.0]
        """
        full, rest = divmod(len(data), self.spacing)
        groups = full + (rest > 0) + ends
        pilots = sequence(self.length).reshape(GROUPS, -1)[np.arange(first, first + groups) % GROUPS]
        out = np.empty(len(data) + pilots.size, np.complex64)
        periods, tail = out[: full * self.period].reshape(full, self.period), out[full * self.period :]
        periods[:, : self.length] = pilots[:full]
        periods[:, self.length :] = data[: full * self.spacing].reshape(full, self.spacing)
        if rest:
            tail[: self.length] = pilots[full]
            tail[self.length :][:rest] = data[full * self.spacing :]
        if ends:
            tail[-self.length :] = pilots[-1]
        return out

    def data(self, symbols: np.ndarray, count: int) -> np.ndarray:
        """Return the first `count` data of complex64 symbols that begin with a group."""
        full, rest = divmod(count, self.spacing)
        out = np.empty(count, np.complex64)
        periods = symbols[: full * self.period].reshape(full, self.period)
        out[: full * self.spacing].reshape(full, self.spacing)[:] = periods[:, self.length :]
        out[full * self.spacing :] = symbols[full * self.period + self.length :][:rest]
        return out


class PilotParams(BlockParams):
    """Where the pilots are, of which both ends must be told the same."""

    spacing: int = Field(32, ge=1, le=4096, description="data symbols between two groups of pilots")
    length: int = Field(1, ge=1, le=64, description="pilots of a group")

    @property
    def pattern(self) -> Pattern:
        return Pattern(self.spacing, self.length)


def moved(tags: tuple[Tag, ...], place: Callable[[int], int]) -> tuple[Tag, ...]:
    """Return tags where their items have moved to; an erasure counts the items that it covers there."""
    return tuple(
        Tag(place(offset), key, place(offset + value) - place(offset) if key == ERASED else value)
        for offset, key, value in tags
    )


class PilotInserter(Block):
    """Send a group of known symbols of unit energy before every `spacing` data symbols, and one at the end of a frame.

    The pilots are QPSK from a Gold sequence that begins anew with every frame (`blocks.phy.pilots`). Frames begin with
    the tag `link_rate`, data symbols a symbol sent, by which a channel with `ebn0` spreads the energy; what the end of
    a frame adds is not counted in it.
    """

    Params = PilotParams
    inputs = (Port("symbols", "complex64", "data, Es = 1", align=lambda p: p.spacing),)
    outputs = (Port("symbols", "complex64", "data and pilots, Es = 1"),)

    def work(self, symbols: Packet) -> Packet:
        pattern = self.params.pattern
        first = symbols.offset // pattern.spacing
        sent = pattern.insert(symbols.data, first, symbols.last)
        tags = moved(symbols.tags, pattern.place)
        if symbols.offset == 0:
            rate = symbols.tag("link_rate", 1.0) * pattern.spacing / pattern.period
            tags = (*(tag for tag in tags if tag.key != "link_rate"), Tag(0, "link_rate", rate))
        return replace(symbols, data=sent, offset=first * pattern.period, count=len(sent), tags=tags)
