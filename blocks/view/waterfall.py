"""Waterfalls, error rates of links against Eb/N0, as the command line has them: loaded where one is measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blocks._waterfall.plan import Waterfall
    from flowgraph.report import RunFolder


class RoundFailed(Exception):
    """A round could not be run: one sentence with its curve, its Eb/N0 and the block at fault."""


def load(file: str, overlays: Iterable[str], settings: Mapping[str, Any], seed: int | None) -> Waterfall:
    """Load a waterfall's YAML file. Raises `ConfigError` with every mistake."""
    from blocks._waterfall import plan

    return plan.load(file, overlays, settings, seed)


def measure(waterfall: Waterfall, folder: RunFolder, workers: int | None, quiet: bool) -> None:
    """Measure what is not yet in the folder, in so many processes at a time, and write table and figure there.

    Raises `RoundFailed`, and `BlockError` for a folder in which something else writes.
    """
    from blocks._waterfall import command

    command.run(waterfall, folder, workers, quiet)
