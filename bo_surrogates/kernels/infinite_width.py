"""Kernels of infinitely wide networks: the neural network Gaussian process (NNGP).

A fully connected network with L hidden layers of width n and independent Gaussian weights,

    h^1     = sqrt(sw/d) W^1 z + sqrt(sb) b^1,
    h^{l+1} = sqrt(sw/n) W^{l+1} phi(h^l) + sqrt(sb) b^{l+1},

becomes a Gaussian process as n grows (Neal 1996; Lee et al. 2018, arXiv 1711.00165, section 2;
Matthews et al. 2018, arXiv 1804.11271). Its covariance follows layer by layer from the
activation's dual map (`dual_activations.py`), at a cost linear in depth.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.priors import NormalPrior
from torch import Tensor
from torch.nn import Parameter

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.dual_activations import DualActivation, dual_activation

MAX_DEPTH = 8
INPUT_SCALE_BOUNDS = (1e-3, 1e2)
OUTPUT_VARIANCE_BOUNDS = (1e-3, 1e3)
BIAS_VARIANCE_BOUNDS = (1e-3, 3.0)


class LayerCovariance(NamedTuple):
    """Covariance of one layer's pre-activations at two sets of points.

    Attributes:
        q1: Variances at the first set, shaped to broadcast against `K`.
        q2: Variances at the second set, shaped to broadcast against `K`.
        K: Covariances between the sets.
    """

    q1: Tensor
    q2: Tensor
    K: Tensor


def layer_covariances(
    activation: DualActivation,
    depth: int,
    first: LayerCovariance,
    weight_variance: float | Tensor,
    bias_variance: Tensor,
) -> Iterator[LayerCovariance]:
    """The covariances of h^1, ..., h^{depth + 1}, each from the one before.

    The last one is the NNGP kernel. The tangent kernel accumulates over all of them.

    Args:
        activation: The activation's dual maps.
        depth: Number of hidden layers.
        first: Covariance of h^1, which is linear in the inputs.
        weight_variance: sw.
        bias_variance: sb, shaped to broadcast against `first.K`.
    """
    q1, q2, K = first
    yield first
    for _ in range(depth):
        K = weight_variance * activation.dual(q1, q2, K) + bias_variance
        q1 = weight_variance * activation.diagonal(q1) + bias_variance
        q2 = weight_variance * activation.diagonal(q2) + bias_variance
        yield LayerCovariance(q1, q2, K)


class NNGPKernel(Kernel):
    """Prior covariance of an infinitely wide network's output.

    k(x, x') = v K^L(z, z'), where z = a * (2 x - 1): inputs are expected in [0, 1]^d and are
    centred, then scaled by one factor an input. `v`, `a` and the bias variance sb are learnt in
    the log domain, each within bounds; log a and log v have a standard normal prior, sb none.

    Computed in float64 whatever the dtype of the inputs, and cast back: in float32 the angle
    between nearby points is wrong in the fourth digit and the Gram matrix is not positive
    definite.

    Args:
        activation: Name of one of `DUAL_ACTIVATIONS`, or an own `DualActivation`.
        depth: Number of hidden layers, 1 to 8.
        ard_num_dims: Number of inputs d.
        weight_variance: sw, > 0; None for the activation's default.
        normalize: Divide by sqrt(K^L(z, z) K^L(z', z')), so that the prior variance is `v`
            everywhere instead of growing away from the centre.
        batch_shape: One set of parameters for each element, e.g. for each output.

    Raises:
        InputError: An unknown activation, or a depth or weight variance out of range.
    """

    has_lengthscale = False  # hence not stationary

    def __init__(
        self,
        activation: str | DualActivation,
        depth: int,
        ard_num_dims: int,
        *,
        weight_variance: float | None = None,
        normalize: bool = False,
        batch_shape: torch.Size | None = None,
    ) -> None:
        super().__init__(ard_num_dims=ard_num_dims, batch_shape=batch_shape)
        self.activation = dual_activation(activation) if isinstance(activation, str) else activation
        if not 1 <= depth <= MAX_DEPTH:
            raise InputError(f"depth must be in 1..{MAX_DEPTH}, got {depth}")
        if weight_variance is None:
            weight_variance = self.activation.weight_variance
        if not 0 < weight_variance < math.inf:
            raise InputError(f"weight_variance must be positive and finite, got {weight_variance}")
        self.depth = depth
        self.weight_variance = weight_variance
        self.normalize = normalize
        # Logarithms with box constraints (no transform): L-BFGS-B honours the bounds exactly.
        shape = self.batch_shape
        for name, columns, initial, bounds in (
            ("log_input_scale", ard_num_dims, 1.0, INPUT_SCALE_BOUNDS),
            ("log_output_variance", 1, 1.0, OUTPUT_VARIANCE_BOUNDS),
            ("log_bias_variance", 1, 0.1, BIAS_VARIANCE_BOUNDS),
        ):
            value = torch.full((*shape, 1, columns), math.log(initial))
            self.register_parameter(name, Parameter(value))
            low, high = (math.log(b) for b in bounds)
            self.register_constraint(name, Interval(low, high, transform=None))
        self.register_prior(
            "log_input_scale_prior", NormalPrior(0.0, 1.0), _log_input_scale, _set_log_input_scale
        )
        self.register_prior(
            "log_output_variance_prior",
            NormalPrior(0.0, 1.0),
            _log_output_variance,
            _set_log_output_variance,
        )

    @property
    def input_scale(self) -> Tensor:
        """a, `batch_shape x 1 x d`, float64."""
        return self.log_input_scale.double().exp()

    @property
    def output_variance(self) -> Tensor:
        """v, `batch_shape x 1 x 1`, float64."""
        return self.log_output_variance.double().exp()

    @property
    def bias_variance(self) -> Tensor:
        """sb, `batch_shape x 1 x 1`, float64."""
        return self.log_bias_variance.double().exp()

    def scaled_inputs(self, X: Tensor) -> Tensor:
        """z = a * (2 x - 1), float64.

        Args:
            X: `... x n x d` inputs in [0, 1].
        """
        return (2.0 * X.double() - 1.0) * self.input_scale

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: Any,
    ) -> Tensor:
        """The covariance between two sets of points.

        Args:
            x1: `... x n x d` inputs in [0, 1].
            x2: `... x m x d` inputs in [0, 1].
            diag: Only the covariances of points in the same position; then m = n.
            last_dim_is_batch: Not supported.
            **params: Ignored.

        Returns:
            `... x n x m` covariances, or `... x n` with `diag`, in the dtype of `x1`.

        Raises:
            InputError: `last_dim_is_batch` is set.
        """
        if last_dim_is_batch:
            raise InputError(
                "NNGPKernel does not support last_dim_is_batch: a network mixes all its inputs"
            )
        # Equal values are not enough where gradients are wanted: the partial derivative in x1
        # alone, at x1 = x2, is not the derivative of the variance.
        same = x1 is x2 or (
            diag and not (x1.requires_grad or x2.requires_grad) and torch.equal(x1, x2)
        )
        z1 = self.scaled_inputs(x1)
        z2 = z1 if same else self.scaled_inputs(x2)
        if diag and same:
            variance = torch.ones_like(z1[..., :1]) if self.normalize else self.network_variance(z1)
            return (self.output_variance * variance).squeeze(-1).to(x1.dtype)
        scale = self.weight_variance / x1.shape[-1]
        bias = self.bias_variance
        q1 = scale * z1.square().sum(dim=-1, keepdim=True) + bias
        q2 = q1 if same else scale * z2.square().sum(dim=-1, keepdim=True) + bias
        if diag:
            K = scale * (z1 * z2).sum(dim=-1, keepdim=True) + bias
        else:
            K, q2 = scale * (z1 @ z2.mT) + bias, q2.mT
        for layer in layer_covariances(  # noqa: B007
            self.activation, self.depth, LayerCovariance(q1, q2, K), self.weight_variance, bias
        ):
            pass
        covariance = layer.K
        if self.normalize:
            covariance = covariance * layer.q1.rsqrt() * layer.q2.rsqrt()
        covariance = self.output_variance * covariance
        return (covariance.squeeze(-1) if diag else covariance).to(x1.dtype)

    def network_variance(self, z: Tensor) -> Tensor:
        """K^L(z, z) by the diagonal recursion alone.

        Args:
            z: `... x n x d` scaled inputs, see `scaled_inputs`.

        Returns:
            `... x n x 1` variances of the network's output, before the factor v.
        """
        bias = self.bias_variance
        q = self.weight_variance / z.shape[-1] * z.square().sum(dim=-1, keepdim=True) + bias
        for _ in range(self.depth):
            q = self.weight_variance * self.activation.diagonal(q) + bias
        return q


# Functions, not lambdas: a kernel can be copied and sent to another process.
def _log_input_scale(kernel: NNGPKernel) -> Tensor:
    return kernel.log_input_scale


def _set_log_input_scale(kernel: NNGPKernel, value: Tensor) -> None:
    kernel.initialize(log_input_scale=value)


def _log_output_variance(kernel: NNGPKernel) -> Tensor:
    return kernel.log_output_variance


def _set_log_output_variance(kernel: NNGPKernel, value: Tensor) -> None:
    kernel.initialize(log_output_variance=value)
