"""Compiled kernels of the LDPC code: encoding, and layered offset min-sum decoding in int8."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import numpy as np
from numba import boolean, int8, int32, int64, njit, types, uint8, uint64

from blocks._compiled import FLAGS
from blocks.fec._lanes import (
    LANES,
    absolute,
    add_saturated,
    exclusive_or,
    load,
    maximum,
    minimum,
    negative,
    signed_as,
    splat,
    store,
    subtract_saturated,
    where_equal,
)

CLIPPED = 31  # channel LLRs, in quarters: larger ones would let messages saturate, and errors rise with the SNR
LARGEST_MESSAGE = 34
OFFSET = 2  # taken off every minimum, in quarters

GRAPH = (int32[::1], int32[::1], int32[::1])  # first edge of each row and one more; column and shift of each edge


@njit(inline="always", **FLAGS)
def _add_rotated(row, source, shift, size):
    """row ^= source rotated: source[(i + shift) % size] at i."""
    for i in range(size - shift):
        row[i] ^= source[i + shift]
    for i in range(size - shift, size):
        row[i] ^= source[i + shift - size]


@njit(types.void(uint8[:, :, ::1], int64, *GRAPH, int64, int64), **FLAGS)
def encode(words, systematic, first, column, shift, rows, core_shift):
    """Fill in the parity columns of code words [blocks, columns, Z], whose first `systematic` columns are set.

    The sum of the first four rows leaves of the parity columns only the first, rotated by `core_shift`. Then rows
    0, 1, 3, 4, 5, ... have one unknown column each; row 2 holds by construction.
    """
    size = words.shape[2]
    for block in range(words.shape[0]):
        word = words[block]
        p = word[systematic]
        p[:] = 0
        for row in range(4):
            for e in range(first[row], first[row + 1]):
                if column[e] < systematic:
                    _add_rotated(p, word[column[e]], (shift[e] + size - core_shift) % size, size)
        for row in (0, 1, 3):
            target = min(row + 1, 3)
            out = word[systematic + target]
            out[:] = 0
            for e in range(first[row], first[row + 1]):
                if column[e] != systematic + target:
                    _add_rotated(out, word[column[e]], shift[e], size)
        for row in range(4, rows):
            out = word[systematic + row]
            out[:] = 0
            for e in range(first[row], first[row + 1] - 1):
                _add_rotated(out, word[column[e]], shift[e], size)


@njit(inline="always", **FLAGS)
def _satisfied(a, first, column, shift, rows, size, stride):
    """Whether the signs of all columns fulfil every row."""
    for row in range(rows):
        for o in range(0, size, LANES):
            sign = splat(0)
            for e in range(first[row], first[row + 1]):
                sign = exclusive_or(sign, load(a, int64(column[e]) * stride + LANES + shift[e] + o))
            wrong = negative(sign)
            if size - o < LANES:
                wrong &= (uint64(1) << uint64(size - o)) - uint64(1)
            if wrong:
                return False
    return True


@njit(inline="always", **FLAGS)
def _known(a, bits, size, stride):
    """Whether something is known of each of the first `bits` bits: signs of 0 would fulfil rows by chance."""
    for c in range(-(-bits // size)):
        for i in range(min(size, bits - c * size)):
            if a[c * stride + LANES + i] == 0:
                return False
    return True


@njit(inline="always", **FLAGS)
def _mend(a, at, shift, size):
    """Make both copies of a column whole again, of which [shift, shift + size) is valid."""
    i = shift
    while i > 0:
        store(a, at + i - LANES, load(a, at + size + i - LANES))
        i -= LANES
    i = shift
    while i < size:
        store(a, at + size + i, load(a, at + i))
        i += LANES


@njit(
    types.void(int8[:, ::1], *GRAPH, int64, int64, int64, int64, int8[:, ::1], boolean[::1], int32[::1]),
    **FLAGS,
)
def decode(llrs, first, column, shift, rows, columns, size, iterations, out, passed, taken):
    """Decode LLRs [blocks, columns Z], ln p(0)/p(1) in quarters, into those of the first `out.shape[1]` bits a block.

    A block has passed once all rows are fulfilled and something is known of each of these bits.

    A column lies twice in a row, so that a rotated read is a plain one.
    """
    padded = (size + LANES - 1) // LANES * LANES
    stride = LANES + 2 * size + 3 * LANES
    edges = first[rows]
    a = np.empty(columns * stride, np.int8)
    r = np.empty(edges * padded, np.int8)
    widest = 0
    for row in range(rows):
        widest = max(widest, first[row + 1] - first[row])
    t = np.empty(widest * padded, np.int8)
    lowest, zero, offset, largest = splat(-127), splat(0), splat(OFFSET), splat(LARGEST_MESSAGE)
    for block in range(llrs.shape[0]):
        llr = llrs[block]
        for c in range(columns):
            at = c * stride + LANES
            for i in range(size):
                a[at + i] = llr[c * size + i]
                a[at + size + i] = llr[c * size + i]
        r[:] = int8(0)
        ok = _satisfied(a, first, column, shift, rows, size, stride) and _known(a, out.shape[1], size, stride)
        iteration = 0
        while not ok and iteration < iterations:
            for row in range(rows):
                begin, end = first[row], first[row + 1]
                for o in range(0, padded, LANES):
                    least, second, sign = largest, largest, zero
                    for e in range(begin, end):
                        at = int64(column[e]) * stride + LANES + shift[e] + o
                        value = maximum(subtract_saturated(load(a, at), load(r, int64(e) * padded + o)), lowest)
                        store(t, (e - begin) * padded + o, value)
                        size_of = absolute(value)
                        sign = exclusive_or(sign, value)
                        second = minimum(second, maximum(least, size_of))
                        least = minimum(least, size_of)
                    usual = maximum(subtract_saturated(least, offset), zero)
                    other = maximum(subtract_saturated(second, offset), zero)
                    for e in range(begin, end):
                        value = load(t, (e - begin) * padded + o)
                        message = signed_as(
                            where_equal(absolute(value), least, other, usual), exclusive_or(sign, value)
                        )
                        store(r, int64(e) * padded + o, message)
                        at = int64(column[e]) * stride + LANES + shift[e] + o
                        store(a, at, maximum(add_saturated(value, message), lowest))
                for e in range(begin, end):
                    _mend(a, int64(column[e]) * stride + LANES, shift[e], size)
            iteration += 1
            ok = _satisfied(a, first, column, shift, rows, size, stride) and _known(a, out.shape[1], size, stride)
        passed[block] = ok
        taken[block] = iteration
        for c in range(-(-out.shape[1] // size)):
            for i in range(min(size, out.shape[1] - c * size)):
                out[block, c * size + i] = a[c * stride + LANES + i]
