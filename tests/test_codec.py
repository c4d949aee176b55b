"""`image_codec_source` and `image_codec_sink`: classical files that fit a budget, and what bit errors do to them."""

import io

import numpy as np
import pytest
from PIL import Image
from skimage import data

from blocks.sink.codec import ImageCodecSink
from blocks.sink.diffusion import GREY
from blocks.source.codec import ImageCodecSource, encode_within
from blocks.source.images import decode
from flowgraph.block import Context, Packet
from flowgraph.testing import run_block

PHOTO = np.array(Image.fromarray(data.astronaut()).resize((192, 192), Image.Resampling.LANCZOS))


def error(received):
    return float(np.mean((received.astype(float) - PHOTO) ** 2))


def png():
    file = io.BytesIO()
    Image.fromarray(PHOTO).save(file, "png")
    return file.getvalue()


def sent(warnings=None, **params):
    told = [] if warnings is None else warnings
    context = Context(files=lambda pattern, endings: iter([("a.png", png())]), warn=told.append)
    return run_block(ImageCodecSource({"images": "folder", **params}, "encode", context))


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
def test_file_fills_its_budget_and_more_bytes_make_a_better_picture(codec):
    budgets = (1500, 3000, 6000)
    files = [encode_within(PHOTO, codec, budget) for budget in budgets]
    assert all(0.75 * budget < len(file) <= budget for file, budget in zip(files, budgets, strict=True))
    errors = [error(decode(file, (192, 192))) for file in files]
    assert errors == sorted(errors, reverse=True)
    assert Image.open(io.BytesIO(files[0])).format.lower() == codec


def test_picture_shrinks_where_no_quality_fits():
    """At the least quality this picture takes 1,150 bytes as JPEG, of which the header is half."""
    file = encode_within(PHOTO, "jpeg", 800)
    assert len(file) <= 800
    assert Image.open(io.BytesIO(file)).size == (96, 96)
    assert encode_within(PHOTO, "jpeg", 100) == b""


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif"])
def test_received_picture_is_the_file_s(codec):
    made = sent(format=codec, max_bytes=2000)
    (bits,), (image,) = made["bits"], made["image"]
    assert bits.tag("pixel_values") == PHOTO.size
    (received,) = run_block(ImageCodecSink(), {"bits": [bits]})["image"]
    assert (image.data[0] == PHOTO).all()
    assert (received.data[0] == decode(bits.data.tobytes(), (192, 192))).all()
    assert (received.tag("status"), received.tag("mode")) == ("ok", "codec")


def test_frame_that_fits_nowhere_is_empty_and_comes_out_lost():
    warnings = []
    (bits,) = sent(warnings, format="jpeg", max_bytes=100)["bits"]
    assert (bits.count, bits.last) == (0, True)
    assert warnings == ["a.png does not fit into 100 bytes as jpeg: raise max_bytes"]
    (received,) = run_block(ImageCodecSink(), {"bits": [bits]})["image"]
    assert (received.data == GREY).all()
    assert (received.tag("status"), received.tag("reason")) == ("lost", "nothing was sent, or nothing came")


@pytest.mark.parametrize("size", ["192x192", "64x96"])
def test_any_bit_errors_give_a_picture_of_the_size_asked(size):
    """A broken file is a lost frame or a strange picture, and never a crash."""
    (bits,) = sent(format="webp", max_bytes=1500)["bits"]
    rng, lost = np.random.default_rng(1), 0
    for frame in range(60):
        broken = bits.data.copy()
        broken[rng.integers(0, len(broken), 1 + frame)] ^= np.uint8(1) << rng.integers(0, 8, dtype=np.uint8)
        (received,) = run_block(ImageCodecSink({"size": size}), {"bits": [Packet(broken, 0, packed=True, last=True)]})[
            "image"
        ]
        height, width = map(int, size.split("x"))
        assert received.data.shape == (1, height, width, 3)
        lost += received.tag("status") == "lost"
        assert bool(received.tag("reason")) == (received.tag("status") == "lost")
    assert lost  # an uncoded header does not survive
