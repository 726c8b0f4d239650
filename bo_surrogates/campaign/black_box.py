"""Black boxes: what is optimized, as something that can be called in another process.

A black box is called with a point and returns one measurement a metric. There are three kinds: a
Python function, a command, and a registered problem. This module is imported by every worker
process, so it stays light: no torch, no Ax.
"""

from __future__ import annotations

import importlib
import inspect
import keyword
import math
import os
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from bo_surrogates.errors import InputError, RunError, did_you_mean

if TYPE_CHECKING:
    from bo_surrogates.campaign.spec import BlackBoxSource
    from bo_surrogates.space import Space, Values

Reading = tuple[float, float | None]  # mean and, if known, its standard error
Report = Callable[..., bool]  # report(step, metric=value, ...): whether to go on
EXTRAS = ("seed", "trial_index", "attempt", "report")  # what a function may ask for by argument


class TrialFailure(RunError):  # noqa: N818 - an outcome of a trial, not of the program
    """An evaluation gave no usable result; the text is the reason recorded with the trial."""


class EvaluationStopped(Exception):  # noqa: N818 - not an error: what `report` has said before
    """Raised by `report` in an evaluation that was told to stop and goes on."""


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
    def __call__(
        self,
        parameters: Values,
        trial_index: int,
        seed: int,
        *,
        report: Report | None = None,
        attempt: int = 1,
    ) -> Any:
        """Evaluate one point.

        Args:
            parameters: Values by name.
            trial_index: The trial's number in the campaign.
            seed: For whatever the evaluation draws at random.
            report: Called with a step (a number) and metrics by keyword as the evaluation goes;
                False: it is to end now. Goes on regardless: the next call raises
                `EvaluationStopped`.
            attempt: 1, or more where the trial is evaluated anew.

        Returns:
            A number, or a mapping from metric to a number or to (mean, standard error):
            `read_result` makes sense of it.
        """


class PythonBlackBox(BlackBox):
    """A Python function, called with keyword arguments by parameter name.

    A parameter that is inactive at a point is not passed, so its argument needs a default. Where a
    parameter's name is no Python identifier, the function is called with one mapping from name to
    value (of the active parameters) instead. A function with an argument named `seed`,
    `trial_index`, `attempt` or `report` (that is not a parameter of the campaign) gets the trial's;
    see `BlackBox.__call__`.

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
        self.conditional = tuple(p.name for p in space.parameters if p.when)
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
            for name in EXTRAS
            if name not in self.names
            and name in signature.parameters
            and signature.parameters[name].kind
            in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        )
        extras = dict.fromkeys(self.extras, 0)
        self._check_conditional(signature)
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

    def _check_conditional(self, signature: inspect.Signature) -> None:
        """A function must do without the arguments of parameters that may be inactive."""
        for name in self.conditional:
            argument = signature.parameters.get(name)
            if self.by_keyword and argument is not None and argument.default is argument.empty:
                raise InputError(
                    f"{self.label}: parameter {name!r} is conditional and not passed where it is "
                    f"inactive, so the argument needs a default, such as {name}=None; the "
                    f"signature is {signature}"
                )

    def prepare(self) -> None:
        """See `BlackBox.prepare`."""
        self._loaded()

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
        given = {
            "seed": seed,
            "trial_index": trial_index,
            "attempt": attempt,
            "report": report or _go_on,
        }
        extras = {name: given[name] for name in self.extras}
        if self.by_keyword:
            return self._loaded()(**parameters, **extras)
        return self._loaded()(dict(parameters), **extras)

    def __getstate__(self) -> dict[str, Any]:
        # A function named by "module:function" is imported again where it is needed.
        loaded = None if isinstance(self._source, str) else self._function
        return {**self.__dict__, "_function": loaded}


def _go_on(step: float, /, **metrics: float) -> bool:
    """The report of an evaluation that nobody follows."""
    read_report(step, metrics)
    return True


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


class Evaluable(Protocol):
    """What a problem offers: a named face in the user's units."""

    def evaluate(self, parameters: Values, seed: int | None = None) -> Mapping[str, float]:
        """Metrics by name."""


@runtime_checkable
class Measurable(Protocol):
    """A problem that knows its standard errors and reports on the way."""

    def measurements(
        self, parameters: Values, seed: int | None = None, report: Report | None = None
    ) -> Mapping[str, Reading]:
        """Mean and standard error (None if unknown) by metric."""


class ProblemBlackBox(BlackBox):
    """A registered problem as a black box."""

    def __init__(self, problem: Evaluable, *, metrics: Sequence[str]) -> None:
        self.problem = problem
        self.metrics = tuple(metrics)

    def prepare(self) -> None:
        """Nothing to load: the problem came along."""

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
        if isinstance(self.problem, Measurable):
            return self.problem.measurements(parameters, seed=seed, report=report)
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
        from bo_surrogates.campaign.command import CommandBlackBox

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


def read_report(step: object, metrics: Mapping[str, object]) -> tuple[float, dict[str, Reading]]:
    """A step and what was reported at it, checked.

    Raises:
        TrialFailure: The step is no finite number, there is no metric, or one has no finite value.
    """
    at = _finite("report: the step", step)
    if not metrics:
        raise TrialFailure(f"report at step {at:g}: no metric; write report({at:g}, loss=0.5)")
    return at, {
        metric: _reading(metric, value, f"report at step {at:g}: ")
        for metric, value in metrics.items()
    }


def _reading(metric: str, raw: object, where: str = "") -> Reading:
    what = f"{where}metric {metric!r}"
    if isinstance(raw, tuple | list):
        if len(raw) != 2:
            raise TrialFailure(
                f"{what} must be a number or (mean, standard error), got {_short(raw)}"
            )
        sem = None if raw[1] is None else _finite(f"{what}: the standard error", raw[1])
        if sem is not None and sem < 0:
            raise TrialFailure(f"{what}: the standard error must be >= 0, got {sem:g}")
        return _finite(what, raw[0]), sem
    return _finite(what, raw), None


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
