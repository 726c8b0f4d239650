"""Deep kernels: a stationary kernel of the features that a network makes of the inputs.

    k(x, x') = k_0(phi(x), phi(x'))

(Wilson et al. 2016, arXiv 1511.02222, equation 5), k_0 the RBF or a Matern kernel with a
lengthscale a feature, phi a multilayer perceptron g of the centred inputs 2x - 1, or x + g(2x - 1):
a warp of the inputs, which is no warp where g vanishes.

Weights are theta_0 + s z: a centre, a prior standard deviation and standard normal z, which are
what is learnt. g may be given a Lipschitz constant c: a weight W of its L + 1 layers counts as
W / max(1, |W| / b), |W| the largest singular value, b = (c / 2)^(1 / (L + 1)). With c < 1 the warp
is then one to one, and distances are kept up to 1 -+ c (van Amersfoort et al. 2021, arXiv
2102.11409, section 3.1, where singular values are found by power iteration; these matrices are
small enough for all of them).
"""

from __future__ import annotations

import torch
from botorch.sampling.pathwise import gen_kernel_features
from botorch.sampling.pathwise.features.maps import FeatureMap
from gpytorch.kernels import Kernel
from gpytorch.priors import NormalPrior
from torch import Size, Tensor
from torch.nn import Parameter

from bo_surrogates.errors import InputError
from bo_surrogates.kernels.mixed import stationary_kernel
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP, Layer

LIPSCHITZ_ONE = ("tanh", "relu", "sine")  # activations whose slope is at most 1


class DeepKernel(Kernel):
    """k of the module's docstring; inputs are expected in [0, 1]^d.

    Args:
        nu: Smoothness of k_0: 0.5, 1.5, 2.5 or infinity.
        network: g; its outputs are the features, as many as inputs where `residual`.
        residual: Whether phi(x) = x + g(2x - 1), or g alone.
        lipschitz: c, > 0; None for no bound.
        batch_shape: One set of parameters for each element, e.g. for each output.

    Raises:
        InputError: A residual network with another number of outputs than inputs, or a bound for an
            activation that is steeper than 1.
    """

    has_lengthscale = False  # hence not stationary

    def __init__(
        self,
        nu: float,
        network: BatchedMLP,
        *,
        residual: bool = True,
        lipschitz: float | None = None,
        batch_shape: Size | None = None,
    ) -> None:
        super().__init__(batch_shape=batch_shape)
        if residual and network.inputs != network.outputs:
            raise InputError(
                f"a residual network has as many outputs as inputs, {network.inputs}; "
                f"got {network.outputs}"
            )
        if lipschitz is not None and network.activation not in LIPSCHITZ_ONE:
            raise InputError(
                f"a Lipschitz bound takes one of the activations {list(LIPSCHITZ_ONE)}, "
                f"got {network.activation!r}"
            )
        self.network, self.residual = network, residual
        self.layer_bound = (
            None if lipschitz is None else (lipschitz / 2.0) ** (1.0 / (network.depth + 1))
        )
        features = network.outputs
        self.base_kernel = stationary_kernel(nu, features, features, self.batch_shape)
        size = (*self.batch_shape, network.num_parameters)
        self.register_parameter("whitened", Parameter(torch.zeros(size)))
        # Parameters that are not learnt, not buffers: GPyTorch indexes parameters only.
        self.centre = Parameter(torch.zeros(size), requires_grad=False)
        self.spread = Parameter(torch.ones(size), requires_grad=False)
        self.register_prior("whitened_prior", NormalPrior(0.0, 1.0), _whitened, _set_whitened)

    def layers(self) -> list[Layer]:
        """The network's layers as they count, weights `batch_shape x in x out`."""
        theta = self.centre + self.spread * self.whitened
        shape = theta.shape[:-1]
        layers = []
        for weight, bias in self.network.unpack(theta.reshape(-1, theta.shape[-1])):
            if self.layer_bound is not None:
                norm = torch.linalg.matrix_norm(weight, ord=2, keepdim=True)
                weight = weight / (norm / self.layer_bound).clamp_min(1.0)
            layers.append(
                Layer(
                    weight.reshape(*shape, *weight.shape[1:]),
                    bias.reshape(*shape, 1, bias.shape[-1]),
                )
            )
        return layers

    def features(self, x: Tensor) -> Tensor:
        """phi of `... x n x d` inputs, leading dimensions broadcast: `... x n x features`."""
        *hidden, (weight, bias) = self.layers()
        activation = ACTIVATIONS[self.network.activation]
        h = 2.0 * x - 1.0
        for w, b in hidden:
            h = activation(h @ w + b)
        g = h @ weight + bias
        return x + g if self.residual else g

    def forward(
        self,
        x1: Tensor,
        x2: Tensor,
        diag: bool = False,
        last_dim_is_batch: bool = False,
        **params: object,
    ) -> Tensor:
        """Covariances of `... x n x d` and `... x m x d` inputs: `... x n x m`, diagonal `... x n`.

        Raises:
            InputError: `last_dim_is_batch` is set.
        """
        if last_dim_is_batch:
            raise InputError("DeepKernel does not support last_dim_is_batch: it mixes all inputs")
        phi1 = self.features(x1)
        phi2 = phi1 if x1 is x2 else self.features(x2)
        covariance: Tensor = self.base_kernel.forward(phi1, phi2, diag=diag, **params)
        return covariance


class DeepKernelFeatures(FeatureMap):
    """Random Fourier features of k_0 at phi(x).

    Args:
        kernel: The deep kernel, with its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Number of features.
    """

    def __init__(self, kernel: DeepKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.batch_shape = kernel.batch_shape
        self.num_outputs = num_outputs
        self.input_transform = None
        self.output_transform = None
        self.waves = gen_kernel_features(
            kernel.base_kernel, num_inputs=kernel.network.outputs, num_outputs=num_outputs
        )

    def forward(self, x: Tensor) -> Tensor:
        """Features of `... x n x d` inputs: `... x n x num_outputs`."""
        waves: Tensor = self.waves(self.kernel.features(x))
        return waves


# Functions, not lambdas: a kernel can be copied and sent to another process.
def _whitened(kernel: DeepKernel) -> Tensor:
    return kernel.whitened


def _set_whitened(kernel: DeepKernel, value: Tensor) -> None:
    kernel.initialize(whitened=value)
