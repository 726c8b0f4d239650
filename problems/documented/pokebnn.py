"""PokeBNN: residual networks of binary convolutions with many shortcuts.

One `PokeConv` on an input r, with r1 the input of its block:

    y = BN1(binary convolution of r)
    y += reshape_add(r)                    local shortcut
    y += reshape_add(r1)                   block shortcut, third convolution of a block only
    y = BN2(DPReLU(y) * SE(r))

Three of them (1x1, 3x3, 1x1) are a bottleneck; a network is a stem, bottlenecks, the mean over
positions and a linear layer. Binary layers are charged 1 ACE a multiply-accumulate, the stem and
the head 64 and the squeeze-excites 16 (`problems.documented.cost`).

Source: Zhang et al. 2022, PokeBNN: A Binary Pursuit of Lightweight Accuracy, CVPR, arXiv
2112.00133, section 3; details where the paper is silent follow the authors' published layers.
Here activations of the 8- and 4-bit layers are quantized from the first step on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.errors import InputError
from problems.documented.binarization import OPERATORS, BinaryConv2d
from problems.documented.binarization.estimators import (
    HALF_SHIFT_CLIP,
    HalfShift,
    SignEstimator,
)
from problems.documented.binarization.inputs import Binary
from problems.documented.binarization.weights import SignWeights
from problems.documented.quantization import QuantizedConv2d, QuantizedLinear, pad_same

SHORTCUTS = ("zeropad", "tile", "none")
ACTIVATIONS = ("dprelu", "prelu", "relu", "none")
WEIGHT_BOUNDS = ("max", "mean", "fixed")


@dataclass(frozen=True)
class PokeConfig(Config):
    """How the layers of a PokeBNN are made.

    Attributes:
        activation_bound: B of the binarized activations, in standard deviations of a
            normalized activation; the width of the window in which they learn.
        bits: Of weights and activations of the layers that are binary in the paper: 1, or 2 to 8.
        weight_bound: Up to where binary weights learn: a channel's "max" |w|, three times its
            "mean" |w|, or 1 ("fixed"). Their values stay +-max |w| / 2, which the normalization
            takes out again.
        local_shortcut: How a local shortcut with too few channels is filled.
        block_shortcut: How a block shortcut with too few channels is filled.
        squeeze_excite: Whether there are any.
        se_bits: Of their weights and activations.
        se_ratio: Input channels per hidden channel of theirs.
        activation: "dprelu", or a simpler function.
        negative_slope: Of "dprelu" and "prelu" at the start.
        stem_bits: Of the stem's weights and inputs; 16 is not quantized.
        head_bits: Of the linear layer's.
        expansion: Output channels of a bottleneck per channel of its inner convolutions.
    """

    activation_bound: float = real(3.0, 1e-3, 1e3, log=True, search=(0.3, 12.0))
    bits: int = integer(1, 1, 8)
    weight_bound: str = choice("max", WEIGHT_BOUNDS)
    local_shortcut: str = choice("zeropad", SHORTCUTS)
    block_shortcut: str = choice("tile", SHORTCUTS)
    squeeze_excite: bool = flag(True)
    se_bits: int = integer(4, 2, 16)
    se_ratio: int = integer(8, 1, 64)
    activation: str = choice("dprelu", ACTIVATIONS)
    negative_slope: float = real(0.25, 0.0, 1.0)
    stem_bits: int = integer(8, 2, 16)
    head_bits: int = integer(8, 2, 16)
    expansion: int = integer(4, 1, 16)


class MeanBound(SignEstimator):
    """The sign with gradient 1 where |w| is below three times its mean over the output channel."""

    def derivative(self, v: Tensor) -> Tensor:
        """1 inside what the clipping leaves of the bound."""
        bound = 3 * v.abs().mean(dim=tuple(range(1, v.ndim)), keepdim=True)
        return (v.abs() < bound * HALF_SHIFT_CLIP).to(v.dtype)


class PokeWeights(SignWeights):
    """Binary weights that may be left as they are in a first phase of the training.

    Args:
        config: See `PokeConfig`.
        fan_in: Weights of an output.

    Attributes:
        binary: Whether the phase is over, as it is from the start unless said otherwise.
    """

    binary: Tensor

    def __init__(self, config: PokeConfig, fan_in: int) -> None:
        super().__init__(OPERATORS["poke"], fan_in, False)
        if config.weight_bound != "max":
            self.estimator = MeanBound() if config.weight_bound == "mean" else HalfShift(1.0)
        self.register_buffer("binary", torch.tensor(True))

    def forward(self, weight: Tensor) -> Binary:
        """See `WeightBinarizer`."""
        if self.binary.is_meta or self.binary:  # only shapes count where there are no values
            return super().forward(weight)
        return Binary(weight, None)


def set_binary_weights(network: nn.Module, binary: bool) -> None:
    """Begin or end the phase in which a network's binary weights are left as they are."""
    for module in network.modules():
        if isinstance(module, PokeWeights):
            module.binary.fill_(binary)


class DPReLU(nn.Module):
    """A PReLU whose two slopes and whose shift in and out are learnt per channel.

    y = s(z) z - b_y, z = x - b_x, s = p where z >= 0 and n elsewhere.

    Args:
        channels: Channels of the input.
        negative_slope: n at the start; p = 1, b_x = b_y = 0.
    """

    def __init__(self, channels: int, negative_slope: float = 0.25) -> None:
        super().__init__()
        shape = (channels, 1, 1)
        self.positive = nn.Parameter(torch.ones(shape))
        self.negative = nn.Parameter(torch.full(shape, negative_slope))
        self.shift_in = nn.Parameter(torch.zeros(shape))
        self.shift_out = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """`n x channels x h x w`, elementwise."""
        z = x - self.shift_in
        # n z + (p - n) max(z, 0): the same function, at half the time of a selection.
        gain = self.positive - self.negative
        return self.negative * z + gain * z.clamp_min(0) - self.shift_out

    def elementwise_ops(self, output: Tensor) -> int:
        """A multiplication and two additions."""
        return 3 * output.numel()


class _PReLU(nn.PReLU):
    def elementwise_ops(self, output: Tensor) -> int:
        return output.numel()


def make_activation(config: PokeConfig, channels: int) -> nn.Module:
    """The activation of a layer with so many channels."""
    match config.activation:
        case "dprelu":
            return DPReLU(channels, config.negative_slope)
        case "prelu":
            return _PReLU(channels, config.negative_slope)
        case "relu":
            return nn.ReLU()
    return nn.Identity()


class SqueezeExcite(nn.Module):
    """A gate in [0, 1] per output channel from the input's mean over positions.

    Two quantized 1x1 convolutions with biases, a ReLU between them, min(max(s + 3, 0), 6) / 6
    after them.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels to gate.
        bits: Of weights and activations, signed in the first convolution and not in the second.
        ratio: Input channels per hidden channel.
    """

    def __init__(self, in_channels: int, out_channels: int, bits: int = 4, ratio: int = 8) -> None:
        super().__init__()
        hidden = max(in_channels // ratio, 1)
        self.squeeze = QuantizedConv2d(in_channels, hidden, 1, bits=bits, bias=True)
        self.excite = QuantizedConv2d(hidden, out_channels, 1, bits=bits, signed=False, bias=True)

    def forward(self, r: Tensor) -> Tensor:
        """`n x in_channels x h x w` to `n x out_channels x 1 x 1`."""
        s = self.squeeze(r.mean(dim=(-2, -1), keepdim=True))
        return functional.hardsigmoid(self.excite(functional.relu(s)))


def reshape_add(y: Tensor, r: Tensor, mode: str) -> Tensor:
    """Add r to y, made to fit without parameters.

    Positions: while r is larger, an average pool 3x3 of stride 2 with "same" padding that does not
    count the padding. Channels: means over consecutive groups of C_r // C_y channels (what is left
    over is dropped) where r has more, else "tile" repeats all of r C_y // C_r times and "zeropad"
    takes it once; missing channels are 0. "none" adds nothing.

    Args:
        y: `n x C_y x h x w`.
        r: `n x C_r x h' x w'`, h' and w' equal to h and w or about twice as large.
        mode: One of `SHORTCUTS`.

    Raises:
        InputError: r is smaller than y, or more than twice as large.
    """
    if mode == "none":
        return y
    if r.shape[-2:] != y.shape[-2:]:
        r = _average_pool(r)
    if r.shape[-2:] != y.shape[-2:]:
        raise InputError(
            f"a shortcut of {tuple(r.shape[-2:])} positions cannot be added to "
            f"{tuple(y.shape[-2:])}: expected as many or half"
        )
    have, want = r.shape[1], y.shape[1]
    if have > want:
        group = have // want
        r = r[:, : group * want].unflatten(1, (want, group)).mean(dim=2)
    elif have < want:
        if mode == "tile":
            r = r.repeat(1, want // have, 1, 1)
        r = functional.pad(r, (0, 0, 0, 0, 0, want - r.shape[1]))
    return y + r


def _average_pool(r: Tensor) -> Tensor:
    inside = functional.avg_pool2d(pad_same(torch.ones_like(r[:1, :1]), 3, 2), 3, 2)
    return functional.avg_pool2d(pad_same(r, 3, 2), 3, 2) / inside


class PokeConv(nn.Module):
    """See the module's docstring.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel_size: Side of the kernel.
        config: See `PokeConfig`.
        stride: Step of the kernel, 1 or 2.
        last: Whether this is the third convolution of a bottleneck: it takes the block's shortcut,
            and its BN1 starts at scale 0 (if there is a shortcut), so that the block starts as
            its shortcuts.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        config: PokeConfig,
        stride: int = 1,
        last: bool = False,
    ) -> None:
        super().__init__()
        if config.bits == 1:
            self.conv: nn.Conv2d = BinaryConv2d(
                in_channels,
                out_channels,
                kernel_size,
                OPERATORS["poke"].replace(input_bound=config.activation_bound),
                stride=stride,
                padding="same",
            )
            self.conv.weights = PokeWeights(config, self.conv.weight[0].numel())
        else:
            self.conv = QuantizedConv2d(
                in_channels, out_channels, kernel_size, bits=config.bits, stride=stride
            )
        self.local_shortcut = config.local_shortcut
        self.block_shortcut = config.block_shortcut if last else "none"
        self.norm1 = nn.BatchNorm2d(out_channels)
        if last and (self.local_shortcut, self.block_shortcut) != ("none", "none"):
            nn.init.zeros_(self.norm1.weight)
        self.activation = make_activation(config, out_channels)
        self.squeeze_excite = (
            SqueezeExcite(in_channels, out_channels, config.se_bits, config.se_ratio)
            if config.squeeze_excite
            else None
        )
        self.norm2 = nn.BatchNorm2d(out_channels)

    def forward(self, r: Tensor, r1: Tensor | None = None) -> Tensor:
        """`n x in_channels x h x w` to `n x out_channels x h' x w'`; r1 is the block's input."""
        y = self.norm1(self.conv(r))
        y = reshape_add(y, r, self.local_shortcut)
        if r1 is not None:
            y = reshape_add(y, r1, self.block_shortcut)
        y = self.activation(y)
        if self.squeeze_excite is not None:
            y = y * self.squeeze_excite(r)
        return self.norm2(y)

    def elementwise_ops(self, output: Tensor) -> int:
        """One addition a shortcut, one multiplication by the gate."""
        shortcuts = sum(mode != "none" for mode in (self.local_shortcut, self.block_shortcut))
        return (shortcuts + (self.squeeze_excite is not None)) * output.numel()


class Bottleneck(nn.Module):
    """Three PokeConvs: 1x1 to f channels, 3x3, 1x1 to `config.expansion` f channels.

    Args:
        in_channels: Channels of the input.
        width: f.
        config: See `PokeConfig`.
        stride: Of the 3x3 convolution, 1 or 2.
    """

    def __init__(self, in_channels: int, width: int, config: PokeConfig, stride: int = 1) -> None:
        super().__init__()
        out_channels = config.expansion * width
        self.conv1 = PokeConv(in_channels, width, 1, config)
        self.conv2 = PokeConv(width, width, 3, config, stride=stride)
        self.conv3 = PokeConv(width, out_channels, 1, config, last=True)

    def forward(self, x: Tensor) -> Tensor:
        """`n x in_channels x h x w` to `n x expansion*width x h' x w'`."""
        return self.conv3(self.conv2(self.conv1(x)), x)


class PokeBNN(nn.Module):
    """A stem, bottlenecks, the mean over positions, a linear layer.

    Args:
        stem: Maps images to `stem_channels` channels.
        stem_channels: Channels of the stem's output.
        blocks: Width and stride of every bottleneck.
        classes: Number of classes.
        config: See `PokeConfig`.
    """

    def __init__(
        self,
        stem: nn.Module,
        stem_channels: int,
        blocks: Sequence[tuple[int, int]],
        classes: int,
        config: PokeConfig,
    ) -> None:
        super().__init__()
        self.stem = stem
        bottlenecks = []
        channels = stem_channels
        for width, stride in blocks:
            bottlenecks.append(Bottleneck(channels, width, config, stride))
            channels = config.expansion * width
        self.blocks = nn.Sequential(*bottlenecks)
        self.head = QuantizedLinear(channels, classes, bits=config.head_bits)

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x classes` logits."""
        return self.head(self.blocks(self.stem(images)).mean(dim=(-2, -1)))


def poke_init(config: PokeConfig) -> nn.Sequential:
    """The stem for large colour images: a 4x4 convolution of stride 4 to 32 channels without
    padding and a 3x3 convolution in 32 groups to 64, each with normalization and activation."""
    bits = config.stem_bits
    return nn.Sequential(
        QuantizedConv2d(3, 32, 4, bits=bits, stride=4, same=False),
        nn.BatchNorm2d(32),
        make_activation(config, 32),
        QuantizedConv2d(32, 64, 3, bits=bits, groups=32),
        nn.BatchNorm2d(64),
        make_activation(config, 64),
    )


def imagenet_pokebnn(multiplier: float = 1.0, config: PokeConfig | None = None) -> PokeBNN:
    """The paper's network for 3 x 224 x 224 images and 1000 classes: 3, 4, 6 and 3 bottlenecks of
    int(multiplier * (64, 128, 256, 512)) channels, positions halved between the groups.

    Make it under `torch.device("meta")` where only its cost is wanted.

    Raises:
        InputError: The multiplier leaves no channels.
    """
    if not 64 * multiplier >= 1:
        raise InputError(f"multiplier must be at least 1/64, got {multiplier!r}")
    config = config or PokeConfig()
    blocks = []
    for group, (base, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        first_stride = 1 if group == 0 else 2
        width = int(multiplier * base)
        blocks += [(width, first_stride)] + [(width, 1)] * (count - 1)
    return PokeBNN(poke_init(config), 64, blocks, 1000, config)


def small_pokebnn(
    width: int,
    blocks: int,
    config: PokeConfig | None = None,
    channels: int = 1,
    stem_channels: int = 16,
    classes: int = 10,
) -> PokeBNN:
    """A small one for small images: a 3x3 stem and equal bottlenecks, the second of stride 2.

    Args:
        width: f of every bottleneck.
        blocks: Number of bottlenecks.
        config: See `PokeConfig`.
        channels: Of the images.
        stem_channels: Channels of the stem's output.
        classes: Number of classes.
    """
    config = config or PokeConfig()
    stem = nn.Sequential(
        QuantizedConv2d(channels, stem_channels, 3, bits=config.stem_bits),
        nn.BatchNorm2d(stem_channels),
        make_activation(config, stem_channels),
    )
    layout = [(width, 2 if block == 1 else 1) for block in range(blocks)]
    return PokeBNN(stem, stem_channels, layout, classes, config)
