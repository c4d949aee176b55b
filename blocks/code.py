"""A user's own Python code, named in a config: a file or an installed module, and what to take from it."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from flowgraph.block import BlockError
from flowgraph.block import Params as BlockParams


class CodeParams(BlockParams):
    """Where the code is: on the host of the block's worker, in which it runs with all rights of that worker."""

    file: Annotated[str, Field(pattern=r"\.py$")] | None = Field(
        None, description="Python file that defines it (or give `module`)", json_schema_extra={"path": True}
    )
    module: str | None = Field(None, description="installed module that defines it, such as numpy")

    @model_validator(mode="after")
    def _one(self) -> CodeParams:
        if (self.file is None) == (self.module is None):
            raise ValueError("must have exactly one of file and module")
        return self


def load_named(name: str, *, file: str | None = None, module: str | None = None) -> Callable[..., Any]:
    """Return a function or class of a Python file or of a module. Raises `BlockError` when there is none."""
    place = file or module or ""
    try:
        if file is None:
            found = importlib.import_module(place)
        else:
            spec = importlib.util.spec_from_file_location(Path(file).stem, file)
            assert spec is not None
            assert spec.loader is not None
            found = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
    except (Exception, SystemExit) as error:
        raise BlockError(f"{place} could not be imported: {type(error).__name__}: {error}") from error
    function = getattr(found, name, None)
    if not callable(function):
        raise BlockError(f"{place} has no function or class {name}")
    return function
