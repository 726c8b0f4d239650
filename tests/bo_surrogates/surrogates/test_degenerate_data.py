"""Data whose covariance matrices are singular, or nearly: every surrogate copes."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.surrogates import SURROGATES, Surrogate, SurrogateEntry
from bo_surrogates.surrogates.gp import GP

from .conftest import cheap_config

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(9, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.sin(4.0 * X[:, :1]) + X[:, 1:]
ALONG = torch.linspace(0.0, 1.0, 9, dtype=torch.float64).unsqueeze(-1)
DATA = {
    "repeated points": (X[[0, 0, 0, 1, 1, 2]], Y[[0, 0, 0, 1, 1, 2]]),
    "repeated points, other outcomes": (X[[0, 0, 1, 1]], Y[:4]),
    "points 1e-9 apart": (torch.cat([X[:4], X[:4] + 1e-9]), torch.cat([Y[:4], Y[:4]])),
    "a constant input": (torch.cat([X[:, :1], torch.full_like(X[:, 1:], 0.5)], dim=-1), Y),
    "points on a line": (torch.cat([ALONG, 1.0 - ALONG], dim=-1), Y),
    "inputs that are nearly the same": (torch.cat([ALONG, ALONG + 1e-7 * X[:, :1]], dim=-1), Y),
    "one point": (X[:1], Y[:1]),
    "outcomes of 1e9 that differ by 1": (X, 1e9 + Y),
}


@pytest.mark.parametrize("case", DATA)
def test_a_singular_covariance_does_not_end_a_fit(entry: SurrogateEntry, case: str) -> None:
    train_X, train_Y = DATA[case]
    config = cheap_config(entry, steps=30, map_steps=10, warmup=10, samples=6, chains=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that is not to be relied on may say so
        model = entry.build(train_X, train_Y, config=config, seed=0)
    at = torch.cat([train_X, X[5:]])  # the observed points once more, jointly with others
    posterior = model.posterior(at)
    assert torch.isfinite(posterior.mean).all()
    assert torch.isfinite(posterior.variance).all()
    assert (posterior.variance >= 0).all()
    assert torch.isfinite(posterior.rsample(torch.Size([3]))).all()
    values = model.diagnostics.values
    assert all(math.isfinite(value) for value in values.values())
    if entry.capabilities.posterior != "ensemble":  # which factorize no covariance, most of them
        assert 0.0 <= values["jitter"] <= 1e-3


def test_jitter_that_a_fit_needed_is_in_its_diagnostics(monkeypatch: pytest.MonkeyPatch) -> None:
    original = GP.fit

    def fit(self: GP, warm_start: Surrogate | None = None) -> GP:
        psd_safe_cholesky(torch.ones(3, 3).double() - 3e-7 * torch.eye(3).double())
        return original(self, warm_start)

    monkeypatch.setattr(GP, "fit", fit)
    values = SURROGATES["gp"].build(X, Y, seed=0).diagnostics.values
    assert values["jitter"] == pytest.approx(1e-6)
