"""Deep ensemble: K networks trained from different starts, all at once.

Model of a member (outcomes standardized): y_i = f(x_i) + e_i, f = g_theta + beta p_k, where g is a
multilayer perceptron with theta ~ N(0, diag(scales^2)), and p_k a fixed network of the same shape
drawn from that prior (Osband et al. 2018, arXiv 1806.03335); e_i ~ N(0, s2) with s2 learnt per
member and output under a LogNormal prior, or fixed, or given per point.

Inference: each member maximizes its log posterior

    sum_i w_ki log N(y_i; f(x_i), s2_i) + log N(theta; 0, scales^2) + log p(s2)

by full-batch Adam with a cosine schedule (Lakshminarayanan et al. 2017, arXiv 1612.01474; here the
noise does not depend on x). Members differ by their start, by p_k and, with `bootstrap`, by the
weights w_k: a Bayesian bootstrap (Rubin 1981), exponential variables with mean 1.

Prediction: the members are an equally weighted mixture.
"""

from __future__ import annotations

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

# BoTorch's prior on the noise variance of standardized outcomes (Hvarfner et al. 2024, appendix),
# and its smallest variance.
LOG_NOISE_MEAN, LOG_NOISE_STD, MIN_NOISE_VARIANCE = -4.0, 1.0, 1e-4


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
        noise_variance: Of standardized outcomes; the value if fixed, where learning starts if
            learnt.
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
    noise_variance: float = real(1e-2, 1e-8, 1e4, log=True)


class DeepEnsemble(EnsembleSurrogate):
    """See the module's docstring; `prior_weights` are the parameters of the p_k."""

    config_class: ClassVar[type[Config]] = EnsembleConfig
    config: EnsembleConfig
    prior_weights: Tensor

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
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
        loss = self._negative_log_posterior(point_weights)
        minimum = minimize(loss, start, steps=config.steps, learning_rate=config.learning_rate)
        theta, log_excess = self._split(minimum.state)
        if self._target_variance is not None:
            noise = self._target_variance.mean(dim=-2)
        elif config.noise == "learnt":
            noise = MIN_NOISE_VARIANCE + log_excess.exp()
        else:
            noise = torch.full_like(log_excess, config.noise_variance)
        self._keep(theta, noise)
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

    def _split(self, state: Tensor) -> tuple[Tensor, Tensor]:
        """What is trained: weights `K x P`, log of the noise variance above its minimum `K x m`."""
        theta, log_excess = state.tensor_split([self.network.num_parameters], dim=-1)
        return theta, log_excess

    def _start(self, generator: torch.Generator, warm_start: Surrogate | None) -> Tensor:
        """First state of the training; the prior functions are drawn and stored on the way."""
        k, dtype = self.config.members, self.weights.dtype
        theta = self.network.draw(k, self._prior_scales, generator, dtype)
        self.prior_weights.copy_(self.network.draw(k, self._prior_scales, generator, dtype))
        noise = torch.full_like(self.noise_variance, self.config.noise_variance)
        if isinstance(warm_start, DeepEnsemble) and warm_start.weights.shape == theta.shape:
            theta = warm_start.weights.to(theta)
            self.prior_weights.copy_(warm_start.prior_weights)
            noise = warm_start.noise_variance.to(noise)
        excess = (noise - MIN_NOISE_VARIANCE).clamp_min(1e-2 * MIN_NOISE_VARIANCE)
        return torch.cat([theta, excess.log()], dim=-1)

    def _negative_log_posterior(self, point_weights: Tensor | None) -> Callable[[Tensor], Tensor]:
        """Sum over members of the loss of a state, up to a constant.

        Args:
            point_weights: `K x n x 1` bootstrap weights, None for ones.
        """
        network, beta = self.network, self.config.prior_function
        X = self.network_inputs(self._inputs).detach()
        targets = self._targets.expand(self.config.members, -1, -1)
        if beta > 0:  # g has to explain what the prior function does not
            targets = targets - beta * network.forward(self.prior_weights, X)
        known: Tensor | None = None
        if self._target_variance is not None:
            known = self._target_variance.clamp_min(MIN_NOISE_VARIANCE)
        elif self.config.noise == "fixed":
            known = torch.full_like(self._targets, self.config.noise_variance)
        precision = self._prior_scales.pow(-2)

        def loss(state: Tensor) -> Tensor:
            theta, log_excess = self._split(state)
            variance = known
            if variance is None:
                variance = MIN_NOISE_VARIANCE + log_excess.exp().unsqueeze(-2)
            terms = (targets - network.forward(theta, X)).square() / variance + variance.log()
            if point_weights is not None:
                terms = point_weights * terms
            prior = (precision * theta.square()).sum()
            noise_prior = ((log_excess - LOG_NOISE_MEAN) / LOG_NOISE_STD).square().sum()
            return 0.5 * (terms.sum() + prior + noise_prior)

        return loss


SURROGATES.register(
    SurrogateEntry(
        name="ensemble",
        model_class=DeepEnsemble,
        summary="deep ensemble: networks from different starts with random prior functions",
        paper="Lakshminarayanan et al. 2017, arXiv 1612.01474; Osband et al., arXiv 1806.03335",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=500),
    )
)
