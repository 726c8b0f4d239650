"""The classifier of wide and deep networks as a problem: limits, splits, options."""

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

from bo_surrogates.errors import InputError
from problems import PROBLEMS
from problems.documented.wide_deep_tuning import load, split

POINT = {
    "activation": "optimal", "frequency": 1.5, "depth": 10, "kernel": "nngp", "noise": 0.1,
    "components": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["wide_deep"].make(objectives="both")


def test_inputs_are_scikit_learns_principal_components_in_the_unit_cube():
    features, labels = load("breast_cancer")
    X, y, X_test, y_test = split(features, labels, 4, 0.6, 3)
    assert len(X) == len(y) == 341
    assert len(X_test) == len(y_test) == 228
    assert abs(y.double().mean() - y_test.double().mean()) < 0.01  # stratified
    assert X.min() == 0
    assert X.max() == 1
    assert ((X_test >= 0) & (X_test <= 1)).all()
    raw = load_breast_cancer().data
    train, _ = train_test_split(range(569), train_size=0.6, stratify=labels, random_state=3)
    assert torch.equal(labels[train], y)
    expected = PCA(4).fit_transform(StandardScaler().fit_transform(raw[train]))
    expected = torch.from_numpy(expected)
    low, high = expected.amin(dim=0), expected.amax(dim=0)
    expected = (expected - low) / (high - low)
    for column in range(4):  # the signs of directions are arbitrary
        same = (X[:, column] - expected[:, column]).abs().max()
        turned = (1 - X[:, column] - expected[:, column]).abs().max()
        assert min(same, turned) < 1e-6


def test_it_learns_what_neighbours_and_majority_do_not(problem):
    """Mean error over splits: far below the majority's .37, and below a nearest neighbour's."""
    errors, neighbours = [], []
    for seed in range(3):
        errors.append(problem.measure(problem.space.validate(POINT), seed)["error"])
        X, y, X_test, y_test = split(*load("breast_cancer"), 5, 0.6, seed)
        nearest = KNeighborsClassifier(1).fit(X, y).predict(X_test)
        neighbours.append((torch.from_numpy(nearest) != y_test).double().mean().item())
    assert sum(errors) < sum(neighbours)
    assert sum(errors) / 3 < 0.06


def test_deep_relu_networks_are_the_majority(problem):
    deep = problem.space.validate(POINT | {"activation": "relu", "depth": 200, "noise": 10.0})
    majority = 1 - load("breast_cancer")[1].double().mean().item()
    assert problem.measure(deep, 0)["error"] == pytest.approx(majority, abs=0.01)


def test_an_evaluation_is_a_function_of_its_seed(problem):
    first = problem.evaluate(POINT, seed=1)
    assert set(first) == {"error", "log_loss"}
    assert problem.evaluate(POINT, seed=1) == first
    assert len({problem.evaluate(POINT, seed=s)["log_loss"] for s in range(3)}) == 3
    X = problem.space.encode(problem.space.validate(POINT)).unsqueeze(0).double()
    true = problem(X, noise=False)[0].tolist()
    expected = problem.measure(problem.space.validate(POINT), problem.config.data_seed)
    assert true == [expected["error"], expected["log_loss"]]


@pytest.mark.parametrize("kernel", ["nngp", "ntk"])
@pytest.mark.parametrize("activation", ["optimal", "sine", "erf", "relu"])
def test_every_corner_of_the_space_is_finite(activation, kernel):
    data = "digits" if kernel == "ntk" else "breast_cancer"
    problem = PROBLEMS["wide_deep"].make(data=data, objectives="log_loss", train_fraction=0.15)
    for depth, components, noise in ((1, 1, 1e-6), (200, 20, 10.0), (200, 1, 1e-6)):
        point = POINT | {
            "activation": activation, "kernel": kernel, "depth": depth, "noise": noise,
            "components": components,
        }  # fmt: skip
        value = problem.evaluate(point, seed=0)["log_loss"]
        assert 0 < value < 5


def test_the_frequency_matters_to_the_sine_alone(problem):
    def loss(**changes):
        return problem.evaluate(POINT | changes, seed=0)["log_loss"]

    assert loss(frequency=1.0) == loss(frequency=3.0)
    assert loss(activation="sine", frequency=1.0) != loss(activation="sine", frequency=3.0)


def test_a_share_that_leaves_a_class_empty_is_refused():
    features, _ = load("breast_cancer")
    with pytest.raises(InputError, match="train_fraction"):
        split(features[:20], torch.arange(20) < 1, 2, 0.5, 0)
