"""Parameters: one class a kind."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bo_surrogates.errors import InputError, did_you_mean

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


KINDS: dict[str, type[Parameter]] = {k.kind: k for k in (Float, Int, Ordered, Choice)}
