#!/usr/bin/env python3
"""Run a flowgraph; see `run_flowgraph.py --help`."""

import sys

if __name__ == "__main__":
    try:
        from flowgraph.cli import main

        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
