"""The captioner's teacher: a convolutional network that knows ImageNet, and the words that follow from it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from ..content_words import content_words
from ..squeezenet import IMAGENET_BGR, squeezenet
from .data import Photographs

SIDE = 144  # pixels that give SqueezeNet's features on an 8x8 grid
CHANNELS = 512  # of these features
WORDS = 500  # content words that the teacher names


def views(images: np.ndarray, random: np.random.Generator) -> torch.Tensor:
    """A random view of each image: 47 to 100 % of its sides, mirrored or not, tinted; float32 0..255."""
    count = len(images)
    scale = random.uniform(0.55, 1.0, (count, 1)) * random.uniform(0.85, 1.0, (count, 2))
    shift = random.uniform(-1, 1, (count, 2)) * (1 - scale)
    affine = np.zeros((count, 2, 3), np.float32)
    affine[:, 0, 0] = scale[:, 0] * random.choice([-1, 1], count)
    affine[:, 1, 1] = scale[:, 1]
    affine[:, :, 2] = shift
    grid = functional.affine_grid(torch.from_numpy(affine), [count, 3, SIDE, SIDE], align_corners=False)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain = torch.from_numpy(random.uniform(0.8, 1.2, (count, 3, 1, 1)).astype(np.float32))
    return (x * gain).clamp(0, 255)


def whole(images: np.ndarray) -> torch.Tensor:
    """Each image uint8 [N, H, W, 3] squeezed to the teacher's size: float32 0..255."""
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    return functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def see(vision: Any, processor: Any, x: torch.Tensor) -> torch.Tensor:
    """What the vision encoder makes of images float32 [N, 3, H, W], 0..255: a state per patch, and one more first."""
    side = vision.config.image_size
    pixels = functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False) / 255
    mean, deviation = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (processor.image_processor.image_mean, processor.image_processor.image_std)
    )
    with torch.autocast("cpu", torch.bfloat16):
        return vision((pixels - mean) / deviation).last_hidden_state.float()


def pooled(features: torch.Tensor) -> torch.Tensor:
    """Mean and maximum over the image: [N, C, H, W] -> [N, 2 C]."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


def naming(features: torch.Tensor, named: torch.Tensor) -> nn.Sequential:
    """The teacher's second part: features float32 [N, 1024] -> a logit per word, taught from `named` [N, WORDS]."""
    network = nn.Sequential(
        nn.BatchNorm1d(features.shape[1], affine=False),
        nn.Dropout(0.3), nn.Linear(features.shape[1], 512), nn.GELU(), nn.Dropout(0.5), nn.Linear(512, WORDS),
    )  # fmt: skip
    last: Any = network[-1]
    nn.init.constant_(last.bias, -4.0)  # most words are in few captions
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)
    for _ in range(10):
        for rows in torch.randperm(len(features)).split(256):
            loss = functional.binary_cross_entropy_with_logits(network(features[rows]), named[rows], reduction="sum")
            optimizer.zero_grad()
            (loss / len(rows)).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


class Teacher:
    """SqueezeNet 1.1 and, on top of it, a small network that names the content words of the captions."""

    def __init__(self, weights: Path, used: Photographs) -> None:
        self.network = squeezenet(weights).to(memory_format=torch.channels_last)
        counts = Counter(word for captions in used.captions for c in captions for word in content_words(c))
        self.words = [word for word, _ in counts.most_common(WORDS)]
        index = {word: i for i, word in enumerate(self.words)}
        named = torch.zeros(len(used.names), WORDS)
        for row, captions in zip(named, used.captions, strict=True):
            for caption in captions:
                for word in content_words(caption) & index.keys():
                    row[index[word]] += 1 / len(captions)
        torch.manual_seed(2026)
        random = np.random.default_rng(2026)
        twice = np.tile(np.arange(len(used.names)), 2)
        summary = torch.cat([pooled(self.features(views(used.images[twice[i : i + 64]], random)))
                             for i in range(0, len(twice), 64)])  # fmt: skip
        self.naming = naming(summary, named.repeat(2, 1))

    @torch.no_grad()
    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Of images float32 [N, 3, 144, 144], 0..255: [N, 512, 8, 8]."""
        bgr = (x.flip(1) - torch.tensor(IMAGENET_BGR).view(1, 3, 1, 1)).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            return self.network(bgr).float().sqrt()

    @torch.no_grad()
    def answers(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Normalised features of each patch [N, 64, 512], of the image [N, 1024], and chances of words [N, 500]."""
        features = self.features(x)
        summary = pooled(features)
        patches = functional.layer_norm(features.flatten(2).transpose(1, 2), (CHANNELS,))
        return patches, self.naming[0](summary), self.naming(summary).sigmoid()

    def five(self, said: torch.Tensor) -> list[str]:
        """The five likeliest words of each row [N, 500], as one text."""
        return [" ".join(self.words[i] for i in row) for row in said.topk(5).indices.tolist()]
