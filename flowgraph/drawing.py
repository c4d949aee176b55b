"""A picture of a graph: blocks as boxes, one column a step from the sources, wires as arrows, workers as colours."""

from __future__ import annotations

from pathlib import Path

from flowgraph.spec import GraphSpec

COLOURS = ("#dbe9f6", "#fde9d9", "#dff0d8", "#ece2f0", "#fff7c2", "#e5e5e5")
WIDTH, STEP = 2.0, 2.5  # of a box, and from column to column


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
    from matplotlib.patches import FancyBboxPatch

    depth = columns(spec)
    rows: dict[int, list[str]] = {}
    for block in spec.blocks:
        rows.setdefault(depth[block.name], []).append(block.name)
    height = max(map(len, rows.values()))
    place = {
        name: (STEP * column, (height - len(names)) / 2 + row)
        for column, names in rows.items()
        for row, name in enumerate(names)
    }
    figure = Figure(figsize=(1.6 * len(rows), 1.2 + 0.9 * height), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    colour = {worker.name: COLOURS[number % len(COLOURS)] for number, worker in enumerate(spec.workers)}
    for wire in spec.wires:
        (x0, y0), (x1, y1) = place[wire.source_block], place[wire.target_block]
        far = x1 - x0 > STEP  # over the heads of others: bowed, and fainter
        arrow = {
            "arrowstyle": "-|>",
            "color": "#b0b0b0" if far else "#505050",
            "lw": 0.9,
            "shrinkA": 0,
            "shrinkB": 0,
            "connectionstyle": f"arc3,rad={0.12 if far else 0}",
        }
        axes.annotate("", (x1 - WIDTH / 2, y1), (x0 + WIDTH / 2, y0), arrowprops=arrow, zorder=1)
    for block in spec.blocks:
        x, y = place[block.name]
        corner = (x - WIDTH / 2 + 0.05, y - 0.22)
        box = FancyBboxPatch(
            corner, WIDTH - 0.1, 0.44, "round,pad=0.05", fc=colour[block.worker], ec="#505050", lw=0.8, zorder=2
        )
        axes.add_patch(box)
        axes.text(x, y - 0.09, block.name, ha="center", va="center", fontsize=7, weight="bold")
        axes.text(x, y + 0.12, block.type, ha="center", va="center", fontsize=5.5, color="#404040")
    for number, worker in enumerate(spec.workers):
        axes.text(
            number * 0.8 - WIDTH / 2,
            height + 0.1,
            worker.name,
            fontsize=7,
            bbox={"fc": colour[worker.name], "ec": "none"},
        )
    axes.set_xlim(-WIDTH / 2 - 0.3, STEP * (len(rows) - 1) + WIDTH / 2 + 0.3)
    axes.set_ylim(height + 0.4, -0.8)
    axes.axis("off")
    figure.savefig(path)
