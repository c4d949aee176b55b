"""The convolutional code: CommPy's code words and decisions, the union bound, puncturing, what it refuses."""

import numpy as np
import pytest
from commpy.channelcoding import Trellis, conv_encode, viterbi_decode
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.fec import convolutional
from blocks.phy.theory import gaussian_tail

# CommPy takes the lowest bit of a generator for the newest input, other than the standards: 133 and 171 from the right.
TRELLIS = Trellis(np.array([6]), np.array([[0o155, 0o117]]))
RATES = list(convolutional.PUNCTURING)
# Bit weights of the error events of distance 10, 12, ..., 20 (J. Conan, "The weight spectra of some short low-rate
# convolutional codes", 1984).
WEIGHTS = {10: 36, 12: 211, 14: 1404, 16: 11633, 18: 77433, 20: 502690}


def coded(bits, rate="1/2"):
    packed = convolutional.encode(np.packbits(bits), len(bits), rate)
    return np.unpackbits(packed, count=convolutional.coded_bits(len(bits), rate))


def decoded(llrs, count, rate="1/2"):
    return np.unpackbits(convolutional.decode(llrs, count, rate), count=count)


def received(word, ebn0_db, rate, seed=1):
    n0 = 10 ** (-ebn0_db / 10) / rate
    noise = np.random.default_rng(seed).standard_normal(len(word)) * np.sqrt(n0 / 2)
    return np.clip(np.rint(16 * (1 - 2.0 * word + noise) / n0), -127, 127).astype(np.int8)


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 64, 333])
def test_code_words_are_commpys(count):
    bits = np.random.default_rng(count).integers(0, 2, count)
    np.testing.assert_array_equal(coded(bits), conv_encode(bits, TRELLIS, "term"))


def test_decisions_are_those_of_commpys_decoder():
    """On LLRs small enough to be taken as they are, both find a path of least cost; ties aside it is the same."""
    random = np.random.default_rng(4)
    bits = random.integers(0, 2, 300)
    word = conv_encode(bits, TRELLIS, "term")
    soft = 1 - 2.0 * word + random.normal(0, 0.7, len(word))
    theirs = viterbi_decode(-soft, TRELLIS, tb_depth=len(word) // 2, decoding_type="unquantized")[:300]
    ours = decoded(np.clip(np.rint(soft * 20), -127, 127).astype(np.int8), 300)
    assert (ours != bits).sum() <= (theirs != bits).sum() + 2
    assert (ours != theirs).sum() <= 6


@settings(max_examples=60)
@given(st.integers(1, 3000), st.sampled_from(RATES), st.integers(0, 1000))
def test_every_length_and_rate_comes_back(count, rate, seed):
    bits = np.random.default_rng(seed).integers(0, 2, count, np.uint8)
    word = coded(bits, rate)
    np.testing.assert_array_equal(decoded(np.where(word, -8, 8).astype(np.int8), count, rate), bits)


@pytest.mark.parametrize(("rate", "share"), [("1/2", 1 / 2), ("2/3", 2 / 3), ("3/4", 3 / 4), ("5/6", 5 / 6)])
def test_puncturing_has_the_rate_that_it_is_called(rate, share):
    assert 30000 / convolutional.coded_bits(30000, rate) == pytest.approx(share, rel=1e-3)


def test_the_error_rate_is_that_of_the_union_bound():
    """Pb <= sum of B_d Q(sqrt(2 d R Eb/N0)), tight at 4.5 dB; int8 costs less than 0.1 dB of it."""
    bits = np.random.default_rng(2).integers(0, 2, 4_000_000, np.uint8)
    ebn0_db = 4.0
    errors = (decoded(received(coded(bits), ebn0_db, 0.5), len(bits)) != bits).sum()

    def bound(decibel):
        return sum(b * gaussian_tail((d * 10 ** (decibel / 10)) ** 0.5) for d, b in WEIGHTS.items())

    # Errors come in events of about five bits: the count's deviation is sqrt(5 n).
    spread = 3 * (5 * errors) ** 0.5
    assert bound(ebn0_db + 0.1) * len(bits) * 0.6 - spread < errors < bound(ebn0_db - 0.1) * len(bits) + spread


def test_scale_does_not_matter_and_erasures_are_neutral():
    bits = np.random.default_rng(3).integers(0, 2, 5000, np.uint8)
    llrs = received(coded(bits), 5.0, 0.5)
    small = np.clip(llrs, -40, 40)
    np.testing.assert_array_equal(decoded(small, 5000), decoded((small * 2).astype(np.int8), 5000))
    small[::7] = 0
    np.testing.assert_array_equal(decoded(small, 5000), bits)
    assert len(decoded(np.zeros_like(llrs), 5000)) == 5000


def test_a_block_cut_short_is_told():
    with pytest.raises(ValueError, match="llrs must have 212 entries for 100 bits, not 211"):
        convolutional.decode(np.zeros(211, np.int8), 100)
