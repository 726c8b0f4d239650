"""Documented models: real layers, a training routine and a tuning problem, one module a paper."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the documented models."""
