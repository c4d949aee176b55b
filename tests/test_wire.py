"""The wire: what goes in comes out, and nothing else gets in."""

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flowgraph.block import Packet, Tag
from flowgraph.wire import DTYPES, End, Header, WireError, decode, encode

TOKEN = "0123"


def carried(packet: Packet) -> Packet:
    header, data = encode(packet, 7, TOKEN)
    seq, got = decode([header, b"" if data is None else data.tobytes()], TOKEN)
    assert seq == 7
    return got


@given(
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda name: hnp.arrays(name, hnp.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=5))
    ),
    st.integers(0, 2**40),
    st.booleans(),
)
def test_packet_crosses_to_the_last_bit(data, frame, last):
    tags = (Tag(3, "n0", 0.25), Tag(4, "name", "a.png"), Tag(5, "estimate", {"ber": 1e-3, "source": "x"}))
    packet = Packet(data, frame, 3, tags=tags, last=last)
    got = carried(packet)
    assert got.data.dtype == data.dtype
    assert got.data.shape == data.shape
    assert got.data.tobytes() == data.tobytes()
    assert (got.frame, got.offset, got.count, got.tags, got.last) == (frame, 3, packet.count, tags, last)


@given(st.integers(0, 100))
def test_bits_keep_their_count(count):
    packet = Packet(np.packbits(np.ones(count, np.uint8)), count=count, packed=True)
    got = carried(packet)
    assert (got.count, got.packed, got.data.tobytes()) == (count, True, packet.data.tobytes())


def test_end_of_stream_carries_its_totals():
    header, data = encode(End(12, 345), 12, TOKEN)
    assert data is None
    assert decode([header], TOKEN) == (12, End(12, 345))


def header(**changes):
    fields = dict(
        token=TOKEN, seq=0, dtype="uint8", shape=(4,), count=4, frame=0, offset=0, last=False, tags=[]
    )  # fmt: skip
    return b"SFW1" + msgspec.msgpack.encode(Header(**{**fields, **changes}))


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([b"\x00\x01\x02"], "no Semflow message"),
        ([], "0 parts"),
        ([b"a", b"b", b"c"], "3 parts"),
        ([b"SFW2" + header()[4:], b"1234"], "wire version '2', not '1'"),
        ([header()[:9], b"1234"], "broken header"),
        ([header() + b"\x00", b"1234"], "broken header"),
        ([header(token="another"), b"1234"], "message of another run"),
        ([header(shape=(1 << 30,), count=1 << 30), b"x" * 20], "claims 1073741824 bytes, 20 came"),
        ([header(), b"123"], "claims 4 bytes, 3 came"),
        ([header(dtype="object"), b"1234"], "unknown item type 'object'"),
        ([header(shape=(-4,)), b"1234"], "negative number"),
        ([header(shape=(4, -1, -1)), b"1234"], "negative number"),
        ([header(shape=(1,) * 9, count=1), b"1"], "array of 9 dimensions"),
        ([header(count=5), b"1234"], "5 items, 4 came"),
        ([header(dtype="bits", count=40), b"1234"], "40 bits cannot be 4 bytes"),
        ([header()], "without its array"),
        ([header(dtype="", shape=()), b"1234"], "end of stream with an array"),
        ([header(dtype="float32", shape=(0, 2**61), count=0), b""], "array too large"),
        ([header(shape=(0, 2**64 - 1), count=0), b""], "number beyond"),
        ([header(seq=2**64 - 1), b"1234"], "number beyond"),
        ([header(offset=2**62), b"1234"], "number beyond"),
        ([header(tags=[(-5, "n0", 1.0)]), b"1234"], "tag 'n0' of item -5 that cannot be"),
        ([header(tags=[(0, "erased", "x")]), b"1234"], "tag 'erased' of item 0 that cannot be"),
        ([header(tags=[(0, "erased", -1)]), b"1234"], "tag 'erased' of item 0 that cannot be"),
    ],
)
def test_what_is_not_ours_is_refused_with_the_reason(frames, complaint):
    with pytest.raises(WireError, match=complaint):
        decode(frames, TOKEN)


@given(st.lists(st.binary(max_size=200), max_size=3), st.booleans())
def test_no_bytes_whatever_get_past_or_crash(frames, magic):
    if magic and frames:
        frames[0] = b"SFW1" + frames[0]
    with pytest.raises(WireError):
        decode(frames, TOKEN)


numbers = st.integers(0, 4) | st.sampled_from([-1, 2**31, 2**61, 2**62, 2**64 - 1])
tags = st.tuples(numbers, st.sampled_from(["erased", "n0"]), numbers | st.none() | st.text(max_size=2))


@given(
    dtype=st.sampled_from(["uint8", "bits", "complex128"]),
    shape=st.lists(numbers, min_size=1, max_size=3),
    fields=st.fixed_dictionaries(
        {"seq": numbers, "frame": numbers, "offset": numbers, "tags": st.lists(tags, max_size=2)}
    ),
    spoilt=st.integers(0, 9),
)
def test_a_header_with_the_runs_token_is_refused_or_is_one_that_could_have_been_sent(dtype, shape, fields, spoilt):
    count = shape[0] * (8 if dtype == "bits" else 1) + (spoilt == 9)
    size = math.prod(shape) * np.dtype("uint8" if dtype == "bits" else dtype).itemsize + (spoilt == 8)
    count = count if count < 2**64 else 0
    try:
        seq, got = decode(
            [header(dtype=dtype, shape=shape, count=count, **fields), bytes(min(max(size, 0), 2048))], TOKEN
        )
    except WireError:
        return
    assert (seq + 1).to_bytes(8, "little")  # as the receiver tells it
    assert got.data.shape == tuple(shape)
    assert got.end < 2**63
    assert all(tag.offset >= 0 for tag in got.tags)
    assert [tag.value for tag in got.tags if tag.key == "erased" and not isinstance(tag.value, int)] == []


@given(st.data())
def test_a_broken_message_is_refused_or_still_consistent(data):
    head, payload = encode(Packet(np.arange(40, dtype=np.float32), 1, tags=(Tag(0, "k", [1, "x"]),)), 3, TOKEN)
    head, position = bytearray(head), data.draw(st.integers(0, len(head) - 1))
    head[position] = data.draw(st.integers(0, 255))
    try:
        _, got = decode([bytes(head), payload.tobytes()], TOKEN)
    except WireError:
        return
    assert isinstance(got, Packet)
    assert got.data.nbytes == 160


def test_a_tag_must_be_plain_data():
    with pytest.raises(TypeError, match="plain data, not object"):
        encode(Packet(np.zeros(1), tags=(Tag(0, "k", object()),)), 0, TOKEN)
