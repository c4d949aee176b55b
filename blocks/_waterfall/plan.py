"""A waterfall's YAML -> its points, each a graph of its own; or every mistake at once, each with its place."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import structs
from pydantic import BaseModel, ConfigDict, Field

from flowgraph.config.document import Mistakes, Node, TooMany, node_of
from flowgraph.config.layers import Document, Files
from flowgraph.config.load import graph_of, with_settings
from flowgraph.config.ranges import values_of
from flowgraph.config.validate import validated
from flowgraph.config.variables import Variables
from flowgraph.spec import GraphSpec
from flowgraph.units import BitCount, Decibel

KEYS = ("waterfall", "seed", "vars", "extends", "ebn0", "block", "until", "curves")

# Rounds grow, so that a noisy point ends soon and a quiet one does not spend its time on starting graphs.
FIRST_ROUND, DOUBLED, ROUND_BITS = 64, 4, 1 << 23  # blocks; how often these are doubled; bits at most


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Head(_Options):
    waterfall: str = Field(min_length=1, description="what it is called")
    seed: int = Field(0, ge=0, lt=1 << 64, description="seed of all random numbers")
    block: BitCount = Field(8192, ge=1, le=1 << 26, description="bits of a block, sent as a frame")


class Until(_Options):
    """When a point is done: after so many errors of both kinds, or after so many bits."""

    errors: int = Field(100, ge=0, description="wrong bits")
    block_errors: int = Field(100, ge=0, description="blocks of which any bit is wrong: behind a decoder they tell")
    bits: BitCount = Field(10**8, ge=1, description="bits sent at most, to the end of a round")


class _Value(_Options):
    ebn0: Decibel


@dataclass(frozen=True)
class Point:
    """A link at one Eb/N0: `bit_source` -> link -> `error_meter`, a block being a frame.

    `key` stands for all that its errors depend on: the same key is the same errors.
    """

    curve: str
    ebn0_db: float
    block: int
    graph: GraphSpec
    key: str

    @property
    def name(self) -> str:
        """What people call it: its curve and its Eb/N0."""
        return f"{self.curve}, {self.ebn0_db:g} dB"

    def blocks(self, number: int) -> int:
        """Return the blocks of a round."""
        return min(FIRST_ROUND << min(number, DOUBLED), max(ROUND_BITS // self.block, 1))

    def round(self, number: int) -> GraphSpec:
        """Return the graph of a round; its random numbers follow from the key and the number."""
        digest = hashlib.blake2b(f"{self.key}/{number}".encode(), digest_size=8).digest()
        bits = {"bits": self.blocks(number) * self.block}
        blocks = [
            structs.replace(each, params=each.params | bits) if each.name == "source" else each
            for each in self.graph.blocks
        ]
        return structs.replace(self.graph, seed=int.from_bytes(digest, "little"), blocks=blocks)


@dataclass(frozen=True)
class Waterfall:
    """What is to be measured: `points` by curve and Eb/N0, each until it is done."""

    title: str
    block: int
    until: Until
    points: list[Point]

    @property
    def contents(self) -> str:
        """How much it is."""
        return f"{len(self.curves)} curves, {len(self.points)} points"

    @property
    def curves(self) -> list[str]:
        """The names of the curves."""
        return list(dict.fromkeys(point.curve for point in self.points))


def load(
    file: str, overlays: Iterable[str] = (), settings: Mapping[str, Any] | None = None, seed: int | None = None
) -> Waterfall:
    """Load a YAML file as `flowgraph.config.load.load` does. Raises `ConfigError` with every mistake."""
    files = Files(Mistakes(), "waterfall", KEYS)
    waterfall = None
    try:
        document = files.document(file)
        for overlay in overlays:
            document = document.under(files.document(overlay))
        waterfall = _waterfall(with_settings(document.settled(), settings or {}, files.mistakes), files, seed)
    except TooMany:
        pass
    if files.mistakes or waterfall is None:
        raise files.error()
    return waterfall


def _waterfall(document: Document, files: Files, seed: int | None) -> Waterfall | None:
    keys, mistakes = document.keys, files.mistakes
    if document.at.value is None:  # there is no such file, or nothing in it, which has been told
        return None
    variables = Variables(mistakes.mapping(keys["vars"]), {}, mistakes, document.whole)
    given = {key: variables.resolve(keys[key]) for key in _Head.model_fields if key in keys}
    if seed is not None:
        given["seed"] = node_of(seed, "--seed", "")
    head = validated(mistakes, _Head, document.at, given, "a key of a waterfall")
    stop = variables.resolve(keys.get("until", document.at.holding({})))
    until = validated(mistakes, Until, stop, mistakes.mapping(stop), "a key of `until`")
    curves = keys.get("curves", document.at.holding({}))
    if mistakes.mapping(curves) == {}:
        mistakes.add(curves.wrong("must have `curves`: a link for each, as {graph: links/awgn.yaml}"))
    points = []
    for name, curve in mistakes.mapping(curves).items():
        link = mistakes.expect(curve, dict, "a link, as {graph: links/awgn.yaml}")
        if link is None:
            continue
        ebn0 = link.get("ebn0", keys.get("ebn0"))
        if ebn0 is None:
            mistakes.add(curve.wrong_key("must have `ebn0`, as [0 dB, 2 dB] or {from: 0 dB, to: 10 dB, step: 1 dB}"))
        values = _values(variables.resolve(ebn0), mistakes) if ebn0 else []
        for at, value in values or [(curve, 0.0)]:  # a stand-in, so that the link is checked all the same
            node = replace(at, value=value, text=None)
            job = _job(curve.holding({**link, "ebn0": node}), keys["vars"], head.block if head else 8192)
            if (graph := graph_of(job, files)) and head:
                graph = structs.replace(_leading_to("errors", graph), name=name, seed=head.seed)
                points.append(Point(name, value, head.block, graph, _key(graph)))
    return Waterfall(head.waterfall, head.block, until, points) if head and until else None


def _values(node: Node, mistakes: Mistakes) -> list[tuple[Node, float]]:
    """Return the values in dB that a node lists, or gives as a range, with their places."""
    found: dict[float, Node] = {}
    for at in values_of(node, mistakes):
        if value := validated(mistakes, _Value, at, {"ebn0": at}, "a value"):
            if value.ebn0 in found:
                mistakes.add(at.wrong(f"must be given once, not again: {value.ebn0:g} dB"))
            found[value.ebn0] = at
    return [(at, value) for value, at in sorted(found.items(), key=lambda each: each[0])]


def _job(link: Node, variables: Node, block: int) -> Document:
    """Return the flowgraph that measures a link; what it adds has the place of the link."""

    def placed(value: Any) -> Node:
        if isinstance(value, dict):
            return link.holding({key: placed(each) for key, each in value.items()})
        if isinstance(value, list):
            return link.holding([placed(each) for each in value])
        return value if isinstance(value, Node) else replace(link, value=value, text=None, size=1)

    source = {"use": "bit_source", "bits": block, "frame": block}
    job = {
        "flowgraph": "a point",
        "blocks": {"source": source, "link": link, "errors": {"use": "error_meter"}},
        "wires": ["source.bits -> link.bits -> errors.received", "source.bits -> errors.sent"],
    }
    return Document(link, {"vars": variables, **{key: placed(value) for key, value in job.items()}})


def _leading_to(block: str, graph: GraphSpec) -> GraphSpec:
    """Return the part of a graph that a block depends on."""
    names = {block}
    while more := {wire.source_block for wire in graph.wires if wire.target_block in names} - names:
        names |= more
    blocks = [each for each in graph.blocks if each.name in names]
    return structs.replace(graph, blocks=blocks, wires=[w for w in graph.wires if w.target_block in names])


def _key(graph: GraphSpec) -> str:
    data = msgspec.json.encode([version("semflow"), graph], order="deterministic")
    return hashlib.blake2b(data, digest_size=8).hexdigest()
