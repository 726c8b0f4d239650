"""Acquisition functions for scale mixtures, by quadrature, samples and the normal limit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from botorch.acquisition.analytic import (
    LogExpectedImprovement,
    ProbabilityOfImprovement,
)
from botorch.acquisition.objective import ScalarizedPosteriorTransform
from scipy.integrate import quad
from scipy.stats import norm, t
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.scale_mixture import (
    ScaleMixtureAnalyticAcquisition,
    ScaleMixtureExpectedImprovement,
    ScaleMixtureLogExpectedImprovement,
    ScaleMixtureProbabilityOfImprovement,
    ScaleMixtureUpperConfidenceBound,
)
from bo_surrogates.errors import InputError
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective
from bo_surrogates.posteriors.student_t import log_improvement
from bo_surrogates.space import Float, Space
from bo_surrogates.surrogates import SURROGATES, Surrogate

X = torch.rand(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = 10 * ((X - 0.4) ** 2).sum(-1, keepdim=True) + 100
TEST = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture(scope="module")
def tp() -> Surrogate:
    """Of 3 + 5 degrees of freedom."""
    return SURROGATES["tp"].build(X, Y, seed=0, config={"df": 3.0})


@pytest.fixture(scope="module")
def almost_gp() -> Surrogate:
    return SURROGATES["tp"].build(X, Y, seed=0, config={"df": 1e6})


@pytest.fixture(scope="module")
def burr() -> Surrogate:
    """A finite mixture."""
    return SURROGATES["nngp_t"].build(X, Y, seed=0, config={"df": 3.0, "law": "burr"})


def log_improvement_by_quadrature(z: float, df: float) -> float:
    """log of the integral of y t(y - z) over y > 0, for z <= 0, relative to t(z)."""
    u, length = -z, (df + z * z) / ((df + 1) * max(-z, 1.0))

    def integrand(x: float) -> float:
        y = length * x
        return x * np.exp(
            -(df + 1) / 2 * np.log1p((2 * y * u + y * y) / (df + u * u))
        )  # t(y + u) / t(u)

    value, _ = quad(integrand, 0, np.inf, epsabs=0, epsrel=1e-11, limit=500)
    return float(np.log(value) + 2 * np.log(length) + t.logpdf(z, df))


@pytest.mark.parametrize("df", [1.5, 3.0, 20.0, 400.0, 1e6])
def test_log_improvement_is_the_integral_it_stands_for_far_into_the_tail(df: float) -> None:
    zs = [0.0, -0.5, -1.0, -2.999, -3.001, -7.0, -12.0, -40.0, -100.0, -1e4]
    ours = log_improvement(torch.tensor(zs, dtype=torch.float64), torch.tensor(df).double())
    expected = [log_improvement_by_quadrature(z, df) for z in zs]
    np.testing.assert_allclose(ours, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("df", [1.5, 3.0, 400.0])
def test_improvement_at_plus_and_minus_z_differ_by_z(df: float) -> None:
    """h(z) - h(-z) = z: the mean of a variable is that of its parts above and below zero."""
    z = torch.tensor([0.2, 0.9, 1.1, 5.0, 50.0], dtype=torch.float64)
    v = torch.tensor(df, dtype=torch.float64)
    torch.testing.assert_close(log_improvement(z, v).exp() - log_improvement(-z, v).exp(), z)


@pytest.mark.parametrize("df", [1.5, 3.0, 400.0, 1e6])
def test_gradient_of_the_log_improvement_equals_finite_differences(df: float) -> None:
    z = torch.tensor(
        [-1e3, -40.0, -5.0, -3.0 - 1e-5, -3.0 + 1e-5, -1.0, 0.0, 2.0, 30.0], dtype=torch.float64
    )
    v = torch.tensor(df, dtype=torch.float64)
    torch.autograd.gradcheck(lambda z: log_improvement(z, v), z.requires_grad_(), atol=1e-7)


def test_log_improvement_follows_the_dtype_and_batches() -> None:
    z = torch.linspace(-5, 5, 6).reshape(2, 3)
    single = log_improvement(z, torch.tensor(4.0))
    assert single.dtype == torch.float32
    double = log_improvement(z.double(), torch.tensor(4.0).double())
    torch.testing.assert_close(single.double(), double, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("maximize", [True, False])
def test_values_are_integrals_over_the_posterior(tp: Surrogate, maximize: bool) -> None:
    best = (Y.max() if maximize else Y.min()).item()
    options = {"maximize": maximize}
    with torch.no_grad():
        improvement = ScaleMixtureExpectedImprovement(tp, best, **options)(TEST)
        log_improvement = ScaleMixtureLogExpectedImprovement(tp, best, **options)(TEST)
        probability = ScaleMixtureProbabilityOfImprovement(tp, best, **options)(TEST)
        bound = ScaleMixtureUpperConfidenceBound(tp, 0.9, **options)(TEST)
        posterior = tp.posterior(TEST)
    torch.testing.assert_close(improvement.log(), log_improvement)
    for i in range(len(TEST)):
        marginal = t(8.0, posterior.loc[i, 0, 0].item(), posterior.scale[i, 0, 0].item())
        tail = marginal.sf if maximize else lambda y, m=marginal: m.cdf(2 * best - y)
        # E max(y - best, 0) is the integral of P(y > c) over c > best.
        integral, _ = quad(tail, best, np.inf, epsabs=1e-12, limit=500)
        assert improvement[i].item() == pytest.approx(integral, rel=1e-5, abs=1e-10)
        assert probability[i].item() == pytest.approx(tail(best), rel=1e-8)
        exact = marginal.ppf(0.9) if maximize else -marginal.ppf(0.1)
        assert bound[i].item() == pytest.approx(exact, rel=1e-10)


def test_monte_carlo_expected_improvement_agrees_with_the_closed_form(tp: Surrogate) -> None:
    config = AcquisitionConfig(name="qlogei", mc_samples=4096)
    minus = -torch.ones(1, 1, dtype=torch.float64)
    ours = make_acquisition(tp, config=config, weights=minus, X_baseline=X, seed=0)
    best = tp.posterior(X).mean.min()
    exact = ScaleMixtureLogExpectedImprovement(tp, best, maximize=False)(TEST)
    likely = exact > exact.max() - 3  # elsewhere EI is all tail, which samples cannot resolve
    assert likely.sum() >= 2
    torch.testing.assert_close(ours(TEST)[likely], exact[likely], atol=0.1, rtol=0)


def test_values_become_those_of_a_gaussian_as_df_grows(almost_gp: Surrogate) -> None:
    """BoTorch's functions read the mean and the variance, for a normal distribution."""
    best = Y.min().item()
    expected = ProbabilityOfImprovement(almost_gp, best, maximize=False)(TEST)
    actual = ScaleMixtureProbabilityOfImprovement(almost_gp, best, maximize=False)(TEST)
    torch.testing.assert_close(actual, expected, rtol=1e-3, atol=1e-6)
    expected = LogExpectedImprovement(almost_gp, best, maximize=False)(TEST)
    actual = ScaleMixtureLogExpectedImprovement(almost_gp, best, maximize=False)(TEST)
    near = expected > -50
    assert near.sum() >= 5
    torch.testing.assert_close(actual[near], expected[near], rtol=1e-3, atol=1e-3)
    improvement = ScaleMixtureExpectedImprovement(almost_gp, best, maximize=False)(TEST)
    torch.testing.assert_close(improvement, expected.exp(), rtol=1e-3, atol=1e-6)
    posterior = almost_gp.posterior(TEST)
    normal = posterior.mean + norm.ppf(0.9) * posterior.variance.sqrt()
    bound = ScaleMixtureUpperConfidenceBound(almost_gp, 0.9)(TEST)
    torch.testing.assert_close(bound, normal.reshape(-1), rtol=1e-5, atol=0)


@pytest.mark.parametrize("maximize", [True, False])
def test_values_of_a_finite_mixture_are_integrals_over_its_distribution(
    burr: Surrogate, maximize: bool
) -> None:
    """E max(y - best, 0) is the integral of P(y > c) over c > best."""
    best = (Y.max() if maximize else Y.min()).item()
    sign = 1 if maximize else -1
    with torch.no_grad():
        improvement = ScaleMixtureExpectedImprovement(burr, best, maximize=maximize)(TEST)
        log_improvement = ScaleMixtureLogExpectedImprovement(burr, best, maximize=maximize)(TEST)
        probability = ScaleMixtureProbabilityOfImprovement(burr, best, maximize=maximize)(TEST)
        bound = ScaleMixtureUpperConfidenceBound(burr, 0.9, maximize=maximize)(TEST)
        posterior = burr.posterior(TEST)
    torch.testing.assert_close(improvement.log(), log_improvement)
    s = (posterior.log_scale[0] / 2).exp().numpy()
    weight = posterior.log_weight[0].exp().numpy()
    for i in range(0, len(TEST), 4):
        location, scale = sign * posterior.loc[i, 0, 0].item(), posterior.scale[i, 0, 0].item()

        def survival(y: float, location: float = location, scale: float = scale) -> float:
            return float((weight * norm.sf((y - location) / (s * scale))).sum())

        widest = location + 40 * scale * s.max()
        value, _ = quad(survival, sign * best, widest, epsabs=1e-12, limit=500)
        assert improvement[i].item() == pytest.approx(value, rel=1e-5, abs=1e-10)
        assert probability[i].item() == pytest.approx(survival(sign * best), rel=1e-8)
        assert survival(bound[i].item()) == pytest.approx(0.1, rel=1e-8)


@pytest.mark.parametrize("maximize", [True, False])
@pytest.mark.parametrize("name", ["tp", "burr"])
def test_gradients_in_the_inputs_equal_finite_differences(
    name: str, maximize: bool, request: pytest.FixtureRequest
) -> None:
    tp = request.getfixturevalue(name)
    functions: list[ScaleMixtureAnalyticAcquisition] = [
        cls(tp, Y.mean(), maximize=maximize)
        for cls in (
            ScaleMixtureExpectedImprovement,
            ScaleMixtureLogExpectedImprovement,
            ScaleMixtureProbabilityOfImprovement,
        )
    ]
    functions.append(ScaleMixtureUpperConfidenceBound(tp, 0.8, maximize=maximize))
    for function in functions:
        points = TEST[:4].clone().requires_grad_()
        torch.autograd.gradcheck(function, points, eps=1e-5, atol=1e-4, rtol=1e-3)


def test_one_of_several_outcomes_is_chosen_by_a_scalarization(tp: Surrogate) -> None:
    other = torch.sin(7 * X[:, :1])
    two = SURROGATES["tp"].build(X, torch.cat([other, Y], -1), seed=0, config={"df": 3.0})
    choose = ScalarizedPosteriorTransform(torch.tensor([0.0, -1.0], dtype=torch.float64))
    best = Y.min()
    ours = ScaleMixtureLogExpectedImprovement(two, -best, posterior_transform=choose)(TEST)
    alone = two.subset_output([1])
    torch.testing.assert_close(
        ours, ScaleMixtureLogExpectedImprovement(alone, best, maximize=False)(TEST)
    )


def test_a_model_of_another_kind_is_refused() -> None:
    gp = SURROGATES["gp"].build(X, Y, seed=0)
    with pytest.raises(InputError, match="ScaleMixturePosterior"):
        ScaleMixtureExpectedImprovement(gp, 0.0)(TEST)


@pytest.mark.parametrize("level", [0.0, 1.0, float("nan")])
def test_levels_outside_the_unit_interval_are_refused(tp: Surrogate, level: float) -> None:
    with pytest.raises(InputError, match="level"):
        ScaleMixtureUpperConfidenceBound(tp, level)


@pytest.mark.parametrize("outcomes", [1, 2])
def test_the_loop_proposes_points_in_batches(outcomes: int) -> None:
    space = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
    columns: Tensor = torch.cat([Y, torch.sin(7 * X[:, :1])], -1)[:, :outcomes]
    proposal = propose(
        space,
        X,
        columns,
        objectives=[Objective(f"y{i}", "minimize") for i in range(outcomes)],
        surrogate="tp",
        acquisition=AcquisitionConfig(mc_samples=16, num_restarts=1, raw_samples=8, maxiter=10),
        q=2,
    )
    assert proposal.X.shape == (2, 2)
    for point in proposal.X:
        space.validate(space.decode(point))
    assert not torch.equal(*proposal.X)
