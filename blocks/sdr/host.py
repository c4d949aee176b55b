"""GNU Radio as a block's child process, under its own Python: started, asked for its version, fed, ended with it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from blocks.sdr.peer import PeerParams, Receiver, Sender
from flowgraph.block import BlockError
from flowgraph.launch import how_it_ended, private_folder

PROGRAM = Path(__file__).with_name("_gnuradio_host.py")
OLDEST = (3, 10)
INSTALL = "`apt-get install --no-install-recommends gnuradio`"
CHUNK = 1 << 15  # samples of a message
STARTS_WITHIN_S = 60.0


class _End(PeerParams):
    """One of the two ways between the processes: GNU Radio's source connects, its sink binds."""

    socket: str
    bind: bool


class Host:
    """A GNU Radio flowgraph from samples to samples, in a process that does not outlive this one.

    `start()` finds GNU Radio, `run()` gives it its flowgraph, `send()` and `flush()` yield the samples that have come
    back. Raises `BlockError` where there is no GNU Radio, or it is too old, or has died, or hangs for `wait` seconds.
    """

    def __init__(self, python: str, wait: float, checkpoint: Callable[[], None]):
        self.python, self.wait, self.checkpoint = python, wait, checkpoint
        self.process: subprocess.Popen | None = None
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self.folder = ""
        self.version = ""
        self.heard = 0.0  # when samples last came, or began to be due

    def start(self) -> None:
        # Without this process's own packages, and those beside the program, one of which is called gnuradio as well
        command = [self.python, "-I", str(PROGRAM)]
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise self._absent(error.strerror or str(error)) from None
        answer = self._answer()
        if "version" not in answer:
            raise self._absent(answer.get("missing", "it ended by itself"))
        self.version = answer["version"]
        if tuple(int(part) for part in self.version.split(".")[:2]) < OLDEST:
            raise BlockError(f"must have GNU Radio 3.10 or newer for {self.python}, not {self.version}: {INSTALL}")

    def _absent(self, why: str) -> BlockError:
        return BlockError(f"must have GNU Radio for {self.python} ({why}): {INSTALL}, or set python")

    def _answer(self) -> dict[str, Any]:
        """Wait for what the program says of itself."""
        assert self.process
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        text, until = b"", time.monotonic() + STARTS_WITHIN_S
        while not text.endswith(b"\n"):
            self.checkpoint()
            piece = self.process.stdout.read()
            text += piece or b""
            if piece == b"" or time.monotonic() > until:  # it has ended, or hangs
                return {}
            time.sleep(0.02)
        return json.loads(text)

    def run(self, stages: dict[str, Any]) -> None:
        """Start the flowgraph with these stages between its ends."""
        self.folder = private_folder()
        to, back = (f"ipc://{self.folder}/{name}" for name in ("to", "back"))
        self.sender = Sender(_End.model_validate({"endpoint": to, "socket": "push", "bind": True}), self.checkpoint)
        ours = _End.model_validate({"endpoint": back, "socket": "pull", "bind": False})
        self.receiver = Receiver(ours, self.checkpoint, CHUNK)
        self.sender.open()
        self.receiver.open()
        self.tell({**stages, "receive": to, "send": back, "folder": self.folder})

    def tell(self, what: dict[str, Any]) -> None:
        """Give the program a line: its flowgraph, or then what is to change in it."""
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead: what receives from it says so
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def send(self, samples: np.ndarray) -> Iterator[np.ndarray]:
        """Send samples, complex64; yield what has come back meanwhile."""
        assert self.sender
        assert self.receiver
        self.heard = time.monotonic()
        for at in range(0, len(samples), CHUNK):
            message = samples[at : at + CHUNK].astype("<c8", copy=False).tobytes()
            while not self.sender.put(message):
                yield from self._received()
            while self.receiver.socket.poll(0):
                yield from self._received()

    def flush(self) -> Iterator[np.ndarray]:
        """Send silence, and yield what comes back, for as long as the caller wants more."""
        assert self.sender
        self.heard = time.monotonic()
        silence = np.zeros(CHUNK, np.complex64).tobytes()
        while True:
            self.sender.put(silence)
            yield from self._received()

    def _received(self) -> Iterator[np.ndarray]:
        """Wait a moment for samples; see whether GNU Radio is still there."""
        assert self.process
        assert self.receiver
        message = self.receiver.receive()
        now = time.monotonic()
        if message is not None:
            self.heard = now
            yield np.frombuffer(message, "<c8")
        elif self.process.poll() is not None:
            raise BlockError(f"GNU Radio {how_it_ended(self.process.returncode)}")
        elif now > self.heard + self.wait:
            raise BlockError(f"GNU Radio {self.version} has given nothing back for {self.wait:g} s")

    def stop(self) -> None:
        """End the process, wherever it has come."""
        if self.process:
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
        for end in (self.sender, self.receiver):
            if end:
                end.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
