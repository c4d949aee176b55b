"""Trains the embedded captioner, a small `BlipForConditionalGeneration`.

A vision transformer learns little from 6,700 photographs and their captions, so it first learns to answer as
a teacher does (distillation, Hinton et al. 2015): a convolutional network that knows ImageNet (SqueezeNet
1.1, Iandola et al. 2016), whose features it predicts patch by patch, and a small network on top of those that
names the content words of the captions. Then the decoder learns to speak from what the fixed vision sees, and at
last is rewarded for the content words that its own captions share with people's (self-critical sequence training,
Rennie et al. 2017).
"""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
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

from ..content_words import best_constant, content_f1, content_words, overlap
from .data import read_training
from .loop import train

SIDE, PATCH = 128, 16  # pixels
TEACHER_SIDE = 144  # gives SqueezeNet's features on the 8x8 grid of the patches
SEEING, SPEAKING = 0.80, 0.12  # shares of the time: the vision encoder learns, then the decoder; the rest is for F1
SAMPLES, SAMPLE_TOKENS = 5, 18  # captions drawn of an image where the decoder is rewarded
BATCH, CAPTIONS = 32, 3
WORDS = 500  # content words that the teacher, and so the vision encoder, learns to name


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
        label_smoothing=0.1,
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


def squeezenet(weights: Path):
    """SqueezeNet 1.1's convolutional part: BGR 0..255 less the ImageNet mean -> 512 channels at 1/16."""

    class Fire(nn.Module):
        def __init__(self, inputs: int, squeeze: int, expand: int) -> None:
            super().__init__()
            self.squeeze = nn.Conv2d(inputs, squeeze, 1)
            self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
            self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

        def forward(self, x):
            x = self.squeeze(x).relu()
            return torch.cat([self.expand1x1(x), self.expand3x3(x)], 1).relu()

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    network = nn.Sequential(
        nn.Conv2d(3, 64, 3, 2), nn.ReLU(), pool(),
        Fire(64, 16, 64), Fire(128, 16, 64), pool(),
        Fire(128, 32, 128), Fire(256, 32, 128), pool(),
        Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256),
    )  # fmt: skip
    network.load_state_dict({k.removeprefix("features."): v for k, v in load_file(weights).items()})
    return network.eval().requires_grad_(False)


def views(images: np.ndarray, random: np.random.Generator):
    """A random view of each image: 70 to 100 % of its sides, mirrored or not, tinted; float32 0..255."""
    count = len(images)
    scale = random.uniform(0.7, 1.0, (count, 2))
    shift = random.uniform(-1, 1, (count, 2)) * (1 - scale)
    affine = np.zeros((count, 2, 3), np.float32)
    affine[:, 0, 0] = scale[:, 0] * random.choice([-1, 1], count)
    affine[:, 1, 1] = scale[:, 1]
    affine[:, :, 2] = shift
    grid = functional.affine_grid(torch.from_numpy(affine), [count, 3, TEACHER_SIDE, TEACHER_SIDE], align_corners=False)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    x = functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
    gain = torch.from_numpy(random.uniform(0.8, 1.2, (count, 3, 1, 1)).astype(np.float32))
    return (x * gain).clamp(0, 255)


def naming(features: torch.Tensor, named: torch.Tensor) -> nn.Sequential:
    """The teacher's second part: features float32 [N, 1024] -> a logit per word, taught from `named` [N, WORDS]."""
    network = nn.Sequential(
        nn.BatchNorm1d(features.shape[1], affine=False),
        nn.Dropout(0.3), nn.Linear(features.shape[1], 512), nn.GELU(), nn.Dropout(0.5), nn.Linear(512, WORDS),
    )  # fmt: skip
    last: Any = network[-1]
    nn.init.constant_(last.bias, -4.0)  # most words are in few captions
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3, weight_decay=0.1)
    for _ in range(10):
        for rows in torch.randperm(len(features)).split(256):
            loss = functional.binary_cross_entropy_with_logits(network(features[rows]), named[rows], reduction="sum")
            optimizer.zero_grad()
            (loss / len(rows)).backward()
            optimizer.step()
    return network.eval().requires_grad_(False)


def pooled(features: torch.Tensor) -> torch.Tensor:
    """Mean and maximum over the image: [N, C, H, W] -> [N, 2 C]."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)


def run(data: Path, out: Path, minutes: float, teacher: Path) -> None:
    """Train, print the held-out F1 beside the best constant caption's, and write `out/captioner`."""
    used, held_out = read_training(data)
    tokenizer = BertTokenizer.from_pretrained(out / "captioner" / "tokenizer")
    processor = processor_for(tokenizer)
    captioner = build(tokenizer)
    print(f"captioner: {sum(p.numel() for p in captioner.parameters()) / 1e6:.2f} M parameters", flush=True)
    mean = torch.tensor(processor.image_processor.image_mean).view(1, 3, 1, 1)
    deviation = torch.tensor(processor.image_processor.image_std).view(1, 3, 1, 1)
    imagenet = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    network = squeezenet(teacher)

    def taught(x: torch.Tensor) -> torch.Tensor:
        return network(x.flip(1) - imagenet).sqrt()

    def see(x: torch.Tensor) -> torch.Tensor:
        pixels = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        return captioner.vision_model((pixels / 255 - mean) / deviation).last_hidden_state

    counts = Counter(word for captions in used.captions for c in captions for word in content_words(c))
    index = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS))}
    order = list(index)
    named = torch.zeros(len(used.names), WORDS)
    for row, captions in zip(named, used.captions, strict=True):
        for caption in captions:
            for word in content_words(caption) & index.keys():
                row[index[word]] += 1 / len(captions)
    torch.manual_seed(2026)
    random = np.random.default_rng(2026)
    whole = torch.arange(len(used.names)).repeat(2).split(64)
    with torch.inference_mode():
        summary = torch.cat([pooled(taught(views(used.images[rows.numpy()], random))) for rows in whole])
    name = naming(summary.clone(), named.repeat(2, 1))
    constant = best_constant(used.captions)

    def score(said: list[str]) -> float:
        return float(np.mean([content_f1(c, r) for c, r in zip(said, held_out.captions, strict=False)]))

    def likeliest(logits: torch.Tensor) -> float:
        return score([" ".join(order[i] for i in five) for five in logits.topk(5).indices.tolist()])

    size = (TEACHER_SIDE, TEACHER_SIDE)
    shown = torch.from_numpy(held_out.images).permute(0, 3, 1, 2).float()
    shown = functional.interpolate(shown, size=size, mode="bilinear", align_corners=False)
    with torch.inference_mode():
        known = likeliest(name(pooled(taught(shown))))
    print(
        f"F1 of {constant!r} {score([constant] * len(shown)):.3f}, of the teacher's five words {known:.3f}", flush=True
    )

    width = captioner.config.vision_config.hidden_size
    vision = nn.ModuleDict(
        {
            "vision": captioner.vision_model,
            "patches": nn.Linear(width, 512),
            "summary": nn.Linear(width, 1024),
            "words": nn.Linear(width, WORDS),
        }
    )

    def vision_loss(random: np.random.Generator, progress: float) -> torch.Tensor:
        torch.manual_seed(int(random.integers(2**62)))
        x = views(used.images[random.integers(0, len(used.names), BATCH)], random)
        with torch.no_grad():
            features = taught(x)
            summary = pooled(features)
            answer = name(summary).sigmoid()
            patches = functional.layer_norm(features.flatten(2).transpose(1, 2), (512,))
        seen = see(x)
        loss = functional.mse_loss(vision["patches"](seen[:, 1:]), patches)
        loss = loss + functional.mse_loss(vision["summary"](seen[:, 1:].mean(1)), name[0](summary))
        said = vision["words"](seen[:, 1:].mean(1))
        words = functional.binary_cross_entropy_with_logits(said, answer, reduction="sum")
        return loss + 0.1 * words / BATCH

    def vision_figures(averaged) -> str:
        with torch.inference_mode():
            inputs = processor(images=list(held_out.images), return_tensors="pt")
            seen = averaged["vision"](inputs.pixel_values).last_hidden_state
            target = functional.layer_norm(taught(shown).flatten(2).transpose(1, 2), (512,))
            error = functional.mse_loss(averaged["patches"](seen[:, 1:]), target)
            words = likeliest(averaged["words"](seen[:, 1:].mean(1)))
        return f"held-out feature error {error:.3f}, F1 of five words {words:.3f}"

    checkpoints = out / "checkpoints"
    trained: Any = train(
        vision,
        vision_loss,
        vision_figures,
        checkpoints / "captioner_vision.safetensors",
        minutes=SEEING * minutes,
        learning_rate=1e-3,
        weight_decay=0.05,
    )
    captioner.vision_model.load_state_dict(trained["vision"].state_dict())
    captioner.vision_model.eval().requires_grad_(False)

    ends = (tokenizer.bos_token_id, tokenizer.sep_token_id)
    tokens = [
        [[ends[0], *ids[1:-1][:40], ends[1]] for ids in tokenizer(captions).input_ids] for captions in used.captions
    ]

    def text_loss(random: np.random.Generator, progress: float) -> torch.Tensor:
        torch.manual_seed(int(random.integers(2**62)))
        captioner.text_decoder.train()
        chosen = random.integers(0, len(used.names), BATCH)
        with torch.no_grad():
            seen = see(views(used.images[chosen], random))
        drawn = [tokens[i][k] for i in chosen for k in random.permutation(5)[:CAPTIONS]]
        longest = max(map(len, drawn))
        ids = torch.tensor([ids + [tokenizer.pad_token_id] * (longest - len(ids)) for ids in drawn])
        there = ids != tokenizer.pad_token_id
        decoded = captioner.text_decoder(
            input_ids=ids,
            attention_mask=there.long(),
            encoder_hidden_states=seen.repeat_interleave(CAPTIONS, 0),
            labels=ids.masked_fill(~there, -100),
            reduction="mean",
        )
        return decoded.loss

    def text_figures(averaged) -> str:
        with torch.inference_mode():
            inputs = processor(images=list(held_out.images[:100]), return_tensors="pt")
            said = averaged.generate(**inputs, num_beams=3, max_new_tokens=24)
        captions = processor.batch_decode(said, skip_special_tokens=True)
        return f"F1 of the captions {score(captions):.3f} ({captions[0]} / {captions[1]})"

    def save(averaged) -> None:
        averaged.generation_config.update(repetition_penalty=1.5, no_repeat_ngram_size=2)
        copy.deepcopy(averaged).half().save_pretrained(out / "captioner")
        processor.save_pretrained(out / "captioner")

    train(
        captioner,
        text_loss,
        text_figures,
        checkpoints / "captioner.safetensors",
        minutes=SPEAKING * minutes,
        learning_rate=1e-3,
        weight_decay=0.05,
        on_checkpoint=save,
    )

    meant = [[content_words(caption) for caption in captions] for captions in used.captions]

    def reward_loss(random: np.random.Generator, progress: float) -> torch.Tensor:
        captioner.eval()
        torch.manual_seed(int(random.integers(2**62)))
        chosen = random.integers(0, len(used.names), BATCH)
        with torch.no_grad():
            seen = see(views(used.images[chosen], random)).repeat_interleave(SAMPLES, 0)
            ids = captioner.text_decoder.generate(
                input_ids=torch.full((len(seen), 1), tokenizer.bos_token_id),
                encoder_hidden_states=seen,
                do_sample=True,
                max_new_tokens=SAMPLE_TOKENS,
                eos_token_id=tokenizer.sep_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        said = [content_words(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]
        score = [max(overlap(words, other) for other in meant[chosen[i // SAMPLES]]) for i, words in enumerate(said)]
        rewards = torch.tensor(score).view(BATCH, SAMPLES)
        gain = (rewards - rewards.mean(1, keepdim=True)) * SAMPLES / (SAMPLES - 1)  # over the mean of the others
        there = ids != tokenizer.pad_token_id
        logits = captioner.text_decoder(
            input_ids=ids[:, :-1], attention_mask=there[:, :-1].long(), encoder_hidden_states=seen
        ).logits
        chance = functional.log_softmax(logits, 2).gather(2, ids[:, 1:, None])[..., 0]
        return -(gain.view(-1, 1) * chance * there[:, 1:]).sum() / there[:, 1:].sum() * 10 + 0.2 * text_loss(
            random, progress
        )

    fluent = {name: value.clone() for name, value in captioner.state_dict().items()}

    def save_mean(averaged) -> None:
        """Half way: rewarded in full, captions string words together."""
        mean = copy.deepcopy(averaged)
        for name, value in mean.state_dict().items():
            if value.is_floating_point():
                value.lerp_(fluent[name], 0.5)
        save(mean)

    train(
        captioner,
        reward_loss,
        text_figures,
        checkpoints / "captioner_rewarded.safetensors",
        minutes=(1 - SEEING - SPEAKING) * minutes,
        learning_rate=2e-4,
        average=0.99,
        on_checkpoint=save_mean,
    )
