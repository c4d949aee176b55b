"""Trains the embedded captioner, a small `BlipForConditionalGeneration`.

A vision transformer learns little from 6,700 photographs and their captions, so it first learns to predict,
patch by patch, the features of a convolutional network that knows ImageNet (SqueezeNet 1.1, Iandola et al.
2016), and the content words of the captions; then the decoder joins.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ..content_words import best_constant, content_f1, content_words
from .data import read_training
from .loop import train

SIDE, PATCH = 128, 16  # pixels
TEACHER_SIDE = 144  # gives SqueezeNet's features on the 8x8 grid of the patches
ALONE = 0.2  # share of the time that the vision encoder learns without the decoder
BATCH, CAPTIONS = 32, 3
WORDS = 500  # content words that the vision encoder learns to name


def build(tokenizer):
    """A BLIP captioner of 4 M parameters: 8x8 patches, five vision layers, two decoder layers."""
    import torch
    from transformers import BlipConfig, BlipForConditionalGeneration, BlipTextConfig, BlipVisionConfig

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
    return BlipForConditionalGeneration(BlipConfig(vision_config=vision, text_config=text))


def processor_for(tokenizer):
    """The `BlipProcessor` of the embedded captioner: squeeze to 128x128, CLIP's mean and deviation."""
    from transformers import BlipImageProcessorPil, BlipProcessor

    return BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), tokenizer)


def squeezenet(weights: Path):
    """SqueezeNet 1.1's convolutional part: BGR 0..255 less the ImageNet mean -> 512 channels at 1/16."""
    import torch
    from safetensors.torch import load_file
    from torch import nn

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
    import torch
    from torch.nn import functional

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


def run(data: Path, out: Path, minutes: float, teacher: Path) -> None:
    """Train, print the held-out F1 beside the best constant caption's, and write `out/captioner`."""
    import torch
    from torch import nn
    from torch.nn import functional
    from transformers import BertTokenizer

    used, held_out = read_training(data)
    tokenizer = BertTokenizer.from_pretrained(out / "captioner" / "tokenizer")
    processor = processor_for(tokenizer)
    captioner = build(tokenizer)
    features = squeezenet(teacher)
    width = captioner.config.vision_config.hidden_size
    model = nn.ModuleDict({"captioner": captioner, "see": nn.Linear(width, 512), "name": nn.Linear(width, WORDS)})
    print(f"captioner: {sum(p.numel() for p in captioner.parameters()) / 1e6:.2f} M parameters", flush=True)

    counts = Counter(word for captions in used.captions for c in captions for word in content_words(c))
    index = {word: i for i, (word, _) in enumerate(counts.most_common(WORDS))}
    named = np.zeros((len(used.names), WORDS), np.float32)
    for row, captions in zip(named, used.captions, strict=True):
        for caption in captions:
            for word in content_words(caption) & index.keys():
                row[index[word]] += 1
    named /= np.maximum(named.sum(1, keepdims=True), 1)

    ends = (tokenizer.bos_token_id, tokenizer.sep_token_id)
    tokens = [
        [[ends[0], *ids[1:-1][:40], ends[1]] for ids in tokenizer(captions).input_ids] for captions in used.captions
    ]
    mean = torch.tensor(processor.image_processor.image_mean).view(1, 3, 1, 1)
    deviation = torch.tensor(processor.image_processor.image_std).view(1, 3, 1, 1)
    imagenet = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)

    def loss_of(random: np.random.Generator, progress: float):
        torch.manual_seed(int(random.integers(2**62)))
        captioner.train()
        chosen = random.integers(0, len(used.names), BATCH)
        x = views(used.images[chosen], random)
        with torch.no_grad():
            target = features(x.flip(1) - imagenet).flatten(2).transpose(1, 2)
            target = functional.layer_norm(target.sqrt(), (512,))
        pixels = functional.interpolate(x, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
        seen = captioner.vision_model((pixels / 255 - mean) / deviation).last_hidden_state
        loss = functional.mse_loss(model["see"](seen[:, 1:]), target)
        words = functional.log_softmax(model["name"](seen[:, 0]), 1)
        loss = loss - 0.3 * (torch.from_numpy(named[chosen]) * words).sum(1).mean()
        if progress < ALONE:
            return loss
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
        return 0.5 * loss + decoded.loss

    constant = best_constant(used.captions)
    floor = np.mean([content_f1(constant, captions) for captions in held_out.captions])

    def validate(averaged) -> str:
        with torch.inference_mode():
            inputs = processor(images=list(held_out.images[:80]), return_tensors="pt")
            seen = averaged["captioner"].vision_model(inputs.pixel_values).last_hidden_state
            guess = averaged["name"](seen[:, 0]).topk(3).indices.tolist()
            order = list(index)
            naming = np.mean(
                [
                    content_f1(" ".join(order[i] for i in three), captions)
                    for three, captions in zip(guess, held_out.captions, strict=False)
                ]
            )
            figures = f"F1 of the three likeliest words {naming:.3f}, of '{constant}' {floor:.3f}"
            said = averaged["captioner"].generate(**inputs, num_beams=3, max_new_tokens=24)
        captions = processor.batch_decode(said, skip_special_tokens=True)
        score = np.mean([content_f1(c, r) for c, r in zip(captions, held_out.captions, strict=False)])
        return f"{figures}, of the captions {score:.3f} ({captions[0]} / {captions[1]})"

    def save(averaged) -> None:
        import copy

        copy.deepcopy(averaged["captioner"]).half().save_pretrained(out / "captioner")
        processor.save_pretrained(out / "captioner")

    train(
        model,
        loss_of,
        validate,
        out / "checkpoints" / "captioner.safetensors",
        minutes=minutes,
        learning_rate=1e-3,
        weight_decay=0.05,
        on_checkpoint=save,
    )
