"""Deep kernel learning: a Gaussian process on features that a network makes of the inputs.

Model: y = f(x) + e, f ~ GP(constant, k_0(phi(x), phi(x'))), k_0 an RBF or Matern kernel with the
priors of `gp`, phi a network (`kernels/deep.py`; Wilson et al. 2016, arXiv 1511.02222): by default
x + g(x), a warp of the inputs, with a Gaussian prior about a random g that is silent at first, so
that the model is `gp` unless the data say otherwise. Several outputs are independent, each with its
own network. The noise variance has the prior and the lower bound of `gp`.

Inference: lengthscales, noise and mean first maximize the marginal likelihood plus log priors with
the network as it started; then all of them and the network's weights do so together (L-BFGS-B).
The marginal likelihood does not guard thousands of weights against overfitting: correlating all
observations with each other raises it (Ober, Rasmussen & van der Wilk 2021, arXiv 2102.12108). What
guards is the prior on the last layer's weights (`output_scale`): chosen by predictive log density
and coverage on the functions of `benchmarks/calibration.py`, where larger warps help on functions
of one or two inputs and do harm on those of six. Early stopping is a choice, of two kinds:
- "leave-one-out" keeps, of all iterates, the one of the highest leave-one-out log predictive
  density, known in closed form (Rasmussen & Williams 2006, equations 5.10 to 5.12). It guards
  little, for the features have seen the observation that is left out;
- "marginal-likelihood" ends the joint search once an iteration raises the log marginal likelihood
  plus log priors by less than a hundredth of a nat.
Before all this the network may be trained as one (`pretraining`): with a linear output layer, by
squared errors and the priors of its weights (L-BFGS-B).

Prediction: the Gaussian posterior, exact given the features, as is conditioning on new
observations; drawn functions by Matheron's rule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from botorch.optim.closures.core import ForwardBackwardClosure
from botorch.optim.core import OptimizationResult, scipy_minimize
from botorch.optim.fit import fit_gpytorch_mll_scipy
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.kernels.deep import LIPSCHITZ_ONE, DeepKernel, DeepKernelFeatures
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    Surrogate,
    SurrogateEntry,
)
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate
from bo_surrogates.surrogates.gp import PRIOR_FEATURES, SMOOTHNESS
from bo_surrogates.threads import limited_threads

LEAST_GAIN = 0.01  # nats that an iteration is to gain where the search ends early
PRETRAINING_NOISE = 1e-2  # variance of standardized targets about the network


@dataclass(frozen=True)
class DKLConfig(Config):
    """Configuration of `dkl`.

    Attributes:
        kernel: k_0: "rbf", "matern32" or "matern52".
        extractor: "residual", phi(x) = x + g(x), or "plain", phi(x) = g(x).
        latent_dimension: Outputs of a plain extractor; None for as many as inputs.
        width: Hidden units in a layer.
        depth: Hidden layers.
        activation: "tanh", "relu" or "sine".
        lipschitz: Bound on g's Lipschitz constant, by the singular values of its weights; None for
            no bound. Below 1, a residual extractor is one to one.
        input_scale: Of the first layer's random weights: larger, the warp varies faster.
        output_scale: Prior standard deviation of the last layer's weights, in units of the scaled
            inputs: larger, warps are larger.
        hidden_std: Prior standard deviation of hidden weights about the random ones, as a part of
            their scale.
        steps: L-BFGS-B iterations of the joint search.
        stopping: "leave-one-out" or "marginal-likelihood" (early, see the module's docstring), or
            "none" (the last iterate).
        pretraining: L-BFGS-B iterations of the network alone, before all else; 0 for none.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "kernel", "extractor", "width", "depth", "lipschitz", "input_scale", "output_scale",
        "hidden_std", "steps",
    )  # fmt: skip

    kernel: str = choice("rbf", tuple(SMOOTHNESS))
    extractor: str = choice("residual", ("residual", "plain"))
    latent_dimension: int | None = integer(None, 1, 1000, optional=True)
    width: int = integer(32, 1, 1024, log=True, search=(8, 128))
    depth: int = integer(2, 1, 4)
    activation: str = choice("tanh", LIPSCHITZ_ONE)
    lipschitz: float | None = real(None, 1e-3, 1e3, log=True, optional=True, search=(0.3, 10.0))
    input_scale: float = real(1.0, 1e-3, 1e3, log=True, search=(0.5, 10.0))
    output_scale: float = real(0.1, 1e-3, 1e3, log=True, search=(0.03, 3.0))
    hidden_std: float = real(0.3, 1e-4, 1e2, log=True, search=(0.03, 3.0))
    steps: int = integer(100, 1, 100_000, log=True, search=(20, 500))
    stopping: str = choice("none", ("none", "leave-one-out", "marginal-likelihood"))
    pretraining: int = integer(0, 0, 100_000)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.latent_dimension is not None and self.extractor == "residual":
            raise InputError(
                "DKLConfig.latent_dimension must be None with extractor = 'residual', which has as "
                f"many features as inputs; got {self.latent_dimension}"
            )


class DKL(ExactGPSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = DKLConfig
    config: DKLConfig
    _warm = False

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`."""
        if not isinstance(config, DKLConfig):
            raise TypeError(f"expected a DKLConfig, got {config!r}")
        return DeepKernel(
            SMOOTHNESS[config.kernel],
            BatchedMLP(
                d, config.latent_dimension or d, config.width, config.depth, config.activation
            ),
            residual=config.extractor == "residual",
            lipschitz=config.lipschitz,
            batch_shape=batch_shape,
        )

    def prepare(self) -> None:
        """See `Surrogate.prepare`: the prior of the weights, about a random network."""
        config, kernel = self.config, self.covar_module
        network = kernel.network
        scales = network.scales(config.input_scale, output_scale=config.output_scale)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "dkl"))
        drawn = network.draw(kernel.batch_shape.numel(), scales, generator)
        hidden = sum((i + 1) * o for i, o in network.fan[:-1])  # parameters before the last layer
        if kernel.residual:
            drawn[:, hidden:] = 0.0  # no warp at first
        spread = scales.clone()
        spread[:hidden] *= config.hidden_std
        with torch.no_grad():
            kernel.centre.copy_(drawn.reshape(kernel.centre.shape))
            kernel.spread.copy_(spread.expand(kernel.spread.shape))
        # Where the outputs' dimension stands in each parameter, for `subset_output`.
        self._subset_batch_dict = {
            name: -parameter.ndim
            for name, parameter in self.named_parameters()
            if self.num_outputs > 1
        }

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        return partial(
            draw_kernel_feature_paths,
            map_generator=DeepKernelFeatures,
            num_features=PRIOR_FEATURES,
            weight_generator=torch.randn,
        )

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """See `Surrogate.fit`; a warm start has the earlier network, and goes on from it.

        One thread is used: the result is not to depend on the rounding of sums.
        """
        self._warm = isinstance(warm_start, DKL) and warm_start.config == self.config
        with limited_threads(1):
            super().fit(warm_start if self._warm else None)
        with torch.no_grad():
            density = self.train().leave_one_out_density() / self.train_targets.shape[-1]
        self.eval()
        values = {**self.diagnostics.values, "leave_one_out_density_per_point": density.item()}
        self.diagnostics = replace(self.diagnostics, values=values)
        return self

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        return {"optimizer": self._maximize}

    def _maximize(
        self, mll: ExactMarginalLogLikelihood, closure: None = None
    ) -> OptimizationResult:
        """The two searches of the module's docstring; a warm start has only the second."""
        whitened = self.covar_module.whitened
        if not self._warm:
            self._pretrain()
            whitened.requires_grad_(False)
            fit_gpytorch_mll_scipy(mll)
            whitened.requires_grad_(True)
        parameters = {n: p for n, p in mll.named_parameters() if p.requires_grad}
        X = [self.transform_inputs(x) for x in self.train_inputs]

        def loss() -> Tensor:
            return -mll(self(*self.train_inputs), self.train_targets, *X).sum()

        best: dict[str, Any] = {"density": -torch.inf, "at": {}}

        def keep(*_: object) -> None:
            with torch.no_grad():
                density = self.leave_one_out_density().item()
            if density > best["density"]:
                best["density"] = density
                best["at"] = {n: p.detach().clone() for n, p in parameters.items()}

        stopping = self.config.stopping
        options: dict[str, float] = {"maxiter": self.config.steps}
        if stopping == "marginal-likelihood":
            options["ftol"] = LEAST_GAIN / self.train_targets.shape[-1]  # the loss is one a point
        early = stopping == "leave-one-out"
        if early:
            keep()
        result = fit_gpytorch_mll_scipy(
            mll,
            parameters=parameters,
            closure=ForwardBackwardClosure(loss, parameters),
            options=options,
            callback=keep if early else None,
        )
        with torch.no_grad():
            for name, value in best["at"].items():
                parameters[name].copy_(value)
        return result

    def _pretrain(self) -> None:
        """Train the network with a linear output layer, if the configuration asks for it."""
        steps, kernel = self.config.pretraining, self.covar_module
        if not steps:
            return
        with torch.no_grad():
            X = self.transform_inputs(self.train_inputs[0])
        y = self.train_targets.unsqueeze(-1)
        shape = (*kernel.batch_shape, kernel.features(X).shape[-1] + 1, 1)
        parameters = {"whitened": kernel.whitened, "head": X.new_zeros(shape).requires_grad_()}

        def loss() -> Tensor:
            features = kernel.features(X)
            design = torch.cat([features, torch.ones_like(features[..., :1])], dim=-1)
            error = (y - design @ parameters["head"]).square().sum() / (2 * PRETRAINING_NOISE)
            return error + sum(0.5 * p.square().sum() for p in parameters.values())

        scipy_minimize(
            ForwardBackwardClosure(loss, parameters), parameters, options={"maxiter": steps}
        )

    def leave_one_out_density(self) -> Tensor:
        """Sum over outputs and points of log p(y_i | the others), standardized; in training mode.

        With S the covariance of the observations, r their residuals and a = S^-1 r, the mean is
        y_i - a_i / [S^-1]_ii and the variance 1 / [S^-1]_ii.
        """
        prior = self(*self.train_inputs)
        S = prior.covariance_matrix + self.training_noise().to_dense()
        precision = torch.cholesky_inverse(psd_safe_cholesky(S))
        a = (precision @ (self.train_targets - prior.mean).unsqueeze(-1)).squeeze(-1)
        variance = precision.diagonal(dim1=-2, dim2=-1).reciprocal()
        return torch.distributions.Normal(0.0, variance.sqrt()).log_prob(a * variance).sum()


SURROGATES.register(
    SurrogateEntry(
        name="dkl",
        model_class=DKL,
        summary="Deep kernel learning: Gaussian process on inputs warped by a network",
        paper="Wilson et al. 2016, arXiv 1511.02222; Ober et al. 2021, arXiv 2102.12108",
        capabilities=Capabilities(posterior="gaussian", exact_conditioning=True),
    )
)
