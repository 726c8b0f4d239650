"""Which positions of an image each output of a convolution sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torch.nn import functional

from problems.documented.binarization.bits import Bytes
from problems.documented.quantization import same_padding


@dataclass(frozen=True)
class Windows:
    """The geometry of a convolution; pairs are (rows, columns).

    Attributes:
        kernel_size: Positions of a window.
        stride: From one window to the next.
        dilation: From one position of a window to the next.
        padding: Zeros on each side; None: as `pad_same`.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    padding: tuple[int, int] | None

    def widths(self, height: int, width: int) -> list[int]:
        """Zeros to the left, to the right, above and below."""
        if self.padding is None:
            return same_padding(height, width, self.kernel_size[0], self.stride[0])
        rows, columns = self.padding
        return [columns, columns, rows, rows]

    def mean_abs(self, x: Tensor) -> Tensor:
        """The mean of |x| over channels and each window, zeros included.

        Args:
            x: `n x channels x height x width`, or without the height.

        Returns:
            `n x 1 x height' x width'`, or without the height'.
        """
        flat = x.ndim == 3
        mean = (x.unsqueeze(2) if flat else x).abs().mean(dim=1, keepdim=True)
        mean = functional.pad(mean, self.widths(*mean.shape[-2:]))
        kernel = x.new_full((1, 1, *self.kernel_size), 1 / math.prod(self.kernel_size))
        k = functional.conv2d(mean, kernel, None, self.stride, 0, self.dilation)
        return k.squeeze(2) if flat else k

    def gather(self, packed: Bytes) -> Bytes:
        """The bytes of every window, padding filled with 0.

        Args:
            packed: `n x height x width x groups x bytes`.

        Returns:
            `groups x n x height' x width' x (positions x bytes)`.
        """
        n, height, width, groups, size = packed.shape
        left, right, above, below = self.widths(height, width)
        padded = np.pad(packed, ((0, 0), (above, below), (left, right), (0, 0), (0, 0)))
        rows, columns = (
            (length - step * (kernel - 1) - 1) // stride + 1
            for length, step, kernel, stride in zip(
                padded.shape[1:3], self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        gathered = np.empty((groups, n, rows, columns, *self.kernel_size, size), np.uint8)
        for i in range(self.kernel_size[0]):
            for j in range(self.kernel_size[1]):
                top, start = i * self.dilation[0], j * self.dilation[1]
                part = padded[:, top :: self.stride[0], start :: self.stride[1]]
                part = part[:, :rows, :columns]
                gathered[..., i, j, :] = np.moveaxis(part, 3, 0)
        return gathered.reshape(groups, n, rows, columns, -1)
