"""Gaussian process that finds outliers and discounts them, by relevance pursuit.

Model: y_i = f(x_i) + e_i, f ~ GP(constant, k), e_i ~ N(0, s2 + r_i), where r_i = 0 but for a few
outliers (Ament et al. 2024, arXiv 2410.24222, section 3).

Inference: starting with all points as outliers, those with the smallest r_i are taken for regular
ones, in steps; at each number of outliers the r_i and the hyper-parameters maximize the marginal
likelihood times the hyper-parameters' prior (`inference/relevance_pursuit.py`). Of these models the
one with the best maximum times a prior that falls exponentially with the number of outliers is kept
(section 5). The model is BoTorch's, and so is the algorithm, but for its searches: each starts
where the one before ended as well as afresh.

The prior. Each outlier has to raise the log likelihood by `outlier_cost`. For a point that is an
outlier with probability p that is log(1 / p), and what the maximum over r_i gains on an average
over it comes on top. Where a function has a few high peaks far apart, as Hartmann-6 has, the top of
a peak looks like an outlier, and a smooth function with much less noise explains what is left:
measured, at a gain of up to 9 units a point. A model that takes peaks for outliers is
overconfident, so the default asks for more than that. It is no guarantee: of 30 points of a Sobol
design (seed 1) on Hartmann-6, the one on the highest peak still gains more.

Prediction: the posterior is exact, given the r_i. New observations have the variance s2.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from botorch.exceptions.warnings import InputDataWarning
from botorch.models.gpytorch import BatchedMultiOutputGPyTorchModel
from botorch.models.likelihoods.sparse_outlier_noise import (
    SparseOutlierGaussianLikelihood,
    SparseOutlierNoise,
)
from gpytorch.constraints import Interval
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.priors import LogNormalPrior
from linear_operator.operators import LinearOperator
from torch import Tensor

from bo_surrogates.config import Config, choice, real
from bo_surrogates.inference.relevance_pursuit import (
    FINE_TOLERANCE,
    LogNormal,
    Optimum,
    OutlierDensity,
    pursue,
)
from bo_surrogates.kernels.mixed import stationary_kernel
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, Surrogate, SurrogateEntry
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate
from bo_surrogates.surrogates.gp import SMOOTHNESS

# Numbers of outliers that are tried, and fractions of the points.
FEW = range(8)
FRACTIONS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


@dataclass(frozen=True)
class RobustGPConfig(Config):
    """Configuration of `robust_gp`.

    Attributes:
        kernel: "rbf", "matern32" or "matern52", with the priors of `gp`.
        max_fraction: Of the points, taken for outliers at most.
        outlier_cost: Log likelihood that a point has to gain by being an outlier.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel",)

    kernel: str = choice("rbf", tuple(SMOOTHNESS))
    max_fraction: float = real(0.5, 0.0, 0.5)
    outlier_cost: float = real(10.0, 0.0, 1e3)


class RobustGP(ExactGPSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = RobustGPConfig
    config: RobustGPConfig

    def prepare(self) -> None:
        """See `Surrogate.prepare`: a variance of its own for each point."""
        count = self.train_targets.shape[-1]
        self.likelihood = SparseOutlierGaussianLikelihood(
            base_noise=self.likelihood.noise_covar, dim=count
        ).to(self.train_targets)
        with torch.no_grad():
            self._noise.full_support()  # dense, so that the state has one shape

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`."""
        name: str = config.kernel  # type: ignore[attr-defined]
        return stationary_kernel(SMOOTHNESS[name], d, d, batch_shape)

    @property
    def _noise(self) -> SparseOutlierNoise:
        noise: SparseOutlierNoise = self.likelihood.noise_covar
        return noise

    @property
    def outliers(self) -> Tensor:
        """`n`, which training points are taken for outliers."""
        return self._noise.rho.detach() > 0

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Relevance pursuit; see `Surrogate.fit`.

        A warm start is not used: the searches have starting points of their own.
        """
        count = self.train_targets.shape[-1]
        most = math.floor(self.config.max_fraction * count)
        counts = {min(k, most) for k in (*FEW, *(int(share * count) for share in FRACTIONS))}
        density = self._density()
        best = max(pursue(density, counts), key=self._score)
        best = density.maximize(best.outliers, best.position, best.share, FINE_TOLERANCE)
        self._keep(best)
        self.diagnostics = self._diagnose(self.marginal_likelihood())
        figures = {
            "outliers": float(self.outliers.sum()),
            "evaluations": float(density.evaluations),
        }
        self.diagnostics = replace(self.diagnostics, values={**self.diagnostics.values, **figures})
        return self

    def _density(self) -> OutlierDensity:
        """What is maximized, of the training data and with the priors of the modules."""
        (X,) = self.train_inputs
        with torch.no_grad():
            X = self.transform_inputs(X) if self.training else X
        kernel, noise = self.covar_module, self._noise.base_noise
        return OutlierDensity(
            X.cpu().double().numpy(),
            self.train_targets.cpu().double().numpy(),
            SMOOTHNESS[self.config.kernel],
            lengthscale=_log_normal(kernel.lengthscale_prior),
            noise=_log_normal(noise.noise_prior),
            lower=(
                float(kernel.raw_lengthscale_constraint.lower_bound),
                float(noise.raw_noise_constraint.lower_bound),
            ),
        )

    def _score(self, optimum: Optimum) -> float:
        """Log density and log prior of the number of outliers, up to a constant."""
        outliers = int((optimum.share > 0).sum())
        return optimum.log_density - self.config.outlier_cost * outliers

    def _keep(self, optimum: Optimum) -> None:
        """Set the parameters."""
        kernel, noise, share = self.covar_module, self._noise.base_noise, self._noise.raw_rho
        *log_lengthscale, log_noise, mean = torch.from_numpy(optimum.position).to(share).unbind()

        def bounded(constraint: Interval, logarithm: Tensor) -> Tensor:
            return logarithm.exp().clamp_min(constraint.lower_bound)  # met but for rounding

        lengthscale = bounded(kernel.raw_lengthscale_constraint, torch.stack(log_lengthscale))
        kernel.lengthscale = lengthscale.unsqueeze(0)
        noise.noise = bounded(noise.raw_noise_constraint, log_noise.unsqueeze(0))
        self.mean_module.initialize(constant=mean)
        with torch.no_grad():
            share.zero_()
            share[torch.from_numpy(optimum.outliers)] = torch.from_numpy(optimum.share).to(share)

    def training_noise(self) -> LinearOperator:
        """See `ExactGPSurrogate.training_noise`: that of outliers included."""
        (X,) = self.train_inputs
        with torch.no_grad():
            diagonal = self.forward(X).lazy_covariance_matrix.diagonal()
            noise: LinearOperator = self._noise(X, shape=X.shape[:-1], diag_K=diagonal)
        return noise

    def _apply_noise(
        self, X: Tensor, mvn: MultivariateNormal, observation_noise: bool | Tensor = False
    ) -> MultivariateNormal:
        """BoTorch's, with the noise of regular points for all new ones."""
        if observation_noise is False:
            return mvn
        noise = (
            observation_noise.squeeze(-1)
            if torch.is_tensor(observation_noise)
            else self._noise.base_noise.noise
        )
        covariance = mvn.lazy_covariance_matrix.add_diagonal(noise.expand(mvn.mean.shape))
        return MultivariateNormal(mvn.mean, covariance)

    def condition_on_observations(  # type: ignore[override]  # BoTorch's own bases differ
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> BatchedMultiOutputGPyTorchModel:
        """See `ExactGPSurrogate.condition_on_observations`; new points are regular ones."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InputDataWarning)  # says the same
            return super().condition_on_observations(X, Y, noise=noise, **kwargs)


def _log_normal(prior: LogNormalPrior) -> LogNormal:
    return LogNormal(float(prior.loc), float(prior.scale))


SURROGATES.register(
    SurrogateEntry(
        name="robust_gp",
        model_class=RobustGP,
        summary="Gaussian process that finds outliers among the observations by relevance pursuit",
        paper="Ament et al. 2024, arXiv 2410.24222",
        capabilities=Capabilities(
            posterior="gaussian", multi_output=False, exact_conditioning=True,
            observation_variance=False, max_n=1000, cost="seconds",
        ),
    )
)  # fmt: skip
