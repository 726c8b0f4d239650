"""Tuned configurations beside random ones and the published default, over seeds.

For every seed a campaign and a random search of the same budget are run. What counts is measured
anew: the networks of each arm's best configuration (of several objectives: of its whole front) are
scored on the test part, which no choice has seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.running import evaluation_seed
from bo_surrogates.errors import RunError
from bo_surrogates.objective import Objective
from problems.documented.trained_model import tuning_problem
from problems.documented.tuning_problem import TuningProblem
from studies.tuning.configuration import Configuration
from studies.tuning.tune import RANDOM, TUNED, Tuned, Watch, retrain, tune

PUBLISHED = "published default"
ARMS = (TUNED, RANDOM, PUBLISHED)


def compare_tuning(
    problem: str,
    folder: str | Path,
    *,
    seeds: Iterable[int] = range(3),
    options: Mapping[str, Any] | None = None,
    surrogate: str = "gp",
    budget: int = 30,
    workers: int = 2,
    acquisition: AcquisitionConfig | None = None,
    watch: Watch | None = None,
) -> pd.DataFrame:
    """Run the comparison; what the folder holds already is not run again.

    Args:
        problem: A registered tuning problem.
        folder: Gets a folder a seed (`seed-0`, ...), each of `tune`, and `comparison.csv`.
        seeds: At least three for a table that is shown to others.
        options: See `tune`, as all that follows.
        surrogate: See `tune`.
        budget: Of each arm.
        workers: See `tune`.
        acquisition: See `tune`.
        watch: See `tune`.

    Returns:
        One row a configuration that an arm has chosen with a seed: arm, seed, trial, the metrics as
        measured, with names "test_..." what its network scores on the test part, and the
        parameters. Costs are the same on both.

    Raises:
        InputError: See `tune`.
        RunError: See `tune`.
    """
    folder = Path(folder)
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        place = folder / f"seed-{seed}"
        tuned = tune(
            problem, place, options=options, surrogate=surrogate, budget=budget, workers=workers,
            seed=seed, acquisition=acquisition, random=True, watch=watch,
        )  # fmt: skip
        rows += _tested(tuned, place)
    table = pd.DataFrame(rows)
    _write(folder / "comparison.csv", table.to_csv(index=False))
    return table


def _tested(tuned: Tuned, folder: Path) -> list[dict[str, Any]]:
    """The chosen configurations of one seed with their test scores, trained once."""
    path = folder / "chosen.csv"
    settings = tuned.settings
    problem = tuning_problem(settings.problem, settings.options)
    chosen = tuned.trials[tuned.trials["front"] | tuned.trials["published"]]
    if path.exists():
        known = pd.read_csv(path)
        if len(known) and set(zip(known["arm"], known["trial"], strict=True)) >= {
            (arm, row["trial"]) for _, row in chosen.iterrows() for arm in _arms(row)
        }:
            return [dict(row) for _, row in known.iterrows()]
    rows = []
    for _, row in chosen.iterrows():
        values = problem.space.validate(
            {n: _plain(row[n]) for n in problem.space.names if n in row and pd.notna(row[n])}
        )
        seed = problem.training_seeds(evaluation_seed(settings.seed, int(row["trial"])))[0]
        configuration = Configuration(settings.problem, settings.options, values, seed)
        _, description = retrain(configuration)
        test = {f"test_{name}": value for name, value in description.scores["test"].items()}
        metrics = {name: row[name] for name in problem.metrics}
        rows += [
            {"arm": arm, "seed": settings.seed, "trial": row["trial"], **metrics, **test, **values}
            for arm in _arms(row)
        ]
    _write(path, pd.DataFrame(rows).to_csv(index=False))
    return rows


def _arms(row: Any) -> list[str]:
    return [row["arm"]] * bool(row["front"]) + [PUBLISHED] * bool(row["published"])


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def summarize_tuning(problem: TuningProblem, table: pd.DataFrame) -> pd.DataFrame:
    """One row an arm: means over seeds, and their standard errors.

    Args:
        problem: The problem of the table.
        table: From `compare_tuning`.

    Returns:
        arm, seeds; of every objective its value at the chosen configuration with the best measured
        one, as mean and standard error: on the test part where there is one (its column
        "test_..."), which does not decide which configuration that is; with several objectives the
        hypervolume beyond the reference point of what was chosen, on the test part.
    """
    per_seed = []
    for key, chosen in table.groupby(["arm", "seed"], sort=False):
        arm, seed = tuple(key)
        columns = [scored(o.name, table) for o in problem.objectives]
        best = {
            c: float(_best(chosen, o)[c]) for c, o in zip(columns, problem.objectives, strict=True)
        }
        if len(problem.objectives) > 1:
            best["hypervolume"] = _hypervolume(problem, chosen[columns].to_numpy())
        per_seed.append({"arm": arm, "seed": seed, **best})
    return _over_seeds(pd.DataFrame(per_seed))


def _best(chosen: pd.DataFrame, objective: Objective) -> pd.Series:
    """The configuration with the best measured value of an objective."""
    return chosen.iloc[int((objective.sign * chosen[objective.name]).to_numpy().argmax())]


def _over_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """Of each arm, "NAME mean" and "NAME sem" over the seeds that have the value."""
    groups = frame.drop(columns="seed").groupby("arm")
    summary = pd.concat(
        {"mean": groups.mean(), "sem": groups.sem()}, axis=1
    ).swaplevel(axis=1).sort_index(axis=1)  # fmt: skip
    summary.columns = pd.Index([" ".join(pair) for pair in summary.columns.to_list()])
    summary.insert(0, "seeds", groups.size())
    order = [arm for arm in ARMS if arm in summary.index]
    return summary.loc[order].reset_index()


def against_default(problem: TuningProblem, table: pd.DataFrame) -> pd.DataFrame:
    """What each arm has for the published default's cost, and what it spends for its error.

    Configurations are picked by what was measured in tuning, and reported on the test part.

    Args:
        problem: The problem of the table, with two or more objectives: the first is set against
            each of the others.
        table: From `compare_tuning`.

    Returns:
        One row an arm: arm, seeds, and as mean and standard error over the seeds that have one, of
        each further objective C: "ERROR at the default's C" (the best of those chosen that cost no
        more than the default), "C at the default's ERROR" (the cheapest that is no worse).
    """
    error, *costs = problem.objectives
    shown = scored(error.name, table)
    rows = []
    for seed, its in table.groupby("seed", sort=False):
        default = its[its["arm"] == PUBLISHED]
        if default.empty:
            continue  # its training failed
        for arm, chosen in its.groupby("arm", sort=False):
            row: dict[str, Any] = {"arm": arm, "seed": seed}
            merit = error.sign * chosen[error.name]
            for cost in costs:
                gain = cost.sign * chosen[cost.name]
                as_cheap = chosen[gain >= cost.sign * default[cost.name].iloc[0] - 1e-12]
                as_good = chosen[merit >= error.sign * default[error.name].iloc[0] - 1e-12]
                if len(as_cheap):
                    row[f"{shown} at the default's {cost.name}"] = _best(as_cheap, error)[shown]
                if len(as_good):
                    cheapest = _best(as_good, cost)[cost.name]
                    row[f"{cost.name} at the default's {error.name}"] = cheapest
            rows.append(row)
    return _over_seeds(pd.DataFrame(rows))


def read_trials(folder: str | Path) -> pd.DataFrame:
    """All trials of a comparison: the tables of its seeds, with the column seed.

    Args:
        folder: Of `compare_tuning`.

    Raises:
        RunError: It holds none.
    """
    tables = {
        int(path.parent.name.removeprefix("seed-")): pd.read_csv(path)
        for path in Path(folder).glob("seed-*/trials.csv")
    }
    if not tables:
        raise RunError(f"{folder} holds no trials; run the comparison first")
    return pd.concat([tables[seed].assign(seed=seed) for seed in sorted(tables)], ignore_index=True)


def progress(problem: TuningProblem, trials: pd.DataFrame) -> pd.DataFrame:
    """What each arm had reached after so many trials, as measured in tuning.

    Args:
        problem: The problem of the trials.
        trials: From `read_trials`.

    Returns:
        One row a trial: arm, seed, trials (completed so far, those that broke a constraint
        included), value: the hypervolume, or the best value of a single objective; NaN before any.
    """
    rows = []
    names = [o.name for o in problem.objectives]
    for (arm, seed), its in trials.groupby(["arm", "seed"], sort=False):
        its = its.sort_values("trial")
        for count in range(1, len(its) + 1):
            known = its.iloc[:count]
            known = known[known["feasible"]]
            if len(names) > 1:
                value = _hypervolume(problem, known[names].to_numpy()) if len(known) else 0.0
            else:
                sign = problem.objectives[0].sign
                value = sign * (sign * known[names[0]]).max() if len(known) else float("nan")
            rows.append({"arm": arm, "seed": seed, "trials": count, "value": value})
    return pd.DataFrame(rows, columns=["arm", "seed", "trials", "value"])


def scored(metric: str, table: pd.DataFrame) -> str:
    """The column that counts: the test part's where there is one."""
    return f"test_{metric}" if f"test_{metric}" in table else metric


def _hypervolume(problem: TuningProblem, values: Any) -> float:
    signs = torch.tensor([o.sign for o in problem.objectives], dtype=torch.float64)
    points = torch.tensor(values.tolist(), dtype=torch.float64) * signs
    reference = signs * signs.new_tensor([float(o.reference or 0.0) for o in problem.objectives])
    return float(Hypervolume(reference).compute(points[is_non_dominated(points)]))


def markdown(summary: pd.DataFrame) -> str:
    """A table of `summarize_tuning` or `against_default` for people: mean and standard error."""
    names = list(
        dict.fromkeys(c.rsplit(" ", 1)[0] for c in summary.columns if c not in ("arm", "seeds"))
    )
    lines = [
        "| " + " | ".join(["arm", "seeds", *names]) + " |",
        "|" + "---|" * (len(names) + 2),
    ]
    for _, row in summary.iterrows():
        cells = [_cell(row[f"{n} mean"], row[f"{n} sem"]) for n in names]
        lines.append("| " + " | ".join([str(row["arm"]), str(row["seeds"]), *cells]) + " |")
    return "\n".join(lines) + "\n"


def _cell(mean: float, sem: float) -> str:
    if pd.isna(mean):
        return "none"
    return f"{mean:.4g}" if pd.isna(sem) else f"{mean:.4g} ± {sem:.2g}"


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}") from error
