"""Bayesian optimization on a registry of uncertainty-aware surrogates.

The names below are the public face; each is imported on first use, so that a command which needs
no torch does not wait for it.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "AcquisitionConfig": "bo_surrogates.acquisition.config",
    "Campaign": "bo_surrogates.campaign.campaign",
    "CampaignSpec": "bo_surrogates.campaign.spec",
    "Choice": "bo_surrogates.space",
    "Fixed": "bo_surrogates.space",
    "Float": "bo_surrogates.space",
    "InputError": "bo_surrogates.errors",
    "Int": "bo_surrogates.space",
    "LinearConstraint": "bo_surrogates.space",
    "Measurement": "bo_surrogates.campaign.trial",
    "Objective": "bo_surrogates.objective",
    "Ordered": "bo_surrogates.space",
    "OutcomeConstraint": "bo_surrogates.objective",
    "RunError": "bo_surrogates.errors",
    "SpaceExhausted": "bo_surrogates.errors",
    "SURROGATES": "bo_surrogates.surrogates",
    "Space": "bo_surrogates.space",
    "Trial": "bo_surrogates.campaign.trial",
    "load_surrogate": "bo_surrogates.surrogates",
    "propose": "bo_surrogates.loop",
    "run": "bo_surrogates.loop",
}

__all__ = [*sorted(_HOME), "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
