"""Random scalarizations: the improvement they stand for, computed from samples by hand."""

from __future__ import annotations

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition, make_sampler
from bo_surrogates.acquisition.scalarization import random_scalarization
from bo_surrogates.loop import _standardized, fit, propose
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space

SPACE = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
CONFIG = AcquisitionConfig(
    name="qlognparego", mc_samples=256, num_restarts=1, raw_samples=16, maxiter=20
)
WEIGHTS = -torch.eye(2, dtype=torch.float64)
TINY = {"members": 4, "width": 8, "depth": 1, "steps": 60}


def points(n: int, seed: int, *batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, n, 2, generator=generator, dtype=torch.float64)


X = points(8, 0)
Y = torch.stack([((X - 0.2) ** 2).sum(-1), ((X - 0.8) ** 2).sum(-1)], dim=-1)


@pytest.fixture(scope="module", params=["gp", "ensemble"])
def model(request: pytest.FixtureRequest):
    config = TINY if request.param == "ensemble" else {}
    return _standardized(fit(SPACE, X, Y, surrogate=request.param, config=config, seed=0))


def test_a_scalarization_is_the_augmented_chebyshev_function_of_its_weights() -> None:
    """Its increments: the smallest weighted objective, plus a twentieth of their sum."""
    observed = torch.tensor([[0.0, 10.0], [1.0, 30.0], [0.5, 20.0]], dtype=torch.float64)
    scalarize = random_scalarization(observed, seed=3, number=0)
    at = lambda *y: float(scalarize(torch.tensor(y, dtype=torch.float64)))  # noqa: E731
    # Each objective is scaled to its observed range. Where the other is much better, the one that
    # is worse decides; its slope is its weight, and the weights sum to one.
    slopes = [
        (at(-50.0, 1e4) - at(-51.0, 1e4)) / 1.05,
        (at(1e4, -1e3) - at(1e4, -1e3 - 20.0)) / 1.05,
    ]
    assert sum(slopes) == pytest.approx(1.0, rel=1e-6)
    assert min(slopes) > 0
    # Along the line on which both weighted shortfalls from the best observed values are equal,
    # both decide: neither can gain alone.
    w = torch.tensor(slopes, dtype=torch.float64)
    best, span = observed.amax(0), observed.amax(0) - observed.amin(0)
    corner = best - 0.3 * span / w
    for step in torch.eye(2, dtype=torch.float64):
        # Without the augmentation, whose share is a twentieth of each weighted gain.
        gain = scalarize(corner + 0.1 * step * span) - scalarize(corner)
        assert float(gain) == pytest.approx(0.05 * 0.1 * float(w @ step), rel=1e-6)
    other = random_scalarization(observed, seed=3, number=1)
    again = random_scalarization(observed, seed=3, number=0)
    assert torch.equal(again(observed), scalarize(observed))
    assert not torch.equal(other(observed), scalarize(observed))


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("pending", [None, points(1, 5)], ids=["none pending", "one pending"])
def test_the_value_is_the_noisy_expected_improvement_of_scalarized_samples(
    model, q: int, pending: torch.Tensor | None
) -> None:
    ours = make_acquisition(
        model, config=CONFIG.replace(mc_samples=2048), weights=WEIGHTS, X_baseline=X, seed=4,
        X_pending=pending,
    )  # fmt: skip
    # About the front, the diagonal from 0.2 to 0.8.
    along = torch.linspace(0.1, 0.9, 40, dtype=torch.float64).reshape(40, 1, 1)
    Z = along + 0.1 * (points(q, 6, 40) - 0.5)
    observed = model.posterior(X.unique(dim=0)).mean @ WEIGHTS.T
    scalarize = random_scalarization(observed, 4, 0 if pending is None else len(pending))
    known = X if pending is None else torch.cat([X, pending])
    joint = torch.cat([Z, known.expand(40, *known.shape)], dim=-2)
    with torch.no_grad():
        # Samples of other base samples than those of the acquisition function.
        samples = make_sampler(model, X, 4096, seed=77)(model.posterior(joint))
        values = scalarize(samples @ WEIGHTS.T)
        gain = values[..., :q].amax(-1) - values[..., q:].amax(-1)
        expected = gain.clamp_min(0).mean(dim=0).log()
        found = ours(Z)
    likely = expected > expected.max() - 1.5  # elsewhere few samples improve at all
    assert likely.sum() >= 2
    torch.testing.assert_close(found[likely], expected[likely], atol=0.25, rtol=0)


def test_a_pending_point_changes_the_next_proposal() -> None:
    options = {"objectives": (Objective("f"), Objective("g")), "acquisition": CONFIG, "seed": 2}
    first = propose(SPACE, X, Y, **options).X
    both = propose(SPACE, X, Y, q=2, **options).X
    next_ = propose(SPACE, X, Y, X_pending=first, **options).X
    torch.testing.assert_close(both[:1], first)
    assert (both[1] - first).abs().max() > 1e-3
    assert (next_ - first).abs().max() > 1e-3
