"""Controllers of simulated systems."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry

WALKERS = "Mania et al. 2018, arXiv 1803.07055; Wang et al. 2020, NeurIPS, arXiv 2007.00708"


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the control problems."""
    registry.register(
        ProblemEntry(
            name="rover",
            target="problems.control.rover:Rover",
            summary="60 inputs of a path of 30 waypoints past obstacles",
            source="in the style of Wang et al. 2018, AISTATS, arXiv 1706.01445; BoTorch",
            cost="< 1 s",
            tags=("control", "continuous", "high-dimensional"),
        )
    )
    for name, target, summary, source, tags in (
        (
            "lunar_lander",
            "lunar_lander:LunarLander",
            "twelve weights of a lander's controller, mean return over 50 worlds",
            "Eriksson et al. 2019, NeurIPS, arXiv 1910.01003",
            (),
        ),
        (
            "swimmer",
            "linear_policy:Swimmer",
            "16 weights of a linear policy: a swimmer of three links",
            WALKERS,
            ("noisy",),
        ),
        (
            "hopper",
            "linear_policy:Hopper",
            "33 weights of a linear policy: a hopping leg",
            WALKERS,
            ("noisy",),
        ),
        (
            "half_cheetah",
            "linear_policy:HalfCheetah",
            "102 weights of a linear policy: a running half cheetah",
            WALKERS,
            ("noisy", "high-dimensional"),
        ),
    ):
        registry.register(
            ProblemEntry(
                name=name,
                target=f"problems.control.{target}",
                summary=summary,
                source=source,
                cost="seconds",
                tags=("control", "continuous", "extra", *tags),
            )
        )
