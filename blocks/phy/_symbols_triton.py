"""Decisions and LLRs on a GPU, as Triton kernels: what `blocks.phy._symbols` does on a CPU, for any constellation.

In single precision: LLRs differ by its rounding alone. Symbols lie on the GPU as float32 (I, Q, I, Q, ...), points
likewise, in the order of their labels.
"""

# mypy: ignore-errors
# (the types in here are Triton's)
from __future__ import annotations

import numpy as np
import torch
import triton
import triton.language as tl

from blocks.phy.constellation import AnyModulation, constellation

SYMBOLS = 512  # of a program
LARGEST = tl.constexpr(float(np.finfo(np.float32).max))
LLR_LARGEST = tl.constexpr(1e30)
UNROLLED = tl.constexpr(16)  # points: all of them at once would take minutes to compile for 256QAM
ROUND = tl.constexpr(1.5 * 2**23)  # (x + ROUND) - ROUND is x rounded, halves to even


@triton.jit
def _symbol(y, at, count):
    """I, Q, and whether both are finite, of the symbols at the places `at`."""
    i, q = tl.load(y + 2 * at, at < count, 0), tl.load(y + 2 * at + 1, at < count, 0)
    return i, q, (tl.abs(i) <= LARGEST) & (tl.abs(q) <= LARGEST)


@triton.jit
def _distance(i, q, points, label):
    """|y - x|^2 less |y|^2, which all points x have in common: of a huge y nothing else would be left."""
    a, b = tl.load(points + 2 * label), tl.load(points + 2 * label + 1)
    return a * (a - 2 * i) + b * (b - 2 * q)


@triton.jit
def _decide(y, points, labels, count, bits: tl.constexpr, symbols: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * symbols + tl.arange(0, symbols)
    i, q, finite = _symbol(y, at, count)
    least, best = _distance(i, q, points, 0), tl.zeros((symbols,), tl.int32)
    for label in tl.range(1, 1 << bits, loop_unroll_factor=UNROLLED):
        distance = _distance(i, q, points, label)
        best = tl.where(distance < least, label, best)
        least = tl.minimum(least, distance)
    tl.store(labels + at, tl.where(finite, best, 0).to(tl.uint8), at < count)


@triton.jit
def _llr(
    y,
    scale,
    points,
    out,
    count,
    bits: tl.constexpr,
    one_scale: tl.constexpr,
    int8: tl.constexpr,
    exact: tl.constexpr,
    symbols: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * symbols + tl.arange(0, symbols)
    i, q, finite = _symbol(y, at, count)
    by = tl.load(scale + (at * 0 if one_scale else at), at < count, 0)
    usable = finite & (tl.abs(by) <= LARGEST)
    for bit in tl.static_range(bits):
        zero, one = tl.full((symbols,), float("inf"), tl.float32), tl.full((symbols,), float("inf"), tl.float32)
        for label in tl.range(1 << bits, loop_unroll_factor=UNROLLED):
            distance, is_one = _distance(i, q, points, label), (label >> (bits - 1 - bit) & 1) == 1
            one = tl.where(is_one, tl.minimum(one, distance), one)
            zero = tl.where(is_one, zero, tl.minimum(zero, distance))
        llr = (one - zero) * by
        if exact:  # by what the other points add
            zeros, ones = tl.zeros((symbols,), tl.float32), tl.zeros((symbols,), tl.float32)
            for label in tl.range(1 << bits, loop_unroll_factor=UNROLLED):
                distance, is_one = _distance(i, q, points, label), (label >> (bits - 1 - bit) & 1) == 1
                term = tl.exp((tl.where(is_one, one, zero) - distance) * by)
                ones += tl.where(is_one, term, 0.0)
                zeros += tl.where(is_one, 0.0, term)
            llr += tl.log(zeros) - tl.log(ones)
        llr = tl.where(usable, llr, 0.0)
        if int8:
            llr = tl.minimum(tl.maximum(4 * llr, -127.0), 127.0)
            tl.store(out + at * bits + bit, ((llr + ROUND) - ROUND).to(tl.int8), at < count)
        else:
            tl.store(out + at * bits + bit, tl.minimum(tl.maximum(llr, -LLR_LARGEST), LLR_LARGEST), at < count)


def decide(y: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the labels, uint8 [N], of the points next to symbols y, float32 [N, 2]; 0 for one that is not finite."""
    labels = torch.empty(len(y), dtype=torch.uint8, device=y.device)
    if len(y):
        _decide[(triton.cdiv(len(y), SYMBOLS),)](y, points, labels, len(y), _bits(points), SYMBOLS)
    return labels


def llr(
    y: torch.Tensor, scale: torch.Tensor, points: torch.Tensor, int8: bool = False, exact: bool = False
) -> torch.Tensor:
    """Return LLRs ln p(bit = 0) / p(bit = 1) of symbols y, float32 [N, 2]: float32 [N b], within +-1e30.

    `scale`, float32 [1] or [N], is 1 / N0, where symbols were equalised |h|^2 / N0. Max-log, for every bit: `scale`
    (min over points x with bit 1 of |y-x|^2, less that with bit 0). `exact`: ln of the sum over points with bit 0 of
    exp(-|y-x|^2 scale), less that with bit 1. `int8`: round(4 LLR), saturated at +-127. A symbol or a scale that is not
    finite gives zeros.
    """
    bits = _bits(points)
    out = torch.empty(len(y) * bits, dtype=torch.int8 if int8 else torch.float32, device=y.device)
    if len(y):
        programs = (triton.cdiv(len(y), SYMBOLS),)
        _llr[programs](y, scale, points, out, len(y), bits, len(scale) == 1, int8, exact, SYMBOLS)
    return out


def _bits(points: torch.Tensor) -> int:
    return len(points).bit_length() - 1


def points_on(device: torch.device, modulation: AnyModulation) -> torch.Tensor:
    """Return a constellation's points as the kernels take them: float32 [2^b, 2] on a device."""
    return torch.view_as_real(torch.tensor(constellation(modulation).points.astype(np.complex64), device=device))


class Modem:
    """The functions `decide` and `llr` of `blocks.phy.qam`, arrays in and arrays out, computed on a GPU."""

    def __init__(self, device: torch.device):
        self.device = device

    def decide(self, symbols: np.ndarray, modulation: AnyModulation = "16qam") -> np.ndarray:
        """Return what `blocks.phy.qam.decide` does."""
        points = points_on(self.device, modulation)
        bits = torch.arange(_bits(points) - 1, -1, -1, device=self.device)
        flat = (decide(self._on_device(symbols), points)[:, None] >> bits & 1).flatten()
        rows = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).reshape(-1, 8)
        return (rows << torch.arange(7, -1, -1, device=self.device)).sum(1, dtype=torch.uint8).cpu().numpy()

    def llr(
        self,
        symbols: np.ndarray,
        n0: float,
        modulation: AnyModulation = "16qam",
        gains: np.ndarray | None = None,
        int8: bool = False,
        exact: bool = False,
    ) -> np.ndarray:
        """Return what `blocks.phy.qam.llr` does."""
        largest, scale = LARGEST.value, torch.full((1,), 1 / max(n0, 1e-36), device=self.device)
        if gains is not None:
            weight = self._on_device(gains).square().sum(1)
            scale = (scale * torch.where(weight <= largest, weight, 0.0)).clamp(max=largest)
        return llr(self._on_device(symbols), scale, points_on(self.device, modulation), int8, exact).cpu().numpy()

    def _on_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.view_as_real(torch.tensor(array, device=self.device))
