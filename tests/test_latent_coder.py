"""Entropy-coded latents: back within half a step, near their entropy; a frame that is damaged is told."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from blocks.framing.latent_coder import LatentEntropyDecoder, LatentEntropyEncoder, compress, expand
from flowgraph.block import BlockError, Packet
from flowgraph.testing import run_block


@given(
    arrays(np.float32, st.tuples(*[st.integers(1, 5)] * 3), elements=st.floats(-15, 15, width=32)),
    st.sampled_from([1, 2, 5, 64]),
)
@settings(max_examples=80)
def test_every_value_comes_back_within_half_a_step(values, steps):
    back, told = expand(compress(values, steps))
    assert told == steps
    assert back.shape == values.shape
    assert np.abs(back - values).max() <= 0.5 / steps * (1 + 1e-5)


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_size_is_the_entropy_of_gaussian_values(steps):
    """H(q) of N(0, s^2) in even steps, within 3 %: the model's own loss is the scale's rounding."""
    rng = np.random.default_rng(3)
    deviations = np.array([0.5, 1.0, 1.7, 0.8])
    values = (rng.standard_normal((4, 40, 40)) * deviations[:, None, None]).astype(np.float32)
    bits = 0.0
    for s in deviations:
        edges = (np.arange(-40 * steps, 40 * steps + 1) - 0.5) / steps / s
        p = np.diff([math.erf(edge / 2**0.5) / 2 for edge in edges])
        bits -= 1600 * (p[p > 0] * np.log2(p[p > 0])).sum()
    assert 8 * len(compress(values, steps)) == pytest.approx(bits, rel=0.03)


def test_error_is_that_of_even_steps():
    sent = [
        Packet(np.random.default_rng(n).standard_normal((1, 4, 24, 24), np.float32), n, last=True) for n in range(4)
    ]
    bits = run_block(LatentEntropyEncoder({"steps": 3}), {"latent": sent})["bits"]
    assert all(packet.tag("pixel_values") == 3 * 192 * 192 for packet in bits)
    made = run_block(LatentEntropyDecoder(), {"bits": bits})["latent"]
    error = np.mean([np.mean((a.data - b.data) ** 2) for a, b in zip(sent, made, strict=True)])
    assert made[0].tag("noise_variance") == pytest.approx(1 / 108)
    assert error == pytest.approx(1 / 108, rel=0.04)  # 4 standard errors of 9,216 values


def test_any_wrong_bit_loses_the_frame_which_is_told():
    sent = Packet(np.random.default_rng(1).standard_normal((1, 1, 4, 4), np.float32), last=True)
    (bits,) = run_block(LatentEntropyEncoder(), {"latent": [sent]})["bits"]
    for place in range(bits.count):
        wrong = bits.data.copy()
        wrong[place // 8] ^= 128 >> place % 8
        (made,) = run_block(LatentEntropyDecoder(), {"bits": [Packet(wrong, packed=True, last=True)]})["latent"]
        assert (made.count, made.tag("status"), made.tag("reason")) == (0, "lost", "latent damaged")


@given(st.binary(max_size=40))
def test_any_bytes_are_refused_with_a_reason(data):
    with pytest.raises(ValueError, match=r"damaged|nothing|none"):
        expand(data)


def test_a_latent_that_is_too_large_is_refused():
    with pytest.raises(BlockError, match="must be one array of at most 65535 values a frame, not"):
        run_block(LatentEntropyEncoder(), {"latent": [Packet(np.zeros((1, 4, 128, 129), np.float32), last=True)]})
