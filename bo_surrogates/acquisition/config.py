"""Which acquisition function, and how hard its optimizer works. Apart from the functions
themselves, so that reading a campaign does not import BoTorch."""

from __future__ import annotations

from dataclasses import dataclass

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError

SINGLE = ("qlognei", "qlogei", "qucb", "thompson")  # for one objective
SEVERAL = ("qlognehvi", "thompson")


@dataclass(frozen=True)
class AcquisitionConfig(Config):
    """Acquisition function and the budget of its optimizer.

    Attributes:
        name: "auto": noisy expected improvement for one objective ("qlognei"), noisy expected
            hypervolume improvement for several ("qlognehvi"). "qlogei" improves on the best
            posterior mean at the observed points; "qucb" is the upper confidence bound; "thompson"
            optimizes one function from the posterior a point.
        beta: Weight of the variance in "qucb": the mean plus sqrt(beta) standard deviations for a
            Gaussian posterior.
        mc_samples: Fixed base samples.
        num_restarts: Starting points of the gradient-based optimizer.
        raw_samples: Points from which the starting points are chosen.
        maxiter: Iterations of each L-BFGS-B run.
    """

    name: str = choice("auto", ("auto", "qlognei", "qlogei", "qlognehvi", "qucb", "thompson"))
    beta: float = real(4.0, 0.0, 1e4)
    mc_samples: int = integer(128, 8, 4096, log=True)
    num_restarts: int = integer(4, 1, 128, log=True)
    raw_samples: int = integer(128, 1, 8192, log=True)
    maxiter: int = integer(200, 1, 5000, log=True)

    def resolve(self, num_objectives: int, num_constraints: int = 0) -> str:
        """The acquisition function's name for a number of objectives and outcome constraints.

        Raises:
            InputError: The named one does not fit them.
        """
        name = self.name
        if name == "auto":
            name = "qlognei" if num_objectives == 1 else "qlognehvi"
        fitting = SINGLE if num_objectives == 1 else SEVERAL
        if name not in fitting:
            raise InputError(
                f"acquisition {name!r} does not fit {num_objectives} objective(s); use one of "
                f"{', '.join(map(repr, fitting))}, or 'auto'"
            )
        if name == "qucb" and num_constraints:
            raise InputError(
                "acquisition 'qucb' takes no outcome constraints; use 'qlognei' or 'thompson'"
            )
        return name
