from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, Normal
from torch.distributions.kl import kl_divergence as torch_kl
from torch.nn import functional

from bo_surrogates.errors import InputError
from bo_surrogates.inference.pruning_criteria import importance
from bo_surrogates.inference.ssvi import (
    Budget,
    Group,
    Replacement,
    State,
    begin,
    gradient_step,
    growth_gradient,
    init,
    kl_divergence,
    negative_bound,
    replace,
    sparse_scales,
    train,
    uniform_groups,
)
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.local_reparameterization import SMALLEST_VARIANCE, sampled_forward

NETWORK = BatchedMLP(3, 2, width=8, depth=2, activation="tanh")
GROUPS = uniform_groups(NETWORK, 0.25)
SCALES = sparse_scales(NETWORK, NETWORK.scales(1.5, 1.5), GROUPS)
X = torch.randn(20, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Y = torch.stack([X[:, 0].sin(), X[:, 1] * X[:, 2]], dim=-1)


def start(members: int = 3, groups: tuple[Group, ...] = GROUPS, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    mean = NETWORK.draw(members, NETWORK.scales(), generator)
    return init(mean, 0.05 * SCALES, groups, generator)


def noisy_loss(seed: int = 1) -> object:
    generator = torch.Generator().manual_seed(seed)

    def loss(mean: Tensor, std: Tensor) -> Tensor:
        f = sampled_forward(NETWORK, mean, std, X, generator)
        return 0.5 * (Y - f).square().sum() / 0.01

    return loss


# ---- the bound -----------------------------------------------------------------------------------
def test_the_divergence_equals_that_of_torch_over_active_weights() -> None:
    state = start()
    expected = torch.stack(
        [
            torch_kl(
                Normal(state.mean[k][active], state.std[k][active]),
                Normal(torch.zeros(()).double(), SCALES[active]),
            ).sum()
            for k, active in enumerate(state.mask)
        ]
    )
    torch.testing.assert_close(kl_divergence(state, SCALES), expected)


def regression() -> tuple[Tensor, Tensor, Tensor]:
    """A: `30 x 6`, correlated columns; y: `30`; prior scales `6`."""
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(30, 6, generator=generator, dtype=torch.float64)
    A[:, 1] += 0.7 * A[:, 0]
    y = A @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0, 1.5]).double()
    y = y + 0.5 * torch.randn(30, generator=generator, dtype=torch.float64)
    return A, y, torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 2.0]).double()


def linear_loss(A: Tensor, y: Tensor, v: float) -> object:
    """E_q |y - A theta|^2 / (2 v), in closed form."""

    def loss(mean: Tensor, std: Tensor) -> Tensor:
        squares = (y - mean @ A.T).square().sum() + (std.square() @ A.square().T).sum()
        return 0.5 * squares / v

    return loss


def test_with_all_weights_active_it_is_mean_field_inference() -> None:
    # Linear regression has a Gaussian posterior of precision L; the best q with independent
    # weights has its mean, and variances 1 / L_ii.
    A, y, scales = regression()
    L = A.T @ A / 0.25 + torch.diag(scales.pow(-2))
    group = (Group(0, 6, 6),)
    first = init(torch.zeros(2, 6).double(), 0.1 * scales, group, torch.Generator())
    result = train(linear_loss(A, y, 0.25), first, scales, group, Budget(800, 0.1, 0.1))
    mean = torch.linalg.solve(L, A.T @ y / 0.25)
    torch.testing.assert_close(result.state.mean, mean.expand(2, -1), rtol=1e-4, atol=1e-5)
    std = L.diagonal().rsqrt().expand(2, -1)
    torch.testing.assert_close(result.state.std, std, rtol=1e-4, atol=0)
    assert result.replaced == 0
    # The bound is below the evidence, by the divergence of the best q from the posterior.
    constant = 15 * math.log(2 * math.pi * 0.25)
    C = A @ torch.diag(scales.square()) @ A.T + 0.25 * torch.eye(30).double()
    evidence = MultivariateNormal(torch.zeros(30).double(), C).log_prob(y).item()
    gap = 0.5 * (L.diagonal().log().sum() - torch.logdet(L)).item()
    assert -(result.last / 2 + constant) == pytest.approx(evidence - gap, abs=1e-4)


def test_a_step_equals_one_of_torch_on_the_bound_written_out() -> None:
    # Mean-field inference, all weights active: torch's Adam, distributions and linear layers.
    groups = uniform_groups(NETWORK, 1.0)
    state, budget = start(groups=groups), Budget(30, 0.02, 0.01, kl_weight=0.7)
    training, loss = begin(state), noisy_loss()
    for step in range(15):
        gradient_step(training, loss, SCALES, step, budget)

    mean, raw = state.mean.clone().requires_grad_(), state.raw.clone().requires_grad_()
    adam = torch.optim.Adam([{"params": [mean], "lr": 0.02}, {"params": [raw], "lr": 0.01}])
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, T_max=30)
    generator = torch.Generator().manual_seed(1)
    for step in range(15):
        noise = torch.randn(3, 20, 18, generator=generator, dtype=torch.float64)
        value = torch.zeros(()).double()
        for k in range(3):
            h, at = X, 0
            for layer, (m, s) in enumerate(
                zip(
                    NETWORK.unpack(mean[k : k + 1]),
                    NETWORK.unpack(functional.softplus(raw[k : k + 1])),
                    strict=True,
                )
            ):
                h = h if layer == 0 else h.tanh()
                variance = h.square() @ s.weight[0].square() + s.bias[0].square()
                width = m.bias.shape[-1]
                h = (
                    functional.linear(h, m.weight[0].T, m.bias[0, 0])
                    + (variance + SMALLEST_VARIANCE).sqrt() * noise[k, :, at : at + width]
                )
                at += width
            value = value - Normal(h, 0.1).log_prob(Y).sum()
            q = Normal(mean[k], functional.softplus(raw[k]))
            beta = 0.7 * min(2 * step / 30, 1)
            value = value + beta * torch_kl(q, Normal(0.0, SCALES)).sum()
        adam.zero_grad()
        value.backward()
        adam.step()
        cosine.step()
    torch.testing.assert_close(training.theta[0], mean.detach(), rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(training.theta[1], raw.detach(), rtol=1e-6, atol=1e-9)


# ---- the active sets -----------------------------------------------------------------------------
def test_of_orthogonal_features_the_most_useful_are_found() -> None:
    generator = torch.Generator().manual_seed(0)
    Q, _ = torch.linalg.qr(torch.randn(60, 40, generator=generator, dtype=torch.float64))
    truth = torch.zeros(40).double()
    truth[[3, 11, 17, 29, 38]] = torch.tensor([2.0, -1.5, 1.2, -2.5, 1.0]).double()
    y = Q @ truth + 0.01 * torch.randn(60, generator=generator, dtype=torch.float64)
    useful = truth != 0
    # One more than is needed: a change always gives up a weight, and it had better be the spare.
    group, scales = (Group(0, 40, 6),), torch.ones(40).double()
    first = init(torch.zeros(4, 40).double(), 0.05 * scales, group, generator)
    assert not first.mask[:, useful].all(dim=-1).any()
    loss, changes = linear_loss(Q, y, 0.01), Replacement(interval=20, fraction=0.9)
    result = train(loss, first, scales, group, Budget(800, 0.05, 0.05, replacement=changes))
    assert result.state.mask[:, useful].all()
    # Orthogonal features do not share: each has the mean it would have by itself.
    mean = (Q.T @ y) * 100 / 101 * result.state.mask
    torch.testing.assert_close(result.state.mean, mean, rtol=1e-3, atol=1e-4)
    static = Replacement(fraction=0.0)
    kept = train(loss, first, scales, group, Budget(20, 0.05, 0.05, replacement=static))
    assert torch.equal(kept.state.mask, first.mask)
    assert kept.replaced == 0 < result.replaced


def test_invariants_hold_at_every_step() -> None:
    training, loss = begin(start()), noisy_loss()
    budget = Budget(60, 0.02, 0.02, replacement=Replacement(interval=5, fraction=0.5))
    changes = 0
    for step in range(60):
        if budget.replacement.is_due(step, 60):
            gradient = growth_gradient(training.state, loss, budget.replacement)
            counts = [budget.replacement.count(step, 60, g.active) for g in GROUPS]
            old = training.mask.clone()
            entered = replace(training, gradient, GROUPS, counts)
            assert entered == int((training.mask & ~old).sum())
            changes += entered
            moved = training.mask != old
            for tensor in (*training.first, *training.second, training.first_bias):
                assert not tensor[moved].any()
            assert not training.second_bias[moved].any()
        before = training.theta.clone()
        gradient_step(training, loss, SCALES, step, budget)
        inactive = ~training.mask
        assert torch.equal(before[:, inactive], training.theta[:, inactive])
        assert not training.theta[0][inactive].any()
        assert not training.state.std[inactive].any()
        for group in GROUPS:
            active = training.mask[:, group.start : group.stop].sum(dim=-1)
            assert (active == group.active).all()
        outside = torch.ones(NETWORK.num_parameters).bool()
        for group in GROUPS:
            outside[group.start : group.stop] = False
        assert training.mask[:, outside].all()  # biases
    assert changes > 20
    theta = training.state.draw(7, torch.Generator())
    assert not theta[~training.mask[torch.arange(7) % 3]].any()


@pytest.mark.parametrize("criterion", ["snr_abs", "mean", "snr_exp"])
def test_a_change_drops_the_least_important_and_takes_in_the_largest_gradients(
    criterion: str,
) -> None:
    generator = torch.Generator().manual_seed(3)
    state = start()
    raw = state.raw + torch.rand(state.raw.shape, generator=generator).double()
    state = State(state.mean, raw, state.mask)
    gradient = torch.randn(state.mean.shape, generator=generator, dtype=torch.float64)
    training = begin(state)
    for moments in training[2:]:
        moments.fill_(0.5)
    counts = [2, 5, 1]
    entered = replace(training, gradient, GROUPS, counts, criterion, rate=0.5)
    assert GROUPS[0].active == GROUPS[0].size  # dense: its count is not used
    total = 0
    for group, count in list(zip(GROUPS, counts, strict=True))[1:]:
        for k in range(3):
            inside = range(group.start, group.stop)
            old = [i for i in inside if state.mask[k, i]]
            scores = {
                i: importance(criterion, state.mean[k, i], state.std[k, i], 0.5).item() for i in old
            }
            kept = sorted(old, key=lambda i: scores[i])[count:]
            candidates = [i for i in inside if i not in kept]
            chosen = sorted(candidates, key=lambda i: abs(gradient[k, i].item()))[-count:]
            assert training.mask[k, group.start : group.stop].nonzero().flatten().add(
                group.start
            ).tolist() == sorted(kept + chosen)
            level = sum(raw[k, i].item() for i in old) / len(old)
            for i in chosen:
                returned = i in old
                expected = state.mean[k, i].item() if returned else 0.0
                assert training.theta[0, k, i].item() == expected
                assert training.theta[1, k, i].item() == pytest.approx(
                    raw[k, i].item() if returned else level
                )
                assert training.first_bias[k, i].item() == (0.5 if returned else 0.0)
                total += not returned
    assert entered == total


def test_the_growth_gradient_is_dense_and_without_the_divergence() -> None:
    A, y, scales = regression()
    group = (Group(0, 6, 2),)
    state = init(scales.expand(3, -1), 0.1 * scales, group, torch.Generator().manual_seed(0))
    expected = -(y - state.mean @ A.T) @ A / 0.25
    for growth in ("sampled", "mean"):
        how = Replacement(growth=growth, growth_samples=3)
        gradient = growth_gradient(state, linear_loss(A, y, 0.25), how)
        torch.testing.assert_close(gradient, expected)
    # Sampled, it estimates the gradient at the mean network plus the effect of the spread.
    single = growth_gradient(start(), noisy_loss(), Replacement())
    average = growth_gradient(start(), noisy_loss(), Replacement(growth_samples=400))
    more = growth_gradient(start(), noisy_loss(seed=2), Replacement(growth_samples=400))
    assert (average - more).norm() < 0.3 * (single - average).norm()


def test_the_number_replaced_falls_along_a_cosine_to_zero() -> None:
    changes = Replacement(interval=10, fraction=0.4, until=0.5)
    for step in range(200):
        expected = 0.2 * (1 + math.cos(math.pi * step / 100)) * 1000 if step < 100 else 0
        assert changes.count(step, 200, 1000) == pytest.approx(math.floor(expected), abs=0)
    due = [step for step in range(200) if changes.is_due(step, 200)]
    assert due == list(range(10, 100, 10))
    assert not any(Replacement(fraction=0.0).is_due(step, 200) for step in range(200))


def test_first_steps_of_a_new_weight_are_no_longer_than_the_learning_rate() -> None:
    # Adam's first step is the rate times the gradient's sign; so it is for a latecomer.
    training, loss = begin(start()), noisy_loss()
    budget = Budget(10**9, 0.01, 0.01)
    for step in range(30):
        gradient_step(training, loss, SCALES, step, budget)
    old = training.mask.clone()
    replace(training, growth_gradient(training.state, loss, Replacement()), GROUPS, [0, 8, 2])
    new, before = training.mask & ~old, training.theta.clone()
    assert new.any()
    gradient_step(training, loss, SCALES, 30, budget)
    step = (training.theta - before)[0][new].abs()
    moved = step > 0  # not if all ways to the output went in the same change
    assert moved.double().mean() > 0.5
    torch.testing.assert_close(step[moved], torch.full_like(step[moved], 0.01), rtol=1e-3, atol=0)


# ---- parameters without uncertainty ------------------------------------------------------------
def test_a_parameter_without_uncertainty_is_a_point_estimate() -> None:
    A, y, scales = regression()
    group = (Group(0, 6, 6),)
    std = 0.1 * scales
    std[2] = 0.0
    first = init(torch.zeros(1, 6).double(), std, group, torch.Generator())
    result = train(linear_loss(A, y, 0.25), first, scales, group, Budget(800, 0.1, 0.1))
    precision = A.T @ A / 0.25 + torch.diag(scales.pow(-2))
    precision[2, 2] -= scales[2] ** -2  # no prior
    mean = torch.linalg.solve(precision, A.T @ y / 0.25)
    torch.testing.assert_close(result.state.mean[0], mean, rtol=1e-4, atol=1e-5)
    assert result.state.std[0, 2] == 0
    assert torch.isfinite(torch.tensor(result.last))


# ---- layout ------------------------------------------------------------------------------------
def test_groups_are_the_weight_matrices_of_a_network() -> None:
    assert list(GROUPS) == [Group(0, 24, 24), Group(32, 96, 16), Group(104, 120, 4)]
    sparse_first = uniform_groups(NETWORK, 0.25, dense_first=False)
    assert sparse_first[0] == Group(0, 24, 6)
    assert uniform_groups(NETWORK, 1e-3)[2].active == 1
    mask = start().mask
    for group, layer in zip(GROUPS, NETWORK.unpack(mask.double()), strict=True):
        assert (layer.weight.sum(dim=(-2, -1)) == group.active).all()
        assert layer.bias.all()


def test_sparse_priors_keep_the_variance_of_a_unit() -> None:
    # Averaged over active sets and weights, the second moment of a sum into a unit.
    dense = NETWORK.scales(1.5, 1.5)
    generator = torch.Generator().manual_seed(0)
    masks = init(torch.zeros(20_000, len(dense)), torch.ones(()), GROUPS, generator).mask
    group = GROUPS[1]
    sums = (
        (masks[:, group.start : group.stop] * SCALES[group.start : group.stop].square())
        .unflatten(-1, (8, 8))
        .sum(dim=1)
    )
    # The number of active inputs of a unit has mean 2 and variance below 1.5.
    assert sums.mean(dim=0).allclose(torch.tensor(1.5**2).double(), rtol=6 * 0.62 / 20_000**0.5)


@pytest.mark.parametrize("density", [0.0, -0.1, 1.5, math.nan])
def test_a_density_out_of_range_is_refused(density: float) -> None:
    with pytest.raises(InputError, match="density must be in"):
        uniform_groups(NETWORK, density)


@pytest.mark.parametrize("group", [Group(0, 9, 2), Group(0, 4, 5), Group(0, 4, 0)])
def test_a_group_that_does_not_fit_is_refused(group: Group) -> None:
    with pytest.raises(InputError, match="of them active"):
        init(torch.zeros(2, 8), torch.ones(8), (group,), torch.Generator())


def test_the_start_is_left_alone_and_randomness_is_the_callers() -> None:
    first = start()
    copies = [tensor.clone() for tensor in first]
    budget = Budget(12, 0.02, 0.02, replacement=Replacement(interval=4))
    results = [train(noisy_loss(), first, SCALES, GROUPS, budget) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))
    assert torch.equal(results[0].state.mean, results[1].state.mean)
    assert results[0].last < results[0].first
    bound = negative_bound(first, noisy_loss(), SCALES)
    assert bound.item() == pytest.approx(results[0].first)
