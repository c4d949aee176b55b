"""What supervisor and workers say to each other: MessagePack records, one type a message, checked on arrival."""

from __future__ import annotations

import glob
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import msgspec

from flowgraph.latency import Passage
from flowgraph.spec import ChangeSpec, GraphSpec
from flowgraph.wire import decoder, encode_plain

PROTOCOL = 2
MAX_FILE_BYTES = 200 << 20  # of a file that a block reads: well within what a message may hold


class Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Base of all control messages; the type's name tells them apart."""


# From a worker


class Hello(Message):
    """A worker has come up; `secret` is what the supervisor gave its own children, empty in one started by hand."""

    protocol: int
    version: str  # of Semflow
    secret: str


class Bound(Message):
    """The worker's blocks exist and its wires listen, at these endpoints by wire."""

    endpoints: dict[str, str]


class Starting(Message):
    """What a worker whose blocks start is at, for people who wait."""

    step: str


class Ready(Message):
    """Every block of the worker has started, or has failed to."""


class Figures(Message):
    """Figures for the report."""

    section: str
    frame: int | None
    values: dict[str, Any]


class File(Message):
    """A file for the run's folder."""

    path: str
    data: bytes


class Warned(Message):
    """Something odd that does not stop the run."""

    block: str
    message: str


class BlockCount(msgspec.Struct):
    """What a block has done so far."""

    packets: int = 0
    items: int = 0
    busy_s: float = 0.0
    sending_s: float = 0.0  # handing packets on, which where a queue is full is waiting
    errors: int = 0


class WireCount(msgspec.Struct):
    """What a wire has carried; each end fills in what it knows."""

    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    lost: int = 0
    refused: int = 0


class Counts(Message):
    """How far the worker is, a few times a second; `done` once all its streams have ended."""

    blocks: dict[str, BlockCount]
    wires: dict[str, WireCount]
    done: bool
    queued: dict[str, int] = {}  # packets under way now, on wires that leave a block of this worker
    progress: dict[str, tuple[int, int]] = {}  # what blocks are at: step and steps
    cpu_s: float = 0.0  # of the worker's process, and the bytes that it holds in memory
    memory: int = 0
    passages: list[Passage] = []  # since the counts before


class Failed(Message):
    """A block, or the worker itself (`block` empty), cannot go on."""

    block: str
    message: str
    trace: str = ""


class Sampled(Message):
    """A piece of what an output carries, as the wire has it, without the run's token."""

    output: str
    header: bytes
    data: bytes


class Changed(Message):
    """A change holds from this item on, or the block refuses it: `fault` says why. Those of the log have number -1."""

    number: int
    change: ChangeSpec
    fault: str = ""


class Left(Message):
    """The worker has stopped all its blocks: its last word."""


class Wanted(Message):
    """A worker on another host asks for the file number `index` that a block's parameter names."""

    pattern: str
    index: int
    endings: list[str] = []


# From the supervisor


class Setup(Message):
    """The whole graph, which worker this is, where wires between processes of this host live, and if files are kept."""

    spec: GraphSpec
    worker: str
    token: str
    directory: str
    keeps: bool


class Connect(Message):
    """Where every wire listens."""

    endpoints: dict[str, str]


class Go(Message):
    """Everybody is ready: let it flow."""


class Sample(Message):
    """Send a piece of the next packet of each of these outputs; what others there were are tapped no more."""

    outputs: list[str]


class Change(Message):
    """Change a block's parameter before its next packet."""

    number: int
    change: ChangeSpec


class Stop(Message):
    """The run is over: stop all blocks and leave."""


class Refused(Message):
    """This worker is not wanted here: why."""

    reason: str


class Hail(Message):
    """Is the worker still there? ZeroMQ itself says if not."""


class Content(Message):
    """The answer to `Wanted`: content, or why there is none; an empty name says that there are no more files."""

    name: str
    data: bytes = b""
    error: str = ""


FromWorker = (
    Hello | Bound | Starting | Ready | Figures | File | Warned | Counts | Failed | Sampled | Changed | Left | Wanted
)
FromSupervisor = Setup | Connect | Go | Sample | Change | Stop | Refused | Hail | Content


encode = encode_plain
from_worker = decoder(FromWorker)
from_supervisor = decoder(FromSupervisor)


def matching_files(pattern: str, endings: Collection[str] = ()) -> list[Path]:
    """Return the file that `pattern` names, the files of the folder, or those of the glob, sorted: 2.png before 10.png.

    Hidden files are left out, as by the shell. Of a folder or a glob only files with one of the `endings`, where any
    are given.
    """
    path = Path(pattern).expanduser()
    if path.is_file():
        return [path]
    found = path.glob("[!.]*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))
    wanted = (each for each in found if (not endings or each.suffix.lower() in endings) and each.is_file())
    return sorted(wanted, key=_by_numbers)


def _by_numbers(path: Path) -> list[list[str | int]]:
    """Return what sorts paths by the numbers in their names, whatever their number of digits."""
    return [[int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)] for name in path.parts]


def read_file(path: Path) -> Content:
    """Return a file's name and content, or why it cannot be read."""
    name = path.name.encode(errors="replace").decode()  # a name may hold anything
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return Content(name, error=f"it has more than the {MAX_FILE_BYTES >> 20} MiB allowed")
        return Content(name, path.read_bytes())
    except OSError as error:
        return Content(name, error=error.strerror or str(error))
