"""The training routine on a linear classifier, whose optimum can be had otherwise."""

import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from bo_surrogates.errors import RunError
from problems.documented.training import TrainingConfig, error_rate, train


@pytest.fixture(scope="module")
def blobs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return centres[labels] + 1.5 * torch.randn(300, 2, generator=generator), labels


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(2, 3)


def test_training_reaches_the_penalized_maximum_likelihood_of_scikit_learn(blobs):
    X, y = blobs
    network, decay = linear(), 0.02
    config = TrainingConfig(epochs=400, batch_size=300, learning_rate=0.1, weight_decay=decay)
    with torch.no_grad():
        network.bias.requires_grad_(False).zero_()  # scikit-learn does not penalize the intercept
    train(network, X, y, config, seed=0)
    # Mean loss + decay/2 |w|^2 is scikit-learn's objective divided by C n, C = 1/(decay n).
    reference = LogisticRegression(C=1 / (decay * len(X)), fit_intercept=False, tol=1e-10)
    reference.fit(X.numpy(), y.numpy())
    torch.testing.assert_close(
        network.weight.detach(), torch.tensor(reference.coef_).float(), atol=2e-3, rtol=0
    )


def test_training_is_a_function_of_network_and_seed(blobs):
    X, y = blobs
    weights = []
    for seed in (5, 5, 6):
        network = linear()
        train(network, X, y, TrainingConfig(epochs=2), seed)
        weights.append(network.weight.detach())
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_the_first_reported_loss_is_the_mean_cross_entropy_before_learning(blobs):
    X, y = blobs
    network = linear()
    with torch.no_grad():
        expected = nn.functional.cross_entropy(network(X), y).item()
    config = TrainingConfig(epochs=1, batch_size=100, learning_rate=1e-8)
    (loss,) = train(network, X, y, config, seed=0)
    assert loss == pytest.approx(expected, rel=1e-4)


def test_the_hook_is_called_after_every_epoch_and_may_end_the_training(blobs):
    X, y = blobs
    seen = []

    class StopError(Exception):
        pass

    def hook(epoch):
        seen.append((epoch.number, epoch.loss))
        epoch.network.eval()  # a hook that evaluates must not leave the training in that mode
        if epoch.number == 3:
            raise StopError

    with pytest.raises(StopError):
        train(linear(), X, y, TrainingConfig(epochs=5), 0, hook)
    losses = train(linear(), X, y, TrainingConfig(epochs=5), 0)
    assert seen == [(n + 1, losses[n]) for n in range(3)]


def test_the_linear_schedule_ends_with_a_vanishing_step(blobs):
    X, y = blobs
    sizes = {}
    for schedule in ("linear", "constant"):
        weights = []
        config = TrainingConfig(epochs=20, batch_size=300, schedule=schedule, learning_rate=0.05)
        train(linear(), X, y, config, 0, lambda e, w=weights: w.append(e.network.weight.clone()))
        sizes[schedule] = [
            (a - b).norm().item() for a, b in zip(weights[1:], weights, strict=False)
        ]
    # Of 20 steps the last has 1/20 of the step size.
    assert sizes["linear"][-1] < 0.2 * sizes["constant"][-1]


def test_a_loss_that_is_not_finite_ends_the_training_with_the_learning_rate_named(blobs):
    X, y = blobs
    with pytest.raises(RunError, match=r"diverged in epoch 1.*learning rate"):
        train(linear(), X * math.inf, y, TrainingConfig(epochs=3), 0)


def test_the_error_rate_is_the_share_of_wrong_predictions(blobs):
    X, y = blobs
    network = linear()
    wrong = (network(X).argmax(dim=1) != y).float().mean().item()
    assert error_rate(network, X, y, batch_size=7) == pytest.approx(wrong, abs=1e-7)
