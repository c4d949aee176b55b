"""The window: a run as matplotlib shows it on a desktop, for people without a browser."""

from __future__ import annotations

import functools
import io
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from blocks._page.feed import Feed
from blocks._page.history import WINDOW_S, History
from blocks.view import figures
from blocks.view.images import words_below
from blocks.view.style import styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

EVERY_MS = 250
REST = 3  # times as long as it was drawn, it is left as it is: a quarter of a core at most
SIZE, DPI = (12.8, 7.4), 100
SPAN_S = 60.0  # of error rates over time
FRAMES = 5  # whose pictures are shown, the newest last
EBN0_DB = (-2.0, 16.0)  # of the axis, and further where the channel was turned further
COLUMNS = 3


class Window:
    """What a graph has to show, drawn into a figure: signals, error rates and pictures, as its page has them."""

    def __init__(self, history: History, figure: Figure):
        self.history, self.figure = history, figure
        run, choice = history.run, history.choice
        assert run is not None
        types = {block.type for block in run.spec.blocks}
        panels: list[tuple[Callable[[History, SubFigure], None], int]] = []
        panels += [(_draw_constellation, 1)] if choice.decided else []
        panels += [(_draw_rates, 1), (_draw_ebn0, 1)] if "error_meter" in types else []
        panels += [(_draw_spectrum, 1)] if choice.received else []
        panels += [(_draw_pictures, 2)] if "image_writer" in types else []
        wide, at = max(sum(width for _, width in panels), 1), 0
        grid = figure.add_gridspec(-(-wide // COLUMNS), min(wide, COLUMNS))
        self.panels = []
        for draw, width in panels:
            row, column = divmod(at, COLUMNS)
            self.panels.append((draw, figure.add_subfigure(grid[row, column : column + width])))
            at += width
        self.seen: Any = None

    @styled
    def update(self) -> bool:
        """Draw what is known now; return whether anything of it is new."""
        with self.history.lock:
            state, sentence = self.history.state()
            pieces = sum(stream.pieces for stream in self.history.streams.values())
            now = (state, sentence, self.history.reports, pieces, len(self.history.pictures))
            if now == self.seen:
                return False
            self.seen = now
            told = [f"{name} {value}" for name, value in self.history.figures().items()]
            self.figure.suptitle(" · ".join([state, *([sentence] if sentence else []), *told]), fontsize=9)
            for draw, where in self.panels:
                where.clear()
                draw(self.history, where)
        return True


def _draw_constellation(history: History, where: SubFigure) -> None:
    stream = history.streams.get(history.choice.decided or "")
    if stream is None or not stream.pool:
        return
    title = ""
    if quality := stream.quality():
        evm, snr = quality
        title = f"EVM {100 * evm:.1f} %, SNR {snr:.1f} dB"
    known = [stream.modulation] if stream.modulation else []
    figures.constellation(np.concatenate(stream.pool), *known, title=title, axes=where.subplots())


def _draw_rates(history: History, where: SubFigure) -> None:
    axes = where.subplots()
    now = history.samples[-1]["t"] if history.samples else 0.0
    figures.error_rates_over_time([each for each in history.samples if each["t"] > now - SPAN_S], axes)
    axes.set_title(f"over {WINDOW_S:g} s")


def _draw_ebn0(history: History, where: SubFigure) -> None:
    points = history.ber_points()
    axes = where.subplots()
    figures.error_rates({"measured": [point | {"ber_theory": None} for point in points]}, axes=axes, legend=False)
    seen = [point["ebn0_db"] for point in points]
    low, high = min([EBN0_DB[0], *seen]), max([EBN0_DB[1], *seen])
    if channel := history.channel():
        x = np.arange(low, high, 0.5)
        axes.plot(x, channel.bit_error_rates(x), color="0.35", linewidth=1, label="closed form, uncoded")
        axes.legend(loc="upper right")
    axes.set(xlim=(low, high), ylim=(min(axes.get_ylim()[0], 1e-4), 1.5))


def _draw_spectrum(history: History, where: SubFigure) -> None:
    output = history.choice.received or ""
    stream = history.streams.get(output)
    if stream is not None and stream.pool:
        axes = where.subplots()
        figures.spectrum(np.concatenate(stream.pool), axes=axes)
        axes.set_title(output)
        low, high = axes.get_ylim()
        axes.set_ylim(10 * np.floor(low / 10), max(10 * np.ceil(high / 10), 10.0))  # stands still


def _draw_pictures(history: History, where: SubFigure) -> None:
    told = {row["frame"]: row for row in history.report["frames"]}
    frames = history.frames_received()
    rows = []
    for number in islice(frames, max(len(frames) - FRAMES, 0), None):
        row = told.get(number, {})
        facts = {key: row.get(key) for key in ("psnr", "ssim", "status")}
        pictures = {kind: _decoded(history.pictures[path]) for kind, path in frames[number].items()}
        rows.append((words_below(**facts, caption=row.get("caption_received")), pictures))
    if rows:
        figures.pictures(rows, where=where)


@functools.lru_cache(maxsize=4 * FRAMES)
def _decoded(png: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def show(address: str, keys: str | None = None) -> None:
    """Show the run at `address` in a window until that is closed.

    Raises `BlockError` where nobody answers.
    """
    import matplotlib.pyplot as plt

    history = History(address)
    feed = Feed(history, keys)
    try:
        figure = plt.figure(figsize=SIZE, dpi=DPI, layout="constrained")
        assert history.run is not None
        if figure.canvas.manager:
            figure.canvas.manager.set_window_title(f"{history.run.spec.name} · Semflow")
        window = Window(history, figure)
        timer = figure.canvas.new_timer(EVERY_MS)

        def update() -> None:
            began = time.monotonic()
            if window.update():
                figure.canvas.draw()
            timer.interval = max(EVERY_MS, int(REST * 1000 * (time.monotonic() - began)))

        timer.add_callback(update)
        timer.start()
        plt.show()
    except KeyboardInterrupt:
        pass
    finally:
        feed.close()
