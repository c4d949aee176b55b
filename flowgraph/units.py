"""Quantities with units: `"2.45 GHz"` in a config becomes `2.45e9` in a block whose parameter is in Hz."""

import math
import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, WithJsonSchema

_PREFIXES = {"": 1.0, "n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
_PREFIXED = {"Hz", "s", "B", "bit", "Sps", "symbol"}
_UNPREFIXED = {"dB", "dBc", "dBm", "deg", "rad", "ppm", "%", "px", "sample", "steps"}
_SHAPE = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([^\s\d].*?)?\s*")


class Quantity(NamedTuple):
    """A number and the unit that it was written with, which may be none."""

    number: int | float
    unit: str


def split_quantity(text: str) -> Quantity:
    """Return number and unit of `text`. Raises `ValueError` with a sentence for what is no quantity.

    >>> split_quantity("6.25 dB"), split_quantity("3")
    (Quantity(number=6.25, unit='dB'), Quantity(number=3, unit=''))
    """
    match = _SHAPE.fullmatch(text)
    if not match or not _is_unit(match[2] or ""):
        raise ValueError(f"must be a number, or one with a unit, not {text!r}")
    number = float(match[1])
    return Quantity(int(match[1]) if re.fullmatch(r"[-+]?\d+", match[1]) else number, match[2] or "")


def _is_unit(text: str) -> bool:
    scaled = [text.removesuffix(unit) for unit in _PREFIXED if text.endswith(unit)]
    return text in _UNPREFIXED | {""} or any(prefix in _PREFIXES | _BINARY for prefix in scaled)


def parse_quantity(text: str, unit: str) -> float:
    """Return the value of `text` in `unit`.

    >>> parse_quantity("2.45 GHz", "Hz"), parse_quantity("10 dB", "dB"), parse_quantity("64 KiB", "B")
    (2450000000.0, 10.0, 65536.0)

    Raises `ValueError` with a sentence for people when the number or the unit does not fit.
    """
    match = _SHAPE.fullmatch(text)
    if not match:
        raise ValueError(f"must be a number with unit {unit}, not {text!r}")
    number, given = float(match[1]), match[2] or ""
    if given in ("", unit):
        return number
    if unit in _PREFIXED and given.endswith(unit):
        prefix = given[: -len(unit)]
        scale = _PREFIXES.get(prefix) or (_BINARY.get(prefix) if unit in ("B", "bit") else None)
        if scale:
            return number * scale
    raise ValueError(f"must be in {unit}, not {given!r}")


class Unit:
    """The unit of a numeric parameter, kept in its annotation so that schema, help and plots can name it."""

    def __init__(self, symbol: str):
        assert symbol in _PREFIXED | _UNPREFIXED, symbol
        self.symbol = symbol


def _quantity(symbol: str, number: type):
    def read(value):
        if isinstance(value, str):
            value = parse_quantity(value, symbol)
        if isinstance(value, float) and math.isnan(value):
            raise ValueError(f"must be a number with unit {symbol}, not NaN")
        return value

    kind = "integer" if number is int else "number"
    schema = {"anyOf": [{"type": kind}, {"type": "string", "pattern": rf"^\s*[-+.\d].*{re.escape(symbol)}\s*$|^\$"}]}
    return Annotated[number, BeforeValidator(read), WithJsonSchema({**schema, "x-unit": symbol}), Unit(symbol)]


Decibel = _quantity("dB", float)
DecibelOfCarrier = _quantity("dBc", float)
Hertz = _quantity("Hz", float)
Seconds = _quantity("s", float)
Bytes = _quantity("B", int)
BitCount = _quantity("bit", int)
Samples = _quantity("sample", float)
Percent = _quantity("%", float)
Degrees = _quantity("deg", float)
PartsPerMillion = _quantity("ppm", float)
