"""Covariance over continuous inputs and categories.

With k_x a stationary kernel over the continuous inputs, and over the categorical ones

    k_c(c, c') = exp(-sum_j [c_j != c'_j] / l_j^2),

an exponential of the Hamming distance with a lengthscale for each input, functions have covariance

    k = (1 - w) (k_x + k_c) / 2 + w k_x k_c,        0 < w < 1

(Ru et al. 2020, arXiv 1906.08878, equation 7, scaled to k(x, x) = 1): effects of a category that
add to the rest, and effects that change with it.

Categories arrive one-hot. There [c != c'] is half the squared distance, so k_c is a squared
exponential kernel whose lengthscale is the same in all columns of an input. It has gradients
between the categories, where Ax looks for the next point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from botorch.sampling.pathwise.features.maps import FeatureMap
from gpytorch.constraints import GreaterThan
from gpytorch.kernels import Kernel, MaternKernel, RBFKernel
from gpytorch.priors import LogNormalPrior, NormalPrior
from torch import Size, Tensor
from torch.distributions import Gamma

SHORTEST_LENGTHSCALE = 2.5e-2  # of inputs in the unit cube, as in BoTorch's default


def dimension_scaled_prior(d: int) -> LogNormalPrior:
    """LogNormal(sqrt(2) + log(d) / 2, sqrt(3)) on lengthscales of d inputs in the unit cube.

    Hvarfner et al. 2024, arXiv 2402.02229, section 4.
    """
    return LogNormalPrior(loc=math.sqrt(2) + 0.5 * math.log(d), scale=math.sqrt(3))


def stationary_kernel(nu: float, columns: int, d: int, batch_shape: Size) -> Kernel:
    """RBF (nu infinite) or Matern kernel, a lengthscale a column, with the prior for d inputs.

    Args:
        nu: Smoothness: 0.5, 1.5, 2.5 or infinity.
        columns: Number of inputs the kernel sees.
        d: Number of inputs that the prior is scaled with.
        batch_shape: Of the parameters.
    """
    prior = dimension_scaled_prior(d)
    options = {
        "ard_num_dims": columns,
        "batch_shape": batch_shape,
        "lengthscale_prior": prior,
        "lengthscale_constraint": GreaterThan(
            SHORTEST_LENGTHSCALE, transform=None, initial_value=prior.mode
        ),
    }
    return RBFKernel(**options) if math.isinf(nu) else MaternKernel(nu=nu, **options)


class HammingKernel(RBFKernel):
    """k_c of the module's docstring, on one-hot columns.

    Args:
        sizes: Number of columns of each categorical input.
        d: Number of inputs that the lengthscales' prior is scaled with.
        batch_shape: Of the parameters.

    Inputs are `... x n x sum(sizes)`, the columns of an input side by side.
    """

    def __init__(self, sizes: Sequence[int], d: int, batch_shape: Size) -> None:
        prior = dimension_scaled_prior(d)
        super().__init__(
            ard_num_dims=len(sizes),
            batch_shape=batch_shape,
            lengthscale_constraint=GreaterThan(
                SHORTEST_LENGTHSCALE, transform=None, initial_value=prior.mode
            ),
        )
        self.register_prior(
            "lengthscale_prior",
            prior,
            lambda m: m.category_lengthscale,
            lambda m, value: m._set_lengthscale(value),
        )
        self.ard_num_dims = sum(sizes)  # of what it is called with
        # The input that each column belongs to.
        owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(list(sizes)))
        self.register_buffer("owner", owner, persistent=False)

    @property
    def category_lengthscale(self) -> Tensor:
        """`batch_shape x 1 x J` lengthscales, one an input."""
        return self.raw_lengthscale_constraint.transform(self.raw_lengthscale)

    @property
    def lengthscale(self) -> Tensor:
        """`batch_shape x 1 x columns`, the same in the columns of an input."""
        return self.category_lengthscale[..., self.owner]

    @lengthscale.setter
    def lengthscale(self, value: Tensor) -> None:
        self._set_lengthscale(value)


class MixedKernel(Kernel):
    """k of the module's docstring.

    Args:
        groups: The columns of each categorical input.
        columns: Number of columns in all.
        nu: Smoothness of k_x.
        batch_shape: Of the parameters.
    """

    def __init__(
        self, groups: Sequence[Sequence[int]], columns: int, nu: float, batch_shape: Size
    ) -> None:
        super().__init__(batch_shape=batch_shape)
        categorical = [column for group in groups for column in group]
        continuous = [column for column in range(columns) if column not in categorical]
        d = len(continuous) + len(groups)
        self.categories = HammingKernel([len(group) for group in groups], d, batch_shape)
        self.continuous = (
            stationary_kernel(nu, len(continuous), d, batch_shape) if continuous else None
        )
        self.register_buffer("categorical_columns", torch.tensor(categorical), persistent=False)
        self.register_buffer("continuous_columns", torch.tensor(continuous), persistent=False)
        if continuous:
            # logit(w) ~ N(0, 1.5^2), about uniform in w.
            self.register_parameter(
                "logit_interaction", torch.nn.Parameter(torch.zeros(*batch_shape, 1, 1))
            )
            self.register_prior(
                "logit_interaction_prior", NormalPrior(0.0, 1.5), "logit_interaction"
            )

    @property
    def interaction(self) -> Tensor:
        """`batch_shape x 1 x 1`: w."""
        return torch.sigmoid(self.logit_interaction)

    def forward(self, x1: Tensor, x2: Tensor, diag: bool = False, **params: object) -> Tensor:
        """Covariances of `... x n1 x columns` and `... x n2 x columns` inputs.

        Returns:
            `... x n1 x n2`, or `... x n` with `diag`.
        """

        def part(kernel: Kernel, columns: Tensor) -> Tensor:
            value = kernel(x1[..., columns], x2[..., columns], diag=diag)
            return value if diag else value.to_dense()

        k_c = part(self.categories, self.categorical_columns)
        if self.continuous is None:
            return k_c
        k_x = part(self.continuous, self.continuous_columns)
        w = self.interaction.squeeze(-1) if diag else self.interaction
        return (1 - w) * (k_x + k_c) / 2 + w * k_x * k_c


class MixedFeatures(FeatureMap):
    """Random Fourier features of a `MixedKernel`: a block for each of its three terms.

    A product of stationary kernels has the frequencies of both factors, drawn independently.

    Args:
        kernel: With its present parameters.
        num_inputs: Not used: BoTorch passes it, and counts inputs before they are transformed.
        num_outputs: Number of features, a multiple of six.
    """

    def __init__(self, kernel: MixedKernel, num_inputs: int, num_outputs: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.batch_shape = kernel.batch_shape
        self.num_outputs = num_outputs
        self.input_transform = None
        self.output_transform = None
        terms = 1 if kernel.continuous is None else 3
        count, remainder = divmod(num_outputs, 2 * terms)
        if remainder:
            raise ValueError(f"num_outputs must be a multiple of {2 * terms}, got {num_outputs}")
        self.frequencies = []  # of each term, by kernel: batch_shape x count x columns
        for used in ("c",) if terms == 1 else ("x", "c", "xc"):
            parts = {}
            if "x" in used:
                parts["x"] = self._draw(kernel.continuous, kernel.continuous_columns, count)
            if "c" in used:
                parts["c"] = self._draw(kernel.categories, kernel.categorical_columns, count)
            self.frequencies.append(parts)

    def _draw(self, kernel: Kernel, columns: Tensor, count: int) -> Tensor:
        leading = self.batch_shape.numel() * count
        # No Sobol points: those of two kernels would be correlated with each other.
        options = {"device": kernel.device, "dtype": kernel.dtype}
        normal = torch.randn(leading, len(columns), **options)
        if isinstance(kernel, MaternKernel):  # frequencies have a t distribution
            shape = torch.tensor(kernel.nu).to(normal)
            normal = normal * Gamma(shape, shape).sample(Size([leading, 1])).rsqrt()
        return normal.reshape(*self.batch_shape, count, len(columns)) / kernel.lengthscale

    def forward(self, x: Tensor) -> Tensor:
        """Features of `... x n x columns` inputs: `... x n x num_outputs`."""
        kernel = self.kernel
        blocks = []
        for parts in self.frequencies:
            phase: Tensor | float = 0.0
            if "x" in parts:
                phase = phase + x[..., kernel.continuous_columns] @ parts["x"].mT
            if "c" in parts:
                phase = phase + x[..., kernel.categorical_columns] @ parts["c"].mT
            wave = torch.as_tensor(phase)
            blocks.append(torch.cat([wave.sin(), wave.cos()], dim=-1) / parts_count(parts) ** 0.5)
        if len(blocks) > 1:
            w = kernel.interaction
            factors = [((1 - w) / 2).sqrt(), ((1 - w) / 2).sqrt(), w.sqrt()]
            blocks = [factor * block for factor, block in zip(factors, blocks, strict=True)]
        return torch.cat(blocks, dim=-1)


def parts_count(parts: dict[str, Tensor]) -> int:
    """Number of frequencies of a term."""
    return next(iter(parts.values())).shape[-2]
