"""The kernels for a GPU do what the compiled ones do: on one where there is one, else in Triton's interpreter."""

import os

import numpy as np
import pytest
import torch

from blocks.fec.coders import LdpcDecoder, LdpcEncoder
from blocks.fec.ldpc import LdpcCode
from blocks.phy import noise, qam
from blocks.phy.constellation import CONSTELLATIONS, constellation
from flowgraph.block import BlockError, Packet
from flowgraph.testing import run_block, whole_frames
from models import weights

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
on_gpu = pytest.mark.skipif(GPU.type == "cpu", reason="takes minutes in Triton's interpreter: run it where a GPU is")
if GPU.type == "cpu":
    os.environ["TRITON_INTERPRET"] = "1"  # before the kernels are imported
pytest.importorskip("triton", reason="Triton is not installed: pip install triton")
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # of NaNs, in the interpreter

ROTATED = [[0.6, 0.8], [-0.8, 0.6], [0.8, -0.6], [-0.6, -0.8]]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def modem():
    from blocks.phy._symbols_triton import Modem

    return Modem(GPU)


def received(modulation, count=401):
    """Noisy symbols, some of them no numbers or huge, and gains, some of them none or huge."""
    bits = count * constellation(modulation).bits_per_symbol
    y = noise.awgn(qam.map_symbols(noise.random_bytes(-(-bits // 8), 1), bits, modulation), 0.1, key=3)
    h = noise.complex_normal(count, 5)
    y[::97], y[1::97], y[2::97] = np.nan, np.inf, 1e20 - 3e19j
    h[5::97], h[6::97], h[7::97], h[8::97] = np.nan, np.inf, 0, 1e19
    return y, h


@pytest.mark.parametrize(
    "modulation",
    [*(pytest.param(each, marks=on_gpu if each in ("64qam", "256qam") else ()) for each in CONSTELLATIONS), ROTATED],
    ids=str,
)
def test_decisions_and_llrs_are_those_of_the_compiled_kernels(modem, modulation):
    y, h = received(modulation)
    for part in (y, y[:1], y[:0]):
        np.testing.assert_array_equal(modem.decide(part, modulation), qam.decide(part, modulation))
    for gains in (None, h):
        for exact in (False, True):
            for n0 in (1e-4, 0.1, 30.0):
                rest = (y, n0, modulation, gains)
                found, want = modem.llr(*rest, exact=exact), qam.llr(*rest, exact=exact)
                np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6 / n0 + 1e-6)  # 2^-24 of |y - x|^2 / N0
                assert not found[~np.isfinite(y).repeat(len(found) // len(y))].any()
                apart = modem.llr(*rest, int8=True, exact=exact).astype(int) - qam.llr(*rest, int8=True, exact=exact)
                assert np.abs(apart).max() <= 1
                assert (apart != 0).mean() < 1e-3


@pytest.mark.parametrize("output", ["hard", "llr", "llr8"])
@pytest.mark.parametrize("weighed", [False, True])
def test_a_demapper_on_a_gpu_tells_what_it_tells_elsewhere(monkeypatch, output, weighed):
    y, h = received("16qam", 500)
    sent = {"symbols": [Packet(y, last=True)], **({"gains": [Packet(h, last=True)]} if weighed else {})}
    params = {"output": output}
    (want,) = run_block(qam.QamDemapper(params), sent)["bits"]
    monkeypatch.setattr(qam, "gpu", {"cpu": None, "cuda": GPU}.__getitem__)
    (found,) = run_block(qam.QamDemapper(params | {"device": "cuda"}), sent)["bits"]
    assert (found.dtype, found.count, found.tags) == (want.dtype, want.count, want.tags)
    np.testing.assert_allclose(found.data, want.data, rtol=1e-4, atol=1 if output == "llr8" else 1e-4)


@pytest.mark.parametrize(
    ("k", "n", "graph", "versions", "ebn0_db"),
    [
        (20, 30, 2, (0, 0), 3.0),
        *(
            pytest.param(*code, marks=on_gpu)
            for code in (
                (100, 130, 2, (0,), 3.0),
                (1000, 2000, 1, (0,), 2.5),
                (1000, 1111, 1, (0, 2), 2.3),
                (600, 1200, 2, (0,), 2.5),
                (100, 700, 2, (0,), 2.0),  # more than the code has
                (8448, 12000, 1, (0,), 3.6),
            )
        ),
    ],
)
def test_ldpc_blocks_are_decoded_to_the_same_bits_llrs_and_iterations(k, n, graph, versions, ebn0_db):
    """Some of the blocks come right, after few iterations or many, and some do not."""
    code, random = LdpcCode(k, n, graph, versions=versions), np.random.default_rng(k)
    words = code.encode(random.integers(0, 2, (7 if GPU.type == "cpu" else 500, k), np.uint8))
    n0 = 10 ** (-ebn0_db / 10) * words.shape[1] / k
    y = 1 - 2.0 * words + random.standard_normal(words.shape) * (n0 / 2) ** 0.5
    llrs = np.clip(np.rint(16 * y / n0), -127, 127).astype(np.int8)
    llrs[0], llrs[1], llrs[2] = 0, 127, np.where(words[2], -127, 127)
    want, found = code.decode(llrs, 4), code.decode(llrs, 4, GPU)
    assert want.ok[3:].any()
    assert not want.ok[3:].all()
    assert len(set(want.iterations)) > 2
    for ours, theirs in zip(want, found, strict=True):
        assert theirs.dtype == ours.dtype
        np.testing.assert_array_equal(theirs, ours)


def test_no_blocks_are_decoded_to_none():
    assert LdpcCode(100, 200, 2).decode(np.empty((0, 200), np.int8), device=GPU).bits.shape == (0, 100)


def test_a_decoder_on_a_gpu_tells_what_it_tells_elsewhere(monkeypatch):
    bits = Packet(noise.random_bytes(8, 1), packed=True, last=True)
    params = {"block_bits": 64, "rate": "4/5"}
    (coded,) = whole_frames(run_block(LdpcEncoder(params), {"bits": [bits]})["bits"])
    llrs = 2 - 4 * np.unpackbits(coded.data, count=coded.count).astype(np.float32)
    sent = Packet(llrs + np.random.default_rng(2).normal(0, 0.7, len(llrs)).astype(np.float32), last=True)
    (want,) = run_block(LdpcDecoder(params | {"output": "llr8"}), {"bits": [sent]})["bits"]
    monkeypatch.setattr("blocks.fec.coders.gpu", {"cpu": None, "cuda": GPU}.__getitem__)
    (found,) = run_block(LdpcDecoder(params | {"output": "llr8", "device": "cuda"}), {"bits": [sent]})["bits"]
    np.testing.assert_array_equal(found.data, want.data)


@pytest.mark.parametrize("block", [qam.QamDemapper, LdpcDecoder])
def test_a_gpu_that_is_not_there_is_told_and_auto_does_without(monkeypatch, block):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BlockError, match="device must be auto or cpu where torch sees no GPU, not 'cuda'"):
        run_block(block({"device": "cuda"}), {block.inputs[0].name: []})
    run_block(block({"device": "auto"}), {block.inputs[0].name: []})


@pytest.mark.parametrize("block", [qam.QamDemapper, LdpcDecoder])
@pytest.mark.parametrize("device", ["mps", "xpu:1", "gpu"])
def test_kernels_are_for_cuda(block, device):
    with pytest.raises(ValueError, match=f"must be auto, cpu, cuda, cuda:1, ..., not '{device}'"):
        block({"device": device})


def test_a_gpu_without_triton_is_told(monkeypatch):
    monkeypatch.setattr("blocks.model.find_spec", lambda name: None)
    monkeypatch.setattr("models.weights.place", lambda device, dtype: weights.Placement(torch.device("meta"), None))
    with pytest.raises(BlockError, match="device 'cuda' needs Triton, which torch brings on Linux: pip install triton"):
        run_block(qam.QamDemapper({"device": "cuda"}), {"symbols": []})


def test_commpy_computes_on_the_cpu_alone():
    with pytest.raises(ValueError, match="must have device: cpu with engine: commpy, not cuda"):
        qam.QamDemapper({"engine": "commpy", "device": "cuda"})
