"""The campaign file: a TOML file that says what to optimize and how.

    name = "suzuki"
    budget = 40
    command = "python measure.py"      # or python = "module:function", or problem = "branin"
    metrics = ["impurity"]             # measured too, for the constraint
    constraints = ["impurity <= 0.02"] # or "impurity <= baseline + 5 %", with a baseline
    noise = "inferred"                 # or "none", "known"; by default "known" where all values are

    [[parameters]]
    name = "temperature"
    type = "float"
    low = 20
    high = 120
    unit = "°C"

    [[objectives]]
    name = "yield"
    direction = "maximize"

    [surrogate]
    name = "gp"
    kernel = "matern"

A mistake raises one `InputError` that names the file, the table and the key, what was given, what
was expected and what to do.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.early_stopping import EarlyStopping
from bo_surrogates.campaign.execution.resources import Resources
from bo_surrogates.campaign.spec import BLACK_BOX_KINDS, BlackBoxSource, CampaignSpec, PriorData
from bo_surrogates.campaign.tables import read_table
from bo_surrogates.campaign.trial_table import columns_of, read_points
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.objective import NOISES, Objective, OutcomeConstraint, metric_names
from bo_surrogates.space import KINDS, LinearConstraint, Parameter, Space, parse_constraints
from bo_surrogates.toml_file import at as _at
from bo_surrogates.toml_file import check_keys, check_numbers, read_toml
from bo_surrogates.toml_file import items as _list
from bo_surrogates.toml_file import required as _required
from bo_surrogates.toml_file import table as _table
from bo_surrogates.toml_file import tables as _tables

Facts = tuple[Space, Sequence[Objective], Sequence[OutcomeConstraint], FidelityConfig | None]
ProblemFacts = Callable[[str, Mapping[str, Any]], Facts]

SETTINGS = (
    "budget", "budget_cost", "initial", "batch_size", "workers", "threads", "device", "seed",
    "timeout", "executor", "scheduler", "asynchronous", "retries", "retry_on", "replicates",
    "max_consecutive_failures", "on_interrupt",
)  # fmt: skip
# What a problem brings along, so that a file that names one does not say it too.
OF_A_PROBLEM = ("parameters", "parameter_constraints", "objectives", "metrics", "constraints")
TOP_LEVEL = (
    "name", *SETTINGS, *BLACK_BOX_KINDS, "problem_options", *OF_A_PROBLEM, "baseline", "noise",
    "surrogate", "acquisition", "fidelity", "resources", "early_stopping", "prior_data",
    "first_points",
)  # fmt: skip
_check_keys = partial(check_keys, top_level=TOP_LEVEL)
PARAMETER_KEYS = {
    "float": ("low", "high", "log", "unit", "when", "default", "fidelity", "target"),
    "int": ("low", "high", "log", "unit", "when", "default", "fidelity", "target"),
    "ordered": ("values", "unit", "when", "default", "fidelity", "target"),
    "choice": ("values", "unit", "when", "default", "fidelity", "target"),
    "fixed": ("value", "unit", "when"),
}
REQUIRED_KEYS = {"float": ("low", "high"), "int": ("low", "high"), "ordered": ("values",),
                 "choice": ("values",), "fixed": ("value",)}  # fmt: skip
EXPECTED = {"low": "a number", "high": "a number", "values": "a list",
            "value": "a number, a string or a boolean"}  # fmt: skip
OBJECTIVE_KEYS = ("name", "direction", "reference", "unit", "weights")
PRIOR_DATA_KEYS = ("file", "outside", "decimal")
CONSTRAINT_KEYS = ("metric", "op", "bound", "relative")
CONSTRAINT = re.compile(
    r"\s*(?P<metric>.+?)\s*(?P<op><=|>=)\s*"
    r"(?:(?P<baseline>baseline)\s*(?P<sign>[+-])\s*(?P<percent>[^\s%+-]+)\s*%|(?P<bound>\S+))\s*"
)


def read_campaign_file(path: str | Path, problem_facts: ProblemFacts | None = None) -> CampaignSpec:
    """Read and check a campaign file.

    Args:
        path: The TOML file; without a `name` in it, its stem names the campaign.
        problem_facts: From a problem's name and options to its space, objectives, constraints and
            the cost of its fidelity (the library itself knows no problems).

    Raises:
        InputError: The file cannot be read, or holds a mistake.
    """
    path = Path(path)
    data = read_toml(path, "campaign file")
    return campaign_from_mapping(data, str(path), problem_facts, default_name=path.stem)


def campaign_from_mapping(
    data: Mapping[str, Any],
    source: str = "campaign",
    problem_facts: ProblemFacts | None = None,
    default_name: str = "campaign",
) -> CampaignSpec:
    """A campaign from a campaign file's content.

    Args:
        data: As `tomllib` gives it.
        source: How messages call the file.
        problem_facts: See `read_campaign_file`.
        default_name: The campaign's name where the content gives none.

    Raises:
        InputError: Whatever is wrong with the content; never another exception.
    """
    with _at(source):
        if not isinstance(data, Mapping):
            raise InputError(f"expected a table, got {data!r}")
        check_numbers(data)
        _check_keys(data, TOP_LEVEL)
        black_box = _black_box(data)
        if black_box is not None and black_box.kind == "problem":
            facts = _facts_of_problem(data, black_box, problem_facts)
        else:
            objectives = _objectives(data)
            facts = _space(data), objectives, _outcome_constraints(data, objectives), None
        surrogate = dict(_table(data, "surrogate"))
        surrogate_name = surrogate.pop("name", "gp")
        with _at("[acquisition]"):
            acquisition = AcquisitionConfig.from_dict(_table(data, "acquisition"))
        spec = CampaignSpec(
            name=data.get("name", default_name),
            space=facts[0],
            objectives=tuple(facts[1]),
            constraints=tuple(facts[2]),
            baseline=_baseline(data),
            noise=_noise(data, metric_names(facts[1], facts[2])),
            acquisition=acquisition,
            fidelity=_fidelity(data, facts[3]),
            black_box=black_box,
            surrogate=surrogate_name,
            surrogate_config=surrogate,
            resources=Resources.from_dict(_table(data, "resources")),
            prior_data=_prior_data(data, Path(source).parent),
            early_stopping=(
                EarlyStopping.from_dict(_table(data, "early_stopping"))
                if "early_stopping" in data
                else None
            ),
            **{key: data[key] for key in SETTINGS if key in data},
        )
        spec = _with_first_points(spec, data, Path(source).parent)
        with _at("[surrogate]"):
            return spec.resolved()


# ---- the black box -------------------------------------------------------------------------------
def _black_box(data: Mapping[str, Any]) -> BlackBoxSource | None:
    named = [kind for kind in BLACK_BOX_KINDS if kind in data]
    if len(named) > 1:
        raise InputError(
            f"several black boxes: {' and '.join(named)}; keep one of problem, python and command "
            "(or none, to ask and tell by hand)"
        )
    if "problem_options" in data and named != ["problem"]:
        raise InputError('[problem_options] needs problem = "..." at the top of the file')
    if not named:
        return None
    options = _table(data, "problem_options")
    with _at("[problem_options]" if options else ""):
        return BlackBoxSource(named[0], data[named[0]], options)  # type: ignore[arg-type]


def _with_first_points(spec: CampaignSpec, data: Mapping[str, Any], folder: Path) -> CampaignSpec:
    """With the points that are evaluated first: tables, or a file relative to the campaign file."""
    given = data.get("first_points", [])
    if isinstance(given, str):
        with _at("first_points"):
            table = read_table(folder / given, names=columns_of(spec).names)
            return replace(spec, first_points=read_points(spec, table))
    if not isinstance(given, list):
        raise InputError(
            'first_points must be tables [[first_points]], or a file such as "first.csv", '
            f"got {given!r}"
        )
    return replace(spec, first_points=tuple(given))


def _prior_data(data: Mapping[str, Any], folder: Path) -> PriorData | None:
    """The table of earlier measurements; its path is relative to the campaign file."""
    if "prior_data" not in data:
        return None
    given = data["prior_data"]
    table = {"file": given} if isinstance(given, str) else given
    if not isinstance(table, Mapping):
        raise InputError(
            f'prior_data must be a file such as "old.csv", or a table [prior_data], got {given!r}'
        )
    with _at("[prior_data]"):
        _check_keys(table, PRIOR_DATA_KEYS)
        file = _required(table, "file", 'a path such as "old.csv"')
        PriorData(**table)
        return PriorData(**{**table, "file": str((folder / file).absolute())})


def _facts_of_problem(
    data: Mapping[str, Any], black_box: BlackBoxSource, problem_facts: ProblemFacts | None
) -> Facts:
    for key in OF_A_PROBLEM:
        if key in data:
            raise InputError(
                f"{key}: the problem {black_box.target!r} defines its parameters, objectives and "
                f"constraints itself; remove {key!r}, or name a python function or a command "
                "instead of the problem"
            )
    if problem_facts is None:
        raise InputError(
            f"problem = {black_box.target!r}: problems are not available here; pass problem_facts"
        )
    with _at(f"problem = {black_box.target!r}"):
        return problem_facts(black_box.target, black_box.options)


# ---- the space -----------------------------------------------------------------------------------
def _space(data: Mapping[str, Any]) -> Space:
    tables = _tables(data, "parameters")
    if not tables:
        raise InputError(
            "no parameters: say what may be varied in [[parameters]] tables (name, type, low, "
            'high), or name a problem = "..."'
        )
    parameters = [_parameter(table, where) for where, table in tables]
    constraints = [
        constraint
        for text in _list(data, "parameter_constraints", ["x1 + x2 <= 3"])
        for constraint in _linear_constraints(text)
    ]
    space = Space(parameters, constraints)
    space.check_not_empty()
    return space


def _parameter(table: Mapping[str, Any], where: str) -> Parameter:
    with _at(where):
        kind = _required(table, "type", "one of " + ", ".join(map(repr, KINDS)))
        if not isinstance(kind, str) or kind not in KINDS:
            raise InputError(f"unknown type {kind!r}{did_you_mean(kind, KINDS)}")
        _check_keys(table, ("name", "type", *PARAMETER_KEYS[kind]), f"of type {kind!r}")
        _required(table, "name", "a string")
        for key in REQUIRED_KEYS[kind]:
            _required(table, key, EXPECTED[key])
        if not isinstance(table.get("log", False), bool):
            raise InputError(f"log must be true or false, got {table['log']!r}")
        if not isinstance(table.get("unit", ""), str):
            raise InputError(f"unit must be a string, got {table['unit']!r}")
        return KINDS[kind](**{k: v for k, v in table.items() if k != "type"})


def _linear_constraints(text: object) -> list[LinearConstraint]:
    if not isinstance(text, str):
        raise InputError(
            f"parameter_constraints: expected a text such as 'x1 + x2 <= 3', got {text!r}"
        )
    try:
        constraints = parse_constraints(text)
        numbers = [n for c in constraints for n in (*c.coefficients.values(), c.upper)]
    except (OverflowError, RecursionError, MemoryError):
        constraints, numbers = [], [math.inf]
    if not all(math.isfinite(n) for n in numbers):
        raise InputError(f"parameter constraint {text!r}: a number in it is out of range")
    return constraints


# ---- what is measured ----------------------------------------------------------------------------
def _objectives(data: Mapping[str, Any]) -> tuple[Objective, ...]:
    tables = _tables(data, "objectives")
    if not tables:
        raise InputError(
            "no objective: say what to optimize in an [[objectives]] table "
            '(name = "yield", direction = "maximize")'
        )
    objectives = []
    for where, table in tables:
        with _at(where):
            _check_keys(table, OBJECTIVE_KEYS)
            _required(table, "name", "a string")
            _required(table, "direction", "'minimize' or 'maximize'")
            if not isinstance(table.get("unit", ""), str):
                raise InputError(f"unit must be a string, got {table['unit']!r}")
            objectives.append(Objective(**table))
    return tuple(objectives)


def _outcome_constraints(
    data: Mapping[str, Any], objectives: Sequence[Objective]
) -> tuple[OutcomeConstraint, ...]:
    measured = list(metric_names(objectives))
    further = _list(data, "metrics", ["impurity"])
    for name in further:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"metrics: expected a list of names, got {name!r} in it")
        if name in measured:
            raise InputError(f"metrics: {name!r} is named twice (objectives are measured anyway)")
        measured.append(name)
    constraints = []
    for item in _list(data, "constraints", ["impurity <= 0.02"]):
        constraint = _outcome_constraint(item)
        if constraint.metric not in measured:
            raise InputError(
                f"constraint '{constraint}': unknown metric {constraint.metric!r}"
                f"{did_you_mean(constraint.metric, measured)}; if the black box measures it, say "
                f'so at the top of the file: metrics = ["{constraint.metric}"]'
            )
        constraints.append(constraint)
    for name in further:
        if name not in [c.metric for c in constraints]:
            raise InputError(
                f"metrics: {name!r} is neither an objective nor constrained; constrain it "
                "(constraints = [...]) or remove it"
            )
    return tuple(constraints)


def _outcome_constraint(item: object) -> OutcomeConstraint:
    if isinstance(item, Mapping):
        with _at("constraints"):
            _check_keys(item, CONSTRAINT_KEYS)
            for key in CONSTRAINT_KEYS[:3]:
                _required(item, key, "as in {metric = 'impurity', op = '<=', bound = 0.02}")
            return OutcomeConstraint(**item)
    match = CONSTRAINT.fullmatch(item) if isinstance(item, str) else None
    try:
        if match is None:
            raise ValueError
        relative = match["baseline"] is not None
        bound = float(match["sign"] + match["percent"] if relative else match["bound"])
    except ValueError:
        raise InputError(
            f"constraints: cannot read {item!r}; write 'metric <= number' or 'metric >= number', "
            "or relative to the baseline, 'metric <= baseline + 5 %'"
        ) from None
    return OutcomeConstraint(match["metric"], match["op"], bound, relative)  # type: ignore[arg-type]


# ---- the noise and the baseline ------------------------------------------------------------------
def _noise(data: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    """By metric; one word stands for all of them."""
    noise = data.get("noise", {})
    if isinstance(noise, str):
        return dict.fromkeys(metrics, noise)
    if not isinstance(noise, Mapping):
        raise InputError(
            f"noise: expected one of {', '.join(map(repr, NOISES))}, or a table such as "
            f"{{yield = 'known'}}, got {noise!r}"
        )
    return dict(noise)


def _fidelity(data: Mapping[str, Any], of_problem: FidelityConfig | None) -> FidelityConfig | None:
    """What the file says of the fidelity; what it leaves out is as the problem has it."""
    if "fidelity" not in data:
        return of_problem
    before = {} if of_problem is None else of_problem.to_dict()
    return FidelityConfig.from_dict({**before, **_table(data, "fidelity")})


def _baseline(data: Mapping[str, Any]) -> Any:
    """Parameters, or the index of a trial."""
    baseline = data.get("baseline")
    if baseline is not None and (
        isinstance(baseline, bool) or not isinstance(baseline, Mapping | int)
    ):
        raise InputError(
            "baseline: expected the index of a trial, or a table of parameters such as "
            f"{{temperature = 60}}, got {baseline!r}"
        )
    return dict(baseline) if isinstance(baseline, Mapping) else baseline
