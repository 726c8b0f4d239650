"""Tuning documented models: a campaign with sensible defaults, and what comes out of it.

    result = tune("pokebnn", "tuned", budget=40, workers=2)
    result.front                                 # the configurations worth having
    retrain("tuned/best.toml", "model")          # the network of one of them

`compare_tuning` sets tuned configurations beside random ones and the published default, over seeds.
"""

from studies.tuning.comparison import (
    ARMS,
    PUBLISHED,
    against_default,
    compare_tuning,
    markdown,
    progress,
    read_trials,
    scored,
    summarize_tuning,
)
from studies.tuning.configuration import Configuration, read_configuration
from studies.tuning.tune import Tuned, TuneSettings, retrain, tune

__all__ = [
    "ARMS", "PUBLISHED", "Configuration", "TuneSettings", "Tuned", "against_default",
    "compare_tuning", "markdown", "progress", "read_configuration", "read_trials", "retrain",
    "scored", "summarize_tuning", "tune",
]  # fmt: skip
