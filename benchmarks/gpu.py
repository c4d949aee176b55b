"""Demapper and LDPC decoder on a GPU beside Sionna on the same one: million symbols, or payload bits, per second.

Symbols and their LLRs stay on the GPU, and so do Sionna's code words; our decoder takes and returns arrays.
`python -m benchmarks.gpu` prints the table, or that there is no GPU.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import torch

from benchmarks.kernels import LDPC, LDPC_EBN0, N0, llrs_of, quarters
from blocks.phy import _symbols_torch, noise, qam
from blocks.phy.constellation import constellation

SYMBOLS, BLOCKS, CALLS = 1 << 20, 256, 20


def rate(run: Callable[[], object], items: int) -> float:
    """Return million items per second, the median over calls that are waited for."""
    run()
    spent = []
    for _ in range(CALLS):
        torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        torch.cuda.synchronize()
        spent.append(time.perf_counter() - began)
    return items / statistics.median(spent) / 1e6


def main() -> None:
    """Print the table."""
    if not torch.cuda.is_available():
        print("no CUDA device here: demapper and LDPC decoder on a GPU are not measured")
        return
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(SYMBOLS // 2, 1), 4 * SYMBOLS), N0, 2)
    bits = np.random.default_rng(4).integers(0, 2, (BLOCKS, LDPC.k), np.uint8)
    llrs = llrs_of(LDPC.encode(bits), LDPC_EBN0)
    y = torch.from_numpy(symbols).cuda()
    scale = torch.full((1,), 1 / N0, dtype=torch.float64, device="cuda")
    points = torch.from_numpy(constellation("16qam").points).cuda()
    ours = {
        "LLRs, float32": (lambda: _symbols_torch.llr(y, scale, points), SYMBOLS),
        "LDPC decode, 2 dB": (lambda: LDPC.decode(quarters(llrs), device="cuda"), bits.size),
    }
    theirs = {}
    if find_spec("sionna"):
        from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
        from sionna.phy.mapping import Demapper

        soft = Demapper("maxlog", "qam", 4, device="cuda")
        decoder = LDPC5GDecoder(LDPC5GEncoder(LDPC.k, LDPC.n, bg="bg1", device="cuda"), num_iter=20, device="cuda")
        theirs_llrs = torch.from_numpy(-llrs).cuda()
        theirs = {"LLRs, float32": lambda: soft(y, N0), "LDPC decode, 2 dB": lambda: decoder(theirs_llrs)}
    for what, (run, items) in ours.items():
        line = f"{what}: {rate(run, items):.0f}"
        if what in theirs:
            line += f", Sionna {rate(theirs[what], items):.0f}"
        print(line)


if __name__ == "__main__":
    main()
