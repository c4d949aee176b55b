"""OFDM: Sionna's samples, there and back, what the prefix does, and error rates over tapped delay lines by theory."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from blocks.phy import noise, ofdm, qam
from blocks.phy.channel import AwgnChannel, Equalizer
from blocks.phy.ofdm import OfdmDemodulator, OfdmModulator
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.phy.tdl import TdlChannel
from blocks.sink.errors import ErrorMeter
from flowgraph import Flowgraph
from flowgraph.block import BlockError, Context, Packet
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

SIONNA = np.load(Path(__file__).parent / "vectors" / "tdl_sionna.npz")
SMALL = {"fft_size": 64, "cyclic_prefix": 16, "subcarriers": 50}
ODD = {"fft_size": 15, "cyclic_prefix": 0, "subcarriers": 7}
LINK = """\
flowgraph: bits over a tapped delay line
blocks:
  source: {{use: bit_source, bits: 300000, frame: 100000 bit}}
  link: {{graph: {link}, ebn0: 20 dB, {channel}}}
  errors: {{use: error_meter}}
wires:
  - source.bits -> link.bits
  - source.bits -> errors.sent
  - link.bits -> errors.received
"""


def symbols(count, frame=0):
    data = qam.map_symbols(noise.random_bytes(-(-count // 2), 77, frame), 4 * count)
    return Packet(data, frame, last=True).tagged(bits_per_symbol=4, modulation="16qam")


def over_a_tapped_delay_line(sent, channel, params, warn=None):
    """Return what comes of 16QAM symbols, equalised, and the gains of the subcarriers."""
    samples = run_block(OfdmModulator(params), {"symbols": sent})
    faded = run_block(TdlChannel({"sample_rate": "1 MHz", **channel}, "air", Context(seed=2)), samples)
    context = Context(warn=warn or (lambda message: pytest.fail(message)))
    received = run_block(OfdmDemodulator(params, "demodulate", context), faded)
    level = run_block(Equalizer(), received)["symbols"]
    return level, received["gains"]


def test_samples_are_sionnas():
    made = ofdm.modulate(SIONNA["grid"], 64, 16).ravel()
    np.testing.assert_allclose(made, SIONNA["ofdm"], atol=1e-6)


@pytest.mark.parametrize("params", [SMALL, ODD], ids=["small", "odd"])
@pytest.mark.parametrize("count", [0, 1, 7, 50, 333])
def test_symbols_come_back_whatever_the_packets(params, count):
    sent = [symbols(count), symbols(61, 1)]
    samples = check_packet_invariance(OfdmModulator, params, {"symbols": sent})["samples"]
    whole = whole_frames(samples)[0]
    assert whole.count == -(-count // params["subcarriers"]) * (params["fft_size"] + params["cyclic_prefix"])
    back = whole_frames(check_packet_invariance(OfdmDemodulator, params, {"samples": samples})["symbols"])
    for a, b in zip(sent, back, strict=True):
        np.testing.assert_allclose(b.data, a.data, atol=1e-6)
        assert b.tag("modulation") == "16qam"


def test_subcarriers_have_unit_energy_and_noise_stays_what_it_is():
    sent = symbols(50 * 2000)
    samples = run_block(OfdmModulator(SMALL), {"symbols": [sent]})["samples"][0]
    body = samples.data.reshape(-1, 80)[:, 16:]
    assert (np.abs(body) ** 2).sum() == pytest.approx((np.abs(sent.data) ** 2).sum(), rel=1e-5)
    noisy = run_block(AwgnChannel({"esn0": 9}), {"symbols": [samples]})["symbols"]
    back = run_block(OfdmDemodulator(SMALL), {"samples": noisy})["symbols"][0]
    assert (np.abs(back.data - sent.data) ** 2).mean() == pytest.approx(10**-0.9, rel=5 / sent.count**0.5)


def test_the_prefix_counts_in_eb_n0():
    sent = symbols(100).tagged(link_rate=0.5)
    samples = run_block(OfdmModulator(SMALL), {"symbols": [sent]})["samples"]
    channel = run_block(AwgnChannel({"ebn0": 5}), {"symbols": samples})["symbols"][0].tag("true_channel")
    assert channel["esn0_db"] == pytest.approx(5 + 10 * np.log10(4 * 0.5 * 64 / 80))


@pytest.mark.parametrize("profile", "ABCDE")
def test_one_gain_a_subcarrier_undoes_a_channel_shorter_than_the_prefix(profile):
    sent = [symbols(333), symbols(50, 1)]
    channel = {"esn0": 300, "profile": profile, "delay_spread": 0.1e-6}
    for a, b in zip(sent, over_a_tapped_delay_line(sent, channel, SMALL)[0], strict=True):
        np.testing.assert_allclose(b.data, a.data, atol=2e-4)


def test_gains_follow_a_channel_that_changes():
    """Within an OFDM symbol too, which leaves interference: more for faster change."""
    sent = [symbols(50 * 40)]
    left = []
    for doppler in (20, 200):
        level, gains = over_a_tapped_delay_line(sent, {"esn0": 300, "doppler": doppler, "delay_spread": 0}, SMALL)
        strong = np.abs(gains[0].data) > 0.3
        assert np.ptp(np.abs(gains[0].data)) > 0.01
        left.append(np.abs(level[0].data - sent[0].data)[strong].max())
    assert left[0] < 0.01 < left[1] < 0.2


@pytest.mark.parametrize("taps", [False, True])
def test_packets_do_not_matter_to_the_demodulator(taps):
    samples = run_block(OfdmModulator(SMALL), {"symbols": [symbols(333), symbols(0, 1), symbols(20, 2)]})
    air = TdlChannel({"esn0": 20, "sample_rate": "1 MHz", "doppler": "3 kHz"})
    faded = run_block(air, samples)
    check_packet_invariance(OfdmDemodulator, SMALL, faded if taps else {"samples": faded["samples"]})


@pytest.mark.parametrize("profile", ["A", "D"])
def test_error_rates_are_those_of_flat_fading_on_every_subcarrier(profile):
    """Each frame is a channel of its own, and the interval comes from the spread across these."""
    sent = [Packet(noise.random_bytes(200, 3, frame), frame, packed=True, last=True) for frame in range(600)]
    mapped = run_block(QamMapper(), {"bits": sent})["symbols"]
    channel = {"esn0": 15, "profile": profile, "delay_spread": 0.1e-6}
    level, gains = over_a_tapped_delay_line(mapped, channel, SMALL)
    received = run_block(QamDemapper(), {"symbols": level, "gains": gains})["bits"]
    told = {}
    context = Context(report=lambda section, frame, values: told.update(values) if section == "link" else None)
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": received})
    low, high = told["ber_interval"]
    assert low <= told["ber_theory"] <= high
    assert high - low < 0.4 * told["ber_theory"]


@pytest.mark.parametrize("channel", ["profile: A", "profile: D, delay_spread: 300 ns, doppler: 300 Hz"])
def test_the_link_delivers_bits(tmp_path, channel):
    (tmp_path / "graph.yaml").write_text(LINK.format(link=ROOT / "configs/links/tdl.yaml", channel=channel))
    link = Flowgraph.load(tmp_path / "graph.yaml").run(tmp_path / "out").sections["link"]
    assert (link["bits"], link["bit_errors"]) == (300_000, 0)
    assert link["ebn0_db"] == pytest.approx(20)
    assert link["ser"] > 0  # there was something to decode


def test_a_response_longer_than_the_prefix_is_told():
    told = []
    sent, channel = [symbols(333)], {"esn0": 300, "delay_spread": "3 us"}
    level = over_a_tapped_delay_line(sent, channel, SMALL, told.append)[0]
    assert told == [
        "the channel's response has 42 taps, of which a cyclic prefix of 16 samples covers 17: OFDM symbols interfere"
    ]
    assert np.abs(level[0].data - sent[0].data).max() > 0.01
    with pytest.raises(BlockError, match="has 42 taps: fft_size must be at least as many"):
        over_a_tapped_delay_line(sent, channel, {"fft_size": 32, "cyclic_prefix": 8, "subcarriers": 20})


def test_a_frame_cut_short_gives_what_came():
    samples = run_block(OfdmModulator(SMALL), {"symbols": [symbols(150)]})["samples"][0]
    cut = Packet(samples.data[:200], last=True)
    back = run_block(OfdmDemodulator(SMALL), {"samples": [cut]})["symbols"][0]
    assert back.count == 150
    np.testing.assert_allclose(back.data[:100], symbols(150).data[:100], atol=1e-6)


@pytest.mark.parametrize("name", ["cyclic_prefix", "subcarriers"])
def test_what_does_not_fit_into_an_ofdm_symbol_is_refused(name):
    with pytest.raises(ValueError, match=f"must have {name} of at most fft_size, 64"):
        OfdmModulator({"fft_size": 64, "cyclic_prefix": 16, "subcarriers": 50, name: 65})


@pytest.mark.parametrize("value", [np.nan, np.inf, 3e38])
def test_what_is_not_finite_or_huge_spoils_its_ofdm_symbol_alone_and_warns_of_nothing(value):
    symbols = np.ones((2, 8), np.complex64)
    symbols[0] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back = ofdm.demodulate(ofdm.modulate(symbols, 16, 4), 8, 16)
    assert not np.isfinite(back[0]).all()
    np.testing.assert_allclose(back[1], 1, atol=1e-6)
