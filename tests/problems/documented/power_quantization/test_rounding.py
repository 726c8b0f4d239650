"""Soft rounding, the stabilised gradients, and the two kinds of learnt rounding."""

import math

import pytest
import torch

from problems.documented.power_quantization.grid import decode
from problems.documented.power_quantization.rounding import (
    AdaptiveRounding,
    FreeCodes,
    power_decode,
    soft_round,
)


@pytest.mark.parametrize("sharpness", [0.05, 1.5, 20.0])
def test_soft_rounding_is_continuous_across_cells_and_increasing(sharpness):
    integers = torch.arange(-3, 4, dtype=torch.float64)
    below, above = soft_round(integers - 1e-12, sharpness), soft_round(integers + 1e-12, sharpness)
    torch.testing.assert_close(below, integers, rtol=0, atol=1e-9)
    torch.testing.assert_close(above, integers, rtol=0, atol=1e-9)
    assert (soft_round(torch.linspace(-3, 3, 601).double(), sharpness).diff() >= 0).all()


def test_soft_rounding_goes_from_the_identity_to_rounding():
    u = torch.linspace(-3, 3, 1201, dtype=torch.float64)
    torch.testing.assert_close(soft_round(u, 0.05), u, rtol=0, atol=1e-3)
    away = (u - u.floor() - 0.5).abs() >= 0.1
    torch.testing.assert_close(soft_round(u, 50.0)[away], u.round()[away], rtol=0, atol=1e-3)


@pytest.mark.parametrize("exponent", [0.3, 0.7, 1.0, 1.4])
def test_gradients_are_those_of_finite_differences_from_code_1_on(exponent):
    v = torch.tensor([-7.0, -3.4, -1.0, 1.0, 2.5, 6.9], dtype=torch.float64, requires_grad=True)
    a = torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    bound = torch.tensor(1.7, dtype=torch.float64)
    weights = torch.linspace(-1, 2, 6, dtype=torch.float64)
    (weights * power_decode(v, a, bound, 7)).sum().backward()
    h = 1e-6

    def f(v, a):
        return weights * decode(v, bound, a, 7)

    with torch.no_grad():
        by_codes = (f(v + h, a) - f(v - h, a)) / (2 * h)
        by_exponent = ((f(v, a + h) - f(v, a - h)) / (2 * h)).sum()
    torch.testing.assert_close(v.grad, by_codes, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(a.grad, by_exponent, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("exponent", [0.3, 1.0, 1.5])
def test_a_code_of_zero_has_a_finite_gradient_that_is_not_zero(exponent):
    v = torch.tensor([0.0, 1e-30], dtype=torch.float64, requires_grad=True)
    a = torch.tensor(exponent, dtype=torch.float64, requires_grad=True)
    power_decode(v, a, torch.tensor(2.0), 7).sum().backward()
    expected = 2.0 / (exponent * 7) * (1 / 14) ** (1 / exponent - 1)
    torch.testing.assert_close(v.grad, torch.full_like(v, expected))
    assert a.grad.isfinite()
    plain = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (plain.abs() / 7).pow(1 / exponent).sum().backward()
    assert exponent == 1.0 or plain.grad == 0 or not plain.grad.isfinite()


def test_codes_and_exponent_are_kept_where_they_may_be():
    start = torch.tensor([[-7.0, 0.2, 6.5]], dtype=torch.float64)
    free = FreeCodes(
        start, 0.5, torch.ones(1, 1), 7,
        first_sharpness=1.5, last_sharpness=20.0, exponents=(0.2, 1.5),
    )  # fmt: skip
    with torch.no_grad():
        free.u.add_(torch.tensor([[-1.0, 1.0, 1.0]]))
        free.a.sub_(0.6)
    free.project()
    codes, exponent = free.hard()
    assert codes.tolist() == [[-7, 1, 7]]
    assert exponent == pytest.approx(0.2)
    assert torch.equal(free.weights(0.5).sign(), codes.sign())
    assert start.tolist() == [[-7.0, 0.2, 6.5]]


def test_the_sharpness_grows_exponentially():
    start = torch.tensor([[0.3]], dtype=torch.float64)
    free = FreeCodes(
        start, 1.0, torch.ones(1, 1), 7,
        first_sharpness=1.0, last_sharpness=16.0, exponents=(0.2, 1.5),
    )  # fmt: skip
    for progress, sharpness in ((0.0, 1.0), (0.5, 4.0), (1.0, 16.0)):
        torch.testing.assert_close(free.weights(progress), soft_round(start, sharpness) / 7)


def test_adaround_starts_at_the_weights_and_its_penalty_ends_at_codes():
    start = torch.tensor([[-2.8, 0.0, 0.4, 6.6]], dtype=torch.float64)
    rounding = AdaptiveRounding(start, 0.6, torch.ones(1, 1), 7, weight=0.1)
    expected = decode(start, 1.0, 0.6, 7)
    torch.testing.assert_close(rounding.weights(0.0), expected, rtol=1e-3, atol=1e-4)
    assert rounding.penalty(0.1) is None
    first, last = rounding.penalty(0.2), rounding.penalty(0.999)
    assert last < first < 0.1 * 4  # the later, the further from 1/2 a share may not be
    with torch.no_grad():
        rounding.v.copy_(torch.tensor([[9.0, -9.0, 9.0, 9.0]]))
    assert rounding.penalty(0.5) == 0
    codes, exponent = rounding.hard()
    assert codes.tolist() == [[-2, 0, 1, 7]]
    assert exponent == 0.6
    torch.testing.assert_close(rounding.weights(1.0), decode(codes, 1.0, 0.6, 7))
    assert math.isfinite(exponent)
