"""Tapped delay lines: the standard's tables, Sionna's taps and samples, powers and spectra by theory, any packets."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.special import j0

from blocks.phy import noise, tdl
from blocks.phy.tdl import TdlChannel
from flowgraph.block import Context, Packet
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

SIONNA = np.load(Path(__file__).parent / "vectors" / "tdl_sionna.npz")
DOPPLER = json.loads((Path(__file__).parent / "vectors" / "doppler_sionna.json").read_text())
FRAMES = 400
LINES = [("A", 0.9), ("B", 3.1), ("C", 3.1), ("D", 2.0), ("E", 1.0)]  # with delay spreads in samples


def samples(count, frame=0):
    return Packet(noise.complex_normal(count, 11, frame), frame, last=True)


def run(params, packets, esn0=300):
    made = run_block(TdlChannel({"esn0": esn0, **params}, "air", Context(seed=3)), {"samples": packets})
    return {name: whole_frames(stream) for name, stream in made.items()}


def ensemble(name, delay_spread, doppler=0.0, last=0):
    """Taps of many frames at knots 0 to `last`, [frames, knots, taps]."""
    return np.stack([tdl.impulse_responses(name, delay_spread, doppler, 5, f, 0, last) for f in range(FRAMES)])


def filtered(x, taps, interval):
    """What a channel with these taps makes of x, the slow way."""
    knots, into = np.divmod(np.arange(len(x)), interval)
    t = (into / interval)[:, None]
    h = taps[knots].astype(complex) * (1 - t) + taps[knots + 1] * t
    before = np.concatenate([np.zeros(taps.shape[1] - 1), x])
    return np.array([h[n] @ before[n : n + taps.shape[1]][::-1] for n in range(len(x))])


# The tables and Sionna


@pytest.mark.parametrize("name", "ABCDE")
def test_tables_are_sionnas_and_have_a_delay_spread_of_one(name):
    line = tdl.profile(name)
    powers = line.powers.copy()
    powers[0] += line.line_of_sight
    np.testing.assert_allclose(line.delays, SIONNA[f"{name}_delays"], rtol=1e-6)
    np.testing.assert_allclose(powers, SIONNA[f"{name}_powers"], rtol=1e-6)
    assert line.line_of_sight == pytest.approx(float(SIONNA[f"{name}_line_of_sight"]), rel=1e-6)
    assert powers.sum() == pytest.approx(1, rel=1e-12)
    mean = powers @ line.delays
    assert (powers @ (line.delays - mean) ** 2) ** 0.5 == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(("name", "k_factor_db"), [("D", 13.3), ("E", 22.0)])
def test_a_line_of_sight_has_its_k_factor(name, k_factor_db):
    line = tdl.profile(name)
    assert 10 * np.log10(line.line_of_sight / line.powers[0]) == pytest.approx(k_factor_db, abs=1e-9)


@pytest.mark.parametrize("name", "ABCDE")
def test_paths_come_onto_the_grid_as_sionnas_do(name):
    line = tdl.profile(name)
    g = tdl.pulses(name, float(SIONNA["delay_spread"]))[:, : len(line.powers)] / np.sqrt(line.powers)
    ours, sionnas = g @ SIONNA[f"{name}_gains"], SIONNA[f"{name}_taps"].T
    scale = np.abs(ours).sum() / np.abs(sionnas).sum()
    assert 1 <= scale < 1.02
    np.testing.assert_allclose(ours, scale * sionnas, atol=2e-6)


@pytest.mark.parametrize("name", "ABCDE")
def test_a_channel_that_changes_does_to_samples_what_sionnas_does(name):
    taps, sent, received = (SIONNA[f"{name}_{what}"] for what in ("taps", "sent", "received"))
    padded = np.concatenate([np.zeros(taps.shape[1] - 1), sent, np.zeros(taps.shape[1] - 1)]).astype(np.complex64)
    rows = np.concatenate([taps, taps[-1:]])
    np.testing.assert_allclose(tdl.convolve(padded, rows, 1), received, atol=1e-5)


# Powers and spectra


@pytest.mark.parametrize(("name", "delay_spread"), LINES)
def test_taps_have_the_powers_and_correlations_of_independent_paths(name, delay_spread):
    g = tdl.pulses(name, delay_spread)
    assert (g**2).sum() == pytest.approx(1, rel=1e-12)
    h = ensemble(name, delay_spread)[:, 0].astype(complex)
    found = h.T @ np.conj(h) / FRAMES
    want = g @ g.T
    spread = np.sqrt(np.outer(np.diag(want), np.diag(want)) / FRAMES)
    assert (np.abs(found - want) < 5 * spread).all()
    energy = (np.abs(h) ** 2).sum(1)
    assert energy.mean() == pytest.approx(1, abs=4 * energy.std() / FRAMES**0.5)


@pytest.mark.parametrize("name", ["A", "D"])
def test_scattered_paths_change_with_time_as_sionnas_do(name):
    """The autocorrelation over two periods of the largest Doppler shift: 4 standard deviations of both estimates."""
    theirs = DOPPLER[name]
    h = np.stack([noise.doppler_gains(24, 0.1, 5, n // 4, process=n % 4) for n in range(4800)])
    ours = (h * np.conj(h[:, :1])).mean(0)
    miss = np.abs(ours - (np.array(theirs["real"]) + 1j * np.array(theirs["imag"])))
    assert miss.max() < 4 * (1 / len(h) + 1 / theirs["realisations"]) ** 0.5


@pytest.mark.parametrize("doppler", [1e-4, 0.03])
@pytest.mark.parametrize("name", ["A", "D"])
def test_the_autocorrelation_is_clarkes_with_a_line_of_sight_at_seven_tenths(name, doppler):
    interval, line = tdl.knot_interval(doppler), tdl.profile(name)
    lags = np.unique(np.round(np.array([0, 0.05, 0.2, 0.38, 0.6, 1.0, 2.3]) / doppler / interval).astype(int))
    h = ensemble(name, 0.0, doppler, int(lags[-1]))[:, :, 6]
    found = (h[:, lags] * np.conj(h[:, :1])).mean(0)
    turns = doppler * interval * lags
    want = (1 - line.line_of_sight) * j0(2 * np.pi * turns) + line.line_of_sight * np.exp(1.4j * np.pi * turns)
    assert np.abs(found - want).max() < 4 * (1 - line.line_of_sight**2) ** 0.5 / FRAMES**0.5


def test_without_delays_it_is_flat_rayleigh_fading_that_comes_six_samples_late():
    power = []
    for frame in range(FRAMES):
        made = run({"delay_spread": 0}, [samples(100, frame)])
        x, h, y = samples(100, frame).data, made["taps"][0].data, made["samples"][0].data
        assert (np.abs(y[:6]) < 1e-6).all()
        np.testing.assert_allclose(y[6:], h[0, 6] * x[:-6], atol=1e-6)
        power.append(abs(h[0, 6]) ** 2)
    for level in (0.1, 0.7, 2.0):
        share = 1 - np.exp(-level)
        assert np.mean(np.array(power) < level) == pytest.approx(share, abs=4 * (share * (1 - share) / FRAMES) ** 0.5)


def test_that_taps_run_straight_between_knots_does_not_show(monkeypatch):
    doppler = 3e-4
    coarse = tdl.knot_interval(doppler)
    rows = tdl.impulse_responses("D", 1.0, doppler, 5, 0, 0, 100)
    monkeypatch.setattr(tdl, "STEADY", 1024)
    tdl._stretch.cache_clear()
    fine = tdl.knot_interval(doppler)
    exact = tdl.impulse_responses("D", 1.0, doppler, 5, 0, 0, 100 * coarse // fine)
    tdl._stretch.cache_clear()
    t = np.arange(100 * coarse // fine) * fine / coarse
    knots, share = t.astype(int), (t % 1)[:, None]
    between = rows[knots] * (1 - share) + rows[knots + 1] * share
    assert fine < coarse
    error = (np.abs(between - exact[:-1]) ** 2).sum(1).mean() / (np.abs(exact) ** 2).sum(1).mean()
    assert 10 * np.log10(error) < -58


# What the block does


@pytest.mark.parametrize("params", [{}, {"profile": "E", "doppler": "200 kHz", "delay_spread": "50 ns"}])
def test_samples_pass_the_taps_that_are_told(params):
    sent = samples(3000)
    made = run(params, [sent])
    taps, interval = made["taps"][0].data, made["taps"][0].tag("interval")
    assert len(taps) == 2999 // interval + 2
    np.testing.assert_allclose(made["samples"][0].data, filtered(sent.data, taps, interval), atol=3e-6)


def test_the_noise_has_the_power_it_is_said_to_have():
    sent = samples(1 << 17)
    clean, noisy = (run({}, [sent], esn0)["samples"][0] for esn0 in (300, 7))
    n0 = 10**-0.7
    assert noisy.tag("true_channel")["n0"] == pytest.approx(n0)
    assert (np.abs(noisy.data - clean.data) ** 2).mean() == pytest.approx(n0, rel=5 / len(sent.data) ** 0.5)


@pytest.mark.parametrize(
    "params",
    [
        {"esn0": 10},
        {"ebn0": 10, "doppler": "100 kHz", "profile": "D"},
        {"esn0": 3, "doppler": "15 MHz", "profile": "B", "delay_spread": "10 ns"},
        {"snr": 3, "delay_spread": 0, "profile": "E"},
    ],
)
def test_packets_do_not_matter(params):
    frames = [samples(count, frame) for frame, count in enumerate((1500, 0, 1, 40, 700))]
    frames = [frame.tagged(bits_per_symbol=4) for frame in frames]
    made = check_packet_invariance(TdlChannel, params, {"samples": frames})
    assert [packet.count for packet in made["samples"]] == [1500, 0, 1, 40, 700]


def test_frames_and_names_are_channels_apart():
    drawn = set()
    for name in ("a", "b"):
        made = run_block(TdlChannel({"esn0": 300}, name), {"samples": [samples(200, frame) for frame in range(3)]})
        drawn |= {packet.data.tobytes() for packet in made["taps"]}
    assert len(drawn) == 6


def test_a_frame_hears_nothing_of_the_one_before():
    alone = run({}, [samples(300, 1)])["samples"][0]
    after = run({}, [samples(300, 0), samples(300, 1)])["samples"][1]
    np.testing.assert_array_equal(after.data, alone.data)


def test_a_lost_stretch_counts_as_silence():
    x = samples(400).data.copy()
    pieces = [Packet(x[:100]), Packet(x[250:], offset=250, last=True)]
    x[100:250] = 0
    received = run_block(TdlChannel({"esn0": 300}), {"samples": pieces})["samples"]
    whole = run_block(TdlChannel({"esn0": 300}), {"samples": [Packet(x, last=True)]})["samples"][0]
    np.testing.assert_array_equal(received[0].data, whole.data[:100])
    np.testing.assert_array_equal(received[1].data, whole.data[250:])


def test_a_sample_that_is_nan_spoils_those_it_reaches():
    sent = samples(200)
    sent.data[50] = np.nan
    made = run({}, [sent])
    reach = made["taps"][0].data.shape[1]
    spoilt = np.flatnonzero(np.isnan(made["samples"][0].data))
    assert spoilt.tolist() == list(range(50, 50 + reach))


@pytest.mark.parametrize("esn0", [-300, 300])
def test_absurd_snrs_give_finite_samples(esn0):
    assert np.isfinite(run({}, [samples(100)], esn0)["samples"][0].data).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"profile": "F"}, "must be 'A', 'B', 'C', 'D' or 'E'"),
        ({"delay_spread": "-1 ns"}, "at least 0"),
        ({"delay_spread": "10 Hz"}, "must be in s, not 'Hz'"),
        ({"delay_spread": "1 s"}, r"must have a delay_spread of at most 1\.38e-05 s at this sample rate"),
        ({"doppler": "16 MHz"}, r"must have a doppler of at most half the sample rate, 1\.536e\+07 Hz"),
    ],
)
def test_what_makes_no_channel_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        TdlChannel({"esn0": 3, **params})
