"""What is `dkm`'s own: the limit of no learning, inducing points, warm starts."""

import pytest
import torch
from torch.distributions import MultivariateNormal

from bo_surrogates.surrogates import SURROGATES

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(20, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.sin(6 * X[:, :1]) * X[:, 1:] + 0.05 * torch.randn(
    20, 1, generator=GENERATOR, dtype=torch.float64
)
TEST = torch.rand(15, 2, generator=GENERATOR, dtype=torch.float64)


def build(X=X, Y=Y, **config):
    warm_start = config.pop("warm_start", None)
    config = {"iterations": 40} | config
    return SURROGATES["dkm"].build(X, Y, config=config, seed=0, warm_start=warm_start)


@pytest.fixture(scope="module")
def fitted():
    return build()


@pytest.mark.parametrize("kernel", ["se", "normalized-se", "relu"])
def test_as_nu_grows_the_gram_matrices_stay_at_the_prior(kernel):
    distances = []
    for nu in (1e2, 1e4):
        made = build(kernel=kernel, nu=nu).covar_module
        with torch.no_grad():
            G = made.gram_matrices()[-1]
            made.factors.zero_()
            prior = made.gram_matrices()[-1]
        distances.append(((G - prior).norm() / prior.norm()).item())
    assert distances[1] < 1e-3
    assert distances[1] < 0.02 * distances[0]  # as 1 / nu


def test_the_posterior_is_that_of_a_gaussian_process_with_the_kernel(fitted):
    kernel, constant = fitted.covar_module, fitted.mean_module.constant
    mean, scale = Y.mean(), Y.std()
    S = kernel.forward(X, X) + fitted.likelihood.noise * torch.eye(20).double()
    k = kernel.forward(TEST, X)
    f = constant + k @ torch.linalg.solve(S, (Y - mean) / scale - constant)
    covariance = kernel.forward(TEST, TEST) - k @ torch.linalg.solve(S, k.T)
    posterior = fitted.posterior(TEST)
    torch.testing.assert_close(posterior.mean, mean + scale * f, atol=1e-6, rtol=0)
    found = posterior.distribution.covariance_matrix
    torch.testing.assert_close(found, scale**2 * covariance, atol=1e-6, rtol=0)


def test_the_objective_is_the_likelihood_less_the_divergence(fitted):
    fitted.train()
    with torch.no_grad():
        value = fitted.objective()
        K = fitted.covar_module.forward(X, X)
        S = K + fitted.likelihood.noise * torch.eye(20).double()
        constant = fitted.mean_module.constant.expand(20)
        likelihood = MultivariateNormal(constant, S).log_prob(fitted.train_targets)
        expected = likelihood - fitted.config.nu * fitted.covar_module.divergence()
    fitted.eval()
    # The Gram matrix itself has the jitter that the extension to the same points has not.
    torch.testing.assert_close(value, expected, atol=0.5, rtol=1e-2)


def test_all_points_inducing_are_the_limit_of_some():
    """With points beside them that determine little, predictions change little."""
    full, sparse = build(nu=1e4), build(nu=1e4, inducing_points=16)
    assert len(sparse.covar_module.inducing) == 16
    assert len(full.covar_module.inducing) == 20
    unit = Y.std().item()
    expected = full.posterior(TEST)
    found = sparse.posterior(TEST)
    assert (found.mean - expected.mean).abs().max() < 0.1 * unit


def test_at_the_same_parameters_inducing_points_elsewhere_do_not_matter_without_learning():
    """M = I: the kernel does not depend on where the inducing points are."""
    sparse, full = (build(inducing_points=p, iterations=1) for p in (8, 20))
    with torch.no_grad():
        for model in (sparse, full):
            model.covar_module.factors.zero_()
            for name, value in full.covar_module.named_parameters():
                if name.startswith("log"):
                    getattr(sparse.covar_module, name).copy_(value)
    a, b = (model.covar_module.forward(TEST, TEST) for model in (sparse, full))
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_a_smaller_nu_learns_more_and_fits_the_outcomes_better():
    values = [build(nu=nu).diagnostics.values for nu in (1.0, 1e4)]
    assert values[0]["divergence"] > values[1]["divergence"]


def test_a_warm_start_extends_the_gram_matrices_by_the_priors_conditional(fitted):
    more = torch.cat([X, TEST[:3]])
    outcomes = torch.cat([Y, torch.zeros(3, 1).double()])
    model = SURROGATES["dkm"].build(
        more, outcomes, config=fitted.config.replace(iterations=1), seed=0
    )
    model._extend(fitted.covar_module)
    kernel = model.covar_module
    with torch.no_grad():
        kernel.factors[:, fitted.covar_module.factors.shape[-1] :] = 0.0
        for name, value in fitted.covar_module.named_parameters():
            if name.startswith("log"):
                getattr(kernel, name).copy_(value)
    for found, expected in zip(
        kernel.gram_matrices(), fitted.covar_module.gram_matrices(), strict=True
    ):
        torch.testing.assert_close(found[:20, :20], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(kernel.divergence(), fitted.covar_module.divergence())
    warm = build(more, outcomes, warm_start=fitted)
    assert warm.diagnostics.converged


def test_outcomes_share_gram_matrices_and_each_has_its_own_variance():
    model = build(Y=torch.cat([Y, 100 * Y.square()], dim=-1))
    assert model.covar_module.log_output_variance.shape == (2, 1, 1)
    K = model.covar_module.forward(X.expand(2, -1, -1), X.expand(2, -1, -1))
    v = model.covar_module.log_output_variance.exp()
    torch.testing.assert_close(K[0] / v[0], K[1] / v[1])


@pytest.mark.parametrize("nu", [1.0, 5.0])
def test_the_gram_matrices_do_not_depend_on_where_their_search_starts(nu):
    """The objective is conjectured to have one maximum, and has one where K is linear."""
    model = build(X=X[:8], Y=Y[:8], nu=nu, iterations=10)
    model.config, kernel = model.config.replace(iterations=2000), model.covar_module
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name == "covar_module.factors")
    mll = model.train().marginal_likelihood()
    found = []
    for seed in (1, 2):
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            noise = torch.randn(kernel.factors.shape, generator=generator, dtype=torch.float64)
            kernel.factors.copy_(0.5 * noise / kernel.unit)
        model._maximize(mll)
        with torch.no_grad():
            found.append((model.objective(), *kernel.gram_matrices()[1:]))
    torch.testing.assert_close(found[0][0], found[1][0], atol=1e-3, rtol=0)
    for first, second in zip(found[0][1:], found[1][1:], strict=True):
        assert (first - second).norm() < 1e-3 * first.norm()


@pytest.mark.parametrize("nu", [10.0, 1e6])
def test_a_converged_fit_does_not_depend_on_the_rounding_of_the_outcomes(nu):
    generator = torch.Generator().manual_seed(1)
    change = 1e-10 * torch.randn(Y.shape, generator=generator, dtype=torch.float64)
    first, second = (build(Y=y, nu=nu, iterations=500, layers=1) for y in (Y, Y + change))
    a, b = first.posterior(TEST), second.posterior(TEST)
    unit = Y.std()
    assert (a.mean - b.mean).abs().max() < 1e-4 * unit
    assert (a.variance.sqrt() - b.variance.sqrt()).abs().max() < 1e-4 * unit


def test_the_objective_rises_as_the_prior_loosens_its_hold():
    """Its maximum over the same parameters, of which nu takes nu KL >= 0 away."""
    values = [build(nu=nu, iterations=100).train().objective().item() for nu in (1.0, 10.0, 1e4)]
    assert values[0] > values[1] > values[2]
