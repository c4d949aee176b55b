"""The modem and the convolutional code by CommPy (V. Taranalli and others), thousands of times slower: a reference.

`engine: commpy` on a mapper, a demapper or a convolutional code takes these in place of our own kernels; arguments and
results are the same. Where scikit-commpy 0.8 differs, or is not sound, it is brought in line here or left out:

- Its QAM has a mean power of 10 and labels of its own: it is given the points of TS 38.211.
- LLRs of its modem are ln p(1)/p(0), those of its LDPC decoder ln p(0)/p(1): ours are ln p(0)/p(1) everywhere.
- Its LLRs are exact, not max-log, and overflow: infinite ones are bounded as ours are, and where every term vanishes
  (|y - x|^2 > 700 N0), and it has NaN, the LLR is 0.
- Bits that do not fill a symbol are taken for one of fewer bits: they are filled up with zeros before.
- A generator's lowest bit stands for the newest input, other than in the standards: 133 and 171 are read backwards.
- Its Viterbi decoder does not know that a block ends in state 0, and errs more often in the last bits.
- Left out: its LDPC code, whose parameter files do not load with NumPy 2; `SISOFlatChannel`, which adds noise to the
  real part alone of complex64 symbols; `Wifi80211`, which takes 133 and 171 for decimal.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from blocks.arrays import array, packed_bits
from blocks.fec.convolutional import PUNCTURING, TAIL, coded_bits
from blocks.phy.constellation import AnyModulation, Constellation, constellation


def map_symbols(packed: np.ndarray, count: int, modulation: AnyModulation = "16qam") -> np.ndarray:
    """Return what `blocks.phy.qam.map_symbols` does."""
    modem, packed = _modem(constellation(modulation)), packed_bits("packed", packed, count)
    bits = np.zeros(-(-count // modem.num_bits_symbol) * modem.num_bits_symbol, np.uint8)
    bits[:count] = np.unpackbits(packed, count=count)
    return modem.modulate(bits).astype(np.complex64) if count else np.empty(0, np.complex64)


def decide(symbols: np.ndarray, modulation: AnyModulation = "16qam") -> np.ndarray:
    """Return what `blocks.phy.qam.decide` does."""
    modem, symbols = _modem(constellation(modulation)), array("symbols", symbols, np.complex64, None)
    bits = modem.demodulate(_finite(symbols), "hard").astype(np.uint8).reshape(-1, modem.num_bits_symbol)
    return np.packbits(bits * np.isfinite(symbols)[:, None])


def llr(
    symbols: np.ndarray,
    n0: float,
    modulation: AnyModulation = "16qam",
    gains: np.ndarray | None = None,
    int8: bool = False,
    exact: bool = True,
) -> np.ndarray:
    """Return what `blocks.phy.qam.llr` does with `exact`; CommPy has no max-log LLRs."""
    if not n0 >= 0:
        raise ValueError(f"n0 must be at least 0, not {n0:g}")
    modem, symbols = _modem(constellation(modulation)), array("symbols", symbols, np.complex64, None)
    weights = np.ones(len(symbols))
    if gains is not None:
        weights = np.abs(array("gains", gains, np.complex64, len(symbols)).astype(np.complex128)) ** 2
    out = np.zeros((len(symbols), modem.num_bits_symbol))
    for row, y, weight in zip(out, _finite(symbols), weights, strict=True):
        if weight > 0:
            with np.errstate(divide="ignore", invalid="ignore"):
                row[:] = -modem.demodulate(np.array([y]), "soft", n0 / weight)
    out[~np.isfinite(symbols)] = 0
    llrs = np.clip(np.nan_to_num(out.ravel(), nan=0.0, posinf=1e30, neginf=-1e30), -1e30, 1e30)
    return np.clip(np.rint(4 * llrs), -127, 127).astype(np.int8) if int8 else llrs.astype(np.float32)


def encode(packed: np.ndarray, count: int, rate: str = "1/2") -> np.ndarray:
    """Return what `blocks.fec.convolutional.encode` does."""
    from commpy.channelcoding import conv_encode

    packed, size = packed_bits("packed", packed, count), coded_bits(count, rate)
    both = conv_encode(np.unpackbits(packed, count=count), _trellis(), "term").astype(np.uint8)
    return np.packbits(both[np.resize(np.array(PUNCTURING[rate], bool), len(both))][:size])


def decode(llrs: np.ndarray, count: int, rate: str = "1/2") -> np.ndarray:
    """Return what `blocks.fec.convolutional.decode` does."""
    from commpy.channelcoding import viterbi_decode

    llrs = array("llrs", llrs, np.int8, coded_bits(count, rate))
    steps = count + TAIL
    soft = np.zeros(2 * steps)
    soft[np.resize(np.array(PUNCTURING[rate], bool), 2 * steps)] = llrs
    return np.packbits(viterbi_decode(-soft, _trellis(), steps, "unquantized")[:count].astype(np.uint8))


def _finite(symbols: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(symbols), symbols, 0).astype(np.complex128)


@functools.lru_cache(16)
def _modem(known: Constellation) -> Any:
    from commpy.modulation import Modem

    return Modem(known.points, reorder_as_gray=False)


@functools.cache
def _trellis() -> Any:
    from commpy.channelcoding import Trellis

    return Trellis(np.array([TAIL]), np.array([[0o155, 0o117]]))
