"""A sweep's YAML -> its cells, each a graph of its own; or every mistake at once, each with its place."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs
from pydantic import BaseModel, ConfigDict, Field

from flowgraph.config.document import UNRESOLVED, Mistakes, Node, TooMany, node_of
from flowgraph.config.layers import Document, Files, beside
from flowgraph.config.load import graph_of
from flowgraph.config.mistake import shown, unknown
from flowgraph.config.ranges import is_grid, values_of
from flowgraph.config.validate import validated
from flowgraph.config.variables import Variables
from flowgraph.spec import BlockSpec, GraphSpec, WireSpec
from flowgraph.units import split_quantity

if TYPE_CHECKING:
    import pyarrow

KEYS = ("sweep", "extends", "flowgraph", "vars", "seeds", "paired", "resources")
MAX_CELLS = 100_000


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Head(_Options):
    sweep: str = Field(min_length=1, description="what it is called")
    paired: list[str] = Field([], description="variables whose values all meet the same random numbers")


class _Seed(_Options):
    seeds: int = Field(ge=0, lt=1 << 64)


class Resources(_Options):
    """What a cell needs: `cpus` are its compute threads too; a share of a GPU lets cells use one together."""

    cpus: int = Field(1, ge=1, le=1024)
    gpus: float = Field(0, ge=0, le=1024)


@dataclass(frozen=True, slots=True)
class Cell:
    """One graph of a sweep, and the values that make it: of `seed`, and of every variable that the sweep sets.

    `key` stands for all that its figures depend on, `config` for all of that but random numbers.
    """

    key: str
    config: str
    graph: GraphSpec
    seed: int
    values: dict[str, Any]

    @property
    def name(self) -> str:
        """What people call it."""
        return ", ".join([self.graph.name, *(f"{name} = {value}" for name, value in self.values.items())])


@dataclass(frozen=True)
class Sweep:
    """Cells to run, independent of each other.

    From Python, with variables as keywords; the figures come back as a table, a row a frame:

        table = Sweep.load("configs/paper/fig3.yaml", images="photographs").run("out")
        table.to_pandas()
    """

    title: str
    cells: list[Cell]
    resources: Resources

    @property
    def contents(self) -> str:
        """How much it is."""
        return f"{len(self.cells)} cells"

    @classmethod
    def load(cls, path: str | Path, overlays: Iterable[str | Path] = (), seed: int | None = None, **vars: Any) -> Sweep:
        """Load a YAML file, with overlays and variables. Raises `ConfigError` with every mistake in it."""
        return load(str(path), map(str, overlays), vars, seed)

    def run(self, out: str | Path | None = None, workers: int | None = None, ray: str | None = None) -> pyarrow.Table:
        """Run what is not yet in the folder `out` and return its table; `runs/<sweep>` by default.

        `workers` processes of this machine do it, one a core by default, or a Ray cluster: `ray` is its address, or
        `local`. Raises `BlockError` for a folder in which something else writes.
        """
        from flowgraph.sweep.command import run

        return run(self, out, workers, ray, quiet=True).read()


def load(
    file: str, overlays: Iterable[str] = (), settings: Mapping[str, Any] | None = None, seed: int | None = None
) -> Sweep:
    """Load a YAML file as `flowgraph.config.load.load` does. Raises `ConfigError` with every mistake."""
    files = Files(Mistakes(), "sweep", KEYS)
    sweep = None
    try:
        document = files.document(file)
        for overlay in overlays:
            document = document.under(files.document(overlay))
        sweep = _sweep(document.settled(), files, settings or {}, seed)
    except TooMany:
        pass
    if files.mistakes or sweep is None:
        raise files.error()
    return sweep


def _sweep(document: Document, files: Files, settings: Mapping[str, Any], seed: int | None) -> Sweep | None:
    keys, mistakes = document.keys, files.mistakes
    if document.at.value is None:  # there is no such file, or nothing in it, which has been told
        return None
    written = dict(mistakes.mapping(keys.get("vars", Node({}))))
    written |= {name: node_of(value, "--set", name) for name, value in settings.items()}
    variables = Variables(written, {}, mistakes, document.whole)
    grid = {name: _distinct(variables.found[name], mistakes) for name in written}
    given = {key: variables.resolve(keys[key]) for key in _Head.model_fields if key in keys}
    head = validated(mistakes, _Head, document.at, given, "a key of a sweep")
    needs = variables.resolve(keys.get("resources", Node({})))
    resources = validated(mistakes, Resources, needs, mistakes.mapping(needs), "a resource")
    drawn = [name for name in grid if is_grid(variables.found[name])]  # their values draw random numbers of their own
    for name in given["paired"].inner if "paired" in given else ():
        if name.value not in drawn:
            mistakes.add(name.wrong(unknown("a variable that the sweep lists values of", str(name.value), drawn)))
        drawn = [each for each in drawn if each != name.value]
    at = node_of(seed, "--seed", "") if seed is not None else variables.resolve(keys.get("seeds", Node(0)))
    seeds = [validated(mistakes, _Seed, each, {"seeds": each}, "a seed") for each in _distinct(at, mistakes)]
    graphs = _flowgraphs(document, files, variables)
    cells = len(graphs) * len(seeds)
    for values in grid.values():
        cells *= len(values)
    if cells > MAX_CELLS:
        mistakes.add(document.at.wrong(f"must make at most {MAX_CELLS} cells, not {cells}"))
        return None
    builder = _Builder(files, drawn)
    found = [
        builder.cell(graph, each.seeds if each else 0, dict(zip(grid, values, strict=True)))
        for graph in graphs
        for values in itertools.product(*grid.values())
        for each in seeds
    ]
    return Sweep(head.sweep, [cell for cell in found if cell], resources) if head and resources else None


def _flowgraphs(document: Document, files: Files, variables: Variables) -> list[Document]:
    """Return the flowgraphs that a sweep runs, once each of them is known to have the sweep's variables."""
    if "flowgraph" not in document.keys:
        files.mistakes.add(document.at.wrong("must have `flowgraph`: a file, or a list of files"))
        return []
    found = []
    for node in _distinct(variables.resolve(document.keys["flowgraph"]), files.mistakes):
        if files.mistakes.expect(node, str, "a flowgraph file") is None:
            continue
        graph = files.document(beside(node), node).settled()
        if graph.whole and ("flowgraph" not in graph.keys or "sweep" in graph.keys):
            which = "is a sweep" if "sweep" in graph.keys else "has no `flowgraph:`"
            files.mistakes.add(node.wrong(f"must be a flowgraph, not {node.value}, which {which}"))
        elif graph.whole:
            known = files.mistakes.mapping(graph.keys.get("vars", Node({})))
            for name, each in variables.written.items():
                if name not in known and name not in variables.used:
                    remedy = "; seeds are a key beside vars, seeds: [0, 1]" if name in ("seed", "seeds") else ""
                    files.mistakes.add(each.wrong_key(unknown(f"a variable of {node.value}", name, known) + remedy))
            found.append(graph)
    return found


def _distinct(node: Node, mistakes: Mistakes) -> list[Node]:
    """Return the values of a variable, each of which may be given once; after mistakes, one that is not known."""
    found: dict[str, Node] = {}
    for each in values_of(node, mistakes):
        key = repr(plain(each.value))
        if key in found:
            mistakes.add(each.wrong(f"must be given once, not again: {shown(each.plain)}"))
        found.setdefault(key, each)
    return list(found.values()) or [replace(node, value=UNRESOLVED)]


def plain(value: Any) -> Any:
    """Return a quantity as number and unit, so that 5 dB and 5.0 dB are the same; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        number, unit = split_quantity(value)
    except ValueError:
        return value
    return float(number), unit


class _Builder:
    """Makes cells, which share what they have in common: ten thousand of them fit in little memory."""

    def __init__(self, files: Files, drawn: list[str]):
        self.files, self.drawn = files, drawn
        self.blocks: dict[bytes, BlockSpec] = {}
        self.wires: dict[bytes, list[WireSpec]] = {}

    def cell(self, document: Document, seed: int, values: dict[str, Node]) -> Cell | None:
        """Return the cell of these values; None after mistakes."""
        at = document.keys.get("vars", Node({}))
        known = self.files.mistakes.mapping(at)
        changed = at.holding({**known, **{name: node for name, node in values.items() if name in known}})
        graph = graph_of(replace(document, keys={**document.keys, "vars": changed}), self.files)
        if graph is None:
            return None
        facts = {name: plain(node.plain) for name, node in values.items() if name in self.drawn}
        drawn = _digest([graph.name, graph.seed, seed, facts])
        graph = structs.replace(graph.in_one_worker(), seed=0)
        config = _digest([version("semflow"), graph])
        graph = structs.replace(
            graph,
            seed=int(drawn, 16),
            blocks=[self.blocks.setdefault(msgspec.json.encode(each), each) for each in graph.blocks],
            wires=self.wires.setdefault(msgspec.json.encode(graph.wires), graph.wires),
        )
        return Cell(_digest([config, drawn]), config, graph, seed, {name: node.plain for name, node in values.items()})


def _digest(data: Any) -> str:
    return hashlib.blake2b(msgspec.json.encode(data, order="deterministic"), digest_size=8).hexdigest()
