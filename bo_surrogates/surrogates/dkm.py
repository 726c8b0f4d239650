"""Deep kernel machine: a Gaussian process whose kernel's Gram matrices are learnt, layer by layer.

Model: y = f(x) + e, f ~ GP(constant, v K(G_L)); G_1, ..., G_L are the Gram matrices of the layers
of a deep Gaussian process in the limit of infinite width with as many copies of the outcomes (Yang
et al. 2023, arXiv 2108.13097; `kernels/deep_kernel_machine.py`). Several outputs share them.

Inference: the Gram matrices and the hyper-parameters maximize

    log p(Y | G_L) - nu m sum_l KL(N(0, G_l) || N(0, K(G_{l-1}))) + log priors

by L-BFGS-B, from the Gram matrices of the prior (m outputs). As nu grows, the matrices stay there,
and the model is the Gaussian process of an infinitely wide network. The search sees the logarithm
of the noise, and M in units of 1 / sqrt(nu m), where its curvature is about the same in all
directions: it converges, to what does not depend on rounding (down to nu = 10; below, a few hundred
iterations are not enough). It starts from a noise that is large: from a small one it ends in wiggly
functions where smooth ones explain the data better. The objective is no marginal likelihood: with
few outputs and a small nu it overfits. Where there are more training points than `inducing_points`,
Gram matrices are learnt at points chosen among them by greedy variance reduction; the likelihood of
the last layer is exact in either case, where the paper's is a bound.

Prediction: the Gaussian posterior, exact given the Gram matrices, as is conditioning on new
observations; drawn functions by Matheron's rule on a deep Gaussian process of finite width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from botorch.models.utils.inducing_point_allocators import GreedyVarianceReduction
from botorch.optim.closures.core import ForwardBackwardClosure
from botorch.optim.core import OptimizationResult
from botorch.optim.fit import fit_gpytorch_mll_scipy
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.marginal_likelihood import log_density
from bo_surrogates.kernels.deep_kernel_machine import (
    GRAM_KERNELS,
    WIDTH,
    DeepKernelMachineFeatures,
    DeepKernelMachineKernel,
)
from bo_surrogates.kernels.mixed import stationary_kernel
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, Surrogate, SurrogateEntry
from bo_surrogates.surrogates.exact_gp import ExactGPSurrogate
from bo_surrogates.surrogates.infinite_width import NNGP
from bo_surrogates.threads import limited_threads

FIRST_NOISE = 0.1  # variance of standardized outcomes at which the search starts


@dataclass(frozen=True)
class DKMConfig(Config):
    """Configuration of `dkm`.

    Attributes:
        kernel: K: "se", "normalized-se" or "relu"; see `DeepKernelMachineKernel`.
        layers: L, the number of Gram matrices learnt.
        nu: How strongly each is held at its prior, an output.
        inducing_points: P at most.
        iterations: Of L-BFGS-B at most.
    """

    kernel: str = choice("se", GRAM_KERNELS[:3])
    layers: int = integer(2, 1, 4)
    nu: float = real(100.0, 1e-2, 1e8, log=True, search=(1.0, 1e4))
    inducing_points: int = integer(100, 1, 1000, log=True, search=(10, 150))
    iterations: int = integer(100, 1, 100_000, log=True, search=(10, 300))


class DKM(ExactGPSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = DKMConfig
    config: DKMConfig

    @classmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """See `ExactGPSurrogate.make_kernel`; `prepare` makes it, which knows the inputs."""
        return None

    @classmethod
    def make_likelihood(cls, config: Config, batch_shape: torch.Size) -> Likelihood | None:
        """That of `nngp`, whose noise is searched on a logarithmic scale where it is small."""
        return NNGP.make_likelihood(config, batch_shape)

    def prepare(self) -> None:
        """See `Surrogate.prepare`: the inducing points, and with them the kernel."""
        X = self.train_inputs[0].detach()
        with torch.no_grad():
            X = self.transform_inputs(X[(0,) * (X.ndim - 2)])
        Z, P, d = X, self.config.inducing_points, X.shape[-1]
        if len(X) > P:
            plain = stationary_kernel(torch.inf, d, d, torch.Size()).to(X).requires_grad_(False)
            chosen = GreedyVarianceReduction().allocate_inducing_points(X, plain, P, torch.Size())
            Z = torch.cat([chosen, X])[:P]  # fewer where they determine the rest to rounding
        self.covar_module = DeepKernelMachineKernel(
            self.config.kernel,
            Z,
            self.config.layers,
            self._aug_batch_shape,
            unit=(self.config.nu * self.num_outputs) ** -0.5,
        ).to(X)
        if "noise_covar.raw_noise" in dict(self.likelihood.named_parameters()):
            self.likelihood.noise = torch.full_like(self.likelihood.noise, FIRST_NOISE)
        # Where the outputs' dimension stands in each parameter, for `subset_output`.
        self._subset_batch_dict = {
            "mean_module.raw_constant": -1,
            "covar_module.log_output_variance": -3,
            "likelihood.noise_covar.raw_noise": -2,
        }

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        return partial(
            draw_kernel_feature_paths,
            map_generator=DeepKernelMachineFeatures,
            num_features=4 * WIDTH,
            weight_generator=torch.randn,
        )

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """See `Surrogate.fit`; the prior's conditional extends a warm start's Gram matrices.

        One thread is used: the result is not to depend on the rounding of sums.
        """
        warm = isinstance(warm_start, DKM) and warm_start.config == self.config
        if isinstance(warm_start, DKM) and warm:
            self._extend(warm_start.covar_module)
        with limited_threads(1):
            super().fit(warm_start if warm else None)
        with torch.no_grad():
            divergence = self.covar_module.divergence().item()
        values = {**self.diagnostics.values, "divergence": divergence}
        self.diagnostics = replace(self.diagnostics, values=values)
        return self

    def _extend(self, earlier: DeepKernelMachineKernel) -> None:
        """M = diag(M of the earlier points, I), where the first points are the earlier ones.

        It is the conditional of the prior, for the first rows of L are those of the earlier L.
        """
        kernel = self.covar_module
        old, new = earlier.inducing, kernel.inducing
        if len(old) <= len(new) and torch.equal(old.to(new), new[: len(old)]):
            with torch.no_grad():  # packed row by row: the earlier rows come first
                known = kernel.factors[:, : earlier.factors.shape[-1]]
                known.copy_(earlier.factors * (earlier.unit / kernel.unit))

    def fit_options(self) -> dict[str, Any]:
        """See `ExactGPSurrogate.fit_options`."""
        return {"optimizer": self._maximize}

    def objective(self) -> Tensor:
        """What is maximized but for the log priors: standardized outcomes, training mode."""
        kernel = self.covar_module
        X = self.transform_inputs(self.train_inputs[0])
        X = X[(0,) * (X.ndim - 2)]
        if len(X) == len(kernel.inducing):
            G = kernel.gram_matrices()[-1]
            q = G.diagonal().unsqueeze(-1)
            K = kernel.of_gram(kernel.layers, G, q, q.mT)
            K = kernel.log_output_variance.double().exp() * K
        else:
            K = kernel.forward(X, X)
        residual = (self.train_targets - self.mean_module(self.train_inputs[0])).to(K)
        noise = self.training_noise().diagonal(dim1=-2, dim2=-1).to(K).expand(residual.shape)
        fit = log_density(residual, K, noise).sum()
        return fit - self.config.nu * self.num_outputs * kernel.divergence()

    def _maximize(
        self, mll: ExactMarginalLogLikelihood, closure: None = None
    ) -> OptimizationResult:
        parameters = {n: p for n, p in mll.named_parameters() if p.requires_grad}

        def loss() -> Tensor:
            value = self.objective()
            for _, module, prior, value_of, _ in mll.named_priors():
                value = value + prior.log_prob(value_of(module)).sum()
            return -value / self.train_targets.shape[-1]

        return fit_gpytorch_mll_scipy(
            mll,
            parameters=parameters,
            closure=ForwardBackwardClosure(loss, parameters),
            options={"maxiter": self.config.iterations, "ftol": 1e-12, "gtol": 1e-7},
        )


SURROGATES.register(
    SurrogateEntry(
        name="dkm",
        model_class=DKM,
        summary="Deep kernel machine: infinitely wide deep Gaussian process that learns features",
        paper="Yang et al. 2023, arXiv 2108.13097",
        capabilities=Capabilities(
            posterior="gaussian", exact_conditioning=True, max_n=1000, cost="seconds"
        ),
    )
)
