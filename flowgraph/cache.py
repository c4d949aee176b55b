"""What a process that runs one graph after another keeps for the next: models in itself, arrays in a folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class Cache:
    """Objects by owner, for this process; arrays by what they follow from, for all processes that share the folder."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder
        self._objects: dict[Any, tuple[Any, Any]] = {}

    def object(self, owner: Any, wanted: Any, make: Callable[[], Any]) -> Any:
        """Return what `make` makes, or made when this owner last wanted the same; one object an owner is kept."""
        known = self._objects.get(owner)
        if known is None or known[0] != wanted:
            self._objects.pop(owner, None)  # let go of the old one before there are two
            known = self._objects[owner] = wanted, make()
        return known[1]

    def array(self, facts: tuple[Any, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
        """Return the array that `make` makes, which must follow from the facts alone: arrays and plain data.

        While one process makes it, others that want it wait.
        """
        if self.folder is None:
            return make()
        key = _digest(facts)
        file = self.folder / f"{key}.npy"
        with self._turn(key):
            if not file.exists():
                part = file.with_suffix(".part")
                with part.open("wb") as stream:
                    np.save(stream, make(), allow_pickle=False)
                part.replace(file)
        return np.load(file, allow_pickle=False)

    @contextmanager
    def _turn(self, key: str) -> Iterator[None]:
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.folder / f"{key[:2]}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _digest(facts: tuple[Any, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for fact in facts:
        if isinstance(fact, np.ndarray):
            digest.update(f"{fact.dtype} {fact.shape}".encode())
            digest.update(fact.tobytes())
        else:
            digest.update(repr(fact).encode())
        digest.update(b"\0")
    return digest.hexdigest()
