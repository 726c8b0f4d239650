"""`vbll` beside BoTorch's `VBLLModel`: predictive scores and seconds.

    OMP_NUM_THREADS=1 python -m benchmarks.vbll --seeds 4 --epochs 1000 10000

The data and the scores are those of `benchmarks.calibration`. The peer, `VBLLModel` of
`botorch_community`, is given inputs in the unit cube, standardized outcomes, three hidden layers of
128 units, a full covariance and its own optimizer settings (10 000 epochs at most, stopped when the
loss has not improved for 100); it is also shown with fewer epochs. Its variance is that of an
observation.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

import pandas as pd
import torch
from botorch_community.models.vblls import VBLLModel
from torch import Tensor
from torch.distributions import Normal

from benchmarks.calibration import FUNCTIONS, Data, report, summarize
from bo_surrogates.analysis.predictive_scores import score
from bo_surrogates.seeding import fixed_seed
from bo_surrogates.surrogates import SURROGATES

OURS = "vbll"


class Peer:
    """The peer with the three methods that `score` asks of a model."""

    def __init__(self, data: Data, epochs: int, seed: int) -> None:
        self.low, self.high = data.bounds
        self.mean, self.std = data.Y.mean(), data.Y.std()
        with fixed_seed(seed):
            self.model = VBLLModel(
                in_features=data.X.shape[-1], hidden_features=128, num_layers=2, out_features=1,
                device=torch.device("cpu"),
            )  # fmt: skip
            self.model.fit(
                (data.X - self.low) / (self.high - self.low),
                (data.Y - self.mean) / self.std,
                optimization_settings={"num_epochs": epochs},
            )

    def posterior(self, X: Tensor, observation_noise: bool = True) -> Normal:
        """Predictive distribution of observations, `batch_shape x q x 1`, point by point."""
        flat = ((X - self.low) / (self.high - self.low)).reshape(-1, X.shape[-1])
        with torch.no_grad():
            predictive = self.model(flat)
        shape = (*X.shape[:-1], 1)
        mean, stddev = predictive.mean.reshape(shape), predictive.stddev.reshape(shape)
        return Normal(self.mean + self.std * mean, self.std * stddev)

    def quantile(self, X: Tensor, levels: Tensor, observation_noise: bool = True) -> Tensor:
        """`k x n x 1` quantiles."""
        return torch.stack([self.posterior(X).icdf(level) for level in levels.to(X)])

    def log_predictive_density(self, X: Tensor, Y: Tensor) -> Tensor:
        """`n x 1` log densities."""
        return self.posterior(X).log_prob(Y)


def measure(model: str, function: str, seed: int, epochs: int) -> dict[str, Any]:
    """Fit one model to one data set, and score it."""
    data = FUNCTIONS[function](seed)
    start = time.process_time()
    fitted: Any
    if model == OURS:
        fitted = SURROGATES["vbll"].build(data.X, data.Y, bounds=data.bounds, seed=seed)
    else:
        fitted = Peer(data, epochs, seed)
    seconds = time.process_time() - start
    return {
        "surrogate": model, "function": function, "seed": seed,
        **asdict(score(fitted, data.X_test, data.Y_test)), "fit_seconds": seconds, "failed": False,
    }  # fmt: skip


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--functions", nargs="+", default=list(FUNCTIONS), choices=list(FUNCTIONS))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--epochs", type=int, nargs="+", default=[1000, 10_000])
    options = parser.parse_args()
    torch.set_num_threads(1)
    models = {OURS: 0} | {f"VBLLModel, {e} epochs": e for e in options.epochs}
    rows = [
        measure(model, function, seed, epochs)
        for function in options.functions
        for seed in range(options.seeds)
        for model, epochs in models.items()
    ]
    report(summarize(pd.DataFrame(rows)))


if __name__ == "__main__":
    main()
