"""Fitted models of every registered surrogate, shared by the contract tests.

Every test that takes the fixture `entry` runs once for each entry of the registry: a new surrogate
is held to the contract by being registered.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import pytest
import torch
from scipy.stats import binom
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.surrogates import SURROGATES, Surrogate, SurrogateEntry

torch.set_num_threads(1)

# Budgets by field name, for whatever configuration has the field: the contract does not depend on
# the quality of a fit, and the suite is to be fast.
CHEAP: dict[str, Any] = {
    "steps": 150,
    "members": 6,
    "width": 16,
    "features": 128,
    "draws": 12,
    "chains": 6,
    "warmup": 30,
    "samples": 16,
    "map_steps": 50,
    "max_r_hat": 100.0,
    "min_ess": 0.0,
}
BOUNDS = torch.tensor([[-5.0, 0.0], [10.0, 15.0]], dtype=torch.float64)
# A count of n independent trials leaves these limits with probability below 2e-10; the whole suite
# makes fewer than a thousand such comparisons an entry.
TAIL = 1e-10


def cheap_config(entry: SurrogateEntry, **budgets: Any) -> Config:
    """The entry's default configuration with the budgets of `CHEAP`, unless told otherwise."""
    config = entry.config_class()
    present = {f.name for f in fields(config)}
    return config.replace(**{k: v for k, v in (CHEAP | budgets).items() if k in present})


def measurements(n: int = 14, m: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Noisy observations of smooth functions on `BOUNDS`: `n x 2` and `n x m`, float64."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(n, 2, generator=generator, dtype=torch.float64)
    first = torch.sin(5 * unit[:, 0]) + unit[:, 1]
    second = 3 * (unit[:, 0] - unit[:, 1]).square() - 20
    Y = torch.stack([first, second], dim=-1)[:, :m]
    Y = Y + 0.05 * torch.randn(n, m, generator=generator, dtype=torch.float64)
    return BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * unit, Y


def points(*shape: int, seed: int = 1) -> Tensor:
    """Random inputs `shape x 2` within `BOUNDS`, float64."""
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand(*shape, 2, generator=generator, dtype=torch.float64)
    return BOUNDS[0] + (BOUNDS[1] - BOUNDS[0]) * unit


@dataclass(frozen=True)
class Fitted:
    """A fitted model with the data it was built from."""

    model: Surrogate
    X: Tensor
    Y: Tensor


def assert_samples_follow(samples: Tensor, quantiles: Tensor, levels: Tensor) -> None:
    """Assert that draws (first dimension) agree with exact quantiles (first dimension: levels).

    A discrete distribution may have an atom at its quantile: P(y < q) <= p <= P(y <= q).
    """
    n = samples.shape[0]
    slack = 1e-6 * samples.std()
    for p, q in zip(levels.tolist(), quantiles, strict=True):
        strictly_below = (samples < q - slack).sum(dim=0).max().item()
        not_above = (samples <= q + slack).sum(dim=0).min().item()
        assert strictly_below <= binom.isf(TAIL, n, p)
        assert not_above >= binom.ppf(TAIL, n, p)


def build(entry: SurrogateEntry, X: Tensor, Y: Tensor, **options: Any) -> Surrogate:
    """`entry.build` with cheap budgets, on `BOUNDS` and seed 0 unless told otherwise."""
    options = {"bounds": BOUNDS.to(X), "seed": 0, "config": cheap_config(entry)} | options
    return entry.build(X, Y, **options)


@pytest.fixture(scope="session", params=list(SURROGATES), ids=str)
def entry(request: pytest.FixtureRequest) -> SurrogateEntry:
    return SURROGATES[request.param]


@pytest.fixture(scope="session")
def one(entry: SurrogateEntry) -> Fitted:
    X, Y = measurements()
    return Fitted(build(entry, X, Y), X, Y)


@pytest.fixture(scope="session")
def two(entry: SurrogateEntry) -> Fitted:
    if not entry.capabilities.multi_output:
        pytest.skip(f"{entry.name} takes one outcome")
    X, Y = measurements(m=2)
    return Fitted(build(entry, X, Y), X, Y)


@pytest.fixture(params=[1, 2], ids=["m1", "m2"])
def fitted(entry: SurrogateEntry, request: pytest.FixtureRequest) -> Fitted:
    """Models with one and with two outcomes."""
    return request.getfixturevalue("one" if request.param == 1 else "two")


@pytest.fixture
def make() -> Callable[..., Surrogate]:
    return build
