"""Functions drawn from a Gaussian process by Matheron's rule.

    (f | y)(.) = f(.) + k(., X) (k(X, X) + S)^-1 (y - f(X) - e),    f ~ GP(0, k), e ~ N(0, S)

(Wilson et al. 2020, arXiv 2002.09309, equation 13). The drawing is BoTorch's. Its evaluation
repeats the features for each drawn function, k x n x features numbers at a time; here all
functions share one matrix of features.
"""

from __future__ import annotations

import torch
from botorch.sampling.pathwise import MatheronPath, draw_matheron_paths, gaussian_update
from botorch.sampling.pathwise.paths import GeneralizedLinearPath, SamplePath
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.models import ExactGP
from linear_operator import to_dense
from linear_operator.operators import LinearOperator
from torch import Size, Tensor


class SharedFeaturePath(GeneralizedLinearPath):
    """k functions, linear in the same features: psi(x) . w_i + b(x), i = 1..k."""

    @classmethod
    def of(cls, path: SamplePath) -> SharedFeaturePath:
        """The same functions as `path`, whose weights are `k x batch_shape x features`."""
        if not isinstance(path, GeneralizedLinearPath):
            raise TypeError(f"expected a path linear in features, got {type(path).__name__}")
        return cls(
            feature_map=path.feature_map,
            weight=path.weight,
            bias_module=path.bias_module,
            input_transform=path.input_transform,
            output_transform=path.output_transform,
        )

    def forward(self, x: Tensor, **kwargs: object) -> Tensor:
        """Values of all functions.

        Args:
            x: `n x d` or `batch_shape x n x d` inputs.
            **kwargs: Passed to the feature map.

        Returns:
            `k x batch_shape x n` values.
        """
        features = to_dense(self.feature_map(x, **kwargs))  # batch_shape x n x features
        # Contiguous, since BoTorch draws the noise in the order in which these lie in memory.
        values = (features @ self.weight.movedim(0, -1)).movedim(-1, 0).contiguous()
        return values if self.bias_module is None else values + self.bias_module(x)


def draw_functions(
    model: ExactGP,
    k: int,
    prior_sampler: TPathwisePriorSampler,
    noise: LinearOperator | None = None,
) -> MatheronPath:
    """Draw k functions from the posterior, with torch's global generator.

    Args:
        model: A fitted BoTorch model, in evaluation mode, of m independent outputs.
        k: Number of functions.
        prior_sampler: Draws from the prior, linear in features.
        noise: S; by default what BoTorch takes from the likelihood without regard to the inputs.

    Returns:
        A module from `n x d` inputs to `k x n` values, `k x m x n` for several outputs, in the
        model's own units of inputs and outcomes.
    """

    def prior(model: ExactGP, sample_shape: Size) -> SharedFeaturePath:
        return SharedFeaturePath.of(prior_sampler(model, sample_shape))

    def update(model: ExactGP, sample_values: Tensor, **options: Tensor) -> SharedFeaturePath:
        return SharedFeaturePath.of(
            gaussian_update(model, sample_values, noise_covariance=noise, **options)
        )

    # Without gradients: of a drawn function, only its derivative in the inputs is wanted.
    with torch.no_grad():
        return draw_matheron_paths(
            model, sample_shape=Size([k]), prior_sampler=prior, update_strategy=update
        )
