"""Bayesian neural networks by stochastic-gradient Langevin dynamics, plain and in cycles.

Model and prediction: those of `surrogates/sampled_network.py` and `surrogates/sgmcmc.py`.

Inference: K chains of Euler steps of overdamped Langevin dynamics after the burn-in.

- `sgld`: constant steps, or decreasing ones whose bias vanishes (Welling and Teh 2011).
- `csgld`: steps that fall along a cosine, many times. A cycle first goes downhill without noise, by
  steps large enough to leave a mode, and is recorded while its small steps sample the mode it has
  found (Zhang et al. 2020, arXiv 1902.03932).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.inference.schedules import Schedule, cyclical, decreasing
from bo_surrogates.inference.sgmcmc import Dynamics, Gradient, Particles, overdamped_step
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.sgmcmc import SGMCMCConfig, SGMCMCNetwork


@dataclass(frozen=True)
class CSGLDConfig(SGMCMCConfig):
    """Configuration of `csgld`: that of `SGMCMCConfig`, and its own fields.

    Attributes:
        cycles: Cycles of each chain.
        exploration: Part of a cycle that has no noise.
        largest_step: Step size at the start of a cycle, as a multiple of the burn-in's.
    """

    thinning: int = integer(50, 1, 100_000, log=True)
    cycles: int = integer(4, 1, 10_000, log=True)
    exploration: float = real(0.1, 0.0, 0.99)
    largest_step: float = real(2.5, 1e-3, 10.0, log=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cycles > self.samples:
            raise InputError(
                f"CSGLDConfig.cycles = {self.cycles}: each cycle takes a sample, and samples is "
                f"{self.samples}; raise samples or lower cycles"
            )


@dataclass(frozen=True)
class SGLDConfig(SGMCMCConfig):
    """Configuration of `sgld`: that of `SGMCMCConfig`, and its own fields.

    Attributes:
        decay: Exponent with which step sizes decrease; 0 for constant steps.
        largest_step: First step size, as a multiple of the burn-in's.
    """

    thinning: int = integer(50, 1, 100_000, log=True)
    decay: float = real(0.0, 0.0, 1.0)
    largest_step: float = real(1.5, 1e-3, 10.0, log=True)


class LangevinNetwork(SGMCMCNetwork):
    """Overdamped steps on a schedule."""

    config: CSGLDConfig | SGLDConfig

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
        """See `SGMCMCNetwork.advance`; a step of size h has epsilon = h^2."""
        epsilon = size * (self.config.largest_step * dynamics.step_size) ** 2
        injected: Tensor | float = 1.0 if noisy else 0.0
        if noisy and gradient_noise is not None:
            heat = 0.25 * epsilon * dynamics.scale.square() * gradient_noise
            injected = (1.0 - heat).clamp_min(0.0)
        position = overdamped_step(
            generator, state.position, gradient, dynamics.scale, epsilon, injected
        )
        return state._replace(position=position)


class CyclicalSGLDNetwork(LangevinNetwork):
    """Cyclical stochastic-gradient Langevin dynamics."""

    config_class: ClassVar[type[Config]] = CSGLDConfig
    config: CSGLDConfig

    def schedule(self, samples: int) -> Schedule:
        """Cosine cycles."""
        config = self.config
        return cyclical(samples, config.thinning, config.cycles, config.exploration)


class SGLDNetwork(LangevinNetwork):
    """Stochastic-gradient Langevin dynamics."""

    config_class: ClassVar[type[Config]] = SGLDConfig
    config: SGLDConfig

    def schedule(self, samples: int) -> Schedule:
        """Constant or decreasing steps."""
        return decreasing(samples, self.config.thinning, self.config.decay)


SURROGATES.register(
    SurrogateEntry(
        name="csgld",
        model_class=CyclicalSGLDNetwork,
        summary="Bayesian neural network by cyclical stochastic-gradient Langevin dynamics",
        paper="Zhang et al. 2020, arXiv 1902.03932",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=200, cost="seconds"),
    )
)

SURROGATES.register(
    SurrogateEntry(
        name="sgld",
        model_class=SGLDNetwork,
        summary="Bayesian neural network by stochastic-gradient Langevin dynamics",
        paper="Welling and Teh 2011, ICML",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=200, cost="seconds"),
    )
)
