"""The waveform: pulses, headers, whole bursts over channels with everything on, and what becomes of lost packets."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.waveform import Air, back_to_back, bounds, estimates, in_noise, loss, trials
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy import noise, theory
from blocks.sdr import burst, pulse
from blocks.sdr.burst import Header
from blocks.sdr.waveform import BurstDemodulator, BurstModulator
from flowgraph import Flowgraph
from flowgraph.block import Context, Packet
from flowgraph.testing import check_packet_invariance, recut, run_block, whole_frames

VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("rrc_commpy.json").read_text())
MODULATIONS = ("bpsk", "qpsk", "8psk", "16qam", "64qam", "256qam")


def frames(*sizes, first=0):
    """Frames of random bits, of so many."""
    out = []
    for number, size in enumerate(sizes):
        bits = np.random.default_rng(size + number).integers(0, 2, size, np.uint8)
        out.append(Packet(np.packbits(bits), first + number, 0, size, packed=True, last=True))
    return out


def modulated(bits, **params):
    """Samples of frames, one packet a burst and one of silence at the end."""
    return run_block(BurstModulator(params), {"bits": bits})["samples"]


def demodulated(samples, **params):
    """Frames that come of samples, what was reported, and what was warned of."""
    report, warnings = {}, []
    context = Context(report=lambda section, frame, values: report.update(values), warn=warnings.append)
    packets = samples if isinstance(samples, list) else [Packet(samples, last=True)]
    made = run_block(BurstDemodulator(params, "demodulate", context), {"samples": packets})
    return whole_frames(made["bits"]), report, warnings


def joined(packets):
    return np.concatenate([packet.data for packet in packets])


def same(received, sent):
    return [(p.frame, p.count, p.data.tobytes(), p.last) for p in received] == [
        (p.frame, p.count, p.data.tobytes(), True) for p in sent
    ]


# Pulses


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['samples_per_symbol']}, {v['rolloff']}")
def test_pulses_are_those_of_commpy(vector):
    made = pulse.root_raised_cosine(vector["samples_per_symbol"], vector["rolloff"])
    want = np.array(vector["pulse"])
    np.testing.assert_allclose(made[:-1], want, atol=1e-5)  # CommPy's lack the last sample


@pytest.mark.parametrize("samples_per_symbol", [2, 4, 8])
def test_symbols_do_not_interfere_behind_the_matched_filter(samples_per_symbol):
    sent = burst.PREAMBLE
    samples = pulse.shape(sent, samples_per_symbol, 0.25)
    assert (np.abs(samples) ** 2).sum() == pytest.approx(len(sent), rel=0.02)
    taps = pulse.root_raised_cosine(samples_per_symbol, 0.25).astype(np.float32)
    heard = pulse.filtered(samples, taps)[::samples_per_symbol]
    np.testing.assert_allclose(heard, sent, atol=0.01)


def test_noise_of_a_sample_is_noise_of_a_symbol():
    heard = pulse.filtered(noise.complex_normal(200_000, 4), pulse.root_raised_cosine(2, 0.25))
    assert (np.abs(heard) ** 2).mean() == pytest.approx(1, rel=0.02)


# The header

HEADERS = st.builds(
    lambda modulation, code, frame, sequence, offset, count, rest: Header(
        modulation, code, frame, sequence, offset + count + rest, offset, count
    ),
    st.sampled_from(MODULATIONS),
    st.sampled_from(["none", "1/2", "2/3", "3/4", "5/6"]),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFF),
    st.integers(0, 1 << 27),
    st.integers(0, burst.LONGEST_PACKET),
    st.integers(0, 1 << 26),
)


@given(HEADERS, st.integers(0, 143))
@settings(max_examples=100)
def test_headers_come_back_and_a_wrong_bit_is_seen(header, place):
    data = header.pack()
    assert Header.unpack(data) == header
    wrong = np.unpackbits(data)
    wrong[place] ^= 1
    assert Header.unpack(np.packbits(wrong)) is None


def test_a_header_is_what_the_page_says():
    header = Header("16qam", "none", 3, 7, 40_000, 16_384, 16_384)
    assert header.pack().tobytes().hex() == "1300000300070009c40000400040005b2de1"


# Bursts


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("code", ["none", "3/4"])
@pytest.mark.parametrize("output", ["hard", "llr8"])
def test_frames_of_any_size_come_back(modulation, code, output):
    sent = frames(1, 0, 13, 5000, 9, 800)
    samples = modulated(sent, modulation=modulation, code=code, packet=2048)
    received, report, warnings = demodulated(samples, output=output)
    if output != "hard":
        for packet in received:
            packet.data, packet.packed = np.packbits(packet.data < 0), True
    assert same(received, sent)
    assert not warnings
    assert (report["packets_found"], report["packets_lost"], report["packets_crc_failed"]) == (8, 0, 0)
    assert report["headers_failed"] == 0


@pytest.mark.parametrize("samples_per_symbol", [4, 8])
def test_more_samples_a_symbol(samples_per_symbol):
    sent = frames(3000)
    pulses = {"samples_per_symbol": samples_per_symbol, "rolloff": 0.5}
    samples = np.pad(joined(modulated(sent, **pulses)), (1234, 0))
    received, _, _ = demodulated(noise.awgn(samples, 0.01, 1), **pulses)
    assert same(received, sent)
    assert received[0].tag("estimate")["esn0_db"] == pytest.approx(20, abs=1)
    first = next(tag.value for tag in received[0].tags if tag.key == "estimate")
    assert first["sample"] == pytest.approx(1234 + pulse.SPAN * samples_per_symbol, abs=0.1)


def test_packets_do_not_matter():
    sent = frames(40, 1500)
    air = Air.drawn(np.random.default_rng(5))
    heard = noise.awgn(air.carry(joined(modulated(sent, packet=1000))), 0.005, 8)
    made = check_packet_invariance(BurstDemodulator, {}, {"samples": [Packet(heard, last=True)]})["bits"]
    assert same(whole_frames(made), sent)
    again = run_block(BurstModulator({"packet": 1000}), {"bits": recut(sent, [64, 8, 100])})["samples"]
    assert joined(again).tobytes() == joined(modulated(sent, packet=1000)).tobytes()


def test_estimates_tell_what_the_channel_did():
    air = Air(0.013, 40e-6, 17.3, 50, (0.5,))
    heard = noise.awgn(air.carry(joined(modulated(frames(60_000), packet=65_528))), 0.25 * 10**-1.8, 2)
    received, report, _ = demodulated(heard, sample_rate="4 MHz")
    told = received[0].tag("estimate")
    assert told["carrier_offset"] == pytest.approx(26e3, abs=2e6 * 5e-5)
    assert told["clock_offset"] == pytest.approx(40, abs=4)
    assert told["gain_db"] == pytest.approx(-6.02, abs=0.2)
    assert told["esn0_db"] == pytest.approx(18, abs=0.5)
    assert told["ber"] == pytest.approx(theory.bit_error_rate(18), rel=0.8)
    assert report["snr_measured_db"] == told["esn0_db"]


# Over a channel with everything on


def test_close_to_the_best_receiver_that_knows_the_channel():
    measured, _, lost_db = loss(30, 14)
    assert 0.01 < measured < 0.05
    assert lost_db < 0.3  # below 0 is better than any linear one; the errors seen, 14,000, tell it to 0.1 dB


@pytest.mark.parametrize("noise_alone", [True, False])
def test_no_packet_of_many_back_to_back_is_lost(noise_alone):
    good, sent = back_to_back(4, noise_alone=noise_alone)  # whose fourth channel nearly cancels a part of the band
    assert good == sent == 208


def test_short_bursts_are_found_in_noise():
    missed = sum(trial.found is None for trial in trials(400, 10, 64, seed=2))
    assert missed == 0  # of 99.9 %, 400 are all found two times in three: the benchmark looks closer


@pytest.mark.parametrize("esn0_db", [10, 20])
def test_estimates_are_within_two_decibels_of_their_bounds(esn0_db):
    limit = bounds(esn0_db)
    for name, error in estimates(400, esn0_db).items():
        over_db = theory.ratio_to_db(error / limit[name])
        assert -1 < over_db < 2, f"{name}: {over_db:.2f} dB"  # of 400, the mean square is known to 0.6 dB with 95 %


def test_a_bound_is_that_of_the_closed_form():
    """Of the carrier 6 / (4 pi^2 Es/N0 N (N^2 - 1)) (D. Rife and R. Boorstyn, 1974), of the gain N0 / 2N."""
    found = bounds(10)
    n = burst.KNOWN
    assert found["carrier offset"] == pytest.approx(6 / (4 * np.pi**2 * 10 * n * (n**2 - 1)), rel=0.05)
    assert found["gain"] == pytest.approx(0.1 / (2 * n), rel=0.02)


def test_noise_is_no_packet():
    assert in_noise(1 << 24) == (0, 0)


@pytest.mark.parametrize("signal", ["tone", "silence", "huge"])
def test_other_signals_are_no_packets(signal):
    n = np.arange(100_000)
    x = {"tone": np.exp(2j * np.pi * 0.01 * n), "silence": 0j * n, "huge": np.where(n % 977, 0, 1e30)}[signal]
    received, report, _ = demodulated(x.astype(np.complex64))
    assert received == []
    assert report["packets_found"] == 0


# What is missing


def without(samples, *lost):
    """Samples with silence in place of some bursts, by number."""
    return joined([Packet(p.data * np.float32(i not in lost)) for i, p in enumerate(samples)])


@pytest.mark.parametrize(("lost", "erased"), [(0, (0, 1000)), (2, (2000, 1000)), (4, (4000, 500))])
def test_a_lost_packet_is_an_erasure_of_known_length(lost, erased):
    sent = frames(4500, 300)
    samples = modulated(sent, packet=1000)
    received, report, _ = demodulated(without(samples, lost))
    assert [(p.frame, p.count, p.last) for p in received] == [(0, 4500, True), (1, 300, True)]
    assert [(tag.offset, tag.value) for tag in received[0].tags if tag.key == "erased"] == [erased]
    gone = received[0].erased()
    differ = np.unpackbits(received[0].data ^ sent[0].data, count=4500).astype(bool)
    assert not differ[~gone].any()
    assert not np.unpackbits(received[0].data, count=4500)[gone].any()
    assert (report["packets_found"], report["packets_lost"]) == (5, 1)


def test_the_end_of_the_last_frame_is_missed_too():
    samples = modulated(frames(4500), packet=1000)
    received, report, _ = demodulated(without(samples, 3, 4))
    assert [tag.value for tag in received[0].tags if tag.key == "erased"] == [1500]
    assert (received[0].count, received[0].last, report["packets_lost"]) == (4500, True, 2)


def test_a_stream_that_breaks_off_within_a_burst_loses_it():
    samples = modulated(frames(4500), packet=1000)
    half = Packet(samples[3].data[: samples[3].count // 2])
    received, report, _ = demodulated(joined([*samples[:3], half]))
    assert (received[0].count, report["packets_found"]) == (4500, 3)
    assert [(tag.offset, tag.value) for tag in received[0].tags if tag.key == "erased"] == [(3000, 1500)]
    assert report["packets_lost"] == 2


def test_frames_of_which_nothing_came_are_empty():
    samples = modulated(frames(100, 100, 100, 100))
    received, report, _ = demodulated(without(samples, 1, 2))
    assert [(p.frame, p.count) for p in received] == [(0, 100), (1, 0), (2, 0), (3, 100)]
    assert report["packets_lost"] == 2


def test_numbers_rise_on_past_their_widths_and_past_a_transmitter_begun_anew():
    sent = frames(50, 50, first=0xFFFF)
    samples = [*modulated(sent), *modulated(frames(50))]
    received, report, _ = demodulated(joined(samples))
    assert [p.frame for p in received] == [0xFFFF, 0x10000, 0x10001]
    assert report["packets_lost"] in (0, 0xFFFE)


def test_samples_lost_on_the_wire_cost_the_bursts_that_they_were_of():
    samples = modulated(frames(4500), packet=1000)
    received, report, _ = demodulated([p for i, p in enumerate(samples) if i != 1])
    assert [(tag.offset, tag.value) for tag in received[0].tags if tag.key == "erased"] == [(1000, 1000)]
    assert report["packets_lost"] == 1


@pytest.mark.parametrize("damaged", ["deliver", "erase"])
def test_packets_whose_crc_fails(damaged):
    sent = frames(3000)
    samples = modulated(sent, packet=1000)
    hit = samples[1].data.copy()
    hit[700:740] = 0
    heard = joined([samples[0], Packet(hit), *samples[2:]])
    received, report, _ = demodulated(heard, damaged=damaged)
    assert (report["packets_crc_failed"], report["packets_lost"]) == (1, 0)
    gone = received[0].erased()
    if damaged == "erase":
        assert np.flatnonzero(gone)[[0, -1]].tolist() == [1000, 1999]
    else:
        assert gone is None
        wrong = np.unpackbits(received[0].data ^ sent[0].data)
        assert 0 < wrong[1000:2000].sum() < 100
        assert not wrong[:1000].any()


def test_strange_samples_are_silence_and_told_once():
    samples = joined(modulated(frames(100)))
    samples[-50:-40] = np.nan
    samples[-20] = np.inf
    received, _, warnings = demodulated(recut([Packet(samples, last=True)], [100]))
    assert same(received, frames(100))
    assert len(warnings) == 1


def test_a_latent_of_which_a_packet_was_lost_is_damaged_and_its_caption_is_not():
    latent = np.random.default_rng(0).standard_normal((1, 4, 24, 24)).astype(np.float32)
    text = np.frombuffer(b"a cat on a mat", np.uint8)
    streams = {"text": [Packet(text, last=True)], "latent": [Packet(latent, last=True)]}
    sent = run_block(BitSerializer({"latent": "quant8"}), streams)["bits"]
    samples = modulated(sent, packet=4096)
    received, _, _ = demodulated(without(samples, 2), output="llr8")
    made = run_block(BitDeserializer(), {"bits": received})
    assert (made["text"][0].data.tobytes(), made["text"][0].tag("status")) == (text.tobytes(), "ok")
    assert made["latent"][0].tag("status") == "damaged"
    assert "4096 bits" in made["latent"][0].tag("reason")


def test_the_link_swaps_in_by_a_line(tmp_path):
    graph = f"""flowgraph: check
seed: 3
blocks:
  bits:   {{use: bit_source, bits: 60001 bit, frame: 25000 bit}}
  link:   {{graph: {ROOT}/configs/links/waveform.yaml, ebn0: 18 dB, output: llr8}}
  errors: {{use: error_meter}}
wires:
  - bits.bits -> link.bits -> errors.received
  - bits.bits -> errors.sent
"""
    (tmp_path / "graph.yaml").write_text(graph)
    link = Flowgraph.load(tmp_path / "graph.yaml").run(tmp_path / "out").sections["link"]
    assert (link["bits"], link["bit_errors"], link["bits_missing"]) == (60001, 0, 0)
    assert (link["packets_found"], link["packets_lost"]) == (5, 0)
    assert link["ebn0_db"] == pytest.approx(18)
    rate = 16384 / (4 * Header("16qam", "none", 0, 0, 16384, 0, 16384).symbols)
    assert link["esn0_db"] == pytest.approx(18 + 10 * np.log10(4 * rate))
    assert link["snr_measured_db"] == pytest.approx(link["esn0_db"], abs=1.5)
    assert link["carrier_offset_hz"] == pytest.approx(15e3, abs=200)
