"""`interleaver` and `deinterleaver`: neighbours are sent far apart, so that a fade hits many code blocks a little."""

from __future__ import annotations

import functools
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from flowgraph.block import ERASED, Block, Packet, Port, Tag
from flowgraph.block import Params as BlockParams


@functools.lru_cache(16)
def block_order(count: int, rows: int) -> np.ndarray:
    """Which of `count` items is sent when, int64: written row by row, read column by column.

    >>> block_order(7, 2)
    array([0, 4, 1, 5, 2, 6, 3])
    """
    places = np.arange(-(-count // rows) * rows).reshape(rows, -1).T.ravel()
    return places[places < count]


@functools.lru_cache(16)
def random_order(count: int, seed: int = 0) -> np.ndarray:
    """Which of `count` items is sent when, int64: a permutation drawn by `seed` (Philox)."""
    return np.random.Generator(np.random.Philox(key=seed)).permutation(count)


class _Params(BlockParams):
    """An order, of which both ends must be told the same."""

    kind: Literal["block", "random"] = Field("random", description="rows and columns, or a pseudo-random order")
    length: int = Field(
        65536,
        ge=8,
        le=1 << 24,
        multiple_of=8,
        description="items that are interleaved; the end of a frame among itself",
    )
    rows: int | None = Field(None, ge=2, description="rows written, for kind: block; columns are read")
    order_seed: int = Field(0, ge=0, lt=1 << 64, description="another seed is another order, for kind: random")

    @model_validator(mode="after")
    def _shape(self) -> _Params:
        if (self.kind == "block") != (self.rows is not None):
            raise ValueError("must have rows with kind: block, and only then")
        return self

    def order(self, count: int) -> np.ndarray:
        """Which of `count` items is sent when."""
        return random_order(count, self.order_seed) if self.rows is None else block_order(count, self.rows)


ITEMS = ("bits", "int8", "float32")


class _Permuter(Block):
    inverse: bool
    inputs = (Port("bits", ITEMS, "bits or LLRs", align=lambda p: p.length),)
    outputs = (Port("bits", ITEMS, "the same, in another order"),)
    ratio = Fraction(1)

    def work(self, bits: Packet) -> Packet:
        items = np.unpackbits(bits.data, count=bits.count) if bits.packed else bits.data
        out, length, tags = np.empty_like(items), self.params.length, []
        gone = _erased(bits)
        for start in range(0, bits.count, length):
            order = self.params.order(min(length, bits.count - start))
            here = slice(start, start + len(order))
            _permute(items[here], order, self.inverse, out[here])
            if gone is not None:
                moved = np.empty(len(order), np.bool_)
                _permute(gone[here], order, self.inverse, moved)
                tags += _erasures(moved, bits.offset + start)
        made = bits.derive(np.packbits(out) if bits.packed else out, count=bits.count, packed=bits.packed)
        if gone is not None:
            made.tags = tuple(tag for tag in made.tags if tag.key != ERASED) + tuple(tags)
        return made


def _permute(items: np.ndarray, order: np.ndarray, inverse: bool, out: np.ndarray) -> None:
    if inverse:
        out[order] = items
    else:
        np.take(items, order, out=out)


def _erased(packet: Packet) -> np.ndarray | None:
    """Which items of a packet are missing, bool; None where none is."""
    found = [tag for tag in packet.tags if tag.key == ERASED]
    if not found:
        return None
    gone = np.zeros(packet.count, np.bool_)
    for tag in found:
        gone[max(tag.offset - packet.offset, 0) : tag.offset - packet.offset + tag.value] = True
    return gone


def _erasures(gone: np.ndarray, offset: int) -> list[Tag]:
    """The tags that tell of missing items."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], gone.view(np.int8), [0]])))
    return [Tag(offset + int(a), ERASED, int(b - a)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


class Interleaver(_Permuter):
    """Send items in another order: bits, or soft bits. Erasures move with the items."""

    Params = _Params
    inverse = False


class Deinterleaver(_Permuter):
    """Put what `interleaver` sent back into order."""

    Params = _Params
    inverse = True
