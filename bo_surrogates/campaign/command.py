"""Programs as black boxes: the point as JSON on standard input, the metrics as JSON on standard
output, line by line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, ClassVar

from bo_surrogates.campaign.black_box import BlackBox, Report, TrialFailure, describe_exit
from bo_surrogates.errors import InputError

if TYPE_CHECKING:
    from bo_surrogates.space import Values

STDERR_LINES = 5  # of a failed command's standard error, quoted in the reason
STDERR_CHARACTERS = 600
GRACE_SECONDS = 10.0  # a command's time to end by itself after SIGTERM


class CommandBlackBox(BlackBox):
    """A program: the point as JSON on standard input, the metrics as JSON on standard output.

    The command line is split into words as a shell would, but no shell runs it; for pipes and
    variables write `sh -c '...'`. The program runs in the current directory with the environment
    variables `BO_SURROGATES_TRIAL` (the trial's index), `BO_SURROGATES_SEED` and
    `BO_SURROGATES_ATTEMPT`. Its last line of output that is not blank must be a JSON object from
    metric to a number or to [mean, standard error]. Lines before it that are JSON objects with a
    "step", such as `{"step": 3, "loss": 0.5}`, report its progress; other lines are ignored. A
    non-zero exit code is a failure. A program that is to stop early gets SIGTERM, and is killed
    where it goes on for `GRACE_SECONDS`.

    Raises:
        InputError: The command is empty, has an unclosed quote, or names no program.
    """

    needs_process: ClassVar[bool] = True  # killed with all that it started at a time-out

    def __init__(self, command: str, *, metrics: Sequence[str]) -> None:
        self.command = command
        self.metrics = tuple(metrics)
        try:
            self.words = shlex.split(command)
        except ValueError as error:
            raise InputError(f"command = {command!r}: {error}") from None
        if not self.words:
            raise InputError("command: expected a program and its arguments, got an empty text")
        if shutil.which(self.words[0]) is None:
            raise InputError(
                f"command = {command!r}: no program {self.words[0]!r} in {os.getcwd()} or on PATH; "
                "give its full path, or make it executable (chmod +x)"
            )

    def prepare(self) -> None:
        """Nothing to load."""

    def __call__(
        self,
        parameters: Values,
        trial_index: int,
        seed: int,
        *,
        report: Report | None = None,
        attempt: int = 1,
    ) -> Any:
        """See `BlackBox.__call__`."""
        environment = {
            **os.environ,
            "BO_SURROGATES_TRIAL": str(trial_index),
            "BO_SURROGATES_SEED": str(seed),
            "BO_SURROGATES_ATTEMPT": str(attempt),
        }
        try:
            program = subprocess.Popen(
                self.words,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment,
            )
        except OSError as error:
            raise TrialFailure(f"the command could not be started: {error}") from error
        with program:
            said: deque[bytes] = deque(maxlen=STDERR_LINES)
            listener = threading.Thread(target=_copy, args=(program.stderr, said), daemon=True)
            listener.start()
            try:
                last, failure = _converse(program, parameters, report)
            except BaseException:
                program.kill()
                raise
            code = program.wait()
            listener.join()
        if failure is not None:
            raise failure
        if code != 0:
            tail = b"".join(said).decode(errors="replace").strip()[-STDERR_CHARACTERS:]
            raise TrialFailure(
                f"the command {describe_exit(code)}"
                + (f": {tail}" if tail else ", with nothing on its standard error")
            )
        if last is None:
            raise TrialFailure(
                "the command printed nothing; its last line must be a JSON object of metrics"
            )
        result = _json_object(last)
        if result is None:
            raise TrialFailure(
                f"the command's last line is not a JSON object of metrics: {last[:200]!r}"
            )
        return result


def _converse(
    program: subprocess.Popen[bytes], parameters: Values, report: Report | None
) -> tuple[str | None, TrialFailure | None]:
    """Give a program its point and read what it prints: its last line, and what was wrong."""
    if program.stdin is None or program.stdout is None:
        raise RuntimeError("the program was started without pipes")
    with suppress(BrokenPipeError):  # it does not read its point
        program.stdin.write(json.dumps(parameters).encode())
    with suppress(BrokenPipeError):
        program.stdin.close()
    last, failure, stopped = None, None, False
    for raw in program.stdout:
        line = raw.decode(errors="replace")
        print(line, end="" if line.endswith("\n") else "\n", flush=True)  # to the trial's log
        if not line.strip():
            continue
        last = line.rstrip("\n")
        progress = _json_object(line)
        if report is None or stopped or progress is None or "step" not in progress:
            continue
        try:
            stopped = not report(progress.pop("step"), **progress)
        except TrialFailure as error:
            stopped, failure = True, error
        if stopped:
            program.terminate()
            threading.Thread(target=_kill_later, args=(program,), daemon=True).start()
    return last, failure


def _kill_later(program: subprocess.Popen[bytes]) -> None:
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.send_signal(signal.SIGKILL)


def _copy(stream: IO[bytes], said: deque[bytes]) -> None:
    """Pass a program's standard error on, and keep its last lines."""
    for raw in stream:
        sys.stderr.write(raw.decode(errors="replace"))
        sys.stderr.flush()
        if raw.strip():
            said.append(raw)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
