"""The report of a run: a page that needs nothing but itself, and its figures and tables as files.

OUTPUT/index.html     the page
OUTPUT/figures/       each figure as PNG and SVG
OUTPUT/tables/        each table as CSV
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from bo_surrogates.errors import InputError, RunError
from reports.study.analysis import Analysis, analyse
from reports.study.calibration import draw_coverage, draw_pit
from reports.study.convergence import draw_convergence, draw_overall, draw_seconds
from reports.study.page import GENERATOR, render
from reports.study.palette import Look, looks
from reports.study.quality import draw_cost, draw_profiles
from reports.study.ranking import draw_critical_differences, draw_superiority
from reports.study.tables import all_tables
from reports.style import DPI, save
from studies.results import Results, load

Draw = Callable[[Analysis, dict[str, Look]], Figure | None]

FIGURES: dict[str, Draw] = {
    "convergence": draw_convergence,
    "overall": draw_overall,
    "critical_differences": draw_critical_differences,
    "superiority": draw_superiority,
    "performance_profiles": draw_profiles,
    "cost": draw_cost,
    "seconds": draw_seconds,
    "coverage": draw_coverage,
    "pit": draw_pit,
}


@dataclass(frozen=True)
class Drawn:
    """A figure as it is written.

    Attributes:
        svg: Its text.
        inches: Its width.
    """

    svg: str
    inches: float


def write_report(run: str | Path, output: str | Path | None = None, *, seed: int = 0) -> Analysis:
    """Write the report of a run, which may still be going on.

    Args:
        run: The run's folder.
        output: Where to; `report` in the run's folder if None. A report that is there is replaced.
        seed: Of bootstraps and permutations.

    Returns:
        What the report says.

    Raises:
        InputError: No run, a run without any evaluation, or an output that is something else.
        RunError: The output cannot be written, or the run not be read.
    """
    results = load(run).begun()
    if results.evaluations.empty:
        raise InputError(
            f"{run}: nothing was evaluated yet, so there is nothing to report; "
            "run the study first, or wait for its first results"
        )
    return write(results, Path(run) / "report" if output is None else Path(output), seed=seed)


def write(results: Results, folder: Path, *, seed: int = 0) -> Analysis:
    """Write the report of results that have one evaluation at least; as `write_report`."""
    _check_output(folder)
    analysis = analyse(results, seed=seed)
    chosen = looks({s.label: s.surrogate for s in results.study.surrogates})
    tables = all_tables(analysis)
    try:
        for name in ("figures", "tables"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        # First, so that what an interrupted report leaves is known to be one.
        if not (folder / "index.html").exists():
            (folder / "index.html").write_text(GENERATOR, encoding="utf-8")
        figures = {}
        for name, draw in FIGURES.items():
            figure = draw(analysis, chosen)
            if figure is not None:
                figures[name] = _write(figure, folder / "figures" / name)
        for name, table in tables.items():
            table.to_csv(folder / "tables" / f"{name}.csv", index=False)
        page = render(analysis, chosen, figures, sorted(tables))
        aside = folder / ".index.html.new"
        aside.write_text(page, encoding="utf-8")
        os.replace(aside, folder / "index.html")
    except OSError as error:
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return analysis


def _check_output(folder: Path) -> None:
    if folder.is_dir():
        page = folder / "index.html"
        foreign = [p.name for p in folder.iterdir()]
        if not foreign or (page.is_file() and GENERATOR in page.read_text("utf-8", "replace")):
            return
        raise InputError(
            f"{folder} holds other things ({min(foreign)}) and no report; choose another folder"
        )
    if folder.exists():
        raise InputError(f"{folder} is a file; a report is a folder, choose another name")


def _write(figure: Figure, path: Path) -> Drawn:
    # Laid out once for both files. At the resolution of the one, for letters are as wide as that
    # lets them be.
    figure.set_dpi(DPI)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    save(figure, path.with_suffix(".png"))
    svg = save(figure, path.with_suffix(".svg"))
    return Drawn(svg.read_text(encoding="utf-8"), figure.get_figwidth())
