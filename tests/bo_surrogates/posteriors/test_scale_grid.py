"""The discrete scale mixture against sums of normal distributions, against the multivariate t that
a fine grid makes of it, and its samples against their exact laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.sampling.get_sampler import get_sampler
from scipy.stats import chi2, norm
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.scale_laws import InverseGamma
from bo_surrogates.posteriors.scale_grid import ScaleGridPosterior
from bo_surrogates.posteriors.scale_mixture import ScaleMixtureSampler
from bo_surrogates.posteriors.student_t import StudentTPosterior
from bo_surrogates.seeding import fixed_seed

DRAWS = 20_000
S2 = torch.tensor([[0.1, 1.0, 9.0], [0.5, 2.0, 40.0]], dtype=torch.float64)
WEIGHTS = torch.tensor([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1]], dtype=torch.float64)


def kolmogorov_smirnov_bound(n: int) -> float:
    """Exceeded with probability below 1e-7 under the truth (Dvoretzky-Kiefer-Wolfowitz)."""
    return math.sqrt(math.log(2e7) / (2 * n))


def distance(values: np.ndarray, cdf: object) -> float:
    """Kolmogorov-Smirnov distance between a sample and a distribution function."""
    u = np.sort(cdf(values))  # type: ignore[operator]
    steps = np.arange(len(u) + 1) / len(u)
    return float(max((u - steps[:-1]).max(), (steps[1:] - u).max()))


def parts(*batch: int, q: int = 3, m: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    loc = torch.randn(*batch, q, m, generator=generator, dtype=torch.float64)
    root = torch.randn(*batch, m, q, q, generator=generator, dtype=torch.float64)
    matrix = root @ root.mT + 0.2 * torch.eye(q, dtype=torch.float64)
    return loc, matrix, torch.tensor([2.0, 0.1], dtype=torch.float64)[:m]


def make(*batch: int, q: int = 3, shared: bool = False) -> ScaleGridPosterior:
    loc, matrix, unit = parts(*batch, q=q)
    s2, weights = (S2[:1].expand(2, -1), WEIGHTS[:1].expand(2, -1)) if shared else (S2, WEIGHTS)
    return ScaleGridPosterior(loc, matrix, s2.log(), weights.log(), unit, shared)


def whitened(posterior: ScaleGridPosterior, samples: Tensor) -> Tensor:
    """L^-1 (y - loc): `n x m x q`."""
    deviation = (samples - posterior.loc).mT.unsqueeze(-1)
    return torch.linalg.solve_triangular(posterior.scale_tril, deviation, upper=False).squeeze(-1)


def test_marginals_are_sums_of_normal_distributions() -> None:
    posterior = make(2)
    y = posterior.loc + 1.5 * posterior.scale
    scale = posterior.scale.unsqueeze(-1) * S2.sqrt()
    normal = norm(posterior.loc.unsqueeze(-1), scale)
    weights = WEIGHTS.numpy()
    np.testing.assert_allclose(posterior.mean, posterior.loc)
    np.testing.assert_allclose(posterior.variance, (weights * scale.numpy() ** 2).sum(-1))
    np.testing.assert_allclose(
        posterior.density(y), (weights * normal.pdf(y.unsqueeze(-1))).sum(-1)
    )
    np.testing.assert_allclose(posterior.cdf(y), (weights * normal.cdf(y.unsqueeze(-1))).sum(-1))


def test_quantiles_invert_the_distribution_function_into_both_tails() -> None:
    posterior = make(2)
    levels = torch.tensor([[1e-9, 0.02, 0.3], [0.5, 0.99, 1 - 1e-9]], dtype=torch.float64)
    quantiles = posterior.quantile(levels)
    assert quantiles.shape == (2, 3, 2, 3, 2)
    expected = levels[:, :, None, None, None].expand_as(quantiles)
    torch.testing.assert_close(posterior.cdf(quantiles), expected, rtol=1e-9, atol=1e-13)
    middle = posterior.quantile(torch.tensor(0.5, dtype=torch.float64))
    torch.testing.assert_close(middle, posterior.loc)


def test_on_a_fine_grid_of_the_inverse_gamma_law_it_is_the_student_t() -> None:
    """Nodes and weights by the trapezoidal rule: an independent way to all of the t's functions."""
    df = torch.tensor([5.0, 12.0], dtype=torch.float64)
    loc, matrix, unit = parts(2)
    u = torch.linspace(-6, 16, 1500, dtype=torch.float64).expand(2, -1)
    # InvGamma(v/2, v/2), of which the law of mean 1 is (v - 2) / v times.
    shift = (df / (df - 2)).log().unsqueeze(-1)
    weight = InverseGamma(df).unsqueeze().log_density(u - shift).log_softmax(dim=-1)
    grid = ScaleGridPosterior(loc, matrix, u, weight, unit)
    t = StudentTPosterior(loc, matrix, df, unit)
    z = torch.tensor([-30.0, -4.0, -1.0, 0.0, 0.6, 8.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    y = t.loc + z * t.scale
    torch.testing.assert_close(grid.variance, t.variance)
    torch.testing.assert_close(grid.log_density(y), t.log_density(y), rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(grid.cdf(y), t.cdf(y), rtol=1e-7, atol=1e-12)
    levels = torch.tensor([0.001, 0.3, 0.95], dtype=torch.float64)
    torch.testing.assert_close(grid.quantile(levels), t.quantile(levels), rtol=1e-7, atol=1e-9)
    improvement = grid.log_improvement(z.expand_as(y)), t.log_improvement(z.expand_as(y))
    torch.testing.assert_close(*improvement, rtol=1e-7, atol=1e-8)
    torch.testing.assert_close(grid.scale_tril, t.scale_tril)


def test_expected_improvement_and_distribution_have_correct_gradients() -> None:
    posterior = make()
    z = torch.tensor([-1e3, -40.0, -5.0, -1.0, 0.0, 2.0, 30.0], dtype=torch.float64)
    z = z.reshape(-1, 1, 1).expand(-1, 1, 2).clone().requires_grad_()
    for function in (
        posterior.log_improvement,
        posterior.standard_cdf,
        posterior.standard_log_density,
    ):
        torch.autograd.gradcheck(function, z, atol=1e-7)


@pytest.mark.parametrize("way", ["rsample", "sampler"])
@pytest.mark.parametrize("shared", [False, True])
def test_joint_samples_have_the_mixtures_law(shared: bool, way: str) -> None:
    """|L^-1 (y - loc)|^2 is s2 times a chi-square variable, of q degrees for an output and of q m
    for all that share s2."""
    posterior = make(shared=shared)
    shape = torch.Size([DRAWS])
    with fixed_seed(0):
        samples = (
            posterior.rsample(shape)
            if way == "rsample"
            else get_sampler(posterior, shape, seed=0)(posterior)
        )
    assert isinstance(get_sampler(posterior, shape, seed=0), ScaleMixtureSampler)
    squared = whitened(posterior, samples).square().sum(dim=-1).numpy()  # n x m
    bound = kolmogorov_smirnov_bound(DRAWS)

    def cdf(x: np.ndarray, output: int, degrees: int) -> np.ndarray:
        s2, weights = S2[output].numpy(), WEIGHTS[output].numpy()
        return (weights * chi2.cdf(x[:, None] / s2, degrees)).sum(axis=-1)

    for output in range(2):
        of = 0 if shared else output
        assert distance(squared[:, output], lambda x, of=of: cdf(x, of, 3)) < bound
    joint = distance(squared.sum(axis=-1), lambda x: cdf(x, 0, 6))
    assert (joint < bound) is shared
    # One s at all points: squares of whitened values at two points are correlated.
    z = whitened(posterior, samples)[:, 0].square().log()
    assert np.corrcoef(z[:, 0], z[:, 1])[0, 1] > 6 / math.sqrt(DRAWS)


def test_a_sample_is_the_stated_function_of_its_base_sample() -> None:
    posterior = make(2)
    base = torch.randn(
        5, *posterior.base_sample_shape, dtype=torch.float64,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    samples = posterior.rsample_from_base_samples(torch.Size([5]), base)
    for draw, batch, output in np.ndindex(5, 2, 2):
        z = base[draw, batch, :, output].numpy()
        node = int((norm.cdf(z[0]) > WEIGHTS[output].cumsum(0).numpy()[:-1]).sum())
        root = np.linalg.cholesky(posterior.scale_matrix[batch, output].numpy())
        deviation = posterior.unit[output].item() * S2[output, node].sqrt().item() * root @ z[1:]
        expected = posterior.loc[batch, :, output].numpy() + deviation
        np.testing.assert_allclose(samples[draw, batch, :, output], expected, rtol=1e-9)


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


def test_laws_that_differ_between_batches_are_those_of_each_batch() -> None:
    """As after conditioning on a batch of fantasies."""
    loc, matrix, unit = parts(2)
    s2 = torch.stack([S2, 3 * S2.flip(0)])
    weights = torch.stack([WEIGHTS, WEIGHTS.flip(0)])
    both = ScaleGridPosterior(loc, matrix, s2.log(), weights.log(), unit)
    base = torch.randn(6, *both.base_sample_shape, dtype=torch.float64)
    levels = torch.tensor([0.1, 0.8], dtype=torch.float64)
    shape = torch.Size([6])
    for i in range(2):
        one = ScaleGridPosterior(loc[i], matrix[i], s2[i].log(), weights[i].log(), unit)
        torch.testing.assert_close(both.variance[i], one.variance)
        torch.testing.assert_close(both.quantile(levels)[:, i], one.quantile(levels))
        torch.testing.assert_close(both.log_density(loc + 1)[i], one.log_density(loc[i] + 1))
        torch.testing.assert_close(
            both.rsample_from_base_samples(shape, base)[:, i],
            one.rsample_from_base_samples(shape, base[:, i].contiguous()),
        )


def test_affine_maps_and_selections_keep_the_law() -> None:
    posterior = make(2)
    factor, offset = torch.tensor([-3.0, 1e-6]).double(), torch.tensor([1.0, -5.0]).double()
    mapped = posterior.rescale(factor, offset)
    torch.testing.assert_close(mapped.variance, factor**2 * posterior.variance)
    p = torch.tensor(0.2, dtype=torch.float64)
    torch.testing.assert_close(
        mapped.quantile(p)[..., 0], 1.0 - 3.0 * posterior.quantile(1 - p)[..., 0]
    )
    part = posterior.select([1])
    torch.testing.assert_close(part.quantile(p), posterior.quantile(p)[..., 1:])


def test_a_weighted_sum_of_outputs_with_one_scale_is_a_mixture_too() -> None:
    posterior = make(shared=True)
    weights = torch.tensor([0.5, -8.0], dtype=torch.float64)
    scalar = posterior.scalarize(weights, offset=3.0)
    with fixed_seed(2):
        samples = posterior.rsample(torch.Size([DRAWS])) @ weights + 3.0
    for point in range(3):
        where = scalar.loc[point, 0], scalar.scale[point, 0]

        def cdf(y: np.ndarray, where: tuple[Tensor, Tensor] = where) -> np.ndarray:
            z = (torch.as_tensor(y)[:, None, None] - where[0]) / where[1]
            return scalar.standard_cdf(z).reshape(-1).numpy()

        assert distance(samples[:, point].numpy(), cdf) < kolmogorov_smirnov_bound(DRAWS)
    with pytest.raises(UnsupportedError, match="LinearMCObjective"):
        make().scalarize(weights)


def test_single_precision_follows_double() -> None:
    double = make()
    single = ScaleGridPosterior(
        double.loc.float(), double.scale_matrix.float(), S2.log(), WEIGHTS.log(), double.unit
    )
    assert single.variance.dtype == torch.float32
    torch.testing.assert_close(single.variance.double(), double.variance, rtol=1e-5, atol=0)
    p = torch.tensor(0.01)
    assert single.quantile(p).dtype == torch.float32
    torch.testing.assert_close(
        single.quantile(p).double(), double.quantile(p.double()), rtol=1e-5, atol=1e-5
    )


def test_shapes_that_do_not_fit_are_refused() -> None:
    loc, matrix, unit = parts()
    with pytest.raises(InputError, match=r"log_scale and log_weight .* \.\.\. x 2 x K"):
        ScaleGridPosterior(loc, matrix, S2[:1].log(), WEIGHTS[:1].log(), unit)
    with pytest.raises(InputError, match="scale_matrix must have shape"):
        ScaleGridPosterior(loc, matrix[:1], S2.log(), WEIGHTS.log(), unit)
