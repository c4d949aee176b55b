"""PMTs and stream headers against bytes that GNU Radio made (tests/vectors/gnuradio_wire.py)."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.sdr.pmt import MAX_DEPTH, Pair, PmtError, decode, encode, plain
from blocks.sdr.stream_header import HeaderError, StreamTag, decode_header, encode_header

VECTORS = json.loads(Path(__file__).with_name("vectors").joinpath("gnuradio_wire.json").read_text())
TWO = {"len": 4, "rate": 0.5}
VALUES = {
    "true": True,
    "false": False,
    "nil": None,
    "symbol": "packet_len",
    "utf8": "größe",
    "empty_symbol": "",
    "int32": -3,
    "int64": -(1 << 40),
    "uint64": (1 << 64) - 2,
    "small_uint64": 5,
    "double": -0.1,
    "complex": 1.5 - 2j,
    "pair": Pair("a", 1),
    "list": Pair(1, Pair("b", Pair(True, None))),
    "dict": TWO,
    "nested_dict": {"inner": TWO},
    "empty_dict": None,
    "vector": [1, 2.5, "x"],
    "empty_vector": [],
    "tuple": ((1 << 63) + 1, 0.25),
    "u8vector": np.array([0xDE, 0xAD, 0xBE, 0xEF], np.uint8),
    "s8vector": np.array([-1, 2], np.int8),
    "u16vector": np.array([1, 65535], np.uint16),
    "s16vector": np.array([-2, 3], np.int16),
    "u32vector": np.array([1, 1 << 31], np.uint32),
    "s32vector": np.array([-1, 1 << 30], np.int32),
    "u64vector": np.array([1, 1 << 63], np.uint64),
    "s64vector": np.array([-1, 1 << 62], np.int64),
    "f32vector": np.array([0.5, -1.25], np.float32),
    "f64vector": np.array([0.1, -1e300], np.float64),
    "c32vector": np.array([1 - 2j], np.complex64),
    "c64vector": np.array([0.1 + 0.2j], np.complex128),
    "empty_u8vector": np.empty(0, np.uint8),
    "pdu": Pair({"len": 4}, np.array([0xDE, 0xAD, 0xBE, 0xEF], np.uint8)),
    "pdu_without_metadata": Pair(None, np.array([1 - 2j], np.complex64)),
}


def same(a, b):
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (list(a.items()) == list(b.items()) if isinstance(a, dict) else a == b)


def test_every_vector_has_its_value():
    assert VECTORS["pmt"].keys() == VALUES.keys()


@pytest.mark.parametrize("name", VALUES)
def test_gnuradios_bytes_are_read(name):
    assert same(decode(bytes.fromhex(VECTORS["pmt"][name])), VALUES[name])


@pytest.mark.parametrize("name", [name for name in VALUES if name != "small_uint64"])
def test_gnuradios_bytes_are_written(name):
    assert encode(VALUES[name]).hex() == VECTORS["pmt"][name]


def test_dicts_keep_the_order_in_which_entries_were_added():
    assert list(decode(bytes.fromhex(VECTORS["pmt"]["dict"]))) == ["len", "rate"]


@pytest.mark.parametrize("name", VALUES)
def test_a_truncated_pmt_is_refused(name):
    whole = bytes.fromhex(VECTORS["pmt"][name])
    for length in range(len(whole)):
        with pytest.raises(PmtError):
            decode(whole[:length])
    with pytest.raises(PmtError, match="1 bytes stand behind the value"):
        decode(whole + b"\0")


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_refused(data):
    try:
        value = decode(data)
    except PmtError:
        return
    assert same(decode(encode(value)), value) or "nan" in repr(value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("42", "there is no type 0x42"),
        ("0a 0c 00 00 00 00 01 00", "there is no uniform vector 0x0c"),
        ("08 ff ff ff ff 06", "a vector of 4294967295 values cannot be in 1 bytes"),
        ("0a 08 ff ff ff ff 01 00 00", "it ends 17179869179 bytes early"),
        ("09 06", "a dict must be of pairs"),
        ("09 07 06 06 00", "a dict must end in nil, not in type 0x00"),
        ("09 07 08 00 00 00 00 06 06", "a key of a dict must be a symbol or a number"),
        ("08 00 00 00 01 " * (MAX_DEPTH + 1) + "06", f"values within values are more than {MAX_DEPTH} deep"),
    ],
)
def test_what_is_no_pmt_says_why(data, sentence):
    with pytest.raises(PmtError, match=f"^{sentence}$"):
        decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    "value", [1 << 64, -(1 << 63) - 1, "x" * 65536, {1, 2}, np.zeros((2, 2)), np.zeros(1, np.float16)]
)
def test_what_no_pmt_holds_is_refused(value):
    with pytest.raises(PmtError):
        encode(value)


def test_a_list_may_be_long():
    value = None
    for number in range(10_000):
        value = Pair(number, value)
    data = encode(value)
    assert encode(decode(data)) == data


def test_values_become_what_tags_carry():
    assert plain({"a": 1 - 2j, 3: np.array([1, 2], np.uint8), "t": (1, None)}) == {
        "a": [1.0, -2.0],
        3: [1, 2],
        "t": [1, None],
    }


TAGS = [StreamTag(2, "packet_len", 3, "py"), StreamTag(4, "gain", 0.5 + 0.25j, False)]


def test_gnuradios_stream_header_is_read_and_written():
    (message,) = map(bytes.fromhex, VECTORS["stream"]["tags"])
    header = decode_header(memoryview(message))
    assert (header.offset, header.tags) == (0, TAGS)
    assert message[header.length :] == bytes(range(8))
    assert encode_header(0, TAGS) == message[: header.length]


@pytest.mark.parametrize("offset", [0, 1, 1 << 40, (1 << 64) - 1])
def test_offsets_of_a_long_stream(offset):
    tags = [StreamTag(offset, "a", 1)]
    header = decode_header(memoryview(encode_header(offset, tags)))
    assert (header.offset, header.tags) == (offset, tags)


def test_a_broken_stream_header_is_refused():
    whole = encode_header(5, TAGS)
    for length in range(len(whole)):
        with pytest.raises(HeaderError):
            decode_header(memoryview(whole[:length]))
    with pytest.raises(HeaderError, match="does not begin with GNU Radio's header"):
        decode_header(memoryview(b"\0" + whole))
    with pytest.raises(HeaderError, match="18446744073709551615 tags cannot be in 19 bytes"):
        decode_header(memoryview(whole[:11] + b"\xff" * 8))
