"""What the blocks that run a model have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field

import models
from flowgraph.block import BlockError, Params


class ModelParams(Params):
    """Where a model computes, and with which numbers."""

    device: str = Field("auto", description="where the model computes: auto, cpu, cuda, cuda:1, ...")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="numbers the model computes with"
    )


def load(loader: Callable[..., Any], name: str, **options: Any) -> Any:
    """Return what `loader` makes of a name; a model that is missing ends the run with its sentence."""
    try:
        return loader(name, **options)
    except models.ModelMissing as error:
        raise BlockError(str(error)) from None
