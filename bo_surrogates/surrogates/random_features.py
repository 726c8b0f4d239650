"""What surrogates on random features share: the choice of scales and of the ridge.

The features are random and frozen; only the scales of the inputs vary (a scale is an inverse
lengthscale, or a bandwidth), so that the evidence is a smooth function of them. With k of them and
a constant, the model is the Gaussian process of `feature_regression.py`.

Inference, in O(n k min(n, k)):

1. Scales, s_j^2 and v_j maximize the evidence plus log priors on at most `fit_points` random points
   (L-BFGS-B, from the best of a grid of common scales, or from the warm start). With eight features
   a point or more the evidence is that of the kernel which the features stand for, where it has a
   smooth closed form: it costs a tenth, and the scales do not fit the draw.
2. On all points one decomposition gives the evidence, the leave-one-out error and generalized
   cross-validation at every ridge delta = v / s^2 (`inference/ridge.py`). The evidence plus log
   priors, or one of the two errors, chooses delta of each outcome. With an error, s^2 is set such
   that the mean square of the standardized leave-one-out errors is 1: the mean and the covariance
   then follow different criteria. With `train_Yvar`, v is known, and s^2 = 1 / delta.

How the error falls with n and k is predicted from the data by the eigenframework of random-feature
ridge regression (Simon et al. 2024, arXiv 2311.14646; `inference/eigenframework.py`):
`learning_curve`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from botorch.models.transforms.outcome import Standardize
from scipy.optimize import minimize
from torch import Tensor

from bo_surrogates.config import Config, choice, flag, integer
from bo_surrogates.errors import FitError, RunError
from bo_surrogates.inference.eigenframework import Eigenstructure
from bo_surrogates.inference.linear_regression import condition, gram, products
from bo_surrogates.inference.marginal_likelihood import log_density
from bo_surrogates.inference.ridge import RidgePath, TridiagonalEvidence, best_evidence
from bo_surrogates.kernels.random_features import Draw, RandomFeatures
from bo_surrogates.seeding import derive_seed
from bo_surrogates.surrogates.base import FitDiagnostics, Surrogate
from bo_surrogates.surrogates.feature_regression import FeatureRegression
from bo_surrogates.threads import limited_threads

LOG_VARIANCE_PRIOR = (0.0, 1.0)  # mean and standard deviation of log s^2
LOG_NOISE_PRIOR = (-5.0, 1.0)  # of log v: the mode and width of BoTorch's LogNormal(-4, 1)
LOG_SCALE_BOUNDS = (-7.0, 7.0)
LOG_VARIANCE_BOUNDS = (math.log(1e-3), math.log(1e3))
LOG_NOISE_BOUNDS = (math.log(1e-4), math.log(10.0))
FTOL = 1e-4  # relative change of the evidence at which the search for scales ends
MANY = 8  # features a point, beyond which their evidence is about that of the kernel K
CURVE_POINTS = 1000  # of which a learning curve's eigenstructure is made, at most


@dataclass(frozen=True)
class RandomFeatureConfig(Config):
    """What both surrogates on random features have.

    Attributes:
        features: k, the number of random features.
        ard: Whether each input has its own scale, or all share one.
        ridge: What chooses the ridge: "evidence", "loo" (leave-one-out) or "gcv" (generalized
            cross-validation).
        steps: L-BFGS-B iterations on the scales, at most.
        fit_points: Points on which the scales are chosen, at most.
    """

    features: int = integer(2048, 1, 16384, log=True, search=(64, 4096))
    ard: bool = flag(True)
    ridge: str = choice("evidence", ("evidence", "loo", "gcv"))
    steps: int = integer(30, 1, 10_000, log=True)
    fit_points: int = integer(128, 10, 10_000, log=True)


class RandomFeatureSurrogate(FeatureRegression):
    """Bayesian linear regression on random features whose inputs have scales.

    Learnt state besides that of `FeatureRegression`, float64: `weights` (`d' x K`) and `biases`
    (`K`), which are drawn, and `log_scales` (`d'`). Arguments: see `OwnDataSurrogate`.
    """

    config_class: ClassVar[type[Config]] = RandomFeatureConfig
    grid: ClassVar[Sequence[float]]  # logarithms of common scales, relative to their prior mean
    weights: Tensor
    biases: Tensor
    log_scales: Tensor

    @classmethod
    @abstractmethod
    def feature_map(cls, config: Any) -> RandomFeatures:
        """The features of a configuration."""

    def prepare(self) -> None:
        """See `Surrogate.prepare`: draw what is random."""
        with torch.no_grad():
            d = self.transform_inputs(self._inputs[:1]).shape[-1]
        self.map = self.feature_map(self.config)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "features"))
        draw = self.map.draw(d, self.config.features, generator)
        mean, _ = self.map.log_scale_prior(d)
        for name, value in (
            ("weights", draw.weights), ("biases", draw.biases),
            ("log_scales", torch.full((d,), mean, dtype=torch.float64)),
        ):  # fmt: skip
            self.register_buffer(name, value.to(self._targets.device))

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

    # ---- inference -----------------------------------------------------------------------------
    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Choose scales, ridge and variances; see `Surrogate.fit` and the module's docstring.

        One thread is used: the result is not to depend on the rounding of sums.
        """
        warm = warm_start if isinstance(warm_start, RandomFeatureSurrogate) else None
        if warm is not None and not (warm.fitted and len(warm.log_scales) == len(self.log_scales)):
            warm = None
        with limited_threads(1):
            steps, log_variance, log_noise = self._fit_scales(warm)
            with torch.no_grad():
                self._fit_ridge(steps, log_variance, log_noise)
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

        limit = self.map.smooth_kernel and config.features >= MANY * len(x)

        def covariance(log_scales: Tensor) -> Tensor:
            if not limit:
                return gram(self._features(x, log_scales))
            K = self.map.kernel(x, x, log_scales.exp())
            if K is None:
                raise RunError(f"{type(self.map).__name__} has no kernel in closed form")
            return K + 1.0

        def loss(state: Tensor) -> Tensor:
            """Of `count + 2 m` logarithms of scales, s^2 and v."""
            scales, log_variance, log_noise = state.split([count, m, m], dim=-1)
            noise = log_noise.exp().expand_as(Y) if known is None else known
            K = log_variance.exp().reshape(-1, 1, 1) * covariance(scales.expand(d))
            value = log_density(Y.mT, K, noise.mT).sum()
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
            options={"maxiter": config.steps, "ftol": FTOL},
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
        phi = self.features(self._inputs)
        n, k = phi.shape
        Y, known, criterion = self._targets.double(), self._known_noise(), self.config.ridge
        gram_matrix = products(phi) if n <= k else None
        kind = TridiagonalEvidence if criterion == "evidence" else RidgePath
        shared: Any = None  # what serves all outcomes
        evidences = []
        for j in range(Y.shape[-1]):
            outcome, own = j, shared
            if known is not None:  # divided by the noise's standard deviation
                root = known[:, j : j + 1].sqrt()
                own, outcome = kind.of(phi / root, Y[:, j : j + 1] / root), 0
            elif own is None:
                own = shared = (
                    TridiagonalEvidence.of(phi, Y, gram_matrix)
                    if criterion == "evidence"
                    else RidgePath.of(phi, Y)
                )
            evidence = own.evidence(outcome)
            if criterion == "evidence":
                variance, noise = best_evidence(
                    evidence,
                    LOG_VARIANCE_PRIOR,
                    LOG_NOISE_PRIOR if known is None else 1.0,
                    (log_variance[j].item(), log_noise[j].item()),
                    (LOG_VARIANCE_BOUNDS, LOG_NOISE_BOUNDS),
                )
            else:
                ridge = own.best_ridge(criterion, outcome)
                size = own.standardized_leave_one_out(Y.new_tensor([ridge]))[0, outcome].item()
                variance = _within(size if known is None else 1.0 / ridge, LOG_VARIANCE_BOUNDS)
                noise = _within(ridge * variance, LOG_NOISE_BOUNDS) if known is None else 1.0
            self.variance[j] = variance
            self.noise_variance[j] = noise if known is None else known[:, j].mean()
            evidences.append(evidence(variance, noise)[0] / n)
        self.fitted.fill_(True)
        self._conditioned = condition(phi, self.variance, Y, self._training_noise(), gram_matrix)
        self.diagnostics = FitDiagnostics(
            converged=True,
            values={"log_evidence_per_point": sum(evidences) / len(evidences)}
            | self._leave_one_out_figures(phi)
            | {"steps": float(steps), "noise_variance": self.noise_variance.mean().item()},
        )

    def _leave_one_out_figures(self, phi: Tensor) -> dict[str, float]:
        """Errors on the training data; in units of the noise's where its variance is known."""
        Y, noise = self._targets.double(), self._training_noise()
        mean, leverage = self.weight_posterior().at_training_points(lambda: phi, Y, noise)
        unit = 1.0 if self._target_variance is None else noise
        residual, free = (Y - mean) / unit**0.5, (1.0 - leverage).clamp_min(1e-12)
        training = residual.square().mean(dim=0)
        left_out = residual / free
        v = noise / unit
        figures = {
            "ridge": (v / self.variance).mean(),
            "effective_parameters": leverage.sum(dim=0).mean(),
            "training_error": training.mean(),
            "leave_one_out_error": left_out.square().mean(),
            "generalized_cross_validation": (training / free.mean(dim=0).square()).mean(),
            # Of leave-one-out errors over their predicted variances: 1 if they are calibrated.
            "calibration": (residual.square() / (free * v)).mean(),
        }
        return {name: value.item() for name, value in figures.items()}

    def learning_curve(self, sizes: Sequence[int], features: float | None = None) -> Tensor:
        """Expected square errors of new observations after training on other numbers of points.

        By the eigenframework, from the eigenstructure of the kernel (of the features where it has
        no closed form) on at most 1000 of the training inputs: optimistic for numbers of points
        near or beyond that.

        Args:
            sizes: Numbers of points.
            features: Their number; the configuration's if None, infinite if `math.inf`.

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
            width = float(self.config.features if features is None else features)
            columns = []
            for j in range(self._targets.shape[-1]):
                noise = self.noise_variance[j].item()
                structure = Eigenstructure.of_gram(K, Y[:, j], noise)
                ridge = noise / self.variance[j].item()
                columns.append([structure.test_error(n, width, ridge) for n in sizes])
            errors = torch.tensor(columns, dtype=torch.float64, device=Y.device).mT
        transform = getattr(self, "outcome_transform", None)
        if isinstance(transform, Standardize):
            errors = errors * torch.as_tensor(transform.stdvs).reshape(-1).double().square()
        return errors if self._outputs is None else errors[:, self._outputs]


def _within(value: float, log_bounds: tuple[float, float]) -> float:
    return min(max(value, math.exp(log_bounds[0])), math.exp(log_bounds[1]))
