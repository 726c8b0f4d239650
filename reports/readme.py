"""The generated parts of the README: `python -m reports.readme` writes them anew."""

from __future__ import annotations

import re
from pathlib import Path

from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES

README = Path(__file__).parent.parent / "README.md"
BEGIN = "<!-- surrogates: begin (python -m reports.readme) -->"
END = "<!-- surrogates: end -->"


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


def main() -> None:
    """Write the README anew."""
    README.write_text(with_table(README.read_text()))


if __name__ == "__main__":
    main()
