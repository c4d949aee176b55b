"""A picture of a graph: blocks as boxes, one column a step from the sources, wires as arrows, workers as colours."""

from __future__ import annotations

from pathlib import Path

from flowgraph.spec import GraphSpec

COLOURS = ("#dbe9f6", "#fde9d9", "#dff0d8", "#ece2f0", "#fff7c2", "#e5e5e5")


def columns(spec: GraphSpec) -> dict[str, int]:
    """Return for each block the length of the longest way to it from a source."""
    depth = {block.name: 0 for block in spec.blocks}
    for _ in spec.blocks:
        for wire in spec.wires:
            depth[wire.target_block] = max(depth[wire.target_block], depth[wire.source_block] + 1)
    return depth


def draw(spec: GraphSpec, path: Path) -> None:
    """Draw a graph into a picture file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    depth = columns(spec)
    rows: dict[int, list[str]] = {}
    for block in spec.blocks:
        rows.setdefault(depth[block.name], []).append(block.name)
    height = max(map(len, rows.values()))
    place = {
        name: (2.6 * column, (height - len(names)) / 2 + row)
        for column, names in rows.items()
        for row, name in enumerate(names)
    }
    figure = Figure(figsize=(1.0 + 2.0 * len(rows), 1.0 + 0.9 * height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.01, 0.01, 0.98, 0.98))
    colour = {worker.name: COLOURS[number % len(COLOURS)] for number, worker in enumerate(spec.workers)}
    for wire in spec.wires:
        axes.annotate(
            "",
            xy=(place[wire.target_block][0] - 0.95, place[wire.target_block][1]),
            xytext=(place[wire.source_block][0] + 0.95, place[wire.source_block][1]),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#666666",
                "lw": 0.8,
                "connectionstyle": "arc3,rad=0.08",
            },
        )
    for block in spec.blocks:
        axes.text(
            *place[block.name],
            f"{block.name}\n{block.type}",
            ha="center",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.5", "facecolor": colour[block.worker], "edgecolor": "#444444"},
        )
    for number, worker in enumerate(spec.workers):
        axes.text(
            0.01 + 0.12 * number,
            0.01,
            f" {worker.name} ",
            transform=axes.transAxes,
            fontsize=7,
            bbox={"facecolor": colour[worker.name], "edgecolor": "none"},
        )
    axes.set_xlim(-1.3, 2.6 * (len(rows) - 1) + 1.3)
    axes.set_ylim(height - 0.3, -0.7)
    axes.axis("off")
    figure.savefig(path)
