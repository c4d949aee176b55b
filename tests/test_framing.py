"""Frames of captions and latents: bit by bit as documented, back again, and through everything that can go wrong."""

import struct
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.framing import calibration, golay, latents
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.frame import HEADER_BITS, Header, check
from blocks.framing.scrambler import scrambling
from blocks.framing.serializer import BitSerializer
from flowgraph.block import BlockError, Context, Packet, Tag
from flowgraph.runner import join
from flowgraph.testing import check_packet_invariance, recut, run_block

CAPTION = b"a dog runs along the beach with a ball in its mouth"
PAPER = {"header": "side", "caption": "plain", "scramble": False}
FLOATS = ["float64", "float32", "float16"]
QUANTISERS = ["quant8", "quant7", "quant6", "quant5", "quant4"]


def text(caption=CAPTION, frame=0):
    return Packet(np.frombuffer(caption, np.uint8), frame, last=True)


def latent(shape=(4, 8, 8), frame=0, seed=1):
    values = np.random.default_rng([seed, frame]).standard_normal((1, *shape), np.float32)
    return Packet(values, frame, last=True)


def send(text=None, latent=None, reports=None, warnings=None, **params):
    context = Context(
        report=lambda section, frame, values: None if reports is None else reports.append((section, values)),
        warn=lambda message: None if warnings is None else warnings.append(message),
    )
    inputs = {name: [packet] for name, packet in (("text", text), ("latent", latent)) if packet is not None}
    (packet,) = run_block(BitSerializer(params, "pack", context), inputs)["bits"]
    return packet


def receive(packet, rows=None, seed=0, **params):
    """Return text and latent of one frame, which must be one packet each, with a status."""
    context = Context(seed=seed, report=lambda section, frame, values: None if rows is None else rows.append(values))
    made = run_block(BitDeserializer(params, "unpack", context), {"bits": [packet]})
    (got_text,), (got_latent,) = made["text"], made["latent"]
    assert got_text.last
    assert got_latent.last
    assert got_text.frame == got_latent.frame == packet.frame
    assert {got_text.tag("status"), got_latent.tag("status")} <= {"ok", "damaged", "lost", "absent"}
    return got_text, got_latent


def bits_of(packet):
    return np.unpackbits(packet.data, count=packet.count)


def with_bits(packet, bits, *tags):
    return replace(packet, data=np.packbits(bits), count=bits.size, tags=packet.tags + tags)


def as_llr(packet, kind=np.float32, size=25.0):
    values = size * (1 - 2 * bits_of(packet).astype(np.float32))
    return replace(packet, data=values.astype(kind), packed=False)


def flipped(packet, ber, spread="equal", seed=1):
    rates = calibration.rates(ber, spread, packet.count)
    flips = np.random.default_rng([seed, packet.frame]).random(packet.count) < rates
    return with_bits(packet, bits_of(packet) ^ flips)


# Layout


@pytest.mark.parametrize(("form", "code"), [("float64", "d"), ("float32", "f"), ("float16", "e")])
def test_the_papers_frame_is_ascii_and_big_endian_ieee_754(form, code):
    values = latent((2, 3, 5))
    frame = send(text(), values, latent=form, **PAPER)
    assert frame.data.tobytes() == CAPTION + struct.pack(f">30{code}", *values.data.ravel())
    assert frame.count == 8 * len(frame.data)
    assert frame.tag("side_header")["caption_bytes"] == len(CAPTION)


def test_frame_is_laid_out_as_documented():
    values = latent((1, 2, 3))
    frame = send(text(b"hello"), values, latent="quant5")
    header = Header("quant5", (1, 2, 3), True, 5)
    clear = frame.data ^ scrambling(0, len(frame.data))
    coded_caption = golay.encode(np.unpackbits(np.frombuffer(b"hello" + check(b"hello"), np.uint8)))
    body = np.concatenate([header.pack(), coded_caption, latents.write_quantised(values.data.ravel(), "quant5")])
    assert frame.count == body.size == HEADER_BITS + 5 * 72 + 30
    np.testing.assert_array_equal(np.unpackbits(clear, count=frame.count), body)
    assert frame.data[-1] & 0b11 == 0  # what is left of the last byte
    assert [tag for tag in frame.tags if tag.key == "protection"] == [
        Tag(0, "protection", "header"),
        Tag(576, "protection", "caption"),
        Tag(936, "protection", "latent"),
    ]


def test_scrambler_restarts_with_every_frame():
    block = BitSerializer({"latent": "float32"})
    made = run_block(block, {"latent": [replace(latent(), frame=frame) for frame in (0, 3)]})["bits"]
    np.testing.assert_array_equal(made[0].data, made[1].data)


# There and back

shapes = st.tuples(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7))


@settings(max_examples=60, deadline=None)
@given(
    shapes,
    st.binary(max_size=80).map(lambda data: bytes(b & 127 for b in data)),
    st.sampled_from(FLOATS + QUANTISERS),
    st.sampled_from(["coded", "side"]),
    st.sampled_from(["coded", "plain"]),
    st.booleans(),
    st.sampled_from(["both", "text", "latent"]),
)
def test_without_errors_everything_comes_back(shape, caption, form, header, captions, scramble, parts):
    given_text = text(caption) if parts != "latent" else None
    given_latent = latent(shape) if parts != "text" else None
    frame = send(given_text, given_latent, latent=form, header=header, caption=captions, scramble=scramble)
    for received in (frame, as_llr(frame), as_llr(frame, np.int8, 100)):
        got_text, got_latent = receive(received, header=header)
        if given_text:
            printable = captions == "coded" or header == "coded" or all(32 <= b < 127 for b in caption)
            if printable:
                assert (got_text.data.tobytes(), got_text.tag("status")) == (caption, "ok")
        else:
            assert (got_text.count, got_text.tag("status")) == (0, "absent")
        if given_latent:
            assert got_latent.data.shape == (1, *shape)
            assert got_latent.data.dtype == np.float32
            assert got_latent.tag("status") == "ok"
            step = {"float64": 0, "float32": 0, "float16": 4e-3}.get(form, 8 / 2 ** int(form[-1]) if form in QUANTISERS else 0)
            # A receiver of hard decisions allows for a few errors where it saw none.
            allowed = step * (1.1 if received.packed else 1.01) + (0.1 if received.packed and form in QUANTISERS else 0)
            inside = np.abs(given_latent.data) < 3.5
            assert np.abs(got_latent.data - given_latent.data)[inside].max(initial=0) <= allowed
        else:
            assert (got_latent.count, got_latent.tag("status")) == (0, "absent")


@pytest.mark.parametrize("form", ["float64", "float32"])
def test_floats_come_back_to_the_last_bit(form):
    values = latent((4, 24, 24))
    values.data[0, 0, 0, :4] = [0.0, -0.0, 1e-30, 3.9999998]
    _, got = receive(send(text(), values, latent=form))
    assert got.data.tobytes() == values.data.tobytes()


@pytest.mark.parametrize("form", [*FLOATS, *QUANTISERS])
def test_soft_and_hard_bits_agree_without_noise(form):
    frame = send(text(), latent((4, 24, 24)), latent=form)
    certain = Tag(frame.count, "estimate", {"ber": 0.0})
    hard = receive(replace(frame, tags=(*frame.tags, certain)))
    for kind, size in ((np.float32, 13.8), (np.int8, 4 * 13.75)):
        for a, b in zip(receive(as_llr(frame, kind, size)), hard, strict=True):
            np.testing.assert_allclose(a.data, b.data, atol=1e-3)


@pytest.mark.parametrize("dtype", ["bits", "float32", "int8"])
def test_packet_boundaries_do_not_matter(dtype):
    kinds = {"bits": lambda p: p, "float32": as_llr, "int8": lambda p: as_llr(p, np.int8, 60)}
    frames = [kinds[dtype](send(text(frame=n), latent((1, 3, 3), n), latent="quant5")) for n in (0, 1, 4)]
    made = check_packet_invariance(BitDeserializer, {}, {"bits": frames})
    assert [p.frame for p in made["text"]] == [p.frame for p in made["latent"]] == [0, 1, 4]


# What is sent


def test_a_part_lost_before_the_serializer_is_left_out():
    made = run_block(
        BitSerializer(), {"text": [text(frame=1), text(frame=2)], "latent": [latent(frame=0), latent(frame=2)]}
    )["bits"]
    statuses = [[part.tag("status") for part in receive(packet)] for packet in made]
    assert statuses == [["absent", "ok"], ["ok", "absent"], ["ok", "ok"]]


def test_numbers_that_are_none_are_sent_as_zero_with_a_warning():
    values, warnings = latent((1, 2, 2)), []
    values.data[0, 0] = [[np.nan, np.inf], [-np.inf, 2.0]]
    _, got = receive(send(latent=values, latent_format=None, warnings=warnings) if False else _send_bad(values, warnings))
    assert warnings == ["frame 0: 3 of 4 latent values are not finite: sent as 0"]
    np.testing.assert_array_equal(got.data[0, 0], [[0, 0], [0, 2]])
