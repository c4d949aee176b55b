"""Quantised latents: Gray codes, their places in 16QAM symbols, soft-bit reconstruction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.framing.latents import read_quantised, write_quantised

FORMATS = ["quant2", "quant3", "quant4", "quant5", "quant6", "quant7", "quant8"]
LIMITS = {"quant2": 2, "quant3": 2.5}  # what formats reach; the others 4
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


def limit(form):
    return LIMITS.get(form, 4)


@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=30), st.sampled_from(FORMATS), st.booleans())
def test_values_come_back_within_their_cell(values, form, by_plane):
    values = np.array(values, np.float32)
    bits = write_quantised(values, form, by_plane)
    mean, variance = read_quantised(certain(bits), form, by_plane)
    step = 2 * limit(form) / 2 ** int(form[-1])
    inside = np.abs(values) < limit(form) - step
    np.testing.assert_array_less(np.abs(mean - values)[inside], step * 1.02)
    np.testing.assert_array_less(variance[inside], step**2 / 4)
    assert (mean[values > limit(form)] > limit(form) - step).all()
    assert (mean[values < -limit(form)] < step - limit(form)).all()
    np.testing.assert_array_equal(write_quantised(mean, form, by_plane), bits)


@pytest.mark.parametrize("form", FORMATS)
def test_values_beyond_the_limit_are_the_outermost(form):
    bounds = np.array([-3e38, -limit(form), limit(form), 3e38], np.float32)
    codes = write_quantised(bounds, form, True).reshape(-1, 4).T
    np.testing.assert_array_equal(codes[0], codes[1])
    np.testing.assert_array_equal(codes[2], codes[3])
    np.testing.assert_array_equal(codes[0] ^ codes[2], np.arange(len(codes[0])) == 0)  # Gray: they differ in the sign


@pytest.mark.parametrize("form", FORMATS)
def test_neighbouring_cells_differ_in_one_bit(form):
    bits = int(form[-1])
    centres = ((np.arange(2**bits) + 0.5) * 2 / 2**bits - 1) * limit(form)
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
@pytest.mark.parametrize("count", [1, 7, 64])
def test_planes_are_the_bits_of_the_groups_most_significant_first(form, count):
    z, bits = latents(count), int(form[-1])
    by_plane = write_quantised(z, form, True).reshape(bits, count)
    by_value = np.array([write_quantised(z[v : v + 1], form, True) for v in range(count)])
    np.testing.assert_array_equal(by_plane, by_value.T)
    np.testing.assert_array_equal(by_plane[0], z >= 0)
    if bits > 4:  # of one limit: a coarser quantiser's planes are the first of a finer one's
        np.testing.assert_array_equal(by_plane[:-1].ravel(), write_quantised(z, f"quant{bits - 1}", True))
    in_groups = write_quantised(z, form)
    assert sorted(in_groups) == sorted(by_plane.ravel())
    for layout, sent in ((False, in_groups), (True, by_plane.ravel())):
        again = read_quantised(certain(sent), form, layout)[0]
        np.testing.assert_array_equal(write_quantised(again, form, True), by_plane.ravel())


@pytest.mark.parametrize("form", FORMATS)
def test_a_latent_whose_last_planes_are_lost_is_a_coarser_one(form):
    z, bits = latents(1 << 14), int(form[-1])
    errors = []
    for kept in range(bits + 1):
        llr = certain(write_quantised(z, form, True))
        llr[kept * z.size :] = 0
        mean, variance = read_quantised(llr, form, True)
        errors.append(np.mean((mean - z) ** 2))
        assert variance.mean() == pytest.approx(errors[-1], rel=0.05)
        if kept >= 4:
            coarser = f"quant{kept}"
            want = read_quantised(certain(write_quantised(z, coarser, True)), coarser, True)[0]
            np.testing.assert_allclose(mean, want, atol=1e-4)
    assert (np.diff(errors) < 0).all()
    assert errors[:2] == pytest.approx([1, 1 - 2 / math.pi], rel=0.03)  # nothing; the sign alone


@pytest.mark.parametrize(("form", "lloyd_max", "uniform"), [("quant2", 0.1175, 0.1188), ("quant3", 0.03454, 0.03744)])
def test_coarse_quantisers_lose_what_the_best_ones_do(form, lloyd_max, uniform):
    """Between the best quantisers of N(0, 1) with 4 and 8 levels, any and uniform (J. Max, 1960, tables I and II)."""
    z = ((np.arange(-6 * 2**14, 6 * 2**14) + 0.5) / 2**14).astype(np.float32)
    weight = np.exp(-(z.astype(float) ** 2) / 2)
    mean, variance = read_quantised(certain(write_quantised(z, form, True)), form, True)
    loss = np.average((mean - z) ** 2, weights=weight)
    assert lloyd_max < loss < uniform
    assert np.average(variance, weights=weight) == pytest.approx(loss, rel=1e-3)


@pytest.mark.parametrize("by_plane", [False, True])
@pytest.mark.parametrize("form", FORMATS)
def test_reconstruction_is_the_posterior_mean(form, by_plane):
    """Against a plain sum over all cells in float64, their moments by numerical integration."""
    bits, rng = int(form[-1]), np.random.default_rng(5)
    llr = (rng.standard_normal((7, bits)) * 3).astype(np.float32)
    fine = (np.arange(-9 * 2**14, 9 * 2**14) + 0.5) / 2**14
    weight = np.exp(-(fine**2) / 2)
    cell = np.clip(np.floor((fine / limit(form) + 1) * 2**bits / 2), 0, 2**bits - 1).astype(int)
    moments = [np.bincount(cell, weight * fine**k) for k in range(3)]
    q = np.arange(2**bits)
    code = (q ^ q >> 1)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    likelihood = np.exp(llr.astype(float) @ (0.5 - code.T))
    total, first, second = (likelihood @ moment for moment in moments)
    stretch = np.empty(7 * bits, np.float32)  # where the writer puts bit b of value v: seen from single ones
    for value in range(7):
        for plane in range(bits):
            place = plane * 7 + value if by_plane else _place(value, plane, bits)
            stretch[place] = llr[value, plane]
    mean, variance = read_quantised(stretch, form, by_plane)
    np.testing.assert_allclose(mean, first / total, atol=2e-5)
    np.testing.assert_allclose(variance, second / total - (first / total) ** 2, atol=1e-4, rtol=1e-3)


def _place(value, plane, bits):
    """The documented layout: groups of four (the last may be smaller), bits ranked plane by plane, sign bits first."""
    start = value // 4 * 4  # of seven values
    size = min(4, 7 - start)
    at = list(range(size * bits))
    ranked = [p for p in at if p % 4 < 2] + [p for p in at if p % 4 >= 2]
    return start * bits + ranked[plane * size + value - start]


@pytest.mark.parametrize("form", FORMATS)
def test_nothing_known_gives_the_prior(form):
    mean, variance = read_quantised(np.zeros(10 * int(form[-1]), np.float32), form)
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
