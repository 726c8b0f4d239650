"""Points of a search space as the user gives them: NAME=VALUE options, a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bo_surrogates.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.space import Space, Values

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


def parse_values(texts: Sequence[str], space: Space) -> Values:
    """`["solvent=water", "pH=7"]` as values of these parameters.

    Raises:
        InputError: Not of that form, an unknown parameter, a value that it cannot have, or a
            parameter given twice.
    """
    by_name = {p.name: p for p in space.parameters}
    values: Values = {}
    for text in texts:
        # A name may hold an equals sign, and so may a value: the known name decides.
        names = [n for n in by_name if text.startswith(f"{n}=")]
        name, equals, _ = text.partition("=")
        if not names:
            if not equals or not name:
                raise InputError(f"cannot read {text!r}; write NAME=VALUE, e.g. {space.names[0]}=")
            raise InputError(f"unknown parameter {name!r}{did_you_mean(name, by_name)}")
        name = max(names, key=len)
        if name in values:
            raise InputError(f"parameter {name!r} is given twice")
        values[name] = by_name[name].parse(text[len(name) + 1 :])
    return values


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
    given = parse_values(at or (), campaign.spec.space)
    merged: dict[str, Any] = {**(base or {}), **given}
    space = campaign.spec.space
    return {n: v for n, v in merged.items() if n in given or space.is_active(n, merged)}
