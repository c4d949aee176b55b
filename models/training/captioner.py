"""Trains the embedded captioner, a small `BlipForConditionalGeneration`.

A vision transformer learns little from 6,700 photographs and their captions, so it first learns to answer as
a teacher does (distillation, Hinton et al. 2015): a convolutional network that knows ImageNet (SqueezeNet
1.1, Iandola et al. 2016), whose features it predicts patch by patch, and a small network on top of those that
names the content words of the captions. Then the decoder learns to speak from what the fixed vision sees
(`speaking.py`): first from people's captions, then from those of its own that fit best what it sees.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import (
    BertTokenizer,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    BlipTextConfig,
    BlipVisionConfig,
)

from ..content_words import best_constant, content_f1
from .data import Photographs, read_training
from .loop import train
from .speaking import Choices, Lessons
from .teacher import CHANNELS, WORDS, Teacher, see, views, whole

SIDE, PATCH = 128, 16  # pixels; 8x8 patches, the grid of the teacher's features
SEEING, SPEAKING = 0.5, 0.15  # shares of the time: the vision encoder learns, then the decoder; then it chooses
BATCH = 64


def build(tokenizer):
    """A BLIP captioner of 4 M parameters: 8x8 patches, five vision layers, two decoder layers."""
    torch.manual_seed(2026)
    width: dict[str, Any] = {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_attention_heads": 4,
        "initializer_range": 0.02,
    }
    vision = BlipVisionConfig(
        **width,
        num_hidden_layers=5,
        image_size=SIDE,
        patch_size=PATCH,
        attention_dropout=0.1,
        projection_dim=192,
    )
    text = BlipTextConfig(
        **width,
        vocab_size=len(tokenizer),
        num_hidden_layers=2,
        max_position_embeddings=64,
        projection_dim=192,
        hidden_dropout_prob=0.15,
        attention_probs_dropout_prob=0.1,
        bos_token_id=tokenizer.bos_token_id,
        sep_token_id=tokenizer.sep_token_id,
        eos_token_id=tokenizer.sep_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text))
    mimic(model.vision_model)
    return model


@torch.no_grad()
def mimic(vision: Any) -> None:
    """Start the vision encoder as trained ones look: W_q W_k' near the identity, W_v W_o near minus the
    identity, positions as sinusoids (Trockman and Kolter, "Mimetic initialization of self-attention layers",
    2023). Little data are then learnt from in half the steps.
    """
    width, heads = vision.config.hidden_size, vision.config.num_attention_heads
    size, side = width // heads, SIDE // PATCH
    y, x = (
        axis.reshape(-1, 1).float() for axis in torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    )
    frequency = 100.0 ** -(torch.arange(width // 4) / (width // 4))
    waves = torch.cat([part for axis in (y, x) for part in ((axis * frequency).sin(), (axis * frequency).cos())], 1)
    vision.embeddings.position_embedding.zero_()[0, 1:] = 0.5 * waves

    def factors(scale: float, identity: float) -> tuple[torch.Tensor, torch.Tensor]:
        u, s, v = torch.linalg.svd(scale * torch.randn(width, width) / width**0.5 + identity * torch.eye(width))
        return u * s.sqrt(), s.sqrt()[:, None] * v

    for layer in vision.encoder.layers:
        attention = layer.self_attn
        query, key, value = attention.qkv.weight.view(3, width, width)
        for head in range(heads):
            rows = slice(head * size, (head + 1) * size)
            left, right = factors(0.7, 0.7)
            query[rows], key[rows] = left[:, :size].T, right[:size]
        left, right = factors(0.4, -0.4)
        value[:], attention.projection.weight[:] = right, left


def processor_for(tokenizer):
    """The `BlipProcessor` of the embedded captioner: squeeze to 128x128, CLIP's mean and deviation."""
    return BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer)


def score(said: list[str], shown: Photographs) -> float:
    """Mean content-word F1 of captions of the first photographs."""
    return float(np.mean([content_f1(c, r) for c, r in zip(said, shown.captions, strict=False)]))


def learn_to_see(
    captioner: Any, processor: Any, teacher: Teacher, used: Photographs, held_out: Photographs, **how: Any
) -> Any:
    """Teach the vision encoder the teacher's answers, patch by patch, image by image and word by word.

    Returns the layer that names words: the mean state of the patches float32 [N, width] -> logits [N, WORDS].
    """
    width = captioner.config.vision_config.hidden_size
    model = nn.ModuleDict(
        {
            "vision": captioner.vision_model,
            "patches": nn.Linear(width, CHANNELS),
            "summary": nn.Linear(width, 2 * CHANNELS),
            "words": nn.Linear(width, WORDS),
        }
    )
    words: Any = model["words"]
    nn.init.constant_(words.bias, -4.0)  # most words are in few captions
    answers = teacher.answers(whole(held_out.images))
    known = score(teacher.five(answers[2]), held_out)

    def loss_of(random: np.random.Generator, progress: float) -> torch.Tensor:
        torch.manual_seed(int(random.integers(2**62)))
        model.train()
        x = views(used.images[random.integers(0, len(used.names), BATCH)], random)
        patches, summary, chances = teacher.answers(x)
        seen = see(model["vision"], processor, x)[:, 1:]
        loss = functional.mse_loss(model["patches"](seen), patches)
        loss = loss + functional.mse_loss(model["summary"](seen.mean(1)), summary)
        said = functional.binary_cross_entropy_with_logits(words(seen.mean(1)), chances, reduction="sum")
        return loss + 0.1 * said / BATCH

    def figures(averaged: Any) -> str:
        with torch.inference_mode():
            inputs = processor(images=list(held_out.images), return_tensors="pt")
            seen = averaged["vision"](inputs.pixel_values).last_hidden_state[:, 1:]
            error = functional.mse_loss(averaged["patches"](seen), answers[0])
            five = score(teacher.five(averaged["words"](seen.mean(1))), held_out)
        return f"held-out feature error {error:.3f}, F1 of five words {five:.3f} (teacher {known:.3f})"

    trained: Any = train(model, loss_of, figures, learning_rate=6e-4, weight_decay=0.05, **how)
    captioner.vision_model.load_state_dict(trained["vision"].state_dict())
    captioner.vision_model.eval().requires_grad_(False)
    return trained["words"].eval().requires_grad_(False)


def run(data: Path, out: Path, minutes: float, teacher: Path) -> None:
    """Train, print the held-out F1 beside the best constant bag of words', and write `out/captioner`."""
    used, held_out = read_training(data)
    tokenizer = BertTokenizer.from_pretrained(out / "captioner" / "tokenizer")
    processor = processor_for(tokenizer)
    captioner: Any = build(tokenizer)
    constant = best_constant(used.captions)
    print(
        f"captioner: {sum(p.numel() for p in captioner.parameters()) / 1e6:.2f} M parameters; "
        f"F1 of {constant!r} {score([constant] * len(held_out.names), held_out):.3f}",
        flush=True,
    )
    knows, checkpoints = Teacher(teacher, used), out / "checkpoints"
    words = learn_to_see(
        captioner, processor, knows, used, held_out,
        checkpoint=checkpoints / "captioner_vision.safetensors", minutes=SEEING * minutes,
    )  # fmt: skip

    def figures(averaged: Any) -> str:
        with torch.inference_mode():
            inputs = processor(images=list(held_out.images), return_tensors="pt")
            said = averaged.generate(**inputs, num_beams=3, max_new_tokens=30, no_repeat_ngram_size=2)
        captions = processor.batch_decode(said, skip_special_tokens=True)
        return f"F1 of the captions {score(captions, held_out):.3f} ({captions[0]} / {captions[1]})"

    def save(averaged: Any) -> None:
        averaged.generation_config.update(no_repeat_ngram_size=2)
        copy.deepcopy(averaged).half().save_pretrained(out / "captioner")
        processor.save_pretrained(out / "captioner")

    lessons = Lessons(captioner, processor, used)
    how: dict[str, Any] = {"weight_decay": 0.05, "on_checkpoint": save}
    speaks: Any = train(
        captioner, lessons.speak, figures, checkpoints / "captioner_speaking.safetensors",
        minutes=SPEAKING * minutes, learning_rate=1e-3, **how,
    )  # fmt: skip
    captioner.load_state_dict(speaks.state_dict())
    choices = Choices(lessons, knows, words, fluent=copy.deepcopy(speaks).requires_grad_(False).text_decoder)
    train(
        captioner, choices.say, figures, checkpoints / "captioner_choosing.safetensors",
        minutes=(1 - SEEING - SPEAKING) * minutes, learning_rate=4e-4, average=0.99, **how,
    )  # fmt: skip
