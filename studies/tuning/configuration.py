"""A configuration that was found, as a TOML file from which its network is trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.space import Values
from bo_surrogates.toml_file import at, check_keys, read_toml
from problems.documented.trained_model import tuning_problem
from problems.documented.tuning_problem import TuningProblem

KEYS = ("problem", "seed", "options", "parameters", "measured")


@dataclass(frozen=True)
class Configuration:
    """A point of a tuning problem.

    Attributes:
        problem: The problem's registered name.
        options: Its options.
        parameters: The point.
        seed: Of the training whose result was measured.
        measured: Metrics by name, of the validation part; for the reader only.
    """

    problem: str
    options: Mapping[str, Any]
    parameters: Values
    seed: int
    measured: Mapping[str, float] = field(default_factory=dict)

    def resolve(self) -> tuple[TuningProblem, Values]:
        """The problem, and the point in canonical types.

        Raises:
            InputError: There is no such problem, option or point.
        """
        problem = tuning_problem(self.problem, self.options)
        return problem, problem.space.validate(self.parameters)

    def write(self, path: Path) -> None:
        """Write the file.

        Raises:
            RunError: It cannot be written.
        """
        lines = [
            "# Train this network again: bo-surrogates tune --retrain FILE",
            f"problem = {_toml(self.problem)}",
            f"seed = {self.seed}",
        ]
        tables = ("options", "parameters", "measured")
        for name in tables:
            lines += ["", f"[{name}]"]
            lines += [f"{_key(k)} = {_toml(v)}" for k, v in getattr(self, name).items()]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error}") from error

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """From a file's content.

        Raises:
            InputError: A key is missing, unknown or of the wrong type.
        """
        check_keys(data, KEYS)
        for key, kind, expected in (
            ("problem", str, "a registered name"),
            ("parameters", Mapping, "a table [parameters]"),
            ("options", Mapping, "a table [options]"),
            ("measured", Mapping, "a table [measured]"),
            ("seed", int, "a whole number"),
        ):
            given = data.get(key, {} if kind is Mapping else 0 if kind is int else None)
            if not isinstance(given, kind) or isinstance(given, bool):
                raise InputError(f"{key!r} must be {expected}, got {given!r}")
        if not data.get("parameters"):
            raise InputError("'parameters' is missing; expected a table [parameters]")
        return cls(
            data["problem"],
            dict(data.get("options", {})),
            dict(data["parameters"]),
            data.get("seed", 0),
            dict(data.get("measured", {})),
        )


def read_configuration(path: str | Path) -> Configuration:
    """The configuration in a file.

    Raises:
        InputError: The file cannot be read, or whatever is wrong in it.
    """
    path = Path(path)
    data = read_toml(path, "configuration")
    with at(str(path)):
        configuration = Configuration.of(data)
        configuration.resolve()
        return configuration


def _key(name: str) -> str:
    plain = name.replace("_", "").replace("-", "")
    return name if plain.isascii() and plain.isalnum() else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value)  # a basic string of TOML
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return repr(value)
