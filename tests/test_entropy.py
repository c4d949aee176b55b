"""Entropy coding: whatever goes in comes out, near the entropy; what is damaged is told and dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.framing import entropy
from blocks.framing.deserializer import BitDeserializer
from blocks.framing.frame import Header
from blocks.framing.serializer import BitSerializer
from flowgraph.block import Packet
from flowgraph.testing import run_block

# None of them is in the primer.
CAPTIONS = [
    b"a man in a blue jacket is walking a dog along the river.",
    b"two children in swimsuits are splashing in a pool.",
    b"a brown horse is jumping over a wooden fence.",
    b"a woman with long hair is reading a book on a train.",
]


@given(st.lists(st.integers(1, 1000), min_size=2, max_size=9), st.data())
def test_symbols_come_back_and_take_their_information(weights, draw):
    frequencies = np.array(weights)
    symbols = draw.draw(st.lists(st.integers(0, len(weights) - 1), max_size=60))
    data = entropy.encode(symbols, [frequencies] * len(symbols))
    assert entropy.decode(data, lambda known: frequencies, len(symbols)) == symbols
    information = -np.log2(frequencies[symbols] / frequencies.sum()).sum() if symbols else 0.0
    slack = len(symbols) * np.log2(1 + frequencies.sum() / 2**12)  # of the first symbols, while the state is small
    assert len(data) <= information / 8 + 2 + slack


def test_length_is_the_entropy():
    """Of 4,000 draws within 0.5 %, 4 standard deviations of their own information."""
    frequencies = np.array([700, 200, 90, 10])
    p = frequencies / 1000
    symbols = np.random.default_rng(1).choice(4, 4000, p=p).tolist()
    bits = 8 * len(entropy.encode(symbols, [frequencies] * 4000))
    information = -np.log2(p[symbols]).sum()
    assert information - 8 < bits < information + 16


@given(st.binary(max_size=120).map(lambda data: bytes(byte & 127 for byte in data)))
@settings(deadline=None)
def test_any_ascii_text_comes_back(text):
    assert entropy.expand(entropy.compress(text)) == text


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_any_bytes_are_a_text_or_refused(data):
    try:
        text = entropy.expand(data)
    except ValueError:
        return
    assert entropy.compress(text) == data.lstrip(b"\0")


@given(st.binary(max_size=40))
@settings(deadline=None)
def test_a_text_that_does_not_end_is_refused_at_once(data):
    """After about one character for every 7 bits that came."""
    before = []
    with pytest.raises(ValueError, match="it does not end"):
        entropy.decode(data, lambda known: before.append(0) or np.full(entropy.END, 1 << 13), end=entropy.END)
    assert len(before) < 8 * (len(data) + 1) + entropy.ORDER


def test_captions_take_less_than_a_third_of_ascii():
    ascii_bytes, coded = sum(map(len, CAPTIONS)), sum(len(entropy.compress(text)) for text in CAPTIONS)
    assert coded < ascii_bytes / 3


def frame(text, **params):
    sent = Packet(np.frombuffer(text, np.uint8), last=True)
    return run_block(BitSerializer({"compress": True, **params}), {"text": [sent]})["bits"]


@given(st.binary(max_size=60).map(lambda data: bytes(byte & 127 for byte in data)), st.sampled_from(["coded", "plain"]))
@settings(max_examples=30, deadline=None)
def test_compressed_captions_cross_in_a_frame(caption, how):
    (text,) = run_block(BitDeserializer(), {"bits": frame(caption, caption=how)})["text"]
    assert (text.data.tobytes(), text.tag("status")) == (caption, "ok")


def test_a_damaged_compressed_caption_is_dropped_and_told():
    (bits,) = frame(CAPTIONS[0], caption="plain")
    wrong = bits.data.copy()
    wrong[80] ^= 1
    bits = Packet(wrong, count=bits.count, packed=True, last=True)
    (text,) = run_block(BitDeserializer(), {"bits": [bits]})["text"]
    assert (text.count, text.tag("status"), text.tag("reason")) == (0, "lost", "caption damaged")


def test_the_header_tells_of_it():
    header = Header(text=True, caption_bytes=9, compressed=True)
    assert Header.unpack(1 - 2 * header.pack().astype(np.float32)) == header
