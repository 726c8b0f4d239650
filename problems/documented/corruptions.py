"""Images as a bad camera sees them: seven corruptions at three severities.

For data sets without a corrupted version of their own. Images are standardized; noise, brightness
and contrast are in standard deviations of a pixel.

Source: Hendrycks and Dietterich 2019, ICLR, arXiv 1903.12261 (the kinds; severities are this
project's, for images of any size).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import fmean
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.seeding import derive_seed
from problems.documented.training import error_rate

SEVERITIES = (1, 2, 3)


def _gaussian_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(x.shape, generator=generator).to(x)
    return x + 0.25 * severity * noise


def _shot_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    photons = (60.0, 25.0, 10.0)[severity - 1]  # of the brightest pixel
    low, range_ = x.min(), (x.max() - x.min()).clamp_min(1e-12)
    rate = (photons * (x - low) / range_).cpu()
    return torch.poisson(rate, generator=generator).to(x) / photons * range_ + low


def _impulse_noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    share = 0.04 * severity
    drawn = torch.rand(x.shape, generator=generator).to(x)
    x = torch.where(drawn < share / 2, x.min(), x)
    return torch.where(drawn > 1 - share / 2, x.max(), x)


def _blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    width = (0.5, 0.75, 1.0)[severity - 1]  # standard deviation in pixels
    steps = torch.tensor([-1.0, 0.0, 1.0]).to(x)
    row = torch.softmax(-(steps**2) / (2 * width**2), dim=0)
    kernel = (row[:, None] * row[None]).expand(x.shape[1], 1, 3, 3)
    padded = functional.pad(x, (1, 1, 1, 1), mode="replicate")
    return functional.conv2d(padded, kernel, groups=x.shape[1])


def _contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (0.6, 0.4, 0.25)[severity - 1] * (x - mean)


def _brightness(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return x + 0.3 * severity


def _pixelate(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    height, width = (max(size // 2, 1) for size in x.shape[-2:])
    small = functional.adaptive_avg_pool2d(x, (height, width))
    coarse = functional.interpolate(small, x.shape[-2:], mode="nearest")
    return torch.lerp(x, coarse, severity / 3)


CORRUPTIONS: Mapping[str, Callable[[Tensor, int, torch.Generator], Tensor]] = MappingProxyType(
    {
        "gaussian_noise": _gaussian_noise,
        "shot_noise": _shot_noise,
        "impulse_noise": _impulse_noise,
        "blur": _blur,
        "contrast": _contrast,
        "brightness": _brightness,
        "pixelate": _pixelate,
    }
)


def corrupt(x: Tensor, name: str, severity: int, seed: int = 0) -> Tensor:
    """Corrupted images.

    Args:
        x: `n x channels x height x width`, standardized.
        name: One of `CORRUPTIONS`.
        severity: One of `SEVERITIES`.
        seed: Of the noise.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, name, severity))
    return CORRUPTIONS[name](x, severity, generator)


def corrupted_errors(network: nn.Module, x: Tensor, y: Tensor, seed: int = 0) -> dict[str, float]:
    """By corruption, the share of wrongly classified images, averaged over severities."""
    return {
        name: fmean(error_rate(network, corrupt(x, name, s, seed), y) for s in SEVERITIES)
        for name in CORRUPTIONS
    }
