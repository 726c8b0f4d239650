"""`study`: comparison studies, run and looked at."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import FAILURE, INTERRUPTED, Json, app, complain, note
from bo_surrogates.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from studies.run_folder import RunFolder
    from studies.study import Cell, Study

CELLS_ON_A_CLUSTER = 1000  # given to Dask at a time: its workers take them as they are free

study_app = typer.Typer(
    name="study",
    help="Comparison studies: surrogates on problems, over seeds. What a study compares is said in "
    "a study file (TOML); some come along ([bold]study list[/bold]).",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(study_app)

StudyTarget = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="The study file, or a shipped study's name.", show_default=False
    ),
]


@study_app.command("run")
def run(
    target: StudyTarget,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="The run's folder; runs/NAME if not given.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was interrupted, or to which the study adds seeds, "
            "surrogates, problems or iterations. Cells that failed are tried again.",
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Cells run at a time, each on one core; as many as there are cores if not given. "
            "The results do not depend on it.",
            show_default=False,
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(metavar="NAME", help="Where cells are run: processes, dask or in-process."),
    ] = "processes",
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Dask's scheduler (tcp://host:8786), or its scheduler file (.json). Its workers "
            "must see the run's folder.",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Run seeds 0 to N - 1 now: some of the study's, or more.",
            show_default=False,
        ),
    ] = None,
    problem: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="Run this problem only, now; repeatable.", show_default=False
        ),
    ] = None,
    surrogate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LABEL", help="Run this surrogate only, now; repeatable.", show_default=False
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print the cells, run nothing.")
    ] = False,
) -> None:
    """Run a study, several cells at a time, and store each iteration as soon as it is done.

    A cell is one surrogate on one problem with one seed. Ctrl-C stops; --resume continues where
    the run was stopped, or killed. A folder that holds a run is never overwritten.
    """
    from studies.run_folder import RunFolder
    from studies.study_file import find_study

    study = find_study(target)
    folder = RunFolder(output or Path("runs") / study.name)
    if seeds is not None:
        known = [*study.seeds, *(folder.read_study()[0].seeds if folder.exists else ())]
        study = replace(study, seeds=tuple(dict.fromkeys([*known, *range(seeds)])))
    chosen = _chosen(study, seeds, problem, surrogate)
    if dry_run:
        _show_cells(study.resolve(), chosen)
        return
    _run(study, folder, chosen, resume, workers, executor, scheduler, target)


def _chosen(
    study: Study, seeds: int | None, problems: list[str] | None, surrogates: list[str] | None
) -> Callable[[Cell], bool]:
    """Which cells to run now."""
    for what, labels, known in (
        ("problem", problems, [p.label for p in study.problems]),
        ("surrogate", surrogates, [s.label for s in study.surrogates]),
    ):
        for label in labels or ():
            if label not in known:
                raise InputError(
                    f"--{what}: the study has no {what} {label!r}{did_you_mean(label, known)}"
                )
    return lambda cell: (
        (seeds is None or cell.seed < seeds)
        and (not problems or cell.problem.label in problems)
        and (not surrogates or cell.surrogate.label in surrogates)
    )


def _run(
    study: Study,
    folder: RunFolder,
    chosen: Callable[[Cell], bool],
    resume: bool,
    workers: int | None,
    executor: str,
    scheduler: str | None,
    target: str,
) -> None:
    from bo_surrogates.cli.study_display import make_study_display
    from studies.runner import run_cells

    if workers is None:
        workers = {"dask": CELLS_ON_A_CLUSTER, "in-process": 1}.get(executor) or _cores()
    display = make_study_display(study.name, sys.stdout)
    again = f"bo-surrogates study run {target} --output {folder.shown} --resume"
    try:
        with display:
            failed = run_cells(
                study, folder, resume=resume, workers=workers, executor=executor,
                scheduler=scheduler, only=chosen, on_event=display,
            )  # fmt: skip
    except KeyboardInterrupt:
        complain(f"interrupted; every iteration that was done is stored. Continue with: {again}")
        raise typer.Exit(INTERRUPTED) from None
    display.summarize(folder)
    if failed:
        complain(
            f"{len(failed)} cell(s) failed, the others are not concerned; try these again with: "
            f"{again}"
        )
        raise typer.Exit(FAILURE)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # those this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _show_cells(study: Study, chosen: Callable[[Cell], bool]) -> None:
    from bo_surrogates.cli.study_display import print_cells

    cells = [c for c in study.cells if chosen(c)]
    print_cells(study, cells)


@study_app.command()
def status(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="The run's folder.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Show how far a run is and where its surrogates stand; also while it goes on."""
    from bo_surrogates.cli.display import print_json
    from bo_surrogates.cli.study_display import print_run, run_json
    from studies.results import load
    from studies.run_folder import RunFolder

    results = load(run)
    if as_json:
        print_json(run_json(results, running=RunFolder(run).is_running()))
    else:
        print_run(results, running=RunFolder(run).is_running())


@study_app.command("list")
def list_studies(as_json: Json = False) -> None:
    """List the studies that come along."""
    from bo_surrogates.cli.display import print_json
    from bo_surrogates.cli.study_display import print_studies
    from studies.study_file import shipped

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "problems": len(study.problems),
            "surrogates": len(study.surrogates),
            "seeds": len(study.seeds),
            "description": study.description,
        }
        for name, study in shipped().items()
    ]
    if as_json:
        print_json(rows)
        return
    print_studies(rows)
    note("Run one with: bo-surrogates study run NAME. 'study run NAME --dry-run' shows its cells")
