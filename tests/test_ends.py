"""Both ends with the models that the project ships, on sample photographs, nothing or noise between."""

import numpy as np
import pytest
from conftest import ROOT

from blocks.sink.diffusion import DiffusionSink
from blocks.sink.quality import psnr
from blocks.source.captioner import MAX_TOKENS, CaptionerSource
from blocks.source.latent_encoder import LatentEncoderSource
from flowgraph.block import BlockError, Context
from flowgraph.config.load import ConfigError, load
from flowgraph.testing import run_block


@pytest.fixture(scope="module")
def sent():
    """Captions, latents and pictures of three samples."""
    made = run_block(CaptionerSource({"limit": 3}, "caption", Context(seed=7)))
    return made | run_block(LatentEncoderSource({"limit": 3}, "encode", Context(seed=7)))


def render(sent, latents, **params):
    inputs = {"text": sent["text"], "latent": latents}
    made = run_block(DiffusionSink({"batch": 2, **params}, "render", Context(seed=7)), inputs)["image"]
    quality = [psnr(a.data, b.data) for a, b in zip(made, sent["image"], strict=True)]
    return made, np.mean(quality)


def noisy(sent, variance):
    """Latents with Gaussian noise of that variance, tagged with it as a deserialiser does."""
    rng = np.random.default_rng(1)
    out = []
    for packet in sent["latent"]:
        noise = rng.normal(0, np.sqrt(variance), packet.data.shape).astype(np.float32)
        out.append(packet.derive(packet.data + noise, noise_variance=variance))
    return out


def test_captions_are_words_that_the_receiver_can_read(sent):
    import models

    tokenizer = models.load_tokenizer("embedded")
    for packet in sent["text"]:
        caption = packet.data.tobytes().decode("ascii")
        assert len(caption.split()) >= 3
        assert len(tokenizer(caption).input_ids) <= MAX_TOKENS


def test_latents_have_about_unit_variance(sent):
    values = np.concatenate([packet.data for packet in sent["latent"]])
    assert values.shape == (3, 4, 24, 24)
    assert 0.3 < values.var() < 3


def test_a_clean_latent_gives_the_photograph_back(sent):
    made, quality = render(sent, sent["latent"])
    assert [image.tag("steps") for image in made] == [0, 0, 0]
    assert {image.tag("mode") for image in made} == {"text+latent"}
    assert quality > 19


def test_denoising_matched_to_the_noise_beats_plain_decoding(sent):
    latents = noisy(sent, 0.4)
    _, plain = render(sent, latents, steps=0)
    made, matched = render(sent, latents)
    assert all(5 <= image.tag("steps") <= 20 for image in made)
    assert matched > plain + 1


def test_an_image_does_not_depend_on_its_batch(sent):
    """A frame rendered alone is within one grey level of itself in company."""
    latents = noisy(sent, 0.02)
    together, _ = render(sent, latents, batch=8)
    alone, _ = render(sent, latents, batch=1)
    for a, b in zip(together, alone, strict=True):
        assert np.abs(a.data.astype(int) - b.data).max() <= 1


def test_text_alone_makes_an_image(sent):
    block = DiffusionSink({"text_only_steps": 4}, "render", Context(seed=7))
    made = run_block(block, {"text": sent["text"][:1]})["image"]
    assert [(image.data.shape, image.tag("mode"), image.tag("steps")) for image in made] == [
        ((1, 192, 192, 3), "text", 4)
    ]
    assert made[0].data.std() > 5


def test_a_device_that_is_none_is_told_before_anything_starts():
    with pytest.raises(ConfigError) as caught:
        load(ROOT / "configs/main.yaml", set={"device": "toaster"})
    told = "device: must be auto, cpu, cuda, cuda:1, ..., not 'toaster' (from device = toaster)"
    assert [f"{each.path}: {each.message}" for each in caught.value.mistakes] == [
        f"blocks.{name}.{told}" for name in ("caption", "encode", "render")
    ]


@pytest.mark.parametrize("block_type", [CaptionerSource, LatentEncoderSource, DiffusionSink])
def test_a_model_that_is_not_there_is_told(block_type):
    with pytest.raises(BlockError, match=r"^model nobody/nothing is not on this machine: fetch it with `hf download"):
        block_type({"model": "nobody/nothing"}).start()
