"""Labelled data to train, tune and test on: bundled, generated, or from a folder of the user's.

Nothing is downloaded. Every set is split in three: the networks learn from the training part, what
is tuned is judged on the validation part, and results are told on the test part, which no decision
has seen.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import sklearn.datasets
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor

from bo_surrogates.errors import InputError, did_you_mean
from problems.documented.generated_images import colour_shifts, gratings
from problems.documented.image_files import load_cifar10, load_cifar100, load_folder

Labelled = tuple[Tensor, Tensor]  # inputs and class numbers
PARTS = ("train_x", "train_y", "validation_x", "validation_y", "test_x", "test_y")


@dataclass(frozen=True)
class LabelledData:
    """Inputs and their classes in three parts.

    Attributes:
        train_x: `n x features`, or `n x channels x height x width`; float32, scaled so that over
            the training part each feature (of images, each channel) has mean 0 and variance 1.
        train_y: `n` integers in [0, classes).
        validation_x: As `train_x`.
        validation_y: As `train_y`.
        test_x: As `train_x`.
        test_y: As `train_y`.
        classes: Number of classes.
    """

    train_x: Tensor
    train_y: Tensor
    validation_x: Tensor
    validation_y: Tensor
    test_x: Tensor
    test_y: Tensor
    classes: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input: (features,) or (channels, height, width)."""
        return tuple(self.train_x.shape[1:])

    def part(self, name: str) -> Labelled:
        """Inputs and labels of "train", "validation" or "test"."""
        return getattr(self, f"{name}_x"), getattr(self, f"{name}_y")

    def to(self, device: torch.device | str) -> LabelledData:
        """The same data on a device."""
        moved = {name: getattr(self, name).to(device) for name in PARTS}
        return LabelledData(**moved, classes=self.classes)

    def digest(self) -> str:
        """A word that differs between data that differ in the training part."""
        found = hashlib.sha256()
        for tensor in (self.train_x, self.train_y):
            found.update(tensor.cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


@dataclass(frozen=True)
class DataSet:
    """How a data set is had.

    Attributes:
        load: Takes the user's folder and a seed (of what is generated) and gives the data in one
            part, or in two where there is a test part of its own.
        images: Whether inputs are images.
        needs_folder: Whether it is read from a folder.
    """

    load: Callable[[str, int], tuple[Labelled, ...]]
    images: bool = True
    needs_folder: bool = False


def _digits(folder: str, seed: int) -> tuple[Labelled, ...]:
    x, y = sklearn.datasets.load_digits(return_X_y=True)
    return ((torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(y)),)


def _table(load: Callable[..., tuple[object, object]]) -> Callable[[str, int], tuple[Labelled]]:
    def table(folder: str, seed: int) -> tuple[Labelled]:
        x, y = load(return_X_y=True)
        return ((torch.tensor(x, dtype=torch.float32), torch.tensor(y)),)

    return table


# digits: 1797 images, 8 x 8, the test part of "Optical Recognition of Handwritten Digits" (Alpaydin
# and Kaynak 1998). breast_cancer: 569 tumours, 30 features (Wolberg, Street and Mangasarian 1995).
# wine: 178 wines, 13 features, 3 classes (Aeberhard and Forina 1991). iris: 150 flowers, 4
# features, 3 classes (Fisher 1936). All come with scikit-learn.
DATA_SETS: dict[str, DataSet] = {
    "digits": DataSet(_digits),
    "gratings": DataSet(lambda folder, seed: (gratings(2000, seed),)),
    "colour_shifts": DataSet(lambda folder, seed: (colour_shifts(1500, seed),)),
    "cifar10": DataSet(lambda folder, seed: load_cifar10(folder), needs_folder=True),
    "cifar100": DataSet(lambda folder, seed: load_cifar100(folder), needs_folder=True),
    "folder": DataSet(lambda folder, seed: load_folder(folder), needs_folder=True),
    "breast_cancer": DataSet(_table(sklearn.datasets.load_breast_cancer), images=False),
    "wine": DataSet(_table(sklearn.datasets.load_wine), images=False),
    "iris": DataSet(_table(sklearn.datasets.load_iris), images=False),
}


@lru_cache(maxsize=8)
def load_data(
    name: str,
    folder: str = "",
    *,
    train_fraction: float = 0.6,
    seed: int = 0,
    limit: int | None = None,
) -> LabelledData:
    """A data set, split stratified by class.

    Where it has no test part of its own, one half of what is not trained on is for validation and
    the other for the test; where it has one, all of what is not trained on is for validation.

    Args:
        name: One of `DATA_SETS`.
        folder: Of "cifar10", "cifar100" (the binary version) and "folder" (`class/x.png`).
        train_fraction: Share to train on, in (0, 1).
        seed: Of the split, and of what is generated.
        limit: Keep at most so many training inputs, all classes alike; None: all.

    Raises:
        InputError: An unknown data set, a folder that is missing, empty or of the wrong shape, or
            a share that leaves a class without inputs.
    """
    if name not in DATA_SETS:
        raise InputError(
            f"unknown data set {name!r}{did_you_mean(name, DATA_SETS)} (no data is downloaded)"
        )
    data_set = DATA_SETS[name]
    if data_set.needs_folder and not folder:
        raise InputError(
            f"data set {name!r} is read from a folder: say which, e.g. folder=/path/to/{name}"
        )
    if folder and not data_set.needs_folder:
        raise InputError(f"data set {name!r} is not read from a folder; leave out {folder!r}")
    known, *own_test = data_set.load(folder, seed)
    train, rest = _split(known, train_fraction, seed)
    validation, test = (rest, own_test[0]) if own_test else _split(rest, 0.5, seed)
    if limit is not None and limit < len(train[1]):
        train, _ = _split(train, limit, seed)
    dims = [d for d in range(train[0].ndim) if d != 1]
    mean = train[0].mean(dim=dims, keepdim=True)
    std = train[0].std(dim=dims, keepdim=True).clamp_min(1e-6)
    scaled = [((x - mean) / std, y.to(torch.int64)) for x, y in (train, validation, test)]
    classes = int(max(y.max() for _, y in scaled)) + 1
    tensors = dict(zip(PARTS, (tensor for part in scaled for tensor in part), strict=True))
    return LabelledData(**tensors, classes=classes)


def _split(data: Labelled, first: float, seed: int) -> tuple[Labelled, Labelled]:
    """In two, stratified; `first` is the first part's share or number."""
    x, y = data
    try:
        one, other = train_test_split(
            range(len(y)), train_size=first, stratify=y, random_state=seed
        )
    except ValueError as error:
        raise InputError(
            f"train_fraction and limit must leave inputs of every class in every part "
            f"({len(y)} inputs are to be split by {first!r}): {error}"
        ) from error
    return (x[one], y[one]), (x[other], y[other])
