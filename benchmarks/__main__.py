"""Measure everything: kernels and the flowgraph beside their peers, error rates beside theory, and waiting times."""

import argparse
import json
import platform
from pathlib import Path

from rich.console import Console

from benchmarks import error_rates, figure, flowgraph, kernels, waiting


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--figure", type=Path, help="file for a picture of the ratios: .png, .pdf or .svg")
    arguments = parser.parse_args()
    print(f"{processor()}, Python {platform.python_version()}")
    figures = {"machine": processor(), "kernels": kernels.measure()}
    Console().print(kernels.show(figures["kernels"]))
    figures["flowgraph"] = flowgraph.main()
    figures["error_rates"] = error_rates.main()
    figures["waiting"] = waiting.main()
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    if arguments.figure:
        figure.draw(figures, arguments.figure)


if __name__ == "__main__":
    main()
