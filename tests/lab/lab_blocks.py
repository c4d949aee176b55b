"""Blocks of a user's own package, as the tests install one: plain streams, and every way to go wrong."""

import os
import signal
import time
import zlib
from fractions import Fraction

import numpy as np
from pydantic import Field

from flowgraph import Block, BlockError, Packet, Params, Port


class LabNumbers(Block):
    """Send frames of bytes that follow from the seed."""

    class Params(Params):
        frames: int = Field(10, description="frames to send")
        size: int = Field(1000, description="bytes a frame")
        packet: int = Field(1 << 20, description="bytes a packet, at most")
        pause: float = Field(0.0, description="seconds between frames")

    outputs = (Port("x", "uint8"),)

    def produce(self):
        for frame in range(self.params.frames):
            data = np.random.default_rng([self.key, frame]).integers(0, 256, self.params.size, np.uint8)
            for at in range(0, max(1, len(data)), self.params.packet):
                piece = data[at : at + self.params.packet]
                yield Packet(piece, frame, at, last=at + self.params.packet >= len(data))
            time.sleep(self.params.pause)


class LabRelay(Block):
    """Pass packets on, until told otherwise."""

    class Params(Params):
        raise_at: int = Field(-1, description="frame at which to raise")
        die_at: int = Field(-1, description="frame at which the process is killed")
        hang_at: int = Field(-1, description="frame at which to hang")
        model: str = Field("", description="a model that is not there")
        loading: float = Field(0, description="seconds that it takes to start")
        last_words: str = Field("", description="what it warns of as it stops")

    inputs = (Port("x", "uint8"),)
    outputs = (Port("x", "uint8"),)
    ratio = Fraction(1)

    def start(self):
        if self.params.loading:
            self.keep("loading.txt", b"")
            time.sleep(self.params.loading)
        if self.params.model:
            raise BlockError(f"no model in {self.params.model}: fetch it and put it there")

    def work(self, x):
        if x.frame == self.params.raise_at:
            raise ZeroDivisionError("the sky fell")
        if x.frame == self.params.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if x.frame == self.params.hang_at:
            time.sleep(60)
        return x.derive(x.data)

    def stop(self):
        if self.params.last_words:
            self.warn(self.params.last_words)


class LabTally(Block):
    """Report every frame's size and checksum."""

    inputs = (Port("x", "uint8", whole=True), Port("beside", "uint8", optional=True))

    def work(self, x, beside=None):
        equal = None if beside is None else bool(np.array_equal(x.data, beside.data))
        self.report("frames", x.frame, status="ok", size=x.count, crc=zlib.crc32(x.data), equal=equal)

    def stop(self):
        self.keep("tally.txt", b"stopped in order\n")


class LabFiles(Block):
    """Send the files that a parameter names, one a frame."""

    class Params(Params):
        images: str = Field(description="file, folder or glob", json_schema_extra={"path": True})

    outputs = (Port("x", "uint8"),)

    def produce(self):
        for frame, (name, content) in enumerate(self.files(self.params.images)):
            if isinstance(content, OSError):
                raise BlockError(f"{name} cannot be read: {content}")
            yield Packet(np.frombuffer(content, np.uint8), frame, last=True)


class LabChecksum(Block):
    """Report a checksum of every frame of any stream."""

    inputs = (Port("x", ("bits", "complex64", "float32", "int8", "uint8"), shape=None, whole=True),)

    def work(self, x):
        self.report("frames", x.frame, **{self.name: zlib.crc32(np.ascontiguousarray(x.data))})


class LabPictures(Block):
    """Send pictures with captions, in turn what a frame was and what came of it, and report both captions."""

    class Params(Params):
        frames: int = Field(1000, description="frames to send")
        pause: float = Field(0.2, description="seconds between frames")

    outputs = (
        Port("sent", "uint8", shape=(None, None, 3)),
        Port("received", "uint8", shape=(None, None, 3)),
    )

    def produce(self):
        for frame in range(self.params.frames):
            picture = np.full((1, 48, 48, 3), (40 * frame % 256, 120, 60), np.uint8)
            yield {
                "sent": Packet(picture, frame, last=True).tagged(name=f"{frame}.png"),
                "received": Packet(picture // 2, frame, last=True).tagged(status="ok", psnr=20.0 + frame % 5),
            }
            captions = {"caption_sent": "a <b> dog on grass", "caption_received": "a <b> cat on grass"}
            self.report("frames", frame, name=f"{frame}.png", status="ok", psnr=20.0 + frame % 5, **captions)
            time.sleep(self.params.pause)


class LabBits(Block):
    """Send frames of random bits, one after a pause."""

    class Params(Params):
        frames: int = Field(100_000, description="frames to send")
        size: int = Field(50_000, description="bytes a frame")
        pause: float = Field(0.1, description="seconds between frames")

    outputs = (Port("bits", "bits"),)

    def produce(self):
        for frame in range(self.params.frames):
            data = np.random.default_rng([self.key, frame]).integers(0, 256, self.params.size, np.uint8)
            yield Packet(data, frame, packed=True, last=True)
            time.sleep(self.params.pause)
