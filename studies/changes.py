"""What may differ between a run and the study that goes on with it.

More seeds, surrogates, problems and iterations add cells or lengthen them. Whatever decides the
course of cells that are there may not change, and none may be dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studies.study import ProblemArm, Study, SurrogateArm


def forbidden_changes(before: Study, after: Study) -> list[str]:
    """What has changed that must not, for people; both studies resolved."""
    found = _differences("acquisition", before.acquisition.to_dict(), after.acquisition.to_dict())
    problems = {p.label: p for p in after.problems}
    surrogates = {s.label: s for s in after.surrogates}
    for problem in before.problems:
        found += _problem(problem, problems.get(problem.label))
    for surrogate in before.surrogates:
        found += _surrogate(surrogate, surrogates.get(surrogate.label))
    gone = [seed for seed in before.seeds if seed not in after.seeds]
    if gone:
        found.append(f"seeds: {_listed(gone)} no longer there (run a part by --seeds N)")
    return found


def _problem(before: ProblemArm, after: ProblemArm | None) -> list[str]:
    what = f"problem {before.label!r}"
    if after is None:
        return [f"{what}: no longer there (run a part by --problem)"]
    if before.problem != after.problem:
        return [f"{what}: was {before.problem!r}, is {after.problem!r}"]
    found = _differences(what, before.config, after.config)
    found += _differences(
        what, {"initial": before.initial, "q": before.q}, {"initial": after.initial, "q": after.q}
    )
    if (after.iterations or 0) < (before.iterations or 0):
        found.append(f"{what}: iterations {before.iterations} -> {after.iterations} (only more)")
    return found


def _surrogate(before: SurrogateArm, after: SurrogateArm | None) -> list[str]:
    what = f"surrogate {before.label!r}"
    if after is None:
        return [f"{what}: no longer there (run a part by --surrogate)"]
    if before.surrogate != after.surrogate:
        return [f"{what}: was {before.surrogate!r}, is {after.surrogate!r}"]
    return _differences(what, before.config, after.config)


def _differences(what: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    keys = dict.fromkeys([*before, *after])
    return [
        f"{what}: {key} {before.get(key)!r} -> {after.get(key)!r}"
        for key in keys
        if before.get(key) != after.get(key)
    ]


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers)) + (" is" if len(numbers) == 1 else " are")
