"""What the blocks that run a model have in common."""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

import models
from flowgraph.block import Block, BlockError, Params
from models import weights

NAMED: Any = {"path": "maybe"}  # of a parameter that takes a model's folder, or its name


def _device_of(pattern: str) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"must be auto, cpu, cuda, cuda:1, ..., not {text!r}")
        return text

    return AfterValidator(check)


Device = Annotated[str, _device_of(r"auto|cpu|(cuda|mps|xpu)(:\d+)?")]
KernelDevice = Annotated[str, _device_of(r"auto|cpu|cuda(:\d+)?")]
DEVICE: Any = Field("auto", description="where the model computes: auto, cpu, cuda, cuda:1, ...")
KERNEL_DEVICE: Any = Field(
    "cpu", description="where it computes: cpu, a GPU as cuda, cuda:1, ..., or auto, a GPU where there is one"
)


def gpu(device: str) -> Any | None:
    """Return the torch device that a block's kernels run on, or None for the CPU's own, which need no torch.

    Raises `BlockError`, for a missing Triton too.
    """
    if device == "cpu":
        return None
    import torch

    try:
        placed = weights.place(device, "float32").device
        torch.empty(0, device=placed)
    except ValueError as error:
        raise BlockError(str(error)) from None
    except RuntimeError as error:  # no such GPU, as torch tells it
        raise BlockError(f"device {device!r} cannot be used: {str(error).partition(chr(10))[0]}") from None
    if placed.type == "cpu":
        return None
    if not find_spec("triton"):
        raise BlockError(f"device {device!r} needs Triton, which torch brings on Linux: pip install triton")
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
