"""Kernels of infinitely wide networks: Gram matrices and predictions, against neural-tangents.

    python -m benchmarks.kernels --peer-python PATH --json FILE

For n random points of six inputs: the NNGP and the tangent Gram matrix, and the prediction of mean
and covariance at 100 points from n observations (of the Gaussian process with the NNGP kernel; of
networks trained to convergence, with the tangent kernel). Ours is in float64 throughout. Peers are
neural-tangents, jitted, in float64 and in float32, and BoTorch's `InfiniteWidthBNNKernel` (ReLU,
NNGP Gram matrices). All run on one core; rounds are interleaved and seconds are medians.
Compilation is not counted. Results are compared: a peer in float64 must agree to 1e-5.

neural-tangents may need another interpreter than this one, for it runs on old versions of jax only.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from botorch.models.kernels.infinite_width_bnn import InfiniteWidthBNNKernel
from rich.console import Console
from rich.table import Table

from bo_surrogates.kernels.infinite_width import NTKKernel
from bo_surrogates.kernels.recursion import gram
from bo_surrogates.surrogates.infinite_width import NNGP, NNGPConfig
from bo_surrogates.surrogates.tangent_kernel import NTK, NTKConfig

D, TEST, NOISE, SB = 6, 100, 1e-2, 0.1
WEIGHT_VARIANCE = {"relu": 2.0, "erf": 1.5}
PEER_SCRIPT = Path(__file__).with_name("neural_tangents_peer.py")
AGREEMENT = 1e-5


def ours(request: dict[str, Any]) -> Callable[[], float]:
    """What is timed of ours; returns a checksum."""
    generator = np.random.RandomState(request["seed"])
    z = torch.from_numpy(generator.uniform(-1, 1, (request["n"], D)))
    z_test = torch.from_numpy(generator.uniform(-1, 1, (TEST, D)))
    y = torch.sin(3 * z[:, :1])
    kind, depth, activation = request["kind"], request["depth"], request["activation"]
    kernel = NTKKernel(activation, depth, D, weight_variance=request["sw"]).double()
    if request["part"] == "gram":
        sb, one = torch.full((1, 1), SB).double(), torch.ones(1, 1).double()
        which = "nngp" if kind == "nngp" else "tangent"

        def matrix() -> torch.Tensor:
            with torch.no_grad():
                return gram(kernel.network, z, z, sb, one, kind=which)[0]  # type: ignore[arg-type]

        return lambda: matrix().sum().item()

    X, X_test = (z + 1) / 2, (z_test + 1) / 2
    fields = {"activation": activation, "depth": depth, "weight_variance": request["sw"]}
    config = NNGPConfig(**fields) if kind == "nngp" else NTKConfig(law="trained_network", **fields)
    model: Any = (NNGP if kind == "nngp" else NTK)(X, y, config=config, seed=0)
    v = 1.0 if kind == "nngp" else depth + 1.0  # the tangent kernel is divided by L + 1
    model.covar_module.initialize(log_output_variance=math.log(v), log_bias_variance=math.log(SB))
    model.likelihood.noise = NOISE
    model.mean_module.constant = 0.0
    model.eval()

    def predict() -> float:
        with torch.no_grad():
            model._clear_cache()
            found = model.posterior(X_test)
            covariance = found.distribution.covariance_matrix
            return (found.mean.sum() + covariance.diagonal().sum()).item()

    return predict


def botorch(request: dict[str, Any]) -> Callable[[], float]:
    """BoTorch's kernel, for Gram matrices of ReLU networks."""
    generator = np.random.RandomState(request["seed"])
    z = torch.from_numpy(generator.uniform(-1, 1, (request["n"], D)))
    kernel = InfiniteWidthBNNKernel(depth=request["depth"]).double()
    kernel.weight_var = torch.tensor(request["sw"], dtype=torch.float64)
    kernel.bias_var = torch.tensor(SB, dtype=torch.float64)

    def run() -> float:
        with torch.no_grad():
            return kernel(z).to_dense().sum().item()

    return run


def timed(run: Callable[[], float], repeats: int) -> dict[str, float]:
    """CPU and wall-clock seconds of one call, and its checksum."""
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(repeats):
        checksum = run()
    return {
        "cpu": (time.process_time() - cpu) / repeats,
        "wall": (time.perf_counter() - wall) / repeats,
        "checksum": checksum,
    }


class Peer:
    """neural-tangents in a process of its own.

    Args:
        python: An interpreter that has it.
        double: Whether in float64.
    """

    def __init__(self, python: str, double: bool) -> None:
        environment = {**os.environ, "JAX_ENABLE_X64": str(int(double)), "JAX_PLATFORMS": "cpu",
                       "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}  # fmt: skip
        self._process = subprocess.Popen(
            [python, str(PEER_SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time a request.

        Raises:
            RuntimeError: The peer ended, with the end of what it printed.
        """
        process = self._process
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise RuntimeError("the peer has no pipes")
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"neural-tangents failed: {process.stderr.read()[-600:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()


@contextmanager
def peers(python: str | None, precisions: list[int]) -> Iterator[dict[str, Peer]]:
    """neural-tangents in each precision; none without an interpreter."""
    if python is None:
        yield {}
        return
    made = {f"neural-tangents float{bits}": Peer(python, bits == 64) for bits in precisions}
    try:
        yield made
    finally:
        for peer in made.values():
            peer.close()


def compare(request: dict[str, Any], rounds: int, others: dict[str, Peer]) -> list[dict[str, Any]]:
    """Rows of one request: median seconds, and those of each peer over ours."""
    cases: dict[str, Callable[[], dict[str, Any]]] = {}
    repeats = request["repeats"]
    run = ours(request)
    cases["bo-surrogates"] = lambda: timed(run, repeats)
    for name, peer in others.items():
        cases[name] = lambda peer=peer: peer(request)  # type: ignore[misc]
    is_gram = (request["part"], request["kind"], request["activation"]) == ("gram", "nngp", "relu")
    if is_gram:
        theirs = botorch(request)
        cases["botorch"] = lambda: timed(theirs, repeats)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for number in range(-1, rounds):
        for name, case in cases.items():
            sample = case()
            if number >= 0:
                found[name].append(sample)
    own = found["bo-surrogates"]
    rows = []
    for name, samples in found.items():
        value, expected = samples[0]["checksum"], own[0]["checksum"]
        comparable = request["part"] == "gram" or "64" in name
        if "32" not in name and comparable and abs(value - expected) > AGREEMENT * abs(expected):
            # The peer's prediction is summed over all points, as ours is.
            raise RuntimeError(f"{name} disagrees: {value} instead of {expected} ({request})")
        rows.append({
            **{k: request[k] for k in ("part", "kind", "activation", "depth", "n")},
            "case": name, "rounds": rounds,
            **{clock: median(s[clock] for s in samples) for clock in ("cpu", "wall")},
            "ratio_cpu": median(s["cpu"] for s in samples) / median(s["cpu"] for s in own),
            "ratio_wall": median(s["wall"] for s in samples) / median(s["wall"] for s in own),
        })  # fmt: skip
    return rows


def report(rows: list[dict[str, Any]]) -> None:
    """One line a request: our seconds, and the peers' over ours (above 1: we are ahead)."""
    names = list(dict.fromkeys(r["case"] for r in rows if r["case"] != "bo-surrogates"))
    table = Table(title="CPU seconds, and peers' CPU seconds over ours", box=None)
    for column in ("part", "kernel", "activation", "depth", "n", "ours", *names):
        table.add_column(column, justify="right")
    by: dict[tuple[Any, ...], dict[str, dict[str, Any]]] = {}
    for r in rows:
        key = tuple(str(r[k]) for k in ("part", "kind", "activation", "depth", "n"))
        by.setdefault(key, {})[r["case"]] = r
    for key, cases in by.items():
        ratios = [f"{cases[n]['ratio_cpu']:.2f}" if n in cases else "" for n in names]
        table.add_row(*key, f"{cases['bo-surrogates']['cpu']:.4f}", *ratios)
    Console(width=120).print(table)


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=[100, 1000, 3000])
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 3, 10])
    parser.add_argument("--activations", nargs="+", default=["relu", "erf"])
    parser.add_argument("--parts", nargs="+", default=["gram", "posterior"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer-python", help="interpreter with neural-tangents; none: without it")
    parser.add_argument(
        "--precisions", type=int, nargs="+", choices=[64, 32], default=[64, 32], help="the peer's"
    )
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):  # the peer's threads, too, share one core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows: list[dict[str, Any]] = []
    with peers(options.peer_python, options.precisions) as others:
        for n in options.n:
            for activation in options.activations:
                for depth in options.depths:
                    for part in options.parts:
                        for kind in ("nngp", "ntk"):
                            request = {
                                "part": part, "kind": kind, "activation": activation,
                                "depth": depth, "n": n, "d": D, "test": TEST, "noise": NOISE,
                                "sw": WEIGHT_VARIANCE[activation], "sb": SB, "seed": 0,
                                "repeats": max(1, min(50, 500_000 // n**2)),
                            }  # fmt: skip
                            rows += compare(request, options.rounds, others)
                    print(f"n {n}, {activation}, depth {depth}", file=sys.stderr)
                    if options.json is not None:  # what is done stays, whatever ends the rest
                        options.json.write_text(json.dumps(rows, indent=1))
    report(rows)


if __name__ == "__main__":
    main()
