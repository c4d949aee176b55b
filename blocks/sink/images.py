"""`image_writer`: images as PNG files, and one page that shows them beside their captions."""

from __future__ import annotations

import io
import textwrap
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flowgraph.block import Block, Packet, Port

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

# The page, in pixels.
ROWS = 12
TILE, MARGIN, TEXT = 256, 16, 480
TITLE, BODY = 20, 16  # sizes of the font
PAGE_EVERY_S = 1.0  # at most, while the run goes on
LINE = 62  # characters of BODY that fit into TEXT
INK, FAINT, ALARM = "#141414", "#6e6e6e", "#be1e1e"


@dataclass(slots=True)
class _Row:
    """A frame on the page: its packets, None where one never came."""

    frame: int
    sent: Packet | None
    received: Packet | None


class ImageWriter(Block):
    """Write images into the run's folder, and a page of the first twelve beside their captions.

    `images/0003_received.png` for frame 3, `images/0003_sent.png` and `images/0003_plain.png` where `sent` and
    `plain` are wired, and `page.png`, of what is there so far, however the run ends. The page shows the packets' tags:
    `name` and `caption` of the image sent, and `caption`, `mode`, `steps`, `psnr`, `ssim`, `status` and `reason` of the
    one received.
    """

    inputs = (
        Port("image", "uint8", "picture received, RGB", shape=(None, None, 3), whole=True),
        Port("sent", "uint8", "picture sent, RGB", shape=(None, None, 3), whole=True, optional=True),
        Port("plain", "uint8", "the latent as it is decoded, RGB", shape=(None, None, 3), whole=True, optional=True),
    )

    def start(self) -> None:
        self.rows: list[_Row] = []
        self.frames = 0
        self.drawn, self.drawn_at = 0, time.monotonic()  # rows of the page that was kept last, and when

    def work(self, image: Packet | None, sent: Packet | None = None, plain: Packet | None = None) -> None:
        frame = next(packet.frame for packet in (image, sent, plain) if packet is not None)
        if image is None:
            self.report("frames", frame, status="lost", reason="its image never arrived")
        for kind, packet in (("sent", sent), ("plain", plain), ("received", image)):  # who sees the last has them all
            if packet is not None:
                self.keep(f"images/{frame:04d}_{kind}.png", partial(png, packet.data[0]))
        self.frames += 1
        if len(self.rows) < ROWS:
            self.rows.append(_Row(frame, sent, image))
            if time.monotonic() > self.drawn_at + PAGE_EVERY_S:
                self._keep_page()

    def stop(self) -> None:
        if self.drawn < self.frames:
            self._keep_page()

    def _keep_page(self) -> None:
        self.keep("page.png", lambda: png(_page(self.rows, self.frames)))
        self.drawn, self.drawn_at = len(self.rows), time.monotonic()


def png(picture: np.ndarray) -> bytes:
    """Return a picture, RGB uint8 (height, width, 3), as a PNG file."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "png")
    return file.getvalue()


def _page(rows: list[_Row], frames: int) -> np.ndarray:
    """Return the page, a row a frame: the image sent (if any was), the one received, and their captions."""
    from PIL import Image, ImageDraw

    columns = [TILE] * (2 if any(row.sent for row in rows) else 1) + [TEXT]
    lefts = [MARGIN + sum(columns[:i]) + MARGIN * i for i in range(len(columns))]
    head = MARGIN + TITLE + MARGIN // 2
    canvas = Image.new("RGB", (lefts[-1] + TEXT + MARGIN, head + len(rows) * (TILE + MARGIN)), "white")
    draw = ImageDraw.Draw(canvas)
    for left, heading in zip(lefts[:-1], ("sent", "received")[-len(lefts) + 1 :], strict=True):
        draw.text((left, MARGIN), heading, INK, _font(TITLE))
    if frames > len(rows):
        draw.text((lefts[-1], MARGIN), f"the first {len(rows)} of {frames} images", FAINT, _font(TITLE))
    for i, row in enumerate(rows):
        top = head + i * (TILE + MARGIN)
        for left, packet in zip(lefts[:-1], (row.sent, row.received)[-len(lefts) + 1 :], strict=True):
            _draw_picture(canvas, draw, (left, top), packet)
        _draw_words(draw, (lefts[-1], top), row)
    return np.array(canvas)


def _draw_picture(
    canvas: Image.Image, draw: ImageDraw.ImageDraw, corner: tuple[int, int], packet: Packet | None
) -> None:
    from PIL import Image, ImageOps

    left, top = corner
    if packet is None:
        draw.rectangle((left, top, left + TILE - 1, top + TILE - 1), outline=FAINT)
    else:
        canvas.paste(ImageOps.contain(Image.fromarray(packet.data[0]), (TILE, TILE), Image.Resampling.LANCZOS), corner)
    if packet is None or packet.tag("status") == "lost":
        draw.text((left + TILE // 2, top + TILE // 2), "lost", ALARM, _font(TITLE), anchor="mm")


def _draw_words(draw: ImageDraw.ImageDraw, corner: tuple[int, int], row: _Row) -> None:
    left, top = corner
    sent, received = ({t.key: t.value for t in p.tags} if p else {} for p in (row.sent, row.received))
    draw.text((left, top), f"{row.frame:04d}  {_printable(sent.get('name', ''))}", INK, _font(TITLE))
    facts = [received.get("mode", "")]
    facts += [f"{received['steps']} step{'s' if received['steps'] != 1 else ''}"] if "steps" in received else []
    facts += [f"PSNR {received['psnr']:.1f} dB"] if received.get("psnr") is not None else []
    facts += [f"SSIM {received['ssim']:.2f}"] if received.get("ssim") is not None else []
    paragraphs = [("sent", sent.get("caption"), INK), ("received", received.get("caption"), INK)]
    paragraphs += [("", ", ".join(filter(None, facts)), FAINT)]
    if row.received is None or received.get("status", "ok") != "ok":
        paragraphs += [(received.get("status", "lost"), received.get("reason", "its image never arrived"), ALARM)]
    top += TITLE + MARGIN // 2
    for label, words, colour in paragraphs:
        if words:
            text = f"{label}: {words}" if label else words
            lines = textwrap.wrap(_printable(text), LINE, max_lines=3, placeholder=" ...")
            draw.multiline_text((left, top), "\n".join(lines), colour, _font(BODY), spacing=4)
            top += len(lines) * (BODY + 4) + MARGIN // 2


def _font(size: int):
    from matplotlib import get_data_path
    from PIL import ImageFont

    return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size * 0.85)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
