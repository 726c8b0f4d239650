"""Monte Carlo dropout: a network trained with random units missing, and used that way.

Model (outcomes standardized): y_i = f(x_i) + e_i, f a multilayer perceptron with weights
theta ~ N(0, diag(scales^2)), e_i ~ N(0, v) with v learnt, fixed, or given per point.

Inference (Gal and Ghahramani 2016, arXiv 1506.02142): the variational family is that of networks
theta_z whose hidden units are removed at random: each row of weights that leaves a hidden unit is
multiplied by z / (1 - p), z ~ Bernoulli(1 - p), with p the dropout rate. One set of weights
maximizes the evidence lower bound, up to the family's entropy,

    E_z[sum_i log N(y_i; f(x_i; theta_z), v) + log N(theta_z; 0, scales^2)],

by Adam with fresh masks at each step. (The expected log prior is the paper's weight decay: its
section 3 has the penalty (1 - p) |W|^2 / (2 s^2) for weights W before the division by 1 - p, which
is the same.) Inputs are not dropped: a surrogate has few of them. Scales and v maximize the
evidence of the prior's Gaussian process (`networks/evidence.py`): a search over v by validation, as
in the paper, has too few points to go by.

Prediction: masks are drawn once, when the model is fitted. A mask is a function, the same for all
points of a batch; the functions are an equally weighted mixture.

The family cannot represent certainty: functions differ by p however many observations there are.
It is here as the yardstick it has become; `python -m benchmarks.calibration` shows how far it is
from the other surrogates. The default rate is the best of 0.02, 0.05 and 0.1 on that benchmark's
functions; several `members` predict better than the paper's one network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.adam import minimize
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, Layer
from bo_surrogates.networks.evidence import BoundedNoisePrior, PriorEstimate, estimate_prior
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate
from bo_surrogates.threads import limited_threads

NOISE = BoundedNoisePrior(mean=-4.0, std=1.0, low=1e-4, high=10.0)  # of standardized outcomes


@dataclass(frozen=True)
class MCDropoutConfig(Config):
    """Configuration of `mc_dropout`.

    Attributes:
        rate: p, the probability that a hidden unit is dropped.
        members: Networks trained from different starts; the paper has one.
        draws: Functions kept: masks, over all members.
        masks: Masks drawn at each step for a member.
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        steps: Adam steps.
        learning_rate: First learning rate, in prior standard deviations of a weight; it falls to
            zero along a cosine.
        input_scale: Prior scale of the first layer's weights: the middle of the search by evidence.
        weight_scale: Prior scale of all further weights; the output layer's is learnt likewise.
        noise: "learnt" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "rate", "width", "depth", "activation", "learning_rate", "input_scale",
    )  # fmt: skip

    rate: float = real(0.1, 0.0, 0.9, search=(0.01, 0.5))
    members: int = integer(1, 1, 1000, log=True)
    draws: int = integer(128, 1, 100_000, log=True)
    masks: int = integer(8, 1, 1000, log=True)
    width: int = integer(64, 1, 4096, log=True, search=(16, 256))
    depth: int = integer(2, 1, 4)
    activation: str = choice("tanh", tuple(ACTIVATIONS))
    steps: int = integer(500, 1, 100_000, log=True)
    learning_rate: float = real(4e-2, 1e-6, 10.0, log=True, search=(1e-3, 0.3))
    input_scale: float = real(1.2, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(2.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    noise: str = choice("learnt", ("learnt", "fixed"))
    noise_variance: float = real(5e-2, 1e-4, 1e4, log=True)


class MCDropout(EnsembleSurrogate):
    """See the module's docstring; `trained` (`members x P`) are the weights without a mask."""

    config_class: ClassVar[type[Config]] = MCDropoutConfig
    config: MCDropoutConfig
    trained: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        shape = (self.config.members, self.network.num_parameters)
        self.register_buffer("trained", self.weights.new_zeros(shape))

    @classmethod
    def make_network(cls, config: MCDropoutConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `EnsembleSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    @classmethod
    def number_of_draws(cls, config: MCDropoutConfig) -> int:
        """The masks kept."""
        return config.draws

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train, and draw the functions; see `Surrogate.fit`.

        With `warm_start` the training goes on from that model's weights, for a quarter of the
        steps.
        """
        with limited_threads(1):  # the order of a sum decides its rounding
            return self._train(warm_start)

    def _train(self, warm_start: Surrogate | None) -> Self:
        config, Y = self.config, self._targets
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "mc_dropout"))
        X = self.network_inputs(self._inputs).detach()
        prior = self._estimate_prior(X, generator)
        scales = prior.scales(self.network, config.weight_scale).to(Y)
        posterior = NetworkPosterior(self.network, X, Y, scales, prior.noise.to(Y))
        start = self.network.draw(config.members, torch.ones_like(scales), generator)
        steps = config.steps
        if isinstance(warm_start, MCDropout) and warm_start.trained.shape == start.shape:
            start, steps = warm_start.trained.to(start) / scales, -(-steps // 4)

        def loss(whitened: Tensor) -> Tensor:
            networks = (whitened * scales).repeat_interleave(config.masks, dim=0)
            return posterior.negative_sum(self.masked(networks, generator)) / config.masks

        minimum = minimize(loss, start, steps=steps, learning_rate=config.learning_rate)
        self.trained.copy_(minimum.state * scales)
        rounds = -(-config.draws // config.members)
        networks = self.trained.repeat(rounds, 1)[: config.draws]
        self._keep(self.masked(networks, generator), prior.noise.to(Y).mean(dim=-2))
        self.diagnostics = self._diagnose_training(minimum, steps, prior.noise)
        return self

    def masked(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Networks `K x P` with hidden units dropped, each with masks of its own.

        Args:
            theta: `K x P`.
            generator: Of the masks; it is advanced.
        """
        keep, layers = 1.0 - self.config.rate, []
        for i, (weight, bias) in enumerate(self.network.unpack(theta)):
            if i > 0:
                shape = (len(theta), weight.shape[-2], 1)
                uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
                weight = weight * ((uniform < keep).to(weight) / keep)
            layers.append(Layer(weight, bias))
        return self.network.pack(layers)

    def _estimate_prior(self, X: Tensor, generator: torch.Generator) -> PriorEstimate:
        config, Y = self.config, self._targets
        noise: Tensor | BoundedNoisePrior = NOISE
        if self._target_variance is not None:
            noise = self._target_variance.clamp_min(NOISE.low)
        elif config.noise == "fixed":
            noise = torch.full_like(Y[:1], config.noise_variance)
        return estimate_prior(
            self.network, X, Y, generator, input_scale=config.input_scale,
            weight_scale=config.weight_scale, noise=noise,
        )  # fmt: skip


SURROGATES.register(
    SurrogateEntry(
        name="mc_dropout",
        model_class=MCDropout,
        summary="Monte Carlo dropout: one network, a function for each mask of its hidden units",
        paper="Gal and Ghahramani 2016, arXiv 1506.02142",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=500, cost="seconds"),
    )
)
