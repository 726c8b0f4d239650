"""The `neural-tangents` side of `benchmarks/kernels.py`, run by an interpreter that has it.

    JAX_ENABLE_X64=1 python neural_tangents_peer.py

Reads requests from standard input, one JSON object a line, and answers each with seconds of CPU and
of wall clock (compilation excluded), and a checksum of the result. Needs jax and neural-tangents
only: the newest neural-tangents, 0.6.5, does not run on the newest jax.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import neural_tangents as nt
import numpy as np
from neural_tangents import stax


def network(activation: str, depth: int, sw: float, sb: float) -> Any:
    """Kernel function of a fully connected network with `depth` hidden layers."""
    dense = {"W_std": sw**0.5, "b_std": sb**0.5, "parameterization": "ntk"}
    phi = {"relu": stax.Relu, "erf": stax.Erf}[activation]
    hidden = [layer for _ in range(depth) for layer in (stax.Dense(1, **dense), phi())]
    return stax.serial(*hidden, stax.Dense(1, **dense))[2]


def work(request: dict[str, Any]) -> Callable[[], Any]:
    """What is timed, compiled."""
    generator = np.random.RandomState(request["seed"])
    n, d = request["n"], request["d"]
    z = jax.numpy.asarray(generator.uniform(-1, 1, (n, d)))
    z_test = jax.numpy.asarray(generator.uniform(-1, 1, (request["test"], d)))
    y = jax.numpy.sin(3 * z[:, :1])
    kernel = network(request["activation"], request["depth"], request["sw"], request["sb"])
    kind = request["kind"]
    if request["part"] == "gram":
        gram = jax.jit(lambda z: kernel(z, None, kind))
        return lambda: jax.block_until_ready(gram(z))

    @jax.jit
    def posterior(z: Any, y: Any, z_test: Any) -> Any:
        predict = nt.predict.gradient_descent_mse_ensemble(
            kernel, z, y, diag_reg=request["noise"], diag_reg_absolute_scale=True
        )
        return predict(x_test=z_test, get=kind, compute_cov=True)

    def run() -> Any:
        found = jax.block_until_ready(posterior(z, y, z_test))
        return np.concatenate(
            [np.asarray(found.mean).ravel(), np.diag(np.asarray(found.covariance))]
        )

    return run


def main() -> None:
    """Answer requests until the input ends."""
    made: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = json.dumps({k: v for k, v in request.items() if k != "repeats"})
        if key not in made:
            made.clear()  # of one size at a time
            made[key] = work(request)
            made[key]()
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(request["repeats"]):
            result = made[key]()
        repeats = request["repeats"]
        answer = {
            "cpu": (time.process_time() - cpu) / repeats,
            "wall": (time.perf_counter() - wall) / repeats,
            "checksum": float(np.asarray(result, dtype=np.float64).sum()),
            "version": f"neural-tangents {nt.__version__}, jax {jax.__version__}",
        }
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
