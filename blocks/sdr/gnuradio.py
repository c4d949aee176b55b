"""To and from a GNU Radio flowgraph, over its own ZeroMQ blocks: streams, and messages.

`gnuradio_sink` and `gnuradio_source` speak to stream blocks. GNU Radio knows no frames: they travel as its tagged
streams, where `tags` and `length_tag` are set, and else a stream is cut into frames of so many items.
`gnuradio_message_sink` and `gnuradio_message_source` speak to message blocks: a frame is a PDU.

GNU Radio knows no end of a stream either: the parameters of what receives say what ends it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from blocks.sdr.peer import PeerLeft, PeerParams, Receiver, Sender
from blocks.sdr.pmt import Pair, PmtError, decode, encode, plain
from blocks.sdr.stream_header import HeaderError, StreamTag, begins_with_header, decode_header, encode_header
from flowgraph.block import BITS, NUMBERS, Block, BlockError, Packet, Port, Tag
from flowgraph.units import Seconds

Item = Literal[
    "bits", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32", "uint64", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip
MESSAGE_BYTES = 1 << 18  # GNU Radio cuts them up; larger messages are not faster
FRAME, PAD = "frame", "pad"  # tags: number of the frame; bits that fill up its last byte


class _Told:
    """Tells of what happened: once each, and at the end how often, where that was more."""

    def __init__(self, block: Block):
        self.block = block
        self.counts: dict[str, int] = {}

    def tell(self, sentence: str) -> None:
        self.counts[sentence] = self.counts.get(sentence, 0) + 1
        if self.counts[sentence] == 1:
            self.block.warn(sentence)

    def close(self) -> None:
        for sentence, count in self.counts.items():
            if count > 1:
                self.block.warn(f"{count} times: {sentence}")


class GnuradioSink(Block):
    """Send a stream to GNU Radio's ZMQ PULL, SUB or REQ Source, as its native items.

    Items are little-endian and nothing else is in a message, unless `tags` is set as `pass_tags` in GNU Radio: then all
    tags go along. `length_tag` makes frames tagged streams, each held until it is complete: its first item bears its
    number of items and, as `frame`, its own. Bits go as bytes of 8, most significant first; the bits that fill up a
    frame's last byte are told by the tag `pad`. Items that are missing go as 0.

    The sender waits while GNU Radio is away or busy, so that with push nothing is lost but what was under way to a
    flowgraph that was ended. With `returns: false` it does not wait for one that was ended, but warns, and leaves out
    what is still to be sent. As it binds, so do GNU Radio's own sinks.
    """

    class Params(PeerParams):
        socket: Literal["push", "pub", "rep"] = Field("push", description="counterpart of GNU Radio's PULL, SUB or REQ")
        bind: bool = Field(True, description="bind, or connect to a peer that does (GNU Radio 3.10.6 and newer)")
        tags: bool = Field(False, description="send tags: GNU Radio's block must have `pass_tags`")
        length_tag: str | None = Field(
            None, min_length=1, description="tag that tells a frame's items: packet_len for GNU Radio's own blocks"
        )
        tail: int = Field(0, ge=0, description="zeros behind the last item, to push it out of filters")
        end_tag: str | None = Field(None, min_length=1, description="tag of the first item of the tail")
        returns: bool = Field(True, description="wait for a peer that has left; else its leaving ends the stream")

        @model_validator(mode="after")
        def _tagged(self) -> GnuradioSink.Params:
            if (self.length_tag or self.end_tag) and not self.tags:
                raise ValueError("must have tags: true with length_tag or end_tag")
            if self.end_tag and not self.tail:
                raise ValueError("must have a tail of at least one item with end_tag")
            return self

    inputs = (Port("items", (BITS, *NUMBERS), "what to send", shape=None, octets=True),)

    def start(self) -> None:
        self.told = _Told(self)
        self.sender = Sender(self.params, self.checkpoint, final=not self.params.returns)
        self.sender.open()
        self.left = False  # whether the peer has, for good
        self.frame, self.reached = -1, 0  # how far the frame has been sent
        self.sent = 0
        self.held: list[Packet] = []  # of a frame whose length is not known yet
        self.silence: np.ndarray | None = None  # one item of the kind that is sent

    def work(self, items: Packet) -> None:
        if self.left:
            return
        packet = as_bytes(items) if items.packed else items
        if self.params.length_tag is None:
            self._send(packet)
            return
        if self.held and self.held[0].frame != packet.frame:
            self._send_frame()
        self.held.append(packet)
        if packet.last:
            self._send_frame()

    def flush(self) -> None:
        self._send_frame()
        if self.params.tail and self.silence is not None:
            end = self.params.end_tag
            self._put(np.repeat(self.silence, self.params.tail, 0), [StreamTag(0, end, True)] if end else [])
        self.sender.close(self.params.wait)

    def stop(self) -> None:
        self.sender.close()
        self.told.close()

    def _send_frame(self) -> None:
        held, self.held = self.held, []
        if held and held[-1].end:
            first = StreamTag(0, self.params.length_tag, held[-1].end), StreamTag(0, FRAME, held[0].frame)
            self._send(held[0], first)
            for packet in held[1:]:
                self._send(packet)

    def _send(self, packet: Packet, further: tuple[StreamTag, ...] = ()) -> None:
        if packet.frame != self.frame:
            self.frame, self.reached = packet.frame, 0
        gap = max(packet.offset - self.reached, 0)
        tags = [StreamTag(tag.offset - packet.offset + gap, tag.key, tag.value) for tag in packet.tags]
        items = np.ascontiguousarray(packet.data, packet.data.dtype.newbyteorder("<"))
        self.silence = np.zeros((1, *items.shape[1:]), items.dtype)
        if gap:
            items = np.concatenate([np.repeat(self.silence, gap, 0), items])
        self.reached = packet.end
        self._put(items, [*further, *tags])

    def _put(self, items: np.ndarray, tags: list[StreamTag]) -> None:
        """Send items with their tags, whose offsets count from the first of them."""
        at, step = 0, max(1, MESSAGE_BYTES // max(1, items[:1].nbytes))
        while at < len(items) and not self.left:
            try:
                stop = min(len(items), at + min(step, self.sender.room()))
            except PeerLeft:
                self.left = True
                self.warn(f"{self.params.endpoint} was left before all was sent; the rest is left out")
                return
            message = items[at:stop].tobytes()
            if self.params.tags:
                places = [(min(max(tag.offset, 0), len(items) - 1), tag) for tag in tags]
                due = [tag._replace(offset=self.sent + place - at) for place, tag in places if at <= place < stop]
                message = encode_header(self.sent, self._sound(due)) + message
            if self.sender.put(message):
                self.sent += stop - at
                at = stop

    def _sound(self, tags: list[StreamTag]) -> Iterator[StreamTag]:
        for tag in tags:
            try:
                encode_header(0, [tag])
                yield tag
            except PmtError as error:
                self.told.tell(f"the tag {tag.key} is left out: {error}")


def as_bytes(bits: Packet) -> Packet:
    """Return packed bits as bytes, with a tag that tells how many bits of a frame's last byte are none."""
    whole = bits.derive(bits.data, Fraction(1, 8))
    pad = -bits.count % 8
    return whole.tagged(**{PAD: pad}) if pad else whole


def _as_bits(packet: Packet) -> Packet:
    """Return bytes as packed bits, without those that the tag `pad` tells of."""
    pad = packet.tag(PAD, 0) if packet.last else 0
    pad = pad if _whole(pad) and pad < min(8, 8 * packet.count) else 0
    bits = packet.derive(packet.data, 8, 8 * packet.count - pad, packed=True)
    bits.tags = tuple(tag for tag in bits.tags if tag.key != PAD)
    return bits


class _Source(Block):
    """What comes from a peer: begun within `wait`, and ended by time or silence."""

    receiver: Receiver

    def arrivals(self) -> Iterator[memoryview]:
        """Yield messages as they come, until the stream ends. Raises `BlockError` if none ever does."""
        p = self.params
        began = last = time.monotonic()
        first: float | None = None
        while True:
            message = self.receiver.receive()
            now = time.monotonic()
            if message is not None:
                last, first = now, first or now
            elif first is None:
                if now > began + p.wait:
                    raise self.receiver.nobody_came()
            elif p.silence and now > last + p.silence:
                return
            if first is not None and p.duration and now > first + p.duration:
                return
            if message is not None:
                yield message

    def start(self) -> None:
        self.told = _Told(self)

    def stop(self) -> None:
        self.receiver.close()
        self.told.close()


class SourceParams(PeerParams):
    """Where a stream from GNU Radio comes from, and what ends it; without any such parameter it never ends."""

    socket: Literal["pull", "sub", "req"] = Field("pull", description="counterpart of GNU Radio's PUSH, PUB or REP")
    bind: bool = Field(False, description="bind, or connect to a peer that does, as GNU Radio's sinks do")
    duration: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="the stream ends so long after its first message"
    )
    silence: Annotated[Seconds, Field(gt=0)] | None = Field(
        None, description="the stream ends once nothing has come for so long"
    )
    end_tag: str | None = Field(None, min_length=1, description="the stream ends before the item with this tag")


class GnuradioSource(_Source):
    """Receive a stream from GNU Radio's ZMQ PUSH, PUB or REP Sink.

    With `tags`, as `pass_tags` in GNU Radio, its tags arrive at their items, and items that were lost under way are
    known and count as erased. Frames are of `frame` items (all in one by default), or with `length_tag` they are tagged
    streams: a frame begins at such a tag, whose value is its number of items, and bears the number in the tag `frame`
    of that item, or the next one; what is between frames is left out.

    A message that is not of whole items, or does not begin with the header for tags, is told of, and what is wrong in
    it left out. A peer may leave and return; its stream goes on.
    """

    class Params(SourceParams):
        item: Item = Field("complex64", description="type of the items; bits are bytes of 8 in GNU Radio")
        vlen: int = Field(1, ge=1, description="numbers of an item, as GNU Radio's vectors")
        tags: bool = Field(False, description="receive tags: GNU Radio's block must have `pass_tags`")
        length_tag: str | None = Field(None, min_length=1, description="tag that tells a frame's items: packet_len")
        frame: int | None = Field(None, ge=1, description="items of a frame, without length_tag")
        items: int | None = Field(None, ge=1, description="the stream ends after so many items")

        @model_validator(mode="after")
        def _tagged(self) -> GnuradioSource.Params:
            if (self.length_tag or self.end_tag) and not self.tags:
                raise ValueError("must have tags: true with length_tag or end_tag")
            if self.length_tag and self.frame:
                raise ValueError("must have only one of frame and length_tag")
            if self.item == BITS and self.vlen > 1:
                raise ValueError("must have a vlen of 1 with bits")
            return self

    outputs = (Port("items", (BITS, *NUMBERS), "what came", shape=None, chosen=lambda p: p.item),)

    def start(self) -> None:
        super().start()
        p = self.params
        dtype = np.dtype("uint8" if p.item == BITS else p.item).newbyteorder("<")
        self.dtype = np.dtype((dtype, (p.vlen,))) if p.vlen > 1 else dtype
        self.receiver = Receiver(p, self.checkpoint, max(1, MESSAGE_BYTES // self.dtype.itemsize))
        self.receiver.open()
        self.reached = 0  # items of the stream so far, the lost ones too
        self.shift: int | None = None  # what to add to the peer's offsets

    def produce(self) -> Iterator[Packet]:
        p = self.params
        cutter = _Cutter(p.length_tag, p.frame)
        for message in self.arrivals():
            place, items, tags = self._read(message)
            end = min([tag.offset for tag in tags if tag.key == p.end_tag], default=None) if p.end_tag else None
            if p.items is not None and place + len(items) >= p.items:
                end = min(p.items, p.items if end is None else end)
            if end is not None:
                items = items[: max(0, end - place)]
            for packet in cutter.cut(place, items, tags):
                yield _as_bits(packet) if p.item == BITS else packet
            if end is not None:
                break
        rest = cutter.end(np.empty(0, self.dtype))
        if rest is not None:
            yield _as_bits(rest) if p.item == BITS else rest

    def _read(self, message: memoryview) -> tuple[int, np.ndarray, list[StreamTag]]:
        """Return the place of a message's first item in the stream, its items, and its tags, by places too."""
        tags: list[StreamTag] = []
        place, begin = self.reached, 0
        if self.params.tags:
            try:
                header = decode_header(message)
            except HeaderError as error:
                self.told.tell(f"a message is left out: {error}")
                return place, np.empty(0, self.dtype), tags
            if self.shift is None or header.offset + self.shift < place:  # the peer begins, or begins anew
                self.shift = place - header.offset
            lost = header.offset + self.shift - place
            if lost:
                self.told.tell("items were lost on the way from GNU Radio, or dropped there")
            place, begin = place + lost, header.length
            tags = [tag._replace(offset=tag.offset + self.shift, key=_name(tag.key)) for tag in header.tags]
        elif begins_with_header(message):
            self.told.tell("what comes begins like GNU Radio's header for tags: if its block has `pass_tags`, set tags")
        count, odd = divmod(len(message) - begin, self.dtype.itemsize)
        if odd:
            self.told.tell(
                f"a message is not of whole items of {self.dtype.itemsize} bytes, and {odd} bytes are left out"
            )
        size = count * self.dtype.itemsize
        items = np.frombuffer(message[begin : begin + size], self.dtype)
        self.reached = place + count
        return place, items if items.flags.aligned else items.copy(), tags


class _Cutter:
    """Cuts a stream of items into frames: of so many items, all into one, or where tags say."""

    def __init__(self, length_tag: str | None, length: int | None):
        self.length_tag, self.constant = length_tag, length
        self.number = -1
        self.begin = self.stop = 0  # places of the frame
        self.reached: int | None = None  # how far an unfinished frame has come

    def cut(self, place: int, items: np.ndarray, tags: list[StreamTag]) -> Iterator[Packet]:
        """Yield the packets of the frames that items from a place on belong to."""
        at, end = place, place + len(items)
        lengths = {tag.offset: tag.value for tag in tags if tag.key == self.length_tag}
        starts = sorted(n for n, length in lengths.items() if place <= n < end and _whole(length) and length)
        while at < end:
            if at in starts:
                self._open(at, lengths[at], next((t.value for t in tags if (t.offset, t.key) == (at, FRAME)), None))
            elif at >= self.stop:
                if self.length_tag is None:
                    self._next(at)
                else:
                    at = next((start for start in starts if start > at), end)
                    continue
            stop = min([end, self.stop, *(start for start in starts if start > at)])
            last = stop == self.stop
            kept = [tag for tag in tags if at <= tag.offset < stop and tag.key not in (self.length_tag, FRAME)]
            moved = tuple(Tag(tag.offset - self.begin, tag.key, plain(tag.value)) for tag in kept)
            yield Packet(items[at - place : stop - place], self.number, at - self.begin, tags=moved, last=last)
            self.reached = None if last else stop
            at = stop

    def end(self, nothing: np.ndarray) -> Packet | None:
        """Return what ends a frame that the stream has broken off; None where there is none."""
        if self.reached is None:
            return None
        return Packet(nothing, self.number, self.reached - self.begin, last=True)

    def _next(self, at: int) -> None:
        """Begin the frame of a constant length that a place is in."""
        if self.constant is None:
            self.number, self.begin, self.stop = 0, 0, 1 << 62
        else:
            self.number, within = divmod(at, self.constant)
            self.begin = at - within
            self.stop = self.begin + self.constant

    def _open(self, at: int, length: int, number: Any) -> None:
        """Begin the frame that tags at a place tell of; a number that does not rise is not taken."""
        self.number = number if _whole(number) and number > self.number else self.number + 1
        self.begin, self.stop = at, at + length


def _whole(value: Any) -> bool:
    """Tell whether a tag's value is a number of items or of a frame."""
    return type(value) is int and 0 <= value < 1 << 62


def _name(key: Any) -> str:
    return key if isinstance(key, str) else repr(key)


class GnuradioMessageSink(Block):
    """Send every frame as a PDU to GNU Radio's ZMQ PULL, SUB or REQ Message Source.

    A PDU is a pair of metadata and of a uniform vector: the frame's tags and its number, as `frame`, and its items.
    Bits go as u8vector, and what fills up the last byte is told by `pad`.
    """

    class Params(PeerParams):
        speaks = "Message "
        socket: Literal["push", "pub", "rep"] = Field("push", description="counterpart of GNU Radio's PULL, SUB or REQ")
        bind: bool = Field(True, description="bind, or connect to a peer that does")

    inputs = (Port("items", (BITS, *NUMBERS), "frames", whole=True),)

    def start(self) -> None:
        self.sender = Sender(self.params, self.checkpoint)
        self.sender.open()

    def work(self, items: Packet) -> None:
        packet = as_bytes(items) if items.packed else items
        metadata = {tag.key: tag.value for tag in packet.tags} | {FRAME: packet.frame}
        try:
            message = encode(Pair(metadata, packet.data))
        except PmtError as error:
            raise BlockError(f"frame {packet.frame} cannot be a PDU: {error}") from None
        self.sender.room()
        while not self.sender.put(message):
            self.sender.room()

    def flush(self) -> None:
        self.sender.close(self.params.wait)

    def stop(self) -> None:
        self.sender.close()


class GnuradioMessageSource(_Source):
    """Receive PDUs from GNU Radio's ZMQ PUSH, PUB or REP Message Sink, each as a frame.

    A PDU's metadata become tags of the frame's first item; `frame`, a number above those before, is the frame's. What
    is no PDU, or holds other items, is told of and left out. `end_tag` is a key of the metadata of what ends a stream.
    """

    class Params(SourceParams):
        speaks = "Message "
        item: Literal[
            "bits", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64",
            "complex64", "complex128",
        ] = Field("uint8", description="type of the items; bits are a u8vector in GNU Radio")  # fmt: skip
        frames: int | None = Field(None, ge=1, description="the stream ends after so many frames")

    outputs = (Port("items", (BITS, *NUMBERS), "frames", chosen=lambda p: p.item),)

    def start(self) -> None:
        super().start()
        self.receiver = Receiver(self.params, self.checkpoint, 1)
        self.receiver.open()

    def produce(self) -> Iterator[Packet]:
        p = self.params
        number, received = -1, 0
        for message in self.arrivals():
            pdu = self._pdu(message)
            if pdu is None:
                continue
            metadata, items = pdu
            if p.end_tag in metadata:
                return
            told = metadata.pop(FRAME, None)
            number = told if _whole(told) and told > number else number + 1
            tags = tuple(Tag(0, key, value) for key, value in metadata.items())
            frame = Packet(items, number, tags=tags, last=True)
            yield _as_bits(frame) if p.item == BITS else frame
            received += 1
            if received == p.frames:
                return

    def _pdu(self, message: memoryview) -> tuple[dict[str, Any], np.ndarray] | None:
        """Return metadata and items of a PDU; None for anything else."""
        wanted = "uint8" if self.params.item == BITS else self.params.item
        try:
            value = decode(message)
        except PmtError as error:
            self.told.tell(f"a message is left out: it is no PMT: {error}")
            return None
        metadata, items = value if isinstance(value, Pair) else (None, None)
        if not isinstance(items, np.ndarray) or not isinstance(metadata, dict | None):
            self.told.tell("a message is left out: it is no PDU, a pair of a dict and of a uniform vector")
        elif items.dtype != wanted:
            self.told.tell(f"a PDU is left out: its items must be {wanted}, not {items.dtype}")
        else:
            return {_name(key): plain(each) for key, each in (metadata or {}).items()}, items
        return None
