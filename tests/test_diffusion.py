"""`diffusion_sink`: which frames it renders together, from what, and what it does without."""

from types import SimpleNamespace

import numpy as np
import pytest

import models
from blocks.sink.diffusion import DiffusionSink
from flowgraph.block import BlockError, Context, Packet
from flowgraph.testing import assert_same_stream, recut, run_block


class Receiver:
    """Paints latents in red, captions' lengths in green, seeds in blue; remembers what it was asked."""

    size = (16, 24)
    vae = SimpleNamespace(channels=4, factor=8)

    def __init__(self):
        self.calls = []

    def _paint(self, captions, seeds, reds, size):
        pictures = np.zeros((len(seeds), *size, 3), np.uint8)
        for picture, caption, seed, red in zip(pictures, captions, seeds, reds, strict=True):
            picture[:] = red, len(caption or ""), seed % 251
        return pictures

    def regenerate(self, latents, captions, **options):
        self.calls.append(("regenerate", captions, options))
        assert latents.dtype == np.float32
        assert np.isfinite(latents).all()
        size = (8 * latents.shape[2], 8 * latents.shape[3])
        variances, steps = options["noise_variance"], options["steps"]
        taken = [round(40 * v) for v in variances] if steps == "matched" else [steps] * len(captions)
        return self._paint(captions, options["seeds"], latents.mean((1, 2, 3)), size), taken

    def generate(self, captions, **options):
        self.calls.append(("generate", captions, options))
        return self._paint(captions, options["seeds"], [0] * len(captions), options["size"])


@pytest.fixture
def receiver(monkeypatch):
    model = Receiver()
    monkeypatch.setattr(models, "load_receiver", lambda name, **options: model)
    return model


def caption(frame, words="a dog", **tags):
    return Packet(np.frombuffer(words.encode("latin-1"), np.uint8), frame, last=True).tagged(**tags)


def latent(frame, value=100.0, shape=(4, 2, 3), **tags):
    return Packet(np.full((1, *shape), value, np.float32), frame, last=True).tagged(**tags)


def lost(frame, status="lost", **tags):
    return Packet(np.empty(0, np.uint8), frame, last=True).tagged(status=status, **tags)


def lost_latent(frame, status="lost", **tags):
    return Packet(np.empty((0, 4, 0, 0), np.float32), frame, last=True).tagged(status=status, **tags)


BY_DESIGN = lost(0, "absent"), lost_latent(0, "absent")


def run(text=None, latents=None, seed=1, alternate=True, variances=None, **params):
    """The images by frame, the rows reported, the warnings."""
    rows, warnings = {}, []
    context = Context(
        seed=seed,
        report=lambda section, frame, values: rows.setdefault(frame, {}).update(values),
        warn=warnings.append,
    )
    given = {"text": text, "latent": latents, "variance": variances}
    inputs = {name: packets for name, packets in given.items() if packets is not None}
    made = run_block(DiffusionSink(params, "render", context), inputs, alternate)["image"]
    return made, rows, warnings


def test_text_and_latent(receiver):
    made, rows, _ = run(
        [caption(0), caption(1, "two birds")],
        [latent(0, noise_variance=0.25), latent(1, 50.0, noise_variance=0.0)],
        guidance=3,
        negative_prompt="blurred",
    )
    [(how, captions, options)] = receiver.calls
    assert (how, captions) == ("regenerate", ["a dog", "two birds"])
    assert options["noise_variance"] == [0.25, 0.0]
    assert (options["steps"], options["guidance"], options["schedule_steps"]) == ("matched", 3.0, 50)
    assert options["negative_prompt"] == "blurred"
    assert [(p.frame, p.data.shape, p.data.dtype, p.last) for p in made] == [
        (0, (1, 16, 24, 3), np.uint8, True),
        (1, (1, 16, 24, 3), np.uint8, True),
    ]
    assert made[0].data[0, 0, 0].tolist()[:2] == [100, 5]
    assert made[1].data[0, 0, 0].tolist()[:2] == [50, 9]
    assert rows == {
        0: {"mode": "text+latent", "steps": 10, "status": "ok"},
        1: {"mode": "text+latent", "steps": 0, "status": "ok"},
    }
    assert {t.key: t.value for t in made[0].tags} == {**rows[0], "caption": "a dog"}


def test_fixed_number_of_steps(receiver):
    _, rows, _ = run([caption(0)], [latent(0, noise_variance=0.5)], steps=30, schedule_steps=40)
    assert receiver.calls[0][2]["steps"] == 30
    assert receiver.calls[0][2]["schedule_steps"] == 40
    assert rows[0]["steps"] == 30


def test_a_latent_without_a_link_before_it_is_clean(receiver):
    _, rows, _ = run(None, [latent(0)])
    assert receiver.calls[0][2]["noise_variance"] == [0.0]
    assert rows[0] == {"mode": "latent", "steps": 0, "status": "ok"}
    assert receiver.calls[0][1] == [None]


def test_text_alone_is_rendered_from_noise(receiver):
    made, rows, _ = run([caption(0), caption(1, "")], None, text_only_steps=20, text_only_guidance=5, size="32x16")
    [(how, captions, options)] = receiver.calls
    assert (how, captions) == ("generate", ["a dog", ""])
    assert (options["steps"], options["guidance"], options["size"]) == (20, 5.0, (32, 16))
    assert made[0].data.shape == (1, 32, 16, 3)
    assert rows[0] == {"mode": "text", "steps": 20, "status": "ok"}


@pytest.mark.parametrize(
    ("text", "latents", "mode", "status", "reason"),
    [
        (lost(0), latent(0), "latent", "degraded", "caption lost"),
        (lost(0, reason="no caption came"), latent(0), "latent", "degraded", "no caption came"),
        (None, latent(0), "latent", "degraded", "caption lost"),
        (caption(0, status="damaged"), latent(0), "latent", "degraded", "caption damaged, not used"),
        (caption(0), lost_latent(0, reason="no latent came"), "text", "degraded", "no latent came"),
        (lost(0, reason="header"), lost_latent(0, reason="header"), "none", "lost", "header"),
        (caption(0, status="damaged"), lost_latent(0), "text", "degraded", "caption damaged; latent lost"),
        (caption(0, status="damaged"), BY_DESIGN[1], "text", "degraded", "caption damaged"),
        (caption(0), None, "text", "degraded", "latent lost"),
        (caption(0), latent(0, status="damaged"), "text+latent", "degraded", "latent damaged"),
        (caption(0), latent(0, np.nan), "text", "degraded", "latent or its noise variance is not finite"),
        (caption(0), latent(0, np.inf), "text", "degraded", "latent or its noise variance is not finite"),
        (
            caption(0),
            latent(0, noise_variance=float("nan")),
            "text",
            "degraded",
            "latent or its noise variance is not finite",
        ),
        (lost(0), lost_latent(0), "none", "lost", "caption lost; latent lost"),
        (
            lost(0),
            latent(0, np.nan),
            "none",
            "lost",
            "caption lost; latent or its noise variance is not finite",
        ),
        (BY_DESIGN[0], latent(0), "latent", "ok", None),
        (caption(0), BY_DESIGN[1], "text", "ok", None),
        (BY_DESIGN[0], lost_latent(0), "none", "lost", "latent lost"),
        (*BY_DESIGN, "none", "lost", "neither caption nor latent was sent"),
    ],
)
def test_what_is_lost_is_done_without(receiver, text, latents, mode, status, reason):
    made, rows, warnings = run([text] if text else [], [latents] if latents else [])
    assert rows[0]["mode"] == mode
    assert rows[0]["status"] == status
    assert rows[0].get("reason") == reason
    [image] = made
    assert image.tag("mode") == mode
    assert image.tag("status") == status
    assert image.data.shape == (1, 16, 24, 3)
    if mode == "none":
        assert (image.data == 128).all()
        assert rows[0]["steps"] == 0
        assert not receiver.calls
    assert not warnings


def test_a_damaged_caption_may_be_used(receiver):
    _, rows, _ = run([caption(0, "a d\xffg", status="damaged")], [latent(0)], on_damaged_caption="use")
    assert rows[0] == {"mode": "text+latent", "steps": 0, "status": "degraded", "reason": "caption damaged"}
    assert receiver.calls[0][1] == ["a d\xffg"]


@pytest.mark.parametrize("shape", [(3, 2, 3), (4, 0, 3), (16, 2, 3)])
def test_a_latent_of_another_model_is_told_and_set_aside(receiver, shape):
    _, rows, warnings = run([caption(0)], [latent(0, shape=shape)])
    wrong = "x".join(map(str, shape))
    assert rows[0]["mode"] == "text"
    assert rows[0]["reason"] == f"latent must be 1x4xHEIGHTxWIDTH for model embedded, not 1x{wrong}"
    assert warnings == [f"frame 0: {rows[0]['reason']}"]


def test_a_very_noisy_latent_is_set_aside_for_its_caption(receiver):
    noisy = [latent(i, noise_variance=v) for i, v in enumerate((0.4, 0.6, 0.6, 0.6))]
    text = [caption(0), caption(1), lost(2), caption(3, status="damaged")]
    _, rows, _ = run(text, noisy, text_only_above=0.5)
    assert [rows[i]["mode"] for i in range(4)] == ["text+latent", "text", "latent", "latent"]
    assert rows[1]["reason"] == "latent not used: noise variance 0.60"


def test_a_posterior_mean_is_unshrunk_for_a_matched_start(receiver):
    """E[z | y] with distortion D = 0.2 is 0.8 (z + noise), so that the noise has variance 0.2 / 0.8."""
    tags = {"noise_variance": 0.2, "noise_source": "posterior"}
    made, _, _ = run(None, [latent(0, 80.0, **tags)])
    assert made[0].data[0, 0, 0, 0] == 100
    assert receiver.calls[0][2]["noise_variance"] == pytest.approx([0.25])
    for other in ({"steps": 30}, {"steps": 0}):
        assert run(None, [latent(0, 80.0, **tags)], **other)[0][0].data[0, 0, 0, 0] == 80
    assert run(None, [latent(0, 80.0, **tags | {"noise_source": "table"})])[0][0].data[0, 0, 0, 0] == 80
    run(None, [latent(0, 0.0, noise_variance=1.0, noise_source="posterior")])
    assert receiver.calls[-1][2]["noise_variance"] == pytest.approx([99])  # nothing is known: almost pure noise


def groups(receiver):
    """Which frames were rendered together, told by caption."""
    return [captions for _, captions, _ in receiver.calls]


def test_frames_share_a_batch_by_number_not_by_arrival(receiver):
    """Frames 0..2, 3..5, ...: whatever is missing, however packets are cut and whichever wire is early."""
    numbers = [0, 2, 3, 4, 7, 8, 9]
    text = [caption(i, f"frame {i}") for i in numbers]
    latents = [latent(i, 10.0 * i) for i in numbers]
    want, _, _ = run(text, latents, batch=3)
    together = [["frame 0", "frame 2"], ["frame 3", "frame 4"], ["frame 7", "frame 8"], ["frame 9"]]
    assert groups(receiver) == together
    assert [p.frame for p in want] == numbers
    for again in (
        run(text, latents, batch=3, alternate=False),
        run(recut(text, [1]), latents, batch=3),
        run(recut(text, [3, 2]), latents, batch=3, alternate=False),
    ):
        assert_same_stream(again[0], want)
    assert groups(receiver) == 4 * together


def test_a_full_batch_is_rendered_at_once_and_not_at_the_next_frame(receiver):
    block = DiffusionSink({"batch": 2}, "render", Context(seed=1))
    block.start()
    assert list(block.work(latent=latent(4))) == []
    assert [made["image"].frame for made in block.work(latent=latent(5))] == [4, 5]
    assert list(block.flush()) == []


def test_frames_of_a_batch_that_differ_in_kind_or_shape_keep_their_order(receiver):
    text = [caption(0, "big"), caption(1, "small"), caption(2, "none"), caption(3, "big too"), lost(4)]
    latents = [
        latent(0, 1.0, (4, 8, 8)),
        latent(1, 2.0),
        lost_latent(2),
        latent(3, 4.0, (4, 8, 8)),
        lost_latent(4),
    ]
    made, rows, _ = run(text, latents, batch=8)
    assert [p.frame for p in made] == [0, 1, 2, 3, 4]
    assert [p.data.shape[1:3] for p in made] == [(64, 64), (16, 24), (16, 24), (64, 64), (16, 24)]
    assert [p.data[0, 0, 0, 0] for p in made] == [1, 2, 0, 4, 128]
    assert sorted(groups(receiver)) == [["big", "big too"], ["none"], ["small"]]
    assert [rows[i]["mode"] for i in range(5)] == [
        "text+latent",
        "text+latent",
        "text",
        "text+latent",
        "none",
    ]


def test_noise_depends_on_seed_and_frame_alone(receiver):
    def seeds():
        return [seed for _, _, options in receiver.calls for seed in options["seeds"]]

    run(None, [latent(i) for i in range(6)], batch=2)
    first = seeds()
    receiver.calls.clear()
    run([caption(i) for i in range(6)], [latent(i) for i in range(6)], batch=5)
    assert seeds() == first
    assert len(set(first)) == 6
    assert all(0 <= seed < 2**63 for seed in first)
    receiver.calls.clear()
    run(None, [latent(i) for i in range(6)], seed=2)
    assert not set(seeds()) & set(first)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"steps": 51}, "steps must be at most schedule_steps, 50, not 51"),
        ({"steps": -1}, "at least 0"),
        ({"schedule_steps": 501}, "at most 500"),
        ({"text_only_steps": 501}, "at most 500"),
        ({"steps": "many"}, "matched"),
        ({"guidance": 0.5}, "at least 1"),
        ({"batch": 0}, "at least 1"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        DiffusionSink(params)


def test_missing_model_ends_the_run_with_the_loaders_sentence(monkeypatch):
    def missing(name, **options):
        raise models.ModelMissing(f"no model at {name}: fetch it")

    monkeypatch.setattr(models, "load_receiver", missing)
    with pytest.raises(BlockError, match=r"^no model at /nowhere: fetch it$"):
        DiffusionSink({"model": "/nowhere"}).start()


def test_every_element_goes_by_its_own_noise_where_that_is_told(receiver):
    told = np.array([0.2, 0.5, 1.0, 0.0, 0.2, 0.2], np.float32).reshape(1, 1, 2, 3).repeat(4, 1)
    variances = [Packet(told, 0, last=True), Packet(told[:, :, :1], 1, last=True), Packet(told[:0], 2, last=True)]
    sent = [latent(frame, 8.0, noise_variance=0.5, noise_source="posterior") for frame in range(3)]
    receiver.regenerate = lambda latents, captions, **options: (
        calls.append((latents, options["noise_variance"]))
        or (
            np.zeros((3, 16, 24, 3), np.uint8),
            [1, 1, 1],
        )
    )
    calls = []
    _, _, warnings = run(latents=sent, variances=variances)
    ((values, noise),) = calls
    np.testing.assert_allclose(noise[0][0].ravel(), [0.25, 1, 99, 0, 0.25, 0.25], rtol=1e-5)
    np.testing.assert_allclose(values[0, 0].ravel(), [10, 16, 800, 8, 10, 10], rtol=1e-5)
    assert (values[1:] == 16).all()
    assert list(map(float, noise[1:])) == [1.0, 1.0]
    assert warnings == ["frame 1: variance is not used: it must be (1, 4, 2, 3), of at least 0"]
