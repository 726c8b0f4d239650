"""Learning: hyper-parameters of scikit-learn's learners, and all weights of a small network."""

from bo_surrogates.registry import Registry
from problems.registry import ProblemEntry


def register(registry: Registry[ProblemEntry]) -> None:
    """Add the learning problems."""
    registry.register(
        ProblemEntry(
            name="hyperparameters",
            target="problems.learning.hyperparameters:Hyperparameters",
            summary="boosting, forest or network on bundled data; conditional parameters",
            source="in the style of Turner et al. 2021, PMLR 133, arXiv 2104.10201",
            cost="seconds",
            tags=("learning", "mixed", "conditional", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="svm",
            target="problems.learning.svm:SVM",
            summary="a support vector machine with a scale for every feature",
            source="in the style of Eriksson and Jankowiak 2021, UAI, arXiv 2103.00349",
            cost="seconds",
            tags=("learning", "continuous", "noisy"),
        )
    )
    registry.register(
        ProblemEntry(
            name="weighted_lasso",
            target="problems.learning.weighted_lasso:WeightedLasso",
            summary="100 penalties of a Lasso, of which few matter",
            source="Šehić et al. 2022, LassoBench, AutoML, arXiv 2111.02790",
            cost="< 1 s",
            tags=("learning", "continuous", "high-dimensional"),
        )
    )
    registry.register(
        ProblemEntry(
            name="distillation",
            target="problems.learning.distillation:Distillation",
            summary="226 weights of a small network that is to judge as a large one does",
            source="Hinton, Vinyals and Dean 2015, arXiv 1503.02531",
            cost="< 1 s",
            tags=("learning", "continuous", "high-dimensional"),
        )
    )
