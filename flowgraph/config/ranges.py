"""Lists and ranges of values: `[5 dB, 7.5 dB]`, or `{from: 5 dB, to: 10 dB, step: 1.25 dB}`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from flowgraph.config.document import Mistakes, Node
from flowgraph.config.mistake import shown
from flowgraph.config.validate import validated
from flowgraph.units import Quantity, split_quantity

MAX_VALUES = 1000  # of a range


def _quantity(value: Any) -> Quantity:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be a number, or one with a unit, not {shown(value)}")
    found = split_quantity(value) if isinstance(value, str) else Quantity(value, "")
    if not math.isfinite(found.number):
        raise ValueError(f"must be a finite number, not {shown(value)}")
    return found


_Quantity = Annotated[Quantity, BeforeValidator(_quantity)]


class _Range(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    first: _Quantity = Field(alias="from")
    last: _Quantity = Field(alias="to")
    step: _Quantity = Quantity(1, "")

    @property
    def count(self) -> int:
        return math.floor((self.last.number - self.first.number) / self.step.number + 1e-9) + 1

    @model_validator(mode="after")
    def _some(self) -> _Range:
        units = {each.unit for each in (self.first, self.last, self.step)} - {""}
        if len(units) > 1:
            raise ValueError(f"must have one unit, not {' and '.join(sorted(units))}")
        if not self.step.number > 0:
            raise ValueError(f"must have a `step` of more than 0, not {self.step.number:g}")
        if not 1 <= self.count <= MAX_VALUES:
            raise ValueError(f"must have 1 to {MAX_VALUES} values from `from` up to `to`, not {max(self.count, 0)}")
        return self

    def values(self) -> list[Any]:
        unit = next((each.unit for each in (self.first, self.last, self.step) if each.unit), "")
        numbers = [round(self.first.number + i * self.step.number, 9) for i in range(self.count)]
        if all(isinstance(each.number, int) for each in (self.first, self.step)):
            numbers = list(map(int, numbers))
        return [f"{number} {unit}" if unit else number for number in numbers]


def is_grid(node: Node) -> bool:
    """Tell whether a node lists values, or gives them as a range."""
    return isinstance(node.value, list) or (isinstance(node.value, dict) and bool({"from", "to"} & node.value.keys()))


def values_of(node: Node, mistakes: Mistakes) -> list[Node]:
    """Return the values that a node lists or gives as a range, each with its place; of any other the node itself."""
    if not is_grid(node):
        return [node]
    if isinstance(node.value, list):
        if not node.value:
            mistakes.add(node.wrong("must have a value"))
        return node.value
    made = validated(mistakes, _Range, node, node.value, "a key of a range")
    return [replace(node, value=value, text=str(value), size=1) for value in made.values()] if made else []
