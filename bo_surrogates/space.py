"""What may be varied: named parameters and the space they span.

Three sets of coordinates meet here, and only here:

* **values**, as the user writes them: `{"lr": 0.003, "blocks": 2, "mode": "tile"}`;
* **problem coordinates** `X`, the tensor face of a `botorch` test problem: floats and ints as
  they are, ordered and choice parameters as the index of their value;
* **model coordinates** `Z`, in which a surrogate sees a point and an acquisition function is
  optimized: problem coordinates, with log10 for logarithmic parameters.
"""

from __future__ import annotations

import ast
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from bo_surrogates.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

# Torch is imported by the methods that make tensors: reading a space does not wait for it.

Value = float | int | str | bool
Values = dict[str, Value]


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{what} must be finite, got {value!r}")
    return number


@dataclass(frozen=True)
class Parameter(ABC):
    """Base of the four kinds of parameter: `Float`, `Int`, `Ordered`, `Choice`."""

    name: str
    kind: ClassVar[str] = ""

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"a parameter's name must be a non-empty string, got {self.name!r}")

    @property
    def what(self) -> str:
        """How messages call this parameter."""
        return f"parameter {self.name!r}"

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound in problem coordinates."""

    @property
    @abstractmethod
    def cardinality(self) -> int | None:
        """The number of distinct values, or None for a continuous parameter."""

    @abstractmethod
    def validate(self, value: object) -> Value:
        """The value in its canonical type.

        Raises:
            InputError: The value has the wrong type or is out of range.
        """

    def encode(self, value: Value) -> float:
        """The problem coordinate of a valid value."""
        return float(value)

    @abstractmethod
    def decode(self, coordinate: float) -> Value:
        """The value at a problem coordinate (nearest, for discrete kinds)."""


@dataclass(frozen=True)
class Float(Parameter):
    """A real parameter on the closed interval [low, high].

    Args:
        name: Any non-empty string.
        low: Lower bound, finite.
        high: Upper bound, finite, above `low`.
        log: Search on a logarithmic scale; needs `low` > 0.
        unit: For display only.
    """

    low: float
    high: float
    log: bool = False
    unit: str = ""
    kind: ClassVar[str] = "float"

    def __post_init__(self) -> None:
        self._check_name()
        low = _number(self.low, f"{self.what}: low")
        high = _number(self.high, f"{self.what}: high")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)
        _check_bounds(self.what, low, high, self.log)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return self.low, self.high

    @property
    def cardinality(self) -> int | None:
        """None: continuous."""
        return None

    def validate(self, value: object) -> float:
        """See `Parameter.validate`."""
        number = _number(value, self.what)
        # A round trip through a scaled coordinate may leave the interval by a rounding error; snap
        # those back. On a logarithmic scale rounding errors are relative to the value itself.
        below = above = 1e-9 * max(abs(self.low), abs(self.high))
        if self.log:
            below, above = 1e-9 * self.low, 1e-9 * self.high
        if not self.low - below <= number <= self.high + above:
            raise InputError(f"{self.what} must be in [{self.low}, {self.high}], got {value!r}")
        return min(max(number, self.low), self.high)

    def decode(self, coordinate: float) -> float:
        """See `Parameter.decode`; 12 significant digits, which hides what log10 and back leave."""
        return min(max(float(f"{float(coordinate):.12g}"), self.low), self.high)


@dataclass(frozen=True)
class Int(Parameter):
    """An integer parameter on {low, ..., high}; arguments as for `Float`."""

    low: int
    high: int
    log: bool = False
    unit: str = ""
    kind: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        self._check_name()
        for field, bound in (("low", self.low), ("high", self.high)):
            number = _number(bound, f"{self.what}: {field}")
            if number != int(number):
                raise InputError(f"{self.what}: {field} must be an integer, got {bound!r}")
            object.__setattr__(self, field, int(number))
        _check_bounds(self.what, self.low, self.high, self.log)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return float(self.low), float(self.high)

    @property
    def cardinality(self) -> int:
        """high - low + 1."""
        return self.high - self.low + 1

    def validate(self, value: object) -> int:
        """See `Parameter.validate`."""
        number = _number(value, self.what)
        if number != int(number):
            raise InputError(f"{self.what} must be an integer, got {value!r}")
        if not self.low <= number <= self.high:
            raise InputError(f"{self.what} must be in [{self.low}, {self.high}], got {value!r}")
        return int(number)

    def decode(self, coordinate: float) -> int:
        """See `Parameter.decode`."""
        return min(max(round(float(coordinate)), self.low), self.high)


@dataclass(frozen=True)
class _Listed(Parameter):
    """What `Ordered` and `Choice` share: a list of at least two distinct values."""

    values: tuple[Value, ...]
    unit: str = ""

    def __post_init__(self) -> None:
        self._check_name()
        if isinstance(self.values, str) or not isinstance(self.values, Sequence):
            raise InputError(f"{self.what}: values must be a list, got {self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        if len(self.values) < 2:
            raise InputError(f"{self.what}: values must hold at least two, got {self.values!r}")
        for value in self.values:
            if not isinstance(value, bool | int | float | str):
                raise InputError(
                    f"{self.what}: a value must be a number, a string or a boolean, got {value!r}"
                )
            if isinstance(value, float):
                _number(value, f"{self.what}: each value")
        kinds = {str if isinstance(v, str) else bool if isinstance(v, bool) else float
                 for v in self.values}  # fmt: skip
        if len(kinds) > 1:
            raise InputError(
                f"{self.what}: values must be all numbers, all strings or all booleans, "
                f"got {list(self.values)!r}"
            )
        if len(set(self.values)) != len(self.values):
            raise InputError(f"{self.what}: values must be distinct, got {list(self.values)!r}")

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the number of values less one."""
        return 0.0, float(len(self.values) - 1)

    @property
    def cardinality(self) -> int:
        """The number of values."""
        return len(self.values)

    def validate(self, value: object) -> Value:
        """See `Parameter.validate`."""
        for known in self.values:
            # True == 1 in Python, but not to a user who listed booleans.
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return known
        hint = did_you_mean(value, self.values) if isinstance(value, str) else ""
        raise InputError(f"{self.what} must be one of {list(self.values)!r}, got {value!r}{hint}")

    def encode(self, value: Value) -> float:
        """The index of the value."""
        return float(self.values.index(self.validate(value)))

    def decode(self, coordinate: float) -> Value:
        """See `Parameter.decode`."""
        return self.values[min(max(round(float(coordinate)), 0), len(self.values) - 1)]


@dataclass(frozen=True)
class Ordered(_Listed):
    """A parameter on a list of values whose order means something, e.g. `[1, 2, 4, 8]`.

    A surrogate sees the values as equally spaced, whatever they are: list numbers at the distances
    that matter, such as [16, 32, 64, 128]. Numbers must ascend.
    """

    kind: ClassVar[str] = "ordered"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.values[0], bool):
            raise InputError(f"{self.what}: booleans have no order; use a choice parameter")
        numeric = not isinstance(self.values[0], str)
        if numeric and list(self.values) != sorted(self.values):
            raise InputError(f"{self.what}: numbers must ascend, got {list(self.values)!r}")


@dataclass(frozen=True)
class Choice(_Listed):
    """A parameter on a list of values without order (strings, booleans, numbers as labels)."""

    kind: ClassVar[str] = "choice"


def _check_bounds(what: str, low: float, high: float, log: bool) -> None:
    if not low < high:
        which = "equal" if low == high else "reversed"
        raise InputError(
            f"{what}: bounds are {which} (low {low}, high {high}); low must be below high"
        )
    if not isinstance(log, bool):
        raise InputError(f"{what}: log must be true or false, got {log!r}")
    if log and low <= 0:
        raise InputError(f"{what}: a logarithmic scale needs low > 0, got {low}")


@dataclass(frozen=True)
class LinearConstraint:
    """`sum_i coefficients[name_i] * value_i <= upper` on float and int parameters."""

    coefficients: Mapping[str, float]
    upper: float

    @classmethod
    def parse(cls, expression: str) -> LinearConstraint:
        """From text such as `"x1 + 2*x2 <= 3"` or `"x1 >= x2"`.

        Raises:
            InputError: The text is not one linear inequality with <= or >=.
        """
        sides = re.split(r"(<=|>=)", expression) if isinstance(expression, str) else []
        if len(sides) != 3:
            raise InputError(
                f"parameter constraint {expression!r}: expected one <= or >=, "
                "as in 'x1 + 2*x2 <= 3'"
            )
        left, right = _linear(sides[0], expression), _linear(sides[2], expression)
        sign = 1.0 if sides[1] == "<=" else -1.0
        names = [n for n in {**left, **right} if n]
        total = {n: sign * (left.get(n, 0.0) - right.get(n, 0.0)) for n in names}
        return cls(
            {n: c for n, c in total.items() if c},
            sign * (right.get("", 0.0) - left.get("", 0.0)),
        )

    def slack(self, values: Mapping[str, Value]) -> float:
        """`upper` less the weighted sum: not negative where the constraint holds."""
        return self.upper - sum(c * float(values[n]) for n, c in self.coefficients.items())

    def __str__(self) -> str:
        terms = " + ".join(f"{c:g}*{n}" for n, c in self.coefficients.items())
        return f"{terms} <= {self.upper:g}"


def _linear(text: str, whole: str) -> dict[str, float]:
    """Coefficients of a linear expression; the constant stands under the empty name."""

    def walk(node: ast.expr) -> dict[str, float]:
        match node:
            case ast.Constant(value=int() | float() as number) if not isinstance(
                number, bool
            ) and math.isfinite(number):
                return {"": float(number)}
            case ast.Name(id=name):
                return {name: 1.0}
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return {n: -c for n, c in walk(operand).items()}
            case ast.UnaryOp(op=ast.UAdd(), operand=operand):
                return walk(operand)
            case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
                a, b = walk(left), walk(right)
                sign = 1.0 if isinstance(op, ast.Add) else -1.0
                return {n: a.get(n, 0.0) + sign * b.get(n, 0.0) for n in {**a, **b}}
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                a, b = walk(left), walk(right)
                if set(b) == {""}:
                    a, b = b, a
                if set(a) == {""}:
                    return {n: a[""] * c for n, c in b.items()}
            case ast.BinOp(left=left, op=ast.Div(), right=right):
                a, b = walk(left), walk(right)
                if set(b) == {""} and b[""] != 0:
                    return {n: c / b[""] for n, c in a.items()}
        raise InputError(
            f"parameter constraint {whole!r}: {ast.unparse(node)!r} is not linear in the parameters"
        )

    try:
        return walk(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"parameter constraint {whole!r}: cannot read {text.strip()!r}; "
            "write sums of number*parameter"
        ) from None


KINDS: dict[str, type[Parameter]] = {k.kind: k for k in (Float, Int, Ordered, Choice)}


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
