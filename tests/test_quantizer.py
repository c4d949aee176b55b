"""Quantised latents: Gray codes, their places in 16QAM symbols, soft-bit reconstruction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.framing.latents import read_quantised, write_quantised

FORMATS = ["quant4", "quant5", "quant6", "quant7", "quant8"]
SURE = np.float32(60)


def latents(count, seed=1):
    return np.random.default_rng(seed).standard_normal(count).astype(np.float32)


def received_over_16qam(bits, ebn0_db, rng):
    """Exact log-likelihood ratios of scrambled 16QAM (TS 38.211, 5.1.4) over AWGN."""
    scrambler = rng.integers(0, 2, bits.size).astype(np.uint8)
    bits = bits ^ scrambler
    n0 = 10 ** (-ebn0_db / 10) / 4
    b = 1 - 2.0 * bits.reshape(-1, 2, 2)
    sent = b[:, 0] * (2 - b[:, 1]) / math.sqrt(10)
    y = sent + rng.standard_normal(sent.shape) * math.sqrt(n0 / 2)
    p = {a: np.exp(-((y - a / math.sqrt(10)) ** 2) / n0) for a in (-3, -1, 1, 3)}
    sign = np.log((p[1] + p[3]) / (p[-1] + p[-3]))
    amplitude = np.log((p[1] + p[-1]) / (p[3] + p[-3]))
    return np.stack([sign, amplitude], 1).reshape(-1).astype(np.float32) * (1 - 2.0 * scrambler).astype(np.float32)


def certain(bits):
    return SURE * (1 - 2 * bits.astype(np.float32))


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), st.sampled_from(FORMATS))
def test_values_come_back_within_their_cell(values, form):
    values = np.array(values, np.float32)
    bits = write_quantised(values, form)
    mean, variance = read_quantised(certain(bits), form)
    step = 8 / 2 ** int(form[-1])
    inside = np.abs(values) < 4 - step
    np.testing.assert_array_less(np.abs(mean - values)[inside], step * 1.02)
    np.testing.assert_array_less(variance[inside], step**2 / 4)
    assert (np.abs(mean[values > 4]) > 4 - step).all()
    np.testing.assert_array_equal(write_quantised(mean, form), bits)


@pytest.mark.parametrize("form", FORMATS)
def test_neighbouring_cells_differ_in_one_bit(form):
    bits = int(form[-1])
    centres = (np.arange(2**bits) + 0.5) * 8 / 2**bits - 4
    codes = np.array([write_quantised(np.array([z], np.float32), form) for z in centres])
    assert (np.abs(np.diff(codes.astype(int), axis=0)).sum(1) == 1).all()
    assert len(np.unique(codes, axis=0)) == 2**bits


def test_formula_is_the_published_one():
    z = latents(64)
    q = np.floor((np.clip(z, -4, 4) + 4) * 2**8 / 8).astype(int)
    planes = (q ^ q >> 1)[:, None] >> np.arange(7, -1, -1) & 1
    groups = write_quantised(z, "quant8").reshape(-1, 32)
    at = np.arange(32)
    # Groups of four values; planes 0 to 3 on the sign bits of their eight symbols, 4 to 7 on the amplitude bits.
    expected = planes.reshape(-1, 4, 8).transpose(0, 2, 1)
    np.testing.assert_array_equal(groups[:, at % 4 < 2], expected[:, :4].reshape(-1, 16))
    np.testing.assert_array_equal(groups[:, at % 4 >= 2], expected[:, 4:].reshape(-1, 16))


@pytest.mark.parametrize("form", FORMATS)
def test_reconstruction_is_the_posterior_mean(form):
    """Against a plain sum over all cells in float64, their moments by numerical integration."""
    bits, rng = int(form[-1]), np.random.default_rng(5)
    llr = (rng.standard_normal((7, bits)) * 3).astype(np.float32)
    fine = (np.arange(-9 * 2**14, 9 * 2**14) + 0.5) / 2**14
    weight = np.exp(-(fine**2) / 2)
    cell = np.clip(np.floor((fine + 4) * 2**bits / 8), 0, 2**bits - 1).astype(int)
    moments = [np.bincount(cell, weight * fine**k) for k in range(3)]
    q = np.arange(2**bits)
    code = (q ^ q >> 1)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    likelihood = np.exp(llr.astype(float) @ (0.5 - code.T))
    total, first, second = (likelihood @ moment for moment in moments)
    stretch = np.empty(7 * bits, np.float32)  # where the writer puts bit b of value v: seen from single ones
    for value in range(7):
        for plane in range(bits):
            place = _place(value, plane, bits)
            stretch[place] = llr[value, plane]
    mean, variance = read_quantised(stretch, form)
    np.testing.assert_allclose(mean, first / total, atol=2e-5)
    np.testing.assert_allclose(variance, second / total - (first / total) ** 2, atol=1e-4, rtol=1e-3)


def _place(value, plane, bits):
    """The documented layout: groups of four (the last may be smaller), bits ranked plane by plane, sign bits first."""
    start = value // 4 * 4  # of seven values
    size = min(4, 7 - start)
    at = list(range(size * bits))
    ranked = [p for p in at if p % 4 < 2] + [p for p in at if p % 4 >= 2]
    return start * bits + ranked[plane * size + value - start]


def test_nothing_known_gives_the_prior():
    mean, variance = read_quantised(np.zeros(80, np.float32), "quant8")
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(variance, 1, rtol=1e-5)


def certain_error(rates):
    """Mean squared error of 8-bit latents whose plane b errs at `rates[b]` where decisions are taken for certain."""
    z = (np.arange(-8 * 2**10, 8 * 2**10) + 0.5) / 2**10
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    cell = np.clip(np.floor((z + 4) * 32), 0, 255).astype(int)
    p, first, second = (np.bincount(cell, weight * z**k) for k in range(3))
    q = np.arange(256)
    code = (q ^ q >> 1)[:, None] >> np.arange(7, -1, -1) & 1
    transition = np.where(code[:, None] ^ code, rates, 1 - np.asarray(rates)).prod(-1)
    value = first / p
    return (transition * (np.outer(p, value**2) - 2 * np.outer(first, value) + second[:, None])).sum()


SIGN, AMPLITUDE = 2 / 3, 4 / 3  # error rates of 16QAM's bits, as multiples of their mean
NATURAL = np.array([SIGN, SIGN, AMPLITUDE, AMPLITUDE] * 2)
OURS = np.array([SIGN] * 4 + [AMPLITUDE] * 4)


@pytest.mark.parametrize(
    ("ber", "equal", "natural"), [(0.0419, 0.560, 0.406), (0.0127, 0.173, 0.125), (0.00175, 0.0244, 0.018)]
)
def test_planes_are_ordered_for_the_least_error(ber, equal, natural):
    """The published figures, measured, for equal flips and for 16QAM; our order of the planes does better."""
    assert certain_error(np.full(8, ber)) == pytest.approx(equal, rel=0.07)
    assert certain_error(ber * NATURAL) == pytest.approx(natural, rel=0.05)
    assert certain_error(ber * OURS) < 0.92 * certain_error(ber * NATURAL)


@pytest.mark.parametrize(("ebn0", "published"), [(5, 0.128), (7.5, 0.042), (10, 0.0068)])
def test_errors_over_16qam_are_those_of_theory(ebn0, published):
    rng = np.random.default_rng(6)
    z = latents(1 << 18)
    bits = write_quantised(z, "quant8")
    llr = received_over_16qam(bits, ebn0, rng)
    hard = (llr < 0).astype(np.uint8)
    ber = np.mean(hard != bits)

    taken_for_certain = read_quantised(certain(hard), "quant8")[0]
    assert np.mean((taken_for_certain - z) ** 2) == pytest.approx(certain_error(ber * OURS), rel=0.05)
    p = np.where(np.arange(bits.size) % 4 < 2, ber * SIGN, ber * AMPLITUDE).astype(np.float32)
    doubted = (1 - 2 * hard.astype(np.float32)) * np.log((1 - p) / p)
    for values, bound in ((doubted, 0.85 * certain_error(ber * OURS)), (llr, published)):
        mean, variance = read_quantised(values, "quant8")
        assert np.mean((mean - z) ** 2) < bound
        assert variance.mean() == pytest.approx(np.mean((mean - z) ** 2), rel=0.06)  # they know their own error
