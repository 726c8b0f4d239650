"""Support vector machines with a scale for every feature.

The kernel is exp(-gamma sum_j w_j^2 (x_j - x'_j)^2 / d): with its features' scales w_j, the penalty
C and gamma (for regression also the width epsilon of the tube), the machine has d + 2 or d + 3
parameters, of which few matter: of digits' 64 pixels, those at the corners are always white.

Source: in the style of Eriksson and Jankowiak 2021, UAI, arXiv 2103.00349 (388-d, on data that
scikit-learn does not bundle).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.space import Float, Parameter, Space, Values
from problems.learning.cross_validated import DATA, REGRESSION, CrossValidated, load


@dataclass(frozen=True)
class SVMConfig(Config):
    """Options of `svm`.

    Attributes:
        data: Which of scikit-learn's bundled data.
        folds: Of the cross-validation.
        fold_seed: Of the division behind the true metric.
    """

    data: str = choice("diabetes", DATA)
    folds: int = integer(3, 2, 20)
    fold_seed: int = integer(0, 0, 2**31 - 1)


class SVM(CrossValidated):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = SVMConfig

    def __init__(
        self,
        config: SVMConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or SVMConfig()
        features = load(config.data)[0].shape[1]
        parameters: list[Parameter] = [
            Float("C", 0.01, 100.0, log=True),
            Float("gamma", 0.01, 10.0, log=True),
        ]
        if config.data in REGRESSION:
            parameters.append(Float("epsilon", 0.01, 1.0, log=True))
        parameters += [Float(f"scale_{j + 1}", 0.01, 10.0, log=True) for j in range(features)]
        super().__init__(Space(parameters), config, noise_std=noise_std, negate=negate)

    def estimator(self, values: Values, seed: int) -> Any:
        """See `CrossValidated.estimator`."""
        import numpy as np
        from sklearn.compose import TransformedTargetRegressor
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import FunctionTransformer, StandardScaler
        from sklearn.svm import SVC, SVR

        own: dict[str, Any] = dict(values)
        scales = np.array([own[name] for name in self.space.names if name.startswith("scale_")])
        scaled = FunctionTransformer(_scaled, kw_args={"scales": scales})
        gamma = own["gamma"] / len(scales)
        if "epsilon" in own:
            machine = SVR(C=own["C"], gamma=gamma, epsilon=own["epsilon"])
            # C and epsilon are for outcomes of unit scale.
            return TransformedTargetRegressor(
                make_pipeline(scaled, machine), transformer=StandardScaler()
            )
        return make_pipeline(scaled, SVC(C=own["C"], gamma=gamma))


def _scaled(X: Any, scales: Any) -> Any:
    return X * scales
