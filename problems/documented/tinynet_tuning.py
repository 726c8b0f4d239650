"""Tuning TinyNets: resolution, depth and width of a small network, error against MACs.

The question of the Rubik's cube: of all networks of one cost, which? It is asked in the numbers
that a network really has: whole pixels, and one value of the depth multiplier for each number of
blocks, so that no two values of these are one network. Stages and rules are those of `tinynet.py`;
the published default is the tiny formula at the budget.

With `solve_width` the width is not a parameter but the largest that the budget allows, as counted:
two parameters are left, and every point is worth comparing. Without a budget the share of MACs is a
parameter in the width's place, and resolution and depth come out as functions of cost. Where no
width is narrow enough, the narrowest is taken, which the metric "log_macs" tells.

By default the images are generated, noisy stripes of two periods (`gratings`), since on digits
resolution decides little. Multipliers found on photographs do not carry over to them.

Source: Han et al. 2020, Model Rubik's Cube, NeurIPS, arXiv 2010.14819; the network for small images
is this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, ClassVar

from bo_surrogates.config import choice, flag, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Value, Values
from problems.documented.data import DATA_SETS
from problems.documented.tiny_formula import (
    RATIOS,
    counted_macs,
    largest_width,
    published_formula,
)
from problems.documented.tinynet import ARCHITECTURES, Architecture, ScaledNet, Scaling
from problems.documented.training import TrainingConfig
from problems.documented.tuning_problem import TuningConfig, TuningProblem

SEARCHES = ("scaling", "blocks", "training", "all")
RESOLUTIONS = (Fraction(2, 5), Fraction(6, 5))
DEPTHS = (Fraction(2, 5), Fraction(3, 2))
DEFAULT_RATIO = 0.25  # the published default's share of MACs where there is no budget
WIDTHS = (0.1, 2.0)
SOLVED_WIDTHS = (0.05, 4.0)


@dataclass(frozen=True)
class TinyNetTuningConfig(TuningConfig):
    """Options of `tinynet`.

    Attributes:
        base: What is scaled: "small", or "efficientnet_b0", for larger images.
        side: Pixels of the images' shorter side at resolution 1; None: their own, digits doubled.
        ratio: Where given, the share of the base's MACs that a network may have: a `macs_budget`.
        solve_width: Whether the width follows from the budget.
        search: What is tuned beside resolution, depth and width: "scaling", nothing; "blocks", how
            blocks are made, and bits; "training", learning rate and weight decay; or "all".
        expansion: Channels within a block per input channel, but in stages without expansion, where
            it is not tuned; None: the base's; likewise:
        kernel: Side of depthwise kernels;
        se_ratio: hidden units of squeeze-excites per input channel, 0: there are none;
        channel_step: what numbers of channels are multiples of.
        scale_stem: Whether the stem has the width, too.
        scale_head: Whether the head may be narrower than the base's.
        bits: Of weights and inputs of all layers; 16: nothing is quantized. Then look at `log_ace`.
        learning_rate: Where it is not tuned.
        shift: Pixels by which training images are shifted at random, at most, before they are
            brought to the resolution.
    """

    data: str = choice("gratings", tuple(DATA_SETS))
    train_fraction: float = real(0.5, 0.05, 0.95)
    weight_decay: float = real(0.0, 0.0, 1.0)
    base: str = choice("small", tuple(ARCHITECTURES))
    side: int | None = integer(None, 4, 4096, optional=True)
    ratio: float | None = real(None, 0.01, 4.0, optional=True)
    solve_width: bool = flag(False)
    search: str = choice("scaling", SEARCHES)
    expansion: int | None = integer(None, 1, 16, optional=True)
    kernel: int | None = integer(None, 1, 15, optional=True)
    se_ratio: float | None = real(None, 0.0, 4.0, optional=True)
    channel_step: int | None = integer(None, 1, 64, optional=True)
    scale_stem: bool = flag(False)
    scale_head: bool = flag(False)
    bits: int = integer(16, 2, 16)
    learning_rate: float = real(1e-2, 1e-8, 10.0, log=True)
    shift: int = integer(0, 0, 64)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel is not None and self.kernel % 2 == 0:
            raise InputError(f"TinyNetTuningConfig.kernel must be odd, got {self.kernel}")
        if self.ratio is not None and self.macs_budget is not None:
            raise InputError("ratio and macs_budget both limit the MACs; leave out one of the two")


class TinyNetTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `pixels` of the image's shorter side; `depth`, a multiplier of the number of blocks;
    `width`, a multiplier of channels, or `ratio`, the share of the base's MACs it is solved from;
    and what the option `search` adds. Metrics: `error` and `log_macs`, or others of
    `TuningProblem`. A fidelity may be `epochs`, `pixels` or `width`.

    Args:
        config: See `TinyNetTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.

    Attributes:
        base_macs: MACs of the base architecture on this data.
    """

    config_class: ClassVar[type[TuningConfig]] = TinyNetTuningConfig
    config: TinyNetTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_macs")
    reduced: ClassVar[dict[str, Any]] = {
        "data": "digits", "epochs": 2, "train_fraction": 0.1, "batch_size": 32,
    }  # fmt: skip

    def __init__(
        self,
        config: TinyNetTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or TinyNetTuningConfig()
        self.config = config  # the space follows from the data's shape
        self._check_data()
        self.base_macs = counted_macs(self.architecture({}), self.shape, self.classes)
        if config.ratio is not None:
            budget = config.ratio * self.base_macs
            config = self.config = config.replace(ratio=None, macs_budget=budget)
        parameters = self._searched()
        self.published_default = self._published(parameters)
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def setting(self, name: str, values: Values) -> Value | None:
        """A parameter's value where it is tuned, else the option of its name."""
        found: Value | None = values.get(name, getattr(self.config, name))
        return found

    def architecture(self, values: Values) -> Architecture:
        """What is scaled at a point, at multipliers of 1."""
        base = ARCHITECTURES[self.config.base]
        shorter = min(self.shape[-2:])
        side = self.config.side or (2 * shorter if self.config.data == "digits" else shorter)
        kernel, expansion = self.setting("kernel", values), self.setting("expansion", values)
        stages = tuple(
            replace(
                stage,
                kernel=stage.kernel if kernel is None else int(kernel),
                expansion=stage.expansion
                if expansion is None or stage.expansion == 1
                else int(expansion),
            )
            for stage in base.stages
        )
        se_ratio = self.setting("se_ratio", values)
        step = self.setting("channel_step", values)
        return replace(
            base,
            stages=stages,
            side=side,
            se_ratio=base.se_ratio if se_ratio is None else float(se_ratio),
            channel_step=base.channel_step if step is None else int(step),
            scale_stem=bool(self.setting("scale_stem", values)),
            scale_head=bool(self.setting("scale_head", values)),
            bits=int(values.get("bits", self.config.bits)),
        )

    def scaling(self, values: Values) -> Scaling:
        """The multipliers at a point."""
        architecture = self.architecture(values)
        resolution = int(values["pixels"]) / architecture.side
        depth = float(values["depth"])
        if "width" in values:
            return Scaling(resolution, depth, float(values["width"]))
        budget = self.config.macs_budget or float(values["ratio"]) * self.base_macs
        width = largest_width(
            architecture,
            self.shape,
            self.classes,
            budget,
            resolution=resolution,
            depth=depth,
            widths=SOLVED_WIDTHS,
        )
        # Where none is narrow enough, the narrowest is measured, and is out of budget.
        return Scaling(resolution, depth, SOLVED_WIDTHS[0] if width is None else width)

    def network(self, values: Values) -> ScaledNet:
        """The untrained network at a point; weights from torch's global generator."""
        return ScaledNet(
            self.architecture(values),
            self.scaling(values),
            channels=self.shape[0],
            classes=self.classes,
        )

    def recipe(self, values: Values) -> TrainingConfig:
        """See `TuningProblem.recipe`; images are shifted."""
        rate = self.setting("learning_rate", values)
        return (
            super().recipe({**values, "learning_rate": rate or 0.0}).replace(crop=self.config.shift)
        )

    # ---- the space -------------------------------------------------------------------------------
    def _searched(self) -> list[Parameter]:
        config, base = self.config, self.architecture({})
        least = max(math.ceil(base.side * RESOLUTIONS[0]), 1)
        most = max(math.floor(base.side * RESOLUTIONS[1]), least + 1)
        parameters: list[Parameter] = [
            Int("pixels", least, most, unit="px"),
            Ordered("depth", depth_levels(base)),
        ]
        if not config.solve_width:
            parameters.append(Float("width", *WIDTHS, log=True))
        elif config.macs_budget is None:
            parameters.append(Float("ratio", *RATIOS, log=True))
        if config.search in ("blocks", "all"):
            parameters += [
                Ordered("expansion", (3, 4, 6)),
                Ordered("kernel", (3, 5)),
                Choice("se_ratio", (0.0, 0.25)),
                Choice("scale_stem", (False, True)),
                *([Choice("scale_head", (False, True))] if base.head else []),
                Ordered("channel_step", (1, 4, 8)),
                Ordered("bits", (4, 8, 16)),
            ]
        if config.search in ("training", "all"):
            parameters += [
                Float("learning_rate", 1e-3, 1e-1, log=True),
                Float("weight_decay", 1e-7, 1e-2, log=True),
            ]
        return parameters

    def _published(self, parameters: list[Parameter]) -> Values:
        """The tiny formula at the budget, with the blocks of the base."""
        base = self.architecture({})
        budget = self.config.macs_budget or DEFAULT_RATIO * self.base_macs
        ratio = min(max(budget / self.base_macs, RATIOS[0]), RATIOS[1])
        resolution, depth = published_formula()([ratio])[0].tolist()
        blocks = base.repeats(depth)
        known: Values = {
            "depth": next(d for d in depth_levels(base) if base.repeats(d) == blocks),
            "ratio": ratio,
            "expansion": min((3, 4, 6), key=lambda e: abs(e - base.stages[-1].expansion)),
            "kernel": 3,
            "se_ratio": 0.25 if base.se_ratio else 0.0,
            "scale_stem": False,
            "scale_head": False,
            "channel_step": base.channel_step,
            "bits": 16,
            "learning_rate": 1e-2,
            "weight_decay": 1e-7,
        }
        (pixels,) = (p for p in parameters if isinstance(p, Int))
        known["pixels"] = min(max(base.pixels(resolution), pixels.low), pixels.high)
        point = {p.name: known[p.name] for p in parameters if p.name != "width"}
        if any(p.name == "width" for p in parameters):
            width = largest_width(
                self.architecture(point),
                self.shape,
                self.classes,
                budget,
                resolution=int(known["pixels"]) / base.side,
                depth=float(known["depth"]),
                widths=WIDTHS,
            )
            point["width"] = WIDTHS[0] if width is None else width
        return {p.name: point[p.name] for p in parameters}


def depth_levels(architecture: Architecture) -> tuple[float, ...]:
    """One depth multiplier for each number of blocks that those in `DEPTHS` give.

    Args:
        architecture: At a depth of 1.

    Returns:
        Ascending; each in the middle of those that give the same.
    """
    repeats = {stage.repeats for stage in architecture.stages}
    # A stage of n blocks changes where n d is half of an odd number above 1.
    changes = {
        Fraction(2 * k + 1, 2 * n)
        for n in repeats
        for k in range(1, math.ceil(n * DEPTHS[1]) + 1)
        if DEPTHS[0] < Fraction(2 * k + 1, 2 * n) < DEPTHS[1]
    }
    ends = [DEPTHS[0], *sorted(changes), DEPTHS[1]]
    return tuple(round(float(a + b) / 2, 4) for a, b in pairwise(ends))
