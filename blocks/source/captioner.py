"""`captioner_source`: images in, their captions out."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
from pydantic import Field

import models
from blocks.model import NAMED, ModelParams, image_size, load
from blocks.source.images import ImageParams, Size, parse_size, read_batches
from flowgraph.block import Block, Output, Packet, Port
from models import weights

MAX_TOKENS = 77  # what CLIP's text encoder reads, its begin and end included

# Letters and signs that have no decomposition in Unicode, as people write them on an ASCII keyboard.
_ASCII = str.maketrans(
    {"ß": "ss", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ð": "d"}
    | {"Ð": "D", "þ": "th", "Þ": "Th", "ł": "l", "Ł": "L", "ı": "i", "€": "EUR", "×": "x", "÷": "/"}
    | dict.fromkeys("‘’‚′", "'") | dict.fromkeys("“”„″«»", '"') | dict.fromkeys("‐‑‒–—―−", "-")
)  # fmt: skip


def to_ascii(text: str) -> str:
    """Return `text` in printable ASCII on one line, without accents, some letters spelt out, the rest as `?`.

    >>> to_ascii("Café “Łódź” – straße\\n½ 犬")
    'Cafe "Lodz" - strasse 1/2 ?'
    """
    text = unicodedata.normalize("NFKD", text.translate(_ASCII)).replace("\N{FRACTION SLASH}", "/")
    text = "".join(c for c in text if not unicodedata.combining(c))
    return " ".join("".join(c if c.isspace() or " " <= c <= "~" else "?" for c in text).split())


def shorten(text: str, tokens: Callable[[str], int], limit: int = MAX_TOKENS) -> str:
    """Return as many whole words of `text` as make at most `limit` tokens.

    >>> shorten("a dog on a beach", lambda text: 2 + len(text.split()), limit=5)
    'a dog on'
    """
    words = text.split(" ")
    while words and tokens(" ".join(words)) > limit:
        words.pop()
    return " ".join(words)


class CaptionerSource(Block):
    """Describe images in words: one ASCII caption a frame, no longer than the receiver's text encoder reads.

    `text` carries the bytes of the caption; `image` the picture after geometry, tagged `name` and `caption`,
    for meters.
    """

    class Params(ImageParams, ModelParams):
        model: str = Field(
            "embedded",
            description='captioner: "embedded", a hub id or a folder in the layout of BLIP',
            json_schema_extra=NAMED,
        )
        tokenizer: str = Field(
            "embedded",
            description="the receiver's model: its tokenizer counts, and captions are cut to 77 tokens",
            json_schema_extra=NAMED,
        )
        size: Size | None = Field(
            None, description="height and width, multiples of 8 px; the receiver's model's own by default"
        )

    outputs = (
        Port("text", "uint8", "caption, one frame a caption", unit="ASCII"),
        Port("image", "uint8", "picture as sent, RGB", shape=(None, None, 3)),
    )

    def start(self) -> None:
        p = self.params
        load(self, weights.find, p.model, revision=p.revision)  # missing files are told before large ones load
        load(self, weights.find, p.tokenizer)
        self.captioner = load(self, models.load_captioner, p.model, **p.options())
        self.tokenizer = load(self, models.load_tokenizer, p.tokenizer)
        self.size = parse_size(p.size) if p.size else load(self, image_size, p.tokenizer)

    def produce(self) -> Iterator[Output]:
        for frames, names, pictures in read_batches(self, self.size):
            facts = pictures, self.params.model, self.params.options()
            said = self.computed(partial(self._said, pictures), *facts).tobytes().decode("ascii").split("\n")
            for frame, name, picture, whole in zip(frames, names, pictures, said, strict=True):
                caption = self.cut(whole, name)
                self.report("frames", frame, name=name, caption_sent=caption)
                text = np.frombuffer(caption.encode("ascii"), np.uint8)
                image = Packet(picture[None], frame, last=True).tagged(name=name, caption=caption)
                yield {"text": Packet(text, frame, last=True), "image": image}

    def _said(self, pictures: np.ndarray) -> np.ndarray:
        """Return what the captioner says of pictures, a line each, as bytes."""
        lines = [to_ascii(text) for text in self.captioner.caption(list(pictures))]
        return np.frombuffer("\n".join(lines).encode("ascii"), np.uint8)

    def cut(self, whole: str, name: str) -> str:
        """Return the caption of a picture as it is sent: no longer than the receiver reads."""
        caption = shorten(whole, self._tokens)
        if caption != whole:
            self.warn(f"caption of {name} is cut to {MAX_TOKENS} tokens: it had {self._tokens(whole)}")
        return caption

    def _tokens(self, text: str) -> int:
        return len(self.tokenizer(text).input_ids)
