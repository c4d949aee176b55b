"""The view of the graph: blocks by how busy they are, wires by how full their queues are, and what was dropped."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np
from bokeh.layouts import column
from bokeh.models import Arrow, ColumnDataSource, Div, HoverTool, InlineStyleSheet, VeeHead

from blocks._page.history import History
from blocks._page.look import Look, View, plot
from flowgraph.drawing import WIDTH, layout
from flowgraph.live import Run

HEIGHT = 0.62  # of a box, in rows
ROOM = 11  # letters that fit into a box
BUSY = 0.5  # share of time above which the busiest block is the bottleneck
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))

CSS = """
:host { font: 12px/1.5 var(--font); color: var(--faint); }
.workers { display: flex; flex-wrap: wrap; gap: 0 18px; font-variant-numeric: tabular-nums; }
.workers b { color: var(--ink); }
.failed, .failed b { color: var(--alarm); font-weight: 600; }
"""


class GraphView(View):
    """The graph, drawn: the fuller a box, the busier its block; beneath it, how the workers are."""

    name, title, wide = "graph", "Blocks at work, packets on their wires", True

    def __init__(self, run: Run, look: Look):
        self.spec, self.look = run.spec, look
        made = layout(run.spec)
        self.drawn = plot("", "", (-0.55, made.columns - 0.45), (made.bottom, -0.6), min_border=0)
        self.drawn.axis.visible = False
        self.drawn.grid.visible = False
        self.workers = Div(
            text="", disable_math=True, stylesheets=[InlineStyleSheet(css=CSS)], sizing_mode="stretch_width", margin=0
        )
        self.root = column(self.drawn, self.workers, sizing_mode="stretch_both", spacing=4)
        blocks = run.spec.blocks
        x, y = ([made.place[block.name][axis] for block in blocks] for axis in (0, 1))
        left = np.array(x) - WIDTH / 2
        blank = [""] * len(blocks)  # each column gets a list of its own: they are patched in place
        self.boxes = ColumnDataSource(
            {
                "x": x, "y": y, "left": left, "fill": left.copy(), "name": [block.name for block in blocks],
                "short": [_short(block.name) for block in blocks],
                "type": [block.type for block in blocks], "worker": [block.worker for block in blocks],
                "rate": [*blank], "busy": [*blank], "errors": [0] * len(blocks), "line": [look.faint] * len(blocks),
                "thick": [1.0] * len(blocks), "note": [*blank],
            }
        )  # fmt: skip
        self._draw_wires(made.paths)
        self._draw_boxes()

    def _draw_boxes(self) -> None:
        paper = "#1d2229" if self.look.dark else "#ffffff"
        box = self.drawn.rect(
            "x", "y", WIDTH, HEIGHT, source=self.boxes, fill_color=paper, line_color="line", line_width="thick"
        )
        share: dict[str, Any] = {"color": self.look.lines[0], "alpha": 0.35}
        self.drawn.hbar("y", left="left", right="fill", height=HEIGHT, source=self.boxes, **share)
        words: dict[str, Any] = {
            "source": self.boxes, "text_align": "center", "text_baseline": "middle", "text_color": self.look.ink
        }  # fmt: skip
        self.drawn.text("x", "y", "short", text_font_size="11px", y_offset=-6, text_font_style="bold", **words)
        self.drawn.text("x", "y", "rate", text_font_size="10px", y_offset=7, **words)
        note = words | {"text_color": self.look.alarm}
        self.drawn.text("x", "y", "note", text_font_size="10px", y_offset=-22, **note)
        tips = [("", "@name"), ("type", "@type"), ("worker", "@worker"), ("busy", "@busy"), ("warnings", "@errors")]
        self.drawn.add_tools(HoverTool(renderers=[box], tooltips=tips))

    def _draw_wires(self, paths: list[list[tuple[float, float]]]) -> None:
        wires = self.spec.wires
        x, y = ([[corner[axis] for corner in path] for path in paths] for axis in (0, 1))
        # What is said of a wire stands in the middle of its longest part: the whole of it, or its lane.
        long = [(len(path) - 1) // 2 for path in paths]
        self.wires = ColumnDataSource(
            {
                "xs": x, "ys": y, "alpha": [0.9 if len(path) == 2 else 0.5 for path in paths],
                "x0": [each[-2] for each in x], "x1": [each[-1] for each in x],
                "y0": [each[-2] for each in y], "y1": [each[-1] for each in y],
                "x": [(each[n] + each[n + 1]) / 2 for each, n in zip(x, long, strict=True)],
                "y": [(each[n] + each[n + 1]) / 2 for each, n in zip(y, long, strict=True)],
                "fill": [""] * len(wires), "dropped": [""] * len(wires), "name": [wire.name for wire in wires],
                "line": [self.look.faint] * len(wires),
            }
        )  # fmt: skip
        self.drawn.multi_line("xs", "ys", source=self.wires, color="line", alpha="alpha")
        head = VeeHead(size=6, fill_color="line", line_color="line")
        ends = {"x_start": "x0", "y_start": "y0", "x_end": "x1", "y_end": "y1"}
        self.drawn.add_layout(Arrow(end=head, source=self.wires, line_color=None, **ends))
        words: dict[str, Any] = {
            "source": self.wires, "text_align": "center", "text_font_size": "9px", "text_baseline": "bottom"
        }  # fmt: skip
        self.drawn.text("x", "y", "fill", text_color=self.look.faint, y_offset=-1, **words)
        self.drawn.text("x", "y", "dropped", text_color=self.look.alarm, y_offset=11, **words)
        self.seen = 0

    def update(self, history: History) -> None:
        """Show what blocks and wires have done since the last report."""
        if history.reports == self.seen:
            return
        self.seen = history.reports
        self.workers.text = _workers(history)
        report, names = history.report, self.boxes.data["name"]
        busy = [history.busy.get(name, 0.0) for name in names]
        worst = int(np.argmax(busy)) if busy and max(busy) > BUSY and not history.ended else -1
        calm, alarm = self.look.faint, self.look.alarm
        errors = [report["blocks"].get(name, {}).get("errors", 0) for name in names]
        whole = slice(len(names))
        self.boxes.patch(
            {
                "fill": [(whole, self.boxes.data["left"] + np.array(busy) * WIDTH)],
                "rate": [(whole, [_rate(history.rates.get(name, 0.0)) for name in names])],
                "busy": [(whole, [f"{share:.0%}" for share in busy])],
                "errors": [(whole, errors)],
                "line": [(whole, [alarm if n == worst or e else calm for n, e in enumerate(errors)])],
                "thick": [(whole, [2.5 if n == worst else 1.0 for n in range(len(names))])],
                "note": [(whole, ["bottleneck" if n == worst else "" for n in range(len(names))])],
            }
        )
        queued, wires = report.get("queued", {}), report["wires"]
        lost = [sum(wires.get(w.name, {}).get(k, 0) for k in ("dropped", "lost", "refused")) for w in self.spec.wires]
        waiting = [queued.get(wire.name, 0) for wire in self.spec.wires]
        fills = [f"{n}/{wire.queue}" if n else "" for n, wire in zip(waiting, self.spec.wires, strict=True)]
        all_wires = slice(len(fills))
        self.wires.patch(
            {
                "fill": [(all_wires, fills)],
                "dropped": [(all_wires, [f"{_count(each)} dropped" if each else "" for each in lost])],
                "line": [(all_wires, [alarm if each else calm for each in lost])],
            }
        )


def _workers(history: History) -> str:
    """Return how the workers are, as HTML."""
    told = []
    for name, health in history.report["workers"].items():
        state, cpu, memory = health["state"], history.cpu.get(name, 0.0), health["memory"]
        use = f" · CPU {cpu:.0%}" + (f" · {memory / 1e6:.0f} MB" if memory else "") if state == "alive" else ""
        told.append(f'<span class="{state}"><b>{escape(name)}</b> {state}{use}</span>')
    return f'<div class="workers">{"".join(told)}</div>'


def _short(name: str) -> str:
    """Return what a block is called within its sub-graph, as far as it fits into its box."""
    last = name.rpartition(".")[2]
    return last if len(last) <= ROOM else last[: ROOM - 1] + "…"


def _count(number: float) -> str:
    """Return a number as people read it.

    >>> _count(12_340_000), _count(950)
    ('12.3 M', '950')
    """
    for size, prefix in PREFIXES:
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g}"


def _rate(items_per_s: float) -> str:
    return f"{_count(items_per_s)}/s" if items_per_s >= 0.05 else ""
