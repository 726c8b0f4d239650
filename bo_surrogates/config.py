"""Configurations: frozen dataclasses that know their ranges, hence their own search space.

    @dataclass(frozen=True)
    class EnsembleConfig(Config):
        members: int = integer(10, 1, 1000)
        learning_rate: float = real(1e-2, 1e-6, 1.0, log=True)
        activation: str = choice("tanh", ("tanh", "relu"))

An out-of-range value is refused at construction; `EnsembleConfig.search_space()` is what a
campaign that tunes the surrogate varies; `repr` is the call that makes the configuration again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Self

from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space import Choice, Float, Int, Parameter, Space, Value


def real(
    default: float | None,
    low: float,
    high: float,
    *,
    log: bool = False,
    optional: bool = False,
    search: tuple[float, float] | None = None,
) -> Any:
    """A float field on [low, high], either end may be infinite.

    Args:
        default: Its default; None (with `optional`) means "decided by the model".
        low: Smallest allowed value.
        high: Largest allowed value.
        log: Searched on a logarithmic scale.
        optional: Whether None is allowed.
        search: Range to search where it is narrower than what is allowed; a field with an
            infinite bound and no `search` is not searched.
    """
    return field(
        default=default,
        metadata={"kind": "real", "low": low, "high": high, "log": log, "optional": optional,
                  "search": search or (low, high)},
    )  # fmt: skip


def integer(
    default: int | None,
    low: int,
    high: int,
    *,
    log: bool = False,
    optional: bool = False,
    search: tuple[int, int] | None = None,
) -> Any:
    """An int field on {low, ..., high}; arguments as for `real`."""
    return field(
        default=default,
        metadata={"kind": "integer", "low": low, "high": high, "log": log, "optional": optional,
                  "search": search or (low, high)},
    )  # fmt: skip


def choice(default: Value, options: Sequence[Value]) -> Any:
    """A field on a list of options."""
    return field(default=default, metadata={"kind": "choice", "options": tuple(options)})


def reals(default: Sequence[float] | None, low: float, high: float) -> Any:
    """A field of several floats on [low, high], or None; it is not searched."""
    return field(default=default, metadata={"kind": "reals", "low": low, "high": high})


def text(default: str) -> Any:
    """A field of any text, such as a path; it is not searched."""
    return field(default=default, metadata={"kind": "text"})


def words(default: Sequence[str] | None) -> Any:
    """A field of several distinct words, at least one, or None; it is not searched.

    One text of words between spaces or commas is taken as several, as a command line gives them.
    """
    return field(default=default, metadata={"kind": "words"})


def flag(default: bool) -> Any:
    """A field that is true or false."""
    return choice(default, (False, True))


@dataclass(frozen=True)
class Config:
    """Base of all configurations. Each field is made by one of the functions above."""

    _searched: ClassVar[tuple[str, ...] | None] = None  # names searched; None: all that can be

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _checked(type(self), f.name, getattr(self, f.name)))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A configuration from plain data, e.g. a TOML table.

        Raises:
            InputError: An unknown field (the nearest name is suggested) or an invalid value.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"{cls.__name__} must be a table of fields, got {data!r}")
        names = [f.name for f in fields(cls)]
        for name in data:
            if name not in names:
                raise InputError(f"{cls.__name__} has no field {name!r}{did_you_mean(name, names)}")
        return cls(**data)

    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes an equal configuration."""
        return asdict(self)

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            InputError: As for `from_dict`.
        """
        return self.from_dict({f.name: getattr(self, f.name) for f in fields(self)} | changes)

    @classmethod
    def search_space(cls) -> Space:
        """The space of configurations, for tuning the thing they configure."""
        parameters: list[Parameter] = []
        for f in fields(cls):
            if cls._searched is not None and f.name not in cls._searched:
                continue
            m = f.metadata
            if m["kind"] == "choice":
                parameters.append(Choice(f.name, m["options"]))
            elif m["kind"] in ("real", "integer") and all(math.isfinite(b) for b in m["search"]):
                kind = Float if m["kind"] == "real" else Int
                low, high = m["search"]
                parameters.append(kind(f.name, low=low, high=high, log=m["log"]))
        return Space(parameters)


def _checked(cls: type[Config], name: str, value: Any) -> Any:
    """The field's value in its canonical type, or an `InputError` that names field and range."""
    (spec,) = (f.metadata for f in fields(cls) if f.name == name)
    what = f"{cls.__name__}.{name}"
    if spec["kind"] == "choice":
        for option in spec["options"]:
            if option == value and isinstance(option, bool) == isinstance(value, bool):
                return option
        hint = did_you_mean(value, spec["options"]) if isinstance(value, str) else ""
        raise InputError(f"{what} must be one of {list(spec['options'])!r}, got {value!r}{hint}")
    if spec["kind"] == "reals":
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise InputError(f"{what} must be a list of numbers, got {value!r}")
        return tuple(_number(f"{what}[{i}]", x, spec) for i, x in enumerate(value))
    if spec["kind"] == "text":
        if not isinstance(value, str):
            raise InputError(f"{what} must be a text, got {value!r}")
        return value
    if spec["kind"] == "words":
        return _words(what, value)
    if value is None and spec["optional"]:
        return None
    return _number(what, value, spec)


def _words(what: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    found = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(w, str) for w in found):
        raise InputError(f"{what} must be a list of words, got {value!r}")
    if not found or len(set(found)) < len(found):
        raise InputError(f"{what} must hold at least one word and none twice, got {value!r}")
    return tuple(found)


def _number(what: str, value: Any, spec: Mapping[str, Any]) -> float | int:
    """A number of the field's kind within its range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise InputError(f"{what} must be a number, got {value!r}")
    if spec["kind"] == "integer":
        if not math.isfinite(value) or value != int(value):
            raise InputError(f"{what} must be an integer, got {value!r}")
        value = int(value)
    else:
        value = float(value)
    if not spec["low"] <= value <= spec["high"]:
        raise InputError(f"{what} must be in [{spec['low']:g}, {spec['high']:g}], got {value!r}")
    return value
