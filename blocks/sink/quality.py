"""`quality_meter`: how much received images and latents differ from what was sent."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from blocks.model import NAMED
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams

_UNWIRED = Packet(np.empty(0, np.uint8), last=True)  # what an unconnected input gives


class Unmeasured(Exception):
    """Why a metric has no value, for people."""


class QualityMeter(Block):
    """Measure received images against the ones sent, and pass them on tagged `psnr` and `ssim`.

    psnr        10 log10(255^2 / mean squared error over all values), dB; null where they are identical
    ssim        structural similarity in 7x7 windows around every pixel, mean over the channels (Wang et al., 2004)
    ssim_tiles  the same in 7x7 tiles side by side, as the SSIM-PIL package has it, which the paper quotes
    lpips       learned perceptual distance with AlexNet (Zhang et al., 2018), by torchmetrics
    clip_score  100 max(cos, 0) of the image received and the caption sent (Hessel et al., 2021)
    latent_mse  mean squared error of the latent received

    A frame's figure that cannot be had is null; the report's section `unmeasured` says why a metric lacks
    figures, once. The grey image that stands for a lost one is measured too: leaving it out would flatter the
    mean.
    """

    class Params(BlockParams):
        clip: str | None = Field(
            None,
            description="CLIP model for clip_score: a folder, or a hub id that was fetched before",
            json_schema_extra=NAMED,
        )

    inputs = (
        Port("image", "uint8", "picture received, RGB", shape=(None, None, 3), whole=True),
        Port("sent", "uint8", "picture sent, RGB", shape=(None, None, 3), whole=True, optional=True),
        Port("latent", "float32", "latent received", shape=(None, None, None), whole=True, optional=True),
        Port("sent_latent", "float32", "latent sent", shape=(None, None, None), whole=True, optional=True),
    )
    outputs = (Port("image", "uint8", "picture received, RGB", shape=(None, None, 3)),)

    def start(self) -> None:
        self.unmeasured: dict[str, str] = {}
        self.lpips = self._attempt("lpips", lambda: self.cached(load_lpips))
        self.clip = self._attempt("clip_score", lambda: self.cached(load_clip, self.params.clip))
        if self.params.clip and not self.clip:
            self.warn(f"clip_score stays null: {self.unmeasured['clip_score']}")

    def work(
        self,
        image: Packet | None,
        sent: Packet | None = _UNWIRED,
        latent: Packet | None = _UNWIRED,
        sent_latent: Packet | None = _UNWIRED,
    ) -> Packet | None:
        frame = next(p.frame for p in (image, sent, latent, sent_latent) if p is not None and p is not _UNWIRED)
        figures = {
            "psnr": self._compare("psnr", psnr, image, sent),
            "ssim": self._compare("ssim", ssim, image, sent),
            "ssim_tiles": self._compare("ssim_tiles", ssim_tiles, image, sent),
            "lpips": self.lpips and self._compare("lpips", self.lpips, image, sent),
            "clip_score": self.clip and self._attempt("clip_score", lambda: self._clip_score(image, sent)),
            "latent_mse": self._compare("latent_mse", latent_mse, latent, sent_latent),
        }
        self.report("frames", frame, **figures)
        return image and image.tagged(psnr=figures["psnr"], ssim=figures["ssim"])

    def _attempt(self, metric: str, get: Callable[[], Any]) -> Any:
        """Return what `get` returns; where it cannot be had, None, and say why, once."""
        try:
            return get()
        except Unmeasured as reason:
            if metric not in self.unmeasured:
                self.unmeasured[metric] = str(reason)
                self.report("unmeasured", None, **{metric: str(reason)})
            return None

    def _compare(
        self,
        metric: str,
        measure: Callable[[np.ndarray, np.ndarray], float | None],
        received: Packet | None,
        sent: Packet | None,
    ) -> float | None:
        def get() -> float | None:
            if received is _UNWIRED or sent is _UNWIRED:
                raise Unmeasured("what was sent, what was received or both are not wired to this block")
            if not (received and sent and received.count and sent.count):
                return None  # lost: its row says so
            if received.data.shape != sent.data.shape:
                sizes = ["x".join(map(str, p.data.shape[1:])) for p in (received, sent)]
                raise Unmeasured(f"frame {sent.frame} was received as {sizes[0]} but sent as {sizes[1]}")
            return measure(received.data[0], sent.data[0])

        return self._attempt(metric, get)

    def _clip_score(self, image: Packet | None, sent: Packet | None) -> float | None:
        if not (image and sent):
            return None
        if not sent.tag("caption"):
            raise Unmeasured("the image sent carries no caption: wire the captioner's `image` to `sent`")
        return self.clip(image.data[0], sent.tag("caption"))


def psnr(received: np.ndarray, sent: np.ndarray) -> float | None:
    """Return the peak signal-to-noise ratio of 8-bit pictures in dB; None where they are identical.

    >>> psnr(np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8))
    0.0
    """
    error = float(np.mean((received.astype(np.float64) - sent) ** 2))
    return float(10 * np.log10(255**2 / error)) if error else None


def ssim(received: np.ndarray, sent: np.ndarray) -> float:
    """Return the structural similarity of 8-bit RGB pictures; 1 where they are identical."""
    from skimage.metrics import structural_similarity

    if min(sent.shape[:2]) < 7:
        raise Unmeasured("ssim needs pictures of at least 7x7 pixels")
    return float(structural_similarity(received, sent, channel_axis=2, data_range=255))


def ssim_tiles(received: np.ndarray, sent: np.ndarray) -> float:
    """Return the mean structural similarity of 7x7 tiles side by side; pixels beyond the last whole tile do not count.

    Variances are those of the 49 pixels (divided by 49, not 48), as in SSIM-PIL.
    """
    from skimage.metrics import structural_similarity

    height, width = (size // 7 * 7 for size in sent.shape[:2])
    if not (height and width):
        raise Unmeasured("ssim_tiles needs pictures of at least 7x7 pixels")
    _, around = structural_similarity(
        received[:height, :width],
        sent[:height, :width],
        channel_axis=2,
        data_range=255,
        use_sample_covariance=False,
        full=True,
    )
    return float(around[3::7, 3::7].mean())


def latent_mse(received: np.ndarray, sent: np.ndarray) -> float:
    """Return the mean squared error of a latent."""
    return float(np.mean((received.astype(np.float64) - sent) ** 2))


def load_lpips() -> Callable[[np.ndarray, np.ndarray], float]:
    """Return LPIPS as a function of two pictures, RGB uint8; raise `Unmeasured` without its parts."""
    if not find_spec("torchvision"):
        raise Unmeasured("lpips needs torchvision and torchmetrics: pip install 'semflow[metrics]'")
    try:
        import torch
        from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        from torchvision.models import AlexNet_Weights
    except (ImportError, RuntimeError) as error:
        raise Unmeasured(f"lpips needs a torchvision that goes with the torch installed: {error}") from None
    url = AlexNet_Weights.DEFAULT.url
    weights = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if not weights.exists():
        raise Unmeasured(f"lpips needs AlexNet's weights: fetch {url} into {weights.parent}")
    distance = LearnedPerceptualImagePatchSimilarity("alex", normalize=True)

    def lpips(received: np.ndarray, sent: np.ndarray) -> float:
        pair = torch.from_numpy(np.stack([received, sent])).permute(0, 3, 1, 2) / 255
        with torch.inference_mode():
            return float(distance(pair[:1], pair[1:]))

    return lpips


def load_clip(model: str | None) -> Callable[[np.ndarray, str], float]:
    """Return CLIP score as a function of a picture, RGB uint8, and a caption; else raise `Unmeasured`."""
    if not model:
        raise Unmeasured("clip_score needs a CLIP model: set `clip` to its folder")
    import torch
    from safetensors import SafetensorError
    from transformers import CLIPModel, CLIPProcessor

    try:
        clip = CLIPModel.from_pretrained(model, local_files_only=True, use_safetensors=True).eval()
        processor = CLIPProcessor.from_pretrained(model, local_files_only=True)
    except (OSError, ValueError, SafetensorError) as error:
        cause = str(error).partition("\n")[0]
        raise Unmeasured(
            f"{model} is no CLIP model at hand: name a folder, or fetch a hub id before ({cause})"
        ) from None

    def clip_score(picture: np.ndarray, caption: str) -> float:
        with torch.inference_mode():
            pixels = processor(images=picture, return_tensors="pt")
            tokens = processor(text=caption, return_tensors="pt", truncation=True)
            image = clip.get_image_features(**pixels).pooler_output
            text = clip.get_text_features(**tokens).pooler_output
            return max(100 * float(torch.nn.functional.cosine_similarity(image, text)), 0.0)

    return clip_score
