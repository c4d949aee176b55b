"""What a person waits for: the answer of `check`, and an image of the embedded receiver.

`python -m benchmarks.waiting` prints the figures alone.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHECKS = 5
STEPS, GUIDANCE = 30, 9.0  # the paper's


def check() -> float:
    """Return seconds that `check configs/main.yaml` takes, the median of several processes."""
    command = [sys.executable, str(ROOT / "run_flowgraph.py"), "check", str(ROOT / "configs/main.yaml")]
    seconds = []
    # as for a user, whose Python keeps what it has compiled
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    for _ in range(CHECKS):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True, env=environment)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def receive() -> float:
    """Return seconds that an image takes the embedded receiver, alone in its batch, on all CPUs."""
    import numpy as np
    import torch

    import models

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    receiver = models.load_receiver("embedded", device="cpu")
    height, width = (side // receiver.vae.factor for side in receiver.size)
    latent = np.random.default_rng(1).standard_normal((1, receiver.vae.channels, height, width), np.float32)
    for steps in (1, STEPS):  # the first call is not timed
        began = time.perf_counter()
        receiver.regenerate(latent, ["a dog runs along the beach"], steps=steps, guidance=GUIDANCE, seeds=[1])
    return time.perf_counter() - began


def main() -> dict[str, float]:
    results = {"check_s": check(), "image_s": receive()}
    print(f"check configs/main.yaml: {results['check_s']:.2f} s")
    print(f"embedded receiver, T = {STEPS}, guidance {GUIDANCE:g}: {results['image_s']:.2f} s an image")
    return results


if __name__ == "__main__":
    main()
