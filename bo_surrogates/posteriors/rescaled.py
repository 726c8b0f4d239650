"""A Gaussian posterior whose rounding guards are those of standardized outcomes.

GPyTorch guards against rounding by absolute numbers: in float64, variances below 1e-10 are raised
to it, and up to 1e-6 is added to the diagonal of a covariance that has no Cholesky factor. These
suit outcomes of unit scale. For an outcome in, say, 1e-6 of its unit they are larger than the
posterior variance itself, and for one in 1e6 too small to help. Here both act before the scaling.
"""

from __future__ import annotations

import torch
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.posteriors.gpytorch import GPyTorchPosterior
from torch import Tensor


def far_from_unit_scale(transform: OutcomeTransform | None) -> tuple[Tensor, Tensor] | None:
    """Means and standard deviations of the outcomes, unless all deviations are about 1."""
    if not isinstance(transform, Standardize):
        return None
    means, stdvs = torch.as_tensor(transform.means), torch.as_tensor(transform.stdvs)
    return None if ((stdvs > 1e-2) & (stdvs < 1e2)).all() else (means, stdvs)


class RescaledGaussianPosterior(GPyTorchPosterior):
    """`offset + scale * standard`, a posterior in the user's units.

    Quantiles and densities follow from `mean` and `variance`. `distribution`, which BoTorch reads
    when it scalarizes outputs, has the user's units and no such guard.

    Args:
        posterior: The posterior in the user's units, m outputs.
        offset: `m` (or `1 x m`) means of the outcomes.
        scale: `m` (or `1 x m`) standard deviations of the outcomes, positive.
    """

    def __init__(self, posterior: GPyTorchPosterior, offset: Tensor, scale: Tensor) -> None:
        super().__init__(posterior.distribution)
        self.offset, self.scale = offset.reshape(-1), scale.reshape(-1)
        inverse = Standardize(m=self.scale.shape[-1])
        inverse.means = (-self.offset / self.scale).unsqueeze(0)
        inverse.stdvs = self.scale.reciprocal().unsqueeze(0)
        inverse._stdvs_sq = inverse.stdvs.square()
        inverse._is_trained = torch.tensor(True)
        self.standard = inverse.eval().untransform_posterior(posterior)

    @property
    def variance(self) -> Tensor:
        """`batch_shape x q x m`."""
        return self.standard.variance * self.scale.square()

    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """`sample_shape x batch_shape x q x m`; see `GPyTorchPosterior.rsample`."""
        return self.offset + self.scale * self.standard.rsample(sample_shape)

    def rsample_from_base_samples(self, sample_shape: torch.Size, base_samples: Tensor) -> Tensor:
        """See `GPyTorchPosterior.rsample_from_base_samples`."""
        standard = self.standard.rsample_from_base_samples(sample_shape, base_samples)
        return self.offset + self.scale * standard
