"""How a network is quantized."""

from __future__ import annotations

from dataclasses import dataclass

from bo_surrogates.config import Config, choice, flag, integer, real
from problems.documented.power_quantization.grid import GRANULARITIES

METHODS = ("rtn", "adaround", "nupes-u", "nupes-u+a")
GRIDS = ("uniform", "net", "layers")
STEPS = 20  # of one layer, between two looks at the rounded codes


@dataclass(frozen=True)
class CalibrationConfig(Config):
    """How a network is quantized.

    Attributes:
        method: "rtn", to the nearest code; "adaround"; "nupes-u", free codes; "nupes-u+a", and the
            exponent of each layer is learnt too.
        grid: Exponents, or where they start: "uniform", 1; "net", PowerQuant's search for one of
            the network; "layers", for one of each layer.
        norm: p of that search.
        granularity: Of the weights' bounds: "tensor", "channel", or groups of 16 or 32 inputs.
        clip_ratio: The weights' bounds as shares of the largest weights.
        input_clip_ratio: Likewise of the inputs'.
        epochs: A layer learns for `STEPS` (20) times as many steps.
        lr_codes: Adam's step size of NUPES' codes, in codes.
        lr_exponent: Of its exponents.
        first_sharpness: Of its soft rounding, kappa, at the first step.
        last_sharpness: At the last.
        lr_rounding: Adam's step size of AdaRound's variables.
        rounding_penalty: Weight of AdaRound's penalty.
        bias_correction: Whether biases are set so that the mean outputs are right.
    """

    method: str = choice("nupes-u+a", METHODS)
    grid: str = choice("net", GRIDS)
    norm: float = real(2.0, 1.0, 4.0)
    granularity: str = choice("channel", GRANULARITIES)
    clip_ratio: float = real(1.0, 0.1, 1.0, search=(0.4, 1.0))
    input_clip_ratio: float = real(1.0, 0.1, 1.0, search=(0.4, 1.0))
    epochs: int = integer(30, 1, 10_000, log=True, search=(5, 100))
    lr_codes: float = real(5e-2, 1e-6, 1.0, log=True, search=(1e-3, 2e-1))
    lr_exponent: float = real(5e-3, 1e-6, 1.0, log=True, search=(1e-4, 5e-2))
    first_sharpness: float = real(1.5, 1e-2, 100.0, log=True, search=(0.5, 4.0))
    last_sharpness: float = real(20.0, 1e-2, 100.0, log=True, search=(5.0, 50.0))
    lr_rounding: float = real(5e-2, 1e-6, 1.0, log=True, search=(5e-3, 2e-1))
    rounding_penalty: float = real(1.0, 0.0, 1000.0, log=True, search=(1e-2, 10.0))
    bias_correction: bool = flag(False)
