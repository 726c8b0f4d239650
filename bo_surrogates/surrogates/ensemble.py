"""Deep ensemble: networks trained from different starts, their output layers integrated out.

Model of member k (outcomes standardized): y_i = f(x_i) + e_i, f = g_theta + beta p_k, where g is a
multilayer perceptron with theta ~ N(0, diag(scales^2)), and p_k a fixed network of the same shape
drawn from that prior (Osband et al. 2018, arXiv 1806.03335); e_i ~ N(0, v) with v learnt, fixed, or
given per point.

Inference, in three steps.

1. Prior and noise. The scales of the first layer, one an input, that of the output layer and v
   maximize the evidence of the Gaussian process that has the prior covariance of f
   (`networks/evidence.py`).
2. Hidden layers. Given these the output layer is Bayesian linear regression, and is integrated out
   in closed form (`networks/posterior.py`). Each member's hidden layers maximize what is left,
   their marginal log posterior, from a start of their own, by full-batch Adam with a cosine
   schedule (Lakshminarayanan et al. 2017, arXiv 1612.01474; here the noise does not depend on x).
3. Output layers. Several are drawn for each member from their exact conditional given the member's
   hidden layers: what a member does not know about its output layer is part of the posterior
   (the neural linear model of Snoek et al. 2015, arXiv 1502.05700, in each member).

Members differ by their start, by p_k and, with `bootstrap`, by weights of the observations: a
Bayesian bootstrap (Rubin 1981), exponential variables with mean 1, or resampling with replacement
(Efron 1979), whose multiplicities are weights. With `output_layer="trained"` the output layer is
trained with the others, and a member is one function: the classical deep ensemble.

Prediction: the functions, `output_draws` a member, are an equally weighted mixture.

A prior of the noise that is too wide ends Bayesian optimization: with a standard deviation of 2 of
its logarithm, the ten first observations of Hartmann-6 are explained by noise alone.

Activation and scales. Final regrets of seeds 10, 11 and 12 by

    Study.of([problem], [SurrogateArm("e", "ensemble", config)], seeds=[10, 11, 12], iterations=k,
             initial=10, q=2, acquisition=AcquisitionConfig(
                 mc_samples=64, num_restarts=2, raw_samples=64, maxiter=60))

of `studies.study`, on Hartmann-6 (k = 20) and Branin (k = 10):

    activation, scales      Hartmann-6             Branin
    sine, per-input         0.051  0.347  0.153    0.011  0.003  0.010
    tanh, per-input         1.987  0.545  1.485
    tanh, learnt            1.987  1.571  2.071    0.122  0.005  0.123
    `gp`                    0.008  0.032  0.061

(an empty place was not measured; these seeds chose the default). A likely reason for the difference
between activations, not tested: the prior variance of networks of sines is nearly the same
everywhere, that of tanh is largest in the corners of the cube, of which six inputs have many.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.adam import Minimum
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, Layer
from bo_surrogates.networks.evidence import BoundedNoisePrior, PriorEstimate, estimate_prior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate
from bo_surrogates.threads import limited_threads

LOG_NOISE_MEAN, LOG_NOISE_STD = -4.0, 1.0  # of the log of the standardized noise variance
MAX_LEARNT = 10.0
# Variances below these are raised to them: a regression in float64 bears more than Adam, whose
# steps have to cross a valley about the noise's standard deviation wide.
MIN_NOISE_VARIANCE = {"integrated": 1e-5, "trained": 1e-4}


@dataclass(frozen=True)
class EnsembleConfig(Config):
    """Configuration of `ensemble`.

    Attributes:
        members: Number of networks.
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        output_layer: "integrated", out of what is trained, or "trained" with the other layers.
        output_draws: Output layers drawn for a member, each a function, where it is integrated.
        steps: Adam steps; a quarter of them after a warm start.
        learning_rate: First learning rate, in prior standard deviations of a weight; it falls to
            zero along a cosine.
        scales: Of the prior: "per-input" and "learnt" maximize the evidence, with one scale of the
            first layer an input or one for all; "fixed".
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster. The
            middle of the search where scales are learnt.
        weight_scale: Prior scale of all further weights; the output layer's is learnt likewise.
        prior_function: beta, the size of the random prior functions; 0 for none.
        bootstrap: "none", or the observations' weights: "bayesian", "replacement".
        renewal: Share of a member's prior variance that a warm start draws anew.
        noise: "learnt" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
        precision: Of the training: "single" or "double". What follows it, the regression on the
            hidden layers included, has the data's precision or better.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "learning_rate", "input_scale", "prior_function",
    )  # fmt: skip

    members: int = integer(16, 1, 1000, log=True)
    width: int = integer(32, 1, 4096, log=True, search=(16, 256))
    depth: int = integer(2, 1, 4)
    activation: str = choice("sine", tuple(ACTIVATIONS))
    output_layer: str = choice("integrated", ("integrated", "trained"))
    output_draws: int = integer(16, 1, 10_000, log=True)
    steps: int = integer(200, 1, 100_000, log=True)
    learning_rate: float = real(4e-2, 1e-6, 10.0, log=True, search=(1e-3, 0.3))
    scales: str = choice("per-input", ("per-input", "learnt", "fixed"))
    input_scale: float = real(1.2, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(2.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    prior_function: float = real(1.0, 0.0, 100.0, search=(0.0, 3.0))
    bootstrap: str = choice("none", ("none", "bayesian", "replacement"))
    renewal: float = real(0.1, 0.0, 1.0)
    noise: str = choice("learnt", ("learnt", "fixed"))
    noise_variance: float = real(5e-2, 1e-8, 1e4, log=True)
    precision: str = choice("single", ("single", "double"))


class DeepEnsemble(EnsembleSurrogate):
    """See the module's docstring.

    `weights` are `members` rows, each a member's network with `output_draws` output layers side by
    side. `prior_weights` (`members x P`) are the parameters of the p_k, `prior_scales` (`P`) the
    scales under which they and the starts were drawn.
    """

    config_class: ClassVar[type[Config]] = EnsembleConfig
    config: EnsembleConfig
    prior_weights: Tensor
    prior_scales: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        config, m = self.config, self._targets.shape[-1]
        self.member = BatchedMLP(
            self.network.inputs, m, config.width, config.depth, config.activation
        )
        P = self.member.num_parameters
        self.register_buffer("prior_weights", self.weights.new_zeros(config.members, P))
        self.register_buffer("prior_scales", self.weights.new_ones(P))

    @classmethod
    def make_network(cls, config: EnsembleConfig, inputs: int, outputs: int) -> BatchedMLP:
        """A member with its output layers side by side; the outputs' last index is the draw."""
        return BatchedMLP(
            inputs, outputs * cls._heads(config), config.width, config.depth, config.activation
        )

    @classmethod
    def number_of_draws(cls, config: EnsembleConfig) -> int:
        """The functions: members times output layers."""
        return config.members * cls._heads(config)

    @classmethod
    def number_of_networks(cls, config: EnsembleConfig) -> int:
        """The members."""
        return config.members

    @classmethod
    def _heads(cls, config: EnsembleConfig) -> int:
        """Output layers of a member."""
        return config.output_draws if config.output_layer == "integrated" else 1

    def function_values(self, X: Tensor, draws: Tensor | None = None) -> Tensor:
        """g + beta p; see `EnsembleSurrogate.function_values`.

        Function i is the output layer `i % output_draws` of member `i // output_draws`.
        """
        heads, weights, prior = self._heads(self.config), self.weights, self.prior_weights
        if draws is not None:
            members, place = (draws // heads).unique(return_inverse=True)
            weights, prior = weights[members], prior[members]
        values = self.network.forward(weights, X).unflatten(-1, (-1, heads)).movedim(-1, 1)
        if self.config.prior_function > 0:
            functions = self.member.forward(prior, X)
            values = values + self.config.prior_function * functions.unsqueeze(1)
        return values.flatten(end_dim=1) if draws is None else values[place, draws % heads]

    def subset_draws(self, draws: Tensor) -> Self | None:
        """See `EnsembleSurrogate.subset_draws`."""
        part = super().subset_draws(draws)
        if part is not None:
            part._buffers["prior_weights"] = self.prior_weights[draws]
        return part

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train all members; see `Surrogate.fit`.

        With `warm_start` the members go on from that model's hidden layers, a share `renewal` of
        which is drawn anew (to first order this keeps the prior's distribution, and members that
        were trained alike apart), and with its prior functions. Output layers are computed from
        the new data, on the new scale of the outcomes; trained ones are first rescaled to it.

        One thread is used: the order of a sum decides its rounding, which may decide between two
        scales that explain the data equally well. (The compiled kernel uses more, each for members
        of its own.)
        """
        threads = torch.get_num_threads()
        with limited_threads(1):
            return self._train(warm_start, threads)

    def _train(self, warm_start: Surrogate | None, threads: int) -> Self:
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "ensemble"))
        X, Y = self.network_inputs(self._inputs).detach(), self._targets
        prior = self._estimate_prior(X, generator)
        whitened, steps = self._start(prior, generator, warm_start)
        noise = prior.noise.to(Y)
        weights = self._observation_weights(generator)
        targets = Y.expand(config.members, -1, -1)
        if config.prior_function > 0:  # g has to explain what the prior function does not
            targets = targets - config.prior_function * self.member.forward(self.prior_weights, X)
        variance = noise if weights is None else noise / weights
        dtype = torch.float32 if config.precision == "single" else torch.float64
        data = X.to(dtype), targets.to(dtype), variance.to(dtype)
        minimum = self._minimize(whitened.to(dtype), *data, steps, threads)
        posterior = self._posterior(X, targets, variance, threads)
        networks = self._networks(posterior, minimum.state.to(X), generator)
        self._keep(networks, noise.mean(dim=-2))
        self.diagnostics = self._diagnose_training(
            minimum,
            steps,
            noise,
            input_scale=prior.input_scale,
            largest_relevance=prior.relevance.max().item(),
            output_scale=prior.output_scale.mean().item(),
        )
        return self

    def _minimize(
        self, whitened: Tensor, X: Tensor, Y: Tensor, variance: Tensor, steps: int, threads: int
    ) -> Minimum:
        """Train: the parameters of `_posterior` from a start in units of the prior's scales."""
        posterior = self._posterior(X, Y, variance, threads)
        scales = posterior.scales
        return posterior.maximize(
            whitened[:, : len(scales)] * scales,
            steps=steps,
            learning_rate=self.config.learning_rate,
            scale=scales,
        )

    def _start_scales(self) -> Tensor:
        """`P` standard deviations of a start, in units of the prior's scales."""
        return torch.ones_like(self.prior_scales)

    def _estimate_prior(self, X: Tensor, generator: torch.Generator) -> PriorEstimate:
        config, Y = self.config, self._targets
        low = MIN_NOISE_VARIANCE[config.output_layer]
        noise: Tensor | BoundedNoisePrior
        if self._target_variance is not None:
            noise = self._target_variance.clamp_min(low)
        elif config.noise == "fixed":
            noise = torch.full_like(Y[:1], max(config.noise_variance, low))
        else:
            noise = BoundedNoisePrior(LOG_NOISE_MEAN, LOG_NOISE_STD, low, MAX_LEARNT)
        return estimate_prior(
            self.member, X, Y, generator, input_scale=config.input_scale,
            weight_scale=config.weight_scale, noise=noise,
            signal=1 + config.prior_function**2, learn_scales=config.scales != "fixed",
            per_input=config.scales == "per-input",
        )  # fmt: skip

    def _start(
        self, prior: PriorEstimate, generator: torch.Generator, warm_start: Surrogate | None
    ) -> tuple[Tensor, int]:
        """First parameters in units of their prior scales, and the number of steps from there.

        Scales and prior functions are stored on the way.
        """
        config, member = self.config, self.member
        scales = prior.scales(member, config.weight_scale)
        ones, dtype = torch.ones_like(scales), self.weights.dtype
        theta = member.draw(config.members, self._start_scales(), generator, dtype)
        functions = member.draw(config.members, ones, generator, dtype)
        steps = config.steps
        old = self._warm(warm_start)
        if old is not None:
            steps = -(-config.steps // 4)
            functions = (old.prior_weights / old.prior_scales).to(functions)
            kept = (old._on_the_scale_of(self) / scales).to(theta)
            theta = (1 - config.renewal) ** 0.5 * kept + config.renewal**0.5 * theta
        self.prior_scales.copy_(scales)
        self.prior_weights.copy_(functions * self.prior_scales)
        return theta, steps

    def _warm(self, model: Surrogate | None) -> DeepEnsemble | None:
        """The earlier model, if its members are of this shape."""
        if not isinstance(model, DeepEnsemble) or not model.fitted:
            return None
        same = model.network == self.network and model.weights.shape == self.weights.shape
        return model if same else None

    def _on_the_scale_of(self, new: DeepEnsemble) -> Tensor:
        """Members `members x P`, each with its first output layer.

        Output layers are those for outcomes standardized as by `new`: with standard deviations s
        and means b, (s f + b - b') / s' = (s / s') f + (b - b') / s'.
        """
        heads = self._heads(self.config)
        *hidden, output = self.network.unpack(self.weights)
        weight, bias = (part.unflatten(-1, (-1, heads))[..., 0] for part in output)
        if hasattr(self, "outcome_transform") and hasattr(new, "outcome_transform"):
            before: Any = self.outcome_transform
            after: Any = new.outcome_transform
            ratio = before.stdvs / after.stdvs
            weight, bias = weight * ratio, bias * ratio + (before.means - after.means) / after.stdvs
        return self.member.pack([*hidden, Layer(weight, bias)])

    def _observation_weights(self, generator: torch.Generator) -> Tensor | None:
        """`members x n x 1` with mean 1, None for ones."""
        config, n = self.config, len(self._targets)
        if config.bootstrap == "none":
            return None
        if config.bootstrap == "bayesian":
            weights = torch.empty(config.members, n, dtype=torch.float64)
            weights.exponential_(generator=generator)
        else:
            chosen = torch.randint(n, (config.members, n), generator=generator)
            weights = torch.nn.functional.one_hot(chosen, n).sum(dim=1).double()
        return weights.to(self._targets).unsqueeze(-1)

    def _posterior(
        self, X: Tensor, targets: Tensor, variance: Tensor, threads: int
    ) -> NetworkPosterior:
        kinds = {"integrated": CollapsedNetworkPosterior, "trained": NetworkPosterior}
        return kinds[self.config.output_layer](
            self.member, X, targets, self.prior_scales.to(X), variance, threads
        )

    def _networks(
        self, posterior: NetworkPosterior, parameters: Tensor, generator: torch.Generator
    ) -> Tensor:
        """Parameters of `network`: trained members with their output layers."""
        draws = [
            self.member.unpack(posterior.networks(parameters, generator)[0])
            for _ in range(self._heads(self.config))
        ]
        outputs = [layers[-1] for layers in draws]
        weight = torch.stack([o.weight for o in outputs], dim=-1).flatten(start_dim=-2)
        bias = torch.stack([o.bias for o in outputs], dim=-1).flatten(start_dim=-2)
        return self.network.pack([*draws[0][:-1], Layer(weight, bias)])


SURROGATES.register(
    SurrogateEntry(
        name="ensemble",
        model_class=DeepEnsemble,
        summary="Deep ensemble: networks from different starts, output layers integrated out",
        paper="Lakshminarayanan et al. 2017, arXiv 1612.01474; Osband et al., arXiv 1806.03335",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=500),
    )
)
