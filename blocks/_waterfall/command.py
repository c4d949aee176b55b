"""The command `ber`: measure a waterfall, show how far it is, and write what was found."""

from __future__ import annotations

import os
import time

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from blocks._waterfall.plan import Point, Until, Waterfall
from blocks._waterfall.results import figure, table
from blocks._waterfall.rounds import Record, Tally, measure
from flowgraph.console import LINE_EVERY_S, span
from flowgraph.report import RunFolder


def run(waterfall: Waterfall, folder: RunFolder, workers: int | None = None, quiet: bool = False) -> None:
    """Measure what is not yet in the folder, in so many processes at a time, and write table and figure there.

    However it ends, table and figure show what was finished. Raises `RoundFailed`, and `BlockError` for a folder in
    which something else writes.
    """
    import matplotlib.figure  # noqa: F401  (now, for Ctrl-C not to wait for it)

    workers = workers or len(os.sched_getaffinity(0))
    record = Record(folder.path)
    tallies = [Tally(point, record.of(point)) for point in waterfall.points]
    try:
        with Show(tallies, waterfall.until, folder, workers, quiet) as show:
            measure(tallies, waterfall.until, record, workers, show.observe, show.warn)
    finally:
        rows = [tally.row() for tally in tallies if tally.rounds]
        if rows:
            folder.write("ber.csv", table(rows))
            for name, data in figure(waterfall, rows).items():
                folder.write(name, data)
        record.close()
        folder.close()


def remaining(tallies: list[Tally], until: Until, workers: int) -> float | None:
    """Return the seconds left at most, if points not begun need all bits allowed; None before anything is known."""
    begun = [tally for tally in tallies if tally.rounds]
    if not begun:
        return None
    total = 0.0
    for tally in tallies:
        alike = [each for each in begun if each.point.curve == tally.point.curve] or begun
        pace = sum(each.total("seconds") for each in alike) / sum(each.sent for each in alike)
        share = tally.share(until)
        total += pace * (tally.sent * (1 / share - 1) if share else until.bits)
    return total / workers


class Show:
    """Tells how far points are: a line for each that is done; those being run live, or now and then in a log."""

    def __init__(self, tallies: list[Tally], until: Until, folder: RunFolder, workers: int, quiet: bool):
        self.tallies, self.until, self.folder, self.workers = tallies, until, folder, workers
        self.console = Console(stderr=True, quiet=quiet, soft_wrap=True)
        self.live = Live(console=self.console, transient=True)
        self.done = {tally.point.key for tally in tallies if tally.done(until)}
        self.warned: set[tuple[str, str]] = set()
        self.told_at = time.monotonic()

    def __enter__(self) -> Show:
        if self.done:
            self._line(f"{len(self.done)} of {len(self.tallies)} points are there already")
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def observe(self, busy: set[str]) -> None:
        """Show how far all points are; `busy` has the keys of those being run."""
        new = [each for each in self.tallies if each.point.key not in self.done and each.done(self.until)]
        self.done |= {tally.point.key for tally in new}
        whole = f"{len(self.done)} of {len(self.tallies)} points"
        if seconds := remaining(self.tallies, self.until, self.workers):
            whole += f", at most {span(seconds)} left"
        for tally in new:
            self._line(f"{_result(tally)}; {whole}")
        at_work = [tally for tally in self.tallies if tally.point.key in busy]
        if self.live.is_started:
            rows = Table.grid(padding=(0, 2))
            rows.add_row("all", ProgressBar(len(self.tallies), len(self.done), width=20), whole)
            for tally in at_work:
                share = ProgressBar(1.0, tally.share(self.until), width=20)
                rows.add_row(escape(tally.point.name), share, _so_far(tally, self.until))
            self.live.update(rows)
        elif time.monotonic() - self.told_at > LINE_EVERY_S:
            self._line("; ".join([*(f"{each.point.name}: {_so_far(each, self.until)}" for each in at_work), whole]))

    def warn(self, point: Point, line: str) -> None:
        """Tell what a block warns of, once for each curve."""
        which = (point.curve, line.partition(":")[0])
        if which not in self.warned:
            self.warned.add(which)
            self._line(f"{point.name}: {line}")

    def _line(self, line: str) -> None:
        self.told_at = time.monotonic()
        self.folder.log(line)
        self.console.print(line, markup=False, highlight=False)


def _so_far(tally: Tally, until: Until) -> str:
    if not tally.sent:
        return "its blocks start; kernels are compiled once on a machine"
    errors = f"{tally.total('bit_errors'):,} of {until.errors:,} errors"
    if until.block_errors:
        errors += f", {tally.total('block_errors'):,} of {until.block_errors:,} wrong blocks"
    return f"{errors}, {tally.sent / 1e6:,.1f} of {until.bits / 1e6:,.1f} Mbit"


def _result(tally: Tally) -> str:
    row, rates = tally.row(), []
    for name, rate in (("BER", "ber"), ("BLER", "bler")):
        low, high = row[f"{rate}_low"], row[f"{rate}_high"]
        if row[rate]:
            rates.append(f"{name} {row[rate]:.3g}" + (f" (99 %: {low:.3g} to {high:.3g})" if high else ""))
        else:
            rates.append(f"{name} under {high:.3g}" if high else f"{name} not known")
    return f"{tally.point.name}: {', '.join(rates)}, {tally.sent / 1e6:,.1f} Mbit"
