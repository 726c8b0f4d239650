"""Data of every kind: awkward but valid data give a usable model, bad data a clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import Surrogate, SurrogateEntry

from .conftest import BOUNDS, Fitted, assert_samples_follow, build, measurements, points


def is_usable(model: Any, m: int = 1) -> bool:
    """Finite means, positive variances, finite samples and gradients at new inputs."""
    X = points(3).requires_grad_()
    posterior = model.posterior(X, observation_noise=True)
    sample = posterior.rsample(torch.Size([2]))
    (gradient,) = torch.autograd.grad(posterior.mean.sum() + posterior.variance.sum(), X)
    return bool(
        posterior.mean.shape == (3, m)
        and torch.isfinite(posterior.mean).all()
        and (posterior.variance > 0).all()
        and torch.isfinite(sample).all()
        and torch.isfinite(gradient).all()
    )


@pytest.mark.parametrize("value", [0.0, -3e6, 1e-7])
def test_constant_outcomes_are_predicted_as_that_constant(
    entry: SurrogateEntry, value: float
) -> None:
    X, _ = measurements(8)
    model = build(entry, X, torch.full((8, 1), value, dtype=torch.float64))
    assert is_usable(model)
    # A constant has no scale: the surrogate measures deviations in units of 1.
    at_data = model.posterior(X)
    assert ((at_data.mean - value).abs() < 0.5).all()


def test_one_point_is_enough(entry: SurrogateEntry) -> None:
    X, Y = measurements(1)
    model = build(entry, X, Y)
    assert is_usable(model)
    assert (model.posterior(X).mean - Y).abs().item() < 1


def test_repeated_points_with_different_outcomes_are_averaged(entry: SurrogateEntry) -> None:
    X, Y = measurements(10)
    X, Y = torch.cat([X, X[:1], X[:1]]), torch.cat([Y, Y[:1] + 0.4, Y[:1] - 0.4])
    model = build(entry, X, Y)
    assert is_usable(model)
    assert (model.posterior(X[:1]).mean - Y[0]).abs().item() < 0.4


def test_a_fitted_model_explains_its_data_better_than_their_mean(fitted: Fitted) -> None:
    residual = fitted.model.posterior(fitted.X).mean - fitted.Y
    assert (residual.std(dim=0) < 0.7 * fitted.Y.std(dim=0)).all()
    assert fitted.model.diagnostics.converged


def test_known_variances_decide_how_closely_a_point_is_followed(entry: SurrogateEntry) -> None:
    X, Y = measurements()
    Y[3] += 3.0
    variances = torch.full_like(Y, 1e-2)
    if not entry.capabilities.observation_variance:
        with pytest.raises(InputError, match="train_Yvar"):
            build(entry, X, Y, train_Yvar=variances)
        return
    residuals = {}
    for variance in (1e-4, 1e4):
        variances[3] = variance
        model = build(entry, X, Y, train_Yvar=variances.clone())
        assert is_usable(model)
        residuals[variance] = (model.posterior(X[3:4]).mean - Y[3]).abs().item()
    assert residuals[1e-4] < 0.5 * residuals[1e4]
    # The other points keep their own variances: they are followed whatever the outlier's is.
    others = [i for i in range(len(X)) if i != 3]
    error = model.posterior(X[others]).mean - Y[others]
    assert error.std() < 0.5 * Y[others].std()


def test_known_variances_of_zero_are_allowed(entry: SurrogateEntry) -> None:
    if not entry.capabilities.observation_variance:
        pytest.skip(f"{entry.name} does not use variances")
    X, Y = measurements()
    assert is_usable(build(entry, X, Y, train_Yvar=torch.zeros_like(Y)))


def categorical_model(entry: SurrogateEntry) -> tuple[Surrogate, Tensor, Tensor]:
    """A model of 24 points with a three-valued input, new points, and their category's level."""
    generator = torch.Generator().manual_seed(0)
    category = torch.arange(24, dtype=torch.float64) % 3
    X = torch.stack([torch.rand(24, generator=generator, dtype=torch.float64), category], dim=-1)
    level = torch.tensor([0.0, 4.0, 1.0], dtype=torch.float64)  # not monotone in the code
    Y = (level[category.long()] + 0.3 * X[:, 0]).unsqueeze(-1)
    bounds = torch.tensor([[0.0, 0.0], [1.0, 2.0]], dtype=torch.float64)
    model = build(entry, X, Y, bounds=bounds, categorical_features={1: 3})
    new = torch.tensor([[0.5, 0.0], [0.5, 1.0], [0.5, 2.0]], dtype=torch.float64)
    return model, new, level


def test_categories_are_told_apart_without_an_order(entry: SurrogateEntry) -> None:
    assert entry.capabilities.categorical
    model, new, level = categorical_model(entry)
    means = model.posterior(new).mean.squeeze(-1)
    assert means[1] > means[2]
    assert means[1] > means[0]
    assert ((means - level).abs() < 1.5).all()
    X = new.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.posterior(X).mean.sum(), X)
    assert torch.isfinite(gradient).all()
    assert (gradient[:, 0] != 0).all()


def test_between_the_codes_of_categories_there_is_nothing(entry: SurrogateEntry) -> None:
    model, new, _ = categorical_model(entry)
    near = new + torch.tensor([0.0, 0.3], dtype=torch.float64)
    assert torch.equal(model.posterior(near).mean, model.posterior(new).mean)
    functions = model.sample_functions(3, seed=0)
    assert torch.equal(functions(near), functions(new))


def test_drawn_functions_of_categories_are_distributed_as_the_posterior(
    entry: SurrogateEntry,
) -> None:
    model, new, _ = categorical_model(entry)
    levels = torch.tensor([0.1, 0.5, 0.8], dtype=torch.float64)
    with torch.no_grad():
        values = model.sample_functions(400, seed=0)(new)
    assert_samples_follow(values, model.quantile(new, levels), levels)


def test_training_data_are_not_changed(entry: SurrogateEntry) -> None:
    X, Y = measurements()
    X_before, Y_before, bounds = X.clone(), Y.clone(), BOUNDS.clone()
    model = build(entry, X, Y, bounds=bounds)
    model.posterior(points(2))
    assert torch.equal(X, X_before)
    assert torch.equal(Y, Y_before)
    assert torch.equal(bounds, BOUNDS)


# ---- bad data ----------------------------------------------------------------------------------
def _with(tensor: Tensor, value: float) -> Tensor:
    tensor = tensor.clone()
    tensor[2, 0] = value
    return tensor


Arguments = dict[str, Any]
BAD: dict[str, tuple[Callable[[Tensor, Tensor], Arguments], str]] = {
    "nan in X": (lambda X, Y: {"train_X": _with(X, float("nan"))}, "train_X.*row 2, column 0"),
    "inf in X": (lambda X, Y: {"train_X": _with(X, float("inf"))}, "train_X.*row 2, column 0"),
    "nan in Y": (lambda X, Y: {"train_Y": _with(Y, float("nan"))}, "train_Y.*row 2, column 0"),
    "inf in Y": (lambda X, Y: {"train_Y": _with(Y, -float("inf"))}, "train_Y.*row 2, column 0"),
    "nan in Yvar": (lambda X, Y: {"train_Yvar": _with(Y.abs(), float("nan"))}, "train_Yvar"),
    "negative Yvar": (lambda X, Y: {"train_Yvar": _with(Y.abs(), -1.0)}, "train_Yvar.*negative"),
    "wide Yvar": (lambda X, Y: {"train_Yvar": Y.abs().expand(-1, 2)}, "train_Yvar.*shape"),
    "flat X": (lambda X, Y: {"train_X": X[:, 0]}, "train_X.*shape"),
    "flat Y": (lambda X, Y: {"train_Y": Y[:, 0]}, "train_Y.*shape"),
    "short Y": (lambda X, Y: {"train_Y": Y[:-1]}, "train_Y.*shape"),
    "no points": (lambda X, Y: {"train_X": X[:0], "train_Y": Y[:0]}, "train_X.*at least one"),
    "no inputs": (lambda X, Y: {"train_X": X[:, :0], "bounds": None}, "train_X.*at least one"),
    "no outcomes": (lambda X, Y: {"train_Y": Y[:, :0]}, "train_Y.*shape"),
    "integer X": (lambda X, Y: {"train_X": X.long()}, "train_X.*floating"),
    "integer Y": (lambda X, Y: {"train_Y": Y.long()}, "train_Y.*floating"),
    "list X": (lambda X, Y: {"train_X": X.tolist()}, "train_X.*tensor"),
    "two dtypes": (lambda X, Y: {"train_X": X.float()}, "train_X.*dtype"),
    "half precision": (
        lambda X, Y: {"train_X": X.half(), "train_Y": Y.half()}, "train_X.*float32 or float64"
    ),
    "reversed bounds": (lambda X, Y: {"bounds": BOUNDS.flip(0)}, "bounds.*below"),
    "equal bounds": (lambda X, Y: {"bounds": BOUNDS[:1].expand(2, -1)}, "bounds.*below"),
    "infinite bounds": (lambda X, Y: {"bounds": BOUNDS * float("inf")}, "bounds.*finite"),
    "narrow bounds": (lambda X, Y: {"bounds": BOUNDS[:, :1]}, "bounds.*shape"),
    "list bounds": (lambda X, Y: {"bounds": BOUNDS.tolist()}, "bounds.*tensor"),
    "category index": (lambda X, Y: {"categorical_features": {7: 3}}, "categorical_features"),
    "one category": (lambda X, Y: {"categorical_features": {1: 1}}, "categorical_features"),
    "category code": (
        lambda X, Y: {"train_X": X.round(), "categorical_features": {1: 3}},
        "categorical_features.*0, 1",
    ),
    "unknown field": (lambda X, Y: {"config": {"no_such_field": 1}}, "no_such_field"),
    "config is a number": (lambda X, Y: {"config": 3}, "table of fields"),
    "warm start": (lambda X, Y: {"warm_start": object()}, "warm_start"),
    "seed": (lambda X, Y: {"seed": "zero"}, "seed"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_data_are_refused_by_the_name_of_the_argument(entry: SurrogateEntry, case: str) -> None:
    X, Y = measurements()
    make, message = BAD[case]
    arguments = {"train_X": X, "train_Y": Y, "bounds": BOUNDS, "seed": 0} | make(X, Y)
    if "train_Yvar" in arguments and not entry.capabilities.observation_variance:
        message = "train_Yvar"
    with pytest.raises(InputError, match=message):
        entry.build(**arguments)


def test_a_misspelt_field_of_the_configuration_is_answered_with_the_right_one(
    entry: SurrogateEntry,
) -> None:
    X, Y = measurements()
    name = fields(entry.config_class)[0].name
    with pytest.raises(InputError, match=f"did you mean '{name}'"):
        entry.build(X, Y, config={name + "s": entry.config_class().to_dict()[name]})


def test_another_models_configuration_is_refused(entry: SurrogateEntry) -> None:
    class OtherConfig(Config):
        pass

    X, Y = measurements()
    with pytest.raises(InputError, match=entry.config_class.__name__):
        entry.build(X, Y, config=OtherConfig())


def test_one_outcome_surrogates_say_so(entry: SurrogateEntry) -> None:
    if entry.capabilities.multi_output:
        pytest.skip(f"{entry.name} takes several outcomes")
    X, Y = measurements(m=2)
    with pytest.raises(InputError, match="one outcome"):
        entry.build(X, Y)
