"""The models: where they are found, what they promise a flowgraph, and the equations of the receiver."""

import shutil
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

import models
from blocks.model import image_size
from models import ModelMissing, load_autoencoder, load_captioner, load_receiver, load_tokenizer
from models.content_words import best_constant, content_f1, content_words
from models.receiver import Schedule
from models.training.bit_errors import bit_error_rates, flip_bits, repair

EMBEDDED = Path(models.__file__).parent / "embedded"


@pytest.fixture(scope="module")
def receiver():
    import torch

    torch.set_num_threads(1)
    return load_receiver("embedded", device="cpu")


@pytest.fixture(scope="module")
def photographs():
    from skimage import data, transform

    chosen = [data.astronaut(), data.coffee(), data.chelsea()]
    return np.stack([np.uint8(transform.resize(image, (192, 192), anti_aliasing=True) * 255) for image in chosen])


@pytest.fixture(scope="module")
def latents(receiver, photographs):
    return receiver.vae.encode(photographs)


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """A pipeline folder in Stable Diffusion's layout, as diffusers writes it, with small random weights."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(1)
    tokenizer = load_tokenizer("embedded")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=2,
    )
    folder = tmp_path_factory.mktemp("stable diffusion")
    StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            sample_size=64,
        ),
        unet=UNet2DConditionModel(
            sample_size=8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=2,
            cross_attention_dim=32,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def psnr(a, b):
    return 10 * np.log10(255**2 / np.square(a.astype(float) - b).mean())


# Where models are found


def test_importing_the_package_imports_nothing_heavy():
    heavy = "{'torch', 'diffusers', 'transformers', 'scipy'} & set(sys.modules)"
    code = f"import sys, models, models.training.bit_errors; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_embedded_weights_are_safetensors_of_at_most_40_megabytes():
    files = [path for path in EMBEDDED.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".md"}
    assert sum(path.stat().st_size for path in files) <= 40e6


def test_a_copy_of_the_embedded_folder_gives_the_same_images_and_captions(tmp_path, receiver, photographs, latents):
    copy = shutil.copytree(EMBEDDED, tmp_path / "copy")
    z = load_autoencoder(str(copy / "vae"), "cpu").encode(photographs)
    np.testing.assert_array_equal(z, latents)
    arguments = {"steps": 2, "guidance": 1.0, "seeds": [1]}
    here, _ = receiver.regenerate(latents[:1], ["a cat"], **arguments)
    there, _ = load_receiver(str(copy), "cpu").regenerate(latents[:1], ["a cat"], **arguments)
    np.testing.assert_array_equal(here, there)
    said = load_captioner("embedded", "cpu").caption(list(photographs))
    assert said == load_captioner(str(copy / "captioner"), "cpu").caption(list(photographs))


@pytest.mark.parametrize("load", [load_captioner, load_autoencoder, load_receiver, load_tokenizer])
def test_a_hub_id_that_is_not_here_says_what_to_fetch(load, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ModelMissing, match="nobody/nothing is not on this machine: fetch it with `hf download nobody/n"
    ):
        load("nobody/nothing")


@pytest.mark.parametrize("load", [load_captioner, load_autoencoder, load_receiver, load_tokenizer])
def test_a_folder_that_does_not_exist_is_named(load):
    with pytest.raises(ModelMissing, match=r"model must be 'embedded', an existing folder or a hub id, not '/no/such'"):
        load("/no/such")


def test_an_incomplete_folder_says_which_file_must_exist(tmp_path):
    copy = shutil.copytree(EMBEDDED, tmp_path / "copy")
    (copy / "unet" / "config.json").unlink()
    with pytest.raises(ModelMissing, match=r"incomplete: .*unet/config\.json must exist"):
        load_receiver(str(copy), "cpu")
    (copy / "captioner" / "model.safetensors").unlink()
    with pytest.raises(ModelMissing, match=r"captioner does not load as BlipForConditionalGeneration"):
        load_captioner(str(copy), "cpu")
    (copy / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"cut short")
    with pytest.raises(ModelMissing, match=r"vae does not load as AutoencoderKL"):
        load_autoencoder(str(copy), "cpu")
    shutil.rmtree(copy / "tokenizer")
    with pytest.raises(ModelMissing, match=r"tokenizer/tokenizer\.json .* must exist"):
        load_tokenizer(str(copy))


@pytest.mark.parametrize(
    ("device", "dtype", "message"), [("gpu", "auto", "device must be"), ("cpu", "int8", "dtype must")]
)
def test_device_and_dtype_are_checked(device, dtype, message):
    with pytest.raises(ValueError, match=message):
        load_autoencoder("embedded", device, dtype)


def test_a_pipeline_in_stable_diffusions_layout_loads_by_the_same_path(pipeline):
    receiver = load_receiver(str(pipeline), "cpu")
    assert (receiver.size, receiver.vae.factor, receiver.vae.channels) == ((64, 64), 8, 4)
    z = load_autoencoder(str(pipeline), "cpu").encode(np.zeros((1, 64, 64, 3), np.uint8))
    images, steps = receiver.regenerate(z, ["a dog"], steps=3, guidance=9.0, seeds=[5])
    assert images.shape == (1, 64, 64, 3)
    assert steps == [3]


def test_matches_diffusers_own_image_to_image(pipeline):
    """T = 30 of 50 is img2img at strength 0.6 by diffusers, with the same noise, guidance and sampler."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionImg2ImgPipeline

    theirs = StableDiffusionImg2ImgPipeline.from_pretrained(pipeline, safety_checker=None)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    expected = theirs(
        "a dog", image=z, strength=0.6, num_inference_steps=50, guidance_scale=9.0, negative_prompt="",
        generator=torch.Generator().manual_seed(4), output_type="np",
    ).images  # fmt: skip
    images, _ = load_receiver(str(pipeline), "cpu").regenerate(z.numpy(), ["a dog"], steps=30, guidance=9.0, seeds=[4])
    assert np.abs(images / 255 - expected).max() < 1.5 / 255


def test_an_autoencoder_tiny_loads_from_its_own_folder(tmp_path):
    from diffusers import AutoencoderTiny

    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(tmp_path)
    vae = load_autoencoder(str(tmp_path), "cpu")
    z = vae.encode(np.zeros((2, 32, 48, 3), np.uint8))
    assert z.shape == (2, 4, 4, 6)
    assert vae.decode(z).shape == (2, 32, 48, 3)


# The autoencoder


def test_the_autoencoder_keeps_photographs_and_their_latents_near_unit_variance(receiver, photographs, latents):
    assert min(psnr(*pair) for pair in zip(receiver.vae.decode(latents), photographs, strict=True)) > 20
    assert latents.dtype == np.float32
    assert 0.7 < latents.std() < 1.4


def test_sampled_latents_depend_on_their_seed_alone(receiver, photographs, latents):
    vae = receiver.vae
    both = vae.encode(photographs[:2], "sample", [1, 2])
    np.testing.assert_allclose(vae.encode(photographs[1:2], "sample", [2])[0], both[1], atol=1e-4)
    assert np.abs(both - vae.encode(photographs[:2], "sample", [3, 4])).max() > 1e-3
    assert np.abs(both - latents[:2]).max() > 1e-3


def test_images_that_do_not_fit_are_refused_with_the_remedy(receiver, photographs):
    with pytest.raises(ValueError, match="multiples of 8, not"):
        receiver.vae.encode(photographs[:, :190])
    with pytest.raises(ValueError, match="must be uint8"):
        receiver.vae.encode(photographs.astype(np.float32))
    with pytest.raises(ValueError, match=r"latents must be \[B, 4, h, w\]"):
        receiver.vae.decode(np.zeros((1, 3, 24, 24), np.float32))


# The receiver


def test_thirty_of_fifty_steps_start_at_581(receiver):
    schedule = receiver.schedule
    assert [schedule.start(steps, 50) for steps in (0, 1, 2, 30, 50)] == [-1, 1, 21, 581, 981]
    # sigma of the noise added at strength 0.6, in units of the latent: 2.1 to 2.3 in the paper's code
    power = schedule.signal_power[581]
    assert 2.1 < np.sqrt((1 - power) / power) < 2.3


def test_matched_start_is_where_the_schedule_has_the_latents_own_noise(receiver):
    power = receiver.schedule.signal_power
    for variance in (0.01, 0.05, 0.3, 1.0, 30.0):
        t = receiver.schedule.matched(variance)
        error = np.abs(power - 1 / (1 + variance))
        assert error[t] == error.min()
        assert (1 - power[t]) / power[t] == pytest.approx(variance, rel=0.1)
    assert receiver.schedule.matched(0.0) == -1
    with pytest.raises(ValueError, match="noise_variance must be"):
        receiver.schedule.matched(float("nan"))


def test_schedule_refuses_steps_that_it_does_not_have():
    schedule = Schedule(np.linspace(1, 0, 1000))
    for steps in (-1, 51):
        with pytest.raises(ValueError, match="steps must be 0 to 50 or 'matched'"):
            schedule.start(steps, 50)
    with pytest.raises(ValueError, match="schedule_steps must be 1 to 1000"):
        schedule.stride(0)


def test_no_steps_is_the_plain_decoder_without_the_unet(receiver, latents, monkeypatch):
    monkeypatch.setattr(receiver, "unet", None)
    for steps in (0, "matched"):
        images, taken = receiver.regenerate(
            latents, ["a dog"] * 3, steps=steps, noise_variance=[0.0] * 3, guidance=9.0, seeds=[1, 2, 3]
        )
        assert taken == [0, 0, 0]
        np.testing.assert_array_equal(images, receiver.vae.decode(latents))


def test_an_image_does_not_depend_on_its_batch(receiver, latents):
    captions = ["a woman smiles", None, "a cat"]
    for given in ({"steps": 3}, {"steps": "matched", "noise_variance": [0.02, 0.0, 0.1]}):
        told = Mock()
        together, taken = receiver.regenerate(latents, captions, guidance=3.0, seeds=[7, 8, 9], progress=told, **given)
        assert [each.args for each in told.mock_calls] == [(step, max(taken)) for step in range(1, max(taken) + 1)]
        for i, caption in enumerate(captions):
            own = {**given, "noise_variance": [given["noise_variance"][i]]} if len(given) > 1 else given
            alone, steps = receiver.regenerate(latents[i : i + 1], [caption], guidance=3.0, seeds=[7 + i], **own)
            assert steps == taken[i : i + 1]
            assert np.abs(alone[0].astype(int) - together[i]).max() <= 1
    assert taken == [2, 0, 5]


def test_noise_comes_from_the_seed_alone(receiver, latents):
    def image(seed):
        return receiver.regenerate(latents[:1], [None], steps=2, guidance=1.0, seeds=[seed])[0]

    np.testing.assert_array_equal(image(1), image(1))
    assert (image(1) != image(2)).any()


def test_no_caption_is_the_empty_text_without_guidance(receiver, latents):
    arguments = {"steps": 2, "seeds": [1]}
    none, _ = receiver.regenerate(latents[:1], [None], guidance=9.0, **arguments)
    empty, _ = receiver.regenerate(latents[:1], [""], guidance=1.0, **arguments)
    np.testing.assert_array_equal(none, empty)


def test_text_alone_makes_an_image_of_any_size_from_its_seed(receiver):
    a, b = receiver.generate(["a dog runs", "a dog runs"], steps=2, guidance=2.0, seeds=[1, 2], size=(64, 96))
    assert a.shape == (64, 96, 3)
    assert (a != b).any()
    again = receiver.generate(["a dog runs"], steps=2, guidance=2.0, seeds=[1], size=(64, 96))[0]
    assert np.abs(again.astype(int) - a).max() <= 1
    with pytest.raises(ValueError, match="size must be multiples of 8"):
        receiver.generate(["a dog"], steps=2, seeds=[1], size=(60, 96))


def test_arguments_that_do_not_fit_each_other_are_refused(receiver, latents):
    arguments = {"steps": 1, "guidance": 1.0, "seeds": [1, 2, 3]}
    with pytest.raises(ValueError, match="captions must have one entry per latent: 3, not 1"):
        receiver.regenerate(latents, ["a dog"], **arguments)
    with pytest.raises(ValueError, match="latents must be finite"):
        receiver.regenerate(latents * np.nan, [None] * 3, **arguments)
    with pytest.raises(ValueError, match="noise_variance must have one entry per latent"):
        receiver.regenerate(latents, [None] * 3, **{**arguments, "steps": "matched"})


def test_a_matched_start_undoes_some_of_the_channels_noise(receiver, photographs, latents):
    """Float64 bits at Eb/N0 7.5 dB: the images come out closer to the sent ones than by plain decoding."""
    random = np.random.default_rng(1)
    z = repair(flip_bits(latents, bit_error_rates(7.5), random), "paper", random)
    variance = np.square(z - latents).mean((1, 2, 3)).tolist()
    images, _ = receiver.regenerate(
        z, [None] * 3, steps="matched", noise_variance=variance, guidance=1.0, seeds=[1, 2, 3]
    )
    assert psnr(images, photographs) > psnr(receiver.vae.decode(z), photographs) + 1


def test_tokens_are_counted_with_begin_and_end():
    tokenizer = load_tokenizer("embedded")
    assert len(tokenizer("a dog").input_ids) == 4
    assert len(tokenizer("dog " * 100).input_ids) == 102


def test_every_printable_character_has_a_token(receiver):
    for code in range(33, 127):
        ids = receiver.tokenizer(chr(code)).input_ids[1:-1]
        assert receiver.tokenizer.decode(ids).strip() == chr(code).lower()


# Captions


def test_captions_are_plain_sentences_and_the_same_every_time(photographs):
    captioner = load_captioner("embedded", "cpu")
    said = captioner.caption(list(photographs))
    assert said == captioner.caption(list(photographs))
    for text in said:
        assert content_words(text)
        assert text.isascii()
        assert "[" not in text
    assert captioner.caption([]) == []
    with pytest.raises(ValueError, match="images must be uint8"):
        captioner.caption([photographs[0, :, :, 0]])


def test_content_f1_counts_the_words_that_carry_meaning():
    assert content_words("The dogs are ON it, near a lake.") == {"dogs", "lake"}
    assert content_f1("a red ball", ["the ball is red", "nothing"]) == 1
    assert content_f1("a red ball", ["a blue ball"]) == pytest.approx(1 / 2)
    assert content_f1("a cat", ["a dog"]) == 0
    assert best_constant([["a dog runs"], ["a dog sits"], ["a dog"]]) == "dog"


# The simulated link


def test_bit_error_rates_are_those_of_gray_16qam():
    from scipy.special import erfc

    for ebn0_db in (0.0, 5.0, 7.5, 10.0):
        x = np.sqrt(0.4 * 10 ** (ebn0_db / 10))
        exact = 3 / 8 * erfc(x) + erfc(3 * x) / 4 - erfc(5 * x) / 8
        assert bit_error_rates(ebn0_db).mean() == pytest.approx(exact, rel=1e-12)


def test_flipped_bits_have_the_published_error_after_repair():
    """Mean squared error of N(0, 1) latents at 7.5 dB: 0.284 by the paper's rule, 0.161 by clipping."""
    random = np.random.default_rng(5)
    sent = random.standard_normal((40, 4, 24, 24)).astype(np.float32)
    np.testing.assert_array_equal(flip_bits(sent, np.zeros(4), random), sent)
    received = flip_bits(sent, bit_error_rates(7.5), random)
    for rule, expected in (("paper", 0.284), ("clip", 0.161)):
        squares = np.square(repair(received, rule, random) - sent)
        error = 3.3 * squares.std() / np.sqrt(squares.size)
        assert abs(squares.mean() - expected) < error + 0.005


@pytest.mark.parametrize("broken", [b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_a_broken_config_is_named_with_its_remedy(tmp_path, broken):
    (tmp_path / "config.json").write_bytes(broken)
    for load in (load_autoencoder, image_size):
        with pytest.raises(ModelMissing) as told:
            load(str(tmp_path))
        assert str(told.value).startswith(f"{tmp_path}/config.json cannot be read as a model's config (")
        assert str(told.value).endswith("; fetch it again")


def noisy(latents, variance):
    noise = np.random.default_rng(3).standard_normal(latents.shape)
    return (latents + np.sqrt(variance) * noise).astype(np.float32)


def test_alike_elements_start_as_their_mean_does(receiver, latents):
    y, arguments = noisy(latents[:1], 0.1), {"steps": "matched", "guidance": 1.0, "seeds": [1]}
    plain, steps = receiver.regenerate(y, [None], noise_variance=[0.1], **arguments)
    alike, same = receiver.regenerate(y, [None], noise_variance=[np.full(y.shape[1:], 0.1)], **arguments)
    assert same == steps
    assert np.abs(plain.astype(int) - alike).max() <= 1


def test_what_of_a_latent_did_not_come_is_filled_in_and_the_rest_is_held(receiver, latents):
    """A tenth of the elements did not come, at places of their own in each channel; beside it a latent of one noise."""
    variance = np.where(np.random.default_rng(4).random(latents[0].shape) < 0.1, 99.0, 0.01)  # 99 at a posterior of .99
    y = np.stack([noisy(latents[0], 0.01) * (variance < 1), latents[1]])
    levels = {"each its own": [variance, 0.1], "one": [0.11, 0.1]}
    arguments = {"steps": "matched", "guidance": 1.0, "seeds": [1, 2]}
    made = {how: receiver.regenerate(y, [None] * 2, noise_variance=each, **arguments) for how, each in levels.items()}
    pictures = {how: images for how, (images, _) in made.items()} | {"none": receiver.vae.decode(y)}
    clean = receiver.vae.decode(latents[:1])[0]
    errors = {how: np.mean((images[0].astype(float) - clean) ** 2) for how, images in pictures.items()}
    assert errors["each its own"] < 0.6 * errors["one"] < 0.6 * errors["none"]
    assert np.abs(pictures["each its own"][1].astype(int) - pictures["one"][1]).max() <= 1


@pytest.mark.parametrize("variance", [np.zeros((4, 3, 3)), np.full((4, 24, 24), np.nan), np.full((4, 24, 24), -1.0)])
def test_noise_of_elements_that_is_none_is_refused(receiver, latents, variance):
    with pytest.raises(ValueError, match=r"noise_variance of elements must be \[4, 24, 24\], finite and at least 0"):
        receiver.regenerate(latents[:1], [None], steps="matched", noise_variance=[variance], seeds=[1])
