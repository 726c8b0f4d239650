"""Infinitely wide Bayesian neural network: an exact Gaussian process with the NNGP kernel.

Model: y = f(x) + e with f ~ GP(constant, v K), K the covariance of an infinitely wide network with
L hidden layers, with or without skip connections (`kernels/recursion.py`). It is what a Bayesian
neural network with Gaussian weights becomes as its width grows (Lee et al. 2018, arXiv 1711.00165;
Matthews et al. 2018, arXiv 1804.11271; as a surrogate, Li et al. 2023, arXiv 2305.20028): no
sampler, and a kernel that is not stationary.

Inference: hyper-parameters (input scales, output variance, bias variance, noise, constant mean)
maximize the marginal likelihood plus log priors within bounds (L-BFGS-B); the posterior over
functions is then exact. Several outputs are independent. With activation "auto" this is done for a
ReLU, the papers' own, and for a sine, roughly; the search goes on with the one of the larger
maximum (with 500 observations or more, of the maxima on a random 200 of them): functions are rough
or smooth, and the evidence mostly tells which; it often takes a jump for a smooth function (README,
"How near the optimum do they come?"). On the functions of `benchmarks/calibration.py` a third
candidate (erf or GELU, seven seeds) gained nothing clear.

Prediction: the Gaussian posterior; drawn functions by Matheron's rule, with wide random networks
for the prior and the exact kernel for the update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Self

import torch
from botorch.exceptions.errors import ModelFittingError
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.constraints import Interval
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import GaussianLikelihood, Likelihood
from gpytorch.priors import LogNormalPrior
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.inference.subset_of_data import FTOL, MANY, on_few_points, search_until
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import MAX_DEPTH, NNGPKernel
from bo_surrogates.kernels.random_network import HIDDEN_WIDTH, RandomNetworkFeatures
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate

NOISE_VARIANCE_BOUNDS = (1e-4, 10.0)  # of standardized outcomes, as are those of the mean
MEAN_BOUNDS = (-10.0, 10.0)
PRIOR_FEATURES = 8 * HIDDEN_WIDTH + 1
AUTO = "auto"
CANDIDATES = ("relu", "sin")  # of which "auto" chooses
# Relative change of the loss a point at which the search with each candidate ends: a hundredth of a
# nat for a hundred observations, after half of the evaluations.
ROUGHLY = 1e-4
SEARCH_ERRORS = (ModelFittingError, NotPSDError, NanError)


@dataclass(frozen=True)
class NNGPConfig(Config):
    """Configuration of `nngp`.

    Attributes:
        activation: Decides how smooth functions are: "relu" and "leaky_relu" are piecewise
            linear, the others analytic; "rbf_sin" makes the kernel stationary. "auto" chooses
            "relu" or "sin", one for all outputs, by the evidence; a warm start's choice stays.
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

    activation: str = choice(AUTO, (AUTO, *DUAL_ACTIVATIONS))
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
    chosen: Tensor  # with activation "auto": which of `CANDIDATES`
    _options: dict[str, Any] | None = None  # of the search that goes on

    def prepare(self) -> None:
        """See `Surrogate.prepare`."""
        if self.config.activation == AUTO:  # part of the state: it is learnt
            self.register_buffer("chosen", torch.tensor(0))
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
            CANDIDATES[0] if config.activation == AUTO else config.activation,
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

    @property
    def activation(self) -> str:
        """Of the network; the one that was chosen, with "auto"."""
        name: str = self.covar_module.network.activation.name
        return name

    def _use(self, activation: str, parameters: Sequence[Tensor] = ()) -> None:
        """Take an activation, and values of the parameters if any are given."""
        self.train()  # what was computed with others is forgotten
        self.chosen.fill_(CANDIDATES.index(activation))
        self.covar_module.use_activation(activation)
        if parameters:
            with torch.no_grad():
                for own, value in zip(self.parameters(), parameters, strict=True):
                    own.copy_(value)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        if self.config.activation == AUTO:
            self.covar_module.use_activation(CANDIDATES[int(self.chosen)])

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Maximize the marginal likelihood, of each candidate with "auto"; see `Surrogate.fit`."""
        if self.config.activation != AUTO:
            return super().fit(warm_start)
        if isinstance(warm_start, NNGP) and warm_start.activation in CANDIDATES:
            self._use(warm_start.activation)
            return super().fit(warm_start)
        if self.train_targets.shape[-1] >= MANY:
            few: NNGP = on_few_points(
                self.train(), torch.Generator().manual_seed(derive_seed(self.seed, "few points"))
            )
            return self.fit(few.fit())
        start = [p.detach().clone() for p in self.parameters()]
        found: list[tuple[str, list[Tensor], FitDiagnostics]] = []
        failure: Exception | None = None
        roughly = self.fit_options() | search_until(ROUGHLY, self.num_outputs > 1)
        for activation in CANDIDATES:
            try:
                found.append(self._search(activation, start, roughly))
            except SEARCH_ERRORS as error:
                failure = error
        if not found:
            raise ModelFittingError(f"no activation could be fitted; the last: {failure}")
        activation, parameters, _ = max(found, key=_evidence)
        with suppress(*SEARCH_ERRORS):  # what was found so far is good enough
            options = search_until(FTOL, self.num_outputs > 1) | {"max_attempts": 1}
            found.append(self._search(activation, parameters, options))
        activation, parameters, self.diagnostics = max(found, key=_evidence)
        self._use(activation, parameters)
        return self.eval()

    def _search(
        self, activation: str, start: list[Tensor], options: dict[str, Any]
    ) -> tuple[str, list[Tensor], FitDiagnostics]:
        """The activation, the parameters found from a start, and what was said of them."""
        self._use(activation, start)
        self._options = options
        try:
            super().fit()
        finally:
            self._options = None
        return activation, [p.detach().clone() for p in self.parameters()], self.diagnostics

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        if self._options is not None:
            return self._options
        return search_options(self.config.restarts, self.num_outputs > 1)

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        return partial(
            draw_kernel_feature_paths,
            num_features=PRIOR_FEATURES,
            map_generator=RandomNetworkFeatures,
            weight_generator=torch.randn,
        )


def search_options(restarts: int, several: bool) -> dict[str, Any]:
    """Options of `fit_gpytorch_mll`.

    Args:
        restarts: Starting points.
        several: Whether several outputs are fitted, each by itself.
    """
    options = search_until(FTOL, several)
    if restarts == 1:  # BoTorch's own policy: further starting points only where the first fails
        return options
    return options | {"max_attempts": restarts, "pick_best_of_all_attempts": True}


def _evidence(found: tuple[str, list[Tensor], FitDiagnostics]) -> float:
    value = found[2].values["log_marginal_likelihood_per_point"]
    return value if math.isfinite(value) else -math.inf  # the first stays if none is finite


SURROGATES.register(
    SurrogateEntry(
        name="nngp",
        model_class=NNGP,
        summary="Infinitely wide Bayesian neural network: Gaussian process with the NNGP kernel",
        paper="Lee et al. 2018, arXiv 1711.00165; Li et al. 2023, arXiv 2305.20028",
        capabilities=Capabilities(posterior="gaussian", exact_conditioning=True),
    )
)
