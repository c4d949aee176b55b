"""CommPy as the engine of modem and code: the same results as ours, block for block, where CommPy is sound."""

import numpy as np
import pytest

from blocks import commpy_reference
from blocks.fec import convolutional
from blocks.fec.coders import ConvolutionalEncoder, ViterbiDecoder
from blocks.phy import noise, qam
from flowgraph.block import Context, Packet
from flowgraph.testing import run_block

STANDARDS = ["bpsk", "qpsk", "8psk", "16qam", "64qam", "256qam"]


def received(modulation, count=101, n0=0.2):
    return noise.awgn(qam.map_symbols(noise.random_bytes(count, 1), 8 * count, modulation), n0, 2)


@pytest.mark.parametrize("modulation", STANDARDS)
@pytest.mark.parametrize("count", [0, 1, 7, 96, 101])
def test_symbols_and_decisions_are_ours(modulation, count):
    packed = np.packbits(np.unpackbits(noise.random_bytes(-(-count // 8), 1), count=count))
    symbols = qam.map_symbols(packed, count, modulation)
    np.testing.assert_allclose(commpy_reference.map_symbols(packed, count, modulation), symbols, atol=1e-7)
    y = received(modulation)
    y[3] = np.nan
    np.testing.assert_array_equal(commpy_reference.decide(y, modulation), qam.decide(y, modulation))


@pytest.mark.parametrize("modulation", STANDARDS)
@pytest.mark.parametrize("fading", [False, True])
def test_llrs_are_our_exact_ones(modulation, fading):
    y = received(modulation)
    h = noise.complex_normal(len(y), 5) if fading else None
    ours = qam.llr(y, 0.2, modulation, h, exact=True)
    np.testing.assert_allclose(commpy_reference.llr(y, 0.2, modulation, h), ours, rtol=1e-4, atol=1e-4)


def test_llrs_are_finite_where_commpys_are_not():
    y = np.array([0.3 + 0.1j, 100, np.nan, np.inf], np.complex64)
    llrs = commpy_reference.llr(y, 1e-3).reshape(4, 4)
    assert np.isfinite(llrs).all()
    assert (np.abs(llrs[0]) > 30).all()
    assert not llrs[1:].any()


@pytest.mark.parametrize("rate", convolutional.PUNCTURING)
def test_the_code_is_ours_and_its_decoder_mends_what_ours_does(rate):
    packed = noise.random_bytes(20, 3)
    word = commpy_reference.encode(packed, 155, rate)
    np.testing.assert_array_equal(word, convolutional.encode(packed, 155, rate))
    llrs = (30 - 60 * np.unpackbits(word, count=convolutional.coded_bits(155, rate)).astype(np.int16)).astype(np.int8)
    llrs[[5, 40, 90]] *= -1
    np.testing.assert_array_equal(
        commpy_reference.decode(llrs, 155, rate), np.packbits(np.unpackbits(packed, count=155))
    )


def test_blocks_take_either_engine():
    frame = [Packet(noise.random_bytes(50, 4), packed=True, last=True)]

    def through(engine):
        data = frame
        for block, params in (
            (ConvolutionalEncoder, {}),
            (qam.QamMapper, {}),
            (qam.QamDemapper, {"output": "llr8", "method": "exact"}),
            (ViterbiDecoder, {}),
        ):
            (data,) = run_block(block({**params, "engine": engine}), {block.inputs[0].name: data}).values()
        return data

    for made in (through("semflow"), through("commpy")):
        np.testing.assert_array_equal(made[0].data, frame[0].data)


def test_a_table_that_is_not_gray_is_told_of():
    told, figures = [], {}
    context = Context(warn=told.append, report=lambda section, frame, values: figures.update(values))
    natural = [[1, 0], [0, 1], [-1, 0], [0, -1]]
    run_block(qam.QamMapper({"modulation": natural}, context=context), {"bits": []})
    assert told == ["the points are not Gray-labelled: neighbours differ in several bits, which all err together"]
    assert figures == {"gray": False}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("map_symbols", (np.zeros(1, np.uint8), 9)),
        ("map_symbols", (np.zeros(1, np.uint8), 8, "32qam")),
        ("decide", (["1"],)),
        ("llr", (np.ones(2, np.complex64), np.nan)),
        ("llr", (np.ones(2, np.complex64), 1.0, "qpsk", np.ones(3))),
        ("encode", (np.zeros(1, np.uint8), 9)),
        ("encode", (np.zeros(1, np.uint8), 8, "7/8")),
        ("decode", (np.zeros(28), 8)),
    ],
)
def test_what_our_functions_refuse_it_refuses_in_the_same_words(name, arguments):
    ours = convolutional if name in ("encode", "decode") else qam
    said = []
    for module in (ours, commpy_reference):
        with pytest.raises(ValueError, match="must ") as caught:
            getattr(module, name)(*arguments)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_points_of_ones_own_may_be_a_list():
    points = [[0, 1], [0, -1]]
    np.testing.assert_allclose(commpy_reference.map_symbols(np.array([0x40], np.uint8), 2, points), [1j, -1j])
