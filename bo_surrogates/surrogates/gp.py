"""Gaussian process: BoTorch's `SingleTaskGP`, with a choice of kernels and noise models.

Model: y = f(x) + e, f ~ GP(constant, k), e ~ N(0, s2(x)).

The kernel k, of inputs in the unit cube:
- "rbf" is BoTorch's default: squared exponential, one lengthscale an input under a LogNormal prior
  scaled with the dimension (Hvarfner et al. 2024, arXiv 2402.02229, section 4).
- "matern32" and "matern52": Matern with the same prior.
- "matern": the older default, Matern-5/2 with Gamma(3, 6) lengthscale, Gamma(2, 0.15) output-scale
  and Gamma(1.1, 0.05) noise priors (Balandat et al. 2020, arXiv 1910.06403), the GP of most
  published comparisons.
- "additive": a sum of functions of one input each, orthogonal to each other
  (`kernels/additive.py`).
With `categories="hamming"`, the categorical inputs have a kernel of their own
(`kernels/mixed.py`), for the first three kernels. Otherwise k sees their one-hot columns as inputs.

The noise variance s2 is one number, inferred; given per point; or, with `noise="input-dependent"`,
the exponential of a second Gaussian process (`inference/input_dependent_noise.py`).

Inference: hyper-parameters maximize the marginal likelihood plus log priors (L-BFGS-B); the
posterior over functions is then exact. Several outputs are independent.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from botorch.models.gpytorch import BatchedMultiOutputGPyTorchModel
from botorch.models.transforms.input import (
    ChainedInputTransform,
    InputTransform,
    NumericToCategoricalEncoding,
)
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.models.utils.gpytorch_modules import (
    get_gaussian_likelihood_with_gamma_prior,
    get_matern_kernel_with_gamma_prior,
)
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import FixedNoiseGaussianLikelihood, Likelihood
from torch import Tensor

from bo_surrogates.config import Config, choice
from bo_surrogates.errors import InputError
from bo_surrogates.inference.input_dependent_noise import InputDependentNoiseLikelihood
from bo_surrogates.inference.subset_of_data import search_until
from bo_surrogates.kernels.additive import AdditiveFeatures, AdditiveKernel
from bo_surrogates.kernels.mixed import MixedFeatures, MixedKernel, stationary_kernel
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    SurrogateEntry,
)
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate

SMOOTHNESS = {"rbf": math.inf, "matern32": 1.5, "matern52": 2.5}
PRIOR_FEATURES = 1026  # Fourier features of a drawn function; a multiple of six


@dataclass(frozen=True)
class GPConfig(Config):
    """Configuration of `gp`.

    Attributes:
        kernel: "rbf", "matern32", "matern52", "matern" or "additive"; see the module's docstring.
        categories: "one-hot" (their columns are inputs like others) or "hamming" (a kernel of their
            own; not with the kernels "matern" and "additive"). Choices of two are one column, and
            the same either way.
        noise: "constant" or "input-dependent"; without effect where `train_Yvar` is given.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel",)

    kernel: str = choice("rbf", ("rbf", "matern32", "matern52", "matern", "additive"))
    categories: str = choice("one-hot", ("one-hot", "hamming"))
    noise: str = choice("constant", ("constant", "input-dependent"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.categories == "hamming" and self.kernel not in SMOOTHNESS:
            raise InputError(
                f"GPConfig.categories = 'hamming' takes one of the kernels {list(SMOOTHNESS)}, "
                f"got {self.kernel!r}"
            )


class GP(ExactGPSurrogate):
    """See the module's docstring.

    Args:
        one_hot: The columns of each one-hot coded input. By default those that `input_transform`
            makes; where the inputs come one-hot already (from Ax), they are to be named.

    Other arguments: see `Surrogate`.
    """

    config_class: ClassVar[type[Config]] = GPConfig
    config: GPConfig

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
        *,
        config: Config | None = None,
        seed: int | None = None,
        one_hot: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self._one_hot = one_hot_columns(input_transform) if one_hot is None else one_hot
        super().__init__(
            train_X,
            train_Y,
            train_Yvar,
            input_transform,
            outcome_transform,
            config=config,
            seed=seed,
        )

    @classmethod
    def construct_inputs(cls, training_data: Any, **options: Any) -> dict[str, Any]:
        """Keeps `one_hot`; see `Surrogate.construct_inputs`."""
        one_hot = options.pop("one_hot", None)
        return super().construct_inputs(training_data, **options) | {"one_hot": one_hot}

    def prepare(self) -> None:
        """See `Surrogate.prepare`: the parts that need to know the inputs."""
        config, X = self.config, self.train_inputs[0].detach()
        with torch.no_grad():
            X = self.transform_inputs(X[(0,) * (X.ndim - 2)])
        batch_shape = self._aug_batch_shape
        if config.categories == "hamming" and self._one_hot:
            self.covar_module = MixedKernel(
                self._one_hot, X.shape[-1], SMOOTHNESS[config.kernel], batch_shape
            ).to(X)
        known = isinstance(self.likelihood, FixedNoiseGaussianLikelihood)
        if config.noise == "input-dependent" and not known:
            self.likelihood = InputDependentNoiseLikelihood(X, batch_shape).to(X)
        # Where the outputs' dimension stands in each parameter, for `subset_output`.
        self._subset_batch_dict = {
            name: -parameter.ndim
            for name, parameter in self.named_parameters()
            if self.num_outputs > 1
        }

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`."""
        name: str = config.kernel  # type: ignore[attr-defined]
        match name:
            case "rbf":
                return None
            case "matern":
                return get_matern_kernel_with_gamma_prior(ard_num_dims=d, batch_shape=batch_shape)
            case "additive":
                return AdditiveKernel(d, batch_shape)
            case _:
                return stationary_kernel(SMOOTHNESS[name], d, d, batch_shape)

    @classmethod
    def make_likelihood(cls, config: Config, batch_shape: torch.Size) -> Likelihood | None:
        """See `ExactGPSurrogate.make_likelihood`."""
        if config.kernel == "matern":  # type: ignore[attr-defined]
            return get_gaussian_likelihood_with_gamma_prior(batch_shape=batch_shape)
        return None

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        if self.config.kernel != "additive":
            return {}
        # The likelihood hardly changes along ridges of lengthscales and variances, and the search
        # would go on along them.
        return search_until(1e-6, self.num_outputs > 1)

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        features: dict[type[Kernel], Any] = {
            MixedKernel: MixedFeatures,
            AdditiveKernel: AdditiveFeatures,
        }
        kind = features.get(type(self.covar_module))
        if kind is None:
            return super().prior_sampler()
        return partial(
            draw_kernel_feature_paths,
            map_generator=kind,
            num_features=PRIOR_FEATURES,
            weight_generator=torch.randn,
        )

    def subset_output(self, idcs: list[int]) -> BatchedMultiOutputGPyTorchModel:
        """The model with some of its outputs; see `botorch.models.model.Model.subset_output`."""
        model = super().subset_output(idcs)
        if isinstance(model.covar_module, AdditiveKernel):
            kernel = model.covar_module
            kernel.base_kernel.batch_shape = torch.Size((*model._aug_batch_shape, kernel.dim))
        return model


def one_hot_columns(transform: InputTransform | None) -> list[list[int]]:
    """The columns of each input that a transform codes one-hot."""
    parts = transform.values() if isinstance(transform, ChainedInputTransform) else [transform]
    return [
        list(columns)
        for part in parts
        if isinstance(part, NumericToCategoricalEncoding)
        for columns in part.encoded_idx
    ]


SURROGATES.register(
    SurrogateEntry(
        name="gp",
        model_class=GP,
        summary="Gaussian process: RBF, Matern or additive kernel; constant or varying noise",
        paper="Balandat et al. 2020, arXiv 1910.06403; Hvarfner et al. 2024, arXiv 2402.02229",
        capabilities=Capabilities(posterior="gaussian", exact_conditioning=True),
    )
)
