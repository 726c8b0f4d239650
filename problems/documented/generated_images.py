"""Images that are generated, so that what decides their class is known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bo_surrogates.seeding import derive_seed

SIZE = 32  # of gratings, in pixels
PERIODS = (5.0, 3.4)  # pixels


def gratings(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy patches of stripes: four orientations times two periods, at random places.

    Fine stripes are lost, or taken for others, where the image is made smaller: resolution decides.

    Args:
        n: How many, classes in turn.
        seed: Of everything random.

    Returns:
        `n x 1 x 32 x 32` images and `n` classes in [0, 8): 2 orientation + period.
    """
    draw = torch.Generator().manual_seed(derive_seed(seed, "gratings"))
    y = torch.arange(n) % 8
    angle = (y // 2) * (math.pi / 4) + 0.12 * torch.randn(n, generator=draw)
    period = torch.tensor(PERIODS)[y % 2] * (0.06 * torch.randn(n, generator=draw)).exp()
    centre = 8 + 16 * torch.rand(2, n, 1, 1, generator=draw)
    phase = 2 * math.pi * torch.rand(n, generator=draw)
    noise = 0.7 * torch.randn(n, SIZE, SIZE, generator=draw)
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    dy, dx = row - centre[0], column - centre[1]
    c, s = angle.cos()[:, None, None], angle.sin()[:, None, None]
    wave = (2 * math.pi / period[:, None, None] * (c * dx + s * dy) + phase[:, None, None]).cos()
    envelope = (-(dx**2 + dy**2) / (2 * 6.0**2)).exp()
    return (envelope * wave + noise).unsqueeze(1), y


def colour_shifts(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Colour images whose class is in how the channels relate, and in no channel alone.

    Each channel shows one smooth random field: the second moved by one pixel and the third by two,
    in the direction of the class (right, down, left or up), noise added to each.

    Args:
        n: How many, classes in turn.
        seed: Of everything random.

    Returns:
        `n x 3 x 16 x 16` images and `n` classes in [0, 4).
    """
    draw = torch.Generator().manual_seed(derive_seed(seed, "colour shifts"))
    y = torch.arange(n) % 4
    field = torch.randn(n, 1, 24, 24, generator=draw)
    kernel = torch.exp(-(torch.arange(-3.0, 4.0) ** 2) / 2)
    kernel = (kernel[:, None] * kernel[None, :])[None, None]
    smooth = torch.nn.functional.conv2d(field, kernel / kernel.norm(), padding=3)[:, 0]
    number = torch.arange(n)[:, None, None]
    channels = []
    for distance in range(3):
        down = distance * torch.tensor([0, 1, 0, -1])[y]
        right = distance * torch.tensor([1, 0, -1, 0])[y]
        rows = 4 - down[:, None] + torch.arange(16)
        columns = 4 - right[:, None] + torch.arange(16)
        channels.append(smooth[number, rows[:, :, None], columns[:, None, :]])
    images = torch.stack(channels, dim=1)
    return images + 0.3 * torch.randn(images.shape, generator=draw), y
