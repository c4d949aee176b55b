"""The validated description of a graph: what `load` makes of YAML, and all that a worker is told."""

from __future__ import annotations

from collections.abc import Collection
from graphlib import TopologicalSorter
from typing import Any, Literal

import msgspec
from msgspec import structs

Policy = Literal["block", "drop-oldest", "drop-newest"]


class BlockSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One block of the flat graph; `name` carries the sub-graphs around it (`link.air`), `params` are plain data."""

    name: str
    type: str
    params: dict[str, Any]
    worker: str
    memory: int = 1 << 30  # bytes of frames that may wait for their partners
    chain: str = ""  # first block of the fused chain that this one belongs to


class WireSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wire, from an output to an input, both as `block.port`; `queue` packets may be under way."""

    source: str
    target: str
    queue: int = 8
    policy: Policy = "block"
    endpoint: str | None = None  # written by hand; else derived from where the two blocks run
    fused: bool = False  # a call, within one thread
    delay: int = 0  # frames of the receiving block by which what comes is late: the way back in a loop

    @property
    def name(self) -> str:
        return f"{self.source} -> {self.target}"

    @property
    def source_block(self) -> str:
        return self.source.rpartition(".")[0]

    @property
    def target_block(self) -> str:
        return self.target.rpartition(".")[0]

    @property
    def source_port(self) -> str:
        return self.source.rpartition(".")[2]

    @property
    def target_port(self) -> str:
        return self.target.rpartition(".")[2]


class WorkerSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One worker process. `host` is the address of the machine where it is started by hand; None means here."""

    name: str
    host: str | None = None
    threads: int | None = None  # compute threads; None shares out the machine's


class ChangeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A live parameter's value, from the first item on that its block works on at or after `offset` of `frame`."""

    block: str
    parameter: str
    value: Any
    frame: int = 0
    offset: int = 0

    @property
    def name(self) -> str:
        return f"{self.block}.{self.parameter}"


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How workers on other hosts are reached: the supervisor's own address, and CURVE keys or that none are wanted."""

    listen: str | None = None  # tcp://ADDRESS:PORT of the supervisor
    keys: str | None = None  # folder made by `run_flowgraph.py keys`
    insecure: bool = False
    live: str | None = None  # tcp://ADDRESS:PORT where viewers on other hosts find the run


class GraphSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole graph, flat and checked."""

    name: str
    seed: int
    blocks: list[BlockSpec]
    wires: list[WireSpec]
    workers: list[WorkerSpec]
    network: NetworkSpec = NetworkSpec()
    probes: list[str] = []  # outputs that are tapped from the start, as `block.port`
    changes: list[ChangeSpec] = []

    def in_order(self) -> list[BlockSpec]:
        """Return the blocks so that each comes after those that feed it, ways back excepted."""
        forward = [wire for wire in self.wires if not wire.delay]
        feeders = {b.name: [w.source_block for w in forward if w.target_block == b.name] for b in self.blocks}
        order = {name: number for number, name in enumerate(TopologicalSorter(feeders).static_order())}
        return sorted(self.blocks, key=lambda block: order[block.name])

    def fuse(self, names: Collection[str]) -> GraphSpec:
        """Return the graph in which the wires between these blocks are calls.

        Blocks of a worker that such wires join are a chain, and run in one thread: that of the first, the only one
        which other blocks may feed. Raises `ValueError` for blocks that are not, with the reason.
        """
        workers = {block.name: block.worker for block in self.blocks}
        inner = [
            wire
            for wire in self.wires
            if {wire.source_block, wire.target_block} <= {*names}
            and not wire.delay
            and workers[wire.source_block] == workers[wire.target_block]
        ]
        joined = {name: {name} for name in names}
        for wire in inner:
            whole = joined[wire.source_block] | joined[wire.target_block]
            joined |= dict.fromkeys(whole, whole)
        fed = {wire.target_block for wire in inner}
        fed_from_outside = {wire.target_block for wire in self.wires if wire not in inner}
        chain_of = {}
        for name, chain in joined.items():
            if chain == {name}:
                raise ValueError(f"must be wired to another fused block of its worker, and {name} is not")
            firsts = [each for each in names if each in chain and (each in fed_from_outside or each not in fed)]
            if len(firsts) > 1:
                raise ValueError(f"must have one block that is fed from outside the chain, not {', '.join(firsts)}")
            chain_of[name] = firsts[0]
        return structs.replace(
            self,
            blocks=[structs.replace(block, chain=chain_of.get(block.name, "")) for block in self.blocks],
            wires=[structs.replace(wire, fused=wire in inner) for wire in self.wires],
        )

    def in_one_worker(self) -> GraphSpec:
        """Return the graph as it runs in one process of this machine."""
        return structs.replace(
            self,
            blocks=[structs.replace(block, worker="main") for block in self.blocks],
            wires=[structs.replace(wire, endpoint=None) for wire in self.wires],
            workers=[WorkerSpec("main")],
            network=NetworkSpec(),
        )

    def sources_above(self, block: str) -> frozenset[str]:
        """Return the blocks without inputs that a block depends on; itself, if it is one."""
        above = {wire.source_block for wire in self.wires if wire.target_block == block and not wire.delay}
        return frozenset().union(*map(self.sources_above, above)) if above else frozenset([block])
