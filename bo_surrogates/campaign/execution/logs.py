"""What trials print: one file a trial, kept beside the database.

An evaluation in a process of its own writes straight to its file, so that its last words are
there however it ends; when it has ended, what is beyond the limit is cut out of the middle.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

if TYPE_CHECKING:
    from bo_surrogates.campaign.execution.evaluation import Task

LIMIT = 1_000_000  # bytes of a trial's log; of a longer one, the first and the last half


def log_folder(database: Path, campaign: str) -> Path:
    """Where the logs of a campaign are: `<database>.logs/<campaign>`."""
    safe = re.sub(r"[^\w.-]+", "_", campaign)[:60]
    return database.with_name(database.name + ".logs") / safe


def log_file(folder: Path, index: int, repeat: int = 0) -> Path:
    """The log of a trial, or of one of its replicates after the first."""
    return folder / (f"trial-{index:04d}" + (f".{repeat}" if repeat else "") + ".log")


def log_files(folder: Path, index: int) -> list[Path]:
    """All there is of a trial's logs, the first replicate's first."""
    first = log_file(folder, index)
    return [p for p in (first, *sorted(folder.glob(f"trial-{index:04d}.*.log"))) if p.exists()]


def heading(task: Task) -> str:
    """The line that begins each attempt's part of a log."""
    repeat = f", replicate {task.repeat}" if task.repeat else ""
    return f"--- trial {task.index}{repeat}, attempt {task.attempt}, seed {task.seed}\n"


def discard_silent(path: Path) -> bool:
    """Remove a log that holds nothing but headings; whether it was one."""
    with open(path, "rb") as file:
        silent = all(line.startswith(b"--- trial ") for line in file)
    if silent:
        path.unlink()
    return silent


def remove_empty(folder: Path) -> None:
    """Remove the folder of a campaign's logs, and what holds it, where there is none."""
    with suppress(OSError):  # not empty, or not there
        folder.rmdir()
        folder.parent.rmdir()


@contextmanager
def logged_process(task: Task) -> Iterator[None]:
    """Send what this whole process and its children print to the trial's log."""
    if task.log is None:
        yield
        return
    sys.stdout.flush()
    sys.stderr.flush()
    before = os.dup(1), os.dup(2)
    os.makedirs(os.path.dirname(task.log) or ".", exist_ok=True)
    file = os.open(task.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, heading(task).encode())
        os.dup2(file, 1)
        os.dup2(file, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, saved in zip((1, 2), before, strict=True):
            os.dup2(saved, descriptor)
            os.close(saved)
        os.close(file)
        shorten(task.log)


@contextmanager
def logged_here(task: Task) -> Iterator[None]:
    """Copy what Python prints in this process to the trial's log; it is shown as ever."""
    if task.log is None:
        yield
        return
    os.makedirs(os.path.dirname(task.log) or ".", exist_ok=True)
    try:
        with (
            open(task.log, "a", encoding="utf-8", errors="replace") as file,
            redirect_stdout(cast(TextIO, _Copy(sys.stdout, file))),
            redirect_stderr(cast(TextIO, _Copy(sys.stderr, file))),
        ):
            file.write(heading(task))
            yield
    finally:
        shorten(task.log)


class _Copy:
    """A text stream that writes to two."""

    def __init__(self, stream: TextIO, file: TextIO) -> None:
        self._stream, self._file = stream, file

    def write(self, text: str) -> int:
        if not self._file.closed:  # whoever kept this stream may print after the trial
            self._file.write(text)
            self._file.flush()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def shorten(path: str | Path, limit: int = LIMIT) -> None:
    """Cut the middle out of a file that is longer than the limit, in bytes."""
    size = os.path.getsize(path)
    if size <= limit:
        return
    half = limit // 2
    with open(path, "r+b") as file:
        file.seek(size - half)
        end = file.read()
        file.truncate(half)
        file.seek(half)
        file.write(f"\n--- {size - 2 * half} bytes left out ---\n".encode() + end)


def append(path: str, text: str) -> None:
    """Add what an evaluation elsewhere has printed."""
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    with open(path, "a", encoding="utf-8", errors="replace") as file:
        file.write(text)
    shorten(path)


def read_tail(path: str, limit: int = LIMIT) -> str:
    """A file's text, shortened in the middle to the limit; empty where there is none."""
    try:
        shorten(path, limit)
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
