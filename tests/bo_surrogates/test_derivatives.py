"""Every derivative written by hand equals finite differences; a new one has to be added here."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import bo_surrogates
from bo_surrogates.inference.linear_regression import Gram, _Product, products_with
from bo_surrogates.inference.marginal_likelihood import QuadraticFormAndLogDeterminant
from bo_surrogates.inference.native.library import library
from bo_surrogates.kernels.arc_cosine import ArcCosinePair, _ArcCosine0, _ArcCosine1
from bo_surrogates.kernels.compiled_recursion import CompiledRecursion
from bo_surrogates.kernels.dual_activations import ReLU, Sine
from bo_surrogates.kernels.random_features import _CosineAndSine
from bo_surrogates.kernels.recursion import Network, _Gram
from bo_surrogates.kernels.sine import SinePair
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.evaluation import _Values
from bo_surrogates.networks.posterior import NetworkPosterior, _NegativeSum
from bo_surrogates.posteriors.student_t import _LogImprovement, _StudentTCDF


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def leaf(value: Tensor) -> Tensor:
    return value.clone().requires_grad_()


Case = tuple[Callable[..., object], tuple[Tensor, ...]]


def arc_cosine_pair() -> Case:
    q1, q2 = 0.5 + normal(4, 1).square(), 0.5 + normal(1, 3, seed=1).square()
    c = 0.9 * torch.tanh(normal(4, 3, seed=2))
    return ArcCosinePair.apply, (leaf(q1), leaf(q2), leaf(c * (q1 * q2).sqrt()))


def sine_pair() -> Case:
    q1, q2, K = leaf(normal(4, 1).square()), leaf(normal(1, 3).square()), leaf(normal(4, 3, seed=2))
    return lambda *inputs: SinePair.apply(*inputs, 0.6, 1.3), (q1, q2, K)


def gram(kind: str, by_torch: bool = False) -> Callable[[], Case]:
    def make() -> Case:
        network = Network(ReLU() if kind == "both" else Sine(), 2, 1.5, 0.2)
        factors = 1.0 + normal(5, 1, seed=2).square(), 1.0 + normal(1, 4, seed=3).square()
        bias = torch.full((1, 1), 0.3, dtype=torch.float64)
        inputs = (normal(5, 2), normal(4, 2, seed=1), bias, *factors)

        compiled = None if by_torch else CompiledRecursion.make(network, False, inputs)

        def f(*tensors: Tensor) -> object:
            return _Gram.apply(network, kind, False, compiled, *tensors)

        return f, tuple(leaf(t) for t in inputs)

    return make


def quadratic_form() -> Case:
    root = normal(2, 4, 4)

    def f(root: Tensor, noise: Tensor, residual: Tensor) -> object:
        return QuadraticFormAndLogDeterminant.apply(root @ root.mT, noise, residual)

    noise = 0.5 + normal(2, 4, seed=1).square()
    return f, (leaf(root), leaf(noise), leaf(normal(2, 4, seed=2)))


def values() -> Case:
    network = BatchedMLP(2, 2, 5, 2, "tanh")
    theta = normal(3, network.num_parameters, seed=1)
    return lambda X: _Values.apply(network, theta, X), (leaf(normal(4, 2)),)


def negative_sum() -> Case:
    network = BatchedMLP(2, 1, 3, 1, "tanh")
    X, Y = normal(6, 2), normal(6, 1, seed=1)
    scales = torch.ones(network.num_parameters, dtype=torch.float64)
    posterior = NetworkPosterior(network, X, Y, scales, torch.full((1,), 0.3).double())
    parameters = leaf(normal(2, posterior.num_parameters, seed=2))
    return lambda p: _NegativeSum.apply(p, posterior), (parameters,)


CASES: dict[str, tuple[type, Callable[[], Case]]] = {
    "arc-cosine 0": (
        _ArcCosine0, lambda: (_ArcCosine0.apply, (leaf(0.95 * torch.tanh(normal(6))),))
    ),
    "arc-cosine 1": (
        _ArcCosine1, lambda: (_ArcCosine1.apply, (leaf(0.95 * torch.tanh(normal(6))),))
    ),
    "arc-cosine pair": (ArcCosinePair, arc_cosine_pair),
    "sine pair": (SinePair, sine_pair),
    "nngp": (_Gram, gram("nngp")),
    "nngp in blocks": (_Gram, gram("nngp", by_torch=True)),
    "tangent": (_Gram, gram("tangent")),
    "tangent in blocks": (_Gram, gram("tangent", by_torch=True)),
    "both": (_Gram, gram("both")),
    "both in blocks": (_Gram, gram("both", by_torch=True)),
    "cosine and sine": (
        _CosineAndSine, lambda: (lambda u: _CosineAndSine.apply(u, 0.7), (leaf(normal(4, 3)),))
    ),
    "quadratic form": (QuadraticFormAndLogDeterminant, quadratic_form),
    "product": (_Product, lambda: (products_with(normal(4, 3)), (leaf(normal(5, 4, seed=1)),))),
    "gram": (Gram, lambda: (Gram.apply, (leaf(normal(4, 3)),))),
    "network values": (_Values, values),
    "network posterior": (_NegativeSum, negative_sum),
    "t distribution": (
        _StudentTCDF,
        lambda: (lambda z: _StudentTCDF.apply(z, torch.tensor(4.5)), (leaf(3 * normal(8)),)),
    ),
    "t improvement": (
        _LogImprovement,
        lambda: (lambda z: _LogImprovement.apply(z, torch.tensor(4.5)), (leaf(3 * normal(8)),)),
    ),
}  # fmt: skip


def hand_written() -> Iterator[type]:
    for module in pkgutil.walk_packages(bo_surrogates.__path__, "bo_surrogates."):
        if module.name.endswith("__main__"):
            continue
        for _, found in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(found, torch.autograd.Function) and found.__module__ == module.name:
                yield found


def test_each_has_a_case() -> None:
    assert set(hand_written()) == {function for function, _ in CASES.values()}


@pytest.mark.parametrize("case", list(CASES))
def test_it_equals_finite_differences(case: str) -> None:
    function, make = CASES[case]
    if function is _Values and library() is None:
        pytest.skip("networks' values are compiled code, which is not available")
    f, inputs = make()
    assert torch.autograd.gradcheck(f, inputs, atol=1e-6)
