"""Long-lived processes that run one thing after another, so that what they load is loaded once."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from flowgraph.launch import environment_of

LEAVE_WITHIN_S = 3.0


class Pool:
    """So many processes, each with so many compute threads; they end with this one, and leave nothing behind.

    A process that dies is replaced: the future of what it ran raises `BrokenProcessPool`.
    """

    def __init__(self, size: int, threads: int = 1):
        self.size, self.threads = size, threads
        self._running: dict[Future, ProcessPoolExecutor] = {}

    def __enter__(self) -> Pool:
        self._others = multiprocessing.active_children()
        self._folder = tempfile.mkdtemp(prefix="semflow-")
        self._idle = [self._process() for _ in range(self.size)]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            for process in set(multiprocessing.active_children()) - set(self._others):
                process.kill()
        for executor in (*self._idle, *self._running.values()):
            executor.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (self._folder,))

    @property
    def free(self) -> bool:
        """Whether something more can be submitted."""
        return bool(self._idle)

    def submit(self, call: Callable[..., Any], *arguments: Any) -> Future:
        """Have an idle process call a function of a module."""
        executor = self._idle.pop()
        with _as_a_child(self.threads):
            future = executor.submit(call, *arguments)
        self._running[future] = executor
        return future

    def wait(self, seconds: float) -> list[Future]:
        """Return what is finished, after so long at most."""
        done = list(wait(self._running, seconds, FIRST_COMPLETED).done)
        for future in done:
            executor = self._running.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                executor.shutdown()
                executor = self._process()
            self._idle.append(executor)
        return done


@contextmanager
def _as_a_child(threads: int) -> Iterator[None]:
    """Give processes that start meanwhile their environment, and keep Ctrl-C to this process alone."""
    before = dict(os.environ)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        os.environ.update(environment_of(threads))
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _begin(folder: str) -> None:
    """Have the process keep its files in a folder; once its parent is gone, take that away and end."""

    def watch() -> None:
        multiprocessing.parent_process().join()  # type: ignore[union-attr]
        until = time.monotonic() + LEAVE_WITHIN_S
        while os.path.exists(folder) and time.monotonic() < until:  # the others still write there
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    tempfile.tempdir = folder
    threading.Thread(target=watch, daemon=True).start()
