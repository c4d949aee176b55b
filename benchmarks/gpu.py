"""Demapper and LDPC decoder on a GPU beside Sionna on the same one: million symbols, or payload bits, per second.

Symbols, LLRs and code words lie on the GPU and stay there, at two sizes of a batch; below, ours with arrays in and out,
as a block has them. Sionna is as it comes, and as `torch.compile` makes it. `python -m benchmarks.gpu` prints the
table, or that there is no GPU; `--json FILE` writes the figures too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.kernels import LDPC, LDPC_EBN0, N0, llrs_of, quarters
from blocks.phy import noise, qam

SYMBOLS, BLOCKS = 1 << 20, 256
BATCHES = 1, 16  # times so many
CALLS, ITERATIONS = 7, 20
GPU = torch.device("cuda:0")

Figures = dict[str, dict[str, float]]  # what is done -> by whom -> million a second


def rate(items: int, run: Callable[..., object], *arguments: Any, **options: Any) -> float:
    """Return million items per second, the median over calls that are waited for."""
    spent = []
    for _ in range(CALLS + 2):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run(*arguments, **options)
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return items / statistics.median(spent[2:]) / 1e6


def demappers(symbols: np.ndarray) -> Figures:
    from blocks.phy._symbols_triton import Modem, llr, points_on

    figures: Figures = {}
    points, scale = points_on(GPU, "16qam"), torch.full((1,), 1 / N0, device=GPU)
    for times in BATCHES:
        y = torch.from_numpy(symbols).to(GPU).repeat(times)
        ours = len(y), llr, torch.view_as_real(y), scale, points
        batch = f"{len(y):,} symbols"
        figures |= {
            f"LLRs, float32, {batch}": {"semflow": rate(*ours)},
            f"exact LLRs, float32, {batch}": {"semflow": rate(*ours, exact=True)},
            f"LLRs, int8, {batch}": {"semflow": rate(*ours, int8=True)},
        }
        if find_spec("sionna"):
            from sionna.phy.mapping import Demapper

            n0 = torch.tensor(N0, device=GPU)
            for what, method in (("LLRs", "maxlog"), ("exact LLRs", "app")):
                theirs = Demapper(method, "qam", 4, device=str(GPU))
                figures[f"{what}, float32, {batch}"] |= {
                    "sionna": rate(len(y), theirs, y, n0),
                    "sionna, compiled": rate(len(y), torch.compile(theirs), y, n0),
                }
    figures[f"LLRs, int8, {SYMBOLS:,} symbols, arrays in and out"] = {
        "semflow": rate(SYMBOLS, Modem(GPU).llr, symbols, N0, int8=True),
        "semflow, one CPU core": rate(SYMBOLS, qam.llr, symbols, N0, int8=True),
    }
    return figures


def decoders() -> Figures:
    from blocks.fec import _ldpc, _ldpc_triton
    from blocks.fec.ldpc import SYSTEMATIC, _lifted

    figures: Figures = {}
    bits = np.random.default_rng(4).integers(0, 2, (BLOCKS, LDPC.k), np.uint8)
    floats = llrs_of(LDPC.encode(bits), LDPC_EBN0)
    llrs = quarters(floats)
    channel = LDPC._combined(llrs, _ldpc.CLIPPED)
    rows = channel.shape[1] // LDPC.lifting - SYSTEMATIC[LDPC.graph]
    code = (*_lifted(LDPC.graph, LDPC.lifting), rows, LDPC.lifting, LDPC.k, ITERATIONS)
    for times in BATCHES:
        words = torch.from_numpy(channel).to(GPU).repeat(times, 1)
        batch, payload = f"LDPC decode, 2 dB, {len(words):,} blocks", len(words) * LDPC.k
        figures[batch] = {"semflow": rate(payload, _ldpc_triton.decode, words, *code)}
        if find_spec("sionna"):
            from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder

            encoder = LDPC5GEncoder(LDPC.k, LDPC.n, bg="bg1", device=str(GPU))
            options = {"cn_update": "offset-minsum", "num_iter": ITERATIONS, "device": str(GPU)}
            decoder, theirs = LDPC5GDecoder(encoder, **options), torch.from_numpy(-floats).to(GPU).repeat(times, 1)
            figures[batch] |= {
                "sionna": rate(payload, decoder, theirs),
                "sionna, compiled": rate(payload, torch.compile(decoder), theirs),
            }
    figures[f"LDPC decode, 2 dB, {BLOCKS} blocks, arrays in and out"] = {
        "semflow": rate(bits.size, LDPC.decode, llrs, ITERATIONS, GPU),
        "semflow, one CPU core": rate(bits.size, LDPC.decode, llrs, ITERATIONS),
    }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device here: demapper and LDPC decoder on a GPU are not measured")
        return
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(SYMBOLS // 2, 1), 4 * SYMBOLS), N0, 2)
    figures = demappers(symbols) | decoders()
    table = Table(title=f"Million 16QAM symbols, of codes payload bits, per second: {torch.cuda.get_device_name()}")
    names = list(dict.fromkeys(who for rates in figures.values() for who in rates))
    for heading in ("work", *names):
        table.add_column(heading, justify="left" if heading == "work" else "right")
    for what, rates in figures.items():
        peers = (
            f"{rates[who]:.4g} ({rates['semflow'] / rates[who]:.3g}x)" if who in rates else "" for who in names[1:]
        )
        table.add_row(what, f"{rates['semflow']:.0f}", *peers)
    Console(width=140).print(table)
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"machine": torch.cuda.get_device_name(), "gpu": figures}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
