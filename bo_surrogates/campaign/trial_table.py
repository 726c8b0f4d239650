"""A campaign's trials as a table, and a table's rows as results and data.

One row a trial. Its columns are `trial`, the parameters and the metrics by their names, and
`<metric> (sem)`, a metric's standard error; `failed` holds why there is no result. Where a
parameter or a metric has one of the table's own names, or both have the same, its column is called
`<name> (parameter)` or `<name> (metric)`.

What a reader finds wrong, it finds in the whole table before anything is recorded.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.tables import Decimal, Row, Table, digits_shown, read_number
from bo_surrogates.campaign.trial import DATA, Measurement, Trial
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space import Choice, Fixed, Float, Int, Ordered, Parameter, Value, Values

if TYPE_CHECKING:
    import pandas as pd

Outside = Literal["refuse", "keep"]

OWN = ("trial", "status", "origin", "failed", "reason", "created", "finished")
SEM = " (sem)"
SHOWN = 20  # mistakes named in one message
ROUNDING = 0.01  # of a parameter's range: how far a spreadsheet's rounding may move a point
YES, NO = ("yes", "true", "x", "1", "1.0", "ja", "oui"), ("no", "false", "0", "0.0", "nein", "non")


@dataclass(frozen=True)
class Columns:
    """The columns of a campaign's tables.

    Attributes:
        parameters: Column by parameter.
        metrics: Column by metric.
        sems: Column of the standard error, by metric.
        units: Unit by column, where one is declared.
    """

    parameters: Mapping[str, str]
    metrics: Mapping[str, str]
    sems: Mapping[str, str]
    units: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """All that a reader looks for."""
        return (*OWN, *self.parameters.values(), *self.metrics.values(), *self.sems.values())


def columns_of(spec: CampaignSpec) -> Columns:
    """The columns of a campaign's tables."""
    names = [*spec.space.names, *spec.metrics]
    taken = {*OWN, *(m + SEM for m in spec.metrics)}
    taken |= {n for n in names if names.count(n) > 1}
    parameters = {n: f"{n} (parameter)" if n in taken else n for n in spec.space.names}
    metrics = {m: f"{m} (metric)" if m in taken else m for m in spec.metrics}
    units = {parameters[p.name]: getattr(p, "unit", "") for p in spec.space.parameters}
    units |= {metrics[o.name]: o.unit for o in spec.objectives if o.name in metrics}
    return Columns(parameters, metrics, {m: m + SEM for m in spec.metrics}, units)


# ---- trials as rows ------------------------------------------------------------------------------
def points_frame(spec: CampaignSpec, trials: Sequence[Trial], *, sem: bool = False) -> pd.DataFrame:
    """A form to fill in: each trial's number and point, and empty columns for its result.

    Args:
        spec: The campaign.
        trials: Those asked.
        sem: With columns for the metrics' standard errors.
    """
    import pandas as pd

    columns = columns_of(spec)
    empty = [c for m in spec.metrics for c in (columns.metrics[m], *([columns.sems[m]] * sem))]
    rows = [
        {"trial": t.index, **_point(columns, t), **dict.fromkeys(empty), "failed": None}
        for t in trials
    ]
    names = ["trial", *columns.parameters.values(), *empty, "failed"]
    return pd.DataFrame(rows, columns=names, dtype=object)


def trials_frame(spec: CampaignSpec, trials: Sequence[Trial]) -> pd.DataFrame:
    """All about the trials: point, result, status, reason, seconds, times and diagnostics."""
    import pandas as pd

    columns = columns_of(spec)
    rows: list[dict[str, Any]] = []
    for t in trials:
        row: dict[str, Any] = {"trial": t.index, "status": t.status, "origin": t.origin}
        row |= _point(columns, t)
        for metric in spec.metrics:
            m = t.measurements.get(metric)
            row[columns.metrics[metric]] = None if m is None else m.mean
            row[columns.sems[metric]] = None if m is None else m.sem
        row["reason"] = t.reason
        row |= {f"seconds {k}": v for k, v in t.seconds.items()}
        row["created"] = None if t.created is None else t.created.isoformat()
        row["finished"] = None if t.finished is None else t.finished.isoformat()
        rows.append(row | {f"diagnostic {k}": v for k, v in t.diagnostics.items()})
    first = ["trial", "status", "origin", *columns.parameters.values()]
    first += [c for m in spec.metrics for c in (columns.metrics[m], columns.sems[m])]
    first += ["reason", "created", "finished"]
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys([*first, *(k for r in rows for k in r)])))
    unused = [c for c in columns.sems.values() if frame[c].isna().all()]
    # Where an int is inactive pandas would make floats of the others.
    whole = [
        c
        for c in columns.parameters.values()
        if frame[c].isna().any()
        and any(c in row for row in rows)
        and {type(row[c]) for row in rows} == {int, type(None)}
    ]
    return frame.drop(columns=unused).astype(dict.fromkeys(whole, "Int64"))


def _point(columns: Columns, trial: Trial) -> dict[str, Value | None]:
    # A parameter that is inactive at this point has no value.
    return {column: trial.parameters.get(name) for name, column in columns.parameters.items()}


# ---- rows as results -----------------------------------------------------------------------------
@dataclass(frozen=True)
class Told:
    """What a table says of a campaign's running trials.

    Attributes:
        finished: Trials with their results, to be recorded.
        unchanged: Indices of trials recorded before, with the same results.
        waiting: Indices of trials whose rows hold no result yet.
        ignored: Columns that mean nothing to the campaign.
    """

    finished: tuple[Trial, ...]
    unchanged: tuple[int, ...]
    waiting: tuple[int, ...]
    ignored: tuple[str, ...]


def read_results(spec: CampaignSpec, table: Table, trials: Sequence[Trial]) -> Told:
    """The results in a filled-in form.

    Raises:
        InputError: What is wrong with the table, all of it.
    """
    reader = _Reader(spec, table)
    reader.require("trial", *reader.columns.metrics.values())
    known = {t.index: t for t in trials}
    finished, unchanged, waiting = [], [], []
    seen: dict[int, Row] = {}
    for row in table.rows:
        with reader.mistakes(row):
            trial = reader.trial(row, known, seen)
            reader.check_point(row, trial)
            measurements, reason = reader.result(row)
            told = replace(
                trial,
                status="completed" if measurements else "abandoned",
                measurements=measurements,
                reason=reason,
            )
            if not measurements and reason is None:
                waiting.append(trial.index)
            elif trial.status == "running":
                finished.append(told)
            elif (told.status, told.measurements, told.reason) == (
                trial.status, trial.measurements, trial.reason,
            ):  # fmt: skip
                unchanged.append(trial.index)
            else:
                raise InputError(
                    f"trial {trial.index} is {trial.status} already with {_outcome(trial)}, and "
                    f"the table says {_outcome(told)}; a recorded result is never overwritten"
                )
    reader.conclude()
    still = [i for i in waiting if known[i].status == "running"]
    return Told(tuple(finished), tuple(unchanged), tuple(still), reader.ignored)


def _outcome(trial: Trial) -> str:
    if trial.measurements:
        return ", ".join(
            f"{name} = {m.mean!r}" + ("" if m.sem is None else f" (sem {m.sem!r})")
            for name, m in sorted(trial.measurements.items())
        )
    return f"no result ({trial.reason})"


# ---- rows as points ------------------------------------------------------------------------------
def read_points(spec: CampaignSpec, table: Table) -> tuple[Values, ...]:
    """The points in a table, without results: a column for each parameter.

    Raises:
        InputError: What is wrong with the table, all of it.
    """
    reader = _Reader(spec, table)
    reader.require(*reader.needed)
    points = []
    for row in table.rows:
        with reader.mistakes(row):
            points.append(reader.point(row, "refuse"))
    reader.conclude()
    return tuple(points)


# ---- rows as data --------------------------------------------------------------------------------
@dataclass(frozen=True)
class Data:
    """Measurements made before, or elsewhere.

    Attributes:
        trials: Finished trials of origin "data"; their indices count from 0.
        skipped: Numbers of rows that say of themselves that they hold no result.
        ignored: Columns that mean nothing to the campaign.
        known: How many were recorded before.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[int, ...] = ()
    ignored: tuple[str, ...] = ()
    known: int = 0


def read_data(spec: CampaignSpec, table: Table, outside: Outside = "refuse") -> Data:
    """Points and their results, as trials.

    Args:
        spec: The campaign.
        table: Its rows hold all parameters and all metrics.
        outside: What is done with points that are outside the bounds or violate a parameter
            constraint: refuse the table, or keep them for the surrogate to learn from.

    Raises:
        InputError: What is wrong with the table, all of it.
    """
    if outside not in ("refuse", "keep"):
        raise InputError(
            f"outside must be 'refuse' or 'keep', got {outside!r}"
            f"{did_you_mean(outside, ('refuse', 'keep'))}"
        )
    reader = _Reader(spec, table)
    reader.require(*reader.needed, *reader.columns.metrics.values())
    trials: list[Trial] = []
    skipped: list[int] = []
    for row in table.rows:
        with reader.mistakes(row):
            if str(reader.cell(row, "status") or "").lower() == "running":
                skipped.append(row.number)
                continue
            point = reader.point(row, outside)
            measurements, reason = reader.result(row)
            if not measurements and reason is None:
                raise InputError(
                    "no result; fill it in, give the reason in a column 'failed', or remove the row"
                )
            status: Literal["completed", "abandoned"] = "completed" if measurements else "abandoned"
            trials.append(Trial(len(trials), point, status, DATA, measurements, reason))
    reader.conclude()
    return Data(tuple(trials), tuple(skipped), reader.ignored)


def not_recorded(data: Sequence[Trial], recorded: Sequence[Trial]) -> list[Trial]:
    """The data that are not recorded yet; a row that occurs twice is two measurements."""

    def key(trial: Trial) -> tuple[object, ...]:
        results = sorted((k, m.mean, m.sem is None, m.sem) for k, m in trial.measurements.items())
        return (*sorted(trial.parameters.items()), *results, trial.reason)

    there = Counter(key(t) for t in recorded if t.origin == DATA)
    new = []
    for trial in data:
        if there[key(trial)] > 0:
            there[key(trial)] -= 1
        else:
            new.append(trial)
    return new


# ---- reading cells -------------------------------------------------------------------------------
@dataclass
class _Reader:
    """Reads a table's rows in a campaign's terms, and collects what is wrong with them."""

    spec: CampaignSpec
    table: Table
    ignored: tuple[str, ...] = ()
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.columns = columns_of(self.spec)
        self.parameters = {p.name: p for p in self.spec.space.parameters}
        self._match()

    @property
    def needed(self) -> list[str]:
        """Columns of the parameters without which no row is a point."""
        return [
            self.columns.parameters[name]
            for name, p in self.parameters.items()
            if not p.when and not isinstance(p, Fixed)
        ]

    def _match(self) -> None:
        """Which of the table's columns is which; a unit behind a name must be the declared one."""
        self.where: dict[str, str] = {}
        known = self.columns.names
        folded = {n.casefold(): n for n in known}
        unknown: dict[str, str] = {}  # and what may be wrong with them
        for given in self.table.columns:
            name, problem = given if given in known else folded.get(given.casefold()), ""
            if name is None and (match := re.fullmatch(r"(.*\S)\s*[\[(](.*)[\])]", given)):
                name = match[1] if match[1] in known else folded.get(match[1].casefold())
                unit = self.columns.units.get(name or "", "")
                if name is not None and match[2].strip() != unit:
                    problem = (
                        f"the campaign's unit of {name!r} is {unit!r}; convert the values and "
                        f"name the column {name!r}"
                    )
            if name is None or problem:
                unknown[given] = problem
            elif name in self.where:
                raise InputError(
                    f"{self.table.source}: columns {self.where[name]!r} and {given!r} are the same"
                    "; remove one"
                )
            else:
                self.where[name] = given
        missing = {n.casefold(): n for n in known if n not in self.where}
        for given, problem in unknown.items():
            close = difflib.get_close_matches(given.casefold(), missing, n=1, cutoff=0.8)
            if close or problem:
                raise InputError(
                    f"{self.table.source}: unknown column {given!r}; "
                    + (f"did you mean {missing[close[0]]!r}?" if close else problem)
                )
        own = ("seconds ", "diagnostic ")
        self.ignored = tuple(c for c in unknown if not c.startswith(own))

    def require(self, *names: str) -> None:
        """Refuse a table without these columns."""
        missing = [n for n in names if n not in self.where]
        if missing:
            raise InputError(
                f"{self.table.source}: column {missing[0]!r} is missing"
                f"{did_you_mean(missing[0], self.ignored or self.table.columns)}; expected "
                f"{', '.join(repr(n) for n in names)}. Is this the table of another campaign?"
            )

    @contextmanager
    def mistakes(self, row: Row) -> Iterator[None]:
        """Keep what is wrong with a row, and go on to the next."""
        try:
            yield
        except InputError as error:
            text = str(error)
            self.found.append(text if text.startswith(self.table.source) else
                              f"{self.table.at(row)}: {text}")  # fmt: skip

    def conclude(self) -> None:
        """Refuse the table if anything is wrong with it."""
        if not self.found:
            return
        if len(self.found) == 1:
            raise InputError(f"{self.found[0]}. Nothing was recorded")
        shown = self.found[:SHOWN]
        if len(self.found) > SHOWN:
            shown.append(f"... and {len(self.found) - SHOWN} more")
        lines = "\n  ".join(shown)
        raise InputError(f"{len(self.found)} mistakes, nothing was recorded:\n  {lines}")

    def cell(self, row: Row, column: str) -> Any:
        """A cell's content; None where it is empty."""
        given = self.where.get(column)
        return None if given is None else row.cells.get(given)

    @contextmanager
    def _in(self, row: Row, column: str) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.table.at(row, self.where.get(column))}: {error}") from None

    def trial(self, row: Row, known: Mapping[int, Trial], seen: dict[int, Row]) -> Trial:
        """The trial that a row is about."""
        cell = self.cell(row, "trial")
        with self._in(row, "trial"):
            if cell is None:
                raise InputError(
                    "empty; every row needs the number of its trial (measurements that were not "
                    "asked for are recorded by 'bo-surrogates import')"
                )
            number = read_number(cell, self.table.decimal)
            if number != int(number):
                raise InputError(f"expected the number of a trial, got {cell!r}")
            index = int(number)
            if index in seen:
                raise InputError(f"trial {index} is in row {seen[index].number} already")
            seen[index] = row
            if index not in known:
                running = [str(i) for i, t in known.items() if t.status == "running"]
                raise InputError(
                    f"there is no trial {index}; running trials: {', '.join(running) or 'none'}"
                )
            return known[index]

    def check_point(self, row: Row, trial: Trial) -> None:
        """Refuse a row whose point is not its trial's, but for a spreadsheet's rounding."""
        for name, column in self.columns.parameters.items():
            cell = self.cell(row, column)
            if cell is None:
                continue
            with self._in(row, column):
                asked = trial.parameters.get(name)
                if asked is None or not self._same(self.parameters[name], cell, asked):
                    at = "inactive" if asked is None else repr(asked)
                    raise InputError(
                        f"{cell!r} is not what trial {trial.index} was asked at ({at}). If "
                        "another point was measured, record it by 'bo-surrogates import', and fail "
                        "this trial; if this is another campaign's table, tell it there"
                    )

    def _same(self, parameter: Parameter, cell: object, asked: Value) -> bool:
        if not isinstance(parameter, Float):
            return parameter.admit(_value(parameter, cell, self.table)) == asked
        number = read_number(cell, self.table.decimal)
        error = abs(number - float(asked))
        scale = parameter.high - parameter.low
        if parameter.log:
            scale = min(scale, float(asked))
        # A spreadsheet shows, and saves, fewer digits than it was given.
        shown = digits_shown(cell, self.table.decimal)
        return error <= 1e-9 * scale or error <= min(shown * (1 + 1e-6), ROUNDING * scale)

    def point(self, row: Row, outside: Outside) -> Values:
        """The point in a row."""
        values: dict[str, object] = {}
        for name, column in self.columns.parameters.items():
            cell = self.cell(row, column)
            if cell is not None:
                with self._in(row, column):
                    parameter = self.parameters[name]
                    value = _value(parameter, cell, self.table)
                    keep = outside == "keep"
                    values[name] = parameter.admit(value) if keep else parameter.validate(value)
        return self.spec.space.validate(values, outside=outside == "keep")

    def result(self, row: Row) -> tuple[dict[str, Measurement], str | None]:
        """What was measured, or why nothing was; neither where there is no result yet."""
        measurements = {}
        for metric, column in self.columns.metrics.items():
            mean, sem = self.cell(row, column), self.cell(row, self.columns.sems[metric])
            if mean is None:
                if sem is not None:
                    with self._in(row, self.columns.sems[metric]):
                        raise InputError(f"a standard error without a value of {metric!r}")
                continue
            with self._in(row, column):
                value = read_number(mean, self.table.decimal)
            with self._in(row, self.columns.sems[metric]):
                error = None if sem is None else read_number(sem, self.table.decimal)
                measurements[metric] = Measurement(value, error)
        reason = self._failure(row)
        if measurements and reason is not None:
            raise InputError(
                f"both a result and a failure ({reason!r}); clear the one or the other"
            )
        missing = [m for m in self.spec.metrics if m not in measurements]
        if measurements and missing:
            with self._in(row, self.columns.metrics[missing[0]]):
                raise InputError(
                    f"empty, but {next(iter(measurements))!r} is given; give all metrics, or clear "
                    "the row's and tell them together later"
                )
        return measurements, reason

    def _failure(self, row: Row) -> str | None:
        failed, reason = self.cell(row, "failed"), self.cell(row, "reason")
        text = str(failed).strip() if failed is not None else ""
        if text.casefold() in NO:
            text = ""
        elif text.casefold() in YES:
            text = str(reason or "no reason given")
        elif _reads_as_number(failed, self.table.decimal):
            # Typed one column too far, it would give up the trial for good.
            with self._in(row, "failed"):
                raise InputError(
                    f"{text!r} is a number, not a reason; move it to the metric's column, or say "
                    "in words why there is no result"
                )
        return text or (str(reason).strip() if reason is not None else None)


def _reads_as_number(cell: object, decimal: Decimal) -> bool:
    try:
        read_number(cell, decimal)
    except InputError:
        return False
    return True


def _value(parameter: Parameter, cell: object, table: Table) -> object:
    """What a cell says of a parameter, in the parameter's type where it can be.

    Raises:
        InputError: It is no number, and the parameter's values are numbers.
    """
    if isinstance(parameter, Float | Int):
        return read_number(cell, table.decimal)
    options = parameter.values if isinstance(parameter, Ordered | Choice) else (parameter.value,)  # type: ignore[attr-defined]
    if isinstance(options[0], str):
        text = str(cell)
        folded = [o for o in options if str(o).casefold() == text.casefold()]
        return folded[0] if text not in options and len(folded) == 1 else text
    if not isinstance(options[0], bool):
        return read_number(cell, table.decimal)
    if isinstance(cell, str) and cell.casefold() not in (*YES, *NO):
        raise InputError(f"{parameter.what} is yes or no, got {cell!r}")
    if isinstance(cell, str):
        return cell.casefold() in YES
    return bool(cell) if cell in (0, 1) else cell
