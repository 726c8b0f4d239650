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
    """The registry as a Markdown table."""
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


def with_table(text: str) -> str:
    """A README's text with the table between its markers brought up to date.

    Raises:
        InputError: The markers are missing.
    """
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    if not pattern.search(text):
        raise InputError(f"the README lacks the markers {BEGIN!r} and {END!r}")
    return pattern.sub(lambda _: f"{BEGIN}\n{surrogate_table()}\n{END}", text)


def main() -> None:
    """Write the README anew."""
    README.write_text(with_table(README.read_text()))


if __name__ == "__main__":
    main()
