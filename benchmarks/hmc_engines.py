"""Engines of Hamiltonian Monte Carlo on one posterior over network weights; see `benchmarks.hmc`.

Each engine draws from the same density, which is checked at random parameters, from the same starts
(near modes of their own). The peers see coordinates whitened by the prior, in float32 as ours;
Pyro in its own coordinates, in float64. JAX functions are compiled before the clock starts.
"""

from __future__ import annotations

import math
import resource
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from botorch.test_functions import Hartmann
from torch import Tensor

from bo_surrogates.errors import RunError
from bo_surrogates.inference.diagnostics import bulk_ess, split_r_hat
from bo_surrogates.inference.hmc import leapfrog
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.noise_priors import LogNoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.networks.sampling import Chains, Sampler

HELD_OUT = 50  # points at which predictions are watched
NOISE = 0.05  # prior median of the noise's sd, at which modes are sought
CHEES_NOISE = 0.5  # the same for ChEES: its trajectories collapse from modes of the posterior


class Target(NamedTuple):
    """Data and posterior: all weights with gain 2, biases of sd 1, log noise sd ~ N(log .05, .1^2).

    Attributes:
        posterior: Of all weights.
        collapsed: Of the hidden layers.
        points: `HELD_OUT x 6` network inputs.
    """

    posterior: NetworkPosterior
    collapsed: CollapsedNetworkPosterior
    points: Tensor


class Work(NamedTuple):
    """What an engine did: predictions `K x S x HELD_OUT`, and seconds of its two phases."""

    predictions: Tensor
    cpu: tuple[float, float]
    wall: tuple[float, float]


def hartmann(n: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Hartmann-6 at n uniform points, n x 6 in the unit cube, and n x 1, float64."""
    X = torch.rand(n, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return X, Hartmann(dim=6, negate=True).double()(X).unsqueeze(-1)


def held_out() -> Tensor:
    """`HELD_OUT x 6` other points of the unit cube."""
    generator = torch.Generator().manual_seed(10**6)
    return torch.rand(HELD_OUT, 6, generator=generator, dtype=torch.float64)


def target(n: int, width: int, dtype: torch.dtype = torch.float32) -> Target:
    """The posterior that all engines draw from."""
    X, Y = hartmann(n)
    Y = (Y - Y.mean()) / Y.std()
    network = BatchedMLP(6, 1, width=width, depth=2)
    scales = network.layer_scales([2.0] * 3, [1.0] * 3)
    noise = LogNoisePrior(2 * math.log(0.05), 0.2)
    inputs, points = (((x - 0.5) * 12**0.5).to(dtype) for x in (X, held_out()))
    data = (network, inputs, Y.to(dtype), scales, noise)
    return Target(NetworkPosterior(*data), CollapsedNetworkPosterior(*data), points)


def modes(posterior: NetworkPosterior, chains: int, seed: int, noise: float = NOISE) -> Tensor:
    """`chains x num_parameters` starts, as `hmc` makes them, where the noise has that sd."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(chains, posterior.num_parameters, generator=generator, dtype=torch.float64)
    start = z.to(posterior.X) * posterior.scales
    start[:, -1] = 2 * math.log(noise)
    units = posterior.scales.clone()
    units[-1] = 0.0
    return posterior.maximize(start, steps=100, learning_rate=0.05, scale=units).state


def _clock() -> tuple[float, float]:
    return time.process_time(), time.perf_counter()


def _phases(*marks: tuple[float, float]) -> tuple[tuple[float, float], tuple[float, float]]:
    """CPU and wall seconds of warm-up and sampling, from three marks."""
    a, b, c = marks
    return (b[0] - a[0], c[0] - b[0]), (b[1] - a[1], c[1] - b[1])


def ours(seed: int, n: int, width: int, integrated: bool) -> Work:
    """16 chains; output layer integrated out (the default of `hmc`), or sampled."""
    goal = target(n, width)
    posterior = goal.collapsed if integrated else goal.posterior
    posterior.threads = 1
    posterior(posterior.scales.unsqueeze(0))  # compiles the kernel, once a machine
    generator = torch.Generator().manual_seed(seed)
    sampler = Sampler(
        posterior, goal.points, partial(leapfrog, posterior), trajectory_length=math.pi,
        max_leapfrog=1024, target_acceptance=0.75,
    )  # fmt: skip
    before = _clock()
    start = modes(goal.posterior, 16, seed)
    if integrated:
        start = torch.cat([start[:, : posterior.num_parameters - 1], start[:, -1:]], dim=-1)
    run = sampler(generator, Chains(start, 0.0, torch.ones_like(start[0])), 150, 4, 16)
    middle = _clock()
    run = sampler(generator, run.chains, 0, 200, 256)
    return Work(run.predictions, *_phases(before, middle, _clock()))


def _jax_density(goal: Target) -> Callable[[Any], Any]:
    """Log density of whitened parameters, checked against ours."""
    import jax
    import jax.numpy as jnp

    posterior = goal.posterior
    X, Y, scales = (jnp.asarray(t.numpy()) for t in (posterior.X, posterior.Y, posterior.scales))
    sizes = posterior.network.fan
    mean, std = 2 * math.log(0.05), 0.2

    def density(z: Any) -> Any:
        q, start, h = z * scales, 0, X
        for i, (fan_in, fan_out) in enumerate(sizes):
            end = start + fan_in * fan_out
            h = h @ q[start:end].reshape(fan_in, fan_out) + q[end : end + fan_out]
            h = jnp.tanh(h) if i < len(sizes) - 1 else h
            start = end + fan_out
        fit = -0.5 * jnp.sum((Y - h) ** 2) * jnp.exp(-q[-1]) - 0.5 * len(Y) * q[-1]
        return fit - 0.5 * jnp.sum(z[:-1] ** 2) - 0.5 * ((q[-1] - mean) / std) ** 2

    z = torch.randn(8, posterior.num_parameters, generator=torch.Generator().manual_seed(0))
    z[:, -1] += mean / posterior.scales[-1]
    theirs = torch.tensor([float(v) for v in jax.vmap(density)(jnp.asarray(z.numpy()))])
    difference = posterior(z * posterior.scales)[0] - theirs.double()
    if (difference - difference[0]).abs().max() > 1e-4 * theirs.abs().max():
        raise RunError("benchmarks.hmc: the JAX density is not the one our sampler draws from")
    return density


def _predictions(goal: Target, z: Any) -> Tensor:
    """From whitened draws `K x S x num_parameters`."""
    import numpy as np

    draws = torch.from_numpy(np.array(z)) * goal.posterior.scales
    network = goal.posterior.network
    return torch.stack([network.forward(q[:, :-1], goal.points).squeeze(-1) for q in draws])


def _run_jax(goal: Target, warm: Any, sample: Any, keys: tuple[Any, Any], start: Any) -> Work:
    """Compile both phases, then time them. `sample` returns `K x S x num_parameters`."""
    import jax

    compiled_warm = jax.jit(warm).lower(keys[0], start).compile()
    shapes = jax.eval_shape(warm, keys[0], start)
    compiled_sample = jax.jit(sample).lower(keys[1], shapes).compile()
    before = _clock()
    state = jax.block_until_ready(compiled_warm(keys[0], start))
    middle = _clock()
    draws = jax.block_until_ready(compiled_sample(keys[1], state))
    return Work(_predictions(goal, draws), *_phases(before, middle, _clock()))


def _jax_start(
    goal: Target, chains: int, seed: int, noise: float = NOISE
) -> tuple[tuple[Any, Any], Any]:
    import jax
    import jax.numpy as jnp

    keys = jax.random.split(jax.random.key(seed))
    start = modes(goal.posterior, chains, seed, noise) / goal.posterior.scales
    return (keys[0], keys[1]), jnp.asarray(start.numpy())


def numpyro_nuts(seed: int, n: int, width: int) -> Work:
    """NumPyro's NUTS, 4 vectorized chains."""
    import jax
    from numpyro.infer import NUTS

    goal, chains, warmup, samples = target(n, width), 4, 200, 200
    density = _jax_density(goal)
    keys, start = _jax_start(goal, chains, seed)
    kernel = NUTS(potential_fn=lambda z: -density(z))
    # Keys of the older kind: by their two dimensions the kernel knows that there are many chains.
    first = kernel.init(jax.random.split(jax.random.PRNGKey(seed), chains), warmup, start, (), {})

    def step(state: Any) -> Any:
        return kernel.sample(state, (), {})

    def warm(key: Any, state: Any) -> Any:
        return jax.lax.fori_loop(0, warmup, lambda i, s: step(s), state)

    def sample(key: Any, state: Any) -> Any:
        def one(s: Any, _: Any) -> Any:
            s = step(s)
            return s, s.z

        return jax.lax.scan(one, state, None, length=samples)[1].swapaxes(0, 1)

    return _run_jax(goal, warm, sample, keys, first)


def blackjax_nuts(seed: int, n: int, width: int) -> Work:
    """BlackJAX's NUTS with window adaptation, 4 chains."""
    import blackjax
    import jax

    goal, chains, warmup, samples = target(n, width), 4, 200, 200
    density = _jax_density(goal)
    keys, start = _jax_start(goal, chains, seed)

    def warm(key: Any, position: Any) -> Any:
        adapt = blackjax.window_adaptation(blackjax.nuts, density)

        def chain(k: Any, q: Any) -> Any:
            result, _ = adapt.run(k, q, num_steps=warmup)
            return result.state, {
                k: result.parameters[k] for k in ("step_size", "inverse_mass_matrix")
            }

        return jax.vmap(chain)(jax.random.split(key, chains), position)

    def sample(key: Any, warmed: Any) -> Any:
        def chain(k: Any, state: Any, parameters: Any) -> Any:
            step = blackjax.nuts(density, **parameters).step

            def one(s: Any, kk: Any) -> Any:
                s, _ = step(kk, s)
                return s, s.position

            return jax.lax.scan(one, state, jax.random.split(k, samples))[1]

        return jax.vmap(chain)(jax.random.split(key, chains), *warmed)

    return _run_jax(goal, warm, sample, keys, start)


def blackjax_chees(seed: int, n: int, width: int) -> Work:
    """BlackJAX's ChEES-HMC, 64 chains."""
    import blackjax
    import jax
    import optax

    goal, chains, warmup, samples = target(n, width), 64, 200, 200
    density = _jax_density(goal)
    keys, start = _jax_start(goal, chains, seed, CHEES_NOISE)
    extra: dict[str, Any] = {}

    def warm(key: Any, position: Any) -> Any:
        adapt = blackjax.chees_adaptation(density, chains, target_acceptance_rate=0.75)
        (states, parameters), _ = adapt.run(key, position, 0.1, optax.adam(0.025), warmup)
        extra.update({k: v for k, v in parameters.items() if callable(v)})
        return states, {k: v for k, v in parameters.items() if not callable(v)}

    def sample(key: Any, warmed: Any) -> Any:
        states, parameters = warmed
        step = jax.vmap(blackjax.dynamic_hmc(density, **parameters, **extra).step)

        def one(s: Any, k: Any) -> Any:
            s, _ = step(jax.random.split(k, chains), s)
            return s, s.position

        return jax.lax.scan(one, states, jax.random.split(key, samples))[1].swapaxes(0, 1)

    return _run_jax(goal, warm, sample, keys, start)


def pyro_nuts(seed: int, n: int, width: int) -> Work:
    """Pyro's NUTS with a compiled potential, one chain, few draws: it is slow."""
    from pyro.infer import MCMC, NUTS

    from bo_surrogates.networks.pyro_model import from_sites, network_model, to_sites
    from bo_surrogates.seeding import fixed_seed

    goal, warmup, samples = target(n, width, torch.float64), 30, 30
    start = {k: v[0] for k, v in to_sites(goal.posterior, modes(goal.posterior, 1, seed)).items()}
    marks: list[tuple[float, float]] = []

    def hook(kernel: Any, parameters: Any, stage: str, number: int) -> None:
        if number == 0 or (stage.startswith("Warm") and number == warmup - 1):
            marks.append(_clock())

    with fixed_seed(seed):
        kernel = NUTS(network_model(goal.posterior), jit_compile=True, ignore_jit_warnings=True)
        sampler = MCMC(
            kernel, samples, warmup, initial_params=start, hook_fn=hook, disable_progbar=True
        )
        sampler.run()
    # The first transition compiles: the clock starts behind it.
    phases = _phases(marks[0], marks[1], _clock())
    q = from_sites(goal.posterior, sampler.get_samples())
    values = goal.posterior.network.forward(q[:, :-1], goal.points).squeeze(-1)
    return Work(values.unsqueeze(0), *phases)


ENGINES: dict[str, Callable[[int, int, int], Work]] = {
    "ours": partial(ours, integrated=True),
    "ours, output layer sampled": partial(ours, integrated=False),
    "NumPyro NUTS": numpyro_nuts,
    "BlackJAX NUTS": blackjax_nuts,
    "BlackJAX ChEES": blackjax_chees,
    "Pyro NUTS": pyro_nuts,
}
PACKAGES = {"NumPyro NUTS": "numpyro", "BlackJAX NUTS": "blackjax", "BlackJAX ChEES": "blackjax"}


def figures(engine: str, seed: int, n: int, width: int) -> dict[str, Any]:
    """One run of an engine, measured."""
    torch.set_num_threads(1)
    work = ENGINES[engine](seed, n, width)
    ess = bulk_ess(work.predictions)
    return {
        "engine": engine, "seed": seed, "n": n, "width": width,
        "draws": list(work.predictions.shape[:2]), "ess": ess.median().item(),
        "ess_min": ess.min().item(), "r_hat": split_r_hat(work.predictions).max().item(),
        "warmup_cpu": work.cpu[0], "sampling_cpu": work.cpu[1],
        "warmup_wall": work.wall[0], "sampling_wall": work.wall[1],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }  # fmt: skip
