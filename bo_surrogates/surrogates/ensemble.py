"""Deep ensemble: K networks trained from different starts, all at once.

Model of a member (outcomes standardized): y_i = f(x_i) + e_i, f = g_theta + beta p_k, where g is a
multilayer perceptron with theta ~ N(0, diag(scales^2)), and p_k a fixed network of the same shape
drawn from that prior (Osband et al. 2018, arXiv 1806.03335); e_i ~ N(0, s2) with s2 learnt, fixed,
or given per point.

Inference: the noise variance of each output maximizes the marginal likelihood of the Gaussian
process that has the prior covariance of f (estimated from networks drawn from the prior), times a
LogNormal prior. A maximum a posteriori estimate along with the weights would be far too small: a
network that explains the noise makes it likely. Each member then maximizes its log posterior

    sum_i w_ki log N(y_i; f(x_i), s2_i) + log N(theta; 0, scales^2)

by full-batch Adam with a cosine schedule (Lakshminarayanan et al. 2017, arXiv 1612.01474; here the
noise does not depend on x). Members differ by their start, by p_k and, with `bootstrap`, by the
weights w_k: a Bayesian bootstrap (Rubin 1981), exponential variables with mean 1.

Prediction: the members are an equally weighted mixture.

The defaults were chosen by predictive log density and coverage on five functions of 2 to 6 inputs
at n = 10, 30 and 100. Bootstrap weights in the place of prior functions gave intervals that are
much too narrow: different starts and resampled data alone leave too little diversity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.inference.adam import minimize
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate

LOG_NOISE_MEAN, LOG_NOISE_STD = -3.0, 1.0  # of the log of the standardized noise variance
MIN_NOISE_VARIANCE = 1e-4  # known variances below it are raised: Adam needs a bounded curvature
MIN_LEARNT, MAX_LEARNT = 1e-2, 10.0
# Of the estimate of the noise: networks drawn from the prior, and most points used.
PRIOR_DRAWS, MAX_POINTS = 1024, 1000


@dataclass(frozen=True)
class EnsembleConfig(Config):
    """Configuration of `ensemble`.

    Attributes:
        members: Number of networks.
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        steps: Adam steps.
        learning_rate: First learning rate; it falls to zero along a cosine.
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster.
        weight_scale: Prior scale of all further weights (weight decay is its inverse square).
        prior_function: beta, the size of the random prior functions; 0 for none.
        bootstrap: Whether members see the data with random weights.
        noise: "learnt" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "learning_rate", "input_scale", "prior_function",
    )  # fmt: skip

    members: int = integer(16, 1, 1000, log=True)
    width: int = integer(32, 1, 4096, log=True, search=(16, 256))
    depth: int = integer(2, 1, 4)
    activation: str = choice("tanh", tuple(ACTIVATIONS))
    steps: int = integer(200, 1, 100_000, log=True)
    learning_rate: float = real(4e-2, 1e-6, 1.0, log=True, search=(1e-3, 1e-1))
    input_scale: float = real(1.2, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(2.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    prior_function: float = real(1.5, 0.0, 100.0, search=(0.0, 3.0))
    bootstrap: bool = flag(False)
    noise: str = choice("learnt", ("learnt", "fixed"))
    noise_variance: float = real(5e-2, 1e-8, 1e4, log=True)


class DeepEnsemble(EnsembleSurrogate):
    """See the module's docstring; `prior_weights` are the parameters of the p_k."""

    config_class: ClassVar[type[Config]] = EnsembleConfig
    config: EnsembleConfig
    prior_weights: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        self.register_buffer("prior_weights", torch.zeros_like(self.weights))

    @classmethod
    def make_network(cls, config: EnsembleConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `EnsembleSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    @classmethod
    def number_of_draws(cls, config: EnsembleConfig) -> int:
        """The members."""
        return config.members

    def function_values(self, X: Tensor, draws: Tensor | None = None) -> Tensor:
        """g + beta p; see `EnsembleSurrogate.function_values`."""
        values = super().function_values(X, draws)
        if self.config.prior_function == 0:
            return values
        prior = self.prior_weights if draws is None else self.prior_weights[draws]
        return values + self.config.prior_function * self.network.forward(prior, X)

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train all members; see `Surrogate.fit`.

        With `warm_start` the members go on from that model's weights with its prior functions.
        """
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "ensemble"))
        start = self._start(generator, warm_start)
        if config.bootstrap:
            shape = (config.members, len(self._targets), 1)
            exponential = torch.empty(shape, dtype=torch.float64).exponential_(generator=generator)
            point_weights = exponential.to(start)
        else:
            point_weights = None
        noise = self._noise(generator)
        loss = self._negative_log_posterior(noise, point_weights)
        minimum = minimize(loss, start, steps=config.steps, learning_rate=config.learning_rate)
        self._keep(minimum.state, noise.mean(dim=-2))
        with torch.no_grad():
            values = self.function_values(self.network_inputs(self._inputs))
        residual = (values - self._targets).square().mean().sqrt().item()
        improved = minimum.last <= minimum.first
        self.diagnostics = FitDiagnostics(
            converged=improved,
            message=""
            if improved
            else f"the loss rose from {minimum.first:.4g} to {minimum.last:.4g}; lower the "
            "learning rate",
            values={
                "loss_per_member": minimum.last / config.members,
                "first_loss_per_member": minimum.first / config.members,
                "steps": float(config.steps),
                "standardized_residual": residual,
            },
        )
        return self

    @property
    def _prior_scales(self) -> Tensor:
        config = self.config
        return self.network.scales(
            config.input_scale, config.weight_scale, output_scale=config.weight_scale
        ).to(self.weights)

    def _start(self, generator: torch.Generator, warm_start: Surrogate | None) -> Tensor:
        """First state of the training; the prior functions are drawn and stored on the way."""
        k, dtype = self.config.members, self.weights.dtype
        theta = self.network.draw(k, self._prior_scales, generator, dtype)
        self.prior_weights.copy_(self.network.draw(k, self._prior_scales, generator, dtype))
        if isinstance(warm_start, DeepEnsemble) and warm_start.weights.shape == theta.shape:
            theta = warm_start.weights.to(theta)
            self.prior_weights.copy_(warm_start.prior_weights)
        return theta

    def _noise(self, generator: torch.Generator) -> Tensor:
        """Noise variance of each observation, `n x m` or `1 x m`, standardized."""
        if self._target_variance is not None:
            return self._target_variance
        if self.config.noise == "fixed":
            return torch.full_like(self._targets[:1], self.config.noise_variance)
        Y = self._targets
        chosen = torch.randperm(len(Y), generator=generator)[:MAX_POINTS].to(Y.device)
        X = self.network_inputs(self._inputs[chosen]).detach()
        draws = self.network.draw(PRIOR_DRAWS, self._prior_scales, generator)
        functions = self.network.forward(draws, X).movedim(-1, 0).flatten(end_dim=1)
        covariance = functions.T @ functions / len(functions)  # the outputs' prior is one
        values, vectors = torch.linalg.eigh(covariance * (1 + self.config.prior_function**2))
        # In the eigenvectors' basis the outcomes are independent, of variance value + noise.
        power = (vectors.T @ Y[chosen]).square()
        ends = math.log(MIN_LEARNT), math.log(MAX_LEARNT)
        log_noise = torch.linspace(*ends, 200, dtype=Y.dtype, device=Y.device).reshape(-1, 1, 1)
        variance = values.clamp_min(0).unsqueeze(-1) + log_noise.exp()
        score = -(power / variance + variance.log()).sum(dim=1, keepdim=True)
        score = score - ((log_noise - LOG_NOISE_MEAN) / LOG_NOISE_STD).square()
        return log_noise[score.argmax(dim=0).flatten()].exp().reshape(1, -1)

    def _negative_log_posterior(
        self, noise: Tensor, point_weights: Tensor | None
    ) -> Callable[[Tensor], Tensor]:
        """Sum over members of the loss of their weights `K x P`, up to a constant.

        Args:
            noise: Variance of each observation, `n x m` or `1 x m`, standardized.
            point_weights: `K x n x 1` bootstrap weights, None for ones.
        """
        network, beta = self.network, self.config.prior_function
        X = self.network_inputs(self._inputs).detach()
        targets = self._targets.expand(self.config.members, -1, -1)
        if beta > 0:  # g has to explain what the prior function does not
            targets = targets - beta * network.forward(self.prior_weights, X)
        variance = noise.clamp_min(MIN_NOISE_VARIANCE)
        precision = self._prior_scales.pow(-2)

        def loss(theta: Tensor) -> Tensor:
            terms = (targets - network.forward(theta, X)).square() / variance
            if point_weights is not None:
                terms = point_weights * terms
            return 0.5 * (terms.sum() + (precision * theta.square()).sum())

        return loss


SURROGATES.register(
    SurrogateEntry(
        name="ensemble",
        model_class=DeepEnsemble,
        summary="Deep ensemble: networks from different starts with random prior functions",
        paper="Lakshminarayanan et al. 2017, arXiv 1612.01474; Osband et al., arXiv 1806.03335",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=500),
    )
)
