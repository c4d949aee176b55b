"""How long frames take from a source to the last sink, and where: by when their ends came into blocks and left them.

Times are seconds of `time.perf_counter`, one clock for all processes of a host.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np

from flowgraph.spec import GraphSpec

ALL_UP_TO = 1024

# A block, its output (empty where it hands on no end of the frame), the frame; when the frame's end came in, or what
# the end was found in, or a source began with the frame; and when the end left, or the block was done with it
Passage = tuple[str, str, int, float, float]


def timed(frame: int) -> bool:
    """Tell whether a frame is timed: the first 1,024, then every second, from 2,048 on every fourth, and so on.

    A stream without end then needs hardly any memory.
    """
    return frame < ALL_UP_TO or not frame & ((2 << frame.bit_length() - ALL_UP_TO.bit_length()) - 1)


class Way(dict[str, tuple[float, float]]):
    """The blocks that a frame passed, from the sink on: seconds that it waited for them, and that they worked on it."""

    @property
    def seconds(self) -> float:
        return sum(map(sum, self.values()))


class Latency:
    """What the blocks of a graph tell of its frames.

    A frame's latency is that of the slowest way: from the sink that was done last back to the input whose end came
    last, and so on up to a source. Where sources or sinks are on another host, whose clock is another, nothing is
    measured; of other blocks there, the next one here waits for what they take.
    """

    def __init__(self, spec: GraphSpec):
        self.feeders: dict[str, set[tuple[str, str]]] = {}  # outputs that feed a block
        self.above: dict[str, set[str]] = {}  # all blocks that a block depends on
        for block in spec.in_order():
            wires = [wire for wire in spec.wires if wire.target_block == block.name and not wire.delay]
            self.feeders[block.name] = {(wire.source_block, wire.source_port) for wire in wires}
            self.above[block.name] = {
                each for name, _ in self.feeders[block.name] for each in {name, *self.above[name]}
            }
        sending, fed = ({getattr(wire, end) for wire in spec.wires} for end in ("source_block", "target_block"))
        self.sinks = self.feeders.keys() - sending
        hosts = {worker.name: worker.host for worker in spec.workers}
        self.distant = {block.name for block in spec.blocks if hosts[block.worker]}
        self.measured = self.distant <= sending & fed
        self.passages: dict[int, dict[tuple[str, str], tuple[float, float]]] = {}
        self.ended: Counter[str] = Counter()  # frames that sinks are done with
        self.ways: dict[int, Way] = {}  # of frames of which nothing was told since
        self.waited_for: set[tuple[str, str]] = set()

    def add(self, passages: Iterable[Passage]) -> None:
        """Take in what a worker tells."""
        for block, port, frame, came, left in passages if self.measured else ():
            if block in self.distant:
                continue
            passed = self.passages.setdefault(frame, {})
            if block in self.sinks and (block, port) not in passed:
                self.ended[block] += 1
            passed[block, port] = came, left
            self.ways.pop(frame, None)

    def of_frames(self) -> dict[int, Way]:
        """Return the slowest way of every frame that all sinks are done with.

        Sinks that are given but one frame, as recordings of samples without end, are not waited for.
        """
        most = max(self.ended.values(), default=0)
        sinks = {(block, "") for block, count in self.ended.items() if count > 1 or most == 1}
        if sinks != self.waited_for:
            self.waited_for = sinks
            self.ways.clear()
        for frame in self.passages.keys() - self.ways.keys() if sinks else ():
            if sinks <= self.passages[frame].keys():
                self.ways[frame] = self._way(self.passages[frame], sinks)
        return {frame: way for frame, way in sorted(self.ways.items()) if way}

    def _way(self, passed: dict[tuple[str, str], tuple[float, float]], sinks: set[tuple[str, str]]) -> Way:
        """Return the slowest way of a frame; nothing where it is not known up to a source."""
        way, at = Way(), max(sinks, key=lambda sink: passed[sink][1])
        while self.feeders[at[0]]:
            came, left = passed[at]
            before = [each for each in passed if passed[each][1] < came]
            # Who finds a frame in samples without end has it from nobody beside it: from further up, or from a sink
            before = (
                [each for each in before if each in self.feeders[at[0]]]
                or [each for each in before if each[0] in self.above[at[0]]]
                or before
            )
            if not before:
                return Way()
            since = max(before, key=lambda each: passed[each][1])
            way[at[0]] = came - passed[since][1], left - came
            at = since
        way[at[0]] = 0.0, passed[at][1] - passed[at][0]
        return way

    def summary(self, ways: Collection[Way]) -> dict[str, Any]:
        """Return median, mean and maximum of latencies in seconds, null where there are none, and the blocks' means.

        The means of all blocks, which are over all frames, add up to the mean.
        """
        if not ways:
            return {"frames": 0, "median_s": None, "mean_s": None, "max_s": None, "blocks": {}}
        took = np.array([way.seconds for way in ways])
        figures = {"median_s": np.median(took), "mean_s": took.mean(), "max_s": took.max()}
        rounded = {key: round(float(value), 6) for key, value in figures.items()}
        passed = {name for way in ways for name in way}
        blocks = {}
        for name in filter(passed.__contains__, self.feeders):
            waiting, working = np.mean([way.get(name, (0.0, 0.0)) for way in ways], axis=0).round(6).tolist()
            blocks[name] = {"waiting_s": waiting, "working_s": working}
        return {"frames": len(ways), **rounded, "blocks": blocks}
