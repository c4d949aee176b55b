"""What the blocks that run a model have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

import models
from flowgraph.block import Block, BlockError, Params
from models import weights

NAMED: Any = {"path": "maybe"}  # of a parameter that takes a model's folder, or its name


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|(cuda|mps|xpu)(:\d+)?", text):
        raise ValueError(f"must be auto, cpu, cuda, cuda:1, ..., not {text!r}")
    return text


Device = Annotated[str, AfterValidator(_device)]
DEVICE: Any = Field("auto", description="where the model computes: auto, cpu, cuda, cuda:1, ...")
KERNEL_DEVICE: Any = Field(
    "cpu", description="where it computes: cpu, a GPU by torch as cuda (its speed is unmeasured), or auto"
)


def gpu(device: str) -> Any | None:
    """Return the torch device that a block's kernels run on, or None for the CPU's own, which need no torch.

    Raises `BlockError`, for a device without float64 (mps has none) too.
    """
    if device == "cpu":
        return None
    import torch

    try:
        placed = weights.place(device, "float32").device
    except ValueError as error:
        raise BlockError(str(error)) from None
    if placed.type == "cpu":
        return None
    try:
        torch.zeros(1, dtype=torch.float64, device=placed)
    except (RuntimeError, TypeError, AssertionError) as error:  # as torch tells it of mps, xpu and of no such device
        reason = str(error).partition("\n")[0]
        raise BlockError(f"device must be one where torch computes in float64, not {device!r}: {reason}") from None
    return placed


class ModelParams(Params):
    """Which version of a model, where it computes, and with which numbers."""

    revision: str | None = Field(None, description="branch, tag or commit of a model named by its hub id")
    device: Device = DEVICE
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="numbers the model computes with"
    )

    def options(self) -> dict[str, Any]:
        """Return these parameters as a loader takes them."""
        return {"revision": self.revision, "device": self.device, "dtype": self.dtype}


def load(block: Block, loader: Callable[..., Any], name: str, **options: Any) -> Any:
    """Return what `loader` makes of a model's name, for a block to keep; what is missing is told in its sentence."""
    try:
        return block.cached(loader, name, **options)
    except (models.ModelMissing, ValueError) as error:
        raise BlockError(str(error)) from None


def image_size(name: str) -> tuple[int, int]:
    """Return height and width of the pictures that a model's autoencoder was made for, which its config tells.

    Raises `models.ModelMissing`.
    """
    side = weights.config(weights.part(weights.find(name), "vae", ".")).get("sample_size") or 512
    return side, side
