"""Bayesian neural network by stochastic-gradient Hamiltonian Monte Carlo.

Model and prediction: those of `surrogates/sampled_network.py` and `surrogates/sgmcmc.py`.

Inference: positions and velocities of K chains follow underdamped Langevin dynamics (Chen, Fox and
Guestrin 2014, arXiv 1402.4102), scaled by the gradient's second moments as in Springenberg et al.
2016, "Bayesian optimization with robust Bayesian neural networks". Here the scale is frozen after
the burn-in, the prior of the weights and of the noise count in full, each output has its own noise,
and steps are "BAOAB" ones in the place of Euler's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, real
from bo_surrogates.inference.schedules import Schedule, decreasing
from bo_surrogates.inference.sgmcmc import (
    Dynamics,
    Gradient,
    Particles,
    injected_variance,
    underdamped_step,
)
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.sgmcmc import SGMCMCConfig, SGMCMCNetwork


@dataclass(frozen=True)
class SGHMCConfig(SGMCMCConfig):
    """Configuration of `sghmc`: that of `SGMCMCConfig`, and one field.

    Attributes:
        friction: gamma, in units of whitened time: velocities are forgotten in 1 / gamma.
    """

    friction: float = real(1.0, 1e-3, 1e3, log=True)


class SGHMCNetwork(SGMCMCNetwork):
    """Stochastic-gradient Hamiltonian Monte Carlo."""

    config_class: ClassVar[type[Config]] = SGHMCConfig
    config: SGHMCConfig

    @property
    def friction(self) -> float:
        """gamma."""
        return self.config.friction

    def schedule(self, samples: int) -> Schedule:
        """Steps of one size."""
        return decreasing(samples, self.config.thinning)

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
        """See `SGMCMCNetwork.advance`."""
        injected = None
        if gradient_noise is not None:
            injected, _ = injected_variance(dynamics, gradient_noise)
        return underdamped_step(generator, state, gradient, dynamics, injected)


SURROGATES.register(
    SurrogateEntry(
        name="sghmc",
        model_class=SGHMCNetwork,
        summary="Bayesian neural network by stochastic-gradient Hamiltonian Monte Carlo",
        paper="Chen et al. 2014, arXiv 1402.4102; Springenberg et al. 2016, NeurIPS",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=200, cost="seconds"),
    )
)
