"""The code of headers and captions: extended Golay, sent three times, decoded by maximum likelihood.

Twelve bits become a codeword of the extended Golay code (24, 12, 8): the message, its remainder modulo
g(x) = x^11 + x^10 + x^6 + x^5 + x^4 + x^2 + 1 (Golay, "Notes on digital coding", Proc. IRE 37, 1949), and an
even parity bit. The first four bits of all codewords of a stretch stand before the second four of any, and so on:
a burst is shared out among the words, and every word has as many sign bits of 16QAM symbols as amplitude bits,
which err twice as often. The whole is sent three times over, so that a fade must come back to harm. The rate is
1/6. By the union bound over its 759 nearest neighbours the resulting (72, 12, 24) code fails once in 5 x 10^7
words at a bit error rate of .042, once in 3,000 at .1.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache

import numpy as np

MESSAGE, WORD, COPIES = 12, 24, 3
GENERATOR = 0b1100_0111_0101
_AT_ONCE = 512  # words decoded at once: 8 MiB of correlations


@cache
def codebook() -> np.ndarray:
    """Return all codewords, one a row, by message: uint8 (4096, 24)."""
    rows = np.zeros((MESSAGE, WORD), np.uint8)
    for i in range(MESSAGE):
        remainder = word = 1 << (WORD - 2 - i)
        for shift in range(MESSAGE - 1, -1, -1):
            if remainder >> (shift + 11) & 1:
                remainder ^= GENERATOR << shift
        word |= remainder
        rows[i] = [*(word >> shift & 1 for shift in range(WORD - 2, -1, -1)), word.bit_count() & 1]
    messages = np.arange(1 << MESSAGE)[:, None] >> np.arange(MESSAGE - 1, -1, -1) & 1
    return (messages @ rows & 1).astype(np.uint8)


def coded_length(bits: int) -> int:
    """Return how many bits `encode` makes of so many."""
    return -(-bits // MESSAGE) * WORD * COPIES


def encode(bits: np.ndarray) -> np.ndarray:
    """Return the coded bits of `bits` (uint8, 0 or 1), the last word filled up with zeros.

    >>> encode(np.zeros(13, np.uint8)).size
    144
    """
    filled = np.zeros((-(-bits.size // MESSAGE), MESSAGE), np.uint8)
    filled.ravel()[: bits.size] = bits
    messages = filled @ (1 << np.arange(MESSAGE - 1, -1, -1))
    return np.tile(codebook()[messages].reshape(-1, WORD // 4, 4).swapaxes(0, 1).ravel(), COPIES)


def decode(soft: np.ndarray) -> np.ndarray:
    """Return the likeliest message for soft values (float32, positive for 0, zero for unknown) of coded bits.

    Where all bits are equally reliable, hard decisions as +1 and -1 do as well as log-likelihood ratios.
    """
    return next(candidates(soft, 0))


def candidates(soft: np.ndarray, unsure: int) -> Iterator[np.ndarray]:
    """Yield messages as `decode` does, the likeliest first, then those with the next likeliest of some words.

    These are the words, so many at most, in which the two are least apart: 2^`unsure` messages in falling likelihood,
    among which a checksum may choose (after D. Chase, "A class of algorithms for decoding block codes with channel
    measurement information", IEEE Trans. Inf. Theory 18(1), 1972). As many times more often it is right by chance.
    """
    words = soft.reshape(COPIES, WORD // 4, -1, 4).sum(0).swapaxes(0, 1).reshape(-1, WORD)
    antipodal = (1 - 2 * codebook().astype(np.float32)).T
    first, second = np.empty(len(words), int), np.empty(len(words), int)
    apart = np.empty(len(words), np.float32)
    for at in range(0, len(words), _AT_ONCE):
        part = slice(at, at + _AT_ONCE)
        likeness = words[part] @ antipodal
        rows = np.arange(len(likeness))
        first[part] = likeness.argmax(1)
        best = likeness[rows, first[part]]
        likeness[rows, first[part]] = -np.inf
        second[part] = likeness.argmax(1)
        apart[part] = best - likeness[rows, second[part]]
    doubtful = np.argsort(apart)[:unsure]
    choices = np.array(list(itertools.product((False, True), repeat=len(doubtful))), bool)
    for chosen in choices[np.argsort(choices @ apart[doubtful], kind="stable")]:
        messages = first.copy()
        messages[doubtful[chosen]] = second[doubtful[chosen]]
        yield codebook()[messages, :MESSAGE].ravel()
