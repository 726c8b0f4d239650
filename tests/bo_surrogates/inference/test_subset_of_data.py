"""Hyper-parameters of many observations, started from those of a few."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from bo_surrogates.inference import subset_of_data
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.gp import GP

GENERATOR = torch.Generator().manual_seed(0)
N = subset_of_data.MANY
X = torch.rand(N, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.sin(6 * X[:, :1]) * X[:, 1:] + 0.1 * torch.randn(
    N, 1, generator=GENERATOR, dtype=torch.float64
)


def test_the_copy_has_some_of_the_points_and_the_model_all():
    variance = X[:, :1].square() + 0.1
    model = GP(X, torch.cat([Y, -Y], dim=-1), torch.cat([variance, 2 * variance], dim=-1))
    few = subset_of_data.on_few_points(model.train(), torch.Generator().manual_seed(1))
    assert model.train_targets.shape == (2, N)
    (at,), targets = few.train_inputs, few.train_targets
    assert at.shape == (2, subset_of_data.FEW, 2)
    assert targets.shape == (2, subset_of_data.FEW)
    rows = (X.unsqueeze(0) == at[0].unsqueeze(1)).all(dim=-1).int().argmax(dim=1)
    assert rows.unique().numel() == subset_of_data.FEW
    torch.testing.assert_close(targets, model.train_targets[:, rows])
    torch.testing.assert_close(few.likelihood.noise, model.likelihood.noise[:, rows])


@pytest.mark.parametrize("outputs", [1, 2])
def test_the_optimum_is_that_of_a_search_on_all_points(outputs, monkeypatch):
    targets = torch.cat([Y, -2 * Y], dim=-1)[:, :outputs]
    quick: Any = SURROGATES["gp"].build(X, targets, seed=0)
    monkeypatch.setattr("bo_surrogates.surrogates.exact_gp.MANY", N + 1)
    whole: Any = SURROGATES["gp"].build(X, targets, seed=0)
    name = "log_marginal_likelihood_per_point"
    found, best = quick.diagnostics.values[name], whole.diagnostics.values[name]
    assert found > best - 0.2 * outputs / N  # of a nat, each
    torch.testing.assert_close(quick.likelihood.noise, whole.likelihood.noise, rtol=0.02, atol=0.0)
