"""BiBench's scores of a binarization operator, each a quadratic mean of ratios to full precision.

1 is parity with the full-precision twin. Runs of the binary network and of the twin are given in
the same order: what is averaged over them are the ratios of one to the other.

Source: Qin et al. 2023, BiBench, ICML, arXiv 2301.11233, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

from bo_surrogates.errors import InputError
from problems.documented.cost import NetworkCost


def quadratic_mean(ratios: Sequence[float]) -> float:
    """The root of the mean of the squares.

    Raises:
        InputError: There is none.
    """
    if not ratios:
        raise InputError("a score needs at least one ratio")
    return math.sqrt(fmean(ratio**2 for ratio in ratios))


def accuracy_score(binary: Sequence[Sequence[float]], full: Sequence[Sequence[float]]) -> float:
    """OM of tasks, or of architectures: binary accuracy by full-precision accuracy.

    Args:
        binary: By task (or kind of architecture), the accuracies of its runs.
        full: Of the twins, in the same order.
    """
    return quadratic_mean([_ratio(b, f) for b, f in zip(binary, full, strict=True)])


def robustness_score(binary: Sequence[Sequence[float]], full: Sequence[Sequence[float]]) -> float:
    """OM of robustness: full-precision generalization gap by binary gap.

    Args:
        binary: By corruption, accuracy on clean less accuracy on corrupted inputs, by run.
        full: Of the twins, in the same order.
    """
    return quadratic_mean([_ratio(f, b) for b, f in zip(binary, full, strict=True)])


def training_score(
    binary_seconds: Sequence[float],
    full_seconds: Sequence[float],
    binary_accuracy: Sequence[float],
    full_accuracy: Sequence[float],
) -> float:
    """OM of training: its duration, and how much accuracy depends on the hyper-parameters.

    Args:
        binary_seconds: Of trainings.
        full_seconds: Of the twins'.
        binary_accuracy: Of one network at several settings of its hyper-parameters.
        full_accuracy: Of the twin at the same settings.
    """
    spread = pstdev(full_accuracy) / pstdev(binary_accuracy)
    return quadratic_mean([_ratio(full_seconds, binary_seconds), spread])


@dataclass(frozen=True)
class Compression:
    """What binarization saves in theory.

    Attributes:
        speed: r_c, MACs of the twin by OPs.
        storage: r_s, bits of the twin's parameters by the binary network's.
    """

    speed: float
    storage: float

    @property
    def score(self) -> float:
        """OM of theoretical complexity."""
        return quadratic_mean([self.speed, self.storage])


def compression(cost: NetworkCost) -> Compression:
    """Of a network against its twin with the same MACs, stored in 32 bits a parameter."""
    return Compression(cost.total_macs / cost.ops, 32 * cost.parameters / cost.bits)


def inference_score(
    binary_seconds: Sequence[float],
    full_seconds: Sequence[float],
    binary_bits: float,
    full_bits: float,
) -> float:
    """OM of inference, measured: duration and size."""
    return quadratic_mean([_ratio(full_seconds, binary_seconds), full_bits / binary_bits])


def _ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return fmean(a / b for a, b in zip(above, below, strict=True))
