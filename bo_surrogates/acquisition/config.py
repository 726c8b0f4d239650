"""Which acquisition function, and how hard its optimizer works. Apart from the functions
themselves, so that reading a campaign does not import BoTorch."""

from __future__ import annotations

from dataclasses import dataclass

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.errors import InputError


@dataclass(frozen=True)
class AcquisitionConfig(Config):
    """Acquisition function and the budget of its optimizer.

    Attributes:
        name: "auto": noisy expected improvement for one objective, noisy expected hypervolume
            improvement for several; or one of them by name; "qlogei" improves on the
            best posterior mean at the observed points.
        mc_samples: Fixed base samples.
        num_restarts: Starting points of the gradient-based optimizer.
        raw_samples: Points from which the starting points are chosen.
        maxiter: Iterations of each L-BFGS-B run.
    """

    name: str = choice("auto", ("auto", "qlognei", "qlogei", "qlognehvi"))
    mc_samples: int = integer(128, 8, 4096, log=True)
    num_restarts: int = integer(4, 1, 128, log=True)
    raw_samples: int = integer(128, 1, 8192, log=True)
    maxiter: int = integer(200, 1, 5000, log=True)

    def resolve(self, num_objectives: int) -> str:
        """The acquisition function's name for a number of objectives.

        Raises:
            InputError: The named one does not fit that number.
        """
        single = num_objectives == 1
        if self.name == "auto":
            return "qlognei" if single else "qlognehvi"
        if single == (self.name == "qlognehvi"):
            fits = "'qlognei' or 'qlogei'" if single else "'qlognehvi'"
            raise InputError(
                f"acquisition {self.name!r} does not fit {num_objectives} objective(s); use {fits} "
                "or 'auto'"
            )
        return self.name
