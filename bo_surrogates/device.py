"""Where tensors lie: the CPU or a GPU, by torch's names."""

from __future__ import annotations

import torch

from bo_surrogates.errors import InputError


def device_named(name: str) -> torch.device:
    """A device by its name, e.g. "cpu", "cuda" or "cuda:1", on this machine or another.

    Raises:
        InputError: No device is called so.
    """
    try:
        return torch.device(name)
    except (RuntimeError, TypeError):
        raise InputError(
            f'device must be "cpu", "cuda" or, with several GPUs, "cuda:1" and so on; got {name!r}'
        ) from None


def usable_device(name: str) -> torch.device:
    """A device of this machine by its name.

    Raises:
        InputError: No device is called so, or this machine, or its PyTorch, has none.
    """
    device = device_named(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise InputError(f"device {name!r} cannot be used here: {error}") from error
    return device
