"""Runs at the edge of what numbers can be: they end well, with figures that make sense."""

import json

import pytest

GRAPH = """\
flowgraph: extreme
blocks:
  source: {{use: bit_source, bits: 400000}}
{channel}
  errors: {{use: error_meter}}
wires:
  - source.bits -> errors.sent
{wires}
"""
MODEM = """\
  map: {use: qam_mapper}
  demap: {use: qam_demapper}
  symbols: {use: error_meter}
"""
AWGN = (
    MODEM + "  air: {use: awgn_channel, ebn0: EBN0 dB}",
    """\
  - source.bits -> map.bits
  - map.symbols -> air.symbols -> demap.symbols
  - map.symbols -> symbols.sent
  - air.symbols -> symbols.received
  - demap.bits -> errors.received
""",
)
RAYLEIGH = (
    MODEM + "  air: {use: rayleigh_channel, ebn0: EBN0 dB}\n  equalize: {use: equalizer}",
    """\
  - source.bits -> map.bits
  - map.symbols -> air.symbols -> equalize.symbols -> demap.symbols
  - air.gains -> equalize.gains
  - air.gains -> demap.gains
  - map.symbols -> symbols.sent
  - equalize.symbols -> symbols.received
  - demap.bits -> errors.received
""",
)
BIT_FLIP = (
    "  air: {use: bit_flip_channel, ebn0: EBN0 dB}",
    "  - source.bits -> air.bits\n  - air.bits -> errors.received\n",
)
STRANGE = (
    MODEM + "  spoil: {use: numpy_function, file: spoil.py, function: spoil}",
    """\
  - source.bits -> map.bits
  - map.symbols -> spoil.items -> demap.symbols
  - map.symbols -> symbols.sent
  - spoil.items -> symbols.received
  - demap.bits -> errors.received
""",
)
SPOIL = """\
import numpy as np

def spoil(symbols):
    spoilt = np.where(symbols.imag > 0.9, np.complex64(np.inf), symbols)
    return np.where(symbols.real > 0.9, np.complex64(np.nan), spoilt)
"""


def run(cli, graph, ebn0=""):
    channel, wires = graph
    (cli.folder / "graph.yaml").write_text(GRAPH.format(channel=channel, wires=wires).replace("EBN0", str(ebn0)))
    ended = cli.run("graph.yaml", "--out", "out")
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stderr
    return json.loads((cli.folder / "out" / "report.json").read_text()), ended.stderr


@pytest.mark.parametrize("graph", [AWGN, RAYLEIGH, BIT_FLIP], ids=["awgn", "rayleigh", "bit_flip"])
@pytest.mark.parametrize(("ebn0", "ber"), [(-300, 0.5), (300, 0.0)])
def test_eb_n0_of_300_db_either_way(cli, graph, ebn0, ber):
    report, _ = run(cli, graph, ebn0)
    link = report["link"]
    assert link["bits"] == 400_000
    assert link["ber"] == pytest.approx(ber, abs=0.005 if ber else 0)
    assert link["ber_theory"] == pytest.approx(ber, abs=1e-9)
    assert link["ebn0_db"] == ebn0
    if "map" in report["blocks"]:
        assert link["symbols"] == 100_000
        assert link["ser"] == pytest.approx(15 / 16 if ber else 0, abs=0.005)
        assert link["snr_measured_db"] is None or link["snr_measured_db"] > 100  # no signal can be told from noise


def test_symbols_that_are_nan_or_infinite(cli):
    """Of 16 points 7 are spoilt; taken for bits 0000, they err in 14 of all 64 bits."""
    (cli.folder / "spoil.py").write_text(SPOIL)
    report, told = run(cli, STRANGE)
    link = report["link"]
    assert "demap: symbols that are NaN or infinite came in; their bits are 0 (LLRs 0)" in told
    assert (link["bits"], link["symbols"]) == (400_000, 100_000)
    assert link["ber"] == pytest.approx(14 / 64, abs=0.005)
    assert link["ser"] == pytest.approx(7 / 16, abs=0.005)
    assert link["evm_rms"] == 0
    assert report["blocks"]["demap"]["errors"] == 1
