"""What a run leaves behind: its folder, `report.json`, the files that blocks keep, the log."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import re
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from flowgraph.control import BlockCount, WireCount
from flowgraph.journal import claim
from flowgraph.latency import Latency
from flowgraph.spec import GraphSpec

# Keys that every report has; null where nothing measured them.
SECTIONS = {
    "link": [
        "bits",
        "bit_errors",
        "ber",
        "ber_theory",
        "symbols",
        "ser",
        "evm_rms",
        "ebn0_db",
        "esn0_db",
        "snr_measured_db",
    ],
    "payload": [
        "caption_bytes",
        "latent_bytes",
        "overhead_bytes",
        "symbols_per_image",
        "cbr",
        "share_of_float64_image",
        "share_of_rgb8_image",
    ],
}
FRAME_KEYS = [
    "frame",
    "name",
    "mode",
    "caption_sent",
    "caption_received",
    "steps",
    "ber",
    "latent_mse",
    "psnr",
    "ssim",
    "lpips",
    "clip_score",
    "status",
]

LOG = "log.txt"
MAX_FRAMES = 100_000  # rows; a stream may go on for ever, its report may not


def _jsonable(value: Any) -> Any:
    """JSON knows neither NaN nor infinity: both become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, dict):
        return {str(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return value


def folder_of(name: str) -> Path:
    """Return the folder below `runs` for what is called so."""
    return Path("runs") / (re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "flowgraph")


def _new_folder(path: Path) -> Path:
    """Make a folder of that name, or where that is taken `path-2` and so on; no other run gets the same."""
    for ending in ("", *(f"-{number}" for number in range(2, 1000))):
        with contextlib.suppress(FileExistsError):
            made = path.with_name(path.name + ending)
            made.mkdir(parents=True)
            return made
    raise FileExistsError(errno.EEXIST, "a thousand runs are there already", str(path))


class RunFolder:
    """The folder of a run; files land whole or not at all. What an earlier run left there is taken away.

    Raises `BlockError` where another run has it.
    """

    keeps = True  # what is written

    def __init__(self, path: Path):
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.log_file = (path / LOG).open("a", encoding="utf-8")
        claim(self.log_file, path)
        self.log_file.truncate(0)
        for name in _files_of(path / "report.json"):
            (path / name).unlink(missing_ok=True)
        self.written: set[str] = set()  # by this run, whatever else lies there

    @classmethod
    def for_run(cls, flowgraph: str, path: str | Path | None = None) -> RunFolder:
        """Open `path`, or a new folder `runs/<flowgraph>-<time>`."""
        if path is None:
            path = _new_folder(Path(f"{folder_of(flowgraph)}-{time.strftime('%Y%m%d-%H%M%S')}"))
        return cls(Path(path))

    def write(self, name: str, data: bytes | str | Callable[[], bytes | str]) -> None:
        """Write a file below the folder, or what `data` returns. Raises `ValueError` for a name that would leave it."""
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise ValueError(f"a kept file's name must stay in the run's folder, not {name!r}")
        target = self.path.joinpath(*pure.parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(target.name + ".part")
        content = data() if callable(data) else data
        try:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink()
            raise OSError(error.errno, error.strerror, str(target)) from None  # of a full disk it does not say where
        part.replace(target)
        self.written.add(str(pure))

    def log(self, line: str) -> None:
        with contextlib.suppress(OSError):  # of a full disk the report tells, which cannot be written either
            self.log_file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self.log_file.flush()

    def close(self) -> None:
        with contextlib.suppress(OSError):  # as in `log`: closing writes what is left
            self.log_file.close()


class NoFolder(RunFolder):
    """Stands for the folder of a run of which nothing is wanted but the report that it returns."""

    keeps = False

    def __init__(self) -> None:
        self.written = set()

    def write(self, name: str, data: bytes | str | Callable[[], bytes | str]) -> None:
        """Write nothing."""

    def log(self, line: str) -> None:
        """Write nothing."""

    def close(self) -> None:
        """There is nothing to close."""


def _files_of(report: Path) -> list[str]:
    """Return the files that the run of a report wrote, below its folder."""
    try:
        names = json.loads(report.read_bytes())["files"]
    except (OSError, ValueError, KeyError, TypeError):  # none, or no report of ours
        return []
    known = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
    return [name for name in known if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts]


class WorkerHealth(msgspec.Struct):
    """How a worker is: starting, alive, ended or failed; its process's CPU time, and bytes in memory."""

    state: str = "starting"
    cpu_s: float = 0.0
    memory: int = 0


class Report:
    """Gathers what blocks and wires say, and becomes `report.json`."""

    def __init__(self, spec: GraphSpec):
        self.flowgraph, self.seed = spec.name, spec.seed
        self.latency = Latency(spec)
        self.began = time.monotonic()
        self.sections: dict[str, dict[str, Any]] = {name: dict.fromkeys(keys) for name, keys in SECTIONS.items()}
        self.frames: dict[int, dict[str, Any]] = {}
        self.blocks: dict[str, BlockCount] = {}
        self.wires: dict[str, WireCount] = {}
        self.taken: dict[str, tuple[int, int]] = {}  # packets off wires from other workers, at the last two counts
        self.queued: dict[str, int] = {}  # packets under way, by wire: of this moment, and not written
        self.progress: dict[str, tuple[int, int]] = {}  # step and steps of what blocks are at; not written
        self.workers: dict[str, WorkerHealth] = {}  # not written
        self.starting: dict[str, str] = {}  # what workers whose blocks start are at; not written
        self.result: dict[str, Any] = {"status": "starting"}

    def __repr__(self) -> str:
        link = self.sections["link"]
        return f"<Report of {self.flowgraph!r}: {self.result['status']}, {len(self.frames)} frames, BER {link['ber']}>"

    def add(self, section: str, frame: int | None, values: dict[str, Any]) -> None:
        """Take in figures: of a section, or of a frame."""
        values = _jsonable(values)
        if section == "frames" and frame is not None:
            if frame in self.frames or len(self.frames) < MAX_FRAMES:
                row = self.frames.pop(frame, {**dict.fromkeys(FRAME_KEYS), "frame": frame})
                self.frames[frame] = row | values  # the newest last
            else:
                self.result["frames_listed"] = f"the first {MAX_FRAMES}"
        else:
            self.sections.setdefault(section, {}).update(values)

    def count(self, blocks: dict[str, BlockCount], wires: dict[str, WireCount], queued: dict[str, int]) -> None:
        """Take in a worker's counts; of a wire between two workers each knows one end.

        `queued` are packets under way on wires that leave the worker, as far as it knows: it looks at what the receiver
        has taken only once it must, so that in front of an idle one they would seem to pile up.
        """
        for name in wires.keys() - queued.keys():
            self.taken[name] = self.taken.get(name, (0, 0))[1], wires[name].packets
        for name, under_way in queued.items():
            # by the receiver's last word but one, which is surely older than the sender's
            taken = self.taken.get(name, (0, 0))[0]
            self.queued[name] = min(under_way, max(wires[name].packets - taken, 0)) if name in self.taken else under_way
        self.blocks.update(blocks)
        for name, new in wires.items():
            old = self.wires.setdefault(name, WireCount())
            self.wires[name] = WireCount(
                *(max(getattr(old, field), getattr(new, field)) for field in WireCount.__struct_fields__)
            )

    def as_dict(self, last: int = 0) -> dict[str, Any]:
        """Return the report as plain data; only the `last` frames that were told of, where that is given."""
        numbers = sorted(list(self.frames)[-last:])
        rows = [self.frames[number] for number in numbers]
        latency: dict[str, Any] = {}
        if not last:
            ways = self.latency.of_frames()
            latency = {"latency": self.latency.summary(ways.values())}
            took = {number: round(way.seconds, 6) for number, way in ways.items()}
            rows = [{**row, "latency_s": took.get(row["frame"])} for row in rows]
        blocks = {
            name: {
                "packets": count.packets,
                "items": count.items,
                "busy_s": round(count.busy_s, 6),
                "sending_s": round(count.sending_s, 6),
                "items_per_s": round(count.items / count.busy_s) if count.busy_s else None,
                "errors": count.errors,
            }
            for name, count in sorted(self.blocks.items())
        }
        wires = {
            name: {field: getattr(count, field) for field in WireCount.__struct_fields__}
            for name, count in sorted(self.wires.items())
        }
        return {
            "flowgraph": self.flowgraph,
            "seed": self.seed,
            "elapsed_s": round(time.monotonic() - self.began, 3),
            **_jsonable(self.result),
            **self.sections,
            **latency,
            "frames": rows,
            "blocks": blocks,
            "wires": wires,
        }

    def as_json(self) -> bytes:
        return msgspec.json.format(msgspec.json.encode(self.as_dict()), indent=1) + b"\n"


class RunFailed(Exception):
    """A run ended early; `report` holds what was finished. `interrupted` where a person ended it."""

    def __init__(self, message: str, report: Report, interrupted: bool = False):
        super().__init__(message)
        self.report, self.interrupted = report, interrupted
