"""FBNet's 400 small architectures, all of them trained beforehand: a table to look up.

The points of `fbnet_architecture` at five epochs and else its default options, so that an
evaluation takes no time and what can be reached is known: every optimum and every hypervolume is
that of the whole table. The table that comes along holds a training of each architecture and is
made by

    python -m benchmarks.fbnet_table --output problems/documented/fbnet/architectures.csv

Where a table (`file`) holds several seeds, `problem(X)` observes one of them and
`problem(X, noise=False)` is their mean. With one seed the table has its luck: differences of a few
wrong images (of 359) would come out otherwise with another. Whether a search finds the best of the
table can be told exactly; whether that is the best architecture cannot.

Source: the space and the training are this project's, after Wu et al. 2019, FBNet, CVPR, arXiv
1812.03443; the images are the digits of scikit-learn.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import torch
from botorch.utils.multi_objective.hypervolume import Hypervolume
from botorch.utils.multi_objective.pareto import is_non_dominated
from torch import Tensor

from bo_surrogates.config import Config, choice, real, text, words
from bo_surrogates.errors import InputError, did_you_mean
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Space
from problems.base import Optimum, Problem
from problems.documented.fbnet.macro import small_space

EPOCHS = 5  # of every training
METRICS = {
    "error": Objective("error", reference=0.5),
    "table_latency": Objective("table_latency", reference=63.0),
}
PARTS = ("validation", "test")
OWN = Path(__file__).parent / "fbnet" / "architectures.csv"


@dataclass(frozen=True)
class FBNetTableConfig(Config):
    """Options of `fbnet_table`.

    Attributes:
        file: The table; the one that comes along if empty.
        objectives: What is minimized: "error", "table_latency" or both.
        table_latency_budget: Where given, what the latency must not exceed.
        part: Of the data, on which the error is measured: "validation" or "test".
    """

    file: str = text("")
    objectives: tuple[str, ...] | None = words(None)
    table_latency_budget: float | None = real(None, 1.0, math.inf, optional=True)
    part: str = choice("validation", PARTS)


class FBNetTable(Problem):
    """See the module's docstring.

    Parameters: `layer_1` to `layer_4`, the blocks' names. Metrics: `error`, the share of wrong
    images, and `table_latency`, thousands of MACs and one a layer.

    Args:
        config: See `FBNetTableConfig`.
        noise_std: Of Gaussian noise added to what is looked up; see `Problem`.
        negate: See `Problem`.

    Raises:
        InputError: The file is none or lacks architectures, an objective is unknown or has a
            budget, or no architecture keeps it.
    """

    config_class: ClassVar[type[Config]] = FBNetTableConfig
    config: FBNetTableConfig

    def __init__(
        self,
        config: FBNetTableConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        config = config or FBNetTableConfig()
        candidates = [layer.candidates for layer in small_space().layers]
        space = Space([Choice(f"layer_{i}", c) for i, c in enumerate(candidates, 1)])
        budget = config.table_latency_budget
        constraints = [] if budget is None else [OutcomeConstraint("table_latency", "<=", budget)]
        names = config.objectives or (("error", "table_latency") if budget is None else ("error",))
        for name in names:
            if name not in METRICS:
                raise InputError(f"unknown objective {name!r}{did_you_mean(name, METRICS)}")
        if budget is not None and "table_latency" in names:
            raise InputError("objective 'table_latency' has a budget already; leave out one")
        objectives = [METRICS[name] for name in names]
        table = _table(config.file, config.part)
        means = torch.stack([table[name].mean(dim=-1) for name in names], dim=-1)
        latencies = table["table_latency"][..., 0]
        allowed = torch.ones_like(latencies, dtype=torch.bool)
        if budget is not None:
            allowed = latencies <= budget
            if not allowed.any():
                raise InputError(
                    f"table_latency_budget = {budget:g}: the fastest architecture has "
                    f"{float(latencies.min()):g}"
                )
        super().__init__(
            space,
            objectives,
            constraints=constraints,
            config=config,
            optimum=_optimum(means[..., 0], allowed) if len(names) == 1 else None,
            max_hypervolume=_hypervolume(means, objectives) if len(names) > 1 else None,
            noise_std=noise_std,
            negate=negate,
        )

    def _table(self) -> dict[str, Tensor]:
        return _table(self.config.file, self.config.part)

    def _indices(self, X: Tensor) -> tuple[Tensor, ...]:
        return tuple(X.round().long().cpu().unbind(dim=-1))

    def _true_metrics(self, X: Tensor) -> Tensor:
        indices, table = self._indices(X), self._table()
        columns = [table[name][indices].mean(dim=-1) for name in self.metrics]
        return torch.stack(columns, dim=-1).to(X)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        """One of the trainings of every point, at random, and Gaussian noise if that is wanted."""
        indices, table = self._indices(X), self._table()
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        trainings = table["error"].shape[-1]
        drawn = torch.randint(trainings, X.shape[:-1], generator=generator)
        columns = [table[name][(*indices, drawn)] for name in self.metrics]
        return self._with_noise(torch.stack(columns, dim=-1), generator).to(X)


@lru_cache(maxsize=4)
def _table(file: str, part: str) -> dict[str, Tensor]:
    """By metric, one value for every block of every layer, and every training (last)."""
    candidates = [layer.candidates for layer in small_space().layers]
    made_by = "python -m benchmarks.fbnet_table makes it"
    path = Path(file).expanduser() if file else OWN
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        seeds = sorted({int(row["seed"]) for row in rows})
        shape = (*map(len, candidates), len(seeds))
        found = {name: torch.full(shape, math.nan, dtype=torch.float64) for name in METRICS}
        for row in rows:
            blocks = [c.index(row[f"layer_{i}"]) for i, c in enumerate(candidates, 1)]
            place = (*blocks, seeds.index(int(row["seed"])))
            found["error"][place] = float(row[f"{part}_error"])
            found["table_latency"][place] = float(row["table_latency"])
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; {made_by}") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no table of architectures ({error!r}); {made_by}") from error
    missing = int(found["error"].isnan().sum())
    if missing or not seeds:
        raise InputError(
            f"{path} lacks {missing or 'all'} trainings of 400 a seed; {made_by}, and goes "
            "on where it was stopped"
        )
    return found


def _optimum(values: Tensor, allowed: Tensor) -> Optimum:
    best = values[allowed].min()
    points = ((values == best) & allowed).nonzero().tolist()
    return Optimum(
        float(best), tuple(tuple(map(float, p)) for p in points), "all 400 architectures"
    )


def _hypervolume(values: Tensor, objectives: list[Objective]) -> float:
    flat = -values.reshape(-1, len(objectives))
    front = flat[is_non_dominated(flat)]
    references = torch.tensor([-float(o.reference or 0.0) for o in objectives], dtype=flat.dtype)
    return float(Hypervolume(references).compute(front))
