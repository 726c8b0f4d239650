"""A problem's card: what is varied, what is measured, what is known, as text."""

from __future__ import annotations

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
