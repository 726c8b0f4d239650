"""What `sghmc`, `csgld` and `sgld` share: stochastic-gradient Markov chain Monte Carlo of networks.

Model: that of `surrogates/sampled_network.py`.

Inference: K chains without a Metropolis correction, from all data or from minibatches
(`inference/sgmcmc.py`, `networks/minibatch.py`). Each starts near a mode of its own and burns in by
underdamped steps, which adapt the scale and the step size on all data; both are frozen then. With
all data the output layer is integrated out, and drawn from its exact conditional where a network is
recorded. A fit whose predictions fail the test of convergence runs once more, for longer; if it
fails again, its diagnostics say so. What that test cannot see is the bias of finite steps, which
`max_error` bounds.

Prediction: networks recorded at equal intervals are an equally weighted mixture; each has its own
noise variance.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, flag, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.inference.hmc import DIVERGENCE
from bo_surrogates.inference.schedules import Schedule
from bo_surrogates.inference.sgmcmc import (
    Dynamics,
    Gradient,
    Particles,
    burn_in,
    gradient_variance,
    injected_variance,
    start,
)
from bo_surrogates.networks.minibatch import MinibatchGradient
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FitDiagnostics, Surrogate
from bo_surrogates.surrogates.sampled_network import (
    LONGER,
    SampledNetwork,
    SampledNetworkConfig,
)
from bo_surrogates.threads import limited_threads

FIRST_STEP = 0.05  # of the burn-in, in whitened time
MOST_LOST = 0.05  # of the positions recorded, that a fit which passes may have put back


@dataclass(frozen=True)
class SGMCMCConfig(SampledNetworkConfig):
    """Configuration that the three share: that of `SampledNetworkConfig`, and the sampler's.

    `warmup` counts steps, `samples` the positions recorded of each chain.

    Attributes:
        thinning: Steps for each position recorded.
        batch_size: Observations in a minibatch, which takes a sampled output layer; 0, or n and
            more, for all.
        max_error: Mean square error of the energy in a step, per parameter, that the step size is
            adapted to: larger steps explore faster, with more bias.
        adapt_scale: Whether steps are scaled by the gradient's second moments, or by the prior.
    """

    warmup: int = integer(300, 1, 100_000, log=True)
    samples: int = integer(100, 4, 1_000_000, log=True)
    thinning: int = integer(16, 1, 100_000, log=True)
    batch_size: int = integer(0, 0, 1_000_000)
    max_error: float = real(5e-4, 1e-8, 1.0, log=True)
    adapt_scale: bool = flag(True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.batch_size > 0 and self.output_layer == "integrated":
            raise InputError(
                f"{type(self).__name__}.batch_size = {self.batch_size}: the output layer can be "
                "integrated out with all data only; set output_layer to 'sampled', or batch_size "
                "to 0"
            )


class Run(NamedTuple):
    """What one run of the chains left.

    Attributes:
        position: `K x num_parameters`, where they ended.
        dynamics: With which they were sampled.
        weights: `draws x P`, networks kept.
        noise: `draws x m`, their noise variances.
        predictions: `K x samples x q m` values at the gate's points.
        divergences: Times that a chain had left for infinity, and was put back.
        heat: Share of the minibatches in the noise of a step; 0 for all data.
    """

    position: Tensor
    dynamics: Dynamics
    weights: Tensor
    noise: Tensor
    predictions: Tensor
    divergences: int
    heat: float


class SGMCMCNetwork(SampledNetwork):
    """See the module's docstring; `scale` and `step_size` are those that the chains ended with."""

    config_class: ClassVar[type[Config]] = SGMCMCConfig
    config: SGMCMCConfig
    step_size: Tensor
    scale: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        super().prepare()
        self.register_buffer("step_size", self.weights.new_zeros(()))
        self.register_buffer("scale", torch.zeros_like(self.chains[0]))

    # ---- what a sampler decides ----------------------------------------------------------------
    @abstractmethod
    def schedule(self, samples: int) -> Schedule:
        """The steps of a chain that records `samples` positions."""

    @abstractmethod
    def advance(
        self,
        generator: torch.Generator,
        state: Particles,
        gradient: Gradient,
        dynamics: Dynamics,
        size: float,
        noisy: bool,
        gradient_noise: Tensor | None,
    ) -> Particles:
        """One step.

        Args:
            generator: Source of randomness; it is advanced.
            state: Before the step.
            gradient: Of the log density.
            dynamics: As the burn-in left it.
            size: Part of the largest step, by the schedule.
            noisy: Whether the step has noise.
            gradient_noise: `P` variances of the gradient; None if it is exact.
        """

    @property
    def friction(self) -> float:
        """Of the burn-in, which is underdamped in any case."""
        return 1.0

    # ---- inference -----------------------------------------------------------------------------
    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Run the chains; see `Surrogate.fit`.

        With `warm_start` they start where that model's ended, and burn in for a quarter of
        `warmup`. One thread is used: rounding, which chains amplify, depends on their number. (The
        compiled kernel uses more, each for chains of its own.)
        """
        threads = torch.get_num_threads()
        with limited_threads(1):
            self._sample(warm_start, threads)
        return self

    def _sample(self, warm_start: Surrogate | None, threads: int) -> None:
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "sgmcmc"))
        posterior = self._posterior()
        posterior.threads = threads
        points = self._gate_points(generator)
        warm = self._warm(warm_start)
        if warm is None:
            position = _with_likely_noise(posterior, self._modes(posterior, generator))
            warmup = config.warmup
            dynamics = Dynamics(posterior.scales, FIRST_STEP, self.friction)
        else:
            position, warmup = self._continued(warm, posterior), -(-config.warmup // 4)
            dynamics = Dynamics(warm.scale.to(posterior.X), warm.step_size.item(), self.friction)
        runs, (r_hat, ess, message) = self._run_until_converged(
            lambda: self._run(
                generator, posterior, position, dynamics, points, warmup, config.samples
            ),
            lambda run: self._run(
                generator, posterior, run.position, run.dynamics, points,
                LONGER * config.warmup, LONGER * config.samples,
            ),
        )  # fmt: skip
        run = runs[-1]
        self._keep(run.weights.to(self.weights), run.noise.to(self.weights))
        self.chains.copy_(run.position)
        self.scale.copy_(run.dynamics.scale)
        self.step_size.fill_(run.dynamics.step_size)
        if run.heat > 1.0:
            message = (
                f"the noise of the minibatches is {run.heat:.2g} times what the chains should "
                "have; raise batch_size, or lower max_error"
            )
        elif run.divergences > MOST_LOST * config.chains * run.predictions.shape[1]:
            message = (
                f"chains left for infinity {run.divergences} time(s) while they were sampled; "
                "lower max_error"
            )
        self.diagnostics = FitDiagnostics(
            converged=not message,
            message=message,
            values={
                "r_hat": r_hat,
                "ess": ess,
                "step_size": run.dynamics.step_size,
                "divergences": float(sum(one.divergences for one in runs)),
                "minibatch_noise": run.heat,
                "runs": float(len(runs)),
            },
        )

    def _run(
        self,
        generator: torch.Generator,
        posterior: NetworkPosterior,
        position: Tensor,
        dynamics: Dynamics,
        points: Tensor,
        warmup: int,
        samples: int,
    ) -> Run:
        """Burn in and sample."""
        config = self.config
        state, dynamics = burn_in(
            generator, posterior, position, dynamics, steps=warmup, max_error=config.max_error,
            prior_scale=posterior.scales, adapt_scale=config.adapt_scale,
        )  # fmt: skip
        gradient: Gradient = _Exact(posterior)
        noise, heat = None, 0.0
        if 0 < config.batch_size < len(posterior.X):
            gradient = MinibatchGradient(posterior, config.batch_size, generator)
            noise = gradient_variance(gradient, state.position)
            _, heat = injected_variance(dynamics, noise)
        schedule = self.schedule(samples)
        kept_samples = -(-config.draws // config.chains)
        keep = {samples * (i + 1) // kept_samples - 1 for i in range(kept_samples)}
        recorded = {t: i for i, t in enumerate(schedule.recorded)}
        good, lowest = state.position, posterior(state.position)[0] - DIVERGENCE
        weights, variances, predictions, divergences = [], [], [], 0
        for t, (size, noisy) in enumerate(zip(schedule.sizes, schedule.noisy, strict=True)):
            state = self.advance(generator, state, gradient, dynamics, size, noisy, noise)
            if (i := recorded.get(t)) is None:
                continue
            lost = ~(posterior(state.position)[0] > lowest).unsqueeze(-1)  # NaN is lost too
            if lost.any():
                divergences += int(lost.sum())
                state = start(generator, torch.where(lost, good, state.position), gradient)
            good = state.position
            theta, variance = posterior.networks(good, generator)
            predictions.append(self.network.forward(theta, points).flatten(start_dim=1))
            if i in keep:
                weights.append(theta)
                variances.append(variance)
        return Run(
            good, dynamics, torch.cat(weights)[-config.draws :],
            torch.cat(variances)[-config.draws :], torch.stack(predictions, dim=1), divergences,
            heat,
        )  # fmt: skip


def _with_likely_noise(posterior: NetworkPosterior, position: Tensor) -> Tensor:
    """Chains whose noise, all outputs' by the same factor, is what their weights make most likely.

    It is doubled some times from the prior's mean, where chains start, or left, but not lowered:
    weights that explain the noise make none likely. Steps alone change it by a few per cent each.
    """
    if posterior.prior is None:
        return position
    shifts = math.log(2.0) * torch.arange(8.0).to(position)
    candidates = position.expand(len(shifts), -1, -1).clone()
    for candidate, shift in zip(candidates, shifts, strict=True):
        _, log_variance = posterior.split(candidate)
        if log_variance is not None:
            log_variance += shift
    density = torch.stack([posterior(candidate)[0] for candidate in candidates])
    best = density.argmax(dim=0)
    return candidates[best, torch.arange(len(position)).to(best)]


class _Exact:
    """The gradient of a log density."""

    def __init__(self, posterior: NetworkPosterior) -> None:
        self.posterior = posterior

    def __call__(self, position: Tensor) -> Tensor:
        return self.posterior(position)[1]
