"""The training routine on a linear classifier, whose optimum can be had otherwise."""

import itertools
import math

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.distillation import Distillation
from problems.documented.model_files import load_state, save_state
from problems.documented.training import (
    Alternating,
    Hooks,
    Rule,
    Stages,
    Training,
    TrainingConfig,
    error_rate,
    run,
)


@pytest.fixture(scope="module")
def blobs():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    centres = torch.tensor([[0.0, 2.0], [2.0, -1.0], [-2.0, -1.0]])
    return centres[labels] + 1.5 * torch.randn(300, 2, generator=generator), labels


def linear(seed=0):
    torch.manual_seed(seed)
    return nn.Linear(2, 3)


def train(network, x, y, config, seed, on_epoch=None, hooks=None):
    return run(Training(network, x, y, config, seed, hooks), on_epoch)


def weights(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


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
    found = []
    for seed in (5, 5, 6):
        network = linear()
        train(network, X, y, TrainingConfig(epochs=2), seed)
        found.append(network.weight.detach())
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


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


@pytest.mark.parametrize(
    ("schedule", "last"), [("linear", 0.05), ("cosine", 0.0062), ("step", 0.01)]
)
def test_schedules_shrink_the_steps_of_plain_gradient_descent(blobs, schedule, last):
    X, y = blobs
    config = TrainingConfig(
        epochs=20, batch_size=300, optimizer="sgd", momentum=0.0, schedule=schedule,
        learning_rate=1e-4,
    )  # fmt: skip
    network = linear()
    path = [weights(network)]
    train(network, X, y, config, 0, lambda e: path.append(weights(e.network)))
    sizes = [(b - a).norm().item() for a, b in itertools.pairwise(path)]
    # At so small a rate the gradient stays as it is, so that steps tell the rates.
    assert sizes[-1] / sizes[0] == pytest.approx(last, rel=0.02)


def test_the_rate_rises_in_the_warm_up(blobs):
    X, y = blobs
    config = TrainingConfig(
        epochs=10, batch_size=300, optimizer="sgd", momentum=0.0, schedule="constant",
        learning_rate=1e-4, warmup=0.5,
    )  # fmt: skip
    network = linear()
    path = [weights(network)]
    train(network, X, y, config, 0, lambda e: path.append(weights(e.network)))
    sizes = [(b - a).norm().item() for a, b in itertools.pairwise(path)]
    assert [s / sizes[-1] for s in sizes] == pytest.approx(
        [0.2, 0.4, 0.6, 0.8] + [1.0] * 6, rel=0.01
    )


class Noisy(nn.Module):
    """Dropout draws from the global generator; batch normalization has buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)
        )

    def forward(self, x):
        return self.layers(x)


def noisy():
    torch.manual_seed(0)
    return Noisy()


def classic(X, y, **options):
    config = TrainingConfig(epochs=5, batch_size=32, schedule="cosine", warmup=0.1, **options)
    return lambda: Training(noisy(), X, y, config, 7)


def staged(X, y):
    one, two = TrainingConfig(epochs=2), TrainingConfig(epochs=3, optimizer="sgd")
    return lambda: Stages(
        [
            lambda network: Training(noisy(), X, y, one, 1),
            lambda network: Training(network, X, y, two, 2),
        ],
        [2, 3],
    )


def alternating(X, y):
    config = TrainingConfig(epochs=5, batch_size=50)
    first = lambda n, p: Rule() if ".0." in n else None  # noqa: E731
    other = lambda n, p: None if ".0." in n else Rule()  # noqa: E731

    def make():
        network = noisy()
        return Alternating(
            [
                Training(network, X[:200], y[:200], config, 1, Hooks(rules=first)),
                Training(
                    network,
                    X[200:],
                    y[200:],
                    config.replace(optimizer="sgd"),
                    2,
                    Hooks(rules=other),
                ),
            ],
            starts=[0, 2],
        )

    return make


@pytest.mark.parametrize("stop", [1, 2, 4])
@pytest.mark.parametrize(
    "recipe",
    [
        classic,
        lambda X, y: classic(X, y, optimizer="sgd"),
        staged,
        alternating,
    ],
    ids=["adam", "sgd", "stages", "alternating"],
)
def test_a_training_that_is_killed_and_resumed_ends_as_one_that_was_not(
    blobs, tmp_path, recipe, stop
):
    make = recipe(*blobs)
    whole, killed, resumed = make(), make(), make()
    run(whole)
    for _ in range(stop):
        killed.run_epoch()
    save_state(tmp_path / "state.safetensors", killed.state())
    torch.rand(5)  # whatever else happens to the global generator
    resumed.restore(load_state(tmp_path / "state.safetensors"))
    assert resumed.epoch == stop
    run(resumed)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(value, resumed.network.state_dict()[name]), name


def test_rules_choose_what_is_trained_at_which_rate(blobs):
    X, y = blobs
    config = TrainingConfig(
        epochs=1, batch_size=300, optimizer="sgd", momentum=0.0, learning_rate=1e-3,
        schedule="constant",
    )  # fmt: skip
    moved = {}
    for rate in (1.0, 3.0):
        network = linear()
        before = network.weight.detach().clone(), network.bias.detach().clone()
        rules = lambda name, p, r=rate: Rule(rate=r) if name == "weight" else None  # noqa: E731
        train(network, X, y, config, 0, hooks=Hooks(rules=rules))
        assert torch.equal(network.bias, before[1])
        moved[rate] = network.weight.detach() - before[0]
    torch.testing.assert_close(moved[3.0], 3 * moved[1.0], rtol=1e-3, atol=1e-7)


def test_decay_of_weights_only_leaves_biases_alone():
    config = TrainingConfig(
        epochs=1, optimizer="sgd", momentum=0.0, learning_rate=0.1, weight_decay=0.5,
        decayed="weights", schedule="constant",
    )  # fmt: skip
    network = linear()
    before = network.weight.detach().clone(), network.bias.detach().clone()
    silent = Hooks(loss=lambda network, x, y: 0.0 * network(x).sum())
    train(network, torch.zeros(10, 2), torch.zeros(10, dtype=torch.int64), config, 0, hooks=silent)
    torch.testing.assert_close(network.weight.detach(), before[0] * 0.95)
    assert torch.equal(network.bias, before[1])


def test_hooks_see_every_step_and_may_project_and_penalize(blobs):
    X, y = blobs
    seen = []
    hooks = Hooks(
        before_step=lambda network, moment: seen.append(moment),
        after_step=lambda network: network.weight.clamp_(-0.1, 0.1),
        penalty=lambda network, moment: 100 * network.bias.square().sum(),
    )
    network = linear()
    train(network, X, y, TrainingConfig(epochs=3, batch_size=100), 0, hooks=hooks)
    assert [m.step for m in seen] == list(range(9))
    assert [m.epoch for m in seen] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert seen[-1].progress == 8 / 9
    assert network.weight.abs().max() <= 0.1
    assert network.bias.norm() < linear().bias.norm()


def test_a_student_of_weight_1_learns_its_teacher_whatever_the_labels(blobs):
    X, y = blobs
    teacher = linear(seed=3)
    student = linear(seed=4)
    config = TrainingConfig(epochs=300, batch_size=300, learning_rate=0.05)
    hooks = Hooks(distillation=Distillation(teacher, weight=1.0, temperature=2.0))
    train(student, X, (y + 1) % 3, config, 0, hooks=hooks)
    torch.testing.assert_close(student(X).softmax(-1), teacher(X).softmax(-1), atol=5e-3, rtol=0)


def test_nothing_to_train_is_refused(blobs):
    X, y = blobs
    with pytest.raises(InputError, match="nothing to train"):
        Training(linear(), X, y, TrainingConfig(), 0, Hooks(rules=lambda name, p: None))


def test_label_smoothing_is_that_of_pytorch(blobs):
    X, y = blobs
    network = linear()
    expected = nn.functional.cross_entropy(network(X), y, label_smoothing=0.2).item()
    config = TrainingConfig(epochs=1, batch_size=300, learning_rate=1e-8, label_smoothing=0.2)
    (loss,) = train(network, X, y, config, seed=0)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_cut_gradients_have_the_given_length(blobs):
    X, y = blobs
    network = linear()
    before = weights(network)
    config = TrainingConfig(
        epochs=1, batch_size=300, optimizer="sgd", momentum=0.0, learning_rate=1.0,
        schedule="constant", gradient_norm=1e-3,
    )  # fmt: skip
    train(network, X, y, config, 0)
    assert (weights(network) - before).norm().item() == pytest.approx(1e-3, rel=1e-3)


def test_a_loss_that_is_not_finite_ends_the_training_with_the_learning_rate_named(blobs):
    X, y = blobs
    with pytest.raises(RunError, match=r"diverged in epoch 1.*learning rate"):
        train(linear(), X * math.inf, y, TrainingConfig(epochs=3), 0)


def test_the_error_rate_is_the_share_of_wrong_predictions(blobs):
    X, y = blobs
    network = linear()
    wrong = (network(X).argmax(dim=1) != y).float().mean().item()
    assert error_rate(network, X, y, batch_size=7) == pytest.approx(wrong, abs=1e-7)
