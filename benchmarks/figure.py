"""Draws how many times faster than each peer every piece of work is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PEERS = {"sionna": "#0072b2", "gnuradio": "#e69f00", "commpy": "#009e73"}  # Okabe and Ito's colours
FLOWGRAPHS = {"inproc": "flowgraph, one process", "fused": "flowgraph, fused", "ipc": "flowgraph, three processes"}

CLOSE = 3  # times as much, below which two figures would stand on each other


def ratios(figures: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return by work and peer how many times faster ours is; stated figures of a peer count where it was not there."""
    found = {}
    for work, rates in figures["kernels"].items():
        found[work] = {
            who.partition(",")[0]: rates["semflow"] / rate for who, rate in rates.items() if who != "semflow"
        }
    for placement, name in FLOWGRAPHS.items():
        found[name] = {"gnuradio": figures["flowgraph"][placement]["times_gnuradio"]}
    return {work: peers for work, peers in found.items() if peers}


def draw(figures: dict[str, Any], path: Path) -> None:
    """Write a picture of the ratios, one row for each piece of work, on a log axis."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = ratios(figures)
    figure = Figure(figsize=(8, 0.42 * len(rows) + 1.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for peer, colour in PEERS.items():
        points = [(peers[peer], row) for row, peers in enumerate(rows.values()) if peer in peers]
        if points:
            axes.scatter(*zip(*points, strict=True), s=60, color=colour, label=peer, zorder=3)
    for row, peers in enumerate(rows.values()):
        before, above = 0.0, True
        for ratio in sorted(peers.values()):
            above = not above if ratio < CLOSE * before else True
            place, side = ((0, 6), "bottom") if above else ((0, -6), "top")
            text = f"{ratio:,.1f}" if ratio < 10 else f"{ratio:,.0f}"
            axes.annotate(text, (ratio, row), place, textcoords="offset points", ha="center", va=side, fontsize=7)
            before = ratio
    axes.axvline(1, color="0.3", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.7)
    axes.grid(axis="x", which="both", color="0.92", zorder=0)
    axes.set_xlabel("times as fast as the peer, per CPU-second")
    axes.set_title(figures["machine"], fontsize=9)
    axes.legend(loc="lower right", title="peer", fontsize=8)
    figure.savefig(path, dpi=150)
