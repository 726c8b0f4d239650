"""No covariance matrix ends a fit or a prediction: each problem with one of the surrogates.

`python -m benchmarks.covariances` goes through all pairs.
"""

from __future__ import annotations

import pytest
import torch

from benchmarks.covariances import KERNELS, NEAR, crowded, examine, observe
from bo_surrogates.space import Float, Space
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS
from tests.bo_surrogates.surrogates.conftest import cheap_config

CHEAP = [name for name, entry in PROBLEMS.items() if entry.cost == "< 1 s"]


@pytest.mark.parametrize("number", range(len(CHEAP)), ids=CHEAP)
def test_crowded_points_are_fitted_and_predicted(number: int) -> None:
    problem, name = CHEAP[number], KERNELS[number % len(KERNELS)]
    config = cheap_config(SURROGATES[name], steps=20, members=2)
    data = observe(problem, 12, seed=0)
    assert examine(name, problem, data, config).failure is None, name


def test_crowded_points_repeat_and_nearly_repeat_others() -> None:
    X = crowded(Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)]), 12, seed=0)
    distance = torch.cdist(X, X).fill_diagonal_(1.0).amin(dim=-1)
    assert X.shape == (12, 2)
    assert (distance == 0).sum() >= 3
    assert ((distance > 0) & (distance < 2 * NEAR)).sum() >= 3
