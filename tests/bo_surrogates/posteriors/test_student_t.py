"""The multivariate-t posterior against SciPy, and its samples against their exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.sampling.get_sampler import get_sampler
from botorch.sampling.normal import IIDNormalSampler
from scipy.stats import chi2, f, norm, t
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.scale_mixture import ScaleMixtureSampler
from bo_surrogates.posteriors.student_t import (
    StudentTPosterior,
    scale_multiplier,
    student_t_cdf,
    student_t_quantile,
)
from bo_surrogates.seeding import fixed_seed

DRAWS = 20_000
LEVELS = torch.tensor([[0.001, 0.3], [0.5, 0.99]], dtype=torch.float64)


def kolmogorov_smirnov_bound(n: int) -> float:
    """Exceeded with probability below 1e-7 under the truth (Dvoretzky-Kiefer-Wolfowitz)."""
    return math.sqrt(math.log(2e7) / (2 * n))


def distance(values: np.ndarray, cdf: object) -> float:
    """Kolmogorov-Smirnov distance between a sample and a distribution function."""
    u = np.sort(cdf(values))  # type: ignore[operator]
    steps = np.arange(len(u) + 1) / len(u)
    return float(max((u - steps[:-1]).max(), (steps[1:] - u).max()))


def make(
    *batch: int, q: int = 3, df: tuple[float, ...] = (3.5, 7.0), shared: bool = False
) -> StudentTPosterior:
    generator = torch.Generator().manual_seed(0)
    m = len(df)
    loc = torch.randn(*batch, q, m, generator=generator, dtype=torch.float64)
    root = torch.randn(*batch, m, q, q, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + 0.2 * torch.eye(q, dtype=torch.float64)
    unit = torch.tensor([2.0, 0.1], dtype=torch.float64)[:m]
    return StudentTPosterior(loc, matrix, torch.tensor(df, dtype=torch.float64), unit, shared)


def whitened(posterior: StudentTPosterior, samples: Tensor) -> Tensor:
    """L^-1 (y - loc): `n x m x q`."""
    deviation = (samples - posterior.loc).mT.unsqueeze(-1)
    return torch.linalg.solve_triangular(posterior.scale_tril, deviation, upper=False).squeeze(-1)


# ---- marginal distributions ----------------------------------------------------------------------
def test_marginals_are_scipys_student_t() -> None:
    posterior = make(2)
    scale = (posterior.unit * posterior.scale_matrix.diagonal(dim1=-2, dim2=-1).mT.sqrt()).numpy()
    reference = t(posterior.df.numpy(), posterior.loc.numpy(), scale)
    np.testing.assert_allclose(posterior.mean, reference.mean())
    np.testing.assert_allclose(posterior.variance, reference.var())
    y = posterior.loc + 1.5 * posterior.scale
    np.testing.assert_allclose(posterior.density(y), reference.pdf(y))
    np.testing.assert_allclose(posterior.cdf(y), reference.cdf(y))
    quantiles = posterior.quantile(LEVELS)
    assert quantiles.shape == (2, 2, 2, 3, 2)
    for i, j in np.ndindex(2, 2):
        np.testing.assert_allclose(quantiles[i, j], reference.ppf(LEVELS[i, j]), rtol=1e-9)


def test_moments_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="variance for df > 2"):
        make(df=(2.0, 5.0)).variance  # noqa: B018
    with pytest.raises(UnsupportedError, match="mean for df > 1"):
        make(df=(1.0, 5.0)).mean  # noqa: B018


def test_distribution_function_has_the_density_as_derivative() -> None:
    z = torch.tensor([-40.0, -2.0, -0.1, 0.0, 0.7, 9.0], dtype=torch.float64, requires_grad=True)
    for df in (1.3, 4.0, 250.0):
        v = torch.tensor(df, dtype=torch.float64)
        torch.autograd.gradcheck(lambda z, v=v: student_t_cdf(z, v), z, atol=1e-8)
        torch.autograd.gradgradcheck(lambda z, v=v: student_t_cdf(z, v), z, atol=1e-7)
        (slope,) = torch.autograd.grad(student_t_cdf(z, v).sum(), z)
        np.testing.assert_allclose(slope, t.pdf(z.detach().numpy(), df), rtol=1e-10)


@pytest.mark.parametrize("df", [2.5, 1e3, 1e6])
def test_log_densities_in_float32_keep_their_digits(df: float) -> None:
    posterior = make(df=(df, df))
    single = StudentTPosterior(
        posterior.loc.float(),
        posterior.scale_matrix.float(),
        posterior.df.float(),
        posterior.unit.float(),
    )
    y = posterior.loc + 1.5 * posterior.scale
    reference = t.logpdf(y, df, posterior.loc, posterior.scale)
    assert single.log_density(y.float()).dtype == torch.float32
    np.testing.assert_allclose(single.log_density(y.float()), reference, rtol=0, atol=1e-4)
    np.testing.assert_allclose(posterior.log_density(y), reference, rtol=0, atol=1e-8)


def test_quantile_function_inverts_the_distribution_function() -> None:
    z = torch.linspace(-20, 5, 11, dtype=torch.float64)
    v = torch.tensor(3.3, dtype=torch.float64)
    torch.testing.assert_close(student_t_quantile(student_t_cdf(z, v), v), z, rtol=1e-8, atol=1e-8)


# ---- samples -------------------------------------------------------------------------------------
def test_a_sample_is_the_stated_function_of_its_base_sample() -> None:
    posterior = make(2)
    base = torch.randn(5, *posterior.base_sample_shape, dtype=torch.float64)
    samples = posterior.rsample_from_base_samples(torch.Size([5]), base)
    for draw, batch, output in np.ndindex(5, 2, 2):
        z = base[draw, batch, :, output].numpy()
        df = posterior.df[output].item()
        # One chi-square variable for all q points.
        w = chi2.ppf(norm.cdf(z[0]), df)
        root = np.linalg.cholesky(posterior.scale_matrix[batch, output].numpy())
        deviation = posterior.unit[output].item() * np.sqrt(df / w) * (root @ z[1:])
        expected = posterior.loc[batch, :, output].numpy() + deviation
        np.testing.assert_allclose(samples[draw, batch, :, output], expected, rtol=1e-9)


@pytest.mark.parametrize("shared", [False, True])
def test_joint_samples_have_the_law_of_the_multivariate_t(shared: bool) -> None:
    """d' Sigma^-1 d / q has Fisher's distribution with (q, df) degrees of freedom; so has every
    linear combination of the points a Student-t distribution."""
    posterior = make(df=(4.0, 4.0), shared=shared)
    with fixed_seed(0):
        samples = posterior.rsample(torch.Size([DRAWS]))
    bound = kolmogorov_smirnov_bound(DRAWS)
    z = whitened(posterior, samples)
    for j in range(2):
        assert distance(z[:, j].square().mean(dim=-1).numpy(), f(3, 4.0).cdf) < bound
        direction = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
        combination = z[:, j] @ direction / direction.norm()
        assert distance(combination.numpy(), t(4.0).cdf) < bound
    # The test has teeth: independent scales at the q points would be seen.
    apart = np.random.default_rng(0).standard_t(4.0, size=(DRAWS, 3))
    assert distance((apart**2).mean(axis=-1), f(3, 4.0).cdf) > bound


def test_outputs_have_scales_of_their_own_unless_they_share_one() -> None:
    bound = kolmogorov_smirnov_bound(DRAWS)
    for shared in (False, True):
        posterior = make(df=(4.0, 4.0), shared=shared)
        with fixed_seed(1):
            z = whitened(posterior, posterior.rsample(torch.Size([DRAWS])))
        levels = f(3, 4.0).cdf(z.square().mean(dim=-1).numpy())  # n x m, uniform
        gap = np.abs(levels[:, 0] - levels[:, 1])  # P(gap <= x) = 1 - (1 - x)^2 if independent
        assert (distance(gap, lambda x: 1 - (1 - x) ** 2) < bound) is not shared
        joint = distance(z.square().mean(dim=(-2, -1)).numpy(), f(6, 4.0).cdf)
        assert (joint < bound) is shared


def test_quasi_random_samples_have_the_same_law() -> None:
    posterior = make()
    n = 4096
    samples = get_sampler(posterior, torch.Size([n]), seed=0)(posterior)
    assert isinstance(get_sampler(posterior, torch.Size([8]), seed=0), ScaleMixtureSampler)
    z = whitened(posterior, samples)
    for j, df in enumerate(posterior.df.tolist()):
        radius = z[:, j].square().mean(dim=-1).numpy()
        # Independent draws stay below the bound; a Sobol sequence is far below it.
        assert distance(radius, f(3, df).cdf) < 0.5 * kolmogorov_smirnov_bound(n)


def test_botorchs_own_normal_samplers_work_too() -> None:
    posterior = make()
    samples = IIDNormalSampler(torch.Size([DRAWS]), seed=0)(posterior)
    z = whitened(posterior, samples)[:, 0]
    assert distance(z.square().mean(dim=-1).numpy(), f(3, 3.5).cdf) < kolmogorov_smirnov_bound(
        DRAWS
    )


def test_many_points_are_sampled_without_a_sobol_sequence() -> None:
    q = m = 146  # base samples of (q + 1) m dimensions
    assert (q + 1) * m > SobolEngine.MAXDIM
    eye = torch.eye(q, dtype=torch.float64).expand(m, q, q)
    posterior = StudentTPosterior(torch.zeros(q, m).double(), eye, torch.full((m,), 5.0))
    samples = get_sampler(posterior, torch.Size([2]), seed=0)(posterior)
    assert samples.shape == (2, q, m)
    assert torch.isfinite(samples).all()


def test_base_samples_shared_by_batches_equal_their_copies() -> None:
    posterior = make(3)
    base = torch.randn(5, 1, 4, 2, dtype=torch.float64).expand(5, 3, 4, 2)
    shape = torch.Size([5])
    torch.testing.assert_close(
        posterior.rsample_from_base_samples(shape, base),
        posterior.rsample_from_base_samples(shape, base.contiguous()),
        rtol=0,
        atol=0,
    )


def test_the_chi_square_variable_is_exact_in_both_tails() -> None:
    z = torch.tensor([-8.0, -3.0, -1.0, 0.0, 2.0, 8.0], dtype=torch.float64).unsqueeze(-1)
    for df in (1.0, 3.0, 100.0):
        ours = scale_multiplier(z, torch.tensor([df], dtype=torch.float64)).squeeze(-1)
        z0 = z.squeeze(-1).numpy()
        w = np.where(z0 < 0, chi2.ppf(norm.cdf(z0), df), chi2.isf(norm.sf(z0), df))
        np.testing.assert_allclose(ours, np.sqrt(df / w), rtol=1e-9)


def test_samples_become_gaussian_as_df_grows() -> None:
    posterior = make(df=(1e8, 1e8))
    base = torch.randn(50, 4, 2, dtype=torch.float64)
    samples = posterior.rsample_from_base_samples(torch.Size([50]), base)
    z = whitened(posterior, samples)
    torch.testing.assert_close(z, base[:, 1:].mT, rtol=1e-3, atol=1e-9)


def test_samples_are_differentiable_in_location_and_scale() -> None:
    loc = torch.randn(3, 1, dtype=torch.float64, requires_grad=True)
    root = (torch.randn(1, 3, 3, dtype=torch.float64) + 2 * torch.eye(3)).requires_grad_()
    base = torch.randn(4, 4, 1, dtype=torch.float64)

    def sample(loc: Tensor, root: Tensor) -> Tensor:
        posterior = StudentTPosterior(loc, root @ root.mT, torch.tensor([3.0]))
        return posterior.rsample_from_base_samples(torch.Size([4]), base)

    torch.autograd.gradcheck(sample, (loc, root))


# ---- affine maps ---------------------------------------------------------------------------------
def test_rescaling_maps_quantiles_and_draws() -> None:
    posterior = make(2)
    factor, offset = torch.tensor([-3.0, 1e-6]).double(), torch.tensor([1.0, -5.0]).double()
    mapped = posterior.rescale(factor, offset)
    torch.testing.assert_close(mapped.variance, factor**2 * posterior.variance)
    p = torch.tensor(0.2, dtype=torch.float64)
    torch.testing.assert_close(
        mapped.quantile(p)[..., 0], 1.0 - 3.0 * posterior.quantile(1 - p)[..., 0]
    )
    torch.testing.assert_close(
        mapped.quantile(p)[..., 1], -5.0 + 1e-6 * posterior.quantile(p)[..., 1]
    )
    base = torch.randn(4, *posterior.base_sample_shape, dtype=torch.float64)
    samples = [p.rsample_from_base_samples(torch.Size([4]), base) for p in (posterior, mapped)]
    torch.testing.assert_close(samples[1], offset + factor * samples[0])


def test_selecting_outputs_keeps_their_draws() -> None:
    posterior = make(2)
    base = torch.randn(4, *posterior.base_sample_shape, dtype=torch.float64)
    samples = posterior.rsample_from_base_samples(torch.Size([4]), base)
    part = posterior.select([1, 0])
    torch.testing.assert_close(
        part.rsample_from_base_samples(torch.Size([4]), base.flip(-1)), samples.flip(-1)
    )


def test_a_weighted_sum_of_outputs_with_one_scale_is_student_t() -> None:
    posterior = make(df=(4.0, 4.0), shared=True)
    weights = torch.tensor([0.5, -8.0], dtype=torch.float64)
    scalar = posterior.scalarize(weights, offset=3.0)
    assert scalar.mean.shape == (3, 1)
    with fixed_seed(2):
        samples = posterior.rsample(torch.Size([DRAWS])) @ weights + 3.0
    z = whitened(scalar, samples.unsqueeze(-1)).squeeze(-2)
    bound = kolmogorov_smirnov_bound(DRAWS)
    assert distance(z.square().mean(dim=-1).numpy(), f(3, 4.0).cdf) < bound
    for point in range(3):
        marginal = t(4.0, scalar.loc[point, 0].item(), scalar.scale[point, 0].item())
        assert distance(samples[:, point].numpy(), marginal.cdf) < bound


def test_a_weight_on_one_output_maps_its_draws() -> None:
    posterior = make(2)
    scalar = posterior.scalarize(torch.tensor([0.0, -2.0]), offset=1.0)
    base = torch.randn(4, *posterior.base_sample_shape, dtype=torch.float64)
    samples = posterior.rsample_from_base_samples(torch.Size([4]), base)
    torch.testing.assert_close(
        scalar.rsample_from_base_samples(torch.Size([4]), base[..., 1:]), 1 - 2 * samples[..., 1:]
    )


def test_a_weighted_sum_that_is_not_student_t_is_refused_with_an_alternative() -> None:
    with pytest.raises(UnsupportedError, match="LinearMCObjective"):
        make().scalarize(torch.tensor([1.0, 1.0]))
    with pytest.raises(UnsupportedError, match="not zero"):
        make().scalarize(torch.tensor([0.0, 0.0]))


# ---- mistakes ------------------------------------------------------------------------------------
def test_shapes_and_degrees_of_freedom_that_do_not_fit_are_refused() -> None:
    good = make()
    with pytest.raises(InputError, match=r"scale_matrix must have shape \(2, 3, 3\)"):
        StudentTPosterior(good.loc, good.scale_matrix[:1], good.df)
    with pytest.raises(InputError, match="df must hold 2 positive"):
        StudentTPosterior(good.loc, good.scale_matrix, torch.tensor([3.0, 0.0]))
    with pytest.raises(InputError, match="share a scale have equal df"):
        StudentTPosterior(good.loc, good.scale_matrix, good.df, shared_scale=True)
    with pytest.raises(InputError, match=r"base_samples must have shape \(4, 4, 2\)"):
        good.rsample_from_base_samples(torch.Size([4]), torch.randn(4, 3, 2))
