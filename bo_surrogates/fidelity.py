"""What an evaluation costs at each fidelity, and which fidelities a design has.

A space may hold one parameter that says how exact an evaluation is (`Varied.fidelity`): epochs, the
share of the data, the mesh of a simulation. Answers count at its target only; cheaper evaluations
inform the surrogate. How the fidelity of a proposed point is chosen: `acquisition/fidelity.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.space import Float, Int, Space, Value, Varied

LEVELS = 16  # of a fidelity with more values that are looked at: evenly spread on its scale
INITIAL = ("spread", "target")
AT_TARGET = 3  # every third point of a "spread" design
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class FidelityConfig:
    """The cost of an evaluation by fidelity, and how fidelities are chosen.

    An evaluation at fidelity s costs `fixed_cost + weight * s` (an affine model, as BoTorch's
    `AffineFidelityCostModel`), in a unit of the user's own; or, where the fidelity is ordered, what
    `costs` says.

    Attributes:
        fixed_cost: Cost of every evaluation, whatever its fidelity.
        weight: Cost of one unit of the fidelity.
        costs: Of an ordered fidelity: the cost at each of its values, in their order.
        initial: Fidelities of the initial design: "spread" (every third point at the target, the
            others cheaper, the cheaper the likelier), "target" (all at the target), or a list of
            values, taken in turn.
        target_every: At least one of so many trials in a row is at the target, >= 1. Besides,
            cheaper trials since the last one at the target never cost more than one at the target:
            if they are worth nothing, at most half of the cost is lost.

    Raises:
        InputError: A field out of its range.
    """

    fixed_cost: float = 0.0
    weight: float = 1.0
    costs: tuple[float, ...] | None = None
    initial: str | tuple[Value, ...] = "spread"
    target_every: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "fixed_cost", _number("fixed_cost", self.fixed_cost))
        object.__setattr__(self, "weight", _number("weight", self.weight))
        if self.costs is not None:
            if isinstance(self.costs, str) or not isinstance(self.costs, Sequence):
                raise InputError(f"fidelity: costs must be a list of numbers, got {self.costs!r}")
            costs = tuple(_number("each of costs", c) for c in self.costs)
            object.__setattr__(self, "costs", costs)
        if isinstance(self.initial, str):
            if self.initial not in INITIAL:
                raise InputError(
                    "fidelity: initial must be 'spread', 'target' or a list of values, got "
                    f"{self.initial!r}{did_you_mean(self.initial, INITIAL)}"
                )
        elif not isinstance(self.initial, Sequence) or not self.initial:
            raise InputError(
                "fidelity: initial must be 'spread', 'target' or a list of values, got "
                f"{self.initial!r}"
            )
        else:
            object.__setattr__(self, "initial", tuple(self.initial))
        every = self.target_every
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise InputError(f"fidelity: target_every must be an integer >= 1, got {every!r}")

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-able."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            InputError: A field is unknown or out of its range.
        """
        known = [f.name for f in fields(cls)]
        for key in data:
            if key not in known:
                raise InputError(f"fidelity: unknown key {key!r}{did_you_mean(key, known)}")
        return cls(**data)

    # ---- together with a space -------------------------------------------------------------------
    def checked(self, space: Space) -> Self:
        """The same for a space, its `initial` values in canonical types.

        Raises:
            InputError: The space has no fidelity; the costs do not fit it, one is not above 0, or
                nothing is cheaper than the target.
        """
        f = space.fidelity
        if f is None:
            raise InputError(
                "[fidelity] says how a fidelity is chosen, but no parameter is one: give one of "
                "them fidelity = true, or remove [fidelity]"
            )
        if self.costs is not None and len(self.costs) != len(f.listed):
            raise InputError(
                f"fidelity: costs must list one number for each value of the ordered {f.what}"
                + (f", {len(f.listed)} in all, got {len(self.costs)}" if f.listed else
                   "; it is not ordered: give fixed_cost and weight instead")
            )  # fmt: skip
        if self.costs is None and f.listed and isinstance(f.listed[0], str):
            raise InputError(
                f"fidelity: the values of {f.what} are no numbers; give the cost of each of them "
                f"in [fidelity], as costs = [...], {len(f.listed)} numbers"
            )
        for value in (*map(f.decode, f.bounds), *levels(f), f.target):
            if value is not None and self.cost(f, value) <= 0:
                raise InputError(
                    f"fidelity: an evaluation at {f.name} = {value!r} would cost "
                    f"{self.cost(f, value):g}, but costs are above 0; give fixed_cost in [fidelity]"
                    ", the cost of an evaluation beside that of its fidelity"
                )
        if not self.cheaper(f):
            raise InputError(
                f"fidelity: no value of {f.what} is cheaper than its target {f.target!r}; mend the "
                "target or the costs, or leave out fidelity = true"
            )
        initial = self.initial
        if not isinstance(initial, str):
            try:
                initial = tuple(f.validate(value) for value in initial)
            except InputError as error:
                raise InputError(f"fidelity: initial: {error}") from None
        return type(self)(self.fixed_cost, self.weight, self.costs, initial, self.target_every)

    def cost(self, fidelity: Varied, value: Value) -> float:
        """The cost of an evaluation at a value of the fidelity."""
        if self.costs is not None:
            return self.costs[round(fidelity.encode(value))]
        return self.fixed_cost + self.weight * float(value)

    def cheaper(self, fidelity: Varied) -> list[Value]:
        """The levels of the fidelity that cost less than the target, ascending."""
        target = self.target_cost(fidelity)
        return [v for v in levels(fidelity) if self.cost(fidelity, v) < target]

    def target_cost(self, fidelity: Varied) -> float:
        """The cost of an evaluation at the target."""
        if fidelity.target is None:
            raise InputError(f"{fidelity.what} is no fidelity")
        return self.cost(fidelity, fidelity.target)

    def point_cost(self, space: Space, values: Mapping[str, Value]) -> float:
        """The cost of an evaluation at a point of a space with a fidelity."""
        if space.fidelity is None:
            raise InputError("the space has no fidelity")
        return self.cost(space.fidelity, values[space.fidelity.name])

    def is_due(self, space: Space, asked: Sequence[Value]) -> bool:
        """Whether the next trial must be at the target.

        Args:
            space: With a fidelity.
            asked: The fidelities of all trials so far, in the order of asking.
        """
        f = space.fidelity
        if f is None:
            return False
        since: list[float] = []
        for value in reversed(asked):
            if value == f.target:
                break
            since.append(self.cost(f, value))
        return len(since) >= self.target_every - 1 or sum(since) >= self.target_cost(f)

    def design_value(self, fidelity: Varied, number: int) -> Value:
        """The fidelity of a point of the initial design, by its number (0, 1, ...)."""
        if fidelity.target is None:
            raise InputError(f"{fidelity.what} is no fidelity")
        if not isinstance(self.initial, str):
            return self.initial[number % len(self.initial)]
        if self.initial == "target" or number % AT_TARGET == 0:
            return fidelity.target
        # Chance in proportion to one over the cost, by a sequence that is evenly spread and, unlike
        # a Sobol sequence, not tied to the points' other coordinates.
        values = self.cheaper(fidelity)
        shares = [1 / self.cost(fidelity, v) for v in values]
        left = (0.5 + number * GOLDEN) % 1 * sum(shares)
        for value, share in zip(values, shares, strict=True):
            left -= share
            if left < 0:
                return value
        return values[-1]


def check_fidelity(
    space: Space, fidelity: FidelityConfig | None, acquisition: AcquisitionConfig
) -> FidelityConfig | None:
    """How fidelities are chosen in a space: as configured, by default, or not at all.

    Raises:
        InputError: The configuration does not fit the space, or a trust region is asked for.
    """
    if space.fidelity is None and fidelity is None:
        return None
    checked = (fidelity or FidelityConfig()).checked(space)
    if acquisition.trust_region is True:
        raise InputError(
            "trust_region = true and a fidelity exclude each other: successes and failures are "
            "those of trials at the target, which are too few to steer by; remove one of them"
        )
    return checked


def levels(fidelity: Varied) -> list[Value]:
    """The values of a fidelity that are looked at: all, or some evenly spread on its scale."""
    count = fidelity.cardinality
    low, high = fidelity.bounds
    if count is not None and count <= LEVELS:
        return [fidelity.decode(low + k) for k in range(count)]
    log = isinstance(fidelity, Float | Int) and fidelity.log
    a, b = (math.log(low), math.log(high)) if log else (low, high)
    spread = [a + (b - a) * k / (LEVELS - 1) for k in range(LEVELS)]
    return list(dict.fromkeys(fidelity.decode(math.exp(x) if log else x) for x in spread))


def _number(name: str, value: object) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if not good or not math.isfinite(value):  # type: ignore[arg-type]
        raise InputError(f"fidelity: {name} must be a finite number, got {value!r}")
    return float(value)  # type: ignore[arg-type]
