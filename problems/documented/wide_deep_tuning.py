"""Tuning an infinitely wide and deep network as a classifier of two classes.

In the limit of width, such a network is a Gaussian process; as its depth grows too, what it does is
decided by its activation: it repeats the nearest neighbour, or the majority, or it is the
singular-kernel classifier, which is consistent where the kernel's exponent is the dimension of the
data (Radhakrishnan, Belkin and Uhler 2023, arXiv 2204.14126; `bo_surrogates/classifiers.py`).
Tuned are what decides the limit and how far from it a network of finite depth is.

Nothing is trained by gradient descent: an evaluation is one solution of linear equations. Its noise
is the split: each observation trains and tests on a stratified split of its own.

Data come with scikit-learn: "breast_cancer" (569 tumours, 30 features: Wolberg, Street and
Mangasarian 1995), or "digits", threes against eights (357 images of 8 x 8 pixels). Features are
standardized, reduced to their first principal components, d of them, and scaled to [0, 1] by the
training part, beyond which test points are moved to the edge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from bo_surrogates.classifiers import DeepKernelClassifier
from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.kernels.singular import Dual, ErfDual, ReLUDual, SineDual, optimal_dual
from bo_surrogates.objective import Objective
from bo_surrogates.seeding import derive_seed
from bo_surrogates.space import Choice, Float, Int, Space, Values
from bo_surrogates.threads import limited_threads
from problems.base import Problem

ACTIVATIONS = ("optimal", "sine", "erf", "relu")
KERNELS = ("nngp", "ntk")
WORST = {"error": 0.5, "log_loss": 0.7}  # reference values: about those of a coin
COMPONENTS = 20


@dataclass(frozen=True)
class WideDeepConfig(Config):
    """Options of `wide_deep`.

    Attributes:
        data: "breast_cancer" or "digits".
        objectives: "error", the share of wrong test points; "log_loss", the mean negative log
            probability of their classes; or "both".
        train_fraction: Share of the data to train on.
        data_seed: Of the split that an evaluation "without noise" has.
    """

    data: str = choice("breast_cancer", ("breast_cancer", "digits"))
    objectives: str = choice("error", ("error", "log_loss", "both"))
    train_fraction: float = real(0.6, 0.05, 0.95)
    data_seed: int = integer(0, 0, 2**31 - 1)


class WideDeepTuning(Problem):
    """See the module's docstring.

    Parameters: `activation` ("optimal" is of exponent d; "sine", "erf" and "relu"), `frequency` b
    of the sine, sin(b u), without effect on the others; `depth`; `kernel`, "nngp" or "ntk";
    `noise`, the variance of a label about the process, relative to the process's; `components` d.

    Args:
        config: See `WideDeepConfig`.
        negate: See `Problem`.
    """

    config_class: ClassVar[type[Config]] = WideDeepConfig
    config: WideDeepConfig

    def __init__(self, config: WideDeepConfig | None = None, *, negate: bool = False) -> None:
        config = config or WideDeepConfig()
        names = ("error", "log_loss") if config.objectives == "both" else (config.objectives,)
        super().__init__(
            Space(
                [
                    Choice("activation", ACTIVATIONS),
                    Float("frequency", 0.7, 4.5, log=True),
                    Int("depth", 1, 200, log=True, unit="layers"),
                    Choice("kernel", KERNELS),
                    Float("noise", 1e-6, 10.0, log=True),
                    Int("components", 1, COMPONENTS),
                ]
            ),
            [Objective(name, reference=WORST[name]) for name in names],
            config=config,
            negate=negate,
        )

    def classifier(self, values: Values) -> DeepKernelClassifier:
        """The classifier of a point, not fitted, of inputs in [0, 1]^d."""
        d = int(values["components"])
        dual: dict[str, Dual] = {
            "optimal": optimal_dual(d),
            "sine": SineDual(float(values["frequency"]) ** 2),
            "erf": ErfDual(),
            "relu": ReLUDual(),
        }
        return DeepKernelClassifier(
            int(values["depth"]),
            dual[str(values["activation"])],
            "ntk" if values["kernel"] == "ntk" else "nngp",
            float(values["noise"]),
        )

    def measure(self, values: Values, seed: int) -> dict[str, float]:
        """Fit and test once.

        Args:
            values: A valid point of `space`.
            seed: Of the split.

        Returns:
            "error" and "log_loss". Probabilities are kept 1 / (2 n) away from 0 and 1, n training
            points: what they can tell.

        Raises:
            InputError: The share of training points leaves a class without points.
        """
        with limited_threads(1):
            X, y, X_test, y_test = split(
                *load(self.config.data), int(values["components"]), self.config.train_fraction, seed
            )
            model = self.classifier(values).fit(X, y)
            margin = 0.5 / len(y)
            p = model.probability(X_test).clamp(margin, 1.0 - margin)
            right = torch.where(y_test, p, 1.0 - p)
            wrong = model.predict(X_test) != y_test
            return {
                "error": wrong.double().mean().item(),
                "log_loss": -right.log().mean().item(),
            }

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._rows(X, lambda row: self.config.data_seed)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        drawn = int(torch.randint(2**31 - 1, ())) if seed is None else seed
        return self._rows(X, lambda row: derive_seed(drawn, "point", row))

    def _rows(self, X: Tensor, seed_of: Callable[[int], int]) -> Tensor:
        rows = []
        for row, x in enumerate(X.reshape(-1, self.dim)):
            metrics = self.measure(self.space.decode(x), seed_of(row))
            rows.append([metrics[name] for name in self.metrics])
        found = torch.tensor(rows, dtype=torch.float64).to(X)
        return found.reshape(*X.shape[:-1], len(self.metrics))


@lru_cache(maxsize=2)
def load(name: str) -> tuple[Tensor, Tensor]:
    """`n x features` inputs and `n` labels, float64 and bool."""
    if name == "breast_cancer":
        features, labels = load_breast_cancer(return_X_y=True)
        return torch.from_numpy(features).double(), torch.from_numpy(labels) == 1
    features, labels = (torch.from_numpy(v) for v in load_digits(return_X_y=True))
    chosen = (labels == 3) | (labels == 8)
    return features[chosen].double(), labels[chosen] == 8


def split(
    features: Tensor, labels: Tensor, components: int, train_fraction: float, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training inputs `n x components` and labels `n`, then those to test on.

    Args:
        features: `N x features`.
        labels: `N` booleans.
        components: Principal components to keep.
        train_fraction: Share of points to train on, in (0, 1).
        seed: Of the split, stratified by class.

    Raises:
        InputError: A class would be without points on one side.
    """
    try:
        train, test = train_test_split(
            range(len(labels)), train_size=train_fraction, stratify=labels, random_state=seed
        )
    except ValueError as error:
        raise InputError(
            f"train_fraction must leave points of both classes on both sides, got "
            f"{train_fraction!r}: {error}"
        ) from error
    x = features[train]
    centred = (features - x.mean(dim=0)) / x.std(dim=0).clamp_min(1e-9)
    _, _, directions = torch.linalg.svd(centred[train], full_matrices=False)
    scores = centred @ directions[:components].mT
    low, high = scores[train].amin(dim=0), scores[train].amax(dim=0)
    unit = ((scores - low) / (high - low)).clamp(0.0, 1.0)
    return unit[train], labels[train], unit[test], labels[test]
