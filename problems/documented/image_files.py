"""Images from files of the user's: CIFAR in its binary version, or a folder a class.

Nothing here unpickles: a pickle can run any code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bo_surrogates.errors import InputError

Labelled = tuple[Tensor, Tensor]
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm", ".webp")
PIXELS = 3 * 32 * 32
PICKLED = ("data_batch_1", "train", "batches.meta", "meta")


def load_cifar10(folder: str) -> tuple[Labelled, Labelled]:
    """The training and test part of CIFAR-10 (Krizhevsky 2009), 50000 and 10000 of 3 x 32 x 32.

    Args:
        folder: Holds data_batch_1.bin to data_batch_5.bin and test_batch.bin, or the folder
            cifar-10-batches-bin that does.

    Raises:
        InputError: A file is missing or is of the wrong size or content.
    """
    place = _cifar_folder(folder, "cifar-10", "cifar-10-batches-bin", "data_batch_1.bin")
    batches = [_records(place / f"data_batch_{i}.bin", 1, 10) for i in range(1, 6)]
    train = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    return train, _records(place / "test_batch.bin", 1, 10)


def load_cifar100(folder: str) -> tuple[Labelled, Labelled]:
    """As `load_cifar10`, of CIFAR-100 by its 100 fine classes: train.bin and test.bin, or the
    folder cifar-100-binary that holds them."""
    place = _cifar_folder(folder, "cifar-100", "cifar-100-binary", "train.bin")
    return _records(place / "train.bin", 2, 100), _records(place / "test.bin", 2, 100)


def _cifar_folder(folder: str, name: str, inner: str, first: str) -> Path:
    place = _existing(folder)
    for candidate in (place, place / inner):
        if (candidate / first).is_file():
            return candidate
    python = [place, *(p for p in place.iterdir() if p.is_dir())]
    if any((p / pickled).is_file() for p in python for pickled in PICKLED):
        raise InputError(
            f"{folder}: this is {name}'s Python version, whose files are pickles: reading them can "
            f"run any code. Get the binary version ({name}-binary.tar.gz, same web page) instead, "
            "and unpack it"
        )
    raise InputError(
        f"{folder}: no {first} in it or in {inner}; expected {name}'s binary version, unpacked"
    )


def _records(path: Path, labels: int, classes: int) -> Labelled:
    """Images scaled to [0, 1] and classes of a file of records: label bytes (the last counts),
    then red, green and blue planes."""
    try:
        content = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    length = labels + PIXELS
    if content.size == 0 or content.size % length:
        raise InputError(
            f"{path}: expected records of {length} bytes ({labels} of labels, 3 x 32 x 32 of "
            f"pixels), got {content.size} bytes; unpack the archive anew"
        )
    records = torch.from_numpy(content.reshape(-1, length))
    y = records[:, labels - 1].to(torch.int64)
    if int(y.max()) >= classes:
        raise InputError(
            f"{path}: a label is {int(y.max())}, expected 0 to {classes - 1}; is it a file of "
            "another data set?"
        )
    return records[:, labels:].reshape(-1, 3, 32, 32).float() / 255, y


def load_folder(folder: str) -> tuple[Labelled, ...]:
    """Images in folders named after their classes: `class/x.png`; or such folders below `train`
    and `test`.

    Args:
        folder: All images in it have one size and one number of channels (grey or colour).

    Returns:
        Images scaled to [0, 1] and classes in alphabetical order: one part, or training and test.

    Raises:
        InputError: It is missing or empty, or images differ in size, or a file is no image.
    """
    place = _existing(folder)
    if (place / "train").is_dir() and (place / "test").is_dir():
        train, classes = _class_folders(place / "train")
        test, its = _class_folders(place / "test")
        if its != classes:
            raise InputError(
                f"{place / 'test'}: its classes ({', '.join(its)}) are not those of train "
                f"({', '.join(classes)})"
            )
        if train[0].shape[1:] != test[0].shape[1:]:
            raise InputError(
                f"{place / 'test'}: its images have shape {tuple(test[0].shape[1:])}, those of "
                f"train {tuple(train[0].shape[1:])}"
            )
        return train, test
    return (_class_folders(place)[0],)


def _class_folders(place: Path) -> tuple[Labelled, list[str]]:
    folders = sorted(p for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [
        (number, path)
        for number, one in enumerate(folders)
        for path in sorted(one.iterdir())
        if path.suffix.lower() in PICTURES
    ]
    found = {number for number, _ in files}
    empty = [one.name for number, one in enumerate(folders) if number not in found]
    if len(folders) < 2 or empty:
        what = f"the folder of class {empty[0]!r} holds no image" if empty else (
            f"found {len(folders)} folder(s) of classes"
        )  # fmt: skip
        raise InputError(
            f"{place}: {what}; expected at least two folders, one a class, with images "
            f"({', '.join(PICTURES)}) in them"
        )
    images: list[Tensor] = []
    for _, path in files:
        image = _picture(path)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"{path}: has channels x height x width {tuple(image.shape)}, but {files[0][1]} "
                f"has {tuple(images[0].shape)}; bring all images to one size and kind"
            )
        images.append(image)
    labels = torch.tensor([number for number, _ in files])
    return (torch.stack(images), labels), [one.name for one in folders]


def _picture(path: Path) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as picture:
            if picture.mode.startswith(("I", "F")):
                raise InputError(f"{path}: more than 8 bits a pixel; convert it to 8 bits")
            grey = picture.mode in ("1", "L", "LA")
            pixels = np.asarray(picture.convert("L" if grey else "RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise InputError(f"{path}: not an image that can be read: {error}") from None
    tensor = torch.from_numpy(pixels.copy()).float() / 255
    return tensor.unsqueeze(0) if tensor.ndim == 2 else tensor.permute(2, 0, 1).contiguous()


def _existing(folder: str) -> Path:
    place = Path(folder).expanduser()
    if not place.is_dir():
        what = "is a file, not a folder" if place.exists() else "no such folder"
        raise InputError(f"data folder {folder!r}: {what}")
    if not any(place.iterdir()):
        raise InputError(f"data folder {folder!r} is empty")
    return place
