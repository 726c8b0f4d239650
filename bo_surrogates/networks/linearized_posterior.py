"""The exact posterior of a network linearized in its weights, under a Gaussian likelihood.

Model: theta ~ N(theta_0, S), y = f(x; theta*) + J(x) (theta - theta*) + e, e ~ N(0, N), with S
and N diagonal. This is Bayesian linear regression on the features J(x), and at the same time a
Gaussian process with mean f(x; theta*) + J(x) (theta_0 - theta*) and covariance J(x) S J(x')' (Khan
et al. 2019, arXiv 1906.01930; Immer et al. 2021, arXiv 2008.08217, section 3). With r = y - mean:

- function space: K + N = L L', square in the n m observed values;
- weight space: I + sqrt(S) J' N^-1 J sqrt(S) = R R', square in the P weights.

Both are the same posterior; `condition` takes the smaller. The mean of the weights is the linear
model's own, which is theta* exactly where theta* maximizes the posterior of the network (Antoran
et al. 2022, arXiv 2206.08900, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.linear_regression import inverse_triangular, standard_normal
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.linearization import Linearization


@dataclass(frozen=True)
class WeightPrior:
    """Independent Gaussian weights, of one variance in each weight matrix and each bias vector.

    Attributes:
        network: The network.
        mean: theta_0, `P`.
        variances: `2 (depth + 1)`, in the order of `theta`.
    """

    network: BatchedMLP
    mean: Tensor
    variances: Tensor

    @property
    def diagonal(self) -> Tensor:
        """`P` variances."""
        sizes = torch.tensor([size for i, o in self.network.fan for size in (i * o, o)])
        return self.variances.repeat_interleave(sizes.to(self.variances.device))

    def function_mean(self, at: Linearization) -> Tensor:
        """`batch_shape x n m` means of the linear model's values; rows over points, then outputs.

        Args:
            at: The network at `batch_shape x n x d` inputs.
        """
        change = (self.mean - at.theta).unsqueeze(0)
        return (at.values + at.jvp(change).squeeze(0)).flatten(start_dim=-2)


class LinearizedPosterior(Protocol):
    """A Gaussian posterior over weights, seen through the linearized network."""

    @property
    def batch_shape(self) -> torch.Size:
        """Of the observations: empty unless `extend` was given batches of them."""

    @property
    def mean_weights(self) -> Tensor:
        """`P` means."""

    def joint(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """Mean `... x q m` and covariance `... x q m x q m` of the functions' values.

        Args:
            at: The network at `batch_shape x q x d` inputs.
        """

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """`k x P` weights; the draws are made in float64 on the generator's device."""

    def extend(self, at: Linearization, targets: Tensor, noise: Tensor) -> LinearizedPosterior:
        """The posterior given further observations.

        Args:
            at: The network at `batch_shape x n' x d` new inputs.
            targets: `... x batch_shape x n' x m` observed values.
            noise: Noise variances, broadcastable to `batch_shape x n' x m`.
        """


@dataclass(frozen=True)
class FunctionSpace:
    """The posterior as a Gaussian process.

    Attributes:
        observed: The network at the observed inputs, `batch_shape x n x d`.
        prior: Of the weights.
        noise: `... x n m` noise variances.
        inverse_root: L^-1, `batch_shape x n m x n m`.
        whitened: L^-1 r, `... x n m`; its batch shape may have more dimensions in front.
    """

    observed: Linearization
    prior: WeightPrior
    noise: Tensor
    inverse_root: Tensor
    whitened: Tensor

    @classmethod
    def of(
        cls, observed: Linearization, prior: WeightPrior, targets: Tensor, noise: Tensor
    ) -> FunctionSpace:
        """Condition the prior.

        Args:
            observed: The network at `n x d` inputs.
            prior: Of the weights.
            targets: `n x m` observed values.
            noise: `n x m` noise variances, positive.
        """
        residual = targets.flatten() - prior.function_mean(observed)
        S = observed.kernel(observed, prior.variances) + torch.diag(noise.flatten())
        W = inverse_triangular(psd_safe_cholesky(S))
        return cls(observed, prior, noise.flatten(), W, W @ residual)

    @property
    def batch_shape(self) -> torch.Size:
        """See `LinearizedPosterior`."""
        return self.whitened.shape[:-1]

    @property
    def mean_weights(self) -> Tensor:
        """See `LinearizedPosterior`: theta_0 + S J' (K + N)^-1 r."""
        coefficients = (self.inverse_root.mT @ self.whitened).unsqueeze(0)
        return self.prior.mean + self._pull_back(coefficients).squeeze(0)

    def _pull_back(self, coefficients: Tensor) -> Tensor:
        """S J' u for `k x n m` vectors u."""
        m = self.observed.values.shape[-1]
        return self.prior.diagonal * self.observed.vjp(coefficients.unflatten(-1, (-1, m)))

    def joint(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """See `LinearizedPosterior`."""
        psi = at.kernel(self.observed, self.prior.variances) @ self.inverse_root.mT
        mean = self.prior.function_mean(at) + (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        return mean, at.kernel(at, self.prior.variances) - psi @ psi.mT

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """See `LinearizedPosterior`: a draw from the prior, updated (Matheron's rule)."""
        like, scale = self.whitened, self.prior.diagonal.sqrt()
        change = self.prior.network.draw(k, scale, generator, like.dtype)
        normal = standard_normal((k, like.shape[-1]), like, generator)
        values = self.observed.jvp(change).flatten(start_dim=-2) + self.noise.sqrt() * normal
        white = self.whitened - values @ self.inverse_root.mT
        return self.prior.mean + change + self._pull_back(white @ self.inverse_root)

    def extend(self, at: Linearization, targets: Tensor, noise: Tensor) -> FunctionSpace:
        """See `LinearizedPosterior`: the Cholesky factor grows by its new rows."""
        W = self.inverse_root
        psi = at.kernel(self.observed, self.prior.variances) @ W.mT
        noise = noise.expand(*at.batch_shape, *targets.shape[-2:]).flatten(start_dim=-2)
        S = at.kernel(at, self.prior.variances) + torch.diag_embed(noise) - psi @ psi.mT
        W_new = inverse_triangular(psd_safe_cholesky(S))
        batch = W_new.shape[:-2]
        W = W.expand(*batch, *W.shape[-2:])
        top = torch.cat([W, W.new_zeros(*batch, W.shape[-1], W_new.shape[-1])], dim=-1)
        inverse_root = torch.cat([top, torch.cat([-W_new @ psi @ W, W_new], dim=-1)], dim=-2)
        residual = targets.flatten(start_dim=-2) - self.prior.function_mean(at)
        residual = residual - (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        new = (W_new @ residual.unsqueeze(-1)).squeeze(-1)
        old = self.whitened.expand(*new.shape[:-1], self.whitened.shape[-1])
        all_noise = torch.cat([self.noise.expand(*batch, self.noise.shape[-1]), noise], dim=-1)
        return FunctionSpace(
            self.observed.cat(at), self.prior, all_noise, inverse_root,
            torch.cat([old, new], dim=-1),
        )  # fmt: skip


@dataclass(frozen=True)
class WeightSpace:
    """The posterior as Bayesian linear regression, in weights whitened by the prior.

    Attributes:
        prior: Of the weights.
        inverse_root: R^-1, `batch_shape x P x P`.
        whitened: R^-1 sqrt(S) J' N^-1 r, `... x P`.
    """

    prior: WeightPrior
    inverse_root: Tensor
    whitened: Tensor

    @classmethod
    def of(
        cls, observed: Linearization, prior: WeightPrior, targets: Tensor, noise: Tensor
    ) -> WeightSpace:
        """Condition the prior; arguments as for `FunctionSpace.of`."""
        zeros = torch.zeros_like(prior.mean)
        eye = torch.eye(len(zeros), dtype=zeros.dtype, device=zeros.device)
        return cls(prior, eye, zeros).extend(observed, targets, noise)

    @property
    def batch_shape(self) -> torch.Size:
        """See `LinearizedPosterior`."""
        return self.whitened.shape[:-1]

    @property
    def mean_weights(self) -> Tensor:
        """See `LinearizedPosterior`."""
        return self.prior.mean + self.prior.diagonal.sqrt() * (self.inverse_root.mT @ self.whitened)

    def joint(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """See `LinearizedPosterior`."""
        psi = self._features(at)
        mean = self.prior.function_mean(at) + (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        return mean, psi @ psi.mT

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """See `LinearizedPosterior`."""
        white = self.whitened + standard_normal(
            (k, self.whitened.shape[-1]), self.whitened, generator
        )
        return self.prior.mean + self.prior.diagonal.sqrt() * (white @ self.inverse_root)

    def _features(self, at: Linearization) -> Tensor:
        """`batch_shape x n m x P`: J in coordinates whitened by the posterior."""
        phi = at.jacobian() * self.prior.diagonal.sqrt()
        return phi.flatten(start_dim=-3, end_dim=-2) @ self.inverse_root.mT

    def extend(self, at: Linearization, targets: Tensor, noise: Tensor) -> WeightSpace:
        """See `LinearizedPosterior`."""
        W = self.inverse_root
        noise = noise.expand(*at.batch_shape, *targets.shape[-2:]).flatten(start_dim=-2)
        # In coordinates whitened by the posterior so far, that is the prior.
        psi = self._features(at)
        weighted = psi / noise.unsqueeze(-1)
        eye = torch.eye(psi.shape[-1], dtype=psi.dtype, device=psi.device)
        W_new = inverse_triangular(psd_safe_cholesky(eye + psi.mT @ weighted))
        residual = targets.flatten(start_dim=-2) - self.prior.function_mean(at)
        pulled = (weighted.mT @ residual.unsqueeze(-1)).squeeze(-1) + self.whitened
        whitened = (W_new @ pulled.unsqueeze(-1)).squeeze(-1)
        return WeightSpace(self.prior, W_new @ W, whitened)


def condition(
    observed: Linearization, prior: WeightPrior, targets: Tensor, noise: Tensor
) -> FunctionSpace | WeightSpace:
    """The posterior in whichever space is smaller; arguments as for `FunctionSpace.of`."""
    kind = FunctionSpace if targets.numel() <= observed.network.num_parameters else WeightSpace
    return kind.of(observed, prior, targets, noise)
