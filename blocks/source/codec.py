"""`image_codec_source`: images in, the files of a classical image codec out, as frames of bits."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from blocks.source.images import ImageParams, Size, parse_size, read_images
from flowgraph.block import Block, Output, Packet, Port

if TYPE_CHECKING:
    from PIL import Image

EFFORT: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True},
    "webp": {"method": 6},
    "avif": {"speed": 6, "max_threads": 1},
}
SHRUNK = (1, 2, 4, 8)  # how many times smaller a picture may become to fit


class ImageCodecSource(Block):
    """Encode images as JPEG, WebP or AVIF files that are no larger than asked: the baseline without meaning.

    Of the codec's qualities 0 to 100 the best one that fits is taken; where none fits, the picture is sent with its
    sides halved, up to three times, and `image_codec_sink` enlarges it again. One that fits at no size is sent as an
    empty frame. Files have a header of their own and nothing that corrects errors: put a coded link behind them.
    Frames begin with the tag `pixel_values`. `image` carries the picture after geometry, tagged `name`, for meters.
    """

    class Params(ImageParams):
        format: Literal["jpeg", "webp", "avif"] = Field("webp", description="the codec, as Pillow has it")
        max_bytes: int = Field(1024, ge=1, description="most bytes of a file")
        size: Size = Field("192x192", description="height and width of the picture, multiples of 8 px")

    outputs = (
        Port("bits", "bits", "one file a frame"),
        Port("image", "uint8", "picture as sent, RGB", shape=(None, None, 3)),
    )

    def start(self) -> None:
        self.sizes: list[int] = []

    def produce(self) -> Iterator[Output]:
        p = self.params
        for frame, name, picture in read_images(self, parse_size(p.size)):
            content = encode_within(picture, p.format, p.max_bytes)
            if not content:
                self.warn(f"{name} does not fit into {p.max_bytes} bytes as {p.format}: raise max_bytes")
            self.sizes.append(len(content))
            self.report("frames", frame, name=name)
            self.report("payload", image_bytes=sum(self.sizes) / len(self.sizes))
            data = np.frombuffer(content, np.uint8)
            image = Packet(picture[None], frame, last=True).tagged(name=name)
            bits = Packet(data, frame, packed=True, last=True).tagged(pixel_values=picture.size)
            yield {"bits": bits, "image": image}


def encode_within(picture: np.ndarray, codec: str, max_bytes: int) -> bytes:
    """Return a picture, RGB uint8 (height, width, 3), as the best file of at most so many bytes; empty if none is."""
    from PIL import Image

    image = Image.fromarray(picture)
    for times in SHRUNK:
        sides = max(image.width // times, 1), max(image.height // times, 1)
        small = image if times == 1 else image.resize(sides, Image.Resampling.LANCZOS)
        best, low, high = b"", 0, 100  # qualities still to be tried
        while low <= high:
            quality = (low + high) // 2
            content = _encode(small, codec, quality)
            if len(content) <= max_bytes:
                best, low = content, quality + 1
            else:
                high = quality - 1
        if best:
            return best
    return b""


def _encode(image: Image.Image, codec: str, quality: int) -> bytes:
    file = io.BytesIO()
    image.save(file, codec, quality=quality, **EFFORT[codec])
    return file.getvalue()
