"""The command line, and the composition root: the one place that knows the library, the problems
and the reports (and, later, the studies).

Everything heavy is imported by the command that needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Mapping
from contextlib import redirect_stdout
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bo_surrogates import __version__
from bo_surrogates.errors import InputError, RunError, did_you_mean

if TYPE_CHECKING:
    from typer._click import Context

    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.campaign_file import Facts
    from bo_surrogates.campaign.spec import CampaignSpec
    from problems.base import Problem

USAGE, FAILURE, INTERRUPTED = 2, 1, 130  # exit codes


class _Commands(TyperGroup):
    """Turns what goes wrong into one line on standard error and an exit code."""

    def invoke(self, ctx: Context) -> Any:
        try:
            return super().invoke(ctx)
        except (InputError, RunError) as error:
            if ctx.params.get("debug"):
                raise
            complain(str(error))
            raise typer.Exit(USAGE if isinstance(error, InputError) else FAILURE) from error
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:
            unforeseen = not isinstance(error, typer.Exit | typer.Abort | OSError)
            if ctx.params.get("debug") or not unforeseen or _is_usage_error(error):
                raise
            complain(
                f"internal error ({type(error).__name__}: {error}); nothing recorded is lost. See "
                "where with 'bo-surrogates --debug ...', and please report it"
            )
            raise typer.Exit(FAILURE) from error


def _is_usage_error(error: Exception) -> bool:
    # Typer carries its own copy of Click, whose exceptions have no public name.
    return hasattr(error, "exit_code") and hasattr(error, "format_message")


app = typer.Typer(
    name="bo-surrogates",
    cls=_Commands,
    help="Bayesian optimization of expensive black boxes.\n\nDescribe what to optimize in a "
    "campaign file (TOML), then [bold]run[/bold] it, or [bold]ask[/bold] for points and "
    "[bold]tell[/bold] their results by hand. Every result is stored at once in a database next "
    "to the file, so a campaign can be stopped and [bold]resume[/bold]d at any time.",
    epilog="Exit codes: 0 done, 1 the run failed, 2 wrong usage or input, 130 interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Entry point of the `bo-surrogates` command."""
    app()


def complain(message: str) -> None:
    """One message on standard error."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text.assemble(("Error: ", "bold red"), message))


def note(message: str) -> None:
    """A remark on standard error, which leaves standard output to results."""
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True, soft_wrap=True).print(Text(message, "dim"))


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"bo-surrogates {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    pass


CampaignFile = Annotated[
    Path, typer.Argument(metavar="CAMPAIGN.toml", help="The campaign file.", show_default=False)
]
Target = Annotated[
    str,
    typer.Argument(
        metavar="CAMPAIGN", help="The campaign file or its database.", show_default=False
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="PATH",
        help="The database, where it is not next to the campaign file (as its name with .db).",
        show_default=False,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Which campaign, where a database holds several.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print a line a trial where there is no terminal.")
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Trials evaluated at a time, instead of what the campaign file says. The result does "
        "not depend on it.",
        show_default=False,
    ),
]


# ---- what problems and databases are called ------------------------------------------------------
def make_problem(name: str, options: Mapping[str, Any]) -> Problem:
    """The registered problem of that name, made with these options.

    Raises:
        InputError: Unknown name or option, or an option out of range.
    """
    from problems import PROBLEMS

    return PROBLEMS[name].make(**options)


def problem_facts(name: str, options: Mapping[str, Any]) -> Facts:
    """Space, objectives and constraints of a registered problem; raises as `make_problem`."""
    problem = make_problem(name, options)
    return problem.space, problem.objectives, problem.constraints


def read_spec(path: Path) -> CampaignSpec:
    """The campaign a file describes, with the problems known.

    Raises:
        InputError: See `read_campaign_file`.
    """
    from bo_surrogates.campaign.campaign_file import read_campaign_file

    return read_campaign_file(path, problem_facts)


def locate(target: str, database: str | None, name: str | None) -> tuple[str, str | None]:
    """The database that a campaign file or database given by the user means, and the name in it.

    Raises:
        InputError: A campaign file that cannot be read.
    """
    path = Path(target)
    if path.suffix.lower() != ".toml":
        if database is not None:
            raise InputError(
                f"{target!r} is taken as a database already; leave out --database, or give the "
                "campaign file (.toml)"
            )
        return target, name
    if name is None and path.exists():
        try:
            name = tomllib.loads(path.read_text(encoding="utf-8")).get("name", path.stem)
        except (OSError, ValueError) as error:
            raise InputError(f"{path}: cannot be read as TOML: {error}") from None
    elif database is None and not path.exists() and not path.with_suffix(".db").exists():
        raise InputError(f"no campaign file {target!r}; check the path")
    return database or str(path.with_suffix(".db")), name


def open_campaign(
    target: str, database: str | None, name: str | None, *, read_only: bool
) -> Campaign:
    """The stored campaign that the user means.

    Raises:
        InputError: There is none.
        RunError: It is being written by another process, or cannot be read.
    """
    from bo_surrogates.campaign.campaign import Campaign

    path, name = locate(target, database, name)
    return Campaign.open(path, name, read_only=read_only)


def start_campaign(path: Path, database: str | None) -> Campaign:
    """A new campaign from its file; its black box is checked before anything is stored.

    Raises:
        InputError: A mistake in the file, a black box that does not exist, or a campaign of that
            name in the database already.
    """
    from bo_surrogates.campaign.black_box import make_black_box
    from bo_surrogates.campaign.campaign import Campaign

    spec = read_spec(path)
    if spec.black_box is not None:
        make_black_box(
            spec.black_box, space=spec.space, metrics=spec.metrics, resolve_problem=make_problem
        )
    return Campaign.create(spec, locate(str(path), database, spec.name)[0])


# ---- commands ------------------------------------------------------------------------------------
class Listed(StrEnum):
    """What `list` lists."""

    surrogates = "surrogates"
    problems = "problems"


@app.command("list")
def list_entries(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    as_json: Json = False,
) -> None:
    """List the registered surrogates or problems, with what each is good for."""
    if what is Listed.surrogates:
        from bo_surrogates.surrogates import SURROGATES

        rows = [
            {
                "name": e.name,
                "summary": e.summary,
                "posterior": e.capabilities.posterior,
                "cost": e.capabilities.cost,
                "max_n": e.capabilities.max_n,
                "max_d": e.capabilities.max_d,
                "paper": e.paper,
            }
            for e in SURROGATES.values()
        ]
    else:
        from problems import PROBLEMS

        rows = [
            {
                "name": e.name,
                "summary": e.summary,
                "cost": e.cost,
                "tags": list(e.tags),
                "source": e.source,
            }
            for e in PROBLEMS.values()
        ]
    from bo_surrogates.cli_display import print_entries, print_json

    if as_json:
        print_json(rows)
    else:
        print_entries(what.value, rows)


@app.command()
def run(
    file: CampaignFile,
    database: Database = None,
    workers: Workers = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="Stop after N trials; resume later.", show_default=False
        ),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Start a campaign and run it until its budget is spent.

    Ctrl-C stops it; 'resume' continues. A campaign that was started before is never overwritten.
    """
    with start_campaign(file, database) as campaign:
        _run(campaign, trials, workers, as_json=as_json, verbose=verbose)


@app.command()
def resume(
    target: Target,
    database: Database = None,
    name: Name = None,
    workers: Workers = None,
    trials: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Extend the campaign's budget by N trials first, for good.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Continue a campaign until its budget is spent.

    Trials that were running when it stopped are run again. What the database holds counts, also
    where the campaign file was changed meanwhile.
    """
    with open_campaign(target, database, name, read_only=False) as campaign:
        _note_changes(campaign, Path(target))
        if trials is not None:
            campaign.extend(trials)
        elif not any(t.status == "running" for t in campaign.trials) and (
            len(campaign.trials) >= campaign.spec.budget
        ):
            note(
                f"campaign {campaign.spec.name!r} has spent its budget of {campaign.spec.budget} "
                "trials; extend it with --trials N"
            )
        _run(campaign, None, workers, as_json=as_json, verbose=verbose)


def _note_changes(campaign: Campaign, path: Path) -> None:
    if path.suffix.lower() != ".toml" or not path.exists():
        return
    stored, now = campaign.spec.to_dict(), read_spec(path).to_dict()
    changed = [key for key in stored if stored[key] != now[key] and key != "budget"]
    if changed:
        note(
            f"{path} has changed since the campaign was started ({', '.join(changed)}); the stored "
            "campaign counts. To use the file, start another with 'run --database'"
        )
    if now["budget"] != stored["budget"]:
        note(f"the stored budget of {stored['budget']} trials counts; extend it with --trials N")


def _run(
    campaign: Campaign, trials: int | None, workers: int | None, *, as_json: bool, verbose: bool
) -> None:
    from bo_surrogates.cli_display import make_display

    display = make_display(campaign, sys.stdout, as_json=as_json, verbose=verbose)
    try:
        # What the black box prints goes to standard error: standard output holds results only.
        with display, redirect_stdout(sys.stderr):
            campaign.run(
                trials=trials, workers=workers, on_event=display, resolve_problem=make_problem
            )
    except KeyboardInterrupt:
        display.summarize("interrupted")
        done = sum(t.status != "running" for t in campaign.trials)
        complain(
            f"interrupted; {done} finished trial(s) are stored in {campaign.database}. Continue "
            f"with: bo-surrogates resume {campaign.database}"
        )
        raise typer.Exit(INTERRUPTED) from None
    except RunError:
        display.summarize("failed")
        raise
    display.summarize("finished" if len(campaign.trials) >= campaign.spec.budget else "stopped")


@app.command()
def status(
    target: Target, database: Database = None, name: Name = None, as_json: Json = False
) -> None:
    """Show how far a campaign is, and what failed. Always possible, also while it runs."""
    from bo_surrogates.cli_display import print_json, print_status, status_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        if as_json:
            print_json(status_json(campaign))
        else:
            print_status(campaign)


@app.command()
def best(
    target: Target, database: Database = None, name: Name = None, as_json: Json = False
) -> None:
    """Show the best trial; with several objectives, the Pareto front and its hypervolume."""
    from bo_surrogates.cli_display import best_json, print_best, print_json

    with open_campaign(target, database, name, read_only=True) as campaign:
        if as_json:
            print_json(best_json(campaign))
        else:
            print_best(campaign)


@app.command()
def plot(
    target: Target,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False,
            help="Where to (.png, .svg or .pdf); next to the database as .png if not given.",
        ),
    ] = None,
    database: Database = None,
    name: Name = None,
) -> None:  # fmt: skip
    """Draw the best value so far; with several objectives, the Pareto front."""
    from reports.campaign_figure import draw_campaign
    from reports.style import save

    with open_campaign(target, database, name, read_only=True) as campaign:
        figure = draw_campaign(campaign)
        print(f"wrote {save(figure, output or campaign.journal.path.with_suffix('.png'))}")


@app.command()
def ask(
    target: Target,
    n: Annotated[int, typer.Option("--n", "-n", min=1, metavar="K", help="How many points.")] = 1,
    database: Database = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Propose points to evaluate by hand, and record them as running trials.

    Given a campaign file without a database yet, this starts the campaign.
    """
    from bo_surrogates.cli_display import print_json, print_trials, trial_json

    path, _ = locate(target, database, name)
    fresh = Path(target).suffix.lower() == ".toml" and not Path(path).exists()
    with (
        start_campaign(Path(target), database)
        if fresh
        else open_campaign(target, database, name, read_only=False)
    ) as campaign:
        asked = campaign.ask(n)
        if as_json:
            print_json([trial_json(t) for t in asked])
        else:
            print_trials(campaign, asked)
            metrics = " ".join(f"{m}=..." for m in campaign.metrics)
            note(f"report each: bo-surrogates tell {target} TRIAL {metrics}  (or --failed REASON)")


@app.command()
def tell(
    target: Target,
    index: Annotated[
        int, typer.Argument(metavar="TRIAL", help="The trial's number.", show_default=False)
    ],
    results: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="METRIC=VALUE...",
            help="Each metric's value; with a known standard error, METRIC=VALUE±SEM or "
            "METRIC=VALUE,SEM.",
            show_default=False,
        ),
    ] = None,
    failed: Annotated[
        str | None,
        typer.Option(
            metavar="REASON", help="The trial gave no result, and why.", show_default=False
        ),
    ] = None,
    database: Database = None,
    name: Name = None,
    as_json: Json = False,
) -> None:
    """Record the result of a running trial, or that it failed."""
    from bo_surrogates.cli_display import print_json, trial_json

    if (failed is None) == (not results):
        raise InputError(
            "tell takes either results (metric=value ...) or --failed REASON"
            + (", not both" if results else "")
        )
    with open_campaign(target, database, name, read_only=False) as campaign:
        if failed is not None:
            if not failed.strip():
                raise InputError("--failed needs a reason")
            trial = campaign.abandon(index, failed)
        else:
            trial = campaign.tell(index, parse_results(results or [], campaign.metrics))
        if as_json:
            print_json(trial_json(trial))
        else:
            print(f"trial {index} {trial.status}")


def parse_results(
    results: list[str], metrics: tuple[str, ...]
) -> dict[str, float | tuple[float, float | None]]:
    """`["yield=0.8±0.02"]` as `{"yield": (0.8, 0.02)}`.

    Raises:
        InputError: Not of that form, an unknown metric, or one given twice.
    """
    told: dict[str, float | tuple[float, float | None]] = {}
    for text in results:
        metric, equals, value = text.rpartition("=")
        metric = metric.strip()
        if not equals or not metric:
            raise InputError(f"cannot read {text!r}; write metric=value, e.g. {metrics[0]}=1.5")
        if metric not in metrics:
            raise InputError(f"unknown metric {metric!r}{did_you_mean(metric, metrics)}")
        if metric in told:
            raise InputError(f"metric {metric!r} is given twice")
        numbers = value.replace("+-", ",").replace("±", ",").split(",")
        try:
            read = [float(n) for n in numbers]
        except ValueError:
            read = []
        if len(read) not in (1, 2):
            raise InputError(
                f"metric {metric!r}: cannot read {value!r} as a number; write value, value±sem or "
                "value,sem"
            )
        told[metric] = read[0] if len(read) == 1 else (read[0], read[1])
    return told
