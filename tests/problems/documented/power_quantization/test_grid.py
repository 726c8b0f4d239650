"""The power grid, its quantizer, and PowerQuant's search."""

import pytest
import torch

from bo_surrogates.errors import InputError
from problems.documented.power_quantization import (
    PowerQuantizer,
    decode,
    encode,
    levels,
    search_exponent,
    weight_error,
)
from problems.documented.power_quantization.grid import bounds, spread

EXPONENTS = (0.2, 0.35, 0.5, 0.77, 1.0, 1.2, 1.5)


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("bits", range(2, 9))
def test_with_exponent_1_it_is_the_uniform_symmetric_quantizer_bit_for_bit(bits):
    w = normal(16, 50, dtype=torch.float32)
    bound = w.abs().amax(dim=1, keepdim=True)
    q = 2 ** (bits - 1) - 1
    codes = torch.round(q * (w / bound)).clamp(-q, q)
    assert torch.equal(encode(w, bounds(w), 1.0, levels(bits)), codes)
    assert torch.equal(decode(codes, bounds(w), 1.0, levels(bits)), bound * (codes / q))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_grid_points_are_fixed_points(bits, exponent, dtype):
    q = levels(bits)
    codes = torch.arange(-q, q + 1, dtype=dtype)
    points = decode(codes, 3.7, exponent, q)
    assert torch.equal(encode(points, 3.7, exponent, q), codes)
    first = encode(normal(1000, dtype=dtype), 2.0, exponent, q)
    once = decode(first, 2.0, exponent, q)
    assert torch.equal(encode(once, 2.0, exponent, q), first)
    torch.testing.assert_close(points, -points.flip(0), rtol=1e-6, atol=0)
    assert (points.diff() > 0).all()


def test_a_small_exponent_is_finer_near_zero():
    steps = decode(torch.arange(0, 8), 1.0, 0.5, 7).diff()
    assert (steps.diff() > 0).all()


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("tensor", (1, 1)), ("channel", (5, 1)), ("group16", (5, 3)), ("group32", (5, 2))],
)
def test_every_bound_is_the_largest_magnitude_of_its_part(granularity, shape):
    w = normal(5, 40)
    bound = bounds(w, granularity)
    assert bound.shape == shape
    share = w.abs() / spread(bound, 40, granularity)
    assert share.max() == 1
    assert (share == 1).sum() == bound.numel()
    assert torch.equal(bounds(w, granularity, 0.6), 0.6 * bound)


def test_what_is_clipped_gets_the_largest_code():
    w = torch.tensor([[-2.0, 0.1, 1.5, 3.0]])
    assert encode(w, bounds(w, "channel", 0.4), 0.7, 7).tolist()[0][2:] == [7.0, 7.0]
    assert encode(w, bounds(w, "channel", 0.4), 0.7, 7)[0, 0] == -7


@pytest.mark.parametrize("bits", [3, 4, 6, 8])
def test_heavier_tails_want_smaller_exponents_and_no_search_loses_to_uniform(bits):
    n = 20_000
    g, u = normal(n, seed=1), torch.rand(n, generator=torch.Generator().manual_seed(2)).double()
    chi2 = normal(3, n, seed=3).square().sum(dim=0)
    samples = {
        "t3": g / (chi2 / 3).sqrt(),
        "laplace": (u - 0.5).sign() * -torch.log(1 - 2 * (u - 0.5).abs()).clamp(-1e9, 40.0),
        "gaussian": g,
        "uniform": 2 * u - 1,
    }
    found = {}
    for name, sample in samples.items():
        w = sample[None]
        found[name] = search_exponent([w], bits, granularity="tensor")
        best = weight_error(w, found[name], bits, granularity="tensor")
        assert best <= weight_error(w, 1.0, bits, granularity="tensor")
    assert found["t3"] < found["laplace"] < found["gaussian"] < found["uniform"]
    # Rounding of numbers that are evenly spread is best with even steps.
    assert found["uniform"] == pytest.approx(1.0, abs=0.06)


def test_a_common_exponent_lies_between_those_of_its_layers():
    light = 2 * torch.rand(1, 5000, generator=torch.Generator().manual_seed(0)) - 1
    heavy = normal(1, 5000, seed=4, dtype=torch.float32).pow(3) / 100
    a, b = (search_exponent([w], 4, granularity="tensor") for w in (light, heavy))
    both = search_exponent([light, heavy], 4, granularity="tensor")
    assert b <= both <= a


def test_the_norm_decides_what_an_exponent_is_best_for():
    w = normal(1, 20_000)
    found = [search_exponent([w], 4, granularity="tensor", p=p) for p in (1.0, 2.0, 4.0)]
    assert found == sorted(found)  # the larger p, the more the largest errors count
    assert found[0] < found[2]


def test_a_quantizer_of_activations_knows_their_sign():
    x = normal(200, dtype=torch.float32)
    quantizer = PowerQuantizer(4, 0.5)
    quantizer.observe(x)
    assert quantizer.signed
    assert set(quantizer.codes(x).tolist()) <= set(range(-7, 8))
    quantizer.observe(x.relu())
    assert not quantizer.signed
    assert quantizer.codes(x).min() == 0
    assert quantizer.codes(x).max() == 15
    assert torch.equal(quantizer(x), quantizer(quantizer(x)))


def test_gradients_pass_a_quantizer_inside_its_range_only():
    x = torch.tensor([-0.5, 0.3, 0.9, 1.4], requires_grad=True)
    quantizer = PowerQuantizer(4, 0.5, signed=False)
    quantizer(x).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 0]


def test_what_is_out_of_range_is_refused_by_name():
    w = normal(2, 8)
    with pytest.raises(InputError, match=r"bits must be an integer in 2\.\.8, got 1"):
        PowerQuantizer(1)
    with pytest.raises(InputError, match="exponent must be above 0"):
        PowerQuantizer(4, 0.0)
    with pytest.raises(InputError, match=r"clip_ratio must be in \(0, 1\], got 1.5"):
        bounds(w, "channel", 1.5)
    with pytest.raises(InputError, match="granularity must be 'tensor', 'channel' or 'groupN'"):
        bounds(w, "row")
    with pytest.raises(InputError, match="no weights"):
        search_exponent([], 4)
    with pytest.raises(InputError, match="p must be at least 1"):
        search_exponent([w], 4, p=0.5)
    with pytest.raises(InputError, match="bits must be one number or 1"):
        search_exponent([w], [4, 4])
