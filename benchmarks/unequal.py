"""What unequal protection gains: the mean squared error of latents over the noise, at equal channel uses.

Latents of N(0, 1) and a caption cross AWGN by `configs/links/unequal.yaml`, quantised and plane by plane, and for
comparison by the LDPC link (16QAM, one code for all) with quantisers of several sizes, each at the code rate that
makes it take as many symbols a frame. Soft bits everywhere. `python -m benchmarks.unequal` prints the table of
`docs/unequal.md`.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from blocks.fec.coders import LdpcDecoder, LdpcEncoder
from blocks.fec.unequal import UnequalDemodulator, UnequalModulator
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import AwgnChannel
from blocks.phy.qam import QamDemapper, QamMapper
from flowgraph.block import Block, Context, Packet
from flowgraph.testing import run_block

LINK = Path(__file__).parents[1] / "configs/links/unequal.yaml"
CAPTION = b"a dog runs along the beach with a ball in its mouth"
SHAPE = (4, 24, 24)  # of the embedded autoencoder at 192 x 192 pixels
FRAMES = 20
ESN0_DB = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 20)
QUANTISERS = ("quant8", "quant6", "quant4", "quant3")  # of the uniform link; quant2 would need a rate below 1/5


def shipped_profile() -> dict[str, Any]:
    return yaml.safe_load(LINK.read_text())["vars"]["profile"]


def latents(frames: int) -> list[Packet]:
    rng = np.random.default_rng(1)
    return [Packet(rng.standard_normal((1, *SHAPE), np.float32), n, last=True) for n in range(frames)]


def through(blocks: list[Block], packets: list[Packet]) -> list[Packet]:
    for block in blocks:
        (port,) = [port.name for port in block.inputs if not port.optional]
        packets = run_block(block, {port: packets})[block.outputs[0].name]
    return packets


def serialised(sent: list[Packet], form: str, layout: str) -> list[Packet]:
    texts = [Packet(np.frombuffer(CAPTION, np.uint8), packet.frame, last=True) for packet in sent]
    return run_block(BitSerializer({"latent": form, "layout": layout}), {"text": texts, "latent": sent})["bits"]


def unequal(profile: dict[str, Any]) -> tuple[list[Block], list[Block]]:
    """Return the blocks before and behind the channel."""
    return [UnequalModulator({"profile": profile})], [UnequalDemodulator({"profile": profile, "output": "llr8"})]


def uniform(bits: int, symbols: int) -> tuple[list[Block], list[Block]]:
    """Return the blocks before and behind the channel for frames of so many bits to be sent as so many symbols.

    The code blocks of a frame are of one length: a short last one would fail first.
    """
    blocks = -(-bits // 8400)
    code = {"rate": str(Fraction(bits, 4 * symbols)), "block_bits": -(-bits // blocks // 8) * 8}
    decoder = LdpcDecoder(code | {"output": "llr8"})
    return [LdpcEncoder(code), QamMapper()], [QamDemapper({"output": "llr8"}), decoder]


def measure(
    link: tuple[list[Block], list[Block]], form: str, layout: str, esn0_db: float, frames: int = FRAMES
) -> dict[str, float]:
    """Return the latents' mean squared error, the share of captions that came right, and symbols a frame."""
    sent = latents(frames)
    before, behind = link
    symbols = through(before, serialised(sent, form, layout))
    air = AwgnChannel({"esn0": esn0_db}, "air", Context(seed=2))
    made = run_block(BitDeserializer(), {"bits": through([air, *behind], symbols)})
    errors = [
        np.mean((a.data - b.data) ** 2) if b.count else np.mean(a.data**2)
        for a, b in zip(sent, made["latent"], strict=True)
    ]
    right = [packet.data.tobytes() == CAPTION for packet in made["text"]]
    return {
        "mse": float(np.mean(errors)),
        "captions": float(np.mean(right)),
        "symbols": sum(packet.count for packet in symbols) / frames,
    }


def main() -> None:
    """Print the table."""
    link = unequal(shipped_profile())
    symbols = round(measure(link, "quant8", "planes", 20, 1)["symbols"])
    kinds = {"unequal, quant8": (link, "quant8", "planes")}
    for form in QUANTISERS:
        (frame,) = serialised(latents(1), form, "groups")
        kinds[f"uniform {Fraction(frame.count, 4 * symbols).limit_denominator(100)}, {form}"] = (
            uniform(frame.count, symbols),
            form,
            "groups",
        )
    print(
        f"{symbols} symbols a frame, {FRAMES} frames: mean squared error; captions that came right, where not all did"
    )
    print("| Es/N0, dB | " + " | ".join(kinds) + " |")
    print("|---" * (len(kinds) + 1) + "|")
    sums = np.zeros(len(kinds))
    for esn0_db in ESN0_DB:
        found = [measure(*kind, esn0_db) for kind in kinds.values()]
        sums += [each["mse"] for each in found]
        cells = [f"{r['mse']:.3g}" + (f" ({r['captions']:.0%})" if r["captions"] < 1 else "") for r in found]
        print(f"| {esn0_db} | " + " | ".join(cells) + " |", flush=True)
    print("| mean | " + " | ".join(f"{each:.3g}" for each in sums / len(ESN0_DB)) + " |")


if __name__ == "__main__":
    main()
