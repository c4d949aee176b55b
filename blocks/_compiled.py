"""What all compiled kernels share: options, the width of vectors, types of arrays that are only read, an announcer."""

# mypy: ignore-errors
# (the types in here are Numba's)
from __future__ import annotations

import logging
from typing import Any

from llvmlite.binding import get_host_cpu_features
from numba import float32, types, uint8, uint64
from numba.core import config, event

FLAGS: dict[str, Any] = {"nogil": True, "cache": True, "error_model": "numpy"}

if config.CPU_FEATURES is None and get_host_cpu_features().get("avx512f"):
    # For Intel's processors LLVM keeps to half of the widest vectors, for the first of them that had these slowed down
    # at the sight of one. Kernels that use little else run half as fast again with all of it.
    config.CPU_FEATURES = get_host_cpu_features().flatten() + ",-prefer-256-bit"


def array_in(dtype: types.Type) -> types.Array:
    """Type of an array that is only read, wherever it lies."""
    return types.Array(dtype, 1, "C", readonly=True, aligned=False)


BYTES_IN, WORDS_IN, FLOATS_IN = array_in(uint8), array_in(uint64), array_in(float32)


class _Announcer(event.Listener):
    """Logs whose kernels are being compiled, which takes seconds; from then on they come from Numba's cache."""

    def on_start(self, event):
        module = event.data["dispatcher"].py_func.__module__
        if not module.startswith("numba."):  # what a kernel is made of
            logging.getLogger("semflow").info("compiling the kernels of %s, once on this machine", module)

    def on_end(self, event):
        pass


event.register("numba:compile", _Announcer())
