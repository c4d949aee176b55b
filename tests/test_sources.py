"""`captioner_source` and `latent_encoder_source`, with small models made here in the place of large ones."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import models
from blocks.model import image_size
from blocks.source.captioner import CaptionerSource, shorten, to_ascii
from blocks.source.latent_encoder import LatentEncoderSource
from flowgraph.block import BlockError, Context
from flowgraph.cache import Cache
from flowgraph.testing import run_block


class Captioner:
    """Says how red a picture is, in the words given."""

    def __init__(self, words="a picture with {} red"):
        self.words = words

    def caption(self, images):
        assert all(image.dtype == np.uint8 and image.shape[2] == 3 for image in images)
        return [self.words.format(int(image[..., 0].mean())) for image in images]


def tokenizer(text):
    """A token a word, a begin and an end."""
    return SimpleNamespace(input_ids=[0, *range(len(text.split())), 1])


class Autoencoder:
    """Latents are the means over 8x8 tiles, in units of the grey scale; samples add noise of their seed."""

    size, factor, channels = (32, 48), 8, 4

    def posterior(self, images):
        b, h, w, _ = images.shape
        tiles = images.reshape(b, h // 8, 8, w // 8, 8, 3).mean((2, 4)) / 255
        return np.concatenate([tiles, tiles[..., :1]], -1).transpose(0, 3, 1, 2).astype(np.float32)

    def draw(self, posterior, how="mode", seeds=None):
        if how == "mode":
            return posterior
        return np.stack(
            [
                latent + np.random.default_rng(seed).standard_normal(latent.shape, np.float32)
                for latent, seed in zip(posterior, seeds, strict=True)
            ]
        )


@pytest.fixture
def asked(monkeypatch):
    """The small models in place; what the loaders were asked for."""
    calls = {}
    monkeypatch.setattr("blocks.source.captioner.image_size", lambda name: (24, 24))

    def loader(kind, model):
        def load(name, **options):
            calls[kind] = name, options
            return model

        return load

    find = models.weights.find
    monkeypatch.setattr(models.weights, "find", lambda name, **each: find(name, **each) if "/" in name else name)
    monkeypatch.setattr(models, "load_captioner", loader("captioner", Captioner()))
    monkeypatch.setattr(models, "load_tokenizer", loader("tokenizer", tokenizer))
    monkeypatch.setattr(models, "load_autoencoder", loader("autoencoder", Autoencoder()))
    return calls


def encoded(colour, size=(20, 10)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "png")
    return file.getvalue()


FILES = [("a.png", encoded((200, 0, 0))), ("b.png", b"broken"), ("c.png", encoded((100, 0, 50)))]


def run(block_type, files=FILES, seed=1, cache=None, **params):
    """What a source hands out, its frames' rows and its warnings."""
    rows, warnings = {}, []
    context = Context(
        seed=seed,
        report=lambda section, frame, values: rows.setdefault(frame, {}).update(values),
        warn=warnings.append,
        files=lambda pattern, endings: iter(files),
        cache=cache,
    )
    return run_block(block_type({"images": "folder", **params}, "source", context)), rows, warnings


def test_captioner_sends_ascii_and_the_picture_it_saw(asked):
    made, rows, warnings = run(CaptionerSource, model="m", tokenizer="t", device="cpu", size="16x24")
    assert asked["captioner"] == ("m", {"device": "cpu", "dtype": "auto", "revision": None})
    assert asked["tokenizer"][0] == "t"
    assert [(p.frame, p.data.tobytes(), p.last) for p in made["text"]] == [
        (0, b"a picture with 200 red", True),
        (2, b"a picture with 100 red", True),
    ]
    assert [(p.frame, p.data.shape, p.tag("name"), p.last) for p in made["image"]] == [
        (0, (1, 16, 24, 3), "a.png", True),
        (2, (1, 16, 24, 3), "c.png", True),
    ]
    assert made["image"][1].tag("caption") == "a picture with 100 red"
    assert (made["image"][1].data == (100, 0, 50)).all()
    assert rows[0] == {"name": "a.png", "caption_sent": "a picture with 200 red"}
    assert rows[1]["status"] == "unreadable"
    assert rows[2] == {"name": "c.png", "caption_sent": "a picture with 100 red"}
    assert len(warnings) == 1


def test_long_caption_is_cut_at_a_word_to_77_tokens(asked, monkeypatch):
    words = " ".join(f"word{i}" for i in range(90))
    monkeypatch.setattr(models, "load_captioner", lambda name, **options: Captioner(words))
    made, rows, warnings = run(CaptionerSource, FILES[:1])
    caption = made["text"][0].data.tobytes().decode()
    assert caption == " ".join(f"word{i}" for i in range(75))
    assert len(tokenizer(caption).input_ids) == 77
    assert rows[0]["caption_sent"] == caption
    assert warnings == ["caption of a.png is cut to 77 tokens: it had 92"]


def test_empty_caption_is_an_empty_frame(asked, monkeypatch):
    monkeypatch.setattr(models, "load_captioner", lambda name, **options: Captioner(" "))
    made, _, _ = run(CaptionerSource, FILES[:1])
    assert [(p.count, p.last) for p in made["text"]] == [(0, True)]


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [
        ("a dog, 2 m away", "a dog, 2 m away"),
        ("Crème brûlée à la Škoda", "Creme brulee a la Skoda"),
        ("Straße in Łódź, Ærø & Þórshöfn", "Strasse in Lodz, AEro & Thorshofn"),
        ("“smart” ‘quotes’ – dash…", "\"smart\" 'quotes' - dash..."),
        ("ﬁve ½ ² №", "five 1/2 2 No"),
        ("犬 and 🐕", "? and ?"),
        ("tabs\tand\nlines\x00 and \x7f", "tabs and lines? and ?"),
        ("", ""),
    ],
)
def test_captions_become_printable_ascii(text, ascii_text):
    assert to_ascii(text) == ascii_text


def test_ascii_of_anything_is_printable_and_stays_so():
    text = to_ascii("".join(map(chr, [*range(0xD800), *range(0xE000, 0x11000)])))
    assert text.isascii()
    assert text.isprintable()
    assert to_ascii(text) == text


def test_a_word_of_too_many_tokens_leaves_nothing():
    assert shorten("x" * 1000, len, 77) == ""
    assert shorten("yes " + "x" * 1000, len, 77) == "yes"


def test_encoder_sends_scaled_latents_in_the_models_own_size(asked):
    made, rows, _ = run(LatentEncoderSource, model="v", dtype="bfloat16", revision="r")
    assert asked["autoencoder"] == ("v", {"device": "auto", "dtype": "bfloat16", "revision": "r"})
    assert [(p.frame, p.count, p.data.shape, p.dtype, p.last) for p in made["latent"]] == [
        (0, 1, (1, 4, 4, 6), "float32", True),
        (2, 1, (1, 4, 4, 6), "float32", True),
    ]
    np.testing.assert_allclose(made["latent"][1].data[0, 0], 100 / 255, rtol=1e-6)
    assert made["image"][0].data.shape == (1, 32, 48, 3)
    assert made["image"][0].tag("name") == "a.png"
    assert rows[2] == {"name": "c.png"}


@pytest.mark.parametrize("block_type", [CaptionerSource, LatentEncoderSource])
def test_a_part_of_a_folder_keeps_its_frame_numbers(asked, block_type):
    files = [(f"{i}.png", encoded((10 * i, 0, 0))) for i in range(7)]
    whole, _, _ = run(block_type, files)
    part, rows, _ = run(block_type, files, first=2, limit=4, batch=3)
    assert list(rows) == [2, 3, 4, 5]
    for port in whole:
        for a, b in zip(whole[port][2:6], part[port], strict=True):
            assert (a.frame, a.tags) == (b.frame, b.tags)
            np.testing.assert_array_equal(a.data, b.data)
    with pytest.raises(BlockError, match="first must be less than 7, the image files of folder, not 7"):
        run(block_type, files, first=7, repeat=3)


@pytest.mark.parametrize("block_type", [CaptionerSource, LatentEncoderSource])
def test_a_part_of_a_folder_is_sent_again_and_its_frames_are_counted_on(asked, block_type):
    files = [("0.png", encoded((9, 0, 0))), *FILES]
    once, _, told = run(block_type, files, first=1, limit=2)
    again, rows, told_again = run(block_type, files, first=1, limit=2, repeat=3)
    assert [(frame, row["name"]) for frame, row in sorted(rows.items())] == list(enumerate(["a.png", "b.png"] * 3, 1))
    for port, (packet,) in once.items():
        assert [(each.frame, each.data.tobytes()) for each in again[port]] == [
            (frame, packet.data.tobytes()) for frame in (1, 3, 5)
        ]
    assert told_again == told  # once of the broken file, though it is skipped three times
    assert len(told) == 1


@pytest.mark.parametrize(
    ("block_type", "model", "method"),
    [(CaptionerSource, Captioner, "caption"), (LatentEncoderSource, Autoencoder, "posterior")],
)
def test_in_a_sweep_images_are_batched_and_seen_once(asked, monkeypatch, tmp_path, block_type, model, method):
    seen, compute = [], getattr(model, method)
    monkeypatch.setattr(model, method, lambda self, images: seen.append(len(images)) or compute(self, images))
    files = [(f"{i}.png", encoded((10 * i, 0, 0))) for i in range(6)]
    once, again = (run(block_type, files, seed, Cache(tmp_path))[0] for seed in (1, 2))
    assert seen == [4, 2]
    for port, packets in run(block_type, files)[0].items():
        for packet, *others in zip(packets, once[port], again[port], strict=True):
            assert all(np.array_equal(packet.data, other.data) for other in others)
    run(block_type, [("other.png", encoded((1, 2, 3)))], cache=Cache(tmp_path))
    run(block_type, files, cache=Cache(tmp_path), dtype="float16")
    assert seen[4:] == [1, 4, 2]  # another picture, other parameters


def test_captioner_takes_the_size_of_the_receivers_model(asked, monkeypatch, tmp_path):
    """The pictures that meters see fit those of the encoder and the receiver, whatever the model."""
    monkeypatch.setattr("blocks.source.captioner.image_size", image_size)
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"sample_size": 40}')
    made, _, _ = run(CaptionerSource, tokenizer=str(tmp_path))
    assert made["image"][0].data.shape == (1, 40, 40, 3)
    made, _, _ = run(CaptionerSource, tokenizer=str(tmp_path), size="16x24")
    assert made["image"][0].data.shape == (1, 16, 24, 3)
    with pytest.raises(BlockError, match="is not on this machine: fetch it with `hf download nobody/nothing`"):
        run(CaptionerSource, tokenizer="nobody/nothing")


def test_both_sources_number_and_shape_images_alike(asked):
    captions, _, _ = run(CaptionerSource, size="64x64", geometry="crop")
    latents, _, _ = run(LatentEncoderSource, size="64x64", geometry="crop")
    for a, b in zip(captions["image"], latents["image"], strict=True):
        assert a.frame == b.frame
        np.testing.assert_array_equal(a.data, b.data)


def test_samples_of_the_posterior_depend_on_seed_and_frame_alone(asked):
    def latents(files=FILES, seed=1):
        return {p.frame: p.data for p in run(LatentEncoderSource, files, seed, how="sample")[0]["latent"]}

    first = latents()
    np.testing.assert_array_equal(latents()[2], first[2])
    without_a = [("a.png", b"broken"), *FILES[1:]]
    np.testing.assert_array_equal(latents(without_a)[2], first[2])
    assert np.abs(latents(seed=2)[2] - first[2]).max() > 0.1
    same_picture = latents([("a.png", FILES[0][1]), ("b.png", FILES[0][1])])
    assert np.abs(same_picture[0] - same_picture[1]).max() > 0.1


def test_size_must_be_a_multiple_of_the_autoencoders_factor(asked, monkeypatch):
    monkeypatch.setattr(Autoencoder, "factor", 16)
    with pytest.raises(BlockError, match="size must be multiples of 16 px for embedded, not 40x40"):
        run(LatentEncoderSource, size="40x40")


@pytest.mark.parametrize("block_type", [CaptionerSource, LatentEncoderSource])
def test_missing_model_ends_the_run_with_the_loaders_sentence(asked, monkeypatch, block_type):
    def missing(name, **options):
        raise models.ModelMissing(f"no model at {name}: fetch it")

    monkeypatch.setattr(models.weights, "find", missing)
    monkeypatch.setattr(models, "load_autoencoder", missing)
    with pytest.raises(BlockError, match=r"^no model at /nowhere: fetch it$"):
        run(block_type, model="/nowhere")
