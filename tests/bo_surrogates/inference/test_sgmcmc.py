from __future__ import annotations

import math

import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov
from torch import Tensor

from bo_surrogates.inference import sgmcmc
from bo_surrogates.inference.sgmcmc import Dynamics, Gradient, Particles

COVARIANCE = torch.tensor([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]]).double()
PRECISION = COVARIANCE.inverse()
MEAN = torch.tensor([1.0, -2.0, 0.5]).double()
SCALE = torch.tensor([1.2, 0.8, 0.5]).double()
CHAINS = 20_000
SIGMAS = 6.0  # a normal statistic leaves it with probability 2e-9


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(position: Tensor) -> tuple[Tensor, Tensor]:
    gradient = -(position - MEAN) @ PRECISION
    return 0.5 * (gradient * (position - MEAN)).sum(dim=-1), gradient


def gaussian_gradient(position: Tensor) -> Tensor:
    return gaussian(position)[1]


def assert_moments(draws: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Of independent normal draws: within 6 standard errors."""
    draws, variance = draws.double(), covariance.diagonal()
    assert ((draws.mean(dim=0) - mean).abs() < SIGMAS * (variance / len(draws)).sqrt()).all()
    error = (draws.T.cov() - covariance).abs()
    standard = ((covariance.square() + torch.outer(variance, variance)) / len(draws)).sqrt()
    assert (error < SIGMAS * standard).all()


def underdamped(
    position: Tensor,
    gradient: Gradient,
    dynamics: Dynamics,
    steps: int,
    injected: Tensor | None = None,
) -> Particles:
    source = generator(1)
    state = sgmcmc.start(source, position, gradient)
    for _ in range(steps):
        state = sgmcmc.underdamped_step(source, state, gradient, dynamics, injected)
    return state


# ---- underdamped steps -------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("friction", [0.5, 3.0])
def test_positions_of_a_gaussian_have_no_bias_at_large_steps(
    friction: float, dtype: torch.dtype
) -> None:
    """Even though the largest frequency is followed in steps of more than its half period / pi."""
    frequency = torch.linalg.eigvalsh(SCALE[:, None] * PRECISION * SCALE).max().sqrt()
    dynamics = Dynamics(SCALE.to(dtype), 1.2 / frequency.item(), friction)
    precision, mean = PRECISION.to(dtype), MEAN.to(dtype)
    state = underdamped(
        torch.zeros(CHAINS, 3, dtype=dtype), lambda q: -(q - mean) @ precision, dynamics, 80
    )
    assert state.position.dtype == dtype
    assert_moments(state.position, MEAN, COVARIANCE)


def splitting(w: float, kick: float, keep: float) -> tuple[Tensor, Tensor, Tensor]:
    """Between drift and kick, on U = w q^2 / 2: the map of (q, v), and where noise of the gradient
    and of the friction enters it."""
    force, drift, friction = torch.eye(2).double(), torch.eye(2).double(), torch.eye(2).double()
    force[1, 0], drift[0, 1], friction[1, 1] = -kick * w, 0.5 * kick, keep
    rest = drift @ friction @ drift
    unit = torch.tensor([[0.0], [1.0]]).double()
    return rest @ force, rest @ (kick * unit), drift @ unit


def stationary(w: float, dynamics: Dynamics, injected: float, noise: float) -> tuple[float, float]:
    """Variances of position and velocity after a step, by the discrete Lyapunov equation."""
    kick = dynamics.step_size * dynamics.scale.item()
    keep = math.exp(-dynamics.friction * dynamics.step_size)
    matrix, of_gradient, of_friction = splitting(w, kick, keep)
    source = noise * of_gradient @ of_gradient.T + injected * of_friction @ of_friction.T
    between = torch.from_numpy(solve_discrete_lyapunov(matrix.numpy(), source.numpy()))
    half = torch.eye(2).double()
    half[1, 0] = -0.5 * kick * w
    after = half @ between @ half.T
    return after[0, 0].item(), after[1, 1].item() + 0.25 * kick**2 * noise


@pytest.mark.parametrize("step_size", [0.1, 0.9, 2.0])
def test_the_variance_of_velocities_has_the_known_error_of_second_order(step_size: float) -> None:
    """And that of positions none: exactly, and in simulation."""
    w, s = 2.3, 0.6
    dynamics = Dynamics(torch.tensor([s], dtype=torch.float64), step_size, 0.8)
    position, velocity = stationary(w, dynamics, 1.0 - math.exp(-1.6 * step_size), 0.0)
    assert position == pytest.approx(1.0 / w, rel=1e-9)
    assert velocity == pytest.approx(1.0 - (step_size * s) ** 2 * w / 4, rel=1e-9)
    if step_size > 0.5:
        state = underdamped(torch.zeros(CHAINS, 1).double(), lambda q: -w * q, dynamics, 60)
        for draws, variance in ((state.position, position), (state.velocity, velocity)):
            assert draws.var().item() == pytest.approx(
                variance, abs=SIGMAS * variance * math.sqrt(2 / CHAINS)
            )


def test_the_noise_of_a_gradient_takes_part_of_the_noise_that_is_injected() -> None:
    w, noise = 1.5, 4.0
    dynamics = Dynamics(torch.ones(1).double(), 0.2, 1.0)
    injected, share = sgmcmc.injected_variance(dynamics, torch.tensor([noise]).double())
    square = math.exp(-0.4)
    assert share == pytest.approx(0.04 * noise * (1 + square) / 2 / (1 - square))
    assert 0.2 < share < 0.9
    hot, _ = stationary(w, dynamics, 1 - square, noise)
    right, _ = stationary(w, dynamics, injected.item(), noise)
    assert hot * w > 1.2
    assert right * w == pytest.approx(1.0, abs=0.02)
    source = generator(2)

    def gradient(q: Tensor) -> Tensor:
        return -w * q + math.sqrt(noise) * torch.randn(q.shape, generator=source).double()

    position = underdamped(torch.zeros(CHAINS, 1).double(), gradient, dynamics, 100, injected)[0]
    error = SIGMAS * right * math.sqrt(2 / CHAINS)
    assert position.var().item() == pytest.approx(right, abs=error)


def test_noise_beyond_what_can_be_subtracted_is_reported() -> None:
    dynamics = Dynamics(torch.ones(2).double(), 0.2, 1.0)
    injected, share = sgmcmc.injected_variance(dynamics, torch.tensor([0.0, 100.0]).double())
    assert share > 1.0
    assert injected[0].item() == pytest.approx(1.0 - math.exp(-0.4))
    assert injected[1] == 0.0


def test_the_bias_falls_with_the_square_of_the_step_size() -> None:
    """On the density sech(x) / pi, whose variance is pi^2 / 4."""
    chains = 300_000
    uniform = torch.rand(chains, 1, generator=generator(3), dtype=torch.float64)
    start = (0.5 * math.pi * uniform).tan().log()  # by the inverse of 2 / pi atan(e^x)
    biases, variance = [], start.square().mean().item()
    for step_size, steps in ((1.8, 10), (0.9, 20)):
        dynamics = Dynamics(torch.ones(1).double(), step_size, 1.0)
        draws = underdamped(start, lambda q: -q.tanh(), dynamics, steps).position
        # Of a bounded function, whose mean under sech is 1/2; x itself has heavier tails.
        biases.append(draws.tanh().square().mean().item() - 0.5)
    standard = draws.tanh().square().std().item() / math.sqrt(chains)
    assert variance == pytest.approx(math.pi**2 / 4, rel=0.02)  # the start is what it should be
    assert abs(biases[0]) > 15 * standard
    # A quarter, if there were no terms of higher order; and 6 standard errors.
    assert abs(biases[1]) < abs(biases[0]) / 2.5 + SIGMAS * standard


# ---- overdamped steps --------------------------------------------------------------------------
def overdamped(
    position: Tensor,
    gradient: Gradient,
    scale: Tensor,
    epsilon: float,
    steps: int,
    **options: float,
) -> Tensor:
    source = generator(1)
    for _ in range(steps):
        position = sgmcmc.overdamped_step(source, position, gradient, scale, epsilon, **options)
    return position


@pytest.mark.parametrize("epsilon", [0.2, 1.0])
def test_langevin_steps_have_the_known_bias(epsilon: float) -> None:
    """x' = (1 - eps s^2 w / 2) x + sqrt(eps) s e: variance 1 / (w (1 - eps s^2 w / 4))."""
    w = torch.tensor([0.7, 1.5, 3.0]).double()
    position = overdamped(torch.zeros(CHAINS, 3).double(), lambda q: -w * q, SCALE, epsilon, 150)
    variance = 1.0 / (w * (1.0 - epsilon * SCALE.square() * w / 4.0))
    decayed = (1.0 - epsilon * SCALE.square() * w / 2.0).abs().pow(300).max()
    assert decayed < 0.01
    assert_moments(position, torch.zeros(3).double(), torch.diag(variance))


def test_small_langevin_steps_sample_the_gaussian() -> None:
    z = torch.randn(CHAINS, 3, generator=generator(5), dtype=torch.float64)
    position = z @ torch.linalg.cholesky(COVARIANCE).T + MEAN
    assert_moments(overdamped(position, gaussian_gradient, SCALE, 1e-3, 50), MEAN, COVARIANCE)


def test_a_step_without_noise_goes_downhill_and_draws_no_numbers() -> None:
    position, source = torch.randn(5, 3, generator=generator()).double(), generator(1)
    before = source.get_state()
    new = sgmcmc.overdamped_step(source, position, gaussian_gradient, SCALE, 0.1, 0.0)
    expected = position + 0.05 * SCALE.square() * gaussian_gradient(position)
    torch.testing.assert_close(new, expected)
    assert torch.equal(source.get_state(), before)


# ---- burn-in ----------------------------------------------------------------------------------
DIAGONAL = torch.tensor([0.5, 4.0, 100.0]).double()  # precisions


def anisotropic(position: Tensor) -> tuple[Tensor, Tensor]:
    gradient = -DIAGONAL * position
    return 0.5 * (gradient * position).sum(dim=-1), gradient


def burned_in(
    chains: int, first: float = 0.05, max_error: float = 1e-3
) -> tuple[Particles, Dynamics]:
    return sgmcmc.burn_in(
        generator(), anisotropic, torch.zeros(chains, 3).double(),
        Dynamics(torch.ones(3).double(), first, 1.0), steps=200, max_error=max_error,
        prior_scale=torch.ones(3).double(),
    )  # fmt: skip


def test_the_burn_in_finds_the_scale_and_its_frozen_chains_sample_the_target() -> None:
    """The mean square of a gradient is the precision: the scale is its power -1/4."""
    state, dynamics = burned_in(5000)
    torch.testing.assert_close(dynamics.scale, DIAGONAL.pow(-0.25), rtol=0.05, atol=0)
    state = underdamped(
        state.position, lambda q: anisotropic(q)[1], dynamics, math.ceil(40 / dynamics.step_size)
    )
    assert_moments(state.position, torch.zeros(3).double(), torch.diag(1.0 / DIAGONAL))


@pytest.mark.parametrize("first", [1e-3, 2.0])
def test_the_step_size_has_the_energy_error_asked_for(first: float) -> None:
    state, dynamics = burned_in(2000, first, max_error=1e-2)
    assert torch.isfinite(state.position).all()
    still = dynamics._replace(friction=1e-12)  # no heat: the change of the energy is the error

    def energy(particles: Particles) -> Tensor:
        value, _ = anisotropic(particles.position)
        return 0.5 * particles.velocity.square().sum(dim=-1) - value

    new = sgmcmc.underdamped_step(generator(1), state, lambda q: anisotropic(q)[1], still)
    mean_square = (energy(new) - energy(state)).square().mean().item() / 3
    assert 0.4e-2 < mean_square < 2.5e-2


def test_a_scale_that_follows_the_position_would_be_wrong() -> None:
    """Why the scale is frozen: the same rule at every step has another stationary variance."""
    source, w = generator(), 1.0
    state = sgmcmc.start(source, torch.zeros(CHAINS, 1).double(), lambda q: -w * q)
    for _ in range(150):
        scale = (0.05 + state.gradient.square()).pow(-0.25)
        dynamics = Dynamics(scale, 0.1, 1.0)
        state = sgmcmc.underdamped_step(source, state, lambda q: -w * q, dynamics)
    error = math.sqrt(2 / CHAINS)
    assert abs(state.position.var().item() - 1.0) > 10 * error


def test_a_coordinate_with_scale_zero_stays() -> None:
    scale = torch.tensor([1.0, 0.0, 1.0]).double()
    start = torch.randn(4, 3, generator=generator()).double()
    dynamics = Dynamics(scale, 0.1, 1.0)
    assert torch.equal(underdamped(start, gaussian_gradient, dynamics, 5)[0][:, 1], start[:, 1])


def test_the_seed_decides_and_arguments_are_left_alone() -> None:
    state = sgmcmc.start(generator(), torch.ones(4, 3).double(), gaussian_gradient)
    before = [t.clone() for t in state]
    dynamics = Dynamics(SCALE, 0.2, 1.0)
    ends = [
        sgmcmc.underdamped_step(generator(seed), state, gaussian_gradient, dynamics)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(ends[0].position, ends[1].position)
    assert not torch.equal(ends[0].position, ends[2].position)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))


def test_the_variance_of_a_gradient_is_estimated_without_bias() -> None:
    source, deviation = generator(), torch.tensor([0.5, 2.0]).double()
    estimate = sgmcmc.gradient_variance(
        lambda q: q + deviation * torch.randn(q.shape, generator=source).double(),
        torch.zeros(2000, 2).double(), repeats=4,
    )  # fmt: skip
    standard = deviation.square() * math.sqrt(2 / (3 * 2000))
    assert ((estimate - deviation.square()).abs() < SIGMAS * standard).all()
