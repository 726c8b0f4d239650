"""Hamiltonian Monte Carlo for many chains at once.

Algorithm: Duane et al. 1987; Neal 2011 (arXiv 1206.1901), section 5.3, for K chains that share a
step size and a trajectory length and differ in everything else. Coordinates are whitened: with
`scale` s, positions q and velocities v ~ N(0, I) follow

    dq/dt = s v,    dv/dt = s grad log p(q),

which is the usual system with the mass matrix diag(1 / s^2). With s the standard deviations of a
Gaussian prior, a trajectory of length pi / 2 forgets its start where the data say nothing.

A trajectory's length is random (a low-discrepancy sequence, as in Hoffman, Radul and Sountsov
2021, "An adaptive-MCMC scheme for setting trajectory lengths in Hamiltonian Monte Carlo"): a fixed
one can be a period of some direction. The step size is found by dual averaging (Nesterov's; Hoffman
and Gelman 2014, arXiv 1111.4246, section 3.2) on the mean acceptance over all chains, so that tens
of chains adapt in tens of steps.

Everything is a pure function: `init` makes a state, `step` the next one, and `warm_up` repeats
`step` while it adapts. Randomness comes from a generator that is passed in. A density that has a
faster integrator than `leapfrog`'s own brings it along (`HasLeapfrog`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor

from bo_surrogates.errors import InputError

DIVERGENCE = 1000.0  # growth of the energy that no useful step size causes
# Of dual averaging: Hoffman and Gelman 2014, section 3.2.1.
SHRINKAGE, DELAY, DECAY = 0.05, 10.0, 0.75

LogDensityAndGradient = Callable[[Tensor], tuple[Tensor, Tensor]]


class State(NamedTuple):
    """Where the K chains are.

    Attributes:
        position: `K x P`.
        log_density: `K`, up to one constant.
        gradient: `K x P`, of the log density.
    """

    position: Tensor
    log_density: Tensor
    gradient: Tensor


class Info(NamedTuple):
    """What one step did.

    Attributes:
        acceptance: `K` probabilities of acceptance.
        accepted: `K`, whether the chain moved.
        divergent: `K`, whether the energy grew by more than 1000 or was not finite.
    """

    acceptance: Tensor
    accepted: Tensor
    divergent: Tensor


class Trajectory(Protocol):
    """Follows the Hamiltonian system; reversible and volume-preserving, or `step` is not valid."""

    def __call__(
        self, state: State, velocity: Tensor, step_size: float, steps: int
    ) -> tuple[State, Tensor]:
        """End of `steps` steps from a state with whitened velocities `K x P`; inputs are kept."""


@runtime_checkable
class HasLeapfrog(Protocol):
    """A density that may have an integrator of its own."""

    def leapfrog(self, scale: Tensor) -> Trajectory | None:
        """As the function `leapfrog`; None where there is no better one than that."""


def init(position: Tensor, density: LogDensityAndGradient) -> State:
    """The state at a position `K x P`.

    Raises:
        InputError: A chain starts where the log density is not finite.
    """
    log_density, gradient = density(position)
    if not (torch.isfinite(log_density).all() and torch.isfinite(gradient).all()):
        raise InputError(
            "hmc: the log density or its gradient is not finite at the start of some of the "
            f"{len(position)} chains; start elsewhere"
        )
    return State(position, log_density, gradient)


def leapfrog(density: LogDensityAndGradient, scale: Tensor) -> Trajectory:
    """The leapfrog integrator (Neal 2011, equations 5.18 to 5.20).

    Args:
        density: Positions `K x P` to log densities `K` and gradients `K x P`, the latter a tensor
            of its own at every call. If it has an integrator, that is returned.
        scale: `P` numbers, >= 0; a coordinate with scale 0 stays where it is.
    """
    if isinstance(density, HasLeapfrog) and (own := density.leapfrog(scale)) is not None:
        return own

    def trajectory(
        state: State, velocity: Tensor, step_size: float, steps: int
    ) -> tuple[State, Tensor]:
        kick = step_size * scale
        position, log_density, gradient = state
        position = position.clone()
        velocity = torch.addcmul(velocity, gradient, kick, value=0.5)
        for i in range(steps):
            position.addcmul_(velocity, kick)
            log_density, gradient = density(position)
            velocity.addcmul_(gradient, kick, value=0.5 if i == steps - 1 else 1.0)
        return State(position, log_density, gradient), velocity

    return trajectory


def step(
    generator: torch.Generator,
    state: State,
    trajectory: Trajectory,
    step_size: float,
    steps: int,
) -> tuple[State, Info]:
    """One transition of every chain, which leaves exp(log density) invariant.

    Args:
        generator: Source of randomness; it is advanced.
        state: Before the transition; left as it is.
        trajectory: The integrator.
        step_size: > 0, in units of whitened time.
        steps: Of the integrator, >= 1; must not depend on the state.
    """
    velocity = normal_like(generator, state.position)
    end, last = trajectory(state, velocity, step_size, steps)
    # The sums are the only place where float32 would lose what decides about acceptance.
    energy = 0.5 * velocity.double().square().sum(dim=-1) - state.log_density.double()
    change = 0.5 * last.double().square().sum(dim=-1) - end.log_density.double() - energy
    divergent = ~(change <= DIVERGENCE)  # NaN is divergent too
    acceptance = torch.where(divergent, 0.0, torch.exp(-change.clamp_min(0.0)))
    uniform = torch.rand(
        len(velocity), generator=generator, dtype=torch.float64, device=generator.device
    )
    accepted = uniform.to(acceptance.device) < acceptance
    chosen = State(
        torch.where(accepted[:, None], end.position, state.position),
        torch.where(accepted, end.log_density, state.log_density),
        torch.where(accepted[:, None], end.gradient, state.gradient),
    )
    return chosen, Info(acceptance, accepted, divergent)


def normal_like(generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers of a tensor's shape, type and device."""
    draws = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
    return draws.to(like.device)


def steps_of(index: int, step_size: float, length: float, most: int) -> int:
    """Steps of the trajectory number `index` >= 0, the same for all chains.

    The length is `length` times a number in (0, 1) from van der Corput's sequence in base 2 (the
    first coordinate of Halton's): any 2^k consecutive ones have one in each 2^k-th of the interval.

    Args:
        index: Number of the transition.
        step_size: > 0.
        length: Longest trajectory, in whitened time.
        most: Upper limit of the result.
    """
    digits, fraction, place = index + 1, 0.0, 0.5
    while digits:
        fraction += place * (digits & 1)
        digits, place = digits >> 1, place / 2
    return max(1, min(most, math.ceil(fraction * length / step_size)))


class StepSize(NamedTuple):
    """State of dual averaging.

    Attributes:
        value: Step size to use next.
        average: Step size to keep at the end.
        shortfall: Average of target minus acceptance.
        centre: Logarithm of the step size that `value` is drawn to.
        updates: So far.
    """

    value: float
    average: float
    shortfall: float
    centre: float
    updates: int


def start_adapting(step_size: float) -> StepSize:
    """Dual averaging that starts at a step size."""
    # The source recommends log(10 eps): from a start that is about right, 2 wastes fewer steps.
    return StepSize(step_size, step_size, 0.0, math.log(2.0 * step_size), 0)


def adapt(state: StepSize, acceptance: float, target: float) -> StepSize:
    """One update of dual averaging (Hoffman and Gelman 2014, equation 6).

    Args:
        state: Before.
        acceptance: Mean probability of acceptance with `state.value`, in [0, 1].
        target: What it should be, in (0, 1).
    """
    count = state.updates + 1
    weight = 1.0 / (count + DELAY)
    shortfall = (1.0 - weight) * state.shortfall + weight * (target - acceptance)
    log_value = state.centre - math.sqrt(count) / SHRINKAGE * shortfall
    log_value = min(max(log_value, math.log(1e-8)), math.log(1e2))
    forget = count**-DECAY
    log_average = forget * log_value + (1.0 - forget) * math.log(state.average)
    return StepSize(math.exp(log_value), math.exp(log_average), shortfall, state.centre, count)


def reasonable_step_size(
    generator: torch.Generator, state: State, trajectory: Trajectory, guess: float = 0.1
) -> float:
    """Doubled or halved from a guess until one leapfrog step's mean acceptance crosses 0.8."""
    direction = 0
    for _ in range(30):
        _, info = step(generator, state, trajectory, guess, 1)
        wanted = 1 if info.acceptance.mean().item() > 0.8 else -1
        if direction and wanted != direction:
            break
        direction = wanted
        guess *= 2.0**direction
    return guess


def warm_up(
    generator: torch.Generator,
    state: State,
    trajectory: Trajectory,
    *,
    steps: int,
    step_size: float,
    length: float,
    most: int,
    target: float,
) -> tuple[State, float, int]:
    """Transitions that adapt the step size; they are no draws from the target.

    Args:
        generator: Source of randomness; it is advanced.
        state: Start.
        trajectory: The integrator.
        steps: Number of transitions, >= 1.
        step_size: First step size.
        length: See `steps_of`.
        most: Integrator steps in a transition at most.
        target: Mean acceptance aimed at.

    Returns:
        The last state, the step size to go on with, and the number of gradients of each chain.
    """
    adaptation, gradients = start_adapting(step_size), 0
    for i in range(steps):
        size = adaptation.value
        count = steps_of(i, size, length, most)
        state, info = step(generator, state, trajectory, size, count)
        gradients += count
        adaptation = adapt(adaptation, info.acceptance.mean().item(), target)
    return state, adaptation.average, gradients
