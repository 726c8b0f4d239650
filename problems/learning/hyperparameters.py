"""Hyper-parameters of scikit-learn's learners: floats, integers, choices, and some that exist only
where others have certain values.

* gradient_boosting: trees, learning rate, depth, share of the data a tree, leaf size, features;
* mlp: one to three hidden layers, each with a width of its own; activation, penalty, solver, and,
  where the solver is Adam, its learning rate and batch size;
* random_forest: trees, depth, share of features, leaf size, and, where trees are grown on samples
  (`bootstrap`), their size;
* any: which of the three, and then its own parameters.

Source: in the style of Turner et al. 2021 (Bayesmark), PMLR 133, arXiv 2104.10201.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from bo_surrogates.config import Config, choice, integer
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Values
from problems.learning.cross_validated import DATA, REGRESSION, CrossValidated

SPACES: dict[str, tuple[Parameter, ...]] = {
    "gradient_boosting": (
        Int("trees", 10, 200, log=True),
        Float("learning_rate", 0.01, 1.0, log=True),
        Int("max_depth", 1, 8),
        Float("subsample", 0.3, 1.0),
        Int("min_samples_leaf", 1, 30, log=True),
        Choice("max_features", ("all", "sqrt", "log2")),
    ),
    "mlp": (
        Int("layers", 1, 3),
        Ordered("width_1", (4, 8, 16, 32, 64, 128)),
        Ordered("width_2", (4, 8, 16, 32, 64, 128), when={"layers": (2, 3)}),
        Ordered("width_3", (4, 8, 16, 32, 64, 128), when={"layers": (3,)}),
        Choice("activation", ("relu", "tanh", "logistic")),
        Float("penalty", 1e-6, 1.0, log=True),
        Choice("solver", ("adam", "lbfgs")),
        Float("learning_rate", 1e-4, 0.1, log=True, when={"solver": ("adam",)}),
        Ordered("batch_size", (16, 32, 64, 128), when={"solver": ("adam",)}),
    ),
    "random_forest": (
        Int("trees", 10, 200, log=True),
        Int("max_depth", 2, 32, log=True),
        Float("max_features", 0.05, 1.0),
        Int("min_samples_leaf", 1, 30, log=True),
        Choice("bootstrap", (True, False)),
        Float("max_samples", 0.2, 1.0, when={"bootstrap": (True,)}),
    ),
}
MODELS = tuple(SPACES)
ITERATIONS = 60  # of an mlp


@dataclass(frozen=True)
class HyperparametersConfig(Config):
    """Options of `hyperparameters`.

    Attributes:
        model: Which learner, or "any": that is a parameter too.
        data: Which of scikit-learn's bundled data.
        folds: Of the cross-validation.
        fold_seed: Of the division behind the true metric.
    """

    model: str = choice("any", (*MODELS, "any"))
    data: str = choice("breast_cancer", DATA)
    folds: int = integer(3, 2, 20)
    fold_seed: int = integer(0, 0, 2**31 - 1)


class Hyperparameters(CrossValidated):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = HyperparametersConfig

    def __init__(
        self,
        config: HyperparametersConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or HyperparametersConfig()
        super().__init__(_space(config.model), config, noise_std=noise_std, negate=negate)

    def estimator(self, values: Values, seed: int) -> Any:
        """See `CrossValidated.estimator`."""
        options: Any = self.config
        kind: Any = options.model
        own: dict[str, Any] = dict(values)
        if kind == "any":
            kind = own.pop("model")
            own = {name.removeprefix(f"{kind}_"): v for name, v in own.items()}
        make = {
            "gradient_boosting": _gradient_boosting,
            "mlp": _mlp,
            "random_forest": _random_forest,
        }[kind]
        return make(own, seed, regression=options.data in REGRESSION)


def _space(model: str) -> Space:
    if model != "any":
        return Space(SPACES[model])
    parameters: list[Parameter] = [Choice("model", MODELS)]
    for kind, own in SPACES.items():
        for p in own:
            when = {f"{kind}_{name}": values for name, values in p.when.items()}
            parameters.append(replace(p, name=f"{kind}_{p.name}", when={"model": (kind,), **when}))
    return Space(parameters)


def _gradient_boosting(values: dict[str, Any], seed: int, *, regression: bool) -> Any:
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor

    features = values["max_features"]
    return (GradientBoostingRegressor if regression else GradientBoostingClassifier)(
        n_estimators=values["trees"],
        learning_rate=values["learning_rate"],
        max_depth=values["max_depth"],
        subsample=values["subsample"],
        min_samples_leaf=values["min_samples_leaf"],
        max_features=None if features == "all" else features,
        random_state=seed,
    )


def _mlp(values: dict[str, Any], seed: int, *, regression: bool) -> Any:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.preprocessing import StandardScaler

    adam = {}
    if values["solver"] == "adam":
        adam = {
            "learning_rate_init": values["learning_rate"],
            "batch_size": values["batch_size"],
        }
    network = (MLPRegressor if regression else MLPClassifier)(
        hidden_layer_sizes=[values[f"width_{i + 1}"] for i in range(values["layers"])],
        activation=values["activation"],
        alpha=values["penalty"],
        solver=values["solver"],
        max_iter=ITERATIONS,
        random_state=seed,
        **adam,
    )
    if regression:  # a network wants outcomes of unit scale
        return TransformedTargetRegressor(network, transformer=StandardScaler())
    return network


def _random_forest(values: dict[str, Any], seed: int, *, regression: bool) -> Any:
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    return (RandomForestRegressor if regression else RandomForestClassifier)(
        n_estimators=values["trees"],
        max_depth=values["max_depth"],
        max_features=values["max_features"],
        min_samples_leaf=values["min_samples_leaf"],
        bootstrap=values["bootstrap"],
        max_samples=values.get("max_samples"),
        random_state=seed,
    )
