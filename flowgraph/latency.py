"""How long frames take, from the sources that make them to the sinks that are done with them.

Times are seconds of `time.perf_counter`, which the processes of a host share.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

ALL_UP_TO = 1024  # frames are timed; then ever fewer, so that a stream without end needs no memory to speak of


def timed(frame: int) -> bool:
    """Tell whether a frame is timed: the first 1,024, then every second, from 2,048 on every fourth, and so on."""
    return frame < ALL_UP_TO or not frame & (1 << frame.bit_length() - ALL_UP_TO.bit_length() + 1) - 1


class Latency:
    """Joins what sources and sinks tell of the frames that they have handed out, and are done with.

    A frame is done with when the last of the sinks is. What ends but once, with the run, as samples for a radio do, is
    no frame of those that the sources sent.
    """

    def __init__(self) -> None:
        self.made: dict[str, dict[int, tuple[float, float]]] = {}  # by source: when begun, and when all handed out
        self.done: dict[str, dict[int, float]] = {}  # by sink

    def made_by(self, source: str, frames: Iterable[tuple[int, float, float]]) -> None:
        """Take in frames that a source has handed out: number, when it began with it, when its end went out."""
        of = self.made.setdefault(source, {})
        for frame, begun, ended in frames:
            of[frame] = begun, ended

    def done_by(self, sink: str, frames: Iterable[tuple[int, float]]) -> None:
        """Take in frames that a sink has done with, and when."""
        self.done.setdefault(sink, {}).update(frames)

    def of_frames(self) -> dict[int, float]:
        """Return the seconds that every frame took."""
        most = max(map(len, self.made.values()), default=0)
        took: dict[int, float] = {}
        for done in self.done.values():
            if len(done) < min(most, 2):
                continue
            for frame, ended in done.items():
                begun = [made[frame][0] for made in self.made.values() if frame in made and made[frame][1] <= ended]
                if begun:
                    took[frame] = max(took.get(frame, 0.0), ended - min(begun))
        return took


def summary(took: dict[int, float]) -> dict[str, Any]:
    """Return the figures of frames' latencies, in seconds; null where there is none."""
    if not took:
        return {"frames": 0, "mean_s": None, "median_s": None, "max_s": None}
    seconds = np.array(list(took.values()))
    figures = {"mean_s": seconds.mean(), "median_s": np.median(seconds), "max_s": seconds.max()}
    return {"frames": len(took), **{key: round(float(value), 6) for key, value in figures.items()}}
