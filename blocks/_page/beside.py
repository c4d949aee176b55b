"""Starts the page beside a run of the command line, and lets it stay until Ctrl-C."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from types import TracebackType

from blocks._page.place import port_for
from flowgraph.block import BlockError
from flowgraph.report import Report


def check_installed() -> None:
    """Raise `BlockError` with the remedy where the page's library is missing."""
    if not find_spec("bokeh"):
        raise BlockError("the live page needs Bokeh: pip install 'semflow[live]'")


class Beside:
    """The page's process; `observe` starts it as soon as a run has an address for viewers.

    Raises `BlockError` where the page cannot be.
    """

    def __init__(self, host: str, port: int, keys: str | None):
        check_installed()
        self.arguments = [host, str(port_for(host, port)), keys or ""]
        self.process: subprocess.Popen | None = None

    def observe(self, report: Report) -> None:
        """Start the page, once."""
        if self.process is None:
            command = [sys.executable, "-P", "-m", "blocks._page.server", report.result["live"], *self.arguments]
            # A session of its own: Ctrl-C reaches the run alone, and the page sees how that ends.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def stay(self) -> None:
        """Wait until a person has seen enough, if the page is there at all."""
        if self.process is not None and self.process.poll() is None:
            print("the live page stays until Ctrl-C", file=sys.stderr)
            try:
                self.process.wait()
            except KeyboardInterrupt:
                return

    def __enter__(self) -> Beside:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
