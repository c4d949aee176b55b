"""Figures for papers, from arrays: constellation, error rates beside theory, spectrum, spectrogram, pictures.

Each function draws into `axes`, or into a new figure, and returns the figure; `style.files` makes PDF and PNG of it.
From a notebook:

>>> from blocks.phy.qam import map_symbols
>>> figure = constellation(map_symbols(np.arange(256, dtype=np.uint8), 2048), "16qam")
>>> sorted(files(figure, "received"))
['received.pdf', 'received.png']
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from blocks.phy.constellation import AnyModulation
from blocks.phy.constellation import constellation as constellation_of
from blocks.view import measure
from blocks.view.style import COLOURS, SHADES, SHAPES, axes_or_new, files, new_figure, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.lines import Line2D

__all__ = [
    "constellation",
    "error_rate_keys",
    "error_rates",
    "error_rates_over_time",
    "files",
    "pictures",
    "spectrogram",
    "spectrum",
]

RATES = {"theory": "theory", "ber": "bits", "ser": "symbols", "bler": "frames"}  # over time
LOWEST = 1e-12  # error rate that an axis reaches
MARKS = ("crimson", "black", "darkorange", "teal")  # of constellations that are in one figure


@styled
def constellation(
    symbols: np.ndarray, *modulations: AnyModulation, title: str = "", axes: Axes | None = None
) -> Figure:
    """Draw the density of complex symbols, over the points sent and, where there is one modulation, its decisions."""
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LogNorm

    figure, axes = axes_or_new(axes, 4.4, 4.4)
    finite = symbols[np.isfinite(symbols)]
    reach, bins = measure.reach_of(finite), 160
    count = measure.density(finite, reach, bins)
    notes = [title or f"{len(symbols):,} symbols"]
    if outside := len(finite) - int(count.sum()):
        notes.append(f"{outside:,} lie outside")
    if len(finite) < len(symbols):
        notes.append(f"{len(symbols) - len(finite):,} are NaN or infinite")
    extent = (-reach, reach, -reach, reach)
    shades = LogNorm(0.5, max(float(count.max()), 1.0))  # on white paper, dark is dense
    axes.imshow(np.ma.masked_equal(count, 0), norm=shades, cmap=f"{SHADES}_r", origin="lower", extent=extent)
    known = [constellation_of(each) for each in modulations]
    if len(known) == 1:
        lines = measure.boundaries(known[0])
        axes.add_collection(LineCollection(list(lines.view(float).reshape(-1, 2, 2)), colors="0.6", linewidths=0.5))
    for each, colour in zip(known, itertools.cycle(MARKS), strict=False):
        points = each.points
        axes.plot(  # rings, within which is seen what lies on the point
            points.real, points.imag, "o", color=colour, label=each.name,
            markerfacecolor="none", markersize=6, markeredgewidth=0.8,
        )  # fmt: skip
    if len(known) > 1:
        axes.legend(loc="upper right")
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    axes.set(xlabel="in-phase", ylabel="quadrature", title="\n".join(notes))
    return figure


@styled
def error_rates(
    curves: Mapping[str, Iterable[Mapping[str, Any]]],
    rate: str = "ber",
    label: str = "bit error rate",
    legend: bool = True,
    axes: Axes | None = None,
) -> Figure:
    """Draw an error rate against Eb/N0, points with their intervals, over theory.

    A curve has a row a point: `ebn0_db`, and for `rate` ber `ber`, `ber_low`, `ber_high` and `ber_theory`, each of
    which may be None. A point without an error is shown as its upper bound.
    """
    figure, axes = axes_or_new(axes, 5.4, 4.2)
    axes.set(xlabel="Eb/N0, dB", ylabel=label, yscale="log")
    axes.grid(which="major")
    axes.grid(which="minor", axis="y", color="0.95", linewidth=0.5)
    rows = {name: list(each) for name, each in curves.items()}
    for each, style in zip(rows.values(), _looks(), strict=False):
        _draw_curve(axes, rate, each, *style)
    every = list(itertools.chain(*rows.values()))
    seen = [row[rate] for row in every if row[rate]]
    seen += [row[f"{rate}_high"] for row in every if row[rate] == 0 and row[f"{rate}_high"]]
    axes.set_ylim(10 ** np.floor(np.log10(max(min(seen, default=0.1), LOWEST)) - 0.3), 1.5)
    if legend:
        axes.legend(handles=error_rate_keys(rows, (rate,)))
    return figure


@styled
def error_rates_over_time(samples: Iterable[Mapping[str, Any]], axes: Axes | None = None) -> Figure:
    """Draw error rates of bits, symbols and frames over time, beside theory.

    `samples` has for every moment `t`, in seconds, and the rates `ber`, `ser`, `bler` and `theory`, each of which may
    be None.
    """
    figure, axes = axes_or_new(axes, 5.4, 4.2)
    axes.set(xlabel="time, s", ylabel="error rate", yscale="log")
    axes.grid(which="major")
    rows = list(samples)
    lowest = 0.1
    for (key, label), colour in zip(RATES.items(), ("0.35", *COLOURS), strict=False):
        rates = [row[key] or math.nan for row in rows]  # none is not on a log axis
        lowest = min(lowest, np.nanmin([*rates, 0.1]))
        line = "--" if key == "theory" else "-"
        axes.plot([row["t"] for row in rows], rates, line, color=colour, label=label)
    axes.set_ylim(10 ** np.floor(np.log10(max(lowest, LOWEST)) - 0.3), 1.5)
    axes.legend(ncols=len(RATES), loc="lower center")
    return figure


def error_rate_keys(curves: Mapping[str, Iterable[Mapping[str, Any]]], rates: Sequence[str] = ("ber",)) -> list[Line2D]:
    """Return the keys of a legend that explains what `error_rates` draws."""
    from matplotlib.lines import Line2D

    rows = list(itertools.chain(*curves.values()))
    grey: dict[str, Any] = {"color": "0.35"}
    looks = zip(curves, _looks(), strict=False)
    keys = [Line2D([], [], linestyle="", marker=s, color=c, markersize=5, label=name) for name, (c, s) in looks]
    if any(row[rate] and row[f"{rate}_high"] for row in rows for rate in rates):
        keys.append(Line2D([], [], **grey, linestyle="", marker="|", markersize=11, label="99 % confidence"))
    if any(row.get(f"{rate}_theory") for row in rows for rate in rates):
        keys.append(Line2D([], [], **grey, label="theory"))
    if any(row[rate] == 0 for row in rows for rate in rates):
        label = "no error: 99 % upper bound"
        keys.append(Line2D([], [], **grey, linestyle="", marker=r"$\downarrow$", markersize=9, label=label))
    return keys


def _looks() -> Iterable[tuple[str, str]]:
    return itertools.cycle(zip(COLOURS, SHAPES, strict=True))


def _draw_curve(axes: Any, rate: str, rows: list[Mapping[str, Any]], colour: str, shape: str) -> None:
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
    known = {row["ebn0_db"]: row[f"{rate}_theory"] for row in rows if row.get(f"{rate}_theory")}
    if known:
        axes.plot(*_smooth(tuple(known), tuple(known.values())), color=colour, linewidth=1, alpha=0.8)


def _smooth(x: tuple[float, ...], y: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve through exact values, which are the points' own.

    Over noise -ln p grows as the SNR does, so that its logarithm against dB is next to straight.
    """
    from scipy.interpolate import PchipInterpolator

    if len(x) < 2:
        return np.array(x), np.array(y)
    fine = np.linspace(x[0], x[-1], 20 * len(x))
    steady = np.log(-np.log(np.minimum(y, 1 - 1e-9)))
    return fine, np.exp(-np.exp(PchipInterpolator(x, steady)(fine)))


def _scaled(sample_rate: float | None) -> tuple[float, str]:
    """Return what a frequency in cycles a sample is multiplied by, and the axis's label."""
    if sample_rate is None:
        return 1.0, "frequency, cycles a sample"
    for unit, size in (("GHz", 1e9), ("MHz", 1e6), ("kHz", 1e3)):
        if sample_rate >= size:
            return sample_rate / size, f"frequency, {unit}"
    return sample_rate, "frequency, Hz"


@styled
def spectrum(samples: np.ndarray, sample_rate: float | None = None, axes: Axes | None = None) -> Figure:
    """Draw the power spectrum of complex samples, in dB against white samples of unit power; `sample_rate` in Hz."""
    figure, axes = axes_or_new(axes, 5.4, 3.0)
    scale, label = _scaled(sample_rate)
    frequency, power = measure.spectrogram(samples)
    axes.plot(scale * frequency, measure.decibel(power.mean(axis=0)), color=COLOURS[0])
    axes.grid()
    axes.set(xlabel=label, ylabel="power density, dB", xlim=(-scale / 2, scale / 2))
    return figure


@styled
def spectrogram(samples: np.ndarray, sample_rate: float | None = None, axes: Axes | None = None) -> Figure:
    """Draw the power spectrum of complex samples over time, which runs upwards; `sample_rate` in Hz."""
    figure, axes = axes_or_new(axes, 5.4, 3.6)
    scale, label = _scaled(sample_rate)
    power = measure.decibel(measure.spectrogram(samples)[1])
    duration = len(samples) if sample_rate is None else 1e3 * len(samples) / sample_rate
    low, high = np.quantile(power, [0.02, 1])
    drawn = axes.imshow(
        power, SHADES, aspect="auto", origin="lower", vmin=low, vmax=high,
        extent=(-scale / 2, scale / 2, 0, duration), interpolation="nearest",
    )  # fmt: skip
    axes.set(xlabel=label, ylabel="time, samples" if sample_rate is None else "time, ms")
    figure.colorbar(drawn, ax=axes, label="power density, dB")
    return figure


@styled
def pictures(
    rows: Sequence[tuple[str, Mapping[str, np.ndarray | None]]],
    title: str = "",
    where: SubFigure | None = None,
) -> Figure:
    """Draw pictures in a strip, a column a frame and a row a kind; `where` is part of a figure.

    `rows` has for every frame what is written below it, and its pictures by kind (sent, plain, received), RGB uint8
    [height, width, 3], None where one is lost.
    """
    kinds = list(dict.fromkeys(kind for _, each in rows for kind in each))
    figure = where or new_figure(0.25 + 1.5 * len(rows), 0.35 + 1.55 * len(kinds), w_pad=0.02, h_pad=0.02)
    if title:
        figure.suptitle(title, fontsize=9)
    for column, (words, each) in enumerate(rows):
        for row, kind in enumerate(kinds):
            axes = figure.add_subplot(len(kinds), len(rows), row * len(rows) + column + 1, xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
            picture = each.get(kind)
            if picture is None:
                axes.text(0.5, 0.5, "lost", ha="center", va="center", color=COLOURS[1])
                axes.set(aspect="equal")
            else:
                axes.imshow(picture, interpolation="antialiased")
            if column == 0:
                axes.set_ylabel(kind)
            if kind == kinds[-1] and words:
                axes.set_xlabel(words, fontsize=7)
    root = figure.get_figure(root=True)
    assert root is not None
    return root
