"""Trains both tokenizers on the captions: CLIP's byte pairs for the receiver, BERT's for the captioner."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

from .data import read_training

TEXT_ENCODER_TOKENS = 77  # Stable Diffusion's limit, begin and end included
RECEIVER_VOCABULARY, CAPTIONER_VOCABULARY = 3072, 2000


def train_clip(texts: list[str]):
    """A `CLIPTokenizer` learnt from `texts`, with a token for every printable ASCII character."""
    from tokenizers import pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=RECEIVER_VOCABULARY,
        special_tokens=["<|startoftext|>", "<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.backend_tokenizer.train_from_iterator([*texts, *string.printable.strip()], trainer)
    learnt = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learnt["merges"]]
    return CLIPTokenizer(vocab=learnt["vocab"], merges=merges, model_max_length=TEXT_ENCODER_TOKENS)


def train_bert(texts: list[str]):
    """A `BertTokenizer` with BLIP's `[DEC]` as its begin token, its word pieces learnt from `texts`."""
    from tokenizers import trainers
    from transformers import BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    tokenizer = BertTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=CAPTIONER_VOCABULARY,
        special_tokens=special,
        continuing_subword_prefix="##",
        show_progress=False,
    )
    tokenizer.backend_tokenizer.train_from_iterator(texts, trainer)
    vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    return BertTokenizer(vocab=vocabulary, bos_token="[DEC]", model_max_length=64)


def run(data: Path, out: Path, minutes: float) -> None:
    """Write `out/tokenizer` (receiver) and `out/captioner/tokenizer`, print lengths in tokens."""
    used, held_out = read_training(data)
    texts = [caption for captions in used.captions for caption in captions]
    unseen = [caption for captions in held_out.captions for caption in captions]
    for tokenizer, folder in ((train_clip(texts), "tokenizer"), (train_bert(texts), "captioner/tokenizer")):
        tokenizer.save_pretrained(out / folder)
        lengths = [len(ids) for ids in tokenizer(unseen).input_ids]
        print(
            f"{folder}: {len(tokenizer)} tokens, held-out captions {sum(lengths) / len(lengths):.1f}, "
            f"at most {max(lengths)}",
            flush=True,
        )
