"""`network_encoder_source` and `network_decoder_sink`: a user's own encoder and decoder networks around any channel."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from blocks.code import CodeParams, load_named
from blocks.model import DEVICE, Device
from blocks.sink.diffusion import GREY
from blocks.source.images import ImageParams, Size, parse_size, read_images
from flowgraph.block import Block, BlockError, Output, Packet, Port


class NetworkParams(CodeParams):
    """Which network: an `nn.Module` class, what it is made with, its weights, and where it computes."""

    network: str = Field(description="name of the nn.Module class")
    arguments: dict[str, bool | int | float | str] = Field({}, description="keyword arguments that it is made with")
    weights: str | None = Field(
        None, description="its state_dict in a .safetensors file; none: as it is made", json_schema_extra={"path": True}
    )
    device: Device = DEVICE


class _Network:
    """A user's network, ready for inference; what goes wrong within it is told with its place."""

    def __init__(self, params: Any):
        import torch
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from models import weights

        self.name = params.network
        made = load_named(self.name, file=params.file, module=params.module)
        if not (isinstance(made, type) and issubclass(made, torch.nn.Module)):
            raise BlockError(f"{params.file or params.module}: {self.name} must be a subclass of torch.nn.Module")
        try:
            self.device = weights.place(params.device, "float32").device
            self.module = made(**params.arguments).to(self.device).eval()
        except (Exception, SystemExit) as error:
            raise BlockError(f"{self.name} cannot be made: {type(error).__name__}: {error}") from error
        if params.weights is not None:
            try:
                self.module.load_state_dict(load_file(params.weights))
            except (OSError, SafetensorError, RuntimeError) as error:
                cause = " ".join(str(error).split())
                raise BlockError(f"weights {params.weights} do not fit {self.name}: {cause[:300]}") from None

    def __call__(self, given: np.ndarray) -> np.ndarray:
        """Return what the network makes of an array, as an array."""
        import torch

        try:
            with torch.inference_mode():
                made = self.module(torch.from_numpy(given.copy()).to(self.device))
        except (Exception, SystemExit) as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}:{place.lineno}"
            shape = "x".join(map(str, given.shape))
            raise BlockError(f"{self.name} failed on {shape}: {type(error).__name__}: {error} ({where})") from error
        if not isinstance(made, torch.Tensor):
            raise BlockError(f"{self.name} must return a tensor, not {type(made).__name__}")
        return made.cpu().numpy()


class NetworkEncoderSource(Block):
    """Encode images as symbols by a user's network, in the manner of DeepJSCC (Bourtsoulatze et al., 2019).

    The network gets float32 [1, 3, height, width] in 0 to 1 and returns complex64 of any shape, or a float32 tensor,
    whose numbers are taken in twos as I and Q. A frame of symbols is scaled to unit mean power. `image` carries the
    picture after geometry, tagged `name`, for meters.
    """

    class Params(NetworkParams, ImageParams):
        size: Size = Field("192x192", description="height and width of the picture, multiples of 8 px")

    outputs = (
        Port("symbols", "complex64", "Es = 1, one image a frame"),
        Port("image", "uint8", "picture as sent, RGB", shape=(None, None, 3)),
    )

    def start(self) -> None:
        self.network = _Network(self.params)

    def produce(self) -> Iterator[Output]:
        for frame, name, picture in read_images(self, parse_size(self.params.size)):
            self.report("frames", frame, name=name)
            symbols = self._symbols(self.network(picture.transpose(2, 0, 1)[None].astype(np.float32) / 255))
            self.report("payload", symbols_per_image=len(symbols), cbr=len(symbols) / picture.size)
            image = Packet(picture[None], frame, last=True).tagged(name=name)
            yield {"symbols": Packet(symbols, frame, last=True), "image": image}

    def _symbols(self, made: np.ndarray) -> np.ndarray:
        real = not np.iscomplexobj(made)
        if real and made.size % 2:
            raise BlockError(f"{self.network.name} must return an even count of real numbers, not {made.size}")
        flat = np.ascontiguousarray(made.ravel(), np.float32 if real else np.complex64)
        symbols = flat.view(np.complex64)
        power = float(np.mean(np.abs(symbols.astype(np.complex128)) ** 2)) if len(symbols) else 0.0
        if not 0 < power < np.inf:
            raise BlockError(f"{self.network.name} must return finite numbers that are not all 0")
        return symbols / np.float32(power**0.5)


class NetworkDecoderSink(Block):
    """Turn received symbols into images by a user's network.

    The network gets complex64 [1, symbols of the frame] and returns float32 [1, 3, height, width] in 0 to 1. `image` is
    tagged `mode` (network) and `status`: ok, degraded where symbols are missing (they are 0), lost (mid-grey) where
    none came.
    """

    class Params(NetworkParams):
        size: Size = Field("192x192", description="height and width of the picture that stands for a lost one")

    inputs = (Port("symbols", "complex64", "equalised, one image a frame", whole=True),)
    outputs = (Port("image", "uint8", "picture received, RGB", shape=(None, None, 3)),)

    def start(self) -> None:
        self.network = _Network(self.params)

    def work(self, symbols: Packet) -> Packet:
        gone = symbols.erased()
        missing = 0 if gone is None else int(gone.sum())
        facts: dict[str, Any] = {"mode": "network", "status": "ok"}
        if missing == symbols.count:
            facts |= {"status": "lost", "reason": "no symbol came"}
            picture = np.full((*parse_size(self.params.size), 3), GREY, np.uint8)
        else:
            if missing:
                facts |= {"status": "degraded", "reason": f"{missing} of {symbols.count} symbols are missing"}
            picture = self._picture(self.network(symbols.data[None]))
        self.report("frames", symbols.frame, **facts)
        return Packet(picture[None], symbols.frame, last=True).tagged(**facts)

    def _picture(self, made: np.ndarray) -> np.ndarray:
        if made.ndim != 4 or made.shape[:2] != (1, 3):
            raise BlockError(
                f"{self.network.name} must return [1, 3, height, width], not [{', '.join(map(str, made.shape))}]"
            )
        levels = np.nan_to_num(made[0].transpose(1, 2, 0).astype(np.float32), nan=0.5) * 255
        return np.ascontiguousarray(np.clip(np.rint(levels), 0, 255).astype(np.uint8))
