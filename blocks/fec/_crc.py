"""The compiled kernel of `blocks.fec.crc`."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

from numba import njit, types, uint32

from blocks._compiled import BYTES_IN, FLAGS


@njit(types.uint32(BYTES_IN, uint32[::1]), **FLAGS)
def remainder(packed, table):
    """Divide bytes by a polynomial whose remainders, by byte, stand at the top of 32 bits."""
    register = uint32(0)
    for byte in packed:
        register = uint32(register << uint32(8)) ^ table[(register >> uint32(24)) ^ byte]
    return register
