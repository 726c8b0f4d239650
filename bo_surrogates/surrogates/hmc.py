"""Bayesian neural network of finite width by Hamiltonian Monte Carlo.

Model: that of `surrogates/sampled_network.py`.

Inference: K chains of HMC (`inference/hmc.py`) in coordinates whitened by the prior (Neal 1996,
"Bayesian Learning for Neural Networks", chapter 3; Izmailov et al. 2021, arXiv 2104.14421). They
move in the hidden layers and the log v_j; the output layer is integrated out, and drawn from its
exact conditional where a network is kept (`network_posterior.py`). A fit whose predictions fail the
test of convergence runs once more, for longer; if it fails again, its diagnostics say so.

Prediction: networks kept at equal intervals are an equally weighted mixture; each has its own noise
variance.

The defaults were chosen by predictive log density, coverage and R-hat on five functions of 2 to 6
inputs at n = 20 and 50, and tried on four other samples of each. There 90 % intervals cover 92 %
(`gp`: 81 %), the root mean square error is 0.47 standard deviations (`gp`: 0.49, `ensemble`: 0.55)
and the mean log density of standardized outcomes -0.58 (`gp`: -0.53, `ensemble`: -1.34). One hidden
layer, 16 units, or sines predict about as well, but mix less well. Single precision is enough: on
three of these data sets it moved the energy change of a trajectory of 32 steps by a median of less
than 0.001, where the integrator's own error was 0.3 and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, integer, real
from bo_surrogates.inference.hmc import (
    LogDensityAndGradient,
    State,
    Trajectory,
    init,
    leapfrog,
    reasonable_step_size,
    step,
    steps_of,
    warm_up,
)
from bo_surrogates.network_posterior import NetworkPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.sampled_network import (
    LONGER,
    SampledNetwork,
    SampledNetworkConfig,
)
from bo_surrogates.threads import limited_threads


@dataclass(frozen=True)
class HMCConfig(SampledNetworkConfig):
    """Configuration of `hmc`: that of `SampledNetworkConfig`, and the sampler's.

    Attributes:
        trajectory_length: Longest trajectory in whitened time; lengths are uniform below it.
        max_leapfrog: Leapfrog steps in a transition at most.
        target_acceptance: Mean acceptance that the step size is adapted to.
    """

    trajectory_length: float = real(1.5707963, 1e-3, 100.0, log=True)
    max_leapfrog: int = integer(64, 1, 10_000, log=True)
    target_acceptance: float = real(0.75, 0.1, 0.99)


class Run(NamedTuple):
    """What one run of the chains left.

    Attributes:
        state: Last state.
        step_size: That of the sampling.
        weights: `draws x P`, networks kept.
        noise: `draws x m`, their noise variances.
        predictions: `K x samples x q m` values at the gate's points.
        acceptance: Mean probability of acceptance while sampling.
        divergences: Divergent transitions of single chains while sampling.
        gradients: Gradients of single chains, warm-up included.
    """

    state: State
    step_size: float
    weights: Tensor
    noise: Tensor
    predictions: Tensor
    acceptance: float
    divergences: int
    gradients: int


class HMCNetwork(SampledNetwork):
    """See the module's docstring; `step_size` is that of the chains where they ended."""

    config_class: ClassVar[type[Config]] = HMCConfig
    config: HMCConfig
    step_size: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        super().prepare()
        self.register_buffer("step_size", self.weights.new_zeros(()))

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Run the chains; see `Surrogate.fit`.

        With `warm_start` they start where that model's ended, and warm up for a quarter of
        `warmup`. One thread is used: the order of a sum decides its rounding, rounding decides
        which proposals are accepted, and the result is not to depend on the number of threads. (The
        compiled kernel uses more, each for chains of its own.)
        """
        threads = torch.get_num_threads()
        with limited_threads(1):
            self._sample(warm_start, threads)
        return self

    def _sample(self, warm_start: Surrogate | None, threads: int) -> None:
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "hmc"))
        posterior = self._posterior()
        posterior.threads = threads
        points = self._gate_points(generator)
        trajectory = self.make_trajectory(posterior, posterior.scales)
        warm = self._warm(warm_start)
        if warm is None:
            state = init(self._modes(posterior, generator), posterior)
            warmup, guess = config.warmup, reasonable_step_size(generator, state, trajectory)
        else:
            state = init(warm.chains.to(posterior.X), posterior)
            warmup, guess = -(-config.warmup // 4), warm.step_size.item()
        run = self._run(
            generator, posterior, trajectory, state, guess, points, warmup, config.samples
        )
        r_hat, ess, message = self._gate(run.predictions)
        runs = 1
        if message:
            run = self._run(
                generator, posterior, trajectory, run.state, run.step_size, points,
                LONGER * config.warmup, LONGER * config.samples, run.gradients,
            )  # fmt: skip
            r_hat, ess, message = self._gate(run.predictions)
            runs = 2
        self._keep(run.weights.to(self.weights), run.noise.to(self.weights))
        self.chains.copy_(run.state.position)
        self.step_size.fill_(run.step_size)
        self.diagnostics = FitDiagnostics(
            converged=not message,
            message=message,
            values={
                "r_hat": r_hat,
                "ess": ess,
                "acceptance": run.acceptance,
                "divergences": float(run.divergences),
                "step_size": run.step_size,
                "gradients": float(run.gradients),
                "runs": float(runs),
            },
        )

    def make_trajectory(self, density: LogDensityAndGradient, scale: Tensor) -> Trajectory:
        """The integrator of the sampler; see `inference.hmc.leapfrog` for the arguments."""
        return leapfrog(density, scale)

    def _run(
        self,
        generator: torch.Generator,
        posterior: NetworkPosterior,
        trajectory: Trajectory,
        state: State,
        step_size: float,
        points: Tensor,
        warmup: int,
        samples: int,
        gradients: int = 0,
    ) -> Run:
        """Warm up and sample."""
        config = self.config
        length, most = config.trajectory_length, config.max_leapfrog
        state, step_size, count = warm_up(
            generator, state, trajectory, steps=warmup, step_size=step_size, length=length,
            most=most, target=config.target_acceptance,
        )  # fmt: skip
        gradients += count * config.chains
        kept_steps = -(-config.draws // config.chains)
        keep = {samples * (i + 1) // kept_steps - 1 for i in range(kept_steps)}
        weights, noise, predictions = [], [], []
        acceptance, divergences = 0.0, 0
        for i in range(samples):
            steps = steps_of(i, step_size, length, most)
            state, info = step(generator, state, trajectory, step_size, steps)
            gradients += steps * config.chains
            acceptance += info.acceptance.mean().item() / samples
            divergences += int(info.divergent.sum())
            theta, variance = posterior.networks(state.position, generator)
            predictions.append(self.network.forward(theta, points).flatten(start_dim=1))
            if i in keep:
                weights.append(theta)
                noise.append(variance)
        return Run(
            state, step_size, torch.cat(weights)[-config.draws :],
            torch.cat(noise)[-config.draws :], torch.stack(predictions, dim=1), acceptance,
            divergences, gradients,
        )  # fmt: skip


SURROGATES.register(
    SurrogateEntry(
        name="hmc",
        model_class=HMCNetwork,
        summary="Bayesian neural network, weights sampled by many-chain Hamiltonian Monte Carlo",
        paper="Neal 1996, Bayesian Learning for Neural Networks; Izmailov et al., arXiv 2104.14421",
        capabilities=Capabilities(posterior="ensemble", max_n=500, max_d=100, cost="seconds"),
    )
)
