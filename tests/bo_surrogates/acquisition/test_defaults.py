"""The acquisition functions: right value by quadrature, independent of units and of data order."""

import pytest
import torch
from botorch.acquisition.analytic import LogExpectedImprovement
from botorch.models import ModelList, ModelListGP
from botorch.sampling.list_sampler import ListSampler

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import (
    infer_reference,
    make_acquisition,
    make_sampler,
)
from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES

X = torch.rand(10, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = ((X - 0.4) ** 2).sum(-1, keepdim=True)
TEST = torch.rand(20, 1, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
ONE = torch.ones(1, 1, dtype=torch.float64)


@pytest.fixture(scope="module")
def gp():
    return SURROGATES["gp"].build(X, Y, seed=0)


def test_qlogei_agrees_with_the_closed_form(gp):
    """Gaussian posterior, one point: log EI is known analytically."""
    config = AcquisitionConfig(name="qlogei", mc_samples=4096)
    ours = make_acquisition(gp, config=config, weights=-ONE, X_baseline=X, seed=0)
    best = gp.posterior(X).mean.min()
    exact = LogExpectedImprovement(gp, best_f=best, maximize=False)(TEST)
    likely = exact > exact.max() - 4  # elsewhere EI is all tail, which samples cannot resolve
    assert likely.sum() >= 2
    torch.testing.assert_close(ours(TEST)[likely], exact[likely], atol=0.1, rtol=0)


def test_values_are_deterministic_by_seed_and_differentiable(gp):
    def make(seed):
        return make_acquisition(
            gp, config=AcquisitionConfig(), weights=-ONE, X_baseline=X, seed=seed
        )

    Z = TEST.clone().requires_grad_()
    value = make(3)(Z)
    assert torch.equal(value, make(3)(TEST))
    assert not torch.equal(value, make(4)(TEST))
    (gradient,) = torch.autograd.grad(value.sum(), Z)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_values_do_not_depend_on_the_order_of_the_data(gp):
    torch.manual_seed(0)
    forth = make_acquisition(gp, config=AcquisitionConfig(), weights=-ONE, X_baseline=X, seed=0)
    torch.manual_seed(0)
    back = make_acquisition(
        gp, config=AcquisitionConfig(), weights=-ONE, X_baseline=X.flip(0), seed=0
    )
    torch.testing.assert_close(forth(TEST), back(TEST), atol=1e-9, rtol=0)


def test_auto_follows_the_number_of_objectives_and_misfits_are_refused():
    assert AcquisitionConfig().resolve(1) == "qlognei"
    assert AcquisitionConfig().resolve(3) == "qlognehvi"
    assert AcquisitionConfig(name="qlogei").resolve(1) == "qlogei"
    with pytest.raises(InputError, match=r"'qlognehvi' does not fit 1 objective\(s\)"):
        AcquisitionConfig(name="qlognehvi").resolve(1)


def test_independent_models_get_independent_base_samples():
    """BoTorch's own dispatch seeds both alike: the same member index, or normals, in both."""
    models = [SURROGATES["gp"].build(X, Y + k * X[:, :1], seed=0) for k in (0, 1)]
    for many in (ModelListGP(*models), ModelList(*models)):
        sampler = make_sampler(many, X, 2048, seed=0)
        samples = sampler(many.posterior(X[:1] + 0.5))
        a, b = samples[:, 0, 0], samples[:, 0, 1]
        # Under independence the correlation of 2,048 pairs is within 5 / sqrt(2048) = 0.11 of
        # zero but for one case in a million.
        assert torch.corrcoef(torch.stack([a, b]))[0, 1].abs() < 0.11
    assert isinstance(make_sampler(ModelList(*models), X, 8, seed=0), ListSampler)


def test_reference_points_are_inferred_where_not_given():
    models = ModelListGP(
        SURROGATES["gp"].build(X, X[:, :1], seed=0),
        SURROGATES["gp"].build(X, 1 - X[:, :1] ** 2, seed=0),
    )
    weights = torch.eye(2, dtype=torch.float64)
    given = torch.tensor([-5.0, torch.nan], dtype=torch.float64)
    reference = infer_reference(models, weights, X, None, given)
    assert reference[0] == -5.0
    # All points are on the front; BoTorch: nadir less a tenth of the range.
    mean = models.posterior(X).mean[:, 1]
    assert reference[1] == pytest.approx(
        float(mean.min() - 0.1 * (mean.max() - mean.min())), rel=1e-9
    )
    assert torch.equal(infer_reference(models, weights, X, None, reference), reference)
