"""The captioner: what a photograph shows, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import weights


class Captioner:
    """Captions by a `BlipForConditionalGeneration` (Li et al., "BLIP", 2022) and its processor."""

    def __init__(self, module: Any, processor: Any, placement: weights.Placement) -> None:
        self.module, self.processor, self.placement = module, processor, placement
        # BLIP's text decoder does not see the generation config of the whole.
        given = {
            key: getattr(module.generation_config, key, None) for key in ("repetition_penalty", "no_repeat_ngram_size")
        }
        self.manners = {key: value for key, value in given.items() if value is not None}

    def caption(self, images: Sequence[np.ndarray]) -> list[str]:
        """One sentence per image (uint8 [H, W, 3]): beam search of width 3, at most 30 tokens."""
        import torch

        if not images:
            return []
        for image in images:
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise ValueError(f"images must be uint8 [H, W, 3], not {image.dtype} {list(image.shape)}")
        with torch.inference_mode():
            pixels = self.processor(images=list(images), return_tensors="pt").pixel_values
            ids = self.module.generate(
                pixel_values=pixels.to(self.placement.device, self.placement.dtype),
                num_beams=3, do_sample=False, max_new_tokens=30, **self.manners,
            )  # fmt: skip
        return [" ".join(text.split()) for text in self.processor.batch_decode(ids, skip_special_tokens=True)]


def load_captioner(
    name: str = "embedded", device: str = "auto", dtype: str = "auto", *, revision: str | None = None
) -> Captioner:
    """Load a captioner's own folder or the `captioner` sub-folder of a model.

    Raises `ModelMissing` (files absent or broken) and `ValueError` (device or dtype).
    """
    folder = weights.part(weights.find(name, revision=revision), "captioner", ".")
    placement = weights.place(device, dtype)
    from transformers import BlipForConditionalGeneration, BlipProcessor

    module = weights.load(BlipForConditionalGeneration, folder, placement)
    try:
        processor = BlipProcessor.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise weights.ModelMissing(
            f"model folder {folder} has no complete BlipProcessor; fetch its preprocessor and tokenizer files again"
        ) from error
    return Captioner(module, processor, placement)
