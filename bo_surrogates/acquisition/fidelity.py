"""Proposing points where evaluations may be cheaper than the answer.

A point is found at the target fidelity, by the same acquisition function as ever. Then it is
decided at which fidelity to ask it, as in BOCA (Kandasamy et al. 2017, ICML, arXiv 1703.06240,
section 3; with discrete fidelities MF-GP-UCB, Kandasamy et al. 2016, NeurIPS, arXiv 1603.06288):
first where, by what is expected at the target, then how exactly, by what is still unknown there. In
place of their thresholds stands information per cost, as in multi-fidelity entropy search
(Takeno et al. 2020, ICML, arXiv 1901.08275): an observation at fidelity s is expected to take away

    r(s) = c(s)^2 / ((v(s) + noise) v),

of the variance v of the target's value at the same point; v(s) is the variance at s and c(s) the
covariance between the two, given what has been observed and what is running. The fidelity with the
largest r(s) / cost(s) is asked, where r counts twice at the target: a trial there is an answer
besides, while a point that was asked cheaply has yet to be asked there if it is found to be good,
as about every second one is. (So no fidelity is asked that costs more than half of the target.)
After a cheap trial r is used up: if the point is still the most promising, it is the target's turn.
This holds for any posterior with covariances, in expectation (see `integrated_variance.py`).

What the best is measured against are the points observed at the target. (If others were projected
to it, nothing could improve on a promising point that was seen at a low fidelity, and no such point
would ever be confirmed.) Points that are running are projected to the target: others are proposed
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from botorch.acquisition import AcquisitionFunction
from botorch.models.model import Model
from botorch.posteriors import Posterior
from botorch.posteriors.ensemble import EnsemblePosterior
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.integrated_variance import posterior_covariance
from bo_surrogates.acquisition.optimize import maximize
from bo_surrogates.design import exhausted
from bo_surrogates.errors import InputError, SpaceExhausted
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.posteriors.gaussian_mixture import GaussianMixture
from bo_surrogates.space import Space, Value

NOISE = 1e-8  # least variance of the noise, as a share of the largest variance looked at
ANSWER = 2.0  # times as much as its information, a trial at the target is worth
DRAWS = 256  # of a posterior that tells no covariance


@dataclass(frozen=True)
class FidelityChoice:
    """What is known where the fidelities of new points are chosen.

    Attributes:
        config: Costs, and how often the target is due; None in a space without a fidelity.
        X_tried: `n x d` points in problem coordinates that have been asked, in that order.
        X_running: `p x d` those of them whose outcomes are awaited.
        always: Numbers of trials that are asked at the target.
    """

    config: FidelityConfig | None
    X_tried: Tensor
    X_running: Tensor
    always: Collection[int] = ()

    def to(self, like: Tensor) -> FidelityChoice:
        """The same with tensors of another's device and type."""
        return replace(self, X_tried=self.X_tried.to(like), X_running=self.X_running.to(like))

    def add(self, x: Tensor) -> FidelityChoice:
        """The same with another point that is running."""
        row = x.unsqueeze(0).to(self.X_tried)
        tried, running = torch.cat([self.X_tried, row]), torch.cat([self.X_running, row])
        return replace(self, X_tried=tried, X_running=running)


def baseline_points(space: Space, X: Tensor) -> Tensor:
    """Of `n x d` observed points in problem coordinates, those that the best is measured against.

    Those at the target; all of them moved there, while there is none.
    """
    at = space.at_target(X)
    return X[at] if at.any() else space.to_target(X)


def maximize_by_cost(
    acquisition: AcquisitionFunction,
    space: Space,
    q: int,
    config: AcquisitionConfig,
    known: FidelityChoice,
    fixed: Mapping[str, Value],
    model: Model,
    columns: Callable[[Tensor], Tensor] = lambda Z: Z,
) -> tuple[Tensor, Tensor]:
    """As `optimize.maximize`, at the target fidelity; each point is then moved to its own.

    Args:
        acquisition: Evaluated on `b x q' x d` model coordinates, of the outcomes at the target.
        space: Where; without a fidelity, this is `maximize`.
        q: Number of points.
        config: The optimizer's budget.
        known: What has been tried, and what it costs to try.
        fixed: Valid values at which parameters are held; the fidelity may be among them.
        model: The fitted surrogate, m outcomes on any scale.
        columns: From model coordinates to the model's columns.

    Returns:
        `q x d` points in problem coordinates, and the acquisition value of each at the target.
    """
    f = space.fidelity
    if f is None or known.config is None:
        return maximize(acquisition, space, q, config, known.X_tried, fixed)
    asked = fixed.get(f.name, space.target[f.name])
    avoid = known.X_tried[(space.with_coordinate(known.X_tried, f.name, asked) == known.X_tried)
                          .all(dim=-1)]  # fmt: skip
    try:
        X, values = maximize(
            acquisition, space, q, config, space.to_target(avoid), {**fixed, **space.target}
        )
    except SpaceExhausted:
        raise exhausted(space, {**fixed, f.name: asked}) from None
    if f.name in fixed:
        return space.with_coordinate(X, f.name, asked), values
    rows = []
    for x in X:
        row = choose_fidelity(model, space, x, known, columns)
        known = known.add(row)
        rows.append(row)
    return torch.stack(rows), values


def choose_fidelity(
    model: Model,
    space: Space,
    x: Tensor,
    known: FidelityChoice,
    columns: Callable[[Tensor], Tensor] = lambda Z: Z,
) -> Tensor:
    """A point at the fidelity that tells most about it per cost.

    Args:
        model: As for `maximize_by_cost`.
        space: With a fidelity.
        x: `d` problem coordinates, at the target.
        known: What has been tried, and what it costs to try.
        columns: As for `maximize_by_cost`.

    Returns:
        `d` problem coordinates.
    """
    f, config = space.fidelity, known.config
    if f is None or config is None:
        return x
    tried = {tuple(row) for row in known.X_tried.tolist()}
    column = space.varied.index(f)
    asked = [f.decode(s) for s in known.X_tried[:, column].tolist()]
    if len(asked) in known.always or config.is_due(space, asked):
        return x
    target = space.target[f.name]
    values: list[Value] = []
    rows = []
    for value in config.cheaper(f):
        row = space.with_coordinate(x, f.name, value)
        if tuple(row.tolist()) not in tried:
            values.append(value)
            rows.append(row)
    if not rows:
        return x
    X = torch.stack([*rows, x])
    shares = information(model, space, X, known.X_running, columns)
    costs = shares.new_tensor([config.cost(f, v) for v in (*values, target)])
    gain = shares / costs
    gain[-1] *= ANSWER
    best = int(gain.argmax())
    return x if not gain[best] > gain[-1] else X[best]


def information(
    model: Model,
    space: Space,
    X: Tensor,
    X_running: Tensor,
    columns: Callable[[Tensor], Tensor] = lambda Z: Z,
) -> Tensor:
    """`k`: the share of the variance at the last point that an observation at each takes away.

    Args:
        model: m outcomes, over which the shares are averaged.
        space: Says what the coordinates mean.
        X: `k x d` problem coordinates.
        X_running: `p x d` points whose outcomes are awaited: what they will tell is known already.
        columns: From model coordinates to the model's columns.
    """
    p = len(X_running)
    Z = columns(space.to_model(torch.cat([X_running.to(X), X])))
    parts: Sequence[Any] = getattr(model, "models", [model])
    shares = []
    for part in parts:
        for i in range(part.num_outputs):
            output = [i] if part.num_outputs > 1 else None
            with torch.no_grad():
                posterior = part.posterior(Z, output_indices=output)
                noisy = part.posterior(Z, output_indices=output, observation_noise=True)
                noise = (noisy.variance - posterior.variance).reshape(-1)
                C, draws = _covariance(posterior)
            shares.append(_shares(C, noise, p, draws))
    return torch.stack(shares).mean(dim=0)


def _shares(C: Tensor, noise: Tensor, p: int, draws: float) -> Tensor:
    """For each point after the first p, the share of the last one's variance that it explains."""
    largest = C.diagonal().max()
    if not largest > 0:
        return C.new_zeros(len(C) - p)
    noise = noise.clamp_min(0.0) + NOISE * largest
    if p:  # what is running will have been observed
        factor = psd_safe_cholesky(C[:p, :p] + noise[:p].diag())
        gain = torch.linalg.solve_triangular(factor, C[:p, p:], upper=False)
        C = C[p:, p:] - gain.mT @ gain
    v = C.diagonal().clamp_min(0.0)
    share = C[:, -1].square() / ((v + noise[p:]) * v[-1])
    share = share.nan_to_num(0.0, 0.0, 0.0).clamp(0.0, 1.0)
    # Few draws correlate by chance: the adjusted coefficient of determination (Ezekiel 1930).
    if draws < float("inf"):
        free = max(draws - p - 1.0, 1.0)
        adjusted = 1 - (1 - share) * free / max(free - 1.0, 1e-9)
        share = torch.cat([adjusted[:-1].clamp_min(0.0), share[-1:]])
    return share


def _covariance(posterior: Posterior) -> tuple[Tensor, float]:
    """Covariance between a posterior's points, and from how many draws it is known."""
    try:
        C = posterior_covariance(posterior)
    except InputError:
        draws = posterior.rsample(torch.Size([DRAWS])).reshape(DRAWS, -1)
        return torch.cov(draws.mT).reshape(draws.shape[-1], -1), DRAWS
    if isinstance(posterior, EnsemblePosterior) and not isinstance(posterior, GaussianMixture):
        return C, float(1 / posterior.weights.square().sum(dim=-1).mean())
    return C, float("inf")
