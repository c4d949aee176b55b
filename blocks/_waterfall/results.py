"""What a waterfall leaves behind: `ber.csv`, `ber.pdf` and `ber.png`."""

from __future__ import annotations

import csv
import io
from typing import Any

from blocks._waterfall.plan import Waterfall
from blocks.view import figures
from blocks.view.style import files, new_figure, styled


def table(rows: list[dict[str, Any]]) -> str:
    """Return points as CSV: a row each, empty where a figure is not known."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: f"{each:.6g}" if isinstance(each, float) else each for name, each in row.items()})
    return text.getvalue()


@styled
def figure(waterfall: Waterfall, rows: list[dict[str, Any]]) -> dict[str, bytes]:
    """Return the figure of points as files by name, `ber.pdf` and `ber.png`."""
    drawing = new_figure(10, 5.4, wspace=0.06)
    drawing.suptitle(waterfall.title)
    curves = {name: [row for row in rows if row["curve"] == name] for name in waterfall.curves}
    labels = {"ber": "bit error rate", "bler": f"block error rate, blocks of {waterfall.block} bits"}
    for axes, (rate, label) in zip(drawing.subplots(1, 2, sharex=True), labels.items(), strict=True):
        figures.error_rates(curves, rate, label, legend=False, axes=axes)
    keys = figures.error_rate_keys(curves, list(labels))
    drawing.legend(handles=keys, loc="outside lower center", ncols=4)
    return files(drawing, "ber")
