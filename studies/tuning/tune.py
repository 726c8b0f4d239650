"""One tuning campaign: from a problem's name to a front, files that retrain it, and a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.results import feasible_trials
from bo_surrogates.campaign.running import Event, evaluation_seed
from bo_surrogates.campaign.spec import BlackBoxSource, CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.errors import InputError, RunError
from problems import PROBLEMS
from problems.documented.trained_model import ModelDescription, save_model, tuning_problem
from problems.documented.tuning_problem import TuningProblem
from studies.tuning.configuration import Configuration, read_configuration

TUNED, RANDOM = "tuned", "random"  # the two campaigns of a folder
PARTS = ("validation", "test")

Watch = Callable[[Campaign], AbstractContextManager[Callable[[Event], None]]]


@dataclass(frozen=True)
class TuneSettings:
    """A tuning campaign.

    Attributes:
        problem: A registered tuning problem.
        options: Its options.
        surrogate: A registered surrogate.
        budget: Trials in all, the published default's and the initial design's included.
        workers: Trials evaluated at a time, each in a process of its own; also the batch size, so
            that results depend on it.
        seed: Of everything drawn at random.
        acquisition: How points are proposed.
    """

    problem: str
    options: Mapping[str, Any] = field(default_factory=dict)
    surrogate: str = "gp"
    budget: int = 30
    workers: int = 2
    seed: int = 0
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)

    def initial(self, dim: int) -> int:
        """Trials of the tuned arm's initial design: a quarter of the budget, 2 (d + 1) at most.

        Spaces of documented networks have ten parameters and more, many of them conditional, and
        budgets are small: the usual 2 (d + 1) would leave nothing to the surrogate.
        """
        return min(2 * (dim + 1), max(self.budget // 4, 2))

    def spec(self, *, random: bool = False) -> CampaignSpec:
        """The campaign, or the random search with the same budget and evaluations.

        The published default is the first trial. The random search is a scrambled Sobol design.

        Raises:
            InputError: A bad name, option or number.
        """
        problem = tuning_problem(self.problem, self.options)
        first = () if random or not problem.published_default else (problem.published_default,)
        exact = {m: "none" for m in problem.metrics if m.startswith("log_")}
        return CampaignSpec(
            name=RANDOM if random else TUNED,
            space=problem.space,
            objectives=problem.objectives,
            constraints=problem.constraints,
            noise=exact,  # type: ignore[arg-type]
            surrogate=self.surrogate,
            acquisition=self.acquisition,
            budget=self.budget,
            initial=self.budget if random else self.initial(problem.space.dim),
            batch_size=self.workers,
            workers=self.workers,
            seed=self.seed,
            first_points=first,
            black_box=BlackBoxSource("problem", self.problem, dict(self.options)),
            executor="processes" if self.workers > 1 else None,
        ).resolved()


@dataclass(frozen=True)
class Tuned:
    """What came out of a tuning campaign.

    Attributes:
        settings: What was asked for.
        folder: Where it is kept.
        trials: One row a completed trial: arm ("tuned", "random"), trial, published (whether it is
            the tuned arm's published default), feasible, front (whether it is on its arm's
            front), the parameters and the metrics.
        front: The configurations worth having: the best, or with several objectives the Pareto
            front by the first of them.
    """

    settings: TuneSettings
    folder: Path
    trials: pd.DataFrame
    front: tuple[Configuration, ...]


def tune(
    problem: str,
    folder: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    surrogate: str = "gp",
    budget: int = 30,
    workers: int = 2,
    seed: int = 0,
    acquisition: AcquisitionConfig | None = None,
    random: bool = False,
    watch: Watch | None = None,
) -> Tuned:
    """Tune a documented model; continue, where the folder holds the same campaign already.

    Args:
        problem: A registered tuning problem.
        folder: Gets `campaigns.db`, `trials.csv`, `front.csv`, `best.toml` (by the first objective)
            and, with several objectives, `front/1.toml`, ...
        options: Of the problem.
        surrogate: A registered surrogate.
        budget: Trials in all. Larger than before: the campaign goes on.
        workers: Trials at a time, in processes; also the batch size.
        seed: Of everything.
        acquisition: The default if None.
        random: Whether a random search with the same budget is run beside it.
        watch: Given each campaign, a context that gives what is told of each step.

    Raises:
        InputError: A bad name, option or number, or the folder holds another campaign.
        RunError: Too many trials failed in a row, or no trial was completed.
    """
    settings = TuneSettings(
        problem, dict(options or {}), surrogate, budget, workers, seed,
        acquisition or AcquisitionConfig(),
    )  # fmt: skip
    folder = Path(folder)
    specs = [settings.spec(), *([settings.spec(random=True)] if random else [])]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"folder {str(folder)!r} cannot be made: {error.strerror}") from None
    for spec in specs:
        with open_campaign(spec, folder) as campaign, (watch or _nobody)(campaign) as tell:
            campaign.run(workers=workers, on_event=tell, resolve_problem=_make)
    return read_tuned(settings, folder)


def open_campaign(spec: CampaignSpec, folder: Path) -> Campaign:
    """The campaign of a folder, made if need be; its budget is raised to the specification's.

    Raises:
        InputError: The folder holds another campaign of that name.
    """
    path = folder / "campaigns.db"
    try:
        campaign = Campaign.open(path, spec.name)
    except InputError:
        return Campaign.create(spec, path)
    stored, wanted = campaign.spec.to_dict(), spec.to_dict()
    # The number of workers is also the batch's; `initial` is the random search's budget.
    free = {"budget", "initial"} if spec.name == RANDOM else {"budget"}
    changed = [key for key in wanted if stored[key] != wanted[key] and key not in free]
    if changed:
        campaign.close()
        raise InputError(
            f"{folder} holds a campaign with other settings ({', '.join(changed)}); name another "
            "folder, or the same settings to continue it"
        )
    if spec.budget > campaign.spec.budget:
        campaign.extend(spec.budget - campaign.spec.budget)
    return campaign


def _make(name: str, options: Mapping[str, Any]) -> Any:
    return PROBLEMS[name].make(**options)


def _nobody(campaign: Campaign) -> AbstractContextManager[Callable[[Event], None]]:
    return nullcontext(lambda event: None)


# ---- what came out -------------------------------------------------------------------------------
def read_tuned(settings: TuneSettings, folder: Path) -> Tuned:
    """The results in a folder, written to its tables and configurations.

    Raises:
        RunError: No trial was completed, or a file cannot be written.
    """
    problem = tuning_problem(settings.problem, settings.options)
    rows: list[dict[str, Any]] = []
    front: list[Configuration] = []
    with Campaign.open(folder / "campaigns.db", TUNED, read_only=True) as campaign:
        rows += _rows(campaign, TUNED, problem)
        objective = campaign.spec.objectives[0]
        best = sorted(_front(campaign), key=lambda t: -objective.sign * objective.value(t.means))
        front = [_configuration(settings, problem, t) for t in best]
    if not front:
        raise RunError(
            "no trial was completed that satisfies the constraints; see why with 'bo-surrogates "
            f"status {folder / 'campaigns.db'} --name {TUNED}', then raise the budget"
        )
    try:
        with Campaign.open(folder / "campaigns.db", RANDOM, read_only=True) as campaign:
            rows += _rows(campaign, RANDOM, problem)
    except InputError:
        pass  # it was not asked for
    trials = pd.DataFrame(rows)
    try:
        trials.to_csv(folder / "trials.csv", index=False)
        trials[trials["front"]].to_csv(folder / "front.csv", index=False)
    except OSError as error:
        raise RunError(f"{folder}: tables cannot be written: {error}") from error
    front[0].write(folder / "best.toml")
    if len(problem.objectives) > 1:
        for old in (folder / "front").glob("*.toml"):
            old.unlink()
        for number, configuration in enumerate(front, start=1):
            configuration.write(folder / "front" / f"{number}.toml")
    return Tuned(settings, folder, trials, tuple(front))


def _front(campaign: Campaign) -> list[Trial]:
    if len(campaign.spec.objectives) > 1:
        return campaign.pareto_front()
    best = campaign.best()
    return [] if best is None else [best]


def _rows(campaign: Campaign, arm: str, problem: TuningProblem) -> list[dict[str, Any]]:
    on_front = {t.index for t in _front(campaign)}
    feasible = {t.index for t in feasible_trials(campaign.spec, campaign.trials)}
    default = problem.published_default
    return [
        {
            "arm": arm,
            "trial": t.index,
            # Random search may hit it by chance, in a small space.
            "published": arm == "tuned" and dict(t.parameters) == default,
            "feasible": t.index in feasible,
            "front": t.index in on_front,
            "seconds": sum((t.seconds or {}).values()),
            **t.parameters,
            **t.means,
        }
        for t in campaign.trials
        if t.status == "completed"
    ]


def _configuration(settings: TuneSettings, problem: TuningProblem, trial: Trial) -> Configuration:
    seed = problem.training_seeds(evaluation_seed(settings.seed, trial.index))[0]
    return Configuration(
        settings.problem, settings.options, dict(trial.parameters), seed, dict(trial.means)
    )


# ---- the network ---------------------------------------------------------------------------------
def retrain(
    configuration: str | Path | Configuration,
    folder: str | Path | None = None,
    *,
    seed: int | None = None,
) -> tuple[nn.Module, ModelDescription]:
    """Train the network of a configuration again.

    With the configuration's own seed it is the network whose metrics the campaign has measured (of
    several replicates, the first).

    Args:
        configuration: It, or its file.
        folder: Where to save it; see `problems.documented.trained_model`. None: nowhere.
        seed: Another one.

    Returns:
        The network, and its description with scores on validation and test part.

    Raises:
        InputError: A bad file.
        RunError: The training failed, or the network cannot be saved.
    """
    if not isinstance(configuration, Configuration):
        configuration = read_configuration(configuration)
    problem, values = configuration.resolve()
    seed = configuration.seed if seed is None else seed
    network = problem.train_best(values, seed)
    description = ModelDescription(
        configuration.problem,
        dict(configuration.options),
        values,
        problem.details(network),
        seed,
        {part: problem.scores(network, values, part) for part in PARTS},
    )
    if folder is not None:
        save_model(Path(folder), network, description)
    return network, description
