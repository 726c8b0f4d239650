"""Draws of networks from their posterior, by many-chain Hamiltonian Monte Carlo.

The chains move in coordinates whitened by the prior, times one factor for each group of
exchangeable parameters: the weights that leave one input, the weights between two layers, the
biases of a layer. A prior and a likelihood that do not tell the units of a layer apart have a
posterior that does not either, so that the members of a group, in all chains, share their marginal
distribution, and one look at all chains estimates what they share: with q and g the position and
the gradient of the log density in whitened coordinates, mean(q^2) and mean(g^2) over a group. The
factor is

    f = (mean(q^2) / mean(g^2))^(1/4),

the scale of the Gaussian that is nearest to the target in Fisher divergence (Seyboldt, Carlson and
Carpenter 2026, arXiv 2603.18845, for diagonal matrices). Where the data say nothing both means,
hence f, are 1. Weights near the inputs keep the prior's scales, but gradients there are several
times steeper: f is 0.2 to 0.6 there, and the step size grows by its inverse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from bo_surrogates.inference.hmc import (
    State,
    Trajectory,
    init,
    reasonable_step_size,
    step,
    steps_of,
    warm_up,
)
from bo_surrogates.networks.posterior import NetworkPosterior

ROUNDS = (1 / 8, 1 / 4, 1 / 2)  # of a warm-up are over when the metric is adapted
SHORTEST = 16  # warm-up that adapts it
LEAST_FACTOR, MOST_FACTOR = 1 / 32, 2.0
PRIOR_COUNT = 5.0  # members at 1 that a group has besides its own, for groups of few


class Chains(NamedTuple):
    """Where chains are, and how they are to move on.

    Attributes:
        position: `K x num_parameters`.
        step_size: In whitened time; 0 where it is not known yet.
        metric: `num_parameters` factors of the prior's scales.
    """

    position: Tensor
    step_size: float
    metric: Tensor


class Run(NamedTuple):
    """What one run of the chains left.

    Attributes:
        chains: Where they ended.
        weights: `draws x P`, networks kept.
        noise: `draws x m`, their noise variances.
        predictions: `K x samples x q m` values at the points that are watched.
        acceptance: Mean probability of acceptance while sampling.
        divergences: Divergent transitions of single chains while sampling.
        gradients: Gradients of single chains, warm-up included.
    """

    chains: Chains
    weights: Tensor
    noise: Tensor
    predictions: Tensor
    acceptance: float
    divergences: int
    gradients: int


@dataclass(frozen=True)
class Sampler:
    """Many-chain Hamiltonian Monte Carlo.

    Attributes:
        posterior: Of the networks.
        points: `q x d` network inputs at which predictions are watched.
        make_trajectory: From the scales of the coordinates to an integrator.
        trajectory_length: Longest trajectory, in whitened time.
        max_leapfrog: Integrator steps in a transition at most.
        target_acceptance: Of the step size's adaptation.
        adapt_metric: Whether the factors are adapted, or stay what they are.
    """

    posterior: NetworkPosterior
    points: Tensor
    make_trajectory: Callable[[Tensor], Trajectory]
    trajectory_length: float
    max_leapfrog: int
    target_acceptance: float
    adapt_metric: bool = True

    def __call__(
        self, generator: torch.Generator, chains: Chains, warmup: int, samples: int, draws: int
    ) -> Run:
        """Warm up and sample.

        Args:
            generator: Source of randomness; it is advanced.
            chains: Start.
            warmup: Transitions that adapt and are dropped.
            samples: Transitions of each chain that follow.
            draws: Networks kept, at most K * samples, from transitions at equal intervals.
        """
        K = len(chains.position)
        state = init(chains.position, self.posterior)
        state, chains, gradients = self._warm_up(generator, state, chains, warmup)
        trajectory = self._trajectory(chains.metric)
        kept_steps = -(-draws // K)
        keep = {samples * (i + 1) // kept_steps - 1 for i in range(kept_steps)}
        weights, noise, predictions = [], [], []
        acceptance, divergences = 0.0, 0
        for i in range(samples):
            steps = steps_of(i, chains.step_size, self.trajectory_length, self.max_leapfrog)
            state, info = step(generator, state, trajectory, chains.step_size, steps)
            gradients += steps * K
            acceptance += info.acceptance.mean().item() / samples
            divergences += int(info.divergent.sum())
            theta, variance = self.posterior.networks(state.position, generator)
            values = self.posterior.network.forward(theta, self.points)
            predictions.append(values.flatten(start_dim=1))
            if i in keep:
                weights.append(theta)
                noise.append(variance)
        return Run(
            chains._replace(position=state.position), torch.cat(weights)[-draws:],
            torch.cat(noise)[-draws:], torch.stack(predictions, dim=1), acceptance, divergences,
            gradients,
        )  # fmt: skip

    def _trajectory(self, metric: Tensor) -> Trajectory:
        return self.make_trajectory(self.posterior.scales * metric)

    def _warm_up(
        self, generator: torch.Generator, state: State, chains: Chains, warmup: int
    ) -> tuple[State, Chains, int]:
        """The last state, what was adapted, and the number of gradients."""
        step_size, metric, gradients = chains.step_size, chains.metric, 0
        adapts = self.adapt_metric and warmup >= SHORTEST
        ends = [*(round(part * warmup) for part in ROUNDS if adapts), warmup]
        for start, end in pairwise([0, *ends]):
            if start > 0:
                metric, before = adapted_metric(self.posterior, state), metric
                # No direction takes longer steps than before: the stiffest can bear no more.
                step_size *= (before / metric).min().item()
            trajectory = self._trajectory(metric)
            if step_size <= 0:
                step_size = reasonable_step_size(generator, state, trajectory)
            state, step_size, count = warm_up(
                generator, state, trajectory, steps=end - start, step_size=step_size,
                length=self.trajectory_length, most=self.max_leapfrog,
                target=self.target_acceptance,
            )  # fmt: skip
            gradients += count * len(state.position)
        return state, Chains(state.position, step_size, metric), gradients


def adapted_metric(posterior: NetworkPosterior, state: State) -> Tensor:
    """The factors that one look at all chains suggests, `num_parameters`.

    Log variances keep the factor 1: their scale follows from the Fisher information.
    """
    group = exchangeable(posterior)
    looks = torch.stack(
        [
            (state.position / posterior.scales).double().square().sum(dim=0),
            (state.gradient * posterior.scales).double().square().sum(dim=0),
        ],
        dim=-1,
    )
    sums = looks.new_zeros(int(group.max()) + 1, 2).index_add_(0, group, looks)
    squares, gradients = (sums + PRIOR_COUNT).unbind(dim=-1)
    factor = (squares / gradients).pow(0.25).clamp(LEAST_FACTOR, MOST_FACTOR)[group]
    if posterior.prior is not None:
        factor[-posterior.network.outputs :] = 1.0
    return factor.to(posterior.scales)


def exchangeable(posterior: NetworkPosterior) -> Tensor:
    """Number of each parameter's group, `num_parameters`.

    Groups are the weights that leave one input, those between two hidden layers, those into one
    output, the biases of a hidden layer, each output's bias, and each log variance.
    """
    network, groups, first = posterior.network, [], 0
    for layer, (fan_in, fan_out) in enumerate(network.fan):
        rows = fan_in if layer == 0 else 1
        columns = fan_out if layer == network.depth else 1
        row = torch.arange(fan_in).clamp_max(rows - 1)[:, None]
        column = torch.arange(fan_out).clamp_max(columns - 1)
        groups += [(first + row * columns + column).flatten(), first + rows * columns + column]
        first += (rows + 1) * columns
    weights, _ = posterior.split(posterior.scales.unsqueeze(0))
    rest = torch.arange(posterior.num_parameters - weights.shape[-1])
    return torch.cat([torch.cat(groups)[: weights.shape[-1]], first + rest]).to(weights.device)
