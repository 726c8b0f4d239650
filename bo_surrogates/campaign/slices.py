"""Slices of a campaign's surrogate: one parameter varied, or two, the others held at a point."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bo_surrogates.analysis.lengthscales import lengthscales
from bo_surrogates.campaign.model import CampaignModel
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space import Choice, Int, Ordered, Space, Value
from bo_surrogates.space.parameters import Varied

LEVELS = (0.05, 0.25, 0.75, 0.95)  # ends of the central 90 % and 50 % intervals
MOST_LEVELS = 101  # of an int parameter that are looked at one by one


@dataclass(frozen=True)
class Axis:
    """The values that one parameter takes along a slice.

    Attributes:
        parameter: Which.
        index: Its coordinate.
        coordinates: `k` problem coordinates, ascending.
        values: What they are to the user.
    """

    parameter: Varied
    index: int
    coordinates: Tensor
    values: tuple[Value, ...]

    @property
    def discrete(self) -> bool:
        """Whether the values are levels side by side, without a scale of numbers."""
        return isinstance(self.parameter, Ordered | Choice)

    @property
    def positions(self) -> list[float]:
        """Where the values stand in a figure: numbers at their value, levels at their index."""
        return self.coordinates.tolist()


@dataclass(frozen=True)
class Slice:
    """The prediction of a metric along one axis.

    Attributes:
        axis: What varies.
        mean: `k` means of the noise-free outcome.
        quantiles: `4 x k`, at `LEVELS`.
        allowed: `k`, whether the point satisfies the parameter constraints.
    """

    axis: Axis
    mean: Tensor
    quantiles: Tensor
    allowed: Tensor


def default_point(model: CampaignModel) -> dict[str, Any]:
    """The point that slices go through where none is given.

    The best trial; with several objectives, the one in the middle of the Pareto front; the last
    trial where none satisfies the constraints. A fidelity is at its target.
    """
    from bo_surrogates.campaign import results

    front = results.pareto_front(model.spec, model.trials)
    point = (front[len(front) // 2] if front else model.trials[-1]).parameters
    return {**point, **model.spec.space.target}


def axis_of(model: CampaignModel, name: str, points: int = 121) -> Axis:
    """The values of a parameter: all its levels, or evenly spread ones.

    Raises:
        InputError: There is no such parameter, or it is fixed.
    """
    space = model.spec.space
    names = [p.name for p in space.varied]
    if name in space.names and name not in names:
        raise InputError(f"parameter {name!r} is fixed; name one that varies")
    if name not in names:
        raise InputError(f"unknown parameter {name!r}{did_you_mean(name, names)}")
    index = names.index(name)
    parameter = space.varied[index]
    low, high = parameter.bounds
    count = parameter.cardinality
    if count is not None and count <= MOST_LEVELS:
        coordinates = torch.arange(low, high + 1, dtype=torch.float64)
    else:
        ends = space.model_bounds[:, index]
        Z = space.model_bounds[0].repeat(points, 1)
        Z[:, index] = torch.linspace(float(ends[0]), float(ends[1]), points, dtype=torch.float64)
        coordinates = space.nearest(Z)[:, index]
        if isinstance(parameter, Int):
            coordinates = coordinates.unique()
    return Axis(
        parameter, index, coordinates, tuple(parameter.decode(c) for c in coordinates.tolist())
    )


def cut(model: CampaignModel, metric: str, point: Mapping[str, Any], axis: Axis) -> Slice:
    """The prediction of a metric along an axis through a point.

    Where that activates other parameters, they are at their imputed values.

    Raises:
        InputError: The parameter is inactive at the point.
    """
    space = model.spec.space
    _require_active(space, point, axis)
    X = model.encode([point]).repeat(len(axis.coordinates), 1)
    X[:, axis.index] = axis.coordinates
    X = space.impute(X)
    found = model.marginals(metric, X, LEVELS)
    return Slice(axis, found.mean, found.quantiles, space.satisfied(X))


@dataclass(frozen=True)
class Plane:
    """The prediction of a metric over two axes.

    Attributes:
        x: The first axis.
        y: The second.
        mean: `len(y) x len(x)` means of the noise-free outcome.
        stdv: `len(y) x len(x)` standard deviations.
        allowed: `len(y) x len(x)`, whether the point satisfies the parameter constraints.
    """

    x: Axis
    y: Axis
    mean: Tensor
    stdv: Tensor
    allowed: Tensor


def plane(model: CampaignModel, metric: str, point: Mapping[str, Any], x: Axis, y: Axis) -> Plane:
    """The prediction of a metric over two axes through a point.

    Raises:
        InputError: Both axes are the same parameter, or one is inactive at the point.
    """
    space = model.spec.space
    for axis in (x, y):
        _require_active(space, point, axis)
    if x.index == y.index:
        raise InputError(f"a contour needs two parameters, got {x.parameter.name!r} twice")
    shape = len(y.coordinates), len(x.coordinates)
    X = model.encode([point]).repeat(shape[0] * shape[1], 1)
    X[:, x.index] = x.coordinates.repeat(shape[0])
    X[:, y.index] = y.coordinates.repeat_interleave(shape[1])
    X = space.impute(X)
    found = model.marginals(metric, X)
    return Plane(
        x, y, found.mean.reshape(shape), found.stdv.reshape(shape),
        space.satisfied(X).reshape(shape),
    )  # fmt: skip


def _require_active(space: Space, point: Mapping[str, Any], axis: Axis) -> None:
    name = axis.parameter.name
    if not space.is_active(name, point):
        raise InputError(
            f"parameter {name!r} is inactive at the point of the slice; choose a point (or trial) "
            "where it is active"
        )


def nearness(model: CampaignModel, metric: str, point: Mapping[str, Any], *axes: Axis) -> Tensor:
    """`n`: how much each trial says about a slice through a point, from 0 to 1 (on the slice).

    exp(-D^2), the share of the variance on the slice that the trial explains under a squared
    exponential kernel, with D the distance in the parameters that do not vary. It is in
    lengthscales where the surrogate has them (what a parameter that does not matter is, does not
    matter), else in quarters of the cube's diagonal; categories are one range apart.
    """
    space = model.spec.space
    low, high = space.model_bounds
    shift = (space.to_model(model.X) - space.to_model(model.encode([point]))).abs() / (high - low)
    for i in space.categories:
        shift[:, i] = (shift[:, i] > 0).to(shift)
    scales = lengthscales(model.surrogate(metric))
    if scales is None:
        scales = torch.full((space.dim,), 0.25 * space.dim**0.5)
    scaled = shift / scales.to(shift)
    scaled[:, [axis.index for axis in axes]] = 0.0
    return torch.exp(-scaled.square().sum(dim=-1))
