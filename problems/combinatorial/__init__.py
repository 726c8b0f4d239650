"""Problems of categories: plans and sequences."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the combinatorial problems."""
    registry.register(
        ProblemEntry(
            name="pest_control",
            target="problems.combinatorial.pest_control:PestControl",
            summary="25 stages, four pesticides or none at each: losses and costs",
            source="Oh et al. 2019, NeurIPS, arXiv 1902.00448",
            cost="< 1 s",
            tags=("combinatorial", "mixed"),
        )
    )
    registry.register(
        ProblemEntry(
            name="ehrlich",
            target="problems.combinatorial.ehrlich:Ehrlich",
            summary="sequences of letters with hidden motifs and banned pairs",
            source="Stanton et al. 2024, arXiv 2407.00236",
            cost="< 1 s",
            tags=("combinatorial", "mixed", "constrained"),
        )
    )
