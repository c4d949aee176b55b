"""What shows a run to people, a page or a window: beside a run of the command line, or of a run that is there already.

The page and the window themselves (`blocks._page`) are loaded where one is shown.
"""

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


def check_display() -> None:
    """Raise `BlockError` with the remedy where no window can be opened."""
    import matplotlib
    from matplotlib.backends import backend_registry

    try:
        if backend_registry.resolve_backend(matplotlib.get_backend())[1]:
            return
        reason = ""
    except ImportError as error:
        reason = f" ({error})"
    toolkit = "one of matplotlib's toolkits (apt-get install python3-tk, or pip install PySide6)"
    raise BlockError(f"--window needs a display, and {toolkit}{reason}; --live serves a page instead")


class Viewer:
    """A process that shows a run; `observe` starts it as soon as the run has an address for viewers.

    `arguments` say what it is (`blocks._page.__main__`), `stays` what becomes of it after the run has ended.
    """

    def __init__(self, arguments: list[str], stays: str):
        self.arguments, self.stays = arguments, stays
        self.process: subprocess.Popen | None = None

    def observe(self, report: Report) -> None:
        """Start the process, once."""
        if self.process is None:
            command = [sys.executable, "-P", "-m", "blocks._page", report.result["live"], *self.arguments]
            # A session of its own: Ctrl-C reaches the run alone, and the process sees how that ends.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def stay(self) -> None:
        """Wait until a person has seen enough, if there is anything to see at all."""
        if self.process is not None and self.process.poll() is None:
            print(self.stays, file=sys.stderr)
            try:
                self.process.wait()
            except KeyboardInterrupt:
                return

    def __enter__(self) -> Viewer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


def page(host: str, port: int, keys: str | None) -> Viewer:
    """Return the live page beside a run. Raises `BlockError` where it cannot be."""
    check_installed()
    return Viewer([keys or "", host, str(port_for(host, port))], "the live page stays until Ctrl-C")


def window(keys: str | None) -> Viewer:
    """Return the window beside a run. Raises `BlockError` where it cannot be."""
    check_display()
    return Viewer([keys or ""], "the window stays until it is closed, or Ctrl-C")


def serve(address: str, keys: str | None, host: str, port: int) -> None:
    """Serve the page of the run at `address` until Ctrl-C. Raises `BlockError` where that cannot be."""
    check_installed()
    from blocks._page import server

    server.serve(address, keys, host, port)


def show(address: str, keys: str | None) -> None:
    """Show the run at `address` in a window until that is closed. Raises `BlockError` where that cannot be."""
    check_display()
    from blocks._page import window

    window.show(address, keys)
