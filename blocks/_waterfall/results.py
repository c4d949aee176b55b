"""What a waterfall leaves behind: `ber.csv`, `ber.pdf` and `ber.png`."""

from __future__ import annotations

import csv
import io
import itertools
from typing import Any

import numpy as np

from blocks._waterfall.plan import Waterfall

# M. Okabe and K. Ito, "Color Universal Design", 2008: told apart by the colour-blind as well; shapes help in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
SHAPES = "osD^vPX"
LOWEST = 1e-12


def table(rows: list[dict[str, Any]]) -> str:
    """Return points as CSV: a row each, empty where a figure is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{each:.6g}" if isinstance(each, float) else each for name, each in row.items()})
    return text.getvalue()


def figure(waterfall: Waterfall, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the figure of points, by the ending of its file: `pdf` and `png`."""
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine
    from matplotlib.lines import Line2D

    drawing = Figure(figsize=(10, 5.4), dpi=160, layout=ConstrainedLayoutEngine(wspace=0.06))
    drawing.suptitle(waterfall.title)
    styles = dict(zip(waterfall.curves, itertools.cycle(zip(COLOURS, SHAPES, strict=True)), strict=False))
    panels = drawing.subplots(1, 2, sharex=True)
    labels = {"ber": "bit error rate", "bler": f"block error rate, blocks of {waterfall.block} bits"}
    for axes, (rate, label) in zip(panels, labels.items(), strict=True):
        axes.set(xlabel="Eb/N0, dB", ylabel=label, yscale="log")
        axes.grid(which="major", color="0.88")
        axes.grid(which="minor", axis="y", color="0.95", linewidth=0.5)
        axes.set_axisbelow(True)
        for name, style in styles.items():
            _draw(axes, rate, [row for row in rows if row["curve"] == name], *style)
        seen = [row[rate] for row in rows if row[rate]] + [row[f"{rate}_high"] for row in rows if row[rate] == 0]
        axes.set_ylim(10 ** np.floor(np.log10(max(min(seen, default=0.1), LOWEST)) - 0.3), 1.5)
    grey: dict[str, Any] = {"color": "0.35"}
    keys = [
        *(Line2D([], [], linestyle="", marker=s, color=c, markersize=5, label=n) for n, (c, s) in styles.items()),
        Line2D([], [], **grey, linestyle="", marker="|", markersize=11, label="99 % confidence"),
    ]
    if any(row["ber_theory"] for row in rows):
        keys.append(Line2D([], [], **grey, label="theory"))
    if any(0 in (row["ber"], row["bler"]) for row in rows):
        label = "no error: 99 % upper bound"
        keys.append(Line2D([], [], **grey, linestyle="", marker=r"$\downarrow$", markersize=9, label=label))
    drawing.legend(handles=keys, loc="outside lower center", ncols=4, frameon=False)
    files = {}
    for ending in ("pdf", "png"):
        content = io.BytesIO()
        drawing.savefig(content, format=ending, metadata={"CreationDate": None} if ending == "pdf" else None)
        files[ending] = content.getvalue()
    return files


def _draw(axes: Any, rate: str, rows: list[dict[str, Any]], colour: str, shape: str) -> None:
    """Draw a curve: points with bars, bounds as arrows, theory as a line."""
    rows = sorted((row for row in rows if row[rate] is not None), key=lambda row: row["ebn0_db"])
    seen = [row for row in rows if row[rate]]
    x, y = ([row[key] for row in seen] for key in ("ebn0_db", rate))
    low, high = (
        [row[f"{rate}_{end}"] if row[f"{rate}_{end}"] else row[rate] for row in seen] for end in ("low", "high")
    )
    bars = [np.subtract(y, low), np.subtract(high, y)]
    axes.errorbar(x, y, bars, fmt=shape, color=colour, markersize=4, capsize=2.5, linewidth=1.2)
    bounds = [(row["ebn0_db"], row[f"{rate}_high"]) for row in rows if row[rate] == 0 and row[f"{rate}_high"]]
    if bounds:
        x, y = map(list, zip(*bounds, strict=True))
        axes.errorbar(x, y, np.multiply(y, 0.4), uplims=True, fmt="_", color=colour, markersize=7, linewidth=1.2)
    known = [(row["ebn0_db"], row["ber_theory"]) for row in rows if rate == "ber" and row["ber_theory"]]
    if known:
        axes.plot(*_smooth(*zip(*known, strict=True)), color=colour, linewidth=1, alpha=0.8)


def _smooth(x: tuple[float, ...], y: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve through exact values, which are the points' own, interpolated in log scale."""
    from scipy.interpolate import PchipInterpolator

    if len(x) < 2:
        return np.array(x), np.array(y)
    fine = np.linspace(x[0], x[-1], 20 * len(x))
    return fine, 10 ** PchipInterpolator(x, np.log10(y))(fine)
