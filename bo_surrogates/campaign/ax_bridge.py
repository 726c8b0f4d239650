"""Everything Ax needs to know, and the only module that imports it.

The journal is the truth; an `AxBridge` is an Ax experiment in memory that follows it: `sync`
brings it up to date, `ask` proposes. Parameters and metrics go by safe names inside (x0, y0, ...),
so that a user may call a parameter "temperature (C)" or a metric "E", which Ax's expression
parser would refuse or take for Euler's number. Ax knows the varied parameters only, as one flat
box: fixed and inactive parameters, constraints and what has been tried are the space's business,
and the acquisition function is maximized by `acquisition.optimize.maximize`, as in `loop.py`.

Private touch points of Ax 1.3, each held by a test (tests/bo_surrogates/campaign/test_ax_bridge):
`Client.set_generation_strategy`, `._generation_strategy` and `._experiment`, `fit_botorch_model`,
`GeneratorRegistryBase`, `GenerationNode._fitted_adapter`, `BoTorchGenerator.cross_validate`,
`StandardizeY.__init__`, `Acquisition._construct_botorch_acquisition`,
`._update_objective_thresholds` and `.optimize` with the attributes they read.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

_logging = logging.root.manager.disable
logging.disable(logging.INFO)  # Ax reports when it is imported
from ax.adapter.registry import GeneratorRegistryBase, GeneratorSetup, MBM_X_trans
from ax.adapter.torch import TorchAdapter
from ax.adapter.transforms.base import Transform
from ax.adapter.transforms.standardize_y import StandardizeY
from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
from ax.core.arm import Arm
from ax.core.data import Data, DataRow
from ax.core.generator_run import GeneratorRun
from ax.core.observation import ObservationFeatures
from ax.generation_strategy.generation_node import GenerationNode
from ax.generation_strategy.generation_strategy import GenerationStrategy
from ax.generation_strategy.generator_spec import GeneratorSpec
from ax.generators.torch.botorch_modular.acquisition import Acquisition
from ax.generators.torch.botorch_modular.generator import BoTorchGenerator
from ax.generators.torch.botorch_modular.surrogate import SurrogateSpec
from ax.generators.torch.botorch_modular.utils import ModelConfig, fit_botorch_model
from ax.utils.common.logger import set_stderr_log_level

set_stderr_log_level(logging.ERROR)  # Ax reports every trial; so does the campaign
logging.disable(_logging)

from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from torch import Tensor

from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.fidelity import FidelityChoice, maximize_by_cost
from bo_surrogates.acquisition.goals import Goals, outcome_scales, standardized_goals
from bo_surrogates.acquisition.integrated_variance import integration_points
from bo_surrogates.acquisition.trust_region import TrustRegion, merits, narrowed, replay
from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.campaign.baseline import absolute_constraints, is_pending
from bo_surrogates.campaign.noise import training_noise
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.design import initial_design
from bo_surrogates.errors import FitWarning, RunError, SpaceExhausted
from bo_surrogates.objective import metric_names
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Choice, Float, Int, Ordered, Space, Value, Values, Varied
from bo_surrogates.surrogates import SURROGATES, Surrogate
from bo_surrogates.surrogates.base import fit


@fit_botorch_model.register(Surrogate)
def _fit_surrogate(model: Surrogate, mll_class: object = None, mll_options: object = None) -> None:
    """Ax's door to fitting: one dispatch for every registered surrogate."""
    fit(model)


class ToldNoise(Transform):
    """Puts the standard errors of `campaign/noise.py` in the place of those that Ax was told."""

    def transform_experiment_data(self, experiment_data: Any) -> Any:
        """The data with one standard error a value, or none at all for a metric."""
        observed = experiment_data.observation_data
        index = observed.index.get_level_values("trial_index")
        told: Any = self.config["standard_errors"]
        for metric, sems in told.items():
            observed["sem", metric] = [math.nan if sems is None else sems[i] for i in index]
        return experiment_data


class StandardizeOutcomes(StandardizeY):
    """Ax's standardization, with the surrogates' own threshold for a constant outcome.

    Ax leaves outcomes with a standard deviation below 1e-8 unscaled, hence any in small units.
    """

    def __init__(
        self,
        search_space: Any = None,
        experiment_data: Any = None,
        adapter: Any = None,
        config: Any = None,
    ) -> None:
        super().__init__(search_space, experiment_data, adapter, config)
        for metric, column in experiment_data.observation_data["mean"].items():
            Y = torch.tensor(column.dropna().to_numpy(dtype=float)).unsqueeze(-1)
            if len(Y):
                mean, stdv = outcome_scales(Y)
                self.Ymean[metric], self.Ystd[metric] = float(mean), float(stdv)


class RegistryAcquisition(Acquisition):
    """Lets `acquisition.defaults` choose the acquisition function, as `loop.py` does.

    It never uses a posterior transform, so any posterior that can be sampled will do; Ax's own
    construction fails for every non-Gaussian posterior on the plainest problem.
    """

    def _construct_botorch_acquisition(
        self,
        botorch_acqf_class: type[AcquisitionFunction],
        botorch_acqf_options: dict[str, Any],
        model: Model,
    ) -> AcquisitionFunction:
        goals: Goals = botorch_acqf_options["goals"]
        search: Search = botorch_acqf_options["search"]
        points: Tensor | None = botorch_acqf_options["integration"]
        return make_acquisition(
            model,
            config=botorch_acqf_options["config"],
            weights=goals.weights,
            X_baseline=baseline_columns(search.space, self._observed()),
            seed=botorch_acqf_options["seed"],
            constraints=list(goals.constraints),
            reference=goals.reference,
            X_pending=self.X_pending,
            X_integration=None if points is None else to_ax_columns(search.space, points),
        )

    def _update_objective_thresholds(self, torch_opt_config: Any) -> None:
        """Ax would infer reference points, for Gaussian posteriors only."""

    def _observed(self) -> Tensor:
        if self.X_observed is None:
            raise RunError(
                "no point has been measured for every metric yet; tell complete results first"
            )
        return self.X_observed

    def optimize(
        self, n: int, search_space_digest: Any, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Maximize as `loop.py` does, in our model coordinates."""
        options = self.botorch_acqf_classes_with_options[0][1]
        search: Search = options["search"]
        function = InModelCoordinates(self.acqf, search.space)
        like = self._observed()
        X, values = maximize_by_cost(
            function,
            search.within(self.surrogate.model),
            n,
            options["config"],
            search.known.to(like),
            search.fixed,
            self.surrogate.model,
            partial(to_ax_columns, search.space),
        )
        Z = search.space.to_model(X).to(like)
        return to_ax_columns(search.space, Z), values, torch.ones(len(X)).to(like)


@dataclass(frozen=True)
class Search:
    """Where a point is sought.

    Attributes:
        space: The campaign's.
        known: The points that have been tried or are pending, and what further ones cost.
        fixed: Values at which parameters are held.
        region: Centre (`d` problem coordinates) and length of the trust region, if there is one.
    """

    space: Space
    known: FidelityChoice
    fixed: Mapping[str, Value]
    region: tuple[Tensor, float] | None = None

    def within(self, model: Model) -> Space:
        """The space, or what of it is within the trust region.

        Args:
            model: Of Ax's columns; the first outcome's lengthscales shape the region.
        """
        if self.region is None:
            return self.space
        found = lengthscales(next(iter(getattr(model, "models", [model]))))
        if found is not None and len(found) > self.space.dim:  # a choice's one-hot columns
            groups = one_hot_groups(self.space.varied)
            inner = [column for group in groups for column in group[1:]]
            found = found[[c for c in range(len(found)) if c not in inner]]
        return narrowed(self.space, *self.region, found, self.fixed)


class InModelCoordinates(AcquisitionFunction):
    """An acquisition function of Ax's columns as one of our model coordinates."""

    def __init__(self, acqf: AcquisitionFunction, space: Space) -> None:
        torch.nn.Module.__init__(self)
        self.acqf = acqf
        self.space = space
        # In model coordinates, beside those that Ax knows.
        self.X_pending: Tensor | None = None  # type: ignore[assignment]
        self._ax_pending = getattr(acqf, "X_pending", None)

    def set_X_pending(self, X_pending: Tensor | None = None) -> None:
        """See BoTorch's `AcquisitionFunction.set_X_pending`."""
        self.X_pending = X_pending
        known = [] if self._ax_pending is None else [self._ax_pending]
        ours = [] if X_pending is None else [to_ax_columns(self.space, X_pending)]
        self.acqf.set_X_pending(torch.cat([*known, *ours]) if known or ours else None)

    def forward(self, X: Tensor) -> Tensor:
        """`b x q x d` model coordinates to `b` values."""
        return self.acqf(to_ax_columns(self.space, X))


def to_ax_columns(space: Space, Z: Tensor) -> Tensor:
    """Model coordinates `... x d` as Ax has them: a choice of three or more one-hot, in place."""
    columns = []
    for i, p in enumerate(space.varied):
        if isinstance(p, Choice) and p.cardinality > 2:
            levels = torch.arange(p.cardinality).to(Z)
            columns.append((Z[..., [i]].round() == levels).to(Z))
        else:
            columns.append(Z[..., [i]])
    return torch.cat(columns, dim=-1)


def baseline_columns(space: Space, X: Tensor) -> Tensor:
    """Of observed points in Ax's columns, what the best is measured against.

    As `acquisition.fidelity.baseline_points`: those at the target, or all of them moved there.
    """
    if space.fidelity is None:
        return X
    index = space.varied.index(space.fidelity)
    column = sum(_width(p) for p in space.varied[:index])
    low, high = space.model_bounds[:, index].tolist()
    target = space.to_model(space.to_target(space.bounds[0]))[index].item()
    at = (X[:, column] - target).abs() <= 1e-9 * (high - low)  # Ax's logarithm may round otherwise
    if at.any():
        return X[at]
    X = X.clone()
    X[:, column] = target
    return X


class RegistryGenerator(BoTorchGenerator):
    """Cross-validation that refits, in at most `folds` fits.

    Ax's default copies the state of the model fitted to all the data into each fold's model:
    for a network the held-out points have then been seen, and the score is worthless.
    """

    folds = 5

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Fit, and forget the folds of the previous data."""
        self._fold_surrogates: dict[int, Any] = {}
        super().fit(*args, **kwargs)

    def cross_validate(
        self,
        datasets: Any,
        X_test: Tensor,
        search_space_digest: Any,
        use_posterior_predictive: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Predict held-out points from a surrogate fitted without their whole fold."""
        full = self.surrogate.training_data
        X = full[0].X

        def fold(x: Tensor) -> int:
            return int((X - x).abs().sum(dim=-1).argmin()) % self.folds

        means, covariances = [], []
        for x in X_test:
            k = fold(x)
            if k not in self._fold_surrogates:
                surrogate = self.surrogate.clone_reset()
                keep = torch.tensor([fold(row) != k for row in X])
                surrogate.fit([data.clone(mask=keep) for data in full], search_space_digest)
                self._fold_surrogates[k] = surrogate
            mean, covariance = self._fold_surrogates[k].predict(
                x.unsqueeze(0), use_posterior_predictive
            )
            means.append(mean)
            covariances.append(covariance)
        return torch.cat(means), torch.cat(covariances)


_SETUP = {
    "Registry": GeneratorSetup(
        adapter_class=TorchAdapter,
        generator_class=RegistryGenerator,
        # Explicit, because Ax's default would also clip and bend the outcomes (Winsorize, BilogY).
        transforms=[*MBM_X_trans, ToldNoise, StandardizeOutcomes],
        default_generator_kwargs={"acquisition_class": RegistryAcquisition},
    )
}


class RegistryGenerators(GeneratorRegistryBase):
    """Ax's name for this bridge's generator."""

    REGISTRY = "Registry"

    @property
    def GENERATOR_KEY_TO_GENERATOR_SETUP(self) -> dict[str, GeneratorSetup]:
        """What the names above stand for."""
        return _SETUP


@dataclass(frozen=True)
class Suggestion:
    """One proposed point.

    Attributes:
        parameters: Values by the user's names.
        origin: "first", "sobol" or the surrogate's name.
        seconds: "fit" and "acquisition".
        diagnostics: The surrogate's figures and its prediction at the point.
    """

    parameters: Values
    origin: str
    seconds: Mapping[str, float]
    diagnostics: Mapping[str, float]


class AxBridge:
    """An Ax experiment that follows a campaign's journal.

    Args:
        spec: The campaign.
    """

    def __init__(self, spec: CampaignSpec) -> None:
        self.spec = spec
        self.metrics = metric_names(spec.objectives, spec.constraints)
        self._x = [f"x{i}" for i in range(spec.space.dim)]
        # Of one length, so that Ax, which sorts them, keeps their order.
        digits = len(str(len(self.metrics) - 1))
        self._y = {metric: f"y{i:0{digits}}" for i, metric in enumerate(self.metrics)}
        self._points: dict[int, tuple[Values, Tensor]] = {}  # by trial
        self._synced: dict[int, str] = {}  # status last seen of each trial
        self.client = Client()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.client.configure_experiment(
                parameters=[
                    _parameter_config(name, p)
                    for name, p in zip(self._x, spec.space.varied, strict=True)
                ],
                name=spec.name,
            )
            # Only to say that every metric is modelled: what is wanted of them is told to the
            # acquisition function, which is the same as in `loop.py`.
            self.client.configure_optimization(objective=", ".join(self._y.values()))

    # ---- names and values ----------------------------------------------------------------------
    def _to_ax(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """A point in Ax's terms: every varied parameter, the inactive ones imputed."""
        ax: dict[str, Any] = {}
        space = self.spec.space
        coordinates = space.encode(values, outside=True).tolist()
        for name, p, x in zip(self._x, space.varied, coordinates, strict=True):
            if isinstance(p, Float):
                ax[name] = x
            else:
                ax[name] = f"c{int(x)}" if isinstance(p, Choice) else int(x)
        return ax

    def _from_ax(self, ax: Mapping[str, Any]) -> Values:
        """The active parameters of a point."""
        coordinates = [float(str(ax[name]).removeprefix("c")) for name in self._x]
        return self.spec.space.decode(torch.tensor(coordinates, dtype=torch.float64))

    # ---- following the journal -------------------------------------------------------------------
    def sync(self, trials: Sequence[Trial]) -> None:
        """Bring the experiment up to date with the journal, in the order of trials.

        The order of telling does not matter, so a campaign proposes the same whatever the number
        of workers, and after a resume.
        """
        experiment = self.client._experiment
        rows: list[DataRow] = []
        for trial in sorted(trials, key=lambda t: t.index):
            before = self._synced.get(trial.index)
            if before is None:
                self._attach(trial)
                before = "running"
            if before == "running" and trial.status == "completed":
                rows += self._data_rows(trial)
                experiment.trials[trial.index].mark_completed()
            elif before == "running" and trial.status in ("abandoned", "stopped"):
                # Not "failed": Ax would propose a failed point again, for ever.
                experiment.trials[trial.index].mark_abandoned()
            self._synced[trial.index] = trial.status
        if rows:
            experiment.attach_data(Data(data_rows=rows))

    def _attach(self, trial: Trial) -> None:
        """Add a running trial to the experiment, without its client.

        The client looks at all data at each trial that it completes, so its time per trial grows
        with their number; and it refuses data outside the space, from which Ax's models learn (it
        widens the bounds that they see).
        """
        attached = self.client._experiment.new_trial()
        if attached.index != trial.index:
            raise RunError(
                f"the journal lacks trials before trial {trial.index} (expected {attached.index}); "
                "the database was changed by hand: restore it from a backup"
            )
        attached.add_arm(Arm(parameters=self._to_ax(trial.parameters)))
        attached.mark_running(no_runner_required=True)

    def _data_rows(self, trial: Trial) -> list[DataRow]:
        """Its means; what is known of their noise is told when models are fitted."""
        experiment = self.client._experiment
        (arm,) = experiment.trials[trial.index].arms
        return [
            DataRow(
                trial.index, arm.name, safe, experiment.metrics[safe].signature,
                trial.value(metric), math.nan,
            )
            for metric, safe in self._y.items()
        ]  # fmt: skip

    # ---- asking ----------------------------------------------------------------------------------
    def ask(
        self, n: int, trials: Sequence[Trial], fixed: Mapping[str, Value] | None = None
    ) -> list[Suggestion]:
        """Propose n points, given the journal.

        The baseline and the campaign's first points come first. The first `initial_design_size`
        successful trials that are left after them are points of one Sobol design, the rest come
        from the surrogate. While the baseline of relative constraints is being measured, the
        design goes on. What is random depends on the campaign's seed and the trial's index only.

        Args:
            n: Number of points, >= 1.
            trials: The journal.
            fixed: Valid values at which parameters are held.

        Returns:
            n suggestions; fewer where a finite space holds fewer untried points.

        Raises:
            SpaceExhausted: Every point of a finite space has been tried.
            FitError: The surrogate could not be fitted.
            RunError: Relative constraints lack their baseline.
        """
        self.sync(trials)
        first = len(trials)
        fixed = fixed or {}
        suggestions = self._first_points(n, trials, fixed)
        completed = sum(t.status == "completed" for t in trials)
        running = sum(t.status == "running" for t in trials) + len(suggestions)
        region = self._region(trials)
        if region is not None and region.restarts:
            completed = region.count  # it starts with a design of its own
        initial = self.spec.initial_design_size - completed - running
        if completed == 0 or is_pending(self.spec, trials):
            initial = n
        for part, count in ((self._explore, initial), (self._exploit, n)):
            count = min(count, n - len(suggestions))
            if count <= 0:
                continue
            known = [*trials, *_running(suggestions, first)]
            try:
                found = part(count, known, fixed)
            except SpaceExhausted:
                if not suggestions:
                    raise
                break
            suggestions += found
            if len(found) < count:
                break  # a finite space holds no more
        return suggestions

    def _first_points(
        self, n: int, trials: Sequence[Trial], fixed: Mapping[str, Value]
    ) -> list[Suggestion]:
        """The baseline and the campaign's first points that are not among the trials yet."""
        tried = [t.parameters for t in trials]
        baseline = [self.spec.baseline] if isinstance(self.spec.baseline, Mapping) else []
        left = [
            p
            for p in [*baseline, *(f for f in self.spec.first_points if f not in baseline)]
            if p not in tried and all(p.get(name) == value for name, value in fixed.items())
        ]
        return [Suggestion(dict(p), "first", {}, {}) for p in left[:n]]

    def _tried(self, trials: Sequence[Trial]) -> Tensor:
        """`n x d` points of the trials in problem coordinates."""
        space = self.spec.space
        found = [self._encoded(t) for t in trials]
        return torch.stack(found) if found else torch.empty(0, space.dim, dtype=torch.float64)

    def _known(self, trials: Sequence[Trial]) -> FidelityChoice:
        """What the choice of further points goes by."""
        running = self._tried([t for t in trials if t.status == "running"])
        return FidelityChoice(self.spec.fidelity, self._tried(trials), running, self._at_target)

    @property
    def _at_target(self) -> tuple[int, ...]:
        """Numbers of trials that are asked at the target fidelity: the baseline's."""
        return (self.spec.baseline,) if isinstance(self.spec.baseline, int) else ()

    def _encoded(self, trial: Trial) -> Tensor:
        """A trial's point in problem coordinates; kept, because each proposal needs them all."""
        point = self._points.get(trial.index)
        if point is None or point[0] != trial.parameters:
            encoded = self.spec.space.encode(trial.parameters, outside=True)
            point = self._points[trial.index] = (trial.parameters, encoded)
        return point[1]

    def _region(self, trials: Sequence[Trial]) -> TrustRegion | None:
        """Where the trust region is, if one is asked for and something is measured."""
        spec = self.spec
        completed = [t for t in trials if t.status == "completed"]
        if (
            spec.space.fidelity is not None
            or not spec.acquisition.uses_trust_region(len(spec.objectives), spec.space.dim)
            or not completed
            or is_pending(spec, trials)
        ):
            return None
        constraints = absolute_constraints(spec, trials)
        measured = merits(spec.objectives[0], constraints, self._measured(completed))
        design = spec.initial_design_size
        return replay(measured, spec.space.dim, spec.batch_size, design)

    def _measured(self, completed: Sequence[Trial]) -> Tensor:
        """`n x m` measured means."""
        rows = [[t.value(m) for m in self.metrics] for t in completed]
        return torch.tensor(rows, dtype=torch.float64)

    def _explore(
        self, n: int, trials: Sequence[Trial], fixed: Mapping[str, Value]
    ) -> list[Suggestion]:
        spec, space = self.spec, self.spec.space
        seed = derive_seed(spec.seed, "sobol")
        tried = self._tried(trials)
        design = initial_design(space, n, seed, tried, spec.fidelity, fixed, self._at_target)
        return [Suggestion(space.decode(x), "sobol", {}, {}) for x in design]

    def _exploit(
        self, n: int, trials: Sequence[Trial], fixed: Mapping[str, Value]
    ) -> list[Suggestion]:
        self.sync(trials)
        spec, first = self.spec, len(trials)
        region = self._region(trials)
        box = None
        if region is not None and region.centre is not None:
            centre = [t for t in trials if t.status == "completed"][region.centre]
            box = spec.space.encode(centre.parameters), region.length
        search = Search(spec.space, self._known(trials), fixed, box)
        node = self._surrogate_node(trials, search)
        self.client.set_generation_strategy(GenerationStrategy(name=spec.surrogate, nodes=[node]))
        with warnings.catch_warnings(), fixed_seed(derive_seed(spec.seed, "ask", first)):
            warnings.simplefilter("ignore")  # libraries' notes to their developers
            warnings.simplefilter("always", FitWarning)
            # Not Client.get_next_trials: it would attach the points as Ax has them, while the
            # journal (hence a rebuilt experiment) has them rounded. Nor the strategy's own `gen`,
            # which looks through all data for what is pending.
            run = node.gen(
                experiment=self.client._experiment,
                n=n,
                pending_observations=self._pending(trials),
            )
            if run is None:
                raise RunError("Ax proposed nothing")
            return self._suggestions(node, run)

    def _pending(self, trials: Sequence[Trial]) -> dict[str, list[ObservationFeatures]]:
        """By metric, the points whose outcomes are awaited, or which gave none: to be avoided.

        They are so at the target fidelity, which is where points are sought.
        """
        target = self.spec.space.target
        waiting = [t for t in trials if t.status != "completed"]
        if not waiting:
            return {}
        # Each metric's own objects: Ax transforms them in place.
        return {
            safe: [
                ObservationFeatures(
                    parameters=self._to_ax({**t.parameters, **target}), trial_index=t.index
                )
                for t in waiting
            ]
            for safe in self._y.values()
        }

    def _suggestions(self, node: GenerationNode, run: GeneratorRun) -> list[Suggestion]:
        """The points of a batch; the time that it took stands at the first."""
        seconds = {"fit": run.fit_time or 0.0, "acquisition": run.gen_time or 0.0}
        return [
            Suggestion(
                self._from_ax(arm.parameters),
                self.spec.surrogate,
                seconds if number == 0 else {},
                self._diagnose(node, arm.parameters),
            )
            for number, arm in enumerate(run.arms)
        ]

    def _surrogate_node(self, trials: Sequence[Trial], search: Search) -> GenerationNode:
        spec, first = self.spec, len(trials)
        completed = [t for t in trials if t.status == "completed"]
        constraints = absolute_constraints(spec, trials)
        goals = standardized_goals(spec.objectives, constraints, self._measured(completed))
        sems = {self._y[m]: training_noise(spec, completed, m) for m in self.metrics}
        integration = integration_points(
            search.space, spec.acquisition, derive_seed(spec.seed, "integration", first)
        )
        entry = SURROGATES[spec.surrogate]
        return GenerationNode(
            name="surrogate",
            generator_specs=[
                GeneratorSpec(
                    RegistryGenerators.REGISTRY,
                    generator_kwargs={
                        "surrogate_spec": SurrogateSpec(
                            model_configs=[
                                ModelConfig(
                                    botorch_model_class=entry.model_class,
                                    model_options={
                                        "config": entry.configure(spec.surrogate_config),
                                        "seed": derive_seed(spec.seed, "fit", first),
                                        "one_hot": one_hot_groups(spec.space.varied),
                                    },
                                    name=entry.name,
                                )
                            ],
                            allow_batched_models=False,  # one model an outcome, as `loop.py` has
                        ),
                        # Named only to keep Ax from choosing; RegistryAcquisition decides.
                        "botorch_acqf_class": AcquisitionFunction,
                        "botorch_acqf_options": {
                            "config": spec.acquisition,
                            "search": search,
                            "goals": goals,
                            "integration": integration,
                            "seed": derive_seed(spec.seed, "acquisition", first),
                        },
                        "fit_tracking_metrics": False,
                        "transform_configs": {"ToldNoise": {"standard_errors": sems}},
                    },
                )
            ],
        )

    def _diagnose(self, node: GenerationNode, ax_parameters: Mapping[str, Any]) -> dict[str, float]:
        """The surrogate's figures, and what it expects at the point it proposed."""
        adapter = node._fitted_adapter
        if adapter is None:
            return {}
        figures: dict[str, float] = {}
        generator: Any = adapter.generator
        model = generator.surrogate.model
        parts = list(getattr(model, "models", [model]))
        for metric, part in zip(self.metrics, parts, strict=False):
            if isinstance(part, Surrogate):
                suffix = f":{metric}" if len(parts) > 1 else ""
                figures |= {f"{k}{suffix}": float(v) for k, v in part.diagnostics.values.items()}
                figures[f"converged{suffix}"] = float(part.diagnostics.converged)
        point = [ObservationFeatures(parameters=dict(ax_parameters))]
        means, covariances = adapter.predict(point)
        _, noisy = adapter.predict(point, use_posterior_predictive=True)
        for metric, safe in self._y.items():
            figures[f"predicted:{metric}"] = float(means[safe][0])
            for name, found in (("predicted_sd", covariances), ("predicted_noisy_sd", noisy)):
                figures[f"{name}:{metric}"] = float(max(found[safe][safe][0], 0.0) ** 0.5)
        return figures


def _parameter_config(name: str, p: Varied) -> RangeParameterConfig | ChoiceParameterConfig:
    if isinstance(p, Float | Int):
        return RangeParameterConfig(
            name=name,
            bounds=(p.low, p.high),
            parameter_type="float" if isinstance(p, Float) else "int",
            scaling="log" if p.log else "linear",
        )
    if isinstance(p, Ordered):  # equally spaced levels; of its values, Ax might take logarithms
        return RangeParameterConfig(name=name, bounds=(0, p.cardinality - 1), parameter_type="int")
    if isinstance(p, Choice):
        labels = [f"c{i}" for i in range(p.cardinality)]
        return ChoiceParameterConfig(
            name=name, values=labels, parameter_type="str", is_ordered=False
        )
    raise TypeError(f"no Ax parameter for {p!r}")


def one_hot_groups(parameters: Sequence[Varied]) -> list[list[int]]:
    """The columns of each choice of three or more, as Ax's one-hot coding leaves them.

    Ax puts the columns of a choice where it stood, and codes a choice of two in one column.
    """
    groups, column = [], 0
    for p in parameters:
        width = _width(p)
        if width > 1:
            groups.append(list(range(column, column + width)))
        column += width
    return groups


def _width(p: Varied) -> int:
    """The number of Ax's columns of a parameter."""
    return p.cardinality if isinstance(p, Choice) and p.cardinality > 2 else 1


def _running(suggestions: Sequence[Suggestion], first: int) -> list[Trial]:
    return [Trial(first + i, s.parameters, "running", s.origin) for i, s in enumerate(suggestions)]
