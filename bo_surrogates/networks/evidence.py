"""The scales of a network's prior and the noise variance, by the evidence of a Gaussian process.

A network with weights theta ~ N(0, diag(scales^2)) has functions with the covariance

    k(x, x') = s^2 (E[h(x) . h(x')] / width + 1)

h the last hidden layer, s the scale of the output layer. A Gaussian process with this covariance
(the network itself, once its width is large: Neal 1996, section 2.1) has an evidence in closed
form (Rasmussen and Williams 2006, equation 2.30). Its maximum over the first layer's scale (how
fast functions vary), s of each output (how large they are) and the noise variance is an empirical
Bayes estimate that costs far less than training: with k = s^2 U diag(l) U^T, an outcome's
coordinates U^T y are independent with variances s^2 l_i + v, so that a whole grid of s and v takes
one eigendecomposition. The maximum is weighed by log-normal priors, without which a handful of
observations would be explained by noise alone, or by none.

With one scale an input (automatic relevance determination, Neal 1996, section 1.2.5) there is no
grid: the logarithms of all scales and variances climb the same sum by L-BFGS-B from the grid's best
point with the prior median of the first layer, through the gradient of the covariance.

The same maximum over a network's own weights would be of no use: a network that fits every
observation makes noise look unlikely.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from scipy.optimize import minimize
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.networks import BatchedMLP

MAX_POINTS = 300  # more are thinned out at random: the evidence is of few numbers
FEATURES = 2048  # hidden units, over all networks drawn, that estimate the covariance
OCTAVES = tuple(0.5 * i for i in range(-5, 6))  # of the first layer's scale about its prior median
SIZES = tuple(2.0 ** (0.5 * i) for i in range(-5, 6))  # s, relative to its prior median
NOISE_POINTS = 60
INPUT_SCALE_STD, SIZE_STD = 0.25, 0.7  # of the logarithms' priors
RELEVANCE_STD = 1.0  # likewise, of each input's own scale
MAX_LOG_RELEVANCE = 4.0  # keeps the search where activations do not saturate in all units
ITERATIONS = 60  # of the search for one scale an input


class BoundedNoisePrior(NamedTuple):
    """Log-normal prior of a noise variance of standardized outcomes, and its limits.

    Attributes:
        mean: Of the logarithm.
        std: Of the logarithm.
        low: Smallest variance considered, > 0.
        high: Largest.
    """

    mean: float
    std: float
    low: float
    high: float


class PriorEstimate(NamedTuple):
    """What maximizes the evidence.

    Attributes:
        input_scale: Scale of the first layer's weights, see `BatchedMLP.scales`.
        output_scale: `m`, scale of the output layer's weights and biases, an output.
        noise: `1 x m`, the noise variances.
        relevance: `d`, each input's factor of `input_scale`, with geometric mean 1.
    """

    input_scale: float
    output_scale: Tensor
    noise: Tensor
    relevance: Tensor

    def scales(self, network: BatchedMLP, weight_scale: float) -> Tensor:
        """`P` prior standard deviations of a network's parameters, float64.

        Args:
            network: Its shape.
            weight_scale: Scale of the hidden layers after the first.
        """
        scales = network.scales(self.input_scale, weight_scale).to(self.output_scale.device)
        inputs, outputs = network.inputs, network.outputs
        first = scales[: inputs * network.width].unflatten(0, (inputs, -1))  # a view
        first *= self.relevance.to(scales).unsqueeze(-1)
        last = scales[-(network.width + 1) * outputs :].unflatten(0, (-1, outputs))  # a view
        last[:-1] = self.output_scale / network.width**0.5
        last[-1] = self.output_scale
        return scales


def log_evidence(covariance: Tensor, Y: Tensor, sizes: Tensor, noise: Tensor) -> Tensor:
    """Log density of outcomes under N(0, s^2 covariance + v I), up to a constant.

    Args:
        covariance: `n x n`.
        Y: `n x m` outcomes.
        sizes: `a` values of s.
        noise: `b` values of v.

    Returns:
        `a x b x m`.
    """
    values, vectors = torch.linalg.eigh(covariance)
    power = (vectors.mT @ Y).square()  # n x m
    signal = sizes.square().unsqueeze(-1) * values.clamp_min(0)  # a x n
    variance = signal.unsqueeze(1) + noise.unsqueeze(-1)  # a x b x n
    return -0.5 * (variance.reciprocal() @ power + variance.log().sum(dim=-1, keepdim=True))


def estimate_prior(
    network: BatchedMLP,
    X: Tensor,
    Y: Tensor,
    generator: torch.Generator,
    *,
    input_scale: float,
    weight_scale: float,
    noise: Tensor | BoundedNoisePrior,
    signal: float = 1.0,
    learn_scales: bool = True,
    per_input: bool = False,
) -> PriorEstimate:
    """Maximize evidence times priors.

    Args:
        network: Shape of the network.
        X: `n x d` network inputs.
        Y: `n x m` standardized outcomes.
        generator: Of the networks that estimate the covariance, and of the choice of points.
        input_scale: Prior median of the first layer's scale.
        weight_scale: Scale of the hidden layers, and prior median of the output layer's.
        noise: The prior of the noise variances, or known ones > 0, `n x m` or `1 x m`.
        signal: The functions' variance is this times the network's.
        learn_scales: Whether the scales are learnt; otherwise they are their prior medians.
        per_input: Whether the first layer has one scale an input, where they are learnt.
    """
    thin = torch.randperm(len(X), generator=generator)[:MAX_POINTS].to(X.device)
    X, Y = X[thin].double(), Y[thin].double()
    draws = max(1, FEATURES // network.width)
    standard = network.draw(
        draws, torch.ones(network.num_parameters, dtype=torch.float64, device=X.device), generator
    )
    octaves = X.new_tensor(OCTAVES if learn_scales and not per_input else (0.0,))
    sizes = X.new_tensor(SIZES if learn_scales else (1.0,))
    if isinstance(noise, BoundedNoisePrior):
        ends = math.log(noise.low), math.log(noise.high)
        variances = torch.linspace(*ends, NOISE_POINTS, dtype=X.dtype, device=X.device).exp()
        noise_score = -0.5 * ((variances.log() - noise.mean) / noise.std).square()
        root = torch.ones_like(Y[:1])
    else:
        variances, noise_score = X.new_ones(1), X.new_zeros(1)
        known = noise.double().expand(len(noise) if len(noise) == 1 else len(X), -1)
        root = (known[thin] if len(known) > 1 else known).sqrt()
    size_score = -0.5 * (sizes.log() / SIZE_STD).square()
    weighed = (size_score.unsqueeze(-1) + noise_score).unsqueeze(-1)  # a x b x 1

    candidates = []
    for octave in octaves.tolist():
        scales = network.scales(input_scale * 2.0**octave, weight_scale).to(X)
        covariance = signal * weight_scale**2 * _covariance(network, standard * scales, X)
        score = weighed + _scores(covariance, Y, sizes, variances, root)
        best = score.flatten(end_dim=1).max(dim=0)
        penalty = 0.5 * (octave * math.log(2.0) / INPUT_SCALE_STD) ** 2
        candidates.append((best.values.sum().item() - penalty, octave, best.indices))
    _, octave, index = max(candidates, key=lambda c: c[0])
    chosen, size = variances[index % len(variances)], sizes[index // len(variances)]
    first_scale, relevance = input_scale * 2.0**octave, X.new_ones(X.shape[-1])
    if learn_scales and per_input:
        search = RelevanceSearch(
            network, standard * network.scales(input_scale, weight_scale).to(X), X, Y,
            signal * weight_scale**2, root, noise if isinstance(noise, BoundedNoisePrior) else None,
        )  # fmt: skip
        scale, size, chosen = search.maximize(size, chosen)
        first_scale = input_scale * scale.log().mean().exp().item()
        relevance = scale / scale.log().mean().exp()
    return PriorEstimate(
        first_scale,
        weight_scale * size,
        chosen.unsqueeze(0) if isinstance(noise, BoundedNoisePrior) else noise,
        relevance,
    )


class RelevanceSearch(NamedTuple):
    """The search for one scale an input.

    Attributes:
        network: Shape of the network.
        theta: `K x P` parameters of networks from the prior median.
        X: `n x d` network inputs.
        Y: `n x m` outcomes.
        variance: Prior variance of the functions over that of `_covariance`.
        root: `1 x m` or `n x m` standard deviations of the noise, where they are known.
        prior: Of the noise variances, where they are not.
    """

    network: BatchedMLP
    theta: Tensor
    X: Tensor
    Y: Tensor
    variance: float
    root: Tensor
    prior: BoundedNoisePrior | None

    def log_posterior(self, relevance: Tensor, size: Tensor, noise: Tensor) -> Tensor:
        """Log evidence plus log priors, up to a constant.

        Args:
            relevance: `d` logarithms of the inputs' scales over their median.
            size: `m` logarithms of the output layers' scales over theirs.
            noise: `m` logarithms of the noise variances; not read where these are known.
        """
        covariance = self.variance * _covariance(self.network, self.theta, self.X * relevance.exp())
        value = -0.5 * (relevance / RELEVANCE_STD).square().sum()
        value = value - 0.5 * (size / SIZE_STD).square().sum()
        added = self.root.square()
        if self.prior is not None:
            value = value - 0.5 * ((noise - self.prior.mean) / self.prior.std).square().sum()
            added = noise.exp() * added
        added = added.expand_as(self.Y).mT  # m x n
        total = (2 * size).exp()[:, None, None] * covariance + added.diag_embed()
        factor = psd_safe_cholesky(total)
        white = torch.linalg.solve_triangular(factor, self.Y.mT.unsqueeze(-1), upper=False)
        log_root = factor.diagonal(dim1=-2, dim2=-1).log().sum()
        result: Tensor = value - 0.5 * white.square().sum() - log_root
        return result

    def maximize(self, size: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scales `d` over their median, those of the output layers `m`, and variances `m`.

        Args:
            size: `m` scales of the output layers over their median, where the search starts.
            noise: `m` noise variances, likewise.
        """
        d, m = self.X.shape[-1], self.Y.shape[-1]
        start = torch.cat([self.X.new_zeros(d), size.log(), noise.expand(m).log()])
        limits = [(-MAX_LOG_RELEVANCE, MAX_LOG_RELEVANCE)] * d
        limits += [(math.log(SIZES[0]), math.log(SIZES[-1]))] * m
        low, high = (1.0, 1.0) if self.prior is None else (self.prior.low, self.prior.high)
        limits += [(math.log(low), math.log(high))] * m

        def negative(point: Any) -> tuple[float, Any]:
            at = torch.as_tensor(point, dtype=self.X.dtype).to(self.X.device).requires_grad_()
            value = -self.log_posterior(*at.split((d, m, m)))
            (gradient,) = torch.autograd.grad(value, at)
            return value.item(), gradient.cpu().numpy()

        with torch.enable_grad():
            found = minimize(
                negative, start.cpu().numpy(), jac=True, method="L-BFGS-B", bounds=limits,
                options={"maxiter": ITERATIONS, "ftol": 1e-7},
            )  # fmt: skip
        relevance, size, noise = torch.as_tensor(found.x).to(self.X).exp().split((d, m, m))
        return relevance, size, noise


def _scores(
    covariance: Tensor, Y: Tensor, sizes: Tensor, variances: Tensor, root: Tensor
) -> Tensor:
    """Log evidence `a x b x m` where the noise is v times `root^2` (`n x m`, or `1 x m`)."""
    if (root == 1).all():
        return log_evidence(covariance, Y, sizes, variances)
    parts = []
    for y, r in zip(Y.mT.unsqueeze(-1), root.mT.unsqueeze(-1), strict=True):
        # Divided by the noise's standard deviation, outcomes have noise of variance v.
        parts.append(log_evidence(covariance / (r * r.mT), y / r, sizes, variances))
    return torch.cat(parts, dim=-1)


def _covariance(network: BatchedMLP, theta: Tensor, X: Tensor) -> Tensor:
    """`n x n` mean of h(x) . h(x') / width + 1 over networks `K x P`."""
    features = network.features(theta, X.expand(len(theta), -1, -1))  # K x n x width
    h = features.movedim(0, 1).flatten(start_dim=1)
    return h @ h.mT / h.shape[-1] + 1.0
