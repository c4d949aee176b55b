"""A graph to look at: blocks as boxes, wires as arrows; as Mermaid text, and as a picture."""

from __future__ import annotations

from pathlib import Path

from flowgraph.spec import GraphSpec

COLOURS = ("#dbe9f6", "#fde9d9", "#dff0d8", "#ece2f0", "#fff7c2", "#e5e5e5")
WIDTH, STEP = 2.0, 2.5  # of a box, and from column to column
LANE = 0.16  # from one wire that passes others to the next


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


def columns(spec: GraphSpec) -> dict[str, int]:
    """Return for each block the length of the longest way to it from a source."""
    depth = {block.name: 0 for block in spec.blocks}
    for _ in spec.blocks:
        for wire in spec.wires:
            depth[wire.target_block] = max(depth[wire.target_block], depth[wire.source_block] + 1)
    return depth


def draw(spec: GraphSpec, path: Path) -> None:
    """Draw a graph into a picture file: one column a step from the sources, a colour a worker."""
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
    far = [wire for wire in spec.wires if depth[wire.target_block] - depth[wire.source_block] != 1]
    bottom = height - 0.4 + LANE * len(far)
    figure = Figure(figsize=(1.6 * len(rows), 1.2 + 0.9 * bottom), dpi=150)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    colour = {worker.name: COLOURS[number % len(COLOURS)] for number, worker in enumerate(spec.workers)}
    arrow = {"arrowstyle": "-|>", "lw": 0.9, "shrinkA": 0, "shrinkB": 0}
    for wire in spec.wires:
        (x0, y0), (x1, y1) = place[wire.source_block], place[wire.target_block]
        left, right = x0 + WIDTH / 2, x1 - WIDTH / 2
        if wire not in far:
            axes.annotate("", (right, y1), (left, y0), arrowprops={**arrow, "color": "#505050"}, zorder=1)
            continue
        number = far.index(wire)  # a lane of its own below all boxes, and down and up to it between two columns
        lane, aside = height - 0.4 + LANE * number, (STEP - WIDTH) * (0.15 + 0.5 * number / len(far))
        down, up = left + aside, right - (STEP - WIDTH) + aside
        axes.plot([left, down, down, up, up], [y0, y0, lane, lane, y1], color="#a0a0a0", lw=0.7, zorder=0)
        axes.annotate("", (right, y1), (up, y1), arrowprops={**arrow, "color": "#a0a0a0", "lw": 0.7}, zorder=0)
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
            bottom + 0.25,
            worker.name,
            fontsize=7,
            bbox={"fc": colour[worker.name], "ec": "none"},
        )
    axes.set_xlim(-WIDTH / 2 - 0.3, STEP * (len(rows) - 1) + WIDTH / 2 + 0.3)
    axes.set_ylim(bottom + 0.5, -0.8)
    axes.axis("off")
    figure.savefig(path, format=path.suffix[1:] or "png")
