"""Signs and their surrogate derivatives, against the published formulas."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from problems.documented.binarization.estimators import (
    Clip,
    Fourier,
    HalfShift,
    HalfShiftWeights,
    Identity,
    Poly,
    Tanh,
    anneal,
    sign,
)
from problems.documented.binarization.inputs import InputBinarizer
from problems.documented.binarization.noise import NoiseAdaptation
from problems.documented.binarization.operators import OPERATORS
from problems.documented.binarization.weights import RectifiedWeights, make_weight_binarizer

GRID = np.linspace(-2, 2, 2001)


def value_and_gradient(estimator, points, upstream=None):
    v = torch.tensor(points, dtype=torch.float64, requires_grad=True)
    y = estimator(v)
    upstream = torch.ones_like(y) if upstream is None else torch.tensor(upstream)
    (gradient,) = torch.autograd.grad(y, v, upstream)
    return y.detach().numpy(), gradient.numpy()


def fourier_series(v, n, omega):
    series = sum(np.cos((2 * i + 1) * omega * v) for i in range(n + 1))
    return 4 * omega / np.pi * series * (np.abs(v) <= 1)


def fourier(terms, omega=0.1):
    return Fourier(omega, first_terms=terms)


@pytest.mark.parametrize(
    ("estimator", "formula"),
    [
        (Clip(), lambda v: np.abs(v) <= 1),
        (Clip(0.3), lambda v: np.abs(v) <= 0.3),
        (HalfShift(1.5), lambda v: np.abs(v) < 1.5 * 127 / 128),
        (Poly(), lambda v: np.maximum(0, 2 - 2 * np.abs(v))),
        (fourier(9), lambda v: fourier_series(v, 9, 0.1)),
        (fourier(18), lambda v: fourier_series(v, 18, 0.1)),
        (fourier(5, 0.37), lambda v: fourier_series(v, 5, 0.37)),
        (Tanh(), lambda v: 1 / np.cosh(v) ** 2),
        (Identity(), np.ones_like),
    ],
)
def test_value_and_gradient_on_a_grid_are_the_formula_s(estimator, formula):
    upstream = np.random.default_rng(0).normal(size=GRID.shape)
    value, gradient = value_and_gradient(estimator, GRID, upstream)
    np.testing.assert_array_equal(value, np.where(GRID >= 0, 1, -1))
    np.testing.assert_allclose(gradient, upstream * formula(GRID), atol=1e-12)


def test_the_fourier_derivative_at_zero_and_where_it_is_negative():
    v = torch.from_numpy(GRID)
    inside = v.abs() <= 1
    few, many = fourier(9).derivative(v), fourier(18).derivative(v)
    assert fourier(9).derivative(torch.zeros(1)).item() == pytest.approx(1.27324, abs=5e-6)
    assert fourier(18).derivative(torch.zeros(1)).item() == pytest.approx(2.41916, abs=5e-6)
    assert (few[inside] > 0).all()
    negative = many < 0
    # sin(38 x 0.1 |v|) < 0 beyond pi / 3.8.
    assert torch.equal(negative, inside & (v.abs() > math.pi / 3.8))
    assert negative[inside].double().mean() == pytest.approx(0.17, abs=5e-3)


def test_the_fourier_derivative_in_single_precision_near_zero():
    v = torch.tensor([0.0, -0.0, 1e-45, 1e-38, -1e-30, 1e-8])
    expected = torch.full((6,), 4 * 0.1 / math.pi * 10)
    torch.testing.assert_close(fourier(9).derivative(v), expected)


def test_zero_is_positive_and_what_is_not_a_number_stays_so():
    v = torch.tensor([0.0, -0.0, -1e-45, 1e-45, math.inf, -math.inf, math.nan])
    assert torch.equal(sign(v)[:6], torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0, -1.0]))
    assert sign(v)[6].isnan()


def test_the_gradient_can_be_divided_by_a_scale():
    v = torch.tensor([[0.5, -2.0], [0.3, 0.1]], requires_grad=True)
    Clip()(v, torch.tensor([[4.0], [0.5]])).sum().backward()
    assert v.grad.tolist() == [[0.25, 0.0], [2.0, 2.0]]


# ---- PokeBNN's ----------------------------------------------------------------------------------
def test_half_shift_with_bound_3_has_the_published_values_and_gradients():
    points = [-4, -2.9, -0.1, 0, 0.1, 2.9, 2.99, 4]
    inputs = InputBinarizer(OPERATORS["poke"], channels=8, sample_dims=1)
    x = torch.tensor(points, requires_grad=True)
    signs, scale = inputs(x)
    assert (signs * scale).tolist() == [-1.5] * 3 + [1.5] * 5
    (signs * scale).sum().backward()
    assert x.grad.tolist() == [0, 1, 1, 1, 1, 1, 0, 0]


def test_half_shift_ends_at_the_bound_less_one_part_in_128():
    edge = 3 * (1 - 2.0**-7)
    points = [np.nextafter(edge, 0), edge, -np.nextafter(edge, 0), -edge]
    assert value_and_gradient(HalfShift(3.0), points)[1].tolist() == [1, 0, 1, 0]


def test_half_shift_of_weights_leaves_the_extreme_ones_of_a_channel_without_gradient():
    weight = torch.tensor([[0.5, -2.0, 0.0], [0.25, 0.125, -0.2499]], requires_grad=True)
    signs, scale = make_weight_binarizer(OPERATORS["poke"], 3, linear=False)(weight)
    assert (signs * scale).tolist() == [[1.0, -1.0, 1.0], [0.125, 0.125, -0.125]]
    (signs * scale).sum().backward()
    assert weight.grad.tolist() == [[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]
    assert HalfShiftWeights().derivative(torch.zeros(1, 2)).tolist() == [[1.0, 1.0]]


# ---- annealing ----------------------------------------------------------------------------------
def test_annealing_reaches_every_module_with_the_published_schedules():
    series, noise, rectified = Fourier(), NoiseAdaptation(8), RectifiedWeights()
    network = nn.Sequential(nn.Sequential(series, nn.ReLU()), noise, rectified)
    epochs = 20
    for epoch in range(epochs):
        anneal(network, epoch, epochs)
        assert series.terms == 9 + 9 * epoch // epochs
        assert noise.amplitude == pytest.approx(
            0.05 * (1 + math.cos(math.pi * (epoch + 1) / epochs)), abs=1e-15
        )
        a = (0.99 - 0.85) / (math.e - 1)
        assert rectified.tau == pytest.approx(a * math.exp(epoch / epochs) + 0.85 - a)
    assert noise.amplitude == pytest.approx(0, abs=1e-15)
    anneal(network, 0, epochs)
    assert rectified.tau == pytest.approx(0.85)
