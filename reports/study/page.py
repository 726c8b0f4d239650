"""The page: what the template needs, and nothing else. All text is escaped by the template."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bo_surrogates import __version__
from reports.study.analysis import TARGETS, Analysis
from reports.study.answer import answers, asked, cautions
from reports.study.palette import Look
from reports.study.tables import by_problem, diagnostics, failed_fits, rank_tests, summary

if TYPE_CHECKING:
    from reports.study.report import Drawn

GENERATOR = '<meta name="generator" content="bo-surrogates report">'
PIXELS = 118  # a figure's inch on the screen, so that 7 points are legible

HEADINGS = {
    "surrogate": "surrogate", "average_rank": "average rank",
    "normalized_regret": "normalized regret", "coverage_50": "in 50 % intervals",
    "coverage_90": "in 90 % intervals", "nlpd": "NLPD", "crps": "CRPS",
    "seconds_an_iteration": "s an iteration", "fit_seconds": "s of fit",
    "acquisition_seconds": "s of acquisition", "cpu_seconds": "CPU s an iteration",
    "peak_memory_mb": "peak MB",
    "failed_fits": "failed fits", "failed_runs": "failed runs",
}  # fmt: skip


def render(
    analysis: Analysis,
    looks: Mapping[str, Look],
    figures: Mapping[str, Drawn],
    tables: Sequence[str],
) -> str:
    """The page as text.

    Args:
        analysis: What the data say.
        looks: Of the surrogates.
        figures: By name.
        tables: Names of the files of tables.
    """
    results = analysis.results
    cells = results.cells
    template = _environment().get_template("report.html.j2")
    return template.render(
        generator=Markup(GENERATOR),
        study=results.study,
        version=__version__,
        asked=asked(analysis),
        answers=answers(analysis),
        cautions=cautions(analysis),
        progress=_progress(cells) if len(analysis.unfinished) else None,
        looks=looks,
        figures=figures,
        alt=_alternatives(analysis),
        summary=_summary(analysis),
        headings=HEADINGS,
        problems=_problems(analysis),
        order=analysis.order,
        tests=[
            (one, rank_tests(one).to_dict("index"))
            for one in (analysis.by_problem, analysis.by_run)
            if one is not None and len(one.ranks) > 1 and len(one.average) > 1
        ],
        targets=TARGETS,
        failed_fits=failed_fits(analysis).to_dict("records"),
        troubled=cells[cells["reason"].notna()].to_dict("records"),
        left_out=analysis.blocks.left_out.to_dict("records"),
        diagnostics=diagnostics(analysis).to_dict("records"),
        environment=list(_flat(results.environment)),
        config=json.dumps(results.study.to_dict(), indent=2, ensure_ascii=False),
        arms=results.study.problems,
        facts=results.facts,
        tables=tables,
        lines={
            name: _number(value)
            for name, value in (("runs", analysis.blocks.runs), ("cells", len(cells)))
        },
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("reports.study"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(prose=_prose, number=_number, source=_source, p=_p, width=_width)
    return environment


def _prose(text: str) -> Markup:
    """Escaped, with names in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _number(value: object) -> str:
    """Three digits, nothing for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    if isinstance(value, bool | str):
        return str(value)
    number = float(value)  # type: ignore[arg-type]
    if math.isinf(number):
        return "none feasible"
    if number == int(number) and abs(number) < 1e5:
        return str(int(number))
    return f"{number:.0f}" if 1000 <= abs(number) < 1e5 else f"{number:.3g}"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 1e-3 else f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def _source(figure: Drawn) -> str:
    """The figure within the page. As an image, so that names inside do not meet those of others."""
    data = base64.b64encode(figure.svg.encode()).decode()
    return f"data:image/svg+xml;base64,{data}"


def _width(figure: Drawn) -> int:
    return round(figure.inches * PIXELS)


def _progress(cells: pd.DataFrame) -> str:
    ended = int(cells["state"].isin(["done", "failed"]).sum())
    begun = int((cells["state"] == "partial").sum())
    return f"{ended} of {len(cells)} runs have ended, {begun} are under way or were interrupted"


def _summary(analysis: Analysis) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in summary(analysis).to_dict("records")]


def _problems(analysis: Analysis) -> list[dict[str, Any]]:
    """One a problem: what it is, and a cell a surrogate."""
    table = by_problem(analysis)
    found = []
    for problem, rows in table.groupby("problem", sort=False):
        found.append(
            {
                "problem": problem,
                "value": rows["value"].iloc[0],
                "seeds": int(rows["seeds"].max()),
                "cells": {row["surrogate"]: row for row in rows.to_dict("records")},
            }
        )
    return found


def _alternatives(analysis: Analysis) -> dict[str, str]:
    """What figures show, for those who do not see them: the table that holds the same."""
    named = {
        "convergence": "convergence", "overall": "normalized_regret and average_rank",
        "critical_differences": "pairs", "superiority": "pairs",
        "performance_profiles": "performance_profiles", "cost": "summary", "seconds": "seconds",
        "coverage": "coverage", "pit": "pit",
    }  # fmt: skip
    return {
        name: f"Figure: {name.replace('_', ' ')}. Its numbers are in the table {table} (CSV)."
        for name, table in named.items()
    }


def _flat(data: Mapping[str, Any], before: str = "") -> Any:
    """Nested settings as pairs of a dotted name and a text."""
    for key, value in data.items():
        name = f"{before}{key}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name} ")
        elif isinstance(value, list) and any(isinstance(v, Mapping) for v in value):
            for number, one in enumerate(value):
                yield from _flat(one, f"{name} {number + 1} ")
        elif value not in ([], None, ""):
            yield name, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
