"""TinyNets: EfficientNet-B0 made smaller in resolution, depth and width by separate multipliers.

    network = tinynet("A")                                       # 6.2 M parameters, 337 M MACs
    network = ScaledNet(EFFICIENTNET_B0, Scaling(0.8, 0.9, 0.5), channels=3, classes=100)

A base architecture is a stem, stages of inverted residuals, perhaps a 1 x 1 convolution as head,
and a linear layer. At multipliers r, d, w:

* images have int(side r) pixels a side;
* a stage has max(1, round(repeats d)) blocks;
* a stage has w times its channels, rounded to a multiple of the channel step, and up where that
  would lose more than a tenth;
* the stem is not scaled, and the head never made smaller, unless the architecture says so.

So nominally MACs change by r^2 d w^2, and really by what `count_cost` says: at small widths much
less, since stem and head do not shrink.

Source: Han et al. 2020, Model Rubik's Cube, NeurIPS, arXiv 2010.14819; the base from Tan and Le
2019, EfficientNet, arXiv 1905.11946. `SMALL` is this project's, for small images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, real
from bo_surrogates.errors import InputError, did_you_mean
from problems.documented.cost import UNQUANTIZED_BITS
from problems.documented.inverted_residual import InvertedResidual, Resize, convolution
from problems.documented.quantization import QuantizedLinear


@dataclass(frozen=True)
class Scaling(Config):
    """Multipliers of a base architecture.

    Attributes:
        resolution: r, of the images' side.
        depth: d, of the number of blocks.
        width: w, of the number of channels.
    """

    resolution: float = real(1.0, 1e-3, 100.0, log=True)
    depth: float = real(1.0, 1e-3, 100.0, log=True)
    width: float = real(1.0, 1e-3, 100.0, log=True)

    @property
    def nominal_ratio(self) -> float:
        """r^2 d w^2, the MACs as a multiple of the base's if all layers were scaled exactly."""
        return self.resolution**2 * self.depth * self.width**2


@dataclass(frozen=True)
class Stage:
    """Inverted residuals at one resolution, the first of which may have left a larger one.

    Attributes:
        repeats: Number of blocks.
        kernel: Side of their depthwise kernels.
        stride: Of the first block.
        expansion: Channels within a block per input channel.
        channels: Of the blocks' outputs.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


@dataclass(frozen=True)
class Architecture:
    """What is scaled.

    Attributes:
        stages: In order.
        side: Pixels of the images' shorter side at r = 1.
        stem: Channels of the first convolution, 3 x 3.
        stem_stride: Its step.
        head: Channels of the convolution before the linear layer; 0: there is none.
        se_ratio: Hidden units of squeeze-excites per input channel of a block; 0: there are none.
        channel_step: What numbers of channels are multiples of.
        scale_stem: Whether the stem has w times its channels.
        scale_head: Whether the head may have less than its channels.
        bits: Of all weights and inputs of layers; 16: nothing is quantized.
    """

    stages: tuple[Stage, ...]
    side: int
    stem: int
    stem_stride: int = 1
    head: int = 0
    se_ratio: float = 0.0
    channel_step: int = 8
    scale_stem: bool = False
    scale_head: bool = False
    bits: int = UNQUANTIZED_BITS

    def pixels(self, resolution: float) -> int:
        """Pixels of the images' shorter side.

        Raises:
            InputError: None are left.
        """
        # r = pixels / side may have been rounded to below what it stands for.
        pixels = math.floor(self.side * resolution + 1e-9)
        if pixels < 1:
            raise InputError(
                f"resolution {resolution:g} leaves no pixel of {self.side}; expected at least "
                f"{1 / self.side:.3g}"
            )
        return pixels

    def repeats(self, depth: float) -> tuple[int, ...]:
        """Blocks of every stage."""
        return tuple(max(1, round(stage.repeats * depth)) for stage in self.stages)

    def channels(self, width: float) -> tuple[int, ...]:
        """Channels of every stage."""
        return tuple(round_channels(s.channels * width, self.channel_step) for s in self.stages)

    def scaled(self, scaling: Scaling) -> Architecture:
        """The architecture at these multipliers, itself an architecture with multipliers of 1."""
        stages = tuple(
            replace(stage, repeats=repeats, channels=channels)
            for stage, repeats, channels in zip(
                self.stages,
                self.repeats(scaling.depth),
                self.channels(scaling.width),
                strict=True,
            )
        )
        stem, head = self.stem, self.head
        if self.scale_stem:
            stem = round_channels(stem * scaling.width, self.channel_step)
        if head:
            scaled_head = round_channels(head * scaling.width, self.channel_step)
            head = scaled_head if self.scale_head else max(head, scaled_head)
        side = self.pixels(scaling.resolution)
        return replace(self, stages=stages, stem=stem, head=head, side=side)


def round_channels(channels: float, step: int = 8) -> int:
    """The nearest multiple of `step` (halves up), at least one step, and never below 0.9 of it.

    Args:
        channels: A number of channels, not whole.
        step: What the result is a multiple of.
    """
    rounded = max(step, int(channels + step / 2) // step * step)
    return rounded + step if rounded < 0.9 * channels else rounded


EFFICIENTNET_B0 = Architecture(
    stages=(
        Stage(1, 3, 1, 1, 16),
        Stage(2, 3, 2, 6, 24),
        Stage(2, 5, 2, 6, 40),
        Stage(3, 3, 2, 6, 80),
        Stage(3, 5, 1, 6, 112),
        Stage(4, 5, 2, 6, 192),
        Stage(1, 3, 1, 6, 320),
    ),
    side=224,
    stem=32,
    stem_stride=2,
    head=1280,
    se_ratio=0.25,
)
SMALL = Architecture(
    stages=(Stage(2, 3, 2, 4, 12), Stage(2, 3, 2, 4, 20), Stage(3, 3, 2, 4, 32)),
    side=32,
    stem=8,
    channel_step=1,
)
ARCHITECTURES = {"small": SMALL, "efficientnet_b0": EFFICIENTNET_B0}
TINYNETS = {
    "A": Scaling(0.86, 1.2, 1.0),
    "B": Scaling(0.84, 1.1, 0.75),
    "C": Scaling(0.825, 0.85, 0.54),
    "D": Scaling(0.68, 0.695, 0.54),
    "E": Scaling(0.475, 0.6, 0.51),
}


class ScaledNet(nn.Module):
    """The network of an architecture at multipliers, for images of any size.

    Args:
        architecture: The base.
        scaling: The multipliers.
        channels: Of the images.
        classes: Number of classes.

    Attributes:
        architecture: As scaled.

    Raises:
        InputError: No pixel is left.
    """

    def __init__(
        self,
        architecture: Architecture,
        scaling: Scaling | None = None,
        *,
        channels: int = 3,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        scaled = architecture.scaled(scaling or Scaling())
        self.architecture = scaled
        bits, before = scaled.bits, scaled.stem
        layers: list[nn.Module] = [
            Resize(scaled.side),
            convolution(channels, before, 3, stride=scaled.stem_stride, bits=bits),
            nn.BatchNorm2d(before),
            nn.SiLU(),
        ]
        for stage in scaled.stages:
            for number in range(stage.repeats):
                block = InvertedResidual(
                    before,
                    stage.channels,
                    stage.kernel,
                    stride=stage.stride if number == 0 else 1,
                    expansion=stage.expansion,
                    se_ratio=scaled.se_ratio,
                    bits=bits,
                )
                layers.append(block)
                before = stage.channels
        if scaled.head:
            head = convolution(before, scaled.head, bits=bits)
            layers += [head, nn.BatchNorm2d(scaled.head), nn.SiLU()]
            before = scaled.head
        self.features = nn.Sequential(*layers)
        self.classifier = (
            QuantizedLinear(before, classes, bits=bits)
            if bits < UNQUANTIZED_BITS
            else nn.Linear(before, classes)
        )

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x classes` logits."""
        pooled = functional.adaptive_avg_pool2d(self.features(images), 1).flatten(1)
        logits: Tensor = self.classifier(pooled)
        return logits


def tinynet(name: str, *, channels: int = 3, classes: int = 1000) -> ScaledNet:
    """One of the published networks, its weights from torch's global generator.

    Args:
        name: "A" (the largest) to "E".
        channels: Of the images.
        classes: Number of classes.

    Raises:
        InputError: There is no such network.
    """
    if name not in TINYNETS:
        raise InputError(f"unknown TinyNet {name!r}{did_you_mean(name, TINYNETS)}")
    return ScaledNet(EFFICIENTNET_B0, TINYNETS[name], channels=channels, classes=classes)
