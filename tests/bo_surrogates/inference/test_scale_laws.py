"""Laws of the scale against SciPy's, and their evidences and posteriors against quadrature."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import burr12, invgamma, lognorm
from torch import Tensor

from bo_surrogates.inference.scale_laws import (
    BurrXII,
    GridLaw,
    InverseGamma,
    LogNormal,
    ScaleLaw,
    spread,
)

DFS = [2.1, 3.0, 10.0, 300.0]
# Observations and quadratic forms: none, one, few, many; small, as expected, and large.
DATA = [(0, 0.0), (1, 0.3), (6, 1e-3), (6, 6.0), (6, 500.0), (200, 350.0), (3000, 2000.0)]


def double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def make(name: str, df: float) -> ScaleLaw:
    v = double(df)
    match name:
        case "burr":
            return BurrXII.of_spread(v, 1.0)
        case "skewed burr":
            return BurrXII.of_spread(v, 4.0)
        case "log-normal":
            return LogNormal.of_spread(v)
        case _:
            return InverseGamma(v)


def of_scipy(law: ScaleLaw) -> object:
    if isinstance(law, BurrXII):
        c, k = law.c.item(), law.k.item()
        return burr12(c, k, scale=1 / burr12(c, k).mean())
    if isinstance(law, LogNormal):
        t = law.std.item()
        return lognorm(t, scale=np.exp(-(t**2) / 2))
    assert isinstance(law, InverseGamma)
    return invgamma(law.df.item() / 2, scale=law.df.item() / 2 - 1)


NAMES = ["inverse-gamma", "burr", "skewed burr", "log-normal"]
GRIDS = NAMES[1:]


def integral(
    law: ScaleLaw, n: int, r: float, value: Callable[[float], float] | None = None
) -> float:
    """Of p(s2) (s2 / s)^(-n/2) exp(-r / (2 s2)) value(s2), over log s2, s = max(r / n, 1e-6).

    Pieces about the mode, found by brute force, for SciPy to see a narrow peak.
    """
    s = max(r / max(n, 1), 1e-6)

    def log_integrand(u: np.ndarray) -> np.ndarray:
        prior = law.log_density(torch.as_tensor(u)).numpy()
        return prior - n / 2 * (u - np.log(s)) - r / 2 * np.exp(-u)

    coarse = np.linspace(-60, 60, 120_001)
    values = log_integrand(coarse)
    peak = values.max()
    inside = coarse[values > peak - 50]
    ends = np.linspace(inside[0], inside[-1], 41)
    total = 0.0
    for a, b in pairwise(ends):

        def integrand(u: float) -> float:
            weight = float(np.exp(log_integrand(np.array(u)) - peak))
            return weight if value is None else weight * value(np.exp(u))

        total += quad(integrand, a, b, epsabs=0, epsrel=1e-10)[0]
    return float(np.log(total) + peak - n / 2 * np.log(s))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("df", DFS)
def test_laws_are_scipys_of_mean_one(name: str, df: float) -> None:
    law = make(name, df)
    reference = of_scipy(law)
    s2 = np.geomspace(1e-3, 1e2, 12)
    ours = law.log_density(torch.as_tensor(np.log(s2))).numpy() - np.log(s2)
    np.testing.assert_allclose(ours, reference.logpdf(s2), rtol=1e-8, atol=1e-8)
    assert reference.mean() == pytest.approx(1.0, rel=1e-8)


@pytest.mark.parametrize("name", NAMES)
def test_equal_degrees_of_freedom_are_equal_spreads_of_the_logarithm(name: str) -> None:
    for df in (3.0, 10.0):
        law = make(name, df)

        def moment(power: int, law: ScaleLaw = law) -> float:
            return quad(
                lambda u: u**power * np.exp(law.log_density(double(u)).item()), -40, 60, limit=300
            )[0]

        variance = moment(2) - moment(1) ** 2
        assert np.sqrt(variance) == pytest.approx(spread(double(df)).item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "r"), DATA)
def test_evidence_is_the_integral_over_the_scale(name: str, n: int, r: float) -> None:
    law = make(name, 3.0)
    ours = law.log_evidence(n, double(r)).item()
    assert ours == pytest.approx(integral(law, n, r), rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("df", [2.1, 300.0])
def test_evidence_of_wide_and_narrow_laws(name: str, df: float) -> None:
    law = make(name, df)
    for n, r in [(0, 0.0), (1, 0.3), (6, 500.0)]:
        ours = law.log_evidence(n, double(r)).item()
        assert ours == pytest.approx(integral(law, n, r), rel=1e-7, abs=1e-7)


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize(("n", "r"), DATA[1:])
def test_posterior_of_the_scale_has_the_moments_of_the_integral(
    name: str, n: int, r: float
) -> None:
    law = make(name, 3.0)
    assert isinstance(law, GridLaw)
    grid = law.posterior(n, double(r))
    assert grid.log_weight.exp().sum().item() == pytest.approx(1.0, rel=1e-12)
    norm = integral(law, n, r)
    for power in (1.0, 0.5, -1.0):
        ours = (grid.log_weight + power * grid.log_scale).logsumexp(dim=-1).item()
        exact = integral(law, n, r, lambda s2, power=power: s2**power) - norm
        assert ours == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("name", GRIDS)
def test_evidence_is_the_mean_of_the_likelihood_over_draws_from_the_prior(name: str) -> None:
    law, n, r, k = make(name, 4.0), 5, 7.0, 400_000
    s2 = of_scipy(law).rvs(size=k, random_state=np.random.default_rng(0))
    values = s2 ** (-n / 2) * np.exp(-r / (2 * s2))  # bounded: their mean is nearly normal
    exact = np.exp(law.log_evidence(n, double(r)).item())
    assert abs(values.mean() - exact) < 6 * values.std() / np.sqrt(k)


@pytest.mark.parametrize("name", NAMES)
def test_laws_of_a_batch_are_those_of_its_elements(name: str) -> None:
    df, r = torch.tensor([3.0, 8.0]).double(), torch.tensor([[2.0, 9.0], [4.0, 1.0]]).double()
    both = {
        "burr": BurrXII.of_spread(df, 1.0),
        "skewed burr": BurrXII.of_spread(df, 4.0),
        "log-normal": LogNormal.of_spread(df),
    }.get(name, InverseGamma(df))
    values = both.log_evidence(4, r)
    points = both.unsqueeze().log_evidence(4, r[0].expand(2, 2))
    for i in range(2):
        alone = make(name, df[i].item())
        torch.testing.assert_close(values[:, i], alone.log_evidence(4, r[:, i]))
        torch.testing.assert_close(points[i], alone.log_evidence(4, r[0]))


@pytest.mark.parametrize("name", NAMES)
def test_gradient_of_the_evidence_equals_finite_differences(name: str) -> None:
    """It is minus half the posterior mean of 1 / s2."""
    law = make(name, 3.0)
    r = torch.tensor([0.5, 4.0, 300.0], dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda r: law.log_evidence(7, r), r)
    if isinstance(law, GridLaw):
        (gradient,) = torch.autograd.grad(law.log_evidence(7, r).sum(), r)
        grid = law.posterior(7, r.detach())
        inverse = (grid.log_weight - grid.log_scale).logsumexp(dim=-1).exp()
        torch.testing.assert_close(gradient, -0.5 * inverse)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_and_dtypes(name: str) -> None:
    law = make(name, 3.0)
    r = torch.tensor([0.0, 2.0])
    assert law.log_evidence(3, r).dtype == torch.float32
    assert torch.isfinite(law.log_evidence(3, r)).all()  # residuals of zero included
    if isinstance(law, GridLaw):
        u = torch.tensor([-7.0, -0.5, 0.0, 3.0], dtype=torch.float64, requires_grad=True)
        (slope,) = torch.autograd.grad(law.log_density(u).sum(), u)
        torch.testing.assert_close(law.slope(u.detach()), slope)
        grid = law.posterior(3, r)
        assert grid.log_scale.dtype == grid.log_weight.dtype == torch.float32
        assert (grid.log_scale.diff(dim=-1) > 0).all()
