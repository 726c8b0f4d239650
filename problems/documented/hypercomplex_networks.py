"""Networks of hypercomplex convolutions: PHResNet, PHVGG and a small one.

Every convolution of the real network is a hypercomplex one, normalizations and ReLUs are as they
were, and the last layer is real. n may differ between stages, wherever it divides the channels.
The first layer sees images of 1 or 3 channels: it is real, or its input is filled up with channels
of zeros, or of the image's mean over channels, to a multiple of n.

    network = ph_resnet(18, 4, classes=10)
    network = ph_resnet(50, (2, 4, 4, 12), widths=LARGE_WIDTHS, classes=100)

Source: Grassucci, Zhang and Comminiello 2022, IEEE TNNLS, arXiv 2110.04176; He et al. 2016, CVPR,
arXiv 1512.03385, and Simonyan and Zisserman 2015, ICLR, arXiv 1409.1556, both as usual on images of
32 x 32 pixels: a first convolution of 3 x 3 without pooling, one linear layer.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.hypercomplex import PHConfig, PHConv2d

STEMS = ("real", "zeros", "mean")
WIDTHS = (64, 128, 256, 512)
LARGE_WIDTHS = (60, 120, 240, 516)  # n = 2, 3, 4, 6 and 12 divide them
RESNETS = {  # by depth: blocks a stage, and whether they are bottlenecks
    18: ((2, 2, 2, 2), False),
    34: ((3, 4, 6, 3), False),
    50: ((3, 4, 6, 3), True),
    101: ((3, 4, 23, 3), True),
    152: ((3, 8, 36, 3), True),
}
VGGS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
EXPANSION = 4  # of a bottleneck

Configs = int | PHConfig | Sequence[int | PHConfig]  # of all stages, or of each


class FilledChannels(nn.Module):
    """Further channels, so that n divides their number.

    Args:
        extra: How many.
        mean: Whether they are the mean of those there are; else zeros.
    """

    def __init__(self, extra: int, mean: bool) -> None:
        super().__init__()
        self.extra, self.mean = extra, mean

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x (channels + extra) x h x w`."""
        if self.mean:
            filling = images.mean(dim=1, keepdim=True).expand(-1, self.extra, -1, -1)
            return torch.cat([images, filling], dim=1)
        return functional.pad(images, (0, 0, 0, 0, 0, self.extra))


def stem_conv(
    channels: int, width: int, config: int | PHConfig, stem: str, *, bias: bool
) -> nn.Module:
    """The first convolution, 3 x 3.

    Args:
        channels: Of the images.
        width: Of the outputs.
        config: Of a hypercomplex one.
        stem: "real", or how channels are filled up to a multiple of n where there are too few:
            "zeros" or "mean".
        bias: Whether there is one.

    Raises:
        InputError: Another stem, or n does not divide the width.
    """
    if stem not in STEMS:
        raise InputError(f"stem must be one of {', '.join(STEMS)}, got {stem!r}")
    if stem == "real":
        return nn.Conv2d(channels, width, 3, padding=1, bias=bias)
    config = PHConfig(config) if isinstance(config, int) else config
    extra = -channels % config.n
    conv = PHConv2d(channels + extra, width, 3, config, padding=1, bias=bias)
    return nn.Sequential(FilledChannels(extra, stem == "mean"), conv) if extra else conv


def _stages(configs: Configs, count: int) -> list[int | PHConfig]:
    found = [configs] * count if isinstance(configs, int | PHConfig) else list(configs)
    if len(found) != count:
        raise InputError(f"config must be one for all {count} stages or one each, got {configs!r}")
    return found


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, or 1 x 1, 3 x 3 and 1 x 1 (a bottleneck), and a shortcut around them.

    Args:
        before: Input channels.
        width: Channels of the 3 x 3 convolution.
        config: Of all convolutions.
        stride: Of the first 3 x 3 convolution.
        bottleneck: Whether it is one; it has four times as many output channels.
    """

    def __init__(
        self, before: int, width: int, config: int | PHConfig, stride: int, bottleneck: bool
    ) -> None:
        super().__init__()
        after = EXPANSION * width if bottleneck else width
        plan = (
            [(before, width, 1, 1), (width, width, 3, stride), (width, after, 1, 1)]
            if bottleneck
            else [(before, width, 3, stride), (width, width, 3, 1)]
        )
        layers: list[nn.Module] = []
        for inputs, outputs, kernel, step in plan:
            layers += [*_normalized(inputs, outputs, kernel, config, step), nn.ReLU()]
        self.path = nn.Sequential(*layers[:-1])
        self.shortcut: nn.Module = (
            nn.Identity()
            if stride == 1 and before == after
            else nn.Sequential(*_normalized(before, after, 1, config, stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`n x before x h x w` to `n x after x h' x w'`."""
        return functional.relu(self.path(x) + self.shortcut(x))

    def elementwise_ops(self, output: Tensor) -> int:
        """The addition of the shortcut."""
        return output.numel()


def _normalized(
    inputs: int, outputs: int, kernel: int, config: int | PHConfig, stride: int = 1
) -> list[nn.Module]:
    conv = PHConv2d(inputs, outputs, kernel, config, stride=stride, padding=kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class Classifier(nn.Module):
    """Convolutions, the mean over positions, and a real linear layer.

    Args:
        features: The convolutions.
        width: Their output channels.
        classes: Number of classes.
    """

    def __init__(self, features: nn.Sequential, width: int, classes: int) -> None:
        super().__init__()
        self.features = features
        self.head = nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x classes` logits."""
        pooled: Tensor = self.features(images).mean(dim=(-2, -1))
        logits: Tensor = self.head(pooled)
        return logits


def ph_resnet(
    depth: int,
    config: Configs = 4,
    *,
    channels: int = 3,
    classes: int = 10,
    widths: Sequence[int] = WIDTHS,
    stem: str = "zeros",
) -> Classifier:
    """PHResNet.

    Args:
        depth: 18, 34, 50, 101 or 152.
        config: n or a `PHConfig`, of all stages or of each of the four; the stem has that of the
            first.
        channels: Of the images.
        classes: Number of classes.
        widths: Of the stages; `LARGE_WIDTHS` are the paper's for n = 3.
        stem: See `stem_conv`.

    Raises:
        InputError: Another depth, or a width that n does not divide.
    """
    if depth not in RESNETS:
        raise InputError(f"depth must be one of {', '.join(map(str, RESNETS))}, got {depth}")
    blocks, bottleneck = RESNETS[depth]
    configs = _stages(config, len(blocks))
    if len(widths) != len(blocks):
        raise InputError(f"widths must hold {len(blocks)} numbers, got {tuple(widths)!r}")
    before = widths[0]
    layers: list[nn.Module] = [
        stem_conv(channels, before, configs[0], stem, bias=False),
        nn.BatchNorm2d(before),
        nn.ReLU(),
    ]
    for stage, (count, width) in enumerate(zip(blocks, widths, strict=True)):
        for block in range(count):
            stride = 2 if block == 0 and stage > 0 else 1
            layers.append(ResidualBlock(before, width, configs[stage], stride, bottleneck))
            before = EXPANSION * width if bottleneck else width
    return Classifier(nn.Sequential(*layers), before, classes)


def ph_vgg(
    depth: int,
    config: Configs = 4,
    *,
    channels: int = 3,
    classes: int = 10,
    widths: Sequence[int] = (*WIDTHS, WIDTHS[-1]),
    stem: str = "zeros",
) -> Classifier:
    """PHVGG, with normalizations; sides of images are multiples of 32.

    Args:
        depth: 11, 13, 16 or 19.
        config: As of `ph_resnet`, of five stages.
        channels: Of the images.
        classes: Number of classes.
        widths: Of the stages.
        stem: See `stem_conv`.

    Raises:
        InputError: Another depth, or a width that n does not divide.
    """
    if depth not in VGGS:
        raise InputError(f"depth must be one of {', '.join(map(str, VGGS))}, got {depth}")
    configs = _stages(config, len(VGGS[depth]))
    if len(widths) != len(configs):
        raise InputError(f"widths must hold {len(configs)} numbers, got {tuple(widths)!r}")
    layers: list[nn.Module] = [
        stem_conv(channels, widths[0], configs[0], stem, bias=False),
        nn.BatchNorm2d(widths[0]),
        nn.ReLU(),
    ]
    before = widths[0]
    for stage, (count, width) in enumerate(zip(VGGS[depth], widths, strict=True)):
        for _ in range(count - (stage == 0)):  # the stem is the first of its stage
            layers += [*_normalized(before, width, 3, configs[stage]), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    return Classifier(nn.Sequential(*layers), before, classes)


def small_phnn(
    channels: int,
    classes: int,
    width: int = 24,
    depth: int = 3,
    config: Configs = 4,
    *,
    stem: str = "real",
    normalized: bool = True,
) -> Classifier:
    """A small network in two stages, the second at half the resolution and twice the width.

    Args:
        channels: Of the images.
        classes: Number of classes.
        width: Of the stem and the first stage.
        depth: Hypercomplex convolutions, 3 x 3, half of them (rounded down) in the first stage.
        config: n or a `PHConfig`, of both stages or of each.
        stem: See `stem_conv`.
        normalized: Whether there are normalizations; without them, convolutions have biases.

    Raises:
        InputError: n does not divide the width, or there are fewer than two convolutions.
    """
    if depth < 2:
        raise InputError(f"depth must be at least 2, one convolution a stage, got {depth}")
    first, second = _stages(config, 2)

    def finished(conv: nn.Module, outputs: int) -> list[nn.Module]:
        return [conv, *([nn.BatchNorm2d(outputs)] if normalized else []), nn.ReLU()]

    layers = finished(stem_conv(channels, width, first, stem, bias=not normalized), width)
    before = width
    for number in range(depth):
        later = number >= depth // 2
        after = 2 * width if later else width
        conv = PHConv2d(
            before,
            after,
            3,
            second if later else first,
            stride=2 if number == depth // 2 else 1,
            padding=1,
            bias=not normalized,
        )
        layers += finished(conv, after)
        before = after
    return Classifier(nn.Sequential(*layers), before, classes)
