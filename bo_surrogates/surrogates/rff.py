"""Bayesian linear regression on random features.

Model (outcomes standardized): y_ij = w_j . phi(x_i) + e_ij, phi of k random features and a
constant, shared by the outcomes; w_j ~ N(0, s_j^2 I), e_ij ~ N(0, v_j), or of known variances. It
is the Gaussian process with kernel s^2 (phi(x) . phi(x')), which tends to s^2 (K(x, x') + 1) as k
grows (`kernels/random_features.py`): a squared exponential or Matern kernel by random Fourier
features (Rahimi and Recht 2007, NeurIPS 20), or that of an infinitely wide network by its hidden
units.

Inference: scales of the inputs by the evidence, under the dimension-scaled lengthscale prior of
`gp` for Fourier features and about unit weights for hidden units; the ridge by the evidence,
leave-one-out or generalized cross-validation (`random_features.py`).

Prediction: Gaussian and exact given the features (`feature_regression.py`). The covariance has
rank k: with more points than features, little variance is left anywhere ("variance starvation").
Piecewise linear units ("relu") have gradients that jump.

The defaults were chosen on the four functions of `python -m benchmarks.calibration`, six seeds. By
negative log predictive density the evidence was better than leave-one-out, and that better than
generalized cross-validation, which was far off on the ramp with a step. "erf" and "matern52" were
as good as "rbf" there, but behind on regret (Branin, Hartmann-6; three seeds with the budgets of
`benchmarks/regret.py`). More features were better up to 4096, the most tried, on Hartmann-6 with
128 points; 2048 take half of the time. 1024 lose a little at any n: on Branin, Hartmann-6 and
Ackley of ten inputs, four seeds, their mean CRPS was 2 % above that of 2048 with 1000 points, and
4 % with 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bo_surrogates.config import Config, choice
from bo_surrogates.kernels.random_features import (
    MaternFeatures,
    NeuralFeatures,
    RandomFeatures,
    RBFFeatures,
)
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.random_features import RandomFeatureConfig, RandomFeatureSurrogate


@dataclass(frozen=True)
class RFFConfig(RandomFeatureConfig):
    """Configuration of `rff`.

    Attributes:
        kernel: K: "rbf", "matern32" or "matern52", by random Fourier features; or the kernel of an
            infinitely wide network with "relu", "erf" or "gelu" units, by such units.
    """

    _searched: ClassVar[tuple[str, ...] | None] = ("kernel", "features", "ridge")

    kernel: str = choice("rbf", ("rbf", "matern32", "matern52", "relu", "erf", "gelu"))


class RandomFeatureRegression(RandomFeatureSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = RFFConfig
    config: RFFConfig
    grid: ClassVar[Sequence[float]] = (-1.0, 0.0, 1.0)

    @classmethod
    def feature_map(cls, config: RFFConfig) -> RandomFeatures:
        """See `RandomFeatureSurrogate.feature_map`."""
        match config.kernel:
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
