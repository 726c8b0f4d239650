"""The table of latencies: what every block costs in every layer, and an architecture as their sum.

Counted, a block costs its thousands of MACs (blocks of b bits: times (b / 16)^2); measured, its
microseconds on this machine, taken once and kept in a file. Entries are keyed by the shapes of the
layer. Every layer's entry has an offset, so that a network of skips costs something too and the
logarithm of any latency is positive.

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443, equation 3.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.threads import limited_threads
from problems.documented.cost import UNQUANTIZED_BITS, count_cost
from problems.documented.fbnet.macro import Layer, MacroSpace

OFFSET = 1.0
COUNTED, MEASURED = "kMACs", "microseconds"
FORMAT = 1


@dataclass(frozen=True)
class LatencyTable:
    """Latencies by layer shape and block.

    Attributes:
        entries: By `Layer.key`, in `unit`; at least 0.
        unit: Of the entries.
        offset: What every layer costs beside its block.

    Raises:
        InputError: A latency is negative or no number.
    """

    entries: dict[str, float]
    unit: str = COUNTED
    offset: float = OFFSET

    def __post_init__(self) -> None:
        for key, value in {**self.entries, "offset": self.offset}.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (number and math.isfinite(value) and value >= 0):
                raise InputError(f"latency of {key!r} must be a number >= 0, got {value!r}")

    def rows(self, space: MacroSpace) -> tuple[tuple[float, ...], ...]:
        """By layer and candidate, offsets included.

        Raises:
            InputError: An entry is missing, or the fastest architecture has no latency above 1, so
                that its logarithm would not be positive.
        """
        rows = tuple(
            tuple(self._entry(layer, block) for block in layer.candidates) for layer in space.layers
        )
        fastest = sum(min(row) for row in rows)
        if fastest <= 1:
            raise InputError(
                f"latencies must be above 1 for their logarithm to be positive; the fastest "
                f"architecture has {fastest:g}: use a smaller unit or a larger offset"
            )
        return rows

    def latency(self, space: MacroSpace, architecture: Sequence[str]) -> float:
        """Of one architecture: the sum over its layers.

        Raises:
            InputError: An entry is missing.
        """
        pairs = zip(space.layers, space.check(architecture), strict=True)
        return sum(self._entry(layer, block) for layer, block in pairs)

    def _entry(self, layer: Layer, block: str) -> float:
        key = layer.key(block)
        if key not in self.entries:
            raise InputError(
                f"the table of latencies has no entry {key!r}: measure it for this space and shape"
            )
        return self.entries[key] + self.offset

    def save(self, path: str | Path) -> None:
        """Write to a JSON file, all or nothing.

        Raises:
            RunError: It cannot be written.
        """
        path = Path(path).expanduser()
        facts = {
            "format": FORMAT, "unit": self.unit, "offset": self.offset, "entries": self.entries,
        }  # fmt: skip
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(facts, file, indent=1)
            os.replace(temporary, path)
        except OSError as error:
            raise RunError(f"{path}: cannot be written: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read what `save` wrote.

        Raises:
            InputError: There is no such file, or it is no table of latencies.
        """
        path = Path(path).expanduser()
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            if facts["format"] != FORMAT:
                raise InputError(f"{path}: format {facts['format']!r}, expected {FORMAT}")
            return cls(dict(facts["entries"]), str(facts["unit"]), facts["offset"])
        except OSError as error:
            raise InputError(f"latency table {path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no table of latencies: {error!r}") from error


@lru_cache(maxsize=64)
def counted_table(space: MacroSpace) -> LatencyTable:
    """Thousands of MACs, of blocks of b bits times (b / 16)^2, by the cost counter."""

    def count(layer: Layer, block: str) -> float:
        cost = count_cost(layer.make(block), (layer.in_channels, layer.height, layer.width))
        return cost.ace / UNQUANTIZED_BITS**2 / 1000

    return LatencyTable(_every_entry(space, count))


def measured_table(space: MacroSpace, *, repeats: int = 50, warm_up: int = 5) -> LatencyTable:
    """Microseconds of a block for one image on one thread of this machine's CPU.

    A median of `repeats`; on a machine that others use, they differ from one time to the next, so
    measure once, `save` and load.

    Args:
        space: Whose blocks.
        repeats: Timed runs of each block.
        warm_up: Runs before.

    Raises:
        InputError: No run is timed.
    """
    if repeats < 1:
        raise InputError(f"repeats must be at least 1, got {repeats}")

    def measure(layer: Layer, block: str) -> float:
        module = layer.make(block).eval()
        x = torch.randn(1, layer.in_channels, layer.height, layer.width)
        seconds = []
        for number in range(warm_up + repeats):
            begin = time.perf_counter()
            module(x)
            if number >= warm_up:
                seconds.append(time.perf_counter() - begin)
        return 1e6 * statistics.median(seconds)

    with torch.no_grad(), limited_threads(1), fixed_seed(0):
        return LatencyTable(_every_entry(space, measure), MEASURED)


def _every_entry(space: MacroSpace, entry: Callable[[Layer, str], float]) -> dict[str, float]:
    found: dict[str, float] = {}
    with fixed_seed(0):  # the weights do not matter
        for layer in space.layers:
            for block in layer.candidates:
                key = layer.key(block)
                if key not in found:
                    found[key] = entry(layer, block)
    return found
