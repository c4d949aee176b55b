"""Every odd kind of image file becomes RGB of one size, or a row that says why not."""

import errno
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blocks.source.images import SAMPLE, ImageParams, decode, parse_size, read_images
from flowgraph.block import Block, BlockError, Context

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


class Reader(Block):
    """Stands for a source."""

    Params = ImageParams


def encoded(image, kind="png", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(left=RED, right=BLUE, size=(64, 48)):
    """A picture whose left half differs from its right."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    return image


def close(picture, place, colour, tolerance=6):
    return np.abs(picture[place].astype(int) - colour).max() <= tolerance


def read(files, pattern="folder", **params):
    """What a source reads, the rows it reports and the warnings it gives."""
    rows, warnings = {}, []
    context = Context(
        report=lambda section, frame, values: rows.setdefault((section, frame), {}).update(values),
        warn=warnings.append,
        files=lambda asked, endings: (
            (name, data)
            for name, data in files
            if asked == pattern and (asked.endswith(f"/{name}") or Path(name).suffix.lower() in endings)
        ),
    )
    block = Reader({"images": pattern, **params}, "reader", context)
    return list(read_images(block, (16, 24))), rows, warnings


@pytest.mark.parametrize("kind", ["png", "jpeg", "bmp", "webp", "tiff", "ppm"])
def test_common_formats_keep_their_colours(kind):
    picture = decode(encoded(halves(), kind, **({"lossless": True} if kind == "webp" else {})), (32, 40))
    assert picture.shape == (32, 40, 3)
    assert picture.dtype == np.uint8
    assert close(picture, (16, 5), RED, 4)
    assert close(picture, (16, 35), BLUE, 4)


def test_lanczos_squeeze_is_pillows_own():
    """The paper resizes every image without keeping its aspect; no other step may touch a plain one."""
    noise = Image.fromarray(np.random.default_rng(1).integers(0, 256, (37, 61, 3), np.uint8))
    want = np.asarray(noise.resize((24, 16), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(decode(encoded(noise), (16, 24)), want)


def test_crop_keeps_the_aspect_and_the_centre():
    """Of thirds red, green, blue in a 3:1 picture, a square centre crop is the green one."""
    image = Image.new("RGB", (96, 32), GREEN)
    image.paste(RED, (0, 0, 32, 32))
    image.paste(BLUE, (64, 0, 96, 32))
    picture = decode(encoded(image), (32, 32), "crop")
    assert (picture == GREEN).all()
    squeezed = decode(encoded(image), (32, 32), "squeeze")
    assert close(squeezed, (16, 2), RED)
    assert close(squeezed, (16, 29), BLUE)


def test_grey_modes_become_equal_channels():
    for image in (Image.new("L", (9, 9), 77), Image.new("1", (9, 9), 1), Image.new("LA", (9, 9), (77, 255))):
        picture = decode(encoded(image), (16, 16))
        value = 255 if image.mode == "1" else 77
        assert (picture == value).all(), image.mode


@pytest.mark.parametrize("kind", ["png", "tiff"])
def test_sixteen_bit_grey_is_scaled_not_clipped(kind):
    ramp = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    picture = decode(encoded(Image.fromarray(ramp), kind), (16, 16))
    np.testing.assert_array_equal(picture[..., 0], np.arange(256).reshape(16, 16))


def test_grey_of_thirty_two_bits_is_that_of_eight_or_of_sixteen():
    for white in (255, 65535):
        ramp = np.linspace(0, white, 256).round().astype(np.int32).reshape(16, 16)
        picture = decode(encoded(Image.fromarray(ramp), "tiff"), (16, 16))
        np.testing.assert_array_equal(picture[..., 0], np.arange(256).reshape(16, 16))
    dark = b"P5 16 16 65535 " + np.full(256, 200, ">u2").tobytes()
    assert (decode(dark, (16, 16)) == 1).all()


def test_transparency_lies_over_white():
    half = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    half.paste((255, 0, 0, 255), (4, 0, 8, 8))
    picture = decode(encoded(half), (8, 8))
    assert close(picture, (4, 0), WHITE)
    assert close(picture, (4, 7), RED)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert (decode(encoded(palette), (8, 8)) == (40, 50, 60)).all()
    assert (decode(encoded(palette, transparency=1), (8, 8)) == 255).all()
    veil = Image.new("LA", (8, 8), (0, 128))
    assert close(decode(encoded(veil), (8, 8)), (0, 0), (127, 127, 127), 2)


def test_cmyk_becomes_rgb():
    picture = decode(encoded(halves().convert("CMYK"), "jpeg", quality=95), (16, 16))
    assert close(picture, (8, 2), RED, 12)
    assert close(picture, (8, 13), BLUE, 12)


@pytest.mark.parametrize(
    ("orientation", "red"),  # where the stored left half belongs
    [
        (1, "left"),
        (2, "right"),
        (3, "right"),
        (4, "left"),
        (5, "top"),
        (6, "top"),
        (7, "bottom"),
        (8, "bottom"),
    ],
)
def test_exif_orientation(orientation, red):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(encoded(halves(), "jpeg", exif=exif, quality=95), (32, 32))
    place = {"left": (16, 3), "right": (16, 28), "top": (3, 16), "bottom": (28, 16)}
    opposite = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    assert close(picture, place[red], RED, 12)
    assert close(picture, place[opposite[red]], BLUE, 12)


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (20, 10), colour) for colour in (GREEN, RED, BLUE)]
    for kind in ("gif", "webp", "png"):
        options = {"lossless": True} if kind == "webp" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert close(decode(content, (16, 16)), (8, 8), GREEN), kind


@pytest.mark.parametrize("geometry", ["squeeze", "crop"])
def test_extreme_sizes(geometry):
    assert (decode(encoded(Image.new("RGB", (1, 1), (9, 8, 7))), (192, 192), geometry) == (9, 8, 7)).all()
    wide = decode(encoded(halves(size=(20_000, 2))), (32, 32), geometry)
    assert wide.shape == (32, 32, 3)
    assert close(wide, (16, 2), RED)
    assert close(wide, (16, 30), BLUE)


def test_large_jpeg_is_read_at_a_fraction_and_looks_the_same():
    x = np.linspace(0, 255, 4000)
    image = Image.fromarray(np.stack([np.tile(x, (3000, 1))] * 3, -1).astype(np.uint8))
    picture = decode(encoded(image, "jpeg", quality=95), (64, 64))
    want = np.asarray(image.resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(picture.astype(int) - want).max() <= 2


def png_claiming(width, height):
    """A few bytes that claim a picture of any size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no image that can be read"),
        (b"not an image at all", "no image that can be read"),
        (encoded(halves())[:-60], "truncated"),
        (encoded(halves(size=(640, 480)), "jpeg")[:2000], "truncated"),
        (png_claiming(20_000, 20_000), "more than the 100 megapixels allowed"),
        (png_claiming(20_000, 5_001), "20000x5001 pixels are more than the 100 megapixels allowed"),
        (encoded(Image.new("F", (4, 4), 0.5), "tiff"), "floating-point pixels have no agreed white"),
        (PermissionError(errno.EACCES, "Permission denied", "b.png"), "Permission denied"),
    ],
)
def test_unreadable_image_is_named_and_skipped_and_keeps_its_number(content, reason):
    good = encoded(halves())
    images, rows, warnings = read([("a.png", good), ("b.png", content), ("c.png", good)])
    assert [(frame, name) for frame, name, _ in images] == [(0, "a.png"), (2, "c.png")]
    row = rows["frames", 1]
    assert (row["name"], row["status"]) == ("b.png", "unreadable")
    assert reason in row["reason"]
    assert len(warnings) == 1
    assert warnings[0].startswith("b.png is skipped: ")
    assert reason in warnings[0]


def test_a_jpeg_with_broken_bytes_does_not_stop_the_run():
    """Whatever a decoder makes of garbage inside a file, the next image follows."""
    rng = np.random.default_rng(3)
    sound = encoded(halves(), "jpeg")
    files = []
    for i in range(40):
        broken = bytearray(sound)
        for place in rng.integers(2, len(sound), 20):
            broken[place] = rng.integers(256)
        files.append((f"{i:02d}.jpg", bytes(broken)))
    images, rows, _ = read([*files, ("sound.jpg", sound)])
    assert images[-1][:2] == (40, "sound.jpg")
    assert len(images) + sum(row["status"] == "unreadable" for row in rows.values()) == 41


def test_other_files_of_a_folder_are_ignored_and_not_counted():
    good = encoded(halves())
    images, rows, warnings = read([("README.md", b"#"), ("a.PNG", good), ("b.txt", b"?"), ("c.jpeg", good)])
    assert [(frame, name) for frame, name, _ in images] == [(0, "a.PNG"), (1, "c.jpeg")]
    assert not rows
    assert not warnings


def test_a_file_named_itself_needs_no_extension():
    images, _, _ = read([("photo", encoded(halves()))], pattern="/some/where/photo")
    assert [(frame, name) for frame, name, _ in images] == [(0, "photo")]


def test_limit():
    images, _, _ = read([(f"{i}.png", encoded(halves())) for i in range(5)], limit=2)
    assert [frame for frame, _, _ in images] == [0, 1]


@pytest.mark.parametrize("files", [[], [("notes.txt", b"nothing")]])
def test_no_image_at_all(files):
    with pytest.raises(BlockError, match=r"images must be an image file, a folder or a glob .*: folder has none"):
        read(files)


def test_all_unreadable():
    with pytest.raises(BlockError, match="none of the 2 image files of folder can be read"):
        read([("a.png", b""), ("b.png", b"")])


def test_samples_are_photographs_from_the_scikit_image_wheel():
    images, rows, _ = read([], pattern="sample")
    assert [name for _, name, _ in images] == list(SAMPLE)
    assert not rows
    for _, name, picture in images:
        assert picture.std() > 30, name


@pytest.mark.parametrize("size", ["192x100", "0x192", "8192x192"])
def test_size_must_suit_the_models(size):
    from blocks.source.captioner import CaptionerSource

    with pytest.raises(ValueError, match="HEIGHTxWIDTH, multiples of 8 px up to 4096"):
        CaptionerSource.Params(size=size)
    with pytest.raises(ValueError, match="pattern"):
        CaptionerSource.Params(size="192")
    assert parse_size("192x256") == (192, 256)
