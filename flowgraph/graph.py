"""The flat graph: whether its blocks fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from pydantic import ValidationError

from flowgraph import registry
from flowgraph.block import Block, BlockError, Port
from flowgraph.config.document import Node
from flowgraph.config.mistake import ConfigError, Mistake, unknown
from flowgraph.config.validate import mistakes_in
from flowgraph.spec import GraphSpec

Side = Literal["inputs", "outputs"]


@dataclass
class Part:
    """A block of the flat graph; what is not known of it, after a mistake told elsewhere, is not checked."""

    block: type[Block] | None
    params: Any  # the checked parameters, or None
    at: Node


class Wire(NamedTuple):
    """A wire of the flat graph, and where its ends are written; an end that could not be found is None."""

    source: str | None
    target: str | None
    source_at: Node
    target_at: Node
    delay: int = 0


@dataclass
class Flat:
    """A flat graph under examination.

    blocks  by name
    wires   in the order written
    doors   inputs of blocks that are inputs of a sub-graph too: where that is used, and what it calls them
    vague   what a broken wire may have meant, as `block`, `block.port` or `.port`: not missed if unconnected
    whole   whether everything is there; else no input is missed
    """

    blocks: dict[str, Part] = field(default_factory=dict)
    wires: list[Wire] = field(default_factory=list)
    doors: dict[str, tuple[Node, str]] = field(default_factory=dict)
    vague: set[str] = field(default_factory=set)
    whole: bool = True


def check(spec: GraphSpec, blocks: Mapping[str, Block] | None = None) -> None:
    """Check a graph composed in Python; `blocks` are its block objects by name, where they exist already.

    Raises `ConfigError` with every mistake: unknown ports, inputs left open or written twice, loops, and item
    types, shapes, units or rates that do not fit.
    """
    flat, mistakes = Flat(), []
    for each in spec.blocks:
        at = Node(None, path=each.name)
        try:
            if blocks is not None:
                flat.blocks[each.name] = Part(type(blocks[each.name]), blocks[each.name].params, at)
            else:
                cls = registry.find(each.type)
                flat.blocks[each.name] = Part(cls, cls.Params.model_validate(each.params), at)
        except BlockError as error:
            mistakes.append(at.wrong(str(error)))
            flat.blocks[each.name] = Part(None, None, at)
        except ValidationError:
            mistakes += mistakes_in(each.params, cls.Params, each.name, f"a parameter of {each.type}")
            flat.blocks[each.name] = Part(None, None, at)
    for wire in spec.wires:
        at = Node(None, path=wire.name)
        flat.wires.append(Wire(wire.source, wire.target, at, at, wire.delay))
    mistakes += examine(flat)
    if mistakes:
        raise ConfigError(mistakes)


def find_port(blocks: Mapping[str, Part], endpoint: str, side: Side) -> Port | None:
    """Return the port that `block.port` names; None where the block's ports are not known.

    Raises `LookupError` with a sentence when there is no such block or port on that side.
    """
    block, _, name = endpoint.rpartition(".")
    if block not in blocks:
        raise LookupError(unknown("a block", block, blocks))
    cls = blocks[block].block
    if cls is None:
        return None
    for port in getattr(cls, side):
        if port.name == name:
            return port
    other: Side = "outputs" if side == "inputs" else "inputs"
    kind = f"an {side[:-1]} of {block}"
    if any(port.name == name for port in getattr(cls, other)):
        known = ", ".join(port.name for port in getattr(cls, side)) or "there is none"
        raise LookupError(f"must be {kind} ({known}), not its {other[:-1]} {name!r}")
    raise LookupError(unknown(kind, name, [port.name for port in getattr(cls, side)]))


def dtypes(part: Part, port: Port) -> set[str]:
    """Return the item types that may come out of, or go into, a port of a block with its parameters."""
    if port.chosen is not None and part.params is not None:
        return {port.chosen(part.params)}
    return set(port.dtypes)


def examine(flat: Flat) -> list[Mistake]:
    """Return all mistakes in the way that blocks are wired."""
    mistakes: list[Mistake] = []
    sound: list[Wire] = []  # both ends exist and fit one another
    writers: dict[str, Wire] = {}
    vague = set(flat.vague)
    for wire in flat.wires:
        ports: list[Port | None] = []
        ends: tuple[tuple[str | None, Side, Node], ...] = (
            (wire.source, "outputs", wire.source_at),
            (wire.target, "inputs", wire.target_at),
        )
        for endpoint, side, at in ends:
            try:
                ports.append(find_port(flat.blocks, endpoint, side) if endpoint else None)
            except LookupError as error:
                mistakes.append(at.wrong(str(error)))
                ports.append(None)
                if side == "inputs" and endpoint:
                    block, _, name = endpoint.rpartition(".")
                    vague.add(block if block in flat.blocks else f".{name}")
        if wire.target and wire.target in writers:
            first = writers[wire.target].target_at
            place = f", at {first.file}:{first.line}:{first.col}" if first.line else ""
            mistakes.append(wire.target_at.wrong(f"must be the only wire to {wire.target}, not the second{place}"))
            continue
        if wire.target:
            writers[wire.target] = wire
        source, target = ports
        if wire.source and wire.target and source and target:
            sound.append(wire)
            misfit = _misfit(flat, wire, source, target)
            if misfit:
                mistakes.append(wire.target_at.wrong(misfit))
    if flat.whole:
        mistakes += _open_inputs(flat, writers, vague)
    forward = [wire for wire in sound if not wire.delay]
    mistakes += _only_late(sound, forward)
    order, loops = _sorted(flat, forward)
    mistakes += loops
    mistakes += _rates(flat, order, forward)
    return mistakes


def _misfit(flat: Flat, wire: Wire, source: Port, target: Port) -> str | None:
    """Return what is wrong with the kind of items that a wire would carry."""
    assert wire.source is not None
    assert wire.target is not None

    def sentence(wanted: object, given: object) -> str:
        return f"must carry {wanted} to {wire.target}, not {given} from {wire.source}"

    given = dtypes(flat.blocks[wire.source.rpartition(".")[0]], source)
    wanted = dtypes(flat.blocks[wire.target.rpartition(".")[0]], target)
    if not given & wanted:
        return sentence(" or ".join(sorted(wanted)), " or ".join(sorted(given)))
    if source.unit and target.unit and source.unit != target.unit:
        return sentence(target.unit, source.unit)
    if source.shape is None or target.shape is None:
        return None
    pairs = zip(source.shape, target.shape, strict=False)
    if len(source.shape) != len(target.shape) or any(a != b and None not in (a, b) for a, b in pairs):
        return sentence(f"items of shape {_shape(target)}", _shape(source))
    return None


def _shape(port: Port) -> str:
    return " x ".join("any" if length is None else str(length) for length in port.shape or ()) or "one number"


def _open_inputs(flat: Flat, writers: Mapping[str, Wire], vague: set[str]) -> Iterator[Mistake]:
    told = set()
    for name, part in flat.blocks.items():
        ports = part.block.inputs if part.block and name not in vague else ()
        if ports and all(port.optional and f"{name}.{port.name}" not in writers for port in ports):
            yield part.at.wrong_key(f"must have an input connected ({', '.join(port.name for port in ports)})")
        for port in ports:
            endpoint = f"{name}.{port.name}"
            if port.optional or endpoint in writers or endpoint in vague or f".{port.name}" in vague:
                continue
            at, called = flat.doors.get(endpoint, (part.at, port.name))
            if (at.path, called) not in told:  # one input of a sub-graph may stand for several
                told.add((at.path, called))
                yield at.wrong_key(f"must have its input {called!r} connected")


def _only_late(sound: list[Wire], forward: list[Wire]) -> Iterator[Mistake]:
    """Tell of blocks that get nothing but what is late: there are no frames that it could be late by."""
    fed = {_block(wire.target) for wire in forward}
    for wire in sound:
        if wire.delay and _block(wire.target) not in fed:
            fed.add(_block(wire.target))
            yield wire.target_at.wrong(f"must not be the only wire to {_block(wire.target)}, as it has a delay")


def _sorted(flat: Flat, wires: list[Wire]) -> tuple[list[str], list[Mistake]]:
    """Return the blocks from sources to sinks, as far as loops allow, and one mistake for each loop."""
    readers: dict[str, list[tuple[str, Wire]]] = {name: [] for name in flat.blocks}
    for wire in wires:
        readers[_block(wire.source)].append((_block(wire.target), wire))
    order: list[str] = []
    mistakes: list[Mistake] = []
    state: dict[str, int] = {}  # 1 while its readers are being visited, 2 afterwards
    for root in flat.blocks:
        if root in state:
            continue
        state[root] = 1
        trail = [(root, iter(readers[root]))]
        while trail:
            name, rest = trail[-1]
            for reader, wire in rest:
                if state.get(reader) == 1:
                    names = [block for block, _ in trail]
                    loop = " -> ".join([*names[names.index(reader) :], reader])
                    mistakes.append(wire.target_at.wrong(f"must not close a loop without a delay: {loop}"))
                elif reader not in state:
                    state[reader] = 1
                    trail.append((reader, iter(readers[reader])))
                    break
            else:
                state[name] = 2
                order.append(name)
                trail.pop()
    return order[::-1], mistakes


class _Rate(NamedTuple):
    """Items a frame: `factor` times as many as the output `origin` hands out."""

    origin: str
    factor: Fraction


def _rates(flat: Flat, order: Iterable[str], wires: list[Wire]) -> Iterator[Mistake]:
    """Follow how many items a frame has from block to block, and compare where they must be equally many."""
    incoming: dict[str, dict[str, Wire]] = {}
    for wire in wires:
        block, _, port = (wire.target or "").rpartition(".")
        incoming.setdefault(block, {})[port] = wire
    rate_of: dict[str, _Rate] = {}  # by output
    for name in order:
        part, arriving = flat.blocks[name], incoming.get(name, {})
        if part.block is None:
            continue
        rates = {port: rate_of.get(wire.source or "") for port, wire in arriving.items()}
        known = {port: rate for port, rate in rates.items() if rate is not None}
        ratio: Fraction | Callable[[Any], Fraction] | None = part.block.ratio
        if callable(ratio):
            ratio = ratio(part.params) if part.params is not None else None
        first = next((known[port.name] for port in part.block.inputs if port.name in known), None)
        for output in part.block.outputs:
            endpoint = f"{name}.{output.name}"
            if ratio is not None and first is not None:
                rate_of[endpoint] = _Rate(first.origin, first.factor * Fraction(ratio))
            else:
                rate_of[endpoint] = _Rate(endpoint, Fraction(1))
        equal = [port for port in part.block.equal_rates if port in known]
        for port in equal[1:]:
            one, other = known[equal[0]], known[port]
            if one.origin == other.origin and one.factor != other.factor:
                yield arriving[port].target_at.wrong(
                    f"must carry as many items a frame to {name}.{port} as to {name}.{equal[0]}, "
                    f"not {other.factor / one.factor} times as many"
                )


def _block(endpoint: str | None) -> str:
    return (endpoint or "").rpartition(".")[0]
