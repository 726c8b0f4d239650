"""Hamiltonian Monte Carlo on a Bayesian network's posterior: `hmc`'s sampler beside its peers.

    OMP_NUM_THREADS=1 python -m benchmarks.hmc --rounds 3
    OMP_NUM_THREADS=1 python -m benchmarks.hmc --reliability 20
    OMP_NUM_THREADS=1 python -m benchmarks.hmc --rounding
    python -m benchmarks.hmc --refit 7

The posterior (`hmc_engines.py`): Hartmann-6 at n uniform points, a network of two tanh layers with
gain 2 and noise of standard deviation about 0.05. The figure is the bulk effective sample size of
predictions at 50 held-out points, the median over points, a CPU-second. Each run is a process of
its own with one thread; engines take turns. Peers: `pip install -e '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.hmc_engines import ENGINES, PACKAGES, figures, hartmann, held_out, modes, target
from bo_surrogates.errors import FitWarning
from bo_surrogates.inference.hmc import init, leapfrog
from bo_surrogates.surrogates import SURROGATES, Surrogate

TARGETS = {"NumPyro NUTS": 40.0, "BlackJAX ChEES": 3.0, "Pyro NUTS": 1000.0}
# The benchmark's posterior as a configuration; budgets are given where it is used.
POSTERIOR: dict[str, Any] = {
    "prior": "per-layer", "layer_scales": (2.0,) * 3, "bias_scales": (1.0,) * 3,
    "log_noise_mean": -5.991465, "log_noise_std": 0.2, "max_r_hat": 100.0, "min_ess": 0.0,
}  # fmt: skip
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false",
    "JAX_PLATFORMS": "cpu",
}


def measure(engine: str, seed: int, n: int, width: int) -> dict[str, Any]:
    """`hmc_engines.figures` in a process of its own, on one core where the system can say so."""
    program = (
        "import json, os, sys; cores = getattr(os, 'sched_getaffinity', lambda p: [])(0)\n"
        "if cores: os.sched_setaffinity(0, {max(cores)})\n"
        "from benchmarks.hmc_engines import figures\n"
        "a = json.loads(sys.argv[1]); print(json.dumps(figures(*a)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([engine, seed, n, width])],
        env=os.environ | ONE_THREAD, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"benchmarks.hmc: {engine} failed:\n{done.stderr[-3000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def summarize(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Medians by engine, in the order of the first runs; rates are medians of the runs' rates."""
    rows = []
    for engine in dict.fromkeys(run["engine"] for run in runs):
        group = [run for run in runs if run["engine"] == engine]
        sampling = [run["ess"] / run["sampling_cpu"] for run in group]
        rows.append({
            "engine": engine, "runs": len(group), "draws": group[0]["draws"],
            "ess": median(run["ess"] for run in group),
            "ess_min": median(run["ess_min"] for run in group),
            "r_hat": max(run["r_hat"] for run in group),
            "rate": median(sampling), "rate_low": min(sampling), "rate_high": max(sampling),
            "rate_min": median(run["ess_min"] / run["sampling_cpu"] for run in group),
            "rate_all": median(
                run["ess"] / (run["warmup_cpu"] + run["sampling_cpu"]) for run in group
            ),
            "wall": median(run["warmup_wall"] + run["sampling_wall"] for run in group),
            "peak_rss_mb": median(run["peak_rss_mb"] for run in group),
        })  # fmt: skip
    return rows


def targets(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Our rate by each peer's, sampling only and with the warm-up, beside what was aimed at."""
    by_name = {row["engine"]: row for row in rows}
    own = by_name.get("ours")
    return [
        {"peer": peer, "aim": aim, "sampling": own["rate"] / by_name[peer]["rate"],
         "all": own["rate_all"] / by_name[peer]["rate_all"]}
        for peer, aim in TARGETS.items() if own is not None and peer in by_name
    ]  # fmt: skip


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table, names to the left and figures to the right."""
    table = Table(title=title, box=None, header_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(str, row))
    Console(width=140).print(table)


def compare(rounds: int, n: int, width: int, engines: Sequence[str]) -> dict[str, Any]:
    """The engines side by side. Pyro, a hundred times slower than the next, runs once."""
    missing = [e for e in engines if e in PACKAGES and find_spec(PACKAGES[e]) is None]
    for engine in missing:
        print(f"{engine}: left out, the package {PACKAGES[engine]} is not installed")
    runs = [
        measure(engine, number, n, width)
        for number in range(rounds)
        for engine in engines
        if engine not in missing and not (engine == "Pyro NUTS" and number)
    ]
    rows = summarize(runs)
    show(
        f"Effective sample size of predictions, n = {n}, width {width}",
        ("engine", "chains x draws", "ESS", "least", "R-hat", "ESS / CPU s", "range", "least / s",
         "with warm-up", "wall s", "peak MB"),
        [
            (r["engine"], "x".join(map(str, r["draws"])), f"{r['ess']:.0f}", f"{r['ess_min']:.0f}",
             f"{r['r_hat']:.3f}", f"{r['rate']:.3g}", f"{r['rate_low']:.3g}-{r['rate_high']:.3g}",
             f"{r['rate_min']:.3g}", f"{r['rate_all']:.3g}", f"{r['wall']:.1f}",
             f"{r['peak_rss_mb']:.0f}")
            for r in rows
        ],
    )  # fmt: skip
    aims = targets(rows)
    show(
        "Ours by a peer's ESS a CPU-second",
        ("peer", "aim", "sampling", "with warm-up", ""),
        [
            (a["peer"], f"{a['aim']:g}", f"{a['sampling']:.3g}", f"{a['all']:.3g}",
             "met" if a["sampling"] >= a["aim"] else
             f"missed by a factor of {a['aim'] / a['sampling']:.2g}")
            for a in aims
        ],
    )  # fmt: skip
    return {"runs": runs, "rows": rows, "targets": aims, "missing": missing}


def reliability(seeds: int, n: int, width: int) -> dict[str, Any]:
    """Largest R-hat over held-out points, seed by seed."""
    values = {
        engine: [figures(engine, seed, n, width)["r_hat"] for seed in range(seeds)]
        for engine in ("ours", "ours, output layer sampled")
    }
    show(
        f"Split R-hat of 50 predictions over {seeds} seeds, n = {n}, width {width}",
        ("engine", "below 1.05", "median", "largest"),
        [
            (e, f"{sum(x < 1.05 for x in v)} of {seeds}", f"{median(v):.3f}", f"{max(v):.3f}")
            for e, v in values.items()
        ],
    )
    return {"r_hat": values}


def refit(rounds: int, n: int, width: int) -> dict[str, Any]:
    """A fit with n points, and one more: 512 networks, started where the last chains ended."""
    X, Y = hartmann(n + 1)
    bounds = torch.tensor([[0.0] * 6, [1.0] * 6], dtype=torch.float64)
    points = held_out()
    few = POSTERIOR | {"width": width, "chains": 32, "samples": 16, "warmup": 20, "draws": 512}
    many = few | {"chains": 64, "samples": 400, "warmup": 300, "draws": 12_800}

    def build(n: int, config: dict[str, Any], seed: int, start: Surrogate | None) -> Any:
        return SURROGATES["hmc"].build(
            X[:n], Y[:n], bounds=bounds, config=config, seed=seed, warm_start=start
        )

    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FitWarning)
        reference = build(n + 1, many, 10**6, None).posterior(points)
        for seed in range(rounds):
            old = build(n, few | {"warmup": 200}, seed, None)
            for name, start in (("warm", old), ("cold", None)):
                wall, cpu = time.perf_counter(), time.process_time()
                model = build(n + 1, few, 10**5 + seed, start)
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
                error = (model.posterior(points).mean - reference.mean) / reference.variance.sqrt()
                rows.append({"start": name, "wall": wall, "cpu": cpu,
                             "error": error.square().mean().sqrt().item()})  # fmt: skip
    show(
        f"Refit with one more point, n = {n}, width {width}, {torch.get_num_threads()} threads",
        ("start", "wall ms", "CPU ms", "rms error of the mean / sd"),
        [
            (name, *(f"{scale * median(r[key] for r in rows if r['start'] == name):.3g}"
                     for key, scale in (("wall", 1e3), ("cpu", 1e3), ("error", 1.0))))
            for name in ("warm", "cold")
        ],
    )  # fmt: skip
    return {"refit": rows}


def rounding(n: int, width: int) -> dict[str, Any]:
    """What float32 changes in a trajectory's energy, beside the integrator's own error."""
    changes: dict[str, Any] = {}
    double = target(n, width, torch.float64).posterior
    q = modes(double, 64, 0)
    v = torch.randn(q.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        posterior = target(n, width, dtype).posterior
        state = init(q.to(dtype), posterior)
        trajectory = leapfrog(posterior, posterior.scales)
        end, last = trajectory(state, v.to(dtype), 0.005, 32)
        kinetic = [0.5 * w.double().square().sum(dim=-1) for w in (v.to(dtype), last)]
        changes[str(dtype)] = kinetic[1] - kinetic[0] - end.log_density + state.log_density
    difference = (changes["torch.float32"] - changes["torch.float64"]).abs().median().item()
    error = changes["torch.float64"].abs().median().item()
    print(
        f"n = {n}, width {width}: float32 moves the energy change of 32 leapfrog steps by "
        f"{difference:.2g} (median), the integrator's own error is {error:.2g}"
    )
    return {"rounding": difference, "integrator": error}


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, default=20, help="training points")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=0, help="of the comparison with peers")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--reliability", type=int, default=0, help="seeds")
    parser.add_argument("--refit", type=int, default=0, help="rounds of warm-started fits")
    parser.add_argument("--rounding", action="store_true", help="float32 against float64")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    n, width = arguments.n, arguments.width
    result: dict[str, Any] = {"n": n, "width": width}
    if arguments.refit:
        result |= refit(arguments.refit, n, width)
    if arguments.rounding:
        result |= rounding(n, width)
    if arguments.rounds:
        result |= compare(arguments.rounds, n, width, arguments.engines)
    if arguments.reliability:
        result |= reliability(arguments.reliability, n, width)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
