"""The generated parts of the READMEs: `python -m reports.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS
from problems.card import row

GOALS = ("minimize", "maximize")

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- surrogates: begin (python -m reports.readme) -->"
END = "<!-- surrogates: end -->"
PROBLEMS_README = README.parent / "problems" / "README.md"
PROBLEMS_BEGIN = "<!-- problems: begin (python -m reports.readme) -->"
PROBLEMS_END = "<!-- problems: end -->"


def surrogate_table() -> str:
    """The registry as a Markdown table, by name."""
    lines = [
        "| name | what it is | posterior | practical to | one fit | source |",
        "|---|---|---|---|---|---|",
    ]
    for entry in SURROGATES.values():
        c = entry.capabilities
        lines.append(
            f"| `{entry.name}` | {entry.summary} | {c.posterior} | n {c.max_n:,}, d {c.max_d:,} | "
            f"{c.cost} | {entry.paper} |"
        )
    return "\n".join(lines)


def between(text: str, begin: str, end: str, body: str) -> str:
    """A text with what stands between two markers replaced.

    Raises:
        InputError: The markers are missing.
    """
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"the text lacks the markers {begin!r} and {end!r}")
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def with_table(text: str) -> str:
    """A README's text with the table of surrogates brought up to date.

    Raises:
        InputError: Its markers are missing.
    """
    return between(text, BEGIN, END, surrogate_table())


def problem_table() -> str:
    """The registry of problems as a Markdown table, by name.

    Raises:
        RunError: A problem needs a package that is not installed.
    """
    lines = [
        "| name | what it is | inputs | objectives | constraints | noise | one evaluation "
        "| optimum | source |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for entry in PROBLEMS.values():
        r = row(entry)
        if r["needs"]:
            raise RunError(r["needs"])
        goals = [(k, sum(o.startswith(k) for o in r["objectives"])) for k in GOALS]
        best = "" if r["optimum"] is None else f"{r['optimum']:.6g}"
        noise = {"optional": "opt.", "own": "own"}.get(r["noise"], "")
        lines.append(
            f"| `{entry.name}` | {entry.summary} | {r['inputs']} "
            f"| {', '.join(f'{n} {k[:3]}' for k, n in goals if n)} | {r['constraints'] or ''} | "
            f"{noise} | {entry.cost} | {best} | {entry.source} |"
        )
    return "\n".join(lines)


def with_problems(text: str) -> str:
    """The text of the problems' README with their table brought up to date.

    Raises:
        InputError: Its markers are missing.
    """
    return between(text, PROBLEMS_BEGIN, PROBLEMS_END, problem_table())


def main() -> None:
    """Write the READMEs anew."""
    README.write_text(with_table(README.read_text()))
    PROBLEMS_README.write_text(with_problems(PROBLEMS_README.read_text()))


if __name__ == "__main__":
    main()
