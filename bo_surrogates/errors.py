"""What can go wrong, as the user meets it.

Every error that a user's input or black box can cause is one of these two, and its text names
the thing, says what was expected and what to do. The command line turns `InputError` into exit
code 2 and `RunError` into exit code 1, without a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class BoSurrogatesError(Exception):
    """Base of all errors this package raises on purpose."""


class InputError(BoSurrogatesError, ValueError):
    """A mistake in what the user passed: a file, an argument, data, a configuration."""


class RunError(BoSurrogatesError, RuntimeError):
    """Correct input, but the work could not be done: a failed fit, a lost database, a lock."""


class SpaceExhausted(RunError):  # noqa: N818 - an end that a campaign may come to, not a mishap
    """Every point of a finite search space has been proposed."""


class FitError(RunError):
    """A surrogate could not be fitted to its data."""


class FitWarning(UserWarning):
    """A fit whose diagnostics failed: a model is there, but it should not be relied on."""


def did_you_mean(name: object, known: Iterable[object]) -> str:
    """`"; did you mean 'gp'?"` when `name` is close to a known name, else the known names."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    if not close:  # 'NNGP' or 'Nngp' are the right word in the wrong case
        close = [n for n in names if n.lower() == str(name).lower()][:1]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(names) or '(none)'}"
