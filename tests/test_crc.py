"""Checksums: published check values, remainders worked out the long way, and what they catch."""

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blocks.fec.crc import POLYNOMIALS, checksum, width

NINE = np.frombuffer(b"123456789", np.uint8)


# G. Cook, "Catalogue of parametrised CRC algorithms": XMODEM, LTE-A, LTE-B, ISO-HDLC
@pytest.mark.parametrize(
    ("kind", "value"), [("crc16", 0x31C3), ("crc24a", 0xCDE703), ("crc24b", 0x23EF52), ("crc32", 0xCBF43926)]
)
def test_check_values_are_the_published_ones(kind, value):
    assert checksum(NINE, 72, kind) == value
    assert checksum(NINE, 72, kind) < 1 << width(kind)


def divided(bits, kind):
    """The remainder of long division, bit by bit."""
    size, polynomial = POLYNOMIALS[kind]
    register = 0
    for bit in [*bits, *[0] * size]:
        register = register << 1 | int(bit)
        if register >> size:
            register ^= 1 << size | polynomial
    return register


@given(st.lists(st.integers(0, 1), max_size=200), st.sampled_from(list(POLYNOMIALS)))
def test_any_number_of_bits_has_the_remainder_of_long_division(bits, kind):
    packed = np.packbits(np.array(bits, np.uint8))
    assert checksum(packed, len(bits), kind) == divided(bits, kind)


def test_bits_past_the_end_do_not_count():
    assert checksum(np.array([0b10111111], np.uint8), 3) == checksum(np.array([0b10100000], np.uint8), 3)
    assert checksum(np.array([0b10111111], np.uint8), 3, "crc32") == zlib.crc32(bytes([0b10100000]))


@pytest.mark.parametrize("kind", ["crc16", "crc24a", "crc24b", "crc32"])
def test_every_error_of_one_or_two_bits_and_every_short_burst_is_caught(kind):
    data = np.random.default_rng(1).integers(0, 256, 40, np.uint8)
    right = checksum(data, 320, kind)
    flips = [1 << a | 1 << b for a in range(0, 320, 7) for b in range(0, 320, 11)]
    flips += [burst << place for burst in (0b1101, 0b100000001) for place in range(300)]
    for flip in flips:
        error = np.frombuffer(flip.to_bytes(40, "big"), np.uint8)
        assert checksum(data ^ error, 320, kind) != right
