"""A small joint source-channel coder: a convolutional encoder to symbols, and a decoder back to pixels."""

import torch
from torch import nn

CHANNELS = 8  # real numbers sent of each tile of 8x8 pixels: 1/48 complex symbols a pixel value


def shrink(inputs, outputs):
    """Halve the sides."""
    return nn.Conv2d(inputs, outputs, 5, 2, 2)


def grow(inputs, outputs):
    """Double the sides."""
    return nn.ConvTranspose2d(inputs, outputs, 5, 2, 2, output_padding=1)


class Encoder(nn.Module):
    """Images float32 [B, 3, H, W] in 0 to 1 -> real numbers [B, CHANNELS, H/8, W/8]."""

    def __init__(self, width=48):
        super().__init__()
        self.layers = nn.Sequential(
            shrink(3, width), nn.PReLU(), shrink(width, width), nn.PReLU(), shrink(width, CHANNELS)
        )

    def forward(self, images):
        return self.layers(images - 0.5)


class Decoder(nn.Module):
    """Symbols complex64 [B, CHANNELS/2 * H/8 * W/8] of square images -> images float32 [B, 3, H, W]."""

    def __init__(self, width=48):
        super().__init__()
        self.layers = nn.Sequential(grow(CHANNELS, width), nn.PReLU(), grow(width, width), nn.PReLU(), grow(width, 3))

    def forward(self, symbols):
        side = round((2 * symbols.shape[1] / CHANNELS) ** 0.5)
        tiles = torch.view_as_real(symbols).reshape(-1, CHANNELS, side, side)
        return self.layers(tiles) + 0.5
