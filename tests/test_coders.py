"""Coding blocks: every length comes back, however it is cut; what is told of rates, errors and losses is true."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from blocks.fec.coders import Combiner, ConvolutionalEncoder, LdpcDecoder, LdpcEncoder, Repeater, ViterbiDecoder
from blocks.fec.interleaver import Deinterleaver, Interleaver
from blocks.phy import theory
from blocks.phy.channel import AwgnChannel, Equalizer, ErasureChannel, RayleighChannel
from blocks.phy.qam import QamDemapper, QamMapper
from blocks.sink.errors import ErrorMeter
from flowgraph.block import Context, Packet, Tag
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

PAIRS = {
    "ldpc": (LdpcEncoder, LdpcDecoder, {"block_bits": 512, "rate": "1/2"}),
    "ldpc 4/5": (LdpcEncoder, LdpcDecoder, {"block_bits": 800, "rate": 0.8, "checksum": "crc16"}),
    "ldpc 8/9 twice": (LdpcEncoder, LdpcDecoder, {"block_bits": 512, "rate": "8/9", "redundancy_versions": [0, 2]}),
    "ldpc crc32": (LdpcEncoder, LdpcDecoder, {"block_bits": 512, "checksum": "crc32"}),
    "ldpc 1/5": (LdpcEncoder, LdpcDecoder, {"block_bits": 64, "rate": "1/5", "checksum": "none"}),
    "convolutional": (ConvolutionalEncoder, ViterbiDecoder, {"block_bits": 504}),
    "convolutional 5/6": (ConvolutionalEncoder, ViterbiDecoder, {"block_bits": 96, "rate": "5/6"}),
    "repetition": (Repeater, Combiner, {"times": 3}),
}
LENGTHS = (0, 1, 7, 13, 511, 512, 513, 1600, 5003)


def frames(lengths=LENGTHS, seed=1):
    random = np.random.default_rng(seed)
    return [
        Packet(np.packbits(random.integers(0, 2, n, np.uint8)), i, count=n, packed=True, last=True)
        for i, n in enumerate(lengths)
    ]


def bits(packet):
    return np.unpackbits(packet.data, count=packet.count) if packet.packed else (packet.data < 0).astype(np.uint8)


def coded(pair, packets):
    encoder, _, params = PAIRS[pair]
    return run_block(encoder(params), {"bits": packets})["bits"]


@pytest.mark.parametrize("pair", PAIRS)
def test_every_length_comes_back_however_it_is_cut(pair):
    encoder, decoder, params = PAIRS[pair]
    sent = frames()
    made = check_packet_invariance(encoder, params, {"bits": sent})["bits"]
    back = check_packet_invariance(decoder, params, {"bits": made})["bits"]
    for a, b in zip(sent, whole_frames(back), strict=True):
        assert (b.frame, b.count, b.last) == (a.frame, a.count, True)
        np.testing.assert_array_equal(bits(b), bits(a))


@pytest.mark.parametrize("pair", PAIRS)
def test_soft_bits_are_understood_in_both_types(pair):
    _, decoder, params = PAIRS[pair]
    sent = frames((1600,))
    hard = whole_frames(coded(pair, sent))[0]
    llr = 1 - 2 * bits(hard).astype(np.float32)
    for data in (5 * llr, (20 * llr).astype(np.int8)):
        packet = Packet(data, 0, last=True)
        back = whole_frames(run_block(decoder(params), {"bits": [packet]})["bits"])[0]
        np.testing.assert_array_equal(bits(back), bits(sent[0]))
    strange = (5 * llr).astype(np.float32)
    strange[::97] = np.nan
    strange[1::97] = np.inf * llr[1::97]
    back = whole_frames(run_block(decoder(params), {"bits": [Packet(strange, 0, last=True)]})["bits"])[0]
    if pair not in ("convolutional 5/6",):
        np.testing.assert_array_equal(bits(back), bits(sent[0]))
    assert back.count == 1600


@pytest.mark.parametrize("pair", PAIRS)
def test_an_llr_that_is_nan_is_an_erasure(pair):
    """As one that is 0, or is tagged `erased`."""
    _, decoder, params = PAIRS[pair]
    (hard,) = whole_frames(coded(pair, frames((1600,))))
    random = np.random.default_rng(4)
    llrs = (5 * (1 - 2.0 * bits(hard)) + random.normal(0, 2, hard.count)).astype(np.float32)
    gone = random.random(hard.count) < 0.05
    sent = Packet(np.where(gone, np.float32(0), llrs), last=True)
    strange = Packet(np.where(gone, np.float32(np.nan), llrs), last=True)
    want, found, tagged = (
        whole_frames(run_block(decoder(params), {"bits": [packet]})["bits"])[0]
        for packet in (sent, strange, sent.with_erased(gone))
    )
    np.testing.assert_array_equal(found.data, want.data)
    np.testing.assert_array_equal(found.data, tagged.data)


@pytest.mark.parametrize(
    ("pair", "rate"),
    [("ldpc", 1 / 2), ("ldpc 4/5", 4 / 5), ("ldpc 8/9 twice", 4 / 9), ("convolutional", 504 / 1020)],
)
def test_the_channel_counts_with_the_codes_rate(pair, rate):
    """Eb/N0 per payload bit: 16QAM at rate R has Es/N0 = 4 R Eb/N0, and a caption code above it adds its own."""
    packets = [packet.tagged(code_rate=0.5) for packet in frames((4000,))]
    symbols = run_block(QamMapper(), {"bits": coded(pair, packets)})["symbols"]
    told = run_block(AwgnChannel({"ebn0": 6.0}), {"symbols": symbols})["symbols"][0].tag("true_channel")
    assert told["esn0_db"] == pytest.approx(6 + 10 * np.log10(4 * rate))
    assert told["ebn0_db"] == pytest.approx(6 + 10 * np.log10(2))


@pytest.mark.parametrize("pair", ["ldpc", "convolutional", "repetition"])
@pytest.mark.parametrize("count", [8, 64, 300])
def test_frames_shorter_than_a_block_tell_the_rate_that_they_have(pair, count):
    (made,) = whole_frames(coded(pair, frames((count,))))
    assert made.tag("link_rate") == pytest.approx(count / made.count, rel=1e-12)


@pytest.mark.parametrize(
    ("rate", "ebn0_db", "rest"), [("1/2", 3.3, 8), ("1/2", 3.3, 64), ("1/2", 3.3, 200), ("1/2", 3.3, 1000),
                                  ("1/2", 3.3, 4200), ("1/5", 1.9, 64), ("4/5", 5.85, 500), ("9/10", 7.35, 64)],
)  # fmt: skip
def test_a_short_last_block_is_lost_no_more_often_than_a_full_one(rate, ebn0_db, rest):
    """Of 300; at the rate of full ones nearly all would be."""
    context, air = Context(seed=4), {"esn0": ebn0_db + theory.ratio_to_db(4 * float(Fraction(rate)))}
    sent = frames((8400 + rest,) * 300, seed=rest)
    stream = run_block(LdpcEncoder({"rate": rate}), {"bits": sent})["bits"]
    stream = run_block(QamMapper(), {"bits": stream})["symbols"]
    stream = run_block(AwgnChannel(air, "air", context), {"symbols": stream})["symbols"]
    stream = run_block(QamDemapper({"output": "llr8"}), {"symbols": stream})["bits"]
    back = whole_frames(run_block(LdpcDecoder({"rate": rate}), {"bits": stream})["bits"])
    wrong = np.array([bits(a) != bits(b) for a, b in zip(sent, back, strict=True)])
    full, last = (int(each.any(1).sum()) for each in np.split(wrong, [8400], axis=1))
    assert 3 <= full <= 60
    assert last <= 2 * full


@pytest.mark.parametrize("checksum", ["none", "crc16", "crc24b"])
@pytest.mark.parametrize(
    ("rate", "block_bits"), [("1/5", 64), ("1/2", 8400), ("9/10", 64), ("9/10", 432), ("9/10", 8424)]
)
def test_a_blocks_length_is_known_from_what_is_sent_of_it(rate, block_bits, checksum):
    code = LdpcEncoder.Params(rate=rate, block_bits=block_bits, checksum=checksum)
    assert (np.diff([code.coded(bits) for bits in range(1, block_bits + 1)]) > 0).all()


def test_codes_in_a_row_multiply_their_rates():
    inner = run_block(Repeater({"times": 2}), {"bits": coded("ldpc", frames((2048,)))})["bits"]
    assert inner[0].tag("link_rate") == pytest.approx(1 / 4)


def received(pair, packets, ebn0_db):
    """What the decoder makes of frames sent as 16QAM over noise, and what it reports."""
    _, decoder, params = PAIRS[pair]
    rows = {}
    symbols = run_block(QamMapper(), {"bits": coded(pair, packets)})["symbols"]
    noisy = run_block(AwgnChannel({"ebn0": ebn0_db}, "air", Context(seed=3)), {"symbols": symbols})["symbols"]
    soft = run_block(QamDemapper({"output": "llr8"}), {"symbols": noisy})["bits"]
    context = Context(report=lambda section, frame, values: rows.update(values))
    return whole_frames(run_block(decoder(params, "decode", context), {"bits": soft})["bits"]), rows


@pytest.mark.parametrize("pair", ["ldpc", "ldpc 4/5", "convolutional"])
def test_coding_beats_what_is_sent_plain(pair):
    """At Eb/N0 8 dB plain 16QAM has a bit error rate of 9e-3; the coded links make next to no errors."""
    sent = frames((80_000,))
    (back,), _ = received(pair, sent, 8.0)
    assert (bits(back) != bits(sent[0])).mean() < 2e-4


@pytest.mark.parametrize(
    ("pair", "ebn0_db", "low", "high"),
    [
        ("ldpc", 3.6, 0.7, 1.4),
        ("ldpc 4/5", 6.0, 0.7, 1.4),
        ("convolutional", 4.8, 1.0, 6.0),
        ("repetition", 5, 0.8, 1.25),
    ],
)
def test_the_estimate_tells_how_many_bits_are_wrong_now(pair, ebn0_db, low, high):
    """Closely behind LDPC, where some blocks fail, and repetition; behind Viterbi a bound. The channel's own stays."""
    sent = frames((200_000,))
    (back,), _ = received(pair, sent, ebn0_db)
    estimate, truth = back.tag("estimate"), (bits(back) != bits(sent[0])).mean()
    assert 1e-3 < truth < 0.05
    assert low * truth < estimate["ber"] < high * truth
    assert 0.03 < estimate["channel_ber"] < 0.16


def repeated(times, modulation, channel, output):
    """Share of 600,000 bits that are wrong behind repetition, with its 99.9 % interval."""
    (sent,) = frames((600_000,), seed=times)
    stream = run_block(Repeater({"times": times}), {"bits": [sent]})["bits"]
    stream = run_block(QamMapper({"modulation": modulation}), {"bits": stream})["symbols"]
    faded = run_block(channel, {"symbols": stream})
    if "gains" in faded:
        faded["symbols"] = run_block(Equalizer(), faded)["symbols"]
    demapper = QamDemapper({"modulation": modulation, "output": output, "noise": "known"})
    stream = run_block(demapper, faded)["bits"]
    (back,) = whole_frames(run_block(Combiner({"times": times}), {"bits": stream})["bits"])
    return theory.binomial_interval(int((bits(back) != bits(sent)).sum()), sent.count, 0.999)


@pytest.mark.parametrize(("modulation", "output"), [("bpsk", "llr"), ("qpsk", "llr8")])
@pytest.mark.parametrize("times", [1, 2, 5])
def test_repetition_gains_nothing_at_one_energy_a_bit(times, modulation, output):
    """Q(sqrt(2 Eb/N0)), however often it is cut in pieces."""
    low, high = repeated(times, modulation, AwgnChannel({"ebn0": 4}, "air", Context(seed=times)), output)
    assert low < theory.gaussian_tail((2 * theory.db_to_ratio(4)) ** 0.5) < high


@pytest.mark.parametrize("times", [2, 3])
def test_repetition_over_independent_fades_is_diversity(times):
    """Maximum ratio combining of L fades, J. G. Proakis, "Digital Communications", 14.4-15."""
    low, high = repeated(times, "bpsk", RayleighChannel({"ebn0": 9}, "air", Context(seed=9)), "llr")
    ratio = theory.db_to_ratio(9) / times
    mu = (ratio / (1 + ratio)) ** 0.5
    ways = sum(math.comb(times - 1 + k, k) * ((1 + mu) / 2) ** k for k in range(times))
    assert low < ((1 - mu) / 2) ** times * ways < high


def test_wrong_blocks_are_counted():
    sent = frames((512 * 200,))
    (back,), rows = received("ldpc", sent, 3.6)
    wrong = (bits(back) != bits(sent[0])).reshape(200, 512).any(1).sum()
    assert 0 < wrong < 150
    assert rows["blocks"] == 200
    assert wrong <= rows["blocks_wrong"] <= wrong + 10  # in some it is the check bits that are wrong
    assert 2 < rows["iterations"] <= 20


@pytest.mark.parametrize("pair", ["ldpc", "convolutional"])
def test_a_stream_cut_within_a_block_gives_what_came(pair):
    _, decoder, params = PAIRS[pair]
    whole = whole_frames(coded(pair, frames((1600,))))[0]
    cut = Packet(whole.data[:-5], 0, count=whole.count // 8 * 8 - 40, packed=True, last=True)
    warnings = []
    back = run_block(decoder(params, "decode", Context(warn=warnings.append)), {"bits": [cut]})["bits"]
    back = whole_frames(back)[0]
    size = params["block_bits"]
    kept = 1600 // size * size
    np.testing.assert_array_equal(bits(back)[:kept], bits(frames((1600,))[0])[:kept])
    assert any("ends within a code block" in warning for warning in warnings) or back.count < 1600


@pytest.mark.parametrize("rate", [0.1, 0.2, 0.3])
@pytest.mark.parametrize(("encoder", "decoder"), [(LdpcEncoder, LdpcDecoder), (ConvolutionalEncoder, ViterbiDecoder)])
def test_what_an_erasure_channel_loses_is_filled_in_and_no_more_missing(encoder, decoder, rate):
    sent = frames((20_000,))
    coded_bits = Interleaver({"length": 1 << 16}), Deinterleaver({"length": 1 << 16})
    stream = run_block(encoder(), {"bits": sent})["bits"]
    stream = run_block(coded_bits[0], {"bits": stream})["bits"]
    stream = run_block(ErasureChannel({"rate": rate, "length": 80}, "air", Context(seed=2)), {"bits": stream})["bits"]
    assert whole_frames(stream)[0].erased().mean() == pytest.approx(rate, abs=0.08)
    stream = run_block(coded_bits[1], {"bits": stream})["bits"]
    back = whole_frames(run_block(decoder(), {"bits": stream})["bits"])[0]
    wrong = (bits(back) != bits(sent[0])).sum()
    assert wrong == 0 or (decoder is ViterbiDecoder and rate > 0.2 and wrong < 20)
    assert back.erased() is None


def test_a_code_block_of_which_nothing_came_is_missing_and_the_others_are_not():
    sent = frames((3 * 1024,))
    (coded_frame,) = whole_frames(run_block(LdpcEncoder({"block_bits": 1024}), {"bits": sent})["bits"])
    n = coded_frame.count // 3
    gone = np.zeros(coded_frame.count, bool)
    gone[n : 2 * n] = True
    (back,) = whole_frames(
        run_block(LdpcDecoder({"block_bits": 1024}), {"bits": [coded_frame.with_erased(gone)]})["bits"]
    )
    assert Tag(1024, "erased", 1024) in back.tags
    kept = ~back.erased()
    np.testing.assert_array_equal(bits(back)[kept], bits(sent[0])[kept])
    assert kept.sum() == 2048


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"rate": "1/6"}, "must be 1/5 to 9/10, not 1/6"),
        ({"rate": "95 %"}, 'must be a fraction such as "1/2" or 0.5'),
        ({"rate": "1e999999999"}, 'must be a fraction such as "1/2" or 0.5, not .1e999999999.'),
        ({"rate": "1/0"}, 'must be a fraction such as "1/2" or 0.5, not .1/0.'),
        ({"rate": "9" * 5000}, f'must be a fraction such as "1/2" or 0.5, not .{"9" * 24}.'),
        ({"block_bits": 100}, "multiple of 8"),
        ({"block_bits": 9000}, "at most 8424"),
        ({"block_bits": 8424, "checksum": "crc32"}, "must have block_bits of at most 8416 with checksum: crc32"),
        ({"redundancy_versions": [0, 4]}, r"must be a list of versions 0 to 3, with 0, .* not \[0, 4\]"),
        ({"redundancy_versions": [2]}, r"must be a list of versions 0 to 3, with 0, .* not \[2\]"),
        ({"redundancy_versions": []}, r"must be a list of versions 0 to 3, with 0, .* not \[\]"),
    ],
)
def test_a_code_that_there_is_not_is_refused(params, message):
    with pytest.raises(ValueError, match=message):
        LdpcEncoder(params)


@pytest.mark.parametrize(("pair", "blocks"), [("ldpc", 40), ("convolutional", 41), ("repetition", 320)])
def test_the_interval_of_an_error_rate_is_made_of_code_blocks_where_their_errors_are_independent(pair, blocks):
    """Of one frame; under slow fading its blocks fade together, and one frame tells no spread."""
    sent, told = frames((20_480,)), {}
    context = Context(report=lambda section, frame, values: told.update(values))
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": received(pair, sent, 3.6)[0]})
    clusters = told["ber_clusters"]
    assert (clusters["clusters"], clusters["trials"], clusters["errors"]) == (blocks, 20_480, told["bit_errors"])
    assert told["ber_theory"] is None  # that of the channel, which is not the code's
    low, high = told["ber_interval"]
    assert 0 < low < told["ber"] < high < 0.2
    (back,) = received(pair, sent, 3.6)[0]
    slow = back.tag("true_channel") | {"kind": "rayleigh", "fading": "doppler"}
    back = replace(back, tags=(Tag(0, "true_channel", slow),))
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": [back]})
    assert told["ber_interval"] is None


@pytest.mark.parametrize(
    ("stages", "ebn0", "clusters"),
    [
        (["ldpc", "order"], 3.3, 400),  # the channel's errors are spread: blocks fail by themselves
        (["order", "ldpc"], 3.3, 10),  # the errors of a block are spread over its frame
        (["order", "convolutional", "ldpc"], 6.5, 10),
        (["convolutional", "order", "ldpc"], 6.5, 10),  # over several blocks of the other code
    ],
)
def test_the_interval_is_made_of_frames_where_an_interleaver_spreads_the_errors_of_code_blocks(stages, ebn0, clusters):
    both = {name: (there(params), back(params)) for name, (there, back, params) in PAIRS.items()}
    both["order"] = Interleaver({"length": 4096}), Deinterleaver({"length": 4096})
    sent, told = frames((20_480,) * 10), {}
    stream = sent
    for stage in stages:
        stream = run_block(both[stage][0], {"bits": stream})["bits"]
    stream = run_block(QamMapper(), {"bits": stream})["symbols"]
    stream = run_block(AwgnChannel({"ebn0": ebn0}, "air", Context(seed=3)), {"symbols": stream})["symbols"]
    stream = run_block(QamDemapper({"output": "llr8"}), {"symbols": stream})["bits"]
    for stage in reversed(stages):
        stream = run_block(both[stage][1], {"bits": stream})["bits"]
    context = Context(report=lambda section, frame, values: told.update(values))
    run_block(ErrorMeter({}, "errors", context), {"sent": sent, "received": stream})
    low, high = told["ber_interval"]
    assert told["ber_clusters"]["clusters"] == clusters
    assert 0 < low < told["ber"] < high
