"""Any of BoTorch's test functions, by name: `make(function="StyblinskiTang", dim=6)`.

Inputs are called x1, x2, ..., outputs f1, f2, ..., and the slacks of constraints c1, c2, ...;
bounds, signs, reference point and optimum are BoTorch's, and so is the responsibility for them (the
problems that have a name of their own here were checked). Functions that are registered under their
own name are left out.

Source: Balandat et al. 2020, arXiv 1910.06403; the functions' docstrings name theirs.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from botorch.test_functions import multi_objective, synthetic

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Direction, Objective
from bo_surrogates.space import Choice, Float, Int, Parameter, Space
from problems.base import Optimum
from problems.botorch_adapter import BoTorchProblem

SINGLE = (
    "AckleyMixed", "Beale", "Bukin", "ConstrainedHartmann", "ConstrainedHartmannSmooth", "Cosine8",
    "DixonPrice", "DropWave", "EggHolder", "HolderTable", "Labs", "Powell", "Shekel",
    "SixHumpCamel", "StyblinskiTang", "ThreeHumpCamel",
)  # fmt: skip
SEVERAL = (
    "BNH", "C2DTLZ2", "CONSTR", "CarSideImpact", "ConstrainedBraninCurrin", "DH1", "DH2", "DH3",
    "DH4", "DTLZ2", "DTLZ3", "DTLZ4", "DTLZ7", "DiscBrake", "GMM", "MW7", "OSY", "SRN", "ToyRobust",
    "WeldedBeam", "ZDT1", "ZDT2", "ZDT3",
)  # fmt: skip


@dataclass(frozen=True)
class BoTorchFunctionConfig(Config):
    """Options of `botorch`.

    Attributes:
        function: BoTorch's name of it.
        dim: Number of inputs, where the function has any number; None for the function's own.
        objectives: Number of outputs, where the function has any number; likewise.
    """

    function: str = choice("StyblinskiTang", (*SINGLE, *SEVERAL))
    dim: int | None = integer(None, 1, 10_000, optional=True)
    objectives: int | None = integer(None, 2, 100, optional=True)


class BoTorchFunction(BoTorchProblem):
    """See the module's docstring; keywords as for `Problem`.

    Raises:
        InputError: `dim` or `objectives` does not suit the function.
    """

    config_class: ClassVar[type[Config]] = BoTorchFunctionConfig

    def __init__(
        self,
        config: BoTorchFunctionConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or BoTorchFunctionConfig()
        f: Any = _make(config)
        minimize = bool(f._is_minimization_by_default)
        direction: Direction = "minimize" if minimize else "maximize"
        count = getattr(f, "num_objectives", 1)
        reference = f.ref_point.tolist() if count > 1 else [None]
        value = _known(f, "_optimal_value") if count == 1 else None
        points = tuple(tuple(map(float, x)) for x in getattr(f, "_optimizers", None) or ())
        if value is not None and points:
            # BoTorch rounds the value; its points are as good as they are.
            values = f._evaluate_true(torch.tensor(points, dtype=torch.float64))
            best = values.min() if minimize else values.max()
            points = tuple(p for p, v in zip(points, values, strict=True) if v == best)
            value = best.item()
        super().__init__(
            f,
            Space([_parameter(f, i) for i in range(f.dim)]),
            [Objective(f"f{i + 1}", direction, reference=r) for i, r in enumerate(reference)],
            slacks=[f"c{i + 1}" for i in range(getattr(f, "num_constraints", 0))],
            config=config,
            optimum=None if value is None else Optimum(value, points, "BoTorch", proven=False),
            max_hypervolume=_known(f, "_max_hv") if count > 1 else None,
            noise_std=noise_std,
            negate=negate,
        )


def _make(config: BoTorchFunctionConfig) -> Any:
    function_class = getattr(
        synthetic if config.function in SINGLE else multi_objective, config.function
    )
    takes = inspect.signature(function_class).parameters
    given: dict[str, Any] = {}
    for option, argument, usual in (
        ("dim", "dim", 6), ("objectives", "num_objectives", 2),
    ):  # fmt: skip
        value = getattr(config, option)
        if argument in takes:
            needed = takes[argument].default is inspect.Parameter.empty
            if value is not None or needed:
                given[argument] = usual if value is None else value
        elif value is not None:
            raise InputError(
                f"BoTorchFunctionConfig.{option}: {config.function} has a fixed number; leave "
                f"{option} out"
            )
    try:
        return function_class(**given)
    except (ValueError, NotImplementedError) as error:
        raise InputError(f"{config.function} cannot be made with {given}: {error}") from error


def _known(function: Any, attribute: str) -> float | None:
    try:
        value = getattr(function, attribute, None)
    except NotImplementedError:
        return None
    return None if value is None else float(value)


def _parameter(function: Any, i: int) -> Parameter:
    name, (low, high) = f"x{i + 1}", function._bounds[i]
    if i in function.continuous_inds:
        return Float(name, low, high)
    if i in function.categorical_inds:
        return Choice(name, tuple(range(int(low), int(high) + 1)))
    return Int(name, int(low), int(high))
