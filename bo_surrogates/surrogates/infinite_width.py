"""Infinitely wide Bayesian neural network: an exact Gaussian process with the NNGP kernel.

Model: y = f(x) + e with f ~ GP(constant, v K), K the covariance of an infinitely wide network with
L hidden layers, with or without skip connections (`kernels/recursion.py`). It is what a Bayesian
neural network with Gaussian weights becomes as its width grows (Lee et al. 2018, arXiv 1711.00165;
Matthews et al. 2018, arXiv 1804.11271; as a surrogate, Li et al. 2023, arXiv 2305.20028): no
sampler, and a kernel that is not stationary.

Inference: hyper-parameters (input scales, output variance, bias variance, noise, constant mean)
maximize the marginal likelihood plus log priors within bounds (L-BFGS-B); the posterior over
functions is then exact. Several outputs are independent.

Prediction: the Gaussian posterior; drawn functions by Matheron's rule, with wide random networks
for the prior and the exact kernel for the update.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood, Likelihood
from gpytorch.priors import LogNormalPrior

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import MAX_DEPTH, NNGPKernel
from bo_surrogates.kernels.random_network import HIDDEN_WIDTH, RandomNetworkFeatures
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate

NOISE_VARIANCE_BOUNDS = (1e-4, 10.0)  # of standardized outcomes, as are those of the mean
MEAN_BOUNDS = (-10.0, 10.0)
PRIOR_FEATURES = 8 * HIDDEN_WIDTH + 1


@dataclass(frozen=True)
class NNGPConfig(Config):
    """Configuration of `nngp`.

    Attributes:
        activation: Decides how smooth functions are: "relu" and "leaky_relu" are piecewise
            linear, the others analytic; "rbf_sin" makes the kernel stationary.
        depth: Number of hidden layers, 1 to 16; deeper kernels are flatter away from x = x'.
        weight_variance: Prior variance of the weights (times 1 / width); None for the
            activation's default, at which signals neither vanish nor explode with depth.
        skip: Share of the variance that skip connections carry past each hidden layer after the
            first; what is lost with depth is lost more slowly.
        ard: Whether each input has its own scale, or all share one.
        normalize: Equal prior variance everywhere, instead of growing away from the centre.
        restarts: Starting points of the hyper-parameters' optimization: the prior's centre (or
            the warm start), then draws from the priors; the best optimum is kept. More than one
            pays for the sine activations on functions of many periods.
    """

    activation: str = choice("relu", tuple(DUAL_ACTIVATIONS))
    depth: int = integer(3, 1, MAX_DEPTH, search=(1, 8))
    weight_variance: float | None = real(
        None, 1e-2, 1e2, log=True, optional=True, search=(0.3, 5.0)
    )
    skip: float = real(0.0, 0.0, 0.99, search=(0.0, 0.9))
    ard: bool = flag(True)
    normalize: bool = flag(False)
    restarts: int = integer(1, 1, 100)

    _searched: ClassVar[tuple[str, ...] | None] = (
        "activation",
        "depth",
        "weight_variance",
        "skip",
        "normalize",
    )


class NNGP(ExactGPSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = NNGPConfig
    kernel_class: ClassVar[type[NNGPKernel]] = NNGPKernel

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        self.mean_module.register_constraint(
            "raw_constant", Interval(*MEAN_BOUNDS, transform=None).to(self.train_targets)
        )
        # Where the outputs' dimension stands in each parameter, for `subset_output`.
        self._subset_batch_dict = {
            "mean_module.raw_constant": -1,
            "covar_module.log_input_scale": -3,
            "covar_module.log_output_variance": -3,
            "covar_module.log_bias_variance": -3,
            "likelihood.noise_covar.raw_noise": -2,
        }

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`."""
        if not isinstance(config, NNGPConfig):
            raise TypeError(f"expected an NNGPConfig, got {config!r}")
        return cls.kernel_class(
            config.activation,
            config.depth,
            d,
            weight_variance=config.weight_variance,
            skip=config.skip,
            ard=config.ard,
            normalize=config.normalize,
            batch_shape=batch_shape,
        )

    @classmethod
    def make_likelihood(cls, config: Config, batch_shape: torch.Size) -> Likelihood | None:
        """BoTorch's LogNormal(-4, 1) prior on the noise variance, bounded on both sides.

        The bounds are those of a sigmoid, which makes the optimizer step in the logarithm of a
        small variance: it then needs a third of the evaluations that a box on the variance takes.
        """
        prior = LogNormalPrior(loc=-4.0, scale=1.0)
        return GaussianLikelihood(
            noise_prior=prior,
            noise_constraint=Interval(*NOISE_VARIANCE_BOUNDS, initial_value=prior.mode),
            batch_shape=batch_shape,
        )

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        if self.config.restarts == 1:
            return {}  # BoTorch's own policy: further starting points only where the first fails
        return {"max_attempts": self.config.restarts, "pick_best_of_all_attempts": True}

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        return partial(
            draw_kernel_feature_paths,
            num_features=PRIOR_FEATURES,
            map_generator=RandomNetworkFeatures,
            weight_generator=torch.randn,
        )


SURROGATES.register(
    SurrogateEntry(
        name="nngp",
        model_class=NNGP,
        summary="Infinitely wide Bayesian neural network: Gaussian process with the NNGP kernel",
        paper="Lee et al. 2018, arXiv 1711.00165; Li et al. 2023, arXiv 2305.20028",
        capabilities=Capabilities(posterior="gaussian", exact_conditioning=True),
    )
)
