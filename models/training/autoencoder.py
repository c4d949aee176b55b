"""Trains the embedded autoencoder: f8, four channels, `AutoencoderKL`."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from .data import read_training
from .loop import train

# Share of the time done, crop side, crops a batch: small crops learn fast, whole images settle the
# normalisation.
CROPS = ((0.0, 64, 16), (0.7, 96, 8), (0.9, 192, 2))
KL_WEIGHT = 2e-4  # enough to keep the latents near N(0, 1), too little to cost fidelity


def build():
    """An `AutoencoderKL` of 2.6 M parameters, its width where the resolution, and so the cost, is low."""
    import torch
    from diffusers import AutoencoderKL

    torch.manual_seed(2026)
    model: Any = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(16, 32, 64, 128),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=192,
        mid_block_add_attention=False,
    )
    return model.to(memory_format=torch.channels_last)


def crops(images: np.ndarray, random: np.random.Generator, side: int, count: int):
    """Random crops, half of them mirrored: float32 [count, 3, side, side] in -1..1."""
    import torch

    batch = np.empty((count, side, side, 3), np.uint8)
    for crop in batch:
        image = images[random.integers(len(images))][:, :: random.choice([1, -1])]
        top, left = random.integers(0, len(image) - side + 1, 2)
        crop[:] = image[top : top + side, left : left + side]
    return torch.from_numpy(batch).permute(0, 3, 1, 2).float() / 127.5 - 1


def psnr(model, images: np.ndarray) -> tuple[float, float]:
    """Mean PSNR in dB of encoding to the mode and decoding, and the standard deviation of the latents."""
    import torch

    figures, spread = [], []
    with torch.inference_mode():
        for image in images:
            x = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1
            x = x.contiguous(memory_format=torch.channels_last)
            z = model.encode(x).latent_dist.mode()
            y = (model.decode(z).sample.clamp(-1, 1) * 127.5 + 127.5).round()
            figures.append(10 * np.log10(255**2 / float(((x * 127.5 + 127.5) - y).square().mean())))
            spread.append(float(z.square().mean()))
    return float(np.mean(figures)), float(np.sqrt(np.mean(spread)))


def run(data: Path, out: Path, minutes: float) -> None:
    """Train, from `out/vae` on if there is one, print the held-out PSNR as it goes, and write `out/vae`."""
    import torch
    from diffusers import AutoencoderKL

    used, held_out = read_training(data)
    if (out / "vae").exists():
        model: Any = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32, local_files_only=True)
        model = model.to(memory_format=torch.channels_last).train()
    else:
        model = build()
    print(f"autoencoder: {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters", flush=True)

    def loss_of(random: np.random.Generator, progress: float):
        _, side, count = max(row for row in CROPS if row[0] <= progress)
        x = crops(used.images, random, side, count).contiguous(memory_format=torch.channels_last)
        torch.manual_seed(int(random.integers(2**62)))
        posterior = model.encode(x).latent_dist
        difference = model.decode(posterior.sample()).sample - x
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        return difference.abs().mean() + 2 * difference.square().mean() + KL_WEIGHT * kl

    def validate(averaged) -> str:
        return "held-out PSNR {:.2f} dB, latent deviation {:.2f}".format(*psnr(averaged, held_out.images[:40]))

    def save(averaged) -> None:
        averaged.register_to_config(scaling_factor=1 / psnr(averaged, held_out.images)[1])
        copy.deepcopy(averaged).half().save_pretrained(out / "vae")

    train(
        model,
        loss_of,
        validate,
        out / "checkpoints" / "autoencoder.safetensors",
        minutes=minutes,
        learning_rate=1.5e-3,
        on_checkpoint=save,
    )
