"""The transmitter follows the channel: what it sends goes by what the receiver told, over a channel that wanders."""

import numpy as np
import pytest
import yaml
from conftest import ROOT

from blocks.fec.hybrid import HybridDemodulator, HybridModulator
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy.channel import AwgnChannel, ShadowingChannel
from flowgraph import Flowgraph
from flowgraph.block import Context, Packet
from flowgraph.testing import check_packet_invariance, run_block

STEPS = [{"above": "8 dB", "latent": "quant8"}, {"above": "-2 dB", "latent": "quant2"}]


@pytest.mark.parametrize(
    ("told", "form"),
    [
        (None, "quant2"),
        (np.nan, "quant2"),
        (-2.1, None),
        (-2.0, "quant2"),
        (7.9, "quant2"),
        (8.0, "quant8"),
        (99, "quant8"),
    ],
)
def test_format_is_that_of_the_highest_step_reached(told, form):
    rows = {}
    context = Context(report=lambda section, frame, values: rows.update(values) if section == "frames" else None)
    block = BitSerializer({"adapt": STEPS}, "pack", context)
    block.start()
    esn0 = None if told is None else Packet(np.array([told], np.float32), last=True)
    text, latent = Packet(np.frombuffer(b"a dog", np.uint8), last=True), Packet(np.ones((1, 1, 2, 2), np.float32))
    bits = block.work(text, latent, esn0)
    assert rows == {"format": form}
    made = run_block(BitDeserializer(), {"bits": [bits]})
    assert made["text"][0].data.tobytes() == b"a dog"
    assert made["latent"][0].tag("status") == ("ok" if form else "absent")


def frames(count, size=8):
    return [Packet(np.ones(size, np.complex64), number, last=True) for number in range(count)]


def test_shadow_is_gaussian_and_correlated_from_frame_to_frame():
    """4,000 frames with correlation .8 are as good as 440 free ones: one sigma of the mean is .048."""
    block = ShadowingChannel({"esn0": "5 dB", "deviation": "3 dB", "correlation": 0.8}, "air", Context(seed=4))
    made = run_block(block, {"symbols": frames(4000)})["symbols"]
    shadow = (np.array([packet.tag("true_channel")["esn0_db"] for packet in made]) - 5) / 3
    assert abs(shadow.mean()) < 4 * 0.048
    assert shadow.std() == pytest.approx(1, abs=4 * 0.034)
    assert np.mean(shadow[1:] * shadow[:-1]) / np.mean(shadow**2) == pytest.approx(0.8, abs=0.04)
    n0 = 10 ** (-np.array([packet.tag("true_channel")["esn0_db"] for packet in made]) / 10)
    power = np.array([np.mean(np.abs(packet.data - 1) ** 2) for packet in made])
    assert np.mean(power / n0) == pytest.approx(1, abs=4 / 32000**0.5)


def test_without_deviation_it_is_awgn_and_boundaries_do_not_matter():
    calm = run_block(ShadowingChannel({"esn0": 5, "deviation": 0}, "air"), {"symbols": frames(3)})["symbols"]
    awgn = run_block(AwgnChannel({"esn0": 5}, "air"), {"symbols": frames(3)})["symbols"]
    for a, b in zip(calm, awgn, strict=True):
        np.testing.assert_array_equal(a.data, b.data)
    check_packet_invariance(ShadowingChannel, {"esn0": 5}, {"symbols": frames(3, 100)})


TABLE = yaml.safe_load((ROOT / "configs/beyond/adaptive.yaml").read_text())["vars"]


@pytest.mark.parametrize(("esn0", "form"), [(-1, "analog"), (5, "quant3"), (7, "quant4"), (9, "quant5")])
def test_transmitter_finds_its_mode_by_what_the_receiver_tells(esn0, form):
    """The first frame goes before anything is known: by the lowest step. One that is lost brings that back."""
    rows = {}
    context = Context(report=lambda section, frame, values: rows.setdefault(frame, values))
    pack = BitSerializer({"adapt": TABLE["adapt"], "compress": True}, "pack", context)
    air = AwgnChannel({"esn0": esn0}, "air")
    link = {"profile": TABLE["profile"], "repeats": 4}
    modulate, demodulate = HybridModulator(link), HybridDemodulator(link)
    for block in (pack, air, modulate, demodulate):
        block.start()
    rng, text, told, forms = np.random.default_rng(1), np.frombuffer(b"a dog runs", np.uint8), None, []
    for number in range(8):
        latent = Packet(rng.standard_normal((1, 4, 24, 24), np.float32), number, last=True)
        bits = pack.work(Packet(text, number, last=True), latent, told)
        lost = told is None or np.isnan(told.data[0])
        made = demodulate.work(air.work(modulate.work(bits, latent)))
        got = run_block(BitDeserializer(), {"bits": [made["bits"]], "latent": [made["latent"]]})
        sent = rows[number]["format"]
        assert sent == ("analog" if lost else form)
        told = made["esn0"]
        if not np.isnan(told.data[0]):
            forms.append(sent)
            assert told.data[0] == pytest.approx(esn0, abs=0.4)
            assert got["latent"][0].tag("status") == "ok"
    assert form in forms


def test_adaptive_config_runs_with_its_way_back(tmp_path):
    overlay = tmp_path / "no_pictures.yaml"
    overlay.write_text("blocks: {render: {use: diffusion_sink, steps: 0}}\nworkers: null\n")
    settings = {"esn0": "15 dB", "deviation": "0 dB", "limit": 2}
    graph = Flowgraph.load(ROOT / "configs/beyond/adaptive.yaml", overlays=[overlay], **settings)
    rows = sorted(graph.run(tmp_path / "out").frames.values(), key=lambda row: row["frame"])
    assert [row["format"] for row in rows] == ["analog", "quant6"]
    assert all(row["caption_received"] == row["caption_sent"] for row in rows)
    assert rows[1]["latent_mse"] < 0.003 < rows[0]["latent_mse"]
