"""Tuning documented models: a campaign with sensible defaults, and what comes out of it.

    result = tune("pokebnn", "tuned", budget=40, workers=2)
    result.front                                 # the configurations worth having
    retrain("tuned/best.toml", "model")          # the network of one of them

`compare_tuning` sets tuned configurations beside random ones and the published default, over seeds.
"""

from studies.tuning.comparison import compare_tuning, scored, summarize_tuning, write_tables
from studies.tuning.configuration import Configuration, read_configuration
from studies.tuning.tune import Tuned, TuneSettings, retrain, tune

__all__ = [
    "Configuration", "TuneSettings", "Tuned", "compare_tuning", "read_configuration", "retrain",
    "scored",
    "summarize_tuning", "tune", "write_tables",
]  # fmt: skip
