"""Hypercomplex layers: Kronecker products, known algebras, sizes, merging, initial variances."""

import copy
import math
import pickle

import pytest
import torch
from scipy.linalg import subspace_angles
from torch import nn

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import fixed_seed
from problems.documented.cost import count_cost
from problems.documented.hypercomplex import (
    PHConfig,
    PHConv1d,
    PHConv2d,
    PHConv3d,
    PHLinear,
    factor_rules,
    kronecker_sum,
    merge_layers,
    train_algebras,
    unit_matrices,
)
from problems.documented.training import Hooks, Training, TrainingConfig

CONVOLUTIONS = {1: PHConv1d, 2: PHConv2d, 3: PHConv3d}


def hamilton(p, q):
    """The product of quaternions, the four components in the first dimension."""
    a, b, c, d = p
    e, f, g, h = q
    return torch.stack([
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ])  # fmt: skip


@pytest.fixture(autouse=True)
def seeded():
    with fixed_seed(0):
        yield


@pytest.mark.parametrize(("n", "terms"), [(1, 1), (2, 2), (3, 3), (4, 2), (6, 6)])
def test_the_weight_is_a_sum_of_kronecker_products(n, terms):
    layer = PHConv2d(12, 24, (3, 2), PHConfig(n, terms=terms))
    pairs = list(zip(layer.algebra, layer.filters, strict=True))
    for u in range(3):
        for v in range(2):
            expected = sum(torch.kron(a, f[..., u, v].contiguous()) for a, f in pairs)
            torch.testing.assert_close(layer.weight[..., u, v], expected, atol=1e-6, rtol=1e-5)


def test_fixed_quaternions_convolve_by_hamilton_s_product():
    layer = PHConv2d(8, 12, 3, PHConfig(4, "fixed"), padding=1, bias=False).double()
    x = torch.randn(2, 8, 5, 6, dtype=torch.float64)

    def conv(component, part):  # a real convolution of two components
        return nn.functional.conv2d(
            x.unflatten(1, (4, 2))[:, part], layer.filters[component], padding=1
        )

    products = [[conv(c, part) for part in range(4)] for c in range(4)]
    unit = torch.eye(4, dtype=torch.float64)
    expected = sum(
        products[c][part][:, None] * hamilton(unit[c], unit[part])[None, :, None, None, None]
        for c in range(4)
        for part in range(4)
    )
    torch.testing.assert_close(layer(x), expected.flatten(1, 2))


def test_the_norm_of_a_quaternion_product_is_the_product_of_norms():
    layer = PHLinear(4, 4, PHConfig(4, "fixed"), bias=False).double()
    p, q = torch.randn(2, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.filters.copy_(p.reshape(4, 1, 1))
    torch.testing.assert_close(layer(q), hamilton(p, q))
    torch.testing.assert_close(layer(q).norm(), p.norm() * q.norm())


def test_two_components_convolve_as_complex_numbers_do():
    layer = PHConv1d(6, 4, 3, PHConfig(2, "fixed"), stride=2, padding=1, bias=False).double()
    x = torch.randn(2, 6, 9, dtype=torch.float64)
    filters = torch.complex(*layer.filters)
    expected = nn.functional.conv1d(torch.complex(x[:, :3], x[:, 3:]), filters, None, 2, 1)
    torch.testing.assert_close(layer(x), torch.cat([expected.real, expected.imag], dim=1))


@pytest.mark.parametrize("dims", CONVOLUTIONS)
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_layer_has_about_one_nth_of_the_parameters_and_all_of_the_macs(dims, n):
    layer = CONVOLUTIONS[dims](8, 16, 3, n, padding=1)
    found = count_cost(layer, (8, *[4] * dims))
    assert found.parameters == n**3 + 8 * 16 * 3**dims // n + 16
    assert found.bits == 32 * found.parameters
    assert found.total_macs == 8 * 16 * 3**dims * 4**dims
    merged = count_cost(merge_layers(layer), (8, *[4] * dims))
    assert merged.parameters == 8 * 16 * 3**dims + 16
    assert (merged.macs, merged.bit_operations) == (found.macs, found.bit_operations)


def test_the_share_of_parameters_tends_to_one_nth():
    real = nn.Conv2d(64, 64, 3, bias=False).weight.numel()
    shares = [
        sum(p.numel() for p in PHConv2d(64, 64, 3, n, bias=False).parameters()) / real
        for n in (2, 4, 8)
    ]
    assert shares == pytest.approx([0.5002, 0.2517, 0.1389], abs=5e-5)


def test_a_fixed_algebra_is_neither_stored_nor_counted():
    fixed = PHLinear(16, 8, PHConfig(4, "fixed", terms=3, algebra_bits=4), bias=False)
    assert set(fixed.state_dict()) == {"filters"}
    found = count_cost(fixed, (16,))
    assert (found.parameters, found.bits) == (3 * 2 * 4, 32 * 3 * 2 * 4)


def test_quantized_factors_are_on_their_grids_and_counted_at_their_bits():
    layer = PHConv2d(8, 8, 3, PHConfig(4, algebra_bits=8, filter_bits=4), bias=False)
    for factor, bits in zip(layer.factors(), (8, 4), strict=True):
        for term in factor:
            steps = term / term.abs().max() * (2 ** (bits - 1) - 1)
            torch.testing.assert_close(steps, steps.round(), atol=1e-4, rtol=0)
    assert not torch.equal(layer.factors()[1], layer.filters)
    found = count_cost(layer, (8, 4, 4))
    assert found.bits == 8 * 64 + 4 * (8 * 8 * 9 // 4) + 32 * 4
    assert found.parameters == 64 + 8 * 8 * 9 // 4
    layer.weight.square().sum().backward()
    assert (layer.filters.grad != 0).float().mean() > 0.9  # straight through the rounding


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (lambda c: PHConv1d(8, 4, 3, c, padding="same", dilation=2), (8, 9)),
        (lambda c: PHConv2d(8, 4, (3, 1), c, stride=(2, 1), padding=(1, 0)), (8, 5, 4)),
        (lambda c: PHConv3d(8, 4, 2, c, bias=False), (8, 3, 3, 3)),
        (lambda c: PHLinear(8, 4, c), (8,)),
    ],
)
@pytest.mark.parametrize("config", [PHConfig(2), PHConfig(4, "fixed", filter_bits=4)])
def test_a_merged_layer_is_torch_s_with_identical_outputs(layer, shape, config):
    made = layer(config).eval()
    plain = made.merge()
    assert type(plain).__module__.startswith("torch.")
    x = torch.randn(3, *shape)
    with torch.no_grad():
        assert torch.equal(made(x), plain(x))
        assert torch.equal(made(x), made.train()(x))


def test_all_layers_of_a_network_are_merged_and_the_network_is_left_alone():
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Sequential(PHConv2d(8, 8, 3, 4), nn.ReLU()), PHConv2d(8, 4, 1, 2)
    ).eval()
    merged = merge_layers(network)
    assert {type(m) for m in merged.modules()} == {nn.Sequential, nn.Conv2d, nn.ReLU}
    assert not merged.training
    x = torch.randn(2, 1, 7, 7)
    with torch.no_grad():
        assert torch.equal(merged(x), network(x))
    assert isinstance(network[2], PHConv2d)


def test_the_weight_is_made_once_for_inference_and_again_when_a_factor_changes():
    layer = PHLinear(8, 8, 4).eval()
    with torch.no_grad():
        first = layer.weight
        assert layer.weight is first
        layer.filters.mul_(2)
        assert torch.equal(layer.weight, 2 * first)
        layer.load_state_dict(PHLinear(8, 8, 4).state_dict())
        assert torch.equal(layer.weight, kronecker_sum(layer.algebra, layer.filters))
        layer.filters = nn.Parameter(layer.filters * 3)
        assert torch.equal(layer.weight, kronecker_sum(layer.algebra, layer.filters))
        assert layer.double().weight.dtype == torch.float64
    assert layer.weight.requires_grad
    assert layer.train()._made is None


def test_copies_and_pickles_hold_the_factors_only_also_after_a_step():
    layer = PHConv2d(16, 16, 3, 4)
    layer(torch.randn(1, 16, 3, 3)).sum().backward()
    size = len(pickle.dumps(layer.eval()))
    with torch.no_grad():
        expected = layer.weight
    assert len(pickle.dumps(layer)) == size
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert other._made is None
        with torch.no_grad():
            assert torch.equal(other.weight, expected)


def test_gradients_are_the_contractions_with_the_blocks_of_the_weight_s():
    layer = PHLinear(6, 9, 3, bias=False)
    outer = torch.randn(9, 6)
    (layer.weight * outer).sum().backward()
    blocks = outer.unflatten(0, (3, 3)).unflatten(2, (3, 2))  # p, o, q, c
    torch.testing.assert_close(
        layer.algebra.grad, torch.einsum("poqc,ioc->ipq", blocks, layer.filters.detach())
    )
    torch.testing.assert_close(
        layer.filters.grad, torch.einsum("poqc,ipq->ioc", blocks, layer.algebra.detach())
    )


def test_initial_variances_are_he_s_or_the_authors_fraction_of_it():
    he = 2 / (16 * 9)
    cases = {
        PHConfig(4): he,
        PHConfig(8): he,
        PHConfig(4, gain=0.5): he / 4,
        PHConfig(4, terms=3): he,
        PHConfig(4, "fixed"): he,
        PHConfig(4, "freed", terms=2): he,
        PHConfig(4, init="xavier"): he * 4 / (16 + 16),
        PHConfig(8, init="xavier"): he * 8 / (16 + 64),
    }
    for config, expected in cases.items():
        draws = [PHConv2d(16, 16, 3, config).weight.detach().square().mean() for _ in range(120)]
        # The squares of the entries of A decide: relative variance 2 / 48 at most, and less of F's.
        assert torch.stack(draws).mean().item() == pytest.approx(expected, rel=0.1)


def quaternions(count):
    return torch.randn(count, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def fitted(algebra, filters, inputs, numbers, free):
    """A and F fitted by L-BFGS to (q, h q), and the mean squared error."""
    targets = hamilton(numbers.T[:, :, None], inputs.T[:, None, :])
    optimizer = torch.optim.LBFGS(
        free, max_iter=2000, tolerance_grad=1e-12, tolerance_change=1e-16,
        history_size=50, line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss():
        weights = torch.stack([kronecker_sum(algebra, f.reshape(4, 1, 1)) for f in filters])
        return (torch.einsum("kpq,mq->pkm", weights, inputs) - targets).square().mean()

    def closure():
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    optimizer.step(closure)
    return loss().item()


def test_hamilton_s_product_is_learnt_from_pairs():
    draw = torch.Generator().manual_seed(5)
    inputs, numbers = quaternions(40)[:32], quaternions(40)[32:]
    basis = unit_matrices(4).double()
    algebra = (0.5 * torch.randn(4, 4, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    filters = torch.randn(8, 4, generator=draw, dtype=torch.float64).requires_grad_()
    assert fitted(algebra, filters, inputs, numbers, [algebra, filters]) < 1e-10
    found = algebra.detach().reshape(4, 16).T.numpy()
    assert math.cos(subspace_angles(found, basis.reshape(4, 16).T.numpy()).max()) > 1 - 1e-5
    # With the filters known, the matrices themselves.
    algebra = (0.5 * torch.randn(4, 4, 4, generator=draw, dtype=torch.float64)).requires_grad_()
    assert fitted(algebra, numbers, inputs, numbers, [algebra]) < 1e-10
    torch.testing.assert_close(algebra.detach(), basis, atol=1e-5, rtol=0)


def trained(config, rules=None, before_step=None, epochs=2):
    network = nn.Sequential(PHLinear(4, 8, config), nn.ReLU(), nn.Linear(8, 2))
    before = copy.deepcopy(network[0])
    x = torch.randn(40, 4)
    recipe = TrainingConfig(
        epochs=epochs, batch_size=10, optimizer="sgd", learning_rate=0.1, schedule="constant"
    )
    hooks = Hooks(rules=rules, before_step=before_step)
    training = Training(network, x, (x[:, 0] > 0).long(), recipe, 0, hooks)
    for _ in range(epochs):
        training.run_epoch()
    return before, network[0]


def test_a_fixed_algebra_stays_and_a_freed_one_leaves_when_it_is_told_to():
    before, after = trained(PHConfig(4, "fixed"))
    assert torch.equal(before.algebra, after.algebra)
    assert not torch.equal(before.filters, after.filters)
    seen = []

    def free(network, moment):
        train_algebras(network, moment.progress >= 0.5)
        seen.append(torch.equal(network[0].algebra, unit_matrices(4)))

    trained(PHConfig(4, "freed"), before_step=free)
    assert seen == [True] * 5 + [False] * 3  # 8 steps; the fifth is the first that changes it


def test_factors_have_rates_and_decays_of_their_own():
    config = PHConfig(2)
    before, after = trained(config, factor_rules(rate=0.0))
    assert torch.equal(before.algebra, after.algebra)
    assert not torch.equal(before.filters, after.filters)
    with fixed_seed(1):
        _, free = trained(config, factor_rules())
    with fixed_seed(1):
        _, algebra = trained(config, factor_rules(algebra_decay=1.0))
    with fixed_seed(1):
        _, filters = trained(config, factor_rules(filter_decay=1.0))
    assert algebra.algebra.norm() < 0.7 * free.algebra.norm()
    assert filters.filters.norm() < 0.7 * free.filters.norm()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PHConv2d(3, 8, 3, 4), "n = 4 does not divide in_channels = 3"),
        (lambda: PHConv1d(8, 6, 3, 4), "n = 4 does not divide out_channels = 6"),
        (lambda: PHLinear(8, 7, 2), "n = 2 does not divide out_features = 7"),
        (lambda: PHConv2d(8, 8, (3, 3, 3), 4), "kernel_size must hold 2 numbers"),
        (lambda: PHConfig(4, terms=5), "terms must be at most n = 4, got 5"),
        (lambda: PHConfig(3, "fixed"), "n = 3: there is no algebra to fix"),
        (lambda: PHConfig(4, filter_bits=1), "filter_bits"),
    ],
)
def test_what_cannot_be_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message):
        make()
