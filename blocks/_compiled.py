"""What all compiled kernels share: Numba's options, and the types of arrays that are only read."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

from typing import Any

from numba import float32, types, uint8

FLAGS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}


def array_in(dtype: types.Type) -> types.Array:
    """Type of an array that is only read, wherever it lies."""
    return types.Array(dtype, 1, "C", readonly=True, aligned=False)


BYTES_IN, FLOATS_IN = array_in(uint8), array_in(float32)
