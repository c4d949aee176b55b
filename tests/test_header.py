"""The code of headers and captions, and what a header says."""

import itertools
import struct

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.framing import golay
from blocks.framing.frame import HEADER_BITS, FrameError, Header, check
from blocks.framing.latents import FORMATS
from blocks.framing.scrambler import scrambling

EXAMPLE = Header(latent="quant8", shape=(4, 24, 24), text=True, caption_bytes=51)


def soft(bits):
    return 1 - 2 * bits.astype(np.float32)


# The code


def test_codebook_is_the_extended_golay_code():
    book = golay.codebook()
    weights = dict(zip(*np.unique(book.sum(1), return_counts=True), strict=True))
    assert weights == {0: 1, 8: 759, 12: 2576, 16: 759, 24: 1}  # the code is linear: these are its distances
    some = np.random.default_rng(1).integers(0, 4096, (2, 500))
    np.testing.assert_array_equal(book[some[0]] ^ book[some[1]], book[some[0] ^ some[1]])
    np.testing.assert_array_equal(
        np.packbits(np.pad(book[:, :12], ((0, 0), (4, 0))), axis=1).view(">u2")[:, 0], range(4096)
    )


@given(st.binary(max_size=60), st.data())
def test_eleven_errors_a_word_are_corrected(data, draw):
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    coded = golay.encode(bits)
    assert coded.size == golay.coded_length(bits.size)
    words = coded.size // 72
    rng = np.random.default_rng(draw.draw(st.integers(0, 2**32)))
    for word in range(words):
        nibble, bit = np.divmod(rng.choice(72, 11, replace=False), 4)  # four bits of every word in turn
        coded[4 * (nibble * words + word) + bit] ^= 1
    np.testing.assert_array_equal(golay.decode(soft(coded))[: bits.size], bits)


def test_two_of_three_copies_may_be_missing():
    bits = np.random.default_rng(2).integers(0, 2, 400).astype(np.uint8)
    values = soft(golay.encode(bits))
    for keep in range(3):
        one = np.zeros_like(values).reshape(3, -1)
        one[keep] = values.reshape(3, -1)[keep]
        np.testing.assert_array_equal(golay.decode(one.ravel())[:400], bits)


# The header


def test_header_is_laid_out_as_documented():
    fields = struct.pack(">BBHHHH", 0x18, 0xE0, 51, 4, 24, 24)
    message = np.unpackbits(np.frombuffer(fields + check(fields), np.uint8))
    np.testing.assert_array_equal(EXAMPLE.pack(), golay.encode(message))
    assert HEADER_BITS == EXAMPLE.pack().size == 576
    assert check(b"123456789") == b"\x29\xb1"  # the catalogued check value of CRC-16/IBM-3740


sides = st.integers(1, 65535)


@given(
    st.one_of(st.none(), st.tuples(st.sampled_from(FORMATS), st.tuples(sides, sides, sides))),
    st.one_of(st.none(), st.integers(0, 65535)),
    st.booleans(),
    st.booleans(),
)
def test_headers_come_back(latent, caption, coded, scrambled):
    form, shape = latent or (None, (0, 0, 0))
    header = Header(form, shape, caption is not None, caption or 0, coded, scrambled)
    assert Header.unpack(soft(header.pack())) == header
    assert Header.from_tag(msgspec.json.decode(msgspec.json.encode(header.as_tag()))) == header


def test_candidates_begin_with_the_likeliest_and_hold_what_was_sent():
    """Two of eight words are wrong, each closer to its neighbour by a little."""
    bits, values = golay.decode(soft(EXAMPLE.pack())), damaged_header()
    found = list(golay.candidates(values, 3))
    assert len({each.tobytes() for each in found}) == 8
    assert (golay.decode(values) == found[0]).all()
    assert [(each == bits).all() for each in found].index(True) == 3  # after none, one and the other of them
    with pytest.raises(FrameError, match="header damaged"):
        Header.unpack(values, 1)
    assert Header.unpack(values, 2) == EXAMPLE


def damaged_header():
    """Soft values of the example's header, in two words of which a neighbour is a little closer."""
    values = soft(EXAMPLE.pack()).reshape(golay.COPIES, golay.WORD // 4, -1, 4)
    book = soft(golay.codebook())
    for word in (0, 3):
        sent = values[0, :, word].ravel()
        neighbour = book[np.argsort((book != sent).sum(1), kind="stable")[1]]
        values[:, :, word] = (0.45 * sent + 0.55 * neighbour).reshape(-1, 4)
    return values.ravel()


def test_repaired_by_chance_are_no_more_than_the_checksum_lets():
    """Of noise 2^repair in 65,536 pass for a header; of those more than one in 10,000 would be a defect."""
    noise = np.random.default_rng(1).standard_normal((200, HEADER_BITS)).astype(np.float32)
    passed = 0
    for each in noise:
        try:
            Header.unpack(each, 6)
            passed += 1
        except FrameError as error:
            passed += str(error) != "header damaged"
    assert passed <= 3  # 0.2 expected: 1 in 10,000 by Poisson's law


def test_other_versions_and_unknown_fields_are_named():
    def header(*fields):
        data = struct.pack(">BBHHHH", *fields)
        return soft(golay.encode(np.unpackbits(np.frombuffer(data + check(data), np.uint8))))

    for fields, message in (
        ((0x28, 0, 0, 4, 8, 8), "frame of version 2, not 1"),
        ((0x18, 1, 0, 4, 8, 8), "header with unknown flags"),
        ((0x19, 0, 0, 4, 8, 8), "header makes no sense: Invalid enum value 'unknown'"),
        ((0x18, 0, 0, 4, 0, 8), r"header makes no sense: latent quant8 cannot be of shape \(4, 0, 8\)"),
    ):
        with pytest.raises(FrameError, match=message):
            Header.unpack(header(*fields))
    for nothing in (np.zeros(HEADER_BITS, np.float32), soft(np.ones(HEADER_BITS, np.uint8))):
        with pytest.raises(FrameError, match="header damaged"):
            Header.unpack(nothing)


@pytest.mark.parametrize("tag", [3, {"shape": [1, 2]}, {"latent": "quant9"}, {"caption_bytes": -1}, {"more": 1}])
def test_a_genie_that_talks_nonsense_is_not_believed(tag):
    with pytest.raises(FrameError, match="header makes no sense"):
        Header.from_tag(tag)


def flipped(rng, bits):
    return bits ^ (rng.random(bits.size) < 0.0419)


def over_16qam(rng, bits):
    """Hard decisions on scrambled 16QAM (TS 38.211, 5.1.4) at Eb/N0 5 dB."""
    scrambler = np.unpackbits(scrambling(0, bits.size // 8))
    bits = bits ^ scrambler
    b = 1 - 2.0 * bits.reshape(-1, 2, 2)  # symbol, sign or amplitude, real or imaginary
    sent = b[:, 0] * (2 - b[:, 1])  # times sqrt(10); N0/2 a dimension
    noise = rng.standard_normal(sent.shape) * np.sqrt(10 / (2 * 4 * 10**0.5))
    received = sent + noise
    return np.stack([received < 0, np.abs(received) > 2], 1).astype(np.uint8).ravel() ^ scrambler


@pytest.mark.parametrize("channel", [flipped, over_16qam])
def test_headers_survive_at_5_db(channel):
    """0 wrong of 6,000 puts the 99 % upper bound of the failure rate at 1 - .01^(1/6000) = 7.7e-4 < 1e-3."""
    rng = np.random.default_rng(3)
    coded, errors = EXAMPLE.pack(), 0
    for _ in range(6000):
        received = channel(rng, coded)
        errors += np.count_nonzero(received != coded)
        assert Header.unpack(soft(received)) == EXAMPLE
    rate = errors / (6000 * HEADER_BITS)
    assert rate == pytest.approx(0.0419, rel=0.03)  # the channel was as bad as claimed


def test_captions_survive_where_headers_do():
    """A caption of 50 characters: 35 words. 0 wrong of 1,000 bounds the failure rate by 4.6e-3 at 99 %."""
    rng = np.random.default_rng(4)
    bits = rng.integers(0, 2, 8 * 52).astype(np.uint8)
    coded = golay.encode(bits)
    for _ in range(1000):
        np.testing.assert_array_equal(golay.decode(soft(flipped(rng, coded)))[: bits.size], bits)


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_random_headers_are_refused_or_consistent(seed):
    values = np.random.default_rng(seed).standard_normal(HEADER_BITS).astype(np.float32)
    try:
        header = Header.unpack(values)
    except FrameError:
        return
    assert Header.unpack(soft(header.pack())) == header


def test_every_kind_of_frame_adds_up():
    for form, text, coded, side in itertools.product([None, *FORMATS], *[[False, True]] * 3):
        header = Header(form, (3, 5, 7) if form else (0, 0, 0), text, 9 * text, coded, True, side)
        assert header.latent_start % 8 == 0
        assert header.bits == header.latent_start + header.latent_bits
        if text and not coded:
            assert header.caption_bits == 8 * (9 + (0 if side else 2))
