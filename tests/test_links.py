"""Whole links of codes, interleavers and modems: exact without noise however cut, and better for soft decisions."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.fec.coders import Combiner, ConvolutionalEncoder, LdpcDecoder, LdpcEncoder, Repeater, ViterbiDecoder
from blocks.fec.interleaver import Deinterleaver, Interleaver
from blocks.phy.channel import AwgnChannel
from blocks.phy.constellation import CONSTELLATIONS
from blocks.phy.qam import QamDemapper, QamMapper
from flowgraph.block import Context, Packet
from flowgraph.testing import recut, run_block, whole_frames

CODES = {
    "none": None,
    "ldpc 1/2": (LdpcEncoder, LdpcDecoder, {"block_bits": 256}),
    "ldpc 3/4": (LdpcEncoder, LdpcDecoder, {"block_bits": 120, "rate": "3/4"}),
    "convolutional 1/2": (ConvolutionalEncoder, ViterbiDecoder, {"block_bits": 256}),
    "convolutional 3/4": (ConvolutionalEncoder, ViterbiDecoder, {"block_bits": 504, "rate": "3/4"}),
    "repetition": (Repeater, Combiner, {"times": 3}),
}
SPREAD = {"length": 1024}


def frame(count, seed=0, number=0):
    bits = np.random.default_rng(seed).integers(0, 2, count, np.uint8)
    return Packet(np.packbits(bits), number, count=count, packed=True, last=True)


def hard_bits(packets):
    """The bits of each frame, whether they are decisions or LLRs."""
    return [
        np.unpackbits(p.data, count=p.count) if p.packed else (p.data < 0).astype(np.uint8)
        for p in whole_frames(packets)
    ]


def through(frames, code, modulation, output, cut=lambda packets: packets, ebn0=None):
    """What comes of frames at the end of a link; `cut` cuts what goes into every block."""
    encoder, decoder, params = CODES[code] or (None, None, None)
    chain = [
        (encoder, params),
        (Interleaver, SPREAD),
        (QamMapper, {"modulation": modulation}),
        (AwgnChannel, {"ebn0": ebn0}) if ebn0 is not None else (None, None),
        (QamDemapper, {"modulation": modulation, "output": output}),
        (Deinterleaver, SPREAD),
        (decoder, params),
    ]
    for block, given_params in chain:
        if block is not None:
            made = run_block(block(given_params, "block", Context(seed=8)), {block.inputs[0].name: cut(frames)})
            (frames,) = made.values()
    return frames


@given(
    counts=st.lists(st.integers(0, 700), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=4),
    code=st.sampled_from(list(CODES)),
    modulation=st.sampled_from(list(CONSTELLATIONS)),
    output=st.sampled_from(["hard", "llr", "llr8"]),
)
@settings(max_examples=150)
def test_without_noise_any_bits_come_back_through_any_code_and_order_however_cut(
    counts, sizes, code, modulation, output
):
    sent = [frame(count, count, number) for number, count in enumerate(counts)]
    back = through(sent, code, modulation, output, lambda packets: recut(packets, sizes))
    for want, got in zip(hard_bits(sent), hard_bits(back), strict=True):
        np.testing.assert_array_equal(got, want)


@functools.cache
def error_rate(code, modulation, output, ebn0):
    sent = [frame(150_000, 5)]
    back = through(sent, code, modulation, output, ebn0=ebn0)
    return (hard_bits(back)[0] != hard_bits(sent)[0]).mean()


@pytest.mark.parametrize("modulation", list(CONSTELLATIONS))
@pytest.mark.parametrize(
    ("code", "ebn0"),
    [("ldpc 1/2", 3.0), ("ldpc 3/4", 5.5), ("convolutional 1/2", 3.7), ("convolutional 3/4", 5.5), ("repetition", 4.0)],
)
def test_soft_decoding_is_never_worse_than_hard_on_average(code, ebn0, modulation):
    """Of the same noise, where a good part of the hard decisions' blocks is lost."""
    ebn0 += {"bpsk": 0, "qpsk": 0, "8psk": 3, "16qam": 3.5, "64qam": 7.5, "256qam": 12}[modulation]
    hard = error_rate(code, modulation, "hard", ebn0)
    assert hard > 1e-3
    for output in ("llr", "llr8"):
        assert error_rate(code, modulation, output, ebn0) < 0.8 * hard
