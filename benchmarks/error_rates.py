"""Bit error rates measured through a flowgraph, beside the closed forms: 16QAM over noise and over Rayleigh fading.

Every interval is to hold its closed form with 99 %: of ten, one misses in every tenth run. `python -m
benchmarks.error_rates` prints the table alone.
"""

from __future__ import annotations

import tempfile
from typing import Any

from blocks.phy.channel import AwgnChannel, Equalizer, RayleighChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from blocks.source.bits import BitSource
from flowgraph import Flowgraph

EBN0_DB = (0, 4, 8, 12, 14)
BITS = 1 << 30  # of a point


def measure(kind: str, ebn0_db: float) -> dict[str, Any]:
    """Return the section `link` of the report of one run over `awgn` or `rayleigh`."""
    source, mapper, errors = BitSource({"bits": BITS}), QamMapper(), ErrorMeter()
    graph = Flowgraph(f"error rate over {kind}", seed=1)
    if kind == "awgn":
        graph.connect(source, mapper, AwgnChannel({"ebn0": ebn0_db}), QamDemapper(), (errors, "received"))
    else:
        air, equalizer, demapper = RayleighChannel({"ebn0": ebn0_db}), Equalizer(), QamDemapper()
        graph.connect(source, mapper, air)
        graph.connect((air, "symbols"), (equalizer, "symbols"))
        graph.connect((air, "gains"), (equalizer, "gains"))
        graph.connect(equalizer, (demapper, "symbols"))
        graph.connect((air, "gains"), (demapper, "gains"))
        graph.connect(demapper, (errors, "received"))
    graph.connect(source, (errors, "sent"))
    with tempfile.TemporaryDirectory() as folder:
        return graph.run(folder).sections["link"]


def main() -> list[dict[str, Any]]:
    print(f"bit error rate of 16QAM, {BITS / 1e6:.0f} million bits a point")
    rows = []
    for kind in ("awgn", "rayleigh"):
        for ebn0_db in EBN0_DB:
            link = measure(kind, ebn0_db)
            (low, high), expected = link["ber_interval"], link["ber_theory"]
            keys = ("ebn0_db", "bits", "ber", "ber_interval", "ber_theory")
            row = {"channel": kind, **{key: link[key] for key in keys}, "inside": low <= expected <= high}
            rows.append(row)
            print(
                f"{kind:8} {ebn0_db:2} dB  {link['ber']:.4e}, 99 % {low:.4e} to {high:.4e}"
                f"  closed form {expected:.4e} {'inside' if row['inside'] else 'OUTSIDE'}"
            )
    return rows


if __name__ == "__main__":
    main()
