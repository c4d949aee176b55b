"""The receiver: a latent diffusion model that regenerates photographs from latents and captions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from . import weights
from .autoencoder import Autoencoder, from_folder, gaussian

Progress = Callable[[int, int], None]  # is told the step and of how many
# Where every element's noise is known: to which quantile of it the start is matched, and to how much at most
NOISIEST, LARGEST_START = 0.95, 1.0


def _unseen(step: int, steps: int) -> None:
    pass


class Schedule(NamedTuple):
    """The diffusion's signal power abar_t for t = 0 .. 999, walked in strides of 1000 / schedule_steps.

    With steps left T it starts at t = (T - 1) * stride + 1, so T = 30 of 50 starts at t = 581, as diffusers'
    img2img does with `steps_offset=1` (Song et al., "Denoising Diffusion Implicit Models", 2021, 4.2).
    """

    signal_power: np.ndarray

    def stride(self, schedule_steps: int) -> int:
        """Distance in t between two steps."""
        if not 1 <= schedule_steps <= len(self.signal_power):
            raise ValueError(f"schedule_steps must be 1 to {len(self.signal_power)}, not {schedule_steps}")
        return len(self.signal_power) // schedule_steps

    def start(self, steps: int, schedule_steps: int) -> int:
        """The t with `steps` steps left; -1 for none."""
        if not 0 <= steps <= schedule_steps:
            raise ValueError(f"steps must be 0 to {schedule_steps} or 'matched', not {steps!r}")
        return (steps - 1) * self.stride(schedule_steps) + 1 if steps else -1

    def matched(self, noise_variance: float) -> int:
        """t* = argmin_t |abar_t - 1 / (1 + sigma^2)|; -1 where the noise is negligible."""
        if not noise_variance >= 0:
            raise ValueError(f"noise_variance must be a number of at least 0, not {noise_variance}")
        t = int(np.argmin(np.abs(self.signal_power - 1 / (1 + noise_variance))))
        return t if t > 0 else -1


class _Measured(NamedTuple):
    """A latent y = z + noise of variance v, every element's own; all three float32 tensors [C, h, w].

    Its matched start is from s, the 0.95 quantile of v, but at most 1. What is noisier than that is shrunk to
    y (1 + s)/(1 + v). What is cleaner is known better than the start says, by a precision of p = 1/v - 1/s; so after
    every step the network's estimate x0, of which 1 - abar_t over abar_t is the noise left in z_t, is pulled to

        x0 + w (y - x0),    w = p / (p + abar_t / (1 - abar_t)).

    Clean elements are held, noisy ones come from the network, and lost ones are inpainted: posterior sampling without
    randomness, with the weights of a linear Gaussian measurement of identity (J. Song et al., "Pseudoinverse-guided
    diffusion models for inverse problems", ICLR 2023; after B. Kawar et al., "Denoising diffusion restoration models",
    NeurIPS 2022). Where all v are alike, p = 0, and it is the plain matched start.
    """

    values: Any
    precision: Any
    start: Any

    def pull(self, x0: Any, signal_power: float) -> Any:
        """Return w (y - x0)."""
        return (self.values - x0) * self.precision / (self.precision + signal_power / (1 - signal_power))


def _measured(values: Any, variance: np.ndarray) -> tuple[_Measured, float]:
    """Return a latent with its elements' noise, and the noise that its start is matched to. Raises `ValueError`."""
    import torch

    if variance.shape != tuple(values.shape) or not (np.isfinite(variance).all() and (variance >= 0).all()):
        raise ValueError(f"noise_variance of elements must be {list(values.shape)}, finite and at least 0")
    level = min(float(np.quantile(variance, NOISIEST)), LARGEST_START)
    v = torch.from_numpy(np.maximum(variance, 1e-6).astype(np.float32))
    precision = (1 / v - 1 / max(level, 1e-6)).clamp(min=0)
    return _Measured(values.clone(), precision, values * ((1 + level) / (1 + v)).clamp(max=1)), level


class Receiver:
    """Text-conditioned latent diffusion: `UNet2DConditionModel`, `CLIPTextModel`, autoencoder `vae`."""

    def __init__(
        self,
        vae: Autoencoder,
        unet: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        placement: weights.Placement,
    ) -> None:
        self.vae, self.unet, self.text_encoder, self.tokenizer = vae, unet, text_encoder, tokenizer
        self.scheduler, self.placement = scheduler, placement
        self.schedule = Schedule(scheduler.alphas_cumprod.double().numpy())
        self.size: tuple[int, int] = (unet.config.sample_size * vae.factor,) * 2
        self._empty: Any = None

    def regenerate(
        self,
        latents: np.ndarray,
        captions: Sequence[str | None],
        *,
        steps: int | Literal["matched"],
        noise_variance: Sequence[float | np.ndarray] | None = None,
        guidance: float = 9.0,
        schedule_steps: int = 50,
        seeds: Sequence[int],
        negative_prompt: str = "",
        progress: Progress = _unseen,
    ) -> tuple[np.ndarray, list[int]]:
        """Latents float32 [B, C, h, w] and captions -> images uint8 [B, H, W, 3] and the steps taken for
        each.

        An integer `steps` T is the paper's image-to-image: z_t = sqrt(abar_t) z + sqrt(1 - abar_t) n at the
        point with T of `schedule_steps` DDIM steps left, then these T steps (eta 0). T = 0 decodes without
        the UNet. `matched` takes the channel's noise for the diffusion's: with sigma^2 = `noise_variance[i]`
        relative to clean latents of unit variance, z_t = sqrt(abar_t) z at t* = argmin |abar_t - 1 / (1 +
        sigma^2)|, and adds none. Where `noise_variance[i]` is an array [C, h, w], of every element's noise, see
        `_Measured`. A caption None regenerates from the latent alone: empty text, no guidance.
        Noise comes from `seeds[i]` alone. `progress` is told of each step before it is taken, and of how many there
        are for the latent that takes most. Raises `ValueError` for arguments that do not fit each other.
        """
        import torch

        count = len(latents)
        for name, given in (("captions", captions), ("seeds", seeds)):
            if len(given) != count:
                raise ValueError(f"{name} must have one entry per latent: {count}, not {len(given)}")
        if not np.isfinite(latents).all():
            raise ValueError("latents must be finite; replace absurd values first")
        z = torch.from_numpy(np.array(latents, np.float32))
        measured: dict[int, _Measured] = {}
        if steps == "matched":
            if noise_variance is None or len(noise_variance) != count:
                raise ValueError("noise_variance must have one entry per latent where steps is 'matched'")
            starts = []
            for i, level in enumerate(noise_variance):
                if isinstance(level, np.ndarray):
                    measured[i], level = _measured(z[i], level)
                    z[i] = measured[i].start
                starts.append(self.schedule.matched(level))
        else:
            starts = [self.schedule.start(steps, schedule_steps)] * count
        for i, t in enumerate(starts):
            if t < 0:
                continue
            signal = float(self.schedule.signal_power[t])
            z[i] *= signal**0.5
            if steps != "matched":
                z[i] += (1 - signal) ** 0.5 * gaussian(seeds[i], z[i].shape)
        taken = self._denoise(z, starts, captions, guidance, schedule_steps, negative_prompt, progress, measured)
        return self.vae.decode(z.numpy()), taken

    def generate(
        self,
        captions: Sequence[str],
        *,
        steps: int = 50,
        guidance: float = 7.5,
        seeds: Sequence[int],
        size: tuple[int, int] | None = None,
        negative_prompt: str = "",
        progress: Progress = _unseen,
    ) -> np.ndarray:
        """Captions alone -> images uint8 [B, H, W, 3], by `steps` DDIM steps from pure noise.

        `size` is (height, width) in pixels, the model's own by default. Noise comes from `seeds[i]` alone.
        """
        import torch

        if len(seeds) != len(captions):
            raise ValueError(f"seeds must have one entry per caption: {len(captions)}, not {len(seeds)}")
        height, width = size or self.size
        if height % self.vae.factor or width % self.vae.factor:
            raise ValueError(f"size must be multiples of {self.vae.factor}, not {(height, width)}")
        shape = (self.vae.channels, height // self.vae.factor, width // self.vae.factor)
        z = torch.stack([gaussian(seed, shape) for seed in seeds])
        starts = [self.schedule.start(steps, steps)] * len(seeds)
        self._denoise(z, starts, captions, guidance, steps, negative_prompt, progress, {})
        return self.vae.decode(z.numpy())

    def _denoise(
        self,
        z: Any,
        starts: Sequence[int],
        captions: Sequence[str | None],
        guidance: float,
        schedule_steps: int,
        negative_prompt: str,
        progress: Progress,
        measured: Mapping[int, _Measured],
    ) -> list[int]:
        """Walk every latent of z [B, C, h, w] down from its own t, in place; returns the steps taken."""
        import torch

        def power(t: int) -> float:
            return float(self.schedule.signal_power[t] if t >= 0 else self.scheduler.final_alpha_cumprod)

        self.scheduler.set_timesteps(schedule_steps)
        stride = self.schedule.stride(schedule_steps)
        taken = [0] * len(starts)
        most = max((t // stride + 1 for t in starts), default=0)
        with torch.inference_mode():
            texts = [self._embed(caption or "") for caption in captions]
            without = self._embed(negative_prompt)
            while active := [i for i, t in enumerate(starts) if t - taken[i] * stride >= 0]:
                progress(max(taken) + 1, most)
                times = [starts[i] - taken[i] * stride for i in active]
                # The unconditional branch only where guidance mixes it in: epsilon = e0 + g (e - e0).
                guided = [k for k, i in enumerate(active) if captions[i] is not None and guidance != 1]
                rows = [*range(len(active)), *guided]
                noise = self.unet(
                    z[active][rows].to(self.placement.device, self.placement.dtype),
                    torch.tensor([times[k] for k in rows], device=self.placement.device),
                    torch.stack([texts[i] for i in active] + [without] * len(guided)),
                ).sample
                noise = noise.float().cpu()
                noise, plain = noise[: len(active)], noise[len(active) :]
                if guided:
                    noise[guided] = plain + guidance * (noise[guided] - plain)
                for k, i in enumerate(active):
                    step = self.scheduler.step(noise[k], times[k], z[i], eta=0.0)
                    z[i] = step.prev_sample
                    if i in measured:
                        now, then = power(times[k]), power(times[k] - stride)
                        pull = measured[i].pull(step.pred_original_sample, now)
                        z[i] += (then**0.5 - (now * (1 - then) / (1 - now)) ** 0.5) * pull  # as DDIM puts x0 into z
                    taken[i] += 1
        return taken

    def _embed(self, text: str) -> Any:
        """The text encoder's states [77, D] of a text, padded or cut to its limit."""
        if text == "" and self._empty is not None:
            return self._empty
        limit = self.text_encoder.config.max_position_embeddings
        ids = self.tokenizer(
            text, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
        ).input_ids
        states = self.text_encoder(ids.to(self.placement.device)).last_hidden_state[0]
        if text == "":
            self._empty = states
        return states


def load_receiver(
    name: str = "embedded",
    device: str = "auto",
    dtype: str = "auto",
    *,
    revision: str | None = None,
    variant: str | None = None,
) -> Receiver:
    """Load a pipeline folder in Stable Diffusion's layout: vae, unet, text_encoder, tokenizer, scheduler.

    Raises `ModelMissing` (files absent or broken) and `ValueError` (device or dtype).
    """
    folder = weights.find(name, revision=revision)
    parts = {part: weights.part(folder, part) for part in ("vae", "unet", "text_encoder")}
    placement = weights.place(device, dtype)
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

    try:
        # The paper's sampler, whatever sampler the pipeline came with: only its noise schedule is read.
        scheduler = DDIMScheduler.from_pretrained(folder / "scheduler", local_files_only=True, clip_sample=False)
    except (OSError, ValueError) as error:
        raise weights.ModelMissing(
            f"model folder {folder} is incomplete: scheduler/scheduler_config.json must exist; fetch it again"
        ) from error
    return Receiver(
        from_folder(parts["vae"], placement, variant),
        weights.load(UNet2DConditionModel, parts["unet"], placement, variant=variant),
        weights.load(CLIPTextModel, parts["text_encoder"], placement, variant=variant),
        _tokenizer(folder),
        scheduler,
        placement,
    )


def load_tokenizer(name: str = "embedded", *, revision: str | None = None) -> Any:
    """The receiver's tokenizer without its weights: `len(tokenizer(text).input_ids)` counts tokens."""
    return _tokenizer(weights.find(name, revision=revision))


def _tokenizer(folder: Path) -> Any:
    from transformers import CLIPTokenizer

    if not any((folder / "tokenizer" / file).is_file() for file in ("tokenizer.json", "vocab.json")):
        raise weights.ModelMissing(
            f"model folder {folder} is incomplete: tokenizer/tokenizer.json (or vocab.json and merges.txt) "
            f"must exist; fetch it again"
        )
    return CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
