"""Drawn functions evaluated on shared features, against BoTorch's own evaluation."""

from __future__ import annotations

import pytest
import torch
from botorch.models import SingleTaskGP
from botorch.sampling.pathwise import draw_kernel_feature_paths, draw_matheron_paths
from botorch.sampling.pathwise.paths import PathDict
from torch import Tensor

from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.matheron import SharedFeaturePath, draw_functions


def model(m: int) -> SingleTaskGP:
    generator = torch.Generator().manual_seed(m)
    X = torch.rand(9, 2, generator=generator, dtype=torch.float64)
    Y = torch.randn(9, m, generator=generator, dtype=torch.float64)
    return SingleTaskGP(X, Y).eval()


def inputs(n: int) -> Tensor:
    return torch.rand(n, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("m", [1, 2])
def test_drawn_functions_are_botorchs_of_the_same_seed(m: int) -> None:
    gp, X = model(m), inputs(7)
    with fixed_seed(3):
        ours = draw_functions(gp, 5, draw_kernel_feature_paths)
    with fixed_seed(3):
        reference = draw_matheron_paths(gp, sample_shape=torch.Size([5]))
    with torch.no_grad():
        expected = reference(X)
        assert expected.shape == ((5, 7) if m == 1 else (5, m, 7))
        torch.testing.assert_close(ours(X), expected, rtol=1e-9, atol=1e-9)


def test_drawn_functions_are_differentiable_in_their_inputs_again_and_again() -> None:
    functions = draw_functions(model(1), 4, draw_kernel_feature_paths)
    X = inputs(3).requires_grad_()
    first, second = (torch.autograd.grad(functions(X).sum(), X)[0] for _ in range(2))
    assert torch.equal(first, second)
    step = torch.tensor([[1e-6, 0.0]], dtype=torch.float64)
    with torch.no_grad():
        difference = (functions(X + step) - functions(X - step)).sum(dim=0) / 2e-6
    torch.testing.assert_close(first[:, 0], difference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["gp", "nngp"])
def test_functions_of_categories_have_the_posteriors_mean(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    X = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    X[:, 1] = torch.arange(12) % 4
    Y = (X[:, :1] - X[:, 1:]).square()
    bounds = torch.tensor([[0.0, 0.0], [1.0, 3.0]], dtype=torch.float64)
    fitted = SURROGATES[name].build(X, Y, bounds=bounds, categorical_features={1: 4}, seed=0)
    new = torch.cat([inputs(4)[:, :1], torch.arange(4, dtype=torch.float64)[:, None]], dim=-1)
    with torch.no_grad():
        values = fitted.sample_functions(1000, seed=0)(new)
        error = (values.mean(dim=0) - fitted.posterior(new).mean).abs()
    # Given its features a function is Gaussian around the exact mean: six standard errors are
    # exceeded with probability 3e-9 a point.
    assert (error <= 6 * values.std(dim=0) / 1000**0.5).all()


def test_only_paths_linear_in_features_are_taken() -> None:
    with pytest.raises(TypeError, match="linear in features"):
        SharedFeaturePath.of(PathDict())
