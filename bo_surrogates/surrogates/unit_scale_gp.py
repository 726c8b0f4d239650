"""The Gaussian process inside a scale mixture: its kernel, noise and mean, at scale 1.

See `scale_mixture.py` for the model. Here are the parameters, how they are fitted with the scale
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
from botorch.optim.closures.model_closures import get_loss_closure_with_grads
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.inference.scale_laws import GridLaw, InverseGamma, ScaleGrid, ScaleLaw
from bo_surrogates.inference.scale_mixture import (
    ScaleMixtureMarginalLogLikelihood,
    leave_one_out_log_density,
    pool,
)
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import MAX_DEPTH, NNGPKernel
from bo_surrogates.kernels.random_network import RandomNetworkFeatures
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate
from bo_surrogates.surrogates.infinite_width import NNGP, PRIOR_FEATURES, NNGPConfig

DF_GRID = (3.0, 4.0, 6.0, 10.0, 20.0, 50.0, 200.0)
FIRST_DF = 6.0  # at which the kernel is fitted before one of the grid is chosen


def log_df_prior(df: float) -> float:
    """log density, up to a constant, of v / 2 - 1 ~ Gamma(2, 1 / 2): the mode is v = 6."""
    return math.log(df / 2 - 1) - 0.5 * (df / 2 - 1)


def fix_output_variance(kernel: Kernel | None) -> NNGPKernel:
    """An NNGP kernel whose output variance stays as it is, 1."""
    if not isinstance(kernel, NNGPKernel):
        raise TypeError(f"expected an NNGPKernel, got {type(kernel).__name__}")
    kernel.log_output_variance.requires_grad_(False)
    # Without its prior, for BoTorch draws new starting points from all priors there are.
    del kernel._priors["log_output_variance_prior"]
    return kernel


@dataclass(frozen=True)
class TPConfig(Config):
    """Configuration of `tp`.

    Attributes:
        kernel: "rbf" or "matern" (those of `gp`) or "nngp", all of amplitude 1.
        df: Prior degrees of freedom v > 2: the smaller, the less is known of the scale. None for
            a choice by leave-one-out predictive density and a prior.
        activation: Of the kernel "nngp"; see `NNGPConfig`.
        depth: Of the kernel "nngp": number of hidden layers.
        shared_scale: Whether several outputs have one scale together, in units of their standard
            deviations, or one each.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel", "df")

    kernel: str = choice("rbf", ("rbf", "matern", "nngp"))
    df: float | None = real(None, 2.01, 1e6, log=True, optional=True, search=(2.5, 100.0))
    activation: str = choice("relu", tuple(DUAL_ACTIVATIONS))
    depth: int = integer(3, 1, MAX_DEPTH)
    shared_scale: bool = flag(False)


class UnitScaleGP(ExactGPSurrogate):
    """The Gaussian process at s2 = 1, of standardized outcomes, fitted as the mixture over s2.

    Its configuration has the fields `df` and `shared_scale`; its kernel has amplitude 1.
    """

    df: Tensor
    _scale_posterior: tuple[Any, tuple[Tensor, Tensor] | ScaleGrid | None] = None, None

    def prepare(self) -> None:
        """See `Surrogate.prepare`: `df`, one an output."""
        shape = self.train_targets.shape[:-1]
        self.register_buffer("df", self.train_targets.new_full(shape, self.config.df or FIRST_DF))

    @property
    def shared_scale(self) -> bool:
        """Whether several outputs have one scale."""
        return bool(self.config.shared_scale) and self.num_outputs > 1

    def scale_law(self, df: Tensor | None = None) -> ScaleLaw:
        """The prior of s2, one an output.

        Args:
            df: Degrees of freedom in the place of the model's own.
        """
        return InverseGamma(self.df if df is None else df)

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        if not self.shared_scale:
            return {}
        # BoTorch optimizes outputs one by one, but for one function that it is given.
        mll = self.marginal_likelihood().train()
        parameters = {n: p for n, p in mll.named_parameters() if p.requires_grad}
        return {"closure": get_loss_closure_with_grads(mll, parameters)}

    def marginal_likelihood(self) -> ExactMarginalLogLikelihood:
        """See `ExactGPSurrogate.marginal_likelihood`."""
        return ScaleMixtureMarginalLogLikelihood(self.likelihood, self)

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
                law = self.scale_law(torch.full_like(self.df, df))
                others = leave_one_out_log_density(residual, S, law, self.shared_scale)
                score = others.sum(dim=-1)
                if self.shared_scale:
                    score = score.sum(dim=-1, keepdim=True).expand_as(score)
                scores.append(score + log_df_prior(df))
        return self.df.new_tensor(DF_GRID)[torch.stack(scores).argmax(dim=0)]

    def joint(self, X: Tensor, observation_noise: bool | Tensor) -> tuple[Tensor, Tensor]:
        """Posterior mean and covariance at s2 = 1.

        Args:
            X: `batch_shape x q x d` inputs.
            observation_noise: See `ScaleMixtureProcess.posterior`.

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

    def quadratic_form(self) -> tuple[Tensor, int]:
        """What the data say of the scale, as `ScaleLaw` takes it.

        Returns:
            r, `... x m`, and the number of observations behind it.
        """
        found = self.eval().observed()
        if found is not None:
            r = found.white.square().sum(dim=-1)
        else:
            # `mean_cache` is S^-1 (y - c), also of a conditioned model.
            strategy = self.make_prediction_strategy()
            residual = strategy.train_labels - strategy.train_prior_dist.mean.detach()
            r = (residual * strategy.mean_cache).sum(dim=-1).clamp_min(0)
        n = self.train_targets.shape[-1]
        return pool(r if self.num_outputs > 1 else r.unsqueeze(-1), n, self.shared_scale)

    def scale_posterior(self) -> tuple[Tensor, Tensor] | ScaleGrid:
        """The law of s2 given the data, as `InverseGamma.posterior` or `GridLaw.posterior` has it.

        Kept as long as what it is computed from; not kept where it is differentiable in new
        observations.
        """
        law = self.scale_law()
        if not isinstance(law, InverseGamma | GridLaw):
            raise TypeError(f"expected an inverse-gamma law or one on a grid, got {law!r}")
        source: Any = self.eval().observed() or self.make_prediction_strategy()
        of, found = self._scale_posterior
        if found is None or of is not source:
            r, n = self.quadratic_form()
            found = law.posterior(n, r)
            self._scale_posterior = source, None if r.requires_grad else found
        return found


class StudentTGP(UnitScaleGP):
    """The Gaussian process of `tp`."""

    config_class: ClassVar[type[Config]] = TPConfig

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """A kernel whose amplitude is fixed: s2 is the amplitude."""
        if not isinstance(config, TPConfig):
            raise TypeError(f"expected a TPConfig, got {config!r}")
        if config.kernel == "matern":
            scaled = get_matern_kernel_with_gamma_prior(ard_num_dims=d, batch_shape=batch_shape)
            return scaled.base_kernel
        if config.kernel == "nngp":
            return fix_output_variance(
                NNGPKernel(config.activation, config.depth, d, batch_shape=batch_shape)
            )
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
