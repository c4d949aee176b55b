"""Sweeps: what long cells lose by being cells, and what ten thousand small ones cost in time and memory.

Efficiency is the time that cells of a second and more need one after the other, over the time that a sweep needs times
its processes, their start excepted. `python -m benchmarks.sweeps` prints both; the second takes some minutes.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from flowgraph import Sweep
from flowgraph.pool import Pool
from flowgraph.sweep.run import run_cells
from flowgraph.sweep.table import Table

ROOT = Path(__file__).parents[1]
GRAPH = f"""\
flowgraph: bits
vars: {{ebn0: 9 dB, bits: 4000}}
blocks:
  source: {{use: bit_source, bits: $bits}}
  link: {{graph: {ROOT}/configs/links/ldpc.yaml, ebn0: $ebn0}}
  errors: {{use: error_meter}}
wires: [source.bits -> link.bits -> errors.received, source.bits -> errors.sent]
"""
LONG_BITS, LONG_CELLS = 30_000_000, 12  # cells of a second or more


def sweep(folder: str, bits: int, values: str, seeds: str) -> Sweep:
    """Return a sweep of Eb/N0 over a coded link."""
    Path(folder, "graph.yaml").write_text(GRAPH)
    text = f"sweep: x\nflowgraph: graph.yaml\nvars: {{bits: {bits}, ebn0: {values}}}\nseeds: {seeds}\n"
    Path(folder, "sweep.yaml").write_text(text)
    return Sweep.load(Path(folder, "sweep.yaml"))


def seconds(made: Sweep, workers: int, folder: str) -> float:
    """Return how long a sweep takes from its first cell, which makes its process load all it needs, to its last."""
    table, times = Table(Path(folder), made), []
    with Pool(workers) as pool:
        run_cells(table, pool, "x", lambda cell, fault: times.append(time.perf_counter()) if cell else None, print)
    table.close()
    return times[-1] - times[workers - 1]


def efficiency(workers: int) -> dict[str, Any]:
    """Return how long cells take in one process and in several, and what share of these is put to use."""
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as several:
        made = sweep(one, LONG_BITS, "4 dB", f"{{from: 1, to: {LONG_CELLS}}}")
        alone = seconds(made, 1, one) / (LONG_CELLS - 1)
        together = seconds(made, workers, several) / (LONG_CELLS - workers)
    return {"cell_s": alone, "workers": workers, "efficiency": alone / (workers * together)}


def small_cells(count: int, workers: int) -> dict[str, Any]:
    """Return what so many small cells cost: checking them, running them, writing the table; and memory at most."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        made = sweep(folder, 1000, "{from: 1, to: 10.9, step: 0.1}", f"{{from: 1, to: {count // 100}}}")
        checked = time.perf_counter() - began
        run_s = seconds(made, workers, folder)
        began = time.perf_counter()
        table = Table(Path(folder), made)
        read = time.perf_counter() - began
        table.write()
        table.close()
        written = time.perf_counter() - began - read
        size = (Path(folder) / "table.parquet").stat().st_size
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "cells": len(made.cells),
        "check_s": checked,
        "run_s": run_s,
        "read_journal_s": read,
        "write_table_s": written,
        "parquet_mb": size / 1e6,
        "memory_mib": memory,
    }


def main() -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sweeps", description=__doc__)
    parser.add_argument("--cells", type=int, default=10_000, help="small cells, a multiple of 100")
    arguments, workers = parser.parse_args(), len(os.sched_getaffinity(0))
    figures = {"long": efficiency(workers), "small": small_cells(arguments.cells, workers)}
    long, small = figures["long"], figures["small"]
    print(f"cells of {long['cell_s']:.2f} s on {workers} processes: efficiency {long['efficiency']:.0%}")
    print(
        f"{small['cells']} small cells: checked in {small['check_s']:.1f} s, run in {small['run_s']:.0f} s, table of "
        f"{small['parquet_mb']:.1f} MB in {small['write_table_s']:.1f} s after {small['read_journal_s']:.1f} s of "
        f"reading; {small['memory_mib']:.0f} MiB at most"
    )
    return figures


if __name__ == "__main__":
    main()
