"""One training loop for every model: AdamW on a clock, averaged weights, checkpoints to resume from."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

WARM_UP = 0.02  # share of the training time over which the learning rate rises
CHECKPOINT_SECONDS = 300.0


def train(
    model: torch.nn.Module,
    loss_of: Callable[[np.random.Generator, float], torch.Tensor],
    validate: Callable[[torch.nn.Module], str],
    checkpoint: Path,
    *,
    minutes: float,
    learning_rate: float,
    weight_decay: float = 0.01,
    average: float = 0.999,
    on_checkpoint: Callable[[torch.nn.Module], None] = lambda averaged: None,
) -> torch.nn.Module:
    """Train `model` for so many minutes of work and return the moving average of its weights.

    `loss_of(random, progress)` draws a batch and gives its loss; progress runs from 0 to 1 with the clock,
    and the learning rate follows half a cosine of it, so that a shared machine changes the number of steps,
    not the schedule. Every five minutes `validate` prints its figures and `checkpoint` is replaced; a run
    that finds one goes on from there.
    """
    import torch

    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, learning_rate, betas=(0.9, 0.99), weight_decay=weight_decay, fused=True)

    def blend(old, new, count) -> None:
        torch._foreach_lerp_(old, new, max(1 - average, 10 / (int(count) + 10)))

    averaged = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=blend)
    elapsed, step = _resume(checkpoint, averaged, optimizer, model) if checkpoint.exists() else (0.0, 0)
    saved, smooth, started = elapsed, 0.0, step
    while elapsed < 60 * minutes:
        begin = time.monotonic()
        progress = elapsed / (60 * minutes)
        rate = learning_rate * min(1.0, progress / WARM_UP + 0.01) * (0.5 + 0.5 * math.cos(math.pi * progress))
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(np.random.default_rng([step, 2026]), progress)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        averaged.update_parameters(model)
        step += 1
        smooth += (loss.item() - smooth) * max(0.01, 1 / (step - started))
        elapsed += time.monotonic() - begin
        if elapsed - saved > CHECKPOINT_SECONDS or elapsed >= 60 * minutes:
            saved = elapsed
            _save(checkpoint, averaged, optimizer, model, elapsed, step)
            averaged.module.eval()
            on_checkpoint(averaged.module)
            figures = validate(averaged.module)
            print(f"{elapsed / 60:5.1f} min, step {step}, loss {smooth:.4f}, {figures}", flush=True)
    return averaged.module.eval()


def _save(path: Path, averaged, optimizer, model, elapsed: float, step: int) -> None:
    from safetensors.torch import save_file

    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in averaged.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    # Tied weights share memory and channels_last ones are strided; a file holds neither.
    plain = {name: value.detach().contiguous().clone() for name, value in tensors.items()}
    fresh = path.with_suffix(".new")
    save_file(plain, fresh, {"progress": json.dumps({"elapsed": elapsed, "step": step})})
    fresh.replace(path)


def _resume(path: Path, averaged, optimizer, model) -> tuple[float, int]:
    from safetensors import safe_open

    with safe_open(path, "pt") as stored:
        progress = json.loads(stored.metadata()["progress"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118

    def under(prefix: str) -> dict:
        return {name.removeprefix(prefix): v for name, v in tensors.items() if name.startswith(prefix)}

    model.load_state_dict(under("model."))
    averaged.load_state_dict(under("average."))
    state: dict[int, dict] = {}
    for name, value in under("optimizer.").items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    print(f"going on from {progress['elapsed'] / 60:.1f} min, step {progress['step']}", flush=True)
    return progress["elapsed"], progress["step"]
