"""`quality_meter`: figures against their definitions, and null with the reason where there is none."""

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from blocks.sink import quality
from blocks.sink.quality import QualityMeter, psnr, ssim, ssim_tiles
from flowgraph.block import Context, Packet
from flowgraph.cache import Cache
from flowgraph.testing import run_block

rng = np.random.default_rng(5)
PHOTO = np.kron(rng.integers(40, 216, (8, 10, 3)), np.ones((4, 4, 1))).astype(np.uint8)


def packet(data, frame=0, **tags):
    return Packet(np.asarray(data)[None], frame, last=True).tagged(**tags)


def lost_latent(frame=0):
    return Packet(np.empty((0, 4, 0, 0), np.float32), frame, last=True).tagged(status="lost")


@pytest.fixture(autouse=True)
def no_torchvision(monkeypatch):
    monkeypatch.setattr(quality, "find_spec", lambda name: None)


def run(inputs, **params):
    """The images passed on, the frames' rows, the section `unmeasured`, the warnings."""
    rows, unmeasured, warnings = {}, {}, []

    def report(section, frame, values):
        json.dumps(values, allow_nan=False)
        if section == "frames":
            rows.setdefault(frame, {}).update(values)
        elif section == "quality":
            rows["all"] = values
        else:
            assert section == "unmeasured"
            assert not set(values) & set(unmeasured)  # told once
            unmeasured.update(values)

    block = QualityMeter(params, "score", Context(report=report, warn=warnings.append))
    return run_block(block, inputs)["image"], rows, unmeasured, warnings


def test_psnr_of_a_known_error():
    """An error of 5 in every value is 10 log10(255^2 / 25) = 34.1514 dB."""
    assert psnr(PHOTO + np.uint8(5), PHOTO) == pytest.approx(34.15140352195873, abs=1e-12)
    assert psnr(PHOTO, PHOTO) is None
    assert psnr(np.zeros_like(PHOTO), np.full_like(PHOTO, 255)) == 0.0


def test_psnr_of_gaussian_noise():
    """The mean of n squared errors of variance 100 is 100 within 4 standard deviations of 100 sqrt(2/n)."""
    noisy = np.clip(PHOTO + np.random.default_rng(1).normal(0, 10, PHOTO.shape).round(), 0, 255).astype(np.uint8)
    error = 255**2 / 10 ** (psnr(noisy, PHOTO) / 10)
    assert error == pytest.approx(100 + 1 / 12, rel=4 * np.sqrt(2 / PHOTO.size))


def test_ssim_follows_its_definition():
    """Of two flat pictures SSIM is the luminance term (2ab + c1)/(a^2 + b^2 + c1), c1 = (0.01*255)^2."""
    a, b = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 150, np.uint8)
    c1 = (0.01 * 255) ** 2
    assert ssim(a, b) == pytest.approx((2 * 100 * 150 + c1) / (100**2 + 150**2 + c1), abs=1e-9)
    assert ssim(PHOTO, PHOTO) == pytest.approx(1)
    assert ssim(255 - PHOTO, PHOTO) < 0


def test_ssim_of_tiles_follows_its_definition():
    """Of 7x7 tiles side by side, those that are whole: the formula of Wang et al. with the tile's own moments."""
    received = np.clip(PHOTO + rng.normal(0, 30, PHOTO.shape), 0, 255).astype(np.uint8)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    found = []
    for top in range(0, 28, 7):
        for left in range(0, 35, 7):
            for channel in range(3):
                x, y = (p[top : top + 7, left : left + 7, channel].astype(float).ravel() for p in (received, PHOTO))
                mx, my, cov = x.mean(), y.mean(), np.cov(x, y, bias=True)
                contrast = (2 * cov[0, 1] + c2) / (cov[0, 0] + cov[1, 1] + c2)
                found.append((2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast)
    assert ssim_tiles(received, PHOTO) == pytest.approx(np.mean(found), abs=1e-9)
    assert ssim_tiles(PHOTO, PHOTO) == 1


def test_figures_of_a_frame_are_reported_and_the_image_passes_on_with_them():
    received = PHOTO + np.uint8(5)
    z = np.zeros((4, 2, 3), np.float32)
    images, rows, unmeasured, warnings = run(
        {
            "image": [packet(received, 7, mode="latent")],
            "sent": [packet(PHOTO, 7)],
            "latent": [packet(z + np.float32(0.5), 7)],
            "sent_latent": [packet(z, 7)],
        }
    )
    [image] = images
    np.testing.assert_array_equal(image.data[0], received)
    assert (image.frame, image.last, image.tag("mode")) == (7, True, "latent")
    assert image.tag("psnr") == rows[7]["psnr"] == pytest.approx(34.1514, abs=1e-3)
    assert image.tag("ssim") == rows[7]["ssim"] == pytest.approx(1, abs=0.05)
    assert rows[7]["latent_mse"] == pytest.approx(0.25)
    assert rows[7]["lpips"] is None
    assert rows[7]["clip_score"] is None
    assert unmeasured == {
        "lpips": "lpips needs torchvision and torchmetrics: pip install 'semflow[metrics]'",
        "clip_score": "clip_score needs a CLIP model: set `clip` to its folder",
        "squeezenet_distance": "squeezenet_distance needs SqueezeNet 1.1's features: set `squeezenet` to a file",
        **dict.fromkeys(
            ("fid", "kid"), "fid and kid need torchmetrics and torch-fidelity: pip install 'semflow[metrics]'"
        ),
    }
    assert not warnings


def test_without_reference_wires_the_reason_is_told_once():
    images, rows, unmeasured, _ = run({"image": [packet(PHOTO, i) for i in range(3)]})
    assert len(images) == 3
    assert all(set(row.values()) == {None} for row in rows.values())
    assert "not wired" in unmeasured["psnr"]
    assert "not wired" in unmeasured["latent_mse"]


def test_sizes_that_differ_are_told_with_the_frame():
    small = PHOTO[:16, :16]
    _, rows, unmeasured, _ = run({"image": [packet(small, 4)], "sent": [packet(PHOTO, 4)]})
    assert rows[4]["psnr"] is None
    assert unmeasured["ssim"] == "frame 4 was received as 16x16x3 but sent as 32x40x3"


def test_tiny_pictures_have_no_ssim():
    tiny = PHOTO[:6, :6]
    _, rows, unmeasured, _ = run({"image": [packet(tiny)], "sent": [packet(tiny // 2)]})
    assert rows[0]["ssim"] is rows[0]["ssim_tiles"] is None
    assert rows[0]["psnr"] > 0
    assert unmeasured["ssim"] == "ssim needs pictures of at least 7x7 pixels"


def test_lost_frames_are_null_and_a_grey_stand_in_is_measured():
    grey = np.full_like(PHOTO, 128)
    z = np.zeros((4, 2, 3), np.float32)
    images, rows, unmeasured, _ = run(
        {
            "image": [packet(PHOTO, 0), packet(grey, 2, status="lost")],
            "sent": [packet(PHOTO, i) for i in range(3)],
            "latent": [packet(z, 0), lost_latent(2)],
            "sent_latent": [packet(z, i) for i in range(3)],
        }
    )
    assert [image.frame for image in images] == [0, 2]
    assert set(rows[1].values()) == {None}
    assert rows[2]["psnr"] == pytest.approx(10 * np.log10(255**2 / np.mean((PHOTO - 128.0) ** 2)))
    assert rows[2]["latent_mse"] is None
    assert rows[0]["psnr"] is None  # identical: no bound
    assert rows[0]["ssim"] == 1
    assert set(unmeasured) == {"lpips", "clip_score", "squeezenet_distance", "fid", "kid"}


@pytest.fixture
def alexnet(monkeypatch, tmp_path):
    """AlexNet's features (Krizhevsky, 2014) with random weights, in the place of torchvision."""
    lpips = pytest.importorskip("torchmetrics.functional.image.lpips", reason="pip install torchmetrics")
    import torch
    import torchmetrics.image.lpip

    nn = torch.nn

    def net(weights=None):
        torch.manual_seed(1)
        layers = []
        for i, (given, made, kernel, stride, padding) in enumerate(
            [
                (3, 64, 11, 4, 2),
                (64, 192, 5, 1, 2),
                (192, 384, 3, 1, 1),
                (384, 256, 3, 1, 1),
                (256, 256, 3, 1, 1),
            ]
        ):
            layers += [nn.Conv2d(given, made, kernel, stride, padding), nn.ReLU()]
            layers += [nn.MaxPool2d(3, 2)] if i in (0, 1, 4) else []
        return SimpleNamespace(features=nn.Sequential(*layers))

    made = ModuleType("torchvision")
    made.models = ModuleType("torchvision.models")
    made.models.alexnet = net
    made.models.AlexNet_Weights = SimpleNamespace(DEFAULT=SimpleNamespace(url="https://example.org/alexnet.pth"))
    monkeypatch.setitem(sys.modules, "torchvision", made)
    monkeypatch.setitem(sys.modules, "torchvision.models", made.models)
    monkeypatch.setattr(quality, "find_spec", lambda name: object())
    monkeypatch.setattr(lpips, "_TORCHVISION_AVAILABLE", True)
    monkeypatch.setattr(torchmetrics.image.lpip, "_TORCHVISION_AVAILABLE", True, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints" / "alexnet.pth"


def test_lpips_without_its_weights_says_what_to_fetch(alexnet):
    _, rows, unmeasured, _ = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]})
    assert rows[0]["lpips"] is None
    fetch = f"fetch https://example.org/alexnet.pth into {alexnet.parent}"
    assert unmeasured["lpips"] == f"lpips needs AlexNet's weights: {fetch}"


def test_lpips_is_zero_for_equal_pictures_and_grows_with_noise(alexnet):
    alexnet.parent.mkdir()
    alexnet.touch()
    photo = np.kron(rng.integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    noise = rng.normal(0, 1, photo.shape)
    noisy = [np.clip(photo + s * noise, 0, 255).astype(np.uint8) for s in (0, 10, 60)]
    inputs = {
        "image": [packet(x, i) for i, x in enumerate(noisy)],
        "sent": [packet(photo, i) for i in range(3)],
    }
    _, rows, unmeasured, _ = run(inputs)
    assert rows[0]["lpips"] == 0
    assert 0 < rows[1]["lpips"] < rows[2]["lpips"]
    assert "lpips" not in unmeasured


def test_a_torchvision_that_does_not_fit_is_named(alexnet, monkeypatch):
    class Broken(ModuleType):
        def __getattr__(self, name):
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "torchvision.models", Broken("torchvision.models"))
    _, _, unmeasured, _ = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]})
    assert unmeasured["lpips"].startswith("lpips needs a torchvision that goes with the torch installed: ")
    assert "torchvision::nms" in unmeasured["lpips"]


def test_squeezenet_distance_is_that_of_normalised_features(tmp_path):
    """conv1 alone, by hand: the other six layers have weights of 0, and features of 0, which are alike."""
    import torch
    from safetensors.torch import save_file

    from models.squeezenet import Fire, squeezenet

    shapes = {"0.weight": (64, 3, 3, 3), "0.bias": (64,)}
    fires = [(64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128)]
    fires += [(256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256)]
    for place, sizes in zip((3, 4, 6, 7, 9, 10, 11, 12), fires, strict=True):
        shapes |= {f"{place}.{name}": tuple(value.shape) for name, value in Fire(*sizes).state_dict().items()}
    weights = {f"features.{name}": torch.zeros(shape) for name, shape in shapes.items()}
    weights["features.0.weight"][:2, :, 1, 1] = torch.tensor([[1.0, 0, 0], [0, 0, 1]])  # blue and red, as they come
    file = tmp_path / "squeezenet.safetensors"
    save_file(weights, file)
    assert squeezenet(file)(torch.zeros(1, 3, 64, 64)).shape == (1, 512, 3, 3)
    red, both = (np.full((40, 40, 3), colour, np.uint8) for colour in ((255, 0, 0), (255, 0, 255)))
    _, rows, unmeasured, _ = run({"image": [packet(red), packet(both, 1)], "sent": [packet(both), packet(both, 1)]},
                                 squeezenet=str(file))  # fmt: skip
    r, b = 255 - 123.68, 255 - 103.939
    assert rows[0]["squeezenet_distance"] == pytest.approx((2 - 2 * r / np.hypot(r, b)) / 7, rel=1e-5)
    assert rows[1]["squeezenet_distance"] == 0
    assert "squeezenet_distance" not in unmeasured
    _, rows, unmeasured, _ = run({"image": [packet(red)], "sent": [packet(red)]}, squeezenet=str(tmp_path / "none"))
    assert rows[0]["squeezenet_distance"] is None
    assert "none has no features of SqueezeNet 1.1" in unmeasured["squeezenet_distance"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    """A CLIP model of a few thousand random weights, in the layout of the large ones."""
    import torch
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("clip")
    tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    letters = {c + end: 2 + 2 * i + j for i, c in enumerate("abcdefgh") for j, end in enumerate(("", "</w>"))}
    text = tower | {"vocab_size": 18, "bos_token_id": 0, "eos_token_id": 1, "max_position_embeddings": 77}
    vision = tower | {"image_size": 32, "patch_size": 8}
    torch.manual_seed(3)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    torch.nn.init.normal_(model.visual_projection.weight)
    torch.nn.init.normal_(model.text_projection.weight)
    model.save_pretrained(folder)
    vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, **letters}
    CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    size = {"height": 32, "width": 32}
    CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size).save_pretrained(folder)
    return folder, model.eval()


def test_clip_score_is_the_cosine_of_the_two_embeddings(clip_folder):
    import torch

    folder, model = clip_folder
    photo = np.kron(rng.integers(0, 256, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    captions = ["bad", "cafe", "h", "abba gag", "deaf", "egg"]
    frames = range(len(captions))
    inputs = {
        "image": [packet(photo, i) for i in frames],
        "sent": [packet(photo, i, caption=c) for i, c in enumerate(captions)],
    }
    _, rows, unmeasured, warnings = run(inputs, clip=str(folder))
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    pixels = torch.tensor(((photo / 255 - mean) / std).transpose(2, 0, 1)[None], dtype=torch.float32)
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    want = []
    for caption in captions:
        words = [[*word[:-1], word[-1] + "</w>"] for word in caption.split()]
        ids = [0, *(vocabulary[letter] for word in words for letter in word), 1]
        with torch.inference_mode():
            made = model(input_ids=torch.tensor([ids]), pixel_values=pixels)
        want.append(100 * float((made.image_embeds * made.text_embeds).sum()))
    assert max(want) > 1  # some positive, some not
    assert min(want) < -1
    assert [rows[i]["clip_score"] for i in frames] == pytest.approx([max(x, 0) for x in want], abs=1e-3)
    assert "clip_score" not in unmeasured
    assert not warnings


def test_clip_score_needs_the_caption_sent(clip_folder):
    _, rows, unmeasured, _ = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]}, clip=str(clip_folder[0]))
    assert rows[0]["clip_score"] is None
    assert "carries no caption: wire the captioner's `image`" in unmeasured["clip_score"]


def test_a_clip_model_that_is_missing_is_told(tmp_path):
    _, rows, unmeasured, warnings = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]}, clip=str(tmp_path))
    assert rows[0]["clip_score"] is None
    assert f"{tmp_path} is no CLIP model at hand" in unmeasured["clip_score"]
    assert warnings == [f"clip_score stays null: {unmeasured['clip_score']}"]


@pytest.fixture
def mean_colours(monkeypatch):
    """A network whose features are the means of red and green, in the place of Inception-v3."""
    pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
    import torch

    class Colours(torch.nn.Module):
        num_features = 2

        def forward(self, pictures):
            return pictures[:, :2].double().mean((2, 3)) / 100

    monkeypatch.setattr(quality, "load_set_distances", lambda: quality.set_distances(Colours()))


def colours(count, means, deviation):
    """Flat pictures whose red and green are correlated, and their features, float64 [count, 2]."""
    draws = rng.normal(0, 1, (count, 2)) @ np.array([[1, 0.6], [0, 0.8]])
    values = np.clip(np.array(means) + deviation * draws, 0, 255).astype(np.uint8)
    return [np.full((8, 8, 3), [*value, 0], np.uint8) for value in values], values / 100


def test_fid_is_the_distance_of_two_gaussians_and_kid_that_of_two_kernel_means(mean_colours):
    """In two dimensions tr (S S')^1/2 = (tr S S' + 2 det^1/2 S S')^1/2; KID as the sums that define it."""
    sent, x = colours(40, (120, 90), np.array([20, 30]))
    received, y = colours(40, (150, 80), np.array([35, 15]))
    inputs = {
        "image": [packet(p, i) for i, p in enumerate(received)],
        "sent": [packet(p, i) for i, p in enumerate(sent)],
    }
    _, rows, unmeasured, _ = run(inputs)
    s, t = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.trace(s @ t) + 2 * np.sqrt(np.linalg.det(s @ t)))
    fid = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(s + t) - 2 * root
    assert rows["all"]["fid"] == pytest.approx(fid, rel=1e-9)
    kernel = [(a @ b.T / 2 + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]
    within = sum((k.sum() - np.trace(k)) / (40 * 39) for k in kernel[:2])
    assert rows["all"]["kid"] == pytest.approx(within - 2 * kernel[2].mean(), rel=1e-9)
    assert not {"fid", "kid"} & set(unmeasured)


def test_a_set_has_no_distance_from_itself_and_one_picture_is_no_set(mean_colours):
    sent, _ = colours(10, (120, 90), 30)
    same = [packet(p, i) for i, p in enumerate(sent)]
    _, rows, _, _ = run({"image": same, "sent": same})
    assert rows["all"]["fid"] == pytest.approx(0, abs=1e-9)
    _, rows, unmeasured, _ = run({"image": same[:1], "sent": same[:1]})
    assert rows["all"] == {"fid": None, "kid": None}
    assert unmeasured["fid"] == "fid needs two pictures or more"


def test_pictures_that_a_worker_kept_from_the_run_before_do_not_count(mean_colours):
    """A sweep's worker keeps the network, not what it has seen."""
    sent, _ = colours(10, (120, 90), 30)
    other, _ = colours(10, (60, 200), 10)
    context = Context(cache=Cache())
    figures = []
    for received in (other, sent):
        context.report = lambda section, frame, values: section == "quality" and figures.append(values["fid"])
        frames = [[packet(p, i) for i, p in enumerate(pictures)] for pictures in (received, sent)]
        run_block(QualityMeter({}, "score", context), dict(zip(("image", "sent"), frames, strict=True)))
    assert figures[0] > 0.5
    assert figures[1] == pytest.approx(0, abs=1e-9)


def test_inception_without_its_weights_says_what_to_fetch(monkeypatch, tmp_path):
    pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
    import torch

    module = ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.URL_INCEPTION_V3 = "https://example.org/inception.pth"
    monkeypatch.setitem(sys.modules, "torch_fidelity", ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(quality, "find_spec", lambda name: object() if name != "torchvision" else None)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    _, rows, unmeasured, _ = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]})
    assert rows["all"] == {"fid": None, "kid": None}
    fetch = f"fetch https://example.org/inception.pth into {tmp_path}/checkpoints"
    assert unmeasured["fid"] == unmeasured["kid"] == f"fid and kid need Inception-v3's weights: {fetch}"
    weights = tmp_path / "checkpoints" / "inception.pth"
    weights.parent.mkdir()
    weights.write_bytes(b"cos\nabort\n(tR.")  # a pickle that would end this process
    _, rows, unmeasured, _ = run({"image": [packet(PHOTO)], "sent": [packet(PHOTO)]})
    assert rows["all"] == {"fid": None, "kid": None}
    assert f"{weights} holds no weights: fetch https://example.org/inception.pth again" in unmeasured["fid"]
