"""Images as the sources read them: any file that Pillow understands becomes RGB of one size."""

from __future__ import annotations

import io
import itertools
import warnings
from collections.abc import Iterable, Iterator
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from flowgraph.block import Block, BlockError
from flowgraph.block import Params as BlockParams

if TYPE_CHECKING:
    from PIL import Image

# Photographs in the public domain (NASA, SpaceX) or under CC0, shipped in the scikit-image wheel.
SAMPLE = ("astronaut.png", "camera.png", "chelsea.png", "coffee.png", "rocket.jpg")
EXTENSIONS = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
MAX_PIXELS = 100_000_000  # 300 MB once decoded; a file of a few KB can claim far more


def _check_size(text: str) -> str:
    height, width = parse_size(text)
    if height % 8 or width % 8 or not 0 < min(height, width) <= max(height, width) <= 4096:
        raise ValueError("must be HEIGHTxWIDTH, multiples of 8 px up to 4096, such as 512x512")
    return text


Size = Annotated[str, Field(pattern=r"^\d+x\d+$"), AfterValidator(_check_size)]


def parse_size(text: str) -> tuple[int, int]:
    """Return height and width.

    >>> parse_size("192x256")
    (192, 256)
    """
    height, _, width = text.partition("x")
    return int(height), int(width)


class ImageParams(BlockParams):
    """Which images a source reads, and what they become before it encodes them."""

    images: str = Field(
        "sample",
        description='image file, folder or glob; "sample": photographs that come with scikit-image',
        json_schema_extra={"path": True},
    )
    first: int = Field(0, ge=0, le=10**9, description="skip so many files, in order of name; frames keep their numbers")
    limit: int | None = Field(None, ge=1, le=10**9, description="read only so many files")
    repeat: int = Field(1, ge=1, description="send these files so often; frames are counted on")
    batch: int = Field(4, ge=1, le=256, description="images computed at once: frames 0 to batch-1, and so on")
    geometry: Literal["squeeze", "crop"] = Field(
        "squeeze",
        description="squeeze the whole image to size, as the paper does, or crop its centre",
    )


def decode(content: bytes, size: tuple[int, int], geometry: str = "squeeze") -> np.ndarray:
    """Return the picture in an image file as RGB uint8, upright, (height, width, 3) of `size`.

    Of an animation the first frame; transparency over white; 16 bits scaled down to 8. Raises `ValueError`,
    or whatever Pillow raises for a file that it cannot read, with a reason for people.
    """
    from PIL import Image, ImageOps

    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        try:
            image: Image.Image = Image.open(io.BytesIO(content))
        except Image.UnidentifiedImageError:
            raise ValueError("it is no image that can be read here") from None
        except Image.DecompressionBombError:
            raise ValueError(f"it has more than the {MAX_PIXELS // 10**6} megapixels allowed") from None
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(
            f"{image.width}x{image.height} pixels are more than the {MAX_PIXELS // 10**6} megapixels allowed"
        )
    height, width = size
    ample = 2 * max(size)
    image.draft(None, (ample, ample))  # a large JPEG decodes at 1/2, 1/4 or 1/8 of its size where that is ample
    image = _rgb(_eight_bits(ImageOps.exif_transpose(image), image.format))
    if geometry == "crop":
        image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
    else:
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return np.array(image)


def _eight_bits(image: Image.Image, file_format: str | None) -> Image.Image:
    from PIL import Image

    if image.mode == "F":
        raise ValueError("floating-point pixels have no agreed white: save it with 8 or 16 bits")
    if not image.mode.startswith("I"):
        return image
    levels = np.asarray(image, np.float32)  # of 16 bits, but that TIFF also writes those of 8 in 32
    white = 255 if image.mode == "I" and file_format == "TIFF" and levels.max() <= 255 else 65535
    return Image.fromarray(np.clip(levels * (255 / white) + 0.5, 0, 255).astype(np.uint8))


def _rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def read_images(block: Block, size: tuple[int, int]) -> Iterator[tuple[int, str, np.ndarray]]:
    """Yield (frame, name, picture) for the images that a source's `ImageParams` name.

    Frames are numbered by place in the sorted list of image files, and counted on when these are sent again. One that
    cannot be read keeps its number: its row says `unreadable` and why, the user is warned once, and nothing is yielded
    for it. Raises `BlockError` when there is no image, or none can be read.
    """
    params: Any = block.params
    stop = None if params.limit is None else params.first + params.limit
    frames, readable, broken = itertools.count(params.first), 0, set()
    for _ in range(params.repeat):
        files = itertools.islice(_files(block, params.images), params.first, stop)
        for place, (name, content) in enumerate(files):
            frame = next(frames)
            try:
                if isinstance(content, OSError):
                    raise content
                picture = decode(content, size, params.geometry)
            except Exception as error:  # decoders raise all sorts on broken files; every one is told
                reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
                block.report("frames", frame, name=name, status="unreadable", reason=reason)
                if place not in broken:
                    block.warn(f"{name} is skipped: {reason}")
                broken.add(place)
                continue
            readable += 1
            yield frame, name, picture
        if not readable:
            raise BlockError(_why_none(block, len(broken)))


def _why_none(block: Block, broken: int) -> str:
    """Say why a source has no image to send."""
    images, first = block.params.images, block.params.first
    if broken:
        return f"none of the {broken} image files of {images} can be read"
    if there := sum(1 for _ in _files(block, images)):
        return f"first must be less than {there}, the image files of {images}, not {first}"
    endings = " ".join(sorted(EXTENSIONS))
    return f"images must be an image file, a folder or a glob with images ({endings}): {images} has none"


def read_batches(block: Block, size: tuple[int, int]) -> Iterator[tuple[list[int], list[str], np.ndarray]]:
    """Yield frames, names and pictures, uint8 (count, height, width, 3), of `read_images`, so many at a time."""
    batch = block.params.batch
    for _, images in itertools.groupby(read_images(block, size), lambda each: each[0] // batch):
        frames, names, pictures = zip(*images, strict=True)
        yield list(frames), list(names), np.stack(pictures)


def _files(block: Block, images: str) -> Iterable[tuple[str, bytes | OSError]]:
    """Return names and contents of the image files, or why one cannot be read."""
    if images == "sample":
        folder = resources.files("skimage") / "data"
        return ((name, (folder / name).read_bytes()) for name in SAMPLE)
    return block.files(images, EXTENSIONS)
