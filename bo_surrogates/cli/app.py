"""The command's frame: how errors are told, exit codes, and the options that commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bo_surrogates import __version__
from bo_surrogates.errors import InputError, RunError

if TYPE_CHECKING:
    from typer._click import Context

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
        metavar="CAMPAIGN",
        help="The campaign file or its database (a path or a URL).",
        show_default=False,
    ),
]
Database = Annotated[
    str | None,
    typer.Option(
        metavar="PATH_OR_URL",
        help="The database, where it is not next to the campaign file (as its name with .db): "
        "another file, or postgresql://user@host/database.",
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
Steal = Annotated[
    bool,
    typer.Option(
        "--steal",
        help="Take the campaign over from a process on another machine that is shown to be dead.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Print a line a trial where there is no terminal.")
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Where surrogates are fitted, instead of where the campaign says: cpu, cuda, cuda:1. "
        "The result depends on it as on rounding.",
        show_default=False,
    ),
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
