"""The channels against closed forms, at their extremes, and whatever the packets."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq

from blocks.fec.coders import Repeater
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.serializer import BitSerializer
from blocks.phy import channel, noise, qam, theory
from blocks.phy.constellation import CONSTELLATIONS, constellation
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.testing import assert_same_stream, check_packet_invariance, recut, run_block, whole_frames

SNR_DB = (*range(0, 15, 2), 15)
POINTS = 2 * len(SNR_DB)  # the family of tests against theory: 99 % for all of them together
EACH = 1 - 0.01 / POINTS
OTHERS = [name for name in CONSTELLATIONS if name != "16qam"]
RATES = [0.1, 1e-2, 1e-3, 2e-5]


def symbols(count, frame=0, **tags):
    data = qam.map_symbols(noise.random_bytes(-(-count // 2), 77, frame), 4 * count)
    return Packet(data, frame, tags=tuple(Tag(0, k, v) for k, v in tags.items()), last=True)


def run(block, **params):
    return run_block(block(params, "air", Context(seed=5)), {"symbols": [symbols(1000, bits_per_symbol=4)]})


# Error rates


@pytest.mark.parametrize("ebn0_db", SNR_DB)
def test_bit_error_rate_over_awgn_is_the_closed_form(ebn0_db):
    esn0_db, errors, bits = ebn0_db + theory.ratio_to_db(4), 0, 1 << 22
    frames = 240 if ebn0_db >= 14 else 16  # 10^9 bits, where 2,800 and 190 of them are wrong
    for frame in range(frames):
        sent = noise.random_bytes(bits // 8, 1, frame)
        received = noise.awgn(qam.map_symbols(sent, bits), theory.db_to_ratio(-esn0_db), 2, frame)
        errors += int(np.bitwise_count(sent ^ qam.decide(received)).sum())
    low, high = theory.binomial_interval(errors, frames * bits, EACH)
    assert low <= theory.bit_error_rate(esn0_db) <= high


@pytest.mark.parametrize("ebn0_db", SNR_DB)
def test_bit_error_rate_over_rayleigh_fading_is_the_closed_form(ebn0_db):
    esn0_db, sums, bits = ebn0_db + theory.ratio_to_db(4), np.zeros(6), 1 << 22
    for frame in range(4):
        sent = noise.random_bytes(bits // 8, 3, frame)
        h = noise.complex_normal(bits // 4, 4, frame, stream=noise.FADES)
        faded = noise.fade(qam.map_symbols(sent, bits), h, theory.db_to_ratio(-esn0_db), 4, frame)
        e = np.bitwise_count(sent ^ qam.decide(noise.equalize(faded, h))).astype(float)  # two fades a byte
        sums += [len(e), e.sum(), 8 * len(e), (e * e).sum(), 8 * e.sum(), 64 * len(e)]
    low, high = theory.clustered_interval(*sums, EACH)
    assert low <= theory.bit_error_rate(esn0_db, rayleigh=True) <= high


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("rayleigh", [False, True], ids=["awgn", "rayleigh"])
@pytest.mark.parametrize("modulation", OTHERS)
def test_other_orders_keep_to_the_closed_form_too(modulation, rayleigh, rate):
    """Where one bit in ten is wrong, and where one in 50,000 is; a symbol's bits err together, as do its fades."""
    bits = constellation(modulation).bits_per_symbol
    esn0_db = brentq(lambda db: theory.bit_error_rate(db, modulation, rayleigh) - rate, -20, 70, xtol=1e-9)
    n0, sums, count = theory.db_to_ratio(-esn0_db), np.zeros(6), 1 << 18
    for frame in range(16 if rate < 1e-3 else 2):
        sent = noise.random_bytes(count * bits // 8, 9, frame)
        symbols = qam.map_symbols(sent, count * bits, modulation)
        if rayleigh:
            h = noise.complex_normal(count, 8, frame, stream=noise.FADES)
            received = noise.equalize(noise.fade(symbols, h, n0, 8, frame), h)
        else:
            received = noise.awgn(symbols, n0, 8, frame)
        wrong = np.unpackbits(sent ^ qam.decide(received, modulation))
        e = wrong.reshape(count, bits).sum(1, dtype=np.int64)
        sums += [count, e.sum(), bits * count, (e * e).sum(), bits * e.sum(), bits * bits * count]
    low, high = theory.clustered_interval(*sums, 1 - 0.01 / (len(OTHERS) * len(RATES) * 2))
    assert low <= rate <= high


# Theory itself


@pytest.mark.parametrize("ebn0_db", [-300, -5, 0, 5, 10, 14, 25])
def test_16qam_closed_forms_are_the_published_ones(ebn0_db):
    x = math.sqrt(0.4 * theory.db_to_ratio(ebn0_db))
    esn0_db = ebn0_db + theory.ratio_to_db(4)
    published = 3 / 8 * math.erfc(x) + 1 / 4 * math.erfc(3 * x) - 1 / 8 * math.erfc(5 * x)
    assert theory.bit_error_rate(esn0_db) == pytest.approx(published, rel=1e-9)
    assert theory.paper_bit_error_rate(ebn0_db) == pytest.approx(theory.symbol_error_rate(esn0_db) / 4, rel=1e-9)


@pytest.mark.parametrize("modulation", ["qpsk", "16qam", "256qam"])
@pytest.mark.parametrize("esn0_db", [-5, 5, 20])
def test_fading_averages_the_rates_over_the_gains(modulation, esn0_db):
    """Numerical integration over |h|^2, which is exponentially distributed, as a second opinion."""
    from scipy.integrate import quad

    for rate in (theory.bit_error_rate, theory.symbol_error_rate):
        mean, _ = quad(
            lambda p, rate=rate: math.exp(-p) * rate(esn0_db + theory.ratio_to_db(p), modulation), 0, 50, limit=200
        )
        assert rate(esn0_db, modulation, rayleigh=True) == pytest.approx(mean, rel=1e-6)


# What goes out


@pytest.mark.parametrize(
    ("block", "params"),
    [
        (channel.AwgnChannel, {"ebn0": 5}),
        (channel.AwgnChannel, {"esn0": 5}),
        (channel.RayleighChannel, {"ebn0": 5}),
        (channel.RayleighChannel, {"ebn0": 5, "fading": "block", "block_symbols": 7}),
    ],
)
@pytest.mark.parametrize("count", [0, 1, 3, 13, 500])
def test_packets_do_not_matter_to_a_channel(block, params, count):
    frames = [symbols(count, 0, bits_per_symbol=4), symbols(21, 1, bits_per_symbol=4)]
    made = check_packet_invariance(block, params, {"symbols": frames})["symbols"]
    assert [p.count for p in made] == [count, 21]
    assert not np.array_equal(made[0].data[:21], made[1].data[:count]) or count == 0


@pytest.mark.parametrize("count", [0, 1, 3, 13, 5000])
def test_packets_do_not_matter_to_flipped_bits(count):
    sent = [Packet(noise.random_bytes(-(-count // 8), 1), count=count, packed=True, last=True)]
    sent[0].data[-1:] &= 0xFF << (-count % 8) & 0xFF
    made = check_packet_invariance(channel.BitFlipChannel, {"ebn0": 0}, {"bits": sent})["bits"]
    assert made[0].count == count


def test_the_noise_has_the_power_it_is_said_to_have():
    sent = symbols(1 << 20, bits_per_symbol=4)
    for params in ({"ebn0": "4 dB"}, {"esn0": 4 + theory.ratio_to_db(4)}):
        out = run_block(channel.AwgnChannel(params), {"symbols": [sent]})["symbols"][0]
        power = np.abs(out.data - sent.data) ** 2
        assert power.mean() == pytest.approx(theory.db_to_ratio(-4) / 4, rel=5 / 1024)
        tag = out.tag("true_channel")
        assert (tag["kind"], tag["fading"], tag["bits_per_symbol"]) == ("awgn", "none", 4)
        assert tag["ebn0_db"] == pytest.approx(4)
        assert tag["esn0_db"] == pytest.approx(10.0206, abs=1e-4)
        assert tag["n0"] == pytest.approx(theory.db_to_ratio(-4) / 4)


@pytest.mark.parametrize("ebn0_db", [-300, 300])
@pytest.mark.parametrize("block", [channel.AwgnChannel, channel.RayleighChannel])
def test_absurd_snrs_give_finite_symbols(block, ebn0_db):
    made = run(block, ebn0=ebn0_db)
    assert np.isfinite(made["symbols"][0].data).all()
    sent = symbols(1000).data
    if ebn0_db == 300:
        clean = sent * made["gains"][0].data if "gains" in made else sent
        np.testing.assert_allclose(made["symbols"][0].data, clean, rtol=1e-5, atol=1e-7)
    else:
        assert np.abs(made["symbols"][0].data).mean() > 1e14


@pytest.mark.parametrize("ebn0_db", [-300, 300])
def test_absurd_snrs_flip_half_the_bits_or_none(ebn0_db):
    sent = Packet(np.zeros(1 << 17, np.uint8), packed=True, last=True)
    made = run_block(channel.BitFlipChannel({"ebn0": ebn0_db, "formula": "exact"}), {"bits": [sent]})["bits"][0]
    rate = np.bitwise_count(made.data).sum() / made.count
    assert rate == (0 if ebn0_db == 300 else pytest.approx(0.5, abs=0.005))


@pytest.mark.parametrize("formula", ["paper", "exact"])
@pytest.mark.parametrize("ebn0_db", [5, 7.5, 10])
def test_bits_flip_at_the_rate_of_the_formula(formula, ebn0_db):
    sent = Packet(noise.random_bytes(1 << 20, 1), packed=True, last=True)
    made = run_block(channel.BitFlipChannel({"ebn0": ebn0_db, "formula": formula}), {"bits": [sent]})["bits"][0]
    errors = int(np.bitwise_count(made.data ^ sent.data).sum())
    want = theory.paper_bit_error_rate(ebn0_db) if formula == "paper" else theory.bit_error_rate(ebn0_db + 6.0206)
    low, high = theory.binomial_interval(errors, sent.count, 1 - 0.01 / 6)
    assert low <= want <= high
    assert made.tag("true_channel")["ber"] == pytest.approx(want, rel=1e-4)


def test_gains_hold_for_a_block_and_have_unit_power():
    made = run_block(
        channel.RayleighChannel({"ebn0": 10, "fading": "block", "block_symbols": 8}),
        {"symbols": [symbols(1 << 20, bits_per_symbol=4)]},
    )
    gains = made["gains"][0].data.reshape(-1, 8)
    assert (gains == gains[:, :1]).all()
    power = np.abs(gains[:, 0]) ** 2
    assert power.mean() == pytest.approx(1, abs=5 / math.sqrt(len(power)))
    assert len(np.unique(gains[:, 0])) == len(gains)


@pytest.mark.parametrize("params", [{}, {"fading": "block", "block_symbols": 5}])
def test_frames_and_names_fade_apart(params):
    packets = [symbols(1000, frame, bits_per_symbol=4) for frame in (0, 1)]
    gains = [
        run_block(channel.RayleighChannel({"ebn0": 10, **params}, name), {"symbols": packets})["gains"]
        for name in ("a", "b")
    ]
    drawn = {gains[i][f].data.tobytes() for i in (0, 1) for f in (0, 1)}
    assert len(drawn) == 4


# Equalisation


@pytest.mark.parametrize("method", ["zf", "mmse"])
def test_packets_do_not_matter_to_the_equalizer(method):
    made = run(channel.RayleighChannel, ebn0=5)
    check_packet_invariance(channel.Equalizer, {"method": method}, made)


def test_zero_forcing_divides_and_mmse_comes_nearest():
    sent = symbols(1 << 18, bits_per_symbol=4)
    made = run_block(channel.RayleighChannel({"esn0": 8}), {"symbols": [sent]})
    zf, mmse = (run_block(channel.Equalizer({"method": m}), made)["symbols"][0].data for m in ("zf", "mmse"))
    y, h = made["symbols"][0].data, made["gains"][0].data
    np.testing.assert_allclose(zf, y / h, rtol=1e-5)
    n0 = theory.db_to_ratio(-8)
    np.testing.assert_allclose(mmse, y * h.conj() / (np.abs(h) ** 2 + n0), rtol=1e-5, atol=1e-6)
    power = np.abs(h) ** 2
    want = np.mean(n0 / (power + n0))
    assert np.mean(np.abs(mmse - sent.data) ** 2) == pytest.approx(want, rel=0.02)
    for factor in (0.98, 1.02):
        assert np.mean(np.abs(factor * mmse - sent.data) ** 2) > np.mean(np.abs(mmse - sent.data) ** 2)


def test_a_gain_of_zero_gives_zero():
    streams = {
        "symbols": [Packet(np.array([1, 2j], np.complex64), last=True)],
        "gains": [Packet(np.array([0, 2], np.complex64), last=True)],
    }
    for params in ({"method": "zf"}, {"method": "mmse", "noise": 0.0}):
        out = run_block(channel.Equalizer(params), streams)["symbols"][0].data
        np.testing.assert_array_equal(out, np.array([0, 1j], np.complex64))


@pytest.mark.parametrize("n0", [0, 0.1])
def test_gains_of_any_size_give_what_was_sent_or_0(n0):
    x = np.array([0.3 - 0.9j, 0], np.complex64)
    for size in np.geomspace(1e-45, 3e38, 84):
        h = np.full(2, size, np.complex64)
        made = noise.equalize(h * x, h, n0)
        power = float(h[0].real) ** 2
        if made.any() or 1e-37 < power < 1e38:
            np.testing.assert_allclose(made, x * power / (power + n0 or 1), rtol=0.02, atol=1e-37)


def test_gains_that_did_not_arrive_are_told_and_taken_as_0():
    told = []
    symbols = [Packet(np.full(3, 2, np.complex64), frame, last=True) for frame in range(3)]
    gains = [Packet(np.full(size, 2, np.complex64), frame, last=True) for frame, size in ((0, 3), (2, 1))]
    block = channel.Equalizer(context=Context(warn=told.append))
    made = run_block(block, {"symbols": symbols, "gains": gains})["symbols"]
    assert [p.data.tolist() for p in made] == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
    assert told == [f"frame {f} has 3 symbols but {n} gains; the others are taken as 0" for f, n in ((1, 0), (2, 1))]


# A change while it runs, and mistakes


def test_a_change_of_snr_takes_hold_at_the_next_packet_and_is_told():
    block = channel.AwgnChannel({"esn0": 300})
    block.start()
    first = block.work(Packet(np.ones(1000, np.complex64)))
    block.params = block.params.model_copy(update={"esn0": 0.0})
    second = block.work(Packet(np.ones(1000, np.complex64), offset=1000, last=True))
    np.testing.assert_allclose(first.data, np.ones(1000), atol=1e-12)
    assert np.mean(np.abs(second.data - 1) ** 2) == pytest.approx(1, rel=0.2)
    assert [(t.offset, t.value["esn0_db"]) for t in (*first.tags, *second.tags)] == [(0, 300), (1000, 0.0)]


def test_ebn0_without_a_mapper_is_refused():
    with pytest.raises(
        BlockError, match="ebn0 needs to know the bits per symbol, which a mapper tags: give esn0 instead"
    ):
        run_block(channel.AwgnChannel({"ebn0": 5}), {"symbols": [symbols(10)]})


@pytest.mark.parametrize(
    ("block", "params", "message"),
    [
        (channel.AwgnChannel, {}, "exactly one of ebn0, esn0 and snr"),
        (channel.AwgnChannel, {"ebn0": 1, "esn0": 2}, "exactly one of ebn0, esn0 and snr"),
        (channel.AwgnChannel, {"ebn0": "5 Hz"}, "must be in dB, not 'Hz'"),
        (channel.AwgnChannel, {"ebn0": float("nan")}, "not NaN"),
        (channel.AwgnChannel, {"ebn0": 301}, "at most 300"),
        (channel.AwgnChannel, {"sigma": 5}, "sigma"),
        (channel.RayleighChannel, {"ebn0": 1, "fading": "block"}, "must have block_symbols with fading: block"),
        (channel.RayleighChannel, {"ebn0": 1, "block_symbols": 4}, "must have block_symbols with fading: block"),
        (channel.BitFlipChannel, {}, "ebn0"),
        (channel.Equalizer, {"method": "magic"}, "'zf' or 'mmse'"),
    ],
)
def test_bad_parameters_are_refused(block, params, message):
    with pytest.raises(ValueError, match=message):
        block(params)


@pytest.mark.parametrize(
    ("make", "port", "sent"),
    [
        (channel.AwgnChannel, "symbols", np.ones(8, np.complex64)),
        (channel.BitFlipChannel, "bits", np.zeros(4, np.uint8)),
    ],
)
def test_eb_n0_is_set_by_bit_sent_and_told_by_bit_of_information(make, port, sent):
    packet = Packet(sent, packed=port == "bits", last=True).tagged(bits_per_symbol=4, code_rate=0.5)
    plain = Packet(sent, 1, packed=port == "bits", last=True).tagged(bits_per_symbol=4)
    made = run_block(make({"ebn0": "10 dB"}), {port: [packet, plain]})[port]
    coded, uncoded = (p.tag("true_channel") for p in made)
    assert {key: coded[key] for key in coded if key != "ebn0_db"} == {k: uncoded[k] for k in coded if k != "ebn0_db"}
    assert coded["esn0_db"] == pytest.approx(10 + 10 * np.log10(4))
    assert coded["ebn0_db"] == pytest.approx(10 - 10 * np.log10(0.5))
    assert uncoded["ebn0_db"] == 10


@pytest.mark.parametrize("formula", ["paper", "exact"])
def test_flipped_bits_count_with_the_rate_of_codes(formula):
    sent = [Packet(np.zeros(1000, np.uint8), frame, packed=True, last=True) for frame in range(2)]
    coded = run_block(Repeater({"times": 3}), {"bits": sent[:1]})["bits"]
    made = run_block(channel.BitFlipChannel({"ebn0": 6, "formula": formula}), {"bits": [*coded, sent[1]]})["bits"]
    once, plain = (packet.tag("true_channel") for packet in made)
    assert (once["ebn0_db"], plain["ebn0_db"]) == (6, 6)
    assert plain["esn0_db"] - once["esn0_db"] == pytest.approx(10 * np.log10(3))
    on_air = 6 - 10 * np.log10(3)
    rates = {"paper": theory.paper_bit_error_rate(on_air), "exact": theory.bit_error_rate(on_air + 10 * np.log10(4))}
    assert once["ber"] == pytest.approx(rates[formula])
    assert once["bits_per_use"] == pytest.approx(4 / 3)


def test_headers_and_captions_survive_5_db():
    """200 frames with a 51-character caption alone, whose header and parity leave it a code rate of .13."""
    caption = np.frombuffer(b"a dog runs along the beach with a ball in its mouth", np.uint8)
    frames = {"text": [Packet(caption, frame, last=True) for frame in range(200)]}
    sent = run_block(BitSerializer(), frames)["bits"]
    mapped = run_block(qam.QamMapper(), {"bits": sent})["symbols"]
    noisy = run_block(channel.AwgnChannel({"ebn0": "5 dB"}, "air", Context(seed=5)), {"symbols": mapped})["symbols"]
    received = run_block(qam.QamDemapper(), {"symbols": noisy})["bits"]
    errors = sum(int(np.bitwise_count(a.data ^ b.data).sum()) for a, b in zip(sent, received, strict=True))
    rate = errors / sum(packet.count for packet in sent)  # of the same 792 symbols in every frame: 2 % from the mean
    assert rate == pytest.approx(theory.bit_error_rate(5 + theory.ratio_to_db(4)), rel=0.06)
    texts = run_block(BitDeserializer(), {"bits": received})["text"]
    assert [(p.data.tobytes(), p.tag("status")) for p in texts] == [(caption.tobytes(), "ok")] * 200


# Noise relative to a measured power, and erasures


@pytest.mark.parametrize("gain", [0.01, 1, 30])
def test_snr_is_relative_to_the_power_that_came(gain):
    samples = (gain * noise.complex_normal(200_000, key=3)).astype(np.complex64)
    frame = Packet(samples, last=True)
    made = run_block(channel.AwgnChannel({"snr": "12 dB"}), {"symbols": [frame]})["symbols"]
    again = run_block(channel.AwgnChannel({"snr": "12 dB"}), {"symbols": recut([frame], [70_000, 3, 1001])})["symbols"]
    assert_same_stream(again, made)
    added = np.concatenate([packet.data for packet in made]) - samples
    power = np.mean(np.abs(samples[: channel.MEASURED]) ** 2)
    assert np.mean(np.abs(added) ** 2) == pytest.approx(power / 10**1.2, rel=0.02)
    assert made[0].tag("true_channel")["esn0_db"] == 12


def test_snr_of_silence_adds_nothing():
    silent = Packet(np.zeros(100, np.complex64), last=True)
    made = run_block(channel.AwgnChannel({"snr": 3}), {"symbols": [silent]})["symbols"]
    assert not made[0].data.any()


def test_erasures_have_their_rate_and_are_told():
    data = np.full(2500, 0xFF, np.uint8)
    frames = [Packet(data, frame, count=8 * len(data) - 3, packed=True, last=True) for frame in range(2)]
    for frame in frames:
        frame.data[-1] &= 0xF8
    params = {"rate": 0.3, "length": "16 bit"}
    made = check_packet_invariance(channel.ErasureChannel, params, {"bits": frames})["bits"]
    for packet in whole_frames(made):
        gone = np.zeros(packet.count, bool)
        for tag in packet.tags:
            assert tag.key == "erased"
            assert tag.offset % 16 == 0
            gone[tag.offset : tag.offset + tag.value] = True
        np.testing.assert_array_equal(np.unpackbits(packet.data, count=packet.count), ~gone)
        stretches = packet.count / 16
        assert gone.mean() == pytest.approx(0.3, abs=4 * (0.21 / stretches) ** 0.5)


@pytest.mark.parametrize("rate", [0, 1])
def test_erasing_nothing_and_everything(rate):
    frame = Packet(np.arange(1, 200, dtype=np.uint8), packed=True, last=True)
    made = run_block(channel.ErasureChannel({"rate": rate, "length": 64}), {"bits": [frame]})["bits"][0]
    np.testing.assert_array_equal(made.data, frame.data * (1 - rate))
    assert sum(tag.value for tag in made.tags) == rate * frame.count
