"""The Brusselator: how even a chemical pattern can be made.

Two species react and diffuse on a square of 64 x 64 cells of width 1 without flow through its
walls:

    u_t = D0 lap u + a - (b + 1) u + u^2 v,      v_t = D1 lap v + b u - u^2 v,

from u = a and v = b / a + 0.1 e with e standard normal in each cell, to the time 20. Minimize the
variance of the final concentrations over both species and all cells, each weighted: 1 in the two
outermost rings of cells, 0.1 inside. Diffusion that is even enough damps the pattern; beyond a
Hopf or a Turing instability it grows.

The start is random, so an observation is noisy by itself: each has an e of its own, from its seed.
The true metric (`noise=False`) is that of one fixed start, drawn by `start_seed`; with
`random_start=False` so is every observation.

The method of lines with the five-point Laplacian, integrated by the Runge-Kutta-Chebyshev method of
order two (Sommeijer, Shampine and Verwer 1998, J. Comput. Appl. Math. 88), all points at once, each
with steps and stages of its own: its stability grows with the square of the stages, which diffusion
and the spikes of u (where v decays at the rate u^2, up to 2500) ask for. The reference integrates
by Euler's method in 20,000 steps and replaces what overflows by noise; here nothing overflows.

Source: Maddox et al. 2021, NeurIPS, arXiv 2106.12997, after Prigogine and Lefever 1968; as in Li,
Rudner and Wilson 2024, ICLR, arXiv 2305.20028.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Float, Space
from problems.base import Problem

CELLS = 64
END = 20.0  # time
PERTURBATION = 0.1
EDGE_WEIGHT, INNER_WEIGHT, EDGE = 1.0, 0.1, 2  # EDGE: width of the outer ring, in cells
RTOL = 2e-4
MAX_STAGES = 250

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BrusselatorConfig(Config):
    """Options of `brusselator`.

    Attributes:
        random_start: Whether each observation starts from a perturbation of its own.
        start_seed: Of the perturbation behind the true metric.
    """

    random_start: bool = flag(True)
    start_seed: int = integer(0, 0, 2**31 - 1)


class Brusselator(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = BrusselatorConfig

    def __init__(
        self,
        config: BrusselatorConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            Space(
                [
                    Float("a", 0.1, 5.0),
                    Float("b", 0.1, 5.0),
                    Float("D0", 0.01, 5.0),
                    Float("D1", 0.01, 5.0),
                ]
            ),
            [Objective("variance")],
            config=config or BrusselatorConfig(),
            noise_std=noise_std,
            negate=negate,
        )

    def _true_metrics(self, X: Tensor) -> Tensor:
        options: Any = self.config
        start = _perturbation(options.start_seed)
        return self._metrics(X, lambda row: start)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        options: Any = self.config
        if not options.random_start:
            return super()._observed_metrics(X, seed)
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        values = self._metrics(X, lambda row: _perturbation(derive_seed(drawn, "start", row)))
        generator = torch.Generator().manual_seed(derive_seed(drawn, "noise"))
        return self._with_noise(values, generator)

    def _metrics(self, X: Tensor, perturbation: Any) -> Tensor:
        rows = X.detach().reshape(-1, self.dim).cpu().double().numpy()
        starts = np.stack([perturbation(i) for i in range(len(rows))]) if len(rows) else rows
        fields = integrate(rows, starts)
        variances = (fields * _weights()).reshape(len(rows), -1).var(axis=1, ddof=1)
        return torch.from_numpy(variances).to(X).reshape(*X.shape[:-1], 1)


def _perturbation(seed: int) -> Array:
    normal: Array = np.random.default_rng(seed).standard_normal((CELLS, CELLS))
    return PERTURBATION * normal


def _weights() -> Array:
    weights = np.full((CELLS, CELLS), EDGE_WEIGHT)
    weights[EDGE:-EDGE, EDGE:-EDGE] = INNER_WEIGHT
    return weights


def integrate(parameters: Array, perturbation: Array, rtol: float = RTOL) -> Array:
    """Concentrations at the final time.

    Args:
        parameters: `n x 4`: a, b, D0, D1.
        perturbation: `n x 64 x 64`, added to v at the start.
        rtol: Relative tolerance of a step; the absolute one is a hundredth of it.

    Returns:
        `n x 2 x 64 x 64`: u and v.
    """
    n = len(parameters)
    a, b, D0, D1 = parameters.T.reshape(4, n, 1, 1)
    system = _System(a, b, np.stack([D0, D1], axis=1))
    W = np.empty((n, 2, CELLS, CELLS))
    W[:, 0] = a
    W[:, 1] = b / a + perturbation
    result = np.empty_like(W)
    left = np.arange(n)  # points not finished; the arrays below hold these only
    t, h = np.zeros(n), np.full(n, 1e-3)
    slope = system.slope(W)
    while len(left):
        h = np.minimum(h, END - t)
        new = _chebyshev_step(system, W, slope, h)
        new_slope = system.slope(new)
        step = h.reshape(-1, 1, 1, 1)
        error = 0.8 * (W - new) + 0.4 * step * (slope + new_slope)
        scale = 1e-2 * rtol + rtol * np.maximum(np.abs(W), np.abs(new))
        # The worst cell decides, so that fronts are followed.
        ratio = np.sqrt(np.square(error / scale).mean(axis=(1, 2, 3)))
        good = ratio <= 1.0
        keep = good.reshape(-1, 1, 1, 1)
        W, slope = np.where(keep, new, W), np.where(keep, new_slope, slope)
        t = np.where(good, t + h, t)
        h = h * np.clip(0.8 * np.maximum(ratio, 1e-10) ** (-1 / 3), 0.1, 5.0)
        done = t >= END - 1e-12
        if done.any():
            result[left[done]] = W[done]
            go = ~done
            left, t, h, W, slope = left[go], t[go], h[go], W[go], slope[go]
            system = system.of(go)
    return result


@dataclass(frozen=True)
class _System:
    """Right-hand side for n points: a, b `n x 1 x 1`, diffusion `n x 2 x 1 x 1`."""

    a: Array
    b: Array
    diffusion: Array

    def of(self, points: NDArray[np.bool_]) -> _System:
        return _System(self.a[points], self.b[points], self.diffusion[points])

    def slope(self, W: Array) -> Array:
        """Time derivative at `n x 2 x 64 x 64` concentrations, of the same shape."""
        u, v = W[:, 0], W[:, 1]
        slope = _laplacian(W)
        slope *= self.diffusion
        reaction = u * v
        reaction -= self.b
        reaction *= u  # u^2 v - b u
        slope[:, 0] += reaction
        slope[:, 0] -= u
        slope[:, 0] += self.a
        slope[:, 1] -= reaction
        return slope

    def spectral_radius(self, W: Array) -> Array:
        """A bound on the Jacobian's eigenvalues at each point's concentrations, `n`."""
        u, v = W[:, 0], W[:, 1]
        # Gershgorin, by columns: what leaves one species enters the other.
        bound = np.maximum(2 * np.abs(2 * u * v - self.b) + 1, 2 * u * u).max(axis=(1, 2))
        return 8 * self.diffusion.max(axis=(1, 2, 3)) + bound


def _laplacian(W: Array) -> Array:
    """Five-point Laplacian with zero flux: a cell outside equals its neighbour inside."""
    lap = np.empty_like(W)
    dx, dy = np.diff(W, axis=-1), np.diff(W, axis=-2)
    lap[..., 0], lap[..., -1] = dx[..., 0], -dx[..., -1]
    np.subtract(dx[..., 1:], dx[..., :-1], out=lap[..., 1:-1])
    lap[..., :-1, :] += dy
    lap[..., 1:, :] -= dy
    return lap


def _chebyshev_step(system: _System, W: Array, slope: Array, h: Array) -> Array:
    """One step of the Runge-Kutta-Chebyshev method, each point with stages of its own."""
    wanted = 1 + np.sqrt(1.54 * h * system.spectral_radius(W) + 1).astype(int)
    stages = np.clip(wanted, 2, MAX_STAGES)
    # Too few stages for the step would be unstable: the step's error says so, and it is halved.
    step = h.reshape(-1, 1, 1, 1)
    table = np.stack([_coefficients(s)[1] for s in stages])  # n x stages x 5, padded
    first = np.array([_coefficients(s)[0] for s in stages]).reshape(-1, 1, 1, 1)
    before, now = W, W + (first * step) * slope
    for j in range(2, stages.max() + 1):
        fixed, mu, nu, mu_slope, gamma = table[:, j].T.reshape(5, -1, 1, 1, 1)
        after = system.slope(now)
        after *= mu_slope * step
        after += mu * now
        after += nu * before
        after += fixed * W
        after += (gamma * step) * slope
        if (stages < j).any():
            running = (stages >= j).reshape(-1, 1, 1, 1)
            before, now = np.where(running, now, before), np.where(running, after, now)
        else:
            before, now = now, after
    return now


@cache
def _coefficients(stages: int) -> tuple[float, Array]:
    """Of the method with that many stages: the first stage's, and a row of five for each later one.

    With damping 2/13; equations 2.3 to 2.8 of Sommeijer, Shampine and Verwer.
    """
    w0 = 1 + 2 / 13 / stages**2
    T, dT, ddT = np.zeros((3, stages + 1))  # Chebyshev polynomials and derivatives at w0
    T[:2], dT[1] = (1.0, w0), 1.0
    for j in range(2, stages + 1):
        T[j] = 2 * w0 * T[j - 1] - T[j - 2]
        dT[j] = 2 * T[j - 1] + 2 * w0 * dT[j - 1] - dT[j - 2]
        ddT[j] = 4 * dT[j - 1] + 2 * w0 * ddT[j - 1] - ddT[j - 2]
    w1 = dT[stages] / ddT[stages]
    b = np.empty(stages + 1)
    b[2:] = ddT[2:] / dT[2:] ** 2
    b[:2] = b[2]
    rows = np.zeros((MAX_STAGES + 1, 5))
    for j in range(2, stages + 1):
        mu, nu = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2]
        mu_slope = 2 * b[j] * w1 / b[j - 1]
        rows[j] = 1 - mu - nu, mu, nu, mu_slope, -(1 - b[j - 1] * T[j - 1]) * mu_slope
    return float(b[1] * w1), rows
