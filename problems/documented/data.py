"""Image data sets that need no download, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from bo_surrogates.errors import InputError, did_you_mean

DATA_SETS = ("digits",)


@dataclass(frozen=True)
class ImageData:
    """A training and a test set of labelled images.

    Attributes:
        train_images: `n x channels x height x width`, float32; all images are scaled so that the
            pixels of the training set have mean 0 and variance 1.
        train_labels: `n` integers in [0, classes).
        test_images: As `train_images`.
        test_labels: As `train_labels`.
        classes: Number of classes.
    """

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: int

    def to(self, device: torch.device | str) -> ImageData:
        """The same data on a device."""
        return ImageData(
            self.train_images.to(device),
            self.train_labels.to(device),
            self.test_images.to(device),
            self.test_labels.to(device),
            self.classes,
        )


@lru_cache(maxsize=8)
def load_images(name: str, train_fraction: float = 0.6, seed: int = 0) -> ImageData:
    """A data set, split stratified by class.

    "digits": the 1797 handwritten digits of 8 x 8 pixels that come with scikit-learn (the test
    part of the UCI set "Optical Recognition of Handwritten Digits", Alpaydin and Kaynak 1998).

    Args:
        name: One of `DATA_SETS`.
        train_fraction: Share of images to train on, in (0, 1).
        seed: Of the split.

    Raises:
        InputError: An unknown data set, or a share that leaves a class without images.
    """
    if name not in DATA_SETS:
        raise InputError(
            f"unknown data set {name!r}{did_you_mean(name, DATA_SETS)} (no data is downloaded)"
        )
    pixels, labels = load_digits(return_X_y=True)
    try:
        train, test = train_test_split(
            range(len(labels)), train_size=train_fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise InputError(
            f"train_fraction must leave images of every class on both sides, "
            f"got {train_fraction!r}: {error}"
        ) from error
    images = torch.tensor(pixels, dtype=torch.float32).reshape(-1, 1, 8, 8)
    images = (images - images[train].mean()) / images[train].std()
    targets = torch.tensor(labels, dtype=torch.int64)
    return ImageData(images[train], targets[train], images[test], targets[test], classes=10)
