"""The file of a cell: a header, then a line of JSON an iteration, each on the disk before the next.

    {"format": 1, "problem": "branin", "surrogate": "gp", "seed": 0, "settings": "5f0c..."}
    {"iteration": 0, "X": [[...], ...], "Y": [[...], ...], ...}
    {"iteration": 1, ...}
    {"end": 20, ...}

`end` closes a cell whose iterations are done; of a cell that was extended later, more iterations
follow. {"error": "..."} is the last line of a cell that failed. A process that is killed while it
writes leaves half a line, which counts as not written. Anything else that does not fit is damage.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bo_surrogates.errors import RunError
from studies.study import Cell

FORMAT = 1


class DamagedCell(RunError):  # noqa: N818 - what is wrong with a file, not with the program
    """A cell's file holds what no run of this study has written."""


@dataclass(frozen=True)
class CellRecord:
    """What a cell's file holds.

    Attributes:
        iterations: The records in order; the first is the initial design.
        ends: What closed the cell, by the number of iterations after the initial design.
        error: Why it failed, if it did.
        size: Bytes of the file that hold these; what follows is half a line, or the error.
    """

    iterations: tuple[Mapping[str, Any], ...] = ()
    ends: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    error: str | None = None
    size: int = 0

    @property
    def done(self) -> int:
        """Iterations after the initial design; -1 before it."""
        return len(self.iterations) - 1

    def is_finished(self, wanted: int) -> bool:
        """Whether so many iterations are done, or there was nothing left to try."""
        end = self.ends.get(self.done)
        return end is not None and (self.done >= wanted or bool(end["exhausted"]))


def header(cell: Cell) -> dict[str, Any]:
    """The first line of a cell's file."""
    problem, surrogate, seed = cell.key
    return {
        "format": FORMAT,
        "problem": problem,
        "surrogate": surrogate,
        "seed": seed,
        "settings": cell.settings,
    }


def read_cell(path: Path, cell: Cell) -> CellRecord:
    """What is known of a cell; nothing where there is no file.

    Raises:
        DamagedCell: The file holds something else.
        RunError: It was written by a newer version, or cannot be read.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return CellRecord()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror or error}") from error
    lines = content.split(b"\n")
    if lines.pop():  # a last line without its end: killed while writing
        content = content[: content.rfind(b"\n") + 1]
    found: list[Mapping[str, Any]] = []
    ends: dict[int, Mapping[str, Any]] = {}
    size = 0
    for number, line in enumerate(lines):
        data = _parse(line)
        if data is None:
            if number == len(lines) - 1:  # a power failure may leave blocks that were not written
                break
            raise DamagedCell(f"line {number + 1} is not JSON")
        if number == 0:
            _check_header(data, cell)
        elif "error" in data:
            return CellRecord(tuple(found), ends, str(data["error"]), size)
        elif "end" in data:
            _check_end(data, len(found) - 1, number)
            ends[len(found) - 1] = data
        else:
            _check_iteration(data, found, cell, number)
            found.append(data)
        size += len(line) + 1
    return CellRecord(tuple(found), ends, None, size)


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(line)
    except ValueError:  # also: not UTF-8
        return None
    return data if isinstance(data, dict) else None


def _check_header(data: Mapping[str, Any], cell: Cell) -> None:
    if data.get("format", 0) != FORMAT:
        raise DamagedCell(f"line 1: expected format {FORMAT}, got {data.get('format')!r}")
    for key, expected in header(cell).items():
        if data.get(key) != expected:
            raise DamagedCell(f"line 1: expected {key} {expected!r}, got {data.get(key)!r}")


def _check_end(data: Mapping[str, Any], done: int, number: int) -> None:
    if data["end"] != done or not isinstance(data.get("exhausted"), bool):
        raise DamagedCell(f"line {number + 1}: an end where {done} iterations are done")


def _check_iteration(
    data: Mapping[str, Any], before: list[Mapping[str, Any]], cell: Cell, number: int
) -> None:
    where = f"line {number + 1}"
    if data.get("iteration") != len(before):
        raise DamagedCell(
            f"{where}: expected iteration {len(before)}, got {data.get('iteration')!r}"
        )
    rows = {}
    for key in ("X", "Y"):
        matrix = data.get(key)
        if not isinstance(matrix, list) or not matrix or not all(map(_is_row, matrix)):
            raise DamagedCell(f"{where}: {key} is no matrix of finite numbers")
        widths = {len(row) for row in matrix}
        expected = len(before[0][key][0]) if before else len(matrix[0])
        if widths != {expected}:
            raise DamagedCell(f"{where}: {key} has rows of {sorted(widths)} numbers")
        rows[key] = len(matrix)
    if rows["X"] != rows["Y"]:
        raise DamagedCell(f"{where}: {rows['X']} points and {rows['Y']} outcomes")
    for key in ("seconds", "best", "incumbent", "hypervolume"):
        if key not in data:
            raise DamagedCell(f"{where}: {key!r} is missing")


def _is_row(row: object) -> bool:
    return isinstance(row, list) and all(
        isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in row
    )


class CellWriter:
    """Appends to a cell's file; every line is on the disk when `append` returns.

    Args:
        path: The file.
        cell: For the header of a new file.
        record: What the file holds; whatever follows that is cut off.

    Raises:
        RunError: The file cannot be written.
    """

    def __init__(self, path: Path, cell: Cell, record: CellRecord) -> None:
        self.path = path
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            os.ftruncate(self._file, record.size)
        except OSError as error:
            raise self._cannot(error) from error
        if record.size == 0:
            self.append(header(cell))
            folder = os.open(path.parent, os.O_RDONLY)
            try:  # the file's name, too
                os.fsync(folder)
            finally:
                os.close(folder)

    def append(self, data: Mapping[str, Any]) -> None:
        """Write one line.

        Raises:
            RunError: The disk is full, or gone.
        """
        line = json.dumps(data, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._file, line) :]
            os.fsync(self._file)
        except OSError as error:
            raise self._cannot(error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _cannot(self, error: OSError) -> RunError:
        return RunError(f"{self.path}: cannot be written: {error.strerror or error}")
