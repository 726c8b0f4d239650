"""Tuning a binary network whose filters are computed along minimum spanning trees.

What is traded is the error against the number of XNORs, and against the depth of the trees, which
is how many filters wait for one another. A penalty in training makes filters alike: its strength,
its form and when it begins are tuned, with the trees' own options, the operator and the
architecture.

Wide layers have many filters to be told by another, so that the ratio of XNORs falls with the width
while their number grows: the default objective is the number.

Source: Vo et al. 2023, Compressing and Accelerating Binary Neural Networks with Minimum Spanning
Tree, ICCV, arXiv 2308.13735; the form of the penalties is a reconstruction, the network for small
images is this project's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bo_surrogates.config import integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Choice, Float, Int, Ordered, Space, Values
from problems.documented.bibench import SmallBinaryNet, deployed
from problems.documented.binarization import BIBENCH, OPERATORS, BinaryConv2d, anneal
from problems.documented.mst import TreeConfig, TreePenalty, tree_cost
from problems.documented.training import Hooks, Moment, TrainingConfig
from problems.documented.tuning_problem import TuningConfig, TuningProblem

CLIPPED = tuple(name for name in BIBENCH if OPERATORS[name].input_estimator == "clip")
PENALTIES = ("tree", "centre", "mix")


@dataclass(frozen=True)
class MSTTuningConfig(TuningConfig):
    """Options of `mst`.

    Attributes:
        depth_limit: What the depth of no tree must exceed (the constraint on `tree_depth`); None:
            there is no constraint.
    """

    epochs: int = integer(12, 1, 10_000)
    depth_limit: int | None = integer(8, 1, 10_000, optional=True)


class MSTTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `penalty` on differing filters, "none", "tree", "centre" or a "mix" of the two, and
    where there is one its `strength`, its `start` (share of the training before it), `tree_share`
    (of a mix) and `refresh` (steps with one tree); `inversions`, whether a parent may be inverted;
    `limited`, whether trees are held to `max_depth`; `operator` and its `input_bound` where its
    gradient is clipped; `width`, `depth` and `kernel_size` of the binary convolutions;
    `learning_rate`. Metrics: `error`; `log_xnors` (decimal logarithm, an image) or `xnor_ratio`,
    against the network without trees; `mean_tree_depth` over layers, `tree_depth` the largest;
    `log_hardware_bits`, of the binary weights where indices are wires; others of `TuningProblem`,
    which are those of the network without trees.

    Args:
        config: See `MSTTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = MSTTuningConfig
    config: MSTTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_xnors", "mean_tree_depth")
    own_metrics: ClassVar[Mapping[str, Objective]] = {
        "log_xnors": Objective("log_xnors"),
        "xnor_ratio": Objective("xnor_ratio", reference=0.5),
        "mean_tree_depth": Objective("mean_tree_depth", reference=12.0),
        "tree_depth": Objective("tree_depth", reference=16.0),
        "log_hardware_bits": Objective("log_hardware_bits"),
    }

    def __init__(
        self,
        config: MSTTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or MSTTuningConfig()
        # A penalty on the tree, and Bi-Real's operator; numbers are those of a small training.
        self.published_default = {
            "penalty": "tree",
            "strength": 10.0,
            "start": 0.2,
            "refresh": 50,
            "inversions": False,
            "limited": False,
            "operator": "bireal",
            "width": 16,
            "depth": 4,
            "kernel_size": 3,
            "learning_rate": 5e-3,
        }
        penalized = {"penalty": PENALTIES}
        space = Space(
            [
                Choice("penalty", ("none", *PENALTIES)),
                Float("strength", 0.1, 100.0, log=True, when=penalized),
                Float("start", 0.0, 0.8, when=penalized),
                Float("tree_share", 0.0, 1.0, when={"penalty": ("mix",)}),
                Int("refresh", 10, 500, log=True, when={"penalty": ("tree", "mix")}),
                Choice("inversions", (False, True)),
                Choice("limited", (False, True)),
                Int("max_depth", 1, 16, log=True, when={"limited": (True,)}),
                Choice("operator", BIBENCH),
                Float("input_bound", 0.3, 3.0, log=True, when={"operator": CLIPPED}),
                Int("width", 8, 64, log=True, unit="channels"),
                Int("depth", 2, 8),
                Ordered("kernel_size", (1, 3)),
                Float("learning_rate", 1e-4, 2e-2, log=True),
            ]
        )
        super().__init__(space, config, negate=negate, device=device)

    def limits(self) -> dict[str, float]:
        """See `TuningProblem.limits`; and the depth."""
        limits = super().limits()
        if self.config.depth_limit is not None:
            limits["tree_depth"] = float(self.config.depth_limit)
        return limits

    def references(self) -> Mapping[str, float]:
        """See `TuningProblem.references`; trees take no more XNORs than there are MACs, nor more
        bits of weights than all parameters together."""
        found = super().references()
        return {**found, "log_xnors": found["log_macs"], "log_hardware_bits": found["log_bits"]}

    def tree_config(self, values: Values) -> TreeConfig:
        """Which trees are sought at a point."""
        limit = int(values["max_depth"]) if values["limited"] else None
        return TreeConfig(max_depth=limit, inversions=bool(values["inversions"]))

    def network(self, values: Values) -> SmallBinaryNet:
        """The untrained network at a point."""
        size = int(values["kernel_size"])
        operator = OPERATORS[str(values["operator"])]
        if "input_bound" in values:
            operator = operator.replace(input_bound=float(values["input_bound"]))

        def make_conv(
            inputs: int, outputs: int, stride: int, output_size: tuple[int, int]
        ) -> nn.Module:
            return BinaryConv2d(
                inputs,
                outputs,
                size,
                operator,
                stride=stride,
                padding=size // 2,
                output_size=output_size,
            )

        width, depth = int(values["width"]), int(values["depth"])
        return SmallBinaryNet(self.shape, self.classes, width, depth, make_conv)

    def recipe(self, values: Values) -> TrainingConfig:
        """See `TuningProblem.recipe`."""
        return super().recipe(values).replace(schedule="cosine")

    def hooks(self, values: Values, network: nn.Module, seed: int) -> Hooks | None:
        """What is annealed, and the penalty."""
        if values["penalty"] == "none":
            return Hooks(before_step=_anneal)
        share = {"tree": 1.0, "centre": 0.0}.get(str(values["penalty"]))
        penalty = TreePenalty(
            network,
            float(values["strength"]),
            tree_share=float(values["tree_share"]) if share is None else share,
            start=float(values["start"]),
            refresh=int(values.get("refresh", 50)),
            config=self.tree_config(values),
        )
        return Hooks(before_step=_anneal, penalty=penalty, memory=penalty)

    def latency(self, network: nn.Module) -> float:
        """See `TuningProblem.latency`; on a CPU, of the network on bits, without trees."""
        return super().latency(deployed(network, self.data().validation_x[:1]))

    def scores(self, network: nn.Module, values: Values, part: str) -> dict[str, float]:
        """See `TuningProblem.scores`; and what the trees of the network's weights cost."""
        cost = tree_cost(network, self.shape, self.tree_config(values))
        return {
            **super().scores(network, values, part),
            "log_xnors": math.log10(cost.xnors),
            "xnor_ratio": cost.ratio,
            "mean_tree_depth": cost.mean_depth,
            "tree_depth": float(cost.depth),
            "log_hardware_bits": math.log10(cost.hardware_bits),
        }


def _anneal(network: nn.Module, moment: Moment) -> None:
    anneal(network, moment.epoch, moment.epochs)
