"""Bayesian linear regression on random features.

Model (outcomes standardized): y_ij = w_j . phi(x_i) + e_ij, phi of `width` random features and a
constant, shared by the outcomes; w_j ~ N(0, s_j^2 I), e_ij ~ N(0, v_j), or of known variances. It
is the Gaussian process with kernel s^2 (phi(x) . phi(x')), which tends to s^2 (K(x, x') + 1) as the
width grows (`kernels/random_features.py`): a squared exponential or Matern kernel by random Fourier
features (Rahimi and Recht 2007, NeurIPS 20), or that of an infinitely wide network by its hidden
units.

Inference, in O(n k min(n, k)):

1. The random numbers are drawn once; only the scales of the inputs vary, so that the evidence is a
   smooth function of them. Scales, s_j and v_j maximize the evidence plus log priors on at most
   `fit_points` random points (L-BFGS-B, from the best of a grid of common scales, or from the warm
   start).
2. On all points one eigendecomposition gives the evidence, the leave-one-out error and generalized
   cross-validation at every ridge delta = v / s^2 (`inference/ridge.py`). The evidence plus log
   priors, or one of the two errors, chooses delta of each outcome. With an error, s^2 is set such
   that the mean square of the standardized leave-one-out errors is 1: the mean and the covariance
   then follow different criteria. With `train_Yvar`, v is known, and s^2 = 1 / delta.

Prediction: Gaussian, exact, outcomes independent (`inference/linear_regression.py`). Conditioning
on observations is exact, and so are drawn functions: they are weight draws, which cost O(k) a
point. The covariance has rank k: more points than features leave little variance anywhere
("variance starvation").

How the error falls with n and the width is predicted by the eigenframework of random-feature ridge
regression (Simon et al. 2024, arXiv 2311.14646; `inference/eigenframework.py`), from the data:
`learning_curve`.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from botorch.acquisition.objective import PosteriorTransform
from botorch.exceptions.errors import UnsupportedError
from botorch.models.transforms.input import InputTransform
from botorch.models.transforms.outcome import OutcomeTransform, Standardize
from botorch.posteriors.gpytorch import GPyTorchPosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from gpytorch.distributions import MultitaskMultivariateNormal, MultivariateNormal
from linear_operator import to_linear_operator
from linear_operator.utils.errors import NanError, NotPSDError
from scipy.optimize import minimize
from torch import Tensor

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.errors import FitError, InputError, RunError
from bo_surrogates.inference.eigenframework import Eigenstructure
from bo_surrogates.inference.linear_regression import LinearRegression, condition
from bo_surrogates.inference.marginal_likelihood import log_density
from bo_surrogates.inference.ridge import RidgePath
from bo_surrogates.kernels.random_features import (
    Draw,
    MaternFeatures,
    NeuralFeatures,
    RandomFeatures,
    RBFFeatures,
)
from bo_surrogates.posteriors.rescaled import RescaledGaussianPosterior, far_from_unit_scale
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    FunctionSamples,
    Surrogate,
    SurrogateEntry,
    seed_or_random,
)
from bo_surrogates.threads import limited_threads

LOG_VARIANCE_PRIOR = (0.0, 1.0)  # mean and standard deviation of log s^2
LOG_NOISE_PRIOR = (-5.0, 1.0)  # of log v: the mode and width of BoTorch's LogNormal(-4, 1)
LOG_SCALE_BOUNDS = (-7.0, 7.0)
LOG_VARIANCE_BOUNDS = (math.log(1e-3), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-4), math.log(10.0))
MIN_NOISE_VARIANCE = 1e-6  # known variances below it are raised: covariances are factorized
CURVE_POINTS = 1000  # of which a learning curve's eigenstructure is made, at most


@dataclass(frozen=True)
class RandomFeatureConfig(Config):
    """What both surrogates on random features have.

    Attributes:
        width: Number of random features.
        ard: Whether each input has its own scale, or all share one.
        ridge: What chooses the ridge: "evidence", "loo" (leave-one-out) or "gcv" (generalized
            cross-validation).
        steps: L-BFGS-B iterations on the scales, at most.
        fit_points: Points on which the scales are chosen, at most.
    """

    width: int = integer(1024, 1, 16384, log=True, search=(64, 4096))
    ard: bool = choice(True, (False, True))
    ridge: str = choice("evidence", ("evidence", "loo", "gcv"))
    steps: int = integer(30, 1, 10_000, log=True)
    fit_points: int = integer(200, 10, 10_000, log=True)


class RandomFeatureSurrogate(Surrogate):
    """Bayesian linear regression on random features whose inputs have scales.

    Learnt state, all in `state_dict()`, float64: `weights` (`d' x K`) and `biases` (`K`), which
    are drawn; `log_scales` (`d'`), `variance` (`m`, s^2) and `noise_variance` (`m`), of
    standardized outcomes.

    Args:
        train_X: `n x d` inputs.
        train_Y: `n x m` outcomes.
        train_Yvar: `n x m` variances of the outcomes, if known.
        config: An instance of `config_class`; its defaults if None.
        seed: Of everything random in the model; drawn from torch's global generator if None.
        input_transform: Applied to all inputs; its result should lie in the unit cube.
        outcome_transform: Applied to the outcomes, undone by the posterior.
    """

    config_class: ClassVar[type[Config]] = RandomFeatureConfig
    grid: ClassVar[Sequence[float]]  # logarithms of common scales, relative to their prior mean
    weights: Tensor
    biases: Tensor
    log_scales: Tensor
    variance: Tensor
    noise_variance: Tensor
    fitted: Tensor
    outcome_transform: OutcomeTransform  # where there is one
    _inputs: Tensor
    _targets: Tensor
    _target_variance: Tensor | None
    _regression: LinearRegression | None = None  # on the training data, once it was asked for

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
        super().__init__()
        self.config = config or self.config_class()
        self.seed = seed_or_random(seed)
        Y, Yvar = self.transform_outcomes(train_X, train_Y, train_Yvar, outcome_transform)
        if input_transform is not None:
            self.input_transform = input_transform.to(train_X)
        # Training data are no part of the state: `state_dict` holds what was learnt from them.
        self.register_buffer("_inputs", train_X, persistent=False)
        self.register_buffer("_targets", Y.detach(), persistent=False)
        self.register_buffer(
            "_target_variance", None if Yvar is None else Yvar.detach(), persistent=False
        )
        self._num_outputs = Y.shape[-1]
        self._outputs: list[int] | None = None  # of a model made by subset_output
        self.eval()
        with torch.no_grad():
            d = self.transform_inputs(train_X[:1]).shape[-1]
        self.map = self.feature_map(self.config)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "features"))
        draw = self.map.draw(d, self.config.width, generator)
        mean, _ = self.map.log_scale_prior(d)
        ones = torch.ones(self._num_outputs, dtype=torch.float64)
        for name, value in (
            ("weights", draw.weights), ("biases", draw.biases),
            ("log_scales", torch.full((d,), mean, dtype=torch.float64)),
            ("variance", ones), ("noise_variance", ones * math.exp(LOG_NOISE_PRIOR[0])),
            ("fitted", torch.tensor(False)),
        ):  # fmt: skip
            self.register_buffer(name, value.to(train_Y.device))
        self.prepare()

    @classmethod
    @abstractmethod
    def feature_map(cls, config: Any) -> RandomFeatures:
        """The features of a configuration."""

    # ---- features ------------------------------------------------------------------------------
    def features(self, X: Tensor) -> Tensor:
        """phi(x): the random features, and a constant.

        Args:
            X: `batch_shape x n x d` inputs in the user's units.

        Returns:
            `batch_shape x n x k` features, float64.
        """
        return self._features(self.transform_inputs(X).double(), self.log_scales)

    def _features(self, x: Tensor, log_scales: Tensor) -> Tensor:
        phi = self.map.features(x, Draw(self.weights, self.biases), log_scales.exp())
        return torch.cat([phi, torch.ones_like(phi[..., :1])], dim=-1)

    def _training_noise(self) -> Tensor:
        """`n x m` noise variances of the training data."""
        known = self._known_noise()
        return self.noise_variance.expand(self._targets.shape) if known is None else known

    def _known_noise(self) -> Tensor | None:
        if self._target_variance is None:
            return None
        return self._target_variance.double().clamp_min(MIN_NOISE_VARIANCE)

    # ---- inference -----------------------------------------------------------------------------
    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Choose scales, ridge and variances; see `Surrogate.fit` and the module's docstring.

        One thread is used: the result is not to depend on the rounding of sums.
        """
        warm = warm_start if isinstance(warm_start, RandomFeatureSurrogate) else None
        if warm is not None and not (warm.fitted and len(warm.log_scales) == len(self.log_scales)):
            warm = None
        try:
            with limited_threads(1):
                steps, log_variance, log_noise = self._fit_scales(warm)
                with torch.no_grad():
                    self._fit_ridge(steps, log_variance, log_noise)
        except (NotPSDError, NanError, torch.linalg.LinAlgError) as error:
            raise FitError(
                f"the {self.entry_name or type(self).__name__} surrogate could not be fitted to "
                f"{len(self._targets)} points: {error}"
            ) from error
        return self

    def _fit_scales(self, warm: RandomFeatureSurrogate | None) -> tuple[int, Tensor, Tensor]:
        """Set `log_scales`; the iterations, and log s^2 and log v at the optimum, `m` each."""
        config, known = self.config, self._known_noise()
        x, Y = self.transform_inputs(self._inputs).double(), self._targets.double()
        if len(x) > config.fit_points:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "fit points"))
            chosen = torch.randperm(len(x), generator=generator)[: config.fit_points].to(x.device)
            x, Y, known = x[chosen], Y[chosen], None if known is None else known[chosen]
        d, m = x.shape[-1], Y.shape[-1]
        centre, spread = self.map.log_scale_prior(d)
        count = d if config.ard else 1

        def loss(state: Tensor) -> Tensor:
            """Of `batch x (count + 2 m)` logarithms of scales, s^2 and v."""
            scales, log_variance, log_noise = state.split([count, m, m], dim=-1)
            phi = self._features(x, scales.expand(d))
            noise = log_noise.exp().expand_as(Y) if known is None else known
            gram = log_variance.exp().reshape(-1, 1, 1) * (phi @ phi.mT)
            value = log_density(Y.mT, gram, noise.mT).sum()
            priors = ((scales, (centre, spread)), (log_variance, LOG_VARIANCE_PRIOR),
                      (log_noise, LOG_NOISE_PRIOR))  # fmt: skip
            for part, (mean, std) in priors:
                value = value - 0.5 * ((part - mean) / std).square().sum()
            return -value

        def evaluate(logs: np.ndarray) -> tuple[float, np.ndarray]:
            state = torch.from_numpy(logs).to(x.device).requires_grad_()
            value = loss(state)
            (gradient,) = torch.autograd.grad(value, state)
            return value.item(), gradient.cpu().numpy()

        start = x.new_tensor(
            [centre] * count + [LOG_VARIANCE_PRIOR[0]] * m + [LOG_NOISE_PRIOR[0]] * m
        )
        with torch.no_grad():
            starts = [start.clone() for _ in self.grid]
            for candidate, shift in zip(starts, self.grid, strict=True):
                candidate[:count] += shift
            if warm is not None:
                scales = warm.log_scales.to(x)
                start[:count] = scales if count == d else scales.mean()
                if len(warm.variance) == m:
                    start[count:] = torch.cat([warm.variance, warm.noise_variance]).log().to(x)
                starts = [start]
            first = min(starts, key=lambda s: loss(s).item()) if len(starts) > 1 else starts[0]
        bounds = [LOG_SCALE_BOUNDS] * count + [LOG_VARIANCE_BOUNDS] * m + [LOG_NOISE_BOUNDS] * m
        found = minimize(
            evaluate, first.cpu().numpy(), jac=True, method="L-BFGS-B", bounds=bounds,
            options={"maxiter": config.steps, "ftol": 1e-6},
        )  # fmt: skip
        state = torch.from_numpy(found.x).to(x)
        if not torch.isfinite(state).all():
            raise FitError(
                f"the scales of {self.entry_name or type(self).__name__} diverged on "
                f"{len(x)} points; give the outcomes in units in which they differ"
            )
        self.log_scales = state[:count].expand(d).clone()
        return int(found.nit), state[count : count + m], state[count + m :]

    def _fit_ridge(self, steps: int, log_variance: Tensor, log_noise: Tensor) -> None:
        """Set `variance` and `noise_variance` on all points, and the diagnostics."""
        phi = self._features(self.transform_inputs(self._inputs).double(), self.log_scales)
        Y, known = self._targets.double(), self._known_noise()
        m, criterion = Y.shape[-1], self.config.ridge
        path = None if known is not None else RidgePath.of(phi, Y)
        figures = []
        for j in range(m):
            outcome, own = j, path
            if known is not None:  # divided by the noise's standard deviation
                root = known[:, j : j + 1].sqrt()
                own, outcome = RidgePath.of(phi / root, Y[:, j : j + 1] / root), 0
            if own is None:
                raise RunError("there is a path for each outcome, or one for all of them")
            if criterion == "evidence":
                variance, noise = own.best_evidence(
                    LOG_VARIANCE_PRIOR,
                    LOG_NOISE_PRIOR if known is None else 1.0,
                    (log_variance[j].item(), log_noise[j].item()),
                    (LOG_VARIANCE_BOUNDS, LOG_NOISE_BOUNDS),
                    outcome,
                )
            else:
                ridge = own.best_ridge(criterion, outcome)
                size = own.standardized_leave_one_out(Y.new_tensor([ridge]))[0, outcome].item()
                variance = _within(size if known is None else 1.0 / ridge, LOG_VARIANCE_BOUNDS)
                noise = _within(ridge * variance, LOG_NOISE_BOUNDS) if known is None else 1.0
            self.variance[j] = variance
            self.noise_variance[j] = noise if known is None else known[:, j].mean()
            figures.append(_figures(own, variance, noise, outcome))
        self.fitted.fill_(True)
        self._regression = None
        values = {key: sum(f[key] for f in figures) / m for key in figures[0]}
        self.diagnostics = FitDiagnostics(
            converged=True,
            values=values
            | {"steps": float(steps), "noise_variance": self.noise_variance.mean().item()},
        )

    def learning_curve(self, sizes: Sequence[int], width: float | None = None) -> Tensor:
        """Expected square errors of new observations after training on other numbers of points.

        By the eigenframework, from the eigenstructure of the kernel (of the features where it has
        no closed form) on at most 1000 of the training inputs: optimistic for numbers of points
        near or beyond that.

        Args:
            sizes: Numbers of points.
            width: Number of features; the configuration's if None, infinite if `math.inf`.

        Returns:
            `len(sizes) x m`, in squared units of the outcomes.
        """
        self._require_fit()
        with torch.no_grad(), limited_threads(1):
            x = self.transform_inputs(self._inputs).double()[:CURVE_POINTS]
            Y = self._targets.double()[:CURVE_POINTS]
            K = self.map.kernel(x, x, self.log_scales.exp())
            if K is None:
                phi = self._features(x, self.log_scales)
                K = phi @ phi.mT
            else:
                K = K + 1.0
            width = float(self.config.width if width is None else width)
            columns = []
            for j in range(self._num_outputs):
                noise = self.noise_variance[j].item()
                structure = Eigenstructure.of_gram(K, Y[:, j], noise)
                ridge = noise / self.variance[j].item()
                columns.append([structure.test_error(n, width, ridge) for n in sizes])
            errors = torch.tensor(columns, dtype=torch.float64, device=Y.device).mT
        transform = getattr(self, "outcome_transform", None)
        if isinstance(transform, Standardize):
            errors = errors * torch.as_tensor(transform.stdvs).reshape(-1).double().square()
        return errors if self._outputs is None else errors[:, self._outputs]

    # ---- state ---------------------------------------------------------------------------------
    def _require_fit(self) -> None:
        if not self.fitted:
            raise RunError(
                f"this {type(self).__name__} has not been fitted; call fit(), or build it through "
                "its registered entry"
            )

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._regression = None
        super()._load_from_state_dict(*args, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Self:
        self._regression = None
        return super()._apply(*args, **kwargs)

    def _set_transformed_inputs(self) -> None:
        """Nothing to do: training inputs are transformed where they are used."""

    def regression(self) -> LinearRegression:
        """The posterior of the weights, given all observations.

        Raises:
            RunError: The model has not been fitted.
        """
        self._require_fit()
        if self._regression is None:
            with torch.no_grad():
                self._regression = condition(
                    self.features(self._inputs), self.variance, self._targets.double(),
                    self._training_noise(),
                )  # fmt: skip
        return self._regression

    @property
    def num_outputs(self) -> int:
        """m."""
        return self._num_outputs if self._outputs is None else len(self._outputs)

    @property
    def batch_shape(self) -> torch.Size:
        """Empty, unless the model was conditioned on batches of observations."""
        return torch.Size() if self._regression is None else self._regression.batch_shape

    def subset_output(self, idcs: list[int]) -> Self:
        """A copy of the model with some of its outputs."""
        model = copy.deepcopy(self)
        model._outputs = self._selected(list(idcs))
        return model

    def _selected(self, output_indices: list[int] | None) -> list[int] | None:
        """Outcomes of the data that are wanted, None for all."""
        if output_indices is None:
            return self._outputs
        return [self._outputs[i] if self._outputs else i for i in output_indices]

    # ---- prediction ----------------------------------------------------------------------------
    def posterior(
        self,
        X: Tensor,
        output_indices: list[int] | None = None,
        observation_noise: bool | Tensor = False,
        posterior_transform: PosteriorTransform | None = None,
    ) -> Posterior:
        """The Gaussian posterior, joint over points.

        Args:
            X: `batch_shape x q x d` inputs.
            output_indices: Outputs wanted; all if None.
            observation_noise: Whether to add observation noise: the variance that was learnt, or
                the mean of `train_Yvar`. A tensor, broadcastable to `batch_shape x q x m`, is used
                as the variance; it is in standardized units, as in BoTorch.
            posterior_transform: Applied to the posterior.

        Raises:
            RunError: The model has not been fitted.
        """
        self.eval()
        mean, covariance = self.regression().joint(self.features(X))
        if isinstance(observation_noise, Tensor) or observation_noise:
            noise = (
                observation_noise
                if isinstance(observation_noise, Tensor)
                else self._training_noise().mean(dim=0)
            )
            covariance = covariance + torch.diag_embed(noise.to(mean).expand_as(mean.mT).mT)
        outputs = self._selected(output_indices)
        if outputs is not None:
            mean, covariance = mean[..., outputs, :], covariance[..., outputs, :, :]
        mean, covariance = mean.to(X.dtype), covariance.to(X.dtype)
        if mean.shape[-2] == 1:
            covariance = covariance.squeeze(-3)
            # As a linear operator: GPyTorch then adds jitter where points repeat.
            mvn = MultivariateNormal(mean.squeeze(-2), to_linear_operator(covariance))
        else:
            batch = MultivariateNormal(mean, to_linear_operator(covariance))
            mvn = MultitaskMultivariateNormal.from_batch_mvn(batch, task_dim=-1)
        result = self._in_user_units(GPyTorchPosterior(mvn), X, outputs)
        if posterior_transform is None:
            return result
        return posterior_transform(posterior=result, X=X)

    def _in_user_units(
        self, posterior: GPyTorchPosterior, X: Tensor, outputs: list[int] | None
    ) -> Posterior:
        if not hasattr(self, "outcome_transform"):
            return posterior
        transform: Any = self.outcome_transform
        if outputs is not None:
            if not isinstance(transform, Standardize):
                raise UnsupportedError("a choice of outputs needs an affine outcome transform")
            transform = transform.subset_output(outputs)
        result = transform.untransform_posterior(posterior, X=X)
        scaling = far_from_unit_scale(transform)
        if scaling is None or not isinstance(result, GPyTorchPosterior):
            return result
        return RescaledGaussianPosterior(result, *scaling)

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """k draws of the weights, exact; see `Surrogate.sample_functions`."""
        if k < 1:
            raise InputError(f"sample_functions: k must be at least 1, got {k}")
        if self.batch_shape:
            raise UnsupportedError(
                "functions cannot be drawn from a model that was conditioned on batches of "
                "observations; condition on one set of them"
            )
        generator = torch.Generator().manual_seed(derive_seed(seed_or_random(seed), "functions"))
        with torch.no_grad():
            weights = self.regression().draw(k, generator)  # k x m x features
        view = copy.copy(self)
        view._regression = None
        model = copy.deepcopy(view).eval()  # a later fit of this model does not change the draws

        def functions(X: Tensor) -> Tensor:
            phi = model.features(X)
            values = (phi @ weights.flatten(end_dim=1).mT).unflatten(-1, weights.shape[:2])
            values = values.movedim(-2, 0).to(X.dtype)
            if hasattr(model, "outcome_transform"):
                values, _ = model.outcome_transform.untransform(values, X=X)
            return values if model._outputs is None else values[..., model._outputs]

        return functions

    # ---- conditioning --------------------------------------------------------------------------
    def condition_on_observations(
        self, X: Tensor, Y: Tensor, noise: Tensor | None = None, **kwargs: Any
    ) -> Self:
        """The exact posterior given further observations; scales and variances are kept.

        Args:
            X: `batch_shape x n' x d` inputs.
            Y: `... x batch_shape x n' x m` outcomes.
            noise: Variances of the new observations of standardized outcomes, broadcastable to
                `batch_shape x n' x m`; the learnt variances, or the mean of `train_Yvar`, if None.
            **kwargs: Not used; BoTorch passes some.

        Raises:
            UnsupportedError: The model has outputs left out.
        """
        if self._outputs is not None:
            raise UnsupportedError(
                "a model made by subset_output cannot be conditioned; condition the whole model, "
                "then take its outputs"
            )
        regression = self.regression()
        if hasattr(self, "outcome_transform"):
            Y, _ = self.outcome_transform(Y, X=X)
        variance = self._training_noise().mean(dim=0) if noise is None else noise.double()
        model = copy.copy(self)
        model._buffers = dict(self._buffers)
        model._regression = regression.extend(self.features(X), Y.double(), variance)
        model.training_data = None  # not these data: saving would lose the new observations
        return model

    def fantasize(
        self,
        X: Tensor,
        sampler: MCSampler,
        observation_noise: Tensor | None = None,
        **kwargs: Any,
    ) -> Self:
        """Condition on observations drawn from the posterior.

        Args:
            X: `batch_shape x n' x d` inputs.
            sampler: Draws them.
            observation_noise: Their variances, of standardized outcomes, broadcastable to
                `batch_shape x n' x m`; as in `posterior` if None.
            **kwargs: Passed to `condition_on_observations`.
        """
        noise: bool | Tensor = True if observation_noise is None else observation_noise
        drawn = sampler(self.posterior(X, observation_noise=noise))
        return self.condition_on_observations(X, drawn.detach(), observation_noise, **kwargs)


def _within(value: float, log_bounds: tuple[float, float]) -> float:
    return min(max(value, math.exp(log_bounds[0])), math.exp(log_bounds[1]))


def _figures(path: RidgePath, variance: float, noise: float, outcome: int) -> dict[str, float]:
    """Diagnostics of an outcome; errors are in units of the noise's where its variance is known."""
    ridge = path.targets.new_tensor([noise / variance])
    errors = path.leave_one_out(ridge)[0, :, outcome]
    return {
        "log_evidence_per_point": path.log_evidence(variance, noise, outcome) / path.n,
        "ridge": ridge.item(),
        "effective_parameters": path.effective_parameters(ridge).item(),
        "training_error": path.training_error(ridge)[0, outcome].item(),
        "leave_one_out_error": errors.square().mean().item(),
        "generalized_cross_validation": path.generalized_cross_validation(ridge)[0, outcome].item(),
        # Of leave-one-out errors over their predicted variances: 1 if they are calibrated.
        "calibration": path.standardized_leave_one_out(ridge)[0, outcome].item() / variance,
    }


@dataclass(frozen=True)
class RFFConfig(RandomFeatureConfig):
    """Configuration of `rff`.

    Attributes:
        features: "rbf", "matern32", "matern52" (random Fourier features of that kernel), "relu",
            "erf" or "gelu" (hidden units).
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("features", "width", "ridge")

    features: str = choice("rbf", ("rbf", "matern32", "matern52", "relu", "erf", "gelu"))


class RandomFeatureRegression(RandomFeatureSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = RFFConfig
    config: RFFConfig
    grid: ClassVar[Sequence[float]] = (-1.0, 0.0, 1.0)

    @classmethod
    def feature_map(cls, config: RFFConfig) -> RandomFeatures:
        """See `RandomFeatureSurrogate.feature_map`."""
        match config.features:
            case "rbf":
                return RBFFeatures()
            case "matern32":
                return MaternFeatures(1.5)
            case "matern52":
                return MaternFeatures(2.5)
            case name:
                return NeuralFeatures(name)


SURROGATES.register(
    SurrogateEntry(
        name="rff",
        model_class=RandomFeatureRegression,
        summary="Bayesian linear regression on random Fourier features or random hidden units",
        paper="Rahimi and Recht 2007, NeurIPS 20; Simon et al. 2024, arXiv 2311.14646",
        capabilities=Capabilities(
            posterior="gaussian", exact_conditioning=True, max_n=50_000, max_d=100
        ),
    )
)
