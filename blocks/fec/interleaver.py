"""`interleaver` and `deinterleaver`: neighbours are sent far apart, so that a fade hits many code blocks a little."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.fec.order import block_order, random_order
from flowgraph.block import Block, Packet, Port, Tag
from flowgraph.block import Params as BlockParams


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
        out, length = np.empty_like(items), self.params.length
        gone = bits.erased()
        missing = None if gone is None else np.empty_like(gone)
        for start in range(0, bits.count, length):
            order = self.params.order(min(length, bits.count - start))
            here = slice(start, start + len(order))
            _permute(items[here], order, self.inverse, out[here])
            if gone is not None and missing is not None:
                _permute(gone[here], order, self.inverse, missing[here])
        made = bits.derive(np.packbits(out) if bits.packed else out, count=bits.count, packed=bits.packed)
        return replace(made, tags=tuple(map(_retold, made.tags))).with_erased(missing)


def _retold(tag: Tag) -> Tag:
    """Return a tag as it holds of items in another order: those of one fade, or one code block, are neighbours no more.

    Their errors have to do with one another all the same: what was decoded keeps no `code_bits`.
    """
    if tag.key != "true_channel":
        return tag
    kept = {key: value for key, value in tag.value.items() if key != "code_bits"}
    return tag._replace(value=kept | {"interleaved": True})


def _permute(items: np.ndarray, order: np.ndarray, inverse: bool, out: np.ndarray) -> None:
    if inverse:
        out[order] = items
    else:
        np.take(items, order, out=out)


class Interleaver(_Permuter):
    """Send items in another order: bits, or soft bits. Erasures move with the items."""

    Params = _Params
    inverse = False


class Deinterleaver(_Permuter):
    """Put what `interleaver` sent back into order."""

    Params = _Params
    inverse = True
