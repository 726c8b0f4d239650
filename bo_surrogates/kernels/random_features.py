"""Random features: phi(x) of k numbers with E[phi(x) . phi(x')] = K(x, x').

With frozen random w_j (and b_j), phi_j(x) = g(w_j, b_j; z) / sqrt(k), z being the centred and
scaled inputs. The mean over draws is a kernel K exactly, its error falls as 1 / sqrt(k).

- Fourier features (Rahimi and Recht 2007, NeurIPS 20): cos(w . z) and sin(w . z) of each
  frequency, whose law is the spectral density of a stationary kernel: Gaussian for the squared
  exponential, Student-t for Matern, uniform in a cube or a ball for kernels with no frequency
  beyond a bandwidth (products of sinc, Bessel functions). cos^2 + sin^2 = 1: K(x, x) has no error,
  and pairs have a smaller variance than random phases where K is near 1 (Sutherland and Schneider
  2015, arXiv 1506.02785). Directions within a block of d frequencies are orthogonal where the law
  is isotropic, which lowers the variance further (Yu et al. 2016, arXiv 1610.09072).
- Neural features: the hidden units of a network with Gaussian weights, K its NNGP kernel.
- Bandlimited networks: hidden units whose weights and biases are uniform on a bounded set (Li et
  al. 2023, arXiv 2008.08427); any sigmoid, K has no closed form.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from scipy import special
from torch import Tensor

from bo_surrogates.kernels.dual_activations import dual_activation


@dataclass(frozen=True)
class Draw:
    """What is random in the features.

    Attributes:
        weights: `d x K`, float64.
        biases: `K`, float64; not used by Fourier features.
    """

    weights: Tensor
    biases: Tensor


def normal(*shape: int, generator: torch.Generator) -> Tensor:
    """Standard normal numbers, float64, on the generator's device."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64, device=generator.device)


def uniform(*shape: int, generator: torch.Generator) -> Tensor:
    """Numbers uniform in [-1, 1], float64, on the generator's device."""
    numbers = torch.rand(*shape, generator=generator, dtype=torch.float64, device=generator.device)
    return 2.0 * numbers - 1.0


def orthogonal_directions(d: int, count: int, generator: torch.Generator) -> Tensor:
    """`d x count` unit vectors, each uniform on the sphere, orthogonal in blocks of d."""
    blocks = normal(-(-count // d), d, d, generator=generator)
    Q, R = torch.linalg.qr(blocks)
    # With R's diagonal positive, Q follows the uniform (Haar) law.
    Q = Q * R.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)
    return Q.movedim(0, 1).flatten(start_dim=1)[:, :count]


class RandomFeatures(ABC):
    """A feature map and the law of what is random in it.

    Attributes:
        spread: z = spread * scales * (x - 1/2) for x in the unit cube.
        smooth_kernel: Whether `kernel` has a closed form that can be differentiated in the scales.
    """

    spread: ClassVar[float]
    smooth_kernel: bool = False

    @abstractmethod
    def draw(self, d: int, width: int, generator: torch.Generator) -> Draw:
        """What is random in `width` features of d inputs."""

    @abstractmethod
    def features(self, x: Tensor, draw: Draw, scales: Tensor) -> Tensor:
        """phi(x).

        Args:
            x: `... x n x d` inputs in [0, 1].
            draw: See `draw`.
            scales: `d` scales, the inverse of lengthscales.

        Returns:
            `... x n x k` features; differentiable in `x` and `scales`.
        """

    @abstractmethod
    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> Tensor | None:
        """K(x, y), `n x n'`, of inputs `n x d` and `n' x d`; None where it has no closed form."""

    @abstractmethod
    def log_scale_prior(self, d: int) -> tuple[float, float]:
        """Mean and standard deviation of the normal prior of the logarithm of a scale."""

    def inputs(self, x: Tensor, scales: Tensor) -> Tensor:
        """z, `... x n x d`."""
        return (x - 0.5) * (self.spread * scales)


def log_lengthscale_prior(d: int) -> tuple[float, float]:
    """Mean and standard deviation of log lengthscale (Hvarfner et al. 2024, arXiv 2402.02229).

    The log-normal density of a lengthscale with mu = sqrt(2) + log(d) / 2 and sigma^2 = 3 has its
    mode at log lengthscale = mu - sigma^2, which is the mean here: maxima are sought in the
    logarithm, and are then those under the density of the lengthscale itself.
    """
    return math.sqrt(2.0) + 0.5 * math.log(d) - 3.0, math.sqrt(3.0)


class _CosineAndSine(torch.autograd.Function):
    """cos(u) and sin(u) side by side, times a constant: each is the other's derivative.

    Automatic differentiation computes both again; differentiable any number of times.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, factor: float) -> Tensor:
        """`... x 2 K` of `... x K`."""
        both = u.new_empty(*u.shape[:-1], 2 * u.shape[-1])
        cosine, sine = both.chunk(2, dim=-1)
        cosine.copy_(u.cos())
        sine.copy_(u.sin())
        both.mul_(factor)
        ctx.save_for_backward(both)
        return both

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        """Gradient in `u`."""
        (both,) = ctx.saved_tensors
        of_cosine, of_sine = grads[0].chunk(2, dim=-1)
        cosine, sine = both.chunk(2, dim=-1)
        return torch.addcmul(of_sine * cosine, of_cosine, sine, value=-1.0), None


class FourierFeatures(RandomFeatures):
    """Cosines and sines of random frequencies; an odd width is rounded up to pairs."""

    spread = 1.0

    def draw(self, d: int, width: int, generator: torch.Generator) -> Draw:
        """See `RandomFeatures.draw`."""
        count = (width + 1) // 2
        return Draw(self.frequencies(d, count, generator), torch.zeros(count, dtype=torch.float64))

    @abstractmethod
    def frequencies(self, d: int, count: int, generator: torch.Generator) -> Tensor:
        """`d x count` frequencies."""

    def features(self, x: Tensor, draw: Draw, scales: Tensor) -> Tensor:
        """See `RandomFeatures.features`."""
        u = self.inputs(x, scales) @ draw.weights
        phi: Tensor = _CosineAndSine.apply(u, draw.weights.shape[-1] ** -0.5)
        return phi

    def log_scale_prior(self, d: int) -> tuple[float, float]:
        """See `RandomFeatures.log_scale_prior`: a scale is an inverse lengthscale."""
        mean, std = log_lengthscale_prior(d)
        return -mean, std


class RBFFeatures(FourierFeatures):
    """Of the squared exponential kernel exp(-|z - z'|^2 / 2): Gaussian frequencies."""

    smooth_kernel = True

    def frequencies(self, d: int, count: int, generator: torch.Generator) -> Tensor:
        """See `FourierFeatures.frequencies`."""
        lengths = normal(d, count, generator=generator).norm(dim=0)
        return orthogonal_directions(d, count, generator) * lengths

    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> Tensor:
        """See `RandomFeatures.kernel`."""
        r = torch.cdist(self.inputs(x, scales), self.inputs(y, scales))
        return torch.exp(-0.5 * r.square())


class MaternFeatures(RBFFeatures):
    """Of the Matern kernel: frequencies are multivariate t with 2 nu degrees of freedom.

    Args:
        nu: Smoothness, 3/2 or 5/2.
    """

    def __init__(self, nu: float) -> None:
        self.nu = nu

    def frequencies(self, d: int, count: int, generator: torch.Generator) -> Tensor:
        """See `FourierFeatures.frequencies`."""
        df = round(2 * self.nu)
        gaussian = super().frequencies(d, count, generator)
        chi_squared = normal(df, count, generator=generator).square().sum(dim=0)
        return gaussian * (df / chi_squared).sqrt()

    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> Tensor:
        """See `RandomFeatures.kernel`."""
        r = torch.cdist(self.inputs(x, scales), self.inputs(y, scales)) * (2 * self.nu) ** 0.5
        polynomial = 1.0 + r if self.nu == 1.5 else 1.0 + r + r.square() / 3.0
        return polynomial * torch.exp(-r)


class BandlimitedFourierFeatures(FourierFeatures):
    """Frequencies uniform within the bandwidths, inputs in [-1, 1]; a scale is a bandwidth.

    Args:
        domain: "cube" (each coordinate within its own bandwidth; K is a product of sinc) or "ball"
            (of radius 1 in units of the bandwidths; K is a Bessel function of the distance).
    """

    spread = 2.0

    def __init__(self, domain: str) -> None:
        self.domain = domain
        self.smooth_kernel = domain == "cube"

    def frequencies(self, d: int, count: int, generator: torch.Generator) -> Tensor:
        """See `FourierFeatures.frequencies`."""
        return bounded_weights(self.domain, d, count, generator)

    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> Tensor:
        """See `RandomFeatures.kernel`."""
        z, t = self.inputs(x, scales), self.inputs(y, scales)
        if self.domain == "cube":
            return torch.sinc((z.unsqueeze(-2) - t.unsqueeze(-3)) / math.pi).prod(dim=-1)
        order, r = 0.5 * z.shape[-1], torch.cdist(z, t)
        # In logarithms, for the gamma function of many inputs; the series where r is small.
        safe = r.clamp_min(1e-3)
        bessel = torch.from_numpy(special.jv(order, safe.detach().cpu().numpy())).to(r)
        exact = torch.exp(special.gammaln(order + 1.0) + order * (2.0 / safe).log()) * bessel
        return torch.where(r < 1e-3, 1.0 - r.square() / (4.0 * order + 4.0), exact)

    def log_scale_prior(self, d: int) -> tuple[float, float]:
        """See `bandwidth_prior`."""
        return bandwidth_prior(d)


class NeuralFeatures(RandomFeatures):
    """Hidden units phi(w . z + b), w ~ N(0, I / d), b ~ N(0, 1), inputs of unit variance.

    K is the covariance of an infinitely wide network with one hidden layer, divided by the mean
    square of a unit at |z|^2 = d: about 1 in the middle of the domain.

    Args:
        activation: Name of one of `DUAL_ACTIVATIONS`.
    """

    spread = 12**0.5

    def __init__(self, activation: str) -> None:
        self.activation = dual_activation(activation)

    @property
    def size(self) -> Tensor:
        """Mean square of a unit at |z|^2 = d."""
        return self.activation.diagonal(torch.tensor(2.0, dtype=torch.float64))

    def draw(self, d: int, width: int, generator: torch.Generator) -> Draw:
        """See `RandomFeatures.draw`."""
        weights = normal(d, width, generator=generator) / d**0.5
        return Draw(weights, normal(width, generator=generator))

    def features(self, x: Tensor, draw: Draw, scales: Tensor) -> Tensor:
        """See `RandomFeatures.features`."""
        u = self.inputs(x, scales) @ draw.weights + draw.biases
        return self.activation.activation(u) / (self.size.to(u) * u.shape[-1]).sqrt()

    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> Tensor:
        """See `RandomFeatures.kernel`."""
        z, t = self.inputs(x, scales), self.inputs(y, scales)
        d = z.shape[-1]
        q1 = 1.0 + z.square().sum(dim=-1, keepdim=True) / d
        q2 = 1.0 + t.square().sum(dim=-1).unsqueeze(-2) / d
        return self.activation.dual(q1, q2, 1.0 + z @ t.mT / d) / self.size.to(z)

    def log_scale_prior(self, d: int) -> tuple[float, float]:
        """See `RandomFeatures.log_scale_prior`: centred at weights of unit size."""
        return 0.0, 1.0


BOUNDED_ACTIVATIONS = {
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "gaussian": lambda u: torch.exp(-0.5 * u.square()),
}


class BandlimitedNetworkFeatures(RandomFeatures):
    """Hidden units sigma(a . x - b), x in [-1, 1]^d, a and b uniform on a bounded domain.

    a is within the bandwidths, which are the scales; b in [-lambda, lambda], lambda their
    geometric mean (Li et al. 2023, arXiv 2008.08427).

    Args:
        activation: "tanh", "sigmoid" or "gaussian".
        domain: Of a: "cube" or "ball".
    """

    spread = 2.0

    def __init__(self, activation: str, domain: str) -> None:
        self.activation = BOUNDED_ACTIVATIONS[activation]
        self.domain = domain

    def draw(self, d: int, width: int, generator: torch.Generator) -> Draw:
        """See `RandomFeatures.draw`."""
        weights = bounded_weights(self.domain, d, width, generator)
        return Draw(weights, uniform(width, generator=generator))

    def features(self, x: Tensor, draw: Draw, scales: Tensor) -> Tensor:
        """See `RandomFeatures.features`."""
        u = self.inputs(x, scales) @ draw.weights - scales.log().mean().exp() * draw.biases
        return self.activation(u) / u.shape[-1] ** 0.5

    def kernel(self, x: Tensor, y: Tensor, scales: Tensor) -> None:
        """See `RandomFeatures.kernel`: there is no closed form."""
        return None

    def log_scale_prior(self, d: int) -> tuple[float, float]:
        """See `bandwidth_prior`."""
        return bandwidth_prior(d)


def bounded_weights(domain: str, d: int, count: int, generator: torch.Generator) -> Tensor:
    """`d x count` weights, uniform on [-1, 1]^d ("cube") or in the unit ball ("ball")."""
    if domain == "cube":
        return uniform(d, count, generator=generator)
    radii = ((1.0 + uniform(count, generator=generator)) / 2.0) ** (1.0 / d)
    return orthogonal_directions(d, count, generator) * radii


def bandwidth_prior(d: int) -> tuple[float, float]:
    """Mean and standard deviation of the normal prior of log bandwidth, inputs in [-1, 1].

    The bandwidth b of a cube has frequencies of standard deviation b / sqrt(3), those of a squared
    exponential of lengthscale sqrt(3) / (2 b) on the unit cube: that lengthscale's prior is taken.
    """
    mean, std = log_lengthscale_prior(d)
    return 0.5 * math.log(3.0) - math.log(2.0) - mean, std
