"""What the captioner's decoder learns from, once its vision is fixed: people's captions, then the best of its own.

The mean state of the patches tells which words people are likely to use of an image far better than the captions of
a small decoder do. So it draws captions, the one is chosen whose words are likeliest (minimum Bayes risk, Kumar and
Byrne, "Minimum Bayes-Risk Decoding for Statistical Machine Translation", 2004), and the decoder learns to say that one
at once (Kim and Rush, "Sequence-Level Knowledge Distillation", 2016).
"""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from ..content_words import content_words
from .data import Photographs
from .teacher import Teacher, see, views

VIEWS = 6  # of each photograph
BATCH, CAPTIONS = 32, 3  # photographs, and captions of each, in a batch of people's captions
DRAWN, DRAWN_TOKENS, TEMPERATURE = 32, 20, 0.8  # captions drawn of a view
AT_ONCE, ROUND, STEPS = 10, 1000, 400  # views at once, views of a round, and steps between two rounds
KEPT, SHARE = 3, 0.5  # captions kept of a view, and the weight of each against the better one
POOL = 40_000  # captions learnt from, the newest
CHOSEN_BATCH = 96
WORDS_MEANT = 4.0  # in a caption of people
FLUENCY = 0.025  # of F1, for a nat of likelihood a token


class Lessons:
    """Views of the photographs as the fixed vision sees them, and what people say of them."""

    def __init__(self, captioner: Any, processor: Any, used: Photographs) -> None:
        self.captioner, self.tokenizer = captioner, processor.tokenizer
        random, count = np.random.default_rng(2026), len(used.names)
        with torch.no_grad():
            self.seen = torch.stack(
                [
                    torch.cat(
                        [
                            see(captioner.vision_model, processor, views(used.images[i : i + 64], random)).half()
                            for i in range(0, count, 64)
                        ]
                    )
                    for _ in range(VIEWS)
                ]
            )
        begin, end = self.tokenizer.bos_token_id, self.tokenizer.sep_token_id
        self.tokens = [
            [[begin, *ids[1:-1][:40], end] for ids in self.tokenizer(captions).input_ids] for captions in used.captions
        ]

    def padded(self, rows: list[list[int]]) -> torch.Tensor:
        """Captions as int64 [N, longest]."""
        longest = max(map(len, rows))
        return torch.tensor([row + [self.tokenizer.pad_token_id] * (longest - len(row)) for row in rows])

    def loss(self, seen: torch.Tensor, ids: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """Cross-entropy a token of captions int64 [N, T], each as heavy as its weight float32 [N]."""
        decoder = self.captioner.text_decoder.train()
        there = ids != self.tokenizer.pad_token_id
        with torch.autocast("cpu", torch.bfloat16):
            logits = decoder(
                input_ids=ids[:, :-1], attention_mask=there[:, :-1].long(), encoder_hidden_states=seen
            ).logits.float()
        each = functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none", label_smoothing=0.05)
        heavy = there[:, 1:] * weights[:, None]
        return (each * heavy).sum() / heavy.sum()

    def speak(self, random: np.random.Generator, progress: float) -> torch.Tensor:
        """The loss of people's captions."""
        torch.manual_seed(int(random.integers(2**62)))
        chosen = random.integers(0, len(self.tokens), BATCH)
        seen = self.seen[random.integers(0, VIEWS, BATCH), chosen].float().repeat_interleave(CAPTIONS, 0)
        ids = self.padded([self.tokens[i][k] for i in chosen for k in random.permutation(5)[:CAPTIONS]])
        return self.loss(seen, ids, torch.ones(len(ids)))


class Choice(NamedTuple):
    """A caption that was chosen of a view."""

    view: int
    photograph: int
    ids: list[int]
    weight: float


class Choices:
    """Captions that the decoder drew and that fit best what its vision sees.

    U(C) = 2 sum_{w in C} p_w / (|C| + 4) + 0.025 log P(C) / tokens: about the F1 to be expected of the content words C
    where people use the word w with the chance p_w, and how readily `fluent`, taught by people alone, would say it.
    """

    def __init__(self, lessons: Lessons, teacher: Teacher, words: Any, fluent: Any) -> None:
        self.lessons, self.words, self.fluent = lessons, words, fluent
        self.index = {word: i for i, word in enumerate(teacher.words)}
        self.pool: deque[Choice] = deque(maxlen=POOL)
        self.steps = 0

    def say(self, random: np.random.Generator, progress: float) -> torch.Tensor:
        """The loss of chosen captions, after a round of choosing every so often."""
        torch.manual_seed(int(random.integers(2**62)))
        if self.steps % STEPS == 0:
            view = int(random.integers(VIEWS))
            photographs = random.permutation(len(self.lessons.tokens))[:ROUND]
            for begin in range(0, ROUND, AT_ONCE):
                self._choose(view, photographs[begin : begin + AT_ONCE])
        self.steps += 1
        batch = [self.pool[i] for i in random.integers(0, len(self.pool), CHOSEN_BATCH)]
        seen = torch.stack([self.lessons.seen[choice.view, choice.photograph] for choice in batch]).float()
        weights = torch.tensor([choice.weight for choice in batch])
        return self.lessons.loss(seen, self.lessons.padded([choice.ids for choice in batch]), weights)

    @torch.no_grad()
    def _choose(self, view: int, photographs: np.ndarray) -> None:
        """Draw captions of some photographs, and keep the best that differ in their words."""
        tokenizer = self.lessons.tokenizer
        seen = self.lessons.seen[view, photographs].float()
        every = seen.repeat_interleave(DRAWN, 0)
        ids = self.lessons.captioner.text_decoder.eval().generate(
            input_ids=torch.full((len(every), 1), tokenizer.bos_token_id),
            encoder_hidden_states=every,
            do_sample=True,
            temperature=TEMPERATURE,
            max_new_tokens=DRAWN_TOKENS,
            eos_token_id=tokenizer.sep_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        said = [content_words(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        readily = self._readily(every, ids)
        chances = self.words(seen[:, 1:].mean(1)).sigmoid().tolist()
        for row, photograph in enumerate(photographs):
            kept: list[frozenset[str]] = []
            drawn = range(row * DRAWN, (row + 1) * DRAWN)
            worth = {i: self._f1(said[i], chances[row]) + FLUENCY * readily[i] for i in drawn}
            for i in sorted(worth, key=lambda i: -worth[i]):
                tokens = ids[i][ids[i] != tokenizer.pad_token_id].tolist()
                if said[i] not in kept and tokens[-1] == tokenizer.sep_token_id:
                    self.pool.append(Choice(view, int(photograph), tokens, SHARE ** len(kept)))
                    kept.append(said[i])
                if len(kept) == KEPT:
                    break

    def _f1(self, said: frozenset[str], chances: list[float]) -> float:
        hit = sum(chances[self.index[word]] for word in said if word in self.index)
        return 2 * hit / (len(said) + WORDS_MEANT)

    def _readily(self, seen: torch.Tensor, ids: torch.Tensor) -> list[float]:
        """Mean log-likelihood a token of captions int64 [N, T] under `fluent`."""
        there = ids != self.lessons.tokenizer.pad_token_id
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.fluent(
                input_ids=ids[:, :-1], attention_mask=there[:, :-1].long(), encoder_hidden_states=seen
            ).logits.float()
        each = functional.log_softmax(logits, 2).gather(2, ids[:, 1:, None])[..., 0] * there[:, 1:]
        return (each.sum(1) / there[:, 1:].sum(1)).tolist()
