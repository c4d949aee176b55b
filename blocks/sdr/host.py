"""GNU Radio as a block's child process, under its own Python: started, asked for its version, fed, ended with it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import threading
import time
from collections import Counter
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
# What drivers print for each loss, without a new line, so that a line of the log may follow at once:
# gr-uhd O, D (of a network), U; gr-iio O, U; gr-soapy sO, sU
LATE = re.compile(r"(?<![\w/])(?:s?[OUD])+(?=[^\w/]|usrp_|gr::|$)")
LINGER_S = 0.5  # what drivers and devices may hold of samples that they have taken


class _End(PeerParams):
    """One of the two ways between the processes: GNU Radio's source connects, its sink binds."""

    socket: str
    bind: bool


class Host:
    """A GNU Radio flowgraph that gives samples, in a process that does not outlive this one.

    `start()` finds GNU Radio, `open()` gives it its flowgraph and `begin()` starts that; `send()`, `flush()` and
    `receive()` yield the samples that have come; `give()` and `drain()` are for a flowgraph that gives none. Raises
    `BlockError` where there is no GNU Radio, or it is too old, or cannot do what is asked for, or has died, or hangs
    for `wait` seconds.
    """

    def __init__(self, python: str, wait: float, checkpoint: Callable[[], None]):
        self.python, self.wait, self.checkpoint = python, wait, checkpoint
        self.process: subprocess.Popen | None = None
        self.sender: Sender | None = None
        self.receiver: Receiver | None = None
        self.listener: threading.Thread | None = None
        self.late: Counter[str] = Counter()  # O, samples taken too late, and U, given too late
        self.folder = ""
        self.version = ""
        self.heard = 0.0  # when samples last came, or began to be due

    def start(self) -> None:
        self.folder = private_folder()
        # Without this process's own packages, and those beside the program, one of which is called gnuradio as well
        command = [self.python, "-I", str(PROGRAM), self.folder]
        try:
            pipe = subprocess.PIPE
            self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            raise self._absent(error.strerror or str(error)) from None
        self.listener = threading.Thread(target=self._listen, args=(self.process.stderr,), daemon=True)
        self.listener.start()
        answer = self._answer(STARTS_WITHIN_S)
        if "version" not in answer:
            raise self._absent(answer.get("missing", "it ended by itself"))
        self.version = answer["version"]
        if tuple(int(part) for part in self.version.split(".")[:2]) < OLDEST:
            raise BlockError(f"must have GNU Radio 3.10 or newer for {self.python}, not {self.version}: {INSTALL}")

    def _listen(self, errors: Any) -> None:
        """Hand on what the program says, and count the letters by which its drivers tell of late samples."""
        for text in iter(lambda: os.read(errors.fileno(), 4096), b""):
            os.write(2, text)
            for letters in LATE.findall(text.decode(errors="replace")):
                self.late.update(letters.replace("s", "").replace("D", "O"))

    def _absent(self, why: str) -> BlockError:
        return BlockError(f"must have GNU Radio for {self.python} ({why}): {INSTALL}, or set python")

    def _answer(self, within_s: float) -> dict[str, Any]:
        """Wait for a line of the program's; nothing where it ends, or says none in time."""
        assert self.process
        assert self.process.stdout
        os.set_blocking(self.process.stdout.fileno(), False)
        text, until = b"", time.monotonic() + within_s
        while not text.endswith(b"\n"):
            self.checkpoint()
            piece = self.process.stdout.read()
            text += piece or b""
            if piece == b"" or time.monotonic() > until:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.process.wait(0.5 if piece == b"" else 0)  # it is ending
                return {}
            time.sleep(0.02)
        return json.loads(text)

    def devices(self) -> list[str]:
        """Return what radios are attached, a line each."""
        self.tell({"devices": True})
        return self._answer(STARTS_WITHIN_S).get("devices", [])

    def open(self, order: dict[str, Any], receive: str | None = "", sends: bool = True) -> None:
        """Open a flowgraph, which takes samples from here, from the endpoint `receive`, or (None) from nowhere.

        It gives samples if it `sends`.
        """
        to, back = (f"ipc://{self.folder}/{name}" for name in ("to", "back"))
        if receive == "":
            self.sender = Sender(_End.model_validate({"endpoint": to, "socket": "push", "bind": True}), self.checkpoint)
            self.sender.open()
        ends = {"receive": to if receive == "" else receive, "send": back if sends else None}
        self.tell(order | ends)
        answer = self._answer(self.wait)
        if "fault" in answer:
            raise BlockError(answer["fault"])
        if not answer:
            raise self._lost()
        if sends:
            ours = _End.model_validate({"endpoint": back, "socket": "pull", "bind": False})
            self.receiver = Receiver(ours, self.checkpoint, CHUNK)
            self.receiver.open()

    def begin(self) -> None:
        """Start the flowgraph."""
        self.heard = time.monotonic()
        self.tell({})

    def tell(self, what: dict[str, Any]) -> None:
        """Give the program a line: its flowgraph, or then what is to change in it."""
        assert self.process
        assert self.process.stdin
        with contextlib.suppress(BrokenPipeError):  # it is dead: what receives from it says so
            self.process.stdin.write(json.dumps(what).encode() + b"\n")
            self.process.stdin.flush()

    def turn(self, what: dict[str, Any]) -> None:
        """Have a radio take another frequency or gain. Raises `BlockError` where the device cannot."""
        self.tell(what)
        answer = self._answer(self.wait)
        if not answer:
            raise self._lost("answered")
        if "fault" in answer:
            raise BlockError(answer["fault"])

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

    def give(self, samples: np.ndarray) -> None:
        """Send samples, complex64, to a flowgraph that gives none; wait while it is busy."""
        assert self.sender
        for at in range(0, len(samples), CHUNK):
            message = samples[at : at + CHUNK].astype("<c8", copy=False).tobytes()
            self.heard = time.monotonic()
            while not self.sender.put(message):
                self._wait()

    def drain(self, count: int) -> None:
        """Wait until a flowgraph that gives none has handed so many samples to its radio, and that has sent them."""
        reached = -1
        while True:
            self.tell({"taken": True})
            taken = self._answer(self.wait).get("taken")
            if taken is None:
                raise self._lost("taken")
            if taken >= count:
                break
            if taken > reached:
                reached, self.heard = taken, time.monotonic()
            self._wait()
        until = time.monotonic() + LINGER_S
        while time.monotonic() < until:
            self._wait()

    def _wait(self) -> None:
        """Wait a moment; see whether GNU Radio is still there."""
        assert self.process
        self.checkpoint()
        if self.process.poll() is not None or time.monotonic() > self.heard + self.wait:
            raise self._lost("taken")
        time.sleep(0.01)

    def receive(self) -> Iterator[np.ndarray]:
        """Yield what comes, for as long as the caller wants more; nothing where nothing came for a moment."""
        while True:
            came = list(self._received())
            yield came[0] if came else np.empty(0, np.complex64)

    def _received(self) -> Iterator[np.ndarray]:
        """Wait a moment for samples; see whether GNU Radio is still there."""
        assert self.process
        assert self.receiver
        message = self.receiver.receive()
        if message is not None:
            self.heard = time.monotonic()
            samples = np.frombuffer(message, "<c8")
            yield samples if samples.flags.aligned else samples.copy()
        elif self.process.poll() is not None or time.monotonic() > self.heard + self.wait:
            raise self._lost()

    def _lost(self, what: str = "given") -> BlockError:
        """Return the fault of a program that has died, or hangs."""
        assert self.process
        code = self.process.poll()
        if code is None:
            return BlockError(f"GNU Radio {self.version} has {what} nothing for {self.wait:g} s")
        return BlockError(f"GNU Radio {how_it_ended(code)}")

    def stop(self) -> None:
        """End the process, wherever it has come."""
        if self.process:
            self.process.kill()
            self.process.wait()
            if self.listener:
                self.listener.join(1.0)
            for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
                with contextlib.suppress(OSError):
                    if pipe:
                        pipe.close()
        for end in (self.sender, self.receiver):
            if end:
                end.close()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
