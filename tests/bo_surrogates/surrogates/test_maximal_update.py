"""`mup`: training is torch's with the published rates, and what it learns keeps at any width."""

import math

import pytest
import torch

from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.maximal_update import MaximalUpdateConfig, MaximalUpdateEnsemble

from .conftest import BOUNDS, measurements, points

X, Y = measurements(n=20)


def build(**config):
    config = {"members": 4, "width": 64, "steps": 60, "scales": "fixed", "noise": "fixed"} | config
    return SURROGATES["mup"].build(X, Y, bounds=BOUNDS, config=config, seed=0)


def start(model: MaximalUpdateEnsemble) -> torch.Tensor:
    """First parameters of the members, as `fit` draws them."""
    generator = torch.Generator().manual_seed(derive_seed(model.seed, "ensemble"))
    prior = model._estimate_prior(model.network_inputs(model._inputs), generator)
    return model._start(prior, generator, None)[0] * model.prior_scales


def test_training_is_torchs_adam_with_the_rates_of_the_paper():
    """Table 3 of Yang et al. 2022: 1/m for what leaves hidden units, 1 for the rest."""
    model = build(
        width=64, base_width=16, prior_function=0.0, output_layer="trained", precision="double",
        steps=40, learning_rate=0.01, input_scale=1.3, weight_scale=1.7,
    )  # fmt: skip
    m, inputs = 4.0, model.network_inputs(X)
    unit = {"first": 1.3 / 2**0.5, "later": 1.7 / 16**0.5}
    for member, result in zip(start(model), model.weights, strict=True):
        layers = [
            torch.nn.Parameter(part.squeeze(0).clone())
            for layer in model.member.unpack(member.unsqueeze(0))
            for part in layer
        ]
        W1, b1, W2, b2, W3, b3 = layers
        groups = [
            {"params": [W1], "lr": 0.01 * unit["first"]},
            {"params": [b1, b2], "lr": 0.01},
            {"params": [W2, W3], "lr": 0.01 * unit["later"] / m},
            {"params": [b3], "lr": 0.01 * 1.7},
        ]
        optimizer = torch.optim.Adam(groups, eps=1e-12)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40)
        for _ in range(40):
            optimizer.zero_grad()
            h = torch.tanh(torch.tanh(inputs @ W1 + b1) @ W2 + b2)
            (h @ W3 + b3 - model._targets).square().sum().backward()
            optimizer.step()
            schedule.step()
        # Where a gradient is nearly zero Adam's next move is up to rounding: compared as a whole.
        found = model.member.unpack((result - member).unsqueeze(0))
        for i, move in enumerate(part.squeeze(0) for layer in found for part in layer):
            before = model.member.unpack(member.unsqueeze(0))[i // 2][i % 2].squeeze(0)
            expected = layers[i].detach().reshape(before.shape) - before
            assert (move - expected).norm() < 0.02 * expected.norm()


def test_functions_start_at_zero():
    model = build()
    inputs = model.network_inputs(points(5))
    assert (model.member.forward(start(model), inputs) == 0).all()


def test_output_layers_are_draws_from_their_exact_conditional():
    """The Gaussian process with covariance s^2 (h.h' / width + 1) given the hidden layers."""
    model = build(members=1, output_draws=4000, prior_function=0.0, noise_variance=0.03, width=32)
    Z = points(5)
    layers = model.network.unpack(model.weights)

    def features(inputs):
        h = model.network_inputs(inputs)
        for weight, bias in layers[:-1]:
            h = torch.tanh(h @ weight.squeeze(0) + bias.squeeze(0))
        return h

    h, h_new, s2 = features(X), features(Z), 2.0**2
    K = s2 * (h @ h.T / 32 + 1) + 0.03 * torch.eye(len(X))
    cross = s2 * (h_new @ h.T / 32 + 1)
    mean = cross @ torch.linalg.solve(K, model._targets)
    covariance = s2 * (h_new @ h_new.T / 32 + 1) - cross @ torch.linalg.solve(K, cross.T)
    values = model.function_values(model.network_inputs(Z)).squeeze(-1)
    deviation = covariance.diagonal().sqrt()
    # Six standard errors: once in 10^8 a comparison.
    assert ((values.mean(dim=0) - mean.squeeze(-1)).abs() < 6 * deviation / 4000**0.5).all()
    error = (values.T.cov() - covariance).abs()
    assert (error < 6 * deviation * deviation.unsqueeze(-1) * (2 / 4000) ** 0.5).all()


def feature_moves(width: int) -> float:
    """Root mean square move of the last hidden layer in training."""
    model = build(width=width, prior_function=0.0, output_layer="trained", steps=30)
    inputs = model.network_inputs(X).expand(4, -1, -1)
    moved = model.member.features(model.weights, inputs) - model.member.features(
        start(model), inputs
    )
    return moved.square().mean().sqrt().item()


def test_features_move_alike_at_all_widths():
    moves = [feature_moves(width) for width in (32, 128, 512)]
    assert max(moves) < 1.3 * min(moves)


def test_members_that_differ_by_their_starts_alone_agree_at_large_widths():
    """The limit is deterministic: deviations fall as the root of the width."""
    Z = points(30, seed=3)
    deviations = []
    for width in (32, 512):
        model = build(
            width=width, members=16, prior_function=0.0, output_layer="trained", steps=100
        )
        values = model.function_values(model.network_inputs(Z))
        deviations.append(values.var(dim=0).mean().sqrt().item())
    slope = math.log(deviations[1] / deviations[0]) / math.log(16)
    assert slope == pytest.approx(-0.5, abs=0.25)


def test_what_is_added_keeps_the_uncertainty_at_large_widths():
    Z = points(30, seed=3)
    variances = [
        build(width=width, members=12).posterior(Z).variance.mean().item() for width in (32, 256)
    ]
    assert 0.5 < variances[1] / variances[0] < 2.0


def test_a_warm_start_goes_on_from_the_hidden_layers():
    cold = build()
    warm = SURROGATES["mup"].build(X, Y, bounds=BOUNDS, config=cold.config, seed=1, warm_start=cold)
    assert warm.diagnostics.values["steps"] == 15
    assert (
        warm.diagnostics.values["first_loss_per_member"]
        < cold.diagnostics.values["first_loss_per_member"]
    )


def test_the_search_space_holds_what_transfers():
    names = {p.name for p in MaximalUpdateConfig.search_space().parameters}
    assert {"width", "steps", "learning_rate", "prior_function"} <= names
