"""The study file: a TOML file that says what is compared. `studies/README.md` describes it.

    name = "mine"
    seeds = 5                          # or a list of them
    iterations = 20

    [acquisition]
    num_restarts = 8

    [[problems]]
    name = "ackley"
    label = "Ackley-10"                # the name if left out
    options = { dim = 10 }
    iterations = 40                    # instead of the study's

    [[surrogates]]
    name = "gp"

    [[surrogates]]
    name = "gp"
    label = "gp, Matern"
    kernel = "matern"

A mistake raises one `InputError` that names the file, the table and the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.toml_file import (
    at,
    check_keys,
    check_numbers,
    read_toml,
    required,
    table,
    tables,
)
from studies.study import ProblemArm, Study, SurrogateArm

SETTINGS = ("description", "initial", "q", "iterations", "beyond_practical")
TOP_LEVEL = ("name", "seeds", *SETTINGS, "acquisition", "problems", "surrogates")
PROBLEM_KEYS = ("name", "label", "options", "initial", "q", "iterations")

_check_keys = partial(check_keys, top_level=TOP_LEVEL)


def read_study(path: str | Path) -> Study:
    """Read a study file; see `Study.resolve` for what is checked later.

    Raises:
        InputError: The file cannot be read, or holds a mistake.
    """
    path = Path(path)
    return study_from_mapping(read_toml(path, "study file"), str(path), default_name=path.stem)


def study_from_mapping(
    data: Mapping[str, Any], source: str = "study", default_name: str = "study"
) -> Study:
    """A study from a study file's content.

    Args:
        data: As `tomllib` gives it.
        source: How messages call the file.
        default_name: The study's name where the content gives none.

    Raises:
        InputError: Whatever is wrong with the content.
    """
    with at(source):
        check_numbers(data)
        _check_keys(data, TOP_LEVEL)
        with at("[acquisition]"):
            acquisition = AcquisitionConfig.from_dict(table(data, "acquisition"))
        return Study.of(
            [_problem(one, where) for where, one in _arms(data, "problems")],
            [_surrogate(one, where) for where, one in _arms(data, "surrogates")],
            name=data.get("name", default_name),
            seeds=required(data, "seeds", "their number, or a list of them"),
            acquisition=acquisition,
            **{key: data[key] for key in SETTINGS if key in data},
        )


def _arms(data: Mapping[str, Any], key: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Tables `[[key]]`, or a list of names where defaults will do."""
    found = data.get(key)
    if isinstance(found, list) and found and all(isinstance(one, str) for one in found):
        return [(f"{key} {name!r}", {"name": name}) for name in found]
    return tables(data, key)


def _problem(one: Mapping[str, Any], where: str) -> ProblemArm:
    with at(where):
        _check_keys(one, PROBLEM_KEYS, "of a problem (its own options go into options = {...})")
        name = _name(one, "a registered problem's name")
        return ProblemArm(
            label=one.get("label", name),
            problem=name,
            config=table(one, "options"),
            **{key: one[key] for key in ("initial", "q", "iterations") if key in one},
        )


def _surrogate(one: Mapping[str, Any], where: str) -> SurrogateArm:
    with at(where):
        name = _name(one, "a registered surrogate's name")
        config = {key: value for key, value in one.items() if key not in ("name", "label")}
        return SurrogateArm(one.get("label", name), name, config)


def _name(one: Mapping[str, Any], expected: str) -> str:
    name = required(one, "name", expected)
    if not isinstance(name, str):
        raise InputError(f"name must be a string, got {name!r}")
    return name


# ---- shipped studies -----------------------------------------------------------------------------
def shipped() -> dict[str, Study]:
    """The studies that come along, by name."""
    folder = resources.files("studies")
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith(".toml"))
    studies = {}
    for name in names:
        with resources.as_file(folder / name) as path:
            studies[path.stem] = read_study(path)
    return studies


def find_study(target: str) -> Study:
    """The study in a file, or the shipped one of that name.

    Raises:
        InputError: There is neither (the nearest name is suggested), or a mistake in the file.
    """
    path = Path(target)
    if path.suffix.lower() == ".toml" or path.exists():
        return read_study(path)
    known = shipped()
    if target in known:
        return known[target]
    raise InputError(
        f"no study file {target!r}, and no shipped study of that name{did_you_mean(target, known)}"
    )
