"""Where a model's files are, and how a part of them becomes a module on a device."""

from __future__ import annotations

import json
import re
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class ModelMissing(Exception):
    """A model's files are absent or incomplete; the message says what to fetch and where to put it."""


def find(name: str, *, revision: str | None = None) -> Path:
    """The folder of a model: `embedded`, a path, or a hub id (`owner/name`) in the local Hugging Face cache.

    Nothing is ever downloaded, so the answer is the same offline. Raises `ModelMissing`.
    """
    if name == "embedded":
        return Path(str(resources.files("models") / "embedded"))
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if not HUB_ID.fullmatch(name):
        raise ModelMissing(f"model must be 'embedded', an existing folder or a hub id, not {name!r}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        at = f" --revision {revision}" if revision else ""
        raise ModelMissing(
            f"model {name} is not on this machine: fetch it with `hf download {name}{at}`, then its id works "
            f"offline, or put its files into a folder and give that folder's path instead"
        ) from None


def part(folder: Path, *names: str) -> Path:
    """The first of a model's sub-folders `names` that has a `config.json`; `"."` is the folder itself."""
    for name in names:
        if (folder / name / "config.json").is_file():
            return folder / name
    wanted = " or ".join(str(folder / name / "config.json") for name in names)
    raise ModelMissing(f"model folder {folder} is incomplete: {wanted} must exist; fetch it again")


def config(folder: Path) -> dict[str, Any]:
    """What the `config.json` of a model's folder says. Raises `ModelMissing` where it is broken."""
    path = folder / "config.json"
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(said, dict):
            raise ValueError("no mapping of names to values")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelMissing(f"{path} cannot be read as a model's config ({error}); fetch it again") from None
    return said


class Placement(NamedTuple):
    """A torch device and the dtype of the weights on it."""

    device: Any
    dtype: Any


def place(device: str, dtype: str) -> Placement:
    """Resolve `auto`: CUDA where there is one, bfloat16 there and float32 on a CPU. Raises `ValueError`."""
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        where = torch.device(device)
    except RuntimeError:
        raise ValueError(f"device must be auto, cpu or cuda[:n], not {device!r}") from None
    if where.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must be auto or cpu where torch sees no GPU, not {device!r}")
    kinds = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    kinds["auto"] = torch.bfloat16 if where.type == "cuda" else torch.float32
    if dtype not in kinds:
        raise ValueError(f"dtype must be one of {', '.join(kinds)}, not {dtype!r}")
    return Placement(where, kinds[dtype])


def load(model_class: Any, folder: Path, placement: Placement, **options: Any) -> Any:
    """`model_class.from_pretrained(folder)`, safetensors only, for inference. Raises `ModelMissing`."""
    import torch
    import transformers
    from safetensors import SafetensorError

    transformers.utils.logging.disable_progress_bar()
    key = "dtype" if model_class.__module__.startswith("transformers.") else "torch_dtype"
    options[key] = placement.dtype
    if key == "torch_dtype":
        options["low_cpu_mem_usage"] = False  # diffusers would ask for accelerate, which is not needed
    try:
        module = model_class.from_pretrained(folder, local_files_only=True, use_safetensors=True, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelMissing(
            f"model folder {folder} does not load as {model_class.__name__} ({reason}); "
            f"fetch its config.json and its .safetensors weights again"
        ) from error
    module = module.eval().requires_grad_(False)
    if placement.device.type == "cuda":
        module = module.to(memory_format=torch.channels_last)
    return module.to(placement.device)
