"""What is `dkl`'s own: its limits, the leave-one-out density, warm starts."""

import pytest
import torch

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(25, 2, generator=GENERATOR, dtype=torch.float64)
Y = torch.sin(6 * X[:, :1]) * X[:, 1:] + 0.05 * torch.randn(
    25, 1, generator=GENERATOR, dtype=torch.float64
)
TEST = torch.rand(30, 2, generator=GENERATOR, dtype=torch.float64)


@pytest.fixture(scope="module")
def fitted():
    return SURROGATES["dkl"].build(X, Y, config={"width": 16, "steps": 30}, seed=0)


def test_weights_that_may_not_move_leave_the_gaussian_process():
    config = {"output_scale": 1e-3, "width": 4, "steps": 20}
    model = SURROGATES["dkl"].build(X, Y, config=config, seed=0)
    reference = SURROGATES["gp"].build(X, Y, seed=0)
    found, expected = model.posterior(TEST), reference.posterior(TEST)
    unit = Y.std().item()
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-3 * unit, rtol=0)
    torch.testing.assert_close(found.variance, expected.variance, atol=1e-4 * unit**2, rtol=1e-2)


def test_the_posterior_is_that_of_a_gaussian_process_on_the_features(fitted):
    kernel, likelihood = fitted.covar_module, fitted.likelihood
    phi, at = (kernel.features(x) / kernel.base_kernel.lengthscale for x in (X, TEST))

    def covariance(a, b):
        return torch.exp(-0.5 * torch.cdist(a, b).square())

    mean, scale = Y.mean(), Y.std()
    S = covariance(phi, phi) + likelihood.noise * torch.eye(25).double()
    k = covariance(at, phi)
    constant = fitted.mean_module.constant
    f = constant + k @ torch.linalg.solve(S, (Y - mean) / scale - constant)
    variance = 1 - (k * torch.linalg.solve(S, k.T).T).sum(dim=-1, keepdim=True)
    posterior = fitted.posterior(TEST)
    torch.testing.assert_close(posterior.mean, mean + scale * f, atol=1e-6, rtol=0)
    torch.testing.assert_close(posterior.variance, scale**2 * variance, atol=1e-6, rtol=0)


def test_the_leave_one_out_density_is_that_of_conditioning_on_all_other_points(fitted):
    fitted.train()
    with torch.no_grad():
        density = fitted.leave_one_out_density()
        S = fitted(X).covariance_matrix + fitted.likelihood.noise * torch.eye(25).double()
        residual = fitted.train_targets - fitted.mean_module.constant
    fitted.eval()
    total = 0.0
    for i in range(25):
        others = [j for j in range(25) if j != i]
        gain = torch.linalg.solve(S[others][:, others], S[others, i])
        normal = torch.distributions.Normal(
            gain @ residual[others], (S[i, i] - gain @ S[others, i]).sqrt()
        )
        total += normal.log_prob(residual[i]).item()
    assert density.item() == pytest.approx(total, abs=1e-6)


def test_early_stopping_keeps_no_worse_an_iterate_than_the_first_and_the_last():
    """Of the leave-one-out density; the first is the Gaussian process without a warp."""
    key = "leave_one_out_density_per_point"
    config = {"width": 16, "steps": 40, "output_scale": 1.0}
    early, last, short = (
        SURROGATES["dkl"].build(X, Y, config=config | extra, seed=0).diagnostics.values[key]
        for extra in ({"stopping": "leave-one-out"}, {}, {"output_scale": 1e-3, "steps": 1})
    )
    assert early >= last - 1e-9
    assert early >= short - 1e-3


def test_stopping_on_the_marginal_likelihood_gives_away_little_of_it():
    config = {"width": 16, "steps": 400}
    early, last = (
        SURROGATES["dkl"].build(X, Y, config=config | extra, seed=0).diagnostics.values
        for extra in ({"stopping": "marginal-likelihood"}, {})
    )
    key = "log_marginal_likelihood_per_point"
    assert last[key] - 1.0 / len(X) < early[key] < last[key]


def test_a_pretrained_network_regresses_on_the_targets():
    """A linear layer on its features explains them, as it cannot on the inputs."""
    config = {"width": 16, "output_scale": 1.0, "steps": 1}

    def unexplained(pretraining: int) -> float:
        model = SURROGATES["dkl"].build(X, Y, config=config | {"pretraining": pretraining}, seed=0)
        model.eval()
        with torch.no_grad():
            phi = model.covar_module.features(model.train_inputs[0])
            design = torch.cat([phi, torch.ones_like(phi[:, :1])], dim=-1)
            y = model.train_targets.unsqueeze(-1)
            return (y - design @ torch.linalg.lstsq(design, y).solution).square().mean().item()

    assert unexplained(200) < 0.5 * unexplained(0)


def test_the_joint_search_raises_the_posterior_of_weights_and_hyperparameters(fitted):
    """Its objective is the marginal likelihood plus log priors, highest where it ends."""
    first = SURROGATES["dkl"].build(X, Y, config={"width": 16, "steps": 1}, seed=0)
    key = "log_marginal_likelihood_per_point"
    assert fitted.diagnostics.values[key] > first.diagnostics.values[key]


def test_a_warm_start_goes_on_from_the_earlier_network(fitted):
    config = fitted.config.replace(steps=30)
    again = SURROGATES["dkl"].build(X, Y, config=config, seed=5, warm_start=fitted)
    assert torch.equal(again.covar_module.centre, fitted.covar_module.centre)
    key = "log_marginal_likelihood_per_point"
    assert again.diagnostics.values[key] >= fitted.diagnostics.values[key] - 1e-6
    cold = SURROGATES["dkl"].build(X, Y, config=config, seed=5)
    assert not torch.equal(cold.covar_module.centre, fitted.covar_module.centre)


def test_plain_features_are_as_many_as_asked_for():
    config = {
        "extractor": "plain",
        "latent_dimension": 5,
        "width": 8,
        "steps": 10,
        "lipschitz": 3.0,
    }
    model = SURROGATES["dkl"].build(X, torch.cat([Y, -Y], dim=-1), config=config, seed=0)
    assert model.covar_module.features(TEST).shape == (2, 30, 5)
    assert torch.isfinite(model.posterior(TEST).mean).all()
    with pytest.raises(InputError, match="latent_dimension"):
        SURROGATES["dkl"].build(X, Y, config={"latent_dimension": 3})


def test_noise_stays_above_its_bound_on_outcomes_without_noise():
    smooth = X.sum(dim=-1, keepdim=True)
    model = SURROGATES["dkl"].build(X, smooth, config={"width": 16, "steps": 60}, seed=0)
    assert model.likelihood.noise.item() >= 1e-4 * (1 - 1e-5)
    assert (model.posterior(TEST).mean - TEST.sum(dim=-1, keepdim=True)).abs().max() < 0.05
