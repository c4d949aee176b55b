"""The same seed gives the same bits, symbols and noise to the last bit, and images within a grey level, wherever blocks
run and however streams are cut."""

import json

import numpy as np
import pytest
import yaml
from conftest import ROOT
from PIL import Image

BLOCKS = "source map fade equalize demap bits symbols noisy gains decisions"
GRAPH = """\
flowgraph: reproducible
seed: {seed}
{workers}
blocks:
  source: {{use: bit_source, bits: 100003 bit, frame: 40000 bit, packet: {packet} bit}}
  map: {{use: qam_mapper}}
  fade: {{use: rayleigh_channel, ebn0: 12 dB}}
  equalize: {{use: equalizer}}
  demap: {{use: qam_demapper, output: llr}}
  bits: {{use: lab_checksum}}
  symbols: {{use: lab_checksum}}
  noisy: {{use: lab_checksum}}
  gains: {{use: lab_checksum}}
  decisions: {{use: lab_checksum}}
wires:
  - source.bits -> map.bits
  - map.symbols -> fade.symbols
  - fade.symbols -> equalize.symbols
  - fade.gains -> equalize.gains
  - equalize.symbols -> demap.symbols
  - source.bits -> bits.x
  - map.symbols -> symbols.x
  - {{wire: fade.symbols -> noisy.x{endpoint}}}
  - fade.gains -> gains.x
  - demap.bits -> decisions.x
"""
ONE_EACH = "workers:\n" + "".join(f"  w_{name}: {{blocks: [{name}], threads: 3}}\n" for name in BLOCKS.split())


def checksums(cli, packet, workers="", endpoint="", seed=5):
    text = GRAPH.format(packet=packet, workers=workers, endpoint=endpoint, seed=seed)
    (cli.folder / "graph.yaml").write_text(text)
    ended = cli.run("graph.yaml", "--out", "out", "--quiet")
    assert ended.returncode == 0, ended.stderr
    rows = json.loads((cli.folder / "out" / "report.json").read_text())["frames"]
    assert len(rows) == 3
    return [[row[name] for name in ("bits", "symbols", "noisy", "gains", "decisions")] for row in rows]


def test_bits_symbols_and_noise_depend_on_the_seed_alone(cli):
    reference = checksums(cli, 1 << 20)
    assert checksums(cli, 128) == reference
    assert checksums(cli, 1152, ONE_EACH) == reference
    assert checksums(cli, 4096, ONE_EACH, ", endpoint: 'tcp://127.0.0.1:*'") == reference
    other = checksums(cli, 1 << 20, seed=6)
    assert all(a != b for ours, theirs in zip(reference, other, strict=True) for a, b in zip(ours, theirs, strict=True))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("coffee.png", "chelsea.png"):
        from skimage import data

        Image.fromarray(getattr(data, name.partition(".")[0])()).save(folder / name)
    return folder


def scattered(folder):
    """Return an overlay of the main job with a worker for every block, and tcp between all of them."""
    job = yaml.safe_load((ROOT / "configs/main.yaml").read_text())
    workers = {f"w_{name}": {"blocks": [name]} for name in job["blocks"]}
    wires = [{"wire": wire, "endpoint": "tcp://127.0.0.1:*"} for wire in job["wires"]]
    dropped = dict.fromkeys(job["workers"])
    (folder / "scattered.yaml").write_text(yaml.safe_dump({"workers": {**dropped, **workers}, "wires": wires}))
    return folder / "scattered.yaml"


def test_images_are_the_same_within_a_grey_level_in_one_worker_three_or_nine(cli, pictures):
    made = {}
    one = ["--overlay", ROOT / "configs/overlays/one_worker.yaml"]
    for name, overlay in (("three", []), ("one", one), ("nine", ["--overlay", scattered(cli.folder)])):
        arguments = [ROOT / "configs/main.yaml", *overlay, "--set", f"images={pictures}", "--set", "ebn0=8 dB"]
        ended = cli.run(*arguments, "--out", name, "--quiet")
        assert ended.returncode == 0, ended.stderr
        images = sorted((cli.folder / name / "images").glob("*_received.png"))
        made[name] = np.stack([np.asarray(Image.open(path), np.int16) for path in images])
    assert made["one"].shape == (2, 192, 192, 3)
    assert np.abs(made["one"] - made["three"]).max() <= 1
    assert np.abs(made["nine"] - made["three"]).max() <= 1
