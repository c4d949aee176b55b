"""SqueezeNet 1.1 (Iandola et al., 2016), whose features tell how pictures look, from weights at hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

IMAGENET_BGR = (103.939, 116.779, 123.68)  # mean of its training images
LOOKED_AT = (1, 4, 7, 9, 10, 11, 12)  # behind conv1 and the fire modules 3, 5, 6, 7, 8, 9


class Fire(nn.Module):
    """Squeeze to few channels, then expand them by 1x1 and 3x3 filters."""

    def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.squeeze(x).relu()
        return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()


def squeezenet(weights: Path) -> Any:
    """The convolutional part: BGR 0..255 less the ImageNet mean -> 512 channels at 1/16.

    `weights` are safetensors, with the names that torchvision's `squeezenet1_1().features` has.
    """

    def pool() -> nn.MaxPool2d:
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip
    network.load_state_dict({k.removeprefix("features."): v for k, v in load_file(weights).items()})
    return network.eval().requires_grad_(False)


def feature_distance(network: Any) -> Callable[[np.ndarray, np.ndarray], float]:
    """The distance of two pictures, RGB uint8 [H, W, 3], in SqueezeNet's features f: 0 to 2.

    The mean over places of | f / |f| - f' / |f'| |^2 in each of seven layers, and of these the mean.
    It is LPIPS (Zhang et al., 2018) without the weights that were learned for that from people's answers.
    """
    mean = torch.tensor(IMAGENET_BGR)

    def distance(received: np.ndarray, sent: np.ndarray) -> float:
        pair = torch.from_numpy(np.stack([received, sent])).flip(-1) - mean
        x, found = pair.permute(0, 3, 1, 2), []
        with torch.inference_mode():
            for place, layer in enumerate(network):
                x = layer(x)
                if place in LOOKED_AT:
                    one, other = nn.functional.normalize(x, dim=1)
                    found.append(float((one - other).square().sum(0).mean()))
        return sum(found) / len(found)

    return distance
