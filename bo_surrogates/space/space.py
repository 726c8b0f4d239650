"""A space: parameters, their constraints, and the three sets of coordinates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space.constraints import LinearConstraint
from bo_surrogates.space.parameters import (
    KINDS,
    Choice,
    Float,
    Int,
    Ordered,
    Parameter,
    Value,
    Values,
)

if TYPE_CHECKING:
    from torch import Tensor

# Torch is imported by the methods that make tensors: reading a space does not wait for it.


class Space:
    """An ordered set of parameters with linear constraints.

    Args:
        parameters: At least one, names distinct.
        constraints: Linear inequalities on float and int parameters without log scale.

    Raises:
        InputError: Duplicate names, or a constraint on a parameter that cannot carry it.
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
        by_name = {p.name: p for p in self.parameters}
        for constraint in self.constraints:
            if not constraint.coefficients:
                raise InputError(f"parameter constraint '{constraint}' names no parameter")
            for name in constraint.coefficients:
                if name not in by_name:
                    raise InputError(
                        f"parameter constraint '{constraint}': unknown parameter "
                        f"{name!r}{did_you_mean(name, self.names)}"
                    )
                parameter = by_name[name]
                if not isinstance(parameter, Float | Int) or parameter.log:
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
        """The number of parameters."""
        return len(self.parameters)

    @property
    def bounds(self) -> Tensor:
        """`2 x d` bounds in problem coordinates, float64."""
        import torch

        return torch.tensor([p.bounds for p in self.parameters], dtype=torch.float64).T

    @property
    def continuous_inds(self) -> list[int]:
        """Indices of float parameters."""
        return [i for i, p in enumerate(self.parameters) if isinstance(p, Float)]

    @property
    def discrete_inds(self) -> list[int]:
        """Indices of int and ordered parameters."""
        return [i for i, p in enumerate(self.parameters) if isinstance(p, Int | Ordered)]

    @property
    def categorical_inds(self) -> list[int]:
        """Indices of choice parameters."""
        return [i for i, p in enumerate(self.parameters) if isinstance(p, Choice)]

    @property
    def size(self) -> int | None:
        """The number of distinct points, or None where a parameter is continuous."""
        cardinalities = [p.cardinality for p in self.parameters]
        if any(c is None for c in cardinalities):
            return None
        return math.prod(c for c in cardinalities if c is not None)

    def validate(self, values: Mapping[str, object]) -> Values:
        """All parameters of a point in canonical types and in the space's order.

        Raises:
            InputError: A parameter is missing, unknown or invalid, or a constraint is violated.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"a point must map parameter names to values, got {values!r}")
        for name in values:
            if name not in self.names:
                raise InputError(f"unknown parameter {name!r}{did_you_mean(name, self.names)}")
        valid = {p.name: p.validate(self._value(values, p)) for p in self.parameters}
        for constraint in self.constraints:
            if constraint.slack(valid) < -1e-8 * max(1.0, abs(constraint.upper)):
                raise InputError(f"the point violates the parameter constraint '{constraint}'")
        return valid

    def _value(self, values: Mapping[str, object], parameter: Parameter) -> object:
        try:
            return values[parameter.name]
        except KeyError:
            raise InputError(f"{parameter.what} is missing (of {', '.join(self.names)})") from None

    def encode(self, values: Mapping[str, Value]) -> Tensor:
        """The point's problem coordinates, a float64 tensor of shape `d`.

        Raises:
            InputError: A parameter is missing or invalid; constraints are not looked at.
        """
        import torch

        return torch.tensor(
            [p.encode(p.validate(self._value(values, p))) for p in self.parameters],
            dtype=torch.float64,
        )

    def decode(self, X: Tensor) -> Values:
        """The values at problem coordinates `X` of shape `d`."""
        if X.shape != (self.dim,):
            raise InputError(f"expected coordinates of shape ({self.dim},), got {tuple(X.shape)}")
        return {p.name: p.decode(x) for p, x in zip(self.parameters, X.tolist(), strict=True)}

    # ---- model coordinates ------------------------------------------------------------------
    def to_model(self, X: Tensor) -> Tensor:
        """Problem coordinates `... x d` to model coordinates `... x d`."""
        import torch

        columns = []
        for i, parameter in enumerate(self.parameters):
            x = X[..., i]
            columns.append(x.log10() if getattr(parameter, "log", False) else x)
        return torch.stack(columns, dim=-1)

    def from_model(self, Z: Tensor) -> Tensor:
        """Model coordinates `... x d` to the nearest valid problem coordinates `... x d`."""
        import torch

        columns = []
        for i, parameter in enumerate(self.parameters):
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
            low, high = self.parameters[i].bounds
            grid = self.bounds[0].repeat(int(high - low) + 1, 1)
            grid[:, i] = torch.arange(low, high + 1, dtype=torch.float64)
            levels[i] = self.to_model(grid)[:, i].tolist()
        return levels

    @property
    def categories(self) -> dict[int, int]:
        """Per choice parameter's index, its number of values (coordinates 0, 1, ...)."""
        return {i: len(self.parameters[i].values) for i in self.categorical_inds}  # type: ignore[attr-defined]

    # ---- storage -----------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes an equal space."""
        return {
            "parameters": [{"type": p.kind, **asdict(p)} for p in self.parameters],
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
