"""Corruptions: what they change, how much, and that they are functions of their seed."""

import pytest
import torch
from torch import nn

from problems.documented.corruptions import CORRUPTIONS, SEVERITIES, corrupt, corrupted_errors
from problems.documented.data import load_data


@pytest.fixture(scope="module")
def images():
    return load_data("digits").test_x[:100]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_a_function_of_its_seed_and_grows_with_severity(name, images):
    distances = []
    for severity in SEVERITIES:
        found = corrupt(images, name, severity, seed=1)
        assert found.shape == images.shape
        assert found.isfinite().all()
        assert torch.equal(found, corrupt(images, name, severity, seed=1))
        distances.append((found - images).square().mean().item())
    assert 0 < distances[0] < distances[1] < distances[2]
    noisy = name.endswith("noise")
    assert torch.equal(found, corrupt(images, name, 3, seed=2)) != noisy


def test_means_and_ranges_are_what_the_kinds_say(images):
    n = images.numel()
    noise = corrupt(images, "gaussian_noise", 2) - images
    assert abs(noise.mean().item()) < 5 * 0.5 / n**0.5
    assert noise.std().item() == pytest.approx(0.5, rel=0.05)
    shot = corrupt(images, "shot_noise", 1)
    assert (shot - images).mean().item() == pytest.approx(0, abs=0.02)
    impulses = corrupt(images, "impulse_noise", 3)
    changed = impulses != images
    assert changed.float().mean().item() == pytest.approx(0.12, abs=0.06)
    assert set(impulses[changed].unique().tolist()) <= {images.min().item(), images.max().item()}
    means = (1, 2, 3)
    torch.testing.assert_close(
        corrupt(images, "contrast", 2).mean(dim=means), images.mean(dim=means)
    )
    torch.testing.assert_close(corrupt(images, "brightness", 1), images + 0.3)
    flat = torch.full((1, 1, 8, 8), 0.7)
    for name in ("blur", "pixelate", "contrast"):
        torch.testing.assert_close(corrupt(flat, name, 3), flat)
    halves = corrupt(images, "pixelate", 3)
    torch.testing.assert_close(halves[:, :, ::2, ::2], nn.functional.avg_pool2d(images, 2))


def test_errors_are_averages_over_severities(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    labels = network(images).argmax(dim=1)
    errors = corrupted_errors(network, images, labels)
    assert set(errors) == set(CORRUPTIONS)
    wrong = [
        (network(corrupt(images, "blur", s)).argmax(dim=1) != labels).float().mean().item()
        for s in SEVERITIES
    ]
    assert errors["blur"] == pytest.approx(sum(wrong) / 3)
