"""The joint multivariate-t posterior and its sampler.

Output j at q points is distributed as

    f_j = loc_j + sqrt(df_j / w_j) L_j z,    z ~ N(0, I_q),  w_j ~ chi-square with df_j degrees,

with L_j L_j' the scale matrix. One w_j serves all q points: a draw is a function, drawn with one
scale. Outputs are independent, or share one w (Shah, Wilson & Ghahramani 2014, arXiv 1402.4306).
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import GetSampler
from botorch.sampling.normal import IIDNormalSampler, SobolQMCNormalSampler
from gpytorch.settings import min_variance
from linear_operator.utils.cholesky import psd_safe_cholesky
from scipy import special
from torch import Size, Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import InputError


class _StudentTCDF(torch.autograd.Function):
    """P(T <= z), which torch lacks; the derivative in z is the density, itself differentiable."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, df: Tensor) -> Tensor:
        ctx.save_for_backward(z, df)
        values = special.stdtr(
            df.detach().double().cpu().numpy(), z.detach().double().cpu().numpy()
        )
        return torch.as_tensor(values).to(z)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        z, df = ctx.saved_tensors
        return gradients[0] * student_t_log_density(z, df).exp(), None


def student_t_log_density(z: Tensor, df: Tensor) -> Tensor:
    """Log density of the standard Student-t distribution.

    The normalizing constant is a difference of log gamma functions, computed in float64 whatever
    the dtype of `z`: in float32 nothing would be left of it for thousands of degrees of freedom.

    Args:
        z: Where, of any shape.
        df: Degrees of freedom, broadcastable to `z`.
    """
    v = df.double()
    constant = torch.lgamma((v + 1) / 2) - torch.lgamma(v / 2) - 0.5 * (math.pi * v).log()
    return constant.to(z) - 0.5 * (df + 1) * torch.log1p(z.square() / df)


def student_t_cdf(z: Tensor, df: Tensor) -> Tensor:
    """Distribution function of the standard Student-t distribution, differentiable in `z`.

    Args:
        z: Where, of any shape.
        df: Degrees of freedom, broadcastable to `z`; no gradient is taken in them.
    """
    return _StudentTCDF.apply(z, df.to(z).expand_as(z))


def student_t_quantile(levels: Tensor, df: Tensor) -> Tensor:
    """Quantiles of the standard Student-t distribution, without gradient.

    Args:
        levels: In (0, 1), broadcastable against `df`.
        df: Degrees of freedom.
    """
    values = special.stdtrit(df.double().cpu().numpy(), levels.double().cpu().numpy())
    return torch.as_tensor(values).to(levels)


def scale_multiplier(normal: Tensor, df: Tensor) -> Tensor:
    """sqrt(df / w) with w the chi-square variable at the level of a standard normal one.

    Args:
        normal: `... x m` standard normal numbers.
        df: `m` degrees of freedom.
    """
    # Entries repeated by `expand` (t-batches share base samples) are computed once.
    few = normal[tuple(slice(0, 1) if s == 0 else slice(None) for s in normal.stride())]
    # Each half of the distribution from its own tail, where levels are exact.
    x, half = few.double().cpu().numpy(), df.double().cpu().numpy() / 2
    low = special.gammaincinv(half, special.ndtr(x))
    high = special.gammainccinv(half, special.ndtr(-x))
    w = 2 * torch.as_tensor(low).where(torch.as_tensor(x < 0), torch.as_tensor(high))
    multiplier = (df.double().cpu() / w).sqrt()
    return multiplier.to(normal).expand_as(normal)


class StudentTPosterior(Posterior):
    """Multivariate-t over q points, for m outputs.

    Args:
        loc: `batch_shape x q x m` locations, in units of the outcomes.
        scale_matrix: `batch_shape x m x q x q` scale matrices (df / (df - 2) times smaller than
            the covariance), in squared units of `unit`.
        df: `m` degrees of freedom, positive.
        unit: `m` scales of the outcomes, of either sign; 1 if None. Guards against rounding (the
            smallest variance, the jitter of a Cholesky factor) are absolute numbers that suit
            standardized outcomes, and act before this scaling.
        shared_scale: Whether one chi-square variable serves all outputs, which are then
            uncorrelated but dependent; `df` are then equal.

    Raises:
        InputError: Shapes do not match, or degrees of freedom are not positive, or not equal
            where the scale is shared.
    """

    def __init__(
        self,
        loc: Tensor,
        scale_matrix: Tensor,
        df: Tensor,
        unit: Tensor | None = None,
        shared_scale: bool = False,
    ) -> None:
        *batch, q, m = loc.shape
        if scale_matrix.shape != (*batch, m, q, q):
            raise InputError(
                f"scale_matrix must have shape {(*batch, m, q, q)} to match loc "
                f"{tuple(loc.shape)}, got {tuple(scale_matrix.shape)}"
            )
        if df.shape != (m,) or not (df > 0).all():
            raise InputError(f"df must hold {m} positive value(s), one an output, got {df}")
        if shared_scale and not (df == df[0]).all():
            raise InputError(f"outputs that share a scale have equal df, got {df.tolist()}")
        self.loc, self.scale_matrix, self.df = loc, scale_matrix, df.to(loc)
        self.unit = torch.ones_like(self.df) if unit is None else unit.to(loc).reshape(m)
        self.shared_scale = shared_scale

    # ---- what BoTorch asks for ---------------------------------------------------------------
    @property
    def device(self) -> torch.device:
        """Device of the locations."""
        return self.loc.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the locations."""
        return self.loc.dtype

    @property
    def batch_shape(self) -> Size:
        """The t-batch."""
        return self.loc.shape[:-2]

    @property
    def base_sample_shape(self) -> Size:
        """`batch_shape x (q + 1) x m` normal numbers; the first row decides the chi-squares."""
        *batch, q, m = self.loc.shape
        return Size((*batch, q + 1, m))

    @property
    def batch_range(self) -> tuple[int, int]:
        """All but the last two dimensions of the base samples."""
        return (0, -2)

    def _extended_shape(self, sample_shape: Size = Size()) -> Size:  # noqa: B008
        return sample_shape + self.loc.shape

    # ---- marginal distributions --------------------------------------------------------------
    @property
    def mean(self) -> Tensor:
        """`batch_shape x q x m`.

        Raises:
            UnsupportedError: Some degrees of freedom are 1 or fewer: there is no mean.
        """
        if not (self.df > 1).all():
            raise UnsupportedError(f"a t distribution has a mean for df > 1, got {self.df}")
        return self.loc

    @property
    def scale(self) -> Tensor:
        """`batch_shape x q x m` marginal scales, in units of the outcomes."""
        diagonal = self.scale_matrix.diagonal(dim1=-2, dim2=-1).mT
        return self.unit.abs() * diagonal.clamp_min(min_variance.value(self.dtype)).sqrt()

    @property
    def variance(self) -> Tensor:
        """`batch_shape x q x m`: scale^2 df / (df - 2).

        Raises:
            UnsupportedError: Some degrees of freedom are 2 or fewer: there is no variance.
        """
        if not (self.df > 2).all():
            raise UnsupportedError(
                f"a t distribution has a variance for df > 2, got {self.df}; use quantiles"
            )
        return self.scale.square() * (self.df / (self.df - 2))

    def quantile(self, value: Tensor) -> Tensor:
        """Marginal quantiles at levels in (0, 1): `value.shape x batch_shape x q x m`."""
        levels = value.to(self.loc).reshape(*value.shape, 1)
        z = student_t_quantile(levels, self.df)  # value.shape x m
        between = [1] * (self.loc.ndim - 1)
        return self.loc + self.scale * z.reshape(*value.shape, *between, z.shape[-1])

    def cdf(self, value: Tensor) -> Tensor:
        """P(y <= value), marginally, for values broadcastable to `batch_shape x q x m`."""
        return student_t_cdf((value - self.loc) / self.scale, self.df)

    def log_density(self, value: Tensor) -> Tensor:
        """Log of the marginal densities, in 1 / units of the outcome.

        Args:
            value: Broadcastable to `batch_shape x q x m`.
        """
        scale = self.scale
        return student_t_log_density((value - self.loc) / scale, self.df) - scale.log()

    def density(self, value: Tensor) -> Tensor:
        """Exponential of `log_density`."""
        return self.log_density(value).exp()

    # ---- samples -----------------------------------------------------------------------------
    @cached_property
    def _standard_tril(self) -> Tensor:
        return psd_safe_cholesky(self.scale_matrix)

    @property
    def scale_tril(self) -> Tensor:
        """`batch_shape x m x q x q` Cholesky factors of the scale matrices, outcomes' units."""
        return self.unit.abs()[:, None, None] * self._standard_tril

    def rsample(self, sample_shape: Size | None = None) -> Tensor:
        """Joint samples by torch's global generator, independent between t-batches.

        Args:
            sample_shape: Shape of the sample; one sample if None or empty.

        Returns:
            `sample_shape x batch_shape x q x m`.
        """
        shape = Size(sample_shape) if sample_shape else Size([1])
        base = torch.randn(shape + self.base_sample_shape, dtype=self.dtype, device=self.device)
        return self.rsample_from_base_samples(shape, base)

    def rsample_from_base_samples(self, sample_shape: Size, base_samples: Tensor) -> Tensor:
        """Samples as a deterministic, differentiable function of normal numbers.

        Args:
            sample_shape: Shape of the sample.
            base_samples: `sample_shape x base_sample_shape` standard normal numbers.

        Returns:
            `sample_shape x batch_shape x q x m`.

        Raises:
            InputError: The shapes do not match.
        """
        if base_samples.shape != sample_shape + self.base_sample_shape:
            raise InputError(
                f"base_samples must have shape {tuple(sample_shape + self.base_sample_shape)}, "
                f"got {tuple(base_samples.shape)}"
            )
        scales, normals = base_samples[..., :1, :], base_samples[..., 1:, :]
        if self.shared_scale:
            multiplier = scale_multiplier(scales[..., :1], self.df[:1])
        else:
            multiplier = scale_multiplier(scales, self.df)
        deviation = (self._standard_tril @ normals.mT.unsqueeze(-1)).squeeze(-1).mT
        return self.loc + self.unit * multiplier * deviation

    # ---- affine maps -------------------------------------------------------------------------
    def rescale(self, factor: Tensor, offset: Tensor) -> StudentTPosterior:
        """The posterior of `offset + factor * y`, output by output.

        Args:
            factor: `m` factors, not zero.
            offset: `m` offsets.
        """
        factor, offset = factor.to(self.loc).reshape(-1), offset.to(self.loc).reshape(-1)
        return StudentTPosterior(
            offset + factor * self.loc,
            self.scale_matrix,
            self.df,
            factor * self.unit,
            self.shared_scale,
        )

    def select(self, outputs: list[int]) -> StudentTPosterior:
        """The posterior of some outputs, in the order given."""
        return StudentTPosterior(
            self.loc[..., outputs],
            self.scale_matrix[..., outputs, :, :],
            self.df[outputs],
            self.unit[outputs],
            self.shared_scale,
        )

    def scalarize(self, weights: Tensor, offset: float | Tensor = 0.0) -> StudentTPosterior:
        """The posterior of `offset + Y @ weights`, where that is a t distribution.

        Args:
            weights: `m` weights of the outputs, not all zero.
            offset: Added to the sum.

        Returns:
            A posterior with one output.

        Raises:
            UnsupportedError: Several outputs with scales of their own have a weight: the sum of
                independent t variables has no t distribution.
        """
        weights = weights.to(self.loc)
        used = [i for i, w in enumerate(weights.tolist()) if w != 0]
        if not used:
            raise UnsupportedError("a scalarization needs a weight that is not zero")
        if len(used) > 1 and not self.shared_scale:
            raise UnsupportedError(
                f"a sum of {len(used)} outputs with scales of their own is not t-distributed; "
                "use a Monte Carlo acquisition function with objective=LinearMCObjective(weights) "
                "in the place of ScalarizedPosteriorTransform"
            )
        part, weights = self.select(used), weights[used]
        factor = weights * part.unit
        largest = factor.abs().max()
        matrix = ((factor / largest).square()[:, None, None] * part.scale_matrix).sum(dim=-3)
        sign = factor[0].sign() if len(used) == 1 else 1.0  # a draw of -y is minus the draw of y
        return StudentTPosterior(
            (part.loc @ weights).unsqueeze(-1) + offset,
            matrix.unsqueeze(-3),
            part.df[:1],
            (sign * largest).reshape(1),
        )


class StudentTSampler(SobolQMCNormalSampler):
    """Fixed base samples for sample average approximation with a `StudentTPosterior`.

    A scrambled Sobol sequence over the normal variables and the chi-square variables together;
    independent normal numbers where that has too many dimensions.
    """

    def _construct_base_samples(self, posterior: Posterior) -> None:
        dimensions = self._get_collapsed_shape(posterior)[len(self.sample_shape) :].numel()
        if dimensions <= SobolEngine.MAXDIM:
            super()._construct_base_samples(posterior)
        else:
            IIDNormalSampler._construct_base_samples(self, posterior)  # type: ignore[arg-type]


@GetSampler.register(StudentTPosterior)
def _get_student_t_sampler(
    posterior: StudentTPosterior, sample_shape: Size, *, seed: int | None = None
) -> MCSampler:
    return StudentTSampler(sample_shape, seed=seed)
