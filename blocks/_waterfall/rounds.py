"""Measuring a waterfall: round by round, in several processes, from where it stopped."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from blocks._waterfall.plan import Point, Until
from blocks.phy import theory
from blocks.view.waterfall import RoundFailed
from flowgraph.api import Flowgraph
from flowgraph.cache import Cache
from flowgraph.journal import Journal
from flowgraph.pool import Pool
from flowgraph.report import NoFolder, RunFailed
from flowgraph.spec import GraphSpec
from flowgraph.supervisor import DONE, RUNNING

FILE = "rounds.jsonl"


class Round(msgspec.Struct, forbid_unknown_fields=True):
    """What one round of a point has found; `clusters` are the sums of `theory.clustered_interval`."""

    point: str
    number: int
    blocks: int
    block_errors: int
    bits: int
    bit_errors: int
    clusters: dict[str, float] | None
    ber_theory: float | None
    esn0_db: float | None
    seconds: float
    block_errors_theory: float | None = None


@dataclass
class Tally:
    """All rounds of a point so far."""

    point: Point
    rounds: list[Round] = field(default_factory=list)

    def total(self, name: str) -> Any:
        """Return the sum of a figure over all rounds."""
        return sum(getattr(each, name) for each in self.rounds)

    @property
    def sent(self) -> int:
        """Bits sent so far."""
        return self.total("blocks") * self.point.block

    def done(self, until: Until) -> bool:
        """Tell whether the point has the errors wanted, or has sent the bits allowed."""
        return self.share(until) >= 1

    def share(self, until: Until) -> float:
        """Return how far the point is, from 0 to 1; in errors it is an estimate."""
        wanted = [("bit_errors", until.errors), ("block_errors", until.block_errors)]
        errors = min(self.total(name) / number if number else 1.0 for name, number in wanted)
        return min(max(errors if self.rounds else 0.0, self.sent / until.bits), 1.0)

    def row(self) -> dict[str, Any]:
        """Return totals, rates and their 99 % intervals, once there are rounds."""
        bits, errors, blocks, wrong = map(self.total, ("bits", "bit_errors", "blocks", "block_errors"))
        ber_low, ber_high = self._ber_interval(bits, errors) or (None, None)
        bler_low, bler_high = theory.binomial_interval(wrong, blocks)  # every block meets noise and fades of its own
        expected = self.rounds[0].block_errors_theory
        return {
            "curve": self.point.curve,
            "ebn0_db": self.point.ebn0_db,
            "esn0_db": self.rounds[0].esn0_db,
            "bits": bits,
            "bit_errors": errors,
            "ber": errors / bits if bits else None,
            "ber_low": ber_low,
            "ber_high": ber_high,
            "ber_theory": self.rounds[0].ber_theory,
            "blocks": blocks,
            "block_errors": wrong,
            "bler": wrong / blocks,
            "bler_low": bler_low,
            "bler_high": bler_high,
            "bler_theory": None if expected is None else expected / self.rounds[0].blocks,
            "seconds": self.total("seconds"),
        }

    def _ber_interval(self, bits: int, errors: int) -> tuple[float, float] | None:
        clusters = [each.clusters for each in self.rounds if each.clusters]
        if clusters:
            return theory.clustered_interval(**{name: sum(each[name] for each in clusters) for name in clusters[0]})
        return theory.binomial_interval(errors, bits) if bits else None


class Record:
    """The finished rounds of a folder, which are never measured again. Raises `BlockError` as a `Journal` does."""

    def __init__(self, folder: Path):
        self.rounds: dict[str, list[Round]] = {}
        self.journal = Journal(folder / FILE, Round, lambda _, each: self._take(each))

    def _take(self, each: Round) -> None:
        known = self.rounds.setdefault(each.point, [])
        if each.number != len(known):
            raise ValueError(f"must be round {len(known)} of point {each.point}, not {each.number}")
        known.append(each)

    def add(self, each: Round) -> None:
        """Write down a round."""
        self._take(each)
        self.journal.add(each)

    def of(self, point: Point) -> list[Round]:
        """Return the rounds of a point, a list that grows."""
        return self.rounds.setdefault(point.key, [])

    def close(self) -> None:
        self.journal.close()


def measure(
    tallies: list[Tally],
    until: Until,
    record: Record,
    workers: int,
    observe: Callable[[set[str]], None],
    warn: Callable[[Point, str], None],
) -> None:
    """Run rounds of every point until it is done, of `workers` points at a time, in processes of their own.

    `observe` is called some times a second with the keys of the points that are being run, `warn` with what blocks
    warn of. Raises `RoundFailed`.
    """
    waiting = deque(tally for tally in tallies if not tally.done(until))
    running: dict[Future, Tally] = {}
    with Pool(workers) as pool:
        while waiting or running:
            while waiting and pool.free:
                tally = waiting.popleft()
                running[pool.submit(_run, tally.point.round(len(tally.rounds)))] = tally
            observe({tally.point.key for tally in running.values()})
            for future in pool.wait(0.2):
                tally = running.pop(future)
                found, warnings = _result(tally, future)
                record.add(found)
                for line in warnings:
                    warn(tally.point, line)
                if not tally.done(until):
                    waiting.appendleft(tally)
        observe(set())


def _result(tally: Tally, future: Future) -> tuple[Round, list[str]]:
    """Return what a process has found, and its warnings."""
    point = tally.point
    try:
        link, seconds, warnings = future.result()
    except RoundFailed as error:
        raise RoundFailed(f"{point.name}: {error}") from None
    except BrokenProcessPool:
        raise RoundFailed(f"a process was killed that measured {point.name}") from None
    names = {
        "blocks": "bit_frames",
        "block_errors": "bit_frames_wrong",
        "block_errors_theory": "bit_frames_wrong_theory",
        "clusters": "ber_clusters",
    }
    kinds = [name for name in Round.__struct_fields__ if name not in ("point", "number", "seconds")]
    figures = {name: link[names.get(name, name)] for name in kinds}
    return Round(point.key, len(tally.rounds), **figures, seconds=round(seconds, 3)), warnings


def _run(graph: GraphSpec) -> tuple[dict[str, Any], float, list[str]]:
    """Return the figures of the link, the seconds that it ran, and warnings, in a process of its own.

    Raises `RoundFailed`.
    """
    began, warnings = 0.0, []

    def tell(line: str) -> None:
        nonlocal began
        if line == RUNNING:  # blocks have started: kernels are loaded
            began = time.perf_counter()
        elif line != DONE:
            warnings.append(line)

    try:
        report = Flowgraph.from_spec(graph, Cache()).run(NoFolder(), tell=tell)
    except RunFailed as failure:
        raise RoundFailed(str(failure)) from None
    return report.sections["link"], time.perf_counter() - began, warnings
