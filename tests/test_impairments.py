"""Impairments: each fault against its closed form, all together whatever the packets, without any bit by bit."""

import numpy as np
import pytest

from blocks.phy import noise
from blocks.phy.impairments import Impairments, Oscillator
from flowgraph.block import Context, Packet, Tag
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

RATE = 1e6
ALL = {
    "clip": "1.6 dB",
    "gain": "-2 dB",
    "clock_offset": "80 ppm",
    "delay": "3.3 sample",
    "carrier_offset": "12.3 kHz",
    "phase": "30 deg",
    "linewidth": "200 Hz",
    "iq_gain": "0.5 dB",
    "iq_phase": "3 deg",
    "dc_offset": "-33 dBc",
    "dc_phase": "-63 deg",
}


def samples(count, frame=0):
    return Packet(noise.complex_normal(count, 11, frame), frame, last=True)


def distort(x, seed=4, **params):
    """What becomes of one frame."""
    block = Impairments(params, "radio", Context(seed=seed))
    made = run_block(block, {"samples": [Packet(np.asarray(x, np.complex64), last=True)]})["samples"]
    return whole_frames(made)[0].data.astype(complex)


def tone(frequency, places):
    """A tone of `frequency` in periods a sample."""
    return np.exp(2j * np.pi * frequency * np.asarray(places))


def slope(x):
    """Frequency of a tone in periods a sample, from its phase."""
    return np.polyfit(np.arange(len(x)), np.unwrap(np.angle(x)), 1)[0] / (2 * np.pi)


def decibel(ratio):
    return 10 * np.log10(max(ratio, 1e-30))


# None and all


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_without_any_samples_pass_untouched(count):
    sent = samples(count)
    sent.data[:1] = complex(np.nan, np.inf)
    made = run_block(Impairments(), {"samples": [sent]})["samples"][0]
    assert made.data.tobytes() == sent.data.tobytes()


SINGLE = [[name] for name in ALL if name != "dc_phase"]  # which is nothing without dc_offset


@pytest.mark.parametrize("names", [*SINGLE, ["clock_offset", "delay"], list(ALL)], ids="+".join)
def test_packets_do_not_matter(names):
    frames = [samples(count, frame) for frame, count in enumerate((1100, 0, 1, 40, 700))]
    frames = [frame.tagged(modulation="16qam") for frame in frames]
    params = {name: ALL[name] for name in names}
    made = check_packet_invariance(Impairments, params, {"samples": frames})["samples"]
    assert [packet.count for packet in made] == [1100, 0, 1, 40, 700]
    assert made[0].data.tobytes() != frames[0].data.tobytes()
    assert all(packet.tag("modulation") == "16qam" for packet in made)


@pytest.mark.parametrize("clock_offset", [-9000, 9000])
def test_packets_do_not_matter_to_a_clock_far_off_and_a_long_delay(clock_offset):
    frames = [samples(1500), samples(200, 1)]
    params = {"clock_offset": clock_offset, "delay": 333.25}
    check_packet_invariance(Impairments, params, {"samples": frames})


def test_faults_apply_in_the_order_that_is_told():
    x = samples(4000).data.astype(complex)
    u = x * np.minimum(1, 10**0.08 / np.abs(x))
    v = 10**-0.1 * np.concatenate([np.zeros(3), u[:-3]])
    w = v * np.exp(1j * (2 * np.pi * 12.3e3 / RATE * np.arange(4000) + np.pi / 6))
    g, p = 10**0.025, np.pi / 60
    want = w.real + 1j * g * (w.imag * np.cos(p) - w.real * np.sin(p)) + 10**-1.65 * np.exp(-1j * np.radians(63))
    params = {name: value for name, value in ALL.items() if name not in ("clock_offset", "linewidth")}
    np.testing.assert_allclose(distort(x, **params | {"delay": 3}), want, atol=3e-6)


# Oscillator


@pytest.mark.parametrize("offset", [-321e3, -0.5, 440.0, 123456.789, 500e3])
def test_a_carrier_offset_moves_a_tone_by_so_many_hertz(offset):
    made = distort(tone(0.01, np.arange(200_000)), carrier_offset=offset)
    moved = slope(made * np.conj(tone(0.01 + offset / RATE, np.arange(200_000))))
    assert abs(moved * RATE) < 1e-4
    np.testing.assert_allclose(np.abs(made), 1, atol=1e-6)


def test_a_carrier_offset_stays_exact_in_a_long_frame():
    offset, turns = 50_000_000, 12345 / 2**20
    found = Oscillator(1).phases(0, offset, 1000, turns, 0.0, 0.0)
    np.testing.assert_array_equal(found, (12345 * (offset + np.arange(1000)) % 2**20) << 12)


def test_the_phase_is_that_at_the_start():
    made = distort(np.ones(10), phase=-75)
    np.testing.assert_allclose(made, np.exp(-1j * np.radians(75)), atol=1e-6)


@pytest.mark.parametrize("linewidth", [0.5, 50.0, 5e4])
def test_the_variance_of_phase_noise_grows_with_two_pi_linewidth(linewidth):
    """Across frames, and its steps are as many independent Gaussian variables."""
    frames, count = 400, 2000
    block = Impairments({"linewidth": linewidth})
    ones = [Packet(np.ones(count, np.complex64), frame, last=True) for frame in range(frames)]
    made = np.stack([p.data for p in run_block(block, {"samples": ones})["samples"]]).astype(complex)
    phases = np.unwrap(np.angle(made), axis=1)
    assert np.abs(phases[:, 0]).max() < 1e-6
    for n in (1, 20, 500, 1999):
        want = 2 * np.pi * linewidth * n / RATE
        assert (phases[:, n] ** 2).mean() == pytest.approx(want, rel=5 * (2 / frames) ** 0.5)
    steps = np.diff(phases, axis=1)
    assert steps.var() == pytest.approx(2 * np.pi * linewidth / RATE, rel=5 * (2 / steps.size) ** 0.5 + 1e-3)
    assert abs((steps[:, 1:] * steps[:, :-1]).mean() / steps.var()) < 5 / steps.size**0.5


def test_a_line_is_as_wide_as_it_is_said_to_be():
    """E[y(t + s) y*(t)] = e^(-pi linewidth s), whose transform is a Lorentzian of that full width."""
    made = distort(np.ones(1 << 20), linewidth=2000)
    for lag in (10, 100, 300):
        found = (made[lag:] * np.conj(made[:-lag])).mean()
        assert found == pytest.approx(np.exp(-np.pi * 2000 * lag / RATE), abs=0.05)


def test_lost_stretches_do_not_stop_the_oscillator():
    params = {"carrier_offset": 777, "linewidth": 300}
    whole = run_block(Impairments(params), {"samples": [samples(500)]})["samples"][0].data
    x = samples(500).data
    pieces = [Packet(x[:100]), Packet(x[450:], offset=450, last=True)]
    made = run_block(Impairments(params), {"samples": pieces})["samples"]
    np.testing.assert_array_equal(made[0].data, whole[:100])
    np.testing.assert_array_equal(made[1].data, whole[450:])


def test_frames_and_names_have_phase_noise_of_their_own():
    made = set()
    for name in ("a", "b"):
        packets = [Packet(np.ones(100, np.complex64), frame, last=True) for frame in range(3)]
        made |= {
            p.data.tobytes() for p in run_block(Impairments({"linewidth": 5}, name), {"samples": packets})["samples"]
        }
    assert len(made) == 6


# Clock and delay


@pytest.mark.parametrize("delay", [0.5, 1.25, 7.77, 100.0])
@pytest.mark.parametrize("frequency", [-0.4, -0.11, 0.0, 0.25, 0.39])
def test_a_delayed_tone_is_right_to_68_db_within_80_percent_of_the_band(delay, frequency):
    places = np.arange(1000)
    made = distort(tone(frequency, places), delay=delay)
    inner = slice(int(delay) + 14, 980)
    error = made[inner] - tone(frequency, places - delay)[inner]
    assert decibel((np.abs(error) ** 2).max()) < -68
    assert (np.abs(made[: max(0, int(delay) - 14)]) < 1e-6).all()


@pytest.mark.parametrize("delay", [1, 12, 5000])
def test_a_whole_delay_shifts_to_the_last_bit(delay):
    x = samples(3000).data
    shifted = np.concatenate([np.zeros(delay, np.complex64), x])[:3000]
    np.testing.assert_array_equal(distort(x, delay=delay), shifted)


@pytest.mark.parametrize("clock_offset", [-5000.0, -100.0, 0.7, 20.0, 2500.0])
def test_a_fast_clock_samples_closer_together(clock_offset):
    places = np.arange(60_000)
    x = tone(0.37, places)
    made = distort(x, clock_offset=clock_offset)
    taken = places / (1 + clock_offset * 1e-6)
    heard = (taken > 14) & (taken < places[-1] - 14)
    error = made[heard] - tone(0.37, taken[heard])
    assert decibel((np.abs(error) ** 2).max()) < -68
    assert slope(made[heard]) == pytest.approx(0.37 / (1 + clock_offset * 1e-6), abs=1e-9)
    assert len(made) == len(x)


def test_where_samples_are_interpolated_lost_ones_are_silence_that_is_told():
    x = samples(500).data.copy()
    pieces = [Packet(x[:100]).tagged(first=1), Packet(x[300:], offset=300, last=True, tags=(Tag(400, "later", 2),))]
    x[100:300] = 0
    made = whole_frames(run_block(Impairments({"delay": 2.5}), {"samples": pieces})["samples"])[0]
    np.testing.assert_array_equal(made.data, distort(x, delay=2.5))
    assert made.tags == (Tag(0, "first", 1), Tag(100, "erased", 200), Tag(400, "later", 2))


def test_stretches_that_are_known_to_be_missing_stay_so_whatever_the_packets():
    sent = [Packet(samples(500).data, tags=(Tag(90, "erased", 200),), last=True)]
    made = check_packet_invariance(Impairments, {"delay": 2.5}, {"samples": sent})["samples"]
    assert made[0].tags == (Tag(90, "erased", 200),)


# Amplifier and mixer


@pytest.mark.parametrize("gain", [-300, -3, 20])
def test_a_gain_is_one_of_power(gain):
    x = samples(1000).data
    np.testing.assert_allclose(distort(x, gain=gain), x * 10 ** (gain / 20), rtol=1e-6)


def test_clipping_keeps_phases_and_what_is_small():
    x = samples(10_000).data
    made, size, largest = distort(x, clip="-2 dB"), np.abs(x), 10**-0.1
    np.testing.assert_array_equal(made[size < 0.99 * largest], x[size < 0.99 * largest])
    np.testing.assert_allclose(np.abs(made[size > largest]), largest, rtol=1e-6)
    np.testing.assert_allclose(np.angle(made * np.conj(x)), 0, atol=1e-6)
    assert np.abs(distort(np.array([1e30, 1e-30]), clip=-2)) == pytest.approx([largest, 1e-30])


@pytest.mark.parametrize(("gain", "phase"), [(1.0, 0.0), (0.0, 5.0), (-0.3, -2.0), (3.0, 40.0)])
def test_the_image_is_rejected_by_the_closed_form(gain, phase):
    n = np.arange(1 << 14)
    frequency = 1024 / len(n)
    made = np.fft.fft(distort(tone(frequency, n), iq_gain=gain, iq_phase=phase)) / len(n)
    g, c = 10 ** (gain / 20), np.cos(np.radians(phase))
    want = (1 + 2 * g * c + g * g) / (1 - 2 * g * c + g * g)
    rejection = abs(made[1024]) ** 2 / abs(made[-1024]) ** 2
    assert decibel(rejection) == pytest.approx(decibel(want), abs=0.01)
    others = np.abs(made) ** 2
    others[[1024, -1024]] = 0
    assert others.max() < 1e-12


@pytest.mark.parametrize("phase", [0, 90, -120])
def test_a_dc_offset_has_its_power_over_that_of_symbols(phase):
    x = samples(1000).data
    added = distort(x, dc_offset="-20 dBc", dc_phase=phase) - x
    np.testing.assert_allclose(added, 0.1 * np.exp(1j * np.radians(phase)), atol=1e-6)


# Extremes


def test_what_is_not_finite_stays_where_it_is_heard():
    x = samples(200).data.copy()
    x[50], x[120] = np.nan, complex(0, np.inf)
    strange = [50, 120]
    memoryless = {name: value for name, value in ALL.items() if name not in ("clock_offset", "delay")}
    assert np.flatnonzero(~np.isfinite(distort(x, **memoryless))).tolist() == strange
    spread = np.flatnonzero(~np.isfinite(distort(x, delay=0.5)))
    assert set(strange) <= set(spread)
    assert all(min(abs(n - 50), abs(n - 120)) <= 14 for n in spread)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"carrier_offset": "0.6 MHz"},
            "must have carrier_offset and linewidth of at most half the sample_rate, 500000 Hz",
        ),
        ({"linewidth": "0.6 MHz"}, "must have carrier_offset and linewidth of at most half the sample_rate, 500000 Hz"),
        ({"linewidth": -1}, "at least 0"),
        ({"clock_offset": "2 %"}, "must be in ppm, not '%'"),
        ({"clock_offset": 20_000}, "at most 10000"),
        ({"phase": "1 rad"}, "must be in deg, not 'rad'"),
        ({"delay": -1}, "at least 0"),
        ({"delay": "1 s"}, "must be in sample, not 's'"),
        ({"clip": "1.2 %"}, "must be in dB, not '%'"),
        ({"dc_offset": "-30 dB"}, "must be in dBc, not 'dB'"),
    ],
)
def test_what_makes_no_sense_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        Impairments(params)
