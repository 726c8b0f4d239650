"""The Gram matrices of a deep kernel machine: limits, closed forms, the extension to new points."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.deep_kernel_machine import (
    GRAM_KERNELS,
    DeepKernelMachineFeatures,
    DeepKernelMachineKernel,
)
from bo_surrogates.seeding import fixed_seed

GENERATOR = torch.Generator().manual_seed(0)
Z = torch.rand(6, 2, generator=GENERATOR, dtype=torch.float64)
NEW = torch.rand(4, 2, generator=GENERATOR, dtype=torch.float64)
SMOOTH = [name for name in GRAM_KERNELS if name != "linear"]


def kernel(name="se", layers=2, learnt=0.3, Z=Z):
    """With Gram matrices away from the prior's, by `learnt`."""
    made = DeepKernelMachineKernel(name, Z, layers).double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        made.factors.copy_(
            learnt * torch.randn(made.factors.shape, generator=generator, dtype=torch.float64)
        )
        made.log_input_scale.fill_(1.0)
    return made


@pytest.mark.parametrize("name", SMOOTH)
def test_without_learning_it_is_the_kernel_of_an_infinitely_wide_network(name):
    made = kernel(name, learnt=0.0)
    x = torch.cat([Z, NEW])
    h = made.first_features(x)
    G = h @ h.mT
    for _ in range(3):
        q = G.diagonal()
        if name == "se":
            G = torch.exp(-0.5 * (q[:, None] + q - 2 * G))
        else:
            c = (G / (q[:, None] * q).sqrt()).clamp(-1, 1)
            J1 = (1 - c**2).sqrt() + (math.pi - torch.arccos(c)) * c
            G = torch.exp(c - 1) if name == "normalized-se" else (q[:, None] * q).sqrt() * J1
            G = G / math.pi if name == "relu" else G
    torch.testing.assert_close(made.forward(x, x), G, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", SMOOTH)
def test_the_divergence_is_that_of_the_gaussians(name):
    made = kernel(name)
    grams, total = made.gram_matrices(), 0.0
    zero = torch.zeros(6, dtype=torch.float64)
    for layer in range(2):
        L = made.cholesky(layer, grams[layer])
        total += kl_divergence(
            MultivariateNormal(zero, grams[layer + 1]), MultivariateNormal(zero, scale_tril=L)
        )
    torch.testing.assert_close(made.divergence(), total, rtol=1e-5, atol=1e-5)


def test_the_extension_to_new_points_leaves_the_divergence_and_any_other_raises_it():
    """Of one layer, with and without the new points."""
    made = kernel(layers=1)
    x = torch.cat([Z, NEW])
    G = made.propagate(x, x).st
    h = made.first_features(x)
    prior = h @ h.mT
    q = prior.diagonal().unsqueeze(-1)
    K = made.of_gram(0, prior, q, q.mT)
    zero = torch.zeros(10, dtype=torch.float64)
    small = 1e-10 * torch.eye(10, dtype=torch.float64)

    def divergence(G):
        return kl_divergence(MultivariateNormal(zero, G), MultivariateNormal(zero, K + small))

    joint = divergence(G + small)
    torch.testing.assert_close(joint, made.divergence(), rtol=0, atol=1e-4)
    for i in range(3):
        noise = torch.randn(6, 4, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        other = G + small
        other[:6, 6:] += 1e-4 * noise
        other[6:, :6] += 1e-4 * noise.mT
        assert divergence(other) > joint


@pytest.mark.parametrize("name", SMOOTH)
def test_at_the_inducing_points_the_extension_is_the_gram_matrix(name):
    made = kernel(name)
    found = made.propagate(Z, NEW)
    G = made.gram_matrices()[-1]
    torch.testing.assert_close(found.ii, G)
    torch.testing.assert_close(found.si, G, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(found.ss.squeeze(-1), G.diagonal(), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", SMOOTH)
def test_covariances_are_positive_and_their_diagonal_is_the_variance(name):
    made = kernel(name)
    x = torch.cat([Z, NEW])
    K = made.forward(x, x)
    torch.testing.assert_close(K, K.mT)
    assert torch.linalg.eigvalsh(K).min() > -1e-8
    for other, whole in ((x, K), (x.flip(0), K.flip(1))):
        torch.testing.assert_close(made.forward(x, other, diag=True), whole.diagonal())
    torch.testing.assert_close(made.forward(x, NEW), K[:, 6:])
    batch = torch.stack([NEW, NEW.flip(0)])
    torch.testing.assert_close(
        made.forward(batch, Z.expand(2, -1, -1)), torch.stack([K[6:, :6], K[6:, :6].flip(0)])
    )


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_linear_kernels_without_noise_have_the_optimum_in_closed_form(layers, monkeypatch):
    """G_l = G_0 (G_0^-1 Y Y' / m)^(l / (L + 1)) where nu is the number of outputs m >= P."""
    monkeypatch.setattr("bo_surrogates.kernels.deep_kernel_machine.JITTER", 0.0)
    P, m, generator = 3, 5, torch.Generator().manual_seed(2)
    points = torch.rand(P, 4, generator=generator, dtype=torch.float64)
    Y = torch.randn(P, m, generator=generator, dtype=torch.float64)
    made = DeepKernelMachineKernel("linear", points, layers).double()

    optimizer = torch.optim.LBFGS(
        [made.factors], max_iter=500, line_search_fn="strong_wolfe",
        tolerance_grad=1e-10, tolerance_change=1e-14,
    )  # fmt: skip

    def loss():
        optimizer.zero_grad()
        top = MultivariateNormal(torch.zeros(P).double(), made.gram_matrices()[-1])
        value = m * made.divergence() - top.log_prob(Y.mT).sum()
        value.backward()
        return value

    optimizer.step(loss)
    G0 = made.gram_matrices()[0]
    values, vectors = torch.linalg.eig(torch.linalg.solve(G0, Y @ Y.mT / m))
    for layer in range(1, layers + 1):
        power = (vectors * values ** (layer / (layers + 1))) @ torch.linalg.inv(vectors)
        expected = G0 @ power.real
        found = made.gram_matrices()[layer].detach()
        torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_equal_finite_differences(name):
    made = kernel(name, layers=1, Z=Z[:3])

    def values(x, factors):
        kept = made.factors
        del made.factors
        made.factors = factors
        try:
            return made.forward(x, NEW[2:]), made.divergence()
        finally:
            del made.factors
            made.factors = kept

    x, factors = NEW[:2].clone().requires_grad_(), made.factors.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(values, (x, factors))


@pytest.mark.parametrize("name", SMOOTH)
def test_features_of_finite_networks_have_its_covariance(name):
    """On average over networks up to their bias, of order 1 / width (512); 8 networks."""
    made = kernel(name, learnt=0.2)
    x = torch.cat([Z, NEW])
    with torch.no_grad():
        K = made.forward(x, x)
        total = torch.zeros_like(K)
        for seed in range(8):
            with fixed_seed(seed):
                psi = DeepKernelMachineFeatures(made, 2, 2048)(x)
            total += psi @ psi.mT / 8
    assert (total - K).abs().max() < 0.15 * K.diagonal().max()


def test_unknown_kernels_are_refused():
    with pytest.raises(InputError, match="unknown kernel"):
        DeepKernelMachineKernel("rbf", Z, 2)
    with pytest.raises(InputError, match="last_dim_is_batch"):
        kernel().forward(Z, Z, last_dim_is_batch=True)
