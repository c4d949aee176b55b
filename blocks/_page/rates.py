"""Views of error rates: over time, and against Eb/N0 over the closed form."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource

from blocks._page.history import SAMPLES, WINDOW_S, Channel, History
from blocks._page.look import Key, Look, View, choice, plot

SPANS_S = (15.0, 30.0, 60.0)  # of the axis of time: as short as shows all, then the last minute
WINDOWS_S = {"over 1 s": WINDOW_S, "over 5 s": 5.0, "over 30 s": 30.0, "over all": math.inf}
LOWEST, BEGIN = 1e-9, 1e-4  # rates that an axis reaches at most, and in the beginning


class RateOverTime(View):
    """Bit, symbol and block error rates of a window, over the last minute; theory beside."""

    name, title = "rates", "Error rates"
    LINES = ("ber", "theory", "ser", "bler")

    def __init__(self) -> None:
        self.shown = 0
        self.window_s = WINDOW_S
        self.choices = [choice("window of Error rates", "over 1 s", {each: each for each in WINDOWS_S}, self._choose)]

    def keys(self, look: Look) -> list[Key]:
        """Return the rates, in the order of `LINES`."""
        others = [Key("SER", look.lines[1]), Key("FER", look.lines[2])]
        return [Key("BER", look.lines[0]), Key("theory", look.ink, "dashed"), *others]

    def make(self, look: Look) -> None:
        """Make the plot."""
        self.root = plot("time, s", "error rate", (0, SPANS_S[0]), (BEGIN, 1.5), y_axis_type="log")
        self.source = ColumnDataSource({"t": [], **{key: [] for key in self.LINES}})
        for rate, key in zip(self.LINES, self.keys(look), strict=True):
            self.root.line(
                "t", rate, source=self.source, color=key.colour, line_dash=key.style,
                line_width=2.0 if rate == "ber" else 1.2, alpha=1.0 if rate == "ber" else 0.8,
            )  # fmt: skip

    def _choose(self, name: str) -> None:
        self.window_s, self.shown = WINDOWS_S[name], 0

    def update(self, history: History) -> None:
        """Add what is new."""
        new = min(history.sampled - self.shown, len(history.samples))
        if not new:
            return
        again, self.shown = self.shown == 0, history.sampled
        samples = list(itertools.islice(history.samples, len(history.samples) - new, None))
        told = [sample | history.rates_at(sample, self.window_s) for sample in samples]
        rows = {key: np.array([each[key] or math.nan for each in told]) for key in self.LINES}
        data = {"t": np.array([sample["t"] for sample in samples]), **rows}
        if again:
            self.source.data = data
        else:
            self.source.stream(data, rollover=SAMPLES)
        now = samples[-1]["t"]
        span = next((each for each in SPANS_S if each >= now), SPANS_S[-1])
        self.root.x_range.update(start=max(now - span, 0.0), end=max(now, span))
        _reach_down(self.root, np.concatenate([rows["ber"], rows["theory"]]))


class RateOverEbn0(View):
    """Bit error rates against Eb/N0 as the channel is turned, with 99 % intervals, over the closed form."""

    name, title = "ebn0", "Error rate against Eb/N0"

    def __init__(self) -> None:
        self.seen: Any = None
        self.channel: Channel | None = None

    def keys(self, look: Look) -> list[Key]:
        """Return the curve and the marks."""
        measured, now = look.lines[:2]
        marks = [Key("measured, 99 %", measured, mark="●"), Key("no error: bound", measured, mark="▽")]
        return [Key("closed form, uncoded", look.ink), Key("now", now, mark="◯"), *marks]

    def make(self, look: Look) -> None:
        """Make the plot."""
        measured, now = look.lines[:2]
        self.root = plot("Eb/N0, dB", "bit error rate", (-2, 16), (BEGIN, 1.0), y_axis_type="log")
        self.form = ColumnDataSource({"x": [], "y": []})
        self.points = ColumnDataSource({"x": [], "y": [], "low": [], "high": []})
        self.bounds = ColumnDataSource({"x": [], "y": []})
        self.now = ColumnDataSource({"x": [], "y": []})
        self.root.line("x", "y", source=self.form, color=look.ink, line_width=1.3)
        self.root.segment("x", "low", "x", "high", source=self.points, color=measured, line_width=2)
        self.root.scatter("x", "y", source=self.points, size=7, color=measured)
        bound = {"marker": "inverted_triangle", "size": 9, "fill_color": None, "line_color": measured}
        self.root.scatter("x", "y", source=self.bounds, **bound)
        self.root.scatter("x", "y", source=self.now, size=16, fill_color=None, line_color=now, line_width=2)

    def update(self, history: History) -> None:
        """Show the points that were collected, and the closed form of the channel that is in use."""
        channel = history.channel()
        if channel is not None and channel != self.channel:
            self.channel = channel
            self._draw_form(channel)
        points = history.ber_points()
        if not points or points == self.seen:
            return
        self.seen = points
        seen = [point for point in points if point["bit_errors"]]
        none = [point for point in points if not point["bit_errors"] and point["ber_high"]]
        self.points.data = {
            "x": [point["ebn0_db"] for point in seen],
            "y": [point["ber"] for point in seen],
            "low": [max(point["ber_low"] or point["ber"], LOWEST) for point in seen],
            "high": [point["ber_high"] or point["ber"] for point in seen],
        }
        self.bounds.data = {"x": [p["ebn0_db"] for p in none], "y": [p["ber_high"] for p in none]}
        last = points[-1]
        self.now.data = {"x": [last["ebn0_db"]], "y": [last["ber"] or last["ber_high"] or math.nan]}
        x = [point["ebn0_db"] for point in points]
        span = self.root.x_range
        if min(x) < span.start or max(x) > span.end:
            span.start, span.end = min(span.start, 2 * (min(x) // 2) - 2), max(span.end, 2 * (max(x) // 2) + 4)
            if self.channel:
                self._draw_form(self.channel)
        _reach_down(self.root, np.array([*self.points.data["low"], *self.bounds.data["y"]]))

    def _draw_form(self, channel: Channel) -> None:
        x = np.arange(self.root.x_range.start, self.root.x_range.end + 0.1, 0.5)
        self.form.data = {"x": x, "y": np.maximum(channel.bit_error_rates(x), 1e-30)}


def _reach_down(root: Any, rates: np.ndarray) -> None:
    """Let an axis of rates reach down to the least of them, by whole decades, and never back."""
    rates = rates[np.isfinite(rates) & (rates > 0)]
    if len(rates) and rates.min() < root.y_range.start:
        root.y_range.start = max(10.0 ** math.floor(math.log10(rates.min()) - 0.3), LOWEST)
