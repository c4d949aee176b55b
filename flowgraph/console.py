"""What a person sees of a run: one live line on a terminal, plain lines in a log, tables at the end."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from flowgraph.report import LOG, Report, RunFolder

if TYPE_CHECKING:
    from rich.table import Table

LINE_EVERY_S = 5.0
LIVE_EVERY_S = 0.2


def _number(value: Any, digits: int = 4) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if 10**digits <= abs(value) < 1e15 else f"{value:.{digits}g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def span(seconds: float) -> str:
    """Return a time as people say it.

    >>> span(59.2), span(3725)
    ('1 min 0 s', '1 h 2 min')
    """
    minutes, rest = divmod(math.ceil(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def carried(report: Report) -> int:
    """Return the bytes that the busiest wire has carried."""
    return max((wire.bytes for wire in report.wires.values()), default=0)


def status_line(report: Report, bytes_per_s: float) -> str:
    """Return how far a run is: frames, rate, error rate so far."""
    parts = [f"{time.monotonic() - report.began:6.1f} s"]
    if report.result["status"] == "starting":
        return f"{parts[0]} · {'; '.join(dict.fromkeys(report.starting.values())) or 'workers start'}"
    link, images = report.sections["link"], [row for row in report.frames.values() if row["name"]]
    if images:
        there = sum(row["status"] is not None for row in images)
        parts.append(f"images: {len(images)} sent, {there} received")
    parts.append(f"{carried(report) / 1e6:,.1f} MB on the busiest wire, {bytes_per_s / 1e6:,.1f} MB/s")
    if link["ber"] is not None:
        parts.append(f"BER {_number(link['ber'])} ({_number(link['bits'])} bits)")
    dropped = sum(wire.dropped + wire.lost for wire in report.wires.values())
    if dropped:
        parts.append(f"{dropped} packets dropped or lost")
    return " · ".join(parts)


@contextmanager
def printing() -> Iterator[None]:
    """Print as long as somebody reads: behind `| head`, what comes after its last line is dropped."""
    try:
        yield
        print(end="", flush=True)
    except BrokenPipeError:
        _let_go(sys.stdout)
        _let_go(sys.stderr)


def _let_go(stream: TextIO) -> None:
    """Have a stream lead nowhere; else Python tries again as it exits, and exits with 120."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


class Progress:
    """Shows a run while it runs: rewrites one line on a terminal, else prints a line now and then."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet or sys.stderr is None  # as by `2>&-`
        self.live = not self.quiet and sys.stderr.isatty()
        self.every = LIVE_EVERY_S if self.live else LINE_EVERY_S
        self.shown, self.carried = time.monotonic(), 0

    def observe(self, report: Report) -> None:
        since = time.monotonic() - self.shown
        if self.quiet or since < self.every:
            return
        line = status_line(report, (carried(report) - self.carried) / since)
        self.shown, self.carried = time.monotonic(), carried(report)
        self._write(f"\r\x1b[2K{line[:150]}" if self.live else line + "\n")

    def tell(self, line: str) -> None:
        if not self.quiet:
            self._write(("\r\x1b[2K" if self.live else "") + line + "\n")

    def _write(self, text: str) -> None:
        """Write to stderr; where nobody reads that any more, the run goes on in silence."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self.quiet = True
            _let_go(sys.stderr)


LINK_ROWS = {
    "ebn0_db": "Eb/N0, dB",
    "esn0_db": "Es/N0, dB",
    "snr_measured_db": "SNR of the symbols decided on, dB",
    "bits": "bits",
    "bit_errors": "bit errors",
    "ber": "bit error rate",
    "ber_interval": "99 % interval",
    "ber_theory": "bit error rate, theory",
    "symbols": "symbols",
    "ser": "symbol error rate",
    "evm_rms": "EVM, rms",
    "packets_found": "packets found",
    "packets_lost": "packets lost",
    "packets_crc_failed": "packets with wrong bits",
    "carrier_offset_hz": "carrier offset, Hz",
    "clock_offset_ppm": "clock offset, ppm",
    "level_dbfs": "level of the tone, dBFS",
    "frequency_offset_hz": "frequency offset of the tone, Hz",
    "frequency_spread_hz": "its standard deviation, Hz",
    "tone_snr_db": "SNR of the tone, dB",
    "image_dbc": "I/Q image of the tone, dBc",
    "dc_dbfs": "DC, dBFS",
    "windows": "windows looked at",
    "windows_without_tone": "windows without a tone",
    "overruns": "overruns of the radio",
    "underruns": "underruns of the radio",
    "symbols_per_image": "symbols an image",
    "cbr": "channel uses a pixel value",
    "share_of_rgb8_image": "bytes sent / bytes of the 8-bit image",
}
FRAME_COLUMNS = {
    "frame": "frame",
    "name": "name",
    "status": "status",
    "steps": "steps",
    "ber": "BER",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
}
WIDE, NARROW = 100, ("frame", "name", "psnr")  # characters that all columns need, and what is shown in fewer


def _latency(figures: dict[str, Any]) -> Table:
    """Return the table of how long frames took, and where: of blocks that took 1 % or more of it."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"latency of {figures['frames']:,} frame{'s' * (figures['frames'] > 1)}", title_justify="left")
    table.add_column("block")
    for heading in ("waited for it, s", "at work, s"):
        table.add_column(heading, justify="right")
    for block, spent in figures["blocks"].items():
        if sum(spent.values()) >= 0.01 * figures["mean_s"]:
            table.add_row(escape(block), _number(spent["waiting_s"], 3), _number(spent["working_s"], 3))
    figures = {name: _number(figures[f"{name}_s"], 3) for name in ("median", "mean", "max")}
    table.caption = "median {median} s, mean {mean} s, greatest {max} s".format_map(figures)
    return table


def print_summary(report: Report, folder: RunFolder) -> None:
    """Print the tables of a finished run, and what was written where."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    figures = report.as_dict()
    console = Console(width=None if sys.stdout and sys.stdout.isatty() else 120)
    link = Table(title=f"{escape(figures['flowgraph'])}: the link", title_justify="left")
    link.add_column("figure")
    link.add_column("value", justify="right")
    for key, label in LINK_ROWS.items():
        value = figures["link"].get(key, figures["payload"].get(key))
        if isinstance(value, list):
            value = " to ".join(_number(each) for each in value)
        if value is not None:
            link.add_row(label, _number(value))
    tables: list[Table | str] = [link] if link.row_count else []
    if any(row["name"] or row["caption_received"] for row in figures["frames"]):
        plain = all(row["status"] == "ok" for row in figures["frames"])
        shown = FRAME_COLUMNS if console.width >= WIDE else (*NARROW, "ber" if plain else "status")
        told = {key for row in figures["frames"] for key, value in row.items() if value is not None}
        columns = {key: heading for key, heading in FRAME_COLUMNS.items() if key in shown and key in told}
        frames = Table(title="the frames", title_justify="left")
        for key, heading in columns.items():
            text = key in ("name", "status")
            frames.add_column(
                heading, justify="left" if text else "right", no_wrap=True, max_width=18, min_width=0 if text else 6
            )
        frames.add_column("caption received", min_width=24)
        for row in figures["frames"][:20]:
            cells = (escape(_number(row.get(key))) for key in columns)
            frames.add_row(*cells, escape(row.get("caption_received") or "-"))
        tables.append(frames)
        if len(figures["frames"]) > 20:
            tables.append(f"and {len(figures['frames']) - 20} more in report.json")
    if figures["latency"]["frames"]:
        tables.append(_latency(figures["latency"]))
    with console.capture() as printed:  # Rich itself ends the program where nobody reads
        for each in tables:
            console.print(each)
    print(printed.get(), end="")
    for name in sorted({path.partition("/")[0] for path in folder.written} | {LOG}):
        print(folder.path / name)
