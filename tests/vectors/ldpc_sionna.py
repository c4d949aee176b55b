"""Makes `ldpc_sionna.npz`: code words of Sionna's 5G LDPC encoder, for every lifting size of both base graphs.

pip install sionna importlib_resources
python tests/vectors/ldpc_sionna.py
"""

from pathlib import Path

import numpy as np
import torch
from sionna.phy.fec.ldpc import LDPC5GEncoder

SIZES = sorted(a << j for a in (2, 3, 5, 7, 9, 11, 13, 15) for j in range(8) if a << j <= 384)


def cases():
    """(k, n, base graph, bits a symbol): a full buffer for every size, then shortened, punctured and interleaved."""
    for size in SIZES:
        if 22 * size >= 12:
            yield 22 * size, 66 * size, 1, 1
        used = 6 if size <= 32 else 8 if size <= 70 else 9 if size <= 71 else 10
        if used * size >= 12:
            yield used * size, min(50 * size, 5 * used * size), 2, 1
    for k, n, graph in (
        (100, 200, 2),
        (20, 96, 2),
        (3000, 4000, 2),
        (1000, 1200, 1),
        (8000, 16000, 1),
        (8448, 9240, 1),
    ):
        yield k, n, graph, 1
        yield k, n, graph, 4


def main():
    random = np.random.default_rng(38212)
    params, bits, words = [], [], []
    for k, n, graph, order in cases():
        try:
            encoder = LDPC5GEncoder(k, n, num_bits_per_symbol=order if order > 1 else None, bg=f"bg{graph}")
        except (ValueError, AssertionError) as error:
            print("left out", k, n, graph, error)
            continue
        b = random.integers(0, 2, k, np.uint8)
        word = encoder(torch.tensor(b[None], dtype=torch.float32))[0].numpy().astype(np.uint8)
        params.append((k, n, graph, order, encoder.z))
        bits.append(np.packbits(b))
        words.append(np.packbits(word))
    out = Path(__file__).with_suffix(".npz")
    np.savez_compressed(out, params=np.array(params), bits=np.concatenate(bits), words=np.concatenate(words))
    print(out, len(params), "code words,", out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
