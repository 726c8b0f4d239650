"""Sparse variational Gaussian process: for thousands of observations.

Model: that of `gp` with its kernels "rbf", "matern32" and "matern52".

Inference: M inducing points z are chosen among the training inputs by greedy variance reduction
(Burt, Rasmussen & van der Wilk 2020, JMLR 21:131; BoTorch's), and the values there have a Gaussian
posterior q (Titsias 2009; Hensman, Fusi & Lawrence 2013, arXiv 1309.6835). Observation noise is
Gaussian, so the best q is known in closed form for any hyper-parameters, which then maximize the
collapsed bound (`inference/collapsed_bound.py`) plus log priors by L-BFGS-B, without stochastic
gradients or a learning rate. The points are chosen again with the fitted kernel, and the search
goes on. One evaluation costs O(n M^2).

Prediction: the Gaussian posterior given q (BoTorch's `SingleTaskVariationalGP`); drawn functions by
Matheron's rule.
"""

from __future__ import annotations

import warnings
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.exceptions.warnings import InputDataWarning, UserInputWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskVariationalGP
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.models.utils.inducing_point_allocators import GreedyVarianceReduction
from botorch.optim.closures.core import ForwardBackwardClosure
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.sampling.pathwise import draw_kernel_feature_paths, gen_kernel_features
from botorch.sampling.pathwise.features.maps import FeatureMap
from gpytorch.distributions import MultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator import to_linear_operator
from torch import Tensor

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.errors import InputError
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.collapsed_bound import Collapsed, collapse
from bo_surrogates.kernels.mixed import stationary_kernel
from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior, far_from_unit_scale
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    FunctionSamples,
    Surrogate,
    SurrogateEntry,
    seed_or_random,
)
from bo_surrogates.surrogates.gp import SMOOTHNESS
from bo_surrogates.surrogates.matheron import SharedFeaturePath

MIN_NOISE_VARIANCE = 1e-6  # known variances below it are raised
PRIOR_FEATURES = 2048
MAX_CANDIDATES = 2000  # training inputs among which inducing points are chosen


@dataclass(frozen=True)
class SVGPConfig(Config):
    """Configuration of `svgp`.

    Attributes:
        kernel: "rbf", "matern32" or "matern52", with the priors of `gp`.
        inducing_points: M; all training points where there are no more.
        rounds: Choices of the inducing points, each followed by a search.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel", "inducing_points")

    kernel: str = choice("rbf", tuple(SMOOTHNESS))
    inducing_points: int = integer(200, 1, 5000, log=True, search=(50, 500))
    rounds: int = integer(2, 1, 10)


class SVGP(Surrogate, SingleTaskVariationalGP):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = SVGPConfig
    config: SVGPConfig

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: InputTransform | None = None,
        outcome_transform: OutcomeTransform | None = None,
        *,
        config: SVGPConfig | None = None,
        seed: int | None = None,
    ) -> None:
        config = config or SVGPConfig()
        if outcome_transform is not None:
            outcome_transform.train()
            Y, Yvar = outcome_transform(train_Y, train_Yvar, X=train_X)
        else:
            Y, Yvar = train_Y, train_Yvar
        with torch.no_grad():
            inputs = self.transform_inputs(train_X, input_transform=input_transform)
        d = inputs.shape[-1]
        with warnings.catch_warnings():
            # Of float32, and of minibatches, which there are not.
            for category in (InputDataWarning, UserInputWarning, UserWarning):
                warnings.simplefilter("ignore", category)
            SingleTaskVariationalGP.__init__(
                self,
                train_X,
                covar_module=stationary_kernel(SMOOTHNESS[config.kernel], d, d, torch.Size()).to(
                    train_X
                ),
                learn_inducing_points=False,
                inducing_points=inputs[: config.inducing_points].clone(),
                input_transform=input_transform,
            )
        if outcome_transform is not None:
            self.outcome_transform = outcome_transform.to(train_Y)
        self.config = config
        self.seed = seed_or_random(seed)
        self._inputs, self._targets = inputs.detach(), Y.detach().squeeze(-1)
        self._variance = None if Yvar is None else Yvar.detach().squeeze(-1)
        self._strategy.variational_params_initialized.fill_(1)
        self.requires_grad_(False)
        self.prepare()

    @property
    def _strategy(self) -> Any:
        return self.model.variational_strategy

    def noise_variance(self) -> Tensor:
        """`n` noise variances of the standardized outcomes."""
        if self._variance is not None:
            return self._variance.clamp_min(MIN_NOISE_VARIANCE)
        noise: Tensor = self.likelihood.noise.expand(len(self._targets))
        return noise

    def collapsed(self) -> Collapsed:
        """The bound at the present hyper-parameters, and the best q."""
        kernel, Z, X = self.model.covar_module, self._strategy.inducing_points, self._inputs
        K_MM = kernel(Z).to_dense()
        identity = torch.eye(len(Z), dtype=Z.dtype, device=Z.device)
        return collapse(
            K_MM + self._strategy.jitter_val * identity,
            kernel(Z, X).to_dense(),
            kernel(X, diag=True),
            self._targets - self.model.mean_module.constant,
            self.noise_variance(),
        )

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Maximize the collapsed bound; see `Surrogate.fit`."""
        hyperparameters = [
            *self.model.covar_module.parameters(),
            *self.model.mean_module.parameters(),
            *(self.likelihood.parameters() if self._variance is None else ()),
        ]
        if isinstance(warm_start, SVGP):
            own, other = dict(self.named_parameters()), dict(warm_start.named_parameters())
            for name, value in other.items():
                if "variational" not in name and name in own and own[name].shape == value.shape:
                    own[name].copy_(value)
        for parameter in hyperparameters:
            parameter.requires_grad_()
        try:
            for _ in range(self.config.rounds):
                self._choose_inducing_points()
                self._maximize()
            with torch.no_grad():
                best = self.collapsed()
        finally:
            self.requires_grad_(False)
        q = self._strategy._variational_distribution
        q.variational_mean.copy_(best.mean)
        q.chol_variational_covar.copy_(best.root)
        self.eval()
        finite = bool(torch.isfinite(best.bound))
        self.diagnostics = FitDiagnostics(
            converged=finite,
            message="" if finite else "the evidence lower bound is not finite",
            values={
                "evidence_lower_bound_per_point": best.bound.item() / len(self._targets),
                "noise_variance": self.noise_variance().mean().item(),
                "inducing_points": float(len(self._strategy.inducing_points)),
            },
        )
        return self

    def _choose_inducing_points(self) -> None:
        Z, X = self._strategy.inducing_points, self._inputs
        if len(Z) == len(X):
            return  # all of them, which the constructor took
        candidates = X[torch.randperm(len(X))[: max(MAX_CANDIDATES, len(Z))].to(X.device)]
        chosen = GreedyVarianceReduction().allocate_inducing_points(
            candidates, self.model.covar_module.requires_grad_(False), len(Z), torch.Size()
        )
        self.model.covar_module.requires_grad_(True)
        # Fewer where they determine the rest to rounding; then any others.
        Z.copy_(torch.cat([chosen, candidates])[: len(Z)])

    def _maximize(self) -> None:
        self.train()
        mll = ExactMarginalLogLikelihood(self.likelihood, self.model)

        def loss() -> Tensor:
            value = self.collapsed().bound
            for _, module, prior, closure, _ in mll.named_priors():
                value = value + prior.log_prob(closure(module)).sum()
            return -value / len(self._targets)

        parameters = {n: p for n, p in mll.named_parameters() if p.requires_grad}
        fit_gpytorch_mll(mll, closure=ForwardBackwardClosure(loss, parameters))

    # ---- prediction --------------------------------------------------------------------------
    def posterior(  # type: ignore[override]  # BoTorch's own bases differ
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Any:
        """See `botorch.models.model.Model.posterior`; there is one output."""
        if output_indices is not None and list(output_indices) != [0]:
            raise InputError(f"svgp has one output, 0; got {output_indices}")
        self.eval()
        distribution = self._latent(self.transform_inputs(X))
        if observation_noise is not False:
            noise = (
                observation_noise.squeeze(-1)
                if torch.is_tensor(observation_noise)
                else self.noise_variance().mean()
            )
            covariance = distribution.lazy_covariance_matrix
            distribution = MultivariateNormal(
                distribution.mean, covariance.add_diagonal(noise.expand(distribution.mean.shape))
            )
        posterior: Any = GPyTorchPosterior(distribution)
        transform = getattr(self, "outcome_transform", None)
        if transform is not None:
            posterior = transform.untransform_posterior(posterior, X=X)
            scaling = far_from_unit_scale(transform)
            if scaling is not None:
                posterior = RescaledGaussianPosterior(posterior, *scaling)
        if posterior_transform is None:
            return posterior
        return posterior_transform(posterior=posterior, X=X)

    def _latent(self, X: Tensor) -> MultivariateNormal:
        """The posterior of standardized function values at scaled inputs `... x q x d`.

        What GPyTorch's strategy computes; its cached factors take on the batch of the first call.
        """
        kernel, Z = self.model.covar_module, self._strategy.inducing_points
        q = self._strategy._variational_distribution
        identity = torch.eye(len(Z), dtype=Z.dtype, device=Z.device)
        L = psd_safe_cholesky(kernel(Z).to_dense() + self._strategy.jitter_val * identity)
        A = torch.linalg.solve_triangular(L, kernel(Z, X).to_dense(), upper=False)
        mean = self.model.mean_module.constant + (A.mT @ q.variational_mean)
        R = q.chol_variational_covar.tril().mT @ A
        covariance = kernel(X).to_dense() - A.mT @ A + R.mT @ R
        # As an operator: a dense matrix would be factorized at once, singular ones refused.
        return MultivariateNormal(mean, to_linear_operator(covariance))

    @property
    def _supports_cache_root(self) -> bool:
        """BoTorch may not reuse the covariance's root; it asks by this name."""
        return False

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Matheron's rule; see `Surrogate.sample_functions`."""
        self.eval()
        d = self._inputs.shape[-1]

        def features(kernel: Kernel, num_inputs: int, num_outputs: int) -> FeatureMap:
            return gen_kernel_features(kernel, num_inputs=d, num_outputs=num_outputs)

        # Of a copy: a later fit does not change functions drawn before.
        model, Z = deepcopy(self.model), self._strategy.inducing_points.clone()
        with fixed_seed(seed_or_random(seed)), torch.no_grad():
            prior = SharedFeaturePath.of(
                draw_kernel_feature_paths(
                    model,
                    torch.Size([k]),
                    num_inputs=d,
                    map_generator=features,
                    num_features=PRIOR_FEATURES,
                    weight_generator=torch.randn,
                )
            )
            # q is the posterior given y = K_nM K_MM^-1 u + e: the rule is applied to whitened u,
            # with noise drawn for y.
            kernel, constant = model.covar_module, model.mean_module.constant
            deviation = self.noise_variance().sqrt()
            identity = torch.eye(len(Z), dtype=Z.dtype, device=Z.device)
            L = psd_safe_cholesky(kernel(Z).to_dense() + self._strategy.jitter_val * identity)
            S = torch.linalg.solve_triangular(L, kernel(Z, self._inputs).to_dense(), upper=False)
            S = S / deviation
            v = torch.linalg.solve_triangular(L, (prior(Z) - constant).mT, upper=False)
            residual = ((self._targets - constant) / deviation).unsqueeze(-1) - S.mT @ v
            residual = residual - torch.randn_like(residual)
            update = torch.cholesky_solve(S @ residual, psd_safe_cholesky(identity + S @ S.mT))
            weight = torch.linalg.solve_triangular(L.mT, update, upper=True)  # M x k
        inputs = deepcopy(getattr(self, "input_transform", None))
        outcomes = deepcopy(getattr(self, "outcome_transform", None))

        def functions(X: Tensor) -> Tensor:
            x = (X if inputs is None else inputs(X)).reshape(-1, d)
            values = prior(x) + (kernel(x, Z).to_dense() @ weight).mT
            values = values.reshape(k, *X.shape[:-1], 1)
            if outcomes is not None:
                values, _ = outcomes.untransform(values, X=X)
            return values

        return functions

    def load_state_dict(  # type: ignore[override]  # of BoTorch's options it needs none
        self, state_dict: Any, strict: bool = True, **options: Any
    ) -> Any:
        """Torch's: BoTorch's expects the attributes of an exact process."""
        return torch.nn.Module.load_state_dict(self, state_dict, strict=strict)

    def condition_on_observations(  # type: ignore[override]  # BoTorch's own bases differ
        self, X: Tensor, Y: Tensor, **kwargs: Any
    ) -> Any:
        """Not available.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            "a sparse approximation cannot be conditioned exactly; build the model again on all "
            "data with warm_start=model, or use 'gp'"
        )

    def fantasize(self, X: Tensor, *args: Any, **kwargs: Any) -> Any:
        """Not available; see `condition_on_observations`."""
        return self.condition_on_observations(X, X)

    def subset_output(self, idcs: list[int]) -> Self:
        """The model itself, for [0]."""
        if list(idcs) != [0]:
            raise InputError(f"svgp has one output, 0; got {idcs}")
        return self


SURROGATES.register(
    SurrogateEntry(
        name="svgp",
        model_class=SVGP,
        summary="Sparse variational Gaussian process, for thousands of observations",
        paper="Titsias 2009, AISTATS; Hensman et al. 2013, arXiv 1309.6835",
        capabilities=Capabilities(
            posterior="gaussian", multi_output=False, max_n=20_000, cost="< 1 s"
        ),
    )
)
