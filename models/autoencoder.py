"""The autoencoder between photographs and the latents that the link carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from . import weights


def gaussian(seed: int, shape: Sequence[int]) -> Any:
    """Standard normal noise (float32 tensor) that depends on its seed alone, not on device or batch."""
    import torch

    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))


class Autoencoder:
    """Photographs to scaled latents and back, by an `AutoencoderKL` or `AutoencoderTiny`.

    `size` is the (height, width) of the images that it was trained on, `factor` the pixels per latent element
    along a side, `channels` those of the latent. Latents are multiplied by the model's scaling factor, which
    brings them to about unit variance (Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion
    Models", 2022, G).
    """

    def __init__(self, module: Any, placement: weights.Placement) -> None:
        config = module.config
        blocks = getattr(config, "block_out_channels", None) or config.encoder_block_out_channels
        side = getattr(config, "sample_size", None) or 512
        self.module, self.placement = module, placement
        self.scaling: float = config.scaling_factor
        self.size: tuple[int, int] = (side, side)
        self.factor: int = 2 ** (len(blocks) - 1)
        self.channels: int = config.latent_channels

    def encode(
        self,
        images: np.ndarray,
        how: Literal["mode", "sample"] = "mode",
        seeds: Sequence[int] | None = None,
    ) -> np.ndarray:
        """Images uint8 [B, H, W, 3] -> latents float32 [B, C, H/factor, W/factor], drawn from the `posterior`."""
        return self.draw(self.posterior(images), how, seeds)

    def posterior(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 [B, H, W, 3] -> mean and deviation of their latents, float32 [2, B, C, H/factor, W/factor].

        An `AutoencoderTiny` has no posterior: the deviation is 0. Raises `ValueError` for a shape that does not fit.
        """
        import torch

        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
            raise ValueError(f"images must be uint8 [B, H, W, 3], not {images.dtype} {list(images.shape)}")
        if images.shape[1] % self.factor or images.shape[2] % self.factor or 0 in images.shape:
            raise ValueError(f"image sides must be multiples of {self.factor}, not {images.shape[1:3]}")
        with torch.inference_mode():
            pixels = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).to(self.placement.device)
            encoded = self.module.encode((pixels.float() / 127.5 - 1).to(self.placement.dtype))
            if hasattr(encoded, "latents"):
                mean, deviation = encoded.latents, torch.zeros_like(encoded.latents)
            else:
                mean, deviation = encoded.latent_dist.mean, encoded.latent_dist.std
            return torch.stack([mean, deviation]).float().cpu().numpy()

    def draw(
        self, posterior: np.ndarray, how: Literal["mode", "sample"] = "mode", seeds: Sequence[int] | None = None
    ) -> np.ndarray:
        """Mean and deviation [2, B, C, h, w] -> scaled latents float32 [B, C, h, w].

        `sample` draws from the posterior as the paper does, image i from `seeds[i]`; `mode` takes its mean.
        """
        mean, deviation = posterior
        if how not in ("mode", "sample"):
            raise ValueError(f"how must be 'mode' or 'sample', not {how!r}")
        if how == "sample":
            if seeds is None or len(seeds) != len(mean):
                raise ValueError("seeds must hold one seed per image to sample latents")
            mean = mean + deviation * np.stack([gaussian(seed, mean.shape[1:]).numpy() for seed in seeds])
        return mean * np.float32(self.scaling)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """Latents float32 [B, C, h, w] -> images uint8 [B, h * factor, w * factor, 3]."""
        import torch

        if latents.ndim != 4 or latents.shape[1] != self.channels:
            raise ValueError(f"latents must be [B, {self.channels}, h, w], not {list(latents.shape)}")
        with torch.inference_mode():
            scaled = torch.from_numpy(np.ascontiguousarray(latents, np.float32)).to(self.placement.device)
            pixels = self.module.decode((scaled / self.scaling).to(self.placement.dtype)).sample.float()
            return (pixels * 127.5 + 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def load_autoencoder(
    name: str = "embedded",
    device: str = "auto",
    dtype: str = "auto",
    *,
    revision: str | None = None,
    variant: str | None = None,
) -> Autoencoder:
    """Load an autoencoder's own folder or the `vae` sub-folder of a pipeline.

    Raises `ModelMissing` (files absent or broken) and `ValueError` (device or dtype).
    """
    return from_folder(
        weights.part(weights.find(name, revision=revision), "vae", "."), weights.place(device, dtype), variant
    )


def from_folder(folder: Any, placement: weights.Placement, variant: str | None = None) -> Autoencoder:
    """The autoencoder in a folder, its class as its `config.json` names it."""
    import diffusers

    kind = weights.config(folder).get("_class_name")
    if kind not in ("AutoencoderKL", "AutoencoderTiny"):
        raise weights.ModelMissing(
            f"{folder} must hold an AutoencoderKL or AutoencoderTiny, not {kind or 'another model'}"
        )
    return Autoencoder(weights.load(getattr(diffusers, kind), folder, placement, variant=variant), placement)
