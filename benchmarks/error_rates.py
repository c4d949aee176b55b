"""Bit error rates measured through a flowgraph, beside the closed forms, over noise and over Rayleigh fading.

Every interval is to hold its closed form with 99 %: of ten, one misses in every tenth run. `python -m
benchmarks.error_rates` prints the table of 16QAM alone, `python -m benchmarks.error_rates bpsk 256qam` that of others.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from blocks.phy.channel import AwgnChannel, Equalizer, RayleighChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph import Flowgraph

EBN0_DB = {
    "bpsk": (0, 5, 10),
    "qpsk": (0, 5, 10),
    "8psk": (4, 9, 14),
    "16qam": (0, 4, 8, 12, 14),
    "64qam": (8, 14, 18),
    "256qam": (12, 18, 22),
}
BITS = 1 << 30  # of a point


def measure(kind: str, modulation: str, ebn0_db: float) -> dict[str, Any]:
    """Return the section `link` of the report of one run over `awgn` or `rayleigh`."""
    source, errors = BitSource({"bits": BITS}), ErrorMeter()
    mapper, demapper = (block({"modulation": modulation}) for block in (QamMapper, QamDemapper))
    graph = Flowgraph(f"error rate over {kind}", seed=1)
    if kind == "awgn":
        graph.connect(source, mapper, AwgnChannel({"ebn0": ebn0_db}), demapper, (errors, "received"))
    else:
        air, equalizer = RayleighChannel({"ebn0": ebn0_db}), Equalizer()
        graph.connect(source, mapper, air)
        graph.connect((air, "symbols"), (equalizer, "symbols"))
        graph.connect((air, "gains"), (equalizer, "gains"))
        graph.connect(equalizer, (demapper, "symbols"))
        graph.connect((air, "gains"), (demapper, "gains"))
        graph.connect(demapper, (errors, "received"))
    graph.connect(source, (errors, "sent"))
    with tempfile.TemporaryDirectory() as folder:
        return graph.run(folder).sections["link"]


def main(modulation: str = "16qam") -> list[dict[str, Any]]:
    print(f"bit error rate of {modulation}, {BITS / 1e6:.0f} million bits a point")
    rows = []
    for kind in ("awgn", "rayleigh"):
        for ebn0_db in EBN0_DB[modulation]:
            link = measure(kind, modulation, ebn0_db)
            (low, high), expected = link["ber_interval"], link["ber_theory"]
            keys = ("ebn0_db", "bits", "ber", "ber_interval", "ber_theory")
            row = {
                "channel": kind,
                "modulation": modulation,
                **{key: link[key] for key in keys},
                "inside": low <= expected <= high,
            }
            rows.append(row)
            print(
                f"{kind:8} {ebn0_db:2} dB  {link['ber']:.4e}, 99 % {low:.4e} to {high:.4e}"
                f"  closed form {expected:.4e} {'inside' if row['inside'] else 'OUTSIDE'}"
            )
    return rows


if __name__ == "__main__":
    for each in sys.argv[1:] or ["16qam"]:
        main(each)
