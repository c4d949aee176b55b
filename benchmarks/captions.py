"""How many captions come right: as they are, repaired, sent again, and both.

Frames of a caption and a latent cross uncoded 16QAM with soft bits, over white noise and over Rayleigh fading in time
that the receiver knows. What is sent again are frames whose header is lost and damaged captions, once, over noise and
fading of their own. `python -m benchmarks.captions` prints the table of `docs/frame.md`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blocks.fec.retransmission import ChaseCombiner, RetransmissionRequester, Retransmitter
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import AwgnChannel, Equalizer, RayleighChannel
from blocks.phy.qam import QamDemapper, QamMapper
from flowgraph.block import Context, Packet
from flowgraph.testing import run_block

CAPTION = b"a brown dog runs along the beach with a ball in its mouth"[:55]
FRAMES = 1000
REPAIR = 6
FADING = {"fading": "doppler", "doppler": "1 kHz", "symbol_rate": "1 MHz"}
CHANNELS = [(False, 2.0), (False, 3.0), (True, 5.0), (True, 8.0), (True, 11.0)]  # whether it fades, and Es/N0 in dB


def frames() -> list[Packet]:
    rng = np.random.default_rng(1)
    texts = [Packet(np.frombuffer(CAPTION, np.uint8), n, last=True) for n in range(FRAMES)]
    sent = [Packet(rng.standard_normal((1, 4, 24, 24), np.float32), n, last=True) for n in range(FRAMES)]
    return run_block(BitSerializer({"latent": "quant6"}), {"text": texts, "latent": sent})["bits"]


def across(bits: list[Packet], name: str, fades: bool, esn0: float) -> list[Packet]:
    """Return the LLRs of frames."""
    symbols = run_block(QamMapper(), {"bits": bits})["symbols"]
    context = Context(seed=1)
    if not fades:
        noisy = run_block(AwgnChannel({"esn0": esn0}, name, context), {"symbols": symbols})
        return run_block(QamDemapper({"output": "llr8"}), noisy)["bits"]
    faded = run_block(RayleighChannel({"esn0": esn0} | FADING, name, context), {"symbols": symbols})
    level = run_block(Equalizer({"method": "zf"}), faded)["symbols"]
    return run_block(QamDemapper({"output": "llr8"}), {"symbols": level, "gains": faded["gains"]})["bits"]


def right(llrs: list[Packet], repair: int) -> int:
    texts = run_block(BitDeserializer({"repair": repair}), {"bits": llrs})["text"]
    return sum(text.data.tobytes() == CAPTION for text in texts)


def rows() -> Iterator[list[str]]:
    """Yield for each channel what came right once, with repair, sent again, with both; and bits sent again."""
    bits = frames()
    for fades, esn0 in CHANNELS:
        once = across(bits, "air", fades, esn0)
        wanted = run_block(RetransmissionRequester({"above": None}), {"bits": once})["wanted"]
        again = run_block(Retransmitter(), {"bits": bits, "wanted": wanted})["bits"]
        came = across(again, "air2", fades, esn0)
        twice = run_block(ChaseCombiner(), {"bits": once, "again": came, "wanted": wanted})["bits"]
        counts = [right(llrs, repair) for llrs in (once, twice) for repair in (0, REPAIR)]
        share = sum(packet.count for packet in again) / sum(packet.count for packet in bits)
        yield ["Rayleigh" if fades else "AWGN", f"{esn0:g} dB", *map(str, counts), f"{share:.1%}"]


def main() -> None:
    print("| channel | Es/N0 | once | repaired | sent again | both | bits sent again |")
    print("|---|---|---|---|---|---|---|")
    for row in rows():
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
