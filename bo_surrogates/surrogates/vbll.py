"""Network with a variational Bayesian last layer.

Model (outcomes standardized): y_ij = w_j' phi(x_i) + e_ij, phi the last hidden units of a
multilayer perceptron and 1, shared by the outcomes; w_j ~ N(0, s_j^2 diag), e_ij ~ N(0, v_j) with
v_j learnt, fixed, or given per point; hidden weights ~ N(theta_0, S), theta_0 a random draw where
`prior_mean = "start"`.

Inference (Harrison, Willes and Snoek 2024, arXiv 2404.11599): a Gaussian q(w_j) with full
covariance, hidden weights, v_j and s_j maximize the evidence lower bound plus log priors. Given all
the others, the best q is known in closed form (`networks/variational_last_layer.py`); Adam moves
only the others, and sees the bound at the best q. The paper, and BoTorch's `VBLLModel`, follow the
gradient in the mean and covariance of q as well.

Continual training (Brunzema et al. 2025, arXiv 2412.09477): with `warm_start`, the earlier model
first predicts the observations that are new. If it is not surprised, its features are kept, and q
is updated by recursive least squares, which takes no training; otherwise training goes on from its
weights.

Prediction: Gaussian, outcomes independent given the features; conditioning on new observations is
exact given the features; drawn functions are networks with drawn last layers.

BoTorch's model is not used here because its posterior holds the points of a batch to be independent
and has the noise in it, so that neither a joint acquisition function nor a drawn function agrees
with it; `benchmarks/vbll.py` compares the two.

The bound does not know that the hidden weights are uncertain. Trained freely, features fit the data
with all the width there is, and intervals are far too narrow where inputs are many: hence wide
layers, a narrow prior about random features (`hidden_std`) and few steps, chosen by predictive log
density and coverage on the functions of `benchmarks/calibration.py`. Prefer `laplace` where the
uncertainty itself is wanted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import FitError
from bo_surrogates.inference.adam import minimize
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, Layer
from bo_surrogates.networks.kronecker_posterior import LastLayer
from bo_surrogates.networks.linearization import DERIVATIVES, Linearization
from bo_surrogates.networks.linearized_posterior import LinearizedPosterior, WeightPrior
from bo_surrogates.networks.variational_last_layer import collapsed_bound
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

MIN_LEARNT, MAX_LEARNT = 1e-4, math.e  # noise variances, standardized
SAME = 1e-6  # relative difference below which an observation is one that the earlier model had


@dataclass(frozen=True)
class VBLLConfig(Config):
    """Configuration of `vbll`.

    Attributes:
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu", "silu" or "sine".
        steps: Adam steps.
        learning_rate: First learning rate, in units of prior standard deviations; it falls to zero
            along a cosine.
        prior_mean: Of the hidden weights: "start" or "zero".
        input_scale: Prior scale of the first layer's weights: larger, functions vary faster.
        weight_scale: Of weights between hidden layers.
        hidden_std: Prior standard deviation of hidden weights about `prior_mean`, as a part of the
            scales above: smaller, features stay nearer to the random ones.
        output_scale: Prior median of the last layer's scale s.
        output_std: Standard deviation of log s.
        noise: "learnt" or "fixed"; without effect where `train_Yvar` is given.
        noise_variance: Of standardized outcomes, if fixed.
        log_noise_mean: Mean of the logarithm of the noise variance, if learnt.
        log_noise_std: Its standard deviation.
        surprise: With a warm start, features are trained again if the mean square of the new
            observations' standardized errors, 1 on average if the earlier model is right, exceeds
            this.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "steps", "learning_rate", "input_scale", "hidden_std",
    )  # fmt: skip

    width: int = integer(256, 1, 4096, log=True, search=(32, 512))
    depth: int = integer(2, 1, 4)
    activation: str = choice("tanh", tuple(DERIVATIVES))
    steps: int = integer(60, 1, 100_000, log=True)
    learning_rate: float = real(5e-2, 1e-6, 1.0, log=True, search=(1e-3, 1e-1))
    prior_mean: str = choice("start", ("start", "zero"))
    input_scale: float = real(1.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    weight_scale: float = real(3.0, 1e-3, 1e3, log=True, search=(0.3, 10.0))
    hidden_std: float = real(0.1, 1e-4, 1e2, log=True, search=(0.03, 3.0))
    output_scale: float = real(4.0, 1e-3, 1e3, log=True)
    output_std: float = real(1.0, 1e-2, 10.0, log=True)
    noise: str = choice("learnt", ("learnt", "fixed"))
    noise_variance: float = real(1e-2, 1e-6, 1e4, log=True)
    log_noise_mean: float = real(-3.5, -12.0, 5.0, search=(-8.0, -2.0))
    log_noise_std: float = real(1.0, 1e-2, 5.0, log=True)
    surprise: float = real(2.0, 0.0, math.inf)


class State(NamedTuple):
    """What Adam moves, unpacked.

    Attributes:
        theta: `P` weights; those of the last layer are 0.
        log_scale: Of the last layer's scale s, relative to its prior median.
        noise: `n x m` noise variances.
        log_prior: Log density of the state, up to a constant.
    """

    theta: Tensor
    log_scale: Tensor
    noise: Tensor
    log_prior: Tensor


class VariationalLastLayer(LinearizedSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = VBLLConfig
    config: VBLLConfig

    @classmethod
    def make_network(cls, config: VBLLConfig, inputs: int, outputs: int) -> BatchedMLP:
        """See `FiniteWidthSurrogate.make_network`."""
        return BatchedMLP(inputs, outputs, config.width, config.depth, config.activation)

    def condition(self, at: Linearization, targets: Tensor, noise: Tensor) -> LinearizedPosterior:
        """See `LinearizedSurrogate.condition`: the best q."""
        return LastLayer.of(at, self.prior, targets, noise)

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Train the features, or keep them; see `Surrogate.fit` and the module's docstring.

        One thread is used: the result is not to depend on the rounding of sums.
        """
        warm = self._warm(warm_start)
        with limited_threads(1):
            if warm is None or not self._keeps_features(warm):
                self._train(warm)
        return self

    def _warm(self, model: Surrogate | None) -> VariationalLastLayer | None:
        """The earlier model, if its weights are weights of this network."""
        if not isinstance(model, VariationalLastLayer) or not model.fitted:
            return None
        return model if model.network == self.network else None

    # ---- continual training --------------------------------------------------------------------
    def _keeps_features(self, warm: VariationalLastLayer) -> bool:
        """Take the earlier model's features, scales and noise over, if it predicts what is new."""
        with torch.no_grad():
            X, Y = self._inputs, _observed(self)
            old_X, old_Y = warm._inputs, _observed(warm)
            spread = SAME * Y.std(dim=0).nan_to_num(0.0).clamp_min(1e-300)
            same = (X.unsqueeze(1) == old_X).all(-1)
            same = same & ((Y.unsqueeze(1) - old_Y).abs() <= spread).all(-1)
            new = ~same.any(dim=1)
            surprise = 0.0
            if new.any():
                posterior = warm.posterior(X[new], observation_noise=True)
                errors = (Y[new] - posterior.mean).square()  # type: ignore[attr-defined]
                surprise = (errors / posterior.variance).mean().item()  # type: ignore[attr-defined]
            if surprise > self.config.surprise:
                return False
            # Noise and scales in the units of these outcomes' standard deviations.
            ratio = (_unit(warm) / _unit(self)).square()
            noise = (warm.noise_variance * ratio).clamp(MIN_LEARNT, MAX_LEARNT)
            if self.config.noise == "fixed":
                noise = torch.full_like(noise, self.config.noise_variance)
            variances = warm.prior_variances.clone()
            variances[-2:] *= ratio.mean()
            self._keep(warm.theta, WeightPrior(self.network, warm.prior_mean, variances), noise)
        self.diagnostics = FitDiagnostics(
            converged=True,
            values={"trained": 0.0, "surprise": surprise, "new_observations": float(new.sum())},
        )
        return True

    # ---- training ------------------------------------------------------------------------------
    def _train(self, warm: VariationalLastLayer | None) -> None:
        config = self.config
        X, Y = self.network_inputs(self._inputs).double(), self._targets.double()
        scales = self._hidden_scales().to(Y)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "vbll"))
        drawn = self._without_last(self.network.draw(1, scales, generator).squeeze(0))
        centre = drawn if config.prior_mean == "start" else torch.zeros_like(drawn)
        first = drawn
        if warm is not None:
            centre, first = warm.prior_mean, warm.theta
        spread = config.hidden_std * scales
        activation = ACTIVATIONS[self.network.activation]
        output = config.output_scale * Y.new_tensor([self.network.width**-0.5, 1.0])
        known = self._target_variance is not None
        learnt = config.noise == "learnt" and not known
        noise = torch.full_like(Y, config.noise_variance) if not known else self._training_noise()
        P, m = self.network.num_parameters, Y.shape[-1]
        bounds = math.log(MIN_LEARNT), math.log(MAX_LEARNT)

        def unpack(state: Tensor) -> State:
            z, log_scale, u = state[:P], state[P], state[P + 1 :]
            log_noise = config.log_noise_mean + config.log_noise_std * u
            # Beyond the limits the prior alone moves it: back.
            each = log_noise.clamp(*bounds).exp().expand_as(Y) if learnt else noise
            prior = -0.5 * (z.square().sum() + log_scale.square() + u.square().sum())
            return State(centre + spread * z, config.output_std * log_scale, each, prior)

        def loss(state: Tensor) -> Tensor:
            at = unpack(state)
            h = X
            for weight, bias in self.network.unpack(at.theta.unsqueeze(0))[:-1]:
                h = activation(h @ weight.squeeze(0) + bias.squeeze(0))
            s = output * at.log_scale.exp()
            phi = torch.cat([s[0] * h, s[1].expand(len(h), 1)], dim=-1)
            return -collapsed_bound(phi.expand(m, -1, -1), Y, at.noise) - at.log_prior

        whitened = ((first - centre) / spread).nan_to_num(0.0)
        start = torch.cat([whitened, whitened.new_zeros(1 + m)])
        best = minimize(loss, start, steps=config.steps, learning_rate=config.learning_rate)
        if not math.isfinite(best.last):
            raise FitError(
                f"the fit of {self.entry_name or type(self).__name__} diverged; lower the "
                "learning rate"
            )
        at = unpack(best.state)
        variances = self._group_variances(spread.square())
        variances[-2:] = (output * at.log_scale.exp()).square()
        self._keep(at.theta, WeightPrior(self.network, centre, variances), at.noise.mean(dim=0))
        worse = best.last > best.first
        self.diagnostics = FitDiagnostics(
            converged=not worse,
            message=f"the loss rose from {best.first:.4g} to {best.last:.4g}; lower the learning "
            "rate" if worse else "",
            values={
                "trained": 1.0,
                "loss_per_point": best.last / len(Y),
                "first_loss_per_point": best.first / len(Y),
                "steps": float(config.steps),
                "noise_variance": at.noise.mean().item(),
            },
        )  # fmt: skip

    def _hidden_scales(self) -> Tensor:
        """`P` standard deviations of the random features; those of the last layer are not used."""
        return self.network.scales(self.config.input_scale, self.config.weight_scale)

    def _group_variances(self, variances: Tensor) -> Tensor:
        """`2 (depth + 1)` of `P` variances."""
        layers = self.network.unpack(variances.unsqueeze(0))
        return torch.stack([part.flatten()[0] for layer in layers for part in layer])

    def _without_last(self, theta: Tensor) -> Tensor:
        """The weights with a last layer of zeros, the mean of its prior."""
        *hidden, last = self.network.unpack(theta.unsqueeze(0))
        silent = Layer(torch.zeros_like(last.weight), torch.zeros_like(last.bias))
        return self.network.pack([*hidden, silent]).squeeze(0)


def _observed(model: VariationalLastLayer) -> Tensor:
    """`n x m` outcomes in the user's units."""
    if not hasattr(model, "outcome_transform"):
        return model._targets
    return model.outcome_transform.untransform(model._targets, X=model._inputs)[0]


def _unit(model: VariationalLastLayer) -> Tensor:
    """`m` standard deviations of standardized outcomes, in the user's units."""
    stdvs = getattr(getattr(model, "outcome_transform", None), "stdvs", None)
    if stdvs is None:
        return torch.ones_like(model.noise_variance)
    return torch.as_tensor(stdvs).reshape(-1).double()


SURROGATES.register(
    SurrogateEntry(
        name="vbll",
        model_class=VariationalLastLayer,
        summary="Network with a variational Bayesian last layer, trained on its exact bound",
        paper="Harrison et al. 2024, arXiv 2404.11599; Brunzema et al. 2025, arXiv 2412.09477",
        capabilities=Capabilities(
            posterior="gaussian", exact_conditioning=True, max_n=5000, max_d=500
        ),
    )
)
