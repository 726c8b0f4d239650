"""Active learning: measure where it reduces the posterior variance most, everywhere.

Measuring at inputs X, with noise variance s^2, is expected to reduce the variance at z by

    c(z, X) [C(X, X) + s^2 I]^-1 c(X, z),

C the posterior covariance, whatever the values turn out to be; here it is averaged over points z
that fill the space (Cohn 1996, Neural Networks 9:1071; Gramacy & Lee 2009, Technometrics 51:130).
For Gaussian processes this is the integrated variance that BoTorch computes from fantasies. The
same holds for Student-t posteriors and other scale mixtures of Gaussians in expectation over the
values: their conditional covariance is a multiple of the Gaussian one, and the multiple's
expectation is that before the measurement. For ensembles, whose members' sample covariance stands
for C, it is the error that the best linear prediction from the new values takes away (Bayes
linear), a lower bound of what conditioning takes away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.posteriors import Posterior
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.utils.transforms import concatenate_pending_points, t_batch_mode_transform
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.posteriors.gaussian_mixture import GaussianMixture
from bo_surrogates.posteriors.scale_mixture import ScaleMixturePosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Space

SMALLEST = 1e-12  # share of the variance below which reductions are not told apart


def posterior_covariance(posterior: Posterior) -> Tensor:
    """Covariance between the q points of a posterior with one outcome.

    Returns:
        `batch_shape x q x q`, in squared units of the outcome.

    Raises:
        InputError: A kind of posterior that tells no covariance.
    """
    if isinstance(posterior, ScaleMixturePosterior):
        factor = posterior.scale_tril[..., 0, :, :]
        return posterior.mean_square_scale.reshape(-1)[0] * factor @ factor.mT
    if isinstance(posterior, EnsemblePosterior):
        weights = posterior.weights[..., None, None]
        values = posterior.values.squeeze(-1)  # ... x s x q
        centred = values - (posterior.weights[..., None] * values).sum(dim=-2, keepdim=True)
        between = centred.mT @ (weights.squeeze(-1) * centred)
        if isinstance(posterior, GaussianMixture):
            return between + (weights * posterior.covariances[..., 0, :, :]).sum(dim=-3)
        # Members are draws: the unbiased estimate, as in the posterior's variance.
        return between / (1 - posterior.weights.square().sum(dim=-1)).clamp_min(SMALLEST)
    if isinstance(posterior, GPyTorchPosterior):
        covariance: Tensor = posterior.distribution.covariance_matrix
        return covariance
    raise InputError(
        f"active learning needs covariances, which a {type(posterior).__name__} does not tell"
    )


class IntegratedVarianceReduction(AcquisitionFunction):
    """Log of the mean reduction of the variance, averaged over outcomes; see the module.

    Args:
        model: m outcomes on a standardized scale, or a list of models.
        X_integration: `z x d` points that fill the space.
        X_baseline: `n x d` observed inputs, at which the noise is read.
        weights: `z` weights of the integration points, equal if None.
        X_pending: `p x d` inputs that are being measured.
    """

    def __init__(
        self,
        model: Model,
        X_integration: Tensor,
        X_baseline: Tensor,
        weights: Tensor | None = None,
        X_pending: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        self.set_X_pending(X_pending)
        self._outcomes: Sequence[tuple[Any, list[int] | None]] = [
            (part, [i] if part.num_outputs > 1 else None)
            for part in getattr(model, "models", [model])
            for i in range(part.num_outputs)
        ]
        self._Z = X_integration
        w = torch.ones(len(X_integration)) if weights is None else weights
        self._w = (w / w.sum()).to(X_integration)
        with torch.no_grad():
            self._noise = [self._noise_of(*o, X_baseline) for o in self._outcomes]

    @staticmethod
    def _noise_of(part: Any, output: list[int] | None, X: Tensor) -> Tensor:
        """Mean variance of the observation noise at observed inputs."""
        noisy = part.posterior(X, output_indices=output, observation_noise=True).variance
        noise: Tensor = (noisy - part.posterior(X, output_indices=output).variance).mean()
        return noise.clamp_min(1e-8)

    @concatenate_pending_points  # its type takes no methods
    @t_batch_mode_transform()  # type: ignore[arg-type]
    def forward(self, X: Tensor) -> Tensor:
        """Values at `b x q x d` inputs, `b`."""
        q = X.shape[-2]
        joint = torch.cat([X, self._Z.expand(*X.shape[:-2], *self._Z.shape)], dim=-2)
        reductions = []
        for (part, output), noise in zip(self._outcomes, self._noise, strict=True):
            C = posterior_covariance(part.posterior(joint, output_indices=output))
            measured = C[..., :q, :q] + noise * torch.eye(q).to(C)
            factor = psd_safe_cholesky(measured)
            gain = torch.linalg.solve_triangular(factor, C[..., :q, q:], upper=False)
            reductions.append((gain.square().sum(dim=-2) * self._w.to(C)).sum(dim=-1))
        return (torch.stack(reductions).mean(dim=0) + SMALLEST).log()


def integration_points(space: Space, config: AcquisitionConfig, seed: int) -> Tensor | None:
    """Points that fill a space, `z x d` model coordinates; None where no acquisition needs them.

    All of them at the target of a fidelity, which is what is to be learned.
    """
    if config.name != "integrated_variance":
        return None
    count = config.mc_samples
    while True:
        try:
            design_seed = derive_seed(seed, "integration")
            return space.to_model(sobol_design(space, count, design_seed, fixed=space.target))
        except RunError:  # a finite space may hold fewer
            if count == 1:
                raise
            count //= 2
