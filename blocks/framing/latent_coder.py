"""`latent_entropy_encoder` and `latent_entropy_decoder`: latents as few bits, for links that make no errors.

A frame is, big-endian: channels (1 byte), height and width (2 bytes each), how many steps the quantiser has in 1 (1
byte), the scale of each channel (1 byte), the entropy-coded values, and the CRC of frame headers over all that.
"""

from __future__ import annotations

import struct

import numpy as np
from pydantic import Field

from blocks.framing import entropy
from blocks.framing.frame import check
from flowgraph.block import Block, BlockError, Packet, Port
from flowgraph.block import Params as BlockParams

_FIELDS = struct.Struct(">BHHB")
REACH = 16  # standard deviations that values may have, at most
_PRECISION = 10  # exp(-u) is taken as (1 + u / 2^10)^(-2^10)


def frequencies(scale: int, steps: int) -> np.ndarray:
    """Return int64 frequencies of q = -16 `steps` ... 16 `steps`, where q / `steps` is N(0, s^2) of a `_scale` s.

    By additions, products and quotients alone, which IEEE 754 rounds alike everywhere: both ends must agree.
    """
    q = np.arange(-REACH * steps, REACH * steps + 1, dtype=np.float64)
    octaves, eighths = divmod(scale, 8)
    deviation = 2.0 ** (octaves - 16) * (1 + eighths / 8)
    weight = 1 / (1 + (q / (steps * deviation)) ** 2 / 2 / 2**_PRECISION)
    for _ in range(_PRECISION):
        weight = weight * weight
    return (weight * (1 << 20)).astype(np.int64) + 1


def _scale(values: np.ndarray) -> int:
    """Return the code of a channel's standard deviation s: of 2^(k - 16) (1 + m/8), 8 k + m."""
    rms = float(np.sqrt(np.mean(values.astype(np.float64) ** 2)))
    octave = min(max(int(np.floor(np.log2(max(rms, 2.0**-16)))) + 16, 0), 31)
    return 8 * octave + min(max(round((rms / 2.0 ** (octave - 16) - 1) * 8), 0), 7)


def compress(values: np.ndarray, steps: int) -> bytes:
    """Return a latent, float32 (channels, height, width), as a frame."""
    limit = REACH * steps
    q = np.clip(np.rint(values * np.float32(steps)), -limit, limit).astype(np.int64)
    scales = [_scale(channel / steps) for channel in q]
    symbols = (q + limit).ravel().tolist()
    tables = [frequencies(scale, steps) for scale in scales]
    size = q[0].size
    code = entropy.encode(symbols, [table for table in tables for _ in range(size)])
    frame = _FIELDS.pack(*values.shape, steps) + bytes(scales) + code
    return frame + check(frame)


def expand(frame: bytes) -> tuple[np.ndarray, int]:
    """Return latent and steps of a frame of `compress`. Raises `ValueError` for a damaged one."""
    body, checksum = frame[:-2], frame[-2:]
    if len(body) < _FIELDS.size or check(body) != checksum:
        raise ValueError("latent damaged" if body else "nothing was sent, or nothing came")
    channels, height, width, steps = _FIELDS.unpack(body[: _FIELDS.size])
    scales, code = body[_FIELDS.size :][:channels], body[_FIELDS.size + channels :]
    count = channels * height * width
    if len(scales) < channels or not steps or count > entropy.LONGEST:
        raise ValueError("latent of a form that is none")
    tables = [frequencies(scale, steps) for scale in scales]
    symbols = entropy.decode(code, lambda known: tables[len(known) // (height * width)], count)
    q = np.array(symbols, np.float32) - REACH * steps
    return q.reshape(channels, height, width) / np.float32(steps), steps


class LatentEntropyEncoder(Block):
    """Quantise latents in even steps and entropy-code them, each channel as N(0, s^2) with an s of its own.

    There is no header that survives errors and nothing to correct them: put a code behind it that does. A bit that
    comes wrong costs the frame, which `latent_entropy_decoder` tells. Frames begin with the tag `pixel_values`.
    """

    class Params(BlockParams):
        steps: int = Field(2, ge=1, le=64, description="of the quantiser, from 0 to 1: each halves the error's size")
        pixels_per_latent: int = Field(8, ge=1, le=64, description="how many times larger than the latent the image is")

    inputs = (Port("latent", "float32", "scaled latent: channels, height, width", (None, None, None), whole=True),)
    outputs = (Port("bits", "bits", "one frame an image"),)

    def start(self) -> None:
        self.sizes: list[int] = []

    def work(self, latent: Packet) -> Packet:
        if latent.count != 1 or latent.data[0].size > entropy.LONGEST or latent.data.shape[1] > 255:
            shape = "x".join(map(str, latent.data.shape))
            raise BlockError(f"latent must be one array of at most {entropy.LONGEST} values a frame, not {shape}")
        values = np.nan_to_num(latent.data[0], nan=0, posinf=0, neginf=0)
        frame = np.frombuffer(compress(values, self.params.steps), np.uint8)
        self.sizes.append(len(frame))
        self.report("payload", latent_bytes=sum(self.sizes) / len(self.sizes))
        pixels = 3 * values[0].size * self.params.pixels_per_latent**2
        return Packet(frame, latent.frame, packed=True, last=True).tagged(pixel_values=pixels)


class LatentEntropyDecoder(Block):
    """Undo `latent_entropy_encoder`; a frame whose checksum fails is `lost`: an empty packet, with the reason.

    Latents are tagged `noise_variance`, that of even steps, 1 / (12 steps^2).
    """

    inputs = (Port("bits", "bits", "one frame an image", whole=True),)
    outputs = (Port("latent", "float32", "scaled latent: channels, height, width", (None, None, None)),)

    def work(self, bits: Packet) -> Packet:
        try:
            if bits.erased() is not None:
                raise ValueError("a stretch of the latent did not come")
            values, steps = expand(bits.data.tobytes())
        except ValueError as error:
            self.report("frames", bits.frame, latent_status="lost", status="degraded", reason=str(error))
            empty = Packet(np.empty((0, 0, 0, 0), np.float32), bits.frame, last=True)
            return empty.tagged(status="lost", reason=str(error))
        made = Packet(values[None], bits.frame, last=True)
        return made.tagged(status="ok", noise_variance=1 / (12 * steps**2), noise_source="quantiser")
