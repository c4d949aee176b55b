"""The LDPC code of 5G NR as pure functions: 3GPP TS 38.212, clauses 5.2.2, 5.3.2 and 5.4.2.

LLRs are ln p(0)/p(1) in quarters, int8, as `qam_demapper` gives them with `output: llr8`.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources
from typing import Any, NamedTuple

import numpy as np

from blocks.arrays import array
from blocks.fec.order import block_order

SYSTEMATIC = {1: 22, 2: 10}  # systematic columns of a base graph
LARGEST = {1: 8448, 2: 3840}  # bits of a code block
REDUNDANCY = {1: (0, 17, 33, 56), 2: (0, 13, 25, 43)}  # where each redundancy version begins, in columns
PUNCTURED = 2  # first columns, never sent


class Decoded(NamedTuple):
    """What a decoder makes of some blocks.

    llrs        int8 [blocks, k], in quarters
    ok          bool [blocks], whether all checks hold and no LLR of the k bits is 0
    iterations  int32 [blocks]
    """

    llrs: np.ndarray
    ok: np.ndarray
    iterations: np.ndarray

    @property
    def bits(self) -> np.ndarray:
        """Hard decisions, uint8 [blocks, k] of 0 and 1."""
        return (self.llrs < 0).view(np.uint8)


def base_graph(bits: int, rate: float) -> int:
    """Return the base graph, 1 or 2, for a payload of so many bits (TS 38.212, 6.2.2).

    >>> base_graph(8000, 0.5), base_graph(300, 0.5), base_graph(8000, 0.2)
    (1, 2, 2)
    """
    return 2 if bits <= 292 or (bits <= 3824 and rate <= 0.67) or rate <= 0.25 else 1


@functools.cache
def _table() -> np.ndarray:
    """Base graphs, row, column and eight shifts of every edge: int32 [edges, 11] (Tables 5.3.2-2 and 5.3.2-3)."""
    text = (resources.files("blocks.fec") / "ldpc_base_graphs.csv").read_text(encoding="ascii")
    return np.array([line.split(",") for line in text.split()[1:]], np.int32)


@functools.cache
def lifting_sizes() -> dict[int, int]:
    """Lifting sizes Z in rising order, with the set that each is in (Table 5.3.2-1)."""
    sizes = {a << j: index for index, a in enumerate((2, 3, 5, 7, 9, 11, 13, 15)) for j in range(8)}
    return {size: sizes[size] for size in sorted(sizes) if size <= 384}


class _Lifted(NamedTuple):
    """A base graph at a lifting size: the first edge of each row, and column and shift of every edge."""

    first: np.ndarray
    column: np.ndarray
    shift: np.ndarray


@functools.cache
def _lifted(graph: int, size: int) -> _Lifted:
    edges = _table()[_table()[:, 0] == graph]
    rows = edges[:, 1]
    first = np.searchsorted(rows, np.arange(rows[-1] + 2)).astype(np.int32)
    shift = edges[:, 3 + lifting_sizes()[size]] % size
    return _Lifted(first, np.ascontiguousarray(edges[:, 2]), np.ascontiguousarray(shift))


@dataclass(frozen=True)
class LdpcCode:
    """One code block of k bits sent as n, in one redundancy version or in several: `encode`, then `decode`.

    k        bits to protect, at most 8448 (base graph 1) or 3840 (base graph 2)
    n        bits sent of a version; more than the code has repeats them
    graph    base graph, 1 or 2
    order    bits a symbol that the sent bits are interleaved for (5.4.2.2; a last symbol may be incomplete)
    versions redundancy versions, 0 to 3, in the order sent; 0 holds the payload, 1 and 2 alone decode at low rates only

    Several versions are hybrid ARQ with incremental redundancy, the same one again is Chase combining: their LLRs add
    up. Raises `ValueError` for a rate above 1, and a k that the base graph does not hold. Of a rate above 9/10, or of
    fewer than 8 bits more than k, a block may not decode even without noise, as two columns are never sent: `ok` tells.

    >>> code = LdpcCode(100, 200, 2)
    >>> bits = np.random.default_rng(1).integers(0, 2, (3, 100), np.uint8)
    >>> sent = code.encode(bits)
    >>> decoded = code.decode(np.where(sent, -20, 20).astype(np.int8))
    >>> bool((decoded.bits == bits).all()), decoded.iterations.tolist()
    (True, [1, 1, 1])
    """

    k: int
    n: int
    graph: int
    order: int = 1
    versions: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        object.__setattr__(self, "versions", tuple(self.versions))  # a list would do as well
        if self.graph not in LARGEST:
            raise ValueError(f"graph must be 1 or 2, not {self.graph}")
        if not 1 <= self.k <= LARGEST[self.graph]:
            raise ValueError(f"k must be 1 to {LARGEST[self.graph]} for base graph {self.graph}, not {self.k}")
        if self.order < 1:
            raise ValueError(f"order must be at least 1, not {self.order}")
        if self.n < self.k:
            raise ValueError(f"n must be at least k, {self.k}, not {self.n}: the rate cannot exceed 1")
        if not self.versions or not {*self.versions} <= {0, 1, 2, 3}:
            raise ValueError(f"versions must be one or more of 0 to 3, not {self.versions}")

    @functools.cached_property
    def lifting(self) -> int:
        """Lifting size Z: the smallest for which the used systematic columns hold k bits (5.2.2)."""
        used = SYSTEMATIC[self.graph]
        if self.graph == 2:
            used = next(columns for columns, above in ((10, 640), (9, 560), (8, 192), (6, 0)) if self.k > above)
        return next(size for size in lifting_sizes() if used * size >= self.k)

    @property
    def _columns(self) -> int:
        return {1: 68, 2: 52}[self.graph]

    @property
    def buffer_bits(self) -> int:
        """Bits of the circular buffer: all but the first two columns of the mother code, fillers among them."""
        return (self._columns - PUNCTURED) * self.lifting

    @property
    def _used_columns(self) -> int:
        """Columns of the mother code up to the last one of which a bit is sent, the first four of parity at least."""
        last = int(_places(self).max()) // self.lifting
        return min(max(SYSTEMATIC[self.graph] + 4, PUNCTURED + last + 1), self._columns)

    def encode(self, bits: np.ndarray) -> np.ndarray:
        """Return uint8 [blocks, n versions] of 0 and 1 for bits uint8 [blocks, k], one version after the other.

        Raises `ValueError` for bits of another shape, and for other values than 0 and 1.
        """
        from blocks.fec import _ldpc

        bits = array("bits", bits, np.uint8, None, self.k)
        if bits.max(initial=0) > 1:
            raise ValueError(f"bits must be 0 or 1, not {bits.max()}")
        size, systematic = self.lifting, SYSTEMATIC[self.graph]
        words = np.zeros((len(bits), self._columns, size), np.uint8)
        words.reshape(len(bits), self._columns * size)[:, : self.k] = bits
        graph = _lifted(self.graph, size)
        core = graph.shift[(graph.column == systematic) & (np.arange(len(graph.shift)) < graph.first[4])]
        alone = next(int(s) for s in core if (core == s).sum() == 1)
        _ldpc.encode(words, systematic, *graph, self._used_columns - systematic, alone)
        return words.reshape(len(bits), self._columns * size)[:, PUNCTURED * size + _places(self)]

    def decode(self, llrs: np.ndarray, iterations: int = 20, device: Any = None) -> Decoded:
        """Decode LLRs int8 [blocks, n versions] (0 is erased) by layered offset min-sum, until blocks are `ok`.

        J. Chen et al., "Reduced-complexity decoding of LDPC codes", 2005; layers after M. Mansour and N. Shanbhag,
        2003. With a CUDA `device` of torch it is computed there, to the same bits.

        Raises `ValueError` for another number of LLRs, or LLRs that are not int8.
        """
        from blocks.fec import _ldpc

        llrs = array("llrs", llrs, np.int8, None, self.n * len(self.versions))
        blocks, size, systematic, columns = len(llrs), self.lifting, SYSTEMATIC[self.graph], self._used_columns
        channel = self._combined(llrs, _ldpc.CLIPPED)
        graph = _lifted(self.graph, size)
        if device is not None:
            import torch

            from blocks.fec import _ldpc_triton

            on_device = torch.from_numpy(channel).to(device)
            soft, *rest = _ldpc_triton.decode(on_device, *graph, columns - systematic, size, self.k, iterations)
            return Decoded(*(each.cpu().numpy() for each in (soft[:, : self.k], *rest)))
        decoded = np.empty((blocks, self.k), np.int8)
        ok, taken = np.empty(blocks, np.bool_), np.empty(blocks, np.int32)
        _ldpc.decode(channel, *graph, columns - systematic, columns, size, iterations, decoded, ok, taken)
        return Decoded(decoded, ok, taken)

    def _combined(self, llrs: np.ndarray, largest: int) -> np.ndarray:
        """Return LLRs by their places in the mother code, those of one bit added up: int8 [blocks, used columns Z]."""
        first, places = PUNCTURED * self.lifting, _places(self)
        shape = len(llrs), self._used_columns * self.lifting
        rounds = _rounds(self)
        if rounds.any():
            total = np.zeros(shape, np.int32)
            for each in range(rounds.max() + 1):
                now = np.flatnonzero(rounds == each)
                total[:, first + places[now]] += llrs[:, now]
            channel = np.clip(total, -largest, largest).astype(np.int8)
        else:
            channel = np.zeros(shape, np.int8)
            channel[:, first + places] = np.clip(llrs, -largest, largest)
        channel[:, self.k : SYSTEMATIC[self.graph] * self.lifting] = 127  # fillers are known to be 0
        return channel


@functools.lru_cache(64)
def _places(code: LdpcCode) -> np.ndarray:
    """Places in the circular buffer of the bits sent, in that order, version after version: [n versions].

    Selected as in 5.4.2.1, and interleaved as in 5.4.2.2, in a row for each bit of a symbol.
    """
    size, sent = code.lifting, block_order(code.n, code.order)
    selected = []
    for version in code.versions:
        places = np.roll(np.arange(code.buffer_bits, dtype=np.int64), -REDUNDANCY[code.graph][version] * size)
        fillers = (places >= code.k - PUNCTURED * size) & (places < (SYSTEMATIC[code.graph] - PUNCTURED) * size)
        selected.append(np.resize(places[~fillers], code.n)[sent])
    return np.concatenate(selected)


@functools.lru_cache(64)
def _rounds(code: LdpcCode) -> np.ndarray:
    """How often each of the bits sent has been sent before: [n versions]."""
    places = _places(code)
    order = np.argsort(places, kind="stable")
    run = np.arange(len(places))
    begins = np.diff(places[order], prepend=-1) > 0
    rounds = np.empty_like(run)
    rounds[order] = run - np.maximum.accumulate(np.where(begins, run, 0))
    return rounds
