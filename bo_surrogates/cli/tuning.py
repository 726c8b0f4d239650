"""`tune`: a documented network tuned by a campaign with sensible defaults, and trained again."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bo_surrogates.cli.app import INTERRUPTED, Verbose, app, complain, note
from bo_surrogates.cli.entries import parse_options
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.running import Event
    from studies.tuning import Tuned
    from studies.tuning.tune import Watch

FIGURE = "front.png"


@app.command()
def tune(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", show_default=False,
            help="What to tune: a documented network ('list problems --tag documented').",
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Argument(metavar="", hidden=True, show_default=False),
    ] = None,
    surrogate: Annotated[
        str, typer.Option(metavar="NAME", help="The surrogate ('list surrogates').")
    ] = "gp",
    budget: Annotated[int, typer.Option(min=1, metavar="N", help="Trials in all.")] = 30,
    objectives: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC...", show_default=False,
            help="What is minimized, such as error log_bits; what the problem does by default if "
            "not given.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trials at a time, and proposed at a time.")
    ] = 2,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn at random.")] = 0,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-o", metavar="OPTION=VALUE", show_default=False,
            help="An option of the problem, e.g. epochs=20; repeatable. 'show problem NAME' lists "
            "them.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", show_default=False,
            help="Where results are kept; NAME-tuning if not given. A folder that holds the same "
            "campaign is continued.",
        ),
    ] = None,
    compare: Annotated[
        Literal["random"] | None,
        typer.Option(show_default=False, help="What to run beside it with the same budget."),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=2, metavar="N", show_default=False,
            help="Compare: tune with the seeds 0 to N - 1, each beside a random search and the "
            "published default, and score what they choose on the test part.",
        ),
    ] = None,
    retrain: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="Tune nothing: train the network of a configuration (best.toml, front/1.toml).",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:  # fmt: skip
    """Tune a documented network, save what was found, and train the best.

    The folder gets the trials and the front (trials.csv, front.csv, front.png), configurations that
    train again (best.toml; with several objectives also front/1.toml, ...), and the network of
    best.toml (model.safetensors, model.json). The published default is the first trial.
    """
    if retrain is not None:
        _retrain(name, retrain, output or retrain.parent)
        return
    if name is None:
        from problems.documented.trained_model import tuning_problems

        raise InputError(f"name what to tune: one of {', '.join(tuning_problems())}")
    options = parse_options(option or [], _entry(name).options)
    wanted = [*(objectives or []), *(more or [])]
    if more and not objectives:
        raise InputError(
            f"unexpected argument {more[0]!r}; options are given as --set option=value"
        )
    if wanted:
        if "objectives" in options:
            raise InputError("objectives are given twice: by --objectives and by --set")
        options["objectives"] = [w for text in wanted for w in text.replace(",", " ").split()]
    settings: dict[str, Any] = {
        "problem": name,
        "options": options,
        "surrogate": surrogate,
        "budget": budget,
        "workers": workers,
    }
    if seeds is not None:
        _compare(output or Path(f"{name}-comparison"), seeds, verbose=verbose, **settings)
        return
    folder = output or Path(f"{name}-tuning")
    _tune(folder, verbose=verbose, seed=seed, random=compare == "random", **settings)


def _entry(name: str) -> Any:
    from problems import PROBLEMS

    return PROBLEMS[name]


def _tune(folder: Path, *, verbose: bool, **settings: Any) -> None:
    from reports.style import save
    from reports.tuning_figure import draw_tuning
    from studies.tuning import retrain, tune

    with _kept(folder):
        tuned = tune(folder=folder, watch=_watch(verbose), **settings)
        save(draw_tuning(tuned), folder / FIGURE)
        note("training the network of best.toml")
        _, description = retrain(tuned.front[0], folder)
    _say(tuned)
    _print_scores(description.scores)


def _compare(folder: Path, seeds: int, *, verbose: bool, **settings: Any) -> None:
    from reports.tuning_report import write_tuning_report
    from studies.tuning import TuneSettings, compare_tuning

    with _kept(folder):
        table = compare_tuning(folder=folder, seeds=range(seeds), watch=_watch(verbose), **settings)
    path = write_tuning_report(
        folder, TuneSettings(**settings), table, command=_command(sys.argv[1:])
    )
    print(f"\n{path.read_text(encoding='utf-8')}\nwrote {path}")


def _command(arguments: list[str]) -> str:
    """The command as given, but for where its results are kept: that is the reader's own."""
    kept = [
        word
        for before, word in zip(["", *arguments], arguments, strict=False)
        if "--output" not in (before, word) and not word.startswith("--output=")
    ]
    return shlex.join(["bo-surrogates", *kept])


@contextmanager
def _kept(folder: Path) -> Iterator[None]:
    """Say what an interruption leaves."""
    try:
        yield
    except KeyboardInterrupt:
        complain(f"interrupted; finished trials are kept in {folder}. The same command continues")
        raise typer.Exit(INTERRUPTED) from None


def _watch(verbose: bool) -> Watch:
    @contextmanager
    def watch(campaign: Campaign) -> Iterator[Callable[[Event], None]]:
        from bo_surrogates.cli.display import make_display

        display = make_display(campaign, sys.stdout, as_json=False, verbose=verbose)
        try:
            with display, redirect_stdout(sys.stderr):
                yield display
        except KeyboardInterrupt:
            display.summarize("interrupted")
            raise
        display.summarize("finished")

    return watch


def _say(tuned: Tuned) -> None:
    found = "best.toml" if len(tuned.front) == 1 else f"front/1.toml to {len(tuned.front)}.toml"
    print(
        f"\nwrote {tuned.folder}: {found}, front.csv, {FIGURE}, model.safetensors. Train another: "
        f"bo-surrogates tune --retrain {tuned.folder / found.split(' ')[0]}"
    )


def _retrain(name: str | None, file: Path, folder: Path) -> None:
    from studies.tuning import read_configuration, retrain

    configuration = read_configuration(file)
    if name is not None and name != configuration.problem:
        raise InputError(f"{file} is a configuration of {configuration.problem!r}, not of {name!r}")
    _, description = retrain(configuration, folder)
    print(f"wrote {folder / 'model.safetensors'} and {folder / 'model.json'}")
    _print_scores(description.scores)


def _print_scores(scores: Any) -> None:
    for part, values in scores.items():
        print(f"{part}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items()))
