"""The command line, and the composition root: the one place that knows the library, the problems,
the studies and the reports.

A file a group of commands; importing it registers them, in the order of `--help`. Everything heavy
is imported by the command that needs it, so that `--help` answers at once.
"""

# isort: off
from bo_surrogates.cli import entries, running, looking, explaining, asking, tables, serving
from bo_surrogates.cli import keeping, studying, reporting, tuning

# isort: on
from bo_surrogates.cli.app import app

__all__ = [
    "app", "asking", "entries", "explaining", "keeping", "looking", "main", "reporting", "running",
    "serving", "studying", "tables", "tuning",
]  # fmt: skip


def main() -> None:
    """Entry point of the `bo-surrogates` command."""
    app()
