"""The view of the graph: blocks by how busy they are, wires by how full their queues are, and what was dropped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from bokeh.models import Arrow, ColumnDataSource, HoverTool, VeeHead

from blocks._page.history import History
from blocks._page.look import Look, View, plot
from flowgraph.drawing import layout
from flowgraph.live import Run

WIDTH, HEIGHT = 0.6, 0.62  # of a box, in columns and rows
LANE, LANE_WORDS = 0.19, 0.4  # from lane to lane, in rows; to the middle of what is said of one, in columns
ROW, EDGES = 74, 60  # pixels of a row, and of what is around the graph
ROOM = 11  # letters that fit into a box
MANY = 10  # columns, from where on all is written smaller
BUSY = 0.5  # share of time above which the busiest block is the bottleneck
FULL = 0.75  # share of a queue from which its wire stands out
PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class GraphView(View):
    """The graph, drawn: the fuller a box, the busier its block; the thicker a wire, the fuller its queue."""

    name, title = "graph", "Blocks at work, packets on their wires"

    def __init__(self, run: Run):
        self.spec = run.spec
        self.layout = layout(run.spec, WIDTH, LANE)
        self.height = int(EDGES + ROW * (self.layout.bottom + 0.6))
        self.seen = 0

    def make(self, look: Look) -> None:
        """Draw blocks and wires as they are to stay."""
        made, self.look = self.layout, look
        self.paper = "#1d2229" if look.dark else "#ffffff"
        self.root = plot("", "", (-0.5, made.columns - 0.5), (made.bottom, -0.6), min_border=0)
        self.root.axis.visible = False
        self.root.grid.visible = False
        blocks = self.spec.blocks
        x, y = ([made.place[block.name][axis] for block in blocks] for axis in (0, 1))
        left = np.array(x) - WIDTH / 2
        names = [block.name for block in blocks]
        blank = [""] * len(blocks)  # each column gets a list of its own: they are patched in place
        self.boxes = ColumnDataSource(
            {
                "x": x, "y": y, "left": left, "fill": left.copy(), "name": names,
                "short": [_short(block.name, names) for block in blocks],
                "type": [block.type for block in blocks], "worker": [block.worker for block in blocks],
                "rate": [*blank], "busy": [*blank], "errors": [0] * len(blocks), "line": [look.faint] * len(blocks),
                "share": [look.lines[0]] * len(blocks), "thick": [1.0] * len(blocks), "note": [*blank],
            }
        )  # fmt: skip
        self.sizes = ("12px", "11px", "10px") if made.columns <= MANY else ("10px", "10px", "9px")
        self._draw_wires(made.paths)
        self._draw_boxes()

    def _draw_boxes(self) -> None:
        box = self.root.rect(
            "x", "y", WIDTH, HEIGHT, source=self.boxes, fill_color=self.paper, line_color="line", line_width="thick"
        )
        share: dict[str, Any] = {"fill_color": "share", "line_color": None, "alpha": 0.35}
        self.root.hbar("y", left="left", right="fill", height=HEIGHT, source=self.boxes, **share)
        words: dict[str, Any] = {
            "source": self.boxes, "text_align": "center", "text_baseline": "middle", "text_color": self.look.ink
        }  # fmt: skip
        self.root.text("x", "y", "short", text_font_size=self.sizes[0], y_offset=-7, text_font_style="bold", **words)
        self.root.text("x", "y", "busy", text_font_size=self.sizes[1], y_offset=9, **words)
        note = words | {"text_color": self.look.alarm}
        self.root.text("x", "y", "note", text_font_size="11px", text_font_style="bold", y_offset=-32, **note)
        tips = [("", "@name"), ("type", "@type"), ("worker", "@worker"), ("items", "@rate"), ("warnings", "@errors")]
        self.root.add_tools(HoverTool(renderers=[box], tooltips=tips))

    def _draw_wires(self, paths: list[list[tuple[float, float]]]) -> None:
        wires, count = self.spec.wires, len(self.spec.wires)
        x, y = ([[corner[axis] for corner in path] for path in paths] for axis in (0, 1))
        # What is said of a wire stands in its middle; of one with a lane, all of it above where that begins.
        self.has_lane = [len(path) > 2 for path in paths]
        ways = [tuple(path) for path in paths]
        self.together = [[n for n, each in enumerate(ways) if each == way] for way in dict.fromkeys(ways)]
        at = [
            (path[2][0] + LANE_WORDS, path[2][1]) if len(path) > 2 else tuple(np.mean(path, axis=0)) for path in paths
        ]
        self.wires = ColumnDataSource(
            {
                "xs": x, "ys": y, "alpha": [0.9 if len(path) == 2 else 0.5 for path in paths],
                "x0": [each[-2] for each in x], "x1": [each[-1] for each in x],
                "y0": [each[-2] for each in y], "y1": [each[-1] for each in y],
                "x": [x for x, _ in at], "y": [y for _, y in at],
                "name": [wire.name for wire in wires], "rate": [""] * count, "above": [""] * count,
                "below": [""] * count, "waiting": [""] * count, "dropped": [""] * count, "thick": [1.0] * count,
                "line": [self.look.faint] * count,
            }
        )  # fmt: skip
        drawn = self.root.multi_line(
            "xs", "ys", source=self.wires, color="line", alpha="alpha", line_width="thick", line_join="round"
        )
        head = VeeHead(size=6, fill_color="line", line_color="line")
        ends = {"x_start": "x0", "y_start": "y0", "x_end": "x1", "y_end": "y1"}
        self.root.add_layout(Arrow(end=head, source=self.wires, line_color=None, **ends))
        words: dict[str, Any] = {
            "source": self.wires, "text_align": "center", "text_font_size": self.sizes[2],
            "background_fill_color": self.paper, "background_fill_alpha": 0.7,
        }  # fmt: skip
        above, below = {"text_baseline": "bottom", "y_offset": -2}, {"text_baseline": "top", "y_offset": 4}
        self.root.text("x", "y", "above", text_color=self.look.faint, **words, **above)
        self.root.text("x", "y", "below", text_color=self.look.ink, **words, **below)
        tips = [("", "@name"), ("items", "@rate"), ("waiting", "@waiting"), ("dropped", "@dropped")]
        self.root.add_tools(HoverTool(renderers=[drawn], tooltips=tips))

    def update(self, history: History) -> None:
        """Show what blocks and wires have done since the last report."""
        if history.reports == self.seen:
            return
        self.seen = history.reports
        self._update_boxes(history)
        self._update_wires(history)

    def _update_boxes(self, history: History) -> None:
        names, blocks = self.boxes.data["name"], history.report["blocks"]
        busy = [history.busy.get(name, 0.0) for name in names]
        # Of several that are about as busy, the last: those before it fill their queues as yet.
        worst = max(range(len(busy)), key=lambda n: (round(busy[n], 1), self.boxes.data["x"][n]))
        worst = worst if busy[worst] > BUSY and not history.ended else -1
        calm, alarm = self.look.faint, self.look.alarm
        errors = [blocks.get(name, {}).get("errors", 0) for name in names]
        whole = slice(len(names))
        self.boxes.patch(
            {
                "fill": [(whole, self.boxes.data["left"] + np.array(busy) * WIDTH)],
                "rate": [(whole, [_rate(history.rates.get(name, 0.0)) for name in names])],
                "busy": [(whole, [f"{share:.0%}" for share in busy])],
                "errors": [(whole, errors)],
                "line": [(whole, [alarm if n == worst or e else calm for n, e in enumerate(errors)])],
                "share": [(whole, [alarm if n == worst else self.look.lines[0] for n in range(len(names))])],
                "thick": [(whole, [2.5 if n == worst else 1.0 for n in range(len(names))])],
                "note": [(whole, ["bottleneck" if n == worst else "" for n in range(len(names))])],
            }
        )

    def _update_wires(self, history: History) -> None:
        queued, told, wires = history.report.get("queued", {}), history.report["wires"], self.spec.wires
        lost = [sum(told.get(wire.name, {}).get(k, 0) for k in ("dropped", "lost", "refused")) for wire in wires]
        waiting = [queued.get(wire.name, 0) for wire in wires]
        full = [min(n / wire.queue, 1.0) for n, wire in zip(waiting, wires, strict=True)]
        dropped = [f"{_count(each)} dropped" if each else "" for each in lost]
        fills = [f"{n}/{wire.queue}" if n else "" for n, wire in zip(waiting, wires, strict=True)]
        lines = [
            self.look.alarm if gone else self.look.lines[0] if share >= FULL else self.look.faint
            for gone, share in zip(lost, full, strict=True)
        ]
        rates = [history.bytes.get(wire.name, 0.0) for wire in wires]
        above, below = [""] * len(wires), [""] * len(wires)
        for same in self.together:  # wires that are drawn over each other
            first, fullest = same[0], max(same, key=lambda n: waiting[n])
            above[first] = _rate(sum(rates[n] for n in same), "B")
            below[first] = " ".join(filter(None, [fills[fullest], *(dropped[n] for n in same)]))
            if self.has_lane[first]:
                above[first], below[first] = f"{above[first]}  {below[first]}", ""
        whole = slice(len(wires))
        self.wires.patch(
            {
                "rate": [(whole, [_rate(each, "B") for each in rates])],
                "above": [(whole, above)],
                "below": [(whole, below)],
                "waiting": [(whole, [f"{n} of {wire.queue} packets" for n, wire in zip(waiting, wires, strict=True)])],
                "dropped": [(whole, dropped)],
                "thick": [(whole, [1.0 + 4.0 * share for share in full])],
                "line": [(whole, lines)],
            }
        )


def workers(history: History) -> str:
    """Return how the workers are, as HTML."""
    told = []
    for name, health in history.report["workers"].items():
        state, cpu, memory = health["state"], history.cpu.get(name, 0.0), health["memory"]
        use = f"CPU {cpu:.0%}" + (f" · {memory / 1e6:.0f} MB" if memory else "") if state == "alive" else state
        told.append(f'<tr class="{state}"><td><b>{escape(name)}</b></td><td>{use}</td></tr>')
    return f"<table>{''.join(told)}</table>"


def _short(name: str, names: Sequence[str]) -> str:
    """Return what a block is called within its sub-graph, as far as it fits into its box; all of it where others are
    called so, too.

    >>> [_short(name, ["encode", "link.encode", "link.demap"]) for name in ("link.encode", "link.demap")]
    ['link.encode', 'demap']
    """
    last = name.rpartition(".")[2]
    told = name if sum(each.rpartition(".")[2] == last for each in names) > 1 else last
    return told if len(told) <= ROOM else told[: ROOM - 1] + "…"


def _count(number: float, unit: str = "") -> str:
    """Return a number as people read it.

    >>> _count(12_340_000), _count(999_960, "B"), _count(950)
    ('12 M', '1 MB', '950')
    """
    size, prefix = next((each for each in PREFIXES if number >= 0.9995 * each[0]), (1.0, ""))
    number /= size
    return f"{number:{'.2g' if number < 99.5 else '.0f'}} {prefix}{unit}".rstrip()


def _rate(a_second: float, unit: str = "") -> str:
    return f"{_count(a_second, unit)}/s" if a_second >= 0.05 else ""
