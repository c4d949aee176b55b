"""Trains the embedded receiver, a UNet and its text encoder, on the autoencoder's latents."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from ..autoencoder import Autoencoder, load_autoencoder
from ..receiver import Receiver
from ..weights import place
from .bit_errors import bit_error_rates, flip_bits, repair
from .data import read_training
from .loop import train

BATCH = 16
DROPPED = 0.15  # share of the captions left out, for guidance and for the latent-only fallback


def build(tokenizer):
    """A UNet of 8.7 M parameters, a text encoder of 1.9 M, Stable Diffusion 1.5's noise schedule."""
    import torch
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(2026)
    width = 192
    unet: Any = UNet2DConditionModel(
        sample_size=24,
        block_out_channels=(64, 128, 160),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=width,
    )
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=3,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    return unet.to(memory_format=torch.channels_last), text_encoder, scheduler


def encode_all(vae: Autoencoder, images: np.ndarray, stored: Path) -> np.ndarray:
    """The latents of all images, kept in a file: encoding takes minutes."""
    if not stored.exists():
        np.save(stored, np.concatenate([vae.encode(images[i : i + 16]) for i in range(0, len(images), 16)]))
    return np.load(stored)


def received(latents: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Each latent after a link of its own Eb/N0 and rule for absurd floats."""
    out = np.empty_like(latents)
    for row, sent in zip(out, latents, strict=True):
        rates = bit_error_rates(random.uniform(4, 11))
        row[:] = repair(flip_bits(sent, rates, random), random.choice(["paper", "clip"]), random)
    return out


def run(data: Path, out: Path, minutes: float) -> None:
    """Train, from `out/unet` and `out/text_encoder` on if there are any, and write them and `scheduler`.

    Prints the gain at Eb/N0 7.5 dB as it goes.
    """
    import torch
    from torch import nn
    from transformers import CLIPTokenizer

    used, held_out = read_training(data)
    placement = place("cpu", "float32")
    vae = load_autoencoder(str(out / "vae"), "cpu")
    tokenizer = CLIPTokenizer.from_pretrained(out / "tokenizer")
    unet, text_encoder, scheduler = build(tokenizer)
    for part in (unet, text_encoder):
        name = "unet" if part is unet else "text_encoder"
        if (out / name).exists():
            before = type(part).from_pretrained(out / name, local_files_only=True)
            part.load_state_dict(before.float().state_dict())
    model = nn.ModuleDict({"unet": unet, "text_encoder": text_encoder})
    sizes = [sum(p.numel() for p in part.parameters()) / 1e6 for part in (unet, text_encoder)]
    print("receiver: UNet {:.2f} M, text encoder {:.2f} M parameters".format(*sizes), flush=True)
    scheduler.save_pretrained(out / "scheduler")

    latents = encode_all(vae, used.images, out / "latents.npy")
    print(f"latents: mean {latents.mean((0, 2, 3))}, deviation {latents.std((0, 2, 3))}", flush=True)
    tokens = np.array(
        [tokenizer(captions, padding="max_length", truncation=True).input_ids for captions in used.captions]
    )
    empty = np.array(tokenizer("", padding="max_length").input_ids)
    power = scheduler.alphas_cumprod.numpy()
    flipped = BATCH // 5  # each of the two kinds of channel noise

    def loss_of(random: np.random.Generator, progress: float):
        chosen = random.integers(0, len(latents), BATCH)
        z = latents[chosen]
        # Half of the samples are where a received latent starts, half anywhere on the schedule.
        t = np.where(random.random(BATCH) < 0.5, random.integers(0, 300, BATCH), random.integers(0, 1000, BATCH))
        gaussian = random.standard_normal(z.shape, np.float32)
        channel = np.zeros_like(z)
        hit = slice(2 * flipped)
        channel[hit] = (received(z[hit], random) - z[hit]) * random.uniform(0.2, 1, (2 * flipped, 1, 1, 1))
        # First kind, the matched start: the channel's noise alone, at the t that has as much.
        first, second = slice(flipped), slice(flipped, 2 * flipped)
        gaussian[first] = 0
        variance = np.square(channel[first]).mean((1, 2, 3))
        t[first] = np.abs(power - 1 / (1 + variance[:, None])).argmin(1)
        # Second kind, the paper's schedule: noise is added on top of the channel's.
        t[second] = random.integers(60, 300, flipped)
        signal = power[t].reshape(-1, 1, 1, 1)
        noise = gaussian + channel * np.sqrt(signal / (1 - signal))
        noisy = np.sqrt(signal) * z + np.sqrt(1 - signal) * noise
        ids = tokens[chosen, random.integers(0, tokens.shape[1], BATCH)]
        ids[random.random(BATCH) < DROPPED] = empty
        said = text_encoder(torch.from_numpy(ids)).last_hidden_state
        x = torch.from_numpy(noisy.astype(np.float32)).contiguous(memory_format=torch.channels_last)
        target = torch.from_numpy(noise.astype(np.float32))
        error = (unet(x, torch.from_numpy(t), said).sample - target).square().mean((1, 2, 3))
        return (error / target.square().mean((1, 2, 3)).clamp(min=0.1)).mean()

    sent = vae.encode(held_out.images[:8])
    pictures = held_out.images[:8].astype(np.float32)

    def psnr(images: np.ndarray) -> float:
        return float(np.mean(10 * np.log10(255**2 / np.square(images - pictures).mean((1, 2, 3)))))

    def validate(averaged) -> str:
        receiver = Receiver(
            vae, averaged["unet"], averaged["text_encoder"], tokenizer, copy.deepcopy(scheduler), placement
        )
        figures = []
        for rule in ("paper", "clip"):
            random = np.random.default_rng(7)
            z = repair(flip_bits(sent, bit_error_rates(7.5), random), rule, random)
            variance = np.square(z - sent).mean((1, 2, 3))
            images, _ = receiver.regenerate(
                z, [c[0] for c in held_out.captions[:8]], steps="matched", noise_variance=variance.tolist(),
                guidance=1.0, seeds=list(range(8)),
            )  # fmt: skip
            figures.append(f"{rule} {psnr(vae.decode(z)):.2f} -> {psnr(images):.2f}")
            if rule == "paper":
                images, _ = receiver.regenerate(z, [None] * 8, steps=6, guidance=1.0, seeds=list(range(8)))
                figures.append(f"T = 6 {psnr(images):.2f}")
        return f"PSNR at 7.5 dB {', '.join(figures)} dB of {psnr(vae.decode(sent)):.2f}"

    def save(averaged) -> None:
        for name in ("unet", "text_encoder"):
            copy.deepcopy(averaged[name]).half().save_pretrained(out / name)

    train(
        model,
        loss_of,
        validate,
        out / "checkpoints" / "receiver.safetensors",
        minutes=minutes,
        learning_rate=7e-4,
        on_checkpoint=save,
    )
