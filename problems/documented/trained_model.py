"""A tuned network on disk: a folder with its weights and how to build what they fit into.

    save_model(folder, "pokebnn", {"epochs": 20}, values, network)
    network = load_model(folder)                 # in evaluation mode

The folder holds `model.safetensors` and `model.json`; neither is a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.space import Values
from problems import PROBLEMS
from problems.documented.model_files import load_weights, save_network
from problems.documented.tuning_problem import TuningProblem

FORMAT = 1
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"


@dataclass(frozen=True)
class ModelDescription:
    """How a saved network is built.

    Attributes:
        problem: The tuning problem's registered name.
        options: Its options.
        parameters: The point.
        details: What was found in training; see `TuningProblem.details`.
        seed: Of the training.
        scores: By part of the data ("validation", "test") and metric.
    """

    problem: str
    options: Mapping[str, Any]
    parameters: Values
    details: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    scores: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def tuning_problem(name: str, options: Mapping[str, Any]) -> TuningProblem:
    """The registered tuning problem of that name.

    Raises:
        InputError: Unknown, no tuning problem, or a bad option.
    """
    problem = PROBLEMS[name].make(**options)
    if not isinstance(problem, TuningProblem):
        raise InputError(
            f"problem {name!r} trains no network; to tune one, name one of "
            f"{', '.join(tuning_problems())}. Other problems are run by a campaign file"
        )
    return problem


def tuning_problems() -> list[str]:
    """The registered tuning problems' names."""
    tagged = [n for n, e in PROBLEMS.items() if "documented" in e.tags]
    return [n for n in tagged if issubclass(PROBLEMS[n].problem_class, TuningProblem)]


def save_model(folder: Path, network: nn.Module, description: ModelDescription) -> None:
    """Write a trained network; whoever reads it sees the old one or the new one.

    Raises:
        RunError: It cannot be written.
    """
    facts = {"format": FORMAT, "torch": torch.__version__, **vars(description)}
    save_network(folder / WEIGHTS, network, facts)
    try:
        (folder / DESCRIPTION).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"{folder / DESCRIPTION}: cannot be written: {error}") from error


def load_model(folder: str | Path) -> nn.Module:
    """The network that `save_model` has written, on the CPU and in evaluation mode.

    Raises:
        InputError: There is none, or it does not fit what is installed.
    """
    network = build(read_description(folder))
    load_weights(Path(folder) / WEIGHTS, network)
    return network


def read_description(folder: str | Path) -> ModelDescription:
    """How the network in a folder is built.

    Raises:
        InputError: There is no description, or one that cannot be read.
    """
    path = Path(folder) / DESCRIPTION
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise InputError(f"{path}: format {facts['format']}, expected {FORMAT}")
        names = ("problem", "options", "parameters", "details", "seed", "scores")
        return ModelDescription(**{name: facts[name] for name in names})
    except FileNotFoundError:
        raise InputError(f"no model in {str(folder)!r}: there is no {DESCRIPTION}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not the description of a model: {error}") from error


def build(description: ModelDescription) -> nn.Module:
    """The untrained network of a description."""
    problem = tuning_problem(description.problem, description.options)
    values = problem.space.validate(description.parameters)
    with fixed_seed(0):
        return problem.rebuild(values, description.details)
