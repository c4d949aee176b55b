"""Views of what a wire carries: constellation, spectrum over a waterfall, time or eye, LLRs, channel gain."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import ColumnDataSource, CustomJS, LinearColorMapper
from bokeh.palettes import viridis

from blocks._page.history import BINS, ESTIMATES, FADING, FREQUENCIES, LLR_BINS, LLR_REACH, TIMES, History, Row, Stream
from blocks._page.look import Key, Look, View, choice, plot
from blocks.view import measure

SHOWN = 96  # samples of a time trace
TRACES, FINER = 60, 8  # of an eye diagram, and how much finer than the samples it is drawn
LEFT = 56  # pixels beside a plot, so that plots below each other are in line
UNDER = 10  # pixels below the spectrum: half the height of its lowest number
WATERFALL_S = 10.0  # that are seen, and that each of its two images holds
LATE_S = 0.3  # that a piece may be, before the waterfall moves on without it


def short_names(outputs: Sequence[str]) -> dict[str, str]:
    """Return outputs, `block.port`, with as much of their names as tells them apart.

    >>> short_names(["link.map.symbols", "link.equalize.symbols", "link.equalize.gains"])
    {'link.map.symbols': 'map', 'link.equalize.symbols': 'equalize.symbols', 'link.equalize.gains': 'equalize.gains'}
    """
    blocks = [output.rpartition(".")[0] for output in outputs]
    names = [block if blocks.count(block) == 1 else output for block, output in zip(blocks, outputs, strict=True)]
    lasts = [".".join(name.split(".")[block.count(".") :]) for block, name in zip(blocks, names, strict=True)]
    return {
        output: last if lasts.count(last) == 1 else name
        for output, name, last in zip(outputs, names, lasts, strict=True)
    }


class SignalView(View):
    """A view of one output out of several; `draw` is called for every new piece of it."""

    def __init__(self, output: str, outputs: Sequence[str] = ()):
        self.output, self.seen = output, (output, 0, False)
        if len(outputs) > 1:
            self.choices = [choice(f"wire of {self.title}", output, short_names(outputs), self._select)]

    def _select(self, output: str) -> None:
        self.output = output

    def update(self, history: History) -> None:
        """Draw the newest piece, if there is one that was not drawn, or not with what can be told of it by now."""
        stream = history.streams.get(self.output)
        now = (self.output, stream.pieces if stream else 0, ESTIMATES.is_set())
        if stream and now != self.seen:
            self.seen = now
            self.draw(stream)

    def draw(self, stream: Stream) -> None:
        """Draw a stream."""
        raise NotImplementedError


class ConstellationView(SignalView):
    """Density of the newest symbols, over the points sent and the decision regions; axes are equal."""

    def __init__(self, name: str, title: str, output: str, outputs: Sequence[str], decisions: bool = True):
        self.name, self.title, self.decisions = name, title, decisions
        super().__init__(output, outputs)
        self.persistence = "1 s"
        self.known: object = None
        self.told = f"{name}_told" if decisions else ""
        lasting = choice(f"persistence of {title}", "1 s", {each: each for each in FADING}, self._persist)
        self.choices = [*self.choices, lasting]

    def make(self, look: Look) -> None:
        """Make the plot, its frame of equal sides to come."""
        self.root = plot("in-phase", "quadrature", (-2, 2), (-2, 2))
        self.root.grid.visible = False
        self.density = ColumnDataSource({"image": [np.zeros((BINS, BINS), np.uint8)], "low": [-2.0], "size": [4.0]})
        self.points = ColumnDataSource({"x": [], "y": []})
        self.edges = ColumnDataSource({"x0": [], "y0": [], "x1": [], "y1": []})
        shades = LinearColorMapper(viridis(256), low=1, high=255, low_color="rgba(0, 0, 0, 0)")
        self.root.image("image", "low", "low", "size", "size", source=self.density, color_mapper=shades)
        self.root.segment("x0", "y0", "x1", "y1", source=self.edges, color=look.faint, alpha=0.5)
        marks = "#ffffff" if look.dark else "#c00020"
        self.root.scatter("x", "y", source=self.points, marker="cross", size=8, line_color=marks, line_width=1.2)
        # The frame's size is known in the browser alone: there the range of the longer side is made wider.
        equal = CustomJS(
            args={"plot": self.root, "density": self.density},
            code="""
            const [w, h, r] = [plot.inner_width, plot.inner_height, density.data.size[0] / 2]
            if (w > 0 && h > 0) {
                const k = Math.min(w, h)
                plot.x_range.setv({start: -r * w / k, end: r * w / k})
                plot.y_range.setv({start: -r * h / k, end: r * h / k})
            }
            """,
        )
        self.root.js_on_change("inner_width", equal)
        self.root.js_on_change("inner_height", equal)
        self.density.js_on_change("data", equal)

    def _persist(self, name: str) -> None:
        self.persistence, self.seen = name, ("", 0, False)

    def draw(self, stream: Stream) -> None:
        """Draw density, points, regions and what they tell."""
        density = stream.densities[self.persistence]
        top = np.log1p(max(density.max(), 1.0))
        level = np.where(density > 0.2, 1 + 254 * np.log1p(density) / top, 0)
        low, size = -stream.reach, 2 * stream.reach
        if self.density.data["low"] == [low]:
            self.density.patch({"image": [(0, level.astype(np.uint8))]})
        else:
            self.density.data = {"image": [level.astype(np.uint8)], "low": [low], "size": [size]}
        if not self.decisions:
            return
        if stream.modulation != self.known:
            self.known = stream.modulation
            points = stream.modulation.points if stream.modulation else np.zeros(0, complex)
            self.points.data = {"x": points.real, "y": points.imag}
            edges = measure.boundaries(stream.modulation) if stream.modulation else np.zeros((0, 2), complex)
            ends = {"x0": edges[:, 0].real, "y0": edges[:, 0].imag, "x1": edges[:, 1].real, "y1": edges[:, 1].imag}
            self.edges.data = {key: np.clip(each, -100, 100) for key, each in ends.items()}
        if ESTIMATES.is_set() and (quality := stream.quality()) and stream.modulation:
            evm, snr = quality
            self.text = f"{escape(stream.modulation.name.upper())} · EVM {100 * evm:4.1f} % · SNR {snr:4.1f} dB"


class SpectrumView(SignalView):
    """Power spectrum, averaged, over a waterfall of the last ten seconds."""

    name, title = "spectrum", "Spectrum and waterfall"

    def make(self, look: Look) -> None:
        """Make both plots, in line."""
        above = plot("", "density, dB", (-0.5, 0.5), (-40, 10), min_border_left=LEFT, min_border_bottom=UNDER)
        above.xaxis.major_label_text_font_size = "0px"
        below = plot(
            "frequency, cycles a sample", "time from now, s", (-0.5, 0.5), (-WATERFALL_S, 0), min_border_left=LEFT
        )
        below.grid.visible = False
        self.line = ColumnDataSource({"x": [], "y": []})
        above.line("x", "y", source=self.line, color=look.lines[0], line_width=1.5)
        # Rows are put into images: the browser would draw each as one of its own, and all of them for each new one.
        self.images = ColumnDataSource(self._blank())
        self.numbers = [-1, 0]  # of the images, in multiples of `WATERFALL_S`
        self.shades = LinearColorMapper(viridis(256), low=-30, high=10, nan_color=(0, 0, 0, 0))
        below.image("image", -0.5, "y", 1, WATERFALL_S, source=self.images, color_mapper=self.shades)
        self.above, self.below = above, below
        self.at, self.of = 0, ""  # the newest row that is drawn, and of which output
        self.root = column(above, below, sizing_mode="stretch_both", spacing=0)

    def update(self, history: History) -> None:
        """Draw what is new, and move what is there with the time."""
        super().update(history)
        if not self.of:
            return
        newest = history.streams[self.of].rows[-1]
        now = newest.time + newest.duration
        if not (history.ended or history.gone):
            now = max(now, time.monotonic() - history.began - LATE_S)
        places = [number * WATERFALL_S - now for number in self.numbers]
        if places != self.images.data["y"]:
            self.images.patch({"y": [(slice(2), places)]})

    def draw(self, stream: Stream) -> None:
        """Draw the spectrum, and add what is new below."""
        if stream.power is None:
            return
        line = measure.decibel(stream.power)
        frequencies = np.arange(FREQUENCIES, dtype=np.float32) / FREQUENCIES - 0.5
        self.line.data = {"x": frequencies, "y": line.astype(np.float32)}
        top, bottom = 10 * np.ceil(line.max() / 10 + 0.2), 10 * np.floor(np.quantile(line, 0.05) / 10 - 0.4)
        span = self.above.y_range
        if top > span.end or bottom < span.start or top < span.end - 20 or bottom > span.start + 40:
            span.start, span.end = bottom, max(top, bottom + 20)
            self.shades.low, self.shades.high = span.start, span.end
        if self.of != self.output:
            self.images.data, self.numbers = self._blank(), [-1, 0]
        new = min(stream.pieces - self.at, len(stream.rows)) if self.of == self.output else len(stream.rows)
        for row in itertools.islice(stream.rows, len(stream.rows) - new, None):
            self._add(row)
        self.of, self.at = self.output, stream.pieces

    @staticmethod
    def _blank() -> dict[str, list[Any]]:
        return {"image": [_nothing(), _nothing()], "y": [-WATERFALL_S, 0.0]}

    def _add(self, row: Row) -> None:
        """Put a row where its time is; the older one of the images makes room for a time that is in neither."""
        first = int(row.time * TIMES / WATERFALL_S)
        last = max(first + 1, round((row.time + row.duration) * TIMES / WATERFALL_S))
        for image in range(first // TIMES, (last - 1) // TIMES + 1):
            which = image % 2
            if self.numbers[which] != image:
                self.numbers[which] = image
                self.images.patch({"image": [(which, _nothing())]})
            lines = slice(max(first - image * TIMES, 0), min(last - image * TIMES, TIMES))
            values = np.tile(row.decibel.astype(np.float32), lines.stop - lines.start)
            self.images.patch({"image": [((which, lines, slice(None)), values)]})


class TimeView(SignalView):
    """In-phase and quadrature over time; of an oversampled signal, its eye."""

    name = "time"

    def __init__(self, output: str, outputs: Sequence[str], samples_per_symbol: int):
        self.per_symbol = samples_per_symbol
        self.title = "Signal in time" if samples_per_symbol == 1 else "Eye diagram, in-phase"
        super().__init__(output, outputs)

    def keys(self, look: Look) -> list[Key]:
        """Return the two parts; of an eye there is one."""
        lines = [Key("in-phase", look.lines[0]), Key("quadrature", look.lines[1])]
        return lines if self.per_symbol == 1 else []

    def make(self, look: Look) -> None:
        """Make the plot."""
        if self.per_symbol == 1:
            self.root = plot("sample", "amplitude", (0, SHOWN), (-2, 2))
            self.source = ColumnDataSource({"t": [], "i": [], "q": []})
            for part, key in zip("iq", self.keys(look), strict=True):
                self.root.line("t", part, source=self.source, color=key.colour, line_width=1.3)
        else:
            self.root = plot("time, symbols", "amplitude", (0, 2), (-2, 2))
            self.source = ColumnDataSource({"t": [], "i": []})
            self.root.multi_line("t", "i", source=self.source, color=look.lines[0], alpha=0.25)

    def draw(self, stream: Stream) -> None:
        """Draw the beginning of the newest piece."""
        assert stream.piece is not None
        signal = np.nan_to_num(stream.piece.data.ravel())
        reach = stream.reach
        if self.root.y_range.end != reach:
            self.root.y_range.start, self.root.y_range.end = -reach, reach
        if self.per_symbol == 1:
            signal = signal[:SHOWN]
            self.source.data = {
                "t": np.arange(len(signal), dtype=np.float32),
                "i": signal.real.astype(np.float32),
                "q": signal.imag.astype(np.float32),
            }
            return
        fine = _finer(signal[-TRACES * self.per_symbol * 2 :].real, FINER)  # bursts begin in silence
        length = 2 * self.per_symbol * FINER
        traces = fine[: len(fine) // length * length].reshape(-1, length).astype(np.float32)
        times = np.arange(length, dtype=np.float32) / (self.per_symbol * FINER)
        self.source.data = {"t": [times] * len(traces), "i": list(traces)}


def _nothing() -> np.ndarray:
    return np.full((TIMES, FREQUENCIES), np.nan, np.float32)


def _finer(signal: np.ndarray, factor: int) -> np.ndarray:
    """Return a real signal with so many times the samples: nothing above its band is added."""
    bands = np.fft.rfft(signal)
    return np.fft.irfft(bands, len(signal) * factor) * factor


class LlrView(SignalView):
    """How sure the demapper is: a histogram of LLRs."""

    name, title = "llrs", "LLRs"

    def make(self, look: Look) -> None:
        """Make the histogram."""
        self.root = plot("LLR, ln p(0)/p(1)", "share", (-LLR_REACH, LLR_REACH), (0, 0.2))
        edges = np.linspace(-LLR_REACH, LLR_REACH, LLR_BINS + 1)
        self.source = ColumnDataSource({"left": edges[:-1], "right": edges[1:], "top": np.zeros(LLR_BINS)})
        self.root.quad("left", "right", "top", 0, source=self.source, color=look.lines[0], line_color=None)

    def draw(self, stream: Stream) -> None:
        """Draw the shares."""
        share = stream.llrs / max(stream.llrs.sum(), 1e-9)
        self.source.patch({"top": [(slice(LLR_BINS), share)]})
        top = 0.05 * np.ceil(share.max() / 0.05 + 0.2)
        if top > self.root.y_range.end or top < self.root.y_range.end - 0.1:
            self.root.y_range.end = top


class GainView(SignalView):
    """The channel's gain over the symbols of the newest piece."""

    name, title = "gains", "Channel gain"

    def make(self, look: Look) -> None:
        """Make the plot."""
        self.root = plot("symbol", "gain, dB", (0, 1024), (-30, 10))
        self.source = ColumnDataSource({"t": [], "gain": []})
        self.root.line("t", "gain", source=self.source, color=look.lines[0], line_width=1.3)

    def draw(self, stream: Stream) -> None:
        """Draw every fourth gain."""
        assert stream.piece is not None
        power = np.abs(np.nan_to_num(stream.piece.data.ravel()[:1024:4])) ** 2
        self.source.data = {
            "t": np.arange(0, 4 * len(power), 4, dtype=np.float32), "gain": measure.decibel(power).astype(np.float32)
        }  # fmt: skip


def signal_views(history: History, outputs: Sequence[str]) -> list[SignalView]:
    """Return the views of signals that a run's graph calls for; `outputs` are its complex ones."""
    chosen = history.choice
    views: list[SignalView] = []
    if chosen.decided:
        views.append(ConstellationView("constellation", "Constellation", chosen.decided, outputs))
    if chosen.unequalized:
        views.append(
            ConstellationView("unequalized", "Before equalisation", chosen.unequalized, outputs, decisions=False)
        )
    if chosen.received:
        views.append(SpectrumView(chosen.received, outputs))
        views.append(TimeView(chosen.received, outputs, chosen.samples_per_symbol))
    if chosen.llrs:
        views.append(LlrView(chosen.llrs))
    if chosen.gains:
        views.append(GainView(chosen.gains, outputs))
    return views
