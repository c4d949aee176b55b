"""Makes `demapper_sionna.npz`: received symbols and their LLRs, exact and max-log, by Sionna's demapper.

Its LLRs are ln p(1)/p(0): their sign is turned.

pip install sionna importlib_resources
python tests/vectors/demapper_sionna.py
"""

from pathlib import Path

import numpy as np
import torch
from sionna.phy.mapping import Constellation, Demapper, Mapper

SYMBOLS = 48
ESN0_DB = {"qpsk": 3, "16qam": 10, "64qam": 15, "256qam": 20}


def main():
    random, made = np.random.default_rng(38211), {}
    for name, esn0_db in ESN0_DB.items():
        order = {"qpsk": 2, "16qam": 4, "64qam": 6, "256qam": 8}[name]
        constellation = Constellation("qam", order, precision="double")
        bits = random.integers(0, 2, SYMBOLS * order)
        sent = Mapper(constellation=constellation, precision="double")(torch.tensor(bits, dtype=torch.float64)).numpy()
        n0 = 10 ** (-esn0_db / 10)
        noise = random.standard_normal((2, SYMBOLS)) * (n0 / 2) ** 0.5
        received = (sent + noise[0] + 1j * noise[1]).astype(np.complex64)
        made[f"{name}_bits"], made[f"{name}_sent"] = np.packbits(bits), sent.astype(np.complex64)
        made[f"{name}_received"], made[f"{name}_n0"] = received, n0
        for ours, theirs in (("exact", "app"), ("maxlog", "maxlog")):
            demapper = Demapper(theirs, constellation=constellation, precision="double")
            llrs = demapper(torch.tensor(received.astype(np.complex128)), torch.tensor(n0, dtype=torch.float64))
            made[f"{name}_{ours}"] = -llrs.numpy().astype(np.float32)
    out = Path(__file__).with_suffix(".npz")
    np.savez_compressed(out, **made)
    print(out, out.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
