"""What a campaign is: the space, what is wanted, the surrogate, the budget, the black box."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.early_stopping import EarlyStopping
from bo_surrogates.campaign.execution.resources import EXECUTORS, Resources
from bo_surrogates.device import check_device
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.fidelity import FidelityConfig, check_fidelity
from bo_surrogates.objective import NOISES, Noise, Objective, OutcomeConstraint, metric_names
from bo_surrogates.space import Space, Value, Values

BLACK_BOX_KINDS = ("problem", "python", "command")
ON_INTERRUPT = ("rerun", "abandon")
RETRY_ON = ("died", "failed")
MAX_NAME = 200  # characters; what a database's column holds


@dataclass(frozen=True)
class BlackBoxSource:
    """Where a campaign's black box comes from.

    Attributes:
        kind: "problem" (registered), "python" ("module:function") or "command".
        target: The problem's name, the function, or the command line.
        options: Of the problem; plain data.
    """

    kind: Literal["problem", "python", "command"]
    target: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in BLACK_BOX_KINDS:
            hint = did_you_mean(self.kind, BLACK_BOX_KINDS)
            raise InputError(f"unknown kind of black box {self.kind!r}{hint}")
        if not isinstance(self.target, str) or not self.target.strip():
            raise InputError(f"{self.kind} must be a non-empty string, got {self.target!r}")
        object.__setattr__(self, "options", _plain("problem_options", self.options))


@dataclass(frozen=True)
class PriorData:
    """Measurements that a campaign begins with; see `Campaign.add_data`.

    Attributes:
        file: A table: .csv, .json or .parquet.
        outside: Whether points outside the space are refused ("refuse"), or kept for the surrogate
            to learn from ("keep").
        decimal: What separates the fraction of numbers in the file: "point" or "comma"; None: as
            found in it.
    """

    file: str
    outside: Literal["refuse", "keep"] = "refuse"
    decimal: Literal["point", "comma"] | None = None

    def __post_init__(self) -> None:
        _check_text("prior_data: file", self.file)
        for name, value, known in (
            ("outside", self.outside, ("refuse", "keep")),
            ("decimal", self.decimal, ("point", "comma", None)),
        ):
            if value not in known:
                options = [k for k in known if k]
                raise InputError(
                    f"prior_data: {name} must be {' or '.join(map(repr, options))}, got {value!r}"
                    f"{did_you_mean(value, options)}"
                )


@dataclass(frozen=True)
class CampaignSpec:
    """A campaign, complete: with the results so far it determines the next trial.

    Attributes:
        name: For people, and to find the campaign in its database.
        space: What is varied.
        objectives: What is wanted; several give a Pareto front.
        constraints: Bounds on further metrics, and on metrics in weighted sums.
        baseline: What relative constraints refer to: parameters, which are then asked first, or
            the index of a trial.
        noise: What is known of each metric's noise: "none" (values are exact), "known" (each comes
            with its standard error) or "inferred"; of a metric that is left out, its noise is
            known if every value comes with a standard error, else inferred.
        surrogate: Name of a registered surrogate.
        surrogate_config: Its configuration as plain data; what is missing takes the defaults.
        acquisition: The acquisition function and its optimizer's budget.
        fidelity: What evaluations cost where the space has a fidelity, and how fidelities are
            chosen; None: a cost equal to the fidelity.
        budget_cost: Cost of all trials, > 0, at which a run ends even if the budget of trials is
            not spent (the last batch may go beyond it); None: no limit. Needs a fidelity.
        budget: Trials in all, the initial design's included; >= 1.
        initial: Trials of the initial design, in {1, ..., budget}; None: see
            `initial_design_size`.
        batch_size: Trials asked together, >= 1.
        workers: Trials evaluated at a time, >= 1. Results do not depend on it.
        threads: Threads that numerical libraries (torch, BLAS) may use in one evaluation, >= 1. Of
            no effect on commands.
        device: Where surrogates are fitted to propose points: "cpu", or "cuda" for a GPU, which is
            worth it from about a thousand trials on. Results depend on it as on rounding.
        seed: Of everything drawn at random, in [0, 2**63).
        first_points: Points of the user's own, evaluated first and in order; they count towards the
            initial design. Each is a point of the space, none is given twice.
        black_box: What is evaluated; None where results are told by hand.
        timeout: Seconds after which a trial is given up; None: never.
        executor: Where trials are evaluated: "in-process", "processes" or "dask"; None: in this
            process where one worker and no time-out are asked for, else in processes.
        scheduler: Address of Dask's scheduler, or the path of its scheduler file (.json).
        asynchronous: Ask for the next point as soon as a worker is free, with the running ones
            pending, instead of in batches. Then the course depends on the order of completion.
        resources: Hints for executors that place trials.
        retries: How often a trial is evaluated anew where its process died, >= 0; where the
            worker it ran on was lost, at least once.
        retry_on: "died": only then; "failed": also where the black box raised or gave no usable
            result. All attempts at a trial have the same seed.
        replicates: Evaluations of each point, >= 1, with different seeds; their mean and its
            standard error are the trial's result.
        early_stopping: When a trial is ended before its end; None: never.
        max_consecutive_failures: Failed trials in a row after which a run stops, >= 1.
        on_interrupt: Whether a resumed campaign runs the trials that were running again
            ("rerun"), or abandons them ("abandon").
        prior_data: Measurements that the campaign begins with. They cost no budget; completed ones
            count as trials of the initial design.

    Raises:
        InputError: A field is out of its range, or two contradict each other.
    """

    name: str
    space: Space
    objectives: tuple[Objective, ...]
    constraints: tuple[OutcomeConstraint, ...] = ()
    baseline: Mapping[str, Value] | int | None = None
    noise: Mapping[str, Noise] = field(default_factory=dict)
    surrogate: str = "gp"
    surrogate_config: Mapping[str, Any] = field(default_factory=dict)
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    fidelity: FidelityConfig | None = None
    budget: int = 30
    budget_cost: float | None = None
    initial: int | None = None
    batch_size: int = 1
    workers: int = 1
    threads: int = 1
    device: str = "cpu"
    seed: int = 0
    first_points: tuple[Values, ...] = ()
    black_box: BlackBoxSource | None = None
    timeout: float | None = None
    executor: str | None = None
    scheduler: str | None = None
    asynchronous: bool = False
    resources: Resources = field(default_factory=Resources)
    retries: int = 0
    retry_on: Literal["died", "failed"] = "died"
    replicates: int = 1
    early_stopping: EarlyStopping | None = None
    max_consecutive_failures: int = 5
    on_interrupt: Literal["rerun", "abandon"] = "rerun"
    prior_data: PriorData | None = None

    def __post_init__(self) -> None:
        _check_text("name", self.name)
        if len(self.name) > MAX_NAME:
            raise InputError(f"name must have at most {MAX_NAME} characters, got {len(self.name)}")
        if not isinstance(self.space, Space):
            raise InputError(f"space must be a Space, got {self.space!r}")
        for name, kind in (("objectives", Objective), ("constraints", OutcomeConstraint)):
            value = tuple(getattr(self, name))
            for one in value:
                if not isinstance(one, kind):
                    raise InputError(f"{name} must hold {kind.__name__} instances, got {one!r}")
            object.__setattr__(self, name, value)
        self._check_metrics()
        self._check_baseline()
        self._check_noise()
        _check_text("surrogate", self.surrogate)
        object.__setattr__(
            self, "surrogate_config", _plain("surrogate_config", self.surrogate_config)
        )
        if not isinstance(self.acquisition, AcquisitionConfig):
            raise InputError(f"acquisition must be an AcquisitionConfig, got {self.acquisition!r}")
        self.acquisition.resolve(len(self.objectives), len(self.constraints))
        self._check_fidelity()
        for name in ("budget", "batch_size", "workers", "threads", "replicates",
                     "max_consecutive_failures"):  # fmt: skip
            _check_integer(name, getattr(self, name), 1)
        self._check_execution()
        check_device(self.device)
        _check_integer("seed", self.seed, 0, 2**63 - 1)
        self._check_first_points()
        if self.initial is not None:
            _check_integer("initial", self.initial, 1)
            if self.initial > self.budget:
                raise InputError(
                    f"initial ({self.initial}) must not exceed budget ({self.budget}), which "
                    "counts the initial design's trials too"
                )
        if self.timeout is not None:
            if not _is_number(self.timeout) or not 0 < self.timeout < math.inf:
                raise InputError(
                    f"timeout must be a number of seconds above 0, got {self.timeout!r}; leave it "
                    "out for none"
                )
            object.__setattr__(self, "timeout", float(self.timeout))
        if self.on_interrupt not in ON_INTERRUPT:
            hint = did_you_mean(self.on_interrupt, ON_INTERRUPT)
            raise InputError(
                f"on_interrupt must be 'rerun' or 'abandon', got {self.on_interrupt!r}{hint}"
            )
        if self.black_box is not None and not isinstance(self.black_box, BlackBoxSource):
            raise InputError(f"black_box must be a BlackBoxSource, got {self.black_box!r}")
        if self.prior_data is not None and not isinstance(self.prior_data, PriorData):
            raise InputError(f"prior_data must be a PriorData, got {self.prior_data!r}")

    def _check_fidelity(self) -> None:
        if self.fidelity is not None and not isinstance(self.fidelity, FidelityConfig):
            raise InputError(f"fidelity must be a FidelityConfig, got {self.fidelity!r}")
        checked = check_fidelity(self.space, self.fidelity, self.acquisition)
        object.__setattr__(self, "fidelity", checked)
        if self.budget_cost is not None:
            if checked is None:
                raise InputError(
                    "budget_cost needs a fidelity, by which trials cost more or less; without one, "
                    "budget is the number of trials"
                )
            if not _is_number(self.budget_cost) or not 0 < self.budget_cost < math.inf:
                raise InputError(f"budget_cost must be a number above 0, got {self.budget_cost!r}")
            object.__setattr__(self, "budget_cost", float(self.budget_cost))
        if checked is not None and self.early_stopping is not None:
            raise InputError(
                "early_stopping and a fidelity exclude each other: both save by short evaluations, "
                "and a trial that was stopped has no value at its fidelity; remove one of them"
            )

    def _check_execution(self) -> None:
        if self.executor is not None and self.executor not in EXECUTORS:
            hint = did_you_mean(self.executor, EXECUTORS)
            names = ", ".join(map(repr, EXECUTORS))
            raise InputError(f"unknown executor {self.executor!r}{hint}: it is one of {names}")
        if self.scheduler is not None:
            _check_text("scheduler", self.scheduler)
            if self.executor != "dask":
                raise InputError("scheduler is of use with executor = 'dask' only")
        if not isinstance(self.asynchronous, bool):
            raise InputError(f"asynchronous must be true or false, got {self.asynchronous!r}")
        if not isinstance(self.resources, Resources):
            raise InputError(f"resources must be Resources, got {self.resources!r}")
        _check_integer("retries", self.retries, 0)
        if self.retry_on not in RETRY_ON:
            hint = did_you_mean(self.retry_on, RETRY_ON)
            raise InputError(f"retry_on must be 'died' or 'failed', got {self.retry_on!r}{hint}")
        if self.early_stopping is not None:
            self._check_early_stopping(self.early_stopping)

    def _check_early_stopping(self, rule: EarlyStopping) -> None:
        if not isinstance(rule, EarlyStopping):
            raise InputError(f"early_stopping must be an EarlyStopping, got {rule!r}")
        if len(self.objectives) > 1:
            raise InputError(
                "early_stopping judges one objective: a trial that is bad in one of "
                f"{len(self.objectives)} may be the best in another"
            )
        if self.replicates > 1:
            raise InputError("early_stopping and replicates > 1 exclude each other")
        if rule.direction is None and rule.metric not in (None, self.objectives[0].name):
            raise InputError(
                f"early_stopping: metric {rule.metric!r} is not the objective "
                f"{self.objectives[0].name!r}; say its direction"
            )

    def _check_metrics(self) -> None:
        if not self.objectives:
            raise InputError("a campaign needs at least one objective")
        names = [o.name for o in self.objectives]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"objective {name!r} is defined twice")
        for o in self.objectives:
            if o.weights and o.name in self.metrics:
                raise InputError(
                    f"objective {o.name!r} is a weighted sum, yet a metric has its name; give it "
                    "another"
                )
        for constraint in self.constraints:
            if constraint.metric in names:
                raise InputError(
                    f"constraint '{constraint}' is on an objective, which is optimized already; "
                    "constrain another metric, or set the objective's 'reference' to the worst "
                    "value of interest"
                )
        bounds = [(c.metric, c.op) for c in self.constraints]
        for bound in bounds:
            if bounds.count(bound) > 1:
                raise InputError(f"metric {bound[0]!r} has two constraints with {bound[1]}")

    def _check_first_points(self) -> None:
        points = self.first_points
        if isinstance(points, str | Mapping) or not isinstance(points, Sequence):
            raise InputError(f"first_points must be a list of points, got {points!r}")
        valid: list[Values] = []
        mistakes = []
        for number, point in enumerate(points, start=1):
            try:
                point = self.space.validate(point)
                if point in valid:
                    raise InputError(f"is the same as first point {valid.index(point) + 1}")
                valid.append(point)
            except InputError as error:
                mistakes.append(f"first point {number}: {error}")
        if mistakes:
            raise InputError("; ".join(mistakes))
        if len(valid) > self.budget:
            raise InputError(
                f"first_points holds {len(valid)} points, more than the budget of {self.budget} "
                "trials"
            )
        object.__setattr__(self, "first_points", tuple(valid))

    def _check_baseline(self) -> None:
        relative = [c for c in self.constraints if c.relative]
        if self.baseline is None:
            if relative:
                raise InputError(
                    f"constraint '{relative[0]}' needs a baseline: its parameters, or the index of "
                    "a trial"
                )
        elif isinstance(self.baseline, Mapping):
            try:
                object.__setattr__(self, "baseline", self.space.validate(self.baseline))
            except InputError as error:
                raise InputError(f"baseline: {error}") from None
            if not self.space.is_at_target(self.baseline):
                (target,) = self.space.target.items()
                raise InputError(
                    f"baseline must be at the target fidelity, {target[0]} = {target[1]!r}: trials "
                    "at the target are compared with it"
                )
        else:
            _check_integer("baseline", self.baseline, 0)

    def _check_noise(self) -> None:
        if not isinstance(self.noise, Mapping):
            raise InputError(
                f"noise must map metrics to one of {', '.join(map(repr, NOISES))}, "
                f"got {self.noise!r}"
            )
        for metric, noise in self.noise.items():
            if metric not in self.metrics:
                hint = did_you_mean(metric, self.metrics)
                raise InputError(f"noise: unknown metric {metric!r}{hint}")
            if noise not in NOISES:
                raise InputError(
                    f"noise of {metric!r} must be one of {', '.join(map(repr, NOISES))}, "
                    f"got {noise!r}{did_you_mean(noise, NOISES)}"
                )
        object.__setattr__(self, "noise", dict(self.noise))

    @property
    def metrics(self) -> tuple[str, ...]:
        """What each trial must measure."""
        return metric_names(self.objectives, self.constraints)

    @property
    def initial_design_size(self) -> int:
        """Trials of the initial design: `initial`, or 2(d + 1), at least 5, within budget.

        First points count; the Sobol design provides the rest.
        """
        if self.initial is not None:
            return self.initial
        return min(max(2 * (self.space.dim + 1), 5), self.budget)

    def resolved(self) -> Self:
        """A copy whose `surrogate_config` is complete, so that later defaults cannot change it.

        Raises:
            InputError: Unknown surrogate, a bad configuration of it, or categorical parameters that
                it does not take.
        """
        from bo_surrogates.surrogates import SURROGATES  # imports every surrogate's machinery

        entry = SURROGATES[self.surrogate]
        parameters = self.space.varied
        entry.check_categorical([repr(parameters[i].name) for i in self.space.categorical_inds])
        config = entry.configure(self.surrogate_config)
        return replace(self, surrogate_config=config.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """JSON-able data from which `from_dict` makes an equal specification."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "space": self.space.to_dict(),
            "objectives": [asdict(o) for o in self.objectives],
            "constraints": [asdict(c) for c in self.constraints],
            "baseline": (
                dict(self.baseline) if isinstance(self.baseline, Mapping) else self.baseline
            ),
            "noise": dict(self.noise),
            "surrogate_config": dict(self.surrogate_config),
            "acquisition": self.acquisition.to_dict(),
            "fidelity": self.fidelity and self.fidelity.to_dict(),
            "first_points": [dict(p) for p in self.first_points],
            "resources": self.resources.to_dict(),
            "early_stopping": self.early_stopping and self.early_stopping.to_dict(),
            "black_box": None if self.black_box is None else asdict(self.black_box),
            "prior_data": None if self.prior_data is None else asdict(self.prior_data),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`, also after a trip through JSON.

        Raises:
            InputError: A field is unknown, missing or invalid.
        """
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"a campaign has no field {key!r}{did_you_mean(key, known)}")
        try:
            return cls(
                **{
                    **data,
                    "space": Space.from_dict(data["space"]),
                    "objectives": tuple(Objective(**o) for o in data["objectives"]),
                    "constraints": tuple(
                        OutcomeConstraint(**c) for c in data.get("constraints", ())
                    ),
                    "acquisition": AcquisitionConfig.from_dict(data.get("acquisition", {})),
                    "fidelity": (
                        FidelityConfig.from_dict(data["fidelity"])
                        if data.get("fidelity") is not None
                        else None
                    ),
                    "resources": Resources.from_dict(data.get("resources", {})),
                    "early_stopping": (
                        EarlyStopping.from_dict(data["early_stopping"])
                        if data.get("early_stopping") is not None
                        else None
                    ),
                    "black_box": (
                        BlackBoxSource(**data["black_box"]) if data.get("black_box") else None
                    ),
                    "prior_data": (
                        PriorData(**data["prior_data"]) if data.get("prior_data") else None
                    ),
                }
            )
        except (KeyError, TypeError) as error:
            raise InputError(
                f"this is not a campaign's data: {type(error).__name__} {error}"
            ) from error


def _check_text(name: str, value: object) -> None:
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{name} must be a non-empty string, got {value!r}")
    if not value.isprintable():
        raise InputError(f"{name} must be printable text on one line, got {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_integer(name: str, value: object, low: int, high: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InputError(f"{name} must be an integer, got {value!r}")
    if value < low or (high is not None and value > high):
        span = f">= {low}" if high is None else f"in [{low}, {high}]"
        raise InputError(f"{name} must be {span}, got {value!r}")


def _plain(name: str, data: object) -> dict[str, Any]:
    """A copy made of JSON's types, so that what is stored is what was meant."""
    if not isinstance(data, Mapping):
        raise InputError(f"{name} must be a table, got {data!r}")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(data), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{name} may hold finite numbers, strings, booleans, lists and tables only: {error}"
        ) from None
    return copy
