"""The paper's figures and table, each from one command: `python -m configs.paper.figures fig3 --set images=FOLDER`.

The sweep beside this file is run, or goes on where it stopped, and what it found is drawn into its folder.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blocks.view.style import COLOURS, files, new_figure, styled
from flowgraph.cli import main as semflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
METHODS = {"the paper, text and latent": "text + latent", "the paper, text only": "text only"}
METRICS = {"ssim": "SSIM", "psnr": "PSNR, dB", "lpips": "LPIPS", "clip_score": "CLIP score"}


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Return the mean over images and half the width of its 95 % interval, which one image cannot tell."""
    spread = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return float(np.mean(values)), float(spread)


def points(rows: list[dict[str, Any]], x: str, metric: str) -> np.ndarray:
    """Return x, mean and interval of a metric: float64 [3, points], of as many points as have it."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None:
            found.setdefault(row[x], []).append(row[metric])
    return np.array([(at, *mean_and_interval(values)) for at, values in sorted(found.items())]).reshape(-1, 3).T


def published() -> list[dict[str, Any]]:
    """Return the points of the paper's Figure 3."""
    lines = [line for line in (HERE / "published.csv").read_text().splitlines() if not line.startswith("#")]
    return [
        {name: value if name == "method" else float(value) for name, value in row.items()}
        for row in csv.DictReader(lines)
    ]


@styled
def draw(rows: list[dict[str, Any]], x: str, label: str, beside: list[dict[str, Any]]) -> Figure:
    """Return a figure, a panel a metric; `beside` are published points."""
    figure = new_figure(12, 3.6)
    for axes, (metric, name) in zip(figure.subplots(1, len(METRICS)), METRICS.items(), strict=True):
        axes.set(xlabel=label, ylabel=name)
        axes.grid()
        seen = False
        for (flowgraph, method), colour in zip(METHODS.items(), COLOURS, strict=False):
            at, mean, spread = points([row for row in rows if row["flowgraph"] == flowgraph], x, metric)
            if len(at):
                seen = True
                axes.errorbar(at, mean, spread, fmt="o-", color=colour, markersize=4, capsize=2.5, label=method)
            paper = [row for row in beside if row["method"] == method and metric in row]
            if paper:
                axes.plot(
                    [row["ebn0_db"] for row in paper],
                    [row[metric] for row in paper],
                    "s--",
                    color=colour,
                    markerfacecolor="white",
                    markersize=4,
                    linewidth=0.8,
                    label=f"{method}, published",
                )
        if not seen:
            axes.set_title("not measured: its weights are not here", fontsize=8)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    images = len({row["name"] for row in rows})
    model = rows[0]["vars.diffusion"]
    figure.suptitle(f"{images} images, model {model}: means and their 95 % intervals", fontsize=9)
    return figure


def payloads(rows: list[dict[str, Any]]) -> str:
    """Return what each method sends, as Markdown: bytes, 16QAM symbols, and shares of the image.

    The paper counts 77 characters of 8 bits as 616 bytes; they are 616 bits, 77 bytes.
    """
    size = rows[0]["vars.size"]
    height, width = map(int, size.split("x"))
    values = 3 * height * width
    heads = (
        "caption, bytes",
        "latent, bytes",
        "symbols",
        "channel uses a value",
        "of a float64 image",
        "of an 8-bit image",
    )
    lines = [" | ".join([f"| a {size} image", *heads]) + " |", "|---" * (len(heads) + 1) + "|"]
    for flowgraph, method in METHODS.items():
        row = next(row for row in rows if row["flowgraph"] == flowgraph)
        caption, latent, overhead = (row[f"payload.{part}_bytes"] or 0 for part in ("caption", "latent", "overhead"))
        sent = caption + latent + overhead
        counts = [f"{count:.0f}" for count in (caption, latent, 2 * sent)]
        shares = [f"{2 * sent / values:.4f}", f"{sent / (8 * values):.3%}", f"{sent / values:.2%}"]
        lines.append(" | ".join([f"| {method}", *counts, *shares]) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m configs.paper.figures", description=__doc__.splitlines()[0])
    parser.add_argument("which", choices=("fig3", "fig5", "table1"))
    parser.add_argument("--out", type=Path, help="its folder (default: runs/WHICH)")
    arguments, rest = parser.parse_known_args()
    out = arguments.out or Path("runs") / arguments.which
    code = semflow(["sweep", str(HERE / f"{arguments.which}.yaml"), "--out", str(out), *rest])
    if code not in (0, 1):
        return code
    from pyarrow import parquet

    rows = [row for row in parquet.read_table(out / "table.parquet").to_pylist() if row["fault"] is None]
    if rows and arguments.which == "table1":
        (out / "table1.md").write_text(payloads(rows))
        print(payloads(rows), end="")
    elif rows:
        x, label = ("vars.ebn0", "Eb/N0, dB") if arguments.which == "fig3" else ("vars.T", "denoising steps T")
        drawn = draw(rows, x, label, published() if arguments.which == "fig3" else [])
        for name, data in files(drawn, arguments.which).items():
            (out / name).write_bytes(data)
            print(out / name)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
