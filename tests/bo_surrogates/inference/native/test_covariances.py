"""The compiled covariance recursion against torch's and closed forms, and where it is not used."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor
from torch.func import jvp, vmap

from bo_surrogates.inference.native import covariances, library
from bo_surrogates.kernels import recursion
from bo_surrogates.kernels.compiled_recursion import CompiledRecursion
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS, ReLU, Sine
from bo_surrogates.kernels.recursion import Kind, Network, gram, variances

needs_compiler = pytest.mark.skipif(
    covariances.library() is None, reason="no compiled recursion on this machine (see the log)"
)
NAMES = list(DUAL_ACTIVATIONS)
KINDS: list[Kind] = ["nngp", "tangent", "both"]
SIZES = [(1, 1, 1), (5, 3, 2), (37, 150, 3)]  # the last in several blocks


def net(name: str, depth: int = 3, skip: float = 0.3) -> Network:
    activation = DUAL_ACTIVATIONS[name]
    return Network(activation, depth, activation.weight_variance, skip)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def arguments(
    n: int, m: int, d: int, symmetric: bool, batch: tuple[int, ...], normalized: bool
) -> tuple[Tensor | None, ...]:
    """Of `gram`; a batch is that of one of them alone, or of several."""
    z1 = 4 * uniform(*batch, n, d) - 2
    z2 = z1 if symmetric else 4 * uniform(m, d, seed=1) - 2
    bias = 0.1 + uniform(*batch[-1:], *[1] * (len(batch) > 0), 1, seed=2)
    bias = bias if bias.ndim > 1 else bias[None]
    if not normalized:
        return z1, z2, bias, 0.5 + uniform(1, 1, seed=3), None
    factor1 = 0.5 + uniform(*batch, n, 1, seed=3)
    return z1, z2, bias, factor1, factor1.mT if symmetric else 0.5 + uniform(1, m, seed=4)


def compiled(
    network: Network, kind: Kind, given: tuple[Tensor | None, ...]
) -> tuple[Tensor, ...] | None:
    found = CompiledRecursion.make(network, given[0] is given[1], given)
    return None if found is None else found.gram(kind, given)


def close(found: tuple[Tensor, ...] | None, expected: tuple[Tensor, ...], symmetric: bool) -> None:
    """On the diagonal of a symmetric matrix an angle of torch's has half of the digits."""
    assert found is not None
    for M, other in zip(found, expected, strict=True):
        if symmetric:
            torch.testing.assert_close(M, other, rtol=1e-6, atol=1e-6)
            off = 1 - torch.eye(M.shape[-1], dtype=M.dtype)
            M, other = M * off, other * off
        torch.testing.assert_close(M, other, rtol=1e-12, atol=1e-12)


@needs_compiler
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_it_is_the_recursion_of_torch(name: str, symmetric: bool) -> None:
    for depth, skip in ((1, 0.0), (2, 0.3), (5, 0.0)):
        network = net(name, depth, skip)
        for n, m, d in SIZES:
            for batch, normalized in (((), False), ((), True), ((2,), True), ((3, 2), False)):
                given = arguments(n, n if symmetric else m, d, symmetric, batch, normalized)
                K, T = recursion._whole(network, "both", *given)  # type: ignore[arg-type]
                for kind, expected in zip(KINDS, ((K,), (T,), (K, T)), strict=True):
                    close(compiled(network, kind, given), expected, symmetric)


@needs_compiler
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_its_gradient_is_that_of_torch(name: str, symmetric: bool) -> None:
    kinked = name in ("relu", "leaky_relu")  # an angle of torch's has half of the digits
    for depth, (n, m, d), batch, normalized in (
        (1, (1, 2, 1), (), False), (3, (5, 3, 2), (3, 2), True), (2, (37, 150, 3), (), True),
    ):  # fmt: skip
        m = n if symmetric else m
        given = [
            t if t is None or (i == 4 and symmetric) else t.requires_grad_()
            for i, t in enumerate(arguments(n, m, d, symmetric, batch, normalized))
        ]
        if symmetric and given[4] is not None:
            given[4] = given[3].mT  # type: ignore[union-attr]
        leaves = [t for t in given if t is not None and t.is_leaf]
        weights = torch.cos(torch.arange(n * m).double()).reshape(n, m)
        if symmetric and kinked:
            weights.diagonal().zero_()
        for kind in KINDS:
            gradients = []
            for found in (
                recursion._whole(net(name, depth), kind, *given),  # type: ignore[arg-type]
                gram(net(name, depth), *given, kind=kind),  # type: ignore[arg-type]
            ):
                total = sum(((i + 1) * weights * M).sum() for i, M in enumerate(found))
                gradients.append(torch.autograd.grad(total, leaves))  # type: ignore[arg-type]
            for one, other in zip(*gradients, strict=True):
                assert (one - other).norm() <= 1e-11 * one.norm().clamp_min(1.0)


@needs_compiler
def test_angles_have_all_digits() -> None:
    # A hidden layer of ReLUs without biases, and points on the circle.
    theta = torch.cat([torch.logspace(-3, 0, 40), torch.linspace(1, 3.1, 60)]).double()
    z1, z2 = torch.tensor([[1.0, 0.0]]).double(), torch.stack([theta.cos(), theta.sin()], dim=-1)
    zero, one = torch.zeros(1, 1).double(), torch.ones(1, 1).double()
    found = compiled(net("relu", 1, 0.0), "both", (z1, z2, zero, one, None))
    assert found is not None
    K = (theta.sin() + (math.pi - theta) * theta.cos()) / math.pi
    T = K + (1 - theta / math.pi) * theta.cos()
    # The cosine's rounding is that of the angle times its sine.
    torch.testing.assert_close(found[0].squeeze(), K, rtol=0, atol=5e-16)
    assert ((found[1].squeeze() - T).abs() <= 1e-15 + 4e-16 / theta.sin()).all()


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_a_symmetric_matrix_has_the_variances_on_its_diagonal(name: str) -> None:
    network, z, sb = net(name), 4 * uniform(50, 3) - 2, torch.full((1, 1), 0.2).double()
    found = compiled(network, "both", (z, z, sb, torch.ones(1, 1).double(), None))
    assert found is not None
    for M, expected in zip(found, variances(network, z, sb, tangent=True), strict=True):
        assert expected is not None
        torch.testing.assert_close(M.diagonal(), expected.squeeze(-1), rtol=1e-14, atol=0)
        assert torch.equal(M, M.mT)


@needs_compiler
def test_the_number_of_threads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    given = arguments(150, 250, 3, False, (), True)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        results.append(compiled(net("erf"), "both", given))
    one, several = results
    assert one is not None
    assert several is not None
    assert all(torch.equal(a, b) for a, b in zip(one, several, strict=True))


@needs_compiler
@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_stays_so_and_alone(name: str) -> None:
    z1, z2, *others = arguments(5, 7, 2, False, (), False)
    assert z1 is not None
    z1[2, 1] = math.nan
    found = compiled(net(name), "both", (z1, z2, *others))
    assert found is not None
    rows = torch.arange(5) == 2
    assert all(torch.equal(M.isnan(), rows.unsqueeze(-1).expand(5, 7)) for M in found)


class Doubled(ReLU):
    """A user's own activation."""

    def pair(self, q1: Tensor, q2: Tensor, K: Tensor) -> tuple[Tensor, Tensor]:
        F, Fd = super().pair(q1, q2, K)
        return 4 * F, 4 * Fd


def test_it_is_not_used_for_what_it_does_not_know() -> None:
    z1, z2, *others = arguments(4, 3, 2, False, (), False)
    assert z1 is not None
    assert z2 is not None
    network = net("erf")
    own = Network(Doubled(), 2, 1.0)
    assert compiled(own, "nngp", (z1, z2, *others)) is None
    assert compiled(network, "nngp", (z1.float(), z2, *others)) is None
    assert compiled(network, "nngp", (z1[:0], z2, *others)) is None

    def values(z: Tensor) -> Tensor:
        return gram(network, z, z2, *others, kind="nngp")[0]  # type: ignore[arg-type]

    batch = torch.stack([z1, 2 * z1])
    torch.testing.assert_close(vmap(values)(batch), values(batch))
    slope = jvp(values, (z1,), (torch.ones_like(z1),))[1]
    step = 1e-6
    difference = (values(z1 + step) - values(z1 - step)) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-7, atol=1e-7)


@needs_compiler
def test_a_sine_of_other_numbers_is_known() -> None:
    given, network = arguments(4, 3, 2, False, (), False), Network(Sine(), 2, 1.0)
    with mock.patch.multiple(Sine, amplitude=1.3, phase=0.4):
        expected = recursion._whole(network, "both", *given)  # type: ignore[arg-type]
        close(compiled(network, "both", given), expected, False)


@pytest.fixture
def first_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a process that has not used the recursion, with an empty cache; then as before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    covariances.library.cache_clear()
    yield
    covariances.library.cache_clear()


@pytest.mark.parametrize(("variable", "lines"), [(library.SWITCH, 0), ("CXX", 1)])
def test_without_a_compiler_torch_does_it_and_one_line_says_so(
    variable: str,
    lines: int,
    first_use: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(variable, {library.SWITCH: "0", "CXX": "no-such-compiler"}[variable])
    given = arguments(4, 3, 2, False, (), False)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            (K,) = gram(net("gelu"), *given)  # type: ignore[arg-type]
    assert torch.equal(K, recursion._whole(net("gelu"), "nngp", *given)[0])  # type: ignore[arg-type]
    assert len(caplog.records) == lines
    assert all(
        "infinitely wide networks are computed by torch" in r.message for r in caplog.records
    )


@needs_compiler
def test_narrower_vectors_give_the_same_results() -> None:
    # Compiled without optimization for any processor of this family: quickly, once for a machine.
    code = library.load([*library.find_compiler(), "-O0"], (), library.RECURSION)
    for name in NAMES:
        given = arguments(9, 9, 2, True, (), False)
        expected = compiled(net(name), "both", given)
        assert expected is not None
        with mock.patch.object(covariances, "library", return_value=covariances.declared(code)):
            found = compiled(net(name), "both", given)
        assert found is not None
        assert found[0].data_ptr() != expected[0].data_ptr()
        close(found, expected, False)
