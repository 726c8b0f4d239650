"""Joint posteriors that are scale mixtures of Gaussians: what they share, and their sampler.

Output j at q points is distributed as

    f_j = loc_j + s_j L_j z,    z ~ N(0, I_q),

with L_j L_j' the scale matrix and s_j > 0 of some law. One s_j serves all q points: a draw is a
function, drawn with one scale. Outputs are independent, or share one s (Shah, Wilson & Ghahramani
2014, arXiv 1402.4306). A law of s is a subclass: `StudentTPosterior`, where df / s^2 is a
chi-square variable, and `ScaleGridPosterior`, with a discrete law.

The standardized variable (f_j - loc_j) / scale has the same symmetric distribution at all points.
A subclass says what its density, distribution function and quantiles are.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Self

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import GetSampler
from botorch.sampling.normal import IIDNormalSampler, SobolQMCNormalSampler
from gpytorch.settings import min_variance
from torch import Size, Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import InputError
from bo_surrogates.inference.cholesky import psd_safe_cholesky


class ScaleMixturePosterior(Posterior):
    """A scale mixture of Gaussians over q points, for m outputs.

    Args:
        loc: `batch_shape x q x m` locations, in units of the outcomes.
        scale_matrix: `batch_shape x m x q x q` scale matrices, in squared units of `unit`.
        unit: `m` scales of the outcomes, of either sign; 1 if None. Guards against rounding (the
            smallest variance, the jitter of a Cholesky factor) are absolute numbers that suit
            standardized outcomes, and act before this scaling.
        shared_scale: Whether one s serves all outputs, which are then uncorrelated but dependent;
            their laws of s are then equal.

    Raises:
        InputError: Shapes do not match.
    """

    def __init__(
        self,
        loc: Tensor,
        scale_matrix: Tensor,
        unit: Tensor | None = None,
        shared_scale: bool = False,
    ) -> None:
        *batch, q, m = loc.shape
        if scale_matrix.shape != (*batch, m, q, q):
            raise InputError(
                f"scale_matrix must have shape {(*batch, m, q, q)} to match loc "
                f"{tuple(loc.shape)}, got {tuple(scale_matrix.shape)}"
            )
        self.loc, self.scale_matrix = loc, scale_matrix
        self.unit = loc.new_ones(m) if unit is None else unit.to(loc).reshape(m)
        self.shared_scale = shared_scale

    # ---- the law of the scale ------------------------------------------------------------------
    @abstractmethod
    def with_parts(
        self, loc: Tensor, scale_matrix: Tensor, unit: Tensor, outputs: list[int]
    ) -> Self:
        """A posterior of other parts, with these outputs' laws of the scale."""

    @property
    @abstractmethod
    def mean_square_scale(self) -> Tensor:
        """E s^2, broadcastable to `batch_shape x q x m`: the variance over the squared scale.

        Raises:
            UnsupportedError: It is infinite.
        """

    @abstractmethod
    def standard_log_density(self, z: Tensor) -> Tensor:
        """Of the standardized variable, for z broadcastable to `batch_shape x q x m`."""

    @abstractmethod
    def standard_cdf(self, z: Tensor) -> Tensor:
        """Of the standardized variable, for z broadcastable to `batch_shape x q x m`."""

    @abstractmethod
    def standard_quantile(self, levels: Tensor) -> Tensor:
        """Of the standardized variable.

        Args:
            levels: In (0, 1), of any shape.

        Returns:
            `levels.shape x ...`, the rest broadcastable to `batch_shape x q x m`, as many
            dimensions as that has; without gradient.
        """

    @abstractmethod
    def log_improvement(self, z: Tensor) -> Tensor:
        """log E max(z + t, 0) of the standardized variable t, for z as in `standard_cdf`.

        It is the expected improvement in units of the scale, where the location exceeds the best
        value by z scales.
        """

    @abstractmethod
    def scale_multiplier(self, normal: Tensor) -> Tensor:
        """s as a function of standard normal numbers.

        Args:
            normal: `sample_shape x batch_shape x 1 x m`, or one column for all outputs.
        """

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
        """`batch_shape x (q + 1) x m` normal numbers; the first row decides the scales."""
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
            UnsupportedError: There is none.
        """
        return self.loc

    @property
    def scale(self) -> Tensor:
        """`batch_shape x q x m` marginal scales, in units of the outcomes."""
        diagonal = self.scale_matrix.diagonal(dim1=-2, dim2=-1).mT
        return self.unit.abs() * diagonal.clamp_min(min_variance.value(self.dtype)).sqrt()

    @property
    def variance(self) -> Tensor:
        """`batch_shape x q x m`: scale^2 E s^2.

        Raises:
            UnsupportedError: There is none.
        """
        return self.mean_square_scale * self.scale.square()

    def quantile(self, value: Tensor) -> Tensor:
        """Marginal quantiles at levels in (0, 1): `value.shape x batch_shape x q x m`."""
        return self.loc + self.scale * self.standard_quantile(value.to(self.loc))

    def cdf(self, value: Tensor) -> Tensor:
        """P(y <= value), marginally, for values broadcastable to `batch_shape x q x m`."""
        return self.standard_cdf((value - self.loc) / self.scale)

    def log_density(self, value: Tensor) -> Tensor:
        """Log of the marginal densities, in 1 / units of the outcome.

        Args:
            value: Broadcastable to `batch_shape x q x m`.
        """
        scale = self.scale
        return self.standard_log_density((value - self.loc) / scale) - scale.log()

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
        multiplier = self.scale_multiplier(scales[..., :1] if self.shared_scale else scales)
        # All samples by one product of matrices; one a sample would copy the factor for each.
        flat = normals.mT.reshape(-1, *normals.mT.shape[len(sample_shape) :]).movedim(0, -2)
        deviation = (flat @ self._standard_tril.mT).movedim(-2, 0).reshape(normals.mT.shape).mT
        return self.loc + self.unit * multiplier * deviation

    # ---- affine maps -------------------------------------------------------------------------
    def rescale(self, factor: Tensor, offset: Tensor) -> Self:
        """The posterior of `offset + factor * y`, output by output.

        Args:
            factor: `m` factors, not zero.
            offset: `m` offsets.
        """
        factor, offset = factor.to(self.loc).reshape(-1), offset.to(self.loc).reshape(-1)
        every = list(range(self.loc.shape[-1]))
        return self.with_parts(
            offset + factor * self.loc, self.scale_matrix, factor * self.unit, every
        )

    def select(self, outputs: list[int]) -> Self:
        """The posterior of some outputs, in the order given."""
        return self.with_parts(
            self.loc[..., outputs],
            self.scale_matrix[..., outputs, :, :],
            self.unit[outputs],
            outputs,
        )

    def scalarize(self, weights: Tensor, offset: float | Tensor = 0.0) -> Self:
        """The posterior of `offset + Y @ weights`, where that is of the same kind.

        Args:
            weights: `m` weights of the outputs, not all zero.
            offset: Added to the sum.

        Returns:
            A posterior with one output.

        Raises:
            UnsupportedError: Several outputs with scales of their own have a weight: a sum of
                independent t variables, say, has no t distribution.
        """
        weights = weights.to(self.loc)
        used = [i for i, w in enumerate(weights.tolist()) if w != 0]
        if not used:
            raise UnsupportedError("a scalarization needs a weight that is not zero")
        if len(used) > 1 and not self.shared_scale:
            raise UnsupportedError(
                f"a sum of {len(used)} outputs with scales of their own has no distribution of "
                "this kind; use a Monte Carlo acquisition function with "
                "objective=LinearMCObjective(weights) in the place of ScalarizedPosteriorTransform"
            )
        part, weights = self.select(used), weights[used]
        factor = weights * part.unit
        largest = factor.abs().max()
        matrix = ((factor / largest).square()[:, None, None] * part.scale_matrix).sum(dim=-3)
        sign = factor[0].sign() if len(used) == 1 else 1.0  # a draw of -y is minus the draw of y
        return part.with_parts(
            (part.loc @ weights).unsqueeze(-1) + offset,
            matrix.unsqueeze(-3),
            (sign * largest).reshape(1),
            [0],
        )


class ScaleMixtureSampler(SobolQMCNormalSampler):
    """Fixed base samples for sample average approximation with a `ScaleMixturePosterior`.

    A scrambled Sobol sequence over the normal variables and those behind the scales together;
    independent normal numbers where that has too many dimensions.
    """

    def _construct_base_samples(self, posterior: Posterior) -> None:
        dimensions = self._get_collapsed_shape(posterior)[len(self.sample_shape) :].numel()
        if dimensions <= SobolEngine.MAXDIM:
            super()._construct_base_samples(posterior)
        else:
            IIDNormalSampler._construct_base_samples(self, posterior)  # type: ignore[arg-type]


@GetSampler.register(ScaleMixturePosterior)
def _get_scale_mixture_sampler(
    posterior: ScaleMixturePosterior, sample_shape: Size, *, seed: int | None = None
) -> MCSampler:
    return ScaleMixtureSampler(sample_shape, seed=seed)
