"""`image_view`: pictures sent and received side by side, as a figure."""

from __future__ import annotations

import textwrap

import numpy as np
from pydantic import Field

from blocks.view import figures
from blocks.view.style import keep_figure
from flowgraph.block import Block, Packet, Port
from flowgraph.block import Params as BlockParams

_UNWIRED = Packet(np.empty(0, np.uint8), last=True)  # what an unconnected input gives


class ImageView(Block):
    """Draw a strip of the pictures sent, decoded without a diffusion model, and received, when the run ends.

    `<block>.pdf` and `<block>.png` show the first `shown` frames, each over what is known of the picture received: its
    tags `psnr`, `ssim`, `caption` and `status`.
    """

    class Params(BlockParams):
        shown: int = Field(6, ge=1, le=24, description="frames that are drawn, the first of the run")

    inputs = (
        Port("image", "uint8", "picture received, RGB", shape=(None, None, 3), whole=True),
        Port("sent", "uint8", "picture sent, RGB", shape=(None, None, 3), whole=True, optional=True),
        Port("plain", "uint8", "the latent as it is decoded, RGB", shape=(None, None, 3), whole=True, optional=True),
    )

    def start(self) -> None:
        self.rows: list[tuple[str, dict]] = []

    def work(self, image: Packet | None, sent: Packet | None = _UNWIRED, plain: Packet | None = _UNWIRED) -> None:
        if len(self.rows) < self.params.shown:
            packets = {"sent": sent, "plain": plain, "received": image}
            pictures = {kind: p and p.data[0] for kind, p in packets.items() if p is not _UNWIRED}
            told = ("psnr", "ssim", "status", "caption")
            words = "" if image is None else words_below(**{key: image.tag(key) for key in told})
            self.rows.append((words, pictures))

    def stop(self) -> None:
        if self.rows:
            keep_figure(self, self.name, lambda: figures.pictures(self.rows))


def words_below(psnr: float | None, ssim: float | None, status: str | None, caption: str | None) -> str:
    """Return what is written below a picture that was received, of what is known of it."""
    facts = [f"{psnr:.1f} dB"] if psnr is not None else []
    facts += [f"SSIM {ssim:.2f}"] if ssim is not None else []
    facts += [status] if status not in (None, "ok") else []
    lines = textwrap.wrap(caption or "", 24, max_lines=3, placeholder=" ...")
    return "\n".join(([", ".join(facts)] if facts else []) + lines)
