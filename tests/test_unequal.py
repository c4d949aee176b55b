"""Unequal protection: every frame comes back, its energy is counted, what is damaged is told and harms no others."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from benchmarks import unequal as benchmark
from blocks.fec import preamble
from blocks.fec.preamble import Stretch
from blocks.fec.unequal import UnequalDemodulator, UnequalModulator
from blocks.framing.frame import FrameError
from blocks.phy.channel import AwgnChannel, Equalizer, RayleighChannel
from blocks.sink.errors import ErrorMeter
from flowgraph.block import Context, Packet, Tag
from flowgraph.config.load import load
from flowgraph.config.mistake import ConfigError
from flowgraph.testing import check_packet_invariance, run_block, whole_frames

PROFILE = {
    "header": {"modulation": "qpsk"},
    "caption": {"code": "repetition", "rate": "1/3", "modulation": "bpsk"},
    "plane1": {"code": "ldpc", "rate": "1/3", "modulation": "qpsk"},
    "plane2": {"code": "convolutional", "rate": "3/4", "modulation": "8psk"},
    "default": {"code": "ldpc", "rate": 0.75, "modulation": "64qam"},
}
MARKS = ((0, "header"), (576, "caption"), (1001, "plane1"), (3306, "plane2"), (5611, "plane3"))


def frame(count=9000, marks=MARKS, number=0, seed=1):
    bits = np.random.default_rng([seed, number]).integers(0, 2, count, np.uint8)
    tags = tuple(Tag(at, "protection", part) for at, part in marks)
    return Packet(np.packbits(bits), number, count=count, packed=True, tags=tags, last=True)


def bits(packet):
    return np.unpackbits(packet.data, count=packet.count) if packet.packed else (packet.data < 0).astype(np.uint8)


def modulate(*frames, profile=PROFILE):
    return run_block(UnequalModulator({"profile": profile}), {"bits": list(frames)})["symbols"]


def demodulate(*symbols, profile=PROFILE, output="hard", told=None, warnings=None):
    context = Context(
        report=lambda section, number, values: None if told is None else told.update(values),
        warn=lambda message: None if warnings is None else warnings.append(message),
    )
    block = UnequalDemodulator({"profile": profile, "output": output}, "demodulate", context)
    return run_block(block, {"symbols": list(symbols)})["bits"]


def noisy(symbols, seed=3, **snr):
    return run_block(AwgnChannel(snr, "air", Context(seed=seed)), {"symbols": symbols})["symbols"]


def starts(packet):
    """Symbols at which the stretches of a modulated frame begin, and its end."""
    return [*[tag.offset for tag in packet.tags if tag.key == "modulation"][1:], packet.count]


# There and back


@pytest.mark.parametrize("output", ["hard", "llr8"])
def test_every_frame_comes_back_however_it_is_cut(output):
    sent = [
        frame(),
        frame(0, (), 1),
        frame(1, (), 2),
        frame(777, (), 3),  # no tags: all by `default`
        frame(500, ((0, "latent"), (13, "my own class"), (14, "plane1"), (14, "plane2"), (600, "header")), 4),
    ]
    symbols = check_packet_invariance(UnequalModulator, {"profile": PROFILE}, {"bits": sent})["symbols"]
    params = {"profile": PROFILE, "output": output}
    back = check_packet_invariance(UnequalDemodulator, params, {"symbols": symbols})["bits"]
    for a, b in zip(sent, whole_frames(back), strict=True):
        assert (b.frame, b.count, b.last, b.packed) == (a.frame, a.count, True, output == "hard")
        np.testing.assert_array_equal(bits(b), bits(a))
        assert b.erased() is None


def test_tags_find_their_bits_again():
    sent = replace(frame(), tags=(*frame().tags, Tag(0, "code_rate", 0.5), Tag(0, "pixel_values", 9)))
    (back,) = demodulate(*modulate(sent))
    kept = [tag for tag in back.tags if tag.key in ("protection", "code_rate", "pixel_values")]
    assert sorted(kept, key=str) == sorted(sent.tags, key=str)


def test_neighbours_protected_alike_are_one_stretch():
    profile = {"plane1": PROFILE["plane1"], "plane2": PROFILE["plane1"], "default": PROFILE["default"]}
    (symbols,) = modulate(frame(), profile=profile)
    assert len(starts(symbols)) == 3 + 1  # what is before plane1, both planes, what is behind


def test_a_stretch_longer_than_a_preamble_can_tell_goes_in_parts():
    sent = frame(preamble.LONGEST + 5, ())
    profile = {"default": {"modulation": "256qam"}}
    (symbols,) = modulate(sent, profile=profile)
    assert len(starts(symbols)) == 2 + 1
    (back,) = demodulate(symbols, profile=profile)
    np.testing.assert_array_equal(bits(back), bits(sent))


def test_a_stretch_little_longer_than_a_code_block_is_as_safe_as_others():
    """At Es/N0 2 dB blocks of 4,224 bits come right; one of the 40 left beside 8,400 would in 3 % of frames."""
    profile, told = {"default": {"code": "ldpc", "rate": "1/2", "modulation": "qpsk"}}, {}
    sent = [frame(8440, (), number) for number in range(12)]
    back = demodulate(*noisy(modulate(*sent, profile=profile), esn0=2), profile=profile, told=told)
    assert (told["blocks"], told["blocks_wrong"]) == (24, 0)
    for a, b in zip(sent, back, strict=True):
        np.testing.assert_array_equal(bits(b), bits(a))


def test_behind_fading_the_gains_weigh_the_symbols():
    air = RayleighChannel({"esn0": 25}, "air", Context(seed=4))
    faded = run_block(air, {"symbols": modulate(frame(40_000, MARKS))})
    equalised = run_block(Equalizer(), {"symbols": faded["symbols"], "gains": faded["gains"]})["symbols"]
    inputs = {"symbols": equalised, "gains": faded["gains"]}
    back = whole_frames(run_block(UnequalDemodulator({"profile": PROFILE}), inputs)["bits"])[0]
    wrong = bits(back) != bits(frame(40_000, MARKS))
    assert wrong[:576].mean() < 0.01  # uncoded
    assert not wrong[1001:].any()
    assert back.tag("estimate")["n0"] == pytest.approx(10**-2.5, rel=0.3)


# What it costs, and what is told


def test_all_energy_of_a_frame_is_counted_over_its_payload():
    """With Es = 1, N0 = energy of the frame / payload bits / (Eb/N0): preamble, parity and padding included."""
    sent = replace(frame(), tags=(*frame().tags, Tag(0, "code_rate", 0.5)))
    (symbols,) = modulate(sent)
    expected = 468 + 288 + 1275 + 3458 + 1028 + 754  # preamble of 13 words, header, caption, planes 1 and 2, the rest
    assert symbols.count == expected
    told = noisy([symbols], ebn0=6)[0].tag("true_channel")
    n0 = symbols.count / sent.count / 10**0.6
    assert told["n0"] == pytest.approx(n0, rel=1e-6)
    assert told["ebn0_db"] == pytest.approx(6 + 10 * np.log10(2))  # over the information bits alone
    assert told["bits_per_use"] == pytest.approx(sent.count / symbols.count)
    points = np.concatenate([symbols.data[a:b] for a, b in zip(starts(symbols), starts(symbols)[1:], strict=False)])
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1, abs=0.03)


def test_an_outer_codes_rate_multiplies():
    (symbols,) = modulate(frame().tagged(link_rate=0.5))
    (alone,) = modulate(frame())
    assert symbols.tag("link_rate") == pytest.approx(0.5 * alone.tag("link_rate"))


def test_the_channel_is_told_the_same_however_symbols_are_cut():
    check_packet_invariance(AwgnChannel, {"ebn0": 6}, {"symbols": modulate(frame(2000))}, ragged=(300, 17, 512))


def test_symbol_errors_are_those_of_every_stretchs_modulation():
    profile = {"header": {"modulation": "qpsk"}, "default": {"modulation": "64qam"}}
    symbols = modulate(frame(200_000, ((0, "header"), (50_000, "latent"))), profile=profile)
    told = {}
    context = Context(report=lambda section, number, values: told.update(values))
    run_block(ErrorMeter(context=context), {"sent": symbols, "received": noisy(symbols, esn0=12)})
    assert told["ser"] == pytest.approx(told["ser_theory"], rel=0.05)
    assert told["snr_measured_db"] == pytest.approx(12, abs=0.1)


def test_every_stretch_tells_its_own_error_rate_and_blocks_are_counted():
    profile = {"plane1": PROFILE["plane1"], "plane2": PROFILE["plane2"], "default": {"modulation": "16qam"}}
    sent, told = frame(60_000, ((0, "plane1"), (20_000, "plane2"), (40_000, "plane3"))), {}
    symbols = noisy(modulate(sent, profile=profile), esn0=10)
    (back,) = demodulate(*symbols, profile=profile, told=told)
    estimates = [tag for tag in back.tags if tag.key == "estimate"]
    assert [tag.offset for tag in estimates] == [0, 20_000, 40_000]
    wrong = bits(back) != bits(sent)
    for tag, modulation in zip(estimates, ("qpsk", "8psk", "16qam"), strict=True):
        assert tag.value["n0"] == pytest.approx(0.1, rel=0.25)
        assert tag.value["source"] == "preamble"
        assert 0 <= tag.value["channel_ber"] < 0.1, modulation
    assert not wrong[:20_000].any()
    assert estimates[0].value["ber"] < 1e-6
    assert estimates[2].value["ber"] == pytest.approx(wrong[40_000:].mean(), rel=0.25)
    assert (told["blocks"], told["blocks_wrong"], told["bler"], told["preambles_wrong"]) == (3, 0, 0, 0)
    assert told["protection"]["qpsk, ldpc 1/3"]["blocks"] == 3
    assert back.tag("true_channel")["coded"]


def test_decisions_of_a_viterbi_decoder_are_as_sure_as_their_error_rate():
    profile = {"default": {"code": "convolutional", "rate": "1/2", "modulation": "qpsk"}}
    symbols = noisy(modulate(frame(50_000, ()), profile=profile), esn0=1.5)
    (back,) = demodulate(*symbols, profile=profile, output="llr8")
    size = np.unique(np.abs(back.data))
    p = back.tag("estimate")["ber"]
    assert list(size) == [round(4 * np.log((1 - p) / p))]


# What is damaged


def test_preambles_survive_where_nothing_else_would():
    """0 wrong of 3,000 at Es/N0 2 dB puts the 99 % upper bound of the failure rate at 1.5e-3; at 5 dB it is nil."""
    stretches = [Stretch(0, 3168), Stretch(1, 6912), Stretch(2, 6912), Stretch(3, 4608)]
    sent = preamble.encode(stretches, b"profile")
    rng = np.random.default_rng(6)
    for _ in range(3000):
        soft = 1 - 2 * sent.astype(np.float32) + rng.standard_normal(sent.size, np.float32) * 10**-0.1
        assert preamble.decode(soft, b"profile") == stretches


def test_preamble_is_laid_out_as_documented():
    from blocks.framing import golay
    from blocks.framing.frame import check

    coded = preamble.encode([Stretch(2, 1), Stretch(15, preamble.LONGEST)], b"p")
    fields = bytes.fromhex("200000ffffff")
    rest = np.frombuffer(fields + check(b"p" + b"\x00\x02" + fields), np.uint8)
    first = np.array([0] * 10 + [1, 0], np.uint8)
    np.testing.assert_array_equal(coded, np.concatenate([golay.encode(first), golay.encode(np.unpackbits(rest))]))
    with pytest.raises(FrameError, match="made by another profile"):
        preamble.decode(1 - 2 * coded.astype(np.float32), b"q")


@pytest.mark.parametrize(
    "stretches", [[Stretch(16, 5)], [Stretch(-1, 5)], [Stretch(0, 0)], [Stretch(0, (1 << 20) + 1)]]
)
def test_a_stretch_that_no_preamble_can_tell_of_is_refused(stretches):
    with pytest.raises(ValueError, match="stretches must have schemes 0 to 15 and 1 to 1048576 bits"):
        preamble.encode(stretches, b"")


def test_ends_with_different_profiles_refuse_each_other():
    other = PROFILE | {"default": {"modulation": "64qam"}}
    warnings, told = [], {}
    (back,) = demodulate(*modulate(frame(number=5)), profile=other, warnings=warnings, told=told)
    assert (back.frame, back.count, back.last) == (5, 0, True)
    assert warnings == ["frame 5 is lost: preamble damaged, or made by another profile"]
    assert told["preambles_wrong"] == 1


@pytest.mark.parametrize("count", [1, 35, 60, 250])
def test_a_frame_cut_within_its_preamble_is_lost_and_the_next_is_not(count):
    first, second = modulate(frame(), frame(number=1))
    made = demodulate(replace(first, data=first.data[:count], count=count, tags=()), second)
    assert [packet.count for packet in made] == [0, 9000]
    np.testing.assert_array_equal(bits(made[1]), bits(frame(number=1)))


def test_of_a_stream_cut_in_the_middle_the_rest_is_erased_and_the_length_is_kept():
    (symbols,) = modulate(frame())
    at = starts(symbols)[3]  # plane2 begins
    (back,) = demodulate(replace(symbols, data=symbols.data[:at], count=at))
    assert back.count == 9000
    np.testing.assert_array_equal(back.erased(), np.arange(9000) >= 3306)
    np.testing.assert_array_equal(bits(back)[:3306], bits(frame())[:3306])


def test_a_lost_stretch_is_erased_and_harms_no_other():
    (symbols,) = modulate(frame())
    begin, end = starts(symbols)[2:4]
    gone = np.zeros(symbols.count, bool)
    gone[begin:end] = True
    data = np.where(gone, np.complex64(0), symbols.data)
    (back,) = demodulate(replace(symbols, data=data).with_erased(gone))
    np.testing.assert_array_equal(np.flatnonzero(back.erased()), np.arange(1001, 3306))
    kept = ~back.erased()
    np.testing.assert_array_equal(bits(back)[kept], bits(frame())[kept])


def test_a_preamble_never_makes_the_receiver_allocate_much():
    profile = {"default": {"modulation": "qpsk"}}
    (symbols,) = modulate(frame(1 << 17, ()), profile=profile)
    warnings = []
    (back,) = demodulate(replace(symbols, data=symbols.data[:400], count=400), profile=profile, warnings=warnings)
    assert back.count == 0
    assert "400 symbols came where the preamble tells of" in warnings[0]


@pytest.mark.parametrize("value", [np.nan, np.inf, 0])
def test_symbols_that_are_no_numbers_are_no_fault(value):
    (symbols,) = modulate(frame())
    (back,) = demodulate(replace(symbols, data=np.full_like(symbols.data, value)), output="llr8")
    assert back.count == 0
    data = symbols.data.copy()
    data[400::50] = value
    (back,) = demodulate(replace(symbols, data=data), output="llr8")
    assert back.count == 9000
    np.testing.assert_array_equal(bits(back)[1001:3306], bits(frame())[1001:3306])


# Profiles


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("header: {}", "must have an entry `default`"),
        ("default: {code: ldpc, rate: 1/6}", "must have a rate of 1/5 to 9/10 for code: ldpc, not 1/6"),
        ("default: {code: ldpc}", "must have a rate of 1/5 to 9/10 for code: ldpc, not 1"),
        ("default: {code: convolutional, rate: 3/5}", "must have a rate of 1/2, 2/3, 3/4 or 5/6 for code: conv"),
        ("default: {code: repetition, rate: 2/5}", "must have a rate of 1/2, 1/3, ... 1/1000 for code: rep"),
        ("default: {rate: 1/2}", "must have a rate of 1 for code: none, not 1/2"),
        ("default: {rate: half}", 'must be a fraction such as "1/2" or 0.5'),
        ("default: {code: repetition, rate: 1e-999999999}", 'must be a fraction such as "1/2" or 0.5'),
        ("default: {rate: 0}", "must be more than 0"),
        ("default: {modulation: 32qam}", "must be bpsk, qpsk, 8psk, 16qam, 64qam, 256qam or a list of points"),
        ("default: {code: turbo}", "must be 'none', 'repetition', 'convolutional' or 'ldpc', not 'turbo'"),
        ("default: {}, captoin: {}", "not 'captoin'"),
    ],
)
def test_a_profile_that_cannot_be_is_refused_with_its_place(tmp_path, entry, message):
    path = tmp_path / "graph.yaml"
    link = f"link: {{graph: {ROOT}/configs/links/unequal.yaml, profile: {{{entry}}}}}"
    path.write_text(
        f"flowgraph: x\nblocks:\n  source: {{use: bit_source}}\n  {link}\n  meter: {{use: error_meter}}\n"
        "wires:\n  - source.bits -> link.bits -> meter.received\n  - source.bits -> meter.sent\n"
    )
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert message in str(caught.value)
    assert "graph.yaml:4:" in str(caught.value)


# That it pays


@pytest.mark.parametrize(("esn0_db", "most"), [(0, 0.1), (1, 0.08), (3, 0.0056)])
def test_the_shipped_profile_has_the_errors_of_the_documented_table(esn0_db, most):
    found = benchmark.cross(benchmark.shipped(), esn0_db, benchmark.gaussian(3))
    assert found.captions == 1
    assert 0.6 * most < found.mse < most


def test_below_the_uniform_codes_threshold_unequal_protection_wins_at_equal_uses():
    sent, link = benchmark.gaussian(3), benchmark.shipped()
    ours = benchmark.cross(link, 0, sent)
    _, link = benchmark.uniform("qpsk", link.latent, sent, ours.symbols)
    uniform = benchmark.cross(link, 0, sent)
    assert abs(uniform.symbols - ours.symbols) < 4
    assert ours.mse < 0.2 * uniform.mse
