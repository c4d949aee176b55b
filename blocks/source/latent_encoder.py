"""`latent_encoder_source`: images in, their latents out."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal

from pydantic import Field

import models
from blocks.model import NAMED, ModelParams, load
from blocks.source.images import ImageParams, Size, parse_size, read_batches
from flowgraph.block import Block, BlockError, Output, Packet, Port


class LatentEncoderSource(Block):
    """Encode images as scaled latents of an autoencoder: one latent a frame.

    z = s E(x) with the model's encoder E and scaling factor s: float32 (1, channels, height/8, width/8), of
    about unit variance. E(x) is the mean of the posterior, or a sample of it drawn by (seed, block, frame).
    `image` carries the picture after geometry, tagged `name`, for meters.
    """

    class Params(ImageParams, ModelParams):
        model: str = Field(
            "embedded",
            description='autoencoder: "embedded", a hub id or a folder, its own or that of a pipeline',
            json_schema_extra=NAMED,
        )
        size: Size | None = Field(None, description="height and width, multiples of 8 px; the model's own by default")
        how: Literal["mode", "sample"] = Field(
            "mode", description="mean of the posterior, or a sample of it (as in the paper)"
        )

    outputs = (
        Port("latent", "float32", "scaled latent: channels, height, width", shape=(None, None, None)),
        Port("image", "uint8", "picture as sent, RGB", shape=(None, None, 3)),
    )

    def start(self) -> None:
        p = self.params
        self.autoencoder = load(self, models.load_autoencoder, p.model, **p.options())
        self.size = parse_size(p.size) if p.size else self.autoencoder.size
        if any(side % self.autoencoder.factor for side in self.size):
            raise BlockError(f"size must be multiples of {self.autoencoder.factor} px for {p.model}, not {p.size}")

    def produce(self) -> Iterator[Output]:
        for frames, names, pictures in read_batches(self, self.size):
            facts = pictures, self.params.model, self.params.options()
            posterior = self.computed(partial(self.autoencoder.posterior, pictures), *facts)
            seeds = [(self.key + frame) % 2**63 for frame in frames]
            latents = self.autoencoder.draw(posterior, self.params.how, seeds)
            for frame, name, picture, latent in zip(frames, names, pictures, latents, strict=True):
                self.report("frames", frame, name=name)
                image = Packet(picture[None], frame, last=True).tagged(name=name)
                yield {"latent": Packet(latent[None], frame, last=True), "image": image}
