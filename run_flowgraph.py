#!/usr/bin/env python3
"""Run a flowgraph; see `run_flowgraph.py --help`."""

import sys

if __name__ == "__main__":
    try:
        try:
            from flowgraph.cli import main
        except ModuleNotFoundError as error:
            sys.exit(f"{error}: Semflow is not set up for {sys.executable}; `make venv` sets up .venv/bin/python")
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
