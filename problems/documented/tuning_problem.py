"""The tuning of a documented model: a problem whose evaluation trains a network.

A subclass says what the network is, how it is trained, and what its authors recommend:

    class MyTuning(TuningProblem):
        default_objectives = ("error", "log_ace")

        def network(self, values): ...            # the untrained network at a point
        def recipe(self, values): ...           # a TrainingConfig; or override `trainer`
        published_default = {...}                 # a point of the space

and gets objectives and constraints on cost, averages over seeds, reports by epoch, checkpoints and
retraining.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from bo_surrogates.config import Config, choice, integer, real, text, words
from bo_surrogates.device import usable_device
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Int, Space, Values, Varied
from bo_surrogates.threads import limited_threads
from problems.base import Problem
from problems.documented.cost import NetworkCost, count_cost
from problems.documented.data import DATA_SETS, LabelledData, load_data
from problems.documented.model_files import load_state, save_state
from problems.documented.training import (
    Epoch,
    Hooks,
    Trainer,
    Training,
    TrainingConfig,
    error_rate,
    run,
)

Report = Callable[..., bool]  # report(epoch, metric=value, ...): whether to go on

# By metric, what is counted: the metric is its decimal logarithm.
COSTS: Mapping[str, Callable[[NetworkCost], float]] = {
    "log_ace": lambda cost: cost.ace,
    "log_macs": lambda cost: cost.total_macs,
    "log_bit_operations": lambda cost: cost.bit_operations,
    "log_ops": lambda cost: cost.ops,
    "log_bits": lambda cost: cost.bits,
    "log_parameters": lambda cost: cost.parameters,
}
WORST_ERROR = 0.5  # the reference point's
BUDGETS = {f"{name[4:]}_budget": name for name in COSTS}  # by option, the metric that is bounded


@dataclass(frozen=True)
class TuningConfig(Config):
    """Options that all tuning problems share.

    Attributes:
        data: A data set; see `problems.documented.data.DATA_SETS`.
        folder: Where it is read from, of "cifar10", "cifar100" and "folder".
        limit: Training inputs at most; None: all.
        train_fraction: Share of the data to train on. One half of the rest is what the error is
            measured on ("validation"), the other is kept for the final test.
        data_seed: Of the split.
        epochs: Passes over the training set in one evaluation.
        batch_size: Inputs a training step.
        weight_decay: L2 penalty.
        training_seed: Of the initial weights and all else that is random where an evaluation is
            asked for "without noise".
        replicates: Trainings with different seeds in one evaluation, whose mean it gives.
        objectives: What is minimized; None: what the problem does by default, less what has a
            budget.
        ace_budget: Where given, what the network's ACE must not exceed; likewise:
        macs_budget: MACs,
        bit_operations_budget: bit operations,
        ops_budget: OPs,
        bits_budget: bits of the stored parameters,
        parameters_budget: and their number.
        latency_limit: Reference value of the metric "latency", in milliseconds.
        fidelity: "epochs": the number of epochs is a parameter too, a fidelity, so that a campaign
            learns from short trainings; what counts are trainings of `epochs`. The name of another
            parameter ("width"): that one is the fidelity, and its upper bound what counts. Empty:
            none is.
        checkpoints: A folder in which trainings are kept after every epoch, so that one that was
            killed goes on where it was; empty: none are.
    """

    data: str = choice("digits", tuple(DATA_SETS))
    folder: str = text("")
    limit: int | None = integer(None, 2, 10**9, optional=True)
    train_fraction: float = real(0.6, 0.05, 0.95)
    data_seed: int = integer(0, 0, 2**31 - 1)
    epochs: int = integer(10, 1, 10_000)
    batch_size: int = integer(64, 2, 65_536)
    weight_decay: float = real(5e-5, 0.0, 1.0)
    training_seed: int = integer(0, 0, 2**31 - 1)
    replicates: int = integer(1, 1, 100)
    objectives: tuple[str, ...] | None = words(None)
    ace_budget: float | None = real(None, 1.0, math.inf, optional=True)
    macs_budget: float | None = real(None, 1.0, math.inf, optional=True)
    bit_operations_budget: float | None = real(None, 1.0, math.inf, optional=True)
    ops_budget: float | None = real(None, 1.0, math.inf, optional=True)
    bits_budget: float | None = real(None, 1.0, math.inf, optional=True)
    parameters_budget: float | None = real(None, 1.0, math.inf, optional=True)
    latency_limit: float = real(10.0, 1e-6, 1e6)
    fidelity: str = text("")
    checkpoints: str = text("")


class TuningProblem(Problem):
    """Base of the problems that train a network at every point.

    An observation at seed s trains from initial weights and in an order of inputs that follow from
    s, on one thread, so that it is the same in any process. The noise of the problem is what
    changes with s. `evaluate_true` and `problem(X, noise=False)` train at the configured
    `training_seed`: the function they return has no noise, yet is one draw of it.

    Metrics are "error" (the share of wrong validation inputs), the logarithms of `COSTS`,
    "latency" (milliseconds of one forward pass of one input, the median of many, on one thread:
    the one metric that is not a function of the seed) and what the subclass has of its own.

    Args:
        space: What is tuned; the option `fidelity` adds the parameter "epochs".
        config: The options.
        negate: See `Problem`.
        device: Where to train, e.g. "cpu" or "cuda".

    Attributes:
        published_default: What the method's authors recommend, as a point.

    Raises:
        InputError: There is no such device, an objective is unknown or has a budget, or the data
            cannot be had or is not of a kind that the networks take.
    """

    config_class: ClassVar[type[TuningConfig]] = TuningConfig
    config: TuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error",)
    own_metrics: ClassVar[Mapping[str, Objective]] = {}  # further ones; see `references`
    cost_is_known: ClassVar[bool] = True  # before training; False where it finds the architecture
    takes_images: ClassVar[bool | None] = True  # False: tables of features; None: both
    published_default: Values = {}  # noqa: RUF012 - set by subclasses, never changed
    reduced: ClassVar[Mapping[str, Any]] = {  # options with which an evaluation takes a second
        "epochs": 2, "train_fraction": 0.1, "batch_size": 32,
    }  # fmt: skip

    def __init__(
        self,
        space: Space,
        config: TuningConfig,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        if config.fidelity:
            space = self._with_fidelity(space, config)
        # References of cost are those of a network on this data, before the base knows of either.
        self.config, self.space = config, space
        self._check_data()
        limits = self.limits()
        super().__init__(
            space,
            self._objectives(self._objective_names(limits)),
            constraints=[OutcomeConstraint(metric, "<=", most) for metric, most in limits.items()],
            config=config,
            negate=negate,
        )
        self.device = usable_device(device)

    # ---- what a subclass says --------------------------------------------------------------------
    def network(self, values: Values) -> nn.Module:
        """The untrained network at a point, on the CPU; weights from torch's global generator.

        Raises:
            InputError: There is no such network, or it does not take the data; names the parameter.
        """
        raise NotImplementedError(f"{type(self).__name__} overrides network or trainer")

    def recipe(self, values: Values) -> TrainingConfig:
        """How a network is trained at a point; by default as configured, at the parameter
        "learning_rate" if there is one."""
        rate = values.get("learning_rate", TrainingConfig.learning_rate)
        return TrainingConfig(
            epochs=self.epochs(values),
            batch_size=self.config.batch_size,
            learning_rate=float(rate),
            weight_decay=float(values.get("weight_decay", self.config.weight_decay)),
        )

    def hooks(self, values: Values, network: nn.Module, seed: int) -> Hooks | None:
        """What the method adds to the training; by default nothing."""
        return None

    def trainer(self, values: Values, seed: int) -> Trainer:
        """The training of one network at a point, not begun.

        By default a `Training` of `network` by `recipe` and `hooks`. Called within a fence of
        one thread; all that is drawn at random must follow from the seed.
        """
        network = self.seeded(lambda: self.network(values), seed)
        x, y = self.data().part("train")
        hooks = self.hooks(values, network, seed)
        return Training(network, x, y, self.recipe(values), seed, hooks)

    def check(self, values: Values) -> None:
        """Refuse a point for which there is no network, before anything is trained.

        By default its cost is counted, which makes it and passes an input's shape through it.

        Raises:
            InputError: Names the parameter.
        """
        self.cost(values)

    def cost(self, values: Values) -> NetworkCost:
        """The exact cost at a point, without training."""
        with fixed_seed(0):  # the weights do not matter
            network = self.network(values)
        return self.network_cost(network, values)

    def network_cost(self, network: nn.Module, values: Values) -> NetworkCost:
        """The exact cost of a network at a point, trained or not."""
        return count_cost(network, self.shape)

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """What a trained network scores on a part of the data; by default "error".

        Args:
            network: In evaluation mode.
            values: The point.
            part: "train", "validation" or "test".
        """
        return {"error": error_rate(network, *self.data().part(part))}

    def references(self) -> Mapping[str, float]:
        """The reference values of the metrics of `COSTS`: by default those of the network with all
        parameters at their upper bounds, rounded up to a tenth so that it still counts. A subclass
        adds those of its own metrics that have no reference."""
        cost = self.cost(self.space.decode(self.space.bounds[1]))
        return {
            name: math.floor(10 * math.log10(max(count(cost), 1)) + 1) / 10
            for name, count in COSTS.items()
        }

    def limits(self) -> dict[str, float]:
        """What metrics must not exceed: by default the budgets, by metric."""
        return {
            metric: math.log10(getattr(self.config, option))
            for option, metric in BUDGETS.items()
            if getattr(self.config, option) is not None
        }

    def details(self, network: nn.Module) -> dict[str, Any]:
        """Plain data that `rebuild` needs beside the point, e.g. an architecture that was found."""
        return {}

    def rebuild(self, values: Values, details: Mapping[str, Any]) -> nn.Module:
        """The network, untrained, into which the weights of a trained one at this point fit."""
        return self.network(values)

    # ---- what a subclass uses --------------------------------------------------------------------
    def data(self) -> LabelledData:
        """What there is to train, tune and test on, on the device."""
        return _load(self.config, str(self.device))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one input."""
        return _load(self.config, "cpu").shape

    @property
    def classes(self) -> int:
        """Number of classes."""
        return _load(self.config, "cpu").classes

    def epochs(self, values: Values) -> int:
        """Of one training at a point."""
        return int(values.get("epochs", self.config.epochs))

    def seeded(self, make: Callable[[], nn.Module], seed: int) -> nn.Module:
        """A network on the device, its initial weights following from the seed."""
        with fixed_seed(derive_seed(seed, "initial weights")):
            return make().to(self.device)

    def latency(self, network: nn.Module) -> float:
        """Milliseconds of one forward pass of one input: the median of 30 after 5, one thread."""
        x = self.data().validation_x[:1]
        seconds = []
        with torch.no_grad(), limited_threads(1):
            for number in range(35):
                begin = time.perf_counter()
                network(x)
                if self.device.type == "cuda":
                    torch.cuda.synchronize(self.device)
                if number >= 5:
                    seconds.append(time.perf_counter() - begin)
        return 1e3 * statistics.median(seconds)

    # ---- one point -------------------------------------------------------------------------------
    def measure(
        self, values: Values, seed: int, on_epoch: Callable[[Epoch], None] | None = None
    ) -> dict[str, float]:
        """Train and measure once.

        Args:
            values: A valid point of `space`.
            seed: Of everything random.
            on_epoch: Called after every epoch of training.

        Returns:
            Every metric by name.

        Raises:
            InputError: There is no network at this point; names the parameter.
            RunError: The training failed.
        """
        return self._metrics(self.train_best(values, seed, on_epoch), values)

    def train_best(
        self, values: Values, seed: int, on_epoch: Callable[[Epoch], None] | None = None
    ) -> nn.Module:
        """The trained network at a point, in evaluation mode; arguments and errors as `measure`."""
        self.check(values)
        with limited_threads(1):
            trainer = self.trainer(values, seed)
            run(trainer, on_epoch)
        return trainer.network.eval()

    def measurements(
        self,
        parameters: Mapping[str, object],
        seed: int | None = None,
        report: Report | None = None,
    ) -> dict[str, tuple[float, float | None]]:
        """Mean and standard error of every metric at a point, over the configured replicates.

        Args:
            parameters: A value for every parameter of `space`, by name.
            seed: Makes the measurement reproducible; None draws from torch's global generator.
            report: Told the metrics so far after every epoch; False: the evaluation ends there.

        Raises:
            InputError: A parameter is missing, unknown or out of range, or there is no network.
            RunError: A training failed.
        """
        values = self.space.validate(parameters)
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        return self._replicated(values, self.training_seeds(drawn), report)

    def training_seeds(self, seed: int, row: int = 0) -> list[int]:
        """The seed of each training of an observation, so that its networks can be trained again.

        Args:
            seed: The observation's.
            row: Of the point among those observed with one seed.
        """
        return self._replicates(derive_seed(seed, "point", row))

    def _replicates(self, seed: int) -> list[int]:
        count = self.config.replicates
        return [seed] if count == 1 else [derive_seed(seed, "replicate", i) for i in range(count)]

    def evaluate(
        self, parameters: Mapping[str, object], seed: int | None = None
    ) -> dict[str, float]:
        """See `Problem.evaluate`."""
        return {name: mean for name, (mean, _) in self.measurements(parameters, seed).items()}

    def _replicated(
        self, values: Values, seeds: Sequence[int], report: Report | None = None
    ) -> dict[str, tuple[float, float | None]]:
        self.check(values)
        with limited_threads(1):
            trainers = [self.trainer(values, s) for s in seeds]
            paths = [self._checkpoint(values, s) for s in seeds]
            for trainer, path in zip(trainers, paths, strict=True):
                if path is not None and path.exists():
                    trainer.restore(load_state(path))
            going = [t for t in trainers if t.epoch < t.epochs]
            while going:
                for trainer in going:
                    trainer.run_epoch()
                for trainer, path in zip(trainers, paths, strict=True):
                    if path is not None and trainer in going:
                        save_state(path, trainer.state())
                going = [t for t in trainers if t.epoch < t.epochs]
                if report is not None and going:
                    so_far = self._summary([t.network for t in trainers], values)
                    step = max(t.epoch for t in trainers)
                    if not report(step, **{name: mean for name, (mean, _) in so_far.items()}):
                        return so_far
            result = self._summary([t.network for t in trainers], values)
        for path in paths:
            if path is not None:
                path.unlink(missing_ok=True)
        return result

    def _checkpoint(self, values: Values, seed: int) -> Path | None:
        if not self.config.checkpoints:
            return None
        told = json.dumps(
            [type(self).__name__, self.config.to_dict(), values, seed], sort_keys=True
        )
        word = hashlib.sha256(told.encode()).hexdigest()[:32]
        return Path(self.config.checkpoints).expanduser() / f"{word}.safetensors"

    def _summary(
        self, networks: Sequence[nn.Module], values: Values
    ) -> dict[str, tuple[float, float | None]]:
        rows = [self._metrics(network, values) for network in networks]
        found: dict[str, tuple[float, float | None]] = {}
        for name in self.metrics:
            column = [row[name] for row in rows]
            sem = None
            if len(column) > 1:
                sem = statistics.stdev(column) / math.sqrt(len(column))
            found[name] = statistics.fmean(column), sem
        return found

    def _metrics(self, network: nn.Module, values: Values) -> dict[str, float]:
        found = self.scores(network, values, "validation")
        if any(name in COSTS for name in self.metrics):
            cost = self.network_cost(network, values)
            # A network without binary layers, say, has the logarithm of 1 there, not of 0.
            found |= {name: math.log10(max(count(cost), 1)) for name, count in COSTS.items()}
        if "latency" in self.metrics:
            found["latency"] = self.latency(network)
        return {name: found[name] for name in self.metrics}

    # ---- the tensor face -------------------------------------------------------------------------
    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._measure_rows(X, lambda row: self._replicates(self.config.training_seed))

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        return self._measure_rows(X, lambda row: self.training_seeds(drawn, row))

    def _measure_rows(self, X: Tensor, seeds_of: Callable[[int], Sequence[int]]) -> Tensor:
        rows = []
        for row, x in enumerate(X.reshape(-1, self.dim)):
            metrics = self._replicated(self.space.decode(x), seeds_of(row))
            rows.append([metrics[name][0] for name in self.metrics])
        found = torch.tensor(rows, dtype=torch.float64).to(X)
        return found.reshape(*X.shape[:-1], len(self.metrics))

    # ---- options ---------------------------------------------------------------------------------
    def _with_fidelity(self, space: Space, config: TuningConfig) -> Space:
        if config.fidelity == "epochs" and "epochs" not in space.names:
            if config.epochs == 1:
                raise InputError("fidelity = 'epochs' needs more than one epoch")
            self.published_default = {**self.published_default, "epochs": config.epochs}
            least = max(config.epochs // 8, 1)
            epochs = Int("epochs", least, config.epochs, log=True, fidelity=True)
            return Space([*space.parameters, epochs], space.constraints)
        if config.fidelity not in space.names:
            known = ("epochs", *space.names)
            hint = did_you_mean(config.fidelity, known)
            raise InputError(f"fidelity: unknown parameter {config.fidelity!r}{hint}")
        parameters = [
            replace(p, fidelity=True) if isinstance(p, Varied) and p.name == config.fidelity else p
            for p in space.parameters
        ]
        return Space(parameters, space.constraints)

    def _objective_names(self, limits: Mapping[str, float]) -> tuple[str, ...]:
        if self.config.objectives is None:
            return tuple(n for n in self.default_objectives if n not in limits)
        known = ("error", *COSTS, "latency", *self.own_metrics)
        for name in self.config.objectives:
            if name not in known:
                raise InputError(f"unknown objective {name!r}{did_you_mean(name, known)}")
            if name in limits:
                raise InputError(
                    f"objective {name!r} has a budget already; leave out one of the two"
                )
        return self.config.objectives

    def _objectives(self, names: Sequence[str]) -> list[Objective]:
        own = self.own_metrics
        found = [
            own.get(name) or Objective(name, unit="ms" * (name == "latency")) for name in names
        ]
        references = {"error": WORST_ERROR, "latency": self.config.latency_limit}
        if any(o.reference is None and o.name not in references for o in found):
            references |= self.references()
        return [
            replace(o, reference=references[o.name]) if o.reference is None else o for o in found
        ]

    def _check_data(self) -> None:
        images = DATA_SETS[self.config.data].images
        if self.takes_images is not None and images != self.takes_images:
            wanted = [n for n, d in DATA_SETS.items() if d.images == self.takes_images]
            kind = "images" if self.takes_images else "tables"
            raise InputError(
                f"data = {self.config.data!r}: these networks take {kind}: {', '.join(wanted)}"
            )
        _load(self.config, "cpu")


def _load(config: TuningConfig, device: str) -> LabelledData:
    return _load_to(
        device, config.data, config.folder, config.train_fraction, config.data_seed, config.limit
    )


@lru_cache(maxsize=8)
def _load_to(
    device: str, name: str, folder: str, train_fraction: float, seed: int, limit: int | None
) -> LabelledData:
    """Problems are sent to other processes; the data is not: each process loads it once."""
    data = load_data(name, folder, train_fraction=train_fraction, seed=seed, limit=limit)
    return data.to(device)
