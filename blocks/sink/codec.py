"""`image_codec_sink`: frames of bits in, the images that a classical codec makes of them out."""

from __future__ import annotations

import numpy as np
from pydantic import Field

from blocks.sink.diffusion import GREY
from blocks.source.images import Size, decode, parse_size
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams


class ImageCodecSink(Block):
    """Decode received image files: what `image_codec_source` sent, with whatever bit errors came with it.

    `image` is tagged `mode` (codec), `status` (ok, lost) and, for a file that cannot be read, the `reason`; the picture
    is then mid-grey, as that of a frame of which nothing came.
    """

    class Params(BlockParams):
        size: Size = Field("192x192", description="height and width of the pictures, multiples of 8 px")

    inputs = (Port("bits", "bits", "one file a frame", whole=True),)
    outputs = (Port("image", "uint8", "picture received, RGB", shape=(None, None, 3)),)

    def work(self, bits: Packet) -> Packet:
        size, facts = parse_size(self.params.size), {"mode": "codec", "status": "ok"}
        try:
            if not bits.count:
                raise ValueError("nothing was sent, or nothing came")
            picture = decode(bits.data.tobytes(), size)
        except Exception as error:  # decoders raise all sorts on broken files; every one is told
            picture = np.full((*size, 3), GREY, np.uint8)
            facts |= {"status": "lost", "reason": str(error) or type(error).__name__}
        self.report("frames", bits.frame, **facts)
        return Packet(picture[None], bits.frame, last=True).tagged(**facts)
