"""The random numbers: published answers, statistics of the noise, and that nothing counts but their address."""

import hashlib
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocks.phy import noise, theory

MANY = 1 << 21
FAMILY = 4.5  # standard deviations: the whole file's checks together fail by chance less than once in a thousand seeds


@pytest.fixture(scope="module")
def parts():
    """I and Q of many samples, each of variance 1."""
    return noise.complex_normal(MANY, key=2026, power=2.0).view(np.float32)


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), 0, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, 0xFFFFFFFFFFFFFFFF, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            0x299F31D0A4093822,
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, words):
    assert " ".join(f"{word:08x}" for word in noise.philox(counter, key)) == words


def test_moments(parts):
    x = parts.astype(np.float64)
    n = len(x)
    assert abs(x.mean()) < FAMILY / math.sqrt(n)
    assert abs((x**2).mean() - 1) < FAMILY * math.sqrt(2 / n)
    assert abs((x**3).mean()) < FAMILY * math.sqrt(15 / n)
    assert abs((x**4).mean() - 3) < FAMILY * math.sqrt(96 / n)


def test_distribution_and_tails_up_to_five_sigma(parts):
    edges = np.arange(0, 5.01, 0.25)
    seen = len(parts) - np.searchsorted(np.sort(np.abs(parts)), edges)
    for edge, count in zip(edges, seen, strict=True):
        probability = 2 * theory.gaussian_tail(edge)
        deviation = math.sqrt(len(parts) * probability * (1 - probability))
        assert abs(count - len(parts) * probability) <= FAMILY * deviation, f"beyond {edge} sigma"


def test_tails_from_five_to_six_sigma_in_a_long_stream():
    """Of 2^31 values 1231 are expected beyond 5 sigma, 82 beyond 5.5, and 4 beyond 6."""
    edges, total = np.array([5.0, 5.5, 6.0]), 1 << 31
    seen, size = np.zeros((2, 3), np.int64), 1 << 20  # below minus the edge, above it
    for frame in range(total // (2 * size)):
        chunk = noise.complex_normal(size, key=6, frame=frame, power=2.0).view(np.float32)
        for side, part in enumerate((chunk.min(), chunk.max())):
            if abs(part) > edges[0]:
                far = chunk[chunk < -edges[0]] if side == 0 else chunk[chunk > edges[0]]
                seen[side] += (np.abs(far)[:, None] > edges).sum(0)
    for edge, both in zip(edges, seen.T, strict=True):
        for count in both:
            low, high = theory.binomial_interval(int(count), total, 1 - 0.01 / seen.size)
            assert low <= theory.gaussian_tail(edge) <= high, f"{count} values beyond {edge} sigma"


def test_the_largest_radius_is_that_of_the_smallest_uniform_number():
    """-ln(2^-32) under the root: 6.66 sigma of a part, so the tail at 6 sigma is there."""
    from numba import njit, uint32

    from blocks.phy import _noise

    @njit
    def neglog(word):
        return _noise._neglog(uint32(word))

    words = np.array([0, 2, 6, 1 << 20, 1 << 31, (1 << 32) - 2], np.uint64)
    want = -np.log(((words >> np.uint64(1)) + 0.5) / 2**31)
    got = np.array([neglog(np.uint32(word)) for word in words])
    np.testing.assert_allclose(got, want, rtol=3e-7, atol=1e-7)
    assert math.sqrt(2 * got[0]) == pytest.approx(6.66, abs=0.01)


def test_samples_do_not_hang_together(parts):
    x = parts.astype(np.float64)
    i, q = x[0::2], x[1::2]
    deviation = 1 / math.sqrt(len(i))
    for lag in (1, 2, 3, 4, 8, 64, 1024):
        assert abs(np.mean(x[:-lag] * x[lag:])) < FAMILY * deviation, f"values {lag} apart"
        squares = (x[:-lag] ** 2 - 1) * (x[lag:] ** 2 - 1)
        assert abs(np.mean(squares)) < FAMILY * 2 * deviation, f"squares {lag} apart"
    assert abs(np.mean(i * q)) < FAMILY * deviation


@pytest.mark.parametrize("other", [{"key": 2}, {"frame": 1}, {"stream": noise.FADES}, {"offset": 1 << 33}])
def test_another_address_gives_independent_noise(other):
    n = 1 << 20
    a = noise.complex_normal(n, **{"key": 1, "frame": 0, "offset": 0})
    b = noise.complex_normal(n, **{"key": 1, "frame": 0, "offset": 0, **other})
    assert abs(np.vdot(a, b)) / n < FAMILY / math.sqrt(n)


@given(st.integers(0, 70), st.lists(st.integers(0, 40), max_size=6), st.integers(0, 2**40))
@settings(deadline=None)
def test_noise_hangs_on_the_place_alone(start, cuts, base):
    total = sum(cuts)
    whole = noise.complex_normal(start + total, key=3, frame=5, offset=base)[start:]
    x = np.full(total, 1 - 1j, np.complex64)
    h = noise.complex_normal(total, key=4)
    at = 0
    for cut in cuts:
        place = {"key": 3, "frame": 5, "offset": base + start + at}
        piece = slice(at, at + cut)
        np.testing.assert_array_equal(noise.complex_normal(cut, **place), whole[piece])
        np.testing.assert_array_equal(noise.awgn(x[piece], 1.0, **place), x[piece] + whole[piece])
        np.testing.assert_allclose(
            noise.fade(x[piece], h[piece], 1.0, **place), h[piece] * x[piece] + whole[piece], rtol=1e-5, atol=1e-6
        )
        at += cut


PROGRAM = """
import hashlib, numpy as np
from blocks.phy import noise
x = np.exp(1j * np.arange(99991)).astype(np.complex64)
h = noise.complex_normal(99991, key=8, stream=noise.FADES)
y = noise.fade(x, h, 0.1, key=8, frame=3, offset=1)
parts = [noise.awgn(x, 0.1, key=8, offset=5), y, noise.equalize(y, h, 0.1), noise.flips(12345, 0.1, 9, 1, 3)]
print(hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest())
"""


def test_a_processor_without_vector_or_fused_instructions_computes_the_same_bits(tmp_path):
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NUMBA_CACHE_DIR": str(tmp_path)}
    digests = {
        subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, **more},
            cwd=Path(__file__).parent.parent,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for more in ({}, plain)
    }
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 2 * hashlib.sha256().digest_size


def test_random_bytes_are_uniform_and_cut_anywhere():
    whole = noise.random_bytes(1 << 20, key=1, frame=2)
    np.testing.assert_array_equal(noise.random_bytes(100, key=1, frame=2, offset=4096), whole[4096:4196])
    expected = len(whole) / 256
    chi2 = ((np.bincount(whole, minlength=256) - expected) ** 2 / expected).sum()
    assert abs(chi2 - 255) < FAMILY * math.sqrt(2 * 255)
    with pytest.raises(ValueError, match="offset must be a multiple of 16 bytes, not 8"):
        noise.random_bytes(1, key=1, offset=8)


@pytest.mark.parametrize("probability", [0.0, 1e-4, 0.1, 0.5, 1.0])
def test_flips_come_at_their_rate_in_every_place_of_a_byte(probability):
    flipped = np.unpackbits(noise.flips(1 << 22, probability, key=5)).reshape(-1, 8)
    deviation = math.sqrt(probability * (1 - probability) / len(flipped))
    assert np.all(np.abs(flipped.mean(axis=0) - probability) <= FAMILY * deviation)


def test_importing_the_blocks_imports_no_compiler():
    program = "import sys, blocks.phy.qam, blocks.phy.channel, blocks.sink.errors; print('numba' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
