"""What is particular to `ssvi`; the rest is the contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.distributions.kl import kl_divergence as torch_kl

from bo_surrogates.surrogates import SURROGATES
from bo_surrogates.surrogates.ssvi import MIN_NOISE_VARIANCE, SparseSubspaceNetwork, SSVIConfig

from .conftest import BOUNDS, measurements, points

SMALL: dict[str, Any] = {"width": 16, "members": 4, "steps": 200, "draws": 40, "density": 0.1}


def fit(
    X: Tensor, Y: Tensor, Yvar: Tensor | None = None, warm_start: Any = None, **config: Any
) -> SparseSubspaceNetwork:
    model = SURROGATES["ssvi"].build(
        X, Y, Yvar, bounds=BOUNDS, config=SMALL | config, seed=0, warm_start=warm_start
    )
    assert isinstance(model, SparseSubspaceNetwork)
    return model


@pytest.fixture(scope="module")
def model() -> SparseSubspaceNetwork:
    return fit(*measurements(m=2))


def test_every_function_is_a_sparse_network_of_its_member(model: SparseSubspaceNetwork) -> None:
    active = [group.active for group in model.groups]
    assert active == [32, 26, 3]  # 2 x 16 all, 10 % of 16 x 16 and of 16 x 2
    for layer, wanted in zip(model.network.unpack(model.weights), active, strict=True):
        assert ((layer.weight != 0).sum(dim=(-2, -1)) == wanted).all()
        assert (layer.bias != 0).all()
    members = torch.arange(40) % 4
    assert torch.equal(model.weights != 0, model.mask[members])
    assert len(model.weights.unique(dim=0)) == 40
    values = model.diagnostics.values
    assert values["active_parameters"] == 32 + 26 + 3 + 16 + 16 + 2
    assert values["replaced"] > 0


def test_functions_are_draws_from_the_members_gaussians() -> None:
    X, Y = measurements()
    model = fit(X, Y, draws=4000)
    draws = model.weights.unflatten(0, (1000, 4))
    std = torch.nn.functional.softplus(model.raw) * model.mask
    error = (draws.mean(dim=0) - model.mean).abs()
    assert (error <= 6.5 * std / 1000**0.5).all()
    # A sample variance of 1000 normal numbers has a relative standard deviation of 0.045.
    variance = draws.var(dim=0)[model.mask] / std[model.mask].square()
    assert (variance - 1).abs().max() < 6.5 * (2 / 999) ** 0.5


def test_the_divergence_reported_is_that_of_torch(model: SparseSubspaceNetwork) -> None:
    scales = model.prior_scales.double()
    total = torch.zeros(()).double()
    for mean, raw, mask in zip(model.mean, model.raw, model.mask, strict=True):
        q = Normal(mean[mask], torch.nn.functional.softplus(raw[mask]))
        total += torch_kl(q, Normal(0.0, scales[mask])).sum()
    reported = model.diagnostics.values["divergence_per_member"]
    assert reported == pytest.approx(total.item() / 4, rel=1e-4)


def test_without_replacement_active_sets_are_those_of_the_start() -> None:
    X, Y = measurements()
    static = [fit(X, y, replaced=0.0) for y in (Y, Y.flip(0))]
    assert torch.equal(static[0].mask, static[1].mask)
    assert static[0].diagnostics.values["replaced"] == 0
    assert not torch.equal(fit(X, Y).mask, static[0].mask)


def test_at_density_one_nothing_is_sparse_and_settings_of_the_sets_have_no_effect() -> None:
    X, Y = measurements()
    dense = fit(X, Y, density=1.0, steps=100)
    assert dense.mask.all()
    assert dense.diagnostics.values["density"] == 1
    other = fit(X, Y, density=1.0, steps=100, replaced=0.0, criterion="mean", interval=10)
    # The gradients at changes drew noise: other noise, the same posterior. Compared where it is
    # equal, before the first change.
    assert not torch.equal(dense.mean, other.mean)
    late = fit(X, Y, density=1.0, steps=100, replaced=0.3, interval=1000)
    assert torch.equal(late.mean, other.mean)


@pytest.mark.parametrize("criterion", ["mean", "snr", "e_abs", "e_exp", "snr_exp"])
def test_every_criterion_and_both_gradients_fit_the_data(criterion: str) -> None:
    X, Y = measurements(20)
    growth = "mean" if criterion in ("mean", "snr") else "sampled"
    model = fit(X, Y, criterion=criterion, growth=growth, growth_samples=2, density=0.3)
    assert model.diagnostics.converged
    assert (model.posterior(X).mean - Y).std() < 0.5 * Y.std()


def test_first_layers_can_be_sparse_too() -> None:
    X, Y = measurements()
    model = fit(X, Y, dense_first=False, density=0.25, steps=10)
    first = model.network.unpack(model.weights)[0].weight
    assert ((first != 0).sum(dim=(-2, -1)) == 8).all()


# ---- noise ---------------------------------------------------------------------------------------
def test_fixed_and_known_noise_are_what_was_given() -> None:
    X, Y = measurements(m=2)
    short = {"steps": 5}
    fixed = fit(X, Y, noise="fixed", noise_variance=0.25, **short)
    torch.testing.assert_close(
        fixed.posterior(X, observation_noise=True).noise_variance,
        (0.25 * Y.var(dim=0)).expand(40, len(X), 2), rtol=1e-6, atol=0,
    )  # fmt: skip
    Yvar = Y.square() + 0.1
    known = fit(X, Y, Yvar, **short).posterior(X, observation_noise=True)
    torch.testing.assert_close(
        known.noise_variance, Yvar.mean(dim=0).expand(40, len(X), 2), rtol=1e-6, atol=0
    )
    exact = fit(X, Y, torch.zeros_like(Y), **short)
    torch.testing.assert_close(
        exact.noise_variance, torch.full((40, 2), MIN_NOISE_VARIANCE).double()
    )


def test_points_with_less_noise_count_for_more() -> None:
    X, Y = measurements(24)
    Yvar = torch.full_like(Y, 1e-2)
    Y = torch.cat([Y, Y + 5.0])
    Yvar = torch.cat([Yvar, 1e4 * Yvar])
    model = fit(torch.cat([X, X]), Y, Yvar, density=0.5)
    residual = (model.posterior(X).mean - Y[:24]).mean().abs()
    assert residual < 0.5  # 2.5 if all counted the same


def test_inferred_noise_is_about_that_of_noisy_outcomes() -> None:
    X, Y = measurements(60)
    noise = torch.randn(60, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    learnt = [
        fit(X, Y + sd * noise, steps=5).posterior(X[:1], observation_noise=True).noise_variance
        for sd in (0.0, 1.0)
    ]
    assert learnt[0].mean() < 0.1
    assert 0.4 < learnt[1].mean() < 2.0


# ---- training ------------------------------------------------------------------------------------
def test_a_warm_start_takes_a_quarter_of_the_steps_and_ends_near_by() -> None:
    X, Y = measurements()
    old = fit(X, Y)
    new = fit(X, Y, warm_start=old)
    assert new.diagnostics.values["steps"] == old.diagnostics.values["steps"] / 4
    assert new.diagnostics.converged
    first = new.diagnostics.values["first_negative_bound_per_member"]
    assert first < 0.5 * old.diagnostics.values["first_negative_bound_per_member"]
    spread = old.posterior(points(20)).variance.sqrt()
    difference = (new.posterior(points(20)).mean - old.posterior(points(20)).mean) / spread
    assert difference.square().mean().sqrt() < 1.0


def test_a_warm_start_of_another_shape_is_a_cold_start() -> None:
    X, Y = measurements()
    short = {"steps": 20}
    cold = fit(X, Y, **short)
    for change in ({"width": 8}, {"density": 0.3}, {"activation": "tanh"}, {"members": 2}):
        other = fit(X, Y, **short | change)
        assert torch.equal(fit(X, Y, warm_start=other, **short).weights, cold.weights)


def test_a_bound_that_rose_is_reported() -> None:
    X, Y = measurements()
    good = fit(X, Y)
    with pytest.warns(match="bound rose"):
        model = fit(X, Y, learning_rate=1.0, raw_learning_rate=1.0, steps=4, warm_start=good)
    assert not model.diagnostics.converged
    assert "learning rates" in model.diagnostics.message


def test_the_heavier_the_divergence_weighs_the_smaller_it_is() -> None:
    X, Y = measurements()
    divergences = [
        fit(X, Y, kl_weight=beta).diagnostics.values["divergence_per_member"]
        for beta in (0.0, 0.3, 10.0)
    ]
    assert divergences[0] > 1.2 * divergences[1] > 1.2**2 * divergences[2]


def test_the_default_configuration_can_be_searched_and_written() -> None:
    config = SSVIConfig()
    assert SSVIConfig.from_dict(config.to_dict()) == config
    space = SSVIConfig.search_space()
    assert set(space.names) == set(SSVIConfig._searched or ())
    assert space.validate({name: getattr(config, name) for name in space.names})
