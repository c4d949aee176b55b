"""A user's own networks as blocks, and the channel on tensors that they are trained with."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from blocks.network import NetworkDecoderSink, NetworkEncoderSource
from blocks.phy import theory
from blocks.phy.constellation import constellation
from blocks.phy.tensors import link, normalise
from blocks.sink.diffusion import GREY
from flowgraph.api import Flowgraph
from flowgraph.block import BlockError, Context, Packet
from flowgraph.testing import run_block

SOURCE = """
import torch
from torch import nn
from torch.nn import functional

class Encoder(nn.Module):
    "Means over tiles, as real numbers around zero."
    def __init__(self, tile=8, scale=2.0):
        super().__init__()
        self.tile = tile
        self.scale = nn.Parameter(torch.tensor(scale))
    def forward(self, images):
        return (functional.avg_pool2d(images, self.tile) - 0.5) * self.scale

class Decoder(nn.Module):
    "The tiles again, whose scale the encoder and the power took away: stretched to 0 .. 1."
    def __init__(self, height=24, width=32):
        super().__init__()
        self.shape = 3, height // 8, width // 8
    def forward(self, symbols):
        tiles = torch.view_as_real(symbols).reshape(-1, *self.shape)
        tiles = (tiles - tiles.min()) / (tiles.max() - tiles.min())
        return functional.interpolate(tiles, scale_factor=8)

class Complex(nn.Module):
    def forward(self, images): return torch.view_as_complex(images.reshape(1, -1, 2).contiguous()) + 1j
class Odd(nn.Module):
    def forward(self, images): return images.flatten()[:3]
class Zero(nn.Module):
    def forward(self, images): return images * 0
class Fails(nn.Module):
    def forward(self, images): raise RuntimeError("no such layer")
class Tuple(nn.Module):
    def forward(self, images): return images, images
class Flat(nn.Module):
    def forward(self, symbols): return symbols.real
def not_a_network(): pass
"""
rng = np.random.default_rng(3)
TILES = rng.integers(0, 256, (3, 4, 3), np.uint8)
TILES[0, 0] = 0
TILES[2, 3] = 255
PICTURE = np.kron(TILES, np.ones((8, 8, 1), np.uint8))


@pytest.fixture
def file(tmp_path):
    (tmp_path / "mine.py").write_text(SOURCE)
    return str(tmp_path / "mine.py")


def encoder(file, network="Encoder", **params):
    content = io.BytesIO()
    Image.fromarray(PICTURE).save(content, "png")
    context = Context(files=lambda pattern, endings: iter([("a.png", content.getvalue())]))
    params = {"images": "folder", "size": "24x32", "file": file, "network": network, **params}
    return NetworkEncoderSource(params, "encode", context)


def decoder(file, network="Decoder", **params):
    return NetworkDecoderSink({"file": file, "network": network, "size": "24x32", **params})


def test_image_crosses_a_channel_without_noise(file):
    made = run_block(encoder(file))
    (symbols,), (image,) = made["symbols"], made["image"]
    assert (image.data[0] == PICTURE).all()
    assert (symbols.count, symbols.dtype, symbols.last) == (TILES.size // 2, "complex64", True)
    assert np.mean(np.abs(symbols.data) ** 2) == pytest.approx(1, abs=1e-6)
    (received,) = run_block(decoder(file), {"symbols": [symbols]})["image"]
    assert np.abs(received.data[0].astype(int) - PICTURE).max() <= 1
    assert (received.tag("mode"), received.tag("status")) == ("network", "ok")


def test_complex_symbols_are_taken_as_they_are(file):
    (symbols,) = run_block(encoder(file, "Complex"))["symbols"]
    pairs = (PICTURE.transpose(2, 0, 1) / 255).reshape(-1, 2)
    wanted = pairs[:, 0] + 1j * (pairs[:, 1] + 1)
    np.testing.assert_allclose(symbols.data, wanted / np.sqrt(np.mean(np.abs(wanted) ** 2)), atol=1e-6)


def test_weights_and_arguments_reach_the_network(file, tmp_path):
    """The means 0 .. 1 less 1/2, negated by the weight -2, are those of the negative; twice the tile, fewer symbols."""
    save_file({"scale": torch.tensor(-2.0)}, tmp_path / "w.safetensors")
    (plain,) = run_block(encoder(file))["symbols"]
    (negated,) = run_block(encoder(file, weights=str(tmp_path / "w.safetensors")))["symbols"]
    np.testing.assert_allclose(negated.data, -plain.data, atol=1e-6)
    (small,) = run_block(encoder(file, size="32x32", arguments={"tile": 16}))["symbols"]
    assert small.count == 6


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("Odd", "Odd must return an even count of real numbers, not 3"),
        ("Zero", "Zero must return finite numbers that are not all 0"),
        ("Fails", r"Fails failed on 1x3x24x32: RuntimeError: no such layer \(mine.py:\d+\)"),
        ("Tuple", "Tuple must return a tensor, not tuple"),
        ("not_a_network", "not_a_network must be a subclass of torch.nn.Module"),
        ("Missing", "has no function or class Missing"),
    ],
)
def test_what_is_wrong_with_a_network_is_one_sentence(file, network, message):
    with pytest.raises(BlockError, match=message):
        run_block(encoder(file, network))


def test_weights_and_arguments_that_do_not_fit(file, tmp_path):
    save_file({"strength": torch.tensor(1.0)}, tmp_path / "w.safetensors")
    with pytest.raises(BlockError, match=r"w\.safetensors do not fit Encoder: .*scale"):
        run_block(encoder(file, weights=str(tmp_path / "w.safetensors")))
    (tmp_path / "b.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(BlockError, match=r"b\.safetensors do not fit Encoder"):
        run_block(encoder(file, weights=str(tmp_path / "b.safetensors")))
    with pytest.raises(BlockError, match=r"Encoder cannot be made: TypeError: .*tiles"):
        run_block(encoder(file, arguments={"tiles": 3}))
    symbols = Packet(np.ones(4, np.complex64), last=True)
    with pytest.raises(BlockError, match=r"Flat must return \[1, 3, height, width\], not \[1, 4\]"):
        run_block(decoder(file, "Flat"), {"symbols": [symbols]})


def test_missing_symbols_degrade_and_none_at_all_is_lost(file):
    (symbols,) = run_block(encoder(file))["symbols"]
    gone = np.zeros(symbols.count, bool)
    gone[2:5] = True
    (some,) = run_block(decoder(file), {"symbols": [symbols.with_erased(gone)]})["image"]
    assert (some.tag("status"), some.tag("reason")) == ("degraded", f"3 of {symbols.count} symbols are missing")
    (none,) = run_block(decoder(file), {"symbols": [symbols.with_erased(~gone | gone)]})["image"]
    assert (none.tag("status"), none.data.shape) == ("lost", (1, 24, 32, 3))
    assert (none.data == GREY).all()


def test_networks_in_a_flowgraph(file, tmp_path):
    Image.fromarray(PICTURE).save(tmp_path / "a.png")
    (tmp_path / "job.yaml").write_text(f"""
flowgraph: my networks
seed: 1
blocks:
  encode: {{use: network_encoder_source, images: {tmp_path}/a.png, size: 24x32, file: mine.py, network: Encoder}}
  air:    {{use: awgn_channel, esn0: 40 dB}}
  decode: {{use: network_decoder_sink, file: mine.py, network: Decoder}}
  score:  {{use: quality_meter}}
wires:
  - encode.symbols -> air.symbols -> decode.symbols
  - decode.image   -> score.image
  - encode.image   -> score.sent
""")
    report = Flowgraph.load(tmp_path / "job.yaml").run(tmp_path / "out")
    assert 30 < report.frames[0]["psnr"] < 50
    assert report.sections["payload"]["cbr"] == pytest.approx(TILES.size / 2 / PICTURE.size)


# The channel on tensors


def qpsk(count):
    labels = rng.integers(0, 4, count)
    return labels, torch.from_numpy(constellation("qpsk").points[labels].astype(np.complex64))


@pytest.mark.parametrize(("fading", "esn0"), [("none", 6.0), ("symbol", 10.0), ("block", 10.0)])
def test_tensors_err_as_often_as_theory_says(fading, esn0):
    rows, columns = (200_000, 4) if fading == "block" else (100, 8000)
    labels, x = qpsk(rows * columns)
    y = link(x.reshape(rows, columns), esn0, fading, generator=torch.Generator().manual_seed(1)).reshape(-1)
    decided = 2 * (y.real < 0) + (y.imag < 0)
    wrong = np.bitwise_count(decided.numpy().astype(np.uint8) ^ labels.astype(np.uint8)).reshape(rows, columns)
    per_row = wrong.mean(1) / 2
    mean, deviation = per_row.mean(), per_row.std(ddof=1) / rows**0.5
    assert abs(mean - theory.bit_error_rate(esn0, "qpsk", fading != "none")) < 4 * deviation


def test_each_row_may_have_its_own_noise():
    x = torch.ones(3, 200_000, dtype=torch.complex64)
    y = link(x, torch.tensor([0.0, 10.0, 20.0]), generator=torch.Generator().manual_seed(1))
    np.testing.assert_allclose((y - x).abs().square().mean(1), [1, 0.1, 0.01], rtol=0.02)


@pytest.mark.parametrize("equalize", ["zf", "mmse", "none"])
def test_equalisers_follow_their_formulas(equalize):
    x = normalise(torch.randn(2, 5000, dtype=torch.complex64, generator=torch.Generator().manual_seed(5)))
    received = link(x, 20.0, "block", "none", torch.Generator().manual_seed(2))
    h = (received * x.conj()).mean(1, keepdim=True)  # the noise in it is 0.1 / sqrt(5000)
    wanted = {"zf": received / h, "mmse": received * h.conj() / (h.abs() ** 2 + 0.01), "none": received}[equalize]
    made = link(x, 20.0, "block", equalize, torch.Generator().manual_seed(2))
    np.testing.assert_allclose(made.numpy(), wanted.numpy(), atol=0.05)


def test_gradients_train_an_encoder_through_the_channel():
    """A scalar gain a at unit noise: the loss E|a x + n - 3 x|^2 has its minimum at 3."""
    a = torch.tensor(1.0, requires_grad=True)
    x, generator = torch.ones(1, 4096, dtype=torch.complex64), torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD([a], 0.1)
    for _ in range(50):
        optimizer.zero_grad()
        (link(a * x, 0.0, generator=generator) - 3 * x).abs().square().mean().backward()
        optimizer.step()
    assert float(a.detach()) == pytest.approx(3, abs=0.05)


def test_symbols_of_another_kind_are_refused():
    with pytest.raises(ValueError, match=r"x must be complex \[B, N\], not torch.float32 \[2, 3\]"):
        link(torch.ones(2, 3), 10.0)
    with pytest.raises(ValueError, match="fading must be none, symbol or block, not 'fast'"):
        link(torch.ones(2, 3, dtype=torch.complex64), 10.0, "fast")
