"""Trains the autoencoder's decoder further, its encoder fixed: better images from the latents the receiver knows."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np

from .autoencoder import crops, psnr
from .data import read_training
from .loop import train

# Share of the time done, crop side, crops a batch; whole images last, as the decoder will see them.
CROPS = ((0.0, 96, 4), (0.75, 192, 1))


def run(data: Path, out: Path, minutes: float) -> None:
    """Go on from `out/vae`, print the held-out PSNR as it goes, and write `out/vae` again."""
    import torch
    from diffusers import AutoencoderKL

    used, held_out = read_training(data)
    model = AutoencoderKL.from_pretrained(out / "vae", torch_dtype=torch.float32, local_files_only=True)
    model = model.to(memory_format=torch.channels_last)
    for fixed in (model.encoder, model.quant_conv):
        fixed.requires_grad_(False)
    print("decoder: held-out PSNR {:.2f} dB at the start".format(*psnr(model, held_out.images[:40])), flush=True)

    def loss_of(random: np.random.Generator, progress: float):
        _, side, count = max(row for row in CROPS if row[0] <= progress)
        x = crops(used.images, random, side, count).contiguous(memory_format=torch.channels_last)
        with torch.no_grad():
            z = model.encode(x).latent_dist.mode()
        difference = model.decode(z).sample - x
        return difference.abs().mean() + 2 * difference.square().mean()

    def validate(averaged) -> str:
        return "held-out PSNR {:.2f} dB".format(*psnr(averaged, held_out.images[:40]))

    def save(averaged) -> None:
        copy.deepcopy(averaged).half().save_pretrained(out / "vae")

    train(
        model,
        loss_of,
        validate,
        out / "checkpoints" / "decoder.safetensors",
        minutes=minutes,
        learning_rate=6e-4,
        on_checkpoint=save,
    )
