"""A problem in words: its card, and its row in the list of problems."""

from __future__ import annotations

from typing import Any

from bo_surrogates.errors import RunError
from bo_surrogates.space import Choice, Fixed, Float, Int, Ordered, Parameter
from problems.base import Problem
from problems.registry import ProblemEntry


def card(entry: ProblemEntry, problem: Problem) -> str:
    """The card of a problem.

    Args:
        entry: Its entry in the registry.
        problem: What the entry made.
    """
    lines = [
        f"{entry.name}: {entry.summary}",
        f"source: {entry.source}",
        f"cost of one evaluation: {entry.cost}",
        f"tags: {', '.join(entry.tags)}",
        f"options: {problem.config!r}",
        "parameters:",
        *(f"  {_parameter(p)}" for p in problem.space.parameters),
        "objectives:",
    ]
    if (f := problem.space.fidelity) is not None and problem.fidelity is not None:
        low, high = problem.fidelity.cheaper(f)[0], f.target
        lines.insert(
            -1,
            f"fidelity: {f.name}, target {high}; an evaluation costs "
            f"{problem.fidelity.cost(f, low):g} at {low}, {problem.fidelity.target_cost(f):g} at "
            "the target",
        )
    for objective in problem.objectives:
        reference = "" if objective.reference is None else f", reference {objective.reference:g}"
        unit = f" [{objective.unit}]" if objective.unit else ""
        lines.append(f"  {objective.direction} {objective.name}{unit}{reference}")
    if problem.space.constraints:
        lines.append("parameter constraints:")
        lines += [f"  {constraint}" for constraint in problem.space.constraints]
    if problem.constraints:
        lines.append("outcome constraints:")
        lines += [f"  {constraint}" for constraint in problem.constraints]
    if problem.optimum is not None:
        known = "optimum" if problem.optimum.proven else "best known value"
        lines.append(f"{known}: {problem.optimum.value:.10g} ({problem.optimum.source})")
    if problem.max_hv is not None:
        lines.append(f"largest known hypervolume: {problem.max_hv:.10g}")
    return "\n".join(lines)


def row(entry: ProblemEntry) -> dict[str, Any]:
    """What a list of problems says of one, with default options, as plain data.

    Keys: name, inputs ("4 float, 1 int"), dimension, objectives, constraints (their number), noise
    ("own" where observations are noisy by themselves, "optional" where `noise_std` adds it, else
    "none"), cost, optimum (the best known value, or of several objectives the largest known
    hypervolume; None if unknown), summary, tags, source. Where the problem needs a package that is
    not installed, what only it knows is None and `needs` says why.
    """
    known: dict[str, Any] = dict.fromkeys(
        ("inputs", "dimension", "objectives", "constraints", "noise", "optimum")
    )
    needs = None
    try:
        problem = entry.make()
    except RunError as error:
        needs = str(error)
    else:
        kinds = [p.kind for p in problem.space.parameters]
        best = problem.max_hv if problem.optimum is None else problem.optimum.value
        optional = "optional" if "noise_std" in entry.options else "none"
        known = {
            "inputs": ", ".join(f"{kinds.count(k)} {k}" for k in dict.fromkeys(kinds)),
            "dimension": problem.dim,
            "objectives": [f"{o.direction} {o.name}" for o in problem.objectives],
            "constraints": problem.num_constraints,
            "noise": "own" if "noisy" in entry.tags else optional,
            "optimum": best,
        }
    return {
        "name": entry.name,
        **known,
        "cost": entry.cost,
        "summary": entry.summary,
        "tags": list(entry.tags),
        "source": entry.source,
        "needs": needs,
    }


def _parameter(parameter: Parameter) -> str:
    match parameter:
        case Float() | Int():
            span = f"{parameter.kind} in [{parameter.low:g}, {parameter.high:g}]"
            unit = f" {parameter.unit}" if parameter.unit else ""
            return f"{parameter.name}: {span}{unit}{', log' if parameter.log else ''}"
        case Ordered() | Choice():
            values = ", ".join(str(v) for v in parameter.values)
            return f"{parameter.name}: {parameter.kind} of {values}"
        case Fixed():
            return f"{parameter.name}: fixed at {parameter.value}"
    return f"{parameter.name}: {parameter.kind}"
