"""The kernels of the signal path beside those of CommPy and Sionna: 16QAM, one thread.

Each of the two that is installed does the same work in the same run. Rates are medians over CPU time, which a busy
machine disturbs least; compare ratios, for machines differ. `python -m benchmarks.kernels` prints the table, `--json
FILE` writes the figures too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")  # before NumPy and torch are imported

import numpy as np
from rich.console import Console
from rich.table import Table

from blocks.phy import noise, qam

SYMBOLS = 1 << 18  # of a call: 128 KiB of packed bits
COMMPY_SYMBOLS = 1 << 12  # a call of its demapper takes seconds otherwise
N0 = 0.1
CPU_SECONDS = 0.5  # of each measurement

Work = dict[str, tuple[Callable[[], object], int]]  # what is done -> how, and symbols of a call


def own() -> Work:
    packed = noise.random_bytes(SYMBOLS // 2, key=1)
    symbols = qam.map_symbols(packed, 4 * SYMBOLS)
    received = noise.awgn(symbols, N0, key=2)
    key = 3

    def rayleigh() -> np.ndarray:
        gains = noise.complex_normal(SYMBOLS, key, stream=noise.FADES)
        return noise.fade(symbols, gains, N0, key)

    work: dict[str, Callable[[], object]] = {
        "map": lambda: qam.map_symbols(packed, 4 * SYMBOLS),
        "AWGN": lambda: noise.awgn(symbols, N0, key),
        "Rayleigh fading and AWGN": rayleigh,
        "decide": lambda: qam.decide(received),
        "LLRs, float32": lambda: qam.llr(received, N0),
        "LLRs, int8": lambda: qam.llr(received, N0, int8=True),
        "map, AWGN, decide": lambda: qam.decide(noise.awgn(qam.map_symbols(packed, 4 * SYMBOLS), N0, key)),
        "flip bits, 4 a symbol": lambda: packed ^ noise.flips(4 * SYMBOLS, 0.01, key),
    }
    return {name: (run, SYMBOLS) for name, run in work.items()}


def commpy() -> Work:
    from commpy.channels import SISOFlatChannel
    from commpy.modulation import QAMModem

    modem, count = QAMModem(16), COMMPY_SYMBOLS
    bits = np.random.default_rng(1).integers(0, 2, 4 * count)
    symbols = modem.modulate(bits)
    many = np.tile(symbols, SYMBOLS // count)
    sigma = (modem.Es * N0) ** 0.5
    flat, fading = SISOFlatChannel(sigma, (1 + 0j, 0)), SISOFlatChannel(sigma, (0j, 1))
    received = flat.propagate(symbols)
    return {
        "map": (lambda: modem.modulate(bits), count),
        "AWGN": (lambda: flat.propagate(many), SYMBOLS),
        "Rayleigh fading and AWGN": (lambda: fading.propagate(many), SYMBOLS),
        "decide": (lambda: modem.demodulate(received, "hard"), count),
        "LLRs, float32": (lambda: modem.demodulate(received[:256], "soft", sigma**2), 256),
        "map, AWGN, decide": (
            lambda: modem.demodulate(flat.propagate(modem.modulate(bits)), "hard"),
            count,
        ),
    }


def sionna() -> Work:
    import torch
    from sionna.phy.channel import AWGN, FlatFadingChannel
    from sionna.phy.mapping import Demapper, Mapper

    torch.set_num_threads(1)
    mapper, awgn, fading = Mapper("qam", 4), AWGN(), FlatFadingChannel(1, 1)
    hard, soft = (Demapper("maxlog", "qam", 4, hard_out=decided) for decided in (True, False))
    bits = torch.randint(0, 2, (4 * SYMBOLS,)).to(torch.float32)
    symbols = mapper(bits)
    received, column = awgn(symbols, N0), symbols.reshape(-1, 1)
    work: dict[str, Callable[[], object]] = {
        "map": lambda: mapper(bits),
        "AWGN": lambda: awgn(symbols, N0),
        "Rayleigh fading and AWGN": lambda: fading(column, N0),
        "decide": lambda: hard(received, N0),
        "LLRs, float32": lambda: soft(received, N0),
        "map, AWGN, decide": lambda: hard(awgn(mapper(bits), N0), N0),
    }
    return {name: (run, SYMBOLS) for name, run in work.items()}


def rate(run: Callable[[], object], symbols: int) -> float:
    """Return million symbols per CPU-second, the median over at least five calls."""
    run()
    spent: list[float] = []
    while len(spent) < 5 or (sum(spent) < CPU_SECONDS and len(spent) < 1000):
        began = time.process_time()
        run()
        spent.append(time.process_time() - began)
    return symbols / statistics.median(spent) / 1e6


def measure() -> dict[str, dict[str, float]]:
    """Return million symbols per CPU-second by work and by who does it."""
    peers = {"commpy": commpy, "sionna": sionna}
    doers = {"semflow": own()} | {name: make() for name, make in peers.items() if find_spec(name)}
    return {what: {who: rate(*work[what]) for who, work in doers.items() if what in work} for what in doers["semflow"]}


def show(figures: dict[str, dict[str, float]]) -> Table:
    """Return the figures as a table, the peers' with how many times faster ours is."""
    table = Table(title="Million symbols per CPU-second")
    names = list(dict.fromkeys(who for rates in figures.values() for who in rates))
    for heading in ("16QAM", *names):
        table.add_column(heading, justify="left" if heading == "16QAM" else "right")
    for what, rates in figures.items():
        cells = [f"{rates['semflow']:.0f}"]
        for who in names[1:]:
            cells.append(f"{rates[who]:.3g} ({rates['semflow'] / rates[who]:.0f}x)" if who in rates else "")
        table.add_row(what, *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    figures = measure()
    Console().print(show(figures))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
