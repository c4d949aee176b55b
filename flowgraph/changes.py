"""Parameters that change while a graph runs: which may, whether a value is right, and when a block takes it over.

A change takes effect between packets, and is logged with the first item that it holds for. The same log, given to the
graph as `changes:`, has the same effect at the same items, however the packets are cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from msgspec import structs
from pydantic import BaseModel

from flowgraph.block import Block, BlockError
from flowgraph.config.document import Node, node_of
from flowgraph.config.mistake import unknown
from flowgraph.config.validate import validate
from flowgraph.spec import ChangeSpec


def live_parameters(block: type[Block]) -> list[str]:
    """Return the parameters of a block type that may change while it runs."""
    extras = ((name, info.json_schema_extra) for name, info in block.Params.model_fields.items())
    return [name for name, extra in extras if isinstance(extra, dict) and extra.get("live")]


def alternatives(schema: Mapping[str, Any]) -> list[str]:
    """Return the parameters of its block that one with this JSON Schema is set instead of."""
    return schema.get("instead_of", [])


def find_parameter(blocks: Mapping[str, type[Block]], name: str) -> tuple[str, str]:
    """Return block and parameter that a name means: `link.air.ebn0`, or its end `ebn0` where only one has it.

    Raises `BlockError` where it means none that is live, or several.
    """
    known = {f"{block}.{each}": (block, each) for block, cls in blocks.items() for each in live_parameters(cls)}
    meant = [full for full in known if full == name or full.endswith(f".{name}")]
    if name in known or len(meant) == 1:
        return known[name if name in known else meant[0]]
    if meant:
        raise BlockError(f"must be one parameter, not {name!r}, which may be {' or '.join(meant)}")
    block, _, parameter = name.rpartition(".")
    if block in blocks and parameter in blocks[block].Params.model_fields:
        raise BlockError(f"must be a live parameter, not {name}, which stays as it was when the run started")
    names = known if block else dict.fromkeys(parameter for _, parameter in known.values())
    raise BlockError(unknown("a live parameter", name, names))


def with_change(block: type[Block], params: Mapping[str, Any], name: str, value: Any) -> BaseModel:
    """Return a block's parameters with another value of one, text being read as in a config.

    Those that it is set instead of become null. Raises `BlockError` with the reason where the value is not right.
    """
    # What the block already has was read once: its text `""` is no null.
    nodes = {key: node_of(each, "", key, reading=False) for key, each in params.items()}
    extra = block.Params.model_fields[name].json_schema_extra
    for other in alternatives(extra) if isinstance(extra, dict) else ():
        nodes[other] = node_of(None, "", other)
    nodes[name] = node_of(value, "", name)
    made, _, mistakes = validate(block.Params, Node(None), nodes, f"a parameter of {block.type_name()}")
    if made is None:
        raise BlockError(f"{name} {mistakes[0].message}" if mistakes else f"{name} cannot be {value!r}")
    return made


class Changes:
    """The changes of one block's parameters that wait: of the log, and those that are asked for while it runs.

    `tell(number, change, fault)` hears of every change once it holds, and of one that the block could not take.
    Changes are asked for in any thread, and take place in the block's own.
    """

    def __init__(
        self,
        block: Block,
        log: Iterable[ChangeSpec] = (),
        tell: Callable[[int, ChangeSpec, str], None] = lambda number, change, fault: None,
    ):
        self.block, self.tell = block, tell
        self.log = deque(sorted(log, key=lambda change: (change.frame, change.offset)))
        self.asked: deque[tuple[int, ChangeSpec]] = deque()
        self.waiting = bool(self.log)

    def ask(self, number: int, change: ChangeSpec) -> None:
        """Let a change take place as soon as may be."""
        self.asked.append((number, change))
        self.waiting = True

    def take_place(self, frame: int | float, offset: int) -> None:
        """Make the changes that hold for the item `offset` of `frame`, which comes next."""
        self.waiting = False  # first: another thread may ask meanwhile
        while self.log and (self.log[0].frame, self.log[0].offset) <= (frame, offset):
            change = self.log.popleft()
            self._make(-1, change, change.frame, change.offset)
        while self.asked:
            self._make(*self.asked.popleft(), int(frame), offset)
        if self.log:
            self.waiting = True

    def next_within(self, frame: int, begin: int, end: int) -> int | None:
        """Return the item between `begin` and `end` of a frame for which the next change of the log holds."""
        if self.log and self.log[0].frame == frame and begin < self.log[0].offset < end:
            return self.log[0].offset
        return None

    def _make(self, number: int, change: ChangeSpec, frame: int, offset: int) -> None:
        before, fault = self.block.params, ""
        try:
            given = before.model_dump(mode="json")
            self.block.params = with_change(type(self.block), given, change.parameter, change.value)
            self.block.changed(change.parameter)
        except BlockError as error:
            self.block.params, fault = before, str(error)
        value = self.block.params.model_dump(mode="json")[change.parameter]
        self.tell(number, structs.replace(change, value=value, frame=frame, offset=offset), fault)
