"""Gradients per CPU second of the posteriors of small networks: compiled, torch by hand, autograd.

    OMP_NUM_THREADS=1 python -m benchmarks.gradients
    OMP_NUM_THREADS=1 python -m benchmarks.gradients --adam

16 networks of two hidden tanh layers on 6 inputs, one outcome, inferred noise. "trajectory" is the
compiled kernel within a leapfrog trajectory of 30 steps, the others one value and gradient of all
networks a call. With Numba installed, which this project does not need, its row is the sampled
posterior in plain loops (`benchmarks/numba_gradient.py`), within 100 calls.

`--adam`: CPU seconds of 1000 Adam steps of 10 networks, n = 100, width 64, known noise.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.timing import Work, measure
from bo_surrogates.inference import hmc
from bo_surrogates.inference.native.library import library
from bo_surrogates.networks import ACTIVATIONS, BatchedMLP
from bo_surrogates.networks.noise_priors import LogNoisePrior
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior

NETWORKS, STEPS, CPU_SECONDS = 16, 30, 0.1
KINDS = {"sampled": NetworkPosterior, "integrated": CollapsedNetworkPosterior}
DTYPES = {"f32": torch.float32, "f64": torch.float64}


def random(n: int, *shape: int) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)


def posterior_of(kind: str, n: int, width: int, dtype: torch.dtype) -> NetworkPosterior:
    """The one measured."""
    network = BatchedMLP(6, 1, width, 2)
    X, Y = random(n, 6).to(dtype), random(n, 1).to(dtype)
    return KINDS[kind](
        network, X, Y, network.scales(0.8, 3.0, 1.0, 3.0), LogNoisePrior(-4.0, 0.7), threads=1
    )


def by_autograd(posterior: NetworkPosterior, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """Value and gradient as one would write them without thinking about either."""
    network, X, Y = posterior.network, posterior.X, posterior.Y
    parameters = parameters.detach().requires_grad_()
    weights, l = parameters[:, :-1], parameters[:, -1]
    value = -0.5 * (weights / posterior.scales[:-1]).square().sum(dim=-1)
    value = value - 0.5 * ((l + 4.0) / 0.7).square()
    if isinstance(posterior, CollapsedNetworkPosterior):
        empty = weights.new_zeros(len(weights), network.num_parameters - weights.shape[-1])
        h = X.expand(len(weights), -1, -1)
        for layer in network.unpack(torch.cat([weights, empty], dim=-1))[:-1]:
            h = ACTIVATIONS[network.activation](torch.baddbmm(layer.bias, h, layer.weight))
        scale = posterior._output_scales[0, 0]
        G = torch.nn.functional.pad(h.double(), (0, 1), value=1.0) * scale
        noise = l.double().exp()[:, None, None] * torch.eye(len(X), dtype=torch.float64)
        factor = torch.linalg.cholesky(G @ G.mT + noise)
        solved = torch.linalg.solve_triangular(
            factor, Y.double().expand(len(G), -1, -1), upper=False
        )
        value = value - 0.5 * solved.square().sum(dim=(-2, -1))
        value = value - factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
    else:
        residual = Y - network.forward(weights, X)
        value = value - 0.5 * (residual.square().sum(dim=(-2, -1)) * (-l).exp() + len(X) * l)
    (gradient,) = torch.autograd.grad(value.sum(), parameters)
    return value.detach(), gradient


def cases_of(
    kind: str, n: int, width: int, type_name: str
) -> dict[str, tuple[Callable[[], object], int]]:
    """By method, what to call, and the gradients that a call makes."""
    dtype = DTYPES[type_name]
    posterior = posterior_of(kind, n, width, dtype)
    at = (random(NETWORKS, posterior.num_parameters).to(dtype) * posterior.scales).contiguous()
    at[:, -1] = -2.0
    state, velocity = hmc.init(at, posterior), torch.zeros_like(at)
    cases: dict[str, tuple[Callable[[], object], int]] = {}
    if library() is not None:
        leapfrog = hmc.leapfrog(posterior, posterior.scales)
        cases["trajectory"] = partial(leapfrog, state, velocity, 1e-4, STEPS), NETWORKS * STEPS
        cases["compiled"] = lambda: posterior(at), NETWORKS
    cases["torch"] = lambda: posterior.by_torch(at), NETWORKS
    cases["autograd"] = lambda: by_autograd(posterior, at), NETWORKS
    if kind == "sampled" and find_spec("numba") is not None:
        from benchmarks.numba_gradient import repeated

        cases["numba"] = repeated(n, width, type_name, 100), 100
    return cases


def _repeated(call: Callable[[], object], times: int, _: int) -> Mapping[str, Callable[[], object]]:
    def run() -> None:
        for _ in range(times):
            call()

    return {"": run}


def gradients(widths: Sequence[int], points: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Medians of gradients per CPU second."""
    rows = []
    for kind, width, n, dtype in product(KINDS, widths, points, DTYPES):
        work: dict[str, Work] = {}
        per_round = {}
        for name, (call, made) in cases_of(kind, n, width, dtype).items():
            once = median(s.cpu for s in measure({"": partial(_repeated, call, 1)}, 3))
            repeats = max(1, int(CPU_SECONDS / max(once, 1e-6)))
            per_round[name] = repeats * made
            work[name] = partial(_repeated, call, repeats)
        samples = measure(work, rounds)
        row = {"posterior": kind, "width": width, "n": n, "dtype": dtype}
        for name, made in per_round.items():
            row[name] = made / median(s.cpu for s in samples if s.case == name)
        rows.append(row)
    return rows


def adam(rounds: int) -> list[dict[str, Any]]:
    """Medians of CPU seconds of whole runs."""
    rows = []
    for depth, dtype in product((1, 2), DTYPES):
        network = BatchedMLP(6, 1, 64, depth)
        X, Y = random(100, 6).to(DTYPES[dtype]), random(100, 1).to(DTYPES[dtype])
        scales = network.scales(1.0, 2.0, 1.0, 2.0)
        posterior = NetworkPosterior(network, X, Y, scales, torch.full((1, 1), 0.05), threads=1)
        start = random(10, posterior.num_parameters).to(X) * posterior.scales

        run = partial(posterior.maximize, start, steps=1000, learning_rate=0.04)
        cpu = [s.cpu for s in measure({"": partial(_repeated, run, 1)}, rounds)]
        rows.append({"hidden layers": depth, "dtype": dtype, "CPU seconds": median(cpu)})
    return rows


def show(title: str, rows: Sequence[dict[str, Any]], path: Path | None) -> None:
    """As a table, and as JSON if there is a path."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*names, title=title)
    for row in rows:
        values = [row.get(name, "") for name in names]
        table.add_row(*[
            (f"{v:,.0f}" if v > 100 else f"{v:.3f}") if isinstance(v, float) else str(v)
            for v in values
        ])  # fmt: skip
    Console().print(table)
    if path is not None:
        path.write_text(json.dumps({"title": title, "rows": list(rows)}, indent=1))


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--width", type=int, nargs="+", default=[32, 64])
    parser.add_argument("--n", type=int, nargs="+", default=[20, 100], help="training points")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--adam", action="store_true", help="whole runs of Adam instead")
    parser.add_argument("--json", type=Path, help="file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.adam:
        show("Adam, 10 networks, 1000 steps, n = 100, width 64", adam(arguments.rounds),
             arguments.json)  # fmt: skip
    else:
        rows = gradients(arguments.width, arguments.n, arguments.rounds)
        show("gradients per CPU second", rows, arguments.json)


if __name__ == "__main__":
    main()
