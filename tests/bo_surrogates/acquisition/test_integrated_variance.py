"""Active learning: variance taken away, by conditioning and by the members' covariance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.integrated_variance import integration_points
from bo_surrogates.errors import InputError
from bo_surrogates.loop import _standardized, fit, propose
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space

SPACE = Space([Float("a", 0.0, 1.0), Float("b", 0.0, 1.0)])
CONFIG = AcquisitionConfig(
    name="integrated_variance", mc_samples=32, num_restarts=1, raw_samples=16, maxiter=20
)
ONE = torch.ones(1, 1, dtype=torch.float64)


def points(n: int, seed: int, *batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*batch, n, 2, generator=generator, dtype=torch.float64)


X = points(9, 0)
Y = (torch.sin(5 * X[:, :1]) + X[:, 1:]) + 0.1 * points(9, 1)[:, :1]
INTEGRATION = integration_points(SPACE, CONFIG, seed=0)
PENDING = {"none pending": None, "one pending": points(1, 5)}


def acquisition(model, pending=None, **options):
    return make_acquisition(
        model, config=CONFIG, weights=ONE, X_baseline=X, seed=0, X_pending=pending,
        **{"X_integration": INTEGRATION, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def gp():
    return _standardized(fit(SPACE, X, Y, surrogate="gp", seed=0))


@pytest.fixture(scope="module")
def ensemble():
    config = {"members": 4, "width": 8, "depth": 1, "steps": 60}
    return _standardized(fit(SPACE, X, Y, surrogate="ensemble", config=config, seed=0))


def variances(gp, measured: torch.Tensor) -> torch.Tensor:
    """Posterior variances at the integration points, of the kernel and the noise alone."""
    A, Z = gp.transform_inputs(measured), gp.transform_inputs(INTEGRATION)
    kernel = lambda *inputs: gp.covar_module(*inputs).to_dense()  # noqa: E731
    noise = gp.likelihood.noise * torch.eye(len(A), dtype=torch.float64)
    cross = kernel(Z, A)
    taken = (cross * torch.linalg.solve(kernel(A, A) + noise, cross.T).T).sum(-1)
    return kernel(Z, Z).diagonal() - taken


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("pending", PENDING.values(), ids=PENDING)
def test_for_a_gaussian_process_it_is_what_conditioning_takes_away(gp, q: int, pending) -> None:
    batches = points(q, 6, 4)
    expected = []
    with torch.no_grad():
        for batch in batches:
            new = batch if pending is None else torch.cat([batch, pending])
            after = variances(gp, torch.cat([X, new]))
            expected.append((variances(gp, X) - after).mean().log())
        found = acquisition(gp, pending)(batches)
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-5, rtol=1e-5)
    assert found.std() > 0


@pytest.mark.parametrize("q", [1, 2])
@pytest.mark.parametrize("pending", PENDING.values(), ids=PENDING)
def test_for_an_ensemble_it_is_the_best_linear_predictions(ensemble, q: int, pending) -> None:
    batches = points(q, 6, 4)
    with torch.no_grad():
        plain = ensemble.posterior(X).variance
        noise = float((ensemble.posterior(X, observation_noise=True).variance - plain).mean())
        found = acquisition(ensemble, pending)(batches)
    for batch, value in zip(batches, found, strict=True):
        new = batch if pending is None else torch.cat([batch, pending])
        with torch.no_grad():
            members = ensemble.posterior(torch.cat([new, INTEGRATION])).values.squeeze(-1)
        C = np.cov(members.numpy(), rowvar=False)
        n = len(new)
        cross = C[:n, n:]
        taken = np.linalg.solve(C[:n, :n] + noise * np.eye(n), cross)
        assert float(value) == pytest.approx(np.log((cross * taken).sum(0).mean()), abs=1e-5)


def test_integration_points_count_by_their_probability_of_feasibility(gp) -> None:
    """A bound that the model is sure about: only points on its good side are learnt."""
    sure = [lambda outcomes: outcomes[..., 0]]  # satisfied where the standardized outcome is <= 0
    Z = points(1, 6, 4)
    found = acquisition(gp, constraints=sure)(Z)
    posterior = gp.posterior(INTEGRATION)
    probability = torch.distributions.Normal(0.0, 1.0).cdf(
        -posterior.mean.squeeze(-1) / posterior.variance.squeeze(-1).sqrt()
    )
    expected = []
    with torch.no_grad():
        for batch in Z:
            gain = variances(gp, X) - variances(gp, torch.cat([X, batch]))
            expected.append(((gain * probability).sum() / probability.sum()).log())
    # 32 samples tell a probability to 0.5 sqrt(1 / 32) = 0.09, and 32 points average that.
    torch.testing.assert_close(found.detach(), torch.stack(expected), atol=0.15, rtol=0)


def test_it_needs_points_to_integrate_over(gp) -> None:
    with pytest.raises(InputError, match="needs points to integrate over"):
        acquisition(gp, X_integration=None)


def test_a_pending_point_changes_the_next_proposal() -> None:
    options = {"objectives": (Objective("f"),), "acquisition": CONFIG, "seed": 2}
    first = propose(SPACE, X, Y, **options).X
    both = propose(SPACE, X, Y, q=2, **options).X
    following = propose(SPACE, X, Y, X_pending=first, **options).X
    torch.testing.assert_close(both[:1], first)
    assert (both[1] - first).abs().max() > 0.05
    assert (following - first).abs().max() > 0.05
