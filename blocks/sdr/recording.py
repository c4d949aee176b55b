"""SigMF recordings as files: `Writer` makes one piece by piece, `Reader` reads anybody's.

A recording is NAME.sigmf-data, items one behind the other, and NAME.sigmf-meta, JSON (https://sigmf.org, version 1.2).
What SigMF has no words for stands in the extension `semflow`; `docs/recordings.md` lists it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

META, DATA = ".sigmf-meta", ".sigmf-data"
START, COUNT, LABEL = "core:sample_start", "core:sample_count", "core:label"
EXTENSION = {"name": "semflow", "version": version("semflow"), "optional": True}


class RecordingError(Exception):
    """What is wrong with a recording, in one sentence."""


def specification() -> str:
    """Return the version of SigMF that is written. Raises `RecordingError` where its package is missing."""
    try:
        from sigmf import __specification__
    except ImportError:
        raise RecordingError("recordings need SigMF: pip install 'semflow[recordings]'") from None
    return __specification__


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"must be plain data, not {type(value).__name__}")


_json = msgspec.json.Encoder(enc_hook=_plain).encode  # NaN and infinity become null


class Writer:
    """A recording that is being written, which is valid SigMF at every moment, and says that it is not complete.

    Annotations stand first in the metadata, and behind them a tail that is written anew when more come: nothing of them
    is held. Raises `OSError` for what cannot be written; what was written before is left sound.
    """

    def __init__(self, path: Path, datatype: str, item_bytes: int, about: dict[str, Any], overwrite: bool = False):
        self.item_bytes = item_bytes
        self.items = 0
        self.captures: list[dict[str, Any]] = []
        self.about = {
            "core:datatype": datatype,
            "core:version": specification(),
            "core:recorder": f"semflow {version('semflow')}",
            "core:extensions": [EXTENSION],
            **about,
            "semflow:complete": False,
        }
        self.hash = hashlib.sha512()
        mode = "wb" if overwrite else "xb"
        self.data = open(f"{path}{DATA}", mode, buffering=0)  # noqa: SIM115
        try:
            self.meta = open(f"{path}{META}", mode, buffering=0)  # noqa: SIM115
            _write(self.meta, b'{"annotations": [')
        except OSError:
            self.data.close()
            raise
        self.tail, self.place, self.annotated = b"", self.meta.tell(), False

    def capture(self, place: int, facts: dict[str, Any]) -> None:
        """Begin a capture at an item not before the last one's, or add to that; written with the next annotations."""
        if not self.captures or self.captures[-1][START] < place:
            self.captures.append({START: place})
        self.captures[-1] |= facts

    def write(self, data: np.ndarray) -> None:
        """Append items."""
        octets = np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
        try:
            _write(self.data, octets)
        except OSError:
            with contextlib.suppress(OSError):
                self.data.truncate(self.items * self.item_bytes)
            raise
        self.hash.update(octets)
        self.items += len(data)

    def annotate(self, annotations: Iterable[dict[str, Any]]) -> None:
        """Append annotations, which begin no earlier than those before."""
        entries = [_json(each) for each in annotations]
        text = b",\n".join(entries)
        lead = b",\n" if self.annotated and entries else b""
        captures = [each for each in self.captures if each[START] <= self.items]
        tail = b'],\n"captures": ' + _json(captures) + b',\n"global": ' + _json(self.about) + b"}\n"
        try:
            self.meta.seek(self.place)
            _write(self.meta, lead + text + tail)
        except OSError:
            with contextlib.suppress(OSError):  # over what it overwrote, which needs no room
                self.meta.seek(self.place)
                _write(self.meta, self.tail)
                self.meta.truncate()
            raise
        self.meta.truncate()
        self.tail, self.place = tail, self.place + len(lead + text)
        self.annotated |= bool(entries)

    def close(self, complete: bool, **facts: Any) -> None:
        """Close the files, the metadata with further facts; only a complete recording gets its checksum."""
        self.about |= {"semflow:complete": complete, **facts}
        if complete:
            self.about["core:sha512"] = self.hash.hexdigest()
        try:
            self.annotate([])
        finally:
            self.data.close()
            self.meta.close()


def _write(file: Any, octets: bytes | memoryview) -> None:
    """Write all of it: an unbuffered file may take a part."""
    rest = memoryview(octets)
    while rest:
        rest = rest[file.write(rest) :]


class Segment(NamedTuple):
    """A capture: its items from `start` to `stop`, its first byte in the file, and what the metadata say."""

    start: int
    stop: int
    byte: int
    facts: dict[str, Any]


class Reader:
    """A recording, opened. Raises `RecordingError` for one that cannot be read, is damaged or was cut.

    about      what the metadata say of all of it
    component  type of the numbers in the file, by twos where `is_complex`
    channels   numbers (or pairs) of an item
    items      how many there are, counted from 0
    """

    def __init__(self, path: Path, checksum: bool = True):
        specification()
        self.name = path.name
        recording = self._opened(path)
        self.about: dict[str, Any] = recording.get_global_info()
        self.annotations: list[dict[str, Any]] = recording.get_annotations()
        from sigmf.sigmffile import dtype_info

        info = dtype_info(self.about["core:datatype"])
        self.component, self.is_complex = info["component_dtype"], info["is_complex"]
        self.channels = self.about["core:num_channels"]
        self.origin: int = self.about.get("core:offset", 0)
        self.item_bytes = info["sample_size"] * self.channels
        self.complete = self.about.get("semflow:complete", True)
        self.file = recording.data_file
        begin, end = 0, os.path.getsize(self.file)
        if recording.data_size_bytes is not None:  # within an archive
            begin, end = recording.data_offset, recording.data_offset + recording.data_size_bytes
        if checksum and (told := self.about.get("core:sha512")) and told != self._sha512(begin, end):
            raise self._wrong(
                "its data are not those of its SHA-512: it is damaged or was cut (or say checksum: false)"
            )
        self.segments = self._segments(recording.get_captures(), begin, end - self.about.get("core:trailing_bytes", 0))
        self.items = self.segments[-1].stop
        reached = max((each[START] + each.get(COUNT, 0) for each in self.annotations), default=0) - self.origin
        if self.complete and reached > self.items:
            raise self._wrong(
                f"its data end at sample {self.items}, before what it tells of sample {reached}: it was cut"
            )

    def _opened(self, path: Path) -> Any:
        import sigmf
        from jsonschema import ValidationError
        from sigmf.error import SigMFError

        if not path.name.endswith((META, ".sigmf")):
            raise self._wrong("must be a .sigmf-meta file, or a .sigmf archive that is not compressed")
        try:
            with warnings.catch_warnings(action="ignore"):
                recording = sigmf.fromfile(path, skip_checksum=True, autoscale=False)
                recording.validate()
        except ValidationError as error:
            where = "/".join(map(str, error.absolute_path)) or "its metadata"
            raise self._wrong(f"no valid SigMF: {where}: {error.message[:200]}") from None
        except (OSError, SigMFError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise self._wrong(f"no SigMF that can be read: {why.splitlines()[0][:200]}") from None
        except Exception as error:  # of the archive's format
            raise self._wrong(f"no archive that can be read: {error}") from None
        if recording.data_file is None:
            raise self._wrong(f"must have its data beside it, in {path.with_suffix(DATA).name}")
        if recording.data_file.resolve().parent != path.resolve().parent:
            raise self._wrong(f"must have its data in its own folder, not in {recording.data_file}")
        return recording

    def _segments(self, captures: list[dict[str, Any]], begin: int, end: int) -> list[Segment]:
        segments: list[Segment] = []
        captures = captures or [{}]
        at, byte = 0, begin
        for i, facts in enumerate(captures):
            byte += facts.get("core:header_bytes", 0)
            stop = captures[i + 1][START] - self.origin if i + 1 < len(captures) else None
            left, odd = divmod(max(end - byte, 0), self.item_bytes)
            count = left if stop is None else stop - at
            if self.complete and (count > left or (stop is None and odd)):
                raise self._wrong("its data end within a sample or before a capture begins: it was cut")
            count = min(count, left)
            segments.append(Segment(at, at + count, byte, facts))
            at, byte = at + count, byte + count * self.item_bytes
        return segments

    def _sha512(self, begin: int, end: int) -> str:
        from sigmf.hashing import calculate_sha512

        return calculate_sha512(self.file, offset=begin, size=end - begin)

    def _wrong(self, what: str) -> RecordingError:
        return RecordingError(f"{self.name}: {what}")

    def read(self, start: int, count: int) -> np.ndarray:
        """Return the numbers of items from a place on: [count, channels], complex ones [count, channels, 2]."""
        shape = (self.channels, 2) if self.is_complex else (self.channels,)
        parts = []
        with open(self.file, "rb") as file:
            for segment in self.segments:
                first, last = max(start, segment.start), min(start + count, segment.stop)
                if first < last:
                    file.seek(segment.byte + (first - segment.start) * self.item_bytes)
                    numbers = np.fromfile(
                        file, self.component, (last - first) * self.item_bytes // self.component.itemsize
                    )
                    parts.append(numbers.reshape(-1, *shape))
        made = parts[0] if len(parts) == 1 else np.concatenate(parts or [np.empty((0, *shape), self.component)])
        if len(made) != count:
            raise self._wrong("its data became shorter while they were read")
        return made
