"""Documented models: real layers, a training routine and a tuning problem, one module a paper."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the documented models."""
    registry.register(
        ProblemEntry(
            name="pokebnn",
            target="problems.documented.pokebnn_tuning:PokeBNNTuning",
            summary="binary network on 8 x 8 digits: test error against arithmetic effort (ACE)",
            source="Zhang et al. 2022, PokeBNN, CVPR, arXiv 2112.00133",
            cost="seconds",
            tags=("documented", "compression", "mixed", "multi-objective", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="wide_deep",
            target="problems.documented.wide_deep_tuning:WideDeepTuning",
            summary="infinitely wide, deep network on two classes: depth, activation, test error",
            source="Radhakrishnan, Belkin and Uhler 2023, PNAS, arXiv 2204.14126",
            cost="seconds",
            tags=("documented", "mixed", "noisy"),
        )
    )
