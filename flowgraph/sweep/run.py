"""Running cells: in processes of this machine or on a Ray cluster, from where a sweep stopped."""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import msgspec

from flowgraph.api import Flowgraph
from flowgraph.block import BlockError
from flowgraph.cache import Cache
from flowgraph.launch import environment_of
from flowgraph.report import NoFolder, RunFailed
from flowgraph.spec import GraphSpec
from flowgraph.supervisor import DONE, RUNNING
from flowgraph.sweep.plan import Cell, Resources
from flowgraph.sweep.table import Entry, Table

RETRIES = 2  # by Ray, of a cell whose process or machine is lost
AHEAD = 4  # cells handed to Ray for each that it can run at a time


class Machines(Protocol):
    """What runs cells: `flowgraph.pool.Pool`, or a `Cluster`."""

    @property
    def free(self) -> bool: ...

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future: ...

    def wait(self, seconds: float) -> list[Future]: ...


class Cluster:
    """A Ray cluster, which schedules cells by what they need and runs those of a lost machine elsewhere.

    `address` is that of a cluster, or `local` for one of this machine that ends with this process. Raises `BlockError`
    where there is no Ray, or no cluster.
    """

    def __init__(self, address: str, resources: Resources, workers: int | None = None):
        self.address, self.resources, self.workers = address, resources, workers
        self._running: set[Future] = set()

    def __enter__(self) -> Cluster:
        try:
            import ray
        except ImportError:
            raise BlockError("--ray needs Ray: pip install 'semflow[ray]'") from None
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if self.address == "local":
                cpus = self.workers and self.workers * self.resources.cpus
                ray.init("local", num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
            else:
                ray.init(self.address, **quiet)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            raise BlockError(f"--ray: no cluster at {self.address}: {' '.join(str(error).split())}") from None
        self._ray = ray
        needs: dict[str, Any] = {"num_cpus": self.resources.cpus, "num_gpus": self.resources.gpus}
        threads = {name: value for name, value in environment_of(self.resources.cpus).items() if "THREADS" in name}
        self._remote = functools.cache(
            ray.remote(**needs, max_retries=RETRIES, runtime_env={"env_vars": threads})  # once for each function
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()

    @property
    def free(self) -> bool:
        """Whether Ray should be handed more; it need not hold all of a large sweep."""
        cells = self._ray.cluster_resources().get("CPU", 1) // self.resources.cpus
        return len(self._running) < AHEAD * max(cells, 1)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future:
        """Have the cluster call a function of a module."""
        future = self._remote(call).remote(*arguments).future()
        self._running.add(future)
        return future

    def wait(self, seconds: float) -> list[Future]:
        """Return what is finished, after so long at most."""
        done = wait(self._running, seconds, FIRST_COMPLETED).done
        self._running -= done
        return list(done)


def run_cells(
    table: Table,
    machines: Machines,
    code: str,
    observe: Callable[[Cell | None, str | None], None],
    warn: Callable[[str], None],
) -> None:
    """Run all cells that the table waits for.

    `observe` is called for each that is done, with its fault, and some times a second with None; `warn` with what
    blocks warn of.
    """
    waiting, running = deque(table.waiting()), dict[Future, Cell]()
    cache = str(table.folder.absolute() / "cache")
    Path(cache).mkdir(exist_ok=True)
    while waiting or running:
        while waiting and machines.free:
            cell = waiting.popleft()
            running[machines.submit(run_cell, msgspec.json.encode(cell.graph), cell.key, code, cache)] = cell
        observe(None, None)
        for future in machines.wait(0.2):
            cell = running.pop(future)
            entry, warnings = _result(cell, code, future)
            table.add(entry)
            for line in warnings:
                warn(line)
            observe(cell, entry.fault)


def _result(cell: Cell, code: str, future: Future) -> tuple[Entry, list[str]]:
    """Return what a cell has found, and its warnings; what kept it from finding anything is its fault."""
    try:
        return msgspec.json.decode(future.result(), type=tuple[Entry, list[str]])
    except BrokenProcessPool:
        fault = "the process that ran it was killed"
    except Exception as error:  # of Ray, which has many
        fault = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return Entry(cell.key, code, fault=fault), []


# In the processes


@functools.cache
def _cache(folder: str) -> Cache:
    """Return what this process remembers; other machines have the folder only if they share it."""
    return Cache(Path(folder) if Path(folder).is_dir() else None)


def run_cell(graph: bytes, key: str, code: str, cache: str) -> bytes:
    """Return an `Entry` with the figures of a graph or its fault, and what its blocks warned of, as JSON."""
    warnings: list[str] = []

    def tell(line: str) -> None:
        if line not in (RUNNING, DONE):
            warnings.append(line)

    spec = msgspec.json.decode(graph, type=GraphSpec)
    try:
        report = Flowgraph.from_spec(spec, _cache(cache)).run(NoFolder(), tell=tell)
    except RunFailed as failure:
        return msgspec.json.encode((Entry(key, code, fault=str(failure)), warnings[:-1]))
    return msgspec.json.encode((Entry.of(key, code, report), warnings))
