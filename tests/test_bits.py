"""Bit and tone sources."""

import numpy as np
import pytest

from blocks.source.bits import BitSource
from blocks.source.tone import ToneSource
from flowgraph.block import Context, ParamsError
from flowgraph.testing import assert_same_stream, run_block


def sent(params, seed=0, name="source"):
    return run_block(BitSource(params, name, Context(seed=seed)))["bits"]


@pytest.mark.parametrize("bits", [0, 1, 13, 128, 1000, 4096])
def test_as_many_bits_as_asked_for_in_frames(bits):
    packets = sent({"bits": bits, "frame": 1000, "packet": 256})
    assert sum(p.count for p in packets) == bits
    assert [p.frame for p in packets if p.last] == list(range(-(-bits // 1000)))
    assert all(p.count <= 256 and len(p.data) == -(-p.count // 8) for p in packets)
    assert all(p.data[-1] & ((1 << (-p.count % 8)) - 1) == 0 for p in packets)


def test_bits_do_not_hang_on_the_size_of_packets():
    assert_same_stream(sent({"bits": 5000, "frame": 3001, "packet": 128}), sent({"bits": 5000, "frame": 3001}))


def test_bits_hang_on_seed_name_and_frame():
    streams = [
        sent({"bits": 4096}, seed, name)[0].data.tobytes() for seed, name in ((0, "a"), (1, "a"), (0, "b"), (0, "a"))
    ]
    assert streams[0] == streams[3]
    assert len(set(streams)) == 3
    first, second = sent({"bits": 8192, "frame": 4096})
    assert first.data.tobytes() != second.data.tobytes()


def test_quantities_have_units():
    assert sum(p.count for p in sent({"bits": "10 kbit", "frame": "4 Kibit"})) == 10_000


def test_a_pattern_repeats_and_begins_with_every_frame():
    packets = sent({"bits": 3000, "frame": 1600, "packet": 128, "pattern": "01 02 03"})
    frames = [np.concatenate([p.data for p in packets if p.frame == f]) for f in (0, 1)]
    assert frames[0].tobytes() == (b"\1\2\3" * 67)[:200]
    assert frames[1].tobytes() == (b"\1\2\3" * 67)[:175]


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"pattern": "xyz"}, "must be bytes in hex such as \"ff 00\", not 'xyz'"),
        ({"pattern": ""}, "must be bytes in hex"),
        ({"bits": -1}, "at least 0"),
        ({"bits": "5 Hz"}, "must be in bit, not 'Hz'"),
        ({"packet": 100}, "128"),
    ],
)
def test_bad_parameters_are_refused(params, message):
    with pytest.raises(ValueError, match=message):
        BitSource(params)


def test_a_tone_has_its_frequency_and_goes_on_through_frames():
    packets = run_block(
        ToneSource({"samples": 3000, "frequency": "3 kHz", "sample_rate": "48 kHz", "frame": 1000, "packet": 300})
    )["samples"]
    assert [p.frame for p in packets if p.last] == [0, 1, 2]
    tone = np.concatenate([p.data for p in packets])
    np.testing.assert_allclose(tone, np.exp(2j * np.pi * np.arange(3000) / 16), atol=1e-6)
    spectrum = np.abs(np.fft.fft(tone[:1600]))
    assert spectrum.argmax() == 100
    assert spectrum[100] == pytest.approx(1600, rel=1e-5)


def test_a_tone_of_negative_frequency_and_amplitude_a():
    tone = run_block(ToneSource({"samples": 4, "frequency": -12000, "amplitude": 0.5}))["samples"][0].data
    np.testing.assert_allclose(tone, [0.5, -0.5j, -0.5, 0.5j], atol=1e-7)


def test_a_tone_that_the_sample_rate_does_not_carry_is_refused():
    with pytest.raises(ParamsError, match="must have a frequency of at most half the sample rate, 24000 Hz"):
        ToneSource({"frequency": "-25 kHz"})
