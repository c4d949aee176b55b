"""The command `sweep`: run what is not yet in a sweep's folder, show how far it is, and write the table."""

from __future__ import annotations

import os
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table as Grid

from flowgraph.console import LINE_EVERY_S, span
from flowgraph.pool import Pool
from flowgraph.report import RunFolder, folder_of
from flowgraph.sweep.plan import Cell, Sweep
from flowgraph.sweep.run import Cluster, run_cells
from flowgraph.sweep.table import Table


def run(
    sweep: Sweep, out: str | Path | None = None, workers: int | None = None, ray: str | None = None, quiet: bool = False
) -> Table:
    """Run what is not yet in the folder and write the table there, however it ends; see `Sweep.run`."""
    folder = RunFolder(Path(out) if out else folder_of(sweep.title))
    table = Table(folder.path, sweep)
    try:
        if waiting := len(table.waiting()):
            cpus = sweep.resources.cpus
            size = min(workers or max(len(os.sched_getaffinity(0)) // cpus, 1), waiting)
            where = Cluster(ray, sweep.resources, workers) if ray else Pool(size, cpus)
            with where as machines, Show(table, folder, quiet) as show:
                run_cells(table, machines, code_version(), show.observe, show.warn)
    finally:
        table.write()
        table.close()
        folder.close()
    return table


def code_version() -> str:
    """Return the version of Semflow, and the commit where it runs from its repository: `0.1.0+6e65aae-dirty`."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return version("semflow")
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*"]
    told = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return f"{version('semflow')}+{told}" if told else version("semflow")


class Show:
    """Tells how far a sweep is: live on a terminal, a line now and then in a log; and every fault and warning, once."""

    def __init__(self, table: Table, folder: RunFolder, quiet: bool):
        self.folder, self.cells = folder, len(table.sweep.cells)
        self.left = self.to_run = len(table.waiting())
        self.failed = 0
        self.warned: set[str] = set()
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)
        self.live = Live(console=self.console, transient=True)

    def __enter__(self) -> Show:
        self.began = self.told_at = time.monotonic()
        if self.left < self.cells:
            self._line(f"{self.cells - self.left} of {self.cells} cells are there already")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()
        took = span(time.monotonic() - self.began)
        self._line(f"{self.status}; {self.to_run - self.left} run in {took}")

    @property
    def status(self) -> str:
        """How many cells are done, have failed, and how long the rest will take."""
        parts = [f"{self.cells - self.left} of {self.cells} cells"]
        parts += [f"{self.failed} failed"] if self.failed else []
        if self.left and self.left < self.to_run:
            pace = (time.monotonic() - self.began) / (self.to_run - self.left)
            parts.append(f"{span(self.left * pace)} left")
        elif self.left:
            parts.append("the first are running, after their models and kernels have loaded")
        return ", ".join(parts)

    def observe(self, cell: Cell | None, fault: str | None) -> None:
        """Take in a cell that is done, or nothing new."""
        if cell:
            self.left -= 1
        if cell and fault is not None:
            self.failed += 1
            self._line(f"{cell.name}: {fault}")
        if self.live.is_started:
            row = Grid.grid(padding=(0, 2))
            row.add_row(ProgressBar(self.cells, self.cells - self.left, width=30), self.status)
            self.live.update(row)
        elif time.monotonic() - self.told_at > LINE_EVERY_S:
            self._line(self.status)

    def warn(self, line: str) -> None:
        """Tell what a block warns of."""
        if line not in self.warned:
            self.warned.add(line)
            self._line(line)

    def _line(self, line: str) -> None:
        self.told_at = time.monotonic()
        self.folder.log(line)
        self.console.print(line, markup=False, highlight=False)
