"""Predictions of exact Gaussian processes from one Cholesky factor of the observations' covariance.

With K(X, X) + V = L L', V the noise variances of the observations y, and m the prior mean,

    mean(x) = m(x) + psi(x) L^-1 (y - m(X)),    psi(x) = k(x, X) L^-T,
    cov(x, x') = k(x, x') - psi(x) psi(x')'

(Rasmussen & Williams 2006, algorithm 2.1). GPyTorch factorizes the matrix twice and inverts the
factor, through many small linear operators: more than half of the time of a prediction from a
hundred points, and from a thousand. Its own caches are made where they are asked for: by fantasies,
and where derivatives in the hyper-parameters or the data go through a prediction.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from botorch.models.utils import gpt_posterior_settings
from gpytorch import settings
from gpytorch.distributions import MultivariateNormal
from gpytorch.likelihoods import GaussianLikelihood
from gpytorch.means import ConstantMean
from gpytorch.models import ExactGP
from linear_operator import to_dense, to_linear_operator
from linear_operator.operators import LinearOperator
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.linear_regression import inverse_triangular, row_products


@dataclass(frozen=True, eq=False)
class Observed:
    """What predictions of n observations share; of m outputs `m x` goes in front.

    Attributes:
        inputs: X, `n x d`, scaled.
        targets: y, `n`, standardized.
        root: L, `n x n`.
        white: L^-1 (y - m(X)), `n`.
    """

    inputs: Tensor
    targets: Tensor
    root: Tensor
    white: Tensor

    @cached_property
    def inverse_root(self) -> Tensor:
        """L^-1."""
        return inverse_triangular(self.root)


class ExactPrediction(ExactGP):
    """Mixin of an `ExactGP` in evaluation mode: predicts as the module's docstring says."""

    mean_module: Any
    covar_module: Any
    train_inputs: Any
    _kept: Observed | None = None

    def training_noise(self) -> LinearOperator:
        """Covariance of the noise of the training outcomes, standardized, in evaluation mode."""
        noise: LinearOperator = self.likelihood.noise_covar(
            *self.train_inputs, shape=self.train_targets.shape
        )
        return noise

    def noise_variances(self) -> Tensor:
        """Those of `training_noise`, `... x n`, or what broadcasts to them."""
        likelihood = self.likelihood
        if type(likelihood) is GaussianLikelihood:  # without n equal ones in a lazy matrix
            noise: Tensor = likelihood.noise
            return noise
        return self.training_noise().diagonal(dim1=-2, dim2=-1)

    def prior_mean(self, X: Tensor) -> Tensor:
        """m(X), `... x n`, or what broadcasts to it, of scaled inputs `... x n x d`."""
        mean = self.mean_module
        value: Tensor = mean.constant.unsqueeze(-1) if type(mean) is ConstantMean else mean(X)
        return value

    def covariance(self, X1: Tensor, X2: Tensor) -> Tensor:
        """k(X1, X2), `... x n x n'`, of scaled inputs `... x n x d` and `... x n' x d`."""
        kernel = self.covar_module
        if kernel.active_dims is None:  # without GPyTorch's lazy matrix, which costs as much again
            return to_dense(kernel.forward(X1, X2))
        matrix: Tensor = kernel(X1, X2).to_dense()
        return matrix

    def variance(self, X: Tensor) -> Tensor:
        """k(x, x), `... x n`, of scaled inputs `... x n x d`."""
        diagonal: Tensor = self.covar_module(X, diag=True)
        return diagonal

    def observed(self) -> Observed | None:
        """The factor, kept until the data or the hyper-parameters change.

        None where GPyTorch's caches are to serve (see the module's docstring).
        """
        (X, *others), y = self.train_inputs, self.train_targets
        if others or settings.detach_test_caches.off() or X.requires_grad or y.requires_grad:
            return None
        kept = self._kept
        if kept is not None and kept.inputs is X and kept.targets is y:
            return kept
        return self.factorize() if self.prediction_strategy is None else None

    def factorize(self) -> Observed:
        """The factor, made anew."""
        (X,), y = self.train_inputs, self.train_targets
        with torch.no_grad():
            S = self.covariance(X, X)
            S.diagonal(dim1=-2, dim2=-1).add_(self.noise_variances())
            L = psd_safe_cholesky(S)
            residual = (y - self.prior_mean(X)).unsqueeze(-1)
            white = torch.linalg.solve_triangular(L, residual, upper=False).squeeze(-1)
        self._kept = Observed(X, y, L, white)
        return self._kept

    def __call__(self, *args: Any, **kwargs: Any) -> MultivariateNormal:
        """The prior in training mode; the posterior at scaled inputs in evaluation mode."""
        if self.training or kwargs or len(args) != 1 or settings.prior_mode.on():
            return super().__call__(*args, **kwargs)
        (X,) = args
        found = self.observed()
        models = () if found is None else found.inputs.shape[:-2]
        m = len(models)
        if found is None or m > 1 or X.ndim < 2 + m or X.shape[X.ndim - 2 - m : -2] != models:
            return super().__call__(X)
        # All points of a batch side by side: one matrix of all with the observations.
        batch, q = X.shape[: X.ndim - 2 - m], X.shape[-2]
        flat = X.movedim(-3, 0) if m else X
        flat = flat.reshape(*models, -1, X.shape[-1])
        psi = torch.linalg.solve_triangular(
            found.root, self.covariance(found.inputs, flat), upper=False
        ).mT
        mean = (psi @ found.white.unsqueeze(-1)).squeeze(-1) + self.prior_mean(flat)
        if batch:
            mean, psi = mean.unflatten(-1, (*batch, q)), psi.unflatten(-2, (*batch, q))
        if m:
            mean, psi = mean.movedim(0, -2), psi.movedim(0, -3)
        if q == 1:
            prior = self.variance(flat).unflatten(-1, (*batch, 1))
            prior = (prior.movedim(0, -2) if m else prior).unsqueeze(-1)
        else:
            prior = self.covariance(X, X)
        return MultivariateNormal(mean, to_linear_operator(prior - row_products(psi)))

    def eval(self) -> Self:
        """Evaluation mode; nothing to do where it is on, as at every prediction but the first."""
        return super().eval() if self.training else self

    def get_fantasy_model(self, inputs: Any, targets: Any, **kwargs: Any) -> Self:
        """See `gpytorch.models.ExactGP.get_fantasy_model`; needs no prediction before it."""
        self.make_prediction_strategy()
        kept, self._kept = self._kept, None  # not to be copied
        try:
            model: Self = super().get_fantasy_model(inputs, targets, **kwargs)
        finally:
            self._kept = kept
        return model

    def make_prediction_strategy(self) -> Any:
        """GPyTorch's caches, which it makes at its first prediction."""
        if self.prediction_strategy is None:
            with gpt_posterior_settings(), settings.debug(False):
                super().__call__(self.train_inputs[0][..., :1, :].detach())
        return self.prediction_strategy

    def _clear_cache(self) -> None:
        super()._clear_cache()
        self._kept = None
