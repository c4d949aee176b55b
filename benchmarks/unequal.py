"""What unequal protection gains: pictures over the noise, at equal channel uses.

Photographs' latents and a caption cross AWGN by `configs/links/unequal.yaml`, plane by plane, and for comparison by the
LDPC code alone, one rate for all, in QPSK and in 16QAM, with quantisers of several sizes, each at the rate that makes
it take as many symbols a frame. Soft bits everywhere; the receiver starts where the noise calls for, and is told no
caption. `python -m benchmarks.unequal` prints the table of `docs/unequal.md`.
"""

from __future__ import annotations

import argparse
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from blocks.fec.coders import LdpcDecoder, LdpcEncoder, even
from blocks.fec.unequal import UnequalDemodulator, UnequalModulator
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import AwgnChannel
from blocks.phy.constellation import constellation
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.diffusion import DiffusionSink
from blocks.sink.quality import psnr
from blocks.source.latent_encoder import LatentEncoderSource
from flowgraph.block import Block, Context, Packet
from flowgraph.control import matching_files
from flowgraph.testing import run_block

CONFIGS = Path(__file__).parents[1] / "configs"
CAPTION = b"a dog runs along the beach with a ball in its mouth"
ESN0_DB = range(-2, 11)
UNIFORM = (("qpsk", 3), ("qpsk", 4), ("qpsk", 5), ("qpsk", 6), ("16qam", 5))  # modulation, and bits of the quantiser


class Link(NamedTuple):
    """How latents cross: their format and layout, and the blocks before and behind the channel."""

    latent: str
    layout: str
    before: list[Block]
    behind: list[Block]


class Crossed(NamedTuple):
    """What came of frames: latents, their mean squared error, the share of captions that are right, symbols a frame."""

    latents: list[Packet]
    mse: float
    captions: float
    symbols: float


def gaussian(frames: int) -> list[Packet]:
    """Return latents of N(0, 1), of the embedded autoencoder's size at 192 x 192 pixels."""
    rng = np.random.default_rng(1)
    return [Packet(rng.standard_normal((1, 4, 24, 24), np.float32), n, last=True) for n in range(frames)]


def through(blocks: list[Block], packets: list[Packet]) -> list[Packet]:
    for block in blocks:
        (port,) = [port.name for port in block.inputs if not port.optional]
        packets = run_block(block, {port: packets})[block.outputs[0].name]
    return packets


def serialised(sent: list[Packet], latent: str, layout: str) -> list[Packet]:
    texts = [Packet(np.frombuffer(CAPTION, np.uint8), packet.frame, last=True) for packet in sent]
    return run_block(BitSerializer({"latent": latent, "layout": layout}), {"text": texts, "latent": sent})["bits"]


def shipped() -> Link:
    """Return the link of `configs/links/unequal.yaml` with the latents of its overlay."""
    profile = yaml.safe_load((CONFIGS / "links/unequal.yaml").read_text())["vars"]["profile"]
    latent = yaml.safe_load((CONFIGS / "overlays/unequal.yaml").read_text())["vars"]["latent"]
    return unequal(profile, latent)


def unequal(profile: dict[str, Any], latent: str) -> Link:
    behind = UnequalDemodulator({"profile": profile, "output": "llr8"})
    return Link(latent, "planes", [UnequalModulator({"profile": profile})], [behind])


def uniform(modulation: str, latent: str, sent: list[Packet], symbols: float) -> tuple[Fraction, Link]:
    """Return the link whose frames take so many symbols each, and its code rate; code blocks are of one length."""
    bits, order = serialised(sent[:1], latent, "groups")[0].count, constellation(modulation).bits_per_symbol
    rate = Fraction(bits, order * round(symbols))
    code = {"rate": str(rate), "order": order}
    code["block_bits"] = even(LdpcEncoder.Params(**code), bits).block_bits
    behind = [QamDemapper({"modulation": modulation, "output": "llr8"}), LdpcDecoder(code | {"output": "llr8"})]
    return rate, Link(latent, "groups", [LdpcEncoder(code), QamMapper({"modulation": modulation})], behind)


def cross(link: Link, esn0_db: float, sent: list[Packet]) -> Crossed:
    """Send latents, and a caption with each."""
    symbols = through(link.before, serialised(sent, link.latent, link.layout))
    air = AwgnChannel({"esn0": esn0_db}, "air", Context(seed=2))
    made = run_block(BitDeserializer(), {"bits": through([air, *link.behind], symbols)})
    errors = [
        np.mean((a.data - b.data) ** 2) if b.count else np.mean(a.data**2)
        for a, b in zip(sent, made["latent"], strict=True)
    ]
    right = [packet.data.tobytes() == CAPTION for packet in made["text"]]
    count = sum(packet.count for packet in symbols) / len(sent)
    return Crossed(made["latent"], float(np.mean(errors)), float(np.mean(right)), count)


def photographs(images: str, count: int) -> tuple[list[Packet], list[Packet]]:
    """Return latents and pictures."""
    context = Context(files=lambda pattern, ends: ((p.name, p.read_bytes()) for p in matching_files(pattern, ends)))
    made = run_block(LatentEncoderSource({"images": images, "limit": count}, "encode", context), {})
    return made["latent"], made["image"]


def quality(latents: list[Packet], pictures: list[Packet]) -> float:
    """Return the mean PSNR in dB of what the receiver makes of latents."""
    made = run_block(DiffusionSink({"batch": 8}), {"latent": latents})["image"]
    return float(np.mean([psnr(a.data[0], b.data[0]) for a, b in zip(made, pictures, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unequal", description=__doc__)
    parser.add_argument("--images", default="sample", help="file, folder or glob")
    parser.add_argument("--count", type=int, default=12, help="how many of them")
    arguments = parser.parse_args()
    sent, pictures = photographs(arguments.images, arguments.count)
    link = shipped()
    symbols = cross(link, 20, sent).symbols
    links = {f"unequal, {link.latent}": link}
    for modulation, bits in UNIFORM:
        rate, link = uniform(modulation, f"quant{bits}", sent, symbols)
        links[f"{modulation} {rate.limit_denominator(50)}, {link.latent}"] = link
    print(f"{symbols:.0f} symbols a frame, {len(sent)} pictures: PSNR in dB, mean squared error of latents", end="")
    print("; captions that came right, where not all did")
    print("| Es/N0, dB | " + " | ".join(links) + " |")
    print("|---" * (len(links) + 1) + "|")
    known: dict[bytes, float] = {}  # PSNR by latents received: of those that came right it is the same at any noise
    rows = []
    for esn0_db in ESN0_DB:
        cells, row = [], []
        for link in links.values():
            crossed = cross(link, esn0_db, sent)
            key = b"".join(packet.data.tobytes() for packet in crossed.latents)
            if key not in known:
                known[key] = quality(crossed.latents, pictures)
            row.append(known[key])
            right = f", {crossed.captions:.0%}" if crossed.captions < 1 else ""
            cells.append(f"{known[key]:.1f} ({crossed.mse:.2g}{right})")
        rows.append(row)
        print(f"| {esn0_db} | " + " | ".join(cells) + " |", flush=True)
    print("| mean | " + " | ".join(f"{each:.2f}" for each in np.mean(rows, axis=0)) + " |")


if __name__ == "__main__":
    main()
