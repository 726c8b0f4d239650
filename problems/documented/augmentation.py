"""Random changes of training images that leave their class as it is."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError


def augment(images: Tensor, *, flip: bool = False, crop: int = 0) -> Tensor:
    """Mirrored and shifted images, each by draws of its own from torch's global generator.

    Draws are made on the CPU, so that they are the same on every device.

    Args:
        images: `n x channels x h x w`.
        flip: Whether each is mirrored, left to right, with probability 1/2.
        crop: Each is shifted by up to so many pixels in both directions, zeros moving in: a crop
            of the original size from the image with a frame of zeros.

    Raises:
        InputError: Inputs that are no images.
    """
    if not flip and crop == 0:
        return images
    if images.ndim != 4:
        raise InputError(
            f"flip and crop are for images, n x channels x h x w; got inputs of shape "
            f"{tuple(images.shape)}"
        )
    n, _, h, w = images.shape
    if flip:
        mirrored = torch.rand(n).lt(0.5).to(images.device)
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    if crop > 0:
        padded = functional.pad(images, (crop, crop, crop, crop))
        top, left = torch.randint(2 * crop + 1, (2, n)).to(images.device)
        rows = top[:, None] + torch.arange(h, device=images.device)
        columns = left[:, None] + torch.arange(w, device=images.device)
        number = torch.arange(n, device=images.device)
        # Advanced indices on both sides of a slice move their dimensions to the front.
        images = padded[number[:, None, None], :, rows[:, :, None], columns[:, None, :]]
        images = images.permute(0, 3, 1, 2).contiguous()
    return images
