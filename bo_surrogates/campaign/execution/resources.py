"""Where an evaluation may run, and what it needs of the machine it runs on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from bo_surrogates.errors import InputError, did_you_mean

EXECUTORS = ("in-process", "processes", "dask")
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
         "KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}  # fmt: skip


@dataclass(frozen=True)
class Resources:
    """Hints for executors that place trials.

    Attributes:
        cpus: Cores, >= 1: also the threads that numerical libraries may use in one evaluation.
        gpus: Graphics processors, >= 0.
        memory: Such as "4GB" (10^9) or "4GiB" (2^30), or a number of bytes.

    Raises:
        InputError: One is out of its range or cannot be read.
    """

    cpus: int | None = None
    gpus: int | None = None
    memory: int | str | None = None

    def __post_init__(self) -> None:
        for name, low in (("cpus", 1), ("gpus", 0)):
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InputError(f"resources: {name} must be an integer >= {low}, got {value!r}")
        if self.memory is not None and self.bytes <= 0:
            raise InputError(f"resources: memory must be above 0, got {self.memory!r}")

    @property
    def bytes(self) -> int:
        """`memory` as a number of bytes; 0 if there is no such hint."""
        if self.memory is None:
            return 0
        if isinstance(self.memory, int) and not isinstance(self.memory, bool):
            return self.memory
        match = (
            re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", self.memory)
            if isinstance(self.memory, str)
            else None
        )
        if match is None or match[2].upper() not in UNITS:
            raise InputError(
                f"resources: cannot read memory = {self.memory!r}; write '4GB', '512MiB' or a "
                "number of bytes"
            )
        return int(float(match[1]) * UNITS[match[2].upper()])

    def to_dict(self) -> dict[str, Any]:
        """The hints that are given."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            InputError: An unknown hint, or one out of its range.
        """
        if not isinstance(data, Mapping):
            raise InputError(f"resources must be a table such as {{cpus = 2}}, got {data!r}")
        known = [f.name for f in fields(cls)]
        for name in data:
            if name not in known:
                raise InputError(f"resources: unknown hint {name!r}{did_you_mean(name, known)}")
        return cls(**data)
