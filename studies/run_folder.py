"""The folder of a study's run: what was wanted, where it ran, and one file a cell.

RUN/study.json          the resolved study, and facts about its problems
RUN/environment.json    versions, hardware, commands
RUN/cells/*.jsonl       see `cell_file.py`
RUN/logs/*.log          what cells printed, if anything
RUN/.locks/             who writes
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bo_surrogates.campaign.storage.holder import Holder
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.toml_file import at
from studies.cell_file import CellRecord, DamagedCell, read_cell
from studies.changes import forbidden_changes
from studies.course import Facts
from studies.study import Cell, Study

FORMAT = 1
PACKAGES = (
    "bo-surrogates", "torch", "botorch", "gpytorch", "linear-operator", "pyro-ppl", "numpy",
    "scipy",
)  # fmt: skip


class RunFolder:
    """A folder that holds, or is to hold, a run.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def shown(self) -> str:
        """The path as a user would write it from the current directory."""
        here = Path.cwd()
        return str(self.path.relative_to(here) if self.path.is_relative_to(here) else self.path)

    @property
    def exists(self) -> bool:
        """Whether a run was started here."""
        return (self.path / "study.json").exists()

    def cell_file(self, cell: Cell) -> Path:
        """Where a cell is."""
        return self.path / "cells" / f"{cell.name}.jsonl"

    def cell_lock(self, cell: Cell) -> Path:
        """Whose lock says who writes the cell."""
        return self.path / ".locks" / f"{cell.name}.lock"

    def cell_log(self, cell: Cell) -> Path:
        """What the cell prints."""
        return self.path / "logs" / f"{cell.name}.log"

    # ---- what was wanted -------------------------------------------------------------------------
    def read_study(self) -> tuple[Study, dict[str, Facts]]:
        """The study that is run here, and facts about its problems by label.

        Raises:
            InputError: There is none.
            RunError: `study.json` is damaged.
        """
        path = self.path / "study.json"
        if not path.exists():
            raise InputError(f"{self} holds no run of a study (no study.json); check the path")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise RunError(f"{path}: format {data['format']}, this version reads {FORMAT}")
            facts = {label: Facts.from_dict(one) for label, one in data["facts"].items()}
            return Study.from_dict(data["study"]), facts
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"{path} is damaged ({error}); restore it, or start a new run in another folder"
            ) from error

    def read_environment(self) -> dict[str, Any]:
        """Versions, hardware and commands; empty where the file is gone."""
        path = self.path / "environment.json"
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}") from error
        return found

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write the run.

        Raises:
            InputError: The folder cannot be made, or holds something else.
            RunError: Another process holds it.
        """
        locks = self.path / ".locks"
        if self.path.is_dir() and not self.exists:
            foreign = [p.name for p in self.path.iterdir() if p.name not in (".locks", "cells")]
            if foreign:
                raise InputError(
                    f"{self} holds other things ({foreign[0]}) and no run; choose another folder"
                )
        try:
            locks.mkdir(parents=True, exist_ok=True)
            (self.path / "cells").mkdir(exist_ok=True)
        except OSError as error:
            raise InputError(f"{self}: cannot be made: {error.strerror or error}") from None
        name = locks / "holder.json"
        try:
            lock = FileLock(locks / "run.lock", timeout=0)
            with lock:
                name.write_text(Holder.this_process().to_json(), encoding="utf-8")
                yield
        except Timeout:
            raise RunError(
                f"{self} is being written by {self._holder() or 'another process'}; wait until it "
                "has ended, or choose another folder"
            ) from None

    def _holder(self) -> Holder | None:
        with suppress(OSError, ValueError, TypeError):
            return Holder.from_json(
                (self.path / ".locks" / "holder.json").read_text(encoding="utf-8")
            )
        return None

    def is_running(self) -> bool:
        """Whether a process is writing the run now."""
        lock = self.path / ".locks" / "run.lock"
        if not lock.exists():
            return False
        try:
            with FileLock(lock, timeout=0):
                return False
        except (Timeout, OSError):
            return True

    def begin(self, study: Study, *, resume: bool) -> None:
        """Write what is wanted into the folder; call it while `writing`.

        Args:
            study: Resolved.
            resume: Whether to go on with what is there.

        Raises:
            InputError: Something is there and `resume` is false, or the study has changed in what
                decides its cells; the message says what.
        """
        if self.exists:
            if not resume:
                raise InputError(
                    f"{self} holds a run already; go on with it by --resume (resume=True), or "
                    "choose another folder by --output"
                )
            before, _ = self.read_study()
            with at(f"{self} cannot be resumed"):
                changes = forbidden_changes(before, study)
                if changes:
                    raise InputError(
                        "; ".join(changes) + ". What is there was run otherwise: choose another "
                        "folder by --output, or undo the change"
                    )
        facts = {p.label: asdict(Facts.of(p, p.make())) for p in study.problems}
        _write(
            self.path / "study.json", {"format": FORMAT, "study": study.to_dict(), "facts": facts}
        )

    def note_environment(self, workers: int, executor: str) -> None:
        """Add versions, hardware and the command of this process."""
        now = environment(workers, executor)
        known = self.read_environment()
        sessions = [*known.pop("resumed", []), now] if known else []
        _write(self.path / "environment.json", {**(known or now), "resumed": sessions})

    # ---- cells -----------------------------------------------------------------------------------
    def read_cell(self, cell: Cell) -> CellRecord:
        """What is known of a cell; raises as `cell_file.read_cell`."""
        return read_cell(self.cell_file(cell), cell)

    def sound_record(self, cell: Cell, note: Callable[[str], object]) -> CellRecord:
        """What is known of a cell; a damaged file is set aside, and nothing is known then."""
        try:
            return self.read_cell(cell)
        except DamagedCell as error:
            path = self.cell_file(cell)
            number = 1
            while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
                number += 1
            path.rename(aside)
            note(f"{path.name} is damaged ({error}): set aside as {aside.name}, its cell run again")
            return CellRecord()


def environment(workers: int, executor: str) -> dict[str, Any]:
    """What a run's times, and in the last digits its results, may depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "versions": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "workers": workers,
        "executor": executor,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _write(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file as a whole: a crash leaves the old one or the new one."""
    aside = path.with_name(f".{path.name}.new")
    with open(aside, "w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, allow_nan=False)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
