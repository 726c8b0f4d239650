"""Durable campaigns: ask, tell, run, resume.

    with Campaign.create(spec, "my.db") as campaign:
        campaign.run(my_function)
        print(campaign.best())

Every trial is committed to the journal before it is evaluated, and every result before anything
else happens. A campaign whose process dies is opened again and continues as if nothing had
happened: the trials that were running are run again, under the same seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from bo_surrogates.campaign import results
from bo_surrogates.campaign.execution.logs import log_file, log_files, log_folder
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.spending import trials_cost
from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.storage.archive import archive, read_archive, restore
from bo_surrogates.campaign.tables import Table, read_table, table_of
from bo_surrogates.campaign.trial import Measurement, Trial, budgeted
from bo_surrogates.campaign.trial_table import (
    Data,
    Outside,
    Told,
    columns_of,
    not_recorded,
    read_data,
    read_results,
    trials_frame,
)
from bo_surrogates.errors import InputError, RunError, SpaceExhausted, did_you_mean
from bo_surrogates.objective import metric_names
from bo_surrogates.threads import limited_threads

if TYPE_CHECKING:
    import pandas as pd

    from bo_surrogates.campaign.ax_bridge import AxBridge
    from bo_surrogates.campaign.execution.future_runner import AnyExecutor
    from bo_surrogates.campaign.model import CampaignModel
    from bo_surrogates.campaign.running import Event
    from bo_surrogates.campaign.storage import Report

Result = Mapping[str, float | tuple[float, float | None] | Measurement]


class Campaign:
    """A campaign in a database. Made by `create` or `open`; a context manager.

    Attributes:
        spec: What is optimized, and how.
        database: Where, as the user gave it.
        read_only: Whether this object may not write.
    """

    def __init__(
        self,
        journal: Journal,
        number: int,
        name: str,
        spec: CampaignSpec,
        *,
        read_only: bool,
        steal: bool = False,
    ) -> None:
        self.journal = journal
        self.spec = spec
        self.database = journal.label
        self.read_only = read_only
        self._id = number
        self._device: str | None = None
        self._bridge: AxBridge | None = None
        self._model: tuple[tuple[int, int], CampaignModel] | None = None
        self._found_nothing_new = False
        self._lock = None if read_only else journal.lock(number, name, steal=steal)

    @classmethod
    def create(cls, spec: CampaignSpec, database: str | Path) -> Self:
        """Start a campaign; the database is made where there is none.

        Args:
            spec: What is optimized, and how.
            database: A file path, or a URL (`postgresql://user@host/database`). One database
                holds any number of campaigns, each with a name of its own.

        Raises:
            InputError: A campaign of that name is there already, the database is not ours, the
                surrogate or its configuration is unknown, or its prior data are wrong.
            RunError: The database cannot be written.
        """
        spec = spec.resolved()
        data: Sequence[Trial] = ()
        if (prior := spec.prior_data) is not None:
            table = read_table(prior.file, names=columns_of(spec).names, decimal=prior.decimal)
            data = read_data(spec, table, prior.outside).trials
        journal = Journal(database, create=True)
        number = journal.create_campaign(spec.name, spec.to_dict(), data)
        return cls(journal, number, spec.name, spec, read_only=False)

    @classmethod
    def open(
        cls,
        database: str | Path,
        name: str | None = None,
        *,
        read_only: bool = False,
        steal: bool = False,
    ) -> Self:
        """Open a campaign that was started before.

        Args:
            database: Where it is.
            name: Which one, if the database holds several.
            read_only: Look without the right to write; always possible.
            steal: Take the right to write from another process that is shown to be dead. Needed
                only where its lock outlives it: on a network file system, or where PostgreSQL has
                not noticed yet that a machine is gone.

        Raises:
            InputError: No such database or campaign.
            RunError: Another process is writing it, and does not seem to be dead.
        """
        journal = Journal(database, read_only=read_only)
        try:
            number, name, data = journal.find_campaign(name)
            spec = CampaignSpec.from_dict(data)
            return cls(journal, number, name, spec, read_only=read_only, steal=steal)
        except BaseException:
            journal.close()
            raise

    @classmethod
    def restore(
        cls,
        archive: Mapping[str, Any],
        database: str | Path,
        name: str | None = None,
        *,
        source: str = "archive",
    ) -> Self:
        """Make a campaign anew from what `archive` gave: an equal one, in another database.

        Args:
            archive: The campaign.
            database: Where to; it is made where there is none.
            name: The campaign's new name; None: as it was.
            source: How messages call the archive.

        Raises:
            InputError: The archive is damaged or was made by a newer version, or there is a
                campaign of that name already. Nothing is recorded then.
        """
        archived = read_archive(archive, source)  # before a database is made for it
        journal = Journal(database, create=True)
        name = restore(journal, archived, name)
        number, name, data = journal.find_campaign(name)
        return cls(journal, number, name, CampaignSpec.from_dict(data), read_only=False)

    def archive(self) -> dict[str, Any]:
        """All of the campaign as JSON-able data, from which `restore` makes an equal one."""
        return archive(self.journal, self._id)

    def close(self) -> None:
        """Give up the right to write, and close the database."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self.read_only = True
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Campaign({self.spec.name!r} in {self.database}, {len(self.trials)} trials)"

    # ---- looking ---------------------------------------------------------------------------------
    @property
    def trials(self) -> list[Trial]:
        """All trials, by index, read from the journal."""
        return self.journal.trials(self._id)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that each result must hold."""
        return metric_names(self.spec.objectives, self.spec.constraints)

    @property
    def spent(self) -> int:
        """The trials that count against the budget: all but data."""
        return len(budgeted(self.trials))

    @property
    def spent_cost(self) -> float:
        """The cost of these trials, running ones and replicates included; 0 without a fidelity."""
        return trials_cost(self.spec, budgeted(self.trials))

    def left(self, budget: int | None = None) -> int:
        """How many trials may still be asked, within the budget and its cost.

        Args:
            budget: Another limit to the number of trials, instead of the campaign's.
        """
        trials, limit = budgeted(self.trials), self.spec.budget_cost
        if limit is not None and trials_cost(self.spec, trials) >= limit:
            return 0
        return max((self.spec.budget if budget is None else budget) - len(trials), 0)

    def best(self) -> Trial | None:
        """See `results.best`."""
        return results.best(self.spec, self.trials)

    def pareto_front(self) -> list[Trial]:
        """See `results.pareto_front`."""
        return results.pareto_front(self.spec, self.trials)

    def reference_point(
        self, reference: Mapping[str, float] | None = None
    ) -> results.ReferencePoint | None:
        """See `results.reference_point`."""
        return results.reference_point(self.spec, self.trials, reference)

    def hypervolume(self, reference: Mapping[str, float] | None = None) -> float:
        """See `results.hypervolume`."""
        return results.hypervolume(self.spec, self.trials, reference)

    def to_dataframe(self) -> pd.DataFrame:
        """One row a trial: point, result, status, reason, seconds, times, diagnostics.

        What `bo-surrogates export` writes; see `trial_table.py` for the columns.
        """
        return trials_frame(self.spec, self.trials)

    def model(self) -> CampaignModel:
        """The surrogate, fitted to the completed trials: the one the next ask would decide by.

        Fitted when first wanted, and again when there are new trials or results.

        Raises:
            InputError: Fewer than two trials are completed.
            FitError: The surrogate could not be fitted.
        """
        from bo_surrogates.campaign.model import fit_model

        trials = self.trials
        known = len(trials), sum(t.status == "completed" for t in trials)
        if self._model is None or self._model[0] != known:
            self._model = known, fit_model(self.spec, trials)
        return self._model[1]

    def predict(
        self,
        points: pd.DataFrame | Sequence[Mapping[str, Any]] | Mapping[str, Any],
        *,
        level: float = 0.9,
        noise: bool = False,
    ) -> pd.DataFrame:
        """Mean, standard deviation and central interval of each metric at points.

        See `CampaignModel.predict`; by default of the noise-free outcome.
        """
        return self.model().predict(points, level=level, noise=noise)

    # ---- ask and tell ----------------------------------------------------------------------------
    def _require_writer(self) -> None:
        if self.read_only:
            raise RunError(
                f"campaign {self.spec.name!r} is open read-only (or closed); open it with "
                "read_only=False to ask, tell or run"
            )

    def ask(self, n: int = 1, *, fixed: Mapping[str, object] | None = None) -> list[Trial]:
        """Propose n points and commit them as running trials.

        Trials that are still running are taken into account: their outcomes are awaited.

        Args:
            n: Number of points, >= 1.
            fixed: Values at which parameters are held for this ask, such as
                `{"solvent": "water"}`.

        Returns:
            The trials; fewer than n where a finite space holds fewer points that are untried.

        Raises:
            InputError: n is not a positive integer, or no point has the fixed values.
            SpaceExhausted: Every point has been tried or is running.
            RunError: A fit failed, or the campaign is read-only.
        """
        self._require_writer()
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise InputError(f"ask takes a positive number of trials, got {n!r}")
        held = self.spec.space.check_fixed(fixed)
        trials = self.trials
        bridge = self._ax()
        try:
            with limited_threads(1):
                suggestions = bridge.ask(n, trials, held)
        except SpaceExhausted:
            self._found_nothing_new = self._found_nothing_new or not held
            raise
        first = len(trials)
        asked = [
            Trial(first + i, s.parameters, "running", s.origin,
                  seconds=s.seconds, diagnostics=s.diagnostics)
            for i, s in enumerate(suggestions)
        ]  # fmt: skip
        self.journal.add_trials(self._id, asked)
        return self.trials[first:]  # as recorded

    @property
    def is_exhausted(self) -> bool:
        """Whether every point of a finite space has been tried or is running.

        Where there is a fidelity, at its target. A space whose equations leave its floats no
        freedom cannot be counted: it is exhausted once an ask has found nothing new in it.
        """
        if self._found_nothing_new:
            return True
        space = self.spec.space
        size = space.count(space.target) if space.target else space.size
        if size is None:
            return False
        trials = [t for t in self.trials if space.is_at_target(t.parameters)]
        if len(trials) < size:
            return False
        points = {tuple(t.parameters.items()) for t in trials}
        return sum(space.contains(dict(p)) for p in points) >= size

    def add_trial(self, parameters: Mapping[str, object]) -> Trial:
        """Commit a point of the user's own choice as a running trial.

        Raises:
            InputError: The point is not in the search space.
        """
        self._require_writer()
        trial = Trial(len(self.trials), self.spec.space.validate(parameters), "running", "manual")
        self.journal.add_trials(self._id, [trial])
        return self.trials[trial.index]

    def tell(self, index: int, result: Result, *, seconds: float | None = None) -> Trial:
        """Commit the result of a running trial. When this returns, it is on disk.

        Args:
            index: The trial.
            result: By metric: a value, or a pair of value and standard error.
            seconds: Time the evaluation took.

        Raises:
            InputError: An unknown or missing metric, a value that is no finite number, or a trial
                that does not exist or is finished.
        """
        self._require_writer()
        measurements = self.check_result(index, result)
        self._finish(index, measurements=measurements, seconds=seconds)
        return self.journal.trials(self._id, index)[0]

    def abandon(self, index: int, reason: str, *, seconds: float | None = None) -> Trial:
        """Commit that a running trial gave no result. Its point will be avoided.

        Args:
            index: The trial.
            reason: Why, for people.
            seconds: Time the evaluation took.

        Raises:
            InputError: The trial does not exist or is finished.
        """
        self._require_writer()
        self._finish(index, reason=reason, seconds=seconds)
        return self.journal.trials(self._id, index)[0]

    def stop(self, index: int, reason: str, *, seconds: float | None = None) -> Trial:
        """Commit that a running trial was ended early, on purpose; arguments as for `abandon`.

        It has no final value: it is never the best, and no surrogate is fitted to it. Its point
        is not proposed again.
        """
        self._require_writer()
        self._finish(index, reason=reason, seconds=seconds, status="stopped")
        return self.journal.trials(self._id, index)[0]

    def tell_table(self, table: str | Path | pd.DataFrame | Table) -> Told:
        """Commit the results in a table: a row a trial, with its number and its metrics.

        Rows without a result are left waiting; results recorded before are left alone. Either all
        of the table is right, and recorded at once, or nothing is.

        Args:
            table: A .csv, .json or .parquet file, or a DataFrame; see `trial_table.py` for the
                columns. Points that are there as well must be those that were asked.

        Raises:
            InputError: What is wrong with the table, all of it, by row and column.
        """
        self._require_writer()
        told = read_results(self.spec, self._table(table), self.trials)
        self.journal.finish_trials(self._id, told.finished)
        return told

    def add_data(
        self,
        data: str | Path | pd.DataFrame | Iterable[Mapping[str, Any]] | Table,
        *,
        outside: Outside = "refuse",
    ) -> Data:
        """Commit measurements that the campaign did not ask for: made before it, or elsewhere.

        They become finished trials of origin "data". The surrogate learns from them; they cost no
        budget, and completed ones count as trials of the initial design. Data recorded before are
        not recorded again. Either all of the data are right, and recorded at once, or nothing is.

        Args:
            data: A .csv, .json or .parquet file, a DataFrame, or mappings, with a column for each
                parameter and metric.
            outside: What is done with points outside the bounds, or against a parameter
                constraint: they are refused ("refuse"), or kept for the surrogate to learn from
                ("keep"). A kept point is never proposed, nor the best trial.

        Returns:
            The trials recorded now, and what was left out.

        Raises:
            InputError: What is wrong with the data, all of it, by row and column.
        """
        self._require_writer()
        read = read_data(self.spec, self._table(data), outside)
        trials = self.trials
        new = [
            replace(t, index=i)
            for i, t in enumerate(not_recorded(read.trials, trials), start=len(trials))
        ]
        self.journal.add_trials(self._id, new)
        return replace(read, trials=tuple(new), known=len(read.trials) - len(new))

    def _table(
        self, data: str | Path | pd.DataFrame | Iterable[Mapping[str, Any]] | Table
    ) -> Table:
        if isinstance(data, Table):
            return data
        if isinstance(data, str | Path):
            return read_table(data, names=columns_of(self.spec).names)
        return table_of(data)

    def _finish(
        self,
        index: int,
        *,
        measurements: Mapping[str, Measurement] | None = None,
        reason: str | None = None,
        seconds: float | None = None,
        status: str | None = None,
    ) -> None:
        if isinstance(index, bool) or not isinstance(index, int):
            raise InputError(f"a trial's index is an integer, got {index!r}")
        self.journal.finish_trial(
            self._id,
            index,
            measurements=measurements,
            reason=reason,
            seconds=None if seconds is None else {"evaluation": seconds},
            status=status,
        )

    def check_result(self, index: int, result: Result) -> dict[str, Measurement]:
        """A result as measurements of all metrics; raises as `tell`."""
        if not isinstance(result, Mapping):
            raise InputError(
                f"trial {index}: a result maps metrics to values, such as "
                f"{{{self.metrics[0]!r}: 1.5}}; got {result!r}"
            )
        for metric in result:
            if metric not in self.metrics:
                raise InputError(
                    f"trial {index}: unknown metric {metric!r}{did_you_mean(metric, self.metrics)}"
                )
        missing = [m for m in self.metrics if m not in result]
        if missing:
            raise InputError(
                f"trial {index}: metric {missing[0]!r} is missing; tell all of "
                f"{', '.join(self.metrics)} at once"
            )
        measurements = {}
        for metric in self.metrics:
            measurements[metric] = _measurement(index, metric, result[metric])
            if measurements[metric].sem is None and self.spec.noise.get(metric) == "known":
                raise InputError(
                    f"trial {index}: metric {metric!r} lacks its standard error, which is declared "
                    f'to come with every value (noise = {{{metric} = "known"}}); tell a pair of '
                    "value and standard error, such as (1.5, 0.1)"
                )
        return measurements

    def _ax(self) -> AxBridge:
        if self._bridge is None:
            # Ax takes seconds to import: only those who ask pay.
            from bo_surrogates.campaign.ax_bridge import AxBridge

            self._bridge = AxBridge(self.spec, self._device)
        return self._bridge

    def use_device(self, name: str | None) -> None:
        """Fit surrogates there from now on, in this process.

        Args:
            name: "cpu", "cuda", "cuda:1" and so on; None: where the specification says.

        Raises:
            InputError: This machine has no such device.
        """
        from bo_surrogates.device import usable_device

        usable_device(name or self.spec.device)
        self._device, self._bridge = name, None

    # ---- trials under way ------------------------------------------------------------------------
    def report(self, index: int, step: float, result: Result) -> None:
        """Commit what a running trial reports at a step of its evaluation.

        Args:
            index: The trial.
            step: How far it is, in a unit of the black box's own; a step reported again counts
                with its last report.
            result: By metric, any of them: a value, or a pair of value and standard error.

        Raises:
            InputError: A value that is no finite number, or no such running trial.
        """
        self._require_writer()
        if not math.isfinite(step):
            raise InputError(f"trial {index}: a step must be finite, got {step!r}")
        self.journal.add_progress(
            self._id, index, float(step), {m: _measurement(index, m, v) for m, v in result.items()}
        )

    def progress(self, index: int | None = None) -> dict[int, list[Report]]:
        """What trials have reported, by trial and in the order of steps."""
        return self.journal.progress(self._id, index)

    def add_replicate(self, index: int, repeat: int, result: Result) -> None:
        """Commit one of the repeated measurements of a running trial.

        Raises:
            InputError: As `tell`; or it has that repeat already.
        """
        self._require_writer()
        self.journal.add_replicate(self._id, index, repeat, self.check_result(index, result))

    def replicates(self, index: int) -> dict[int, dict[str, Measurement]]:
        """The repeated measurements of a trial so far: by repeat and metric."""
        return self.journal.replicates(self._id, index).get(index, {})

    def note_attempt(self, index: int, attempt: int) -> Trial:
        """Commit that a running trial is evaluated anew; what it had reported is dropped."""
        self._require_writer()
        self.journal.note_attempt(self._id, index, attempt)
        return self.journal.trials(self._id, index)[0]

    @property
    def log_folder(self) -> Path:
        """Where what trials print is kept: a file a trial."""
        # Of a database that is no file, in the current directory.
        path = self.journal.path or Path(self.journal.database.engine.url.database or "campaigns")
        return log_folder(path, self.spec.name)

    def note_log(self, index: int) -> None:
        """Commit that a trial has left a log."""
        self._require_writer()
        path = log_file(self.log_folder, index)
        self.journal.note_log(self._id, index, str(Path(*path.parts[-3:])))

    def log(self, index: int) -> str:
        """What a trial printed, attempt after attempt; empty if nothing.

        Raises:
            InputError: There is no such trial.
        """
        kept = self.journal.log(self._id, index)
        # A trial that is running, or whose campaign was killed meanwhile, has not noted it yet.
        folder = self.log_folder if kept is None else (self.log_folder.parents[1] / kept).parent
        files = log_files(folder, index)
        return "".join(path.read_text(encoding="utf-8", errors="replace") for path in files)

    # ---- running ---------------------------------------------------------------------------------
    def extend(self, trials: int) -> None:
        """Raise the budget by a number of trials, for good.

        If its cost is limited, that limit is raised by the cost of so many trials at the target.

        Raises:
            InputError: Not a positive integer.
        """
        self._require_writer()
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 1:
            raise InputError(f"a budget is extended by a positive number of trials, got {trials!r}")
        changes: dict[str, Any] = {"budget": self.spec.budget + trials}
        f = self.spec.space.fidelity
        if self.spec.budget_cost is not None and self.spec.fidelity is not None and f is not None:
            further = trials * self.spec.replicates * self.spec.fidelity.target_cost(f)
            changes["budget_cost"] = self.spec.budget_cost + further
        self.spec = replace(self.spec, **changes)
        self.journal.update_spec(self._id, self.spec.to_dict())
        if self._bridge is not None:
            self._bridge.spec = self.spec

    def run(
        self,
        black_box: Callable[..., Any] | None = None,
        *,
        trials: int | None = None,
        workers: int | None = None,
        executor: str | AnyExecutor | None = None,
        scheduler: str | None = None,
        asynchronous: bool | None = None,
        on_event: Callable[[Event], None] | None = None,
        resolve_problem: Callable[..., Any] | None = None,
    ) -> None:
        """Ask, evaluate and tell until the budget is spent.

        Trials left running by an earlier process are evaluated again first (or abandoned, by the
        campaign's `on_interrupt`). Points are asked in batches of the campaign's batch size, and a
        batch is finished before the next is asked, so the course of a campaign depends neither on
        the number of workers nor on the executor. An asynchronous run asks for the next point as
        soon as a worker is free, with the running ones pending: then its course depends on the
        order of completion.

        Args:
            black_box: Called with the parameters as keywords; returns a number (of the one
                objective) or a mapping of metrics to numbers or (value, standard error) pairs.
                None: the campaign's own black box.
            trials: Stop after this many more, even if the budget is not spent.
            workers: Trials evaluated at a time; None: the campaign's own number.
            executor: "in-process", "processes", "dask", or any executor with the interface of
                `concurrent.futures.Executor` (it is not shut down); None: the campaign's own.
            scheduler: Of Dask; None: the campaign's own.
            asynchronous: None: as the campaign says.
            on_event: Told of each step.
            resolve_problem: Turns the name of a problem and its options into an object with
                `evaluate(parameters, seed)`.

        Raises:
            InputError: The campaign has no black box, or it cannot take the parameters.
            RunError: Too many trials failed in a row, or nothing is left to propose.
        """
        from bo_surrogates.campaign.running import RunOptions, resolve_black_box, run

        self._require_writer()
        box = resolve_black_box(self, black_box, resolve_problem)
        run(self, box, RunOptions(trials, workers, executor, scheduler, asynchronous, on_event))


def _measurement(index: int, metric: str, value: Any) -> Measurement:
    try:
        if isinstance(value, Measurement):
            return value
        if isinstance(value, Sequence) and not isinstance(value, str):
            return Measurement(*value)
        return Measurement(value)
    except (InputError, TypeError) as error:
        text = (
            str(error)
            if isinstance(error, InputError)
            else (f"expected a value or a pair (value, standard error), got {value!r}")
        )
        raise InputError(
            f"trial {index}, metric {metric!r}: {text}; if the experiment failed, abandon "
            "the trial with a reason"
        ) from error
