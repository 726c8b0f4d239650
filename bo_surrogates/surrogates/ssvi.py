"""Sparse Bayesian neural networks by subspace variational inference.

Model of a member (outcomes standardized): y_ij = f_j(x_i) + e_ij, f a multilayer perceptron of
which exactly a share `density` of each weight matrix is active, the first excepted; the other
weights are zero. Active weights have independent Gaussian priors whose variances are divided by the
density, so that functions are as large as a dense network's; biases are Gaussian and all active.
e_ij ~ N(0, v_j), or with variances given per point.

Inference: sparse subspace variational inference (Li, Miao, Qiu and Zhang 2024, arXiv 2402.11025;
`inference/ssvi.py`). Active weights have independent Gaussian posteriors, fitted by Adam to the
evidence lower bound on all data with noise of its own for each input and unit
(`networks/local_reparameterization.py`); every `interval` steps some of them give way to others.
The v_j come first, from the evidence of a Gaussian process with the prior's covariance, and so do
the scales of the first and the last layer if they are to be learnt (`networks/evidence.py`): within
the bound the v_j would grow until the posterior is the prior.

Prediction: the posterior of one member knows one mode, and is too narrow. Members differ by their
start and by their active sets; weights drawn from all of them are an equally weighted mixture.

What it is for: small networks with known uncertainty, such as compressed classifiers
(`benchmarks/sparse_classification.py`). As a surrogate on few data it has no advantage over
`ensemble` or `hmc`: `python -m benchmarks.calibration --surrogates ssvi ensemble hmc --seeds 2`
gives, in this order, CRPS 0.24, 0.22, 0.19, NLPD 0.60, 0.62, 0.21 and coverage of 90 % intervals
0.93, 0.91, 0.92. The defaults were chosen on these four functions (three seeds of each): its own
figures are optimistic. There, at 600 steps, 32 units and 16 members did better than 64 and 8;
denser networks did no better than those of density 0.2; sets that never change and removal by
|mean| did as well as the default; learnt scales gave a better density (NLPD 0.42 to 0.51) but a
worse CRPS (0.25 to 0.23), since they may take a function of six inputs for noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.inference.pruning_criteria import CRITERIA
from bo_surrogates.inference.ssvi import (
    Budget,
    Group,
    Replacement,
    Result,
    State,
    init,
    kl_divergence,
    sparse_scales,
    train,
    uniform_groups,
)
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.evidence import BoundedNoisePrior, PriorEstimate, estimate_prior
from bo_surrogates.networks.local_reparameterization import sampled_forward
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.finite_width import EnsembleSurrogate
from bo_surrogates.threads import limited_threads

MIN_NOISE_VARIANCE = 1e-3  # known variances below it are raised: Adam needs a bounded curvature
MAX_NOISE_VARIANCE = 10.0  # of what is inferred
RISE = 0.1  # nats per observation and member by which a bound may rise: it is an estimate
WARM = 4  # a warm start takes one step where a cold one takes this many


@dataclass(frozen=True)
class SSVIConfig(Config):
    """Configuration of `ssvi`.

    Attributes:
        density: Share of the active weights in every matrix but a dense first one.
        dense_first: Whether all weights of the first layer are active.
        criterion: Importance of an active weight: "snr_abs", "e_abs", "mean", "snr", "e_exp" or
            "snr_exp"; see `inference/pruning_criteria.py`.
        criterion_rate: Of the exponential criteria.
        replaced: Share of the active weights that the first change replaces; 0: never any.
        interval: Adam steps between two changes.
        replace_until: Share of the steps after which active sets stay as they are.
        growth: "sampled" or "mean": the gradient that selects new weights is that under the
            posterior, or at its mean.
        growth_samples: Evaluations of the sampled gradient that are averaged.
        members: Networks with starts and active sets of their own.
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "relu", "tanh", "silu" or "sine".
        steps: Adam steps.
        learning_rate: First learning rate of means; it falls to zero along a cosine.
        raw_learning_rate: That of what the standard deviations are made of.
        scales: "learnt" or "fixed": whether the prior's scales maximize the evidence.
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster. The
            middle of the search where scales are learnt.
        weight_scale: Prior scale of all further weights; the output layer's is learnt likewise.
        initial_std: First standard deviation of a weight, as a share of its prior's.
        kl_weight: beta, the weight of the divergence from the prior.
        noise: "inferred" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
        log_noise_mean: Prior mean of the logarithm of the noise variance, if inferred.
        log_noise_std: Its standard deviation.
        draws: Networks kept.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "density", "criterion", "replaced", "interval", "growth", "width", "depth", "activation",
        "learning_rate", "input_scale", "weight_scale", "initial_std", "kl_weight",
    )  # fmt: skip

    density: float = real(0.2, 1e-4, 1.0, log=True, search=(0.02, 1.0))
    dense_first: bool = flag(True)
    criterion: str = choice("snr_abs", tuple(CRITERIA))
    criterion_rate: float = real(1.0, 1e-2, 10.0, log=True, search=(0.1, 3.0))
    replaced: float = real(0.3, 0.0, 1.0, search=(0.0, 0.6))
    interval: int = integer(50, 1, 100_000, log=True, search=(10, 300))
    replace_until: float = real(0.75, 0.0, 1.0)
    growth: str = choice("sampled", ("sampled", "mean"))
    growth_samples: int = integer(1, 1, 1000)
    members: int = integer(16, 1, 1000, log=True)
    width: int = integer(32, 1, 4096, log=True, search=(16, 256))
    depth: int = integer(2, 1, 4)
    activation: str = choice("relu", tuple(ACTIVATIONS))
    steps: int = integer(1200, 1, 100_000, log=True)
    learning_rate: float = real(2e-2, 1e-6, 1.0, log=True, search=(1e-3, 1e-1))
    raw_learning_rate: float = real(2e-2, 1e-6, 1.0, log=True, search=(1e-3, 1e-1))
    scales: str = choice("fixed", ("learnt", "fixed"))
    input_scale: float = real(1.5, 1e-3, 1e3, log=True, search=(0.3, 5.0))
    weight_scale: float = real(3.0, 1e-3, 1e3, log=True, search=(0.3, 5.0))
    initial_std: float = real(0.05, 1e-6, 1.0, log=True, search=(1e-3, 0.5))
    kl_weight: float = real(1.0, 0.0, 10.0, search=(1e-3, 1.0))
    noise: str = choice("inferred", ("inferred", "fixed"))
    noise_variance: float = real(1e-2, 1e-6, 1e4, log=True)
    log_noise_mean: float = real(-3.0, -12.0, 5.0, search=(-8.0, -2.0))
    log_noise_std: float = real(1.0, 1e-2, 5.0, log=True)
    draws: int = integer(256, 1, 100_000, log=True)


class SparseSubspaceNetwork(EnsembleSurrogate):
    """See the module's docstring.

    `mean`, `raw` and `mask` (`members x P`) are the approximate posterior, `prior_scales` (`P`) the
    standard deviations of the prior.
    """

    config_class: ClassVar[type[Config]] = SSVIConfig
    config: SSVIConfig
    mean: Tensor
    raw: Tensor
    mask: Tensor
    prior_scales: Tensor

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        shape = self.config.members, self.network.num_parameters
        self.register_buffer("mean", self.weights.new_zeros(shape))
        self.register_buffer("raw", self.weights.new_zeros(shape))
        self.register_buffer("prior_scales", self.weights.new_ones(shape[-1]))
        self.register_buffer("mask", torch.ones(shape, device=self.weights.device).bool())

    @classmethod
    def make_network(cls, config: SSVIConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `EnsembleSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    @classmethod
    def number_of_draws(cls, config: SSVIConfig) -> int:
        """The networks kept."""
        return config.draws

    @property
    def groups(self) -> tuple[Group, ...]:
        """The weight matrices, with the number of active entries of each."""
        return uniform_groups(self.network, self.config.density, self.config.dense_first)

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train all members; see `Surrogate.fit`.

        With `warm_start` they go on from that model's posterior, for a quarter of the steps. One
        thread is used: rounding, which depends on their number, decides which weights are replaced.
        """
        with limited_threads(1):
            self._train(warm_start)
        return self

    def _train(self, warm_start: Surrogate | None) -> None:
        config = self.config
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "ssvi"))
        groups = self.groups
        X, Y = _rounded(self.network_inputs(self._inputs).detach()), _rounded(self._targets)
        prior = self._estimate_prior(X, Y, generator)
        variance, scales = prior.noise.to(Y), self._sparse_scales(prior).to(Y)
        start = self._start(generator, scales)
        steps = config.steps
        warm = self._warm(warm_start)
        if warm is not None:
            start = State(warm.mean.to(X), warm.raw.to(X), warm.mask.to(X.device))
            steps = -(-steps // WARM)

        def loss(mean: Tensor, std: Tensor) -> Tensor:
            f = sampled_forward(self.network, mean, std, X, generator)
            return 0.5 * ((Y - f).square() / variance).sum()

        result = train(
            loss, start, scales, groups,
            Budget(
                steps, config.learning_rate, config.raw_learning_rate, config.kl_weight,
                kl_warmup=warm is None,
                replacement=Replacement(
                    config.interval, config.replaced, config.replace_until, config.criterion,
                    config.criterion_rate, config.growth, config.growth_samples,
                ),
            ),
        )  # fmt: skip
        state = result.state
        self._keep(state.draw(config.draws, generator), variance.mean(dim=0))
        self.mean.copy_(state.mean)
        self.raw.copy_(state.raw)
        self.mask.copy_(state.mask)
        self.prior_scales.copy_(scales)
        self.diagnostics = self._diagnose(result, scales, steps)

    def _diagnose(self, result: Result, scales: Tensor, steps: int) -> FitDiagnostics:
        members = self.config.members
        improved = result.last <= result.first + RISE * members * self._targets.numel()
        active = int(result.state.mask.sum()) / members
        return FitDiagnostics(
            converged=improved,
            message=""
            if improved
            else f"the negative evidence lower bound rose from {result.first:.4g} to "
            f"{result.last:.4g}; lower the learning rates",
            values={
                "negative_bound_per_member": result.last / members,
                "first_negative_bound_per_member": result.first / members,
                "divergence_per_member": kl_divergence(result.state, scales).mean().item(),
                "active_parameters": active,
                "density": active / self.network.num_parameters,
                "replaced": float(result.replaced),
                "output_scale": scales[-1].item(),
                "noise_variance": self.noise_variance.mean().item(),
                "steps": float(steps),
            },
        )

    def _start(self, generator: torch.Generator, scales: Tensor) -> State:
        """Means from a prior of scale 1, random active sets."""
        unit = sparse_scales(self.network, self.network.scales(), self.groups).to(scales.device)
        mean = self.network.draw(self.config.members, unit, generator, scales.dtype)
        return init(mean, self.config.initial_std * scales, self.groups, generator)

    def _warm(self, model: Surrogate | None) -> SparseSubspaceNetwork | None:
        """The earlier model, if its posterior is one over these parameters."""
        if not isinstance(model, SparseSubspaceNetwork) or not model.fitted:
            return None
        same = model.mean.shape == self.mean.shape and model.network == self.network
        return model if same and model.groups == self.groups else None

    def _estimate_prior(self, X: Tensor, Y: Tensor, generator: torch.Generator) -> PriorEstimate:
        """Of the dense network: the sparse one has the same covariance."""
        config = self.config
        noise: Tensor | BoundedNoisePrior
        if self._target_variance is not None:
            noise = _rounded(self._target_variance).clamp_min(MIN_NOISE_VARIANCE)
        elif config.noise == "fixed":
            noise = torch.full_like(Y[:1], config.noise_variance)
        else:
            noise = BoundedNoisePrior(
                config.log_noise_mean, config.log_noise_std, MIN_NOISE_VARIANCE, MAX_NOISE_VARIANCE
            )
        return estimate_prior(
            self.network, X, Y, generator, input_scale=config.input_scale,
            weight_scale=config.weight_scale, noise=noise,
            learn_scales=config.scales == "learnt",
        )  # fmt: skip

    def _sparse_scales(self, prior: PriorEstimate) -> Tensor:
        """`P` prior standard deviations, those of active weights enlarged for the sparsity."""
        network, device = self.network, self.weights.device
        scales = network.scales(prior.input_scale, self.config.weight_scale).to(device)
        last = scales[-(network.width + 1) * network.outputs :].unflatten(0, (-1, network.outputs))
        last[:-1] = prior.output_scale / network.width**0.5  # views of `scales`
        last[-1] = prior.output_scale
        return sparse_scales(network, scales, self.groups)


def _rounded(values: Tensor) -> Tensor:
    """In single precision, which is enough: the noise of a gradient is far larger.

    Data that agree up to rounding, such as the same outcomes in two units, agree exactly then:
    rounding decides which weights are replaced.
    """
    return values.float()


SURROGATES.register(
    SurrogateEntry(
        name="ssvi",
        model_class=SparseSubspaceNetwork,
        summary="Sparse Bayesian neural network: variational inference over few active weights",
        paper="Li, Miao, Qiu and Zhang 2024, arXiv 2402.11025",
        capabilities=Capabilities(posterior="ensemble", max_n=5000, max_d=500, cost="seconds"),
    )
)
