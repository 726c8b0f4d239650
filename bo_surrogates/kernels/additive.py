"""Functions that are sums of functions of one input each.

    f(x) = c + sum_i f_i(x_i),    each f_i with integral zero over [0, 1]

(Lu, Boukouvalas & Hensman 2022, "Additive Gaussian processes revisited", section 3; the terms of
first order). The condition makes the decomposition unique: a component is the effect of its input.
The kernel is BoTorch's `OrthogonalAdditiveKernel`, with priors; here are the features from which
functions are drawn.
"""

from __future__ import annotations

import math

import torch
from botorch.models.kernels.orthogonal_additive_kernel import OrthogonalAdditiveKernel
from botorch.sampling.pathwise.features.maps import FeatureMap
from botorch.utils.constraints import LogTransformedInterval
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import RBFKernel
from gpytorch.priors import GammaPrior
from torch import Size, Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.kernels.mixed import SHORTEST_LENGTHSCALE, dimension_scaled_prior

QUADRATURE_NODES = 32
FEATURES_PER_INPUT = 48
VARIANCE_BOUNDS = (1e-5, 1e4)  # of the components, of standardized outcomes
NUGGET = 1e-7  # relative; the components' variances are that much too small


class AdditiveKernel(OrthogonalAdditiveKernel):
    """The orthogonal additive kernel of first order on the unit cube.

    Each component has its own lengthscale, under the dimension-scaled prior for one input, and its
    own variance, under Gamma(1.1, 0.05).

    Args:
        d: Number of inputs.
        batch_shape: Of the parameters.
    """

    def __init__(self, d: int, batch_shape: Size) -> None:
        prior = dimension_scaled_prior(1)
        base = RBFKernel(
            batch_shape=Size((*batch_shape, d)),
            lengthscale_prior=prior,
            lengthscale_constraint=GreaterThan(
                SHORTEST_LENGTHSCALE, transform=None, initial_value=math.exp(prior.loc - 2)
            ),
        )
        super().__init__(
            dim=d,
            base_kernel=base,
            quad_deg=QUADRATURE_NODES,
            batch_shape=batch_shape,
            dtype=torch.float64,
            coeff_constraint=LogTransformedInterval(*VARIANCE_BOUNDS),
            offset_prior=GammaPrior(1.1, 0.5),
            coeffs_1_prior=GammaPrior(1.1, 0.05),
        )
        # Buffers, to follow the model to its device and dtype.
        nodes, weights = self.z.contiguous(), self.w
        del self.z, self.w
        self.register_buffer("z", nodes, persistent=False)
        self.register_buffer("w", weights, persistent=False)

    @property
    def batch_shape(self) -> Size:
        """Without the dimension of the components."""
        return self._batch_shape

    @batch_shape.setter
    def batch_shape(self, value: Size) -> None:
        self._batch_shape = value

    def _orthogonal_base_kernels(self, x1: Tensor, x2: Tensor, diag: bool = False) -> Tensor:
        """Of inputs in the cube; outside, components are continued as constants."""
        value: Tensor = super()._orthogonal_base_kernels(
            x1.clamp(0.0, 1.0), x2.clamp(0.0, 1.0), diag=diag
        )
        return value

    def normalizer(self, eps: float = 1e-6) -> Tensor:
        """Integrals of the base kernels over both arguments; not cached, for it is cheap.

        A cached one would outlive a change of the parameters in evaluation mode.
        """
        self.__dict__.pop("_normalizer", None)
        value = super().normalizer(eps)
        self.__dict__.pop("_normalizer", None)
        return value

    def components(self, x1: Tensor, x2: Tensor) -> Tensor:
        """Covariances of the components.

        Args:
            x1: `... x n1 x d` inputs in [0, 1].
            x2: `... x n2 x d` inputs in [0, 1].

        Returns:
            `... x (1 + d) x n1 x n2`, the constant first; their sum is the kernel.
        """
        return self._non_reduced_forward(x1, x2)


class AdditiveFeatures(FeatureMap):
    """Features of an `AdditiveKernel`: those of each component side by side, and the constant.

    A component is a kernel of one input on [0, 1], which values at a few tens of points determine
    to rounding: psi_i(x) = L^-1 k_i(z, x) with k_i(z, z) = L L' (Nystrom's features).

    Args:
        kernel: With its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Not used: there are `FEATURES_PER_INPUT` an input, plus one.
    """

    def __init__(self, kernel: AdditiveKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.batch_shape = kernel.batch_shape
        self.num_outputs = kernel.dim * FEATURES_PER_INPUT + 1
        self.input_transform = None
        self.output_transform = None
        # Chebyshev's points, dense where interpolation needs them.
        angle = torch.linspace(0, math.pi, FEATURES_PER_INPUT).to(kernel.z)
        self.points = (0.5 - 0.5 * angle.cos()).unsqueeze(-1).expand(-1, kernel.dim)
        with torch.no_grad():
            covariance = kernel.components(self.points, self.points)[..., 1:, :, :]
            # A smooth kernel on dense points is singular to rounding.
            nugget = NUGGET * covariance.diagonal(dim1=-2, dim2=-1).amax(dim=-1)
            covariance.diagonal(dim1=-2, dim2=-1).add_(nugget.unsqueeze(-1))
            self.root = psd_safe_cholesky(covariance)  # batch_shape x d x features x features

    def forward(self, x: Tensor) -> Tensor:
        """Features of `... x n x d` inputs: `... x n x num_outputs`."""
        covariance = self.kernel.components(self.points, x)
        psi = torch.linalg.solve_triangular(self.root, covariance[..., 1:, :, :], upper=False)
        psi = psi.flatten(-3, -2).mT
        constant = self.kernel.offset[..., None, None].sqrt().expand(*psi.shape[:-1], 1)
        return torch.cat([psi, constant], dim=-1)
