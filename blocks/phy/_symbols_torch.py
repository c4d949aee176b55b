"""Decisions and LLRs as functions of torch tensors, on any device: what `blocks.phy._symbols` does on a CPU.

In double precision, as there: results differ by the rounding of float32 alone.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from blocks.phy.constellation import AnyModulation, constellation

HELD = 1 << 24  # distances that are held at a time
LLR_LARGEST = 1e30
LARGEST_WEIGHT = float(np.finfo(np.float32).max)


def _distances(y: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """|y - x|^2 less |y|^2, which all points have in common: float64 [N, points]."""
    i, q = y.real.double()[:, None], y.imag.double()[:, None]
    return points.abs().square() - 2 * (i * points.real + q * points.imag)


def decide(y: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return the bits, packed into uint8, of the points next to symbols y complex64 [N]; zeros for one not finite.

    `points`, complex128 [2^b], are in the order of their labels.
    """
    bits, parts = int(math.log2(len(points))), []
    for part in y.split(HELD // len(points)):
        labels = torch.where(torch.isfinite(part), _distances(part, points).argmin(1), 0)
        parts.append(labels[:, None] >> torch.arange(bits - 1, -1, -1, device=y.device) & 1)
    flat = torch.cat(parts).flatten()
    rows = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).reshape(-1, 8)
    return (rows << torch.arange(7, -1, -1, device=y.device)).sum(1).to(torch.uint8)


def llr(y: torch.Tensor, scale: torch.Tensor, points: torch.Tensor, exact: bool = False) -> torch.Tensor:
    """Return LLRs ln p(bit = 0) / p(bit = 1) of symbols y complex64 [N]: float32 [N b], within +-1e30.

    `scale`, float64 [1] or [N], is 1 / N0, where symbols were equalised |h|^2 / N0; `points`, complex128 [2^b], are in
    the order of their labels. Max-log, for every bit: `scale` (min over points x with bit 1 of |y-x|^2, less that with
    bit 0). `exact`: ln of the sum over points with bit 0 of exp(-|y-x|^2 scale), less that with bit 1. A symbol or a
    scale that is not finite gives zeros.
    """
    bits, parts = int(math.log2(len(points))), []
    step = HELD // len(points)
    for part, by in zip(y.split(step), scale.expand(len(y)).split(step), strict=True):
        metric = _distances(part, points) * -by[:, None] if exact else _distances(part, points)
        found = []
        for bit in range(bits):
            by_bit = metric.unflatten(1, (1 << bit, 2, -1))
            zero, one = (by_bit.logsumexp((1, 3)) if exact else by_bit.amin((1, 3))).unbind(1)
            found.append(zero - one if exact else (one - zero) * by)
        llrs = torch.stack(found, 1)
        usable = torch.isfinite(part) & torch.isfinite(by)
        parts.append(torch.where(usable[:, None], llrs, 0.0).clamp(-LLR_LARGEST, LLR_LARGEST).float())
    return torch.cat(parts).flatten()


def to_int8(llrs: torch.Tensor) -> torch.Tensor:
    """Return round(4 LLR), saturated at +-127."""
    return (4 * llrs).clamp(-127, 127).round().to(torch.int8)


class Modem:
    """The functions `decide` and `llr` of `blocks.phy.qam`, arrays in and arrays out, computed on a torch device."""

    def __init__(self, device: torch.device | str):
        self.device = device

    def decide(self, symbols: np.ndarray, modulation: AnyModulation = "16qam") -> np.ndarray:
        """Return what `blocks.phy.qam.decide` does."""
        return decide(self._tensor(symbols), self._points(modulation)).cpu().numpy()

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
        scale = torch.full((1,), 1 / max(n0, 1e-36), dtype=torch.float64, device=self.device)
        if gains is not None:
            weight = self._tensor(gains).to(torch.complex128).abs().square()
            scale = scale * torch.where(weight <= LARGEST_WEIGHT, weight, 0.0)
        llrs = llr(self._tensor(symbols), scale, self._points(modulation), exact)
        return (to_int8(llrs) if int8 else llrs).cpu().numpy()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.tensor(array, device=self.device)

    def _points(self, modulation: AnyModulation) -> torch.Tensor:
        points = constellation(modulation).points.astype(np.complex64)
        return torch.tensor(points, dtype=torch.complex128, device=self.device)
