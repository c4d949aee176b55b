"""`recording_sink` and `recording_source`: a wire to a SigMF recording, and any SigMF recording as a stream.

`docs/recordings.md` tells how frames, tags and bits are written down.
"""

from __future__ import annotations

import errno
import glob
import itertools
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeGuard

import numpy as np
from pydantic import Field

from blocks.sdr.gnuradio import PAD, as_bytes
from blocks.sdr.recording import COUNT, LABEL, META, START, Reader, RecordingError, Writer, specification
from flowgraph.block import BITS, Block, BlockError, Packet, Port, Tag
from flowgraph.block import Params as BlockParams
from flowgraph.units import Bytes, Hertz

Item = Literal[
    "bits", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64", "complex64", "complex128"
]
ITEMS = Item.__args__  # type: ignore[attr-defined]
FRAME, OFFSET, TAG, VALUE = "semflow:frame", "semflow:offset", "semflow:tag", "semflow:value"  # of annotations
PART, SHAPE = "semflow:part", "semflow:shape"
RATE, FREQUENCY = "sample_rate", "center_frequency"  # tags
_INTEGERS: dict[str, tuple[str, type[np.integer]]] = {
    "ci16": ("ci16_le", np.int16),
    "ci8": ("ci8", np.int8),
    "cu8": ("cu8", np.uint8),
}
WAIT_S = 0.05  # longest that a source in real time does not look whether the run goes on


def _datatype(items: np.dtype) -> str:
    """Return SigMF's name of a type: `cf32_le`."""
    kind = f"c{items.itemsize * 4}".replace("c", "cf") if items.kind == "c" else f"r{items.kind}{items.itemsize * 8}"
    return kind if items.itemsize == 1 else f"{kind}_le"


class RecordingSink(Block):
    """Record a wire as SigMF: `path`.sigmf-data and `path`.sigmf-meta, written while the run goes on.

    Frames and tags become annotations; graph, seed and what the parameters tell stand in the metadata. At every moment
    the files are a sound recording, marked `"semflow:complete": false` until the stream has ended: so is one that was
    cut. A disk that is full ends the recording, with a warning, and not the run.

    With `datatype`, complex items x become pairs of integers, round(2^(b-1) x / full_scale) of b bits; what is beyond
    is the greatest there is, and counted in the report as `clipped`. Raises `BlockError` for files that are there.
    """

    class Params(BlockParams):
        path: str = Field(description="file to write, without its ending", json_schema_extra={"path": "any"})
        datatype: Literal["same", "ci16", "ci8", "cu8"] = Field("same", description="of the file: items as they are")
        full_scale: float = Field(1.0, gt=0, description="amplitude that is the greatest integer's, with a datatype")
        sample_rate: Annotated[Hertz, Field(gt=0)] | None = Field(None, description="items a second")
        frequency: Hertz | None = Field(None, description="of the centre of the band")
        part: Annotated[Bytes, Field(gt=0)] | None = Field(
            None, description="begin another file, path-00002 after path-00001, before one gets larger"
        )
        description: str = Field("", description="words for the metadata")
        overwrite: bool = Field(False, description="replace a recording of that name")

    inputs = (Port("items", ITEMS, "what to record", shape=None, octets=True),)

    def start(self) -> None:
        path = Path(self.params.path)
        self.writer: Writer | None = None
        self.parts = self.items = self.clipped = 0
        self.expected: tuple[int, int] | None = None  # frame and offset of the next packet
        self.rate, self.frequency = self.params.sample_rate, self.params.frequency
        self.stopped = ""
        name = glob.escape(str(path))
        there = [*glob.glob(f"{name}.sigmf-*"), *glob.glob(f"{name}-[0-9]*.sigmf-*")]
        if there and not self.params.overwrite:
            raise BlockError(f"path must be of a new recording, or say overwrite: true: {there[0]} is there already")
        try:
            specification()
            path.parent.mkdir(parents=True, exist_ok=True)
            for each in there:
                os.unlink(each)
            if not os.access(path.parent, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        except RecordingError as error:
            raise BlockError(str(error)) from None
        except OSError as error:
            raise BlockError(f"cannot record to {path}: {error.strerror}") from None

    def work(self, items: Packet) -> None:
        if self.stopped:
            return
        packet = as_bytes(items) if items.packed else items
        try:
            self._record(packet, self._quantised(packet.data), items.dtype)
        except OSError as error:
            self.stopped = error.strerror or str(error)
            self._close(complete=False)
            self.warn(f"the recording ends after {self.items} items, the run goes on: {self.stopped}")

    def _quantised(self, x: np.ndarray) -> np.ndarray:
        """Return complex items as the pairs of integers that are asked for."""
        if self.params.datatype == "same":
            return x
        if x.dtype.kind != "c":
            raise BlockError(f"datatype must be same for items of {x.dtype}, not {self.params.datatype}")
        limits = np.iinfo(_INTEGERS[self.params.datatype][1])
        middle = (int(limits.min) + int(limits.max) + 1) // 2
        pairs = np.ascontiguousarray(x, np.complex64).view(np.float32)
        scaled = np.nan_to_num(np.rint(pairs * np.float32((limits.max - middle + 1) / self.params.full_scale)) + middle)
        self.clipped += int(np.count_nonzero((scaled < limits.min) | (scaled > limits.max)))
        return np.clip(scaled, limits.min, limits.max).astype(limits.dtype).reshape(len(x), -1)

    def _record(self, packet: Packet, data: np.ndarray, kind: str) -> None:
        """Append a packet: its items, cut where a part is full, and its tags to those that they are about."""
        item_bytes = data.itemsize * int(np.prod(data.shape[1:]))
        most = max(1, (self.params.part or 1 << 62) // max(1, item_bytes))
        tags = deque(sorted(packet.tags, key=lambda tag: tag.offset))
        at, stop = 0, -1
        while stop < len(data):
            if self.writer is None or (self.writer.items >= most and len(data)):
                self._close(complete=True)
                self.writer = self._opened(data, packet.data.shape[1:], kind, item_bytes)
                self.expected = None
            writer = self.writer
            if writer.item_bytes != item_bytes:
                raise BlockError(f"items must all have one shape, not {data.shape[1:]} after others")
            stop = min(len(data), at + max(most - writer.items, 0))
            notes: list[dict[str, Any]] = []
            if (packet.frame, packet.offset + at) != self.expected:
                frame = {START: writer.items, LABEL: f"frame {packet.frame}", FRAME: packet.frame}
                notes.append(frame | {OFFSET: packet.offset + at} if packet.offset + at else frame)
            facts = len(writer.captures), self.rate, self.frequency
            while tags and (stop == len(data) or tags[0].offset < packet.offset + stop):
                tag = tags.popleft()
                notes += self._note(
                    tag, writer.items + min(max(tag.offset - packet.offset, at), max(stop - 1, at)) - at
                )
            writer.write(data[at:stop])
            self.items += stop - at
            if notes or (len(writer.captures), self.rate, self.frequency) != facts:
                writer.annotate(notes)
            self.expected = packet.frame, packet.offset + stop
            at = stop
        if packet.last:
            self.expected = None

    def _note(self, tag: Tag, place: int) -> list[dict[str, Any]]:
        """Return a tag as an annotation, but for those that SigMF has other places for."""
        assert self.writer is not None
        if tag.key == FREQUENCY and isinstance(tag.value, int | float):
            self.frequency = tag.value
            self.writer.capture(place, {"core:frequency": tag.value})
            return []
        if tag.key == RATE and self.rate is None and isinstance(tag.value, int | float):
            self.rate = self.writer.about["core:sample_rate"] = tag.value
        if (tag.key, tag.value) == (RATE, self.rate):
            return []
        count = tag.value.get("count") if isinstance(tag.value, dict) else None
        span = {COUNT: count} if type(count) is int and count >= 0 else {}
        return [{START: place, **span, LABEL: tag.key[:20], TAG: tag.key, VALUE: tag.value}]

    def _opened(self, data: np.ndarray, shape: tuple[int, ...], kind: str, item_bytes: int) -> Writer:
        p = self.params
        self.parts += 1
        about = {
            **({} if self.rate is None else {"core:sample_rate": self.rate}),
            **({"core:description": p.description} if p.description else {}),
            **({"core:num_channels": int(np.prod(shape)), SHAPE: list(shape)} if shape else {}),
            **({"semflow:full_scale": p.full_scale} if p.datatype != "same" else {}),
            **({PART: self.parts} if p.part else {}),
            "semflow:item": kind,
            "semflow:seed": self.context.seed,
            "semflow:flowgraph": self.context.graph(),
        }
        datatype = _datatype(data.dtype) if p.datatype == "same" else _INTEGERS[p.datatype][0]
        path = Path(f"{p.path}-{self.parts:05d}" if p.part else p.path)
        writer = Writer(path, datatype, item_bytes, about, p.overwrite)
        writer.capture(0, {"core:datetime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
        if self.frequency is not None:
            writer.capture(0, {"core:frequency": self.frequency})
        return writer

    def flush(self) -> None:
        if not self.stopped:
            self._close(complete=True)
        if self.clipped:
            self.warn(f"{self.clipped} numbers were beyond full_scale, {self.params.full_scale:g}, and clipped")

    def _close(self, complete: bool) -> None:
        writer, self.writer = self.writer, None
        if writer:
            try:
                writer.close(complete, **({"semflow:cut": self.stopped} if self.stopped else {}))
            except OSError as error:  # what was written before says that it is not complete
                self.warn(f"the recording could not be ended: {error.strerror}")

    def stop(self) -> None:
        self._close(complete=False)
        figures = {"items": self.items, "parts": self.parts, "clipped": self.clipped, "cut": self.stopped or None}
        self.context.report("recordings", None, {self.name: {"path": self.params.path, **figures}})


class Piece(NamedTuple):
    """A stretch of a frame in a recording: which items, of which frame, from where on in it, and its tags."""

    reader: Reader
    start: int
    stop: int
    frame: int
    offset: int
    tags: list[Tag]


class RecordingSource(Block):
    """Play SigMF recordings: what `recording_sink` wrote, its frames and tags too, or any other's.

    Integers become numbers within -full_scale to full_scale where `item` is complex or a float; what is recorded as
    `item` comes as it is. Recordings of others are a frame each; their annotations are tags called by their labels,
    with the annotation as value. Where the metadata tell them, `sample_rate` and `center_frequency` (Hz) are tags.

    Several recordings (a glob), or `loops`, follow each other in order of name, with rising frames; parts of one are
    joined. Raises `BlockError` for one that is damaged, that was cut while it was copied, or whose numbers are others.
    One that says it was cut while it was recorded is played to where it came, with a warning.
    """

    class Params(BlockParams):
        path: str = Field(
            description=".sigmf-meta file (its data beside it), .sigmf archive, or a glob",
            json_schema_extra={"path": "any"},
        )
        item: Item = Field("complex64", description="type of the items")
        full_scale: Annotated[float, Field(gt=0)] | None = Field(
            None, description="amplitude of the greatest integer; the recording's word, or else 1"
        )
        loops: int = Field(1, ge=0, description="how often it is played; 0: until the run is stopped")
        items: int | None = Field(None, ge=1, description="the stream ends after so many items (bits: of 8)")
        real_time: bool = Field(False, description="items come at their sample rate, not as fast as they can")
        sample_rate: Annotated[Hertz, Field(gt=0)] | None = Field(None, description="in place of the recording's")
        packet: int = Field(1 << 16, ge=1, description="most items of a packet")
        checksum: bool = Field(True, description="compare the data with the metadata's SHA-512 before they are played")

    outputs = (Port("items", ITEMS, "what was recorded", shape=None, chosen=lambda p: p.item),)

    def start(self) -> None:
        p, self.played = self.params, 0
        readers = self._opened()
        for reader in readers:
            self._check(reader)
            if not reader.complete:
                self.warn(f"{reader.name} was cut while it was recorded: its {reader.items} items are played")
        self.rate: float | None = p.sample_rate or readers[0].about.get("core:sample_rate")
        if p.real_time and not self.rate:
            raise BlockError(f"must have a sample_rate with real_time: {readers[0].name} tells none")
        self.pieces: list[Piece] = []
        heard: dict[str, Any] = {}
        for reader in readers:
            self.pieces += _pieces(reader, p.sample_rate, heard)

    def _opened(self) -> list[Reader]:
        """Return the recordings by name; parts that are missing within are told of."""
        p = self.params
        paths = [p.path] if os.path.isfile(p.path) else sorted(glob.glob(p.path))
        paths = [path for path in paths if path.endswith((META, ".sigmf")) or path == p.path]
        if not paths:
            raise BlockError(f"path must be a .sigmf-meta file, a .sigmf archive or a glob of them, not {p.path}")
        try:
            readers = [Reader(Path(path), p.checksum) for path in paths]
        except RecordingError as error:
            raise BlockError(str(error)) from None
        for before, after in itertools.pairwise(readers):
            part, following = before.about.get(PART), after.about.get(PART)
            if part and following and following not in (part + 1, 1):
                raise BlockError(f"part {part + 1} must be there, between {before.name} and {after.name}")
        return readers

    def _check(self, reader: Reader) -> None:
        """Raise `BlockError` where a recording's numbers cannot be the items asked for."""
        item, kind = self.params.item, reader.component.kind
        if item == BITS:
            fits = not reader.is_complex and reader.component == np.uint8
        elif item.startswith("complex"):
            fits = reader.is_complex
        else:
            own = reader.component.newbyteorder("=") == np.dtype(item)
            fits = not reader.is_complex and (own or item.startswith("float"))
        if not fits:
            bits = 8 * reader.component.itemsize
            name = {"f": "float", "i": "int", "u": "uint"}[kind] + str(bits)
            wanted = "complex64" if reader.is_complex else name
            raise BlockError(f"item must be {wanted} for {reader.name}, of {reader.about['core:datatype']}, not {item}")
        if not reader.items:
            raise BlockError(f"{reader.name} holds no items")

    def produce(self) -> Iterator[Packet]:
        p, began = self.params, time.monotonic()
        for piece, is_last in self._numbered():
            at, ends = piece.start, False
            while not ends:
                left = piece.stop - at if p.items is None else min(piece.stop - at, p.items - self.played)
                count = min(p.packet, left)
                ends = count == left
                full = p.items is not None and self.played + count == p.items
                offset = piece.offset + at - piece.start
                packet = Packet(
                    self._items(piece.reader, at, count), piece.frame, offset, last=full or (ends and is_last)
                )
                packet.tags = tuple(t for t in piece.tags if offset <= t.offset and (ends or t.offset < packet.end))
                self.played += count
                if p.real_time and self.rate:
                    self._wait(began + self.played / self.rate)
                yield self._as_bits(packet, piece) if p.item == BITS else packet
                if full:
                    return
                at += count

    def _numbered(self) -> Iterator[tuple[Piece, bool]]:
        """Yield the pieces of all loops, their frames rising, and whether a frame ends with each."""
        shift, frame, reached = 0, -1, 0
        held: Piece | None = None
        for _ in range(self.params.loops) if self.params.loops else itertools.count():
            for piece in self.pieces:
                goes_on = piece.offset and piece.frame + shift == frame and piece.offset >= reached
                if piece.frame + shift <= frame and not goes_on:
                    shift = frame + 1 - piece.frame
                frame, reached = piece.frame + shift, piece.offset + piece.stop - piece.start
                if held is not None:
                    yield held, held.frame != frame
                held = piece._replace(frame=frame)
        if held is not None:
            yield held, True

    def _items(self, reader: Reader, start: int, count: int) -> np.ndarray:
        """Return items of a recording as the type that is asked for, integers scaled."""
        try:
            numbers = reader.read(start, count)
        except (RecordingError, OSError) as error:
            raise BlockError(f"{error}") from None
        item = np.dtype("uint8" if self.params.item == BITS else self.params.item)
        numbers = numbers.astype(numbers.dtype.newbyteorder("="), copy=False)
        real = np.dtype(f"f{item.itemsize // 2}") if item.kind == "c" else item
        if numbers.dtype.kind in "iu" and real.kind == "f":
            half = 1 << (8 * numbers.dtype.itemsize - 1)
            scale = (self.params.full_scale or reader.about.get("semflow:full_scale", 1.0)) / half
            middle = half if numbers.dtype.kind == "u" else 0
            exact = np.dtype("f8") if numbers.dtype.itemsize > 2 else real
            numbers = (numbers.astype(exact) - exact.type(middle)) * exact.type(scale)
        numbers = np.ascontiguousarray(numbers, real)
        shape = reader.about.get(SHAPE) or ([reader.channels] if reader.channels > 1 else [])
        return numbers.view(item).reshape(count, *shape)

    def _as_bits(self, packet: Packet, piece: Piece) -> Packet:
        """Return bytes as packed bits, at a frame's end without those that the tag `pad` tells of."""
        pads = [tag.value for tag in piece.tags if tag.key == PAD]
        pad = pads[-1] if packet.last and pads and pads[-1] in range(8) and packet.count else 0
        bits = packet.derive(packet.data, 8, 8 * packet.count - pad, packed=True)
        bits.tags = tuple(tag for tag in bits.tags if tag.key != PAD)
        return bits

    def _wait(self, until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            self.checkpoint()
            time.sleep(min(left, WAIT_S))

    def stop(self) -> None:
        self.context.report("recordings", None, {self.name: {"path": self.params.path, "items": self.played}})


def _pieces(reader: Reader, rate: float | None, heard: dict[str, Any]) -> Iterable[Piece]:
    """Return the stretches of frames in a recording; `heard` has the newest rate and frequency, by tag."""
    rate = rate or reader.about.get("core:sample_rate")
    starts: list[tuple[int, int, int]] = []  # item, frame, offset
    notes: list[list[tuple[int, str, Any]]] = []
    for each in sorted(reader.annotations, key=lambda each: each[START]):
        place = min(each[START] - reader.origin, reader.items)
        frame, offset = each.get(FRAME), each.get(OFFSET, 0)
        if _whole(frame) and _whole(offset) and (not starts or frame >= starts[-1][1]):
            starts.append((place, frame, offset))
            notes.append([])
            continue
        if not starts:
            starts.append((0, 0, 0))
            notes.append([])
        if TAG in each:
            notes[-1].append((place, str(each[TAG]), each.get(VALUE)))
        else:
            value = {key.removeprefix("core:"): fact for key, fact in each.items() if key not in (START, LABEL)}
            notes[-1].append((place, each.get(LABEL) or "annotation", value))
    if not starts or starts[0][0] > 0:
        starts.insert(0, (0, 0, 0))
        notes.insert(0, [])
    facts: list[tuple[int, str, Any]] = [(0, RATE, rate)]
    facts += [(segment.start, FREQUENCY, segment.facts.get("core:frequency")) for segment in reader.segments]
    for place, key, value in facts:
        if value is not None and heard.get(key) != value:
            heard[key] = value
            notes[max(i for i, start in enumerate(starts) if start[0] <= place)].append((place, key, value))
    stops = [start[0] for start in starts[1:]] + [reader.items]
    return [
        Piece(
            reader,
            start,
            stop,
            frame,
            offset,
            [Tag(offset + at - start, key, value) for at, key, value in sorted(tags, key=itemgetter(0))],
        )
        for (start, frame, offset), stop, tags in zip(starts, stops, notes, strict=True)
    ]


def _whole(value: Any) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 1 << 62
