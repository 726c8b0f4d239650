"""The macro-architecture: a stem, layers with candidates for their blocks, and a head.

An architecture is the names of the blocks, one a layer. `paper_space` is the paper's, of 22 layers;
`small_space` one of 4 layers and 400 architectures for images of 8 x 8 pixels, and
`three_stage_space` one of 9 for images of about 32 x 32.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443, table 1; the smaller spaces are this
project's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError, did_you_mean
from problems.documented.fbnet.blocks import (
    BITS,
    PAPER_BLOCKS,
    SKIP,
    at_bits,
    make_block,
    skip_fits,
)

Architecture = tuple[str, ...]  # the blocks' names, layer by layer
Stage = tuple[int, int, int]  # channels, layers, the first one's stride
PAPER_STAGES: tuple[Stage, ...] = (
    (16, 1, 1), (24, 4, 2), (32, 4, 2), (64, 4, 2), (112, 4, 1), (184, 4, 2), (352, 1, 1),
)  # fmt: skip
SMALL_BLOCKS = ("k3_e1", "k3_e3", "k5_e1", "k5_e3", SKIP)


@dataclass(frozen=True)
class Layer:
    """A searchable layer: shapes, and what may stand there.

    Attributes:
        in_channels: Of its input,
        height: which is so high
        width: and so wide.
        out_channels: Of its output.
        stride: Of its block.
        candidates: Names of blocks, a skip only where it fits.
    """

    in_channels: int
    height: int
    width: int
    out_channels: int
    stride: int
    candidates: tuple[str, ...]

    def key(self, block: str) -> str:
        """A block in this layer, in a table of latencies; layers of equal shape share it."""
        return (
            f"{self.in_channels}x{self.height}x{self.width} -> {self.out_channels} "
            f"/{self.stride} {block}"
        )

    def make(self, block: str) -> nn.Module:
        """The untrained block.

        Raises:
            InputError: See `make_block`.
        """
        return make_block(block, self.in_channels, self.out_channels, self.stride)


@dataclass(frozen=True)
class MacroSpace:
    """What is fixed, and the layers that are searched. Made by `macro_space` and its kin.

    Attributes:
        shape: Of an image: channels, height, width.
        classes: Number of classes.
        resolution: Height and width to which images are scaled.
        stem_channels: Of the first convolution, 3 x 3.
        stem_stride: Its stride.
        layers: In order.
        head_channels: Of the last convolution, 1 x 1; None: there is none.
    """

    shape: tuple[int, int, int]
    classes: int
    resolution: tuple[int, int]
    stem_channels: int
    stem_stride: int
    layers: tuple[Layer, ...]
    head_channels: int | None = None

    @property
    def size(self) -> int:
        """The number of architectures."""
        return math.prod(len(layer.candidates) for layer in self.layers)

    def architectures(self) -> Iterator[Architecture]:
        """All of them, the last layer's block changing fastest."""
        yield from itertools.product(*(layer.candidates for layer in self.layers))

    def check(self, architecture: Sequence[str]) -> Architecture:
        """The architecture, if it is one of this space.

        Raises:
            InputError: It has too few or too many layers, or a block that is no candidate.
        """
        if len(architecture) != len(self.layers):
            raise InputError(
                f"an architecture of this space has {len(self.layers)} blocks, got "
                f"{len(architecture)}"
            )
        for number, (layer, block) in enumerate(zip(self.layers, architecture, strict=True), 1):
            if block not in layer.candidates:
                hint = did_you_mean(block, layer.candidates)
                raise InputError(
                    f"layer {number} cannot be {block!r}{hint}: expected one of "
                    f"{', '.join(layer.candidates)}"
                )
        return tuple(architecture)

    def with_bits(self, bits: Sequence[int] = BITS) -> MacroSpace:
        """The space in which each candidate block may have any of these bits."""

        def every(block: str) -> Sequence[str]:
            return [SKIP] if block == SKIP else [at_bits(block, b) for b in bits]

        layers = tuple(
            replace(layer, candidates=tuple(n for c in layer.candidates for n in every(c)))
            for layer in self.layers
        )
        return replace(self, layers=layers)

    def stem(self) -> nn.Sequential:
        """3 x 3 convolution, normalization, ReLU."""
        return nn.Sequential(
            nn.Conv2d(self.shape[0], self.stem_channels, 3, self.stem_stride, 1, bias=False),
            nn.BatchNorm2d(self.stem_channels),
            nn.ReLU(),
        )

    def head(self) -> nn.Sequential:
        """1 x 1 convolution, normalization, ReLU (if any); mean over positions; linear layer."""
        channels = self.layers[-1].out_channels
        parts: list[nn.Module] = []
        if self.head_channels is not None:
            parts = [
                nn.Conv2d(channels, self.head_channels, 1, bias=False),
                nn.BatchNorm2d(self.head_channels),
                nn.ReLU(),
            ]
            channels = self.head_channels
        pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        return nn.Sequential(*parts, *pool, nn.Linear(channels, self.classes))

    def scaled(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` images at the space's resolution (bilinear)."""
        if images.shape[-2:] == self.resolution:
            return images
        return functional.interpolate(images, self.resolution, mode="bilinear", antialias=True)


def macro_space(
    shape: Sequence[int],
    classes: int,
    stages: Sequence[Stage],
    candidates: Sequence[str] = PAPER_BLOCKS,
    *,
    stem_channels: int,
    stem_stride: int,
    head_channels: int | None = None,
    channel_multiplier: float = 1.0,
    resolution: int | None = None,
) -> MacroSpace:
    """A space of networks.

    Args:
        shape: Of an image: channels, height, width.
        classes: Number of classes.
        stages: Each has so many channels and layers, and a stride of its first layer.
        candidates: Of every layer; a skip is left out where it does not fit.
        stem_channels: Of the first convolution.
        stem_stride: Its stride.
        head_channels: Of the last convolution; None: there is none.
        channel_multiplier: Of all channels, rounded to even numbers (for two groups).
        resolution: Side of square images to scale to; None: images stay as they are.

    Raises:
        InputError: There is no layer, or a layer has no candidate.
    """

    def wide(channels: int) -> int:
        return max(2 * round(channel_multiplier * channels / 2), 2)

    in_channels, height, width = shape
    if resolution is not None:
        height = width = resolution
    stem = wide(stem_channels)
    space = MacroSpace(
        (in_channels, *shape[1:]),  # type: ignore[arg-type]
        classes,
        (height, width),
        stem,
        stem_stride,
        (),
        None if head_channels is None else wide(head_channels),
    )
    height, width = math.ceil(height / stem_stride), math.ceil(width / stem_stride)
    layers: list[Layer] = []
    before = stem
    for channels, count, first_stride in stages:
        for number in range(count):
            stride = first_stride if number == 0 else 1
            after = wide(channels)
            fitting = tuple(c for c in candidates if c != SKIP or skip_fits(before, after, stride))
            if not fitting:
                raise InputError(
                    f"layer {len(layers) + 1} has no candidate: a skip alone does not fit it"
                )
            layers.append(Layer(before, height, width, after, stride, fitting))
            height, width = math.ceil(height / stride), math.ceil(width / stride)
            before = after
    if not layers:
        raise InputError("a space needs at least one layer to search")
    return replace(space, layers=tuple(layers))


def paper_space(
    shape: Sequence[int] = (3, 224, 224),
    classes: int = 1000,
    *,
    head_channels: int = 1984,
    channel_multiplier: float = 1.0,
    resolution: int | None = None,
) -> MacroSpace:
    """The paper's: 22 layers, nine candidates, 9^22 or so architectures."""
    return macro_space(
        shape, classes, PAPER_STAGES, stem_channels=16, stem_stride=2,
        head_channels=head_channels, channel_multiplier=channel_multiplier, resolution=resolution,
    )  # fmt: skip


def small_space(
    shape: Sequence[int] = (1, 8, 8),
    classes: int = 10,
    *,
    channel_multiplier: float = 1.0,
    resolution: int | None = None,
) -> MacroSpace:
    """4 layers of 8, 8, 16 and 16 channels, 4 x 5 x 4 x 5 = 400 architectures."""
    return macro_space(
        shape, classes, ((8, 2, 2), (16, 2, 2)), SMALL_BLOCKS, stem_channels=8, stem_stride=1,
        channel_multiplier=channel_multiplier, resolution=resolution,
    )  # fmt: skip


def three_stage_space(
    shape: Sequence[int] = (3, 32, 32),
    classes: int = 10,
    *,
    channel_multiplier: float = 1.0,
    resolution: int | None = None,
) -> MacroSpace:
    """9 layers in three stages of 16, 32 and 64 channels, the paper's candidates."""
    return macro_space(
        shape, classes, ((16, 3, 1), (32, 3, 2), (64, 3, 2)), stem_channels=16, stem_stride=1,
        channel_multiplier=channel_multiplier, resolution=resolution,
    )  # fmt: skip


SPACES: dict[str, Callable[..., MacroSpace]] = {
    "small": small_space,
    "three_stages": three_stage_space,
    "paper": paper_space,
}


class FBNet(nn.Module):
    """One architecture of a space, as a network.

    Args:
        space: See `MacroSpace`.
        architecture: The blocks' names.

    Raises:
        InputError: It is not in the space.
    """

    def __init__(self, space: MacroSpace, architecture: Sequence[str]) -> None:
        super().__init__()
        self.space, self.architecture = space, space.check(architecture)
        self.stem = space.stem()
        self.blocks = nn.Sequential(
            *(layer.make(b) for layer, b in zip(space.layers, self.architecture, strict=True))
        )
        self.head = space.head()

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x classes` logits."""
        logits: Tensor = self.head(self.blocks(self.stem(self.space.scaled(images))))
        return logits
