"""A graph to look at: blocks as boxes, wires as arrows; as Mermaid text, and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowgraph.spec import GraphSpec

COLOURS = ("#dbe9f6", "#fde9d9", "#dff0d8", "#ece2f0", "#fff7c2", "#e5e5e5")
STEP = 2.5  # from column to column, in rows
WIDTH = 0.8  # of a box, in columns
LANE = 0.16  # from one wire that passes boxes to the next, in rows


def mermaid(spec: GraphSpec) -> str:
    """Return the graph as Mermaid text: a box for each worker, an arrow for each wire."""
    lines = ["flowchart LR"]
    ids = {block.name: f"b{i}" for i, block in enumerate(spec.blocks)}
    for i, worker in enumerate(spec.workers):
        where = f" on {worker.host}" if worker.host else ""
        lines.append(f'    subgraph w{i}["{_quoted(worker.name + where)}"]')
        for block in spec.blocks:
            if block.worker == worker.name:
                lines.append(f'        {ids[block.name]}["{_quoted(block.name)}<br/><i>{_quoted(block.type)}</i>"]')
        lines.append("    end")
    for wire in spec.wires:
        label = (
            wire.source_port if wire.source_port == wire.target_port else f"{wire.source_port} to {wire.target_port}"
        )
        if wire.policy != "block":
            label += f", {wire.policy}"
        if wire.delay:
            label += f", {wire.delay} frame{'s' * (wire.delay != 1)} later"
        arrow = "-.->" if wire.delay else "-->"
        lines.append(f'    {ids[wire.source_block]} {arrow}|"{_quoted(label)}"| {ids[wire.target_block]}')
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass
class Layout:
    """Where boxes and wires are, in columns from the left and rows from the top."""

    place: dict[str, tuple[float, float]]  # the middle of each block's box
    paths: list[list[tuple[float, float]]]  # the corners of each wire, from box to box
    columns: int
    bottom: float


def layout(spec: GraphSpec) -> Layout:
    """Lay a graph out, so that no wire runs through a box: blocks by the longest way to them from a source."""
    depth = {block.name: 0 for block in spec.blocks}
    for _ in spec.blocks:
        for wire in spec.wires:
            depth[wire.target_block] = max(depth[wire.target_block], depth[wire.source_block] + 1)
    rows: dict[int, list[str]] = {}
    for block in spec.blocks:
        rows.setdefault(depth[block.name], []).append(block.name)
    height = max(map(len, rows.values()))
    place = {
        name: (float(column), (height - len(names)) / 2 + row)
        for column, names in rows.items()
        for row, name in enumerate(names)
    }
    far = sum(depth[wire.target_block] - depth[wire.source_block] != 1 for wire in spec.wires)
    paths: list[list[tuple[float, float]]] = []
    bottom = height - 0.4
    for wire in spec.wires:
        (x0, y0), (x1, y1) = place[wire.source_block], place[wire.target_block]
        begin, end = x0 + WIDTH / 2, x1 - WIDTH / 2
        if x1 - x0 == 1:
            paths.append([(begin, y0), (end, y1)])
            continue
        # a lane of its own below all boxes, and down and up to it between two columns
        aside = (1 - WIDTH) * (0.15 + 0.5 * (bottom - height + 0.4) / LANE / far)
        down, up = begin + aside, end - (1 - WIDTH) + aside
        paths.append([(begin, y0), (down, y0), (down, bottom), (up, bottom), (up, y1), (end, y1)])
        bottom += LANE
    return Layout(place, paths, len(rows), bottom)


def draw(spec: GraphSpec, path: Path) -> None:
    """Draw a graph into a picture file: one column a step from the sources, a colour a worker."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

    made = layout(spec)
    width = STEP * WIDTH
    figure = Figure(figsize=(1.6 * made.columns, 1.2 + 0.9 * made.bottom), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    colour = {worker.name: COLOURS[number % len(COLOURS)] for number, worker in enumerate(spec.workers)}
    for corners in made.paths:
        passes = len(corners) > 2
        line: dict[str, Any] = {"color": "#a0a0a0" if passes else "#505050", "lw": 0.7 if passes else 0.9}
        points = [(STEP * x, y) for x, y in corners]
        axes.plot(*zip(*points[:-1], strict=True), zorder=0, **line)
        arrow = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **line}
        axes.annotate("", points[-1], points[-2], arrowprops=arrow, zorder=0 if passes else 1)
    for block in spec.blocks:
        x, y = STEP * made.place[block.name][0], made.place[block.name][1]
        corner = (x - width / 2 + 0.05, y - 0.22)
        box = FancyBboxPatch(
            corner, width - 0.1, 0.44, "round,pad=0.05", fc=colour[block.worker], ec="#505050", lw=0.8, zorder=2
        )
        axes.add_patch(box)
        axes.text(x, y - 0.09, block.name, ha="center", va="center", fontsize=7, weight="bold")
        axes.text(x, y + 0.12, block.type, ha="center", va="center", fontsize=5.5, color="#404040")
    for number, worker in enumerate(spec.workers):
        axes.text(
            number * 0.8 - width / 2,
            made.bottom + 0.25,
            worker.name,
            fontsize=7,
            bbox={"fc": colour[worker.name], "ec": "none"},
        )
    axes.set_xlim(-width / 2 - 0.3, STEP * (made.columns - 1) + width / 2 + 0.3)
    axes.set_ylim(made.bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(path, format=path.suffix[1:] or "png")
