"""The Gaussian process inside a Student-t process: its kernel, noise and mean, at scale 1.

See `student_t.py` for the model. Here are the parameters, how they are fitted with the scale
integrated out, and what the data say of the scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from botorch.models.utils import add_output_dim, gpt_posterior_settings
from botorch.models.utils.gpytorch_modules import (
    get_gaussian_likelihood_with_gamma_prior,
    get_matern_kernel_with_gamma_prior,
)
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from gpytorch.settings import debug
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.student_t_process import (
    StudentTMarginalLogLikelihood,
    leave_one_out,
    scale_factor,
)
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import MAX_DEPTH, NNGPKernel
from bo_surrogates.kernels.random_network import RandomNetworkFeatures
from bo_surrogates.surrogates.gp import ExactGPSurrogate
from bo_surrogates.surrogates.infinite_width import NNGP, PRIOR_FEATURES, NNGPConfig

DF_GRID = (3.0, 4.0, 6.0, 10.0, 20.0, 50.0, 200.0)
FIRST_DF = 6.0  # at which the kernel is fitted before one of the grid is chosen


def log_df_prior(df: float) -> float:
    """log density, up to a constant, of v / 2 - 1 ~ Gamma(2, 1 / 2): the mode is v = 6."""
    return math.log(df / 2 - 1) - 0.5 * (df / 2 - 1)


@dataclass(frozen=True)
class TPConfig(Config):
    """Configuration of `tp`.

    Attributes:
        kernel: "rbf" or "matern" (those of `gp`) or "nngp", all of amplitude 1.
        df: Prior degrees of freedom v > 2: the smaller, the less is known of the scale. None for
            a choice by leave-one-out predictive density and a prior.
        activation: Of the kernel "nngp"; see `NNGPConfig`.
        depth: Of the kernel "nngp": number of hidden layers.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel", "df")

    kernel: str = choice("rbf", ("rbf", "matern", "nngp"))
    df: float | None = real(None, 2.01, 1e6, log=True, optional=True, search=(2.5, 100.0))
    activation: str = choice("relu", tuple(DUAL_ACTIVATIONS))
    depth: int = integer(3, 1, MAX_DEPTH)


class UnitScaleGP(ExactGPSurrogate):
    """The Gaussian process at s2 = 1, of standardized outcomes, fitted as the mixture over s2."""

    config_class: ClassVar[type[Config]] = TPConfig
    df: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`: `df`, one an output."""
        shape = self.train_targets.shape[:-1]
        self.register_buffer("df", self.train_targets.new_full(shape, self.config.df or FIRST_DF))

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """A kernel whose amplitude is fixed: s2 is the amplitude."""
        if not isinstance(config, TPConfig):
            raise TypeError(f"expected a TPConfig, got {config!r}")
        if config.kernel == "matern":
            scaled = get_matern_kernel_with_gamma_prior(ard_num_dims=d, batch_shape=batch_shape)
            return scaled.base_kernel
        if config.kernel == "nngp":
            kernel = NNGPKernel(config.activation, config.depth, d, batch_shape=batch_shape)
            kernel.log_output_variance.requires_grad_(False)
            # Without its prior, for BoTorch draws new starting points from all priors there are.
            del kernel._priors["log_output_variance_prior"]
            return kernel
        return None

    @classmethod
    def make_likelihood(cls, config: Config, batch_shape: torch.Size) -> Likelihood | None:
        """The noise model that goes with the kernel."""
        kernel = config.kernel  # type: ignore[attr-defined]
        if kernel == "matern":
            return get_gaussian_likelihood_with_gamma_prior(batch_shape=batch_shape)
        return NNGP.make_likelihood(NNGPConfig(), batch_shape) if kernel == "nngp" else None

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        if self.config.kernel != "nngp":
            return super().prior_sampler()
        return partial(
            draw_kernel_feature_paths,
            num_features=PRIOR_FEATURES,
            map_generator=RandomNetworkFeatures,
            weight_generator=torch.randn,
        )

    def marginal_likelihood(self) -> ExactMarginalLogLikelihood:
        """See `ExactGPSurrogate.marginal_likelihood`."""
        return StudentTMarginalLogLikelihood(self.likelihood, self)

    def best_df(self) -> Tensor:
        """Of each output, the degrees of freedom on the grid with the best score.

        The score is the sum of leave-one-out log predictive densities plus the log prior.
        """
        self.eval()
        with torch.no_grad():
            prior = self.forward(*self.train_inputs)
            S = self.likelihood(prior, *self.train_inputs).covariance_matrix
            residual = self.train_targets - prior.mean
            scores = []
            for df in DF_GRID:
                others = leave_one_out(residual, S, torch.full_like(self.df, df))
                scores.append(others.log_prob(residual).sum(dim=-1) + log_df_prior(df))
        return self.df.new_tensor(DF_GRID)[torch.stack(scores).argmax(dim=0)]

    def joint(self, X: Tensor, observation_noise: bool | Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and covariance at s2 = 1.

        Args:
            X: `batch_shape x q x d` inputs.
            observation_noise: See `StudentTProcess.posterior`.

        Returns:
            `batch_shape x m x q` means and `batch_shape x m x q x q` covariances.
        """
        self.eval()
        X = self.transform_inputs(X)
        with gpt_posterior_settings():
            if self.num_outputs > 1:
                X, _ = add_output_dim(X=X, original_batch_shape=self._input_batch_shape)
            mvn = self._apply_noise(X, self(X), observation_noise)
            mean, covariance = mvn.mean, mvn.covariance_matrix
        if self.num_outputs > 1:
            return mean, covariance
        return mean.unsqueeze(-2), covariance.unsqueeze(-3)

    def data_scale(self) -> tuple[Tensor, Tensor]:
        """What the data say of the scale.

        Returns:
            The factor of covariances, `... x m`, and the posterior's degrees of freedom, `m`.
        """
        strategy: Any = self.prediction_strategy
        if strategy is None:  # GPyTorch makes it at the first prediction
            with gpt_posterior_settings(), debug(False):
                self.eval()(self.train_inputs[0][..., :1, :])
            strategy = self.prediction_strategy
        # `mean_cache` is S^-1 (y - c), also of a conditioned model.
        residual = strategy.train_labels - strategy.train_prior_dist.mean
        r = (residual * strategy.mean_cache).sum(dim=-1).clamp_min(0)
        n = residual.shape[-1]
        factor, df = scale_factor(r, n, self.df), self.df + n
        return (factor, df) if self.num_outputs > 1 else (factor.unsqueeze(-1), df.unsqueeze(-1))
