"""`list` and `show`: what is registered."""

from __future__ import annotations

import shutil
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.cli.app import Json, app, note
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from problems.base import Problem
    from problems.registry import ProblemEntry


WIDE = 120  # characters of a terminal on which `list problems` says more


class Listed(StrEnum):
    """What `list` lists."""

    surrogates = "surrogates"
    problems = "problems"


class Shown(StrEnum):
    """What `show` shows one of."""

    surrogate = "surrogate"
    problem = "problem"


@app.command("list")
def list_entries(
    what: Annotated[Listed, typer.Argument(help="What to list.", show_default=False)],
    tag: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TAG",
            help="Only problems with this tag, such as constrained or mixed; repeatable.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the registered surrogates or problems, with what each is good for."""
    from bo_surrogates.cli.display import print_entries, print_json

    rows = _surrogates(tag) if what is Listed.surrogates else _problems(tag)
    if as_json:
        print_json(rows)
    elif what is Listed.surrogates:
        print_entries(what.value, rows)
    else:
        print_entries(what.value, [_short(r) for r in rows])
        for r in rows:
            if r["needs"]:
                note(r["needs"])


def _surrogates(tag: list[str] | None) -> list[dict[str, Any]]:
    from bo_surrogates.surrogates import SURROGATES

    if tag:
        raise InputError("only problems have tags; leave out --tag")
    return [
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


def _problems(tag: list[str] | None) -> list[dict[str, Any]]:
    from bo_surrogates.errors import did_you_mean
    from problems import PROBLEMS
    from problems.card import row

    known = sorted({t for e in PROBLEMS.values() for t in e.tags})
    for one in tag or ():
        if one not in known:
            raise InputError(f"unknown tag {one!r}{did_you_mean(one, known)}")
    return [row(e) for e in PROBLEMS.values() if set(tag or ()) <= set(e.tags)]


def _short(row: dict[str, Any]) -> dict[str, Any]:
    """A problem's row as it fits on a line of 80 characters; with the summary on a wide one."""
    goals = row["objectives"] or []
    counts = [(k, sum(g.startswith(k) for g in goals)) for k in ("minimize", "maximize")]
    kind = (row["inputs"] or "?").split()[-1] if "," not in (row["inputs"] or "") else "mixed"
    short = {
        "name": row["name"],
        "inputs": f"{row['dimension'] or '?'} {kind}",
        "goal": ", ".join(f"{n} {k[:3]}" for k, n in counts if n) or "?",
        "s.t.": row["constraints"] or "",
        "cost": row["cost"],
        "optimum": "" if row["optimum"] is None else f"{row['optimum']:.6g}",
    }
    if shutil.get_terminal_size().columns >= WIDE:
        short |= {"noise": row["noise"] or "?", "summary": row["summary"]}
    return short


@app.command()
def show(
    what: Annotated[Shown, typer.Argument(help="What to show.", show_default=False)],
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option", "-o", metavar="KEY=VALUE", show_default=False,
            help="An option of the problem, e.g. dim=3; repeatable.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", show_default=False,
            help="Where to draw it (.png, .svg or .pdf); as NAME.png if not given.",
        ),
    ] = None,
    picture: Annotated[
        bool, typer.Option("--picture/--no-picture", help="Whether to draw the problem.")
    ] = True,
) -> None:  # fmt: skip
    """Show all there is to know about a problem or a surrogate, and draw the problem.

    A problem of one input is drawn as a curve, of two as a map, any other by slices through its
    best known point. One that takes a second or more an evaluation is drawn only if --output is
    given: a picture is tens of evaluations.
    """
    if what is Shown.surrogate:
        if option or output:
            raise InputError("show surrogate takes a name only")
        print(_surrogate_card(name))
        return
    from problems import PROBLEMS
    from problems.card import card

    entry = PROBLEMS[name]
    problem = entry.make(**parse_options(option or [], entry.options))
    print(card(entry, problem))
    if picture and (output is not None or entry.cost == "< 1 s"):
        print(f"\nwrote {_draw(entry, problem, output or Path(f'{name}.png'))}")


def _draw(entry: ProblemEntry, problem: Problem, output: Path) -> Path:
    from bo_surrogates.threads import limited_threads
    from reports.problem_figure import draw_problem
    from reports.style import save

    with limited_threads(1):
        figure = draw_problem(entry.name, problem, 1.0 if entry.cost == "< 1 s" else 0.05)
    return save(figure, output)


def _surrogate_card(name: str) -> str:
    from dataclasses import asdict

    from bo_surrogates.surrogates import SURROGATES

    entry = SURROGATES[name]
    lines = [f"{entry.name}: {entry.summary}", f"source: {entry.paper}", "capabilities:"]
    lines += [f"  {k}: {v}" for k, v in asdict(entry.capabilities).items()]
    lines.append("configuration ([surrogate] in a campaign file):")
    lines += [f"  {k} = {v!r}" for k, v in entry.config_class().to_dict().items()]
    return "\n".join(lines)


def parse_options(options: list[str], known: Any) -> dict[str, Any]:
    """`["dim=3", "shifted=false"]` as `{"dim": 3, "shifted": False}`, by TOML's rules.

    Text need not be quoted.

    Raises:
        InputError: Not of that form, or an option given twice.
    """
    import tomllib

    found: dict[str, Any] = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"cannot read option {text!r}; write key=value, e.g. {example(known)}")
        if key in found:
            raise InputError(f"option {key!r} is given twice")
        try:
            found[key] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            found[key] = value
    return found


def example(known: Any) -> str:
    """One of the known options as the user would write it."""
    return next((f"{k}={v}" for k, v in known.items() if v is not None), "noise_std=0.1")
