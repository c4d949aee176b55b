"""What shows a run to people, a page or a window: beside a run of the command line, or of a run that is there already.

The page and the window themselves (`blocks._page`) are loaded where one is shown.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from importlib.util import find_spec
from types import TracebackType

from blocks._page.place import place_for
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
    """A process that shows a run: it loads while the run does, and waits until that has an address for viewers.

    `place` says where a page is to be; without it, it is a window. `stays` says what becomes of it after the run's end.
    """

    def __init__(self, place: tuple[str, ...], stays: str):
        self.place, self.stays = place, stays
        self.told = False  # the address

    def observe(self, report: Report, keys: str | None) -> None:
        """Tell the process where the run is, once."""
        if not self.told:
            self.told = True
            assert self.process.stdin is not None
            with suppress(BrokenPipeError):  # it has said itself why it is no more
                self.process.stdin.write(f"{report.result['live']}\n{keys or ''}\n")
                self.process.stdin.close()

    def stay(self) -> None:
        """Wait until a person has seen enough, if there is anything to see at all."""
        if self.told and self.process.poll() is None:
            print(self.stays, file=sys.stderr)
            try:
                self.process.wait()
            except KeyboardInterrupt:
                return

    def __enter__(self) -> Viewer:
        command = [sys.executable, "-P", "-m", "blocks._page", *self.place]
        # A session of its own: Ctrl-C reaches the run alone, and the process sees how that ends.
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.process.terminate()
        self.process.communicate()


def page(host: str, port: int) -> Viewer:
    """Return the live page beside a run. Raises `BlockError` where it cannot be."""
    check_installed()
    host, port = place_for(host, port)
    return Viewer((host, str(port)), "the live page stays until Ctrl-C")


def window() -> Viewer:
    """Return the window beside a run. Raises `BlockError` where it cannot be."""
    check_display()
    return Viewer((), "the window stays until it is closed, or Ctrl-C")


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
