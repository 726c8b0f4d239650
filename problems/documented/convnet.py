"""A plain convolutional network, not quantized: a teacher, and what others are compared to."""

from __future__ import annotations

from torch import Tensor, nn


class ConvNet(nn.Module):
    """Four 3 x 3 convolutions with normalization and ReLU, halved in the middle, then the mean
    over positions and a linear layer.

    Args:
        channels: Of the images.
        classes: Number of classes.
        width: Channels of the first two convolutions; the others have twice as many.
    """

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for number, after in enumerate((width, width, 2 * width, 2 * width)):
            stride = 2 if number == 2 else 1
            layers += [
                nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            before = after
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(before, classes)

    def forward(self, images: Tensor) -> Tensor:
        """`n x channels x h x w` to `n x classes` logits."""
        pooled: Tensor = self.features(images).mean(dim=(-2, -1))
        logits: Tensor = self.head(pooled)
        return logits
