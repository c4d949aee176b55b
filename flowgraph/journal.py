"""A file of finished pieces of work, a line of JSON each: what is there is never done again."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Generic, TypeVar

import msgspec

from flowgraph.block import BlockError

ENDING_S = 3.0  # within which the workers of a run that was killed are gone
T = TypeVar("T", bound=msgspec.Struct)


def claim(file: IO, folder: Path) -> None:
    """Keep a folder to this run, by a lock on a file in it, until the file is closed.

    Where another run has it, and does not end at once, closes the file and raises `BlockError`.
    """
    patience = time.monotonic() + ENDING_S
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError:
            if time.monotonic() > patience:
                file.close()
                raise BlockError(f"{folder} is in use by another run: wait for it, or give another --out") from None
            time.sleep(0.05)


class Journal(Generic[T]):
    """The entries of a file, all of one kind; those that are there are handed to `take`, with their offsets.

    The end of a line that a killed process did not finish is cut off. Raises `BlockError` where another process writes
    to the file, and for a line that is no such entry, or that `take` refuses by a `ValueError`.
    """

    def __init__(self, path: Path, kind: type[T], take: Callable[[int, T], None]):
        self.file = path.open("a+b")
        claim(self.file, path.parent)
        self._encode, self._decode = msgspec.json.Encoder().encode, msgspec.json.Decoder(kind).decode
        offset = 0
        self.file.seek(0)
        for number, line in enumerate(self.file, 1):
            if not line.endswith(b"\n"):
                self.file.truncate(offset)
                break
            try:
                take(offset, self._decode(line))
            except (msgspec.MsgspecError, ValueError) as error:
                self.file.close()
                raise BlockError(f"{path}:{number}: {error}: move the file away, or give another --out") from None
            offset += len(line)

    def add(self, entry: T) -> int:
        """Write down an entry; return its offset."""
        offset = self.file.seek(0, 2)
        self.file.write(self._encode(entry) + b"\n")
        self.file.flush()
        return offset

    def at(self, offset: int) -> T:
        """Return the entry at an offset."""
        self.file.seek(offset)
        return self._decode(self.file.readline())

    def close(self) -> None:
        """Let others write."""
        self.file.close()
