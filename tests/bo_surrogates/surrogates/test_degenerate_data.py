"""Data whose covariance matrices are singular, or nearly: surrogates with kernels cope."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from bo_surrogates.surrogates import SURROGATES

KERNELS = ("gp", "nngp", "nngp_t", "rff", "svgp")
GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(9, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.sin(4.0 * X[:, :1]) + X[:, 1:]
CONSTANT = torch.cat([X[:, :1], torch.full_like(X[:, 1:], 0.5)], dim=-1)
DATA = {
    "repeated points": (X[[0, 0, 0, 1, 1, 2]], Y[[0, 0, 0, 1, 1, 2]]),
    "repeated points, other outcomes": (X[[0, 0, 1, 1]], Y[:4]),
    "points 1e-9 apart": (torch.cat([X[:4], X[:4] + 1e-9]), torch.cat([Y[:4], Y[:4]])),
    "a constant input": (CONSTANT, Y),
    "constant outcomes": (X[:5], torch.full_like(Y[:5], 3.0)),
    "one point": (X[:1], Y[:1]),
    "outcomes of 1e-9": (X, 1e-9 * Y),
    "outcomes of 1e9": (X, 1e9 * Y),
}


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", DATA)
def test_a_singular_covariance_does_not_end_a_fit(name: str, case: str) -> None:
    train_X, train_Y = DATA[case]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that is not to be relied on may say so
        model = SURROGATES[name].build(train_X, train_Y, seed=0)
    at = torch.cat([train_X, X[5:]])  # the observed points once more, jointly with others
    posterior = model.posterior(at)
    assert torch.isfinite(posterior.mean).all()
    assert torch.isfinite(posterior.variance).all()
    assert (posterior.variance >= 0).all()
    assert torch.isfinite(posterior.rsample(torch.Size([3]))).all()
    assert all(math.isfinite(value) for value in model.diagnostics.values.values())
