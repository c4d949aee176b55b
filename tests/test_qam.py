"""Mapper and demapper: vectors from CommPy, closed forms, properties, and what they do with bad symbols."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import logsumexp

from blocks.phy import noise, qam, theory
from blocks.phy.constellation import CONSTELLATIONS, constellation
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.testing import assert_same_stream, check_packet_invariance, recut, run_block

VECTORS = json.loads((Path(__file__).parent / "vectors" / "commpy_16qam.json").read_text())
MODULATIONS = list(CONSTELLATIONS)


def packed(bits, frame=0, **more):
    """A frame of bits, given as 0 and 1."""
    bits = np.asarray(bits, np.uint8)
    return Packet(np.packbits(bits), frame, count=len(bits), packed=True, last=True, **more)


def random_bits(count, seed=0):
    return np.random.default_rng(seed).integers(0, 2, count, dtype=np.uint8)


def bits_of(packets):
    return np.concatenate([np.unpackbits(p.data, count=p.count) for p in packets])


def complex_vector(name):
    return (np.array(VECTORS[name]) @ [1, 1j]).astype(np.complex64)


def text_bits(name):
    return np.array(list(VECTORS[name])).astype(np.uint8)


# Against the standard and CommPy


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_constellations_have_unit_power_and_gray_labels(modulation):
    points = CONSTELLATIONS[modulation].points
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1)
    assert CONSTELLATIONS[modulation].gray
    if not CONSTELLATIONS[modulation].axis:
        return
    distance = np.abs(points[:, None] - points)
    step = 2 * CONSTELLATIONS[modulation].half_step
    neighbours = np.argwhere(np.isclose(distance, step))
    assert len(neighbours) == 4 * (len(points) - math.isqrt(len(points)))
    assert all((int(a) ^ int(b)).bit_count() == 1 for a, b in neighbours)
    assert distance[distance > 0].min() == pytest.approx(step)


def test_corner_points_are_those_of_ts_38_211():
    points = {name: CONSTELLATIONS[name].points for name in MODULATIONS}
    assert points["bpsk"][0b1] == pytest.approx((-1 - 1j) / math.sqrt(2))
    assert points["qpsk"][0b01] == pytest.approx((1 - 1j) / math.sqrt(2))
    assert points["16qam"][0b0111] == pytest.approx((3 - 3j) / math.sqrt(10))
    assert points["64qam"][0b000000] == pytest.approx((3 + 3j) / math.sqrt(42))
    assert points["64qam"][0b101111] == pytest.approx((-7 + 7j) / math.sqrt(42))
    assert points["256qam"][0b00000000] == pytest.approx((5 + 5j) / math.sqrt(170))
    assert points["256qam"][0b11111111] == pytest.approx((-15 - 15j) / math.sqrt(170))


def test_mapper_agrees_with_commpy():
    bits = text_bits("bits")
    np.testing.assert_allclose(qam.map_symbols(np.packbits(bits), len(bits)), complex_vector("symbols"), atol=1e-7)


def test_commpy_own_points_are_ours_by_other_labels():
    """Its mapping of the same bits, scaled and relabelled by its table, is ours."""
    own = complex_vector("own_points") / np.sqrt(10).astype(np.float32)
    ours = CONSTELLATIONS["16qam"].points
    labels = np.abs(own[:, None] - ours).argmin(axis=1)
    assert sorted(labels) == list(range(16))
    np.testing.assert_allclose(own, ours[labels], atol=1e-6)
    sent = np.packbits(text_bits("bits").reshape(-1, 4), axis=1).ravel() >> 4
    np.testing.assert_allclose(complex_vector("own_symbols") / np.sqrt(10), ours[labels[sent]], atol=1e-6)


def test_decisions_agree_with_commpy():
    received = complex_vector("received")
    np.testing.assert_array_equal(np.unpackbits(qam.decide(received)), text_bits("decided"))


def test_max_log_llrs_lie_within_ln_8_of_commpys_exact_ones():
    """Each of the two sums of 8 exponentials exceeds its largest term by at most ln 8."""
    got, exact = qam.llr(complex_vector("received"), VECTORS["n0"]), np.array(VECTORS["llr"])
    assert np.abs(got - exact).max() <= math.log(8)
    sure = np.abs(exact) > 20
    np.testing.assert_allclose(got[sure], exact[sure], rtol=0.05)


SIONNA = np.load(Path(__file__).parent / "vectors" / "demapper_sionna.npz")


@pytest.mark.parametrize("modulation", ["qpsk", "16qam", "64qam", "256qam"])
def test_symbols_and_llrs_are_sionnas(modulation):
    theirs = {name: SIONNA[f"{modulation}_{name}"] for name in ("bits", "sent", "received", "n0", "exact", "maxlog")}
    count = len(theirs["exact"])
    np.testing.assert_allclose(qam.map_symbols(theirs["bits"], count, modulation), theirs["sent"], atol=1e-6)
    for exact, name in ((True, "exact"), (False, "maxlog")):
        llrs = qam.llr(theirs["received"], float(theirs["n0"]), modulation, exact=exact)
        np.testing.assert_allclose(llrs, theirs[name], rtol=1e-4, atol=1e-4)


# LLRs


def brute_force(symbols, n0, points):
    distance = np.abs(symbols[:, None].astype(np.complex128) - points) ** 2
    bits = len(points).bit_length() - 1
    ones = np.arange(len(points))[:, None] >> np.arange(bits - 1, -1, -1) & 1
    columns = [distance[:, one == 1].min(axis=1) - distance[:, one == 0].min(axis=1) for one in ones.T]
    return np.stack(columns, axis=1).ravel() / n0


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("esn0_db", [-10, 0, 10, 20])
def test_llrs_are_the_max_log_formula_and_agree_in_sign_with_decisions(modulation, esn0_db):
    known, n0 = CONSTELLATIONS[modulation], theory.db_to_ratio(-esn0_db)
    bits = random_bits(1201 * known.bits_per_symbol)
    symbols = noise.awgn(qam.map_symbols(np.packbits(bits), len(bits), modulation), n0, key=1)
    want = brute_force(symbols, n0, known.points)
    got = qam.llr(symbols, n0, modulation)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 / n0)
    np.testing.assert_array_equal(got < 0, np.unpackbits(qam.decide(symbols, modulation), count=len(got)))
    small = qam.llr(symbols, n0, modulation, int8=True)
    np.testing.assert_array_equal(small, np.clip(np.rint(4 * got), -127, 127))


@pytest.mark.parametrize("modulation", [*MODULATIONS[:4], "16qam"])
@pytest.mark.parametrize("esn0_db", [-10, 5, 20])
def test_exact_llrs_are_log_ratios_of_sums(modulation, esn0_db):
    known, n0 = CONSTELLATIONS[modulation], theory.db_to_ratio(-esn0_db)
    bits = random_bits(301 * known.bits_per_symbol)
    symbols = noise.awgn(qam.map_symbols(np.packbits(bits), len(bits), modulation), n0, key=1)
    h = noise.complex_normal(301, key=3)
    for gains in (None, h):
        scale = 1 / n0 if gains is None else np.abs(gains[:, None].astype(np.complex128)) ** 2 / n0
        metric = -(np.abs(symbols[:, None].astype(np.complex128) - known.points) ** 2) * scale
        ones = np.arange(len(known.points)) >> np.arange(known.bits_per_symbol - 1, -1, -1)[:, None] & 1
        want = [logsumexp(metric[:, one == 0], 1) - logsumexp(metric[:, one == 1], 1) for one in ones]
        got = qam.llr(symbols, n0, modulation, gains, exact=True)
        np.testing.assert_allclose(got, np.stack(want, 1).ravel(), rtol=1e-4, atol=1e-4)
        small = qam.llr(symbols, n0, modulation, gains, int8=True, exact=True)
        np.testing.assert_array_equal(small, np.clip(np.rint(4 * got), -127, 127))


def test_exact_llrs_meet_the_max_log_ones_at_high_snr():
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(500, 1), 4000), 0.001, key=3)
    np.testing.assert_allclose(qam.llr(symbols, 0.001, exact=True), qam.llr(symbols, 0.001), rtol=1e-3, atol=0.7)


@pytest.mark.parametrize("int8", [False, True])
def test_gains_weigh_the_llrs_by_their_power(int8):
    bits, n0 = random_bits(4000), 0.2
    h = noise.complex_normal(1000, key=3)
    y = noise.equalize(noise.fade(qam.map_symbols(np.packbits(bits), 4000), h, n0, key=2), h)
    want = qam.llr(y, n0) * np.repeat(np.abs(h) ** 2, 4)
    got = qam.llr(y, n0, gains=h, int8=int8)
    np.testing.assert_allclose(
        got, np.clip(np.rint(4 * want), -127, 127) if int8 else want, rtol=1e-5, atol=1.01 * int8
    )


# Points of one's own

RING = [[math.cos(a), math.sin(a)] for a in (0.1, 1.9, 3.3, 5.0)]  # neither square nor evenly spaced, nor Gray
CROSS = [[0, 0], [1.2, 0], [0, 1.2], [-1.2, 0], [0, -1.2], [0.8, 0.8], [-0.8, 0.8], [0.8, -0.8]]
POWER = math.sqrt(sum(i * i + q * q for i, q in CROSS) / len(CROSS))
CROSS = [[i / POWER, q / POWER] for i, q in CROSS]


@pytest.mark.parametrize("modulation", ["bpsk", "8psk", RING, CROSS], ids=["bpsk", "8psk", "ring", "cross"])
@pytest.mark.parametrize("rayleigh", [False, True], ids=["awgn", "rayleigh"])
def test_error_rates_of_any_points_are_on_the_closed_form(modulation, rayleigh):
    known, count = constellation(modulation), 1 << 20
    bits = random_bits(count * known.bits_per_symbol)
    sent = qam.map_symbols(np.packbits(bits), len(bits), modulation)
    for esn0_db in (0, 8):
        n0 = theory.db_to_ratio(-esn0_db)
        if rayleigh:
            h = noise.complex_normal(count, key=4, frame=esn0_db, offset=0, stream=noise.FADES)
            received = noise.equalize(noise.fade(sent, h, n0, 5, esn0_db), h)
        else:
            received = noise.awgn(sent, n0, 5, esn0_db)
        got = np.unpackbits(qam.decide(received, modulation), count=len(bits))
        wrong = (got != bits).reshape(count, -1).sum(1)
        spread = 4 * wrong.std() / count**0.5 / known.bits_per_symbol
        assert wrong.mean() / known.bits_per_symbol == pytest.approx(
            theory.bit_error_rate(esn0_db, modulation, rayleigh), abs=spread
        )
        ser = theory.symbol_error_rate(esn0_db, modulation, rayleigh)
        assert (wrong > 0).mean() == pytest.approx(ser, abs=4 * math.sqrt(ser / count))


@pytest.mark.parametrize("esn0_db", [-5, 5, 15, 25])
def test_phase_shift_keying_has_craigs_error_rate(esn0_db):
    """Ps = 1/pi integral from 0 to pi - pi/8 of exp(-Es/N0 sin^2(pi/8) / sin^2 t) dt, by another quadrature."""
    from scipy.integrate import quad

    es = theory.db_to_ratio(esn0_db) * math.sin(math.pi / 8) ** 2
    want = quad(lambda t: math.exp(-es / math.sin(t) ** 2), 0, math.pi * 7 / 8, epsabs=0, epsrel=1e-11)[0] / math.pi
    assert theory.symbol_error_rate(esn0_db, "8psk") == pytest.approx(want, rel=1e-8)
    antipodal = 0.5 * math.erfc(math.sqrt(theory.db_to_ratio(esn0_db)))
    assert theory.bit_error_rate(esn0_db, "bpsk") == pytest.approx(antipodal, rel=1e-9)


@pytest.mark.parametrize("modulation", ["qpsk", "16qam", "64qam"])
@pytest.mark.parametrize("esn0_db", [-120, -60, 0, 12, 24])
def test_regions_and_axes_tell_the_same(modulation, esn0_db):
    known, n0 = constellation(modulation), theory.db_to_ratio(-esn0_db)
    points = [[p.real, p.imag] for p in known.points]  # without its axis it is any set of points
    for rayleigh in (False, True):
        want = theory.bit_error_rate(esn0_db, modulation, rayleigh)
        found = theory.bit_error_rate(esn0_db, points, rayleigh)
        assert found == pytest.approx(want, rel=1e-8 if esn0_db >= 0 else 1e-5)
    assert theory.decision_error(n0, points) == pytest.approx(theory.decision_error(n0, modulation), rel=1e-8)


def on_circle(*degrees):
    return [[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees]


@pytest.mark.parametrize(
    ("points", "gray"),
    [
        (on_circle(0, 50, 180, 225), False),  # the nearest two, 10 and 11, differ in one bit, 01 and 10 in two
        (on_circle(0, 50, 225, 180), True),
        (CROSS, False),
        ([[1, 0], [-1, 0]], True),
        ([[a / math.sqrt(5), 0] for a in (-3, -1, 3, 1)], True),
        ([[a / math.sqrt(5), 0] for a in (-3, -1, 1, 3)], False),
    ],
)
def test_points_that_are_not_evenly_spaced_are_gray_if_all_neighbours_are(points, gray):
    assert constellation(points).gray is gray


def test_labels_that_are_not_gray_are_known():
    assert not constellation([[1, 0], [0, 1], [-1, 0], [0, -1]]).gray
    assert constellation([[1, 0], [0, 1], [0, -1], [-1, 0]]).gray


# Round trips and packets


@given(
    bits=st.binary(max_size=60),
    drop=st.integers(0, 7),
    modulation=st.sampled_from(MODULATIONS),
    output=st.sampled_from(["hard", "llr", "llr8"]),
)
def test_any_bits_come_back(bits, drop, modulation, output):
    sent = np.unpackbits(np.frombuffer(bits, np.uint8))[drop:]
    symbols = run_block(qam.QamMapper({"modulation": modulation}), {"bits": [packed(sent)]})["symbols"]
    assert symbols[0].count == -(-len(sent) // CONSTELLATIONS[modulation].bits_per_symbol)
    made = run_block(qam.QamDemapper({"modulation": modulation, "output": output}), {"symbols": symbols})["bits"]
    assert made[-1].last
    if output == "hard":
        assert_same_stream(made, [packed(sent, tags=made[0].tags)])
    else:
        np.testing.assert_array_equal(np.concatenate([p.data for p in made]) < 0, sent)


ANY = st.one_of(st.floats(width=32), st.floats(-2, 2, width=32))


@example([(3e38, -3e38)], None, math.inf, "16qam", "max-log", False)
@given(
    parts=st.lists(st.tuples(ANY, ANY), min_size=1, max_size=20),
    gains=st.none() | st.tuples(ANY, ANY),
    n0=st.floats(0, math.inf),
    modulation=st.sampled_from(MODULATIONS),
    method=st.sampled_from(["max-log", "exact"]),
    int8=st.booleans(),
)
def test_llrs_of_anything_are_finite_and_of_the_decisions_sign(parts, gains, n0, modulation, method, int8):
    """Those of exact ones may be others where noise is strong: many points weigh more than the nearest."""
    y = np.array([complex(i, q) for i, q in parts], np.complex64)
    h = None if gains is None else np.full(len(y), complex(*gains), np.complex64)
    llrs = qam.llr(y, n0, modulation, h, int8, method == "exact")
    assert np.isfinite(llrs).all()
    decided = np.unpackbits(qam.decide(y, modulation), count=len(llrs)).astype(bool)
    margin = np.abs(qam.llr(y, 1, modulation))  # how much farther the next point with the other bit is, squared
    size = np.repeat(np.nan_to_num(np.abs(y), nan=0.0, posinf=0.0), len(llrs) // len(y))
    clear = (margin > 1e-5 * (1 + size)) & (llrs != 0)
    if method == "max-log":
        np.testing.assert_array_equal(llrs[clear] < 0, decided[clear])
    assert not llrs[~np.isfinite(np.repeat(y, len(llrs) // len(y)))].any()


@pytest.mark.parametrize("count", [0, 1, 3, 13, 4000])
@pytest.mark.parametrize("modulation", MODULATIONS)
def test_mapper_packets_do_not_matter(modulation, count):
    made = check_packet_invariance(
        qam.QamMapper, {"modulation": modulation}, {"bits": [packed(random_bits(count)), packed(random_bits(77), 1)]}
    )["symbols"]
    per_symbol = CONSTELLATIONS[modulation].bits_per_symbol
    assert made[0].count == -(-count // per_symbol)
    assert made[0].tag("pad", 0) == -count % per_symbol
    assert made[0].tag("bits_per_symbol") == per_symbol


@pytest.mark.parametrize("output", ["hard", "llr", "llr8"])
@pytest.mark.parametrize("noise_from", ["estimate", "known", 0.3])
def test_demapper_packets_do_not_matter(output, noise_from):
    bits = [random_bits(count, count) for count in (1, 3, 13, 4 * 700 + 1)]
    frames = [packed(b, n) for n, b in enumerate(bits)]
    symbols = run_block(qam.QamMapper(), {"bits": frames})["symbols"]
    channel = {"n0": 0.1}
    faded = [
        Packet(noise.awgn(p.data, 0.1, 1, p.frame), p.frame, tags=(*p.tags, Tag(0, "true_channel", channel)), last=True)
        for p in symbols
    ]
    made = check_packet_invariance(qam.QamDemapper, {"output": output, "noise": noise_from}, {"symbols": faded})["bits"]
    assert [p.count for p in made] == [len(b) for b in bits]
    assert all(tag.key != "pad" for p in made for tag in p.tags)


def test_demapper_of_long_frames_scales_by_the_noise_so_far_whatever_the_packets():
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(25000, 1), 200000), 0.1, key=2)
    frame = [Packet(symbols, last=True)]
    whole, ragged = (
        run_block(qam.QamDemapper({"output": "llr"}), {"symbols": recut(frame, sizes)})["bits"]
        for sizes in ([len(symbols)], [7001, 30000, 64])
    )
    assert_same_stream(ragged, whole)
    np.testing.assert_allclose(whole[0].data, qam.llr(symbols, 0.1), rtol=0.05)


def test_gains_reach_the_demapper_by_frames():
    bits = [packed(random_bits(4000 + n, n), n) for n in range(3)]
    sent = run_block(qam.QamMapper(), {"bits": bits})["symbols"]
    gains = [Packet(noise.complex_normal(p.count, 5, p.frame), p.frame, last=True) for p in sent]
    received = [
        Packet(noise.equalize(noise.fade(p.data, g.data, 1e-4, 6, p.frame), g.data), p.frame, tags=p.tags, last=True)
        for p, g in zip(sent, gains, strict=True)
    ]
    made = check_packet_invariance(qam.QamDemapper, {"output": "llr"}, {"symbols": received, "gains": gains})["bits"]
    assert [p.count for p in made] == [4000, 4001, 4002]
    estimate = made[1].tag("estimate")
    assert estimate["esn0_db"] == pytest.approx(40, abs=0.5)
    assert estimate["ber"] == pytest.approx(theory.bit_error_rate(40, rayleigh=True), rel=1.0)


# Bad symbols


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, complex(0.3, np.nan), complex(-np.inf, -0.9)])
@pytest.mark.parametrize("modulation", ["16qam", "64qam"])
@pytest.mark.parametrize("place", [0, 5, 16])
def test_a_symbol_that_is_not_finite_gives_zeros_and_leaves_the_others_alone(bad, modulation, place):
    bits = CONSTELLATIONS[modulation].bits_per_symbol
    sent = np.ones(17 * bits, np.uint8)
    symbols = qam.map_symbols(np.packbits(sent), len(sent), modulation)
    symbols[place] = bad
    want = sent.copy()
    want[place * bits : (place + 1) * bits] = 0
    np.testing.assert_array_equal(np.unpackbits(qam.decide(symbols, modulation), count=len(sent)), want)
    for int8 in (False, True):
        llrs = qam.llr(symbols, 0.1, modulation, int8=int8)
        np.testing.assert_array_equal(llrs < 0, want)
        assert not llrs[want == 0].any()


def test_bad_symbols_are_told_once_and_do_not_spoil_the_estimate():
    told = []
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(4000, 1), 32000), 0.1, key=3)
    symbols[::100] = np.nan
    block = qam.QamDemapper({}, "demap", Context(warn=told.append))
    made = run_block(block, {"symbols": recut([Packet(symbols, last=True)], [1000])})["bits"]
    assert told == ["symbols that are NaN or infinite came in; their bits are 0 (LLRs 0)"]
    assert made[-1].tag("estimate")["n0"] == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("modulation", CONSTELLATIONS)
def test_decisions_and_signs_of_llrs_are_right_for_huge_symbols_and_gains(modulation):
    """Far out in direction u, of two points that is nearer of which Re(x u*) is larger."""
    known = constellation(modulation)
    bits, points = known.bits_per_symbol, known.points.astype(np.complex64).astype(complex)
    u = np.exp(1j * np.linspace(0.05, 6.2, 23))
    reach = (points * u[:, None].conj()).real
    labels = np.arange(1 << bits)[:, None] >> np.arange(bits - 1, -1, -1) & 1
    best = [[np.where(labels[:, bit] == value, reach, -9).max(1) for bit in range(bits)] for value in (0, 1)]
    want = (best[1] > np.array(best[0])).T.ravel()
    for size in (1e9, 1e30, 3e38):
        y = (size * u).astype(np.complex64)
        np.testing.assert_array_equal(np.unpackbits(qam.decide(y, modulation), count=want.size), want)
        for gain, n0 in ((None, 0.1), (1, 1e-38), (1e19j, 1e-38), (1e19, 1.0)):
            h = None if gain is None else np.full(u.size, gain, np.complex64)
            for int8, exact in ((False, False), (False, True), (True, False), (True, True)):
                llrs = qam.llr(y, n0, modulation, h, int8, exact)
                assert np.isfinite(llrs).all()
                assert llrs.all()
                np.testing.assert_array_equal(llrs < 0, want)


def test_known_noise_without_a_simulated_channel_is_refused():
    block = qam.QamDemapper({"output": "llr", "noise": "known"})
    with pytest.raises(BlockError, match="carry no tag true_channel: set noise: estimate, or a number"):
        run_block(block, {"symbols": [Packet(np.ones(4, np.complex64), last=True)]})


@pytest.mark.parametrize("method", ["max-log", "exact"])
@pytest.mark.parametrize("output", ["hard", "llr", "llr8"])
def test_a_gain_of_zero_tells_nothing_and_symbols_without_energy_are_decided_as_any(output, method):
    """What is received as 0 lies next to the inner points: 00 for the signs, as for any 0, and 00 for the sizes."""
    params = {"output": output, "method": method, "noise": 0.5}
    silent = Packet(np.zeros(50, np.complex64), last=True)
    (alone,) = run_block(qam.QamDemapper(params), {"symbols": [silent]})["bits"]
    (faded,) = run_block(qam.QamDemapper(params), {"symbols": [silent], "gains": [silent]})["bits"]
    if output == "hard":
        assert not alone.data.any()
        assert not faded.data.any()
    else:
        assert not faded.data.any()
        np.testing.assert_array_equal(np.sign(alone.data.reshape(50, 4)), [[0, 0, 1, 1]] * 50)
    gains = np.array([0, 1, 0, 2j], np.complex64)
    received = noise.equalize(gains * qam.map_symbols(np.array([0x1B, 0xF0], np.uint8), 16), gains)
    streams = {"symbols": [Packet(received, last=True)], "gains": [Packet(gains, last=True)]}
    (made,) = run_block(qam.QamDemapper({**params, "noise": "estimate"}), streams)["bits"]
    bits = np.unpackbits(made.data) if output == "hard" else (made.data < 0).astype(np.uint8)
    np.testing.assert_array_equal(bits.reshape(4, 4)[1::2], [[1, 0, 1, 1], [0, 0, 0, 0]])
    assert made.tag("estimate")["n0"] < 1e-3


def test_gains_that_did_not_arrive_are_0():
    symbols = Packet(qam.map_symbols(np.array([0x1B], np.uint8), 8), last=True)
    gains = Packet(np.full(1, 2, np.complex64), last=True)
    made = run_block(qam.QamDemapper({"output": "llr", "noise": 1.0}), {"symbols": [symbols], "gains": [gains]})["bits"]
    np.testing.assert_allclose(made[0].data, [*qam.llr(symbols.data[:1], 0.25), 0, 0, 0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"modulation": "17qam"}, "must be bpsk, qpsk, 8psk, 16qam, 64qam, 256qam or a list of points"),
        ({"modulation": [[1, 0], [-1, 0], [0, 1]]}, "must have 2, 4, 8, ... 256 points, not 3"),
        ({"modulation": [[2, 0], [-2, 0]]}, "must have unit mean power, not 4: divide the points by 2"),
        ({"modulation": [[1, 0], [1, 0]]}, "must have points that are finite and differ"),
        ({"modulation": [[1], [-1]]}, r"must be a list of points \[I, Q\], two numbers each"),
        ({"noise": 0}, "more than 0"),
        ({"noise": "guess"}, "'estimate' or 'known'"),
        ({"output": "soft"}, "'hard', 'llr' or 'llr8'"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        qam.QamDemapper(params)


# The receiver's own estimate


@pytest.mark.parametrize("modulation", MODULATIONS)
def test_what_decisions_show_of_noise_is_its_closed_form(modulation):
    known = CONSTELLATIONS[modulation]
    bits = known.bits_per_symbol
    for esn0_db in (-5, 5, 15, 25):
        n0 = theory.db_to_ratio(-esn0_db)
        symbols = qam.map_symbols(noise.random_bytes(bits << 15, 1), bits << 18, modulation)
        received = noise.awgn(symbols, n0, key=2)
        label = np.unpackbits(qam.decide(received, modulation)).reshape(-1, bits) @ (1 << np.arange(bits - 1, -1, -1))
        errors = np.abs(received - known.points[label]) ** 2
        assert errors.mean() == pytest.approx(
            theory.decision_error(n0, modulation), abs=5 * errors.std() / len(errors) ** 0.5
        )


@pytest.mark.parametrize("ebn0_db", range(0, 17, 2))
def test_the_noise_estimate_has_no_bias(ebn0_db):
    n0 = theory.db_to_ratio(-ebn0_db) / 4
    estimator = qam.NoiseEstimator(CONSTELLATIONS["16qam"])
    found = {"awgn": [], "faded": []}
    for frame in range(24):
        symbols = qam.map_symbols(noise.random_bytes(8192, 1, frame), 1 << 16)
        estimator.reset()
        estimator.add(noise.awgn(symbols, n0, 2, frame), 0)
        found["awgn"].append(estimator.n0)
        h = noise.complex_normal(len(symbols), 2, frame, stream=noise.FADES)
        estimator.reset()
        estimator.weigh(noise.equalize(noise.fade(symbols, h, n0, 2, frame), h), h)
        found["faded"].append(estimator.n0)
    for values in found.values():
        error = np.mean(values) / n0 - 1
        assert abs(error) < 4 * np.std(values) / n0 / math.sqrt(len(values)) + 0.002
        assert np.std(values) / n0 < 0.05


@pytest.mark.parametrize("modulation", MODULATIONS)
@pytest.mark.parametrize("ebn0_db", [0, 5, 10, 20])
def test_the_noise_estimate_is_within_2_db_of_its_cramer_rao_bound(modulation, ebn0_db):
    """No unbiased estimate of ln N0 by M symbols that are not known varies less than 1 / M I.

    I is the mean square of d ln p(y) / d ln N0 = E[|y - x|^2 | y] / N0 - 1 (S. M. Kay, "Fundamentals of Statistical
    Signal Processing: Estimation Theory", 1993, chapter 3).
    """
    known, bits, frames, symbols = CONSTELLATIONS[modulation], CONSTELLATIONS[modulation].bits_per_symbol, 400, 2048
    n0 = theory.db_to_ratio(-ebn0_db) / bits
    estimator, found = qam.NoiseEstimator(known), []
    for frame in range(frames):
        sent = qam.map_symbols(noise.random_bytes(symbols * bits // 8, 1, frame), symbols * bits, modulation)
        estimator.reset()
        estimator.add(noise.awgn(sent, n0, 2, frame), 0)
        found.append(math.log(estimator.n0))
    distance = np.abs(noise.awgn(np.tile(sent, 10), n0, 3)[:, None] - known.points) ** 2 / n0
    likely = np.exp(distance.min(1, keepdims=True) - distance)
    information = np.mean(((likely * distance).sum(1) / likely.sum(1) - 1) ** 2)
    excess = np.var(found) * symbols * information
    assert 0.7 < excess < 10**0.2


@pytest.mark.parametrize(("modulation", "ebn0_db"), [("8psk", 0), ("16qam", 0), ("16qam", 20)])
def test_under_fading_the_noise_estimate_is_within_2_db_of_its_bound_too(modulation, ebn0_db):
    """As above, with N0 / |h|^2 for each symbol, h known."""
    known, bits, frames, symbols = CONSTELLATIONS[modulation], CONSTELLATIONS[modulation].bits_per_symbol, 250, 2048
    n0 = theory.db_to_ratio(-ebn0_db) / bits
    estimator, found, information = qam.NoiseEstimator(known), [], []
    for frame in range(frames):
        sent = qam.map_symbols(noise.random_bytes(symbols * bits // 8, 1, frame), symbols * bits, modulation)
        h = noise.complex_normal(symbols, 2, frame, stream=noise.FADES)
        y = noise.equalize(noise.fade(sent, h, n0, 2, frame), h)
        estimator.reset()
        estimator.weigh(y, h)
        found.append(math.log(estimator.n0))
        if frame < 10:
            distance = np.abs(y[:, None] - known.points) ** 2 * np.abs(h[:, None].astype(complex)) ** 2 / n0
            likely = np.exp(distance.min(1, keepdims=True) - distance)
            information.append(np.mean(((likely * distance).sum(1) / likely.sum(1) - 1) ** 2))
    excess = np.var(found) * symbols * np.mean(information)
    assert 0.7 < excess < 10**0.2


def test_the_estimate_of_a_frame_tells_snr_and_error_rate():
    symbols = noise.awgn(qam.map_symbols(noise.random_bytes(1 << 15, 1), 1 << 18), theory.db_to_ratio(-14), key=2)
    made = run_block(qam.QamDemapper(), {"symbols": [Packet(symbols, last=True)]})["bits"]
    tag = made[0].tags[-1]
    assert (tag.offset, tag.key) == (1 << 18, "estimate")
    assert tag.value["source"] == "decision-directed"
    assert tag.value["esn0_db"] == pytest.approx(14, abs=0.1)
    assert tag.value["n0"] == pytest.approx(theory.db_to_ratio(-14), rel=0.02)
    assert tag.value["ber"] == pytest.approx(theory.bit_error_rate(14), rel=0.05)
