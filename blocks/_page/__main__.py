"""Shows a run beside it: a page at HOST PORT, or a window. Where the run is, and its keys, come by standard input."""

import gc
import os
import sys


def main() -> int:
    """Load what is to be shown, wait for the run, and show it."""
    gc.disable()  # what is loaded stays: to look it through takes a fifth of the time
    from flowgraph.block import BlockError

    run, place = os.getppid(), sys.argv[1:]
    if place:
        from blocks._page.server import serve
    else:
        from blocks._page.window import show
    gc.freeze()
    gc.enable()
    address, keys = (sys.stdin.readline().rstrip("\n") for _ in range(2))
    if not address:  # there is to be no run
        return 0
    try:
        if place:
            serve(address, keys or None, place[0], int(place[1]), run)
        else:
            show(address, keys or None)
    except BlockError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
