"""The posterior over the weights of a batched network, with its gradient written by hand.

Model, outcomes standardized: y_ij = f_j(x_i) + e_ij with f a `BatchedMLP`, theta ~ N(0,
diag(scales^2)) and e_ij ~ N(0, v_ij). The variances v are known, or one v_j = exp(l_j) an output is
inferred with a prior of l_j (`noise_priors.py`) and is part of the parameters. In the latter case

    log p(theta, l | y) = - 1/2 sum_ij r_ij^2 / v_j - n/2 sum_j l_j
                          - 1/2 sum_p (theta_p / scale_p)^2 + sum_j log p(l_j) + c

with residuals r = y - f (`NetworkPosterior`). Given the hidden layers the rest is Bayesian linear
regression, so that the output layer can be integrated out in closed form, and drawn afterwards
(`CollapsedNetworkPosterior`). Per output, with features G = [h, 1] times their prior standard
deviations, V = diag(v), A = I + G^T V^-1 G and the mean weights b = A^-1 G^T V^-1 y:

    y ~ N(0, C), C = G G^T + V,   log|C| = log|A| + sum_i log v_i,
    y^T C^-1 y = sum_i r_i^2 / v_i + |b|^2 with r = y - G b,   dlog p / dG = a b^T - V^-1 G A^-1

where a = r / v (Rasmussen and Williams 2006, sections 2.1 and 5.4.1, and the matrix inversion
lemma). What remains is far better conditioned, because most of what data with little noise pin down
is the output layer: on five functions of 2 to 6 inputs at n = 20 and 50, Hamiltonian Monte Carlo
took ten times the step size at the same acceptance, and its divergences went from a few per cent of
the transitions to none, for one and a half to three times the cost of a gradient.

Reverse accumulation: with D = dlog p / d(argument) of a layer, D_l = (D_{l+1} W_{l+1}^T) phi'(z_l),
and the gradients of W_l and b_l are h_{l-1}^T D_l and the sum of D_l over points. Autograd gives
the same at several times the cost for the small networks of a surrogate, where a call's fixed
costs count.

On the CPU the same is done by a compiled kernel (`inference/native`), where there is one; the torch
code below serves GPUs and machines without a compiler, and says what the kernel computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

from bo_surrogates.errors import InputError
from bo_surrogates.inference.adam import Minimum, minimize
from bo_surrogates.inference.hmc import State, Trajectory
from bo_surrogates.inference.native.kernel import (
    HALF_CAUCHY,
    LOG_NORMAL,
    CompiledPosterior,
    Noise,
)
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, Layer
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior

T = TypeVar("T")


def _tanh_backward(D: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return torch.ops.aten.tanh_backward(D, h)  # D (1 - h^2), fused


def _relu_backward(D: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return D * (h > 0)


def _silu_backward(D: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return torch.ops.aten.silu_backward(D, z)


def _sine_backward(D: Tensor, z: Tensor, h: Tensor) -> Tensor:
    return D * z.cos()


# From the gradient behind the activation, its argument and its value to the gradient before it.
BACKWARD: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "tanh": _tanh_backward,
    "relu": _relu_backward,
    "silu": _silu_backward,
    "sine": _sine_backward,
}


class NetworkPosterior:
    """Unnormalized log posterior density of K networks' parameters, and its gradient.

    Parameters of a network: theta (P numbers), then, where the noise is inferred, m log variances.

    Args:
        network: Shape of the networks.
        X: `n x d` inputs.
        Y: `n x m` outcomes, of X's dtype; or `K x n x m`, each network's own.
        scales: `P` prior standard deviations of theta.
        noise: Variances, broadcastable to `n x m` or `K x n x m` and > 0 (infinity: an outcome
            without weight); or the prior of what is inferred.
        threads: That the compiled kernel may use, each for some of the networks: results do not
            depend on it. Torch's number at the time of a call if None.

    Raises:
        InputError: The shapes do not match, or a variance is not positive.
    """

    def __init__(
        self,
        network: BatchedMLP,
        X: Tensor,
        Y: Tensor,
        scales: Tensor,
        noise: Tensor | NoisePrior,
        threads: int | None = None,
    ) -> None:
        if X.shape != (Y.shape[-2], network.inputs) or Y.shape[-1] != network.outputs:
            raise InputError(
                f"NetworkPosterior: expected X of shape n x {network.inputs} and Y of shape "
                f"n x {network.outputs} or K x n x {network.outputs}, got {tuple(X.shape)} and "
                f"{tuple(Y.shape)}"
            )
        self.network, self.X, self.Y, self.threads = network, X, Y, threads
        self.prior: NoisePrior | None = None
        self.known: Tensor | None = None
        if isinstance(noise, Tensor):
            if not (noise > 0).all():
                raise InputError("NetworkPosterior: known noise variances must be positive")
            shape = torch.broadcast_shapes(noise.shape, Y.shape[-2:])
            self.known = noise.to(Y).expand(shape)
        else:
            self.prior = noise
        self._activation = ACTIVATIONS[network.activation]
        self._backward = BACKWARD[network.activation]
        weights = scales.to(Y)[: self._num_weights()]
        self._prior_precision = weights.pow(-2)
        self.scales = weights
        """What to whiten with: the prior's scales, and about the posterior's of log variances."""
        if self.prior is not None:
            # The likelihood's Fisher information about a log variance is n / 2.
            narrow = (self.prior.curvature + 0.5 * len(X)) ** -0.5
            self.scales = torch.cat([weights, weights.new_full((network.outputs,), narrow)])

    def _num_weights(self) -> int:
        """Weights and biases among the parameters."""
        return self.network.num_parameters

    @property
    def num_parameters(self) -> int:
        """Weights and biases, plus m where the noise is inferred."""
        return len(self.scales)

    def split(self, parameters: Tensor) -> tuple[Tensor, Tensor | None]:
        """Weights and biases `K x ...`, and log variances `K x m`, None where noise is known."""
        if self.prior is None:
            return parameters, None
        m = self.network.outputs
        return parameters[:, :-m], parameters[:, -m:]

    def networks(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """theta `K x P`, and noise variances `K x m`: their mean over points where known.

        Args:
            parameters: `K x num_parameters`.
            generator: Of what is drawn given the parameters.
        """
        theta, log_variance = self.split(parameters)
        return theta, self._noise_variance(log_variance, len(theta))

    def negative_sum(self, parameters: Tensor) -> Tensor:
        """Minus the sum of the K log densities, as a function autograd can differentiate once."""
        return _NegativeSum.apply(parameters, self)

    def __call__(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """Log densities `K`, up to a constant, and gradients `K x num_parameters`.

        The former in float64, whatever the parameters' type: a sampler looks at differences.
        """
        if self._compiled is not None and self._compiled.accepts(parameters):
            return self._compiled.densities(parameters, self._threads)
        log_density, gradient = self.by_torch(parameters)
        return log_density.double(), gradient

    def leapfrog(self, scale: Tensor) -> Trajectory | None:
        """The compiled integrator, if there is one; see `inference.hmc.leapfrog`."""
        compiled = self._compiled
        if compiled is None:
            return None

        def trajectory(
            state: State, velocity: Tensor, step_size: float, steps: int
        ) -> tuple[State, Tensor]:
            position, velocity, gradient, log_density = compiled.trajectories(
                scale, state.position, velocity, state.gradient, step_size, steps, self._threads
            )
            return State(position, log_density, gradient), velocity

        return trajectory

    def maximize(
        self, start: Tensor, *, steps: int, learning_rate: float, scale: Tensor | None = None
    ) -> Minimum:
        """Near modes, one a network: minima of minus the log density, by `inference.adam`.

        Args:
            start: First parameters, `K x num_parameters`; left as they are.
            steps: See `minimize`.
            learning_rate: See `minimize`.
            scale: `num_parameters` units of the parameters, which are the learning rate's too: the
                search is one in parameters / scale. What has scale 0 stays. Ones if None.
        """
        scale = start.new_ones(start.shape[-1]) if scale is None else scale.to(start)
        compiled = self._compiled
        if compiled is not None and compiled.accepts(start):
            state, first, last = compiled.adam(scale, start, steps, learning_rate, self._threads)
            return Minimum(state, -first.sum().item(), -last.sum().item())
        start = start.detach()
        moved = minimize(
            lambda move: self.negative_sum(start + scale * move),
            torch.zeros_like(start),
            steps=steps,
            learning_rate=learning_rate,
        )
        return Minimum(start + scale * moved.state, moved.first, moved.last)

    @cached_property
    def _compiled(self) -> CompiledPosterior | None:
        prior = self.prior
        if self.known is not None:
            noise = Noise(self.known.reciprocal())
        elif isinstance(prior, LogNoisePrior):
            noise = Noise(None, LOG_NORMAL, prior.mean, prior.std)
        elif isinstance(prior, HalfCauchyNoisePrior):
            noise = Noise(None, HALF_CAUCHY, prior.mean)
        else:  # another's prior, which the kernel does not know
            return None
        return CompiledPosterior.make(
            self.network, self.X, self.Y, noise, self._prior_precision, self._integrated
        )

    @property
    def _integrated(self) -> Tensor | None:
        """Prior standard deviations `m x p` of an output layer that is integrated out."""
        return None

    @property
    def _threads(self) -> int:
        return torch.get_num_threads() if self.threads is None else self.threads

    def by_torch(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """What a call returns, by torch's operations."""
        theta, log_variance = self.split(parameters)
        *hidden, output = self.network.unpack(theta)
        tape, h = self._forward(hidden, len(theta))
        residual = self.Y - torch.baddbmm(output.bias, h, output.weight)
        D = residual * self._precision(log_variance)
        fit = (residual * D).sum(dim=-2)  # K x m

        gradient = torch.empty_like(parameters)
        theta_gradient, noise_gradient = self.split(gradient)
        log_density = self._prior_terms(theta, theta_gradient) - 0.5 * fit.sum(dim=-1)
        *hidden_gradients, output_gradient = self.network.unpack(theta_gradient)
        output_gradient.weight.baddbmm_(h.mT, D)
        output_gradient.bias.add_(D.sum(dim=-2, keepdim=True))
        self._reverse(torch.bmm(D, output.weight.mT), tape, hidden, hidden_gradients)

        if log_variance is not None and noise_gradient is not None:
            n = len(self.X)
            log_density = log_density - 0.5 * n * log_variance.sum(dim=-1)
            noise_gradient.copy_(0.5 * (fit - n))
            log_density = log_density + self._noise_prior(log_variance, noise_gradient)
        return log_density, gradient

    def _precision(self, log_variance: Tensor | None) -> Tensor:
        """1 / v, `K x 1 x m`, or known `n x m` or `K x n x m`."""
        if self.known is not None:
            return self.known.reciprocal()
        return torch.exp(-_given(log_variance)).unsqueeze(-2)

    def _noise_variance(self, log_variance: Tensor | None, K: int) -> Tensor:
        if self.known is not None:
            return self.known.mean(dim=-2).expand(K, -1)
        return _given(log_variance).exp()

    def _forward(self, hidden: Sequence[Layer], K: int) -> tuple[list[_Step], Tensor]:
        """Each hidden layer's input, argument and value; and the last value, `K x n x width`."""
        h = self.X.expand(K, -1, -1)
        tape = []
        for weight, bias in hidden:
            z = torch.baddbmm(bias, h, weight)
            value = self._activation(z)
            tape.append(_Step(h, z, value))
            h = value
        return tape, h

    def _reverse(
        self, D: Tensor, tape: Sequence[_Step], hidden: Sequence[Layer], into: Sequence[Layer]
    ) -> None:
        """Add gradients of the hidden layers, from that by their last value."""
        for i in reversed(range(len(hidden))):
            D = self._backward(D, tape[i].argument, tape[i].value)
            into[i].weight.baddbmm_(tape[i].before.mT, D)
            into[i].bias.add_(D.sum(dim=-2, keepdim=True))
            if i > 0:
                D = torch.bmm(D, hidden[i].weight.mT)

    def _prior_terms(self, weights: Tensor, gradient: Tensor) -> Tensor:
        """Log prior of the weights, `K`; its gradient is written."""
        torch.mul(weights, self._prior_precision, out=gradient)
        log_density = -0.5 * (weights * gradient).sum(dim=-1)
        gradient.neg_()
        return log_density

    def _noise_prior(self, log_variance: Tensor, gradient: Tensor) -> Tensor:
        """Log prior of log variances, `K`; its gradient is added."""
        prior = _given(self.prior)
        gradient.add_(prior.slope(log_variance))
        return prior.log_density(log_variance).sum(dim=-1)


class CollapsedNetworkPosterior(NetworkPosterior):
    """The marginal posterior of the hidden layers (and log variances), output layer integrated out.

    Parameters of a network: weights and biases of the hidden layers, in theta's order, then, where
    the noise is inferred, m log variances. Arguments as for `NetworkPosterior`.
    """

    def __init__(
        self,
        network: BatchedMLP,
        X: Tensor,
        Y: Tensor,
        scales: Tensor,
        noise: Tensor | NoisePrior,
        threads: int | None = None,
    ) -> None:
        super().__init__(network, X, Y, scales, noise, threads)
        # theta's last weights are width x m, then m biases: by rows, (width + 1) x m.
        last = (
            scales.double().to(Y.device)[self._num_weights() :].unflatten(-1, (-1, network.outputs))
        )
        self._output_scales = last.T[:, None, :]  # m x 1 x p
        self._identity = torch.eye(len(last), dtype=last.dtype, device=Y.device)

    @property
    def _integrated(self) -> Tensor | None:
        return self._output_scales.squeeze(-2)

    def _num_weights(self) -> int:
        fan_in, fan_out = self.network.fan[-1]
        return self.network.num_parameters - (fan_in + 1) * fan_out

    def _hidden(self, weights: Tensor) -> list[Layer]:
        """The hidden layers, as views of `K x ...`."""
        layers, start = [], 0
        for fan_in, fan_out in self.network.fan[:-1]:
            middle, end = start + fan_in * fan_out, start + (fan_in + 1) * fan_out
            weight = weights[:, start:middle].unflatten(-1, (fan_in, fan_out))
            layers.append(Layer(weight, weights[:, middle:end].unsqueeze(-2)))
            start = end
        return layers

    def _regression(self, h: Tensor, log_variance: Tensor | None) -> _Regression:
        """Bayesian linear regression of each output on the last hidden layer `K x n x width`.

        In float64, whatever the networks' type: A's condition number is about n scale^2 / v, more
        than float32 can bear.
        """
        features = functional.pad(h.double(), (0, 1), value=1.0).unsqueeze(1) * self._output_scales
        if log_variance is not None:
            log_variance = log_variance.double()
        precision = self._precision(log_variance).mT.double().expand(len(h), -1, len(self.X))
        weighted = precision.unsqueeze(-1) * features
        factor, failed = torch.linalg.cholesky_ex(features.mT @ weighted + self._identity)
        # A is positive definite unless a trajectory has left for infinity: not a number, there.
        factor = torch.where((failed == 0)[..., None, None], factor, math.nan)
        inverse = torch.cholesky_inverse(factor)
        mean = inverse @ (weighted.mT @ self.Y.mT.double().unsqueeze(-1))
        return _Regression(features, precision, weighted @ inverse, factor, mean)

    def by_torch(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        """What a call returns, by torch's operations."""
        weights, log_variance = self.split(parameters)
        hidden = self._hidden(weights)
        tape, h = self._forward(hidden, len(weights))
        features, precision, gain, factor, mean = self._regression(h, log_variance)
        residual = self.Y.mT - (features @ mean).squeeze(-1)  # K x m x n, float64
        a = precision * residual
        fit = (a * residual).sum(dim=-1)  # K x m
        log_determinant = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        marginal = fit + mean.square().sum(dim=(-2, -1)) + log_determinant

        gradient = torch.empty_like(parameters)
        weights_gradient, noise_gradient = self.split(gradient)
        log_density = self._prior_terms(weights, weights_gradient) - 0.5 * marginal.sum(dim=-1)
        by_features = a.unsqueeze(-1) * mean.mT - gain
        D = (by_features * self._output_scales).sum(dim=1)[..., :-1]
        self._reverse(D.to(h), tape, hidden, self._hidden(weights_gradient))

        if log_variance is not None and noise_gradient is not None:
            n = len(self.X)
            log_density = log_density - 0.5 * n * log_variance.sum(dim=-1)
            # d log p / dl = (a^T a v - v tr C^-1) / 2, and v tr C^-1 = n - tr(G A^-1 G^T V^-1).
            used = (features * gain).sum(dim=(-2, -1))
            noise_gradient.copy_(0.5 * (fit - n + used))
            log_density = log_density + self._noise_prior(log_variance, noise_gradient)
        return log_density, gradient

    def networks(self, parameters: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """As for `NetworkPosterior`, with output layers drawn from their exact conditional.

        b + L^-T e with A = L L^T and e standard normal, times the prior's scales.
        """
        weights, log_variance = self.split(parameters)
        _, h = self._forward(self._hidden(weights), len(weights))
        regression = self._regression(h, log_variance)
        mean = regression.mean
        normal = torch.randn(
            mean.shape, generator=generator, dtype=mean.dtype, device=generator.device
        ).to(mean.device)
        deviation = torch.linalg.solve_triangular(regression.factor.mT, normal, upper=True)
        output = (mean + deviation).squeeze(-1) * self._output_scales.squeeze(-2)  # K x m x p
        theta = torch.cat([weights, output.mT.flatten(start_dim=1).to(weights)], dim=-1)
        return theta, self._noise_variance(log_variance, len(theta))


class _Step(NamedTuple):
    """A hidden layer's input, the activation's argument and its value, `K x n x ...`."""

    before: Tensor
    argument: Tensor
    value: Tensor


class _Regression(NamedTuple):
    """G `K x m x n x p`, 1 / v `K x m x n`, V^-1 G A^-1, the Cholesky factor of A, and b."""

    features: Tensor
    precision: Tensor
    gain: Tensor
    factor: Tensor
    mean: Tensor


class _NegativeSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, parameters: Tensor, posterior: NetworkPosterior) -> Tensor:
        log_density, gradient = posterior(parameters)
        ctx.save_for_backward(gradient)
        return -log_density.sum()

    @staticmethod
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return -outer * gradient, None


def _given(value: T | None) -> T:
    if value is None:
        raise InputError("NetworkPosterior: the noise is known, there is no log variance")
    return value
