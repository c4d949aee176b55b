"""The length-31 Gold sequence of 3GPP TS 38.211, clause 5.2.1, which scrambles frames and makes pilots.

    x1(n+31) = x1(n+3) + x1(n),  x2(n+31) = x2(n+3) + x2(n+2) + x2(n+1) + x2(n)  (mod 2)
    c(n) = x1(n + 1600) + x2(n + 1600)  (mod 2)

with x1 starting as 1, 0, 0, ... and x2 as the binary digits of c_init, least significant first.
"""

from __future__ import annotations

import numpy as np

_SKIP = 1600


def _m_sequence(start: int, taps: tuple[int, ...], length: int) -> np.ndarray:
    """Return `length` bits of x(n+31) = sum of x(n+t) over `taps`, the first 31 being the digits of `start`.

    Squaring a polynomial over GF(2) doubles its exponents, so x(n + 31d) = sum of x(n + td) for every power
    of two d: what is known so far gives the next bits a stretch at a time.
    """
    x = np.zeros(max(length, 31), np.uint8)
    x[:31] = start >> np.arange(31) & 1
    known = 31
    while known < length:
        d = 1 << ((known // 31).bit_length() - 1)
        n = known - 31 * d
        step = min((31 - max(taps)) * d, length - known)
        for tap in taps:
            x[known : known + step] ^= x[n + tap * d : n + tap * d + step]
        known += step
    return x[:length]


def gold_sequence(c_init: int, length: int) -> np.ndarray:
    """Return the first `length` bits c(0), c(1), ... (uint8, 0 or 1).

    >>> gold_sequence(1, 8)
    array([0, 0, 0, 0, 0, 0, 1, 0], dtype=uint8)

    Raises `ValueError` for a `c_init` that is not 0 to 2^31 - 1, and fewer than 0 bits.
    """
    if not 0 <= c_init < 1 << 31 or length < 0:
        raise ValueError(f"c_init must be 0 to 2^31 - 1 and length at least 0, not {c_init} and {length}")
    x1 = _m_sequence(1, (0, 3), _SKIP + length)
    x2 = _m_sequence(c_init, (0, 1, 2, 3), _SKIP + length)
    return (x1 ^ x2)[_SKIP:]
