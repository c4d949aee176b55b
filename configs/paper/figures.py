"""The paper's figures and table, each from one command: `python -m configs.paper.figures fig3 --set images=FOLDER`.

The sweep beside this file is run, or goes on where it stopped, and what it found is drawn into its folder. `--overlay`,
`--workers` and `--ray` are those of `semflow sweep`; figures of pictures, which run here at once, have none of them.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from blocks.view import figures
from blocks.view.style import COLOURS, SHAPES, files, new_figure, styled
from flowgraph import ConfigError, Flowgraph, RunFailed, Sweep
from flowgraph.cache import Cache
from flowgraph.cli import main as semflow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HERE = Path(__file__).parent
METHODS = {"the paper, text and latent": "text + latent", "the paper, text only": "text only"}
CHANNELS = {
    "the paper, text and latent": "flips, the paper's formula",
    "the paper, exact flips": "flips, exact rate",
    "the paper, modulated": "16QAM over AWGN",
}
METRICS = {
    "ssim": "SSIM",
    "psnr": "PSNR, dB",
    "lpips": "LPIPS",
    "clip_score": "CLIP score",
    "quality.fid": "FID",
}

Row = dict[str, Any]
Panel = tuple[str, str, list[Row]]  # name, metric, what it is drawn from
Made = tuple["Figure | None", str]  # figure and table


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """Return the mean over images and half the width of its 95 % interval, which one image cannot tell."""
    spread = 1.96 * np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
    return float(np.mean(values)), float(spread)


def points(rows: list[Row], x: str, metric: str) -> np.ndarray:
    """Return x, mean and interval of a metric: float64 [3, points], of as many points as have it."""
    found: dict[float, list[float]] = {}
    for row in rows:
        if row.get(metric) is not None and row.get(x) is not None:
            found.setdefault(row[x], []).append(row[metric])
    return np.array([(at, *mean_and_interval(values)) for at, values in sorted(found.items())]).reshape(-1, 3).T


def gain(rows: Iterable[Row], over: Iterable[Row], metric: str) -> str:
    """Return by how much rows exceed others in a metric, image by image: mean and 95 % interval as text."""
    base = {row["name"]: row[metric] for row in over}
    pairs = [(row[metric], base.get(row["name"])) for row in rows]
    return told([None if None in pair else pair[0] - pair[1] for pair in pairs], metric, "+")


def told(values: Iterable[float | None], metric: str, sign: str = "") -> str:
    """Return mean and 95 % interval as text, in as many digits as suit the metric, of what was measured."""
    values = [value for value in values if value is not None]
    if not values:
        return "not measured"
    digits = f"{sign}.{2 if metric == 'psnr' else 3}f"
    mean, spread = mean_and_interval(values)
    return f"{mean:{digits}}" + (f" ± {spread:{digits.removeprefix('+')}}" if len(values) > 1 else "")


def published() -> list[Row]:
    """Return the points of the paper's Figure 3."""
    lines = [line for line in (HERE / "published.csv").read_text().splitlines() if not line.startswith("#")]
    return [
        {name: value if name == "method" else float(value) for name, value in row.items()}
        for row in csv.DictReader(lines)
    ]


def where(rows: list[Row], **values: Any) -> list[Row]:
    """Return the rows of these values: of `flowgraph`, or of variables."""
    return [row for row in rows if all(row.get(f"vars.{k}", row.get(k)) == v for k, v in values.items())]


def markdown(heads: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Return a table as Markdown."""
    heads = list(heads)
    rows = [heads, ["---"] * len(heads), *([cell.replace("|", r"\|") for cell in line] for line in lines)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


# Tables


def by_method(rows: list[Row]) -> str:
    """Return what text + latent gains over text alone, image by image, for each Eb/N0."""
    both, alone = (where(rows, flowgraph=flowgraph) for flowgraph in METHODS)
    lines = []
    for ebn0 in sorted({row["vars.ebn0"] for row in rows}):
        one, other = where(both, ebn0=ebn0), where(alone, ebn0=ebn0)
        cells = [f"{ebn0:g} dB"]
        for metric in ("psnr", "ssim"):
            cells += [told([row[metric] for row in each], metric) for each in (one, other)] + [gain(one, other, metric)]
        lines.append(cells)
    heads = [f"{metric}, {what}" for metric in ("PSNR", "SSIM") for what in (*METHODS.values(), "gain")]
    return markdown(["Eb/N0", *heads], lines)


def by_steps(rows: list[Row]) -> str:
    """Return quality by T and guidance, and the gain over T = 0 and over the T of the best PSNR, image by image."""
    lines = []
    for guidance in sorted({row["vars.guidance"] for row in rows}, reverse=True):
        by_t: dict[int, list[Row]] = {}
        for row in where(rows, guidance=guidance):
            by_t.setdefault(row["vars.T"], []).append(row)
        best = max(by_t, key=lambda steps: np.mean([row["psnr"] for row in by_t[steps]]))
        for steps, found in sorted(by_t.items(), reverse=True):
            cells = [f"{guidance}", f"{steps}"]
            for metric in ("psnr", "ssim"):
                cells.append(told([row[metric] for row in found], metric))
                cells += [gain(found, by_t[base], metric) if steps != base else "" for base in (0, best)]
            lines.append(cells)
    heads = [f"{metric}{what}" for metric in ("PSNR", "SSIM") for what in ("", ", over T = 0", ", over the best T")]
    return markdown(["guidance", "T", *heads], lines)


def by_channel(rows: list[Row]) -> str:
    """Return what each channel does to bits, captions and latents, for each Eb/N0."""
    heads = ["Eb/N0", "channel", "bit error rate", "captions intact", "MSE, float64 latents", "MSE, quant8 latents"]
    lines = []
    for ebn0 in sorted({row["vars.ebn0"] for row in rows}):
        for flowgraph, channel in CHANNELS.items():
            found = where(rows, flowgraph=flowgraph, ebn0=ebn0)
            cells = [f"{ebn0:g} dB", channel]
            cells.append(f"{np.mean([row['link.ber'] for row in where(found, latent='float64')]):.5f}")
            cells.append(f"{np.mean([row['intact'] for row in found]):.1%}")
            for latent in ("float64", "quant8"):
                mean, spread = mean_and_interval([row["latent_mse"] for row in where(found, latent=latent)])
                cells.append(f"{mean:.4f} ± {spread:.4f}")
            lines.append(cells)
    return markdown(heads, lines)


def payloads(rows: list[Row]) -> str:
    """Return what each method sends, as Markdown: bytes, 16QAM symbols, and shares of the image.

    The paper counts 77 characters of 8 bits as 616 bytes; they are 616 bits, 77 bytes.
    """
    size = rows[0]["vars.size"]
    height, width = map(int, size.split("x"))
    values = 3 * height * width
    lines = []
    for flowgraph, method in METHODS.items():
        row = next(row for row in rows if row["flowgraph"] == flowgraph)
        caption, latent, overhead = (row[f"payload.{part}_bytes"] or 0 for part in ("caption", "latent", "overhead"))
        sent = caption + latent + overhead
        counts = [f"{count:.0f}" for count in (caption, latent, 2 * sent)]
        lines.append(
            [method, *counts, f"{2 * sent / values:.4f}", f"{sent / (8 * values):.3%}", f"{sent / values:.2%}"]
        )
    heads = ("caption, bytes", "latent, bytes", "symbols", "channel uses a value")
    return markdown([f"a {size} image", *heads, "of a float64 image", "of an 8-bit image"], lines)


# Figures


@styled
def curves(strips: list[tuple[str, str, list[Panel]]], beside: Sequence[Row] = ()) -> Figure:
    """Return a figure, a strip for each x, label and panels; a panel has a curve for each `curve` of its rows.

    `beside` are published points. What has neither them nor a measurement is left out, and named.
    """

    def measured(panel: Panel) -> bool:
        return any(row.get(panel[1]) is not None for row in panel[2])

    every = [panel for *_, panels in strips for panel in panels]
    missing = dict.fromkeys(panel[0] for panel in every if not measured(panel))
    if not beside:
        strips = [(x, label, [panel for panel in panels if measured(panel)]) for x, label, panels in strips]
    width, height = max(len(panels) for *_, panels in strips), len(strips)
    names = list(dict.fromkeys(row["curve"] for *_, rows in every for row in rows))
    looks = [(c, s, line) for line in ("-", "--", ":", "-.") for c, s in zip(COLOURS, SHAPES, strict=True)]
    styles = dict(zip(names, itertools.cycle(looks), strict=False))
    figure = new_figure(max(2.4 * width, 6.4) + (len(names) > len(COLOURS)) * 2.4, 0.6 + 3 * height)
    grid = figure.subplots(height, width, squeeze=False)
    for axes, (x, label, (name, metric, rows)) in (
        (axes, (x, label, panel))
        for each, (x, label, panels) in zip(grid, strips, strict=True)
        for axes, panel in zip(each, panels, strict=True)
    ):
        axes.set(xlabel=label, ylabel=name)
        axes.grid()
        paper = [row for row in beside if metric.removeprefix("quality.") in row]
        for curve, (colour, shape, line) in styles.items():
            at, mean, spread = points([row for row in rows if row["curve"] == curve], x, metric)
            if len(at):
                style = {"color": colour, "markersize": 4, "capsize": 2.5, "elinewidth": 0.7}
                axes.errorbar(at, mean, spread, fmt=f"{shape}{line}", label=curve, **style)
            there = [(row["ebn0_db"], row[metric.removeprefix("quality.")]) for row in paper if row["method"] == curve]
            if there:
                style = {"color": colour, "markerfacecolor": "white", "markersize": 4, "linewidth": 0.8}
                axes.plot(*zip(*there, strict=True), "s--", label=f"{curve}, published", **style)
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}  # noqa: B905
    figure.legend(
        handles.values(), handles.keys(), loc="outside lower center", ncols=4 if max(map(len, names)) < 40 else 3
    )
    images = len({row["name"] for *_, rows in every for row in rows})
    model = every[0][2][0].get("vars.diffusion", "embedded")
    lacking = f"\nnot measured, for want of weights: {', '.join(missing)}" if missing else ""
    figure.suptitle(f"{images} images, model {model}: means and their 95 % intervals{lacking}", fontsize=9)
    return figure


def strip(sweep: Sweep, out: Path) -> Made:
    """Run a sweep's cells with their pictures, and return these, a column a photograph and a row a T or method."""
    found, lines = shown(sweep, out)
    words: dict[int, list[str]] = {}
    for frame, name, row, _ in found:
        if row:
            distance = f"LPIPS {row['lpips']:.2f}" if row["lpips"] is not None else f"SSIM {row['ssim']:.2f}"
            words.setdefault(frame, textwrap.wrap(row["caption_sent"], 26)).append(f"{name}: {distance}")
    columns = [
        ("\n".join(words[frame]), {name: picture for at, name, _, picture in found if at == frame})
        for frame in sorted(words)
    ]
    return figures.pictures(columns), lines


def shown(sweep: Sweep, out: Path) -> tuple[list[tuple[int, str, Row | None, np.ndarray]], str]:
    """Run a sweep's cells here, and return frame, name, row and picture of each, those sent before all; and a table."""
    from skimage.io import imread

    cache = Cache(out / "cache")
    sent: dict[int, np.ndarray] = {}
    found: list[tuple[int, str, Row | None, np.ndarray]] = []
    lines = []
    for cell in sweep.cells:
        name = f"T = {cell.values['T']}" if "T" in cell.values else METHODS.get(cell.graph.name, cell.graph.name)
        name += f", Es/N0 {cell.values['esn0']}" if "esn0" in cell.values else ""
        folder = out / "cells" / cell.key
        for frame, row in Flowgraph.from_spec(cell.graph, cache).run(folder).frames.items():
            sent.setdefault(frame, imread(folder / f"images/{frame:04d}_sent.png"))
            found.append((frame, name, row, imread(folder / f"images/{frame:04d}_received.png")))
            scores = [f"{row[key]:.{digits}f}" for key, digits in (("psnr", 1), ("ssim", 3))]
            lines.append([row["name"], name, *scores, row["caption_sent"] or "", row["caption_received"] or ""])
    heads = ["image", "received as", "PSNR, dB", "SSIM", "caption sent", "caption received"]
    return [(frame, "sent", None, picture) for frame, picture in sent.items()] + found, markdown(heads, lines)


# Commands


def fig3(rows: list[Row]) -> Made:
    """Return both methods against Eb/N0, as figure and table."""
    for row in rows:
        row["curve"] = METHODS[row["flowgraph"]]
    panels = [(name, metric, rows) for metric, name in METRICS.items()]
    return curves([("vars.ebn0", "Eb/N0, dB", panels)], published()), by_method(rows)


def fig5(rows: list[Row]) -> Made:
    """Return quality against T, as figure and table."""
    for row in rows:
        row["curve"] = f"guidance {row['vars.guidance']}"
    panels = [(name, metric, rows) for metric, name in METRICS.items()]
    return curves([("vars.T", "denoising steps T", panels)]), by_steps(rows)


def channels(rows: list[Row]) -> Made:
    """Return what flips and real modulation do, as figure and table."""
    for row in rows:
        row["curve"] = CHANNELS[row["flowgraph"]]
        row["intact"] = float(row["caption_received"] == row["caption_sent"])
    panels = [("bit error rate", "link.ber", where(rows, latent="float64")), ("captions intact", "intact", rows)]
    panels += [(f"MSE, {latent} latents", "latent_mse", where(rows, latent=latent)) for latent in ("float64", "quant8")]
    drawn = curves([("vars.ebn0", "Eb/N0, dB", panels)])
    drawn.axes[0].set_yscale("log")
    return drawn, by_channel(rows)


def table1(rows: list[Row]) -> Made:
    """Return what each method sends, as a table."""
    return None, payloads(rows)


def swept(file: Path, out: Path, options: list[str]) -> tuple[int, list[Row]]:
    """Run a sweep, or go on with it, and return the exit code and the rows of the cells that did not fail."""
    code = semflow(["sweep", str(file), "--out", str(out), *options])
    if code not in (0, 1):
        return code, []
    from pyarrow import parquet

    return code, [row for row in parquet.read_table(out / "table.parquet").to_pylist() if row["fault"] is None]


SWEPT = {"fig3": fig3, "fig5": fig5, "channels": channels, "table1": table1}
PICTURED = {"fig4": strip, "fig5_pictures": strip}


def main(
    folder: Path = HERE,
    draw: Mapping[str, Callable[[list[Row]], Made]] = SWEPT,
    show: Mapping[str, Callable[[Sweep, Path], Made]] = PICTURED,
    further: Mapping[str, Sequence[str]] = {},
) -> int:
    """Make figures and tables of a folder's sweeps: `draw` from rows, `show` from runs with their pictures.

    `further` are sweeps that a figure takes rows of besides its own.
    """
    about = f"The figures and tables of docs/{folder.name}.md."
    parser = argparse.ArgumentParser(prog=f"python -m configs.{folder.name}.figures", description=about)
    parser.add_argument("which", choices=(*draw, *show, "all"))
    parser.add_argument("--out", type=Path, help="its folder; of all: where theirs are (default: runs/WHICH)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="set a variable of the sweep")
    arguments, rest = parser.parse_known_args()
    code, settings, every = 0, arguments.set, arguments.which == "all"
    for which in (*draw, *show) if every else [arguments.which]:
        out = arguments.out / which if arguments.out and every else arguments.out or Path("runs", which)
        if which in draw:
            rows: list[Row] = []
            options = [*(f"--set={pair}" for pair in settings), *rest]
            for name in (which, *further.get(which, ())):
                failed, found = swept(folder / f"{name}.yaml", out.with_name(name) if name != which else out, options)
                code, rows = max(code, failed), rows + found
            if code > 1 or not rows:
                return code
            drawn, table = draw[which](rows)
        else:
            if every:
                settings, rest = [], []  # pictures of photographs that may be shown
            try:
                parser.parse_args([which, *rest])  # these are run here and now: there is nothing more to choose
                sweep = Sweep.load(folder / f"{which}.yaml", **dict(pair.partition("=")[::2] for pair in settings))
                drawn, table = show[which](sweep, out)
            except (ConfigError, RunFailed) as error:
                print(error, file=sys.stderr)
                return 2 if isinstance(error, ConfigError) else 1
        (out / f"{which}.md").write_text(table)
        print(table, end="")
        for name, data in files(drawn, which).items() if drawn else ():
            (out / name).write_bytes(data)
            print(out / name)
    return code


if __name__ == "__main__":
    raise SystemExit(main())
