"""Which inputs matter to a fitted surrogate: Sobol indices of its posterior.

With inputs independent and f the function they decide, the variance of f splits into parts owed to
single inputs, pairs, and so on (Sobol 2001, Math. Comput. Simul. 55). Of input i,

    first-order index   S_i = Var(E[f | x_i]) / Var(f),    the share owed to it alone,
    total index         T_i = E[Var(f | x_-i)] / Var(f),   the share that it takes part in;

T_i - S_i is what it does together with others, T_i = 0 means that it has no effect. Estimated from
a scrambled Sobol sequence of 2 d columns with the estimators of Saltelli et al. 2010 (Comput. Phys.
Commun. 181, table 2, b and f), as SciPy has them.

The posterior is over functions, and each function has indices of its own. Reported are those of the
posterior mean, and the central interval of the indices of functions drawn from the posterior (Le
Gratiet, Cannamela and Iooss 2014, SIAM/ASA JUQ 2, 336-363). The mean is smoother than the
functions: where data are few, its indices leave their intervals, and none should be relied on.

Inputs are uniform in model coordinates: over the range of a parameter, over the range of the
logarithm, over the levels of a discrete parameter. A conditional parameter has no effect where it
is inactive, which its index counts. Linear constraints between parameters are not looked at, since
no index is defined for dependent inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import sobol_indices as saltelli
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.design import from_unit
from bo_surrogates.errors import InputError
from bo_surrogates.space import Space
from bo_surrogates.surrogates.base import Surrogate, smallest_meaningful_stdv

CHUNK = 512  # points evaluated at a time; joint posteriors are quadratic in them


@dataclass(frozen=True)
class SobolIndices:
    """Indices of each input, with what the posterior does not know of them.

    An estimate may lie outside [0, 1] by its sampling error, about 0.01.

    Attributes:
        names: `d` names of the inputs, the space's varied parameters but for its fidelity.
        first: `d` first-order indices of the posterior mean; 0 where it is constant.
        total: `d` total indices of the posterior mean.
        first_interval: `2 x d`, bounds of the central interval over functions of the posterior.
        total_interval: `2 x d`, the same of the total indices.
        level: Mass of the intervals.
        stdv: Standard deviation of the posterior mean over the space, in units of the outcome.
        constrained: Whether the space has constraints, which the indices ignore.
    """

    names: tuple[str, ...]
    first: Tensor
    total: Tensor
    first_interval: Tensor
    total_interval: Tensor
    level: float
    stdv: float
    constrained: bool

    @property
    def order(self) -> list[int]:
        """The inputs by total index, the largest first."""
        return self.total.argsort(descending=True, stable=True).tolist()


def sobol_indices(
    model: Surrogate,
    space: Space,
    *,
    n: int = 1024,
    functions: int = 64,
    level: float = 0.9,
    seed: int = 0,
) -> SobolIndices:
    """Sobol indices of a fitted surrogate of one outcome; at the target, where there is a fidelity.

    Args:
        model: Fitted on the space's model coordinates, as `loop.fit` does it.
        space: Says what the inputs are.
        n: Points of the design, a power of 2; the surrogate is evaluated at n (d + 2).
        functions: Functions drawn from the posterior, >= 2.
        level: Mass of the intervals, in (0, 1).
        seed: Of the design and the functions.

    Raises:
        InputError: An argument out of its range, or a model of several outcomes.
    """
    if model.num_outputs != 1:
        raise InputError(
            f"sobol_indices takes a model of one outcome, got {model.num_outputs}; fit one a metric"
        )
    if n < 2 or n & (n - 1):
        raise InputError(f"n must be a power of 2, at least 2, got {n}")
    if functions < 2:
        raise InputError(f"functions must be at least 2, got {functions}")
    if not 0 < level < 1:
        raise InputError(f"level must be in (0, 1), got {level}")
    inputs = [i for i, p in enumerate(space.varied) if p is not space.fidelity]
    d = len(inputs)
    unit = SobolEngine(2 * space.dim, scramble=True, seed=seed).draw(n, dtype=torch.float64)
    A, B = unit[:, : space.dim], unit[:, space.dim :]
    designs = [A, B]
    for i in inputs:
        mixed = A.clone()
        mixed[:, i] = B[:, i]
        designs.append(mixed)
    points = space.to_target(space.impute(from_unit(space, torch.cat(designs))))
    X = space.to_model(points)
    draws = model.sample_functions(functions, seed=seed)
    with torch.no_grad():
        mean = _in_chunks(lambda Z: model.posterior(Z).mean.squeeze(-1), X)  # type: ignore[attr-defined]
        sampled = _in_chunks(lambda Z: draws(Z).squeeze(-1), X)
    values = torch.cat([mean.unsqueeze(0), sampled]).reshape(1 + functions, d + 2, n)
    varies = values.std(dim=(1, 2)) > smallest_meaningful_stdv(values.reshape(-1, 1))
    values = torch.where(varies[:, None, None], values, 0.0)  # rounding errors own no variance
    outputs: np.ndarray = values.double().cpu().numpy()
    estimates = saltelli(
        func={
            "f_A": outputs[:, 0],
            "f_B": outputs[:, 1],
            "f_AB": np.moveaxis(outputs[:, 2:], 1, 0),
        },
        n=n,
    )
    first = torch.as_tensor(np.reshape(estimates.first_order, (1 + functions, d)))
    total = torch.as_tensor(np.reshape(estimates.total_order, (1 + functions, d)))
    tails = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    return SobolIndices(
        names=tuple(space.varied[i].name for i in inputs),
        first=first[0],
        total=total[0],
        first_interval=first[1:].quantile(tails, dim=0),
        total_interval=total[1:].quantile(tails, dim=0),
        level=level,
        stdv=float(values[0, :2].std()),
        constrained=bool(space.constraints),
    )


def _in_chunks(function: Callable[[Tensor], Tensor], X: Tensor) -> Tensor:
    """A function of `n x d` points to `... x n` values, some points at a time."""
    return torch.cat([function(Z) for Z in X.split(CHUNK)], dim=-1)
