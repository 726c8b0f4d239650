"""A space: parameters, their constraints, and the three sets of coordinates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space.branches import ROUNDING, Branch, branches
from bo_surrogates.space.conditions import (
    active_where,
    check_conditions,
    in_order,
    inactive_because,
)
from bo_surrogates.space.constraints import LinearConstraint
from bo_surrogates.space.parameters import (
    KINDS,
    Choice,
    Fixed,
    Float,
    Int,
    Ordered,
    Parameter,
    Value,
    Values,
    Varied,
    same_value,
)

if TYPE_CHECKING:
    from torch import Tensor

# Torch is imported by the methods that make tensors: reading a space does not wait for it.

MAX_BRANCHES = 10_000  # of a space whose points are counted


class Space:
    """An ordered set of parameters with linear constraints.

    A point holds the values of the parameters that are active there, the fixed ones among them.
    The coordinates of a point are those of all varied parameters, active or not: an inactive one
    stands at its imputed value (`Varied.imputed`). So each point has one set of coordinates.

    Args:
        parameters: At least one that is varied, names distinct.
        constraints: Linear inequalities on float and int parameters without log scale (and on
            fixed numbers). Each applies where all of its parameters are active.

    Attributes:
        parameters: All, in the user's order.
        varied: Those that are not fixed: the coordinates.
        in_order: All, with the parents of conditions before what depends on them.

    Raises:
        InputError: Duplicate names, a constraint on a parameter that cannot carry it, or a
            condition that cannot be met.
    """

    def __init__(
        self, parameters: Sequence[Parameter], constraints: Sequence[LinearConstraint] = ()
    ) -> None:
        self.parameters = tuple(parameters)
        self.constraints = tuple(constraints)
        if not self.parameters:
            raise InputError("a search space needs at least one parameter")
        for parameter in self.parameters:
            if not isinstance(parameter, Parameter):
                raise InputError(
                    f"expected a parameter such as Float('x', 0, 1), got {parameter!r}"
                )
        self.names = tuple(p.name for p in self.parameters)
        duplicates = {n for n in self.names if self.names.count(n) > 1}
        if duplicates:
            raise InputError(f"parameter {sorted(duplicates)[0]!r} is defined twice")
        self.parameters = check_conditions(self.parameters)
        self.in_order = in_order(self.parameters)
        self.varied = tuple(p for p in self.parameters if isinstance(p, Varied))
        if not self.varied:
            raise InputError("a search space needs at least one parameter that is not fixed")
        self._by_name = {p.name: p for p in self.parameters}
        self._index = {p.name: i for i, p in enumerate(self.varied)}
        for constraint in self.constraints:
            self._check_constraint(constraint)
        self._check_fidelity()

    def _check_fidelity(self) -> None:
        fidelities = [p for p in self.varied if p.fidelity]
        if len(fidelities) > 1:
            raise InputError(
                f"a space has at most one fidelity, got {', '.join(p.name for p in fidelities)}"
            )
        for f in fidelities:
            if len(self.varied) == 1:
                raise InputError(
                    f"{f.what} is a fidelity and the only one that varies: there is nothing to "
                    "optimize; add a parameter"
                )
            for p in self.parameters:
                if f.name in p.when:
                    raise InputError(
                        f"{p.what}: 'when' names the fidelity {f.name!r}, but a point is the same "
                        "at every fidelity; remove the condition"
                    )
            for c in self.constraints:
                if f.name in c.coefficients:
                    raise InputError(
                        f"parameter constraint '{c}' names the fidelity {f.name!r}, but a point "
                        "is valid at every fidelity or at none; remove the constraint"
                    )

    def _check_constraint(self, constraint: LinearConstraint) -> None:
        if not constraint.coefficients:
            raise InputError(f"parameter constraint '{constraint}' names no parameter")
        for name in constraint.coefficients:
            if name not in self._by_name:
                raise InputError(
                    f"parameter constraint '{constraint}': unknown parameter "
                    f"{name!r}{did_you_mean(name, self.names)}"
                )
            parameter = self._by_name[name]
            if isinstance(parameter, Fixed):
                if isinstance(parameter.value, str | bool):
                    raise InputError(
                        f"parameter constraint '{constraint}': {parameter.what} is fixed at "
                        f"{parameter.value!r}, which is no number"
                    )
            elif not isinstance(parameter, Float | Int) or parameter.log:
                raise InputError(
                    f"parameter constraint '{constraint}': {parameter.what} is "
                    "ordered, a choice or logarithmic; only float and int parameters on a "
                    "linear scale can be constrained"
                )

    def __repr__(self) -> str:
        return f"Space({list(self.parameters)!r}, constraints={list(self.constraints)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(self.parameters)

    @property
    def dim(self) -> int:
        """The number of varied parameters."""
        return len(self.varied)

    @property
    def bounds(self) -> Tensor:
        """`2 x d` bounds in problem coordinates, float64."""
        import torch

        return torch.tensor([p.bounds for p in self.varied], dtype=torch.float64).T

    @property
    def continuous_inds(self) -> list[int]:
        """Indices of float parameters."""
        return [i for i, p in enumerate(self.varied) if isinstance(p, Float)]

    @property
    def discrete_inds(self) -> list[int]:
        """Indices of int and ordered parameters."""
        return [i for i, p in enumerate(self.varied) if isinstance(p, Int | Ordered)]

    @property
    def categorical_inds(self) -> list[int]:
        """Indices of choice parameters."""
        return [i for i, p in enumerate(self.varied) if isinstance(p, Choice)]

    # ---- the fidelity ----------------------------------------------------------------------------
    @cached_property
    def fidelity(self) -> Varied | None:
        """The parameter that says how exact an evaluation is, if there is one."""
        return next((p for p in self.varied if p.fidelity), None)

    @property
    def target(self) -> Values:
        """The fidelity's target by its name; empty where there is no fidelity."""
        f = self.fidelity
        return {} if f is None or f.target is None else {f.name: f.target}

    def is_at_target(self, values: Mapping[str, Value]) -> bool:
        """Whether a point has the target fidelity; always, where there is no fidelity."""
        return all(same_value(value, values.get(name)) for name, value in self.target.items())

    def at_target(self, X: Tensor) -> Tensor:
        """As `is_at_target`, of points `... x d` in problem coordinates: booleans `...`."""
        return (self.to_target(X) == X).all(dim=-1)

    def to_target(self, X: Tensor) -> Tensor:
        """Problem coordinates `... x d` with the fidelity at its target."""
        for name, value in self.target.items():
            X = self.with_coordinate(X, name, value)
        return X

    def with_coordinate(self, X: Tensor, name: str, value: Value) -> Tensor:
        """Problem coordinates `... x d` with a varied parameter at a value."""
        X = X.clone()
        X[..., self._index[name]] = self.varied[self._index[name]].encode(value)
        return X

    # ---- conditions and fixed values -----------------------------------------------------------
    @property
    def is_conditional(self) -> bool:
        """Whether some varied parameter is not active everywhere."""
        return any(p.when for p in self.varied)

    def is_active(self, name: str, values: Mapping[str, Value]) -> bool:
        """Whether a parameter is active, given the values of its active parents."""
        return inactive_because(self._by_name[name], values) is None

    def check_fixed(self, fixed: Mapping[str, object] | None) -> Values:
        """The values at which an ask holds some parameters, in canonical types.

        Raises:
            InputError: Not a mapping, an unknown parameter or a value that it cannot have, or no
                point has these values (by conditions or constraints).
        """
        if fixed is None:
            return {}
        if not isinstance(fixed, Mapping):
            raise InputError(f"fixed must map parameter names to values, got {fixed!r}")
        self._check_names(fixed)
        held = {p.name: p.validate(fixed[p.name]) for p in self.in_order if p.name in fixed}
        for name in held:
            because = self._excluded(name, held)
            if because:
                raise InputError(f"{self._by_name[name].what} cannot be fixed: {because}")
        if next(self.branches(held), None) is None:
            raise InputError(self.nowhere(held))
        return held

    def _excluded(self, name: str, held: Mapping[str, Value]) -> str | None:
        """Why a parameter is inactive wherever the held values are."""
        for parent, wanted in self._by_name[name].when.items():
            its = self._by_name[parent]
            value = its.value if isinstance(its, Fixed) else held.get(parent)
            if value is not None and not any(same_value(value, w) for w in wanted):
                return f"it is inactive where {parent} = {value!r}"
            above = self._excluded(parent, held)
            if above:
                return above
        return None

    def nowhere(self, held: Mapping[str, Value]) -> str:
        """What to say where no point satisfies constraints and conditions."""
        where = " with " + ", ".join(f"{n} = {v!r}" for n, v in held.items()) if held else ""
        broken = [
            c
            for c in self.constraints
            if next(Space(self.parameters, [c]).branches(held), None) is None
        ]
        limits = " and ".join(f"'{c}'" for c in broken[:1] or self.constraints)
        return f"no point within the parameters' bounds{where} satisfies " + (
            limits or "the conditions ('when')"
        )

    def check_not_empty(self) -> None:
        """Refuse constraints that no point satisfies.

        Raises:
            InputError: There is no point in the space.
        """
        if self.constraints and next(self.branches(), None) is None:
            raise InputError("parameter_constraints: " + self.nowhere({}))

    def branches(self, fixed: Mapping[str, Value] | None = None) -> Iterator[Branch]:
        """The plain parts of the space; see `Branch`.

        Args:
            fixed: Valid values at which parameters are held.
        """
        return branches(self, fixed or {})

    @cached_property
    def size(self) -> int | None:
        """The number of distinct points; see `count`."""
        return self.count()

    def count(self, fixed: Mapping[str, Value] | None = None) -> int | None:
        """The number of distinct points that satisfy the constraints.

        Points that differ only in inactive parameters are one. None where a float varies, or
        where there are too many to count under conditions and constraints.

        Args:
            fixed: Valid values at which parameters are held.
        """
        total = 0
        for number, branch in enumerate(self.branches(fixed), start=1):
            if branch.count is None or number > MAX_BRANCHES:
                return None
            total += branch.count
        return total

    def points(self, limit: int, fixed: Mapping[str, Value] | None = None) -> Tensor | None:
        """All points, `n x d` problem coordinates; None where there are more than `limit`.

        Args:
            limit: The largest number wanted.
            fixed: Valid values at which parameters are held.
        """
        import torch

        found = [torch.empty(0, self.dim, dtype=torch.float64)]
        for branch in self.branches(fixed):
            points = branch.points(limit)
            if points is None:
                return None
            found.append(points)
            limit -= len(points)
            if limit < 0:
                return None
        return torch.cat(found)

    def row(self, constraint: LinearConstraint) -> tuple[dict[int, float], float]:
        """A constraint's coefficients by coordinate and its upper bound, less fixed parameters."""
        upper, coefficients = constraint.upper, {}
        for name, c in constraint.coefficients.items():
            parameter = self._by_name[name]
            if isinstance(parameter, Fixed):
                upper -= c * float(parameter.value)
            else:
                coefficients[self._index[name]] = c
        return coefficients, upper

    # ---- values and problem coordinates ----------------------------------------------------------
    def validate(self, values: Mapping[str, object], *, outside: bool = False) -> Values:
        """The active parameters of a point in canonical types and in the space's order.

        Args:
            values: By name; fixed parameters may be left out.
            outside: Whether numbers may lie beyond their bounds, and the point may violate the
                parameter constraints.

        Raises:
            InputError: An active parameter is missing or invalid, a name is unknown, a value is
                given to an inactive parameter, or a constraint is violated.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a point must map parameter names to values, got {values!r}")
        self._check_names(values)
        valid = self._active(values, outside)
        for name in values:
            if name not in valid:
                because = inactive_because(self._by_name[name], valid)
                raise InputError(f"parameter {name!r} is inactive {because}; leave it out")
        violated = None if outside else self.violated(valid)
        if violated is not None:
            raise InputError(f"the point violates the parameter constraint '{violated}'")
        return valid

    def contains(self, values: Mapping[str, object]) -> bool:
        """Whether a point is in the space: `validate` takes it."""
        try:
            self.validate(values)
        except InputError:
            return False
        return True

    def _check_names(self, values: Mapping[str, object]) -> None:
        for name in values:
            if name not in self._by_name:
                raise InputError(f"unknown parameter {name!r}{did_you_mean(name, self.names)}")

    def _active(self, values: Mapping[str, object], outside: bool = False) -> Values:
        """The active parameters among the values, validated, in the space's order."""
        found: Values = {}
        for p in self.in_order:
            if inactive_because(p, found) is None:
                if isinstance(p, Fixed) and p.name not in values:
                    found[p.name] = p.value
                else:
                    value = self._value(values, p)
                    found[p.name] = p.admit(value) if outside else p.validate(value)
        return {n: found[n] for n in self.names if n in found}

    def violated(self, values: Mapping[str, Value]) -> LinearConstraint | None:
        """The first constraint that a valid point violates by more than rounding."""
        for constraint in self.constraints:
            if all(n in values for n in constraint.coefficients) and (
                constraint.slack(values) < -ROUNDING * self.scale(constraint)
            ):
                return constraint
        return None

    def satisfied(self, X: Tensor) -> Tensor:
        """Where points satisfy the constraints, up to rounding.

        Args:
            X: `... x d` problem coordinates, on levels where discrete.

        Returns:
            Booleans of shape `...`.
        """
        import torch

        valid = torch.ones(X.shape[:-1], dtype=torch.bool, device=X.device)
        if not self.constraints:
            return valid
        active = self.active(X)
        for constraint in self.constraints:
            coefficients, upper = self.row(constraint)
            total = torch.zeros(X.shape[:-1]).to(X)
            for i, c in coefficients.items():
                total = total + c * X[..., i]
            holds = total <= upper + ROUNDING * self.scale(constraint)
            for name in constraint.coefficients:
                holds = holds | ~active[name]
            valid = valid & holds
        return valid

    def active(self, X: Tensor) -> dict[str, Tensor]:
        """By parameter, where it is active among points `... x d` in problem coordinates."""
        return active_where(X, self._index, self.in_order, self._wanted)

    def scale(self, constraint: LinearConstraint) -> float:
        """The size of a constraint's largest possible terms: what rounding is relative to."""
        coefficients, upper = self.row(constraint)
        return abs(upper) + sum(
            abs(c) * max(map(abs, self.varied[i].bounds)) for i, c in coefficients.items()
        )

    def _value(self, values: Mapping[str, object], parameter: Parameter) -> object:
        try:
            return values[parameter.name]
        except KeyError:
            raise InputError(f"{parameter.what} is missing (of {', '.join(self.names)})") from None

    def encode(self, values: Mapping[str, Value], *, outside: bool = False) -> Tensor:
        """The point's problem coordinates, a float64 tensor of shape `d`.

        Args:
            values: By name.
            outside: Whether numbers may lie beyond their bounds.

        Raises:
            InputError: An active parameter is missing or invalid; constraints and values of
                inactive parameters are not looked at.
        """
        import torch

        active = self._active(values, outside)
        return torch.tensor(
            [p.encode(active.get(p.name, p.imputed)) for p in self.varied], dtype=torch.float64
        )

    def decode(self, X: Tensor) -> Values:
        """The values of the active parameters at problem coordinates `X` of shape `d`."""
        if X.shape != (self.dim,):
            raise InputError(f"expected coordinates of shape ({self.dim},), got {tuple(X.shape)}")
        coordinates = X.tolist()
        return self._active(
            {p.name: p.decode(x) for p, x in zip(self.varied, coordinates, strict=True)}
        )

    def impute(self, X: Tensor) -> Tensor:
        """Problem coordinates `... x d`, inactive parameters at their imputed values."""
        import torch

        if not self.is_conditional:
            return X
        values = torch.tensor([p.encode(p.imputed) for p in self.varied]).to(X)
        active = self.active(X)
        return torch.where(torch.stack([active[p.name] for p in self.varied], dim=-1), X, values)

    @cached_property
    def _wanted(self) -> dict[str, dict[str, list[float]]]:
        """By parameter and varied parent, the coordinates of the values it is active for."""
        return {
            p.name: {
                parent: [self._by_name[parent].encode(v) for v in values]  # type: ignore[attr-defined]
                for parent, values in p.when.items()
                if parent in self._index
            }
            for p in self.parameters
        }

    # ---- model coordinates ------------------------------------------------------------------
    def to_model(self, X: Tensor) -> Tensor:
        """Problem coordinates `... x d` to model coordinates `... x d`."""
        import torch

        columns = []
        for i, parameter in enumerate(self.varied):
            x = X[..., i]
            columns.append(x.log10() if getattr(parameter, "log", False) else x)
        return torch.stack(columns, dim=-1)

    def from_model(self, Z: Tensor) -> Tensor:
        """Model coordinates `... x d` to the nearest valid problem coordinates `... x d`.

        Inactive parameters are imputed; constraints are not looked at.
        """
        return self.impute(self.nearest(Z))

    def nearest(self, Z: Tensor) -> Tensor:
        """As `from_model`, but inactive parameters stay where they are."""
        import torch

        columns = []
        for i, parameter in enumerate(self.varied):
            z = Z[..., i]
            if getattr(parameter, "log", False):
                z = 10.0**z
            if not isinstance(parameter, Float):
                z = z.round()
            columns.append(z.clamp(*parameter.bounds))
        return torch.stack(columns, dim=-1)

    @property
    def model_bounds(self) -> Tensor:
        """`2 x d` bounds in model coordinates, float64."""
        return self.to_model(self.bounds)

    @property
    def discrete_levels(self) -> dict[int, list[float]]:
        """Per int or ordered parameter's index, its levels in model coordinates."""
        import torch

        levels = {}
        for i in self.discrete_inds:
            low, high = self.varied[i].bounds
            grid = self.bounds[0].repeat(int(high - low) + 1, 1)
            grid[:, i] = torch.arange(low, high + 1, dtype=torch.float64)
            levels[i] = self.to_model(grid)[:, i].tolist()
        return levels

    @property
    def categories(self) -> dict[int, int]:
        """Per choice parameter's index, its number of values (coordinates 0, 1, ...)."""
        return {i: len(self.varied[i].values) for i in self.categorical_inds}  # type: ignore[attr-defined]

    # ---- storage -----------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes an equal space."""
        return {
            "parameters": [p.to_dict() for p in self.parameters],
            "constraints": [
                {"coefficients": dict(c.coefficients), "upper": c.upper} for c in self.constraints
            ],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Space:
        """Inverse of `to_dict`."""
        return cls(
            [
                KINDS[p["type"]](**{k: v for k, v in p.items() if k != "type"})
                for p in data["parameters"]
            ],
            [LinearConstraint(c["coefficients"], c["upper"]) for c in data["constraints"]],
        )
