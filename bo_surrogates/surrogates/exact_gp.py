"""What all exact Gaussian processes here share: BoTorch's `SingleTaskGP` as a surrogate.

A subclass says what the kernel and the noise are; the fit, predictions in the user's units, points
fixed beside others, conditioning and drawn functions are here.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from copy import deepcopy
from functools import partial
from typing import Any, Self

import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import ModelFittingError, UnsupportedError
from botorch.exceptions.warnings import InputDataWarning
from botorch.fit import fit_gpytorch_mll
from botorch.models import SingleTaskGP
from botorch.models.gpytorch import BatchedMultiOutputGPyTorchModel
from botorch.models.transforms.input import (
    InputTransform,
)
from botorch.models.transforms.outcome import OutcomeTransform
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.transformed import TransformedPosterior
from botorch.sampling.pathwise import draw_kernel_feature_paths, gen_kernel_features
from botorch.sampling.pathwise.features.maps import FeatureMap
from botorch.sampling.pathwise.prior_samplers import TPathwisePriorSampler
from gpytorch.distributions import MultitaskMultivariateNormal
from gpytorch.kernels import Kernel
from gpytorch.likelihoods import Likelihood
from gpytorch.mlls import ExactMarginalLogLikelihood
from linear_operator.utils.errors import NanError, NotPSDError
from torch import Tensor

from bo_surrogates.config import Config
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.exact_prediction import ExactPrediction
from bo_surrogates.inference.linear_regression import (
    inverse_triangular,
    products_with,
    row_products,
)
from bo_surrogates.inference.log_domain import optimize_log_noise
from bo_surrogates.inference.marginal_likelihood import MarginalLogLikelihood
from bo_surrogates.inference.subset_of_data import MANY, on_few_points, options_for_many
from bo_surrogates.posteriors.fixed_points import (
    FixedPoints,
    positions,
    rescaled_marginals,
    scaling,
)
from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior, far_from_unit_scale
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.surrogates.base import (
    FitDiagnostics,
    FunctionSamples,
    Surrogate,
    seed_or_random,
)
from bo_surrogates.surrogates.matheron import draw_functions


class ExactGPSurrogate(Surrogate, ExactPrediction, SingleTaskGP):
    """A `SingleTaskGP` as a surrogate: what all exact Gaussian processes here share."""

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
    ) -> None:
        config = config or self.config_class()
        with torch.no_grad():
            d = self.transform_inputs(train_X[:1], input_transform=input_transform).shape[-1]
        batch_shape = torch.Size([train_Y.shape[-1]] if train_Y.shape[-1] > 1 else [])
        with warnings.catch_warnings():
            # The user's choice of float32 is respected; BoTorch would warn of it at every fit.
            warnings.simplefilter("ignore", InputDataWarning)
            SingleTaskGP.__init__(
                self,
                train_X,
                train_Y,
                train_Yvar,
                covar_module=self.make_kernel(config, d, batch_shape),
                likelihood=(
                    self.make_likelihood(config, batch_shape) if train_Yvar is None else None
                ),
                input_transform=input_transform,
                outcome_transform=outcome_transform,
            )
        optimize_log_noise(self.likelihood)
        self.config = config
        self.seed = seed_or_random(seed)
        self.prepare()

    @classmethod
    @abstractmethod
    def make_kernel(cls, config: Config, d: int, batch_shape: torch.Size) -> Kernel | None:
        """The prior covariance over d scaled inputs; None for BoTorch's default."""

    @classmethod
    def make_likelihood(cls, config: Config, batch_shape: torch.Size) -> Likelihood | None:
        """The noise model where the variance is inferred; None for BoTorch's default."""
        return None

    def fit_options(self) -> dict[str, Any]:
        """Keywords of BoTorch's `fit_gpytorch_mll`, e.g. the number of starting points."""
        return {}

    def prior_sampler(self) -> TPathwisePriorSampler:
        """How `sample_functions` draws from the prior; random Fourier features by default."""
        # Of transformed inputs, once in evaluation mode; BoTorch passes the number before one-hot.
        d = self.train_inputs[0].shape[-1]

        def features(kernel: Kernel, num_inputs: int, num_outputs: int) -> FeatureMap:
            return gen_kernel_features(kernel, num_inputs=d, num_outputs=num_outputs)

        return partial(draw_kernel_feature_paths, map_generator=features)

    def marginal_likelihood(self) -> ExactMarginalLogLikelihood:
        """What `fit` maximizes."""
        return MarginalLogLikelihood(self.likelihood, self)

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Maximize the marginal likelihood; see `Surrogate.fit`."""
        if isinstance(warm_start, ExactGPSurrogate):
            own = dict(self.named_parameters())
            with torch.no_grad():
                for name, value in warm_start.named_parameters():
                    if name in own and own[name].shape == value.shape:
                        own[name].copy_(value)
        many = self.train_targets.shape[-1] >= MANY
        if many and warm_start is None:
            self._start_from_few()
        mll = self.marginal_likelihood()
        options = self.fit_options()
        if many:
            options = options_for_many(options, self.num_outputs > 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the outcome is in `diagnostics`
            fit_gpytorch_mll(mll, **options)
        self.diagnostics = self._diagnose(mll)
        return self

    def _start_from_few(self) -> None:
        """Take over the hyper-parameters of a fit to some of the observations."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "few points"))
        few = on_few_points(self.train(), generator)
        try:
            ExactGPSurrogate.fit(few)
        except (ModelFittingError, NotPSDError, NanError):  # of these points, not of all
            return
        with torch.no_grad():
            for own, found in zip(self.parameters(), few.parameters(), strict=True):
                own.copy_(found)

    def _diagnose(self, mll: ExactMarginalLogLikelihood) -> FitDiagnostics:
        self.train()
        X = [self.transform_inputs(x) for x in self.train_inputs]
        with torch.no_grad():
            value = mll(self(*self.train_inputs), self.train_targets, *X).sum().item()
        self.eval()
        noise = self.training_noise().diagonal().mean().item()
        finite = bool(torch.isfinite(torch.tensor(value)))
        return FitDiagnostics(
            converged=finite,
            message="" if finite else "the marginal likelihood is not finite",
            values={
                "log_marginal_likelihood_per_point": value,
                "noise_variance": noise,
            },
        )

    def posterior(  # type: ignore[override]
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> GPyTorchPosterior | TransformedPosterior:
        """See `botorch.models.model.Model.posterior`.

        Outputs are selected after the outcomes' scaling is undone: BoTorch selects before, and then
        scales output i of the selection as output i of the data.
        """
        posterior = super().posterior(X, observation_noise=observation_noise)
        if not isinstance(posterior, GPyTorchPosterior):  # a nonlinear outcome transform
            if output_indices is not None:
                raise UnsupportedError(
                    "output_indices need an affine outcome transform; use subset_output instead"
                )
        else:
            outputs = list(range(self.num_outputs)) if output_indices is None else output_indices
            if output_indices is not None and self.num_outputs > 1:
                parts = [posterior.distribution[..., :, i] for i in outputs]  # independent
                posterior = GPyTorchPosterior(
                    parts[0]
                    if len(parts) == 1
                    else MultitaskMultivariateNormal.from_independent_mvns(parts)
                )
            scaling = self._far_from_unit_scale()
            if scaling is not None:
                offset, scale = (values[..., outputs] for values in scaling)
                posterior = RescaledGaussianPosterior(posterior, offset, scale)
        if posterior_transform is None:
            return posterior
        return posterior_transform(posterior=posterior, X=X)

    @property
    def has_fixed_points(self) -> bool:
        """See `Surrogate.has_fixed_points`; not where a subclass has another posterior."""
        same = type(self).posterior is ExactGPSurrogate.posterior
        return same and self.train_targets.ndim == 1 and self._scaling() is not None

    def _scaling(self) -> tuple[Tensor, Tensor] | None:
        if self.num_outputs > 1:
            return None
        return scaling(getattr(self, "outcome_transform", None), self.train_targets)

    def fix_points(self, X: Tensor) -> FixedPoints:
        """See `Surrogate.fix_points`.

        The fixed values extend the Cholesky factor L of the observations' covariance like
        observations without noise; then L^-1 k(x) holds all of the posterior at x, and its last
        entries are the coordinates.
        """
        scales = self._scaling()
        if scales is None or not self.has_fixed_points:
            return super().fix_points(X)
        found = self.eval().observed() or self.factorize()
        n = len(found.targets)
        with torch.no_grad():
            fixed = self.transform_inputs(X)
            points = torch.cat([found.inputs, fixed])
            W = found.inverse_root
            psi = self.covariance(fixed, found.inputs) @ W.mT
            root = psd_safe_cholesky(self.covariance(fixed, fixed) - psi @ psi.mT)
            below = inverse_triangular(root)
            whiten = torch.cat(
                [torch.cat([W.mT, -(below @ psi @ W).mT], dim=-1),
                 torch.cat([W.new_zeros(len(X), n), below.mT], dim=-1)]
            )  # fmt: skip
            white = found.white
            mean = self.mean_module(fixed) + psi @ white

        coordinates = products_with(whiten)

        def others(X: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x = self.transform_inputs(X)
            flat = x.flatten(end_dim=-2)
            u = coordinates(self.covariance(flat, points)).unflatten(0, x.shape[:-1])
            if x.shape[-2] == 1:
                prior = self.variance(flat).reshape(*x.shape[:-2], 1, 1)
            else:
                prior = self.covariance(x, x)
            means = self.mean_module(flat).unflatten(0, x.shape[:-1]) + u[..., :n] @ white
            return means, u[..., n:], prior - row_products(u)

        return FixedPoints(mean, root, others, *scales)

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """See `Surrogate.marginals`.

        At the training points, with S the covariance of the observations y and v_i their noise
        variances, the means are y_i - v_i (S^-1 (y - m))_i, the variances v_i - v_i^2 (S^-1)_ii.
        """
        scales = self._scaling()
        if scales is None or not self.has_fixed_points or X.requires_grad:
            return super().marginals(X)
        found = self.eval().observed() or self.factorize()
        with torch.no_grad():
            at = positions(self.transform_inputs(X), found.inputs)
            if at is None:
                return super().marginals(X)
            W, noise = found.inverse_root, self.training_noise().diagonal(dim1=-2, dim2=-1)
            mean = found.targets - noise * (found.white @ W)
            variance = noise - noise.square() * W.square().sum(dim=-2)
            mean, variance = mean[at].unsqueeze(-1), variance[at].unsqueeze(-1)
            return rescaled_marginals(mean, variance, *scales, X)

    def _far_from_unit_scale(self) -> tuple[Tensor, Tensor] | None:
        """Means and standard deviations of the outcomes, unless all deviations are about 1.

        Guards against rounding in GPyTorch are meant for outcomes of about unit scale; for others,
        see `RescaledGaussianPosterior`.
        """
        return far_from_unit_scale(getattr(self, "outcome_transform", None))

    @property
    def _supports_cache_root(self) -> bool:
        """Whether BoTorch may factorize covariances in the user's units (it asks by this name)."""
        return self._far_from_unit_scale() is None

    def condition_on_observations(  # type: ignore[override]  # BoTorch's own bases differ
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> BatchedMultiOutputGPyTorchModel:
        """The exact posterior given further observations, hyper-parameters and scaling kept.

        Args:
            X: `batch_shape x n' x d` inputs.
            Y: `batch_shape' x n' x m` outcomes.
            noise: Variances of the new observations, shaped as `Y`, of standardized outcomes;
                needed where the model was given `train_Yvar`.
            **kwargs: Passed to GPyTorch's `get_fantasy_model`.
        """
        self.eval()
        if noise is not None:
            kwargs["noise"] = noise
        model: Any = super().condition_on_observations(X, Y, **kwargs)
        model.training_data = None  # not these data: saving would lose the new observations
        return model

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Matheron's rule on features of the prior; see `Surrogate.sample_functions`."""
        self.eval()
        with fixed_seed(seed_or_random(seed)):
            # Of a copy: a later fit of this model does not change functions drawn before.
            paths = draw_functions(deepcopy(self), k, self.prior_sampler(), self.training_noise())
        several = self.num_outputs > 1

        def functions(X: Tensor) -> Tensor:
            batch = X.shape[:-2]
            flat = X.reshape(-1, X.shape[-1])
            values = paths(flat)  # k x N, or k x m x N with several outputs
            values = values.mT if several else values.unsqueeze(-1)
            return values.reshape(k, *batch, X.shape[-2], self.num_outputs)

        return functions
