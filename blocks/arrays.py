"""Arrays as compiled kernels take them, which look at neither type nor length."""

from __future__ import annotations

from typing import Any

import numpy as np


def array(name: str, values: Any, dtype: type[np.generic], *shape: int | None) -> np.ndarray:
    """Return `values` as a contiguous array of a type and a shape, in which None stands for any length.

    >>> array("symbols", [1, 1j], np.complex64, 2)
    array([1.+0.j, 0.+1.j], dtype=complex64)

    Raises `ValueError` for another shape, and for a type that does not turn into that one by rounding alone.
    """
    found = np.asarray(values)
    if not np.can_cast(found.dtype, dtype, "same_kind"):
        raise ValueError(f"{name} must be {np.dtype(dtype).name}, not {found.dtype.name}")
    if found.ndim != len(shape) or any(want not in (None, has) for want, has in zip(shape, found.shape, strict=True)):
        wanted = ", ".join("any" if each is None else str(each) for each in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], not {list(found.shape)}")
    return np.ascontiguousarray(found, dtype)


def packed_bits(name: str, values: Any, count: int) -> np.ndarray:
    """Return packed bits, uint8, that hold at least `count`. Raises `ValueError` for others."""
    found = array(name, values, np.uint8, None)
    if not 0 <= count <= 8 * len(found):
        raise ValueError(f"{name} must hold the {count} bits that are asked for, not {8 * len(found)}")
    return found
