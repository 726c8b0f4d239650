"""`serve` and `work`: one campaign for many workers, on this machine or on others."""

from __future__ import annotations

import signal
from contextlib import redirect_stdout
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import (
    INTERRUPTED,
    Database,
    Device,
    Json,
    Name,
    Steal,
    Target,
    app,
    note,
)
from bo_surrogates.cli.targets import make_problem, open_or_start
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.campaign.trial import Trial

PORT = 8700
Token = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT", envvar="BO_SURROGATES_TOKEN", show_default=False, show_envvar=True,
        help="What workers must know to be let in.",
    ),
]  # fmt: skip


@app.command()
def serve(
    target: Target,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, metavar="N", help="The port to listen at; 0 is any that is free."
        ),
    ] = PORT,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="The address to listen at. Others than this machine's own (0.0.0.0 is all) are "
            "protected by a token, but not encrypted: use them in a network you trust.",
        ),
    ] = "127.0.0.1",
    token: Token = None,
    ahead: Annotated[
        int,
        typer.Option(
            min=0, max=1000, metavar="K",
            help="Ask for K more points than workers want, so that the next need not wait for a "
            "fit; they are chosen without the results that come in between.",
        ),
    ] = 0,
    silence: Annotated[
        float | None,
        typer.Option(
            min=1, metavar="SECONDS", show_default=False,
            help="Give a trial to another worker when its own has given no sign of life for so "
            "long. Only 'work' gives signs of life. Never, if not given.",
        ),
    ] = None,
    device: Device = None,
    database: Database = None,
    name: Name = None,
    steal: Steal = False,
) -> None:  # fmt: skip
    """Let many workers ask and tell one campaign, over HTTP, until Ctrl-C.

    The server is the campaign's one writer; 'status' and 'best' are possible meanwhile. Whatever
    happens to it, no result that it has acknowledged is lost: start it again, and workers go on.
    Given a campaign file without a database yet, this starts the campaign.
    """
    from bo_surrogates.campaign.serving.server import CampaignServer

    with (
        open_or_start(target, database, name, steal=steal, device=device) as campaign,
        CampaignServer(
            campaign, host=host, port=port, token=token, ahead=ahead, silence=silence
        ) as server,
    ):
        print(f"serving campaign {campaign.spec.name!r} at {server.url}", flush=True)
        if server.token is not None and token is None:
            print(f"token: {server.token}", flush=True)
        with_token = "" if server.token is None else " --token TOKEN"
        note(f"workers: bo-surrogates work {server.url}{with_token}; stop with Ctrl-C")
        signal.signal(signal.SIGTERM, _interrupt)  # stopped by a supervisor, as by Ctrl-C
        try:
            server.serve()
        except KeyboardInterrupt:
            note("stopping: requests under way are finished first")
        server.dispatcher.close()
        done = sum(t.status != "running" for t in campaign.trials)
        waiting = len(campaign.trials) - done
        print(f"stopped; {done} finished trial(s) are stored, {waiting} running")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@app.command()
def work(
    url: Annotated[
        str,
        typer.Argument(
            metavar="URL", help="The server's address, as 'serve' prints it.", show_default=False
        ),
    ],
    command: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", show_default=False,
            help="The program that evaluates, in place of the campaign's own black box.",
        ),
    ] = None,
    python: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION", show_default=False,
            help="The function that evaluates, in place of the campaign's own black box.",
        ),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Trials evaluated at a time.")
    ] = 1,
    trials: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Stop after N trials.", show_default=False),
    ] = None,
    token: Token = None,
    patience: Annotated[
        float,
        typer.Option(
            min=0, metavar="SECONDS", help="How long to try again where the server is silent."
        ),
    ] = 600.0,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Evaluate trials of a campaign on a server until its budget is spent.

    Without --command or --python, what the campaign names is run here: work for servers you trust.
    """
    import sys

    from bo_surrogates.campaign.serving.client import RemoteCampaign
    from bo_surrogates.campaign.spec import BlackBoxSource
    from bo_surrogates.cli.display import trial_json, trial_line

    if command is not None and python is not None:
        raise InputError("--command and --python both say what evaluates; give one of them")
    source: Any = None
    if command is not None:
        source = BlackBoxSource("command", command)
    elif python is not None:
        source = BlackBoxSource("python", python)
    campaign = RemoteCampaign(url, token=token, patience=patience)
    out = sys.stdout

    def show(trial: Trial) -> None:
        if as_json:
            import json

            text = json.dumps(trial_json(trial), ensure_ascii=False, allow_nan=False)
        else:
            text = trial_line(trial, campaign.metrics)
        print(text, file=out, flush=True)

    try:
        with redirect_stdout(sys.stderr):  # what the black box prints is no result
            done = campaign.work(
                source, workers=workers, trials=trials, on_trial=show,
                resolve_problem=make_problem,
            )  # fmt: skip
    except KeyboardInterrupt:
        note("interrupted; the trials under way here are still running for the server")
        raise typer.Exit(INTERRUPTED) from None
    if not as_json:
        print(f"{done} trial(s) done here; nothing more to do")
