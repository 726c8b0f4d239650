"""Controllers judged by the return of simulated episodes, in Gymnasium's environments.

The true metric is the mean return over `episodes` worlds that are reset with the seeds 0, 1, ...;
an observation has the same worlds, or with `random_worlds` others, drawn by its seed.

An environment is made once a process and not pickled: a copy makes its own.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import RunError
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Space
from bo_surrogates.threads import limited_threads
from problems.base import Problem

Array = NDArray[np.float64]


class EpisodeReturn(Problem):
    """Base of the problems; keywords as for `Problem`.

    Args:
        space: The controller's weights.
        config: With the fields `episodes`, `random_worlds` and `max_steps`.
        noise_std: Further noise, beside that of the worlds.
        negate: See `Problem`.

    Raises:
        RunError: Gymnasium, or what the environment needs, is not installed.

    Attributes:
        environment_name: Gymnasium's.
    """

    environment_name: ClassVar[str]

    def __init__(
        self,
        space: Space,
        config: Config,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            space,
            [Objective("mean_return", "maximize")],
            config=config,
            noise_std=noise_std,
            negate=negate,
        )
        self._environment: Any = None
        self._made()

    @abstractmethod
    def act(self, weights: Array, state: Array) -> Any:
        """The action of the controller with weights `d` in a state."""

    def _made(self) -> Any:
        if self._environment is None:
            options: Any = self.config
            try:
                import gymnasium

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # notes to Gymnasium's developers
                    self._environment = gymnasium.make(
                        self.environment_name, max_episode_steps=options.max_steps
                    )
            except ImportError as error:  # Gymnasium's DependencyNotInstalled is one in effect
                raise _missing(self.environment_name, error) from error
            except Exception as error:
                if type(error).__name__ != "DependencyNotInstalled":
                    raise
                raise _missing(self.environment_name, error) from error
        return self._environment

    def episode(self, weights: Array, seed: int) -> float:
        """Return of one episode in the world of a seed."""
        environment = self._made()
        state, _ = environment.reset(seed=seed)
        total = 0.0
        while True:
            state, reward, ended, cut, _ = environment.step(self.act(weights, state))
            total += float(reward)
            if ended or cut:
                return total

    def _true_metrics(self, X: Tensor) -> Tensor:
        options: Any = self.config
        return self._returns(X, lambda row: range(options.episodes))

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        options: Any = self.config
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        values = (
            self._returns(
                X,
                lambda row: [
                    derive_seed(drawn, "world", row, e) % 2**31 for e in range(options.episodes)
                ],
            )
            if options.random_worlds
            else self._true_metrics(X)
        )
        generator = torch.Generator().manual_seed(derive_seed(drawn, "noise"))
        return self._with_noise(values, generator)

    def _returns(self, X: Tensor, worlds: Callable[[int], Sequence[int]]) -> Tensor:
        rows = X.detach().reshape(-1, self.dim).cpu().double().numpy()
        with limited_threads(1):
            means = [
                float(np.mean([self.episode(weights, seed) for seed in worlds(i)]))
                for i, weights in enumerate(rows)
            ]
        return torch.tensor(means, dtype=torch.float64).to(X).reshape(*X.shape[:-1], 1)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_environment": None}


def _missing(environment: str, error: BaseException) -> RunError:
    return RunError(
        f"the environment {environment} cannot be made: {error}; it needs "
        "pip install 'bo-surrogates[control]'"
    )
