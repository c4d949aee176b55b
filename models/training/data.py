"""The training data: Flickr8k at 192x192, five captions a photograph.

A data folder holds `{train,val}.npz` (`data`: concatenated image files, `offsets`: int64 [n+1], `names`) and
`{train,val}.captions.jsonl.gz` (one `{"file", "captions"}` per image, in the order of `names`).
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np

HELD_OUT = 300  # the last validation photographs: never trained on, they steer early stopping


class Photographs(NamedTuple):
    """Images uint8 [N, H, W, 3], their file names, and the captions of each."""

    images: np.ndarray
    names: list[str]
    captions: list[list[str]]


def read_split(folder: Path, split: str) -> Photographs:
    """Decode one split (`train` or `val`) of the data folder."""
    from PIL import Image

    with np.load(folder / f"{split}.npz") as packed:
        data, offsets, names = packed["data"], packed["offsets"], packed["names"].tolist()
    images = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(data[start:stop].tobytes())).convert("RGB"))
            for start, stop in itertools.pairwise(offsets)
        ]
    )
    with gzip.open(folder / f"{split}.captions.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    if [row["file"] for row in rows] != names:
        raise ValueError(f"{folder}: captions of {split} must be in the order of its images")
    return Photographs(images, names, [row["captions"] for row in rows])


def read_training(folder: Path) -> tuple[Photographs, Photographs]:
    """All of `train` and most of `val` to train on, and the last `HELD_OUT` of `val` to steer by."""
    train, val = read_split(folder, "train"), read_split(folder, "val")
    cut = len(val.names) - HELD_OUT
    used = Photographs(
        np.concatenate([train.images, val.images[:cut]]),
        train.names + val.names[:cut],
        train.captions + val.captions[:cut],
    )
    return used, Photographs(val.images[cut:], val.names[cut:], val.captions[cut:])
