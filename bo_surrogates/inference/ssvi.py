"""Sparse subspace variational inference: mean-field inference with few active weights.

Algorithm: Li, Miao, Qiu and Zhang 2024 (arXiv 2402.11025), algorithm 1, for K members at once. Of
each weight matrix exactly s entries are active: q(theta_i) = N(mean_i, std_i^2), std = log(1 +
exp(raw)); the others are zero. Which ones, and their Gaussians, are optimized in turn.

Gradient steps minimize the negative evidence lower bound, in nats, for N(0, scale^2) priors,

    E_q[-log p(y | theta)] + beta sum over active i of KL_i,
    KL_i = log(scale_i / std_i) + (std_i^2 + mean_i^2) / (2 scale_i^2) - 1/2

by Adam; beta rises linearly over the first half. After every `interval` steps t, until a share of
all T, each matrix gives up its floor(f_t s) least important weights (`pruning_criteria`), where
f_t = fraction / 2 (1 + cos(pi t / T_end)), and takes in as many inactive ones, those with the
largest |d E_q[-log p] / d mean_i|. A weight just given up may be chosen again, and is then as it
was; any other starts at mean 0 with the mean `raw` of its matrix. Moments of Adam start anew for
weights that came or went, and so do their bias corrections: with the count of all steps in the
place of a weight's own, its first steps would be several times as long as the learning rate.

Sparsity is of the posterior, hence of what is stored and of what a sparse kernel has to compute;
here tensors are dense, and masked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError
from bo_surrogates.inference.adam import BETA_1, BETA_2, EPSILON
from bo_surrogates.inference.pruning_criteria import importance
from bo_surrogates.networks import BatchedMLP

ExpectedLoss = Callable[[Tensor, Tensor], Tensor]
"""From means and standard deviations `K x P`, zero where inactive, to the sum over members of (an
estimate of) E_q[-log p(y | theta)] over all data: a scalar."""


class Group(NamedTuple):
    """A weight matrix.

    Attributes:
        start: Index of its first entry among a member's P parameters.
        stop: Index after its last entry.
        active: s, the number of active entries.
    """

    start: int
    stop: int
    active: int

    @property
    def size(self) -> int:
        """Number of entries."""
        return self.stop - self.start


class State(NamedTuple):
    """The approximate posterior of K members.

    Attributes:
        mean: `K x P`, zero where inactive.
        raw: `K x P`; minus infinity for a parameter without uncertainty, which has no prior either.
        mask: `K x P`, True where active.
    """

    mean: Tensor
    raw: Tensor
    mask: Tensor

    @property
    def std(self) -> Tensor:
        """`K x P` standard deviations, zero where inactive."""
        return functional.softplus(self.raw) * self.mask

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """k weight vectors `k x P`, from the members in turn; inactive entries are zero."""
        chosen = (torch.arange(k) % len(self.mean)).to(self.mean.device)
        normal = torch.randn(
            k, self.mean.shape[-1], generator=generator, dtype=torch.float64,
            device=generator.device,
        ).to(self.mean)  # fmt: skip
        return self.mean[chosen] + self.std[chosen] * normal


@dataclass(frozen=True)
class Replacement:
    """When and how the active sets change.

    Attributes:
        interval: Gradient steps between two changes.
        fraction: Share of the active weights that the first change would replace; 0 for never.
        until: Share of the steps after which the sets stay as they are.
        criterion: Importance, a key of `CRITERIA`.
        rate: Of the exponential criteria.
        growth: "sampled" or "mean": the gradient under q, or of the network of the means.
        growth_samples: Evaluations of the sampled gradient that are averaged.
    """

    interval: int = 50
    fraction: float = 0.3
    until: float = 0.75
    criterion: str = "snr_abs"
    rate: float = 1.0
    growth: str = "sampled"
    growth_samples: int = 1

    def is_due(self, step: int, steps: int) -> bool:
        """Whether the sets change before gradient step `step` = 0, 1, ... of `steps`."""
        end = self.until * steps
        return self.fraction > 0 and 0 < step < end and step % self.interval == 0

    def count(self, step: int, steps: int, active: int) -> int:
        """Number of weights replaced out of `active`."""
        end = self.until * steps
        if step >= end:
            return 0
        return int(0.5 * self.fraction * (1.0 + math.cos(math.pi * step / end)) * active)


@dataclass(frozen=True)
class Budget:
    """How long and how fast a fit goes.

    Attributes:
        steps: T, gradient steps.
        mean_rate: Adam's first learning rate of means; it falls to zero along a cosine.
        raw_rate: That of `raw`.
        kl_weight: beta; below 1 a "cold" posterior.
        kl_warmup: Whether beta rises from 0 over the first half.
        replacement: Of active weights.
    """

    steps: int
    mean_rate: float
    raw_rate: float
    kl_weight: float = 1.0
    kl_warmup: bool = True
    replacement: Replacement = field(default_factory=Replacement)

    def beta(self, step: int) -> float:
        """Weight of the divergence at gradient step 0, 1, ..."""
        return self.kl_weight * (min(2.0 * step / self.steps, 1.0) if self.kl_warmup else 1.0)


class Training(NamedTuple):
    """A fit in progress; its tensors are changed in place.

    Attributes:
        theta: `2 x K x P`: means and `raw`.
        mask: `K x P`, True where active.
        first: `2 x K x P`, Adam's first moments.
        second: `2 x K x P`, its second moments.
        first_bias: `K x P`, the first moment that a gradient of 1 would have by now.
        second_bias: `K x P`, the same of the second moment.
    """

    theta: Tensor
    mask: Tensor
    first: Tensor
    second: Tensor
    first_bias: Tensor
    second_bias: Tensor

    @property
    def state(self) -> State:
        """The approximate posterior, as views."""
        return State(self.theta[0], self.theta[1], self.mask)


class Result(NamedTuple):
    """A finished fit.

    Attributes:
        state: The approximate posterior.
        first: Negative evidence lower bound at the start, summed over members, beta at its last.
        last: At `state`; both are estimates if the expected loss is.
        replaced: Weights that entered an active set, over all members and changes.
    """

    state: State
    first: float
    last: float
    replaced: int


def uniform_groups(
    network: BatchedMLP, density: float, dense_first: bool = True
) -> tuple[Group, ...]:
    """Every weight matrix at one density, at least one weight active; biases belong to none.

    Args:
        network: Shape of the networks.
        density: Share of active weights, in (0, 1].
        dense_first: Whether the first layer is exempt, all its weights active.

    Raises:
        InputError: The density is out of range.
    """
    if not 0 < density <= 1:
        raise InputError(f"density must be in (0, 1], got {density!r}")
    groups, start = [], 0
    for layer, (fan_in, fan_out) in enumerate(network.fan):
        size = fan_in * fan_out
        dense = layer == 0 and dense_first
        active = size if dense else max(1, round(density * size))
        groups.append(Group(start, start + size, active))
        start += size + fan_out
    return tuple(groups)


def sparse_scales(network: BatchedMLP, scales: Tensor, groups: Sequence[Group]) -> Tensor:
    """Prior standard deviations `P` that give the sums into units the variance of dense ones.

    A unit of a matrix with s of its entries active has in s / (in out) active inputs on average:
    those weights' scales are divided by sqrt(s / (in out)).

    Args:
        network: Shape of the networks.
        scales: `P` scales of the dense network, see `BatchedMLP.scales`.
        groups: The weight matrices.
    """
    result = scales.clone()
    for group in groups:
        result[group.start : group.stop] *= (group.size / group.active) ** 0.5
    return result


def init(mean: Tensor, std: Tensor, groups: Sequence[Group], generator: torch.Generator) -> State:
    """A state with random active sets.

    Args:
        mean: `K x P` first means; those of inactive weights are dropped.
        std: First standard deviations, broadcastable to that; zero for a parameter without
            uncertainty.
        groups: The sparse parts.
        generator: Of the sets.

    Raises:
        InputError: A group does not fit the parameters, or has too many active entries.
    """
    mask = torch.ones(mean.shape, dtype=torch.bool, device=mean.device)
    for group in groups:
        inside = group.start >= 0 and group.stop <= mean.shape[-1]
        if not (inside and 1 <= group.active <= group.size):
            raise InputError(
                f"ssvi: {group} must lie within {mean.shape[-1]} parameters and have 1 to "
                f"{group.size} of them active"
            )
        order = torch.rand(len(mean), group.size, generator=generator, device=generator.device)
        mask[:, group.start : group.stop] = _largest(order.to(mean.device), group.active)
    # The inverse of softplus, log(exp(s) - 1) = s + log(1 - exp(-s)), without overflow.
    raw = (std + torch.log(-torch.expm1(-std))).expand_as(mean).clone()
    return State(mean * mask, raw, mask)


def kl_divergence(state: State, scales: Tensor) -> Tensor:
    """KL(q || prior) of each member, `K`; parameters without uncertainty contribute nothing.

    Args:
        state: The approximate posterior.
        scales: `P` prior standard deviations.
    """
    counted = state.mask & (state.raw > -math.inf)
    # Entries that do not count stay finite, or 0 times them would not be 0.
    std = functional.softplus(state.raw.clamp_min(-60.0))
    terms = (scales / std).log() + 0.5 * ((std / scales).square() + (state.mean / scales).square())
    return ((terms - 0.5) * counted).sum(dim=-1)


def begin(state: State) -> Training:
    """A fit that starts from a state, which is left as it is."""
    theta = torch.stack([state.mean, state.raw])
    bias = torch.zeros_like(state.mean)
    return Training(
        theta, state.mask.clone(), torch.zeros_like(theta), torch.zeros_like(theta), bias,
        bias.clone(),
    )  # fmt: skip


def gradient_step(
    training: Training, loss: ExpectedLoss, scales: Tensor, step: int, budget: Budget
) -> None:
    """One step of Adam on the Gaussians of the active weights.

    Args:
        training: The fit; changed.
        loss: Expected negative log-likelihood.
        scales: `P` prior standard deviations.
        step: Number of gradient steps before this one.
        budget: Rates and beta.
    """
    theta, mask, first, second, first_bias, second_bias = training
    leaf = theta.requires_grad_()
    value = negative_bound(State(leaf[0], leaf[1], mask), loss, scales, budget.beta(step))
    (gradient,) = torch.autograd.grad(value, leaf)
    theta.requires_grad_(False)
    # The gradient by the mean of an inactive weight is not zero: it is what `replace` looks at.
    gradient.mul_(mask)
    first.lerp_(gradient, 1.0 - BETA_1)
    second.mul_(BETA_2).addcmul_(gradient, gradient, value=1.0 - BETA_2)
    first_bias.mul_(BETA_1).add_(1.0 - BETA_1)
    second_bias.mul_(BETA_2).add_(1.0 - BETA_2)
    change = (first / first_bias).div_((second / second_bias).sqrt_().add_(EPSILON))
    cosine = 0.5 * (1.0 + math.cos(math.pi * step / budget.steps))
    theta[0].sub_(change[0], alpha=cosine * budget.mean_rate)
    theta[1].sub_(change[1], alpha=cosine * budget.raw_rate)


def negative_bound(state: State, loss: ExpectedLoss, scales: Tensor, beta: float = 1.0) -> Tensor:
    """Negative evidence lower bound, summed over members, its divergence times beta: a scalar."""
    return loss(state.mean, state.std) + beta * kl_divergence(state, scales).sum()


def growth_gradient(state: State, loss: ExpectedLoss, replacement: Replacement) -> Tensor:
    """d E_q[-log p] / d mean, `K x P`, of inactive weights too."""
    mean = state.mean.detach().clone().requires_grad_()
    std = state.std.detach()
    if replacement.growth == "mean":
        return torch.autograd.grad(loss(mean, torch.zeros_like(std)), mean)[0]
    samples = replacement.growth_samples
    total = torch.zeros_like(std)
    for _ in range(samples):
        total += torch.autograd.grad(loss(mean, std), mean)[0]
    return total / samples


def replace(
    training: Training,
    gradient: Tensor,
    groups: Sequence[Group],
    counts: Sequence[int],
    criterion: str = "snr_abs",
    rate: float = 1.0,
) -> int:
    """Give up the least important active weights for the inactive ones of largest gradient.

    Args:
        training: The fit; changed.
        gradient: `K x P`, see `growth_gradient`.
        groups: The sparse parts.
        counts: How many weights of each group a member replaces; at most what it has inactive.
        criterion: Importance, a key of `CRITERIA`.
        rate: Of the exponential criteria.

    Returns:
        The number of weights that entered an active set.
    """
    entered = 0
    for group, wanted in zip(groups, counts, strict=True):
        count = min(wanted, group.size - group.active)
        if count < 1:
            continue
        at = slice(group.start, group.stop)
        mean, raw, mask = training.theta[0, :, at], training.theta[1, :, at], training.mask[:, at]
        score = importance(criterion, mean, functional.softplus(raw), rate)
        kept = _largest(torch.where(mask, score, -math.inf), group.active - count)
        candidates = torch.where(kept, -math.inf, gradient[:, at].abs())
        active = kept | _largest(candidates, count)
        changed, new = active != mask, active & ~mask
        level = (raw * mask).sum(dim=-1, keepdim=True) / group.active
        mean.masked_fill_(changed, 0.0)
        raw.copy_(torch.where(new, level, raw))
        for moments in (training.first, training.second):
            moments[:, :, at].masked_fill_(changed, 0.0)
        for bias in (training.first_bias, training.second_bias):
            bias[:, at].masked_fill_(changed, 0.0)
        mask.copy_(active)
        entered += int(new.sum())
    return entered


def train(
    loss: ExpectedLoss,
    start: State,
    scales: Tensor,
    groups: Sequence[Group],
    budget: Budget,
) -> Result:
    """Alternate gradient steps and changes of the active sets.

    Args:
        loss: Expected negative log-likelihood of all data. If it draws noise or a minibatch, from a
            generator of its own.
        start: First state; left as it is.
        scales: `P` prior standard deviations.
        groups: The sparse parts.
        budget: Steps and rates.
    """
    training, replacement = begin(start), budget.replacement
    with torch.no_grad():
        first = negative_bound(start, loss, scales, budget.kl_weight).item()
    replaced = 0
    for step in range(budget.steps):
        if replacement.is_due(step, budget.steps):
            gradient = growth_gradient(training.state, loss, replacement)
            counts = [replacement.count(step, budget.steps, group.active) for group in groups]
            replaced += replace(
                training, gradient, groups, counts, replacement.criterion, replacement.rate
            )
        gradient_step(training, loss, scales, step, budget)
    with torch.no_grad():
        last = negative_bound(training.state, loss, scales, budget.kl_weight).item()
    return Result(training.state, first, last, replaced)


def _largest(values: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest entries of each row; of equal ones the first."""
    order = values.argsort(dim=-1, descending=True, stable=True)[:, :count]
    return torch.zeros(values.shape, dtype=torch.bool, device=values.device).scatter_(
        -1, order, True
    )
