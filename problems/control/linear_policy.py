"""MuJoCo's walkers with linear policies: action = W state, W in [-1, 1].

Swimmer has 2 x 8 = 16 weights, Hopper 3 x 11 = 33, HalfCheetah 6 x 17 = 102. Actions are clipped to
what the joints take. Maximize the mean return of an episode of at most 1000 steps; how a walker
starts is random, so observations are noisy.

Source: Mania, Guy and Recht 2018, NeurIPS, arXiv 1803.07055; as problems of Bayesian optimization,
Wang, Fonseca and Tian 2020, NeurIPS, arXiv 2007.00708. Needs the extra `control`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.space import Float, Space
from problems.control.episodes import Array, EpisodeReturn


@dataclass(frozen=True)
class LinearPolicyConfig(Config):
    """Options of the walkers.

    Attributes:
        episodes: Of one evaluation.
        random_worlds: Whether each observation has starts of its own.
        max_steps: Of an episode.
    """

    episodes: int = integer(3, 1, 10_000)
    random_worlds: bool = flag(True)
    max_steps: int = integer(1000, 1, 100_000)


class LinearPolicy(EpisodeReturn):
    """See the module's docstring; keywords as for `Problem`.

    Attributes:
        actions: Number of joints.
        states: Number of what is observed.
    """

    config_class: ClassVar[type[Config]] = LinearPolicyConfig
    actions: ClassVar[int]
    states: ClassVar[int]

    def __init__(
        self,
        config: LinearPolicyConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        names = [f"w_{a}_{s}" for a in range(self.actions) for s in range(self.states)]
        super().__init__(
            Space([Float(name, -1.0, 1.0) for name in names]),
            config or LinearPolicyConfig(),
            noise_std=noise_std,
            negate=negate,
        )

    def _made(self) -> Any:
        if self._environment is None:
            with suppress(ImportError):  # named by the base
                import mujoco

                # Else a file MUJOCO_LOG.TXT appears wherever the user is.
                mujoco.set_mju_user_warning(logging.getLogger(__name__).debug)
        return super()._made()

    def act(self, weights: Array, state: Array) -> Array:
        """See `EpisodeReturn.act`."""
        space = self._made().action_space
        action: Array = np.clip(weights.reshape(self.actions, -1) @ state, space.low, space.high)
        return action


class Swimmer(LinearPolicy):
    """A chain of three links in a viscous fluid."""

    environment_name, actions, states = "Swimmer-v5", 2, 8


class Hopper(LinearPolicy):
    """One leg that hops; the episode ends when it falls."""

    environment_name, actions, states = "Hopper-v5", 3, 11


class HalfCheetah(LinearPolicy):
    """Two legs in the plane that run."""

    environment_name, actions, states = "HalfCheetah-v5", 6, 17
