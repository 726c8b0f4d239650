"""Networks with one hidden layer of bandlimited random weights.

Model (outcomes standardized): y_ij = w_j . phi(x_i) + e_ij as in `random_features.py`, with hidden
units sigma(a . x - b) on inputs in [-1, 1]^d whose random a and b are confined to a bounded domain:
a uniform in a cube or a ball of bandwidth lambda (one, or one an input), b in [-lambda, lambda].
For sigma = "cos" the phases are uniform, and the limit of many units is a Gaussian process whose
kernel has no frequency beyond lambda: a product of sinc, or a Bessel function of the distance.

Such a network is a low-pass filter (Li et al. 2023, arXiv 2008.08427): what the ridgelet spectrum
of a function has outside of the domain cannot be represented, however many units there are. On the
torus that is exact: the error of the best fit is the energy of the Fourier coefficients beyond
lambda. On a compact domain, functions of bounded frequency are dense, but fitting what is beyond
takes output weights that a prior, or rounding, rules out. A bandwidth far too large leaves
the fit undetermined between the points.

Inference: lambda by the evidence, which has several maxima in it: L-BFGS-B from the best of 13
bandwidths, over more than five octaves about the prior's centre. The drawn a and b are multiples
of lambda by fixed random numbers, so that the evidence is smooth. The rest, and prediction, are as
in `random_features.py`.

The defaults were chosen on the four functions of `python -m benchmarks.calibration`, six seeds. By
negative log predictive density "tanh" in a ball was the best over all; "cos" in a ball was better
on the two smooth functions, and much worse across a gap in the data. A cube, and one bandwidth for
all inputs, were worse than a ball and a bandwidth each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bo_surrogates.config import Config, choice
from bo_surrogates.kernels.random_features import (
    BandlimitedFourierFeatures,
    BandlimitedNetworkFeatures,
    RandomFeatures,
)
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.random_features import RandomFeatureConfig, RandomFeatureSurrogate


@dataclass(frozen=True)
class BandlimitedConfig(RandomFeatureConfig):
    """Configuration of `bandlimited`.

    Attributes:
        activation: sigma: "cos", "tanh", "sigmoid" or "gaussian".
        domain: Of the weights: "cube" or "ball".
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "activation", "domain", "ard", "features", "ridge",
    )  # fmt: skip

    activation: str = choice("tanh", ("cos", "tanh", "sigmoid", "gaussian"))
    domain: str = choice("ball", ("cube", "ball"))


class BandlimitedNetwork(RandomFeatureSurrogate):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = BandlimitedConfig
    config: BandlimitedConfig
    grid: ClassVar[Sequence[float]] = tuple(0.5 * i - 3.0 for i in range(13))

    @classmethod
    def feature_map(cls, config: BandlimitedConfig) -> RandomFeatures:
        """See `RandomFeatureSurrogate.feature_map`."""
        if config.activation == "cos":
            return BandlimitedFourierFeatures(config.domain)
        return BandlimitedNetworkFeatures(config.activation, config.domain)


SURROGATES.register(
    SurrogateEntry(
        name="bandlimited",
        model_class=BandlimitedNetwork,
        summary="Network of random weights within a bandwidth that the evidence chooses",
        paper="Li et al. 2023, ICML, arXiv 2008.08427",
        capabilities=Capabilities(
            posterior="gaussian", exact_conditioning=True, max_n=50_000, max_d=100
        ),
    )
)
