"""What is `svgp`'s own: the bound, the best q, many observations."""

import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from gpytorch.mlls import VariationalELBO
from torch.distributions import MultivariateNormal

from bo_surrogates.errors import InputError
from bo_surrogates.inference.collapsed_bound import collapse
from bo_surrogates.surrogates import SURROGATES

GENERATOR = torch.Generator().manual_seed(0)


def data(n):
    X = torch.rand(n, 2, generator=GENERATOR, dtype=torch.float64)
    noise = 0.1 * torch.randn(n, 1, generator=GENERATOR, dtype=torch.float64)
    return X, truth(X) + noise


def truth(X):
    return torch.sin(6 * X[:, :1]) * X[:, 1:] + X[:, 1:].square()


X, Y = data(30)
TEST = torch.rand(40, 2, generator=GENERATOR, dtype=torch.float64)


@pytest.fixture(scope="module")
def full():
    """As many inducing points as training points."""
    return SURROGATES["svgp"].build(X, Y, seed=0)


@pytest.fixture(scope="module")
def sparse():
    X, Y = data(600)
    model = SURROGATES["svgp"].build(X, Y, config={"inducing_points": 40}, seed=0)
    return model, X, Y


def prior_terms(mll):
    return sum(p.log_prob(c(m)).sum() for _, m, p, c, _ in mll.named_priors())


def test_the_bound_is_gpytorchs_at_the_best_q(sparse):
    model, X, _ = sparse
    model.train()
    elbo = VariationalELBO(model.likelihood, model.model, num_data=len(X))
    with torch.no_grad():
        value = elbo(model.model(X), model._targets) * len(X) - prior_terms(elbo)
        expected = model.collapsed().bound
    model.eval()
    torch.testing.assert_close(value, expected, atol=1e-2, rtol=0)


def test_any_other_q_has_a_lower_bound(sparse):
    model, X, _ = sparse
    model.train()
    elbo = VariationalELBO(model.likelihood, model.model, num_data=len(X))
    mean = model._strategy._variational_distribution.variational_mean
    kept, best = mean.clone(), elbo(model.model(X), model._targets)
    for i in range(3):
        step = torch.randn(mean.shape, generator=torch.Generator().manual_seed(i)).to(mean)
        mean.copy_(kept + 1e-2 * step)
        assert elbo(model.model(X), model._targets) < best
    mean.copy_(kept)
    model.eval()


def test_with_all_points_inducing_the_bound_is_the_exact_marginal_likelihood():
    points = X[:12]
    square = (points[:, None] - points).square().sum(-1)
    K = (-square / 0.08).exp()
    noise = torch.linspace(0.05, 0.4, 12, dtype=torch.float64)
    residual = Y[:12, 0] - 0.3
    K_jitter = K + 1e-9 * torch.eye(12, dtype=torch.float64)
    found = collapse(K_jitter, K, K.diagonal(), residual, noise)
    exact = MultivariateNormal(torch.zeros(12).double(), K + noise.diag()).log_prob(residual)
    torch.testing.assert_close(found.bound, exact, atol=1e-5, rtol=0)
    # q is then the exact posterior of the values: mean L m and covariance L S L'.
    L = torch.linalg.cholesky(K_jitter)
    gain = torch.linalg.solve(K + noise.diag(), K).mT
    torch.testing.assert_close(L @ found.mean, gain @ residual, atol=1e-5, rtol=0)
    covariance = L @ found.root @ found.root.mT @ L.mT
    torch.testing.assert_close(covariance, K - gain @ K, atol=1e-5, rtol=0)


def test_fewer_inducing_points_never_raise_the_bound():
    points = X[:12]
    K = (-(points[:, None] - points).square().sum(-1) / 0.08).exp()
    noise = torch.full((12,), 0.1, dtype=torch.float64)
    bounds = [
        collapse(
            K[:m, :m] + 1e-9 * torch.eye(m, dtype=torch.float64), K[:m], K.diagonal(), Y[:12, 0],
            noise,
        ).bound.item()
        for m in (2, 5, 9, 12)
    ]  # fmt: skip
    assert bounds == sorted(bounds)


def test_with_all_points_inducing_it_is_the_gaussian_process(full):
    reference = SURROGATES["gp"].build(X, Y, seed=0)
    exact = reference.posterior(TEST)
    found = full.posterior(TEST)
    torch.testing.assert_close(found.mean, exact.mean, atol=2e-2 * Y.std().item(), rtol=0)
    torch.testing.assert_close(found.variance, exact.variance, atol=1e-3, rtol=0.1)


def test_a_sparse_fit_predicts_the_function(sparse):
    model, _, _ = sparse
    error = (model.posterior(TEST).mean - truth(TEST)).square().mean().sqrt()
    assert error < 0.05  # noise of 0.1 over 600 points, some 15 of them near each
    observed = model.posterior(TEST, observation_noise=True).variance
    noise = (observed - model.posterior(TEST).variance).sqrt()
    # 600 observations: a standard deviation is known to 3 %.
    assert ((noise / 0.1).log().abs() < 0.15).all()
    assert model.diagnostics.values["inducing_points"] == 40


def test_drawn_functions_have_the_posteriors_moments(sparse):
    model, _, _ = sparse
    posterior = model.posterior(TEST)
    with torch.no_grad():
        values = model.sample_functions(400, seed=0)(TEST)
    deviation = posterior.variance.sqrt()
    assert ((values.mean(dim=0) - posterior.mean).abs() < 6 * deviation / 400**0.5).all()
    assert ((values.var(dim=0) / posterior.variance - 1).abs() < 0.6).all()


def test_repeated_points_do_not_break_the_choice_of_inducing_points():
    same = X[:5].repeat(12, 1)
    model = SURROGATES["svgp"].build(same, truth(same), config={"inducing_points": 20}, seed=0)
    assert torch.isfinite(model.posterior(TEST).mean).all()
    assert (model.posterior(X[:5]).mean - truth(X[:5])).abs().max() < 0.2


def test_what_it_cannot_do_is_said(full):
    with pytest.raises(UnsupportedError, match="warm_start"):
        full.condition_on_observations(TEST[:1], Y[:1])
    with pytest.raises(InputError, match="one output"):
        full.posterior(TEST, output_indices=[1])
    with pytest.raises(InputError, match="one output"):
        full.subset_output([1])


def test_many_close_points_have_a_posterior(sparse):
    """Their covariance is singular to rounding."""
    model, _, _ = sparse
    close = torch.linspace(0, 1, 400, dtype=torch.float64).unsqueeze(-1).expand(-1, 2)
    posterior = model.posterior(close, observation_noise=True)
    assert (posterior.variance > 0).all()
    assert torch.isfinite(model.posterior(close).mean).all()
