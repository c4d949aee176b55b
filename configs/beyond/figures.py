"""What docs/beyond.md draws and lists, each from one command, or all of it: `python -m configs.beyond.figures all --set
images=FOLDER --set squeezenet=FILE`.

As `configs.paper.figures`: the sweep beside this file is run, or goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from blocks.view import figures
from configs.paper.figures import Made, Panel, Row, curves, gain, main, markdown, shown, told, where
from flowgraph import Sweep

HERE = Path(__file__).parent
METRICS = {"psnr": "PSNR, dB", "ssim": "SSIM", "squeezenet_distance": "SqueezeNet feature distance"}
CAPTIONS = {"caption_right": "captions right"}
SYMBOLS = "payload.symbols_per_image"
TICKS = (600, 1500, 5000, 15000, 40000)  # symbols
USES_AT = 10.0  # Es/N0 in dB at which quality is drawn against channel uses
LINKS = {"known": "Rayleigh, gain known", "pilots": "Rayleigh, gain by pilots"}
AGAIN = "Rayleigh, parts asked for again"


def name_by(rows: list[Row], *variables: str) -> list[Row]:
    """Give rows, as `curve`, the name of their flowgraph and of these variables' values."""
    for row in rows:
        values = [f"{name} {row[f'vars.{name}']}" for name in variables if row.get(f"vars.{name}") is not None]
        row["curve"] = ", ".join([row["flowgraph"], *values])
    return rows


def groups(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Return rows by their `curve`, in order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["curve"], []).append(row)
    return found


def judge_captions(rows: Iterable[Row]) -> None:
    """Give rows, as `caption_right`, whether the caption came as it was sent; None where none was sent."""
    for row in rows:
        sent = row.get("caption_sent")
        row["caption_right"] = None if sent is None else float(row["caption_received"] == sent)


def count_again(rows: Iterable[Row]) -> None:
    """Add to the symbols of an image those that were sent again, a mean over the run; once."""
    for row in rows:
        if row.get(SYMBOLS):
            row[SYMBOLS] *= 1 + (row.get("link.bits_again") or 0)


def symbols(rows: list[Row]) -> str:
    """Return the symbols of an image, fewest and most where that depends on the channel; nothing without a link."""
    counts = sorted({round(row[SYMBOLS]) for row in rows if row.get(SYMBOLS)})
    return " to ".join(f"{count:,}" for count in dict.fromkeys(counts[:1] + counts[-1:]))


def against(rows: list[Row]) -> str:
    """Return what each of the rows' curves measures, and what the first one gains over it, image by image."""
    every = groups(rows)
    first, *_ = every.values()
    lines = []
    for name, found in every.items():
        cells = [name, f"{len(found)}", symbols(found)]
        for metric in METRICS:
            cells += [
                told([row[metric] for row in found], metric),
                gain(first, found, metric) if found != first else "",
            ]
        lines.append(cells)
    heads = [f"{metric}{what}" for metric in METRICS.values() for what in ("", ": the first over it")]
    return markdown(["", "images", "symbols an image", *heads], lines)


def listed(rows: list[Row]) -> str:
    """Return what each of the rows' curves takes and measures."""
    lines = [
        [name, symbols(found), *(told([row[metric] for row in found], metric) for metric in METRICS)]
        for name, found in groups(rows).items()
    ]
    return markdown(["", "symbols an image", *METRICS.values()], lines)


def by_snr(rows: list[Row], metric: str, title: str) -> str:
    """Return a metric by curve and Es/N0, for those that have it."""
    rows = [row for row in rows if row.get(metric) is not None]
    snrs = sorted({row["vars.esn0"] for row in rows})
    lines = []
    for name, found in groups(rows).items():
        cells = [told([row[metric] for row in where(found, esn0=snr)], metric) for snr in snrs]
        lines.append([name, symbols(found), *cells])
    return markdown([f"{title}, at Es/N0", "symbols", *(f"{snr:g} dB" for snr in snrs)], lines)


def comparison(rows: list[Row]) -> Made:
    """Return every mode against Es/N0 and, at one, against channel uses, as figure and tables."""
    judge_captions(rows)
    count_again(rows)
    measured = METRICS | CAPTIONS
    modes = [row for row in rows if "vars.max_bytes" not in row]
    codecs = [row for row in rows if "vars.max_bytes" in row]
    name_by(modes)
    name_by(codecs)
    uses = [*codecs, *where(modes, esn0=USES_AT)]

    def panels(rows: list[Row]) -> list[Panel]:
        return [(name, metric, rows) for metric, name in measured.items()]

    at = f"symbols an image, at Es/N0 {USES_AT:g} dB"
    drawn = curves([("vars.esn0", "Es/N0, dB", panels(modes)), (SYMBOLS, at, panels(uses))])
    for axes in drawn.axes:
        if axes.get_ylabel() in CAPTIONS.values():
            axes.set_ylim(-0.05, 1.05)
    for axes in drawn.axes[len(drawn.axes) // 2 :]:
        axes.set_xscale("log")
        axes.set_xticks(TICKS, [f"{tick:,}" for tick in TICKS], fontsize=7)
        axes.minorticks_off()
    tables = [by_snr(modes, metric, name) for metric, name in measured.items()]
    return drawn, "\n".join([*tables, listed(name_by(codecs, "max_bytes"))])


def fading(rows: list[Row]) -> Made:
    """Return what fading leaves of each latent, its gain known or estimated, as figure and table."""
    count_again(rows)
    lines = []
    for row in rows:
        again = "vars.above" in row
        what = f"above {row['vars.above']:g}" if again else f"{row['vars.latent']}, T {row['vars.steps']}"
        row["curve"] = f"{what}, {row['flowgraph'].removeprefix('Rayleigh, ')}"
        row["sent"] = what
    for snr in sorted({row["vars.esn0"] for row in rows}):
        for what, found in groups(row | {"curve": row["sent"]} for row in where(rows, esn0=snr)).items():
            known, pilots = (where(found, flowgraph=name) for name in LINKS.values())
            cells = [f"{snr:g} dB", what, symbols(found)]
            for metric in ("psnr", "ssim"):
                cells += [told([row[metric] for row in each], metric) for each in (known or found, pilots)]
                cells.append(gain(pilots, known, metric))
            lines.append(cells)
    heads = [f"{metric}, {what}" for metric in ("PSNR", "SSIM") for what in ("gain known", "by pilots", "pilots less")]
    panels = [(name, metric, rows) for metric, name in METRICS.items()]
    return curves([("vars.esn0", "Es/N0, dB", panels)]), markdown(["Es/N0", "sent as", "symbols", *heads], lines)


def cliff(rows: list[Row]) -> Made:
    """Return the adaptive mode against the best of the fixed ones, image by image, for each Es/N0."""
    judge_captions(rows)
    lines = []
    for snr in sorted({row["vars.esn0"] for row in rows}):
        modes = groups(name_by(where(rows, esn0=snr)))
        adaptive = modes.pop("adaptive")
        best = max(modes, key=lambda mode: np.mean([row["psnr"] for row in modes[mode]]))
        cells = [f"{snr:g}", told([row["psnr"] for row in adaptive], "psnr")]
        cells += [f"{told([row['psnr'] for row in modes[best]], 'psnr')}, {best}", gain(adaptive, modes[best], "psnr")]
        right = sum(row["caption_right"] for row in adaptive)
        lines.append([*cells, f"{right:.0f} of {len(adaptive)}"])
    heads = ["Es/N0, dB", "adaptive", "best fixed mode", "adaptive less best", "captions right"]
    return None, markdown(heads, lines)


def side_by_side(sweep: Sweep, out: Path) -> Made:
    """Run a sweep's cells with their pictures, and return these, a row a photograph and a column a method."""
    found, table = shown(sweep, out)
    columns: dict[str, dict[str, np.ndarray | None]] = {}
    names = {frame: row["name"].partition(".")[0] for frame, _, row, _ in found if row}
    for frame, name, _, picture in found:
        columns.setdefault(name, {})[names[frame]] = picture
    return figures.pictures([(name.replace(", ", "\n"), each) for name, each in columns.items()]), table


def elements(rows: list[Row]) -> Made:
    """Return the start by every element's noise against the one by their mean, for each Es/N0 and share lost."""
    parts = []
    for lost, snr in sorted({(row["vars.lost"], row["vars.esn0"]) for row in rows}):
        parts.append(f"Es/N0 {snr:g} dB, {lost:.0%} lost\n\n{against(name_by(where(rows, esn0=snr, lost=lost)))}")
    return None, "\n".join(parts)


DRAWN = {
    "comparison": comparison,
    "fading": fading,
    "cliff": cliff,
    "elements": elements,
    "start": lambda rows: (None, against(name_by(rows, "steps"))),
    "coded": lambda rows: (None, against(name_by(rows))),
    "few": lambda rows: (None, against(name_by(rows, "T"))),
    "small": lambda rows: (None, against(name_by(rows))),
}

FURTHER = {"comparison": ["codecs"], "fading": ["again"], "few": ["paper"]}

if __name__ == "__main__":
    raise SystemExit(main(HERE, DRAWN, {"pictures": side_by_side}, FURTHER))
