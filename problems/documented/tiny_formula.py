"""The tiny formula: resolution and depth of the best small networks as functions of their MACs.

    widths = counted_widths(EFFICIENTNET_B0, shape=(3, 224, 224), classes=100)
    candidates = sample_scalings(100, widths, seed=0)       # to be trained
    best = near_front(costs, errors)                        # of what the trainings gave
    formula = TinyFormula(ratios[best], resolutions[best], depths[best])
    formula.scaling(0.25, widths)                           # at a quarter of the MACs

1. Networks with random resolution r, depth d and share c of the base's MACs are trained.
2. The Pareto front of MACs and error is kept, and what is near it.
3. r and d are regressed on c by a Gaussian process, the mean of the data subtracted first:
   r(c*) = m + k(c*, C) (k(C, C) + s2 I)^-1 (R - m), with k(c, c') = exp(-(c - c')^2 / 2).
4. The width follows from the budget.

Nominally w = sqrt(c / (r^2 d)). Really stem and head are not scaled and numbers of channels are
whole, so that such a network costs far more than c where it is small. Networks are to be compared
at counted MACs: `counted_widths` finds the width by bisection on the count.

Source: Han et al. 2020, Model Rubik's Cube, NeurIPS, arXiv 2010.14819, section 3. Compound scaling,
to compare with: Tan and Le 2019, EfficientNet, arXiv 1905.11946.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import torch
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.surrogates import SURROGATES
from problems.documented.cost import count_cost
from problems.documented.tinynet import TINYNETS, Architecture, ScaledNet, Scaling

GROWTH = Scaling(resolution=1.15, depth=1.2, width=1.1)  # compound scaling's, at exponent 1
RATIOS = (0.03, 1.05)  # shares of the base's MACs that are sampled
WIDTHS = (0.05, 4.0)  # that are looked through
WIDTH_STEP = 1e-3

Widths = Callable[[float, float, float], float]  # of a share of MACs, resolution and depth


@lru_cache(maxsize=4096)
def counted_macs(architecture: Architecture, shape: tuple[int, ...], classes: int) -> int:
    """The MACs of an architecture's network.

    Args:
        architecture: As scaled.
        shape: Of an image: (channels, height, width).
        classes: Number of classes.
    """
    with fixed_seed(0):  # the weights do not matter
        network = ScaledNet(architecture, channels=shape[0], classes=classes)
    return count_cost(network, shape).total_macs


def nominal_width(ratio: float, resolution: float, depth: float) -> float:
    """w = sqrt(c / (r^2 d)), so that r^2 d w^2 = c.

    Args:
        ratio: c, a share of the base's MACs.
        resolution: r.
        depth: d.
    """
    return math.sqrt(ratio / (resolution**2 * depth))


def largest_width(
    architecture: Architecture,
    shape: tuple[int, ...],
    classes: int,
    budget: float,
    *,
    resolution: float,
    depth: float,
    widths: tuple[float, float] = WIDTHS,
) -> float | None:
    """The largest width whose network has at most `budget` MACs, in steps of `WIDTH_STEP`.

    MACs rise with the width in steps, a channel step each, so that the result is less than one such
    step below the budget, unless the upper limit of the widths is the result.

    Args:
        architecture: The base.
        shape: Of an image.
        classes: Number of classes.
        budget: MACs.
        resolution: r.
        depth: d.
        widths: The smallest and the largest to consider.

    Returns:
        None where the smallest width has more MACs already.
    """

    def fits(step: int) -> bool:
        scaled = architecture.scaled(Scaling(resolution, depth, step * WIDTH_STEP))
        return counted_macs(scaled, shape, classes) <= budget

    low, high = math.ceil(widths[0] / WIDTH_STEP - 1e-9), math.floor(widths[1] / WIDTH_STEP + 1e-9)
    if not fits(low):
        return None
    if fits(high):
        return round(high * WIDTH_STEP, 9)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return round(low * WIDTH_STEP, 9)


def counted_widths(
    architecture: Architecture,
    shape: tuple[int, ...],
    classes: int,
    widths: tuple[float, float] = WIDTHS,
) -> Widths:
    """The function of (c, r, d) that gives the width whose network has c times the base's MACs, as
    counted; it raises an `InputError` where no width has so few.

    Args:
        architecture: The base.
        shape: Of an image.
        classes: Number of classes.
        widths: The smallest and the largest to consider.
    """
    base = counted_macs(architecture.scaled(Scaling()), shape, classes)

    def width(ratio: float, resolution: float, depth: float) -> float:
        found = largest_width(
            architecture,
            shape,
            classes,
            ratio * base,
            resolution=resolution,
            depth=depth,
            widths=widths,
        )
        if found is None:
            raise InputError(
                f"no width in [{widths[0]:g}, {widths[1]:g}] has at most {ratio:g} of the base's "
                f"{base} MACs at resolution {resolution:g} and depth {depth:g}; lower one of them, "
                "or raise the budget"
            )
        return found

    return width


def compound_scaling(exponent: float) -> Scaling:
    """Compound scaling: d = 1.2^x, w = 1.1^x, r = 1.15^x, nominally 1.92^x times the MACs.

    Args:
        exponent: x; below 0 the network becomes smaller.
    """
    return Scaling(GROWTH.resolution**exponent, GROWTH.depth**exponent, GROWTH.width**exponent)


def nominal_compound(ratio: float) -> Scaling:
    """Compound scaling to a nominal share of the MACs.

    Args:
        ratio: The share.
    """
    return compound_scaling(math.log(ratio) / math.log(GROWTH.nominal_ratio))


def sample_scalings(
    n: int,
    widths: Widths = nominal_width,
    *,
    seed: int,
    ratios: tuple[float, float] = RATIOS,
    resolutions: tuple[float, float] = (0.4, 1.2),
    depths: tuple[float, float] = (0.4, 1.5),
) -> list[Scaling]:
    """Random multipliers: c log-uniform, r and d uniform, w from c.

    Draws for which there is no width are made again.

    Args:
        n: How many.
        widths: The width of (c, r, d): `nominal_width`, or `counted_widths`.
        seed: Of the draws.
        ratios: The range of c, shares of the base's MACs; one value twice: that budget alone.
        resolutions: The range of r.
        depths: The range of d.

    Raises:
        InputError: Ranges in which hardly any draw has a width.
    """
    draw = torch.Generator().manual_seed(derive_seed(seed, "scalings"))
    found: list[Scaling] = []
    for _ in range(100 * n):
        if len(found) == n:
            break
        u = torch.rand(3, generator=draw, dtype=torch.float64).tolist()
        ratio = math.exp(math.log(ratios[0]) * (1 - u[0]) + math.log(ratios[1]) * u[0])
        r = resolutions[0] * (1 - u[1]) + resolutions[1] * u[1]
        d = depths[0] * (1 - u[2]) + depths[1] * u[2]
        try:
            found.append(Scaling(r, d, widths(ratio, r, d)))
        except InputError:
            continue  # no width makes up for this resolution and depth
    if len(found) < n:
        raise InputError(
            f"hardly any resolution in {resolutions} and depth in {depths} has a width at "
            f"{ratios} of the base's MACs; lower the first two or raise the last"
        )
    return found


def near_front(costs: Tensor, errors: Tensor, share: float = 0.2) -> Tensor:
    """The points on the Pareto front of cost and error and, front by front without those before,
    the next ones, until there are `share` of all.

    A front is kept as a whole. Errors are to be of data that no result is told on later.

    Args:
        costs: `n`, to be small.
        errors: `n`, to be small.
        share: In (0, 1].

    Returns:
        Indices, ascending.

    Raises:
        InputError: The two do not agree in length, or there is nothing.
    """
    if costs.shape != errors.shape or costs.ndim != 1 or len(costs) == 0:
        raise InputError(
            f"costs and errors must be two equally long rows of numbers, got shapes "
            f"{tuple(costs.shape)} and {tuple(errors.shape)}"
        )
    values = -torch.stack([costs, errors], dim=-1).to(torch.float64)
    left = torch.arange(len(costs))
    chosen = torch.zeros(0, dtype=torch.int64)
    while len(left) and len(chosen) < share * len(costs):
        best = is_non_dominated(values[left], deduplicate=False)
        chosen, left = torch.cat([chosen, left[best]]), left[~best]
    return chosen.sort().values


def rbf_regression(c: Tensor, values: Tensor, at: Tensor, noise: float) -> Tensor:
    """The posterior mean of a Gaussian process of mean zero, k(c, c') = exp(-(c - c')^2 / 2).

    Args:
        c: `n` inputs.
        values: `n x m` values at them.
        at: `k` inputs.
        noise: Variance of the values' noise, above 0.

    Returns:
        `k x m` means: k(at, c) (k(c, c) + noise I)^-1 values.
    """
    covariance = _rbf(c, c) + noise * torch.eye(len(c)).to(c)
    factor = torch.linalg.cholesky(covariance)
    return _rbf(at, c) @ torch.cholesky_solve(values, factor)


def _rbf(a: Tensor, b: Tensor) -> Tensor:
    return (-0.5 * (a[:, None] - b[None, :]).square()).exp()


class TinyFormula:
    """Resolution and depth as functions of the share c of the base's MACs; see the module.

    Args:
        ratios: c of good networks, as counted.
        resolutions: Their r.
        depths: Their d.
        noise: Variance of both about the function, by the paper's regression.
        surrogate: A registered surrogate to regress on log c instead of the paper's Gaussian
            process, such as "gp", which learns its length scale and noise.
        seed: Of the surrogate's fit.

    Raises:
        InputError: Rows that are empty, not equally long or not above 0, or an unknown surrogate.
    """

    def __init__(
        self,
        ratios: Sequence[float] | Tensor,
        resolutions: Sequence[float] | Tensor,
        depths: Sequence[float] | Tensor,
        *,
        noise: float = 1e-3,
        surrogate: str | None = None,
        seed: int = 0,
    ) -> None:
        rows = [torch.as_tensor(r, dtype=torch.float64) for r in (ratios, resolutions, depths)]
        if any(r.ndim != 1 or len(r) != len(rows[0]) or len(r) == 0 for r in rows):
            raise InputError(
                "ratios, resolutions and depths must be equally long rows of numbers, at least "
                f"one; got shapes {', '.join(str(tuple(r.shape)) for r in rows)}"
            )
        if not all(bool((r > 0).all() and r.isfinite().all()) for r in rows):
            raise InputError("ratios, resolutions and depths must be finite and above 0")
        if not noise > 0:
            raise InputError(f"noise must be above 0, got {noise!r}")
        self.ratios, self.noise = rows[0], noise
        self.values = torch.stack(rows[1:], dim=-1)
        self.centre = self.values.mean(dim=0)
        self.model = None
        if surrogate is not None:
            X = self.ratios.log().unsqueeze(-1)
            margin = torch.full((1,), 1e-6, dtype=torch.float64)  # all c may be one
            bounds = torch.stack([X.amin(dim=0) - margin, X.amax(dim=0) + margin])
            self.model = SURROGATES[surrogate].build(X, self.values, bounds=bounds, seed=seed)

    def __call__(self, ratios: Sequence[float] | Tensor) -> Tensor:
        """r and d at shares of the base's MACs, `k x 2`."""
        at = torch.as_tensor(ratios, dtype=torch.float64)
        if self.model is None:
            offsets = self.values - self.centre
            return self.centre + rbf_regression(self.ratios, offsets, at, self.noise)
        with torch.no_grad():
            return self.model.marginals(at.log().unsqueeze(-1))[0]

    def scaling(self, ratio: float, widths: Widths = nominal_width) -> Scaling:
        """The multipliers at a share of the base's MACs.

        Args:
            ratio: The share.
            widths: The width of (c, r, d): `nominal_width`, or `counted_widths`.

        Raises:
            InputError: There is no such width.
        """
        resolution, depth = self([ratio])[0].tolist()
        return Scaling(resolution, depth, widths(ratio, resolution, depth))


# Of TinyNet-A to E, their shares of EfficientNet-B0's MACs as counted.
PUBLISHED_RATIOS = {"A": 0.8731, "B": 0.5202, "C": 0.2580, "D": 0.1337, "E": 0.0631}


@lru_cache(maxsize=1)
def published_formula() -> TinyFormula:
    """Through TinyNet-A to E, by the surrogate "gp": the networks that the paper has sampled are
    not published, and these five are on its formula."""
    points = [TINYNETS[name] for name in PUBLISHED_RATIOS]
    return TinyFormula(
        list(PUBLISHED_RATIOS.values()),
        [p.resolution for p in points],
        [p.depth for p in points],
        surrogate="gp",
    )
