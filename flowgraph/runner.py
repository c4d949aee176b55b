"""Runs one block on packets, without threads or sockets: alignment, whole frames, pairing by frame, end of stream.

The worker drives a `Runner` from wires; the test jig drives it from lists. What a block sees is the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from fractions import Fraction

import numpy as np

from flowgraph.block import ERASED, Block, BlockError, Made, Output, Packet, Tag
from flowgraph.changes import Changes

Emit = Callable[[str, Packet], None]


def join(pieces: list[Packet]) -> Packet:
    """Return consecutive packets of one frame as one; what is missing between them is zero and tagged `erased`."""
    first = pieces[0]
    if len(pieces) == 1 and first.offset == 0:
        return first
    tags = [tag for piece in pieces for tag in piece.tags]
    expected, contiguous = 0, True
    for piece in pieces:
        if piece.offset != expected:
            contiguous = False
            tags.append(Tag(expected, ERASED, piece.offset - expected))
        expected = piece.end
    tags.sort(key=lambda tag: tag.offset)
    count = expected
    if contiguous and (not first.packed or all(piece.offset % 8 == 0 for piece in pieces)):
        data = np.concatenate([piece.data for piece in pieces])
    elif first.packed:
        bits = np.zeros(count, np.uint8)
        for piece in pieces:
            bits[piece.offset : piece.end] = np.unpackbits(piece.data, count=piece.count)
        data = np.packbits(bits)
    else:
        data = np.zeros((count, *first.data.shape[1:]), first.data.dtype)
        for piece in pieces:
            data[piece.offset : piece.end] = piece.data
    frame = Packet(data, first.frame, 0, count, first.packed, tuple(tags), pieces[-1].last)
    return frame.with_erased(frame.erased())


def _no_packet(output: object) -> str:
    kind = type(output).__name__
    return f"must hand out packets, not {kind}: `packet.derive(array)` makes one like the packet that came"


def split(packet: Packet, at: int) -> tuple[Packet, Packet]:
    """Return the first `at` items of a packet, and the rest; views where the cut allows it."""
    cut = packet.offset + at
    head_tags = tuple(_until(tag, cut) for tag in packet.tags if tag.offset < cut)
    tail_tags = tuple(_since(tag, cut) for tag in packet.tags if tag.offset >= cut or _reaches(tag, cut))
    if not packet.packed:
        head, tail = packet.data[:at], packet.data[at:]
    elif at % 8 == 0:
        head, tail = packet.data[: at // 8], packet.data[at // 8 :]
    else:
        bits = np.unpackbits(packet.data, count=packet.count)
        head, tail = np.packbits(bits[:at]), np.packbits(bits[at:])
    return (
        replace(packet, data=head, count=at, tags=head_tags, last=False),
        replace(packet, data=tail, offset=cut, count=packet.count - at, tags=tail_tags),
    )


def _reaches(tag: Tag, cut: int) -> bool:
    """Tell whether a tag speaks of items on both sides of a cut: of a stretch that is missing."""
    return tag.key == ERASED and tag.offset < cut < tag.offset + tag.value


def _until(tag: Tag, cut: int) -> Tag:
    return Tag(tag.offset, ERASED, cut - tag.offset) if _reaches(tag, cut) else tag


def _since(tag: Tag, cut: int) -> Tag:
    return Tag(cut, ERASED, tag.offset + tag.value - cut) if _reaches(tag, cut) else tag


def _truncated(packet: Packet) -> Packet:
    """Return the last packet that came of a frame whose end did not."""
    return replace(packet, last=True, tags=(*packet.tags, Tag(packet.end, "truncated", True)))


class _Aligned:
    """Hands packets on that begin and end on multiples of `align` items of the frame, its end excepted.

    Around a loss, the items that share a multiple with lost ones are lost too. With `octets` it is about bits alone.
    """

    def __init__(self, align: int, octets: bool = False):
        self.align, self.octets = align, octets
        self.rest: Packet | None = None

    def of(self, packet: Packet) -> int:
        """Return how many items a packet's must be a multiple of."""
        return 1 if self.octets and not packet.packed else self.align

    def push(self, packet: Packet) -> Iterator[Packet]:
        rest, self.rest = self.rest, None
        if rest is not None and (rest.frame, rest.end) == (packet.frame, packet.offset):
            packet = self._merge(rest, packet)
        elif packet.offset % self.of(packet):
            _, packet = split(packet, min(-packet.offset % self.align, packet.count))
            if not packet.count and not packet.last:
                return
        odd = 0 if packet.last else packet.end % self.of(packet)
        if odd:
            packet, self.rest = split(packet, max(packet.count - odd, 0))
        if packet.count or packet.last:
            yield packet

    def end(self) -> Iterator[Packet]:
        """A stream that ends within a multiple ends that frame."""
        rest, self.rest = self.rest, None
        if rest is not None:
            yield _truncated(rest)

    @staticmethod
    def _merge(a: Packet, b: Packet) -> Packet:
        if a.packed and a.count % 8:
            bits = [np.unpackbits(p.data, count=p.count) for p in (a, b)]
            data = np.packbits(np.concatenate(bits))
        else:
            data = np.concatenate([a.data, b.data])
        return Packet(data, a.frame, a.offset, a.count + b.count, a.packed, a.tags + b.tags, b.last)


class _Whole:
    """Collects the packets of a frame and hands on whole frames, in order."""

    def __init__(self, memory: int) -> None:
        self.memory = memory
        self.pieces: list[Packet] = []
        self.ready: deque[Packet] = deque()
        self.passed = -1  # frames up to this one will not change any more
        self.bytes = 0

    def push(self, packet: Packet) -> None:
        if self.pieces and packet.frame != self.pieces[0].frame:
            self._close()
        self.pieces.append(packet)
        self.bytes += packet.data.nbytes
        if packet.last:
            self._close()
        else:
            self.passed = max(self.passed, packet.frame - 1)

    def _close(self) -> None:
        came = sum(piece.data.nbytes for piece in self.pieces)
        self._bound(self.pieces[-1])
        frame = join(self.pieces)
        self.bytes += frame.data.nbytes - came
        if not self.pieces[-1].last:
            frame = _truncated(frame)
        self.pieces = []
        self.passed = frame.frame
        self.ready.append(frame)

    def _bound(self, last: Packet) -> None:
        """Refuse a frame that the items missing in it, of which only their number has come, would make too large."""
        size = last.end * (1 if last.packed else last.data.itemsize * math.prod(last.data.shape[1:]))
        if size > self.memory and last.end > sum(piece.count for piece in self.pieces):
            raise BlockError(
                f"frame {last.frame} has {size >> 20} MiB with what is missing in it, more than the "
                f"{self.memory >> 20} MiB allowed: raise this block's `memory`"
            )

    def end(self) -> None:
        if self.pieces:
            self._close()
        self.passed = 1 << 62

    def take(self, frame: int) -> Packet | None:
        """Return the frame, or None if it never came."""
        while self.ready and self.ready[0].frame < frame:
            self.bytes -= self.ready.popleft().data.nbytes
        if self.ready and self.ready[0].frame == frame:
            packet = self.ready.popleft()
            self.bytes -= packet.data.nbytes
            return packet
        return None


class Runner:
    """Feeds one block and passes on what it makes.

    `emit(port, packet)` is called for every packet that the block hands out. `connected` names the block's inputs that
    are in use; `delays` tells of the late ones by how many frames. With a frame that the block works on it then gets,
    from a late input, the one that it worked on so many frames before, and None with the first ones. The stream ends
    with the other inputs. Raises `BlockError` when frames waiting for their partners exceed `memory` bytes, and when
    the block hands out what its ports do not declare.
    """

    def __init__(
        self,
        block: Block,
        emit: Emit,
        connected: set[str] | None = None,
        memory: int = 1 << 30,
        delays: dict[str, int] | None = None,
        changes: Changes | None = None,
    ):
        self.block, self.emit, self.memory = block, emit, memory
        self.changes = changes or Changes(block)
        self.place = (0, 0)  # frame, and item of it, up to which the block has worked; a source, what it has made
        ports = {port.name: port for port in block.inputs}
        self.connected = [name for name in ports if connected is None or name in connected]
        self.open = set(self.connected)
        self.ended = False
        self.outputs = {port.name: port for port in block.outputs}
        self.allowed = {port.name: set(port.dtypes) for port in block.outputs}
        self.accepted = {port.name: set(port.dtypes) for port in block.inputs}
        self.pairing = len(self.connected) > 1
        self.collected = {n: _Whole(memory) for n in self.connected if self.pairing or ports[n].whole}
        self.late = {name: self.collected[name] for name in delays or {}}
        self.whole = {name: each for name, each in self.collected.items() if name not in self.late}
        # Of a late input, the numbers of the frames whose turn comes next; -1 where there is none
        self.due = {name: deque([-1] * delay) for name, delay in (delays or {}).items()}
        self.aligned = {
            n: _Aligned(block.align(ports[n]), ports[n].octets)
            for n in self.connected
            if n not in self.collected and block.align(ports[n]) > 1
        }
        # A stream in and a stream out: what comes in must come out again as the block's ratio says, but for a rest
        ratio = block.ratio(block.params) if callable(block.ratio) else block.ratio
        straight = len(self.connected) == len(self.outputs) == 1
        self.ratio = Fraction(ratio) if straight and ratio is not None else Fraction(0)
        self.rest = max([1, *(math.floor(self.ratio * block.align(ports[name])) for name in self.connected)])
        self.promised: deque[Future[Made]] = deque()  # what other threads still make, oldest first
        self.came: dict[int, int] = {}  # of frames whose end has come in and not gone out, the items

    def feed(self, name: str, packet: Packet) -> bool:
        """Give the input `name` a packet; return True where that ends the block, as `end` does."""
        if packet.dtype not in self.accepted[name]:
            wanted = " or ".join(sorted(self.accepted[name]))
            raise BlockError(f"input {name} must be {wanted}, not {packet.dtype}")
        if whole := self.collected.get(name):
            if not self.ended:
                whole.push(packet)
                self._release()
        elif name in self.aligned:
            for piece in self.aligned[name].push(packet):
                self._work_on(name, piece)
        else:
            self._work_on(name, packet)
        return name in self.late and self._finish()

    def end(self, name: str) -> bool:
        """End the input `name`; return True once all inputs but late ones have ended and the block has been flushed."""
        self.open.discard(name)
        if whole := self.collected.get(name):
            whole.end()
            self._release()
        elif name in self.aligned:
            for piece in self.aligned[name].end():
                self._work_on(name, piece)
        return self._finish()

    def _finish(self) -> bool:
        if self.ended or self.open - self.late.keys() or any(each.ready for each in self.whole.values()):
            return False
        self.ended = True  # what is late and has not come is not waited for
        self.change()
        self._hand_out(self.block.flush())
        self.keep_promises()
        for frame, count in self.came.items():
            raise BlockError(
                f"must hand out all that work() makes, and has handed out no end of frame {frame}, in which "
                f"{count:,} items came"
            )
        return True

    def produce(self) -> Iterator[None]:
        """Run a source; yields after every step, so that the caller can stop it."""
        self.change()
        for output in self.block.produce():
            self._hand_out(output)
            yield
            self.change()
        self._hand_out(self.block.flush())
        self.keep_promises()

    def change(self) -> None:
        """Make the changes that are due before the next packet, whether one has come or not."""
        if self.changes.waiting:
            self._take_changes(*self.place)

    def keep_promises(self, left: int = 0) -> None:
        """Hand out what other threads have made, waiting for it until no more than `left` are still under way."""
        while len(self.promised) > left:
            self._pass_on(self.promised.popleft().result())

    def held(self, name: str) -> int:
        """Return the bytes of an input's frames that wait for their partners."""
        return self.collected[name].bytes

    def behind(self, name: str) -> list[str]:
        """Return the inputs that the frames of `name` wait for."""
        if name in self.late:
            return [] if name in self.lacks_late() else list(self.open & self.whole.keys())
        return [n for n in self.open & self.whole.keys() if self.whole[n].passed < self.whole[name].passed]

    def lacks_late(self) -> list[str]:
        """Return the late inputs from which the next frame lacks something."""
        return [name for name, each in self.late.items() if each.passed < self.due[name][0]]

    def _work_on(self, name: str, packet: Packet) -> None:
        """Work on a packet of the only input; where a logged change holds from within, on what is before it first."""
        while self.changes.waiting:
            self._take_changes(packet.frame, packet.offset)
            at = self.changes.next_within(packet.frame, packet.offset, packet.end)
            align = self.aligned[name].of(packet) if name in self.aligned else 1
            cut = 0 if at is None else -(-(at - packet.offset) // align) * align
            if not 0 < cut < packet.count:
                break
            head, packet = split(packet, cut)
            self._hand_out(self.block.work(**{name: head}))
        self.place = packet.frame, packet.end
        self._expect(packet)
        self._hand_out(self.block.work(**{name: packet}))

    def _take_changes(self, frame: int, item: int) -> None:
        self.keep_promises()  # made with the parameters as they were
        self.changes.take_place(frame, item)

    def _release(self) -> None:
        """Work on every frame that no input can add to any more, in order."""
        while True:
            waiting = [w.ready[0].frame for w in self.whole.values() if w.ready]
            if not waiting:
                break
            frame = min(waiting)
            if any(w.passed < frame for w in self.whole.values()) or self.lacks_late():
                break
            packets = {name: w.take(frame) for name, w in self.whole.items()}
            if self.changes.waiting:
                self._take_changes(frame, 0)
            self.place = frame, max(packet.end for packet in packets.values() if packet is not None)
            if len(packets) == 1:
                self._expect(packets[next(iter(packets))])
            for name, w in self.late.items():
                packets[name] = w.take(self.due[name].popleft())
                self.due[name].append(frame)
            self._hand_out(self.block.work(**packets))
        held = sum(w.bytes for w in self.collected.values())
        if held > self.memory:
            last = min(self.lacks_late() or self.whole, key=lambda name: self.collected[name].passed)
            raise BlockError(
                f"{held >> 20} MiB of frames wait for input {last}, more than the {self.memory >> 20} MiB allowed: "
                f"raise this block's `memory`, or shorten the way to {last}"
            )

    def _expect(self, packet: Packet | None) -> None:
        """Remember how many items a frame has that must come out again as the block's ratio says."""
        if self.ratio and packet is not None and packet.last:
            self.came[packet.frame] = packet.end

    def _hand_out(self, output: Output | Iterator[Output]) -> None:
        if isinstance(output, Future):
            self.promised.append(output)
            self.keep_promises(self.block.context.ahead)
        elif output is not None:
            self.keep_promises()
            self._pass_on(output)

    def _pass_on(self, output: Made | Iterator[Output]) -> None:
        if output is None:
            return
        if isinstance(output, Packet):
            if len(self.outputs) != 1:
                raise BlockError(
                    f"must hand out a dict by output ({', '.join(self.outputs) or 'none'}), not a bare packet"
                )
            self._check_and_emit(next(iter(self.outputs)), output)
        elif isinstance(output, dict):
            for name, packet in output.items():
                self._check_and_emit(name, packet)
        elif isinstance(output, Iterator | list | tuple):
            for each in output:
                self._hand_out(each)
        else:
            raise BlockError(_no_packet(output))

    def _check_and_emit(self, name: str, packet: Packet) -> None:
        allowed = self.allowed.get(name)
        if allowed is None:
            raise BlockError(f"hands out {name!r}, which is none of its outputs: {', '.join(self.outputs) or 'none'}")
        if not isinstance(packet, Packet):
            raise BlockError(_no_packet(packet))
        if packet.dtype not in allowed:
            raise BlockError(f"output {name} must be {' or '.join(sorted(allowed))}, not {packet.dtype}")
        data = packet.data
        if len(data) != (-(-packet.count // 8) if packet.packed else packet.count) or packet.offset < 0:
            raise BlockError(f"output {name} says {packet.count} items from {packet.offset} on, and has {data.shape}")
        if not (data.flags.c_contiguous and data.dtype.isnative):
            packet.data = np.ascontiguousarray(data, data.dtype.newbyteorder("="))
        packet.data.flags.writeable = False  # others may read the same memory
        if packet.last and self.came:
            came = self.came.pop(packet.frame, 0)
            if (packet.end + self.rest) * self.ratio.denominator < came * self.ratio.numerator:
                raise BlockError(
                    f"must hand out {self.ratio} items for each that comes, as its ratio says, and has made "
                    f"{packet.end:,} of the {came:,} of frame {packet.frame}"
                )
        if not self.connected:
            self.place = packet.frame, packet.end
        self.emit(name, packet)
