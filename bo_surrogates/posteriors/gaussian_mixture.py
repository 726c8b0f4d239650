"""A mixture of joint Gaussian distributions: what draws of hyper-parameters leave of a process.

    p(y | x) = sum_s w_s N(y; m_s(x), C_s(x))

over the q points of a t-batch, outputs independent given s. BoTorch's own posterior of that name
keeps the members apart in an extra dimension, and leaves it to each acquisition function to average
over them. Here the mixture is one distribution: its mean, variance, quantiles and density, and
samples, each a function of one member at all points.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.posteriors.ensemble import EnsembleMixturePosterior

_JITTER = 1e-8  # relative to the largest variance; a repeated point makes a covariance singular


class GaussianMixture(EnsembleMixturePosterior):
    """See the module's docstring.

    Marginal distributions are those of an ensemble with Gaussian noise, whose variances are the
    members'; samples are correlated between points.

    Args:
        means: `batch_shape x s x q x m`.
        covariances: `batch_shape x s x m x q x q`.
        weights: `s`, equal if None.

    Raises:
        InputError: The shapes do not match.
    """

    def __init__(self, means: Tensor, covariances: Tensor, weights: Tensor | None = None) -> None:
        q, m = means.shape[-2:]
        if covariances.shape != (*means.shape[:-2], m, q, q):
            raise InputError(
                f"covariances must have shape {(*means.shape[:-2], m, q, q)} for means of shape "
                f"{tuple(means.shape)}, got {tuple(covariances.shape)}"
            )
        variances = covariances.diagonal(dim1=-2, dim2=-1).mT.clamp_min(0.0)
        super().__init__(means, variances, weights)
        self.covariances = covariances

    @property
    def variance(self) -> Tensor:
        """`batch_shape x q x m`: exact, of the mixture."""
        weights = self.weights[..., None, None]
        between = (weights * (self.values - self.mean.unsqueeze(-3)).square()).sum(dim=-3)
        return self._with_noise(between, weights, [-3])

    @property
    def mixture_variance(self) -> Tensor:
        """`q x m`: as `variance`, with the batch as part of the mixture (read by Ax)."""
        weights, dims = self.mixture_weights[..., None, None], list(self.mixture_dims)
        between = (weights * (self.values - self.mixture_mean).square()).sum(dim=dims)
        return self._with_noise(between, weights, dims)

    def rescale(self, scale: Tensor, offset: Tensor) -> GaussianMixture:
        """The posterior of `offset + scale * Y`, both broadcastable to `m`."""
        squared = scale.square().expand(self.values.shape[-1])
        return GaussianMixture(
            offset + scale * self.values, squared[:, None, None] * self.covariances, self._weights
        )

    def scalarize(self, weights: Tensor, offset: float | Tensor = 0.0) -> GaussianMixture:
        """The posterior of `offset + Y @ weights`, with `m` weights; exact."""
        weights = weights.to(self.values)
        covariances = (weights.square()[:, None, None] * self.covariances).sum(-3, keepdim=True)
        return GaussianMixture(
            (self.values @ weights).unsqueeze(-1) + offset, covariances, self._weights
        )

    def rsample_from_base_samples(
        self, sample_shape: torch.Size, base_samples: Tensor, base_normals: Tensor | None = None
    ) -> Tensor:
        """Samples m_s + L_s z with C_s = L_s L_s'; see `EnsembleMixturePosterior`."""
        if base_normals is None:
            raise InputError(
                "a mixture of Gaussians needs base_normals: use the sampler that get_sampler "
                "returns"
            )
        means = self._members(self.values, sample_shape, base_samples)
        z = base_normals.expand(means.shape)
        roots = self._roots()
        batch = len(self.batch_shape)
        # Member by member: a root for each sample would fill the memory. Draws of other members are
        # multiplied by zero where t-batches have members of their own.
        deviation = torch.zeros_like(means)
        shared = base_samples.shape == sample_shape
        index = base_samples.reshape(*sample_shape, *(() if shared else self.batch_shape))
        for s in range(self.ensemble_size):
            root = roots.select(batch, s)  # batch_shape x m x q x q
            chosen = index == s
            if not chosen.any():
                continue
            if shared:
                part = (root @ z[chosen].mT.unsqueeze(-1)).squeeze(-1).mT
                deviation = deviation.index_put((chosen,), part)
            else:
                part = (root @ z.mT.unsqueeze(-1)).squeeze(-1).mT
                deviation = torch.where(chosen[..., None, None], part, deviation)
        return means + deviation

    def _roots(self) -> Tensor:
        """Lower Cholesky factors of the covariances."""
        largest = self.covariances.diagonal(dim1=-2, dim2=-1).amax(dim=-1).clamp_min(1e-30)
        unit = self.covariances / largest[..., None, None]
        eps = max(_JITTER, 10 * torch.finfo(unit.dtype).eps)
        identity = torch.eye(unit.shape[-1], dtype=unit.dtype, device=unit.device)
        root: Tensor = psd_safe_cholesky(unit + eps * identity)
        return root * largest.sqrt()[..., None, None]
