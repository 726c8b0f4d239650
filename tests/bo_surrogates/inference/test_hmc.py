from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.inference import hmc
from bo_surrogates.inference.hmc import LogDensityAndGradient

COVARIANCE = torch.tensor([[2.0, 0.9, 0.0], [0.9, 1.0, -0.3], [0.0, -0.3, 0.5]]).double()
MEAN = torch.tensor([1.0, -2.0, 0.5]).double()
SCALE = torch.tensor([1.5, 1.0, 0.5]).double()
SIGMAS = 6.0  # a normal statistic leaves it with probability 2e-9


def gaussian(dtype: torch.dtype = torch.float64) -> LogDensityAndGradient:
    precision, mean = COVARIANCE.inverse().to(dtype), MEAN.to(dtype)

    def density(position: Tensor) -> tuple[Tensor, Tensor]:
        gradient = -(position - mean) @ precision
        return 0.5 * (gradient * (position - mean)).sum(dim=-1), gradient

    return density


def quartic(position: Tensor) -> tuple[Tensor, Tensor]:
    """log p = -x^4 / 4 in each coordinate."""
    return -0.25 * position.pow(4).sum(dim=-1), -position.pow(3)


def quartic_draws(chains: int, generator: torch.Generator) -> Tensor:
    """x^4 / 4 is Gamma(1/4): a quarter of the fourth power of a |x| with density e^(-x^4 / 4)."""
    shape = torch.full((chains, 1), 0.25, dtype=torch.float64)
    gamma = torch._standard_gamma(shape, generator=generator)
    sign = torch.randint(2, (chains, 1), generator=generator) * 2 - 1
    return (4 * gamma).pow(0.25) * sign


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


# ---- the integrator --------------------------------------------------------------------------
def test_leapfrog_is_the_known_linear_map_on_a_harmonic_oscillator() -> None:
    """Kick-drift-kick with x' = s v, v' = -s x / w^2, as a power of a 2 x 2 matrix."""
    s, w, eps, steps = 0.7, 1.3, 0.3, 9
    k = eps * s
    kick = torch.tensor([[1.0, 0.0], [-k / (2 * w**2), 1.0]]).double()
    drift = torch.tensor([[1.0, k], [0.0, 1.0]]).double()
    matrix = torch.linalg.matrix_power(kick @ drift @ kick, steps)

    def density(x: Tensor) -> tuple[Tensor, Tensor]:
        return -0.5 * (x / w).square().sum(dim=-1), -x / w**2

    start, velocity = normal(5, 1), normal(5, 1, seed=1)
    trajectory = hmc.leapfrog(density, torch.tensor([s]).double())
    end, last = trajectory(hmc.init(start, density), velocity, eps, steps)
    expected = matrix @ torch.stack([start[:, 0], velocity[:, 0]])
    torch.testing.assert_close(end.position[:, 0], expected[0])
    torch.testing.assert_close(last[:, 0], expected[1])
    torch.testing.assert_close(end.log_density, density(end.position)[0])
    torch.testing.assert_close(end.gradient, density(end.position)[1])


def test_leapfrog_is_reversible() -> None:
    trajectory = hmc.leapfrog(quartic, torch.ones(2).double())
    start, velocity = hmc.init(normal(4, 2), quartic), normal(4, 2, seed=1)
    end, last = trajectory(start, velocity, 0.1, 20)
    back, first = trajectory(end, -last, 0.1, 20)
    torch.testing.assert_close(back.position, start.position, rtol=0, atol=1e-11)
    torch.testing.assert_close(first, -velocity, rtol=0, atol=1e-11)


def test_leapfrog_keeps_volume() -> None:
    trajectory = hmc.leapfrog(quartic, torch.tensor([0.5, 2.0]).double())

    def flow(z: Tensor) -> Tensor:
        end, last = trajectory(hmc.init(z[:, :2], quartic), z[:, 2:], 0.2, 7)
        return torch.cat([end.position, last], dim=-1)

    z, h = normal(1, 4), 1e-5 * torch.eye(4).double()
    jacobian = (flow(z + h) - flow(z - h)) / 2e-5  # central differences
    torch.testing.assert_close(jacobian.det(), torch.ones(()).double(), rtol=0, atol=1e-7)


def test_the_energy_error_falls_with_the_square_of_the_step_size() -> None:
    start, velocity = hmc.init(normal(20, 2), quartic), normal(20, 2, seed=1)
    trajectory = hmc.leapfrog(quartic, torch.ones(2).double())

    def error(steps: int) -> Tensor:
        end, last = trajectory(start, velocity, 1.0 / steps, steps)
        kinetic = 0.5 * (last.square() - velocity.square()).sum(dim=-1)
        return (kinetic - end.log_density + start.log_density).abs().mean()

    assert error(100) / error(200) == pytest.approx(4.0, rel=0.02)


def test_a_coordinate_with_scale_zero_stays() -> None:
    trajectory = hmc.leapfrog(quartic, torch.tensor([1.0, 0.0]).double())
    state = hmc.init(normal(4, 2), quartic)
    new, info = hmc.step(generator(), state, trajectory, 0.1, 5)
    assert torch.equal(new.position[:, 1], state.position[:, 1])
    assert (new.position[info.accepted, 0] != state.position[info.accepted, 0]).all()


# ---- transitions -------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("exact_start", [True, False])
def test_a_gaussian_is_the_stationary_distribution(dtype: torch.dtype, exact_start: bool) -> None:
    """Chains are independent: means and covariances over chains have known standard errors."""
    chains = 20_000
    z = normal(chains, 3) @ torch.linalg.cholesky(COVARIANCE).T + MEAN
    start = z if exact_start else torch.zeros_like(z)
    density = gaussian(dtype)
    trajectory = hmc.leapfrog(density, SCALE.to(dtype))
    state, source = hmc.init(start.to(dtype), density), generator(1)
    rate = 0.0
    for i in range(6 if exact_start else 40):
        steps = hmc.steps_of(i, 0.6, math.pi, 10)
        state, info = hmc.step(source, state, trajectory, 0.6, steps)
        rate = info.acceptance.mean().item()
    assert 0.5 < rate < 0.99  # the correction is at work: the integrator alone would be biased
    x = state.position.double()
    assert state.position.dtype == dtype
    variance = COVARIANCE.diagonal()
    assert ((x.mean(dim=0) - MEAN).abs() < SIGMAS * (variance / chains).sqrt()).all()
    error = (x.T.cov() - COVARIANCE).abs()
    standard = ((COVARIANCE.square() + torch.outer(variance, variance)) / chains).sqrt()
    assert (error < SIGMAS * standard).all()


def test_transitions_are_in_detailed_balance() -> None:
    """From the stationary distribution, (x, x') and (x', x) have the same distribution."""
    chains = 100_000
    x = quartic_draws(chains, generator())
    trajectory = hmc.leapfrog(quartic, torch.ones(1).double())
    new, info = hmc.step(generator(1), hmc.init(x, quartic), trajectory, 0.9, 2)
    assert 0.3 < info.acceptance.mean() < 0.95
    y = new.position
    # Functions that are neither odd nor even, so that their exchange is no symmetry of the target.
    differences = [
        x.sigmoid() * y.square() - y.sigmoid() * x.square(),
        (x > 0.3).double() * y - (y > 0.3).double() * x,
        x.square() - y.square(),
    ]
    for d in differences:
        assert d.mean().abs() < SIGMAS * d.std() / math.sqrt(chains)
        assert d.std() > 0


def test_acceptance_is_one_for_tiny_steps_and_zero_beyond_stability() -> None:
    state = hmc.init(normal(50, 3), gaussian())
    trajectory = hmc.leapfrog(gaussian(), SCALE)
    _, info = hmc.step(generator(), state, trajectory, 1e-4, 10)
    torch.testing.assert_close(info.acceptance, torch.ones(50).double(), rtol=0, atol=1e-6)
    assert info.accepted.all()
    new, info = hmc.step(generator(), state, trajectory, 50.0, 10)
    assert info.divergent.all()
    assert not info.accepted.any()
    assert all(torch.equal(a, b) for a, b in zip(new, state, strict=True))


def test_a_proposal_whose_density_is_not_a_number_is_divergent() -> None:
    def density(x: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = quartic(x)
        return torch.where(x[:, 0] > 0.0, math.nan, value), gradient

    state = hmc.init(-1.0 - normal(200, 1).abs(), density)
    trajectory = hmc.leapfrog(density, torch.ones(1).double())
    for seed in range(5):
        state, info = hmc.step(generator(seed), state, trajectory, 0.3, 8)
        assert (state.position < 0).all()
        assert info.divergent.any()
        assert not info.accepted[info.divergent].any()


def test_the_seed_decides_and_arguments_are_left_alone() -> None:
    state = hmc.init(normal(5, 3), gaussian())
    before = [t.clone() for t in state]
    trajectory = hmc.leapfrog(gaussian(), SCALE)
    first, second = (hmc.step(generator(3), state, trajectory, 0.5, 3)[0] for _ in range(2))
    assert torch.equal(first.position, second.position)
    assert all(torch.equal(a, b) for a, b in zip(state, before, strict=True))
    other, _ = hmc.step(generator(4), state, trajectory, 0.5, 3)
    assert not torch.equal(first.position, other.position)


def test_a_start_without_a_density_is_refused() -> None:
    with pytest.raises(InputError, match="not finite at the start"):
        hmc.init(torch.full((2, 3), math.inf).double(), gaussian())


# ---- adaptation ----------------------------------------------------------------------------------
@pytest.mark.parametrize("first", [0, 5])
def test_any_power_of_two_consecutive_lengths_fill_the_interval_evenly(first: int) -> None:
    steps = [hmc.steps_of(i, 1e-6, 1.0, 10**9) for i in range(first, first + 16)]
    assert sorted(int(s * 1e-6 * 16 + 1e-9) for s in steps) == list(range(16))
    assert hmc.steps_of(0, 1e-6, 1.0, 7) == 7
    assert hmc.steps_of(0, 10.0, 1.0, 7) == 1


@pytest.mark.parametrize("start", [1e-3, 0.3, 20.0])
def test_dual_averaging_finds_the_step_size_of_the_target(start: float) -> None:
    state = hmc.start_adapting(start)
    for _ in range(500):
        state = hmc.adapt(state, math.exp(-state.value), 0.75)
    assert state.average == pytest.approx(-math.log(0.75), rel=0.05)


def test_the_reasonable_step_size_brackets_the_acceptance() -> None:
    state = hmc.init(normal(2000, 3) @ torch.linalg.cholesky(COVARIANCE).T + MEAN, gaussian())
    trajectory = hmc.leapfrog(gaussian(), SCALE)
    for guess in (1e-3, 30.0):
        size = hmc.reasonable_step_size(generator(), state, trajectory, guess)
        rates = [
            hmc.step(generator(1), state, trajectory, s, 1)[1].acceptance.mean()
            for s in (size / 2, 2 * size)
        ]
        assert rates[0] > 0.75
        assert rates[1] < 0.85


@pytest.mark.parametrize("target", [0.8, 0.9])
def test_the_warm_up_reaches_its_target_from_afar(target: float) -> None:
    trajectory = hmc.leapfrog(gaussian(), SCALE)
    state = hmc.init(20.0 + normal(200, 3), gaussian())
    options = {"length": math.pi, "most": 50}
    state, size, gradients = hmc.warm_up(
        generator(), state, trajectory, steps=200, step_size=1e-2, target=target, **options
    )
    assert 200 <= gradients <= 200 * 50
    rates = []
    for i in range(64):
        steps = hmc.steps_of(i, size, math.pi, 50)
        state, info = hmc.step(generator(i), state, trajectory, size, steps)
        rates.append(info.acceptance.mean())
    assert torch.stack(rates).mean().item() == pytest.approx(target, abs=0.08)
