"""The registry of surrogates: importing this package registers the built-in ones."""

from bo_surrogates.surrogates import bandlimited as _bandlimited  # noqa: F401
from bo_surrogates.surrogates import dkl as _dkl  # noqa: F401
from bo_surrogates.surrogates import dkm as _dkm  # noqa: F401
from bo_surrogates.surrogates import ensemble as _ensemble  # noqa: F401
from bo_surrogates.surrogates import gp as _gp  # noqa: F401
from bo_surrogates.surrogates import hmc as _hmc  # noqa: F401
from bo_surrogates.surrogates import infinite_width as _infinite_width  # noqa: F401
from bo_surrogates.surrogates import laplace as _laplace  # noqa: F401
from bo_surrogates.surrogates import maximal_update as _maximal_update  # noqa: F401
from bo_surrogates.surrogates import mc_dropout as _mc_dropout  # noqa: F401
from bo_surrogates.surrogates import nngp_scale_mixture as _nngp_scale_mixture  # noqa: F401
from bo_surrogates.surrogates import rff as _rff  # noqa: F401
from bo_surrogates.surrogates import robust_gp as _robust_gp  # noqa: F401
from bo_surrogates.surrogates import saas as _saas  # noqa: F401
from bo_surrogates.surrogates import sghmc as _sghmc  # noqa: F401
from bo_surrogates.surrogates import sgld as _sgld  # noqa: F401
from bo_surrogates.surrogates import ssvi as _ssvi  # noqa: F401
from bo_surrogates.surrogates import student_t as _student_t  # noqa: F401
from bo_surrogates.surrogates import svgp as _svgp  # noqa: F401
from bo_surrogates.surrogates import tangent_kernel as _tangent_kernel  # noqa: F401
from bo_surrogates.surrogates import vbll as _vbll  # noqa: F401
from bo_surrogates.surrogates.base import (
    SURROGATES,
    Capabilities,
    FitDiagnostics,
    Surrogate,
    SurrogateEntry,
    TrainingData,
    load_surrogate,
)

__all__ = [
    "SURROGATES",
    "Capabilities",
    "FitDiagnostics",
    "Surrogate",
    "SurrogateEntry",
    "TrainingData",
    "load_surrogate",
]
