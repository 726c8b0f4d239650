"""Kernels of infinitely wide networks: the neural network Gaussian process (NNGP) and the neural
tangent kernel (NTK), as GPyTorch kernels with learnt scales. The networks and the recursion are
those of `recursion.py`.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.priors import NormalPrior
from torch import Tensor
from torch.nn import Parameter

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.dual_activations import DualActivation, dual_activation
from bo_surrogates.kernels.recursion import Kind, Network, first_layer, gram, propagate, variances

MAX_DEPTH = 16
INPUT_SCALE_BOUNDS = (1e-3, 1e2)
OUTPUT_VARIANCE_BOUNDS = (1e-3, 1e3)
BIAS_VARIANCE_BOUNDS = (1e-3, 3.0)


class NNGPKernel(Kernel):
    """Prior covariance of an infinitely wide network's output.

    k(x, x') = v K(z, z'), where z = a * (2 x - 1): inputs are expected in [0, 1]^d and are
    centred, then scaled by one factor an input. `v`, `a` and the bias variance sb are learnt in
    the log domain, each within bounds; log a and log v have a standard normal prior, sb none.

    Computed in float64 whatever the dtype of the inputs, and cast back: in float32 the angle
    between nearby points is wrong in the fourth digit and the Gram matrix is not positive
    definite.

    Args:
        activation: Name of one of `DUAL_ACTIVATIONS`, or an own `DualActivation`.
        depth: Number of hidden layers, 1 to 16.
        ard_num_dims: Number of inputs d.
        weight_variance: sw, > 0; None for the activation's default.
        skip: Share of the variance that skip connections carry past each hidden layer after the
            first, in [0, 1).
        ard: Whether each input has its own scale `a`, or all share one.
        normalize: Divide by the kernel's square root at z and at z', so that the prior variance
            is `v` everywhere instead of growing away from the centre.
        batch_shape: One set of parameters for each element, e.g. for each output.

    Raises:
        InputError: An unknown activation, or a depth, weight variance or skip out of range.
    """

    has_lengthscale = False  # hence not stationary
    kind: ClassVar[Kind] = "nngp"

    def __init__(
        self,
        activation: str | DualActivation,
        depth: int,
        ard_num_dims: int,
        *,
        weight_variance: float | None = None,
        skip: float = 0.0,
        ard: bool = True,
        normalize: bool = False,
        batch_shape: torch.Size | None = None,
    ) -> None:
        super().__init__(ard_num_dims=ard_num_dims, batch_shape=batch_shape)
        if not 1 <= depth <= MAX_DEPTH:
            raise InputError(f"depth must be in 1..{MAX_DEPTH}, got {depth}")
        if weight_variance is not None and not 0 < weight_variance < math.inf:
            raise InputError(f"weight_variance must be positive and finite, got {weight_variance}")
        if not 0 <= skip < 1:
            raise InputError(f"skip must be in [0, 1), got {skip}")
        self._weight_variance = weight_variance
        self.network = self._network(activation, depth, skip)
        self.normalize = normalize
        # Logarithms with box constraints (no transform): L-BFGS-B honours the bounds exactly.
        shape = self.batch_shape
        for name, columns, initial, bounds in (
            ("log_input_scale", ard_num_dims if ard else 1, 1.0, INPUT_SCALE_BOUNDS),
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

    def _network(self, activation: str | DualActivation, depth: int, skip: float) -> Network:
        activation = dual_activation(activation) if isinstance(activation, str) else activation
        given = self._weight_variance
        variance = activation.weight_variance if given is None else given
        return Network(activation, depth, variance, skip)

    def use_activation(self, name: str) -> None:
        """Change the network's activation, and its weight variance unless one was given."""
        self.network = self._network(name, self.network.depth, self.network.skip)

    @property
    def input_scale(self) -> Tensor:
        """a, `batch_shape x 1 x d` (or one column, if shared), float64."""
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

    def amplitude(self, z: Tensor) -> Tensor | None:
        """What `normalize` multiplies functions by, `... x n x 1`, before sqrt(v).

        Args:
            z: `... x n x d` scaled inputs, see `scaled_inputs`.

        Returns:
            1 / sqrt(k(z, z) / v); None for 1, without `normalize`.
        """
        return self._variance(z).rsqrt() if self.normalize else None

    def _factor(self) -> Tensor:
        """What the network's covariance is multiplied by, `batch_shape x 1 x 1`."""
        return self.output_variance

    def _variance(self, z: Tensor) -> Tensor:
        """The kernel's diagonal before `_factor` and `normalize`, `... x n x 1`."""
        return variances(self.network, z, self.bias_variance, tangent=False).K

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
                f"{type(self).__name__} does not support last_dim_is_batch: a network mixes all "
                "its inputs"
            )
        if not diag:
            return self.matrices(x1, x2, self.kind)[0]
        z1, z2 = self._pair_of_inputs(x1, x2, diag)
        if z1 is z2:
            variance = torch.ones_like(z1[..., :1]) if self.normalize else self._variance(z1)
        else:
            bias = self.bias_variance
            first = first_layer(self.network, z1, z2, bias, diag=True)
            layers = propagate(self.network, *first, bias, tangent=self.kind != "nngp")
            covariance = layers.K if layers.T is None else layers.T
            amplitudes = self.amplitude(z1), self.amplitude(z2)
            variance = covariance
            for amplitude in amplitudes:
                variance = variance if amplitude is None else variance * amplitude
        # `normalize` divides by the variance, and with it by what `_factor` has beside v.
        factor = self.output_variance if self.normalize else self._factor()
        return (factor * variance).squeeze(-1).to(x1.dtype)

    def matrices(self, x1: Tensor, x2: Tensor, kind: Kind) -> tuple[Tensor, ...]:
        """Covariances of the network between two sets of points: before training, its tangents.

        Args:
            x1: `... x n x d` inputs in [0, 1].
            x2: `... x m x d` inputs in [0, 1].
            kind: "nngp", "tangent", or "both" in this order.

        Returns:
            Matrices `... x n x m` in the dtype of `x1`.
        """
        z1, z2 = self._pair_of_inputs(x1, x2)
        amplitude1, amplitude2 = self.amplitude(z1), self.amplitude(z2)
        if amplitude1 is None or amplitude2 is None:
            factor1, factor2 = self._factor(), None
        else:
            factor1, factor2 = self.output_variance * amplitude1, amplitude2.mT
        found = gram(self.network, z1, z2, self.bias_variance, factor1, factor2, kind)
        return tuple(M.to(x1.dtype) for M in found)

    def _pair_of_inputs(self, x1: Tensor, x2: Tensor, diag: bool = False) -> tuple[Tensor, Tensor]:
        """Both sets, scaled; one tensor where they are the same points."""
        # Equal values are not enough where gradients are wanted: the partial derivative in x1
        # alone, at x1 = x2, is not the derivative of the variance.
        same = x1 is x2 or (
            not (x1.requires_grad or x2.requires_grad)
            and (diag or x1.data_ptr() == x2.data_ptr())
            and torch.equal(x1, x2)
        )
        z1 = self.scaled_inputs(x1)
        return z1, z1 if same else self.scaled_inputs(x2)


class NTKKernel(NNGPKernel):
    """The neural tangent kernel, v T(z, z') / (L + 1).

    A sum over L + 1 layers of weights: divided by their number, it has the size of the NNGP
    kernel. It is the tangent kernel of a network whose output is multiplied by
    sqrt(v / (L + 1)), and `matrices` gives the covariance of that network as well. With
    `normalize` the output is multiplied by sqrt(v / T(z, z)).

    Arguments are those of `NNGPKernel`. Of piecewise linear activations it has a kink at
    coincident points, where its derivative is taken as 0.
    """

    kind: ClassVar[Kind] = "tangent"

    def _factor(self) -> Tensor:
        return self.output_variance / (self.network.depth + 1)

    def _variance(self, z: Tensor) -> Tensor:
        T = variances(self.network, z, self.bias_variance, tangent=True).T
        if T is None:
            raise TypeError("variances() left out the tangent kernel")
        return T


# Functions, not lambdas: a kernel can be copied and sent to another process.
def _log_input_scale(kernel: NNGPKernel) -> Tensor:
    return kernel.log_input_scale


def _set_log_input_scale(kernel: NNGPKernel, value: Tensor) -> None:
    kernel.initialize(log_input_scale=value)


def _log_output_variance(kernel: NNGPKernel) -> Tensor:
    return kernel.log_output_variance


def _set_log_output_variance(kernel: NNGPKernel, value: Tensor) -> None:
    kernel.initialize(log_output_variance=value)
