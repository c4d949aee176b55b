"""Shows a run beside it: ADDRESS KEYS HOST PORT for a page, ADDRESS KEYS for a window; KEYS may be empty."""

import os
import sys

from flowgraph.block import BlockError


def main() -> int:
    """Show what the arguments say."""
    address, keys, *place = sys.argv[1:]
    try:
        if place:
            from blocks._page.server import serve

            serve(address, keys or None, place[0], int(place[1]), os.getppid())
        else:
            from blocks._page.window import show

            show(address, keys or None)
    except BlockError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


raise SystemExit(main())
