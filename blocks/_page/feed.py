"""Follows a run from a thread of its own, and turns its parameters for viewers."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from blocks._page.history import History
from flowgraph.block import BlockError
from flowgraph.live import InForce, Remote

REPEAT_S = 1.0  # after which a run is told again that somebody looks on
ANSWER_S = 2.0  # within which a run answers
AGAIN_S = 1.0  # after which one that did not is asked once more


class Feed:
    """Fills a history with what a run publishes. Raises `BlockError` where nobody answers at the address."""

    def __init__(self, history: History, keys: str | None = None):
        self.history, self.keys = history, keys
        self.closing = threading.Event()
        self.turning = ThreadPoolExecutor(1, "turn")
        self.remote: Remote | None = None  # for turning, used in that one thread
        first = Remote(history.address, keys)
        with history.lock:
            history.meet(first.run)
        self.thread = threading.Thread(target=self._follow, args=(first,), name="feed", daemon=True)
        self.thread.start()

    def _follow(self, remote: Remote | None) -> None:
        while not self.closing.is_set() and not self.history.ended:
            try:
                if remote is None:
                    remote = Remote(self.history.address, self.keys, ANSWER_S)
                    with self.history.lock:
                        self.history.meet(remote.run)
                remote.timeout = ANSWER_S
                self._hear(remote)
            except BlockError:  # the page says so
                if remote is not None:
                    remote.close()
                    remote = None
                with self.history.lock:
                    self.history.gone = not self.history.ended
                self.closing.wait(AGAIN_S)
        if remote is not None:
            remote.close()

    def _hear(self, remote: Remote) -> None:
        """Say that somebody looks on, and take in what comes until that is to be said again."""
        with self.history.lock:
            wanted = self.history.wanted()
        until = time.monotonic() + REPEAT_S
        remote.watch(*wanted)
        while time.monotonic() < until and not self.closing.is_set():
            for what, value in remote.news(0.1):
                with self.history.lock:
                    self.history.add(what, value)
                if time.monotonic() > until:
                    break
            with self.history.lock:
                if self.history.ended or wanted != self.history.wanted():
                    return

    def set(self, name: str, value: Any) -> Future[InForce]:
        """Change a live parameter; the result is what is in force, or a `BlockError` with the reason."""
        return self.turning.submit(self._set, name, value)

    def _set(self, name: str, value: Any) -> InForce:
        if self.history.ended:
            raise BlockError("the run has ended")
        if self.remote is None:
            self.remote = Remote(self.history.address, self.keys, ANSWER_S)
        try:
            answer = self.remote.set(name, value)
        except BlockError as error:
            if str(error).startswith("no answer"):  # one that comes late would be taken for the next
                self.remote.close()
                self.remote = None
            raise
        if not answer.coming:
            with self.history.lock:
                self.history.hold((answer.name, answer.value))
        return answer

    def close(self) -> None:
        """Let go of the run."""
        self.closing.set()
        self.turning.shutdown(wait=True)
        if self.remote is not None:
            self.remote.close()
        self.thread.join(5)
