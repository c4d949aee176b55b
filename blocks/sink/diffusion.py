"""`diffusion_sink`: captions and noisy latents in, regenerated images out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

import models
from blocks.model import NAMED, ModelParams, load
from blocks.source.images import Size, parse_size
from flowgraph.block import LIVE, Block, Output, Packet, Port, Tag

GREY = 128
# What an input that is not wired gives, as if the sender had sent none.
_ABSENT = Packet(np.empty(0, np.uint8), tags=(Tag(0, "status", "absent"),), last=True)


@dataclass(slots=True)
class _Frame:
    """What arrived of an image; `reason` says what is missing or was set aside, empty when all is well."""

    number: int
    caption: str | None
    latent: np.ndarray | None
    noise_variance: float | np.ndarray
    reason: str

    @property
    def mode(self) -> str:
        had = {"text": self.caption, "latent": self.latent}
        return "+".join(part for part, what in had.items() if what is not None) or "none"


class DiffusionSink(Block):
    """Regenerate images from captions and noisy latents by latent diffusion.

    For a latent z of noise variance v (where a clean one has unit variance, and v is 0 without a tag
    `noise_variance`), `steps: matched` starts the reverse process at t* = argmin_t |abar_t - 1/(1+v)| from
    sqrt(abar_t*) z and adds no noise. `steps: T` is the paper's image to image: noise is added as of the
    point that leaves T of `schedule_steps` DDIM steps (eta 0), which are then taken; T = 0 decodes z as it
    is. A caption alone is rendered from pure noise. Schedules have at most 500 steps: these stand at t = 1, 1 + s, ...
    for s = floor(1000 / steps), and s = 1 would begin short of pure noise, or past the last t.

    A latent that is a posterior mean E[z | y] (tag `noise_source`) is shrunk, which a matched start undoes
    first. With `variance` wired it goes by the noise of every element: what came clean is held, what came noisy
    restored, and what did not come filled in (`models.receiver`). A part that is lost is done without (`mode`:
    text+latent, text, latent); with neither, the image is mid-grey (none). Noise is drawn by (seed, block, frame).
    `image` is tagged `mode`, `steps`, `status` (ok, degraded, lost), `reason` where it is not ok, and `caption` as it
    was used.
    """

    class Params(ModelParams):
        model: str = Field(
            "embedded",
            description='"embedded", or a hub id or folder laid out as Stable Diffusion',
            json_schema_extra=NAMED,
        )
        steps: Literal["matched"] | Annotated[int, Field(ge=0)] = Field(
            "matched",
            description="denoising steps from a latent, or as many as its noise calls for",
            json_schema_extra=LIVE,
        )
        guidance: float = Field(
            1.0,
            ge=1,
            description="classifier-free guidance with a latent; 1 is none (paper: 9)",
            json_schema_extra=LIVE,
        )
        schedule_steps: int = Field(50, ge=1, le=500, description="steps of the DDIM schedule from pure noise")
        text_only_steps: int = Field(50, ge=1, le=500, description="steps where there is a caption alone")
        text_only_guidance: float = Field(7.5, ge=1, description="guidance where there is a caption alone")
        negative_prompt: str = Field("", description="what the unconditional branch of guidance is told")
        text_only_above: float | None = Field(
            None, gt=0, description="noise variance above which a latent is set aside for its caption"
        )
        on_damaged_caption: Literal["drop", "use"] = Field(
            "drop", description="a damaged caption that comes with a latent; alone it is always used"
        )
        plain: bool = Field(False, description="also hand out what latents are decoded to without diffusion")
        size: Size | None = Field(None, description="of images made without a latent; the model's by default")
        batch: int = Field(4, ge=1, le=256, description="images computed at once: frames 0 to batch-1, and so on")

        @model_validator(mode="after")
        def _within_schedule(self) -> DiffusionSink.Params:
            if self.steps != "matched" and self.steps > self.schedule_steps:
                raise ValueError(f"steps must be at most schedule_steps, {self.schedule_steps}, not {self.steps}")
            return self

    inputs = (
        Port("text", "uint8", "caption, one frame a caption", unit="ASCII", whole=True, optional=True),
        Port("latent", "float32", "scaled latent", shape=(None, None, None), whole=True, optional=True),
        Port(
            "variance",
            "float32",
            "Var[z | y] of its elements, from a bit_deserializer",
            shape=(None, None, None),
            whole=True,
            optional=True,
        ),
    )
    outputs = (
        Port("image", "uint8", "regenerated picture, RGB", shape=(None, None, 3)),
        Port("plain", "uint8", "the latent decoded as it came, RGB, with `plain`", shape=(None, None, 3)),
    )

    def start(self) -> None:
        p = self.params
        self.receiver = load(self, models.load_receiver, p.model, **p.options())
        self.size = parse_size(p.size) if p.size else self.receiver.size
        self.group: list[_Frame] = []

    def work(
        self, text: Packet | None = _ABSENT, latent: Packet | None = _ABSENT, variance: Packet | None = None
    ) -> Iterator[Output]:
        frame = self._frame(text, latent, variance)
        batch = self.params.batch
        if self.group and self.group[0].number // batch != frame.number // batch:
            yield from self.flush()
        self.group.append(frame)
        if frame.number % batch == batch - 1:
            yield from self.flush()

    def flush(self) -> Iterator[Output]:
        """Render the frames that wait, in the order of their numbers."""
        group, self.group = self.group, []
        made: dict[int, tuple[np.ndarray, int]] = {}
        plain: dict[int, np.ndarray] = {}
        for alike in _by_shape(group):
            made |= self._render(alike)
            if self.params.plain and alike[0].latent is not None:
                decoded = self.receiver.vae.decode(_latents(alike))
                plain |= dict(zip((frame.number for frame in alike), decoded, strict=True))
        for frame in group:
            picture, steps = made[frame.number]
            status = "lost" if frame.mode == "none" else "degraded" if frame.reason else "ok"
            facts = {"mode": frame.mode, "steps": steps, "status": status}
            if status != "ok":
                facts["reason"] = frame.reason or "neither caption nor latent was sent"
            self.report("frames", frame.number, **facts)
            packet = Packet(picture[None], frame.number, last=True).tagged(caption=frame.caption or "", **facts)
            yield {"image": packet}
            if frame.number in plain:
                yield {"plain": Packet(plain[frame.number][None], frame.number, last=True)}

    def _frame(self, text: Packet | None, latent: Packet | None, variances: Packet | None) -> _Frame:
        p = self.params
        number = next(part.frame for part in (text, latent, variances) if part is not None and part is not _ABSENT)
        caption, caption_fault = self._caption(text)
        values, variance, latent_fault = self._latent(latent)
        if caption is not None and values is not None:
            if caption_fault and p.on_damaged_caption == "drop":
                caption, caption_fault = None, f"{caption_fault}, not used"
            elif not caption_fault and p.text_only_above is not None and variance > p.text_only_above:
                values, latent_fault = None, f"latent not used: noise variance {variance:.2f}"
        shrunk = latent is not None and latent.tag("noise_source") == "posterior"
        noise: float | np.ndarray = variance
        if values is not None and shrunk and p.steps == "matched":
            values, noise = _unshrunk(values, self._distortion(variances, values, variance))
        reason = "; ".join(fault for fault in dict.fromkeys((caption_fault, latent_fault)) if fault)
        return _Frame(number, caption, values, noise, reason)

    def _caption(self, packet: Packet | None) -> tuple[str | None, str]:
        """Return the caption, and what is wrong with it."""
        status, fault = _state(packet, "caption")
        if packet is None or status in ("absent", "lost"):
            return None, fault
        return packet.data.tobytes().decode("latin-1"), fault

    def _latent(self, packet: Packet | None) -> tuple[np.ndarray | None, float, str]:
        """Return the latent, its noise variance, and what is wrong with it."""
        status, fault = _state(packet, "latent")
        if packet is None or status in ("absent", "lost"):
            return None, 0.0, fault
        z, variance = packet.data, float(packet.tag("noise_variance", 0.0))
        channels = self.receiver.vae.channels
        if z.ndim != 4 or z.shape[:2] != (1, channels) or not z.size:
            shape = "x".join(map(str, z.shape))
            fault = f"latent must be 1x{channels}xHEIGHTxWIDTH for model {self.params.model}, not {shape}"
            self.warn(f"frame {packet.frame}: {fault}")
            return None, 0.0, fault
        if not (np.isfinite(z).all() and 0 <= variance < np.inf):
            return None, 0.0, "latent or its noise variance is not finite"
        return z, variance, fault

    def _distortion(self, variances: Packet | None, values: np.ndarray, mean: float) -> float | np.ndarray:
        """Return Var[z | y] of every element where it came, else the latent's mean."""
        if variances is None or not variances.data.size:
            return mean
        told = variances.data
        if told.shape != values.shape or not (np.isfinite(told).all() and (told >= 0).all()):
            self.warn(f"frame {variances.frame}: variance is not used: it must be {values.shape}, of at least 0")
            return mean
        return told

    def _render(self, frames: list[_Frame]) -> dict[int, tuple[np.ndarray, int]]:
        """Return picture and steps by number, for frames with latents of one shape, or without."""
        p = self.params
        numbers = [f.number for f in frames]
        seeds = [(self.key + number) % 2**63 for number in numbers]
        if frames[0].latent is not None:
            pictures, steps = self.receiver.regenerate(
                _latents(frames),
                [f.caption for f in frames],
                steps=p.steps,
                noise_variance=[v if isinstance(v, float) else v[0] for v in (f.noise_variance for f in frames)],
                guidance=p.guidance,
                schedule_steps=p.schedule_steps,
                seeds=seeds,
                negative_prompt=p.negative_prompt,
                progress=self.progress,
            )
        elif frames[0].caption is not None:
            pictures = self.receiver.generate(
                [f.caption for f in frames],
                steps=p.text_only_steps,
                guidance=p.text_only_guidance,
                seeds=seeds,
                size=self.size,
                negative_prompt=p.negative_prompt,
                progress=self.progress,
            )
            steps = [p.text_only_steps] * len(frames)
        else:
            pictures, steps = np.full((len(frames), *self.size, 3), GREY, np.uint8), [0] * len(frames)
        return dict(zip(numbers, zip(pictures, map(int, steps), strict=True), strict=True))


def _state(packet: Packet | None, part: str) -> tuple[str, str]:
    """Return the status of a part of a frame, and what is wrong with it."""
    if packet is None:
        return "lost", f"{part} lost"
    status = packet.tag("status", "ok")
    return status, (packet.tag("reason") or f"{part} {status}") if status in ("damaged", "lost") else ""


def _unshrunk(mean: np.ndarray, distortion: Any) -> tuple[np.ndarray, Any]:
    """Return z + noise, and the noise's variance D / (1 - D), for the posterior mean (1 - D)(z + noise).

    D is that of all elements, or of each.
    """
    distortion = np.minimum(distortion, 0.99)
    return mean / np.float32(1 - distortion), distortion / (1 - distortion)


def _latents(frames: list[_Frame]) -> np.ndarray:
    """Return the latents of frames that all have one, in one batch."""
    return np.concatenate([frame.latent for frame in frames if frame.latent is not None])


def _by_shape(frames: list[_Frame]) -> list[list[_Frame]]:
    """Return the frames that can be rendered at once, together."""
    alike: dict[tuple, list[_Frame]] = {}
    for frame in frames:
        shape = None if frame.latent is None else frame.latent.shape
        alike.setdefault((shape, shape is None and frame.caption is not None), []).append(frame)
    return list(alike.values())
