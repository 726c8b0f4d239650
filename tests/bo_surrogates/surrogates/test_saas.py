"""What is `saas`'s own: the log posterior, the inputs that matter, the chains."""

import pytest
import torch
from botorch.models.map_saas import add_saas_prior
from gpytorch.kernels import MaternKernel
from torch.distributions import Gamma, HalfCauchy, MultivariateNormal, Normal

from bo_surrogates.errors import FitWarning, InputError
from bo_surrogates.inference.saas import SaasPosterior, unpack
from bo_surrogates.surrogates import SURROGATES, load_surrogate

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(40, 20, generator=GENERATOR, dtype=torch.float64)
ACTIVE = [3, 11]


def function(X):
    return torch.sin(6 * X[:, 3:4]) + 2 * X[:, 11:12].square()


Y = function(X) + 0.05 * torch.randn(40, 1, generator=GENERATOR, dtype=torch.float64)
TEST = torch.rand(60, 20, generator=GENERATOR, dtype=torch.float64)
CONFIGS = {"map": {}, "hmc": {"inference": "hmc", "warmup": 60, "samples": 60}}


@pytest.fixture(scope="module", params=list(CONFIGS))
def model(request):
    return SURROGATES["saas"].build(X, Y, config=CONFIGS[request.param], seed=0)


@pytest.mark.parametrize("known", [False, True], ids=["inferred", "known"])
def test_the_log_posterior_is_that_of_the_papers_model(known):
    """Against torch's distributions, with the Jacobians of the logarithms."""
    y = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    points = X[:6, :3]
    variance = torch.linspace(0.1, 0.5, 6, dtype=torch.float64) if known else None
    position = torch.randn(4, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found, gradient = SaasPosterior(points, y, variance)(position)
    expected = []
    for row in position:
        r, t, v, noise = row[:3].exp(), row[3].exp(), row[4].exp(), row[5].exp()
        one = torch.tensor(1.0, dtype=torch.float64)
        prior = HalfCauchy(one).log_prob(r).sum() + HalfCauchy(0.1 * one).log_prob(t)
        prior += Gamma(2.0 * one, 0.15 * one).log_prob(v)
        prior += Gamma(0.9 * one, 10.0 * one).log_prob(noise)
        prior += Normal(0.0 * one, one).log_prob(row[6]) + row[:6].sum()
        kernel = MaternKernel(nu=2.5, ard_num_dims=3).double()
        kernel.lengthscale = (t * r).rsqrt()
        diagonal = variance if known else (noise + 1e-4).expand(6)
        S = v * kernel(points).to_dense().detach() + diagonal.diag()
        expected.append(prior + MultivariateNormal(row[6].expand(6), S).log_prob(y))
    difference = found - torch.stack(expected)
    torch.testing.assert_close(difference, difference[:1].expand(4), atol=1e-5, rtol=0)
    shift = torch.zeros(4, 7, dtype=torch.float64)
    shift[:, 1] = 1e-5
    density = SaasPosterior(points, y, variance)
    slope = (density(position + shift)[0] - density(position - shift)[0]) / 2e-5
    torch.testing.assert_close(gradient[:, 1], slope, atol=1e-5, rtol=1e-5)


def test_the_prior_of_map_is_botorchs():
    """log r_j and a given t: the density that BoTorch's helper registers."""
    kernel = add_saas_prior(MaternKernel(nu=2.5, ard_num_dims=2).double(), tau=0.3)
    kernel.lengthscale = torch.tensor([0.5, 2.0], dtype=torch.float64)
    (prior,) = (p for p in kernel.named_priors())
    _, module, distribution, closure, _ = prior
    value = distribution.log_prob(closure(module)).sum()
    r = 0.3 / kernel.lengthscale.square()  # what BoTorch gives a HalfCauchy(1) distribution
    expected = HalfCauchy(torch.tensor(1.0, dtype=torch.float64)).log_prob(r).sum()
    torch.testing.assert_close(value, expected)


def test_the_inputs_that_matter_are_found(model):
    order = model.lengthscales.log().mean(dim=0).argsort().tolist()
    assert sorted(order[:2]) == ACTIVE
    shortest = model.lengthscales[:, order[2:]].log().mean(dim=0).min()
    assert shortest > model.lengthscales[:, ACTIVE].log().mean(dim=0).max() + 1.0
    error = (model.posterior(TEST).mean - function(TEST)).square().mean().sqrt()
    assert error < 0.12 * function(TEST).std()


def test_the_mixture_is_the_mean_over_members_of_their_exact_posteriors(model):
    """Each member by dense linear algebra."""
    members = model.members
    with torch.no_grad():
        joint = torch.cat([X, TEST[:3]]).expand(len(model.lengthscales), -1, -1)
        K = members.covar_module(joint).to_dense()
        noise = members.likelihood.noise_covar.noise[..., None] * torch.eye(40).double()
        c = members.mean_module.constant[:, None, None]
        y = model.outcome_transform(Y)[0]
        gain = torch.linalg.solve(K[:, :40, :40] + noise, K[:, :40, 40:]).mT
        mean = (c + gain @ (y - c)).mean(dim=0)
        expected, _ = model.outcome_transform.untransform(mean)
    torch.testing.assert_close(model.posterior(TEST[:3]).mean, expected, atol=1e-5, rtol=0)


def test_chains_agree_and_say_so(model):
    if model.config.inference == "hmc":
        values = model.diagnostics.values
        assert 1.0 <= values["max_r_hat"] < 1.2
        assert values["divergences"] == 0
    assert model.diagnostics.converged


def test_chains_that_disagree_are_reported():
    config = {"inference": "hmc", "warmup": 10, "samples": 4, "max_r_hat": 1.0}
    with pytest.warns(FitWarning, match="R-hat"):
        short = SURROGATES["saas"].build(X, Y, config=config, seed=0)
    assert torch.isfinite(short.posterior(TEST).mean).all()


def test_drawn_hyperparameters_are_saved(model, tmp_path):
    model.save(tmp_path / "m.safetensors")
    loaded = load_surrogate(tmp_path / "m.safetensors")
    assert torch.equal(loaded.posterior(TEST).mean, model.posterior(TEST).mean)
    assert torch.equal(loaded.lengthscales, model.lengthscales)


def test_known_variances_reach_the_chains():
    variances = torch.full_like(Y, 1e-4)
    variances[0] = 1e4
    shifted = Y.clone()
    shifted[0] += 5.0
    model = SURROGATES["saas"].build(X, shifted, variances, config=CONFIGS["hmc"], seed=0)
    assert abs(model.posterior(X[:1]).mean - function(X[:1])) < 1.0


def test_positions_are_hyperparameters():
    position = torch.tensor([[0.2, -0.4, 0.6, 0.1, -3.0, 0.5]], dtype=torch.float64)
    found = unpack(position)
    expected = torch.exp(-0.5 * torch.tensor([[0.8, 0.2]], dtype=torch.float64))
    torch.testing.assert_close(found.lengthscale, expected)
    assert found.noise.item() == pytest.approx(1e-4 + torch.tensor(-3.0).double().exp().item())


def test_one_output_is_what_there_is(model):
    assert model.subset_output([0]) is model
    with pytest.raises(InputError, match="one output"):
        model.subset_output([1])
