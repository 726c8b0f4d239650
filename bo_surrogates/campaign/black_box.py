"""Black boxes: what is optimized, as something that can be called in another process.

A black box is called with a point and returns one measurement a metric. There are three kinds: a
Python function, a command, and a registered problem. This module is imported by every worker
process, so it stays light: no torch, no Ax.
"""

from __future__ import annotations

import importlib
import inspect
import json
import keyword
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from bo_surrogates.errors import InputError, RunError, did_you_mean

if TYPE_CHECKING:
    from bo_surrogates.campaign.spec import BlackBoxSource
    from bo_surrogates.space import Space, Values

Reading = tuple[float, float | None]  # mean and, if known, its standard error

STDERR_LINES = 5  # of a failed command's standard error, quoted in the reason
STDERR_CHARACTERS = 600


class TrialFailure(RunError):  # noqa: N818 - an outcome of a trial, not of the program
    """An evaluation gave no usable result; the text is the reason recorded with the trial."""


class BlackBox(ABC):
    """What is optimized: picklable, called once a trial.

    Attributes:
        metrics: What must be measured.
        needs_process: Must not be run in the campaign's own process.
    """

    metrics: tuple[str, ...]
    needs_process: ClassVar[bool] = False

    @abstractmethod
    def prepare(self) -> None:
        """Load what the calls need; done once a process, before the first trial.

        Raises:
            InputError: It cannot be loaded.
        """

    @abstractmethod
    def __call__(self, parameters: Values, trial_index: int, seed: int) -> Any:
        """Evaluate one point.

        Args:
            parameters: Values by name.
            trial_index: The trial's number in the campaign.
            seed: For whatever the evaluation draws at random.

        Returns:
            A number, or a mapping from metric to a number or to (mean, standard error):
            `read_result` makes sense of it.
        """


class PythonBlackBox(BlackBox):
    """A Python function, called with keyword arguments by parameter name.

    Where a parameter's name is no Python identifier, the function is called with one mapping from
    name to value instead. A function with an argument named `seed` or `trial_index` (that is not a
    parameter of the campaign) gets the trial's.

    Args:
        function: The function, or where to import it from as "module:function". It is pickled by
            reference either way, so worker processes must be able to import it.
        space: The search space.
        metrics: What must be measured.

    Raises:
        InputError: There is no such function, or its signature cannot take the parameters.
    """

    def __init__(
        self, function: str | Callable[..., Any], *, space: Space, metrics: Sequence[str]
    ) -> None:
        self.names = tuple(space.names)
        self.metrics = tuple(metrics)
        self.by_keyword = all(n.isidentifier() and not keyword.iskeyword(n) for n in self.names)
        self._source = function
        self._function: Callable[..., Any] | None = None
        self.extras: tuple[str, ...] = ()
        self._check_signature(self._loaded())

    @property
    def label(self) -> str:
        """How messages call the function."""
        if isinstance(self._source, str):
            return f"python = {self._source!r}"
        return f"the function {getattr(self._source, '__qualname__', repr(self._source))!r}"

    def _loaded(self) -> Callable[..., Any]:
        if self._function is None:
            self._function = (
                _import_function(self._source) if isinstance(self._source, str) else self._source
            )
        return self._function

    def _check_signature(self, function: Callable[..., Any]) -> None:
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none: the first trial will tell
            return
        self.extras = tuple(
            name
            for name in ("seed", "trial_index")
            if name not in self.names
            and name in signature.parameters
            and signature.parameters[name].kind
            in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        )
        extras = dict.fromkeys(self.extras, 0)
        try:
            if self.by_keyword:
                signature.bind(**dict.fromkeys(self.names, 0), **extras)
            else:
                signature.bind({}, **extras)
        except TypeError as error:
            call = ", ".join(f"{n}=..." for n in self.names) if self.by_keyword else "{...}"
            why = "" if self.by_keyword else " (a parameter's name is not a Python identifier)"
            raise InputError(
                f"{self.label} is called as f({call}){why}, but its signature is {signature}: "
                f"{error}; rename the function's arguments or the campaign's parameters"
            ) from None

    def prepare(self) -> None:
        """See `BlackBox.prepare`."""
        self._loaded()

    def __call__(self, parameters: Values, trial_index: int, seed: int) -> Any:
        """See `BlackBox.__call__`."""
        given = {"seed": seed, "trial_index": trial_index}
        extras = {name: given[name] for name in self.extras}
        if self.by_keyword:
            return self._loaded()(**parameters, **extras)
        return self._loaded()(dict(parameters), **extras)

    def __getstate__(self) -> dict[str, Any]:
        # A function named by "module:function" is imported again where it is needed.
        loaded = None if isinstance(self._source, str) else self._function
        return {**self.__dict__, "_function": loaded}


def _import_function(target: str) -> Callable[..., Any]:
    module_name, _, attribute = target.partition(":")
    if not module_name.strip() or not attribute.strip():
        raise InputError(
            f"python = {target!r}: expected 'module:function', e.g. 'reactor:measure_yield' for "
            "the function measure_yield in reactor.py"
        )
    directory = os.getcwd()
    if directory not in sys.path:
        # A console script starts with its own folder on the path, not with the user's.
        sys.path.insert(0, directory)
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and module_name.split(".")[: error.name.count(".") + 1] == (
            error.name.split(".")
        ):
            raise InputError(
                f"python = {target!r}: no module {error.name!r} in {directory} or on Python's "
                "path; run from the folder that holds it, or set PYTHONPATH"
            ) from error
        raise InputError(f"python = {target!r}: importing it failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"python = {target!r}: importing {module_name!r} failed: "
            f"{type(error).__name__}: {error}"
        ) from error
    function: Any = module
    for part in attribute.split("."):
        try:
            function = getattr(function, part)
        except AttributeError:
            hint = did_you_mean(part, [n for n in vars(function) if not n.startswith("_")])
            raise InputError(
                f"python = {target!r}: {module_name!r} has no {attribute!r}{hint}"
            ) from None
    if not callable(function):
        raise InputError(
            f"python = {target!r}: expected a function, found a {type(function).__name__}"
        )
    result: Callable[..., Any] = function
    return result


class CommandBlackBox(BlackBox):
    """A program: the point as JSON on standard input, the metrics as JSON on standard output.

    The command line is split into words as a shell would, but no shell runs it; for pipes and
    variables write `sh -c '...'`. The program runs in the current directory with the environment
    variables `BO_SURROGATES_TRIAL` (the trial's index) and `BO_SURROGATES_SEED`. Its last line of
    output that is not blank must be a JSON object from metric to a number or to
    [mean, standard error]; what it prints before is ignored. A non-zero exit code is a failure.

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

    def __call__(self, parameters: Values, trial_index: int, seed: int) -> Any:
        """See `BlackBox.__call__`."""
        environment = {
            **os.environ,
            "BO_SURROGATES_TRIAL": str(trial_index),
            "BO_SURROGATES_SEED": str(seed),
        }
        try:
            done = subprocess.run(
                self.words,
                input=json.dumps(parameters).encode(),
                capture_output=True,
                env=environment,
                check=False,
            )
        except OSError as error:
            raise TrialFailure(f"the command could not be started: {error}") from error
        if done.returncode != 0:
            tail = _tail(done.stderr)
            said = f": {tail}" if tail else ", with nothing on its standard error"
            raise TrialFailure(f"the command {describe_exit(done.returncode)}{said}")
        lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
        if not lines:
            raise TrialFailure(
                "the command printed nothing; its last line must be a JSON object of metrics"
            )
        try:
            result = json.loads(lines[-1])
        except (ValueError, RecursionError):
            result = None
        if not isinstance(result, dict):
            raise TrialFailure(
                f"the command's last line is not a JSON object of metrics: {lines[-1][:200]!r}"
            )
        return result


def _tail(stderr: bytes) -> str:
    lines = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return "\n".join(lines[-STDERR_LINES:])[-STDERR_CHARACTERS:]


class Evaluable(Protocol):
    """What a problem offers: a named face in the user's units."""

    def evaluate(self, parameters: Values, seed: int | None = None) -> Mapping[str, float]:
        """Metrics by name."""


class ProblemBlackBox(BlackBox):
    """A registered problem as a black box."""

    def __init__(self, problem: Evaluable, *, metrics: Sequence[str]) -> None:
        self.problem = problem
        self.metrics = tuple(metrics)

    def prepare(self) -> None:
        """Nothing to load: the problem came along."""

    def __call__(self, parameters: Values, trial_index: int, seed: int) -> Any:
        """See `BlackBox.__call__`."""
        return self.problem.evaluate(parameters, seed=seed)


def make_black_box(
    source: BlackBoxSource | BlackBox | Callable[..., Any],
    *,
    space: Space,
    metrics: Sequence[str],
    resolve_problem: Callable[[str, Mapping[str, Any]], Any] | None = None,
) -> BlackBox:
    """The black box that a campaign names, checked before any trial.

    Args:
        source: What the campaign file says, or a Python function, or a black box.
        space: The search space; a function's signature must fit it.
        metrics: What must be measured.
        resolve_problem: Makes a problem from its name and options (the library itself knows no
            problems).

    Raises:
        InputError: It does not exist or does not fit; the message says why.
    """
    if isinstance(source, BlackBox):
        return source
    kind = getattr(source, "kind", None)
    if kind is None:
        if not callable(source):
            raise InputError(f"expected a function to optimize, got {source!r}")
        return PythonBlackBox(source, space=space, metrics=metrics)
    target, options = source.target, source.options  # type: ignore[union-attr]
    if kind == "python":
        return PythonBlackBox(target, space=space, metrics=metrics)
    if kind == "command":
        return CommandBlackBox(target, metrics=metrics)
    if resolve_problem is None:
        raise InputError(
            f"problem = {target!r}: pass resolve_problem, e.g. "
            "lambda name, options: PROBLEMS[name].make(**options) with problems.PROBLEMS"
        )
    problem = resolve_problem(target, options)
    its_space = getattr(problem, "space", None)
    if its_space is not None and tuple(its_space.names) != tuple(space.names):
        raise InputError(
            f"problem {target!r} has the parameters {', '.join(its_space.names)}, but the campaign "
            f"was made with {', '.join(space.names)}; start a new campaign"
        )
    return ProblemBlackBox(problem, metrics=metrics)


def read_result(raw: object, metrics: Sequence[str]) -> dict[str, Reading]:
    """What a black box returned, as mean and standard error of each metric.

    Args:
        raw: A number (with one metric), or a mapping from metric to a number or to
            (mean, standard error). NumPy and torch scalars are numbers; booleans are not. Metrics
            that were not asked for are dropped.
        metrics: What must be measured.

    Raises:
        TrialFailure: A metric is missing, is no number, is NaN or infinite, or has a negative
            standard error.
    """
    if not isinstance(raw, Mapping):
        if len(metrics) != 1:
            raise TrialFailure(
                f"expected a mapping with the metrics {', '.join(metrics)}, "
                f"got {_short(raw)} ({type(raw).__name__})"
            )
        raw = {metrics[0]: raw}
    readings = {}
    for metric in metrics:
        if metric not in raw:
            returned = ", ".join(repr(k) for k in raw) or "nothing"
            raise TrialFailure(f"metric {metric!r} is missing; got {returned}")
        readings[metric] = _reading(metric, raw[metric])
    return readings


def _reading(metric: str, raw: object) -> Reading:
    if isinstance(raw, tuple | list):
        if len(raw) != 2:
            raise TrialFailure(
                f"metric {metric!r} must be a number or (mean, standard error), got {_short(raw)}"
            )
        sem = None if raw[1] is None else _finite(f"metric {metric!r}: the standard error", raw[1])
        if sem is not None and sem < 0:
            raise TrialFailure(f"metric {metric!r}: the standard error must be >= 0, got {sem:g}")
        return _finite(f"metric {metric!r}", raw[0]), sem
    return _finite(f"metric {metric!r}", raw), None


def _finite(what: str, raw: object) -> float:
    value = raw
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and math.prod(shape) == 1 and hasattr(value, "item"):
        value = value.item()  # an array or tensor with one element
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TrialFailure(f"{what} must be a number, got {_short(raw)} ({type(raw).__name__})")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise TrialFailure(f"{what} is NaN (not a number)")
    if math.isinf(number):
        raise TrialFailure(f"{what} is infinite")
    return number


def _short(thing: object) -> str:
    text = repr(thing)
    return text if len(text) <= 80 else text[:77] + "..."


def describe_exit(code: int | None) -> str:
    """An exit code in words: "ended with exit code 3", "was killed by SIGKILL (...)"."""
    if code is None:
        return "ended without an exit code"
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory?)" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
