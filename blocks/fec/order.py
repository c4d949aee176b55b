"""Orders in which items are sent, for interleavers, as pure functions."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(64)
def block_order(count: int, rows: int) -> np.ndarray:
    """Return which of `count` items is sent when, int64: written row by row, read column by column.

    >>> block_order(7, 2)
    array([0, 4, 1, 5, 2, 6, 3])

    Raises `ValueError` for fewer than 0 items or 1 row.
    """
    if count < 0 or rows < 1:
        raise ValueError(f"count must be at least 0 and rows at least 1, not {count} and {rows}")
    places = np.arange(-(-count // rows) * rows).reshape(rows, -1).T.ravel()
    return places[places < count]


@functools.lru_cache(16)
def random_order(count: int, seed: int = 0) -> np.ndarray:
    """Return which of `count` items is sent when, int64: a permutation drawn by `seed`, the same with any NumPy.

    Items are sorted by 64-bit words of Philox4x64-10 (J. K. Salmon et al., 2011).

    >>> random_order(7)
    array([0, 2, 1, 5, 4, 3, 6])

    Raises `ValueError` for fewer than 0 items, and for a seed that is not 0 to 2^64 - 1.
    """
    if count < 0 or not 0 <= seed < 1 << 64:
        raise ValueError(f"count must be at least 0 and seed 0 to 2^64 - 1, not {count} and {seed}")
    return np.argsort(np.random.Philox(key=seed).random_raw(count), kind="stable")
