"""Which acquisition function, and how hard its optimizer works. Apart from the functions
themselves, so that reading a campaign does not import BoTorch."""

from __future__ import annotations

from dataclasses import dataclass

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError

SINGLE = ("qlognei", "qlogei", "qucb", "thompson", "integrated_variance")  # for one objective
SEVERAL = ("qlognehvi", "qlognparego", "thompson", "integrated_variance")
TRUST_REGION_ABOVE = 20  # parameters, with "auto"
HYPERVOLUME_UP_TO = 4  # objectives; the boxes that a hypervolume is made of grow exponentially


@dataclass(frozen=True)
class AcquisitionConfig(Config):
    """Acquisition function and the budget of its optimizer.

    Attributes:
        name: "auto": noisy expected improvement for one objective ("qlognei"), noisy expected
            hypervolume improvement for two to four ("qlognehvi"), and noisy expected improvement
            of a random scalarization a point for more ("qlognparego"). "qlogei" improves on the
            best posterior mean at the observed points; "qucb" is the upper confidence bound;
            "thompson" optimizes one function from the posterior a point; "integrated_variance" is
            active learning: it learns every metric everywhere (within the outcome constraints) and
            optimizes nothing.
        beta: Weight of the variance in "qucb": the mean plus sqrt(beta) standard deviations for a
            Gaussian posterior.
        mc_samples: Fixed base samples; in "integrated_variance", points to integrate over.
        num_restarts: Starting points of the gradient-based optimizer.
        raw_samples: Points from which the starting points are chosen.
        trust_region: Whether to search in a box around the best point (`trust_region.py`), with one
            objective; "auto": with more than 20 parameters. Off by default.
        maxiter: Iterations of each L-BFGS-B run.
    """

    name: str = choice(
        "auto",
        ("auto", "qlognei", "qlogei", "qlognehvi", "qlognparego", "qucb", "thompson",
         "integrated_variance"),
    )  # fmt: skip
    beta: float = real(4.0, 0.0, 1e4)
    mc_samples: int = integer(128, 8, 4096, log=True)
    num_restarts: int = integer(4, 1, 128, log=True)
    raw_samples: int = integer(128, 1, 8192, log=True)
    trust_region: bool | str = choice(False, (False, True, "auto"))
    maxiter: int = integer(200, 1, 5000, log=True)

    def resolve(self, num_objectives: int, num_constraints: int = 0) -> str:
        """The acquisition function's name for a number of objectives and outcome constraints.

        Raises:
            InputError: The named one does not fit them.
        """
        name = self.name
        if name == "auto":
            few = "qlognehvi" if num_objectives <= HYPERVOLUME_UP_TO else "qlognparego"
            name = "qlognei" if num_objectives == 1 else few
        fitting = SINGLE if num_objectives == 1 else SEVERAL
        if name not in fitting:
            raise InputError(
                f"acquisition {name!r} does not fit {num_objectives} objective(s); use one of "
                f"{', '.join(map(repr, fitting))}, or 'auto'"
            )
        if name == "qucb" and num_constraints:
            raise InputError(
                "acquisition 'qucb' takes no outcome constraints (a bound may have either sign, so "
                "weighting it by the probability of feasibility would favour the infeasible where "
                "it is negative); use 'qlognei', 'qlogei' or 'thompson'"
            )
        if self.trust_region is True and (num_objectives > 1 or name == "integrated_variance"):
            raise InputError(
                "trust_region = true needs one objective to have a best point, and an acquisition "
                "function that looks for it; leave it out"
            )
        return name

    def uses_trust_region(self, num_objectives: int, dim: int) -> bool:
        """Whether to search in a trust region, for a number of objectives and parameters."""
        if num_objectives > 1 or self.name == "integrated_variance":
            return False
        return dim > TRUST_REGION_ABOVE if self.trust_region == "auto" else bool(self.trust_region)
