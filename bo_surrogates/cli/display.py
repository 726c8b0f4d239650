"""What the command line shows: tables, JSON, and a run's progress.

On a terminal a run is shown live; elsewhere it is quiet; with `--json` it is one JSON object a
line. All of it reads the campaign and changes nothing.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from bo_surrogates.campaign.spending import spending
from bo_surrogates.campaign.trial import budgeted

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.running import Event
    from bo_surrogates.campaign.trial import Trial
    from bo_surrogates.space import Value

Ending = Literal["finished", "stopped", "interrupted", "failed"]

FINISHED = ("completed", "abandoned", "stopped")
UNBOUNDED = 10_000  # columns; wider than any table
FAILURES = 10  # reasons shown; all are in the JSON
RECENT = 8  # trials shown while a campaign runs
STYLES = {"completed": "green", "abandoned": "red", "running": "yellow", "stopped": "cyan"}


def make_console(file: TextIO | None = None) -> Console:
    """A console that prints users' text as it is: "[min]" is a unit, not markup."""
    return Console(file=file, markup=False, highlight=False)


# ---- JSON ----------------------------------------------------------------------------------------
def print_json(data: object) -> None:
    """One JSON document on standard output."""
    print(json.dumps(data, ensure_ascii=False, indent=2, allow_nan=False))


def trial_json(trial: Trial) -> dict[str, Any]:
    """A trial as plain data."""
    return trial.to_dict()


def progress_json(campaign: Campaign) -> dict[str, Any]:
    """How far a campaign is."""
    trials = campaign.trials
    return {
        "name": campaign.spec.name,
        "database": campaign.database,
        "surrogate": campaign.spec.surrogate,
        "budget": campaign.spec.budget,
        **_counts(trials),
        **_spending_json(campaign, trials),
        "seconds": _seconds(trials),
    }


def _spending_json(campaign: Campaign, trials: Sequence[Trial]) -> dict[str, Any]:
    """What the trials cost, by fidelity; nothing without a fidelity."""
    spent = spending(campaign.spec, budgeted(trials))
    if campaign.spec.space.fidelity is None:
        return {}
    return {
        "cost": sum(s.cost for s in spent),
        "budget_cost": campaign.spec.budget_cost,
        "fidelities": [{"value": s.value, "trials": s.trials, "cost": s.cost} for s in spent],
    }


def best_json(campaign: Campaign) -> dict[str, Any]:
    """The best trial, or the Pareto front with its hypervolume and reference point."""
    if len(campaign.spec.objectives) == 1:
        trial = campaign.best()
        return {"best": None if trial is None else trial_json(trial)}
    reference = campaign.reference_point()
    return {
        "pareto_front": [trial_json(t) for t in campaign.pareto_front()],
        "hypervolume": campaign.hypervolume(),
        "reference": None if reference is None else dict(reference.values),
        "reference_inferred": [] if reference is None else list(reference.inferred),
    }


def _counts(trials: Sequence[Trial]) -> dict[str, int]:
    counts = dict.fromkeys(("completed", "abandoned", "stopped", "running"), 0)
    for t in budgeted(trials):
        counts[t.status] += 1
    return counts | {"data": len(trials) - sum(counts.values())}


def _seconds(trials: Sequence[Trial]) -> dict[str, float]:
    kinds = ("fit", "acquisition", "evaluation")
    return {kind: sum(t.seconds.get(kind, 0.0) for t in trials) for kind in kinds}


# ---- tables --------------------------------------------------------------------------------------
def print_entries(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """The entries of a registry."""
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    # Where each was described fills the screen: it is in the JSON.
    columns = [c for c in (rows[0] if rows else {"name": ""}) if c not in ("paper", "source")]
    for column in columns:
        wraps = column in ("summary", "tags")
        table.add_column(column, no_wrap=not wraps, style="bold" if column == "name" else "")
    for row in rows:
        cells = (row[c] for c in columns)
        table.add_row(*(", ".join(c) if isinstance(c, list) else str(c) for c in cells))
    make_console().print(table)


def _front_size(n: int) -> str:
    return f"Pareto front: {n} trial{'' if n == 1 else 's'}"


def print_best(campaign: Campaign, console: Console | None = None) -> None:
    """The best trial, or the Pareto front with its hypervolume."""
    console = console or make_console()
    front = campaign.pareto_front()
    if not front:
        console.print(no_answer(campaign))
        return
    if len(campaign.spec.objectives) == 1:
        trial = campaign.best()
        if trial is not None:
            console.print(Text(f"best: trial {trial.index}", "bold"))
            for name in campaign.metrics:
                console.print(f"  {name} = {trial.measurements[name]}{unit(campaign, name)}")
            for name, value in trial.parameters.items():
                text = f"  {name} = {_number(value)}{unit(campaign, name)}"
                console.print(text, style="dim")
        return
    console.print(Text(_front_size(len(front)), "bold"))
    console.print(_trials_table(campaign, front, console))
    console.print(
        f"hypervolume: {campaign.hypervolume():.6g} (reference {campaign.reference_point()})"
    )


def print_trials(campaign: Campaign, trials: Sequence[Trial]) -> None:
    """Trials, one a row."""
    console = make_console()
    console.print(_trials_table(campaign, trials, console))


def heading(campaign: Campaign) -> Text:
    """What a campaign wants, and of what surrogate."""
    goals = ", ".join(
        [f"{o.direction} {o.name}" for o in campaign.spec.objectives]
        + [str(c) for c in campaign.spec.constraints]
    )
    return Text.assemble(
        (campaign.spec.name, "bold"), f": {goals}; surrogate {campaign.spec.surrogate}"
    )


def progress_line(campaign: Campaign, trials: Sequence[Trial]) -> str:
    """How many trials are done, and where the time went."""
    counts, seconds = _counts(trials), _seconds(trials)
    done = counts["completed"] + counts["abandoned"] + counts["stopped"]
    failed = f", {counts['abandoned']} of them without a result" if counts["abandoned"] else ""
    if counts["stopped"]:
        failed += f", {counts['stopped']} stopped early"
    times = ", ".join(f"{kind} {value:.1f} s" for kind, value in seconds.items())
    data = f", beside {counts['data']} measured before" if counts["data"] else ""
    if campaign.spec.space.fidelity is not None:
        limit = campaign.spec.budget_cost
        cost = sum(s.cost for s in spending(campaign.spec, budgeted(trials)))
        data += f", at a cost of {cost:g}" + ("" if limit is None else f" of {limit:g}")
    return f"{done} of {campaign.spec.budget} trials done{failed}{data} ({times})"


def print_spending(campaign: Campaign, console: Console, trials: Sequence[Trial]) -> None:
    """The trials by fidelity, and what they cost."""
    f = campaign.spec.space.fidelity
    if f is None:
        return
    table = Table(box=None, padding=(0, 2, 0, 0), title_justify="left")
    for column in (f.name + unit(campaign, f.name, " [{}]"), "trials", "cost"):
        table.add_column(column, justify="right")
    for s in spending(campaign.spec, budgeted(trials)):
        mark = " (target)" if s.value == f.target else ""
        table.add_row(f"{_number(s.value)}{mark}", str(s.trials), f"{s.cost:g}")
    console.print(table)


def no_answer(campaign: Campaign) -> str:
    """What to say where there is no best trial."""
    at = "".join(
        f" at the target {n} = {_number(v)}" for n, v in campaign.spec.space.target.items()
    )
    feasible = " that satisfies the constraints" if campaign.spec.constraints else ""
    return f"no completed trial{at}{feasible} yet"


def print_failures(console: Console, trials: Sequence[Trial]) -> None:
    """Trials without a result, those with the same reason together."""
    reasons: dict[str, list[int]] = {}
    for t in trials:
        if t.status == "abandoned":
            reasons.setdefault(str(t.reason), []).append(t.index)
    shown = list(reasons.items())[-FAILURES:]
    for reason, numbers in shown:
        which = f"trial{'s' if len(numbers) > 1 else ''} {listed(numbers)}"
        console.print(Text(f"{which} gave no result: {reason}", "red"))
    if len(reasons) > len(shown):
        console.print(f"and {len(reasons) - len(shown)} earlier reasons: see --json", style="red")


def listed(numbers: Sequence[int]) -> str:
    """Numbers in a row, the first dozen of them."""
    head = ", ".join(map(str, numbers[:12]))
    return head if len(numbers) <= 12 else f"{head} and {len(numbers) - 12} more"


def _trials_table(campaign: Campaign, trials: Sequence[Trial], console: Console) -> Table:
    """A column for each metric and parameter; where they do not fit, the points in one column."""
    measured = [m for m in campaign.metrics if any(t.measurements for t in trials)]
    names = campaign.spec.space.names

    def table(compact: bool) -> Table:
        table = Table(box=None, padding=(0, 2, 0, 0))
        table.add_column("trial", justify="right", style="bold")
        for name in measured if compact else (*measured, *names):
            table.add_column(name + unit(campaign, name, " [{}]"), justify="right")
        if compact:
            table.add_column("parameters", overflow="fold")
        for t in trials:
            metrics = [str(t.measurements[m]) if m in t.measurements else "" for m in measured]
            values = [_number(t.parameters[n]) if n in t.parameters else "" for n in names]
            table.add_row(
                str(t.index), *metrics, *([format_point(t.parameters)] if compact else values)
            )
        return table

    full = table(compact=False)
    unbounded = console.options.update(width=UNBOUNDED)
    width = console.measure(full, options=unbounded).maximum
    return full if width <= console.width else table(compact=True)


def unit(campaign: Campaign, name: str, form: str = " {}") -> str:
    """The unit of a parameter or metric in a form such as " [{}]"; nothing without one."""
    units = {p.name: getattr(p, "unit", "") for p in campaign.spec.space.parameters}
    units |= {o.name: o.unit for o in campaign.spec.objectives}
    return form.format(units[name]) if units.get(name) else ""


def format_point(parameters: Mapping[str, Value]) -> str:
    """A point on one line."""
    return ", ".join(f"{name}={_number(value)}" for name, value in parameters.items())


def _number(value: Value) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ---- the progress of a run -----------------------------------------------------------------------
def make_display(campaign: Campaign, stream: TextIO, *, as_json: bool, verbose: bool) -> Display:
    """The display that fits: JSON lines, live on a terminal, quiet elsewhere."""
    if as_json:
        return JsonLines(campaign, stream)
    if stream.isatty():
        return LiveDisplay(campaign, stream)
    return QuietDisplay(campaign, stream, verbose=verbose)


class Display(ABC):
    """Told of each event of a run; a context manager around it."""

    def __init__(self, campaign: Campaign, stream: TextIO) -> None:
        self.campaign = campaign
        self.stream = stream

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @abstractmethod
    def __call__(self, event: Event) -> None:
        """Show an event."""

    @abstractmethod
    def summarize(self, ending: Ending) -> None:
        """Show where the campaign stands when the run is over."""


class JsonLines(Display):
    """One JSON object a line: each event with its trial, then a summary."""

    def _write(self, data: Mapping[str, Any]) -> None:
        self.stream.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
        self.stream.flush()

    def __call__(self, event: Event) -> None:
        """Write the event."""
        trial = {} if event.trial is None else trial_json(event.trial)
        self._write({"event": event.kind, **trial})

    def summarize(self, ending: Ending) -> None:
        """Write the summary."""
        status = progress_json(self.campaign)
        self._write({"event": ending, **status, **best_json(self.campaign)})


class QuietDisplay(Display):
    """Nothing until the summary; with `verbose`, a line for each finished trial."""

    def __init__(self, campaign: Campaign, stream: TextIO, *, verbose: bool) -> None:
        super().__init__(campaign, stream)
        self.verbose = verbose

    def __call__(self, event: Event) -> None:
        """Print a finished trial."""
        if self.verbose and event.trial is not None and event.kind in FINISHED:
            self.stream.write(trial_line(event.trial, self.campaign.metrics) + "\n")
            self.stream.flush()

    def summarize(self, ending: Ending) -> None:
        """Print the summary."""
        _print_summary(self.campaign, make_console(self.stream), ending)


class LiveDisplay(Display):
    """The last trials, what is being done, and a bar, redrawn in place."""

    def __init__(self, campaign: Campaign, stream: TextIO) -> None:
        super().__init__(campaign, stream)
        self.console = make_console(stream)
        self.recent: deque[Trial] = deque(maxlen=RECENT)
        self.doing = "starting"
        self.failures = 0
        self.best = ""
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
        )
        finished = [t for t in budgeted(campaign.trials) if t.status != "running"]
        self.seconds = _seconds(finished)
        self.failures = sum(t.status == "abandoned" for t in finished)
        self.task = self.bar.add_task(
            campaign.spec.name, total=campaign.spec.budget, completed=len(finished)
        )
        self.live = Live(console=self.console, get_renderable=self.render, refresh_per_second=4)

    def __enter__(self) -> Self:
        self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.doing = ""
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Take an event into account."""
        trial = event.trial
        if event.kind == "asking" or trial is None:
            origin = "initial design" if self._in_design() else self.campaign.spec.surrogate
            self.doing = f"choosing the next point ({origin})"
        elif event.kind == "asked":
            self.doing = "evaluating"
        else:
            self.recent.append(trial)
            self.bar.advance(self.task)
            self.failures += event.kind == "abandoned"
            for kind in self.seconds:
                self.seconds[kind] += trial.seconds.get(kind, 0.0)
            self.best = _best_line(self.campaign)
        self.live.refresh()

    def _in_design(self) -> bool:
        return len(self.campaign.trials) < self.campaign.spec.initial_design_size

    def render(self) -> RenderableType:
        """What is on the screen now."""
        metrics = self.campaign.metrics
        lines = [
            Text(trial_line(t, metrics), STYLES[t.status], overflow="ellipsis", no_wrap=True)
            for t in self.recent
        ]
        times = ", ".join(f"{kind} {value:.1f} s" for kind, value in self.seconds.items())
        failed = f"; {self.failures} failed" if self.failures else ""
        state = Text(f"{times}{failed}" + (f"; {self.doing}" if self.doing else ""), "dim")
        return Group(*lines, Text(self.best, "bold"), self.bar, state)

    def summarize(self, ending: Ending) -> None:
        """Print the summary below."""
        _print_summary(self.campaign, self.console, ending)


def trial_line(trial: Trial, metrics: Sequence[str]) -> str:
    """A finished trial on one line."""
    if trial.status == "abandoned":
        result = "no result: " + " ".join((trial.reason or "").split())
    elif trial.status == "stopped":
        result = trial.reason or "stopped early"
    else:
        result = ", ".join(f"{name} = {trial.measurements[name]}" for name in metrics)
    return f"trial {trial.index} ({trial.origin}): {result}  [{format_point(trial.parameters)}]"


def _best_line(campaign: Campaign) -> str:
    if len(campaign.spec.objectives) > 1:
        return _front_size(len(campaign.pareto_front()))
    trial = campaign.best()
    if trial is None:
        if campaign.spec.space.fidelity is not None:
            return no_answer(campaign)
        return "no feasible trial yet" if campaign.spec.constraints else "no result yet"
    (objective,) = campaign.spec.objectives
    value = (
        f"{objective.value(trial.means):.6g}"
        if objective.weights
        else trial.measurements[objective.name]
    )
    return f"best: {objective.name} = {value} (trial {trial.index})"


def _print_summary(campaign: Campaign, console: Console, ending: Ending) -> None:
    trials = campaign.trials
    console.print(Text.assemble((campaign.spec.name, "bold"), f" {ending}"))
    console.print(progress_line(campaign, trials))
    console.print(f"stored in {campaign.database}", soft_wrap=True)
    if ending != "failed":
        print_failures(console, trials)
    print_best(campaign, console)
