"""Student-t process: a Gaussian process that does not know the scale of its function.

Model (outcomes standardized): y | s2 ~ N(c, s2 (K + N)), s2 ~ InvGamma(v / 2, (v - 2) / 2), with K
a kernel of amplitude 1 and N the noise. Marginally the observations are multivariate t with v > 2
degrees of freedom and covariance K + N (Shah, Wilson & Ghahramani 2014, arXiv 1402.4306). With the
kernel "nngp" this is the limit of wide Bayesian neural networks whose last layer has a random scale
(Lee et al. 2022, arXiv 2107.01408); `nngp_t` has more of those.

Inference: maximum marginal likelihood, v by leave-one-out predictive density and a prior; see
`scale_mixture.py`.

Prediction: with r the data's quadratic form, the posterior is multivariate t with v + n degrees of
freedom, the location of the Gaussian process with the same parameters, and its covariance times
(v - 2 + r) / (v + n). Of m outputs that share their scale, n and r are sums.

Measured (`python -m benchmarks.scale_mixtures --seeds 8`, mean negative log predictive density and
coverage of 90 % intervals):

    few points or heavy-tailed noise        gp            tp
    sine, 7 points                       0.81 / 0.76   0.78 / 0.79
    Branin, 10 points                    1.09 / 0.69   0.86 / 0.71
    Hartmann-6, 20 points                3.54 / 0.75   2.04 / 0.76
    sine, 20 points, t noise             1.09 / 0.82   0.63 / 0.86
    Branin, 30 points, t noise           1.54 / 0.75   1.06 / 0.76
"""

from __future__ import annotations

from typing import ClassVar

from bo_surrogates.config import Config
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.scale_mixture import ScaleMixtureProcess
from bo_surrogates.surrogates.unit_scale_gp import StudentTGP, TPConfig, UnitScaleGP


class StudentTProcess(ScaleMixtureProcess):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = TPConfig
    gp_class: ClassVar[type[UnitScaleGP]] = StudentTGP


SURROGATES.register(
    SurrogateEntry(
        name="tp",
        model_class=StudentTProcess,
        summary="Student-t process: Gaussian process of unknown scale, heavier tails at small n",
        paper="Shah et al. 2014, arXiv 1402.4306; Lee et al. 2022, arXiv 2107.01408",
        capabilities=Capabilities(posterior="student-t", exact_conditioning=True),
    )
)
