"""Bayesian linear regression on given features: the exact posterior, and its exact updates.

Model, for each of m outcomes on shared features: y_i = phi(x_i) . w + e_i, w ~ N(0, s^2 I),
e_i ~ N(0, v_i). It is at the same time the Gaussian process with the kernel s^2 phi(x) . phi(x')
of rank k (Rasmussen and Williams 2006, section 2.1.2):

- function space: s^2 Phi Phi' + V = L L', `n x n`;
- weight space: I + s^2 Phi' V^-1 Phi = R R', `k x k`.

Both are the same posterior; `condition` takes that in which a prediction costs less. Further
observations extend L by rows, and multiply R^-1 by that of their own update (recursive least
squares).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from bo_surrogates.inference.cholesky import psd_safe_cholesky


def inverse_triangular(lower: Tensor) -> Tensor:
    """Of a lower triangular matrix: products with it cost less than solves, and batch better."""
    eye = torch.eye(lower.shape[-1], dtype=lower.dtype, device=lower.device)
    return torch.linalg.solve_triangular(lower, eye.expand_as(lower), upper=False)


def standard_normal(shape: tuple[int, ...], like: Tensor, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, the same for any device and dtype: those of `like`."""
    normal = torch.randn(*shape, generator=generator, dtype=torch.float64, device=generator.device)
    return normal.to(like)


def times(rows: Tensor, matrices: Tensor) -> Tensor:
    """rows @ matrices; a broadcast product would read a matrix once for each batch of few rows.

    Args:
        rows: `... x m x q x a`, or `... x 1 x q x a`.
        matrices: `batch_shape x m x a x b`.
    """
    if matrices.ndim > 3 or rows.ndim == 3:
        return rows @ matrices
    last = rows.shape[-3] - 1
    each = [rows[..., min(i, last), :, :] @ matrix for i, matrix in enumerate(matrices)]
    if len(each) == 1 and last > 0:
        return rows @ matrices[0]
    return torch.stack(each, dim=-3)


ROWS = 128  # of a block of a product of which half is known


def products(phi: Tensor) -> Tensor:
    """phi phi' of `n x k` features, block by block below the diagonal: half of the operations."""
    n = len(phi)
    if n <= 2 * ROWS:
        return phi @ phi.mT
    result = phi.new_empty(n, n)
    for start in range(0, n, ROWS):
        stop = min(start + ROWS, n)
        block = torch.matmul(phi[start:stop], phi[:stop].mT)
        result[start:stop, :stop] = block
        result[:start, start:stop] = block[:, :start].mT
    return result


def lower_times(lower: Tensor, matrix: Tensor) -> Tensor:
    """A lower triangular matrix times another, without its zeros."""
    n = len(lower)
    if n <= 2 * ROWS:
        return lower @ matrix
    blocks = ((start, min(start + ROWS, n)) for start in range(0, n, ROWS))
    return torch.cat([lower[start:stop, :stop] @ matrix[:stop] for start, stop in blocks])


class _Product(torch.autograd.Function):
    """rows A, given A and A' as they lie in memory; A is constant."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, matrix: Tensor, transposed: Tensor) -> Tensor:
        """rows A."""
        ctx.save_for_backward(matrix, transposed)
        return rows @ transposed.mT

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        """The same product, of A'."""
        matrix, transposed = ctx.saved_tensors
        product: Tensor = _Product.apply(grads[0], transposed, matrix)
        return product, None, None


def products_with(matrix: Tensor) -> Callable[[Tensor], Tensor]:
    """The function rows -> rows A for a constant `a x b` matrix A, to be called many times.

    A is kept twice, as it is and transposed: a few rows times a matrix that is larger than the
    caches take half of the time along the matrix's rows in memory, and so does the gradient.
    """
    matrix = matrix.contiguous()
    transposed = matrix.mT.contiguous()

    def product(rows: Tensor) -> Tensor:
        result: Tensor = _Product.apply(rows, matrix, transposed)
        return result

    return product


Coordinates = tuple[Tensor, Tensor, Tensor]


def row_products(rows: Tensor) -> Tensor:
    """rows rows', `... x q x q`."""
    if rows.shape[-2] == 1:
        return rows.square().sum(dim=-1).unsqueeze(-1)
    return rows @ rows.mT


class LinearRegression(Protocol):
    """The posterior of m independent outcomes."""

    @property
    def batch_shape(self) -> torch.Size:
        """Of the observations: empty unless `extend` was given batches of them."""

    def joint(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """Mean `... x m x q` and covariance `... x m x q x q` of the functions' values.

        Args:
            phi: `batch_shape x q x k` features.
        """

    def at_training_points(
        self, phi: Callable[[], Tensor], targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Means and leverages (posterior over noise variances) at the observations, `n x m` each.

        Args:
            phi: Makes the `n x k` features, if they are needed.
            targets: `n x m`, and `noise`: what the posterior was conditioned on first.
            noise: `n x m` variances.
        """

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """`count x m x k` weights from the posterior."""

    def beside(self, phi: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Coordinates]]:
        """The joint law of values at fixed points and others, of one outcome without batches.

        Args:
            phi: `r x k` features of the fixed points.

        Returns:
            Mean `r` and Cholesky factor `r x r` of the values there; and a function from features
            `batch_shape x q x k` to what `FixedPoints.others` returns.
        """

    def extend(self, phi: Tensor, targets: Tensor, noise: Tensor) -> LinearRegression:
        """The posterior given further observations.

        Args:
            phi: `batch_shape x n' x k` features.
            targets: `... x batch_shape x n' x m`.
            noise: Variances, broadcastable to `batch_shape x n' x m`.
        """


@dataclass(frozen=True)
class FunctionSpace:
    """The posterior as a Gaussian process.

    Attributes:
        features: Phi, `batch_shape x 1 x n x k`.
        variance: s^2, `m x 1 x 1`.
        noise: `batch_shape x m x n` variances.
        inverse_root: L^-1, `batch_shape x m x n x n`.
        whitened: L^-1 y, `... x m x n`; its batch shape may have more dimensions in front.
    """

    features: Tensor
    variance: Tensor
    noise: Tensor
    inverse_root: Tensor
    whitened: Tensor

    @classmethod
    def of(
        cls,
        phi: Tensor,
        variance: Tensor,
        targets: Tensor,
        noise: Tensor,
        products: Tensor | None = None,
    ) -> FunctionSpace:
        """Condition the prior.

        Args:
            phi: `n x k` features.
            variance: s^2, `m`.
            targets: `n x m`.
            noise: `n x m` variances, positive.
            products: Phi Phi', where it is there already.
        """
        features, scale = phi.unsqueeze(-3), variance.reshape(-1, 1, 1)
        products = features @ features.mT if products is None else products
        S = scale * products + torch.diag_embed(noise.mT)
        W = inverse_triangular(psd_safe_cholesky(S))
        return cls(features, scale, noise.mT, W, (W @ targets.mT.unsqueeze(-1)).squeeze(-1))

    @property
    def batch_shape(self) -> torch.Size:
        """See `LinearRegression`."""
        return self.whitened.shape[:-2]

    def _cross(self, phi: Tensor) -> Tensor:
        """s^2 phi Phi' L^-T, `... x m x q x n`."""
        return self.variance * times(times(phi, self.features.mT), self.inverse_root.mT)

    def joint(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """See `LinearRegression`."""
        phi = phi.unsqueeze(-3)
        psi = self._cross(phi)
        mean = (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        covariance = self.variance * (phi @ phi.mT) - psi @ psi.mT
        return mean, covariance.expand(*mean.shape, mean.shape[-1])

    def at_training_points(
        self, phi: Callable[[], Tensor], targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `LinearRegression`: with P = S^-1, y - v P y and 1 - v P_ii."""
        n, W = len(targets), self.inverse_root
        alpha = (W.mT @ self.whitened.unsqueeze(-1)).squeeze(-1).mT[:n]
        return targets - noise * alpha, 1.0 - noise * W.square().sum(dim=-2).mT[:n]

    @cached_property
    def _observed(self) -> Tensor:
        """L^-1 s^2 Phi, `n x k`, of the first outcome."""
        return self.variance[0] * lower_times(self.inverse_root[0], self.features[0])

    def beside(self, phi: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Coordinates]]:
        """See `LinearRegression`.

        The fixed values extend L like observations without noise; then u = L^-1 s^2 Phi phi(x)
        holds all of the posterior, and its last entries are the coordinates.
        """
        scale, white, observed = self.variance.squeeze(), self.whitened[0], self._observed
        n = len(white)
        psi = phi @ observed.mT
        root = psd_safe_cholesky(scale * (phi @ phi.mT) - psi @ psi.mT)
        rest = torch.linalg.solve_triangular(root, scale * phi - psi @ observed, upper=False)
        coordinates = products_with(torch.cat([observed, rest]).mT)  # k x (n + r)

        def others(phi: Tensor) -> Coordinates:
            u = coordinates(phi)
            return u[..., :n] @ white, u[..., n:], scale * row_products(phi) - row_products(u)

        return psi @ white, root, others

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `LinearRegression`: a draw from the prior, updated (Matheron's rule)."""
        m, n = self.whitened.shape[-2:]
        root = self.variance.sqrt().squeeze(-1)
        k = self.features.shape[-1]
        weights = root * standard_normal((count, m, k), self.whitened, generator)
        noise = self.noise.sqrt() * standard_normal((count, m, n), self.whitened, generator)
        values = weights @ self.features.squeeze(-3).mT + noise
        white = self.whitened - (self.inverse_root @ values.unsqueeze(-1)).squeeze(-1)
        back = (self.inverse_root.mT @ white.unsqueeze(-1)).squeeze(-1)
        return weights + self.variance.squeeze(-1) * (back @ self.features.squeeze(-3))

    def extend(self, phi: Tensor, targets: Tensor, noise: Tensor) -> FunctionSpace:
        """See `LinearRegression`: the Cholesky factor grows by its new rows."""
        noise = noise.expand(*phi.shape[:-1], targets.shape[-1]).mT
        phi = phi.unsqueeze(-3)
        W, psi = self.inverse_root, self._cross(phi)
        S = self.variance * (phi @ phi.mT) + torch.diag_embed(noise) - psi @ psi.mT
        W_new = inverse_triangular(psd_safe_cholesky(S))
        batch = W_new.shape[:-2]
        W = W.expand(*batch, *W.shape[-2:])
        top = torch.cat([W, W.new_zeros(*batch, W.shape[-1], W_new.shape[-1])], dim=-1)
        inverse_root = torch.cat([top, torch.cat([-W_new @ psi @ W, W_new], dim=-1)], dim=-2)
        residual = targets.mT - (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        new = (W_new @ residual.unsqueeze(-1)).squeeze(-1)
        old = self.whitened.expand(*new.shape[:-1], self.whitened.shape[-1])
        features = self.features.expand(*phi.shape[:-2], *self.features.shape[-2:])
        known = self.noise.expand(*noise.shape[:-1], self.noise.shape[-1])
        return FunctionSpace(
            torch.cat([features, phi], dim=-2), self.variance, torch.cat([known, noise], dim=-1),
            inverse_root, torch.cat([old, new], dim=-1),
        )  # fmt: skip


@dataclass(frozen=True)
class WeightSpace:
    """The posterior of the weights, whitened by their prior.

    Attributes:
        variance: s^2, `m x 1 x 1`.
        inverse_root: R^-1, `batch_shape x m x k x k`.
        whitened: R^-1 s Phi' V^-1 y, `... x m x k`.
    """

    variance: Tensor
    inverse_root: Tensor
    whitened: Tensor

    @classmethod
    def of(cls, phi: Tensor, variance: Tensor, targets: Tensor, noise: Tensor) -> WeightSpace:
        """Condition the prior; arguments as for `FunctionSpace.of`."""
        scale = variance.reshape(-1, 1, 1)
        if (noise == noise[:1]).all():  # one matrix serves all outcomes
            ratio = scale / noise[0].reshape(-1, 1, 1)
            A = ratio * (phi.mT @ phi)
            pulled = ratio.squeeze(-1) / scale.sqrt().squeeze(-1) * (targets.mT @ phi)
        else:
            weighted = phi / noise.mT.unsqueeze(-1)  # m x n x k
            A = scale * (weighted.mT @ phi)
            pulled = (weighted.mT @ targets.mT.unsqueeze(-1)).squeeze(-1) * scale.sqrt().squeeze(-1)
        eye = torch.eye(phi.shape[-1], dtype=phi.dtype, device=phi.device)
        W = inverse_triangular(psd_safe_cholesky(eye + A))
        return cls(scale, W, (W @ pulled.unsqueeze(-1)).squeeze(-1))

    @property
    def batch_shape(self) -> torch.Size:
        """See `LinearRegression`."""
        return self.whitened.shape[:-2]

    def _cross(self, phi: Tensor) -> Tensor:
        """s phi R^-T, `... x m x q x k`: features whitened by the posterior so far."""
        return self.variance.sqrt() * times(phi.unsqueeze(-3), self.inverse_root.mT)

    def joint(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """See `LinearRegression`."""
        psi = self._cross(phi)
        mean = (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        return mean, (psi @ psi.mT).expand(*mean.shape, mean.shape[-1])

    def at_training_points(
        self, phi: Callable[[], Tensor], targets: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `LinearRegression`."""
        psi = self._cross(phi())
        mean = (psi @ self.whitened.unsqueeze(-1)).squeeze(-1).mT
        return mean, psi.square().sum(dim=-1).mT / noise

    def beside(self, phi: Tensor) -> tuple[Tensor, Tensor, Callable[[Tensor], Coordinates]]:
        """See `LinearRegression`."""
        psi = self._cross(phi)[0]
        white = self.whitened[0]
        root = psd_safe_cholesky(psi @ psi.mT)
        basis = torch.linalg.solve_triangular(root, psi, upper=False)  # r x k
        whiten = products_with(self.variance[0].sqrt() * self.inverse_root[0].mT)

        def others(phi: Tensor) -> Coordinates:
            psi = whiten(phi)
            coordinates = psi @ basis.mT
            return psi @ white, coordinates, row_products(psi) - row_products(coordinates)

        return psi @ white, root, others

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """See `LinearRegression`."""
        normal = standard_normal((count, *self.whitened.shape), self.whitened, generator)
        white = (self.inverse_root.mT @ (self.whitened + normal).unsqueeze(-1)).squeeze(-1)
        return self.variance.sqrt().squeeze(-1) * white

    def extend(self, phi: Tensor, targets: Tensor, noise: Tensor) -> WeightSpace:
        """See `LinearRegression`: in whitened features the posterior so far is the prior."""
        noise = noise.expand(*phi.shape[:-1], targets.shape[-1]).mT
        psi = self._cross(phi)
        weighted = psi / noise.unsqueeze(-1)
        eye = torch.eye(psi.shape[-1], dtype=psi.dtype, device=psi.device)
        W_new = inverse_triangular(psd_safe_cholesky(eye + psi.mT @ weighted))
        pulled = (weighted.mT @ targets.mT.unsqueeze(-1)).squeeze(-1) + self.whitened
        whitened = (W_new @ pulled.unsqueeze(-1)).squeeze(-1)
        return WeightSpace(self.variance, W_new @ self.inverse_root, whitened)


def condition(
    phi: Tensor,
    variance: Tensor,
    targets: Tensor,
    noise: Tensor,
    products: Tensor | None = None,
) -> LinearRegression:
    """The posterior in the space where a prediction costs less.

    Arguments are those of `FunctionSpace.of`. A point takes about n k + n^2 multiplications in
    function space, and k^2 in weight space.
    """
    n, k = phi.shape
    if n * (n + k) <= k * k:
        return FunctionSpace.of(phi, variance, targets, noise, products)
    return WeightSpace.of(phi, variance, targets, noise)


class Gram(torch.autograd.Function):
    """Phi Phi'; once differentiable, by one product of matrices instead of two."""

    @staticmethod
    def forward(ctx: Any, phi: Tensor) -> Tensor:
        """`n x n` of `n x k` features."""
        ctx.save_for_backward(phi)
        return phi @ phi.mT

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """Gradient in `phi`."""
        (phi,) = ctx.saved_tensors
        (gradient,) = grads
        return (gradient + gradient.mT) @ phi


def gram(phi: Tensor) -> Tensor:
    """See `Gram`."""
    product: Tensor = Gram.apply(phi)
    return product
