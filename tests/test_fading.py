"""Fading in time and with a direct path: Clarke's autocorrelation, Rice's moments, error rates on the closed form."""

import numpy as np
import pytest
from scipy.special import j0

from blocks.phy import noise, qam, theory
from blocks.phy.channel import Equalizer, RayleighChannel, RicianChannel
from blocks.phy.qam import QamDemapper
from blocks.sink.errors import ErrorMeter
from flowgraph.block import Context, Packet
from flowgraph.testing import check_packet_invariance, run_block

FRAMES = 400


def ensemble(doppler, count):
    """Gains of many frames: independent processes, [frames, count]."""
    return np.stack([noise.doppler_gains(count, doppler, 7, frame) for frame in range(FRAMES)])


@pytest.mark.parametrize("doppler", [1e-4, 0.003, 0.2])
def test_the_autocorrelation_is_clarkes(doppler):
    lags = np.unique(np.round(np.array([0, 0.05, 0.2, 0.38, 0.6, 1.0, 2.3]) / doppler).astype(int))
    h = ensemble(doppler, int(lags[-1]) + 1)
    found = (h[:, lags] * np.conj(h[:, :1])).mean(0)
    want = j0(2 * np.pi * doppler * lags)
    assert np.abs(found - want).max() < 4 / FRAMES**0.5


def test_a_gain_at_any_time_is_complex_gaussian_of_unit_power():
    h = ensemble(0.01, 2000)[:, ::400]
    power = np.abs(h) ** 2
    assert power.mean() == pytest.approx(1, abs=4 * (1 / power.size) ** 0.5)
    assert (power**2).mean() == pytest.approx(2, abs=4 * (20 / power.size) ** 0.5)
    for level in (0.1, 0.7, 2.0):
        share = 1 - np.exp(-level)
        assert (power < level).mean() == pytest.approx(share, abs=4 * (share * (1 - share) / power.size) ** 0.5)


@pytest.mark.parametrize("doppler", [3e-5, 0.0011, 0.015])
def test_interpolation_does_not_show(doppler, monkeypatch):
    smooth = noise.doppler_gains(5000, doppler, 3, offset=777)
    monkeypatch.setattr(noise, "DENSE", 4096)
    exact = noise.doppler_gains(5000, doppler, 3, offset=777)
    assert np.abs(smooth - exact).max() < 2e-4


PARAMS = [
    (RayleighChannel, {"ebn0": 9, "fading": "doppler", "doppler": "300 Hz", "symbol_rate": "1 MHz"}),
    (RayleighChannel, {"ebn0": 9, "fading": "doppler", "doppler": 0.3, "symbol_rate": 1}),
    (RicianChannel, {"ebn0": 9, "k_factor": "3 dB"}),
    (RicianChannel, {"ebn0": 9, "k_factor": 10, "fading": "block", "block_symbols": 7}),
]


@pytest.mark.parametrize(("channel", "params"), PARAMS)
def test_fades_do_not_depend_on_how_a_stream_is_cut(channel, params):
    symbols = qam.map_symbols(noise.random_bytes(300, 1), 2400)
    frames = [Packet(symbols, frame, last=True).tagged(bits_per_symbol=4) for frame in range(2)]
    check_packet_invariance(channel, params, {"symbols": frames})


@pytest.mark.parametrize("k_factor", [-10, 0, 6, 20])
def test_a_rician_gain_has_its_mean_and_power(k_factor):
    block = RicianChannel({"ebn0": 300, "k_factor": k_factor})
    ones = Packet(np.ones(200_000, np.complex64), last=True).tagged(bits_per_symbol=4)
    gains = run_block(block, {"symbols": [ones]})["gains"][0].data.astype(np.complex128)
    k = 10 ** (k_factor / 10)
    assert (np.abs(gains) ** 2).mean() == pytest.approx(1, abs=0.01)
    assert gains.mean() == pytest.approx((k / (k + 1)) ** 0.5, abs=0.01)


@pytest.mark.parametrize("modulation", ["16qam", "8psk"])
@pytest.mark.parametrize(
    ("channel", "params"),
    [(RicianChannel, {"k_factor": 3}), (RicianChannel, {"k_factor": 12}), (RayleighChannel, {})],
)
def test_error_rates_are_on_the_closed_form(channel, params, modulation):
    bits = np.random.default_rng(2).integers(0, 256, 1 << 18, np.uint8)
    sent = [Packet(bits, packed=True, last=True)]
    symbols = run_block(qam.QamMapper({"modulation": modulation}), {"bits": sent})["symbols"]
    faded = run_block(channel({"ebn0": 9, **params}, "air", Context(seed=4)), {"symbols": symbols})
    level = run_block(Equalizer(), faded)["symbols"]
    received = run_block(QamDemapper({"modulation": modulation}), {"symbols": level, "gains": faded["gains"]})["bits"]
    told = {}
    context = Context(report=lambda section, frame, values: told.update(values) if section == "link" else None)
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": received})
    low, high = told["ber_interval"]
    assert low <= told["ber_theory"] <= high


def test_with_no_direct_path_rice_is_rayleigh_and_with_nothing_else_it_is_no_fading():
    for modulation in ("16qam", "8psk"):
        want = theory.bit_error_rate(14, modulation, rayleigh=True)
        assert theory.bit_error_rate(14, modulation, True, 1e-9) == pytest.approx(want, rel=1e-6)
        assert theory.bit_error_rate(14, modulation, True, 1e9) == pytest.approx(
            theory.bit_error_rate(14, modulation), rel=1e-4
        )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"fading": "doppler"}, "must have doppler with fading: doppler, and only then"),
        ({"doppler": 10}, "must have doppler with fading: doppler, and only then"),
        ({"fading": "doppler", "doppler": 10, "symbol_rate": 15}, "at most half the symbol rate, 7.5 Hz"),
        ({"fading": "block"}, "must have block_symbols with fading: block, and only then"),
    ],
)
def test_what_does_not_fit_together_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        RayleighChannel({"ebn0": 3, **params})
