"""GNU Radio's channel models, in a process that the run starts and ends: against closed forms, and our own channel."""

import os
import signal
import sys

import numpy as np
import pytest
from conftest import ROOT, program
from skimage import data, io
from test_gnuradio import missing

from blocks.sdr.gnuradio_channel import GnuradioChannel
from flowgraph import Flowgraph
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.testing import recut, run_block, whole_frames

with_gnuradio = pytest.mark.skipif(
    missing(), reason="needs GNU Radio: apt-get install --no-install-recommends gnuradio"
)


def through(samples, **params):
    block = GnuradioChannel({"sample_rate": "1 MHz", **params}, "air", Context(seed=1))
    return run_block(block, {"samples": recut(samples, [10_007])})["samples"]


def tone(count, frequency=0.01):
    return np.exp(2j * np.pi * frequency * np.arange(count)).astype(np.complex64)


@with_gnuradio
def test_noise_carrier_and_gain_are_what_the_parameters_say():
    x = tone(200_000)
    (made,) = whole_frames(through([Packet(x, last=True)], esn0=7, carrier_offset="12 kHz", taps=[0.5]))
    assert (made.count, made.last) == (len(x), True)
    y = made.data[100:-100] * np.exp(-2j * np.pi * 0.022 * np.arange(100, len(x) - 100))
    noise = np.var(y)
    assert abs(noise / 10**-0.7 - 1) < 5 / len(y) ** 0.5
    assert abs(abs(y.mean()) - 0.5) < 5 * (noise / len(y)) ** 0.5


@with_gnuradio
def test_a_faster_clock_stretches_time_as_that_of_our_own_impairments_does():
    (made,) = whole_frames(through([Packet(tone(200_000), last=True)], esn0=100, clock_offset="100 ppm"))
    turns = np.unwrap(np.angle(made.data[1000:-1000].astype(np.complex128))) / 2 / np.pi
    assert abs((turns[-1] - turns[0]) / (len(turns) - 1) - 0.01 / 1.0001) < 1e-8


@with_gnuradio
@pytest.mark.parametrize(("fading", "deep"), [("rayleigh", 1 - np.exp(-0.1)), ("rician", 0.0)])
def test_fading_has_unit_power_and_its_kinds_depth(fading, deep):
    packet = Packet(np.ones(400_000, np.complex64), last=True)
    (made,) = whole_frames(through([packet], esn0=100, fading=fading, doppler="20 kHz", k_factor="10 dB"))
    power = np.abs(made.data[:-100]) ** 2
    assert abs(power.mean() - 1) < 0.05
    assert abs((power < 0.1).mean() - deep) < 0.02


@with_gnuradio
def test_frames_lengths_and_tags_stay_and_the_same_seed_makes_the_same_noise():
    x = tone(70_000)
    sent = [Packet(x[:50_000], 2, tags=(Tag(7, "mine", 1), Tag(49_999, "late", 2)), last=True)]
    sent += [Packet(x[:0], 3, last=True), Packet(x[50_000:], 5, last=True)]
    made, again = (whole_frames(through(sent, esn0=3)) for _ in range(2))
    assert [(p.frame, p.count, p.last) for p in made] == [(2, 50_000, True), (3, 0, True), (5, 20_000, True)]
    assert {(t.offset, t.key) for p in made for t in p.tags} >= {(7, "mine"), (49_999, "late"), (0, "true_channel")}
    for a, b in zip(made, again, strict=True):
        np.testing.assert_array_equal(a.data, b.data)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            'echo \'{"missing": "No module named gnuradio"}\'',
            r"must have GNU Radio for .*No module named gnuradio.*apt-get",
        ),
        ("exit 1", r"must have GNU Radio for .*it ended by itself.*apt-get"),
        ('echo \'{"version": "3.8.2.0"}\'', r"must have GNU Radio 3.10 or newer for .*, not 3.8.2.0"),
        ('echo \'{"version": "3.10.5.1"}\'; read order', "GNU Radio ended by itself with exit code 0"),
        ('echo \'{"version": "3.10.5.1"}\'; cat >/dev/null', "GNU Radio 3.10.5.1 has given nothing for 0.2 s"),
    ],
)
def test_a_gnuradio_that_is_absent_old_dead_or_deaf_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(BlockError, match=sentence) as error:
        through([Packet(tone(100), last=True)], esn0=0, wait="0.2 s", python=program(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_python_that_is_not_there_or_has_no_gnuradio_is_one_sentence():
    for python, why in (("/nowhere/python3", "No such file"), (sys.executable, "No module named 'gnuradio'")):
        with pytest.raises(BlockError, match=f"must have GNU Radio for {python} .{why}"):
            through([Packet(tone(100), last=True)], esn0=0, python=python)


LINK = """\
flowgraph: bits
seed: 4
blocks:
  bits:   {{use: bit_source, bits: {bits} bit, frame: 50000 bit}}
  link:   {{graph: {graph}, ebn0: 8 dB}}
  errors: {{use: error_meter}}
wires:
  - bits.bits -> link.bits -> errors.received
  - bits.bits -> errors.sent
"""


@with_gnuradio
def test_the_waveform_has_the_error_rate_that_it_has_over_our_own_channel(tmp_path):
    rates = {}
    for name in ("waveform", "gnuradio"):
        graph = tmp_path / f"{name}.yaml"
        graph.write_text(LINK.format(bits=1_000_000, graph=ROOT / f"configs/links/{name}.yaml"))
        link = Flowgraph.load(graph).run(tmp_path / name).sections["link"]
        assert (link["packets_lost"], link["bits"]) == (0, 1_000_000)
        rates[name] = link["ber"]
    assert 0.005 < rates["waveform"] < 0.05
    assert abs(rates["gnuradio"] / rates["waveform"] - 1) < 0.1


@with_gnuradio
def test_noise_that_is_turned_while_the_graph_runs_reaches_gnuradio(tmp_path):
    graph = LINK.format(bits=1_000_000, graph=ROOT / "configs/links/gnuradio.yaml").replace("8 dB", "20 dB")
    turned = graph + "changes: [{set: link.air.ebn0, to: 6 dB, frame: 0, offset: 300000}]\n"
    (tmp_path / "turned.yaml").write_text(turned)
    link = Flowgraph.load(tmp_path / "turned.yaml").run(tmp_path / "out").sections["link"]
    assert 0.005 < link["ber"] < 0.04  # at 20 dB alone there is none, at 6 dB alone 0.041


@with_gnuradio
def test_photographs_and_captions_pass_through_gnuradio_and_come_back_from_the_recording(tmp_path):
    """`configs/overlays/gnuradio.yaml` over the main job, recorded, and `configs/replay.yaml`."""
    io.imsave(tmp_path / "cat.png", data.chelsea()[:256, 100:356])
    (tmp_path / "gnuradio.yaml").write_text(f"""\
subgraph: through GNU Radio, recorded
extends: {ROOT}/configs/links/gnuradio.yaml
blocks: {{record: {{use: recording_sink, path: air, sample_rate: 2 MHz}}}}
wires:
  - modulate.samples -> air.samples -> demodulate.samples
  - air.samples -> record.items
""")
    overlays = [ROOT / f"configs/overlays/{name}.yaml" for name in ("one_worker", "gnuradio")]
    links = os.path.relpath(tmp_path, ROOT / "configs")
    job = {"links": links, "images": str(tmp_path / "cat.png"), "ebn0": "12 dB", "latent": "quant8", "steps": "0"}
    live = Flowgraph.load(ROOT / "configs/main.yaml", overlays=overlays, **job).run(tmp_path / "live")
    frame = live.frames[0]
    assert frame["status"] == "ok"
    assert frame["caption_received"] == frame["caption_sent"]
    assert frame["psnr"] > 20
    recording = str(tmp_path / "air.sigmf-meta")
    Flowgraph.load(ROOT / "configs/replay.yaml", recording=recording, steps="0").run(tmp_path / "replay")
    images = [(tmp_path / run / "images/0000_received.png").read_bytes() for run in ("live", "replay")]
    assert images[0] == images[1]


@with_gnuradio
@pytest.mark.parametrize("victim", ["run_flowgraph.py", "flowgraph.worker", "_gnuradio_host.py"])
def test_whoever_is_killed_nothing_is_left(cli, victim):
    graph = cli.folder / "graph.yaml"
    graph.write_text(LINK.format(bits=10**9, graph=ROOT / "configs/links/gnuradio.yaml"))
    process = cli.start(graph, "--out", "out", "--quiet")
    log = cli.folder / "out" / "log.txt"
    assert cli.wait_until(lambda: log.exists() and "running" in log.read_text(), 60)
    (number,) = [n for n, command in cli.processes().items() if victim in command]
    os.kill(number, signal.SIGKILL)
    assert cli.wait_until(lambda: not cli.processes(), 3.0), cli.processes()
    _, said = process.communicate()
    if victim == "_gnuradio_host.py":
        assert said.strip() == "block link.air: GNU Radio was killed by SIGKILL"
    if victim != "run_flowgraph.py":
        assert cli.sockets() == []
