from __future__ import annotations

import pytest

from bo_surrogates.errors import BoSurrogatesError, FitError, InputError, RunError, did_you_mean


@pytest.mark.parametrize(
    ("name", "known", "answer"),
    [
        ("ensembel", ["gp", "ensemble"], "; did you mean 'ensemble'?"),
        ("GP", ["gp", "nngp"], "; did you mean 'gp'?"),
        ("NNGP", ["gp", "nngp"], "; did you mean 'nngp'?"),
        ("qqq", ["gp", "nngp"], "; known: gp, nngp"),
        ("qqq", [], "; known: (none)"),
        (3, [1, 2], "; known: 1, 2"),
    ],
)
def test_the_nearest_name_is_suggested_else_all_are_listed(
    name: object, known: list[object], answer: str
) -> None:
    assert did_you_mean(name, known) == answer


def test_errors_are_caught_as_their_builtin_kinds_too() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(RunError, RuntimeError)
    assert issubclass(FitError, RunError)
    assert issubclass(InputError, BoSurrogatesError)
    assert issubclass(RunError, BoSurrogatesError)
