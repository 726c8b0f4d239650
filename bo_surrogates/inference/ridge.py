"""Ridge regression at every ridge, from one eigendecomposition.

With features Phi (`n x k`) and the ridge delta, P = (Phi Phi' + delta I)^-1 and alpha = P y, of
each column of y:

- training error  mean((delta alpha_i)^2);
- generalized cross-validation  mean((delta alpha_i)^2) / (delta tr(P) / n)^2  (Golub, Heath and
  Wahba 1979, Technometrics 21);
- exact leave-one-out error  mean((alpha_i / P_ii)^2);
- evidence  log N(y; 0, s^2 Phi Phi' + v I), delta = v / s^2.

Each is a sum over the eigenvalues of Phi Phi' or of Phi' Phi, the smaller of which is decomposed:
O(n k min(n, k)) once, then O(n min(n, k)) a ridge (O(min(n, k)) for the evidence). Where only the
evidence is wanted, a tridiagonal form of that matrix does (`TridiagonalEvidence`), at a third of
the price of its eigenvectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from linear_operator.utils.errors import NanError, NotPSDError
from scipy.linalg import eigvalsh_tridiagonal, lapack
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor

# (s^2, v) to the log evidence and its derivatives in log s^2 and log v.
Evidence = Callable[[float, float], tuple[float, float, float]]

RIDGES = (1e-6, 1e4)  # of which the best is looked for, in units of the mean of |phi(x)|^2
GRID = 41


@dataclass(frozen=True)
class RidgePath:
    """Ridge regression of m outcomes on shared features.

    Attributes:
        eigenvalues: `r` eigenvalues l of Phi Phi', r = min(n, k).
        vectors: `n x r`: eigenvectors U, times sqrt(l) where k < n.
        projected: `r x m`: vectors' y.
        targets: y, `n x m`.
        scaled: Whether `vectors` are U sqrt(l).
    """

    eigenvalues: Tensor
    vectors: Tensor
    projected: Tensor
    targets: Tensor
    scaled: bool

    @classmethod
    def of(cls, phi: Tensor, targets: Tensor) -> RidgePath:
        """Decompose.

        Args:
            phi: `n x k` features.
            targets: `n x m` outcomes.
        """
        n, k = phi.shape
        if n <= k:
            values, vectors = torch.linalg.eigh(phi @ phi.mT)
        else:
            values, rotation = torch.linalg.eigh(phi.mT @ phi)
            vectors = phi @ rotation
        return cls(values.clamp_min(0), vectors, vectors.mT @ targets, targets, n > k)

    @property
    def n(self) -> int:
        """Number of observations."""
        return self.targets.shape[0]

    @property
    def power(self) -> tuple[Tensor, Tensor]:
        """(u_i' y)^2, `r x m`, and |y|^2 outside the span of the features, `m`."""
        if not self.scaled:
            return self.projected.square(), self.targets.new_zeros(self.targets.shape[-1])
        real = self.eigenvalues > 1e-14 * self.eigenvalues.max()
        safe = torch.where(real, self.eigenvalues, 1.0).unsqueeze(-1)
        power = torch.where(real.unsqueeze(-1), self.projected.square() / safe, 0.0)
        return power, (self.targets.square().sum(dim=0) - power.sum(dim=0)).clamp_min(0)

    def residuals(self, ridges: Tensor) -> tuple[Tensor, Tensor]:
        """delta alpha, `g x n x m`, and delta P_ii, `g x n`, at g ridges.

        The second is one minus the leverage of an observation.
        """
        inverse = (self.eigenvalues + ridges.unsqueeze(-1)).reciprocal()  # g x r
        weighted = inverse.unsqueeze(-1) * self.projected
        leverage = self.vectors.square() @ inverse.mT  # n x g
        if self.scaled:
            return self.targets - self.vectors @ weighted, (1.0 - leverage).mT
        delta = ridges.reshape(-1, 1, 1)
        return delta * (self.vectors @ weighted), ridges.unsqueeze(-1) * leverage.mT

    def training_error(self, ridges: Tensor) -> Tensor:
        """`g x m`."""
        return self.residuals(ridges)[0].square().mean(dim=-2)

    def effective_parameters(self, ridges: Tensor) -> Tensor:
        """sum_i l_i / (l_i + delta), `g`: the trace of the smoother."""
        return (self.eigenvalues / (self.eigenvalues + ridges.unsqueeze(-1))).sum(dim=-1)

    def generalized_cross_validation(self, ridges: Tensor) -> Tensor:
        """`g x m`."""
        free = 1.0 - self.effective_parameters(ridges) / self.n
        return self.training_error(ridges) / free.clamp_min(1e-12).square().unsqueeze(-1)

    def leave_one_out(self, ridges: Tensor) -> Tensor:
        """Errors y_i - f_{-i}(x_i), `g x n x m`, exact."""
        residual, free = self.residuals(ridges)
        return residual / free.clamp_min(1e-12).unsqueeze(-1)

    def standardized_leave_one_out(self, ridges: Tensor) -> Tensor:
        """Mean square of leave-one-out errors over their predictive variances at s^2 = 1, `g x m`.

        The variance of observation i given the others is s^2 / P_ii.
        """
        residual, free = self.residuals(ridges)
        squares = residual.square() / (free.clamp_min(1e-12) * ridges.unsqueeze(-1)).unsqueeze(-1)
        return squares.mean(dim=-2)

    def log_evidence(self, variance: float, noise: float, outcome: int = 0) -> float:
        """log N(y; 0, s^2 Phi Phi' + v I) of an outcome."""
        return self.evidence(outcome)(variance, noise)[0]

    def evidence(self, outcome: int = 0) -> Evidence:
        """See `Evidence`, of an outcome."""
        power, outside = (t[..., outcome].cpu().numpy() for t in self.power)
        values, rest = self.eigenvalues.cpu().numpy(), self.n - len(self.eigenvalues)
        constant = 0.5 * self.n * math.log(2.0 * math.pi)

        def evidence(variance: float, noise: float) -> tuple[float, float, float]:
            total = variance * values + noise
            form, change = power / total, 0.5 * (power / total - 1.0) / total
            value = -0.5 * (form.sum() + np.log(total).sum() + outside / noise)
            value -= 0.5 * rest * math.log(noise) + constant
            of_noise = noise * change.sum() + 0.5 * (outside / noise - rest)
            return float(value), float(variance * (values * change).sum()), float(of_noise)

        return evidence

    # ---- the best ridge ------------------------------------------------------------------------
    def best_ridge(self, criterion: str, outcome: int = 0) -> float:
        """The ridge with the smallest criterion: a grid, refined about its best point.

        Args:
            criterion: "loo" or "gcv".
            outcome: Which column of y.
        """

        def value(log_ridges: Tensor) -> Tensor:
            ridges = log_ridges.exp()
            if criterion == "loo":
                return self.leave_one_out(ridges)[..., outcome].square().mean(dim=-1)
            return self.generalized_cross_validation(ridges)[..., outcome]

        unit = max((self.eigenvalues.sum() / self.n).item(), 1e-300)
        low, high = (math.log(r * unit) for r in RIDGES)
        grid = torch.linspace(low, high, GRID).to(self.targets)
        best = int(value(grid).argmin())
        found = minimize_scalar(
            lambda x: value(grid.new_tensor([x])).item(),
            bounds=(grid[max(best - 1, 0)].item(), grid[min(best + 1, GRID - 1)].item()),
            method="bounded",
            options={"xatol": 1e-3},
        )
        return math.exp(found.x)


def best_evidence(
    evidence: Evidence,
    variance: tuple[float, float],
    noise: tuple[float, float] | float,
    start: tuple[float, float],
    bounds: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[float, float]:
    """s^2 and v that maximize the evidence times log-normal priors.

    Args:
        evidence: See `Evidence`.
        variance: Mean and standard deviation of log s^2.
        noise: Of log v; or v, if it is known.
        start: Logarithms to start from, of s^2 and v.
        bounds: Of log s^2 and of log v.
    """
    known = isinstance(noise, float)
    priors = np.array([variance] if isinstance(noise, float) else [variance, noise])

    def loss(logs: np.ndarray) -> tuple[float, np.ndarray]:
        v = noise if isinstance(noise, float) else math.exp(logs[1])
        value, *slopes = evidence(math.exp(logs[0]), v)
        u = (logs - priors[:, 0]) / priors[:, 1]
        gradient = np.array(slopes[: len(logs)]) - u / priors[:, 1]
        return -(value - 0.5 * (u @ u)), -gradient

    size = 1 if known else 2
    found = minimize(loss, start[:size], jac=True, method="L-BFGS-B", bounds=bounds[:size])
    logs = [*found.x, math.log(noise) if isinstance(noise, float) else 0.0]
    return math.exp(logs[0]), math.exp(logs[1])


@dataclass(frozen=True)
class TridiagonalEvidence:
    """The evidence from Q' G Q = T, G = Phi Phi' or Phi' Phi, whichever is smaller.

    Q is a product of reflections (Golub and Van Loan 2013, section 8.3.1). With z = Q' y (or
    Q' Phi' y) the quadratic form is that of a tridiagonal matrix, O(min(n, k)) at every ridge.

    Attributes:
        diagonal: Of T, `r`.
        beside: The diagonal below it, `r - 1`.
        eigenvalues: `r`.
        projected: z, `r x m`.
        squares: |y|^2, `m`.
        n: Number of observations.
    """

    diagonal: np.ndarray
    beside: np.ndarray
    eigenvalues: np.ndarray
    projected: np.ndarray
    squares: np.ndarray
    n: int

    @classmethod
    def of(
        cls, phi: Tensor, targets: Tensor, products: Tensor | None = None
    ) -> TridiagonalEvidence:
        """Reduce.

        Args:
            phi: `n x k` features.
            targets: `n x m` outcomes.
            products: Phi Phi', where it is there already.
        """
        n, k = phi.shape
        if n > k:
            G, pulled = phi.mT @ phi, phi.mT @ targets
        else:
            G, pulled = (phi @ phi.mT if products is None else products), targets
        matrix, y = np.asfortranarray(G.cpu().numpy()), pulled.cpu().numpy()
        squares = targets.square().sum(dim=0).cpu().numpy()
        r = len(matrix)
        if r == 1:
            # LAPACK wants a number there, which it does not read.
            return cls(matrix[0], np.zeros(1), matrix[0], y, squares, n)
        work = int(lapack.dsytrd_lwork(r, lower=1)[0])
        reduced, diagonal, beside, tau, info = lapack.dsytrd(matrix, lower=1, lwork=work)
        # The reflections leave the first coordinate alone; they are stored below the diagonals.
        reflections, rest = np.asfortranarray(reduced[1:, :-1]), np.asfortranarray(y[1:])
        work = int(lapack.dormqr("L", "T", reflections, tau, rest, -1)[1][0])
        rest, _, status = lapack.dormqr("L", "T", reflections, tau, rest, max(work, 1))
        if info or status or not (np.isfinite(diagonal).all() and np.isfinite(beside).all()):
            raise NanError("the features' products are not finite")
        eigenvalues = eigvalsh_tridiagonal(diagonal, beside).clip(0)
        return cls(diagonal, beside, eigenvalues, np.vstack([y[:1], rest]), squares, n)

    def evidence(self, outcome: int = 0) -> Evidence:
        """See `Evidence`, of an outcome."""
        z, square = self.projected[:, outcome], float(self.squares[outcome])
        values, rest = self.eigenvalues, self.n - len(self.eigenvalues)
        constant = 0.5 * self.n * math.log(2.0 * math.pi)

        def evidence(variance: float, noise: float) -> tuple[float, float, float]:
            ridge = noise / variance
            *_, a, info = lapack.dptsv(self.diagonal + ridge, self.beside, z)
            if info:  # singular to rounding: the diagonal is raised by no more than that
                tiny = 1e-15 * len(z) * float(values.max())
                *_, a, info = lapack.dptsv(self.diagonal + ridge + tiny, self.beside, z)
            if info:
                raise NotPSDError("the features' products have a negative eigenvalue")
            inner, slope = float(z @ a), ridge * float(a @ a)  # slope: -d inner / d log ridge
            if rest > 0:
                form, change = (square - inner) / noise, slope / noise
                of_variance, of_noise = -change, change - form
            else:
                form, change = inner / variance, slope / variance
                of_variance, of_noise = change - form, -change
            total = variance * values + noise
            value = -0.5 * (form + np.log(total).sum() + rest * math.log(noise)) - constant
            share = float((variance * values / total).sum())
            return (
                float(value),
                -0.5 * (of_variance + share),
                -0.5 * (of_noise + len(values) - share + rest),
            )

        return evidence
