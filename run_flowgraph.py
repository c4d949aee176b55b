#!/usr/bin/env python3
"""Run a flowgraph; see `run_flowgraph.py --help`."""

import sys

from flowgraph.cli import main

if __name__ == "__main__":
    sys.exit(main())
