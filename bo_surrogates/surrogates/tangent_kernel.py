"""Neural tangent kernel: a Gaussian process, or the law of trained infinitely wide networks.

Let K and T be the NNGP and the tangent kernel of a network with L hidden layers whose outputs are
multiplied by sqrt(v / (L + 1)) (`kernels/recursion.py`), and y = f(x) + e observations with noise
variances S = diag(s2_i). Two laws of f are offered.

`law="kernel_regression"`: y = f(x) + e with f ~ GP(constant, T). The posterior mean is that of a
network trained to convergence (below), the variance is Bayesian: exact inference under this prior.

`law="trained_network"`: the law of a network trained by gradient flow from a random start. Training
an infinitely wide network moves its output along the fixed kernel T (Jacot et al. 2018, arXiv
1806.07572), so that it is linear in its weights (Lee et al. 2019, arXiv 1902.06720). With the loss

    sum_i (f(x_i) - y_i)^2 / (2 s2_i) + |theta - theta_0|^2 / 2

(squared errors in units of the noise, and decay towards the start in place of stopping early) the
network that starts as f_0 ~ GP(constant, K) becomes, at time t,

    f_t(x) = f_0(x) + A_t(x) (y - f_0(X)),
    A_t(x) = T(x, X) S^-1/2 Q diag((1 - exp(-mu t)) / mu) Q' S^-1/2,
    Q diag(mu) Q' = S^-1/2 T(X, X) S^-1/2 + 1,

and A = T(x, X) (T(X, X) + S)^-1 when trained to convergence. Without decay and with S = 1 the mu
lose the 1 and this is equation 14 of Lee et al. The network is Gaussian for every t:

    mean m + A (y - m),    covariance K(x, x') - A K(X, x') - K(x, X) A' + A K(X, X) A'.

It is what an infinite deep ensemble of infinitely wide networks predicts: its mean, and the spread
of its members over their starts. It is no Bayesian posterior of any prior in general, and further
observations mean further training, not conditioning. (He et al. 2020, arXiv 2007.05864, compare
the two.)

Inference: input scales, output variance, bias variance, noise and constant mean maximize within
bounds, plus log priors, the marginal likelihood for kernel regression. For the trained network
there is none; its leave-one-out predictive density is in closed form at convergence. With
P = (T(X, X) + S)^-1, the network trained without point i differs there from y_i by
(P (y - f_0(X)))_i / P_ii, which is Gaussian too.

The defaults were chosen on the four functions of `benchmarks/calibration.py`. Two layers of sin had
the best mean CRPS and log density among relu (1 and 3 layers), erf and gelu (2; three seeds),
rbf_sin and sin (1 and 2; nine seeds for most). Kernel regression was ahead of trained networks of
every activation in both; intervals of the latter are too narrow.

Prediction: the Gaussian law, outputs independent. Functions are drawn by Matheron's rule, from
features of random networks for the tangent kernel; those of the trained network are f_t from a
wide random network f_0.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.models.gpytorch import BatchedMultiOutputGPyTorchModel
from botorch.sampling.pathwise import draw_kernel_feature_paths
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.distributions import MultivariateNormal
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator import to_linear_operator
from torch import Tensor
from torch.distributions import Normal

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.kernels.dual_activations import DUAL_ACTIVATIONS
from bo_surrogates.kernels.infinite_width import NNGPKernel, NTKKernel
from bo_surrogates.kernels.random_network import RandomNetworkFeatures, TangentFeatures
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FunctionSamples,
    SurrogateEntry,
    seed_or_random,
)
from bo_surrogates.surrogates.infinite_width import NNGP, NNGPConfig

TANGENT_NETWORKS = 4  # whose features stand in for the tangent kernel's prior
INITIAL_NETWORKS = 8  # likewise of the networks before training
INITIAL_JITTER = 1e-10  # of K(X, X), relative to its mean variance


@dataclass(frozen=True)
class NTKConfig(NNGPConfig):
    """Configuration of `ntk`; further fields are those of `NNGPConfig`.

    Attributes:
        law: "kernel_regression", a Gaussian process with the tangent kernel, or
            "trained_network", what an infinite ensemble of trained networks predicts.
        training_time: Of the trained network, in units of 1 / mu_1, mu_1 the fastest rate: about
            the number of gradient descent steps at the largest sensible learning rate. None for
            convergence; 0 leaves the random start. Hyper-parameters are those at convergence.
        activation: Piecewise linear activations give functions as rough as a Laplace kernel's.
    """

    law: str = choice("kernel_regression", ("kernel_regression", "trained_network"))
    training_time: float | None = real(None, 0.0, 1e12, log=True, optional=True, search=(1.0, 1e6))
    activation: str = choice("sin", tuple(DUAL_ACTIVATIONS))
    depth: int = integer(2, 1, 16, search=(1, 8))

    _searched: ClassVar[tuple[str, ...] | None] = (
        "law", "activation", "depth", "weight_variance", "skip", "normalize",
    )  # fmt: skip


class _Trained(NamedTuple):
    """What predictions of the trained network share, of n training points.

    Attributes:
        X: `(m x) n x d` training inputs, in float64.
        scale: `(m x) n x 1`, S^-1/2.
        inner: `(m x) n x n`, what stands between S^-1/2 in A(x) = T(x, X) S^-1/2 inner S^-1/2; at
            convergence the Cholesky factor of its inverse.
        converged: Which of the two.
        residual: `(m x) n x 1`, y minus the prior mean.
        root: `(m x) n x n`, the lower Cholesky factor of K(X, X).
    """

    X: Tensor
    scale: Tensor
    inner: Tensor
    converged: bool
    residual: Tensor
    root: Tensor

    def gained(self, columns: Tensor) -> Tensor:
        """S^-1/2 inner S^-1/2 times columns `(m x) n x k`."""
        columns = self.scale * columns
        if self.converged:
            return self.scale * torch.cholesky_solve(columns, self.inner)
        return self.scale * (self.inner @ columns)


class NTK(NNGP):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = NTKConfig
    kernel_class: ClassVar[type[NNGPKernel]] = NTKKernel
    _cached: _Trained | None = None

    @property
    def is_trained_network(self) -> bool:
        """Whether the law is that of trained networks."""
        return bool(self.config.law == "trained_network")

    @property
    def has_fixed_points(self) -> bool:
        """See `Surrogate.has_fixed_points`."""
        return not self.is_trained_network and super().has_fixed_points

    def marginal_likelihood(self) -> ExactMarginalLogLikelihood:
        """See `ExactGPSurrogate.marginal_likelihood`."""
        if self.is_trained_network:
            return LeaveOneOutOfTrainedNetworks(self.likelihood, self)
        return super().marginal_likelihood()

    def prior_sampler(self) -> TPathwisePriorSampler:
        """See `ExactGPSurrogate.prior_sampler`."""
        return partial(
            draw_kernel_feature_paths,
            num_features=TangentFeatures.count(self.config.depth, TANGENT_NETWORKS),
            map_generator=TangentFeatures,
            weight_generator=torch.randn,
        )

    def training_covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """K(X, X), T(X, X) and the noise variances: `(m x) n x n` twice and `(m x) n`, float64."""
        X = self.train_inputs[0]
        X = (self.transform_inputs(X) if self.training else X).double()
        K, T = self.covar_module.matrices(X, X, "both")
        noise = self.likelihood.noise.double().expand(T.shape[:-1])
        return K, T, noise

    # ---- the law of trained networks -------------------------------------------------------------
    def __call__(self, *args: Any, **kwargs: Any) -> MultivariateNormal:
        """The prior in training mode; the law of f at scaled inputs in evaluation mode."""
        if self.training or not self.is_trained_network or not args:
            return super().__call__(*args, **kwargs)
        (X,) = args
        trained, kernel = self._trained(), self.covar_module
        several = self.num_outputs > 1
        # All points of a batch side by side: one product with each matrix of n x n.
        batch, q = X.shape[: X.dim() - 2 - several], X.shape[-2]
        flat = X.double().movedim(-3, 0) if several else X.double()
        flat = flat.reshape(*flat.shape[:several], -1, X.shape[-1])
        K, T = kernel.matrices(flat, trained.X, "both")
        AX = trained.gained(T.mT).mT
        V = torch.linalg.solve_triangular(trained.root, K.mT, upper=False)
        # C = (K(x, x') - V'V) + (M - V)'(M - V) with M = R' A', K(X, X) = R R': two covariances
        # of which the first is what the start's values at X do not tell of f_0.
        M = trained.root.mT @ AX.mT

        def by_batch(rows: Tensor) -> Tensor:
            """`(m x) N x k` to `batch x (m x) q x k`."""
            rows = rows.reshape(*rows.shape[:several], *batch, q, rows.shape[-1])
            return rows.movedim(0, -3) if several else rows

        mean = by_batch(AX @ trained.residual).squeeze(-1)
        mean = mean + self.prior_mean(X).double()
        V, M = by_batch(V.mT), by_batch(M.mT)
        Xd = X.double()
        (initial,) = kernel.matrices(Xd, Xd, "nngp")
        difference = M - V
        C = initial - V @ V.mT + difference @ difference.mT
        return MultivariateNormal(mean.to(X), to_linear_operator(C.to(X)))

    def _trained(self) -> _Trained:
        if self._cached is None:
            with torch.no_grad():
                self._cached = self._train()
        return self._cached

    def _train(self) -> _Trained:
        K, T, noise = self.training_covariances()
        X = self.train_inputs[0]
        residual = (self.train_targets - self.prior_mean(X)).double().unsqueeze(-1)
        jitter = INITIAL_JITTER * K.diagonal(dim1=-2, dim2=-1).mean(dim=-1, keepdim=True)
        K.diagonal(dim1=-2, dim2=-1).add_(jitter)
        scale = noise.rsqrt().unsqueeze(-1)
        whitened = T.mul_(scale).mul_(scale.mT)
        whitened.diagonal(dim1=-2, dim2=-1).add_(1.0)
        time = self.config.training_time
        if time is None:
            inner = psd_safe_cholesky(whitened)
        else:
            rates, Q = torch.linalg.eigh(whitened)
            rates = rates.clamp_min(1.0).unsqueeze(-2)
            duration = time / rates[..., -1:]
            inner = (Q * (-torch.expm1(-rates * duration) / rates)) @ Q.mT
        root = psd_safe_cholesky(K)
        return _Trained(X.double(), scale, inner, time is None, residual, root)

    def _clear_cache(self) -> None:
        super()._clear_cache()
        self._cached = None

    def subset_output(self, idcs: list[int]) -> BatchedMultiOutputGPyTorchModel:
        """See `botorch.models.model.Model.subset_output`."""
        model: Any = super().subset_output(idcs)
        model._clear_cache()  # of all outputs
        return model

    def condition_on_observations(  # type: ignore[override]  # BoTorch's own bases differ
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> BatchedMultiOutputGPyTorchModel:
        """See `ExactGPSurrogate.condition_on_observations`; for kernel regression only.

        Raises:
            UnsupportedError: The law is that of trained networks.
        """
        self._refuse_conditioning()
        return super().condition_on_observations(X, Y, noise, **kwargs)

    def fantasize(self, *args: Any, **kwargs: Any) -> Any:
        """See `botorch.models.model.FantasizeMixin.fantasize`; for kernel regression only.

        Raises:
            UnsupportedError: The law is that of trained networks.
        """
        self._refuse_conditioning()
        return super().fantasize(*args, **kwargs)

    def _refuse_conditioning(self) -> None:
        if self.is_trained_network:
            raise UnsupportedError(
                "a trained network is not conditioned on observations but trained on them: build "
                "it on all data, with warm_start=this model, or use law='kernel_regression'"
            )

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Random networks, trained if that is the law; see `Surrogate.sample_functions`."""
        if not self.is_trained_network:
            return super().sample_functions(k, seed)
        self.eval()
        trained, m = self._trained(), self.num_outputs
        model = deepcopy(self)  # a later fit does not change functions drawn before
        kernel, mean = model.covar_module, model.mean_module
        with torch.no_grad(), fixed_seed(seed_or_random(seed)):
            depth = kernel.network.depth
            count = RandomNetworkFeatures.count(depth, INITIAL_NETWORKS)
            initial = RandomNetworkFeatures(kernel, 0, count)
            weights = torch.randn(*kernel.batch_shape, count, k, dtype=torch.float64).to(trained.X)
            start = initial(trained.X) @ weights
            change = trained.gained(trained.residual - start)  # (m x) n x k

        def functions(X: Tensor) -> Tensor:
            flat = model.transform_inputs(X).reshape(-1, model.train_inputs[0].shape[-1])
            if m > 1:
                flat = flat.expand(m, *flat.shape)
            (T,) = kernel.matrices(flat.double(), trained.X, "tangent")
            values = initial(flat.double()) @ weights + T @ change + mean(flat).unsqueeze(-1)
            values = values.movedim(-1, 0)  # k x (m x) N
            values = (values.mT if m > 1 else values.unsqueeze(-1)).to(X)
            transform = getattr(model, "outcome_transform", None)
            if transform is not None:
                values = transform.untransform(values)[0]
            return values.reshape(k, *X.shape[:-1], m)

        return functions


class LeaveOneOutOfTrainedNetworks(ExactMarginalLogLikelihood):
    """Mean log density of each observation under networks trained on all others, and log priors.

    The prediction error at a point left out is w_i' (y - f_0(X)), w_i being row i of P divided by
    P_ii (of the inverse of a block matrix: its other entries are -A_{-i}(x_i)). Its variance over
    starts is w_i' K(X, X) w_i; the observation adds s2_i.
    """

    def forward(
        self, function_dist: MultivariateNormal, target: Tensor, *params: Any, **kwargs: Any
    ) -> Tensor:
        """Of targets `batch_shape x n`; `batch_shape` values."""
        K, T, noise = self.model.training_covariances()
        residual = (target - function_dist.mean).double()
        P = torch.cholesky_inverse(psd_safe_cholesky(T + torch.diag_embed(noise)))
        w = P / P.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
        error = (w @ residual.unsqueeze(-1)).squeeze(-1)
        variance = ((w @ K) * w).sum(dim=-1) + noise
        value = Normal(0.0, variance.sqrt()).log_prob(error).sum(dim=-1)
        return self._add_other_terms(value.to(target), params) / target.shape[-1]


SURROGATES.register(
    SurrogateEntry(
        name="ntk",
        model_class=NTK,
        summary="Neural tangent kernel: Gaussian process, or the law of trained wide networks",
        paper="Jacot et al. 2018, arXiv 1806.07572; Lee et al. 2019, arXiv 1902.06720",
        capabilities=Capabilities(posterior="gaussian", exact_conditioning=True),
    )
)
