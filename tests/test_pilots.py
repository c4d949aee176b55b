"""Pilots are the standard's sequence, lie where both ends expect them, and their energy is counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.fec.coders import Repeater
from blocks.gold import gold_sequence
from blocks.phy import channel, noise, qam
from blocks.phy.estimator import ChannelEstimator
from blocks.phy.pilots import C_INIT, GROUPS, Pattern, PilotInserter, sequence
from blocks.sink.errors import ErrorMeter
from flowgraph.block import Context, Packet, Tag
from flowgraph.testing import assert_same_stream, check_packet_invariance, recut, run_block, whole_frames


def data(count, frame=0):
    return qam.map_symbols(noise.random_bytes(count // 2 + 1, 77, frame), 4 * count)


# The sequence


@pytest.mark.parametrize("length", [1, 3])
def test_pilots_are_the_gold_sequence_mapped_to_qpsk(length):
    count = GROUPS * length
    bits = gold_sequence(C_INIT, 2 * count)
    np.testing.assert_array_equal(sequence(length), qam.map_symbols(np.packbits(bits), 2 * count, "qpsk"))
    np.testing.assert_allclose(np.abs(sequence(length)), 1, rtol=1e-6)


def test_pilots_begin_anew_with_every_frame_and_after_4096_groups():
    pattern = Pattern(spacing=1, length=2)
    frames = [Packet(np.zeros(GROUPS + 3, np.complex64), frame, last=True) for frame in range(2)]
    sent = run_block(PilotInserter({"spacing": 1, "length": 2}), {"symbols": frames})["symbols"]
    for packet in sent:
        pilots = np.concatenate([packet.data[:-2].reshape(-1, 3)[:, :2], packet.data[None, -2:]])
        np.testing.assert_array_equal(pilots[:GROUPS].ravel(), sequence(2))
        np.testing.assert_array_equal(pilots[GROUPS:].ravel(), sequence(2)[:8])
    assert sent[0].count == (GROUPS + 3) * pattern.period + 2


def test_pilots_are_spread_evenly_over_the_points_and_do_not_resemble_themselves():
    pilots = sequence(1)
    assert np.abs(pilots.mean()) < 4 / GROUPS**0.5
    for shift in (1, 2, 31, 100):
        assert np.abs(np.vdot(pilots[shift:], pilots[:-shift])) < 4 * GROUPS**0.5


# Where they are


@given(count=st.integers(0, 200), spacing=st.integers(1, 40), length=st.integers(1, 9))
def test_a_frame_begins_and_ends_with_pilots_and_gives_its_data_back(count, spacing, length):
    pattern = Pattern(spacing, length)
    sent = pattern.insert(np.arange(1, count + 1, dtype=np.complex64) * 10)
    groups = -(-count // spacing) + 1
    assert len(sent) == count + groups * length
    is_pilot = np.abs(np.abs(sent) - 1) < 0.1
    assert is_pilot.sum() == groups * length
    assert is_pilot[:length].all()
    assert is_pilot[-length:].all()
    runs = np.diff(np.flatnonzero(np.diff(np.r_[1, is_pilot, 1])))[::2]  # lengths of the stretches of data
    assert (runs == [spacing] * (count // spacing) + [count % spacing] * (count % spacing > 0)).all()
    parts = pattern.parts(len(sent), ended=True)
    assert parts is not None
    assert (parts.data, parts.groups + (parts.last is not None)) == (count, groups)
    np.testing.assert_array_equal(pattern.data(sent, count), sent[~is_pilot])
    for place in range(count):
        assert pattern.data_before(pattern.place(place)) == place
        assert sent[pattern.place(place) + (0 if place % spacing else length)] == 10 * (place + 1)


@given(total=st.integers(0, 300), spacing=st.integers(1, 40), length=st.integers(1, 9))
def test_every_length_of_a_frame_is_that_of_one_number_of_data_or_of_none(total, spacing, length):
    pattern = Pattern(spacing, length)
    makes = [n for n in range(total + 1) if n + length * (-(-n // spacing) + 1) == total]
    parts = pattern.parts(total, ended=True)
    assert makes == ([parts.data] if parts else [])


@pytest.mark.parametrize("params", [{"spacing": 4}, {"spacing": 7, "length": 3}, {"spacing": 1, "length": 2}])
@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 700])
def test_packets_do_not_matter_to_the_inserter(params, count):
    tags = (Tag(0, "bits_per_symbol", 4), Tag(count // 2, "mark", "here"), Tag(count, "pad", 3))
    frames = [Packet(data(count), tags=tags, last=True), Packet(data(13), 1, last=True)]
    made = check_packet_invariance(PilotInserter, params, {"symbols": frames})["symbols"]
    assert made[0].tag("bits_per_symbol") == 4
    np.testing.assert_array_equal(made[0].data, Pattern(**params).insert(frames[0].data))


@pytest.mark.parametrize("count", [0, 1, 50, 1000])
def test_tags_come_back_to_where_they_were(count):
    tags = (
        Tag(0, "modulation", "16qam"),
        Tag(count // 3, "true_channel", {"n0": 1}),
        Tag(count // 2, "erased", count - count // 2),
        Tag(count, "pad", 2),
    )
    params = {"spacing": 5, "length": 2}
    sent = run_block(PilotInserter(params), {"symbols": [Packet(data(count), tags=tags, last=True)]})
    made = whole_frames(run_block(ChannelEstimator(params), {"symbols": recut(sent["symbols"], [9, 200])})["symbols"])
    kept = tuple(tag for tag in made[0].tags if tag.key not in ("link_rate", "estimate"))
    assert sorted(kept) == sorted(tags)


# Energy


def test_eb_n0_counts_the_energy_of_pilots_and_of_codes():
    """E(frame) / (information bits x N0), N0 measured, is the Eb/N0 asked for."""
    bits = Packet(noise.random_bytes(4000, 1), packed=True, last=True)
    coded = run_block(Repeater({"times": 3}), {"bits": [bits]})["bits"]
    mapped = run_block(qam.QamMapper(), {"bits": coded})["symbols"]
    sent = run_block(PilotInserter({"spacing": 10, "length": 2}), {"symbols": mapped})["symbols"]
    assert sent[0].tag("link_rate") == pytest.approx(1 / 3 * 10 / 12)
    made = run_block(channel.AwgnChannel({"ebn0": "7 dB"}), {"symbols": sent})["symbols"]
    n0 = np.mean(np.abs(made[0].data - sent[0].data) ** 2)
    energy = np.sum(np.abs(sent[0].data) ** 2)
    assert 10 * np.log10(energy / bits.count / n0) == pytest.approx(7, abs=0.1)
    assert made[0].tag("true_channel")["ebn0_db"] == pytest.approx(7)


def test_the_report_tells_the_eb_n0_that_was_asked_for():
    told = {}
    context = Context(report=lambda section, frame, values: told.update(values))
    sent = [Packet(noise.random_bytes(2000, 1), packed=True, last=True)]
    mapped = run_block(qam.QamMapper(), {"bits": sent})["symbols"]
    piloted = run_block(PilotInserter({"spacing": 4}), {"symbols": mapped})["symbols"]
    air = run_block(channel.RayleighChannel({"ebn0": 9, "fading": "block", "block_symbols": 50}), {"symbols": piloted})
    made = run_block(ChannelEstimator({"spacing": 4}), {"symbols": air["symbols"]})
    level = run_block(channel.Equalizer(), made)["symbols"]
    received = run_block(qam.QamDemapper(), {"symbols": level, "gains": made["gains"]})["bits"]
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": received})
    assert told["ebn0_db"] == pytest.approx(9)
    assert told["esn0_db"] == pytest.approx(9 + 10 * np.log10(4 * 4 / 5))


# Losses and mistakes


def test_a_loss_before_the_inserter_is_as_long_behind_it():
    pieces = recut([Packet(data(100), last=True)], [20])
    made = run_block(PilotInserter({"spacing": 5}), {"symbols": pieces[:2] + pieces[3:]})["symbols"]
    whole = run_block(PilotInserter({"spacing": 5}), {"symbols": pieces})["symbols"]
    assert_same_stream(made, whole_frames([*whole[:2], *whole[3:]]))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"spacing": 0}, "at least 1"),
        ({"spacing": 4097}, "at most 4096"),
        ({"length": 0}, "at least 1"),
        ({"interpolation": "wiener"}, "must have doppler with interpolation: wiener, and only then"),
        ({"doppler": 3}, "must have doppler with interpolation: wiener, and only then"),
        (
            {"interpolation": "wiener", "doppler": 3e5},
            "must have a doppler of at most a quarter of symbol_rate, 250000 Hz",
        ),
        ({"interpolation": "wiener", "doppler": "20 kHz"}, "at most 25 symbols apart, half a period of doppler"),
        ({"interpolation": "cubic"}, "'linear' or 'wiener'"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        ChannelEstimator(params)
