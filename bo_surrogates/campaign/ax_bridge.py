"""Everything Ax needs to know, and the only module that imports it.

The journal is the truth; an `AxBridge` hands it to Ax's modelling layer: an adapter, which keeps
the transforms of parameters and outcomes, and a generator, which fits and proposes. Parameters and
metrics go by safe names inside (x0, y0, ...), so that a user may call a parameter "temperature (C)"
or a metric "E", which Ax's expression parser would refuse or take for Euler's number. Ax knows the
varied parameters only, as one flat box: fixed and inactive parameters, constraints and what has
been tried are the space's business, and the acquisition function is made and maximized by
`acquisition.defaults` and `acquisition.optimize`, as in `loop.py`.

Ax's experiment holds the search space and the metrics, but no trials: from them Ax would collect
the data anew for each fit, trial by trial. They are handed over in one piece instead.

Private touch points of Ax 1.3, each held by a test (tests/bo_surrogates/campaign/test_ax_bridge):
`Client._experiment`, `fit_botorch_model`, `StandardizeY.__init__`, `BoTorchGenerator.gen`,
`.best_point` and `.cross_validate`, and of `TorchAdapter` what `RegistryAdapter` names.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import torch

_logging = logging.root.manager.disable
logging.disable(logging.INFO)  # Ax reports when it is imported
from ax.adapter.registry import MBM_X_trans
from ax.adapter.torch import TorchAdapter
from ax.adapter.transforms.base import Transform
from ax.adapter.transforms.standardize_y import StandardizeY
from ax.api.client import Client
from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig
from ax.core.data_utils import ExperimentData
from ax.core.observation import ObservationFeatures
from ax.generators.torch.botorch_modular.generator import BoTorchGenerator
from ax.generators.torch.botorch_modular.surrogate import SurrogateSpec
from ax.generators.torch.botorch_modular.utils import ModelConfig, fit_botorch_model
from ax.generators.torch_base import TorchGenResults
from ax.utils.common.logger import set_stderr_log_level

set_stderr_log_level(logging.ERROR)  # Ax reports every trial; so does the campaign
logging.disable(_logging)

from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.fidelity import FidelityChoice, baseline_points, maximize_by_cost
from bo_surrogates.acquisition.goals import Goals, outcome_scales, standardized_goals
from bo_surrogates.acquisition.integrated_variance import integration_points
from bo_surrogates.acquisition.trust_region import TrustRegion, merits, narrowed, replay
from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.campaign.baseline import absolute_constraints, is_pending
from bo_surrogates.campaign.noise import training_noise
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.spending import at_target
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.design import initial_design
from bo_surrogates.device import usable_device
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


@dataclass(frozen=True)
class Search:
    """Where a point is sought. Points are in problem coordinates.

    Attributes:
        space: The campaign's.
        known: The points that have been tried or are pending, and what further ones cost.
        X_observed: `n x d` points of the completed trials.
        X_pending: `p x d` points whose outcomes are awaited, or which gave none: to be avoided.
        fixed: Values at which parameters are held.
        region: Centre (`d`) and length of the trust region, if there is one.
    """

    space: Space
    known: FidelityChoice
    X_observed: Tensor
    X_pending: Tensor
    fixed: Mapping[str, Value]
    region: tuple[Tensor, float] | None = None

    @property
    def X_baseline(self) -> Tensor:
        """`k x d` observed points that the best is measured against.

        What was measured outside the space's box is learnt from, but is nothing to improve on; only
        if nothing was measured inside, it is.
        """
        X, (low, high) = self.X_observed, self.space.bounds
        inside = ((low <= X) & (high >= X)).all(dim=-1)
        return baseline_points(self.space, X[inside] if inside.any() else X)

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


@dataclass(frozen=True)
class Asked:
    """What the generator needs to propose.

    Attributes:
        search: Where.
        config: Which acquisition function, and its optimizer's budget.
        goals: On the scale of the standardized outcomes.
        integration: `z x d` model coordinates for active learning, else None.
        seed: Of the acquisition function.
    """

    search: Search
    config: AcquisitionConfig
    goals: Goals
    integration: Tensor | None
    seed: int


class RegistryGenerator(BoTorchGenerator):
    """Proposes as `loop.py` does, and validates by refits.

    The acquisition function comes from `acquisition.defaults`. It never uses a posterior transform,
    so any posterior that can be sampled will do; Ax's own construction fails for every non-Gaussian
    posterior on the plainest problem, and infers reference points for Gaussian ones only.

    Cross-validation refits, in at most `folds` fits. Ax's default copies the state of the model
    fitted to all the data into each fold's model: for a network the held-out points have then been
    seen, and the score is worthless.

    Args:
        surrogate_spec: Ax's word for the surrogate.
        asked: What is to be proposed.
    """

    folds = 5

    def __init__(self, surrogate_spec: SurrogateSpec, asked: Asked) -> None:
        super().__init__(surrogate_spec=surrogate_spec)
        self.asked = asked

    def fit(self, *args: Any, **kwargs: Any) -> None:
        """Fit, and forget the folds of the previous data."""
        self._fold_surrogates: dict[int, Any] = {}
        super().fit(*args, **kwargs)

    def gen(self, n: int, search_space_digest: Any, torch_opt_config: Any) -> TorchGenResults:
        """Maximize the acquisition function in our model coordinates."""
        asked, search = self.asked, self.asked.search
        model, like = self.surrogate.model, self.surrogate.Xs[0]

        def columns(X: Tensor) -> Tensor:
            return to_ax_columns(search.space, search.space.to_model(X)).to(like)

        pending = search.space.to_target(search.X_pending)  # where points are sought
        integration = asked.integration
        if integration is not None:
            integration = to_ax_columns(search.space, integration)
        self.acquisition = InModelCoordinates(
            make_acquisition(
                model,
                config=asked.config,
                weights=asked.goals.weights,
                X_baseline=columns(search.X_baseline),
                seed=asked.seed,
                constraints=list(asked.goals.constraints),
                reference=asked.goals.reference,
                X_pending=columns(pending) if len(pending) else None,
                X_integration=integration,
            ),
            search.space,
        )
        X, _ = maximize_by_cost(
            self.acquisition,
            search.within(model),
            n,
            asked.config,
            search.known.to(like),
            search.fixed,
            model,
            partial(to_ax_columns, search.space),
        )
        return TorchGenResults(points=columns(X), weights=torch.ones(len(X)).to(like))

    def best_point(self, search_space_digest: Any, torch_opt_config: Any) -> Tensor | None:
        """None: `campaign/recommendation.py` says what is best."""
        return None

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


class RegistryAdapter(TorchAdapter):
    """Fitted again and again, to data that it is handed.

    Args:
        experiment: Says what the parameters and metrics are.
        generator: The first one, to be replaced with each fit.
        device: Where it is fitted and asked.
    """

    def __init__(self, experiment: Any, generator: RegistryGenerator, device: torch.device) -> None:
        super().__init__(
            experiment=experiment,
            generator=generator,
            # Explicit, because Ax's default would also clip and bend the outcomes (Winsorize,
            # BilogY).
            transforms=[*MBM_X_trans, ToldNoise, StandardizeOutcomes],
            fit_tracking_metrics=False,
            fit_on_init=False,
            torch_device=device,
        )

    def fit_to(
        self,
        data: ExperimentData,
        generator: RegistryGenerator,
        standard_errors: Mapping[str, Mapping[int, float] | None],
    ) -> None:
        """Fit a new generator.

        Args:
            data: Of the completed trials.
            generator: What is fitted, and proposes from then on.
            standard_errors: See `ToldNoise`.
        """
        self.generator = generator
        errors: Any = standard_errors
        self._transform_configs = {"ToldNoise": {"standard_errors": errors}}
        self._set_search_space(self._experiment.search_space)
        self._set_model_space(arm_data=data.arm_data)  # wide enough for all data
        filtered = self._set_and_filter_training_data(data, self._model_space)
        transformed, space = self._transform_data(
            filtered, self._model_space, self._raw_transforms, self._transform_configs
        )
        self._last_experiment_data = None  # Ax would not fit to the same data again
        self._fit_if_implemented(space, transformed, time_so_far=0.0)

    def _compute_in_design(self, search_space: Any, experiment_data: ExperimentData) -> list[bool]:
        """All: the model's space was widened for them."""
        return [True] * len(experiment_data.arm_data)


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
    """Proposes a campaign's points through Ax, from its journal.

    Args:
        spec: The campaign.
        device: Where surrogates are fitted; None: where the campaign says.

    Raises:
        InputError: This machine has no such device.
    """

    def __init__(self, spec: CampaignSpec, device: str | None = None) -> None:
        self.spec = spec
        self._device = usable_device(device or spec.device)
        self.metrics = metric_names(spec.objectives, spec.constraints)
        self._x = [f"x{i}" for i in range(spec.space.dim)]
        # Of one length, so that Ax, which sorts them, keeps their order.
        digits = len(str(len(self.metrics) - 1))
        self._y = {metric: f"y{i:0{digits}}" for i, metric in enumerate(self.metrics)}
        self._points: dict[int, tuple[Values, Tensor]] = {}  # by trial
        self._adapter: RegistryAdapter | None = None
        client = Client()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client.configure_experiment(
                parameters=[
                    _parameter_config(name, p)
                    for name, p in zip(self._x, spec.space.varied, strict=True)
                ],
                name=spec.name,
            )
            # Only to say that every metric is modelled: what is wanted of them is told to the
            # acquisition function, which is the same as in `loop.py`.
            client.configure_optimization(objective=", ".join(self._y.values()))
        self.experiment = client._experiment

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

    def training_data(self, completed: Sequence[Trial]) -> ExperimentData:
        """What Ax would collect from an experiment with these trials.

        The noise that was told is left out: `ToldNoise` adds what models are to know of it.

        Args:
            completed: Trials with results, by index.
        """
        # Ax calls the one arm of trial 7 "7_0".
        arms = pd.Index([f"{t.index}_0" for t in completed], dtype=object)
        index = pd.MultiIndex.from_arrays(
            [[t.index for t in completed], arms], names=["trial_index", "arm_name"]
        )
        columns: dict[str, Any] = {}
        X = self._tried(completed)
        for name, p, x in zip(self._x, self.spec.space.varied, X.T, strict=True):
            if isinstance(p, Choice):
                labels = [f"c{i}" for i in x.int().tolist()]
                columns[name] = pd.Series(labels, index=index, dtype=object)
            else:
                columns[name] = (x if isinstance(p, Float) else x.long()).numpy()
        columns["metadata"] = [{} for _ in completed]
        arm_data = pd.DataFrame(columns, index=index)
        values = self._measured(completed)
        observations = pd.DataFrame(
            torch.cat([values, torch.full_like(values, math.nan)], dim=1).numpy(),
            index=index,
            columns=pd.MultiIndex.from_product(
                [["mean", "sem"], self._y.values()], names=[None, "metric_signature"]
            ),
        )
        return ExperimentData(arm_data, observations)

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
        first = len(trials)
        gap = next((i for i, t in enumerate(trials) if t.index != i), None)
        if gap is not None:
            raise RunError(
                f"the journal lacks trials before trial {trials[gap].index} (expected {gap}); "
                "the database was changed by hand: restore it from a backup"
            )
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

    def _known(self, trials: Sequence[Trial], n: int = 1) -> FidelityChoice:
        """What the choice of n further points goes by."""
        running = self._tried([t for t in trials if t.status == "running"])
        always = at_target(self.spec, trials, n)
        return FidelityChoice(self.spec.fidelity, self._tried(trials), running, always)

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
        always = at_target(spec, trials, n)
        design = initial_design(space, n, seed, self._tried(trials), spec.fidelity, fixed, always)
        return [Suggestion(space.decode(x), "sobol", {}, {}) for x in design]

    def _exploit(
        self, n: int, trials: Sequence[Trial], fixed: Mapping[str, Value]
    ) -> list[Suggestion]:
        spec, first = self.spec, len(trials)
        region = self._region(trials)
        box = None
        if region is not None and region.centre is not None:
            centre = [t for t in trials if t.status == "completed"][region.centre]
            box = spec.space.encode(centre.parameters), region.length
        with warnings.catch_warnings(), fixed_seed(derive_seed(spec.seed, "ask", first)):
            warnings.simplefilter("ignore")  # libraries' notes to their developers
            warnings.simplefilter("always", FitWarning)
            adapter = self._fitted(trials, fixed, box, n)
            run = adapter.gen(n)
            # The time that a batch took stands at its first point.
            seconds = {"fit": run.fit_time or 0.0, "acquisition": run.gen_time or 0.0}
            return [
                Suggestion(
                    self._from_ax(arm.parameters),
                    self.spec.surrogate,
                    seconds if number == 0 else {},
                    self._diagnose(adapter, arm.parameters),
                )
                for number, arm in enumerate(run.arms)
            ]

    def _fitted(
        self,
        trials: Sequence[Trial],
        fixed: Mapping[str, Value] | None = None,
        region: tuple[Tensor, float] | None = None,
        n: int = 1,
    ) -> RegistryAdapter:
        """The adapter, its surrogate fitted to the completed trials, ready to propose n points."""
        spec, first = self.spec, len(trials)
        completed = [t for t in trials if t.status == "completed"]
        search = Search(
            spec.space,
            self._known(trials, n),
            self._tried(completed),
            self._tried([t for t in trials if t.status != "completed"]),
            fixed or {},
            region,
        )
        constraints = absolute_constraints(spec, trials)
        entry = SURROGATES[spec.surrogate]
        surrogate_spec = SurrogateSpec(
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
        )
        asked = Asked(
            search=search,
            config=spec.acquisition,
            goals=standardized_goals(
                spec.objectives, constraints, self._measured(completed).to(self._device)
            ),
            integration=integration_points(
                spec.space, spec.acquisition, derive_seed(spec.seed, "integration", first)
            ),
            seed=derive_seed(spec.seed, "acquisition", first),
        )
        generator = RegistryGenerator(surrogate_spec, asked)
        if self._adapter is None:
            self._adapter = RegistryAdapter(self.experiment, generator, self._device)
        sems = {self._y[m]: training_noise(spec, completed, m) for m in self.metrics}
        self._adapter.fit_to(self.training_data(completed), generator, sems)
        return self._adapter

    def _diagnose(
        self, adapter: RegistryAdapter, ax_parameters: Mapping[str, Any]
    ) -> dict[str, float]:
        """The surrogate's figures, and what it expects at the point it proposed."""
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
        width = p.cardinality if isinstance(p, Choice) and p.cardinality > 2 else 1
        if width > 1:
            groups.append(list(range(column, column + width)))
        column += width
    return groups


def _running(suggestions: Sequence[Suggestion], first: int) -> list[Trial]:
    return [Trial(first + i, s.parameters, "running", s.origin) for i, s in enumerate(suggestions)]
