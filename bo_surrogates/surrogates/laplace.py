"""Linearized Laplace approximation of a Bayesian neural network.

Model (outcomes standardized): y_ij = f_j(x_i) + e_ij, f a multilayer perceptron of weights theta
with several outputs on shared hidden layers; theta ~ N(theta_0, S), S = diag, of one variance in
each weight matrix and each bias vector; e_ij ~ N(0, v_j), v_j learnt, fixed, or given per point.

theta_0: with `prior_mean = "start"`, hidden weights are drawn once, at random, and the prior is
centred there; those of the output layer are 0. The prior mean of f is then 0, and before any
training the linearized network is a Gaussian process with the network's neural tangent kernel
(Lee et al. 2019, arXiv 1902.06720). With "zero", the usual prior, the most likely weights of a few
data points are often all zero, though no draw of the prior looks like that: the network is lost.

Inference (`networks/gauss_newton.py`): Gauss-Newton steps to the maximum a posteriori weights
theta*; the prior variances and v_j move along with them to the maximum of the evidence of the
linearized network, under LogNormal priors (MacKay 1992; Immer et al. 2021, arXiv 2104.04975). Then
f is replaced by f(x; theta*) + J(x) (theta - theta*), and the posterior of theta is Gaussian (Khan
et al. 2019, arXiv 1906.01930; Immer et al. 2021, arXiv 2008.08217; as a surrogate, Li et al. 2023,
arXiv 2305.20028). `structure`:

- "full": of all weights, exact for the linearized network, in weight or function space, whichever
  is smaller;
- "kronecker": a Kronecker-factored generalized Gauss-Newton matrix for each layer (KFAC);
- "last-layer": hidden weights held at theta*; the evidence is maximized once more without them.

Prediction: the Gaussian posterior of the linearized network, outcomes correlated through the
shared weights; drawn functions are draws of its weights.

The default scales were chosen by predictive log density and coverage on the functions of
`benchmarks/calibration.py`; a single factor for all prior variances, or none, does about as well as
one a layer there. "kronecker" is a little wider than "full"; "last-layer" is far too certain where
inputs are many. "full" agrees with laplace-torch to rounding; so does "kronecker" with separate
factors for weights and biases, which here share theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.networks import BatchedMLP, Layer
from bo_surrogates.networks.gauss_newton import Evidence, maximize_evidence, train
from bo_surrogates.networks.kronecker_posterior import Kronecker, LastLayer
from bo_surrogates.networks.linearization import DERIVATIVES, Linearization, linearize
from bo_surrogates.networks.linearized_posterior import LinearizedPosterior, WeightPrior, condition
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.linearized import LinearizedSurrogate
from bo_surrogates.threads import limited_threads


@dataclass(frozen=True)
class LaplaceConfig(Config):
    """Configuration of `laplace`.

    Attributes:
        structure: Of the posterior covariance: "full", "kronecker" or "last-layer".
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        steps: Gauss-Newton steps at most.
        prior_mean: "start" or "zero".
        prior: Prior variances: "layer", a factor learnt for each weight matrix and bias vector;
            "shared", one for all; "fixed".
        prior_std: Standard deviation of the logarithm of a factor, whose mean is 0.
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster.
        weight_scale: Of weights between hidden layers.
        output_scale: Of the output layer: larger, functions are larger.
        noise: "learnt" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
        log_noise_mean: Mean of the logarithm of the noise variance, if learnt.
        log_noise_std: Its standard deviation.
        evidence_iterations: L-BFGS-B iterations on the evidence between two steps.
        evidence_first: Steps before the first of them.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "input_scale", "weight_scale", "log_noise_mean",
    )  # fmt: skip

    structure: str = choice("full", ("full", "kronecker", "last-layer"))
    width: int = integer(128, 1, 4096, log=True, search=(16, 256))
    depth: int = integer(3, 1, 4)
    activation: str = choice("tanh", tuple(DERIVATIVES))
    steps: int = integer(12, 1, 1000, log=True)
    prior_mean: str = choice("start", ("start", "zero"))
    prior: str = choice("layer", ("layer", "shared", "fixed"))
    prior_std: float = real(0.5, 1e-2, 10.0, log=True)
    input_scale: float = real(1.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(2.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    output_scale: float = real(1.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    noise: str = choice("learnt", ("learnt", "fixed"))
    noise_variance: float = real(1e-2, 1e-6, 1e4, log=True)
    log_noise_mean: float = real(-4.0, -12.0, 5.0, search=(-8.0, -2.0))
    log_noise_std: float = real(1.0, 1e-2, 5.0, log=True)
    evidence_iterations: int = integer(3, 1, 1000, log=True)
    evidence_first: int = integer(3, 0, 1000)


class LinearizedLaplace(LinearizedSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = LaplaceConfig
    config: LaplaceConfig

    @classmethod
    def make_network(cls, config: LaplaceConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `FiniteWidthSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    def condition(self, at: Linearization, targets: Tensor, noise: Tensor) -> LinearizedPosterior:
        """See `LinearizedSurrogate.condition`."""
        if self.config.structure == "kronecker":
            return Kronecker.of(at, self.prior, targets, noise)
        if self.config.structure == "last-layer":
            return LastLayer.of(at, self.prior, targets, noise)
        return condition(at, self.prior, targets, noise)

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train the network; see `Surrogate.fit`.

        With `warm_start`, from that model's weights, under its theta_0, with its variances. One
        thread is used: the result is not to depend on the rounding of sums.
        """
        with limited_threads(1), torch.no_grad():
            self._train(warm_start)
        return self

    def _train(self, warm_start: Surrogate | None) -> None:
        config = self.config
        X, Y = self.network_inputs(self._inputs).double(), self._targets.double()
        theta, mean = self._start()
        variances = self._prior_variances().to(Y)
        known = self._target_variance is not None
        learnt = config.noise == "learnt" and not known
        first = config.log_noise_mean if learnt else torch.tensor(config.noise_variance).log()
        noise = torch.full_like(Y, float(first)).exp()
        if known:
            noise = self._training_noise()
        groups = range(len(variances))
        evidence = Evidence(
            factors={"layer": tuple(groups), "shared": (0,) * len(groups), "fixed": ()}[
                config.prior
            ],
            factor_std=config.prior_std,
            noise=learnt,
            log_noise_mean=config.log_noise_mean,
            log_noise_std=config.log_noise_std,
            iterations=config.evidence_iterations,
            first=config.evidence_first,
        )
        base = variances
        if (warm := self._warm(warm_start)) is not None:
            theta, mean = warm.theta, warm.prior_mean
        prior = WeightPrior(self.network, mean, base)
        trained = train(theta, prior, X, Y, noise, evidence, config.steps)
        theta, prior, noise = trained.theta, trained.prior, trained.noise
        value = trained.log_evidence
        if config.structure == "last-layer":
            at = linearize(self.network, theta, X).last_layer()
            prior, noise, value = maximize_evidence(at, base, prior, Y, noise, evidence)
        self._keep(theta, prior, noise.mean(dim=0))
        values = self.network.forward(theta.unsqueeze(0), X).squeeze(0)
        self.diagnostics = FitDiagnostics(
            converged=True,
            values={
                "log_evidence_per_point": value / len(Y),
                "objective_per_point": trained.objective / len(Y),
                "steps": float(trained.steps),
                "standardized_residual": (Y - values).square().mean().sqrt().item(),
                "noise_variance": noise.mean().item(),
            },
        )

    def _prior_variances(self) -> Tensor:
        """`2 (depth + 1)` variances of factors 1."""
        config = self.config
        scales = self.network.scales(
            config.input_scale, config.weight_scale, output_scale=config.output_scale
        )
        layers = self.network.unpack(scales.unsqueeze(0))
        return torch.stack([part.flatten()[0] for layer in layers for part in layer]).square()

    def _start(self) -> tuple[Tensor, Tensor]:
        """First weights, and the prior's mean."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "laplace"))
        unit = WeightPrior(self.network, self.theta, self._prior_variances().to(self.theta))
        theta = self.network.draw(1, unit.diagonal.sqrt(), generator)
        *hidden, last = self.network.unpack(theta)
        silent = Layer(torch.zeros_like(last.weight), torch.zeros_like(last.bias))
        start = self.network.pack([*hidden, silent]).squeeze(0)
        if self.config.prior_mean == "start":
            return start, start
        mean = torch.zeros_like(start)
        # With a silent output layer no hidden weight matters, and the first step would send all
        # of them to their prior mean, 0: the output layer goes first.
        X, Y = self.network_inputs(self._inputs).double(), self._targets.double()
        noise = torch.full_like(Y, 0.1)
        at = linearize(self.network, start, X)
        return LastLayer.of(
            at, WeightPrior(self.network, mean, unit.variances), Y, noise
        ).mean_weights, mean

    def _warm(self, model: Surrogate | None) -> LinearizedLaplace | None:
        """The earlier model, if its weights are weights of this network."""
        if not isinstance(model, LinearizedLaplace) or not model.fitted:
            return None
        return model if model.network == self.network else None


SURROGATES.register(
    SurrogateEntry(
        name="laplace",
        model_class=LinearizedLaplace,
        summary="Linearized Laplace approximation of a network, prior and noise by its evidence",
        paper="Immer et al. 2021, arXiv 2008.08217; Daxberger et al. 2021, arXiv 2106.14806",
        capabilities=Capabilities(
            posterior="gaussian", exact_conditioning=True, max_n=1000, max_d=500
        ),
    )
)
