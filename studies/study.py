"""A comparison study: surrogates on problems, over seeds, everything else held fixed.

    study = Study.of(["branin", "hartmann6"], ["gp", "nngp"], seeds=5, iterations=20)

Acquisition and initial designs move results more than surrogates do. So all surrogates of a seed
share the initial design, and the acquisition function with its optimizer's budget is one for all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Self

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.config import Config
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.loop import RANDOM
from bo_surrogates.space import Space
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.toml_file import at
from problems import PROBLEMS
from problems.base import Problem


@dataclass(frozen=True)
class SurrogateArm:
    """A surrogate as it takes part.

    Attributes:
        label: What it is called in the study, so that one surrogate may take part twice.
        surrogate: Its registered name, or "random": none, the quasi-random sequence of the initial
            design goes on.
        config: Its configuration, as plain data.
    """

    label: str
    surrogate: str
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        _check_label("surrogate", self.label)
        config = self.config.to_dict() if isinstance(self.config, Config) else self.config
        object.__setattr__(self, "config", _plain(config))

    def resolve(self) -> Self:
        """The same with every field of the configuration made explicit.

        Raises:
            InputError: An unknown name (the nearest is suggested), or a bad configuration.
        """
        if self.surrogate == RANDOM:
            if self.config:
                raise InputError(f"random has no options, got {', '.join(map(repr, self.config))}")
            return self
        config = SURROGATES[self.surrogate].configure(self.config)
        return replace(self, config=config.to_dict())


@dataclass(frozen=True)
class ProblemArm:
    """A problem as it takes part.

    Attributes:
        label: What it is called in the study.
        problem: Its registered name.
        config: Its options, as plain data.
        initial: Points of the initial design; None: the study's, or else 2 (d + 1).
        q: Points a batch; None: the study's.
        iterations: Batches after the initial design; None: the study's.
    """

    label: str
    problem: str
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    initial: int | None = None
    q: int | None = None
    iterations: int | None = None

    def __post_init__(self) -> None:
        _check_label("problem", self.label)
        object.__setattr__(self, "config", _plain(self.config))
        _check_whole("initial", self.initial, 1)
        _check_whole("q", self.q, 1)
        _check_whole("iterations", self.iterations, 0)

    def make(self) -> Problem:
        """The problem.

        Raises:
            InputError: An unknown name or option (the nearest is suggested), or a bad value.
            RunError: It needs a package that is not installed.
        """
        return PROBLEMS[self.problem].make(**self.config)

    @property
    def evaluations(self) -> int:
        """Of a resolved arm: all of its budget."""
        return int(self.initial or 0) + int(self.q or 1) * int(self.iterations or 0)


@dataclass(frozen=True)
class Cell:
    """One run of a study: a surrogate on a problem, with a seed.

    Attributes:
        problem: Resolved.
        surrogate: Resolved.
        seed: Decides everything random.
        acquisition: Held fixed.
    """

    problem: ProblemArm
    surrogate: SurrogateArm
    seed: int
    acquisition: AcquisitionConfig

    @property
    def key(self) -> tuple[str, str, int]:
        """Labels of problem and surrogate, and the seed."""
        return self.problem.label, self.surrogate.label, self.seed

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return f"{slug(self.problem.label)}--{slug(self.surrogate.label)}--{self.seed}"

    @property
    def iterations(self) -> int:
        """Batches after the initial design."""
        return int(self.problem.iterations or 0)

    @property
    def settings(self) -> str:
        """A digest of all that decides its course (its length does not)."""
        content = {
            "problem": self.problem.problem, "options": self.problem.config,
            "initial": self.problem.initial, "q": self.problem.q,
            "surrogate": self.surrogate.surrogate, "config": self.surrogate.config,
            "acquisition": self.acquisition.to_dict(), "seed": self.seed,
        }  # fmt: skip
        text = json.dumps(_floats(content), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        return f"{self.problem.label} / {self.surrogate.label} / seed {self.seed}"


@dataclass(frozen=True)
class Study:
    """What is compared, and how.

    Attributes:
        name: Of the study.
        problems: On what.
        surrogates: What is compared.
        seeds: One run for each.
        acquisition: Which acquisition function, and its optimizer's budget.
        initial: Points of the initial design; None: 2 (d + 1).
        q: Points a batch.
        iterations: Batches after the initial design.
        description: For people.
        beyond_practical: Whether a surrogate may be run with more observations or inputs than it
            is declared to be practical for.

    Raises:
        InputError: A field out of its range, or two arms of one label.
    """

    name: str
    problems: tuple[ProblemArm, ...]
    surrogates: tuple[SurrogateArm, ...]
    seeds: tuple[int, ...]
    acquisition: AcquisitionConfig = field(default_factory=AcquisitionConfig)
    initial: int | None = None
    q: int = 1
    iterations: int = 20
    description: str = ""
    beyond_practical: bool = False

    def __post_init__(self) -> None:
        for text in ("name", "description"):
            if not isinstance(getattr(self, text), str):
                raise InputError(f"{text} must be a string, got {getattr(self, text)!r}")
        if not self.name.strip():
            raise InputError("name must not be empty: it names the study's folder")
        if not isinstance(self.beyond_practical, bool):
            raise InputError(
                f"beyond_practical must be true or false, got {self.beyond_practical!r}"
            )
        _check_whole("initial", self.initial, 1)
        _check_whole("q", self.q, 1)
        _check_whole("iterations", self.iterations, 0)
        _check_labels("problems", [p.label for p in self.problems])
        _check_labels("surrogates", [s.label for s in self.surrogates])
        object.__setattr__(self, "seeds", _seeds(self.seeds))

    @classmethod
    def of(
        cls,
        problems: Sequence[str | ProblemArm],
        surrogates: Sequence[str | SurrogateArm],
        *,
        seeds: int | Sequence[int] = 3,
        name: str = "study",
        **settings: Any,
    ) -> Self:
        """A study from names, where defaults will do.

        Args:
            problems: Names or arms.
            surrogates: Names or arms.
            seeds: How many (0, 1, ...), or which.
            name: Of the study.
            **settings: Further fields.
        """
        return cls(
            name=name,
            problems=tuple(ProblemArm(p, p) if isinstance(p, str) else p for p in problems),
            surrogates=tuple(SurrogateArm(s, s) if isinstance(s, str) else s for s in surrogates),
            seeds=_seeds(seeds),
            **settings,
        )

    # ---- plain data ------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Plain data from which `from_dict` makes an equal study."""
        return {**asdict(self), "acquisition": self.acquisition.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The study that `to_dict` described."""
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"a study has no field {key!r}{did_you_mean(key, known)}")
        return cls(
            **{
                **data,
                "problems": tuple(ProblemArm(**p) for p in data["problems"]),
                "surrogates": tuple(SurrogateArm(**s) for s in data["surrogates"]),
                "seeds": tuple(data["seeds"]),
                "acquisition": AcquisitionConfig.from_dict(data["acquisition"]),
            }
        )

    # ---- resolution ------------------------------------------------------------------------------
    def resolve(self) -> Self:
        """The same study with every setting explicit, once all of it is known to be able to run.

        Raises:
            InputError: An unknown name (the nearest is suggested), a bad configuration, an
                acquisition function that does not fit a problem, or a surrogate that cannot take
                one; the message says which and why.
            RunError: A problem needs a package that is not installed.
        """
        surrogates = []
        for surrogate in self.surrogates:
            with at(f"surrogate {surrogate.label!r}"):
                surrogates.append(surrogate.resolve())
        problems = []
        for problem in self.problems:
            with at(f"problem {problem.label!r}"):
                made = problem.make()
                self.acquisition.resolve(len(made.objectives), len(made.constraints))
                explicit = self._explicit(problem, made)
                for surrogate in surrogates:
                    self._check_fit(surrogate, made.space, explicit.evaluations)
                problems.append(explicit)
        return replace(self, problems=tuple(problems), surrogates=tuple(surrogates))

    def _explicit(self, arm: ProblemArm, problem: Problem) -> ProblemArm:
        initial = arm.initial if arm.initial is not None else self.initial
        return replace(
            arm,
            config={**PROBLEMS[arm.problem].options, **arm.config},
            initial=2 * (problem.dim + 1) if initial is None else initial,
            q=self.q if arm.q is None else arm.q,
            iterations=self.iterations if arm.iterations is None else arm.iterations,
        )

    def _check_fit(self, arm: SurrogateArm, space: Space, evaluations: int) -> None:
        """Refuse a surrogate that cannot take a problem, or is not practical for it."""
        if arm.surrogate == RANDOM:
            return
        entry = SURROGATES[arm.surrogate]
        entry.check_categorical([space.varied[i].name for i in space.categorical_inds])
        if self.beyond_practical:
            return
        # A choice of more than two values is seen as one input for each.
        wide = [k for k in space.categories.values() if k > 2]
        d = space.dim - len(wide) + sum(wide)
        limits = entry.capabilities
        for count, limit, what in (
            (evaluations, limits.max_n, "observations"),
            (d, limits.max_d, "inputs"),
        ):
            if count > limit:
                raise InputError(
                    f"surrogate {arm.label!r} ({arm.surrogate}) is practical up to {limit} {what}, "
                    f"and here it would have {count}; leave one of the two out, or set "
                    "beyond_practical = true to try it all the same"
                )

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """All runs of a resolved study, seed after seed."""
        return tuple(self._cells())

    def _cells(self) -> Iterator[Cell]:
        for seed in self.seeds:
            for problem in self.problems:
                for surrogate in self.surrogates:
                    yield Cell(problem, surrogate, seed, self.acquisition)


def slug(label: str) -> str:
    """A label as part of a file's name."""
    return re.sub(r"-{2,}", "-", re.sub(r"[^A-Za-z0-9._+-]+", "_", label))


def _check_label(kind: str, label: object) -> None:
    if not isinstance(label, str) or not label.strip() or len(label) > 80:
        raise InputError(f"a {kind}'s label must be a string of 1 to 80 characters, got {label!r}")


def _check_labels(kind: str, labels: Sequence[str]) -> None:
    if not labels:
        raise InputError(f"a study needs {kind}: at least one")
    seen: dict[str, str] = {}
    for label in labels:
        other = seen.setdefault(slug(label).lower(), label)
        if other is not label or labels.count(label) > 1:
            raise InputError(
                f"{kind}: two are called {label!r}; give them different labels"
                if other == label
                else f"{kind}: the labels {other!r} and {label!r} would have the same file name; "
                "choose labels that differ in more than punctuation and case"
            )


def _check_whole(name: str, value: object, low: int) -> None:
    if value is None and name == "initial":
        return
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < low):
        raise InputError(f"{name} must be a whole number >= {low}, got {value!r}")


def _seeds(seeds: object) -> tuple[int, ...]:
    if isinstance(seeds, int) and not isinstance(seeds, bool) and seeds > 0:
        return tuple(range(seeds))
    whole = isinstance(seeds, Sequence) and all(
        isinstance(s, int) and not isinstance(s, bool) and s >= 0 for s in seeds
    )
    if not whole or not seeds or isinstance(seeds, str):
        raise InputError(
            f"seeds must be their number >= 1, or a list of whole numbers >= 0, got {seeds!r}"
        )
    found: tuple[int, ...] = tuple(seeds)  # type: ignore[arg-type]
    if len(set(found)) < len(found):
        raise InputError(f"seeds must differ, got {seeds!r}")
    return found


def _plain(data: Any) -> Any:
    """As JSON would give it back."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    return [_plain(value) for value in data] if isinstance(data, list | tuple) else data


def _floats(data: Any) -> Any:
    """With 1 and 1.0 alike."""
    if isinstance(data, Mapping):
        return {key: _floats(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_floats(value) for value in data]
    return float(data) if isinstance(data, int) and not isinstance(data, bool) else data
