"""Observation noise whose variance depends on the input.

    log s2(x) = m + a g(x),    g ~ GP(0, k_g) with k_g squared exponential of variance one

(Goldberg, Williams & Bishop 1998; Kersting et al. 2007, "Most likely heteroscedastic Gaussian
process regression"). g is represented by whitened values u ~ N(0, I) at p knots z among the
training inputs, g(x) = k_g(x, z) L^-T u with k_g(z, z) = L L'.

u, m and the lengthscales of k_g maximize the marginal likelihood of the observations times their
priors together with the parameters of the function (as Binois, Gramacy & Ludkovski 2018,
arXiv 1611.05902, section 3): one optimization with gradients, where Kersting et al. alternate
between two processes and estimate the noise from sampled residuals.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.models.utils.inducing_point_allocators import GreedyVarianceReduction
from gpytorch.constraints import GreaterThan, Interval
from gpytorch.kernels import RBFKernel
from gpytorch.likelihoods.gaussian_likelihood import _GaussianLikelihoodBase
from gpytorch.likelihoods.noise_models import Noise
from gpytorch.priors import LogNormalPrior, NormalPrior
from linear_operator.operators import DiagLinearOperator
from torch import Size, Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky

MAX_KNOTS = 50
LOG_NOISE_MEAN, LOG_NOISE_STD = -4.0, 1.0  # prior of m: that of BoTorch's constant noise
LOG_NOISE_BOUNDS = (math.log(1e-4), math.log(10.0))  # of m, of standardized outcomes
# a. Chosen among 0.35 to 2.5 on functions of one input with 30 and 80 points, six of each: with a
# constant noise the mean log density is 0.05 to 0.06 below that of a constant-noise model, with a
# standard deviation that grows eleven-fold 0.13 to 0.24 above; a larger a loses more there than it
# gains here.
AMPLITUDE = 0.5
MIN_VARIANCE = 1e-5


class InputDependentNoise(Noise):
    """Noise variances by the model of the module's docstring.

    Args:
        X: `n x d` training inputs in the unit cube.
        batch_shape: Of the parameters.
    """

    knots: Tensor

    def __init__(self, X: Tensor, batch_shape: Size) -> None:
        super().__init__()
        d = X.shape[-1]
        # Noise is learnt from squares of residuals, of which a few say little: vary slowly.
        prior = LogNormalPrior(loc=math.sqrt(2) + 0.5 * math.log(d) - 1.0, scale=1.0)
        self.kernel = RBFKernel(
            ard_num_dims=d,
            batch_shape=batch_shape,
            lengthscale_prior=prior,
            lengthscale_constraint=GreaterThan(
                5e-2, transform=None, initial_value=math.exp(prior.loc - 1.0)
            ),
        ).to(X)
        self.register_buffer("knots", choose_knots(X), persistent=False)
        count = len(self.knots)
        self.register_parameter("log_mean", torch.nn.Parameter(X.new_full((*batch_shape, 1), -4.0)))
        self.register_constraint(
            "log_mean", Interval(*LOG_NOISE_BOUNDS, transform=None, initial_value=LOG_NOISE_MEAN)
        )
        self.register_prior(
            "log_mean_prior", NormalPrior(LOG_NOISE_MEAN, LOG_NOISE_STD), "log_mean"
        )
        self.register_parameter("values", torch.nn.Parameter(X.new_zeros((*batch_shape, count))))
        self.register_prior("values_prior", NormalPrior(0.0, 1.0), "values")

    def variance(self, X: Tensor) -> Tensor:
        """Noise variances `... x n`, of standardized outcomes, at `... x n x d` scaled inputs.

        Leading dimensions of X broadcast against the batch shape.
        """
        covariance = self.kernel(self.knots).to_dense()
        root = psd_safe_cholesky(covariance)
        weight = torch.linalg.solve_triangular(root.mT, self.values.unsqueeze(-1), upper=True)
        g = (self.kernel(X, self.knots).to_dense() @ weight).squeeze(-1)
        return (self.log_mean + AMPLITUDE * g).exp().clamp_min(MIN_VARIANCE)

    def forward(
        self,
        *params: Any,
        shape: Size | None = None,
        noise: Tensor | None = None,
        **kwargs: Any,
    ) -> DiagLinearOperator:
        """The noise's covariance at the inputs in `params`, or the variances given by `noise`."""
        if noise is not None:
            return DiagLinearOperator(noise)
        X = params[0] if torch.is_tensor(params[0]) else params[0][0]
        variance = self.variance(X)
        return DiagLinearOperator(variance if shape is None else variance.expand(shape))


class InputDependentNoiseLikelihood(_GaussianLikelihoodBase):
    """Gaussian observations with `InputDependentNoise`; arguments as there."""

    noise_covar: InputDependentNoise

    def __init__(self, X: Tensor, batch_shape: Size) -> None:
        super().__init__(noise_covar=InputDependentNoise(X, batch_shape))


def choose_knots(X: Tensor) -> Tensor:
    """At most `MAX_KNOTS` of the `n x d` inputs, spread out by greedy variance reduction."""
    X = X.detach().unique(dim=0)
    if len(X) <= MAX_KNOTS:
        return X
    kernel = RBFKernel().to(X)
    kernel.lengthscale = 0.2 * X.shape[-1] ** 0.5
    chosen: Tensor = GreedyVarianceReduction().allocate_inducing_points(
        X, kernel, MAX_KNOTS, Size([])
    )
    return chosen
