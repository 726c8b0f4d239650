"""Stochastic-gradient Markov chain Monte Carlo for many chains at once.

Two dynamics have exp(log p) as their stationary law where time is continuous and the gradient is
exact, and are followed here in steps without a Metropolis correction. Coordinates are whitened:
with `scale` s (a diagonal mass matrix diag(1 / s^2)), positions q and velocities v ~ N(0, I),

    dq = s v dt,   dv = s grad log p(q) dt - gamma v dt + sqrt(2 gamma) dW       (underdamped)
    dq = s^2 / 2 grad log p(q) dt + s dW                                         (overdamped)

`underdamped_step` is stochastic-gradient Hamiltonian Monte Carlo (Chen, Fox and Guestrin 2014,
arXiv 1402.4102) with the splitting "BAOAB" in the place of Euler's method: half a kick, half a
drift, friction and its noise solved exactly, half a drift, half a kick (Leimkuhler and Matthews
2013, J. Chem. Phys. 138, 174102). Averages over positions have an error of order h^2, of order h^4
in the limit of large friction; for a Gaussian there is none at any step size that is stable,
h s w < 2 for the largest frequency w. A gradient from a minibatch has noise of some variance V,
which heats the velocities by (h s)^2 V a step; `injected_variance` takes that from the noise that
friction calls for.

`overdamped_step` is stochastic-gradient Langevin dynamics (Welling and Teh 2011): Euler's method,
whose error is of order eps, which is h^2: where s = 1 a Gaussian of precision w gets the variance
1 / (w (1 - eps w / 4)). Its step sizes may follow a schedule (`schedules.py`).

`burn_in` adapts the scale and the step size, both frozen afterwards: chains whose scale follows the
position have another stationary law. The scale is V^(-1/4) with V the second moments of the
gradient, running means over time and chains (Springenberg et al. 2016, "Bayesian optimization with
robust Bayesian neural networks", section 4, whose inverse mass matrix V^(-1/2) is this scale
squared). The step size is the one at which the energy error of a step has a given variance per
coordinate (Robnik et al. 2023, "Microcanonical Hamiltonian Monte Carlo"): the bias of a chain
without correction follows it in any dimension, where a probability of acceptance would fall.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from bo_surrogates.inference.hmc import DIVERGENCE, LogDensityAndGradient, normal_like

Gradient = Callable[[Tensor], Tensor]
"""Positions `K x P` to gradients of the log density, exact or unbiased estimates."""

# Of the adaptation: V counts the prior's 1 this many times, and each step at least this much; the
# scale follows V when these parts of the burn-in are over.
PRIOR_COUNT, FORGETTING = 5.0, 0.05
SCALE_UPDATES = (1 / 8, 1 / 4, 1 / 2)
MOST_STEP, MOST_CHANGE = 2.0, math.log(2.0)  # of the step size, and of its logarithm in a step
ORDER = 3  # of a step's energy error, in the step size


class Particles(NamedTuple):
    """Where the K chains are.

    Attributes:
        position: `K x P`.
        velocity: `K x P`, whitened.
        gradient: `K x P`, of the log density at the position.
    """

    position: Tensor
    velocity: Tensor
    gradient: Tensor


class Dynamics(NamedTuple):
    """What stays fixed while the chains are sampled.

    Attributes:
        scale: `P` scales s, >= 0.
        step_size: h, in whitened time.
        friction: gamma, > 0 (without effect on overdamped steps).
    """

    scale: Tensor
    step_size: float
    friction: float


def start(generator: torch.Generator, position: Tensor, gradient: Gradient) -> Particles:
    """Chains at a position `K x P`, with velocities from their stationary law."""
    return Particles(position, normal_like(generator, position), gradient(position))


def underdamped_step(
    generator: torch.Generator,
    state: Particles,
    gradient: Gradient,
    dynamics: Dynamics,
    injected: Tensor | float | None = None,
) -> Particles:
    """One BAOAB step of stochastic-gradient HMC.

    Args:
        generator: Source of randomness; it is advanced.
        state: Before the step; left as it is.
        gradient: Evaluated once, at the new position.
        dynamics: Scale, step size and friction.
        injected: Variance of the noise injected, `P` or a number, see `injected_variance`; that of
            an exact gradient if None.
    """
    return _underdamped(generator, state, gradient, dynamics, injected)[0]


def _underdamped(
    generator: torch.Generator,
    state: Particles,
    gradient: Gradient,
    dynamics: Dynamics,
    injected: Tensor | float | None,
) -> tuple[Particles, Tensor, Tensor]:
    """The step, and the velocities before and after friction acted."""
    kick = dynamics.step_size * dynamics.scale
    keep = math.exp(-dynamics.friction * dynamics.step_size)
    deviation = torch.as_tensor(1.0 - keep**2 if injected is None else injected).sqrt()
    before = torch.addcmul(state.velocity, state.gradient, kick, value=0.5)
    position = torch.addcmul(state.position, before, kick, value=0.5)
    noise = normal_like(generator, position).mul_(deviation)
    after = noise.add_(before, alpha=keep)
    position.addcmul_(after, kick, value=0.5)
    slope = gradient(position)
    velocity = torch.addcmul(after, slope, kick, value=0.5)
    return Particles(position, velocity, slope), before, after


def injected_variance(dynamics: Dynamics, gradient_variance: Tensor) -> tuple[Tensor, float]:
    """Variance of the noise to inject beside that of the gradient, which does part of the work.

    Without a force, velocities between the kicks of variance N = (h s)^2 V have the variance 1, on
    average over the drifts before and after friction c = exp(-gamma h) acts, if the noise injected
    has 1 - c^2 - N (1 + c^2) / 2.

    Args:
        dynamics: Scale, step size and friction.
        gradient_variance: V, `P` variances of a coordinate of the gradient.

    Returns:
        `P` variances, at least 0, and the gradient's mean share of the noise: where it is above 1,
        the chains are hotter than they should be.
    """
    square = math.exp(-2.0 * dynamics.friction * dynamics.step_size)
    noise = (dynamics.step_size * dynamics.scale).square() * gradient_variance
    heat = 0.5 * (1.0 + square) * noise
    wanted = 1.0 - square
    return (wanted - heat).clamp_min(0.0), (heat / wanted).mean().item()


def gradient_variance(gradient: Gradient, position: Tensor, repeats: int = 8) -> Tensor:
    """Variance of a random gradient at a position `K x P`, averaged over the chains: `P`."""
    slopes = torch.stack([gradient(position) for _ in range(repeats)])
    return slopes.var(dim=0).mean(dim=0)


def overdamped_step(
    generator: torch.Generator,
    position: Tensor,
    gradient: Gradient,
    scale: Tensor,
    epsilon: float,
    injected: Tensor | float = 1.0,
) -> Tensor:
    """One Euler step of Langevin dynamics (Welling and Teh 2011, equation 4), or a downhill step.

    Args:
        generator: Source of randomness; it is advanced unless the step has no noise.
        position: `K x P`, left as it is.
        gradient: Evaluated once, at the old position.
        scale: `P` scales s.
        epsilon: Step size: noise has the variance epsilon s^2.
        injected: Part of that variance that is injected, `P` numbers or one; 0 for a step downhill.
            A gradient of variance V has a part of epsilon s^2 V / 4 itself.
    """
    new = torch.addcmul(position, gradient(position), scale.square(), value=0.5 * epsilon)
    if isinstance(injected, Tensor) or injected > 0:
        deviation = scale * torch.as_tensor(epsilon * injected).sqrt()
        new.addcmul_(normal_like(generator, position), deviation)
    return new


def burn_in(
    generator: torch.Generator,
    density: LogDensityAndGradient,
    position: Tensor,
    dynamics: Dynamics,
    *,
    steps: int,
    max_error: float,
    prior_scale: Tensor,
    adapt_scale: bool = True,
) -> tuple[Particles, Dynamics]:
    """Underdamped steps that adapt the step size and the scale; they are no draws from the target.

    A step whose energy error is beyond all reason, or not finite, is undone.

    Args:
        generator: Source of randomness; it is advanced.
        density: Log densities `K` and gradients `K x P` of all data, the latter a new tensor.
        position: `K x P`.
        dynamics: First scale and step size, and the friction.
        steps: >= 1.
        max_error: Mean square of a step's energy error, per coordinate, > 0.
        prior_scale: `P` scales in which V is measured.
        adapt_scale: Whether the scale is adapted; the step size is in any case.

    Returns:
        The last state, and what to sample with.
    """
    log_density, slope = density(position)
    state = Particles(position, normal_like(generator, position), slope)
    count = int((prior_scale > 0).sum())
    second = torch.ones_like(prior_scale)
    size = _StepSize(math.log(dynamics.step_size), math.log(dynamics.step_size), 0)
    updates = {int(part * steps) for part in SCALE_UPDATES} if adapt_scale else set()
    for t in range(steps):
        dynamics = dynamics._replace(step_size=math.exp(size.log_value))
        state, log_density, error = _energy_step(generator, density, state, log_density, dynamics)
        size = _adapt(size, error.square().mean().item() / count, max_error)
        square = (state.gradient * prior_scale).square().mean(dim=0)
        second.lerp_(square, max(FORGETTING, 1.0 / (PRIOR_COUNT + 1.0 + t)))
        if t + 1 in updates:
            dynamics = dynamics._replace(scale=prior_scale * second.clamp_min(1e-6).pow(-0.25))
            size = size._replace(updates=0)
    return state, dynamics._replace(step_size=math.exp(size.log_average))


def _energy_step(
    generator: torch.Generator,
    density: LogDensityAndGradient,
    state: Particles,
    log_density: Tensor,
    dynamics: Dynamics,
) -> tuple[Particles, Tensor, Tensor]:
    """An underdamped step, undone where it diverged; log densities `K`, and energy errors `K`."""
    end = log_density

    def gradient(position: Tensor) -> Tensor:
        nonlocal end
        end, slope = density(position)
        return slope

    new, before, after = _underdamped(generator, state, gradient, dynamics, None)
    # What friction and noise add to the energy is heat, and no error.
    error = _kinetic(before) - _kinetic(state.velocity) + _kinetic(new.velocity) - _kinetic(after)
    error = error + log_density.double() - end.double()
    lost = ~(error.abs() <= DIVERGENCE)  # NaN is lost too
    if not lost.any():
        return new, end, error
    old = Particles(state.position, normal_like(generator, state.velocity), state.gradient)
    chosen = Particles(*(torch.where(lost[:, None], a, b) for a, b in zip(old, new, strict=True)))
    return chosen, torch.where(lost, log_density, end), error.masked_fill(lost, DIVERGENCE)


def _kinetic(velocity: Tensor) -> Tensor:
    return 0.5 * velocity.double().square().sum(dim=-1)


class _StepSize(NamedTuple):
    """Logarithms of the step size to use next and of that to keep, and updates so far."""

    log_value: float
    log_average: float
    updates: int


def _adapt(state: _StepSize, mean_square: float, wanted: float) -> _StepSize:
    """Stochastic approximation of the step size whose energy error has the mean square wanted."""
    change = 0.5 / ORDER * math.log(wanted / max(mean_square, 1e-30))
    change = min(max(change, -MOST_CHANGE), MOST_CHANGE) / math.sqrt(1.0 + state.updates)
    log_value = min(state.log_value + change, math.log(MOST_STEP))
    # The mean of the latter part of the updates, roughly: the k-th weighs in proportion to k.
    weight = 2.0 / (state.updates + 2.0)
    log_average = state.log_average + weight * (log_value - state.log_average)
    return _StepSize(log_value, log_average, state.updates + 1)
