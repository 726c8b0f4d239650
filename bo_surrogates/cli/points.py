"""Points of a search space as the user gives them: NAME=VALUE options, a trial, a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.space import Parameter, Space

At = Annotated[
    list[str] | None,
    typer.Option(
        "--at", metavar="NAME=VALUE", show_default=False,
        help="A parameter's value; once for each parameter.",
    ),
]  # fmt: skip
Like = Annotated[
    int | None,
    typer.Option(
        "--trial", metavar="TRIAL", show_default=False,
        help="Take the parameters that --at does not give from this trial.",
    ),
]  # fmt: skip


def parse_values(space: Space, texts: Sequence[str]) -> dict[str, object]:
    """`["temperature=70", "solvent=dmso"]` as values; ranges are not looked at.

    Raises:
        InputError: Not of that form, an unknown parameter, or one given twice.
    """
    parameters = {p.name: p for p in space.parameters}
    values: dict[str, object] = {}
    for text in texts:
        # A parameter's name may hold "=", as may a value: the longest name that fits.
        fitting = [n for n in parameters if text.startswith(f"{n}=")]
        name = max(fitting, key=len, default=text.partition("=")[0].strip())
        if "=" not in text:
            raise InputError(f"cannot read {text!r}; write NAME=VALUE, e.g. {space.names[0]}=...")
        if name not in parameters:
            raise InputError(f"unknown parameter {name!r}{did_you_mean(name, space.names)}")
        if name in values:
            raise InputError(f"parameter {name!r} is given twice")
        values[name] = _value(parameters[name], text.removeprefix(f"{name}=").strip())
    return values


def _value(parameter: Parameter, text: str) -> object:
    for option in getattr(parameter, "values", ()):
        if str(option) == text or (isinstance(option, bool) and str(option).lower() == text):
            return option
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text  # refused with the parameter's own words


def point_of(
    campaign: Campaign,
    at: Sequence[str] | None,
    trial: int | None,
    base: Mapping[str, object] | None = None,
) -> dict[str, object] | None:
    """The point that `--at` and `--trial` mean together; None where nothing is given.

    What they leave open is the base's, as far as it is active there.

    Raises:
        InputError: See `parse_values`; or there is no such trial.
    """
    if not at and trial is None and base is None:
        return None
    if trial is not None:
        known = campaign.trials
        if not 0 <= trial < len(known):
            raise InputError(f"there is no trial {trial}; the campaign has {len(known)}")
        base = known[trial].parameters
    given = parse_values(campaign.spec.space, at or ())
    merged: dict[str, Any] = {**(base or {}), **given}
    space = campaign.spec.space
    return {n: v for n, v in merged.items() if n in given or space.is_active(n, merged)}


def read_points(path: Path, space: Space) -> list[dict[str, Any]]:
    """The points of a CSV file with a column a parameter; further columns are left out.

    Raises:
        InputError: It cannot be read, or lacks a parameter's column.
    """
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise InputError(f"there is no file {str(path)!r}; check the path") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as CSV: {error}") from None
    parameters = {p.name: p for p in space.parameters if p.name in table.columns}
    return [
        {name: _value(p, row[name].strip()) for name, p in parameters.items() if row[name].strip()}
        for row in table.to_dict(orient="records")
    ]
