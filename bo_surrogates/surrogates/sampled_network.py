"""What the surrogates that sample a network's weights by Markov chains share.

Model (outcomes standardized): y_ij = f_j(x_i) + e_ij, f a multilayer perceptron with several
outputs on shared hidden layers, weights theta ~ N(0, diag(scales^2)) with standard deviations that
shrink with the square root of a layer's inputs, or the same for all weights; e_ij ~ N(0, v_j) with
v_j inferred along with the weights (log-normal, or its root half-Cauchy), fixed, or given per
point. The chains
move in the posterior of all weights, or in its marginal of the hidden layers
(`networks/posterior.py`).

Each chain starts near a mode of its own, found by Adam from a draw of the prior. Weights never mix,
since labels of hidden units can be permuted: convergence is judged where it matters, by
rank-normalized split R-hat and effective sample size of predictions, at training inputs and at
random points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, TypeVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real, reals
from bo_surrogates.errors import InputError
from bo_surrogates.inference.diagnostics import split_r_hat_and_bulk_ess
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from bo_surrogates.surrogates.base import Surrogate
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate

MIN_NOISE_VARIANCE = 1e-4  # known variances below it are raised: the step size is about their root
GATE_POINTS = 32  # training inputs and random points, each, at which predictions are watched
LONGER = 3  # times as many transitions in the second run of a fit that failed its gate


class Watched(Protocol):
    """A run of chains whose predictions were watched."""

    @property
    def predictions(self) -> Tensor:
        """`K x samples x q m` values at the gate's points."""


R = TypeVar("R", bound=Watched)


@dataclass(frozen=True)
class SampledNetworkConfig(Config):
    """Configuration of the model and the chains; a sampler adds its own fields.

    Attributes:
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        output_layer: "integrated", out of what is sampled, or "sampled" with the other weights.
        prior: "fan-in", weights of a layer with k inputs have standard deviation scale / sqrt(k),
            hidden biases 1; "iid", all weights and biases have standard deviation weight_scale; or
            "per-layer", as "fan-in" with layer_scales and bias_scales.
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster.
        weight_scale: Prior scale of all further weights, and of the outputs' biases.
        layer_scales: Scale of the weights of each of the depth + 1 layers, if per layer.
        bias_scales: Standard deviation of the biases of each of them, if per layer.
        noise: "inferred" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
        noise_prior: Of the noise variance, if inferred: "log-normal"; or "half-cauchy" of its root,
            which forbids neither much noise nor none.
        log_noise_mean: Mean of the logarithm of the variance, and its median.
        log_noise_std: Standard deviation of the logarithm, if log-normal.
        chains: K.
        warmup: Transitions that adapt the sampler and are dropped.
        samples: Transitions of each chain that follow.
        draws: Networks kept, at most chains * samples.
        map_steps: Adam steps before the first warm-up.
        max_r_hat: Largest split R-hat of a prediction in a fit that passes.
        min_ess: Smallest bulk effective sample size of a prediction in a fit that passes.
        precision: Of the sampler: "single" or "double".
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "input_scale", "weight_scale", "log_noise_mean",
    )  # fmt: skip

    width: int = integer(32, 1, 4096, log=True, search=(8, 128))
    depth: int = integer(2, 1, 4)
    activation: str = choice("tanh", tuple(ACTIVATIONS))
    output_layer: str = choice("integrated", ("integrated", "sampled"))
    prior: str = choice("fan-in", ("fan-in", "iid", "per-layer"))
    input_scale: float = real(0.8, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(3.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    layer_scales: tuple[float, ...] | None = reals(None, 1e-3, 1e3)
    bias_scales: tuple[float, ...] | None = reals(None, 1e-3, 1e3)
    noise: str = choice("inferred", ("inferred", "fixed"))
    noise_variance: float = real(1e-2, 1e-6, 1e4, log=True)
    noise_prior: str = choice("log-normal", ("log-normal", "half-cauchy"))
    log_noise_mean: float = real(-4.0, -12.0, 5.0, search=(-8.0, -2.0))
    log_noise_std: float = real(0.7, 1e-2, 5.0, log=True)
    chains: int = integer(16, 1, 1024, log=True)
    warmup: int = integer(50, 1, 100_000, log=True)
    samples: int = integer(60, 4, 1_000_000, log=True)
    draws: int = integer(256, 1, 100_000, log=True)
    map_steps: int = integer(100, 1, 100_000, log=True)
    max_r_hat: float = real(1.1, 1.0, 100.0)
    min_ess: float = real(100.0, 0.0, 1e6)
    precision: str = choice("single", ("single", "double"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draws > self.chains * self.samples:
            raise InputError(
                f"{type(self).__name__}.draws must be at most chains * samples = "
                f"{self.chains * self.samples}, got {self.draws}; lower draws or raise samples"
            )
        for name in ("layer_scales", "bias_scales"):
            given = getattr(self, name)
            if self.prior != "per-layer" and given is not None:
                raise InputError(
                    f"{type(self).__name__}.{name} is for prior 'per-layer', and prior is "
                    f"{self.prior!r}"
                )
            if self.prior == "per-layer" and len(given or ()) != self.depth + 1:
                raise InputError(
                    f"{type(self).__name__}.{name} must be a list of depth + 1 = {self.depth + 1} "
                    f"numbers where prior is 'per-layer', got {given}"
                )


class SampledNetwork(EnsembleSurrogate):
    """What these surrogates have in common; see the module's docstring.

    `chains` (`K x num_parameters`) is where the chains ended; a later fit that is given this model
    as its warm start goes on from there.
    """

    config_class: ClassVar[type[Config]] = SampledNetworkConfig
    config: SampledNetworkConfig
    chains: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        size = self._posterior().num_parameters
        self.register_buffer("chains", self.weights.new_zeros(self.config.chains, size))

    @classmethod
    def make_network(cls, config: SampledNetworkConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `EnsembleSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    @classmethod
    def number_of_draws(cls, config: SampledNetworkConfig) -> int:
        """The networks kept."""
        return config.draws

    def _posterior(self, collapsed: bool | None = None) -> NetworkPosterior:
        """What the chains sample; of the hidden layers only or of all weights, if that is said."""
        config = self.config
        if config.prior == "per-layer":
            scales = self.network.layer_scales(config.layer_scales or (), config.bias_scales or ())
        elif config.prior == "iid":
            P = self.network.num_parameters
            scales = torch.full((P,), config.weight_scale, dtype=torch.float64)
        else:
            scales = self.network.scales(
                config.input_scale, config.weight_scale, output_scale=config.weight_scale
            )
        noise: Tensor | NoisePrior
        if self._target_variance is not None:
            noise = self._sampler_values(self._target_variance).clamp_min(MIN_NOISE_VARIANCE)
        elif config.noise == "fixed":
            noise = self._sampler_values(torch.full_like(self._targets, config.noise_variance))
        elif config.noise_prior == "half-cauchy":
            noise = HalfCauchyNoisePrior(math.exp(0.5 * config.log_noise_mean))
        else:
            noise = LogNoisePrior(config.log_noise_mean, config.log_noise_std)
        X = self.network_inputs(self._inputs).detach()
        if collapsed is None:
            collapsed = not self._samples_output_layer()
        kind = CollapsedNetworkPosterior if collapsed else NetworkPosterior
        return kind(
            self.network,
            self._sampler_values(X),
            self._sampler_values(self._targets),
            scales.to(self.weights.device),
            noise,
        )

    def _samples_output_layer(self) -> bool:
        return self.config.output_layer == "sampled"

    def _sampler_values(self, values: Tensor) -> Tensor:
        """Data in the sampler's precision, rounded to single precision in any case.

        Trajectories are chaotic. Data that agree up to rounding, such as the same outcomes in two
        units, are to give the same networks: rounding to fewer digits makes them agree exactly.
        """
        dtype = torch.float32 if self.config.precision == "single" else torch.float64
        return values.to(torch.float32).to(dtype)

    def _gate_points(self, generator: torch.Generator) -> Tensor:
        """`q x d'` network inputs: training inputs, and random points in their range."""
        X = self._sampler_values(self.network_inputs(self._inputs).detach())
        chosen = torch.randperm(len(X), generator=generator)[:GATE_POINTS].to(X.device)
        uniform = torch.rand(GATE_POINTS, X.shape[-1], generator=generator, dtype=torch.float64)
        # Differences of training inputs keep to one-hot columns' range, and to a subspace's.
        low, high = X.amin(dim=0), X.amax(dim=0)
        return torch.cat([X[chosen], low + uniform.to(X) * (high - low)])

    def _warm(self, model: Surrogate | None) -> Self | None:
        """The earlier model, if its chains are chains of this posterior."""
        if not isinstance(model, type(self)) or not model.fitted:
            return None
        same = model.chains.shape == self.chains.shape and model.network == self.network
        return model if same else None

    def _continued(self, warm: SampledNetwork, posterior: NetworkPosterior) -> Tensor:
        """An earlier model's chains, as chains of this posterior.

        Its outcomes were standardized with another mean a and standard deviation s than these, b
        and t: the same function is (a - b + s f) / t, hence another output layer and noise.
        """
        position = warm.chains.to(posterior.X).clone()
        (a, s), (b, t) = warm._standardization(), self._standardization()
        ratio, shift = ((s / t).to(position), ((a - b) / t).to(position))
        parameters, log_variance = posterior.split(position)
        if log_variance is not None:
            log_variance += 2.0 * ratio.log()
        if parameters.shape[-1] == self.network.num_parameters:
            output = self.network.unpack(parameters)[-1]
            output.weight.mul_(ratio)
            output.bias.mul_(ratio).add_(shift)
        return position

    def _standardization(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the outcomes, `m` each; 0 and 1 without a transform."""
        zero = self._targets.new_zeros(1, self._targets.shape[-1])
        if not hasattr(self, "outcome_transform"):
            return zero[0], torch.ones_like(zero[0])
        mean, _ = self.outcome_transform.untransform(zero)
        above, _ = self.outcome_transform.untransform(torch.ones_like(zero))
        return mean[0], (above - mean)[0]

    def _modes(self, posterior: NetworkPosterior, generator: torch.Generator) -> Tensor:
        """`K x num_parameters`: near modes for the weights, at the prior's mean for the noise.

        A mode of both would be one where the network explains the noise and its variance vanishes.
        Modes are those of all weights, whatever is sampled: the marginal density of the hidden
        layers has sharp ones far from its bulk, in which a chain may stay for its whole run.
        """
        full = self._posterior(collapsed=False)
        full.threads = posterior.threads
        scales, _ = full.split(full.scales.unsqueeze(0))
        whitened = torch.randn(
            self.config.chains, scales.shape[-1], generator=generator, dtype=torch.float64
        ).to(scales)
        prior = full.prior
        noise = 0 if prior is None else self._targets.shape[-1]
        rest = scales.new_full((len(whitened), noise), 0.0 if prior is None else prior.mean)
        only_weights = torch.cat([scales[0], scales.new_zeros(noise)])
        mode = full.maximize(
            torch.cat([whitened * scales, rest], dim=-1), steps=self.config.map_steps,
            learning_rate=0.05, scale=only_weights,
        ).state  # fmt: skip
        return torch.cat([mode[:, : posterior.num_parameters - noise], rest], dim=-1)

    def _run_until_converged(
        self, first: Callable[[], R], again: Callable[[R], R]
    ) -> tuple[list[R], tuple[float, float, str]]:
        """A run and, where its chains have not converged, one more that goes on from it, longer.

        Args:
            first: The run.
            again: The second, from what the first left; `LONGER` times as long.

        Returns:
            The runs, and what `_gate` says of the last.
        """
        runs = [first()]
        gate = self._gate(runs[0].predictions)
        if gate[-1]:
            runs.append(again(runs[0]))
            gate = self._gate(runs[1].predictions)
        return runs, gate

    def _gate(self, predictions: Tensor) -> tuple[float, float, str]:
        """Worst R-hat and effective sample size, and what is wrong with them or nothing.

        Args:
            predictions: `K x samples x q m` values at `_gate_points`.
        """
        config = self.config
        r_hats, sizes = split_r_hat_and_bulk_ess(predictions)
        r_hat, ess = r_hats.max().item(), sizes.min().item()
        if r_hat <= config.max_r_hat and ess >= config.min_ess:
            return r_hat, ess, ""
        return (
            r_hat,
            ess,
            (
                f"the chains have not converged: split R-hat of predictions is up to {r_hat:.3f} "
                f"(wanted: at most {config.max_r_hat:g}), their effective sample size "
                f"down to {ess:.0f} (wanted: at least {config.min_ess:g}); raise warmup and samples"
            ),
        )
