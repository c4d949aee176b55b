"""Picture quality through the whole flowgraph: what the receiver gains over plain decoding, and what the link costs.

Photographs cross 16QAM over AWGN as float64 latents, hard decisions, guidance 1; the receiver's noise figure is the
deserialiser's own. All figures are paired: every receiver gets the same frames. `python -m benchmarks.quality
--images FOLDER`.
"""

from __future__ import annotations

import argparse
import tempfile
from typing import Any

import numpy as np

from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.diffusion import DiffusionSink
from blocks.sink.quality import psnr
from blocks.source.captioner import CaptionerSource
from blocks.source.latent_encoder import LatentEncoderSource
from flowgraph import Block, Flowgraph, Packet, Port
from models.evaluation import interval

ALONE = "autoencoder alone"
SCHEDULE = (2, 4, 6, 8)  # denoising steps of the paper's schedule


class Collect(Block):
    """Report the PSNR of every frame under this block's name."""

    inputs = (
        Port("image", "uint8", shape=(None, None, 3), whole=True),
        Port("sent", "uint8", shape=(None, None, 3), whole=True),
    )

    def work(self, image: Packet, sent: Packet) -> None:
        self.report("frames", image.frame, **{self.name: psnr(image.data[0], sent.data[0])})


def measure(images: str, count: int, model: str, ebn0_db: float, schedule: tuple[int, ...] = ()) -> dict[str, Any]:
    """Return the PSNR in dB of every frame, float64 [count], by receiver: `paper T = 0`, `bounded matched`, ..."""
    graph = Flowgraph(f"quality at {ebn0_db} dB", seed=1)
    caption = CaptionerSource({"images": images, "limit": count, "model": model, "tokenizer": model})
    encode = LatentEncoderSource({"images": images, "limit": count, "model": model})
    pack, demap = BitSerializer({"latent": "float64"}), QamDemapper()
    graph.connect((caption, "text"), (pack, "text"))
    graph.connect((encode, "latent"), (pack, "latent"))
    graph.connect(pack, QamMapper(), AwgnChannel({"ebn0": ebn0_db}), (demap, "symbols"))

    def receive(name: str, unpack: Block, text: Block, steps: int | str) -> None:
        render, collect = DiffusionSink({"model": model, "steps": steps, "batch": 10}), Collect(name=name)
        graph.connect((text, "text"), (render, "text"))
        graph.connect((unpack, "latent"), (render, "latent"))
        graph.connect(render, (collect, "image"))
        graph.connect((encode, "image"), (collect, "sent"))

    receive(ALONE, encode, caption, 0)
    for floats in ("paper", "bounded"):
        unpack = BitDeserializer({"floats": floats})
        graph.connect((demap, "bits"), unpack)
        for steps in (0, "matched", *(schedule if floats == "paper" else ())):
            receive(f"{floats} {steps if steps == 'matched' else f'T = {steps}'}", unpack, unpack, steps)
    with tempfile.TemporaryDirectory() as folder:
        rows = graph.run(folder).frames.values()
    names = [block.name for block in graph.spec.blocks if block.type == "collect"]
    return {name: np.array([row[name] for row in rows]) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality", description=__doc__)
    parser.add_argument("--images", default="sample", help="file, folder or glob")
    parser.add_argument("--count", type=int, default=100, help="how many of them")
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a hub id")
    arguments = parser.parse_args()
    for ebn0_db, schedule in ((14.0, ()), (7.5, SCHEDULE)):
        figures = measure(arguments.images, arguments.count, arguments.model, ebn0_db, schedule)
        alone = figures.pop(ALONE)
        print(f"Eb/N0 {ebn0_db} dB, {len(alone)} images: PSNR in dB; autoencoder alone {interval(alone)}")
        for name, values in figures.items():
            plain = figures[f"{name.partition(' ')[0]} T = 0"]
            print(
                f"  {name:16} {interval(values)}; over T = 0 {interval(values - plain)}; "
                f"below the autoencoder {interval(alone - values)}"
            )


if __name__ == "__main__":
    main()
