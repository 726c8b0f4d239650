"""Blocks of small image networks: inverted residuals, squeeze-excites, and a change of resolution.

An inverted residual expands its channels by a 1 x 1 convolution, filters each by itself, weighs
them by a squeeze-excite, and projects them onto few channels again; where input and output have one
shape, the input is added (Sandler et al. 2018, arXiv 1801.04381; with squeeze-excite and SiLU: Tan
and Le 2019, arXiv 1905.11946).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.cost import UNQUANTIZED_BITS
from problems.documented.quantization import QuantizedConv2d


def convolution(
    inputs: int,
    outputs: int,
    kernel: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    bits: int = UNQUANTIZED_BITS,
) -> nn.Conv2d:
    """A convolution with zeros around, from n to ceil(n / stride) positions.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: Odd side of the kernel.
        stride: Its step.
        groups: Groups of channels.
        bias: Whether there is one.
        bits: Of weights and inputs; 16: neither is quantized.
    """
    if bits < UNQUANTIZED_BITS:
        return QuantizedConv2d(
            inputs, outputs, kernel, bits=bits, stride=stride, groups=groups, bias=bias
        )
    return nn.Conv2d(
        inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=bias
    )


class Resize(nn.Module):
    """Images at another resolution, bilinearly; made smaller, each pixel is a weighted mean over
    all that fall into it, so that fine detail vanishes and is not taken for coarse (aliasing).

    Args:
        pixels: The shorter side of the result; the sides keep their ratio. Images of this size
            pass unchanged.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        if pixels < 1:
            raise InputError(f"pixels must be at least 1, got {pixels}")
        self.pixels = pixels

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x channels x h' x w'`."""
        h, w = images.shape[-2:]
        shorter = min(h, w)
        if shorter == self.pixels:
            return images
        size = [max(round(side * self.pixels / shorter), 1) for side in (h, w)]
        return functional.interpolate(
            images, size=size, mode="bilinear", antialias=True, align_corners=False
        )


class SqueezeExcite(nn.Module):
    """Channels weighed by a sigmoid of a small network of their means.

    Args:
        channels: Of input and output.
        hidden: Units of the small network.
        bits: See `convolution`.
    """

    def __init__(self, channels: int, hidden: int, bits: int = UNQUANTIZED_BITS) -> None:
        super().__init__()
        self.squeeze = convolution(channels, hidden, bias=True, bits=bits)
        self.excite = convolution(hidden, channels, bias=True, bits=bits)

    def forward(self, x: Tensor) -> Tensor:
        """`n x channels x h x w` to the same shape."""
        hidden = functional.silu(self.squeeze(x.mean(dim=(-2, -1), keepdim=True)))
        weight: Tensor = self.excite(hidden).sigmoid()
        return x * weight


class InvertedResidual(nn.Module):
    """See the module's docstring; normalization after each convolution, SiLU but after the last.

    Args:
        inputs: Channels.
        outputs: Channels.
        kernel: Odd side of the depthwise kernel.
        stride: Its step.
        expansion: Channels within, as a multiple of the inputs'; 1: there is no expanding
            convolution.
        se_ratio: Hidden units of the squeeze-excite, as a multiple of `inputs` (not of the channels
            within); 0: there is none.
        bits: See `convolution`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        stride: int = 1,
        expansion: int = 6,
        se_ratio: float = 0.25,
        bits: int = UNQUANTIZED_BITS,
    ) -> None:
        super().__init__()
        inner = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += [convolution(inputs, inner, bits=bits), nn.BatchNorm2d(inner), nn.SiLU()]
        layers += [
            convolution(inner, inner, kernel, stride=stride, groups=inner, bits=bits),
            nn.BatchNorm2d(inner),
            nn.SiLU(),
        ]
        if se_ratio > 0:
            layers.append(SqueezeExcite(inner, max(round(inputs * se_ratio), 1), bits))
        layers += [convolution(inner, outputs, bits=bits), nn.BatchNorm2d(outputs)]
        self.layers = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """`n x inputs x h x w` to `n x outputs x ceil(h / stride) x ceil(w / stride)`."""
        y: Tensor = self.layers(x)
        return x + y if self.has_shortcut else y
