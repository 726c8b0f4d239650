"""Parameters: one class a kind."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from bo_surrogates.errors import InputError, did_you_mean

Value = float | int | str | bool
Values = dict[str, Value]

_OF_FEW = ("when", "default", "fidelity", "target")  # fields that few parameters have


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(f"{what} must be a number, got {value!r}")
    number = float(value)
    if not math.isfinite(number):
        raise InputError(f"{what} must be finite, got {value!r}")
    return number


@dataclass(frozen=True)
class Parameter(ABC):
    """Base of the kinds of parameter: `Float`, `Int`, `Ordered`, `Choice`, and `Fixed`.

    Args:
        name: Any non-empty string.
        when: The parameter is active only where each of these other parameters is active and has
            one of the given values, as in `{"solvent": ["ethanol", "dmso"]}`. Empty: always.
    """

    name: str
    when: Mapping[str, Sequence[Value]] = field(default_factory=dict, kw_only=True, hash=False)
    kind: ClassVar[str] = ""

    def _check_name(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise InputError(f"a parameter's name must be a non-empty string, got {self.name!r}")
        if not isinstance(self.when, Mapping):
            raise InputError(
                f"{self.what}: when must map another parameter to the values for which this one is "
                f"active, such as {{'solvent': ['ethanol']}}; got {self.when!r}"
            )
        object.__setattr__(
            self, "when", {n: self._parent_values(n, v) for n, v in self.when.items()}
        )

    def _parent_values(self, parent: object, values: object) -> tuple[Value, ...]:
        if not isinstance(parent, str):
            raise InputError(f"{self.what}: when must name a parameter, got {parent!r}")
        if isinstance(values, str | bool | int | float):
            values = (values,)
        if not isinstance(values, Sequence) or not values:
            raise InputError(
                f"{self.what}: when must list at least one value of {parent!r}, got {values!r}"
            )
        return tuple(values)

    @property
    def what(self) -> str:
        """How messages call this parameter."""
        return f"parameter {self.name!r}"

    @abstractmethod
    def validate(self, value: object) -> Value:
        """The value in its canonical type.

        Raises:
            InputError: The value has the wrong type or is out of range.
        """

    def admit(self, value: object) -> Value:
        """As `validate`, but a number may lie beyond the bounds: data may come from a wider space.

        Raises:
            InputError: The value has the wrong type, or no place on a logarithmic scale.
        """
        return self.validate(value)

    def parse(self, text: str) -> Value:
        """The value written in a text, as on a command line.

        Raises:
            InputError: The text is no value of the parameter.
        """
        text = text.strip()
        for value in self.listed:
            if text == str(value) or (
                isinstance(value, bool) and text.lower() == str(value).lower()
            ):
                return value
        if any(isinstance(value, str) for value in self.listed):
            return self.validate(text)
        try:
            number = float(text)
        except ValueError:
            return self.validate(text)
        return self.validate(number)

    @property
    def listed(self) -> tuple[Value, ...]:
        """Its values, where they are listed one by one."""
        return ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data: the fields, with the kind as "type"; those of few parameters where given."""
        fields = {k: v for k, v in vars(self).items() if k not in _OF_FEW}
        data: dict[str, Any] = {"type": self.kind, **fields}
        if self.when:
            data["when"] = {name: list(values) for name, values in self.when.items()}
        given = {name: getattr(self, name, None) for name in _OF_FEW[1:]}
        if given["fidelity"] is False:  # unlike a default, which may be false
            given["fidelity"] = None
        return data | {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class Varied(Parameter):
    """Base of the parameters that are varied: dimensions of the space.

    Args:
        default: The value that stands in where the parameter is inactive, for the surrogate only;
            see `imputed`.
        fidelity: Whether the parameter says how exact an evaluation is, as the number of epochs or
            the share of the data do. Not of a choice.
        target: The value of a fidelity at which the answer counts; None: the upper bound, or the
            last value.
    """

    default: Value | None = field(default=None, kw_only=True)
    fidelity: bool = field(default=False, kw_only=True)
    target: Value | None = field(default=None, kw_only=True)

    def _check_default(self) -> None:
        if self.default is None:
            return
        if not self.when:
            raise InputError(
                f"{self.what}: default is the value that stands in where a parameter is inactive; "
                "without 'when' it is always active: remove default"
            )
        object.__setattr__(self, "default", self.validate(self.default))

    def _check_fidelity(self) -> None:
        if not isinstance(self.fidelity, bool):
            raise InputError(f"{self.what}: fidelity must be true or false, got {self.fidelity!r}")
        if not self.fidelity:
            if self.target is not None:
                raise InputError(
                    f"{self.what}: target is the value of a fidelity at which the answer counts; "
                    "say fidelity = true as well, or remove target"
                )
            return
        if self.kind == "choice":
            raise InputError(
                f"{self.what}: a fidelity needs an order; make it a float, an int or ordered"
            )
        if self.when:
            raise InputError(
                f"{self.what}: a fidelity is active everywhere; remove 'when', or 'fidelity'"
            )
        target = self.decode(self.bounds[1]) if self.target is None else self.target
        try:
            object.__setattr__(self, "target", self.validate(target))
        except InputError as error:
            raise InputError(f"target: {error}") from None

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound in problem coordinates."""

    @property
    @abstractmethod
    def cardinality(self) -> int | None:
        """The number of distinct values, or None for a continuous parameter."""

    @property
    @abstractmethod
    def middle(self) -> Value:
        """The middle of the range, on its scale; the first value where there is no order."""

    @property
    def imputed(self) -> Value:
        """What a surrogate sees where the parameter is inactive: `default`, or else `middle`."""
        return self.middle if self.default is None else self.default

    def encode(self, value: Value) -> float:
        """The problem coordinate of a valid value."""
        return float(value)

    @abstractmethod
    def decode(self, coordinate: float) -> Value:
        """The value at a problem coordinate (nearest, for discrete kinds)."""


@dataclass(frozen=True)
class Float(Varied):
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
        self._check_default()
        self._check_fidelity()

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return self.low, self.high

    @property
    def middle(self) -> float:
        """The arithmetic mean of the bounds; on a logarithmic scale the geometric one."""
        return self.decode(_middle(self.low, self.high, self.log))

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

    def admit(self, value: object) -> float:
        """See `Parameter.admit`."""
        return _admit(_number(value, self.what), self.what, self.log)

    def decode(self, coordinate: float) -> float:
        """See `Parameter.decode`; what rounding leaves is hidden: 12 digits, and bounds are met."""
        number = float(f"{float(coordinate):.12g}")
        if number <= self.low + _ROUNDING * (self.low if self.log else self.high - self.low):
            return self.low
        if number >= self.high - _ROUNDING * (self.high if self.log else self.high - self.low):
            return self.high
        return number


@dataclass(frozen=True)
class Int(Varied):
    """An integer parameter on {low, ..., high}; arguments as for `Float`."""

    low: int
    high: int
    log: bool = False
    unit: str = ""
    kind: ClassVar[str] = "int"

    def __post_init__(self) -> None:
        self._check_name()
        for name, bound in (("low", self.low), ("high", self.high)):
            number = _number(bound, f"{self.what}: {name}")
            if number != int(number):
                raise InputError(f"{self.what}: {name} must be an integer, got {bound!r}")
            object.__setattr__(self, name, int(number))
        _check_bounds(self.what, self.low, self.high, self.log)
        self._check_default()
        self._check_fidelity()

    @property
    def bounds(self) -> tuple[float, float]:
        """Lower and upper bound."""
        return float(self.low), float(self.high)

    @property
    def middle(self) -> int:
        """The integer nearest to the mean of the bounds on the parameter's scale."""
        return self.decode(_middle(self.low, self.high, self.log))

    @property
    def cardinality(self) -> int:
        """high - low + 1."""
        return self.high - self.low + 1

    def validate(self, value: object) -> int:
        """See `Parameter.validate`."""
        number = self._integer(value)
        if not self.low <= number <= self.high:
            raise InputError(f"{self.what} must be in [{self.low}, {self.high}], got {value!r}")
        return number

    def admit(self, value: object) -> int:
        """See `Parameter.admit`."""
        return int(_admit(self._integer(value), self.what, self.log))

    def _integer(self, value: object) -> int:
        number = _number(value, self.what)
        if number != int(number):
            raise InputError(f"{self.what} must be an integer, got {value!r}")
        return int(number)

    def decode(self, coordinate: float) -> int:
        """See `Parameter.decode`."""
        return min(max(round(float(coordinate)), self.low), self.high)


@dataclass(frozen=True)
class _Listed(Varied):
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
        self._check_default()
        self._check_fidelity()

    @property
    def listed(self) -> tuple[Value, ...]:
        """All of them."""
        return self.values

    @property
    def bounds(self) -> tuple[float, float]:
        """0 and the number of values less one."""
        return 0.0, float(len(self.values) - 1)

    @property
    def cardinality(self) -> int:
        """The number of values."""
        return len(self.values)

    @property
    def middle(self) -> Value:
        """The middle value of the list, the lower of two."""
        return self.values[(len(self.values) - 1) // 2]

    def validate(self, value: object) -> Value:
        """See `Parameter.validate`."""
        for known in self.values:
            if same_value(known, value):
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

    @property
    def middle(self) -> Value:
        """The first value."""
        return self.values[0]


@dataclass(frozen=True)
class Fixed(Parameter):
    """A parameter with one value: passed to the black box, stored and shown, but not varied.

    Args:
        name: Any non-empty string.
        value: A finite number, a string or a boolean.
        unit: For display only.
    """

    value: Value
    unit: str = ""
    kind: ClassVar[str] = "fixed"

    def __post_init__(self) -> None:
        self._check_name()
        if not isinstance(self.value, str | bool):
            if not isinstance(self.value, int | float):
                raise InputError(
                    f"{self.what}: value must be a number, a string or a boolean, "
                    f"got {self.value!r}"
                )
            _number(self.value, f"{self.what}: value")

    @property
    def listed(self) -> tuple[Value, ...]:
        """The one."""
        return (self.value,)

    def validate(self, value: object) -> Value:
        """See `Parameter.validate`."""
        if not same_value(self.value, value):
            raise InputError(f"{self.what} is fixed at {self.value!r}, got {value!r}")
        return self.value


_ROUNDING = 1e-9  # of a range (or, on a logarithmic scale, of a bound): as good as the bound


def same_value(a: Value, b: object) -> bool:
    """Whether two values are the same to a user."""
    # True == 1 in Python, but not to a user who listed booleans.
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def _admit(number: float, what: str, log: bool) -> float:
    if log and number <= 0:
        raise InputError(f"{what} must be above 0 (its scale is logarithmic), got {number!r}")
    return number


def _middle(low: float, high: float, log: bool) -> float:
    return math.sqrt(low) * math.sqrt(high) if log else low / 2 + high / 2


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


KINDS: dict[str, type[Parameter]] = {k.kind: k for k in (Float, Int, Ordered, Choice, Fixed)}
