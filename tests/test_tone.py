"""A tone's meter: estimates against their Cramer-Rao bounds, impairments that are known, streams of any kind."""

import numpy as np
import pytest

from blocks.sink.tone import ToneMeter, find_tone
from flowgraph import Packet
from flowgraph.block import Context
from flowgraph.testing import run_block

N = 1024


def tone(f, count=N, amplitude=1.0, phase=0.3):
    return amplitude * np.exp(2j * np.pi * (f * np.arange(count) + phase))


def noise(rng, n0, count=N):
    return (rng.standard_normal(count) + 1j * rng.standard_normal(count)) * (n0 / 2) ** 0.5


def measured(packets, **params):
    """Return what the meter reports, and what it warns of."""
    told, figures = [], {}
    context = Context(warn=told.append, report=lambda section, frame, values: figures.update(values))
    run_block(ToneMeter(params, "meter", context), {"samples": packets})
    return figures, told


@pytest.mark.parametrize(("n0", "dc", "image"), [(10.0, 0.0, 0.0), (0.1, 0.0, 0.0), (1e-4, 0.3, 0.1)])
def test_estimates_keep_to_their_cramer_rao_bounds(n0, dc, image):
    """Wherever the tone is between the periodogram's places, and with DC and image beside it."""
    rng = np.random.default_rng(7)
    runs = 1000
    f = rng.uniform(0.02, 0.2, runs)
    found = [find_tone(tone(each) + dc + image * tone(-each) + noise(rng, n0)) for each in f]
    assert all(each.found for each in found)
    error = np.array([each.frequency for each in found]) - f
    bound = 6 * n0 / ((2 * np.pi) ** 2 * N * (N**2 - 1))
    wide = 4.5 * (2 / runs) ** 0.5  # of chi squared with so many degrees of freedom
    assert 1 - wide < np.mean(error**2) / bound < 1.015 + wide
    power = np.array([each.power for each in found])
    assert abs(power.mean() - 1) < 5 * (2 * n0 / N / runs) ** 0.5  # the bound of |a|^2 is 2 N0 / N
    assert abs(np.mean([each.noise for each in found]) / n0 - 1) < 5 / (N * runs) ** 0.5
    if dc:
        assert np.mean([each.dc for each in found]) == pytest.approx(dc**2, rel=0.01)
        assert np.mean([each.image for each in found]) == pytest.approx(image**2, rel=0.01)


def test_noise_alone_is_no_tone():
    rng = np.random.default_rng(3)
    assert not any(find_tone(noise(rng, 1.0)).found for _ in range(2000))
    assert not find_tone(np.zeros(N)).found
    assert not find_tone(np.ones(N)).found  # a tone at 0 Hz is not told from DC


@pytest.mark.parametrize("f", [1.5 / N, 0.5, -0.4999])
def test_a_tone_that_is_its_own_image_has_none(f):
    found = find_tone(tone(f))
    assert (found.found, found.image, found.dc) == (True, None, None)
    assert abs((found.frequency - f + 0.5) % 1 - 0.5) < 1e-9


def test_a_radio_is_measured_in_hertz_and_decibels():
    """Level, offset, image and DC as they were made; windows in which nothing was sent are in no mean."""
    rng = np.random.default_rng(1)
    rate, window, level = 2e6, 4096, 0.1
    sent = tone(100_123.4 / rate, 10 * window, level)
    samples = sent + 0.01 * np.conj(sent) + 0.02 + noise(rng, 1e-6, 10 * window)
    samples[7 * window :] = noise(rng, 1e-6, 3 * window)
    stream = np.concatenate([samples, samples[:100]]).astype(np.complex64)
    packets = [Packet(stream[:5000]).tagged(sample_rate=rate), Packet(stream[5000:], 0, 5000, last=True)]
    figures, told = measured(packets, frequency="100 kHz", window=window)
    assert (figures["windows"], figures["windows_without_tone"], told) == (10, 3, [])
    assert figures["level_dbfs"] == pytest.approx(-20, abs=0.01)
    assert figures["tone_snr_db"] == pytest.approx(40, abs=0.2)
    assert figures["image_dbc"] == pytest.approx(-40, abs=0.5)
    assert figures["dc_dbfs"] == pytest.approx(20 * np.log10(0.02), abs=0.1)
    bound = (6 * 1e-4 / ((2 * np.pi) ** 2 * window**3)) ** 0.5 * rate
    assert abs(figures["frequency_offset_hz"] - 123.4) < 5 * bound / 7**0.5
    assert 0.3 * bound < figures["frequency_spread_hz"] < 2 * bound


def test_packets_make_no_difference():
    stream = tone(0.11, 3000).astype(np.complex64) + noise(np.random.default_rng(2), 0.01, 3000).astype(np.complex64)
    whole, _ = measured([Packet(stream, last=True)], window=256, sample_rate=1e6)
    parts = [Packet(stream[at : at + 77], 0, at, last=at + 77 >= 3000) for at in range(0, 3000, 77)]
    assert measured(parts, window=256, sample_rate=1e6)[0] == whole
    assert whole["windows"] == 11


def test_little_and_strange_samples():
    few = tone(0.1, 100).astype(np.complex64)
    assert measured([Packet(few, last=True)])[0]["windows"] == 1
    assert measured([Packet(few[:50], last=True)]) == ({}, ["no tone was found in 0 windows of up to 65536 samples"])
    few[3] = np.nan
    figures, told = measured([Packet(few, last=True)])
    assert (figures["windows_without_tone"], told[0][:24]) == (1, "samples that are NaN or ")
    with pytest.raises(ValueError, match="samples must be at least 64, not 50"):
        find_tone(few[:50])
