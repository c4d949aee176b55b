"""The K = 7 convolutional code (133, 171 octal) and its soft Viterbi decoder, as pure functions.

The code of CCSDS 131.0-B, IEEE 802.11 and DVB-S; punctured as in IEEE 802.11-2020, clause 17.3.5.6. A block begins and
ends in state 0: six zero bits, its tail, are sent after it.
"""

from __future__ import annotations

import functools

import numpy as np

from blocks.arrays import array, packed_bits

TAIL = 6  # bits
MEAN = 5.0  # magnitude that LLRs are scaled to; the decoder's reach to 9
# Which outputs of the two generators are sent, in turn.
PUNCTURING = {
    "1/2": (1, 1),
    "2/3": (1, 1, 1, 0),
    "3/4": (1, 1, 1, 0, 0, 1),
    "5/6": (1, 1, 1, 0, 0, 1, 1, 0, 0, 1),
}


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from blocks.fec import _convolutional

    start = np.full(64, TAIL * _convolutional.SOFTEST, np.int8)  # a block begins in state 0: the others cost
    start[0] = 0
    return _convolutional.byte_table(), _convolutional.cost_table().ravel(), start


@functools.lru_cache(16)
def _sent(bits: int, rate: str) -> np.ndarray:
    """Places, among the outputs of both generators in turn, that are sent for a block of so many bits."""
    pattern = np.array(_puncturing(rate), bool)
    return np.flatnonzero(np.resize(pattern, 2 * (bits + TAIL)))


def _puncturing(rate: str) -> tuple[int, ...]:
    if rate not in PUNCTURING:
        raise ValueError(f"rate must be {', '.join(PUNCTURING)}, not {rate}")
    return PUNCTURING[rate]


def coded_bits(bits: int, rate: str = "1/2") -> int:
    """Return how many bits a block of `bits` bits is sent as.

    >>> coded_bits(100), coded_bits(100, "3/4")
    (212, 142)

    Raises `ValueError` for a rate that the code does not have, and fewer than 0 bits.
    """
    if bits < 0:
        raise ValueError(f"bits must be at least 0, not {bits}")
    return len(_sent(bits, rate)) if rate != "1/2" else 2 * (bits + TAIL)


def encode(packed: np.ndarray, count: int, rate: str = "1/2") -> np.ndarray:
    """Return the `coded_bits(count)` bits of a block of `count` packed bits, packed.

    >>> encode(np.array([0b10000000], np.uint8), 1)
    array([223,  44], dtype=uint8)

    Raises `ValueError` for fewer bits than `count`.
    """
    from blocks.fec import _convolutional

    packed = packed_bits("packed", packed, count)
    padded = np.zeros((count + TAIL + 7) // 8, np.uint8)
    size = -(-count // 8)
    padded[:size] = packed[:size]
    if count % 8:
        padded[size - 1] &= 0xFF << (-count % 8) & 0xFF
    out = np.empty(2 * len(padded), np.uint8)
    _convolutional.encode(padded, _tables()[0], out)
    if rate == "1/2":
        return out[: -(-(count + TAIL) // 4)]
    return np.packbits(np.unpackbits(out)[_sent(count, rate)])


def decode(llrs: np.ndarray, count: int, rate: str = "1/2") -> np.ndarray:
    """Return the `count` likeliest bits, packed, of LLRs ln p(0)/p(1), int8 [coded_bits(count)]; 0 is erased.

    Only their ratios matter: they are scaled to a mean magnitude of 5 and bounded at 9. A. Viterbi, "Error bounds for
    convolutional codes", 1967. Raises `ValueError` for another number of LLRs, or LLRs that are not int8.

    >>> bits = np.array([0xA5, 0x3C], np.uint8)
    >>> llrs = np.where(np.unpackbits(encode(bits, 16), count=44), -8, 8).astype(np.int8)
    >>> bool((decode(llrs, 16) == bits).all())
    True
    """
    from blocks.fec import _convolutional

    if len(llrs) != coded_bits(count, rate):
        raise ValueError(f"llrs must have {coded_bits(count, rate)} entries for {count} bits, not {len(llrs)}")
    llrs = array("llrs", llrs, np.int8, None)
    steps = count + TAIL
    soft = np.empty(len(llrs), np.int8)
    _convolutional.quantise(llrs, MEAN, soft)
    if rate != "1/2":
        sent, soft = soft, np.zeros(2 * steps, np.int8)
        soft[_sent(count, rate)] = sent
    _, costs, start = _tables()
    out = np.empty(-(-steps // 8), np.uint8)
    _convolutional.decode(soft, costs, start, np.empty(steps, np.uint64), out)
    out = out[: -(-count // 8)]
    if count % 8:
        out[-1] &= 0xFF << (-count % 8) & 0xFF
    return out


# Bit errors of all error events of distance d, d + 1, ... that begin within one period of the puncturing: its free
# distance, then the numbers (D. Haccoun and G. Begin, "High-rate punctured convolutional codes", 1989).
SPECTRA = {
    "1/2": (10, (36, 0, 211, 0, 1404, 0, 11633)),
    "2/3": (6, (3, 70, 285, 1276, 6160, 27128)),
    "3/4": (5, (42, 201, 1492, 10469, 62935, 379644)),
    "5/6": (4, (92, 528, 8694, 79453, 792114)),
}


def error_rate(esn0: float, rate: str = "1/2") -> float:
    """Return the union bound on the bit error rate after decoding, at most 1/2, for a ratio Es/N0 of a coded bit.

    Pb <= (1/b) sum over d of B_d Q(sqrt(2 d Es/N0)), for b bits a period of the puncturing.

    >>> f"{error_rate(10 ** 0.4 / 2):.1e}"
    '1.7e-05'

    Raises `ValueError` for a rate that the code does not have, and a ratio below 0 or NaN.
    """
    from blocks.phy.theory import gaussian_tail

    period = len(_puncturing(rate)) // 2
    if not esn0 >= 0:
        raise ValueError(f"esn0 must be at least 0, as a ratio, not {esn0:g}")
    free, weights = SPECTRA[rate]
    total = sum(weight * gaussian_tail((2 * (free + i) * esn0) ** 0.5) for i, weight in enumerate(weights))
    return min(total / period, 0.5)
