"""The channels as functions of torch tensors: batched and differentiable, to train networks without a flowgraph.

The conventions are those of the channel blocks: noise of variance N0 per complex sample, N0/2 in each of I and Q, gains
with E|h|^2 = 1. The random numbers are torch's, and so are not those of the blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch


def normalise(x: torch.Tensor) -> torch.Tensor:
    """Return symbols complex64 [B, N] scaled so that each row has unit mean power."""
    return x / x.abs().square().mean(-1, keepdim=True).sqrt()


def link(
    x: torch.Tensor,
    esn0: float | torch.Tensor,
    fading: Literal["none", "symbol", "block"] = "none",
    equalize: Literal["zf", "mmse", "none"] = "zf",
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Return symbols as they are received: y = h x + n, equalised by the known gains.

    `x` is complex [B, N], of unit power where `esn0` is to be Es/N0, which is in dB, one for all or one a row, [B].
    `fading` is none (h = 1), or Rayleigh, h anew for every symbol or for every row. `equalize` returns y / h (zf),
    y h* / (|h|^2 + N0) (mmse) or y (none). Gradients flow to `x` and, where it is a tensor, to `esn0`.

    >>> import torch
    >>> x = torch.ones(2, 1000, dtype=torch.complex64)
    >>> noise = link(x, 10.0, generator=torch.Generator().manual_seed(1)) - x
    >>> round(float(noise.abs().square().mean()), 2)
    0.1

    Raises `ValueError` for symbols that are not complex [B, N].
    """
    import torch

    if not (x.is_complex() and x.ndim == 2):
        raise ValueError(f"x must be complex [B, N], not {x.dtype} {list(x.shape)}")

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=x.dtype, device=x.device, generator=generator)

    n0 = 10 ** (-torch.as_tensor(esn0, dtype=x.real.dtype, device=x.device).reshape(-1, 1) / 10)
    noise = n0.sqrt() * normal(*x.shape)
    if fading == "none":
        return x + noise
    if fading not in ("symbol", "block"):
        raise ValueError(f"fading must be none, symbol or block, not {fading!r}")
    h = normal(len(x), x.shape[1] if fading == "symbol" else 1)
    y = h * x + noise
    if equalize == "none":
        return y
    if equalize not in ("zf", "mmse"):
        raise ValueError(f"equalize must be zf, mmse or none, not {equalize!r}")
    return y * h.conj() / (h.abs().square() + (n0 if equalize == "mmse" else 0))
