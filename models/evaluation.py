"""Measures the figures of the model card: `python -m models.evaluation --test FOLDER --train FOLDER`.

The test folder holds `images/` and `captions.jsonl` (one `{"file", "captions"}` a line); every image is
squeezed to the model's size. What the receiver makes of noisy latents, `python -m benchmarks.quality` measures.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .autoencoder import load_autoencoder
from .captioner import load_captioner
from .content_words import best_caption, best_constant, content_f1
from .receiver import Receiver, load_receiver

if TYPE_CHECKING:
    from .training.data import Photographs

BATCH = 10
PARTS = ["disjoint", "autoencoder", "captioner", "speed"]


def read_test(folder: Path, size: tuple[int, int]) -> Photographs:
    """The test photographs, squeezed to `size` (height, width) by PIL's Lanczos filter."""
    from PIL import Image

    from .training.data import Photographs

    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    images = [
        np.asarray(
            Image.open(folder / "images" / row["file"])
            .convert("RGB")
            .resize((size[1], size[0]), Image.Resampling.LANCZOS)
        )
        for row in rows
    ]
    return Photographs(np.stack(images), [row["file"] for row in rows], [row["captions"] for row in rows])


def difference_hash(images: np.ndarray) -> np.ndarray:
    """256 bits per image, bool [N, 256]: whether each of 16x16 grey cells is brighter than its left
    neighbour.

    Two encodings of one photograph differ in a few bits, different photographs in about half of them.
    """
    from PIL import Image

    cells = np.stack(
        [np.asarray(Image.fromarray(image).convert("L").resize((17, 16), Image.Resampling.BOX)) for image in images]
    ).astype(np.int16)
    return (cells[:, :, 1:] > cells[:, :, :-1]).reshape(len(images), -1)


def nearest(a: np.ndarray, b: np.ndarray) -> int:
    """The smallest number of bits in which a hash of `a` differs from one of `b`."""
    one, other = a.astype(np.float32), b.astype(np.float32)
    return int((one.sum(1)[:, None] + other.sum(1)[None] - 2 * one @ other.T).min())


def psnr(images: np.ndarray, originals: np.ndarray) -> np.ndarray:
    """PSNR = 10 log10(255^2 / MSE) in dB of each image uint8 [N, H, W, 3]: float64 [N]."""
    error = np.square(images.astype(np.float64) - originals).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(error, 1e-9))


def interval(values: np.ndarray) -> str:
    """Mean and 95 % confidence interval of the mean, as text."""
    return f"{values.mean():.2f} +- {1.96 * values.std(ddof=1) / len(values) ** 0.5:.2f}"


def evaluate_autoencoder(model: str, test: Photographs) -> None:
    vae = load_autoencoder(model)
    figures, latents = [], []
    for i in range(0, len(test.images), BATCH):
        z = vae.encode(test.images[i : i + BATCH])
        figures.append(psnr(vae.decode(z), test.images[i : i + BATCH]))
        latents.append(z)
    every = np.concatenate(latents)
    print(
        f"autoencoder alone, {len(every)} images: PSNR {interval(np.concatenate(figures))} dB; "
        f"latents: mean {every.mean():.2f}, deviation {every.std():.2f}, "
        f"beyond 4: {(np.abs(every) > 4).mean():.1e}"
    )


def evaluate_captioner(model: str, test: Photographs, train: Photographs) -> None:
    captioner = load_captioner(model)
    said = [
        text for i in range(0, len(test.images), BATCH) for text in captioner.caption(list(test.images[i : i + BATCH]))
    ]
    scores = np.array([content_f1(c, r) for c, r in zip(said, test.captions, strict=True)])
    print(f"captions, {len(said)} images: content-word F1 {interval(100 * scores)} %")
    for kind, constant in (
        ("human caption", best_caption(train.captions)),
        ("bag of words", best_constant(train.captions)),
    ):
        floor = np.array([content_f1(constant, r) for r in test.captions])
        print(
            f"  best constant {kind} ({constant!r}) {interval(100 * floor)} %, "
            f"gain {interval(100 * (scores - floor))} points"
        )


def evaluate_speed(receiver: Receiver, test: Photographs) -> None:
    latents = receiver.vae.encode(test.images[:1])
    begin = time.monotonic()
    receiver.regenerate(latents, [test.captions[0][0]], steps=30, guidance=9.0, seeds=[0])
    print(f"one image at T = 30 with guidance 9: {time.monotonic() - begin:.1f} s")


def evaluate_disjointness(test: Photographs, used: Photographs) -> None:
    distance = nearest(difference_hash(test.images), difference_hash(used.images))
    print(
        f"{len(used.names)} training and {len(test.names)} test images: "
        f"{len(set(test.names) & set(used.names))} names in common, "
        f"nearest pair of 256-bit difference hashes {distance} bits apart"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m models.evaluation", description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=PARTS, help="the parts to measure, all by default")
    parser.add_argument("--model", default="embedded", help="embedded, a folder or a hub id")
    parser.add_argument("--test", type=Path, required=True, help="folder with images/ and captions.jsonl")
    parser.add_argument("--train", type=Path, required=True, help="folder with {train,val}.npz")
    arguments = parser.parse_args()
    from .training.data import read_training

    what, model = arguments.what or PARTS, arguments.model
    test = read_test(arguments.test, load_autoencoder(model).size)
    if "disjoint" in what or "captioner" in what:
        used, _ = read_training(arguments.train)
    if "disjoint" in what:
        evaluate_disjointness(test, used)
    if "autoencoder" in what:
        evaluate_autoencoder(model, test)
    if "captioner" in what:
        evaluate_captioner(model, test, used)
    if "speed" in what:
        evaluate_speed(load_receiver(model), test)


if __name__ == "__main__":
    main()
