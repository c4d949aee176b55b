"""`quality_meter`: how much received images and latents differ from what was sent."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from blocks.model import NAMED
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams

if TYPE_CHECKING:
    import torch
    from torchmetrics.wrappers import FeatureShare

SET_METRICS = ("fid", "kid")  # of all pictures of a run
_UNWIRED = Packet(np.empty(0, np.uint8), last=True)  # what an unconnected input gives


class Unmeasured(Exception):
    """Why a metric has no value, for people."""


class QualityMeter(Block):
    """Measure received images against the ones sent, and pass them on tagged `psnr` and `ssim`.

    psnr        10 log10(255^2 / mean squared error over all values), dB; null where they are identical
    ssim        structural similarity in 7x7 windows around every pixel, mean over the channels (Wang et al., 2004)
    ssim_tiles  the same in 7x7 tiles side by side, as SSIM-PIL has it, by which the paper measured
    lpips       learned perceptual distance with AlexNet (Zhang et al., 2018), by torchmetrics
    clip_score  100 max(cos, 0) of the image received and the caption sent (Hessel et al., 2021)
    latent_mse  mean squared error of the latent received
    squeezenet_distance  how far SqueezeNet 1.1's features of both are apart (`models.squeezenet.feature_distance`):
                LPIPS without learned weights, for where there are none of LPIPS. It is no LPIPS

    Of all pictures of a run, in its section `quality`:

    fid         |m - m'|^2 + tr(S + S' - 2 (S S')^1/2) for mean m and covariance S of Inception-v3's 2,048 features of
                the pictures sent and received (Heusel et al., 2017). Far too high for few pictures: compare it
                between runs of as many
    kid         squared maximum mean discrepancy of these features with the kernel (x.y / 2048 + 1)^3, without bias
                whatever the number of pictures, and so at times below 0 (Binkowski et al., 2018)

    A figure that cannot be had is null; the report's section `unmeasured` says why a metric lacks
    figures, once. The grey image that stands for a lost one is measured too: leaving it out would flatter the
    mean.
    """

    class Params(BlockParams):
        clip: str | None = Field(
            None,
            description="CLIP model for clip_score: a folder, or a hub id that was fetched before",
            json_schema_extra=NAMED,
        )
        squeezenet: str | None = Field(
            None,
            description="safetensors of SqueezeNet 1.1's features for squeezenet_distance, named as torchvision does",
            json_schema_extra={"path": True},
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
        self.squeezenet = self._attempt(
            "squeezenet_distance", lambda: self.cached(load_squeezenet, self.params.squeezenet)
        )
        for metric in SET_METRICS:
            self.sets = self._attempt(metric, lambda: self.cached(load_set_distances))
        if self.sets:
            self.sets.reset()

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
            "squeezenet_distance": self.squeezenet
            and self._compare("squeezenet_distance", self.squeezenet, image, sent),
            "latent_mse": self._compare("latent_mse", latent_mse, latent, sent_latent),
        }
        self.report("frames", frame, **figures)
        if self.sets and image and sent and image.count and sent.count:
            self.sets.update(_batch(sent.data), real=True)
            self.sets.update(_batch(image.data), real=False)
        return image and image.tagged(psnr=figures["psnr"], ssim=figures["ssim"])

    def flush(self) -> None:
        figures = {
            name: self.sets and self._attempt(name, partial(set_figure, self.sets, name)) for name in SET_METRICS
        }
        self.report("quality", **figures)

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
        pair = _batch(np.stack([received, sent])) / 255
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


def load_squeezenet(weights: str | None) -> Callable[[np.ndarray, np.ndarray], float]:
    """Return the distance of two pictures, RGB uint8, in SqueezeNet's features; raise `Unmeasured` without weights."""
    if not weights:
        raise Unmeasured("squeezenet_distance needs SqueezeNet 1.1's features: set `squeezenet` to a file")
    from safetensors import SafetensorError

    from models.squeezenet import feature_distance, squeezenet

    try:
        return feature_distance(squeezenet(Path(weights)))
    except (OSError, RuntimeError, SafetensorError) as error:
        cause = str(error).partition("\n")[0]
        raise Unmeasured(f"squeezenet_distance: {weights} has no features of SqueezeNet 1.1 ({cause})") from None


def load_set_distances() -> FeatureShare:
    """Return FID and KID on Inception-v3, of pictures that are still to come; raise `Unmeasured` without its parts."""
    if not (find_spec("torchmetrics") and find_spec("torch_fidelity")):
        raise Unmeasured("fid and kid need torchmetrics and torch-fidelity: pip install 'semflow[metrics]'")
    try:
        import torch
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
        from torchmetrics.image.fid import NoTrainInceptionV3
    except (ImportError, RuntimeError) as error:
        raise Unmeasured(f"fid and kid need a torchvision that goes with the torch installed: {error}") from None
    weights = Path(torch.hub.get_dir(), "checkpoints", URL_INCEPTION_V3.rpartition("/")[2])
    if not weights.exists():
        raise Unmeasured(f"fid and kid need Inception-v3's weights: fetch {URL_INCEPTION_V3} into {weights.parent}")
    try:
        torch.load(weights, weights_only=True)  # torch-fidelity would go on to run what a forged file says
    except (pickle.UnpicklingError, EOFError, OSError, RuntimeError) as error:
        cause = str(error).partition("\n")[0]
        raise Unmeasured(f"fid and kid: {weights} holds no weights: fetch {URL_INCEPTION_V3} again ({cause})") from None
    return set_distances(NoTrainInceptionV3("inception-v3-compat", ["2048"], str(weights)))


def set_distances(network: torch.nn.Module) -> FeatureShare:
    """Return FID and KID on the features [N, D] that a network has of pictures, uint8 [N, 3, H, W]."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance
    from torchmetrics.wrappers import FeatureShare

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that KID holds 8 KiB a picture
        return FeatureShare(
            {"fid": FrechetInceptionDistance(network), "kid": KernelInceptionDistance(network, subsets=1)}
        )


def set_figure(sets: FeatureShare, metric: str) -> float:
    """Return `fid` or `kid` of the pictures that were taken in."""
    count = int(sets["fid"].real_features_num_samples)  # type: ignore[arg-type]
    if count < 2:
        raise Unmeasured(f"{metric} needs two pictures or more")
    sets["kid"].subset_size = count  # all at once, where torchmetrics draws from more
    value = sets[metric].compute()
    return float(value[0] if metric == "kid" else value)


def _batch(pictures: np.ndarray) -> torch.Tensor:
    """Return pictures, RGB uint8 [N, H, W, 3], as torch has them: [N, 3, H, W]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)))
