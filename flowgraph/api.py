"""The Python way in: load a graph from YAML, or compose one from block objects, and run it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

from flowgraph.block import Block, BlockError, Context, Port
from flowgraph.cache import Cache
from flowgraph.report import Report, RunFolder
from flowgraph.spec import BlockSpec, GraphSpec, Policy, WireSpec, WorkerSpec


class Flowgraph:
    """A graph that can be run.

    From YAML, with variables as keywords; it runs in the worker processes that the file names:

        Flowgraph.load("configs/main.yaml", ebn0="10 dB").run()

    From block objects, in this very process (a notebook, say):

    >>> from blocks.phy.qam import QamDemapper, QamMapper
    >>> from blocks.sink.errors import ErrorMeter
    >>> from blocks.source.bits import BitSource
    >>> source, errors = BitSource({"bits": 4000}), ErrorMeter()
    >>> graph = Flowgraph("loop")
    >>> graph.connect(source, QamMapper(), QamDemapper(), (errors, "received"))
    >>> graph.connect(source, (errors, "sent"))
    >>> graph.run().sections["link"]["bit_errors"]
    0
    """

    def __init__(self, name: str = "flowgraph", seed: int = 0):
        self._spec = GraphSpec(name, seed, [], [], [WorkerSpec("main")])
        self._blocks: dict[str, Block] | None = {}

    def __repr__(self) -> str:
        spec = self._spec
        counts = f"{len(spec.blocks)} blocks, {len(spec.wires)} wires, {len(spec.workers)} workers"
        return f"<Flowgraph {spec.name!r}: {counts}, seed {spec.seed}>"

    @classmethod
    def load(
        cls, path: str | Path, overlays: Iterable[str | Path] = (), seed: int | None = None, **variables: Any
    ) -> Flowgraph:
        """Load a YAML file, with overlays and variables. Raises `ConfigError` with every mistake in it."""
        from flowgraph.config.load import load

        return cls.from_spec(load(path, overlays, variables, seed))

    @classmethod
    def from_spec(cls, spec: GraphSpec, cache: Cache | None = None) -> Flowgraph:
        """Return the graph of a checked description.

        With a `cache` all of it runs in this very process, on what earlier runs have left there.
        """
        graph = cls()
        graph._spec, graph._blocks = spec, None
        if cache is not None:
            from flowgraph import registry

            graph._spec, context = spec.in_one_worker(), Context(cache=cache)
            graph._blocks = {b.name: registry.find(b.type)(b.params, b.name, context) for b in spec.blocks}
        return graph

    @property
    def spec(self) -> GraphSpec:
        """The description of the graph, flat."""
        return self._spec

    def connect(
        self, *chain: Block | tuple[Block, str], queue: int = 8, policy: Policy = "block", delay: int = 0
    ) -> None:
        """Wire blocks in a row, each one's output to the next one's input.

        A block with several ports is given with the port's name: `(block, "received")`. Raises `BlockError` for a port
        that does not exist or is not named where there are several. With a `delay` the receiving block gets what comes
        so many frames later: the way back of a loop.
        """
        if self._blocks is None:
            raise BlockError("a graph loaded from YAML is complete: wire it there, or compose a new Flowgraph()")
        for left, right in pairwise(chain):
            source = f"{self._name(left)}.{_port(left, 'outputs')}"
            target = f"{self._name(right)}.{_port(right, 'inputs')}"
            self._spec.wires.append(WireSpec(source, target, queue, policy, delay=delay))

    def fuse(self, *blocks: Block) -> None:
        """Run blocks that are wired to each other in one thread, the wires between them being calls.

        Only the first of them may have inputs from others. Raises `BlockError` for blocks that are not so wired.
        """
        if self._blocks is None:
            raise BlockError("a graph loaded from YAML is complete: name the blocks there, in `fuse:`")
        names = [name for block in blocks for name, known in self._blocks.items() if known is block]
        try:
            self._spec = self._spec.fuse(names)
        except ValueError as error:
            raise BlockError(f"fused blocks {error}") from None

    def run(
        self,
        out: str | Path | RunFolder | None = None,
        observe: Callable[[Report], None] = lambda report: None,
        tell: Callable[[str], None] = lambda line: None,
        live: bool = False,
    ) -> Report:
        """Run to the end and return the report; its folder is `out`, or made under `runs/`.

        `observe` is called often with the report so far, `tell` with lines for people. `live` lets viewers in
        (`flowgraph.live.Remote`): their address is in the report, `result["live"]`, as soon as they may come. Raises
        `RunFailed`, which holds the report of what was finished, and `ConfigError` for a graph that does not fit
        together.
        """
        from flowgraph.graph import check
        from flowgraph.supervisor import Supervisor

        if self._blocks is not None:
            check(self._spec, self._blocks)
        folder = out if isinstance(out, RunFolder) else RunFolder.for_run(self._spec.name, out)
        try:
            return Supervisor(self._spec, folder, self._blocks, observe, tell, live).run()
        finally:
            folder.close()

    def _name(self, end: Block | tuple[Block, str]) -> str:
        """Return the block's name in this graph; a block that is new here gets one."""
        assert self._blocks is not None
        block = end[0] if isinstance(end, tuple) else end
        for name, known in self._blocks.items():
            if known is block:
                return name
        name, number = block.name, 2
        while name in self._blocks:
            name, number = f"{block.name}_{number}", number + 1
        self._blocks[name] = block
        params = block.params.model_dump(mode="json")
        self._spec.blocks.append(BlockSpec(name, block.type_name(), params, "main"))
        return name


def _port(end: Block | tuple[Block, str], side: str) -> str:
    """Return the port that an end of a wire means: the named one, or the only one that must be connected."""
    block, wanted = end if isinstance(end, tuple) else (end, None)
    ports: tuple[Port, ...] = getattr(block, side)
    meant = [port.name for port in ports if (port.name == wanted if wanted else not port.optional)]
    if len(meant) == 1:
        return meant[0]
    known, said = ", ".join(port.name for port in ports) or "none", repr(wanted) if wanted else "left out"
    raise BlockError(f"{block.name}: the {side[:-1]} must be one of {known}, not {said}")
