"""The scrambler is the Gold sequence of TS 38.211, and makes any payload use all symbols alike."""

import numpy as np
import pytest

from blocks.framing.scrambler import C_INIT, scrambling
from blocks.framing.serializer import BitSerializer
from blocks.gold import gold_sequence
from flowgraph.block import Packet


def gold_bit_by_bit(c_init, length):
    """The recurrences of TS 38.211, 5.2.1, as they stand there."""
    x1 = [1] + [0] * 30
    x2 = [c_init >> i & 1 for i in range(31)]
    for n in range(1600 + length - 31):
        x1.append((x1[n + 3] + x1[n]) % 2)
        x2.append((x2[n + 3] + x2[n + 2] + x2[n + 1] + x2[n]) % 2)
    return [(x1[n + 1600] + x2[n + 1600]) % 2 for n in range(length)]


@pytest.mark.parametrize("c_init", [C_INIT, 1, 0x7FFFFFFF])
@pytest.mark.parametrize("length", [0, 1, 31, 5000])
def test_is_the_gold_sequence(c_init, length):
    assert gold_sequence(c_init, length).tolist() == gold_bit_by_bit(c_init, length)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gold_sequence(1 << 31, 8),
            r"c_init must be 0 to 2\^31 - 1 and length at least 0, not 2147483648 and 8",
        ),
        (lambda: gold_sequence(1, -1), r"c_init must be 0 to 2\^31 - 1 and length at least 0, not 1 and -1"),
        (lambda: scrambling(-3, 5), "start and stop must be 0 <= start <= stop, not -3 and 5"),
        (lambda: scrambling(5, 3), "start and stop must be 0 <= start <= stop, not 5 and 3"),
    ],
)
def test_what_there_is_not_of_it_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_frames_sequence_is_the_documented_one():
    assert scrambling(0, 8).tobytes().hex() == "5b0284aeaa8bae41"


def test_any_stretch_is_cut_from_the_same_sequence():
    whole = np.packbits(gold_sequence(C_INIT, 8 * 70_000))
    for start, stop in ((0, 10), (69_000, 70_000), (0, 70_000), (5, 5), (123, 456)):
        np.testing.assert_array_equal(scrambling(start, stop), whole[start:stop])


def symbols_of(packet):
    """16QAM of TS 38.211, 5.1.4."""
    b = 1 - 2.0 * np.unpackbits(packet.data, count=packet.count).reshape(-1, 4)
    return (b[:, 0] * (2 - b[:, 2]) + 1j * b[:, 1] * (2 - b[:, 3])) / np.sqrt(10)


def test_widened_floats_fill_the_constellation_evenly():
    latent = Packet(np.random.default_rng(1).standard_normal((1, 4, 64, 64), np.float32), last=True)
    made = {}
    for scramble in (False, True):
        block = BitSerializer({"latent": "float64", "header": "side", "scramble": scramble})
        block.start()
        made[scramble] = symbols_of(block.work(latent=latent))
    # Why there is a scrambler: 29 of 64 bits are always 0.
    assert abs(made[False].mean()) > 0.1
    assert abs((np.abs(made[False]) ** 2).mean() - 1) > 0.25
    scrambled = made[True]
    # Each of mean's two parts has variance 1/2n, and |s|^2 has variance 0.32: five standard deviations.
    assert abs(scrambled.mean()) < 5 / np.sqrt(scrambled.size)
    assert abs((np.abs(scrambled) ** 2).mean() - 1) < 5 * np.sqrt(0.32 / scrambled.size)
