"""The split of the digits."""

import pytest
import torch

from bo_surrogates.errors import InputError
from problems.documented.data import load_images


@pytest.fixture(scope="module")
def digits():
    return load_images("digits")


def test_the_split_is_stratified_and_complete(digits):
    train, test = digits.train_labels.bincount(), digits.test_labels.bincount()
    assert train.sum() + test.sum() == 1797
    assert (train / (train + test) - 0.6).abs().max() < 0.01
    assert digits.train_images.shape == (int(train.sum()), 1, 8, 8)
    assert digits.test_images.shape == (int(test.sum()), 1, 8, 8)


def test_training_pixels_have_mean_0_and_variance_1(digits):
    assert digits.train_images.mean().abs() < 1e-5
    assert (digits.train_images.var() - 1).abs() < 1e-4


def test_no_test_image_is_a_training_image(digits):
    # The set holds no duplicates, so a shared image would be a leak.
    images = torch.cat([digits.train_images, digits.test_images]).flatten(1)
    assert len(images.unique(dim=0)) == len(images)


def test_the_split_is_a_function_of_its_seed(digits):
    load_images.cache_clear()
    assert torch.equal(load_images("digits", 0.6, 0).train_images, digits.train_images)
    assert not torch.equal(load_images("digits", 0.6, 1).train_images, digits.train_images)


def test_an_unknown_data_set_and_a_share_that_leaves_nothing_are_refused():
    with pytest.raises(InputError, match="unknown data set 'digit'; did you mean 'digits'"):
        load_images("digit")
    with pytest.raises(InputError, match="train_fraction"):
        load_images("digits", 0.001)
