"""How noisy received floats are at a bit error rate: a table and its making.

`python -m blocks.framing.calibration` measures anew: latents of N(0, 1) are written, bits flipped at random,
what comes is mended by each policy and compared with what was sent. Two spreads of errors are tabulated,
since the same error rate does different harm:

    equal  every bit errs alike, as over `bit_flip_channel` and any link that says nothing about itself
    16qam  the last two bits of a 16QAM symbol err twice as often as the first two (3GPP TS 38.211, 5.1.4)

The table also has the mean square of what comes, by policy (`power`): a latent that shows more than N(0, 1) would was
larger from the start, and so are its errors, most of which are proportional to the values. And it has the share of
values that look damaged (`latents.implausible`), from which the error rate can be read where nothing else tells it.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from blocks.framing import latents

_FILE = Path(__file__).with_name("calibration.json")
SPREADS = ("equal", "16qam")
POLICIES = ("paper", "bounded")
_RATES = [
    0,
    5e-4,
    1e-3,
    2e-3,
    4e-3,
    7e-3,
    0.01,
    0.015,
    0.02,
    0.03,
    0.04,
    0.05,
    0.07,
    0.1,
    0.15,
    0.2,
    0.3,
    0.4,
    0.5,
]


@cache
def _table() -> dict[str, Any]:
    return json.loads(_FILE.read_text())


def rates(ber: float, spread: str, bits: int) -> np.ndarray:
    """Return the error rate of each of `bits` bits from the first of a symbol on, `ber` being their mean."""
    if spread == "equal":
        return np.full(bits, ber)
    return np.minimum(np.where(np.arange(bits) % 4 < 2, ber * 2 / 3, ber * 4 / 3), 0.5)


def mean_squared_error(form: str, policy: str, spread: str, ber: float) -> float:
    """Return the mean squared error of N(0, 1) latents received at a bit error rate."""
    table = _table()
    return float(np.interp(ber, table["ber"], table[form][spread][policy]))


def power(form: str, policy: str, spread: str, ber: float) -> float:
    """Return the mean square of N(0, 1) latents as they are received at a bit error rate."""
    table = _table()
    return float(np.interp(ber, table["ber"], table[form][spread][f"{policy} power"]))


def error_rate(form: str, spread: str, share: float) -> float:
    """Return the bit error rate at which so large a share of the values is implausible."""
    table = _table()
    return float(np.interp(share, np.maximum.accumulate(table[form][spread]["implausible"]), table["ber"]))


def measure(form: str, spread: str, ber: float, values: int = 1 << 20, seed: int = 1) -> dict[str, float]:
    """Return the mean squared error and the power by policy, and the share of implausible values."""
    rng = np.random.default_rng([seed, latents.FORMATS.index(form), SPREADS.index(spread), int(ber * 1e6)])
    sums = dict.fromkeys((*POLICIES, *(f"{policy} power" for policy in POLICIES), "implausible"), 0.0)
    chunk = 1 << 16
    flip = rates(ber, spread, latents.bits_per_value(form)).astype(np.float32)
    for _ in range(values // chunk):
        sent = rng.standard_normal(chunk, np.float32)
        flips = np.packbits(rng.random((chunk, flip.size), np.float32) < flip, axis=None)
        received = latents.read_floats(latents.write_floats(sent, form) ^ flips, form)
        draws = rng.standard_normal(chunk)
        for policy in POLICIES:
            mended = latents.mend(received, policy, draws)
            sums[policy] += float(((mended - sent) ** 2).mean())
            sums[f"{policy} power"] += float((mended**2).mean())
        sums["implausible"] += float(latents.implausible(received).mean())
    return {key: value / (values // chunk) for key, value in sums.items()}


if __name__ == "__main__":
    table: dict[str, Any] = {"made by": "python -m blocks.framing.calibration", "ber": _RATES}
    for form in filter(latents.is_float, latents.FORMATS):
        table[form] = {}
        for spread in SPREADS:
            figures = [measure(form, spread, ber) for ber in _RATES]
            table[form][spread] = {key: [float(f"{f[key]:.4g}") for f in figures] for key in figures[0]}
    _FILE.write_text(json.dumps(table, indent=1) + "\n")
