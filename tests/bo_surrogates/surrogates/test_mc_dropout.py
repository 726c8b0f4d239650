"""Monte Carlo dropout: masks are right, and so is the objective."""

import pytest
import torch

from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.surrogates import SURROGATES

from .conftest import BOUNDS, measurements, points

CONFIG = {"width": 16, "steps": 150, "draws": 64}


@pytest.fixture(scope="module")
def model():
    X, Y = measurements()
    config = CONFIG | {"rate": 0.3, "members": 2}
    return SURROGATES["mc_dropout"].build(X, Y, bounds=BOUNDS, config=config, seed=0)


def test_without_dropout_all_functions_of_a_member_are_its_network():
    X, Y = measurements()
    config = CONFIG | {"rate": 0.0}
    model = SURROGATES["mc_dropout"].build(X, Y, bounds=BOUNDS, config=config, seed=0)
    assert torch.equal(model.weights, model.trained.expand(64, -1))


def test_a_mask_removes_whole_hidden_units_and_scales_the_rest(model):
    for member in range(2):
        trained = model.network.unpack(model.trained[member : member + 1])
        drawn = model.network.unpack(model.weights[member::2])
        assert torch.equal(drawn[0].weight, trained[0].weight.expand_as(drawn[0].weight))
        for (weight, bias), (old, old_bias) in zip(drawn[1:], trained[1:], strict=True):
            assert torch.equal(bias, old_bias.expand_as(bias))
            ratio = weight / old
            kept = ratio[..., 0] > 0
            # By rows: a unit's weights go together.
            torch.testing.assert_close(ratio, (kept / 0.7).unsqueeze(-1).expand_as(ratio).double())
            # 32 functions of 16 units: five standard deviations of a share of 0.3 are 0.1.
            assert (~kept).double().mean() == pytest.approx(0.3, abs=0.1)


def test_the_mean_over_masks_of_a_layers_weights_is_the_layer(model):
    theta = model.trained[:1].expand(20_000, -1)
    drawn = model.masked(theta, torch.Generator().manual_seed(0))
    deviation = (0.3 / 0.7 / 20_000) ** 0.5  # relative standard error
    error = (drawn.mean(dim=0) - model.trained[0]).abs()
    assert (error <= 6 * deviation * model.trained[0].abs() + 1e-12).all()


def test_the_expected_log_prior_is_the_papers_weight_decay(model):
    """Gal and Ghahramani: (1 - p) |W|^2 / (2 s^2), W the weights before the division by 1 - p."""
    network, keep = model.network, 0.7
    X, Y = torch.zeros(1, 2).double(), torch.zeros(1, 1).double()
    scales = torch.full((network.num_parameters,), 2.0).double()
    posterior = NetworkPosterior(network, X, Y, scales, torch.full((1, 1), 1e12).double())
    theta = model.trained[:1].expand(20_000, -1)
    mean = posterior(model.masked(theta, torch.Generator().manual_seed(0)))[0].mean()
    decay = 0.0
    for i, (weight, bias) in enumerate(network.unpack(model.trained[:1])):
        before = weight if i == 0 else keep * (weight / keep)
        factor = 1.0 if i == 0 else keep / keep**2
        decay = decay + (factor * before.square().sum() + bias.square().sum()) / 8.0
    assert mean.item() == pytest.approx(-decay.item(), rel=2e-3)


def test_functions_of_one_mask_are_consistent_across_points(model):
    X = points(6)
    together = model.sample_functions(5, seed=0)(X)
    apart = torch.cat([model.sample_functions(5, seed=0)(x.unsqueeze(0)) for x in X], dim=1)
    torch.testing.assert_close(together, apart)
    assert (together.std(dim=0) > 0).all()


def test_a_warm_start_goes_on_from_the_weights(model):
    X, Y = measurements()
    entry = SURROGATES["mc_dropout"]
    warm = entry.build(
        X, Y, bounds=BOUNDS, config=model.config, seed=1, warm_start=model
    ).diagnostics.values
    assert warm["steps"] < model.diagnostics.values["steps"]
    assert warm["first_loss_per_member"] < model.diagnostics.values["first_loss_per_member"]
