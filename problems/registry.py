"""The registry of problems: a name leads to how the problem is made.

Nothing here imports torch; a problem's module is imported when it is made.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bo_surrogates.errors import InputError, RunError, did_you_mean
from bo_surrogates.registry import Registry

if TYPE_CHECKING:
    from problems.base import CostClass, Problem


@dataclass(frozen=True)
class ProblemEntry:
    """A registered problem.

    Attributes:
        name: Short name used in files and on the command line.
        target: The `Problem` subclass, as "module:Class" (imported when needed) or itself.
        summary: One line for the user.
        source: Where the problem is defined.
        cost: Order of the time of one evaluation with default options on one core.
        tags: Words to filter by, e.g. "synthetic", "multi-objective", "mixed".
    """

    name: str
    target: str | type[Problem]
    summary: str
    source: str
    cost: CostClass
    tags: tuple[str, ...] = ()

    @property
    def problem_class(self) -> type[Problem]:
        """The `Problem` subclass, imported if need be.

        Raises:
            RunError: It cannot be imported.
        """
        if not isinstance(self.target, str):
            return self.target
        module, _, attribute = self.target.partition(":")
        try:
            loaded: type[Problem] = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError) as error:
            raise RunError(
                f"problem {self.name!r} ({self.target}) cannot be imported: {error}; "
                "install what it needs, or mend the package that registers it"
            ) from error
        return loaded

    @property
    def options(self) -> Mapping[str, Any]:
        """What `make` takes, with the defaults: the fields of the problem's configuration and the
        keywords of its constructor."""
        problem_class = self.problem_class
        signature = inspect.signature(problem_class)
        keywords = {
            name: parameter.default
            for name, parameter in signature.parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        return {**problem_class.config_class().to_dict(), **keywords}

    def make(self, **options: Any) -> Problem:
        """The problem.

        Args:
            **options: See `options`.

        Raises:
            InputError: An unknown option (the nearest name is suggested) or an invalid value.
            RunError: The problem cannot be imported.
        """
        known = self.options
        for option in options:
            if option not in known:
                raise InputError(
                    f"problem {self.name!r} has no option {option!r}{did_you_mean(option, known)}"
                )
        problem_class = self.problem_class
        fields = problem_class.config_class().to_dict()
        config = problem_class.config_class.from_dict(
            {name: value for name, value in options.items() if name in fields}
        )
        rest = {name: value for name, value in options.items() if name not in fields}
        # Every subclass's constructor takes its configuration first; see `Problem`.
        make: Any = problem_class
        problem: Problem = make(config, **rest)
        return problem

    def card(self, **options: Any) -> str:
        """What there is to know about the problem made with these options, as text."""
        from problems.card import card

        return card(self, self.make(**options))


PROBLEMS: Registry[ProblemEntry] = Registry("problem", group="bo_surrogates.problems")
