"""Makes commpy_16qam.json with scikit-commpy 0.8.0: `python tests/vectors/commpy_16qam.py`.

CommPy's own 16QAM has a mean power of 10 and other labels than TS 38.211, so its modem is given the standard's points
(clause 5.1.4, unnormalised: mean power 10 too), and what goes in and out is scaled by sqrt(10). Its LLRs are exact
(log-sum) and ln p(1)/p(0): their sign is turned.
"""

import json
from pathlib import Path

import numpy as np
from commpy.modulation import Modem, QAMModem

POINTS = [
    (1 - 2 * b0) * (2 - (1 - 2 * b2)) + 1j * (1 - 2 * b1) * (2 - (1 - 2 * b3))
    for b0 in (0, 1)
    for b1 in (0, 1)
    for b2 in (0, 1)
    for b3 in (0, 1)
]
N0 = 0.1


def main() -> None:
    rng = np.random.default_rng(2026)
    modem, scale = Modem(POINTS, reorder_as_gray=False), 10**0.5
    bits = rng.integers(0, 2, 400)
    symbols = modem.modulate(bits) / scale
    noise = rng.standard_normal((2, len(symbols))) * (N0 / 2) ** 0.5
    received = (symbols + noise[0] + 1j * noise[1]).astype(np.complex64).astype(np.complex128)
    own = QAMModem(16)
    vectors = {
        "bits": "".join(map(str, bits)),
        "symbols": [[s.real, s.imag] for s in symbols],
        "n0": N0,
        "received": [[s.real, s.imag] for s in received],
        "decided": "".join(map(str, modem.demodulate(received * scale, "hard"))),
        "llr": [-float(x) for x in modem.demodulate(received * scale, "soft", 10 * N0)],
        "own_points": [[p.real, p.imag] for p in own.constellation],
        "own_symbols": [[s.real, s.imag] for s in own.modulate(bits)],
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(vectors) + "\n")


if __name__ == "__main__":
    main()
