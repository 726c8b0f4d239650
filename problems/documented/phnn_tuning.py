"""Tuning a small hypercomplex network: error against the size of what is stored.

The number of components n divides the parameters by about n and leaves the multiply-accumulates as
they are; width and depth raise both. So there are many networks of one size, wide ones with many
components or narrow ones with few, and a budget of MACs (`macs_budget`) bounds how far the exchange
goes. Little data is trained on: there, fewer parameters might even help.

n divides the channels of every layer: widths are rounded up to a multiple of it.

Source: Grassucci, Zhang and Comminiello 2022, PHNNs, IEEE TNNLS, arXiv 2110.04176; the network for
small images is this project's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from bo_surrogates.config import choice, flag, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.space import Choice, Float, Int, Ordered, Parameter, Space, Value, Values
from problems.documented.cost import FLOAT_BITS
from problems.documented.hypercomplex import (
    ALGEBRAS,
    INITS,
    PHConfig,
    factor_rules,
    train_algebras,
)
from problems.documented.hypercomplex_networks import STEMS, Classifier, small_phnn
from problems.documented.training import Hooks, Moment
from problems.documented.tuning_problem import TuningConfig, TuningProblem

SEARCHES = ("network", "training", "storage", "all")
COMPONENTS = (1, 2, 3, 4, 6, 8)
KNOWN_ALGEBRA = (2, 4)  # n, other than 1, of which an algebra may be fixed


@dataclass(frozen=True)
class PHNNTuningConfig(TuningConfig):
    """Options of `phnn`; 300 of the digits are trained on.

    Attributes:
        search: What is tuned beside n, the algebra, width, depth and the learning rate: "network",
            nothing; "training", the initialization, the algebras' learning rate, weight decays and
            normalization; "storage", the terms and bits of the factors; or "all".
        per_stage: Whether each of the two stages has an n of its own.
        stem: The first layer: "real", or hypercomplex on channels filled up with "zeros" or their
            "mean" to a multiple of n. Colour images need none for n = 3.
        init: Where it is not tuned, see `PHConfig`; likewise:
        gain: of initial weights;
        algebra_rate: learning rate of the algebras, as a multiple of that of all else;
        algebra_decay: weight decay of the algebras;
        filter_decay: and of the filters;
        normalized: whether there are normalizations;
        terms_share: terms as a share of n, rounded up;
        algebra_bits: stored bits of an algebra's entry, 32 is not quantized;
        filter_bits: and of a filter's.
    """

    train_fraction: float = real(0.167, 0.05, 0.95)
    epochs: int = integer(20, 1, 10_000)
    batch_size: int = integer(32, 2, 65_536)
    search: str = choice("network", SEARCHES)
    per_stage: bool = flag(False)
    stem: str = choice("real", STEMS)
    init: str = choice("scaled", INITS)
    gain: float = real(1.0, 1e-3, 1e3)
    algebra_rate: float = real(1.0, 1e-6, 1e6)
    algebra_decay: float = real(0.0, 0.0, 1.0)
    filter_decay: float = real(5e-4, 0.0, 1.0)
    normalized: bool = flag(True)
    terms_share: float = real(1.0, 0.01, 1.0)
    algebra_bits: int = integer(FLOAT_BITS, 2, FLOAT_BITS)
    filter_bits: int = integer(FLOAT_BITS, 2, FLOAT_BITS)


NETWORK: tuple[Parameter, ...] = (
    Ordered("width", tuple(range(12, 97, 12)), unit="channels"),
    Int("depth", 2, 8),
    Float("free_after", 0.1, 0.9, when={"algebra": ("freed",)}),
    Float("learning_rate", 1e-4, 1e-1, log=True),
)
TRAINING: tuple[Parameter, ...] = (
    Choice("init", INITS),
    Float("gain", 0.3, 3.0, log=True),
    Float("algebra_rate", 0.03, 3.0, log=True),
    Float("algebra_decay", 1e-6, 1e-2, log=True),
    Float("filter_decay", 1e-6, 1e-2, log=True),
    Choice("normalized", (False, True)),
)
STORAGE: tuple[Parameter, ...] = (
    Ordered("terms_share", (0.25, 0.5, 0.75, 1.0)),
    Ordered("algebra_bits", (4, 8, 16, FLOAT_BITS)),
    Ordered("filter_bits", (4, 8, 16, FLOAT_BITS)),
)
# The paper's, but for the learning rate and the architecture, which are those of a small training.
PUBLISHED: Values = {
    "n": 4,
    "n_1": 4,
    "n_2": 4,
    "algebra": "learned",
    "width": 24,
    "depth": 3,
    "learning_rate": 5e-3,
    "init": "scaled",
    "gain": 1.0,
    "algebra_rate": 1.0,
    "algebra_decay": 1e-6,
    "filter_decay": 5e-4,
    "normalized": True,
    "terms_share": 1.0,
    "algebra_bits": FLOAT_BITS,
    "filter_bits": FLOAT_BITS,
}


class PHNNTuning(TuningProblem):
    """See the module's docstring.

    Parameters: `n`, components of all layers (`n_1` and `n_2` with the option `per_stage`);
    `algebra`, where n is 2 or 4 ("learned", "fixed": complex or quaternions, "freed": fixed for the
    share `free_after` of the training); `width` and `depth` of the network, `learning_rate`, and
    what the option `search` adds. Metrics: `error` and `log_bits`, or others of `TuningProblem`.

    Args:
        config: See `PHNNTuningConfig`.
        negate: See `Problem`.
        device: See `TuningProblem`.
    """

    config_class: ClassVar[type[TuningConfig]] = PHNNTuningConfig
    config: PHNNTuningConfig
    default_objectives: ClassVar[tuple[str, ...]] = ("error", "log_bits")

    def __init__(
        self,
        config: PHNNTuningConfig | None = None,
        *,
        negate: bool = False,
        device: str = "cpu",
    ) -> None:
        config = config or PHNNTuningConfig()
        stages = ("n_1", "n_2") if config.per_stage else ("n",)
        parameters: list[Parameter] = [Ordered(name, COMPONENTS) for name in stages]
        parameters.append(Choice("algebra", ALGEBRAS, when=dict.fromkeys(stages, KNOWN_ALGEBRA)))
        parameters += NETWORK
        parameters += TRAINING if config.search in ("training", "all") else ()
        parameters += STORAGE if config.search in ("storage", "all") else ()
        self.published_default = {
            p.name: PUBLISHED[p.name] for p in parameters if p.name in PUBLISHED
        }
        super().__init__(Space(parameters), config, negate=negate, device=device)

    def setting(self, name: str, values: Values) -> Value:
        """A parameter's value where it is tuned, else the option of its name."""
        if name in values:
            return values[name]
        found: Value = getattr(self.config, name)
        return found

    def factors(self, values: Values) -> tuple[PHConfig, PHConfig]:
        """How the layers of the two stages are made."""
        first = int(values.get("n_1", values.get("n", 1)))
        second = int(values.get("n_2", first))
        share = float(self.setting("terms_share", values))

        def config(n: int) -> PHConfig:
            return PHConfig(
                n,
                str(values.get("algebra", "learned")),
                math.ceil(share * n),
                str(self.setting("init", values)),
                float(self.setting("gain", values)),
                int(self.setting("algebra_bits", values)),
                int(self.setting("filter_bits", values)),
            )

        return config(first), config(second)

    def network(self, values: Values) -> Classifier:
        """The untrained network at a point; weights from torch's global generator."""
        channels, height, width = self.shape
        if min(height, width) < 2:
            raise InputError(
                f"data = {self.config.data!r}: images of {height} x {width} pixels are too small "
                "for two resolutions; expected at least 2 x 2"
            )
        first, second = self.factors(values)
        unit = math.lcm(first.n, second.n)
        return small_phnn(
            channels,
            self.classes,
            -(-int(values["width"]) // unit) * unit,
            int(values["depth"]),
            (first, second),
            stem=self.config.stem,
            normalized=bool(self.setting("normalized", values)),
        )

    def hooks(self, values: Values, network: nn.Module, seed: int) -> Hooks:
        """Rates and decays of the factors; when a fixed algebra is freed."""
        rules = factor_rules(
            float(self.setting("algebra_rate", values)),
            float(self.setting("algebra_decay", values)),
            float(self.setting("filter_decay", values)),
        )
        if values.get("algebra") != "freed":
            return Hooks(rules=rules)
        begin = float(values["free_after"])

        def free(network: nn.Module, moment: Moment) -> None:
            train_algebras(network, moment.progress >= begin)

        return Hooks(rules=rules, before_step=free)
