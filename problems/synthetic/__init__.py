"""Closed-form problems whose optimum is known."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the synthetic problems."""
    registry.register(
        ProblemEntry(
            name="branin",
            target="problems.synthetic.branin:Branin",
            summary="two inputs, three equal global minima",
            source="Dixon and Szego 1978, Towards Global Optimisation 2",
            cost="< 1 s",
            tags=("synthetic", "continuous"),
        )
    )
    registry.register(
        ProblemEntry(
            name="hartmann6",
            target="problems.synthetic.hartmann:Hartmann6",
            summary="six inputs, six local minima, one of them global",
            source="Dixon and Szego 1978, Towards Global Optimisation 2",
            cost="< 1 s",
            tags=("synthetic", "continuous"),
        )
    )
    registry.register(
        ProblemEntry(
            name="ackley",
            target="problems.synthetic.ackley:Ackley",
            summary="any number of inputs, many local minima around one funnel, off the centre",
            source="Ackley 1987, A Connectionist Machine for Genetic Hillclimbing",
            cost="< 1 s",
            tags=("synthetic", "continuous"),
        )
    )
    registry.register(
        ProblemEntry(
            name="branin_currin",
            target="problems.synthetic.branin_currin:BraninCurrin",
            summary="two inputs, two objectives in conflict",
            source="Currin et al. 1991, JASA 86; Belakaria et al. 2019, NeurIPS",
            cost="< 1 s",
            tags=("synthetic", "continuous", "multi-objective"),
        )
    )
