"""Where tensors lie: the CPU or a GPU, by torch's names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"cpu|cuda(:\d+)?")


def check_device(name: object) -> None:
    """See that a device is called so, on this machine or another.

    Raises:
        InputError: None is.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            f'device must be "cpu", "cuda" or, of several GPUs, one such as "cuda:1"; got {name!r}'
        )


def usable_device(name: str) -> torch.device:
    """A device of this machine by its name.

    Raises:
        InputError: No device is called so, or this machine, or its PyTorch, has none.
    """
    import torch  # which takes seconds

    check_device(name)
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f'device {name!r} cannot be used here ({reason}); take "cpu"') from error
    return device
