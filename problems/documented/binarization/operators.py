"""Binarization operators: what a layer does to its weights and inputs to make them +-1.

`OPERATORS` holds the eight of BiBench, BiPer and PokeBNN's as configurations, to be used as they
are or changed: `OPERATORS["fda"].replace(omega=0.2)`.

    operator  inputs, gradient               weights, gradient     scale of the output
    bnn       sgn, clip                      sgn, clip             none
    xnor      K sgn, clip (K: mean |x|)      sgn, clip             K m, outside the gradients
    dorefa    sgn, clip                      sgn, clip             m, outside the gradient
    bireal    sgn, poly                      sgn, clip             m, outside the gradient
    xnor++    sgn, clip                      sgn, clip             learnt, rank 1, from 1
    reactnet  sgn of x + shift, poly         sgn, clip             m, outside the gradient
    recu      sgn of x / its std, poly       sgn of rectified      learnt, from U(0, 1)
    fda       sgn, fourier                   sgn, fourier          m
    biper     sgn of x / its std, poly       sgn of a sine         learnt, from U(0, 1)
    poke      sgn, half_shift (B = 3)        sgn, half_shift       B/2 max|w|/2, outside

XNOR's linear layers, not its convolutions, take the mean out of every output's weights first.
m is the mean of |w| over an output channel, always detached: no gradient flows into it. "Outside
the gradient" is what the published layers do: the output carries the scale, the gradient to the
latent weights (and, for K, to the inputs) does not; `scale_in_gradient` lets it. K is the mean of
|x| over a sample.

Source: Qin et al. 2023, BiBench, ICML, arXiv 2301.11233; Vargas et al. 2024, BiPer, CVPR, arXiv
2404.01278; Zhang et al. 2022, PokeBNN, CVPR, arXiv 2112.00133.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bo_surrogates.config import Config, choice, flag, integer, real
from bo_surrogates.errors import InputError, did_you_mean
from problems.documented.binarization.estimators import (
    ESTIMATORS,
    Clip,
    Fourier,
    HalfShift,
    HalfShiftWeights,
    Identity,
    Poly,
    SignEstimator,
    Tanh,
)

WEIGHTS = ("sign", "rectified", "periodic")
WEIGHT_SCALES = ("none", "layer", "channel", "channel_graph", "half_max")
INPUT_SCALES = ("none", "sample", "map", "half_bound")
OUTPUT_SCALES = ("none", "channel", "rank1")


@dataclass(frozen=True)
class BinarizerConfig(Config):
    """How a layer binarizes.

    Attributes:
        input_estimator: Gradient of the inputs' sign, see `estimators`.
        weight_estimator: Gradient of the weights' sign; "rectified" and "periodic" weights do not
            use it.
        input_bound: B of "clip" and "half_shift" for the inputs.
        weight_bound: B of "clip" for the weights; that of "half_shift" is a channel's max |w|.
        weights: "sign" of the latent weights, of "rectified" (ReCU) or of "periodic" (BiPer) ones.
        weight_scale: "none", the mean |w| of the "layer" or of each output "channel", that with a
            gradient of its own ("channel_graph"), or half of the channel's max |w| ("half_max").
        centre: Whether a linear layer's latent weights are centred per output first (XNOR).
        scale_in_gradient: Whether weight and input scale multiply the gradient too.
        input_scale: "none", K ("sample"), the paper's spatial K ("map": the mean of |x| over
            channels, averaged over each window, convolutions only), or B/2 ("half_bound").
        output_scale: Learnt: "none", one a "channel", or also one a row and one a column ("rank1";
            these need the layer's `output_size`).
        output_scale_init: "ones", or "uniform" on (0, 1).
        shift: Whether a threshold per input channel is learnt, from 0.
        normalize: Whether inputs are divided by their standard deviation in a sample, in training.
        noise_adaptation: Whether a small network disturbs the signs early in training (FDA).
        omega: w of "fourier".
        first_terms: n of "fourier" in the first epoch.
        last_terms: What n tends to at the last.
        first_tau: Quantile of |w| at which "rectified" weights are clipped, in the first epoch.
        last_tau: What it tends to at the last.
        frequency: Of "periodic" weights, in radians per unit of weight.
    """

    input_estimator: str = choice("clip", ESTIMATORS)
    weight_estimator: str = choice("clip", ESTIMATORS)
    input_bound: float = real(1.0, 1e-3, 1e3, log=True, search=(0.3, 5.0))
    weight_bound: float = real(1.0, 1e-3, 1e3, log=True, search=(0.3, 5.0))
    weights: str = choice("sign", WEIGHTS)
    weight_scale: str = choice("none", WEIGHT_SCALES)
    centre: bool = flag(False)
    scale_in_gradient: bool = flag(False)
    input_scale: str = choice("none", INPUT_SCALES)
    output_scale: str = choice("none", OUTPUT_SCALES)
    output_scale_init: str = choice("ones", ("ones", "uniform"))
    shift: bool = flag(False)
    normalize: bool = flag(False)
    noise_adaptation: bool = flag(False)
    omega: float = real(0.1, 1e-3, 10.0, log=True, search=(0.02, 0.5))
    first_terms: int = integer(9, 0, 1000, search=(3, 15))
    last_terms: int = integer(18, 0, 1000, search=(5, 30))
    first_tau: float = real(0.85, 0.5, 0.999_999, search=(0.6, 0.95))
    last_tau: float = real(0.99, 0.5, 0.999_999, search=(0.9, 0.999))
    frequency: float = real(20.0, 1e-3, 1e6, log=True, search=(1.0, 100.0))


OPERATORS: Mapping[str, BinarizerConfig] = MappingProxyType(
    {
        "bnn": BinarizerConfig(),
        "xnor": BinarizerConfig(weight_scale="channel", input_scale="sample", centre=True),
        "dorefa": BinarizerConfig(weight_scale="channel"),
        "bireal": BinarizerConfig(input_estimator="poly", weight_scale="channel"),
        "xnor++": BinarizerConfig(output_scale="rank1"),
        "reactnet": BinarizerConfig(input_estimator="poly", weight_scale="channel", shift=True),
        "recu": BinarizerConfig(
            input_estimator="poly",
            weights="rectified",
            output_scale="channel",
            output_scale_init="uniform",
            normalize=True,
        ),
        "fda": BinarizerConfig(
            input_estimator="fourier",
            weight_estimator="fourier",
            weight_scale="channel",
            scale_in_gradient=True,
            noise_adaptation=True,
        ),
        "biper": BinarizerConfig(
            input_estimator="poly",
            weights="periodic",
            output_scale="channel",
            output_scale_init="uniform",
            normalize=True,
        ),
        "poke": BinarizerConfig(
            input_estimator="half_shift",
            weight_estimator="half_shift",
            input_bound=3.0,
            weight_scale="half_max",
            input_scale="half_bound",
        ),
    }
)
"""The published operators by name."""

BIBENCH = ("bnn", "xnor", "dorefa", "bireal", "xnor++", "reactnet", "recu", "fda")
"""Those that BiBench compares."""


def operator_config(operator: str | BinarizerConfig) -> BinarizerConfig:
    """A published operator by its name; a configuration as it is.

    Raises:
        InputError: There is no such operator.
    """
    if isinstance(operator, BinarizerConfig):
        return operator
    if operator not in OPERATORS:
        raise InputError(
            f"unknown binarization operator {operator!r}{did_you_mean(operator, OPERATORS)}"
        )
    return OPERATORS[operator]


def make_input_estimator(config: BinarizerConfig) -> SignEstimator:
    """The sign of the inputs, with its gradient."""
    if config.input_estimator == "half_shift":
        return HalfShift(config.input_bound)
    return _make_estimator(config.input_estimator, config.input_bound, config)


def make_weight_estimator(config: BinarizerConfig) -> SignEstimator:
    """The sign of the weights, with its gradient."""
    if config.weight_estimator == "half_shift":
        return HalfShiftWeights()
    return _make_estimator(config.weight_estimator, config.weight_bound, config)


def _make_estimator(name: str, bound: float, config: BinarizerConfig) -> SignEstimator:
    match name:
        case "clip":
            return Clip(bound)
        case "poly":
            return Poly()
        case "fourier":
            return Fourier(config.omega, config.first_terms, config.last_terms)
        case "tanh":
            return Tanh()
    return Identity()
