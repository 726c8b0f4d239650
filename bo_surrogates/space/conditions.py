"""Conditional parameters: which are active where.

A parameter with `when = {parent: values}` exists only where the parent is active and has one of
those values. A point holds active parameters only. For a surrogate the space is flattened: every
varied parameter is a coordinate, and an inactive one stands at its imputed value, so that each
point has one representation and the surrogate sees no difference between points that differ only
in what is inactive.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space.parameters import Fixed, Float, Int, Parameter, Value, same_value

if TYPE_CHECKING:
    from torch import Tensor


MAX_VALUES = 1000  # of a parameter that others depend on


def check_conditions(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters with the values of their conditions in canonical types.

    Raises:
        InputError: A condition names an unknown parameter, one without listable values or a value
            that it does not have; conditions go round in a circle; or a parameter is never active.
    """
    by_name = {p.name: p for p in parameters}
    checked = []
    for p in parameters:
        when = {}
        for name, values in p.when.items():
            if name not in by_name:
                raise InputError(
                    f"{p.what}: when names an unknown parameter "
                    f"{name!r}{did_you_mean(name, by_name)}"
                )
            parent = by_name[name]
            if isinstance(parent, Float):
                raise InputError(
                    f"{p.what}: when names {name!r}, a float; a condition needs a parameter with "
                    "values to list: an int, ordered or choice parameter"
                )
            if isinstance(parent, Int) and parent.cardinality > MAX_VALUES:
                raise InputError(
                    f"{p.what}: when names {name!r}, which has {parent.cardinality} values; a "
                    f"condition needs a parameter with at most {MAX_VALUES}"
                )
            when[name] = tuple(_value_of(parent, v, p) for v in values)
        checked.append(replace(p, when=when) if when else p)
    try:
        order = tuple(TopologicalSorter({p.name: list(p.when) for p in parameters}).static_order())
    except CycleError as error:
        circle = " -> ".join(repr(n) for n in reversed(error.args[1]))
        raise InputError(
            f"the conditions ('when') of parameters go round in a circle: {circle}; one of them "
            "must be active unconditionally"
        ) from None
    _check_reachable({p.name: p for p in checked}, order)
    return tuple(checked)


def _value_of(parent: Parameter, value: Value, child: Parameter) -> Value:
    if isinstance(parent, Fixed):
        # Of another type or value: the child would never be active, which is told below.
        return value
    try:
        return parent.validate(value)
    except InputError as error:
        raise InputError(f"{child.what}: when: {error}") from None


def _check_reachable(by_name: Mapping[str, Parameter], order: Sequence[str]) -> None:
    """Refuse parameters that no choice of the others' values activates.

    Each condition alone can be met, but two on the way to a parameter may contradict each other.
    """
    allowed: dict[str, dict[str, tuple[Value, ...]]] = {}  # what each parameter's ancestors may be
    for name in order:
        p = by_name[name]
        mine: dict[str, tuple[Value, ...]] = {}
        for parent, values in p.when.items():
            fixed = by_name[parent]
            if isinstance(fixed, Fixed):
                values = tuple(v for v in values if same_value(fixed.value, v))
            for ancestor, its in {**allowed[parent], parent: values}.items():
                mine[ancestor] = tuple(v for v in mine.get(ancestor, its) if v in its)
        for ancestor, left in mine.items():
            if not left:
                raise InputError(
                    f"{p.what} is never active: no value of {ancestor!r} meets all conditions "
                    "('when') on the way to it; remove the parameter or a condition"
                )
        allowed[name] = mine


def in_order(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """The parameters with parents before children, otherwise as they were."""
    by_name = {p.name: p for p in parameters}
    placed: dict[str, Parameter] = {}

    def place(p: Parameter) -> None:
        for parent in p.when:
            place(by_name[parent])
        placed.setdefault(p.name, p)

    for p in parameters:
        place(p)
    return tuple(placed.values())


def inactive_because(parameter: Parameter, values: Mapping[str, Value]) -> str | None:
    """Why a parameter is inactive given its parents' values (active ones only); None: it is active.

    Args:
        parameter: One of the space.
        values: Holds every active parent.
    """
    for parent, wanted in parameter.when.items():
        if parent not in values:
            return f"where {parent!r} is inactive"
        if not any(same_value(values[parent], v) for v in wanted):
            needs = " or ".join(repr(v) for v in wanted)
            return f"where {parent} = {values[parent]!r} (it needs {parent} = {needs})"
    return None


def active_where(
    X: Tensor,
    index: Mapping[str, int],
    ordered: Sequence[Parameter],
    wanted: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, Tensor]:
    """Where each parameter is active among points.

    Args:
        X: `... x d` problem coordinates, on levels where discrete.
        index: The coordinate of each varied parameter.
        ordered: All parameters, parents first.
        wanted: By parameter and varied parent, the coordinates of the parent's wanted values.

    Returns:
        By name, booleans of shape `...`.
    """
    import torch

    active: dict[str, Tensor] = {}
    for p in ordered:
        mine = torch.ones(X.shape[:-1], dtype=torch.bool, device=X.device)
        for parent in p.when:
            mine = mine & active[parent]
            if parent in index:
                values = torch.tensor(wanted[p.name][parent]).to(X)
                mine = mine & (X[..., index[parent], None] == values).any(dim=-1)
        active[p.name] = mine
    return active
