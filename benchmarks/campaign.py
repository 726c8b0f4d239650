"""What a campaign costs beside fit, acquisition and evaluation: the framework, iteration by
iteration.

    OMP_NUM_THREADS=1 python -m benchmarks.campaign
    OMP_NUM_THREADS=1 python -m benchmarks.campaign --n 1000 --batch 1 --database sqlite --profile

A campaign on the 6-dimensional unit cube holds n results; a few iterations (ask a batch, tell each
result) are timed with a surrogate that costs next to nothing, and what its fits and the acquisition
take is subtracted: Ax's experiment and transforms, the predictions at the points proposed and the
journal remain. "first ask" opens the campaign and rebuilds everything from the journal, as after a
resume. PostgreSQL runs on this machine, its own CPU time is not counted.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import math
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Self
from unittest.mock import patch

import torch
from botorch.posteriors.gpytorch import GPyTorchPosterior
from gpytorch.distributions import MultivariateNormal
from torch import Tensor

from benchmarks.postgresql_server import PostgreSQLServer
from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign import ax_bridge
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.config import Config
from bo_surrogates.design import sobol_design
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from bo_surrogates.surrogates import SURROGATES, Capabilities, Surrogate, SurrogateEntry
from bo_surrogates.surrogates.base import FitDiagnostics, FunctionSamples

D = 6
SPACE = Space([Float(f"p{i}", 0.0, 1.0) for i in range(D)])


class Wave(Surrogate):
    """A random plane wave with unit variance: no fit, and a prediction whose cost is constant."""

    config_class = Config
    k: Tensor

    def __init__(
        self,
        train_X: Tensor,
        train_Y: Tensor,
        train_Yvar: Tensor | None = None,
        input_transform: Any = None,
        outcome_transform: Any = None,
        *,
        config: Config | None = None,
        seed: int | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed or 0
        generator = torch.Generator().manual_seed(self.seed % 2**31)
        self.register_buffer("k", torch.randn(train_X.shape[-1], generator=generator).double())

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    def fit(self, warm_start: Surrogate | None = None) -> Self:
        """Nothing."""
        self.diagnostics = FitDiagnostics(True)
        return self

    def posterior(self, X: Tensor, *args: Any, **kwargs: Any) -> GPyTorchPosterior:
        """Independent points."""
        mean = torch.sin(4 * (X @ self.k))
        covariance = torch.eye(X.shape[-2], dtype=X.dtype).expand(*X.shape[:-1], X.shape[-2])
        return GPyTorchPosterior(MultivariateNormal(mean, covariance))

    def sample_functions(self, k: int, seed: int | None = None) -> FunctionSamples:
        """Not for Thompson sampling."""
        raise NotImplementedError


def specification(batch: int) -> CampaignSpec:
    """The campaign that is timed."""
    return CampaignSpec(
        name=f"batches of {batch}",
        space=SPACE,
        objectives=(Objective("y"),),
        surrogate=Wave.__name__.lower(),
        acquisition=AcquisitionConfig(mc_samples=8, num_restarts=1, raw_samples=2, maxiter=1),
        budget=10**6,
        initial=1,
        batch_size=batch,
    )


def value(parameters: Any) -> float:
    """A result."""
    return math.fsum(math.sin(5 * x) for x in parameters.values())


def fill(campaign: Campaign, n: int) -> None:
    """Record n results."""
    trials = [
        Trial(i, SPACE.decode(x), "running", "sobol")
        for i, x in enumerate(sobol_design(SPACE, n, seed=0))
    ]
    journal = campaign.journal
    journal.add_trials(campaign._id, trials)
    for trial in trials:
        journal.finish_trial(
            campaign._id, trial.index, measurements={"y": Measurement(value(trial.parameters))}
        )


class Stopwatch:
    """CPU seconds spent in the functions that it watches."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def watch(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, watched."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            self._depth += 1
            start = time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.seconds += time.process_time() - start

        return watched


@contextmanager
def subtracted() -> Iterator[Stopwatch]:
    """Watch fit and acquisition."""
    watch = Stopwatch()
    with ExitStack() as stack:
        for name in ("fit", "make_acquisition", "maximize_by_cost"):
            replacement = watch.watch(getattr(ax_bridge, name))
            stack.enter_context(patch.object(ax_bridge, name, replacement))
        yield watch


def iterate(campaign: Campaign, batch: int, watch: Stopwatch) -> tuple[float, float]:
    """One iteration; CPU seconds of the framework, and wall-clock seconds of everything."""
    before = watch.seconds
    cpu, wall = time.process_time(), time.perf_counter()
    for trial in campaign.ask(batch):
        campaign.tell(trial.index, {"y": value(trial.parameters)})
    return time.process_time() - cpu - (watch.seconds - before), time.perf_counter() - wall


def measure(database: str, n: int, batch: int, rounds: int, profile: bool) -> dict[str, Any]:
    """Time the iterations of a campaign that holds n results."""
    spec = specification(batch)
    with Campaign.create(spec, database) as campaign:
        fill(campaign, n)
    profiler = cProfile.Profile()
    with subtracted() as watch, Campaign.open(database) as campaign:
        first, _ = iterate(campaign, batch, watch)
        if profile:
            profiler.enable()
        times = [iterate(campaign, batch, watch) for _ in range(rounds)]
        profiler.disable()
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)
    return {
        "n": n,
        "batch": batch,
        "first": first,
        "cpu": median(cpu for cpu, _ in times),
        "wall": median(wall for _, wall in times),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, nargs="+", default=[10, 100, 500, 1000])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--database", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if "wave" not in SURROGATES:
        SURROGATES.register(
            SurrogateEntry("wave", Wave, "for timing", "none", Capabilities(posterior="gaussian"))
        )
    rows = []
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        server = (
            stack.enter_context(PostgreSQLServer()) if "postgresql" in options.database else None
        )
        with Campaign.create(specification(1), f"{folder}/warm-up.db") as campaign:
            for _ in range(3):
                iterate(campaign, 1, Stopwatch())
        print(
            f"{'database':>10} {'batch':>5} {'n':>5} {'CPU ms':>7} {'wall ms':>8} "
            f"{'first ask ms':>12}"
        )
        for kind in options.database:
            for batch in options.batch:
                for n in options.n:
                    name = f"c{n}-{batch}"
                    where = (
                        server.create(name)
                        if kind == "postgresql" and server
                        else f"{folder}/{name}.db"
                    )
                    row = measure(where, n, batch, options.rounds, options.profile)
                    rows.append({"database": kind, **row})
                    print(
                        f"{kind:>10} {batch:>5} {n:>5} {row['cpu'] * 1e3:7.1f} "
                        f"{row['wall'] * 1e3:8.1f} {row['first'] * 1e3:12.0f}",
                        flush=True,
                    )
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
