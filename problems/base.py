"""What is optimized: a BoTorch test problem that also answers to named parameters.

Every problem has two faces of one function:

* `problem(X)`, BoTorch's: a tensor `batch_shape x d` of problem coordinates (see
  `bo_surrogates.space`) to `batch_shape` values, or `batch_shape x m` with m objectives;
* `problem.evaluate(parameters, seed)`, the user's: names to named metrics, in the user's units
  and signs whatever `negate` says. It is what a campaign calls, and it pickles to other processes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from botorch.test_functions.base import BaseTestProblem, validate_inputs
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.errors import InputError
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.objective import Objective, OutcomeConstraint, metric_names
from bo_surrogates.space import Space

CostClass = Literal["< 1 s", "seconds", "minutes", "hours"]


@dataclass(frozen=True)
class Optimum:
    """The best value of a single-objective problem.

    Attributes:
        value: In the objective's units and sign.
        points: Where it is attained, each a tuple of d problem coordinates; empty if unknown.
        source: Who says so.
        proven: False for the best value known so far.
    """

    value: float
    points: tuple[tuple[float, ...], ...] = ()
    source: str = ""
    proven: bool = True


class Problem(BaseTestProblem):
    """Base of all problems. A subclass implements `_true_metrics`.

    Its constructor takes `(config=None, *, noise_std=None, negate=False)`, or fewer of the
    keywords where they make no sense, and passes the rest of what is listed here.

    Args:
        space: What may be varied.
        objectives: At least one.
        constraints: Bounds on metrics, which may be further metrics than the objectives.
        config: The problem's options; None for their defaults.
        optimum: The best known value (one objective).
        max_hypervolume: The largest (or best known) dominated hypervolume with respect to the
            objectives' `reference` values (several objectives).
        fidelity: What an evaluation costs, where a parameter of the space is a fidelity. What is
            known of the problem (optimum, hypervolume) is at the target.
        noise_std: Standard deviation of Gaussian observation noise: one number for all metrics
            or one a metric, in the metrics' units; None for no noise.
        negate: Whether `problem(X)` has the opposite sign; `evaluate` never has.

    Raises:
        InputError: `noise_std` is negative or has the wrong length, or one of several objectives
            has no reference value.
    """

    config_class: ClassVar[type[Config]] = Config
    bounds: Tensor  # 2 x d
    ref_point: Tensor  # m, with several objectives only

    def __init__(
        self,
        space: Space,
        objectives: Sequence[Objective],
        *,
        constraints: Sequence[OutcomeConstraint] = (),
        config: Config | None = None,
        optimum: Optimum | None = None,
        max_hypervolume: float | None = None,
        fidelity: FidelityConfig | None = None,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        self.space = space
        self.objectives = tuple(objectives)
        self.constraints = tuple(constraints)
        self.metrics = metric_names(self.objectives, self.constraints)
        self.config = self.config_class() if config is None else config
        self.optimum = optimum
        self._max_hv = max_hypervolume
        self.fidelity = fidelity
        if fidelity is None and space.fidelity is not None:
            self.fidelity = FidelityConfig()
        if self.fidelity is not None:
            self.fidelity = self.fidelity.checked(space)
        self.dim = space.dim
        self.num_objectives = len(self.objectives)
        self.num_constraints = len(self.constraints)
        self._bounds = [p.bounds for p in space.varied]
        self.continuous_inds = space.continuous_inds
        self.discrete_inds = space.discrete_inds
        self.categorical_inds = space.categorical_inds
        self._is_minimization_by_default = self.objectives[0].direction == "minimize"
        super().__init__(noise_std=_checked_noise(noise_std, self.metrics), negate=negate)
        if self.num_objectives > 1:
            unset = [o.name for o in self.objectives if o.reference is None]
            if unset:
                raise InputError(
                    f"objective {unset[0]!r} needs a reference value: with several objectives "
                    "they span the hypervolume"
                )
            references = [float(o.reference or 0.0) for o in self.objectives]
            self.register_buffer(
                "ref_point",
                (-1.0 if negate else 1.0) * torch.tensor(references, dtype=torch.float64),
            )

    # ---- what a subclass says -------------------------------------------------------------------
    @abstractmethod
    def _true_metrics(self, X: Tensor) -> Tensor:
        """Noise-free metrics, `batch_shape x d` to `batch_shape x k`, k = len(self.metrics)."""

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        """Metrics as they are measured, shapes as in `_true_metrics`.

        Gaussian noise by default; a problem whose noise has another cause overrides this.
        """
        generator = None if seed is None else torch.Generator(X.device).manual_seed(seed)
        return self._with_noise(self._true_metrics(X), generator)

    def _with_noise(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """Metrics `batch_shape x k` with the Gaussian noise of `noise_std`, if any."""
        if self.noise_std is None:
            return values
        device = values.device if generator is None else generator.device
        noise = torch.randn(values.shape, generator=generator, dtype=values.dtype, device=device)
        return values + torch.as_tensor(self.noise_std).to(values) * noise.to(values)

    # ---- the tensor face ------------------------------------------------------------------------
    def forward(self, X: Tensor, noise: bool = True, seed: int | None = None) -> Tensor:
        """The objectives at problem coordinates.

        Args:
            X: `batch_shape x d` points within the bounds, whole numbers where the parameter is an
                int, an ordered or a choice.
            noise: Whether to observe with noise.
            seed: Makes the noise reproducible; None draws from torch's global generator, as all
                BoTorch problems do.

        Returns:
            `batch_shape` values, or `batch_shape x m` with m > 1 objectives; negated if the
            problem is.

        Raises:
            InputError: X has the wrong shape, leaves the bounds or is not whole where it must be.
        """
        self._check(X)
        values = self._observed_metrics(X, seed) if noise else self._true_metrics(X)
        values = self._select_objectives(values)
        return -values if self.negate else values

    def observe(self, X: Tensor, seed: int | None = None) -> Tensor:
        """All metrics as they are measured, in the user's units and signs (never negated).

        Args:
            X: `batch_shape x d` problem coordinates.
            seed: Makes the noise reproducible.

        Returns:
            `batch_shape x k`, a column for each of `metrics`.
        """
        self._check(X)
        return self._observed_metrics(X, seed)

    def evaluate_true(self, X: Tensor) -> Tensor:
        """The objectives without noise and never negated; shapes as in `forward`."""
        self._check(X)
        return self._evaluate_true(X)

    def _evaluate_true(self, X: Tensor) -> Tensor:
        return self._select_objectives(self._true_metrics(X))

    def _select_objectives(self, values: Tensor) -> Tensor:
        # metric_names puts the objectives first.
        return values[..., 0] if self.num_objectives == 1 else values[..., : self.num_objectives]

    def evaluate_slack(self, X: Tensor, noise: bool = True, seed: int | None = None) -> Tensor:
        """Slack of the outcome constraints, `batch_shape x num_constraints`.

        As in BoTorch, a constraint holds where its slack is not negative. With the same seed it
        belongs to the same observation as `forward`'s value.
        """
        self._check(X)
        values = self._observed_metrics(X, seed) if noise else self._true_metrics(X)
        columns = []
        for constraint in self.constraints:
            value = values[..., self.metrics.index(constraint.metric)]
            slack = constraint.bound - value
            columns.append(slack if constraint.op == "<=" else -slack)
        return torch.stack(columns, dim=-1) if columns else values[..., :0]

    def is_feasible(self, X: Tensor, noise: bool = True, seed: int | None = None) -> Tensor:
        """Whether all outcome constraints hold, `batch_shape` booleans."""
        return (self.evaluate_slack(X, noise=noise, seed=seed) >= 0).all(dim=-1)

    def _check(self, X: Tensor) -> None:
        try:
            validate_inputs(X, self.dim, self.bounds, self.discrete_inds, self.categorical_inds)
        except ValueError as error:
            raise InputError(f"{type(self).__name__}: {error}") from error

    # ---- the named face -------------------------------------------------------------------------
    def evaluate(
        self, parameters: Mapping[str, object], seed: int | None = None
    ) -> dict[str, float]:
        """Measure one point.

        Args:
            parameters: A value for every parameter of `space`, by name.
            seed: Makes the measurement reproducible; None draws from torch's global generator.

        Returns:
            Every metric by name, in the user's units and signs (never negated).

        Raises:
            InputError: A parameter is missing, unknown or out of range.
        """
        X = self.space.encode(self.space.validate(parameters)).to(self.bounds)
        values = self._observed_metrics(X.unsqueeze(0), seed)[0]
        return dict(zip(self.metrics, values.tolist(), strict=True))

    # ---- what is known about it -----------------------------------------------------------------
    @property
    def signs(self) -> Tensor:
        """`m` signs: `problem(X) * problem.signs` is to be maximized in every column."""
        sign = -1.0 if self.negate else 1.0
        return torch.tensor([sign * o.sign for o in self.objectives], dtype=torch.float64)

    @property
    def optimal_value(self) -> float | None:
        """Best known value of `problem(X)`, negated if the problem is; None if unknown."""
        if self.optimum is None:
            return None
        return -self.optimum.value if self.negate else self.optimum.value

    @property
    def optimizers(self) -> Tensor | None:
        """Best known points in problem coordinates, `number x d`; None if unknown."""
        if self.optimum is None or not self.optimum.points:
            return None
        return torch.tensor(self.optimum.points, dtype=self.bounds.dtype)

    @property
    def max_hv(self) -> float | None:
        """Largest known hypervolume dominated above `ref_point`; None if unknown."""
        return self._max_hv


def _checked_noise(
    noise_std: float | Sequence[float] | None, metrics: Sequence[str]
) -> float | list[float] | None:
    if noise_std is None:
        return None
    several = isinstance(noise_std, Sequence)
    numbers: list[Any] = list(noise_std) if isinstance(noise_std, Sequence) else [noise_std]
    for number in numbers:
        good = isinstance(number, int | float) and not isinstance(number, bool)
        if not (good and math.isfinite(number) and number >= 0):
            raise InputError(f"noise_std must be a number >= 0, got {number!r}")
    if several and len(numbers) != len(metrics):
        raise InputError(
            f"noise_std must be one number or {len(metrics)} (for {', '.join(metrics)}), "
            f"got {len(numbers)}"
        )
    return [float(n) for n in numbers] if several else float(numbers[0])
