"""Estimated gains and noise against their Cramer-Rao bounds, error rates by them against the closed form, and frames
that come in part, empty, or spoilt."""

import functools

import numpy as np
import pytest
from scipy.special import j0

from blocks.phy import noise, qam, theory
from blocks.phy.channel import Equalizer, RayleighChannel
from blocks.phy.estimator import STRETCH, ChannelEstimator, PilotNoise, fading_basis, gains_at_pilots, linear, wiener
from blocks.phy.pilots import Pattern, PilotInserter
from blocks.phy.qam import QamDemapper
from flowgraph import Flowgraph
from flowgraph.block import Context, Packet
from flowgraph.testing import check_packet_invariance, recut, run_block, whole_frames

LINEAR = {"interpolation": "linear"}
WIENER = {"interpolation": "wiener", "doppler": "1 kHz", "symbol_rate": "1 MHz"}
TWO_DB = 10**0.2


def data(count, frame=0, modulation="16qam"):
    bits = {"bpsk": 1, "qpsk": 2, "16qam": 4}[modulation]
    return qam.map_symbols(noise.random_bytes(bits * count // 8 + 1, 77, frame), bits * count, modulation)


def received(pattern, symbols, gains, n0, frame=0):
    """A frame's symbols with their pilots, times the gains of all of them, with noise."""
    sent = pattern.insert(symbols)
    return noise.fade(sent, np.broadcast_to(np.asarray(gains, np.complex64), sent.shape).copy(), n0, 9, frame)


@functools.lru_cache(200)
def fading(pattern, count, doppler, frame):
    return noise.doppler_gains(len(pattern.insert(np.zeros(count, np.complex64))), doppler, 5, frame)


def estimate(packets, params, **context):
    made = run_block(ChannelEstimator(params, "estimate", Context(**context)), {"symbols": packets})
    return whole_frames(made["symbols"]), whole_frames(made["gains"])


# Gains


@pytest.mark.parametrize("length", [1, 4, 16])
def test_least_squares_gains_of_a_channel_that_stays_are_unbiased_and_on_the_bound(length):
    """Variance N0 / M of the mean of M pilots (Kay, example 3.3): the bound. 99.9 % interval of the chi-square."""
    pattern, n0, count, h = Pattern(1, length), 0.3, 4000, 0.6 - 0.8j
    y = received(pattern, data(count), h, n0)
    _, gains = gains_at_pilots(y, pattern, count)
    error = gains - h
    assert np.abs(error.mean()) < 3.3 * (n0 / length / count) ** 0.5
    assert np.mean(np.abs(error) ** 2) / (n0 / length) == pytest.approx(1, abs=3.3 / count**0.5)


@pytest.mark.parametrize("length", [1, 4])
@pytest.mark.parametrize("params", [LINEAR, {"interpolation": "wiener", "doppler": 0}])
def test_gains_between_pilots_come_within_2_db_of_the_bound_of_the_pilots_that_they_are_made_of(params, length):
    """At rest: N0 / (2 length) is the bound for a straight line's two groups, N0 / (16 length) that for Wiener's."""
    pattern, n0, count = Pattern(16, length), 0.1, 16 * 800
    errors = []
    for frame in range(20):
        h = noise.complex_normal(1, 3, frame)[0]
        symbols = Packet(received(pattern, data(count), h, n0, frame), frame, last=True)
        _, gains = estimate([symbols], {"spacing": 16, "length": length, **params})
        errors.append(np.mean(np.abs(gains[0].data - h) ** 2))
    bound = n0 / length / (2 if params is LINEAR else STRETCH)
    assert np.mean(errors) < TWO_DB * bound
    assert np.mean(errors) > 0.9 * bound


@pytest.mark.parametrize(("doppler", "n0_db"), [(0.0002, -12), (0.001, -3), (0.001, -24), (0.01, -15)])
def test_wiener_gains_are_on_the_bayesian_bound_for_clarkes_fading(doppler, n0_db):
    """1 - r* (R + N0 I)^-1 r: no estimate by the 16 pilots around errs less (Kay, chapter 12)."""
    spacing, n0 = 15, 10 ** (n0_db / 10)
    pattern, count, frames = Pattern(spacing), 15 * 60, 150
    pilots = 16.0 * np.arange(16)
    places = 16.0 * 7 + 1 + np.arange(spacing)
    correlation = j0(2 * np.pi * doppler * np.subtract.outer(pilots, pilots))
    r = j0(2 * np.pi * doppler * np.subtract.outer(pilots, places))
    bound = np.mean(1 - (r * np.linalg.solve(correlation + n0 * np.eye(16), r)).sum(0))
    params = {"spacing": spacing, "interpolation": "wiener", "doppler": doppler, "symbol_rate": 1}
    found, told = [], []
    for frame in range(frames):
        h = fading(pattern, count, doppler, frame)
        symbols = Packet(received(pattern, data(count), h, n0, frame), frame, last=True)
        made, gains = estimate([symbols], params)
        error = np.abs(gains[0].data - pattern.data(h, count)) ** 2
        found.append(error[8 * spacing : -8 * spacing].mean())
        told.append(made[0].tag("estimate")["gain_error"])
    spread = 4 * np.std(found) / frames**0.5
    assert bound - spread < np.mean(found) < bound * 10**0.03 + spread
    assert np.mean(found) < TWO_DB * bound
    assert np.mean(told) == pytest.approx(bound, rel=0.1)


def test_gains_without_noise_or_of_a_shift_that_cannot_be():
    """Weights of a channel that stays, without noise, are a mean; a shift is 0 to 1/2."""
    weights = wiener(Pattern(4, 1), 2, 0.0, -300.0).weights
    np.testing.assert_allclose(weights, 0.5, rtol=1e-6)
    for call in (fading_basis, lambda *a: wiener(*a, -10.0)):
        for doppler in (-0.1, 0.51, np.nan, np.inf):
            with pytest.raises(ValueError, match="doppler must be 0 to 1/2 period a symbol"):
                call(Pattern(4, 1), 16, doppler)


def test_the_edges_of_a_frame_are_estimated_by_the_pilots_there():
    """The error of the first and the last data is that which the weights promise, be the last period whole or not."""
    doppler, n0, frames, errors = 0.004, 10**-1.5, 300, {}
    for count in (20 * 8, 20 * 8 + 3):
        pattern = Pattern(8)
        params = {"spacing": 8, "interpolation": "wiener", "doppler": doppler, "symbol_rate": 1}
        total = np.zeros(count)
        for frame in range(frames):
            h = fading(pattern, count, doppler, frame)
            _, gains = estimate([Packet(received(pattern, data(count), h, n0, frame), frame, last=True)], params)
            total += np.abs(gains[0].data - pattern.data(h, count)) ** 2 / frames
        errors[count] = total
        pilots = np.r_[np.arange(-(-count // 8)) * 9.0, count + -(-count // 8)]
        places = np.array([pattern.place(i) + (i % 8 == 0) for i in range(count)], float)
        for which, window in ((np.arange(8), pilots[:16]), (np.arange(count - 5, count), pilots[-16:])):
            among = j0(2 * np.pi * doppler * np.subtract.outer(window, window)) + n0 * np.eye(16)
            r = j0(2 * np.pi * doppler * np.subtract.outer(window, places[which]))
            bound = 1 - (r * np.linalg.solve(among, r)).sum(0)
            np.testing.assert_allclose(total[which], bound, rtol=5 / frames**0.5)


# Noise


@pytest.mark.parametrize(("length", "groups"), [(1, 64), (1, 39), (2, 64), (4, 20)])
@pytest.mark.parametrize("fades", [0, 100, 25])
def test_the_noise_estimate_is_unbiased_under_fading_and_within_2_db_of_its_bound(length, groups, fades):
    """Var >= N0^2 / M for M pilots (Kay, example 3.6, in N0 = 2 sigma^2 and 2 M parts); `fades`: groups a period."""
    pattern, n0, frames, found = Pattern(1, length), 10**-2.5, 3000, []
    doppler = 1 / (fades * pattern.period) if fades else 0.0
    symbols = np.zeros(groups - 1, np.complex64)
    for frame in range(frames):
        h = fading(pattern, groups - 1, doppler, frame % 100) if fades else 1
        y = received(pattern, symbols, h, n0, frame)
        known = PilotNoise(pattern, doppler)
        known.add(gains_at_pilots(y, pattern, groups)[0])
        found.append(known.n0)
    deviation = np.std(found)
    assert np.mean(found) == pytest.approx(n0, abs=4 * deviation / frames**0.5)
    ratio = deviation**2 / (n0**2 / (groups * length))
    least = 1 - 3.3 * (2 / frames) ** 0.5
    assert least < ratio < TWO_DB


@pytest.mark.parametrize("params", [LINEAR, WIENER])
@pytest.mark.parametrize("esn0_db", [-5, 10, 30])
def test_frames_tell_their_noise(params, esn0_db):
    pattern, n0 = Pattern(16), theory.db_to_ratio(-esn0_db)
    count = 16 * 4000
    h = fading(pattern, count, 0.001, 3)
    made, gains = estimate([Packet(received(pattern, data(count), h, n0), last=True)], {"spacing": 16, **params})
    for packet in (made[0], gains[0]):
        tag = next(tag for tag in packet.tags if tag.key == "estimate")
        assert tag.offset == count
        told = tag.value
        assert told["n0"] == pytest.approx(n0, rel=4 * TWO_DB**0.5 / 4000**0.5)
        assert told["esn0_db"] == pytest.approx(esn0_db, abs=0.4)
        error = np.mean(np.abs(gains[0].data - pattern.data(h, count)) ** 2)
        assert told["gain_error"] == pytest.approx(error, rel=0.15)
        assert told["effective_n0"] == told["n0"] + told["gain_error"]
        assert told["source"] == "pilots"


@pytest.mark.parametrize(("count", "length", "params"), [(0, 1, LINEAR), (5, 1, LINEAR), (8, 1, WIENER)])
def test_too_few_pilots_tell_no_noise(count, length, params):
    pattern = Pattern(8, length)
    made, gains = estimate(
        [Packet(received(pattern, data(count), 2j, 0), last=True)], {"spacing": 8, "length": length, **params}
    )
    assert made[0].tag("estimate") is None
    np.testing.assert_allclose(gains[0].data, np.full(count, 2j), rtol=0.01)


# Packets and frames


@pytest.mark.parametrize("params", [LINEAR, WIENER])
@pytest.mark.parametrize(("spacing", "length"), [(4, 1), (5, 3), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 60, 64, 191, 401])
def test_packets_do_not_matter_to_the_estimator(params, spacing, length, count):
    pattern = Pattern(spacing, length)
    frames = []
    for frame, size in enumerate((count, 77)):
        h = fading(pattern, size, 0.001, frame)
        frames.append(Packet(received(pattern, data(size, frame), h, 0.01, frame), frame, last=True))
    made = check_packet_invariance(
        ChannelEstimator, {"spacing": spacing, "length": length, **params}, {"symbols": frames}
    )
    for name in ("symbols", "gains"):
        assert [packet.count for packet in whole_frames(made[name])] == [count, 77]
    y = pattern.data(frames[0].data, count)
    np.testing.assert_array_equal(whole_frames(made["symbols"])[0].data, y)


def test_what_waits_is_at_most_two_stretches():
    block = ChannelEstimator({"spacing": 8})
    pattern = Pattern(8)
    pieces = recut([Packet(received(pattern, data(20_000), 1, 0.1), last=True)], [1000, 100])
    block.start()
    for packet in pieces[:-1]:
        list(block.work(packet))
        assert block.rest.count < 2 * STRETCH * pattern.period
        assert len(block.past) <= STRETCH


@pytest.mark.parametrize("params", [LINEAR, WIENER])
def test_without_noise_gains_are_exact_where_they_stay(params):
    pattern, h = Pattern(10, 2), 0.3 - 0.4j
    for count in (1, 9, 10, 300):
        _, gains = estimate(
            [Packet(received(pattern, data(count), h, 0), last=True)], {"spacing": 10, "length": 2, **params}
        )
        np.testing.assert_allclose(gains[0].data, np.full(count, h), rtol=1e-4 if params is LINEAR else 2e-3)


@pytest.mark.parametrize("length", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 9, 10, 11, 303])
def test_a_gain_that_goes_along_a_straight_line_is_found_exactly(length, count):
    pattern = Pattern(10, length)
    ramp = 1 + (0.01 + 0.02j) * np.arange(len(pattern.insert(data(count))))
    _, gains = estimate([Packet(received(pattern, data(count), ramp, 0), last=True)], {"spacing": 10, "length": length})
    np.testing.assert_allclose(gains[0].data, pattern.data(ramp, count), rtol=1e-5)


@pytest.mark.parametrize("params", [LINEAR, WIENER])
def test_what_is_lost_leaves_the_rest_of_a_frame_as_well_estimated(params):
    pattern, count, n0 = Pattern(10), 2000, 1e-3
    h = fading(pattern, count, 2e-4, 1)
    pieces = recut([Packet(received(pattern, data(count), h, n0), last=True)], [275])
    for lost in ({3}, {0}, {2, 5}, {len(pieces) - 1}):
        came = [packet for number, packet in enumerate(pieces) if number not in lost]
        made = run_block(ChannelEstimator({"spacing": 10, **params}), {"symbols": came})
        true = pattern.data(h, count)
        handed_out = 0
        for symbols, gains in zip(made["symbols"], made["gains"], strict=True):
            assert (symbols.offset, symbols.count) == (gains.offset, gains.count)
            handed_out += symbols.count
            error = np.abs(gains.data - true[gains.offset : gains.end]) ** 2
            assert error.mean() < 20 * n0
        assert count - handed_out <= len(lost) * (275 / 11 * 10 + 20)
        assert made["symbols"][-1].last == (len(pieces) - 1 not in lost)


def test_a_frame_that_another_cuts_short_is_handed_out():
    pattern = Pattern(10)
    first, second = (Packet(received(pattern, data(500, f), 1j, 1e-4, f), f, last=True) for f in range(2))
    made, gains = estimate([recut([first], [200])[0], second], {"spacing": 10})
    assert [(packet.frame, packet.count) for packet in made] == [(0, 181), (1, 500)]
    assert made[0].tag("estimate") is None
    assert made[1].tag("estimate") is not None
    for packet in gains:
        np.testing.assert_allclose(packet.data, np.full(packet.count, 1j), atol=0.05)


# Bad input


@pytest.mark.parametrize("bad", [np.nan, np.inf, complex(0, -np.inf), 1e30])
@pytest.mark.parametrize("params", [LINEAR, WIENER])
def test_a_pilot_that_is_not_finite_is_told_and_the_one_before_stands_in(bad, params):
    pattern, told = Pattern(10), []
    y = received(pattern, data(1000), 1j, 1e-4)
    y[[11 * 3, 11 * 40, 11 * 41]] = bad
    made, gains = estimate([Packet(y, last=True)], {"spacing": 10, **params}, warn=told.append)
    np.testing.assert_allclose(gains[0].data, np.full(1000, 1j), atol=0.05)
    assert told == ["pilots that are NaN or infinite came in; the gains before them stand in"]
    assert made[0].tag("estimate")["n0"] == pytest.approx(1e-4, rel=0.5)


def test_data_that_are_not_finite_pass_and_harm_no_gain():
    pattern = Pattern(10)
    y = received(pattern, data(1000), 1j, 1e-4)
    y[5] = np.nan
    made, gains = estimate([Packet(y, last=True)], {"spacing": 10})
    assert np.flatnonzero(~np.isfinite(made[0].data)).tolist() == [4]
    np.testing.assert_allclose(gains[0].data, np.full(1000, 1j), atol=0.05)


@pytest.mark.parametrize("params", [LINEAR, WIENER])
def test_silence_has_gains_of_0_and_bits_of_no_weight(params):
    silent = Packet(np.zeros(500, np.complex64), last=True)
    made = run_block(ChannelEstimator({"spacing": 8, **params}), {"symbols": [silent]})
    assert not np.concatenate([packet.data for packet in made["gains"]]).any()
    level = run_block(Equalizer({"method": "mmse", "noise": "estimate"}), made)["symbols"]
    assert not level[0].data.any()
    llrs = run_block(QamDemapper({"output": "llr"}), {"symbols": level, "gains": made["gains"]})["bits"]
    assert len(llrs[0].data) == 4 * level[0].count
    assert not llrs[0].data.any()


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_a_frame_shorter_than_its_pilots_has_no_data(size):
    told = []
    made, gains = estimate(
        [Packet(np.ones(size, np.complex64), last=True)], {"spacing": 8, "length": 3}, warn=told.append
    )
    assert [(packet.count, packet.last) for packet in (*made, *gains)] == [(0, True)] * 2
    assert len(told) == (0 < size < 3)


def test_pilots_where_the_receiver_looks_for_none_are_told():
    told = []
    y = received(Pattern(9), data(100), 1, 0)
    estimate([Packet(y, last=True)], {"spacing": 8, "length": 2}, warn=told.append)
    assert told == [
        "frame 0 of 113 symbols does not end with pilots: its end was lost, or spacing and length are not those of "
        "pilot_inserter"
    ]


@pytest.mark.parametrize("ebn0", [-300, 300])
@pytest.mark.parametrize("params", [LINEAR, WIENER])
def test_absurd_snrs_give_finite_gains_and_llrs(ebn0, params):
    sent = run_block(PilotInserter(), {"symbols": [Packet(data(3000), last=True).tagged(bits_per_symbol=4)]})
    channel = RayleighChannel({"ebn0": ebn0, "fading": "doppler", "doppler": 100})
    air = run_block(channel, sent)
    made = run_block(ChannelEstimator(params), {"symbols": air["symbols"]})
    assert np.isfinite(made["gains"][0].data).all()
    level = run_block(Equalizer(), made)["symbols"]
    bits = run_block(QamDemapper({"output": "llr"}), {"symbols": level, "gains": made["gains"]})["bits"][0]
    assert np.isfinite(bits.data).all()
    assert np.isfinite(bits.tag("estimate")["n0"])


# What the equaliser and the demapper make of the estimate


def faded(modulation="16qam", n0=0.05, count=20_000, frame=0, params=WIENER, true_channel=None):
    """Estimated symbols and gains of a frame."""
    pattern = Pattern(16)
    h = fading(pattern, count, 0.001, frame)
    packet = Packet(received(pattern, data(count, frame, modulation), h, n0, frame), frame, last=True)
    if true_channel:
        packet = packet.tagged(true_channel=true_channel)
    return run_block(ChannelEstimator({"spacing": 16, **params}), {"symbols": [packet]})


@pytest.mark.parametrize("method", ["max-log", "exact"])
def test_llrs_go_by_the_estimates_and_never_by_the_true_channel(method):
    made = faded(true_channel={"n0": 1e6, "kind": "rayleigh"})
    level = run_block(Equalizer(), made)["symbols"]
    demapper = QamDemapper({"output": "llr", "method": method})
    got = run_block(demapper, {"symbols": level, "gains": made["gains"]})["bits"][0]
    symbols, gains = whole_frames(level)[0], whole_frames(made["gains"])[0]
    n0 = symbols.tag("estimate")["effective_n0"]
    want = qam.llr(symbols.data, n0, gains=gains.data, exact=method == "exact")
    np.testing.assert_array_equal(got.data, want)
    told = got.tag("estimate")
    assert (told["n0"], told["source"]) == (n0, "pilots")
    assert len([tag for tag in got.tags if tag.key == "estimate"]) == 1
    wrong = (got.data < 0) != np.unpackbits(noise.random_bytes(10_001, 77))[: len(got.data)]
    assert told["ber"] == pytest.approx(wrong.mean(), rel=0.1)


def test_llrs_by_estimated_gains_are_as_sure_as_they_say():
    """Of QPSK bits with an LLR near L, 1 / (1 + exp L) are wrong."""
    wrong, sure = [], []
    for frame in range(40):
        made = faded("qpsk", 0.3, 20_000, frame)
        level = run_block(Equalizer(), made)["symbols"]
        llrs = run_block(
            QamDemapper({"modulation": "qpsk", "output": "llr"}), {"symbols": level, "gains": made["gains"]}
        )["bits"][0].data
        bits = np.unpackbits(noise.random_bytes(5001, 77, frame))[: len(llrs)]
        wrong.append((llrs < 0) != bits)
        sure.append(np.abs(llrs))
    wrong, sure = np.array(wrong), np.array(sure)
    for low in (0, 0.5, 1, 2, 3, 4, 5):
        here = (sure >= low) & (sure < low + 0.5)
        expected = (1 / (1 + np.exp(sure[here]))).mean()
        shares = np.array([w[h].mean() for w, h in zip(wrong, here, strict=True)])
        assert shares.mean() == pytest.approx(expected, abs=4 * shares.std() / len(shares) ** 0.5 + 0.02 * expected)


def test_mmse_equalises_by_the_estimated_noise():
    made = faded()
    level = run_block(Equalizer({"method": "mmse", "noise": "estimate"}), made)["symbols"]
    symbols, gains = whole_frames(made["symbols"])[0], whole_frames(made["gains"])[0]
    want = noise.equalize(symbols.data, gains.data, symbols.tag("estimate")["effective_n0"])
    np.testing.assert_array_equal(level[0].data, want)
    check_packet_invariance(
        Equalizer,
        {"method": "mmse", "noise": "estimate"},
        {name: recut(packets, [5000]) for name, packets in faded(count=500).items()},
    )


def test_an_estimate_that_did_not_come_is_told_and_taken_as_0():
    told = []
    streams = {name: [Packet(np.full(3, 2, np.complex64), last=True)] for name in ("symbols", "gains")}
    block = Equalizer({"method": "mmse", "noise": "estimate"}, "equalize", Context(warn=told.append))
    np.testing.assert_array_equal(run_block(block, streams)["symbols"][0].data, np.ones(3))
    assert told == ["frame 0 came without a channel estimator's noise, which is taken as 0"]


# Error rates


def correlation(interpolation, pattern, doppler, n0):
    """mu of every data symbol in the middle: E[h h'*] / sqrt((1 + N0) E|h'|^2), by the weights and Clarke's J0."""
    groups = interpolation.weights.shape[1]
    middle = max(groups // 2 - 1, 0)
    w = interpolation.weights[middle].astype(float)
    pilots = pattern.period * np.arange(groups)
    places = pattern.period * middle + np.arange(pattern.spacing) + (pattern.length + 1) / 2
    r = j0(2 * np.pi * doppler * np.subtract.outer(pilots, places))
    among = j0(2 * np.pi * doppler * np.subtract.outer(pilots, pilots)) + n0 / pattern.length * np.eye(groups)
    return (w * r).sum(0) / np.sqrt((1 + n0) * (w * (among @ w)).sum(0))


@pytest.mark.parametrize("modulation", ["bpsk", "qpsk"])
@pytest.mark.parametrize(("doppler", "length"), [(0.001, 1), (0.004, 2)])
@pytest.mark.parametrize("params", [LINEAR, WIENER])
@pytest.mark.parametrize("esn0_db", [0, 9, 21])
def test_error_rates_by_estimated_gains_are_on_the_closed_form(params, modulation, doppler, length, esn0_db):
    """99 % for the 24 together, by the spread across frames, which fade independently."""
    pattern, n0, count, frames = Pattern(12, length), theory.db_to_ratio(-esn0_db), 8000, 64
    bits = {"bpsk": 1, "qpsk": 2}[modulation]
    settings = {"spacing": 12, "length": length, **params}
    if params is WIENER:
        settings |= {"doppler": doppler, "symbol_rate": 1}
        between = wiener(pattern, 16, doppler, -esn0_db)
    else:
        between = linear(pattern, 2)
    want = np.mean(
        [theory.estimated_gain_error_rate(mu, modulation) for mu in correlation(between, pattern, doppler, n0)]
    )
    errors = np.zeros(frames)
    for frame in range(frames):
        h = fading(pattern, count, doppler, frame)
        y = received(pattern, data(count, frame, modulation), h, n0, frame)
        made = run_block(ChannelEstimator(settings), {"symbols": [Packet(y, frame, last=True)]})
        level = run_block(Equalizer(), made)["symbols"][0].data
        sent = noise.random_bytes(bits * count // 8 + 1, 77, frame)[: bits * count // 8]
        errors[frame] = np.bitwise_count(sent ^ qam.decide(level, modulation)).sum()
    size = bits * count
    low, high = theory.clustered_interval(
        frames, errors.sum(), frames * size, (errors**2).sum(), size * errors.sum(), frames * size**2, 1 - 0.01 / 24
    )
    assert low < want < high
    known = theory.bit_error_rate(esn0_db, modulation, rayleigh=True)
    assert want > known


def test_the_closed_form_is_that_of_known_gains_where_these_are_known_and_a_guess_where_nothing_is():
    for esn0_db in (-5, 10, 30):
        mu = (1 + theory.db_to_ratio(-esn0_db)) ** -0.5
        for modulation in ("bpsk", "qpsk"):
            known = theory.bit_error_rate(esn0_db, modulation, rayleigh=True)
            assert theory.estimated_gain_error_rate(mu, modulation) == pytest.approx(known, rel=1e-9)
            assert theory.estimated_gain_error_rate(0, modulation) == 0.5


def test_at_high_snr_estimated_gains_are_nearly_as_good_as_known_ones():
    """16QAM, the same fades and noise: at 30 dB within a twelfth of the errors, which is 0.35 dB."""
    pattern, n0, count = Pattern(16), 1e-3, 100_000
    params = {"spacing": 16, "interpolation": "wiener", "doppler": 0.0003, "symbol_rate": 1}
    wrong = {"known": 0, "estimated": 0}
    for frame in range(24):
        h = fading(pattern, count, 0.0003, frame)
        y = received(pattern, data(count, frame), h, n0, frame)
        made = run_block(ChannelEstimator(params), {"symbols": [Packet(y, frame, last=True)]})
        sent = noise.random_bytes(count // 2 + 1, 77, frame)[: count // 2]
        for gains, whose in ((pattern.data(h, count), "known"), (made["gains"][0].data, "estimated")):
            level = noise.equalize(made["symbols"][0].data, gains)
            wrong[whose] += int(np.bitwise_count(sent ^ qam.decide(level)).sum())
    assert wrong["known"] > 2000
    assert 0.98 < wrong["estimated"] / wrong["known"] < 1 + 1 / 12


# The link


LINK = """\
flowgraph: pilots
seed: 3
blocks:
  source: {use: bit_source, bits: 4e6, frame: 2e5}
  link:   {graph: ROOT/configs/links/rayleigh_pilots.yaml, ebn0: 15 dB, doppler: 1 kHz, output: OUTPUT}
  errors: {use: error_meter}
wires:
  - source.bits -> link.bits -> errors.received
  - source.bits -> errors.sent
"""


@pytest.mark.parametrize("output", ["hard", "llr8"])
def test_the_link_comes_close_to_known_gains(output, tmp_path):
    """Known gains lie within the interval, which is across 20 frames."""
    from conftest import ROOT

    config = tmp_path / "graph.yaml"
    config.write_text(LINK.replace("ROOT", str(ROOT)).replace("OUTPUT", output))
    link = Flowgraph.load(config).run(tmp_path / "out").sections["link"]
    assert link["bits"] == 4_000_000
    assert link["ebn0_db"] == pytest.approx(15)
    assert link["esn0_db"] == pytest.approx(15 + 10 * np.log10(4 * 32 / 33))
    low, high = link["ber_interval"]
    assert low < link["ber_theory"] < high
    assert (tmp_path / "out" / "constellation.png").exists()
