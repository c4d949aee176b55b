"""The validated description of a graph: what `load` makes of YAML, and all that a worker is told."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Policy = Literal["block", "drop-oldest", "drop-newest"]


class BlockSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One block of the flat graph; `name` carries the sub-graphs around it (`link.air`), `params` are plain data."""

    name: str
    type: str
    params: dict[str, Any]
    worker: str
    memory: int = 1 << 30  # bytes of frames that may wait for their partners


class WireSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One wire, from an output to an input, both as `block.port`; `queue` packets may be under way."""

    source: str
    target: str
    queue: int = 8
    policy: Policy = "block"
    endpoint: str | None = None  # written by hand; else derived from where the two blocks run

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


class NetworkSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How workers on other hosts are reached: the supervisor's own address, and CURVE keys or that none are wanted."""

    listen: str | None = None  # tcp://ADDRESS:PORT of the supervisor
    keys: str | None = None  # folder made by `run_flowgraph.py keys`
    insecure: bool = False


class GraphSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole graph, flat and checked."""

    name: str
    seed: int
    blocks: list[BlockSpec]
    wires: list[WireSpec]
    workers: list[WorkerSpec]
    network: NetworkSpec = NetworkSpec()

    def sources_above(self, block: str) -> frozenset[str]:
        """Return the blocks without inputs that a block depends on; itself, if it is one."""
        above = {wire.source_block for wire in self.wires if wire.target_block == block}
        return frozenset().union(*map(self.sources_above, above)) if above else frozenset([block])
