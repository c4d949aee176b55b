"""The error meter: right counts, honest intervals, and losses that are counted, not hidden."""

import io
import math

import numpy as np
import pytest
import scipy.stats

from blocks.fec import coders
from blocks.fec.interleaver import Deinterleaver, Interleaver
from blocks.phy import channel, noise, qam, theory
from blocks.sink.errors import ErrorMeter
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.testing import recut, run_block


class Told:
    """What the meter says."""

    def __init__(self):
        self.link, self.frames, self.kept = {}, {}, {}

    def context(self):
        def report(section, frame, values):
            self.link.update(values) if section == "link" else self.frames.setdefault(frame, {}).update(values)

        return Context(report=report, keep=self.kept.__setitem__)


def measure(sent, received):
    told = Told()
    run_block(ErrorMeter(context=told.context()), {"sent": sent, "received": received})
    return told


def bits(values, frame=0, **tags):
    values = np.asarray(values, np.uint8)
    marks = tuple(Tag(0, key, value) for key, value in tags.items())
    return Packet(np.packbits(values), frame, count=len(values), packed=True, tags=marks, last=True)


def over(block, frames, count=1 << 16, **params):
    """Frames of random bits, mapped and sent over a channel: sent and received, bits and symbols."""
    sent = [Packet(noise.random_bytes(count // 8, 1, f), f, packed=True, last=True) for f in range(frames)]
    mapped = run_block(qam.QamMapper(), {"bits": sent})["symbols"]
    made = run_block(block(params, "air", Context(seed=3)), {"symbols": mapped})
    if "gains" in made:
        made = run_block(channel.Equalizer(), made)
    return sent, mapped, made["symbols"], run_block(qam.QamDemapper(), {"symbols": made["symbols"]})["bits"]


def test_errors_are_counted_to_the_bit_in_whatever_form_and_packets():
    a = np.random.default_rng(1).integers(0, 2, 1003)
    wrong = [0, 1, 500, 1002]
    b = a.copy()
    b[wrong] ^= 1
    soft = (1 - 2.0 * b).astype(np.float32)
    forms = [bits(b), Packet(soft, last=True), Packet((100 * soft).astype(np.int8), last=True)]
    for received in forms:
        for size in (1003, 17, 1):
            told = measure([bits(a)], recut([received], [size]))
            assert (told.link["bits"], told.link["bit_errors"]) == (1003, 4)
            assert told.link["ber"] == told.frames[0]["ber"] == 4 / 1003


def test_over_awgn_rate_theory_and_interval_agree():
    sent, _, _, received = over(channel.AwgnChannel, 4, ebn0=6)
    link = measure(sent, received).link
    low, high = link["ber_interval"]
    assert (low, high) == theory.binomial_interval(link["bit_errors"], link["bits"])
    assert low < link["ber"] < high
    assert low < link["ber_theory"] < high
    assert link["ber_theory"] == pytest.approx(theory.bit_error_rate(6 + theory.ratio_to_db(4)))
    assert (link["ebn0_db"], round(link["esn0_db"], 4)) == (6, 12.0206)


@pytest.mark.parametrize("block_symbols", [None, 64, 100])
def test_under_fading_the_interval_comes_from_the_spread_across_fades(block_symbols):
    params = {"ebn0": 10} | ({"fading": "block", "block_symbols": block_symbols} if block_symbols else {})
    sent, _, _, received = over(channel.RayleighChannel, 8, **params)
    link = measure(sent, received).link
    low, high = link["ber_interval"]
    assert low < link["ber_theory"] < high
    naive = theory.binomial_interval(link["bit_errors"], link["bits"])
    wider = (high - low) / (naive[1] - naive[0])
    assert wider == pytest.approx(1.1, abs=0.15) if block_symbols is None else wider > 3


@pytest.mark.parametrize(
    ("block", "params"),
    [
        (channel.AwgnChannel, {"ebn0": 9}),
        (channel.RayleighChannel, {"ebn0": 20}),
        (channel.RicianChannel, {"ebn0": 13, "k_factor": 6}),
    ],
)
def test_as_many_frames_are_wrong_as_the_closed_form_has(block, params):
    """Of 1,000 frames: within 4 standard deviations."""
    sent, _, _, received = over(block, 1000, 128, **params)
    link = measure(sent, received).link
    expected = link["bit_frames_wrong_theory"]
    assert 100 < expected < 500
    assert link["bit_frames_wrong"] == pytest.approx(expected, abs=4 * (expected * (1 - expected / 1000)) ** 0.5)
    lost = measure(sent, [*received[:-1], Packet(np.empty(0, np.uint8), 999, packed=True, last=True)]).link
    assert lost["bit_frames_wrong_theory"] == pytest.approx(expected * 0.999 + 1)


@pytest.mark.parametrize("ebn0", [-300, 8, 300])
def test_frames_of_flipped_bits_are_as_often_wrong_as_any_of_them(ebn0):
    sent = [Packet(noise.random_bytes(2, 1, f), f, packed=True, last=True) for f in range(1000)]
    made = run_block(channel.BitFlipChannel({"ebn0": ebn0}, "air", Context(seed=3)), {"bits": sent})["bits"]
    link = measure(sent, made).link
    expected = 1000 * (1 - (1 - theory.bit_error_rate(ebn0 + theory.ratio_to_db(4))) ** 16)
    assert link["bit_frames_wrong_theory"] == pytest.approx(expected)
    assert link["bit_frames_wrong"] == pytest.approx(expected, abs=4 * (expected * (1 - expected / 1000)) ** 0.5)


@pytest.mark.parametrize("params", [{"fading": "block", "block_symbols": 8}, {"fading": "doppler", "doppler": 1000}])
def test_where_fades_last_no_closed_form_is_told_of_frames(params):
    sent, _, _, received = over(channel.RayleighChannel, 3, 128, ebn0=10, **params)
    assert measure(sent, received).link["bit_frames_wrong_theory"] is None


def test_clusters_that_are_all_alike_leave_doubt():
    """As much as of independent bits, widened for their number; of nothing but errors as of none."""
    low, high = theory.clustered_interval(40, 200, 400, 40 * 25, 40 * 50, 40 * 100)
    assert (low, high) == pytest.approx(theory.binomial_interval(200, 400), abs=0.01)
    assert low < theory.binomial_interval(200, 400)[0]
    assert theory.clustered_interval(9, 90, 90, 900, 900, 900) == (1 - theory.binomial_interval(0, 9)[1], 1)


def test_frames_of_which_nothing_came_are_no_clusters():
    """Behind a decoder, where the interval is made of frames: one of three came."""
    sent = [bits(np.zeros(80), frame) for frame in range(3)]
    fades = {"kind": "awgn", "fading": "none", "coded": True, "esn0_db": 3.0}
    came = [bits(np.arange(80) % 2, 0, true_channel=fades), bits([], 1), bits([], 2)]
    link = measure(sent, came).link
    assert (link["bits"], link["ber"], link["ber_clusters"]["clusters"]) == (80, 0.5, 1)
    assert link["ber_interval"] is None


def test_what_an_interleaver_spread_tells_no_more_of_the_mean():
    """The same 480 fades, whose errors lie together or all over the frame: as wide an interval."""
    sent = [Packet(noise.random_bytes(1 << 10, 1, f), f, packed=True, last=True) for f in range(60)]
    intervals = []
    for there, back in ((None, None), (Interleaver, Deinterleaver)):
        stream = run_block(there(), {"bits": sent})["bits"] if there else sent
        stream = run_block(qam.QamMapper(), {"bits": stream})["symbols"]
        air = channel.RayleighChannel({"ebn0": 10, "fading": "block", "block_symbols": 256}, "air", Context(seed=3))
        equal = run_block(channel.Equalizer(), run_block(air, {"symbols": stream}))["symbols"]
        stream = run_block(qam.QamDemapper(), {"symbols": equal})["bits"]
        link = measure(sent, run_block(back(), {"bits": stream})["bits"] if back else stream).link
        intervals.append(link["ber_interval"])
    assert intervals[1] == pytest.approx(intervals[0], rel=0.05)


def test_under_fading_99_of_100_intervals_hold_the_truth():
    """300 short runs: the number that miss is binomial; its 99.9 % range is 0 to 10."""
    rate, missed, blocks = theory.bit_error_rate(16, rayleigh=True), 0, 250
    h = noise.complex_normal(300 * blocks, 1, stream=noise.FADES)
    data = noise.random_bytes(300 * blocks * 32, 2)
    gains = np.repeat(h, 64)
    faded = noise.fade(qam.map_symbols(data, len(data) * 8), gains, theory.db_to_ratio(-16), 1)
    errors = (
        np.bitwise_count(data ^ qam.decide(noise.equalize(faded, gains)))
        .reshape(300, blocks, 32)
        .sum(axis=2, dtype=int)
    )
    for e in errors:
        low, high = theory.clustered_interval(
            blocks, int(e.sum()), 256 * blocks, int((e * e).sum()), 256 * int(e.sum()), 256**2 * blocks
        )
        missed += not low <= rate <= high
    assert missed <= 10


def test_intervals_hold_behind_a_decoder_that_seldom_fails():
    """500 short runs, some 25 of 2500 blocks wrong in some 200 bits each: the 99.9 % range of the misses is 0 to 13."""
    draw, missed = np.random.default_rng(6), 0
    for _ in range(500):
        e = np.where(draw.random(2500) < 0.01, draw.geometric(1 / 200, 2500), 0)
        sums = (2500, int(e.sum()), 8192 * 2500, int((e * e).sum()), 8192 * int(e.sum()), 8192**2 * 2500)
        low, high = theory.clustered_interval(*sums)
        assert low > 0
        missed += not low <= 0.01 * 200 / 8192 <= high
    assert missed <= 13


def test_without_errors_the_interval_still_says_how_much_was_seen():
    quiet = {
        "kind": "rayleigh",
        "fading": "block",
        "block_symbols": 64,
        "bits_per_symbol": 4,
        "modulation": "16qam",
        "esn0_db": 300.0,
    }
    zeros = np.zeros(256 * 40)
    link = measure([bits(zeros)], [bits(zeros, true_channel=quiet)]).link
    assert link["ber"] == 0
    assert link["ber_interval"] == (0, pytest.approx(1 - 0.005 ** (1 / 40)))


def test_over_an_unknown_channel_the_interval_comes_from_the_frames():
    zeros, burst = np.zeros(1000), np.r_[np.ones(100), np.zeros(900)]
    link = measure([bits(zeros, f) for f in range(4)], [bits(burst if f == 2 else zeros, f) for f in range(4)]).link
    assert link["ber"] == 0.025
    assert link["ber_theory"] is None
    low, high = link["ber_interval"]  # of 39 bits, less (2.5758 / 5.8409)^2 for Student's t
    a, b = 0.025 * 39 * 0.19448, 0.975 * 39 * 0.19448
    assert (low, high) == pytest.approx(scipy.stats.beta.ppf([0.005, 0.995], [a, a + 1], [b + 1, b]), rel=1e-3)
    sums = {"clusters": 4, "errors": 100, "trials": 4000, "errors2": 1e4, "errors_trials": 1e5, "trials2": 4e6}
    assert link["ber_clusters"] == sums
    assert theory.clustered_interval(**link["ber_clusters"]) == (low, high)
    assert measure([bits(zeros)], [bits(burst)]).link["ber_interval"] is None


def test_theory_follows_a_channel_that_changes_on_the_way():
    good, bad = (
        {"kind": "bit_flip", "fading": "none", "ber": p, "ebn0_db": e, "esn0_db": e} for p, e in ((0.0, 9), (0.5, 1))
    )
    received = bits(np.zeros(1000), true_channel=good)
    received.tags += (Tag(600, "true_channel", bad),)
    link = measure([bits(np.zeros(1000), f) for f in (0, 1)], [received, bits(np.zeros(1000), 1)]).link
    assert link["ber_theory"] == pytest.approx((0 + 0.4 * 0.5 + 0.5) / 2)
    # 600 of 2000 bits at 9 dB: the second frame goes on as the first one ended
    assert link["ebn0_db"] == pytest.approx(theory.ratio_to_db(0.3 * 10**0.9 + 0.7 * 10**0.1))
    assert link["esn0_db"] == link["ebn0_db"]


def test_losses_are_counted_and_enter_no_rate():
    a = np.ones(1000)
    wrong = a.copy()
    wrong[:10] = 0
    erased = bits(np.r_[wrong[:200], np.zeros(300), a[500:]], 2)
    erased.tags = (Tag(200, "erased", 300),)
    received = [bits(wrong, 0), bits(a[:900], 1), erased, bits(np.ones(1100), 4)]  # frame 3 never comes
    told = measure([bits(a, f) for f in range(5)], received)
    assert told.link["bit_frames_lost"] == 1
    assert told.link["bits_missing"] == 100 + 300 + 1000
    assert (told.link["bits"], told.link["bit_errors"]) == (1000 + 900 + 700 + 1000, 20)
    assert [told.frames[f]["ber"] for f in range(5)] == [0.01, 0.0, 10 / 700, None, 0.0]
    assert (told.link["bit_frames"], told.link["bit_frames_wrong"]) == (5, 4)  # a bit is wrong or missing


def test_packets_that_were_dropped_are_no_errors():
    sent = Packet(noise.random_bytes(1000, 1), packed=True, last=True)
    pieces = recut([sent], [800])
    told = measure([sent], pieces[:3] + pieces[5:])
    assert (told.link["bits"], told.link["bit_errors"], told.link["bits_missing"]) == (6400, 0, 1600)


@pytest.mark.parametrize("count", [0, 1, 3, 13])
def test_short_frames(count):
    link = measure([bits(np.ones(count))], [bits(np.zeros(count))]).link
    assert (link["bits"], link["bit_errors"], link["ber"]) == (count, count, 1.0 if count else None)


def test_symbols_over_awgn():
    _, sent, received, _ = over(channel.AwgnChannel, 2, count=1 << 19, esn0=12)
    told = measure(sent, received)
    link = told.link
    assert link["symbols"] == 1 << 18
    assert link["evm_rms"] == pytest.approx(theory.db_to_ratio(-12) ** 0.5, rel=0.01)
    assert link["snr_measured_db"] == pytest.approx(12, abs=0.05)
    low, high = theory.binomial_interval(round(link["ser"] * link["symbols"]), link["symbols"], 0.999)
    assert low < link["ser_theory"] < high
    assert not told.frames


def test_a_common_gain_counts_in_the_error_vector_and_not_in_the_snr():
    _, sent, received, _ = over(channel.AwgnChannel, 1, esn0=20)
    turned = [Packet(p.data * np.complex64(0.8 + 0.1j), p.frame, tags=p.tags, last=True) for p in received]
    link = measure(sent, turned).link
    assert link["snr_measured_db"] == pytest.approx(20, abs=0.1)
    assert link["evm_rms"] == pytest.approx(math.sqrt(0.2**2 + 0.1**2 + 0.01 * 0.65), rel=0.01)


def test_symbols_that_are_not_finite_are_symbol_errors_only():
    _, sent, received, _ = over(channel.AwgnChannel, 1, count=400, esn0=40)
    data = received[0].data.copy()
    data[[3, 50]] = np.nan, np.inf
    link = measure(sent, [Packet(data, tags=received[0].tags, last=True)]).link
    assert link["ser"] == 2 / 100
    assert link["evm_rms"] == pytest.approx(0.01, rel=0.3)


@pytest.mark.parametrize(("esn0", "count"), [(25, 1 << 16), (25, 4), (-300, 400)])
def test_the_picture_shows_the_constellation_with_white_where_nothing_came(esn0, count):
    from PIL import Image

    _, sent, received, _ = over(channel.AwgnChannel, 1, count=count, esn0=esn0)
    kept = measure(sent, received).kept
    assert list(kept) == ["constellation.pdf", "constellation.png"]
    picture = np.asarray(Image.open(io.BytesIO(kept["constellation.png"])).convert("RGB")).astype(int)
    assert min(picture.shape[:2]) > 400
    assert 0.6 < (picture == 255).all(axis=2).mean() < 0.99
    coloured = picture.max(axis=2) - picture.min(axis=2) > 60
    assert coloured.mean() > (0.03 if count > 1000 else 0.0005)


def test_bits_and_symbols_cannot_be_compared():
    with pytest.raises(
        BlockError, match="cannot compare complex64 received with bits sent: wire bits to bits or symbols to symbols"
    ):
        measure([bits([1])], [Packet(np.ones(1, np.complex64), last=True)])


@pytest.mark.parametrize(("rate", "modulation"), [("1/2", "16qam"), ("3/4", "qpsk")])
def test_channel_uses_count_what_codes_and_modulation_make_of_an_image(rate, modulation):
    sent = [
        Packet(noise.random_bytes(5000, 1, f), f, packed=True, last=True).tagged(pixel_values=12288) for f in range(3)
    ]
    code, codec = {"rate": rate}, {"modulation": modulation}
    mapped = run_block(qam.QamMapper(codec), run_block(coders.LdpcEncoder(code), {"bits": sent}))["symbols"]
    aired = run_block(channel.AwgnChannel({"esn0": 20}), {"symbols": mapped})
    decided = run_block(qam.QamDemapper({**codec, "output": "llr8"}), aired)
    told = {}
    context = Context(report=lambda section, frame, values: told.setdefault(section, {}).update(values))
    received = run_block(coders.LdpcDecoder(code), decided)["bits"]
    run_block(ErrorMeter(context=context), {"sent": sent, "received": received})
    symbols = sum(packet.count for packet in mapped) / 3
    assert told["payload"]["symbols_per_image"] == pytest.approx(symbols, rel=2e-3)  # the last block has more parity
    assert told["payload"]["cbr"] == pytest.approx(symbols / 12288, rel=2e-3)
    assert told["link"]["bit_errors"] == 0


def test_the_constellation_shows_where_symbols_are_and_says_what_it_leaves_out():
    from PIL import Image

    rng = np.random.default_rng(1)
    sent = qam.map_symbols(noise.random_bytes(4000, 1), 32_000)
    received = (10 * sent + 0.1 * rng.standard_normal(len(sent))).astype(np.complex64)
    received[:40] = np.nan

    def picture(symbols):
        frames = [[Packet(each, last=True).tagged(modulation="16qam")] for each in (sent, symbols)]
        return np.asarray(Image.open(io.BytesIO(measure(*frames).kept["constellation.png"])).convert("RGB"), int)

    def coloured(pixels):
        return (np.ptp(pixels, axis=2) > 60).mean()

    assert coloured(picture(received)) > 1.5 * coloured(picture(np.full_like(sent, np.nan)))
