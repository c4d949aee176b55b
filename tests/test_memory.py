"""A worker without models is small, knows nothing of torch, and stays as it is however long the stream."""

import json
from pathlib import Path

GRAPH = """\
flowgraph: long stream
seed: 1
workers:
  tx: {blocks: [source, map]}
  air: {blocks: [air]}
  rx: {blocks: [demap, errors]}
blocks:
  source: {use: bit_source, bits: 4e9 bit, frame: 262144 bit, packet: 262144 bit}
  map: {use: qam_mapper}
  air: {use: awgn_channel, ebn0: 10 dB}
  demap: {use: qam_demapper}
  errors: {use: error_meter}
wires:
  - source.bits -> map.bits
  - map.symbols -> air.symbols -> demap.symbols
  - demap.bits -> errors.received
  - source.bits -> errors.sent
"""


def status(number, field):
    for line in Path(f"/proc/{number}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    return None


def workers(cli):
    """Return the process numbers of a run's workers by name."""
    found = {}
    for number in cli.processes():
        try:
            environment = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for entry in environment:
            if entry.startswith(b"SEMFLOW_WORKER="):
                found[entry.partition(b"=")[2].decode()] = number
    return found


def test_a_billion_symbols_pass_in_flat_memory_below_300_mb_without_torch(cli):
    (cli.folder / "graph.yaml").write_text(GRAPH)
    process = cli.start("graph.yaml", "--out", "out", "--quiet")
    peaks, early = {}, {}
    report = cli.folder / "out" / "report.json"
    while process.poll() is None:
        for name, number in workers(cli).items():
            try:
                peaks[name] = status(number, "VmHWM") or peaks.get(name, 0)
                maps = Path(f"/proc/{number}/maps").read_text()
            except OSError:
                continue
            assert "libtorch" not in maps, f"worker {name} has loaded torch"
            if name not in early and report.exists() and '"ber": 0' in report.read_text():
                early[name] = peaks[name]
        cli.wait_until(lambda: process.poll() is not None, 0.5)
    _, err = process.communicate()
    assert process.returncode == 0, err
    link = json.loads(report.read_text())["link"]
    assert link["bits"] == 4_000_000_000
    low, high = link["ber_interval"]
    assert low < link["ber_theory"] < high
    assert set(early) == set(peaks) == {"tx", "air", "rx"}
    assert all(peak < 300 for peak in peaks.values()), peaks
    assert all(peaks[name] - early[name] < 30 for name in peaks), (early, peaks)
