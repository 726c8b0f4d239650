"""The comparison of samplers: rates and ratios are what they are called."""

from __future__ import annotations

import pytest
import torch

from benchmarks.hmc import summarize, targets
from benchmarks.hmc_engines import modes, ours, target


def run(engine: str, ess: float, cpu: float, warmup: float = 1.0) -> dict[str, object]:
    return {
        "engine": engine, "draws": [4, 10], "ess": ess, "ess_min": ess / 2, "r_hat": 1.0,
        "warmup_cpu": warmup, "sampling_cpu": cpu, "warmup_wall": 1.0, "sampling_wall": 1.0,
        "peak_rss_mb": 1.0,
    }  # fmt: skip


def test_rates_are_medians_of_ess_by_seconds_and_targets_their_ratios() -> None:
    runs = [run("ours", 100.0, cpu) for cpu in (1.0, 2.0, 4.0)] + [run("Pyro NUTS", 1.0, 10.0)]
    rows = summarize(runs)
    assert rows[0]["rate"] == pytest.approx(50.0)
    assert rows[0]["rate_min"] == pytest.approx(25.0)
    assert rows[0]["rate_all"] == pytest.approx(100 / 3)
    assert (rows[0]["rate_low"], rows[0]["rate_high"]) == (25.0, 100.0)
    (ratio,) = targets(rows)
    assert (ratio["peer"], ratio["sampling"]) == ("Pyro NUTS", pytest.approx(500.0))
    assert ratio["all"] == pytest.approx(100 / 3 * 11)
    assert targets(rows[1:]) == []


def test_starts_are_near_modes_where_the_noise_is_given() -> None:
    goal = target(5, 4, torch.float64)
    start = modes(goal.posterior, 3, seed=0, noise=0.5)
    assert (start[:, -1].exp().sqrt() - 0.5).abs().max() < 1e-9
    drawn = torch.randn(3, goal.posterior.num_parameters, dtype=torch.float64)
    prior = drawn * goal.posterior.scales
    prior[:, -1] = start[:, -1]
    assert goal.posterior(start)[0].min() > goal.posterior(prior)[0].max()


@pytest.mark.parametrize("integrated", [True, False])
def test_our_engine_returns_predictions_of_every_chain(integrated: bool) -> None:
    work = ours(0, n=3, width=2, integrated=integrated)
    assert work.predictions.shape == (16, 200, 50)
    assert all(seconds > 0 for seconds in (*work.cpu, *work.wall))
