"""What the pure functions do with arrays as NumPy makes them, and with ones that cannot be: never what lies behind."""

import numpy as np
import pytest

from blocks.fec import convolutional, crc
from blocks.fec.ldpc import LdpcCode
from blocks.phy import noise, ofdm, qam, tdl, theory
from blocks.phy.constellation import CONSTELLATIONS
from blocks.phy.estimator import gains_at_pilots
from blocks.phy.pilots import Pattern

Y = noise.complex_normal(64, 1)
H = noise.complex_normal(64, 2)
BYTES = noise.random_bytes(32, 3)
CODE = LdpcCode(100, 200, 2)
TAPS = np.ones((2, 5), np.complex64)
GRID = Y.reshape(8, 8)
FORMS = pytest.mark.parametrize(
    "form", [np.complex128, lambda y: np.repeat(y, 2)[::2], list], ids=["double", "strided", "list"]
)


@pytest.mark.parametrize("modulation", CONSTELLATIONS)
@FORMS
def test_symbols_may_be_of_any_type_and_lie_anywhere(form, modulation):
    np.testing.assert_array_equal(qam.decide(form(Y), modulation), qam.decide(Y, modulation))
    for gains in (None, H):
        for exact in (False, True):
            want = qam.llr(Y, 0.1, modulation, gains, exact=exact)
            got = qam.llr(form(Y), 0.1, modulation, None if gains is None else form(gains), exact=exact)
            np.testing.assert_array_equal(got, want)


def test_points_may_be_an_array_or_the_constellation():
    points = CONSTELLATIONS["8psk"].points.view(np.float64).reshape(-1, 2)
    for modulation in (points, points.tolist(), CONSTELLATIONS["8psk"]):
        np.testing.assert_allclose(qam.llr(Y, 0.1, modulation), qam.llr(Y, 0.1, "8psk"), rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(qam.decide(Y, modulation), qam.decide(Y, "8psk"))
    np.testing.assert_array_equal(qam.llr(Y, 0.1, CONSTELLATIONS["16qam"]), qam.llr(Y, 0.1, "16qam"))


@FORMS
def test_channels_take_them_too(form):
    np.testing.assert_array_equal(noise.awgn(form(Y), 0.1, 5), noise.awgn(Y, 0.1, 5))
    np.testing.assert_array_equal(noise.fade(form(Y), form(H), 0.1, 5), noise.fade(Y, H, 0.1, 5))
    np.testing.assert_array_equal(noise.equalize(form(Y), form(H)), noise.equalize(Y, H))
    np.testing.assert_array_equal(tdl.convolve(form(Y), TAPS, 64), tdl.convolve(Y, TAPS, 64))
    for ours, theirs in zip(*(gains_at_pilots(y, Pattern(8), 7) for y in (form(Y), Y)), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_packed_bits_may_lie_anywhere():
    apart = np.repeat(BYTES, 2)[::2]
    for modulation in CONSTELLATIONS:
        np.testing.assert_array_equal(qam.map_symbols(apart, 256, modulation), qam.map_symbols(BYTES, 256, modulation))
    np.testing.assert_array_equal(convolutional.encode(apart, 250, "3/4"), convolutional.encode(BYTES, 250, "3/4"))
    assert crc.checksum(apart, 256) == crc.checksum(BYTES, 256)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: qam.map_symbols(BYTES, 257), "packed must hold the 257 bits that are asked for, not 256"),
        (lambda: qam.map_symbols(BYTES, -1), "packed must hold the -1 bits"),
        (lambda: qam.map_symbols([1, 2], 16), "packed must be uint8, not int64"),
        (lambda: qam.map_symbols(BYTES, 8, "32qam"), "modulation must be bpsk, .* or a list of points .* not '32qam'"),
        (lambda: qam.map_symbols(BYTES, 8, 16), r"modulation must be bpsk, .* or a list of points \[I, Q\], not 16"),
        (lambda: qam.llr(Y, 1, [1, -1]), r"modulation must be bpsk, .* or a list of points \[I, Q\], not \[1, -1\]"),
        (lambda: qam.decide(Y, [[3, 0], [-3, 0]]), "modulation must have unit mean power, not 9: divide .* by 3"),
        (lambda: qam.decide(Y.reshape(8, 8)), r"symbols must have the shape \[any\], not \[8, 8\]"),
        (lambda: qam.decide(["1"]), "symbols must be complex64, not str"),
        (lambda: qam.llr(Y, -1), "n0 must be at least 0, not -1"),
        (lambda: qam.llr(Y, np.nan), "n0 must be at least 0, not nan"),
        (lambda: qam.llr(Y, 0.1, gains=H[:63]), r"gains must have the shape \[64\], not \[63\]"),
        (lambda: noise.awgn(Y, np.nan, 1), "the power of noise must be at least 0 and finite, not nan"),
        (lambda: noise.awgn(Y, -0.1, 1), "the power of noise must be at least 0 and finite, not -0.1"),
        (lambda: noise.fade(Y, H[:63], 0.1, 1), r"gains must have the shape \[64\], not \[63\]"),
        (lambda: noise.equalize(Y, H[:63]), r"gains must have the shape \[64\], not \[63\]"),
        (lambda: noise.equalize(Y, H, np.nan), "n0 must be at least 0 and finite, not nan"),
        (lambda: noise.equalize(Y, H, -1), "n0 must be at least 0 and finite, not -1"),
        (lambda: noise.flips(8, np.nan, 1), "probability must be 0 to 1, not nan"),
        (lambda: noise.flips(8, 1.5, 1), "probability must be 0 to 1, not 1.5"),
        (lambda: noise.doppler_gains(8, np.nan, 1), "doppler must be 0 to 1/2 period a symbol, not nan"),
        (lambda: noise.doppler_gains(8, 0.6, 1), "doppler must be 0 to 1/2 period a symbol, not 0.6"),
        (lambda: tdl.convolve(Y, TAPS, 32), "taps must have a row up to item 60, not 2 rows 32 items apart"),
        (lambda: tdl.convolve(Y[:3], TAPS, 64), "items must be at least 4, one less than there are taps, not 3"),
        (lambda: tdl.profile("F"), "profile must be A, B, C, D, E, not F"),
        (lambda: tdl.pulses("A", np.nan), "delay_spread must be at least 0 and finite, not nan"),
        (lambda: tdl.pulses("A", -1), "delay_spread must be at least 0 and finite, not -1"),
        (lambda: tdl.impulse_responses("A", 1, 0.6, 1, 0, 0, 2), "doppler must be 0 to 1/2 period a sample, not 0.6"),
        (
            lambda: tdl.impulse_responses("A", 1, np.nan, 1, 0, 0, 2),
            "doppler must be 0 to 1/2 period a sample, not nan",
        ),
        (lambda: ofdm.modulate(GRID, 7, 2), "subcarriers must be at most 7, the samples of an OFDM symbol, not 8"),
        (lambda: ofdm.modulate(GRID, 8, 9), "cyclic_prefix must be at most 8, the samples of an OFDM symbol, not 9"),
        (lambda: ofdm.demodulate(GRID, 9, 8), "subcarriers must be at most 8, the samples of an OFDM symbol, not 9"),
        (lambda: ofdm.demodulate(GRID, 8, 16), "fft_size must be at most 8, the samples of an OFDM symbol, not 16"),
        (lambda: ofdm.frequency_response(GRID, 4, 4), "taps must be at most 4, the samples of an OFDM symbol, not 8"),
        (lambda: Pattern(0), "spacing and length must be at least 1, not 0 and 1"),
        (lambda: gains_at_pilots(Y, Pattern(8), 9), "symbols must reach to 73, the end of 9 groups of pilots, not 64"),
        (lambda: theory.bit_error_rate(np.nan), "a ratio in dB must be a number, not NaN"),
        (lambda: theory.symbol_error_rate(np.nan, "8psk", True), "a ratio in dB must be a number, not NaN"),
        (lambda: theory.paper_bit_error_rate(np.nan), "a ratio in dB must be a number, not NaN"),
        (lambda: theory.bit_error_rate(3, "16qam", True, -1), "k_factor must be at least 0 and finite, not -1"),
        (lambda: theory.bit_error_rate(3, "16qam", True, np.nan), "k_factor must be at least 0 and finite, not nan"),
        (lambda: theory.decision_error(-1), "n0 must be at least 0 and finite, not -1"),
        (lambda: theory.decision_error(np.inf, "8psk"), "n0 must be at least 0 and finite, not inf"),
        (lambda: theory.estimated_gain_error_rate(1.1), "correlation must be 0 to 1, not 1.1"),
        (lambda: theory.binomial_interval(11, 10), "errors must be 0 to 10, the number of trials, not 11"),
        (lambda: convolutional.error_rate(-1), "esn0 must be at least 0, as a ratio, not -1"),
        (lambda: convolutional.error_rate(1, "7/8"), "rate must be 1/2, 2/3, 3/4, 5/6, not 7/8"),
        (lambda: convolutional.coded_bits(-1), "bits must be at least 0, not -1"),
        (lambda: crc.checksum(BYTES, 8, "crc8"), "checksum must be crc16, crc24a, crc24b, crc32, not crc8"),
        (lambda: crc.checksum(BYTES, 257), "packed must hold the 257 bits"),
        (lambda: convolutional.encode(BYTES, 257), "packed must hold the 257 bits"),
        (lambda: convolutional.encode(BYTES, 8, "7/8"), "rate must be 1/2, 2/3, 3/4, 5/6, not 7/8"),
        (lambda: convolutional.decode(np.zeros(28), 8), "llrs must be int8, not float64"),
        (lambda: CODE.encode(np.zeros((1, 90), np.uint8)), r"bits must have the shape \[any, 100\], not \[1, 90\]"),
        (lambda: CODE.encode(np.full((1, 100), 2, np.uint8)), "bits must be 0 or 1, not 2"),
        (lambda: CODE.decode(np.full((1, 200), np.nan)), "llrs must be int8, not float64"),
        (lambda: CODE.decode(np.zeros(200, np.int8)), r"llrs must have the shape \[any, 200\], not \[200\]"),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("modulation", CONSTELLATIONS)
@pytest.mark.parametrize("rayleigh", [False, True])
def test_error_rates_have_their_limits_where_there_is_no_noise_or_nothing_else(modulation, rayleigh):
    points = 1 << CONSTELLATIONS[modulation].bits_per_symbol
    for k_factor in (0, 2 * rayleigh):
        for esn0_db, rate in ((np.inf, 0), (1e4, 0), (-300, 1), (-np.inf, 1)):
            bit, symbol = rate / 2, rate * (1 - 1 / points)
            assert theory.bit_error_rate(esn0_db, modulation, rayleigh, k_factor) == pytest.approx(bit, abs=1e-10)
            assert theory.symbol_error_rate(esn0_db, modulation, rayleigh, k_factor) == pytest.approx(symbol, abs=1e-10)
    assert theory.decision_error(0, modulation) == 0
    assert theory.decision_error(1e30, modulation) == pytest.approx(1e30, rel=1e-9)


@pytest.mark.parametrize("modulation", CONSTELLATIONS)
@pytest.mark.parametrize("exact", [False, True])
def test_without_noise_llrs_are_the_largest_and_in_nothing_but_noise_they_are_0(modulation, exact):
    certain = qam.llr(Y, 0, modulation, exact=exact)
    np.testing.assert_array_equal(certain < 0, qam.llr(Y, 1, modulation, exact=False) < 0)
    assert np.isfinite(certain).all()
    assert not qam.llr(Y, np.inf, modulation, exact=exact).any()
