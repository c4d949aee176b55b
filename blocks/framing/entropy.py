"""Entropy coding: asymmetric numeral systems, and a model of English captions.

J. Duda, "Asymmetric numeral systems: entropy coding combining speed of Huffman coding with compression rate of
arithmetic coding", arXiv 1311.2540. A message is one large integer: a symbol of frequency f out of M adds log2(M / f)
bits, and the whole ends less than a byte above its entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib import resources

import numpy as np

Frequencies = np.ndarray  # of every symbol, int64 [symbols], all at least 1
LONGEST = (1 << 16) - 1  # symbols, where only their end tells their number
ORDER = 5  # characters that the model looks back on
END = 128  # the symbol behind a text's last character
_UNIT = 1 << 20  # what probabilities are counted in


def encode(symbols: Sequence[int], frequencies: Sequence[Frequencies]) -> bytes:
    """Return symbols, each with the frequencies of all at its place, as bytes.

    >>> halves = [np.array([1, 1])] * 16
    >>> len(encode([0, 1] * 8, halves)), decode(encode([0, 1] * 8, halves), lambda known: halves[0], 16)[:4]
    (2, [0, 1, 0, 1])
    """
    state = 0
    for symbol, each in zip(reversed(symbols), reversed(frequencies), strict=True):
        sums = np.cumsum(each)
        turns, rest = divmod(state, int(each[symbol]))
        state = turns * int(sums[-1]) + int(sums[symbol] - each[symbol]) + rest
    return state.to_bytes(-(-state.bit_length() // 8), "big")


def decode(
    data: bytes, frequencies: Callable[[list[int]], Frequencies], count: int | None = None, end: int | None = None
) -> list[int]:
    """Return `count` symbols, or as many as come before `end`; `frequencies` has them for the symbols so far.

    Where `end` tells the number, `frequencies` may look back on the last `ORDER` symbols alone.

    Raises `ValueError` for data that `encode` did not make.
    """
    state, symbols = int.from_bytes(data, "big"), list[int]()
    still = 0  # symbols since the state last fell: only the first symbol leaves a state as it is
    while len(symbols) != count:
        each = frequencies(symbols)
        sums = np.cumsum(each)
        turns, place = divmod(state, int(sums[-1]))
        symbol = int(np.searchsorted(sums, place, side="right"))
        before, state = state, turns * int(each[symbol]) + place - int(sums[symbol] - each[symbol])
        if symbol == end:
            break
        symbols.append(symbol)
        still = still + 1 if state == before else 0
        # After so many of the same symbol, all that the next one follows from is as it was: they would go on for ever.
        if count is None and (still > ORDER or len(symbols) > LONGEST):
            raise ValueError("it does not end")
    if state:
        raise ValueError("there is more than it tells of")
    return symbols


# Captions


@cache
def _contexts() -> dict[bytes, np.ndarray]:
    """Return how often each symbol follows up to `ORDER` characters in `primer.txt`: int64 [END + 1] by context."""
    lines = (resources.files("blocks.framing") / "primer.txt").read_bytes().splitlines()
    counts: dict[bytes, np.ndarray] = {}
    for line in lines:
        symbols = [*line, END]
        for at, symbol in enumerate(symbols):
            for order in range(min(at, ORDER) + 1):
                counts.setdefault(line[at - order : at], np.zeros(END + 1, np.int64))[symbol] += 1
    return counts


def _frequencies(before: bytes) -> Frequencies:
    """Return the frequencies of what follows a text's characters so far.

    Each order is mixed with the shorter ones as I. H. Witten and T. C. Bell have it ("The zero-frequency problem",
    1991): (n_s + t p_s) / (n + t), where t different symbols followed the context. Integers, so that both ends agree.
    """
    p = np.full(END + 1, _UNIT // (END + 1), np.int64)
    for order in range(min(len(before), ORDER) + 1):
        seen = _contexts().get(before[len(before) - order :])
        if seen is not None:
            kinds = np.count_nonzero(seen)
            p = (seen * _UNIT + kinds * p) // (int(seen.sum()) + kinds)
    return p + 1


def compress(text: bytes) -> bytes:
    """Return ASCII text as few bytes: about 3 bits a character of captions, more of other text.

    >>> expand(compress(b"a dog runs on the beach"))
    b'a dog runs on the beach'
    """
    frequencies = [_frequencies(text[max(at - ORDER, 0) : at]) for at in range(len(text) + 1)]
    return encode([*text, END], frequencies)


def expand(data: bytes) -> bytes:
    """Return the text of `compress`. Raises `ValueError` for data that it did not make."""
    return bytes(decode(data, lambda known: _frequencies(bytes(known[-ORDER:])), end=END))
