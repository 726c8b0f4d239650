"""Bayesian neural network of finite width by Hamiltonian Monte Carlo.

Model: that of `surrogates/sampled_network.py`.

Inference: K chains of HMC (`inference/hmc.py`) in coordinates whitened by the prior (Neal 1996,
"Bayesian Learning for Neural Networks", chapter 3; Izmailov et al. 2021, arXiv 2104.14421) and by
a factor for each group of weights, which the warm-up finds (`networks/sampling.py`). They move in
the hidden layers and the log v_j; the output layer is integrated out, and drawn from its exact
conditional where a network is kept (`networks/posterior.py`). A fit whose predictions fail the test
of convergence runs once more, for longer; if it fails again, its diagnostics say so. Pyro's NUTS on
the same posterior is the reference (`networks/pyro_model.py`).

Prediction: networks kept at equal intervals are an equally weighted mixture; each has its own noise
variance.

The defaults were chosen by predictive log density, coverage and R-hat on five functions of 2 to 6
inputs at n = 20 and 50, and tried on four other samples of each. There 90 % intervals cover 92 %
(`gp`: 81 %), the root mean square error is 0.47 standard deviations (`gp`: 0.49, `ensemble`: 0.55)
and the mean log density of standardized outcomes -0.58 (`gp`: -0.53, `ensemble`: -1.34). One hidden
layer, 16 units, or sines predict about as well, but mix less well. Single precision is enough
(`python -m benchmarks.hmc --rounding`). These figures are of an earlier version's trajectories and
budgets; `python -m benchmarks.calibration` prints today's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.hmc import LogDensityAndGradient, Trajectory, leapfrog
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.networks.sampling import Chains, Sampler
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

if TYPE_CHECKING:
    from bo_surrogates.networks.pyro_model import NoUTurn


@dataclass(frozen=True)
class HMCConfig(SampledNetworkConfig):
    """Configuration of `hmc`: that of `SampledNetworkConfig`, and the sampler's.

    Attributes:
        engine: "native", ours; or "pyro", its no-U-turn sampler: the reference that ours is tested
            against, hundreds of times slower. It samples the output layer in any case, and knows
            no trajectory length.
        trajectory_length: Longest trajectory in whitened time; lengths are uniform below it.
        max_leapfrog: Leapfrog steps in a transition at most.
        target_acceptance: Mean acceptance that the step size is adapted to.
    """

    warmup: int = integer(100, 1, 100_000, log=True)
    samples: int = integer(120, 4, 1_000_000, log=True)
    engine: str = choice("native", ("native", "pyro"))
    trajectory_length: float = real(3.1415927, 1e-3, 100.0, log=True)
    max_leapfrog: int = integer(256, 1, 10_000, log=True)
    target_acceptance: float = real(0.75, 0.1, 0.99)


class HMCNetwork(SampledNetwork):
    """See the module's docstring.

    `step_size` and `metric` (`num_parameters`) are how the chains moved where they ended.
    """

    config_class: ClassVar[type[Config]] = HMCConfig
    config: HMCConfig
    step_size: Tensor
    metric: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        super().prepare()
        self.register_buffer("step_size", self.weights.new_zeros(()))
        self.register_buffer("metric", torch.ones_like(self.chains[0]))

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
        run_chains = self._engine(posterior, self._gate_points(generator))
        warm = self._warm(warm_start)
        if warm is None:
            position = self._modes(posterior, generator)
            chains = Chains(position, 0.0, torch.ones_like(position[0]))
            warmup = config.warmup
        else:
            chains = Chains(
                self._continued(warm, posterior), warm.step_size.item(), warm.metric.to(posterior.X)
            )
            warmup = -(-config.warmup // 4)
        runs, (r_hat, ess, message) = self._run_until_converged(
            lambda: run_chains(generator, chains, warmup, config.samples, config.draws),
            lambda run: run_chains(
                generator, run.chains, LONGER * config.warmup, LONGER * config.samples, config.draws
            ),
        )
        run = runs[-1]
        self._keep(run.weights.to(self.weights), run.noise.to(self.weights))
        self.chains.copy_(run.chains.position)
        self.step_size.fill_(run.chains.step_size)
        self.metric.copy_(run.chains.metric)
        self.diagnostics = FitDiagnostics(
            converged=not message,
            message=message,
            values={
                "r_hat": r_hat,
                "ess": ess,
                "acceptance": run.acceptance,
                "divergences": float(run.divergences),
                "step_size": run.chains.step_size,
                "gradients": float(sum(one.gradients for one in runs)),
                "runs": float(len(runs)),
            },
        )

    def make_trajectory(self, density: LogDensityAndGradient, scale: Tensor) -> Trajectory:
        """The integrator of the sampler; see `inference.hmc.leapfrog` for the arguments."""
        return leapfrog(density, scale)

    def _samples_output_layer(self) -> bool:
        return super()._samples_output_layer() or self.config.engine == "pyro"

    def _engine(self, posterior: NetworkPosterior, points: Tensor) -> Sampler | NoUTurn:
        config = self.config
        if config.engine == "pyro":
            # Pyro takes part of a second to import, and most fits do without.
            from bo_surrogates.networks.pyro_model import NoUTurn

            return NoUTurn(posterior, points, config.max_leapfrog, config.target_acceptance)
        return Sampler(
            posterior,
            points,
            partial(self.make_trajectory, posterior),
            config.trajectory_length,
            config.max_leapfrog,
            config.target_acceptance,
        )


SURROGATES.register(
    SurrogateEntry(
        name="hmc",
        model_class=HMCNetwork,
        summary="Bayesian neural network, weights sampled by many-chain Hamiltonian Monte Carlo",
        paper="Neal 1996, Bayesian Learning for Neural Networks; Izmailov et al., arXiv 2104.14421",
        capabilities=Capabilities(posterior="ensemble", max_n=500, max_d=100, cost="seconds"),
    )
)
