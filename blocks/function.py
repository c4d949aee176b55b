"""`numpy_function`: a user's NumPy function as a block, without any packaging."""

from __future__ import annotations

import traceback
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field

from blocks.code import CodeParams, load_named
from flowgraph.block import Block, BlockError, Packet, Port

Item = Literal["bits", "uint8", "int8", "int16", "int32", "int64", "float32", "float64", "complex64", "complex128"]
ITEMS = Item.__args__  # type: ignore[attr-defined]


def _check_ratio(text: str | int) -> str:
    try:
        ratio = Fraction(text)
    except (ValueError, ZeroDivisionError):
        ratio = Fraction(0)
    if ratio <= 0:
        raise ValueError(f'must be a positive number of items out per item in, such as 2 or "1/4", not {text!r}')
    return str(ratio)


class NumpyFunction(Block):
    """Call a function of one NumPy array on every packet's items.

    The function gets the items of a packet and returns an array of `ratio` times as many. It must treat items alike
    wherever a packet begins (with a ratio of p/q it gets multiples of q, the end of a frame excepted, where
    it returns the whole number at or above). Bits are given as an array of 0 and 1, uint8. Raise `ValueError` for bad
    input; its text is shown. It runs in the block's worker, with that worker's rights; its module or file must be on
    that worker's host.
    """

    class Params(CodeParams):
        function: str = Field(description="name of the function")
        input: Item = Field("complex64", description="type of the items it gets")
        output: Item = Field("complex64", description="type of the items it returns")
        ratio: Annotated[str | int, AfterValidator(_check_ratio)] = Field(
            1, description='items out per item in: 2, "1/4"'
        )

    inputs = (Port("items", ITEMS, "what the function gets", align=lambda p: Fraction(p.ratio).denominator),)
    outputs = (Port("items", ITEMS, "what it returns", chosen=lambda p: p.output),)
    ratio = staticmethod(lambda p: Fraction(p.ratio))

    def start(self) -> None:
        p = self.params
        self.function = load_named(p.function, file=p.file, module=p.module)

    def work(self, items: Packet) -> Packet:
        p = self.params
        if items.dtype != p.input:
            raise BlockError(f"input must carry {p.input}, not {items.dtype}: set `input` to what arrives")
        data = np.unpackbits(items.data, count=items.count) if items.packed else items.data
        try:
            out = self.function(data)
        except (Exception, SystemExit) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            what = f"{type(error).__name__}: {error} ({where})"
            raise BlockError(f"{p.function} failed on {items.count} {p.input}: {what}") from error
        wanted = -(-items.count * Fraction(p.ratio) // 1)
        dtype = np.dtype("uint8" if p.output == "bits" else p.output)
        if not isinstance(out, np.ndarray) or out.dtype != dtype or out.shape != (wanted,):
            got = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise BlockError(
                f"{p.function} must return an array {dtype} ({wanted},) for {items.count} items, not {got}"
            )
        if p.output == "bits":
            return items.derive(np.packbits(out), Fraction(p.ratio), count=len(out), packed=True)
        return items.derive(np.ascontiguousarray(out), Fraction(p.ratio))
