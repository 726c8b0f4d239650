"""Shifts and mirror images of images whose pixels all differ."""

import pytest
import torch

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from problems.documented.augmentation import augment


@pytest.fixture
def images():
    return torch.arange(1.0, 1 + 40 * 2 * 5 * 6).reshape(40, 2, 5, 6)


def test_without_a_wish_images_stay_as_they_are(images):
    assert augment(images) is images


def test_an_image_is_mirrored_as_a_whole_or_not_at_all(images):
    with fixed_seed(0):
        found = augment(images, flip=True)
    same = (found == images).flatten(1).all(dim=1)
    mirrored = (found == images.flip(-1)).flatten(1).all(dim=1)
    assert (same ^ mirrored).all()
    assert 5 < same.sum() < 35  # fewer in 1e-6 of all cases


def test_a_cropped_image_is_a_shift_with_zeros_moving_in(images):
    with fixed_seed(0):
        found = augment(images, crop=2)
    padded = torch.nn.functional.pad(images, (2, 2, 2, 2))
    shifts = set()
    for image, frame in zip(found, padded, strict=True):
        places = [
            (top, left)
            for top in range(5)
            for left in range(5)
            if torch.equal(image, frame[:, top : top + 5, left : left + 6])
        ]
        assert len(places) == 1
        shifts.update(places)
    assert len(shifts) > 10


def test_augmentations_follow_the_generator_and_are_for_images_only(images):
    with fixed_seed(3):
        one = augment(images, flip=True, crop=1)
    with fixed_seed(3):
        assert torch.equal(augment(images, flip=True, crop=1), one)
    with pytest.raises(InputError, match="for images"):
        augment(torch.zeros(3, 4), flip=True)
