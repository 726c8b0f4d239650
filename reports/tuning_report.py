"""A comparison of tuned, random and published configurations as a page, `report.md`, and figure.

    write_tuning_report("tuned-pokebnn", settings, command="bo-surrogates tune pokebnn --seeds 3")

Markdown, because that is what repositories show; the tables are beside it as CSV.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from bo_surrogates.errors import RunError
from problems.documented.trained_model import tuning_problem
from problems.documented.tuning_problem import TuningProblem
from reports.style import save
from reports.tuning_figure import draw_comparison
from studies.run_folder import environment
from studies.tuning import (
    PUBLISHED,
    TuneSettings,
    against_default,
    markdown,
    progress,
    read_trials,
    scored,
    summarize_tuning,
)

SHOWN = 8  # configurations of a front in the page; all are in comparison.csv
FIGURE = "comparison.png"


def write_tuning_report(
    folder: str | Path, settings: TuneSettings, table: pd.DataFrame, *, command: str
) -> Path:
    """Write report.md, comparison.png, summary.csv and default.csv into the comparison's folder.

    Args:
        folder: Of `studies.tuning.compare_tuning`.
        settings: Of its campaigns; the seed does not matter.
        table: What `compare_tuning` returned.
        command: That makes it again.

    Returns:
        The page.

    Raises:
        RunError: The folder holds no trials, or a file cannot be written.
    """
    folder = Path(folder)
    problem = tuning_problem(settings.problem, settings.options)
    trials = read_trials(folder)
    course = progress(problem, trials)
    save(draw_comparison(problem, table, course), folder / FIGURE)
    summary = summarize_tuning(problem, table)
    tables = {"summary.csv": summary}
    names = [o.name for o in problem.objectives]
    parts = [
        f"# `{settings.problem}`: {' and '.join(names)}",
        " ".join(_answer(problem, table, course)),
        markdown(summary),
        "Mean ± standard error over seeds. Which configuration is reported is decided by what was "
        "measured in tuning (validation part); what is reported is its score on the test part, "
        "which no choice has seen.",
    ]
    if len(names) > 1:
        default = against_default(problem, table)
        tables["default.csv"] = default
        reference = ", ".join(f"{o.name} {o.reference:g}" for o in problem.objectives)
        parts += [
            f"Hypervolume is beyond {reference}.",
            "For what the published default costs, and for its error (by seed; `none`: in no seed "
            "was there one):",
            markdown(default),
        ]
    parts += [
        f"![What was chosen, and the course]({FIGURE})",
        "## Found by tuning",
        _front(problem, table),
        "## What was run",
        "\n".join(f"- {line}" for line in _run(problem, settings, trials, command)),
    ]
    try:
        for name, content in tables.items():
            content.to_csv(folder / name, index=False)
        path = folder / "report.md"
        path.write_text("\n\n".join(p.strip() for p in parts) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder}: the report cannot be written: {error}") from error
    return path


def _answer(problem: TuningProblem, table: pd.DataFrame, course: pd.DataFrame) -> list[str]:
    """In words: who ended ahead, in how many seeds, and how sure that can be."""
    several = len(problem.objectives) > 1
    what = "hypervolume" if several else problem.objectives[0].name
    sign = 1.0 if several else problem.objectives[0].sign
    last = course.groupby(["arm", "seed"])["value"].last().unstack("arm")
    if not {"tuned", "random"} <= set(last.columns):
        return []
    pairs = last.dropna()
    ahead = int((sign * (pairs["tuned"] - pairs["random"]) > 0).sum())
    seeds = len(pairs)
    told = [
        f"With the same number of trials, tuning ended with the better {what} (as measured in "
        f"tuning) than random search in {ahead} of {seeds} seeds: "
        f"{pairs['tuned'].mean():.4g} against {pairs['random'].mean():.4g} on the average."
    ]
    surest = 2.0 ** (1 - seeds)
    if surest > 0.05:
        told.append(
            f"With {seeds} seeds a sign test cannot give less than {surest:.2g}, whatever the "
            "results."
        )
    missing = set(table["seed"]) - set(table.loc[table["arm"] == PUBLISHED, "seed"])
    if missing:
        told.append(f"The published default's training failed in {len(missing)} seeds.")
    return told


def _front(problem: TuningProblem, table: pd.DataFrame) -> str:
    """The chosen configurations of the tuned arm with the first seed."""
    tuned = table[table["arm"] == "tuned"]
    if tuned.empty:
        return "Nothing: no trial satisfied the constraints."
    seed = tuned["seed"].min()
    mine = tuned[tuned["seed"] == seed]
    measured = [o.name for o in problem.objectives]
    mine = mine.sort_values(measured[-1] if len(measured) > 1 else measured[0])
    tested = [scored(name, table) for name in measured]
    columns = [*dict.fromkeys([*measured, *tested]), *problem.space.names]
    columns = [c for c in columns if c in mine and mine[c].notna().any()]
    rest = len(mine) - SHOWN
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += [
        "| " + " | ".join(_plain(row[c]) for c in columns) + " |"
        for _, row in mine.head(SHOWN).iterrows()
    ]
    more = f" and {rest} more" if rest > 0 else ""
    return f"With seed {seed}{more} (all seeds: `comparison.csv`):\n\n" + "\n".join(lines)


def _plain(value: Any) -> str:
    if pd.isna(value):
        return ""
    if isinstance(value, float):
        return f"{int(value)}" if value.is_integer() and abs(value) < 1e6 else f"{value:.4g}"
    return str(value)


def _run(
    problem: TuningProblem, settings: TuneSettings, trials: pd.DataFrame, command: str
) -> list[str]:
    data, config = problem.data(), problem.config
    spec = settings.spec()
    ran = environment(settings.workers, "processes")
    versions = ", ".join(f"{k} {v}" for k, v in ran["versions"].items())
    seconds = trials["seconds"].median()
    constraints = "; ".join(map(str, spec.constraints)) or "none"
    sizes = [len(x) for x in (data.train_x, data.validation_x, data.test_x)]
    return [
        f"`{command}`",
        f"Data: `{config.data}`, inputs of shape {' x '.join(map(str, data.shape))}, "
        f"{data.classes} classes; {sizes[0]} to train, {sizes[1]} to choose by, {sizes[2]} to "
        "report.",
        f"{config.epochs} epochs at most. Options that were set: "
        f"{', '.join(f'{k} = {v}' for k, v in settings.options.items()) or 'none'}.",
        f"{settings.budget} trials an arm, {settings.workers} at a time; the surrogate is "
        f"`{settings.surrogate}`, after an initial design of {spec.initial}; the published default "
        "is the first trial of the tuned arm; "
        f"random search is a scrambled Sobol design. Constraints: {constraints}.",
        f"A trial took {seconds:.2g} s (median, wall clock, other work on the machine included).",
        f"{ran['platform']}, {ran['processor']}, {ran['cores']} cores; {versions}.",
        "What this does not show: other data, larger networks, longer training. The networks are "
        "small and see few images, so that a trial takes seconds; effects of the method at its "
        "published scale may be others.",
    ]
