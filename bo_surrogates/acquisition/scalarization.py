"""Several objectives as one, by random augmented Chebyshev weights.

A weight vector is uniform on the simplex, and each point of a batch has its own (Knowles 2006,
IEEE Trans. Evol. Comput. 10:50; Paria et al. 2020, UAI, arXiv 1805.12168). For ParEGO with noisy
expected improvement see Daulton et al. 2020, arXiv 2006.05078, appendix.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.acquisition.objective import GenericMCObjective
from botorch.models.model import Model
from botorch.utils.multi_objective.scalarization import get_chebyshev_scalarization
from torch import Tensor
from torch.distributions import Dirichlet

from bo_surrogates.seeding import derive_seed, fixed_seed

Scalarization = Callable[[Tensor], Tensor]  # `... x k` objectives, maximized, to `...`


def random_scalarization(observed: Tensor, seed: int, number: int) -> Scalarization:
    """The augmented Chebyshev scalarization of one point of a batch.

    Args:
        observed: `n x k` objectives so far, to be maximized; they set the scale.
        seed: Of the weights.
        number: Of the point; each has weights of its own.
    """
    with fixed_seed(derive_seed(seed, "scalarization", number)):
        weights = Dirichlet(torch.ones(observed.shape[-1])).sample().to(observed)
    scalarize = get_chebyshev_scalarization(weights, observed)
    return lambda objectives: scalarize(objectives, None)


class ParEGO(AcquisitionFunction):
    """Noisy expected improvement of a random scalarization, another for each point of a batch.

    The number of pending points chooses the scalarization, as it does in Thompson sampling, so
    that a batch built one point after the other, and points asked for while others run, look at
    different parts of the Pareto front. The cost does not grow with the number of objectives.

    Args:
        model: m outcomes.
        weights: `k x m`: objective i, to be maximized, is `outcomes @ weights[i]`.
        observed: `n x k` objectives at the observed inputs, by the model's mean.
        improvement: Makes the acquisition function of one objective, given the objective and the
            pending points.
        seed: Of the scalarizations.
        X_pending: `p x d` inputs whose outcomes are awaited.
    """

    def __init__(
        self,
        model: Model,
        weights: Tensor,
        observed: Tensor,
        improvement: Callable[[GenericMCObjective, Tensor | None], AcquisitionFunction],
        seed: int,
        X_pending: Tensor | None = None,
    ) -> None:
        super().__init__(model)
        self._weights, self._observed, self._seed = weights, observed, seed
        self._improvement = improvement
        self.set_X_pending(X_pending)

    def set_X_pending(self, X_pending: Tensor | None = None) -> None:
        """Take the pending points and, by their number, another scalarization."""
        super().set_X_pending(X_pending)
        number = 0 if X_pending is None else len(X_pending)
        scalarize = random_scalarization(self._observed, self._seed, number)

        def objective(Y: Tensor, X: Tensor | None = None) -> Tensor:
            return scalarize(Y @ self._weights.T.to(Y))

        self._function = self._improvement(GenericMCObjective(objective), X_pending)

    def forward(self, X: Tensor) -> Tensor:
        """Values at `b x q x d` inputs, `b`."""
        value: Tensor = self._function(X)
        return value
