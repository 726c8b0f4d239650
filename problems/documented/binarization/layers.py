"""Binary convolutions and linear layers, to be used in place of torch's.

    y = (integer contraction of +-1 inputs with +-1 weights) * weight scale * input scale + bias

The contraction comes first and the scales after it, in training too: in evaluation mode its values
are integers, exact in floating point, which packed execution (`packed`) reproduces bit for bit.
Zero padding adds nothing to an integer: a padded position is neither +1 nor -1.

    conv = BinaryConv2d(64, 128, 3, "reactnet", stride=2, padding=1)

See `operators` for what they can be.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.binarization.inputs import InputBinarizer
from problems.documented.binarization.operators import BinarizerConfig, operator_config
from problems.documented.binarization.weights import make_weight_binarizer
from problems.documented.binarization.windows import Windows
from problems.documented.quantization import pad_same


class OutputScale(nn.Module):
    """A learnt factor of every output: one a channel, times one a position along each dimension.

    Args:
        channels: Output channels.
        size: Positions along each spatial dimension, for "rank1".
        spatial_dims: Spatial dimensions of the outputs.
        init: "ones", or "uniform" on (0, 1) for the channels.
    """

    def __init__(
        self, channels: int, size: Sequence[int] | None, spatial_dims: int, init: str
    ) -> None:
        super().__init__()
        first = torch.rand(channels) if init == "uniform" else torch.ones(channels)
        self.channel = nn.Parameter(first.reshape(channels, *[1] * spatial_dims))
        self.axes = len(size or ())
        for axis, length in enumerate(size or ()):
            shape = [1] * (spatial_dims + 1)
            shape[axis + 1] = length
            self.register_parameter(f"axis{axis}", nn.Parameter(torch.ones(shape)))

    def forward(self) -> Tensor:
        """`channels x 1 ...`, or `channels x size`."""
        scale: Tensor = self.channel
        for axis in range(self.axes):
            scale = scale * self.get_parameter(f"axis{axis}")
        return scale

    def elementwise_ops(self, output: Tensor) -> int:
        """None: the layer's."""
        return 0


def finish(
    y: Tensor, fixed_scale: Tensor | None, input_scale: Tensor | None, offset: Tensor | None
) -> Tensor:
    """Scales and bias, in the one order that packed execution keeps too."""
    if fixed_scale is not None:
        y = y * fixed_scale
    if input_scale is not None:
        y = y * input_scale
    return y if offset is None else y + offset


class BinaryLayer(nn.Module):
    """What the binary layers have in common.

    Attributes:
        config: How it binarizes.
        inputs: The inputs' binarizer.
        weights: The weights' binarizer.
        output_scale: The learnt scale of the outputs, or None.
    """

    weight_bits = 1
    input_bits = 1
    weight: Tensor
    bias: Any

    def _make_binarizers(
        self,
        operator: str | BinarizerConfig,
        channels: int,
        spatial_dims: int,
        output_size: Sequence[int] | None = None,
    ) -> None:
        config = operator_config(operator)
        fan_in = self.weight[0].numel()
        linear = spatial_dims == 0
        if config.weights == "rectified" and fan_in < 2:
            raise InputError("rectified weights need at least two weights an output, got one")
        if config.input_scale == "map" and linear:
            raise InputError(
                "input_scale 'map' is for convolutions; a linear layer has one scale a 'sample'"
            )
        if config.output_scale == "rank1" and not linear and output_size is None:
            raise InputError(
                "output_scale 'rank1' (XNOR++) learns a factor for every row and column: give the "
                "layer its output_size, e.g. (8, 8), or take output_scale 'channel'"
            )
        if output_size is not None and len(output_size) != spatial_dims:
            raise InputError(
                f"output_size must hold {spatial_dims} numbers, got {tuple(output_size)!r}"
            )
        self.config = config
        self.spatial_dims = spatial_dims
        self.inputs = InputBinarizer(config, channels, spatial_dims + 1)
        self.weights = make_weight_binarizer(config, fan_in, linear)
        self.output_scale = (
            OutputScale(
                len(self.weight),
                output_size if config.output_scale == "rank1" else None,
                spatial_dims,
                config.output_scale_init,
            )
            if config.output_scale != "none"
            else None
        )

    def contract(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """The layer's linear map, without bias."""
        raise NotImplementedError

    def windows(self) -> Windows:
        """Which inputs each output sees; of a linear layer, all of a one-pixel image."""
        return Windows((1, 1), (1, 1), (1, 1), (0, 0))

    def fixed_scale(self, weight_scale: Tensor | None) -> Tensor | None:
        """The factor of the outputs that does not depend on the inputs, `channels x ...`."""
        scale = None
        if weight_scale is not None:
            scale = weight_scale.reshape(-1, *[1] * self.spatial_dims)
        if self.output_scale is not None:
            learnt = self.output_scale()
            scale = learnt if scale is None else scale * learnt
        return scale

    def offset(self) -> Tensor | None:
        """The bias, broadcasting with the outputs."""
        return None if self.bias is None else self.bias.reshape(-1, *[1] * self.spatial_dims)

    def forward(self, x: Tensor) -> Tensor:
        """As torch's layer of the same shape."""
        inputs = self.inputs(x)
        weights = self.weights(self.weight)
        y = self.contract(inputs.signs, weights.signs)
        input_scale = inputs.scale
        if self.config.input_scale == "map":
            input_scale = self.windows().mean_abs(x.detach())
        return finish(y, self.fixed_scale(weights.scale), input_scale, self.offset())

    def elementwise_ops(self, output: Tensor) -> int:
        """A multiplication an output where the scale depends on the input or the position; a scale
        per channel is folded into a normalization, or into thresholds."""
        varies = self.config.input_scale in ("sample", "map")
        varies = varies or (self.output_scale is not None and self.output_scale.axes > 0)
        return int(varies) * output.numel()

    @torch.no_grad()
    def integers(self, x: Tensor) -> Tensor:
        """The contraction of the signs in evaluation mode: integers, in the dtype of x."""
        was_training = self.training
        self.eval()
        try:
            return self.contract(self.inputs(x).signs, self.weights(self.weight).signs)
        finally:
            self.train(was_training)


class BinaryConv2d(BinaryLayer, nn.Conv2d):
    """A binary convolution of images, `n x in_channels x h x w`.

    Args:
        in_channels: Input channels.
        out_channels: Output channels.
        kernel_size: Of the kernel, one number or two.
        operator: How to binarize: a name in `OPERATORS` or a configuration.
        stride: Step of the kernel.
        padding: Zeros on each side, or "same": ceil(size / stride) outputs, see `pad_same`.
        dilation: Distance of the kernel's positions.
        groups: Groups of channels.
        bias: Whether there is one (not binarized).
        output_size: Height and width of the outputs, for "rank1" scales.

    Raises:
        InputError: An unknown operator, or one that does not go with the layer.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        operator: str | BinarizerConfig = "bireal",
        *,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = False,
        output_size: Sequence[int] | None = None,
    ) -> None:
        same = _is_same(padding)
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=0 if same else padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        square = all(len(set(pair)) == 1 for pair in (self.kernel_size, self.stride))
        if same and not (square and self.dilation == (1, 1)):
            raise InputError("padding 'same' is for square kernels without dilation")
        self.same = same
        self._make_binarizers(operator, in_channels, 2, output_size)

    def windows(self) -> Windows:
        """See `BinaryLayer`."""
        padding = None if self.same else _pair(self.padding)
        return Windows(_pair(self.kernel_size), _pair(self.stride), _pair(self.dilation), padding)

    def contract(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """A convolution."""
        if self.same:
            inputs = pad_same(inputs, self.kernel_size[0], self.stride[0])
        return functional.conv2d(
            inputs, weights, None, self.stride, self.padding, self.dilation, self.groups
        )


class BinaryConv1d(BinaryLayer, nn.Conv1d):
    """A binary convolution of sequences, `n x in_channels x length`.

    Args and errors as for `BinaryConv2d`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        operator: str | BinarizerConfig = "bireal",
        *,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        output_size: Sequence[int] | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
        )
        self._make_binarizers(operator, in_channels, 1, output_size)

    def contract(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """A convolution."""
        return functional.conv1d(
            inputs, weights, None, self.stride, self.padding, self.dilation, self.groups
        )

    def windows(self) -> Windows:
        """See `BinaryLayer`; a sequence is an image of one row."""
        return Windows(
            (1, self.kernel_size[0]),
            (1, self.stride[0]),
            (1, self.dilation[0]),
            (0, int(self.padding[0])),
        )


class BinaryLinear(BinaryLayer, nn.Linear):
    """A binary linear layer, `... x in_features`.

    Args:
        in_features: Inputs.
        out_features: Outputs.
        operator: How to binarize: a name in `OPERATORS` or a configuration.
        bias: Whether there is one (not binarized).

    Raises:
        InputError: As for `BinaryConv2d`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        operator: str | BinarizerConfig = "bireal",
        *,
        bias: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self._make_binarizers(operator, in_features, 0)

    def contract(self, inputs: Tensor, weights: Tensor) -> Tensor:
        """A product with the weights' transpose."""
        return functional.linear(inputs, weights)


def _pair(numbers: Any) -> tuple[int, int]:
    rows, columns = numbers
    return rows, columns


def _is_same(padding: object) -> bool:
    if isinstance(padding, str) and padding != "same":
        raise InputError(f"padding must be a number of zeros or 'same', got {padding!r}")
    return padding == "same"


@torch.no_grad()
def clamp_latent_weights(network: nn.Module, bound: float = 1.0) -> None:
    """Clamp the latent weights of all binary layers to [-bound, bound], as BNN does after every
    step: weights beyond the "clip" gradient's bound would never move again."""
    for module in network.modules():
        if isinstance(module, BinaryLayer):
            module.weight.clamp_(-bound, bound)
