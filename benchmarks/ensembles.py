"""Training an ensemble of networks: ours against the ways it is usually written in PyTorch.

    OMP_NUM_THREADS=1 python -m benchmarks.ensembles --n 20 100 300 --width 32 64 128

Ten networks of two hidden tanh layers on Hartmann-6 with n Sobol points, full-batch Adam on the log
posterior of all weights (Gaussian noise of known variance, Gaussian prior). Cases:

- `loop`: a loop over `nn.Module`s, each with a `torch.optim.Adam` of its own;
- `vmap`: `torch.func.vmap` of `torch.func.grad` over their stacked parameters, one Adam (`fused`);
- `autograd`: `BatchedMLP` and autograd, by `inference.adam.minimize`;
- `by_hand`: the gradient written by hand (`NetworkPosterior`), by `inference.adam.minimize`;
- `ours`: `NetworkPosterior.maximize`, which is compiled where it can be;
- `integrated`: as the `ensemble` surrogate trains by default, the output layer integrated out
  (`CollapsedNetworkPosterior.maximize`).

The first five do the same arithmetic; a test holds their gradients together. `--steps` steps are
timed, and figures are seconds for 1000.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import Sample, measure, report, summarize
from bo_surrogates.design import sobol_design
from bo_surrogates.inference.adam import minimize
from bo_surrogates.networks import BatchedMLP
from bo_surrogates.networks.posterior import CollapsedNetworkPosterior, NetworkPosterior
from problems import PROBLEMS

MEMBERS, NOISE, LEARNING_RATE = 10, 0.01, 0.01
REFERENCE = "loop"
TARGET = {"n": 100, "width": 64, "case": "ours", "cpu": 0.25}


class Task:
    """The data, the first weights and the log posterior of one size.

    Args:
        n: Training points.
        width: Hidden units of each of two layers.
        dtype: Of everything.
        seed: Of points and weights.
    """

    def __init__(self, n: int, width: int, dtype: torch.dtype, seed: int) -> None:
        problem = PROBLEMS["hartmann6"].make()
        X = sobol_design(problem.space, n, seed)
        Y = problem(X).unsqueeze(-1)
        self.X = ((X - 0.5) * 12**0.5).to(dtype)
        self.Y = ((Y - Y.mean()) / Y.std()).to(dtype)
        self.network = BatchedMLP(6, 1, width, 2, "tanh")
        self.scales = self.network.scales(1.2, 2.0, output_scale=2.0).to(dtype)
        generator = torch.Generator().manual_seed(seed)
        self.start = self.network.draw(MEMBERS, self.scales, generator)
        self.noise = torch.full((1, 1), NOISE, dtype=dtype)

    def negative_log_posterior(self, f: Tensor, theta: Tensor) -> Tensor:
        """Of outputs `... x n x 1` and their weights `... x P`, up to a constant."""
        fit = (self.Y - f).square().sum() / NOISE
        return 0.5 * (fit + (theta / self.scales).square().sum())

    def modules(self) -> list[nn.Sequential]:
        """The networks of `start` as torch's modules."""
        made = []
        for k in range(MEMBERS):
            linear = []
            for weight, bias in self.network.unpack(self.start[k : k + 1]):
                fan_in, fan_out = weight.shape[1:]
                layer = nn.Linear(fan_in, fan_out, dtype=weight.dtype)
                layer.weight.data.copy_(weight[0].T)
                layer.bias.data.copy_(bias[0, 0])
                linear += [layer, nn.Tanh()]
            made.append(nn.Sequential(*linear[:-1]))
        return made

    def flat(self, parameters: Mapping[str, Tensor]) -> Tensor:
        """A module's parameters in the order of `BatchedMLP`, `P`."""
        return torch.cat([p.mT.flatten() if p.ndim == 2 else p for p in parameters.values()])

    # ---- the cases: each trains for `steps` steps -------------------------------------------
    def loop(self, steps: int) -> None:
        """One module after the other."""
        for module in self.modules():
            optimizer = torch.optim.Adam(module.parameters(), lr=LEARNING_RATE)
            for _ in range(steps):
                optimizer.zero_grad()
                theta = self.flat(dict(module.named_parameters()))
                self.negative_log_posterior(module(self.X), theta).backward()
                optimizer.step()

    def stacked_gradient(
        self,
    ) -> tuple[dict[str, Tensor], Callable[[dict[str, Tensor]], dict[str, Tensor]]]:
        """Stacked parameters of the modules, and the gradient by vmap."""
        modules = self.modules()
        parameters, _ = torch.func.stack_module_state(modules)
        base = modules[0]

        def loss(one: dict[str, Tensor]) -> Tensor:
            return self.negative_log_posterior(
                torch.func.functional_call(base, one, (self.X,)), self.flat(one)
            )

        return parameters, torch.func.vmap(torch.func.grad(loss))

    def vmap(self, steps: int) -> None:
        """All modules by vmap."""
        parameters, gradient = self.stacked_gradient()
        parameters = {name: p.detach().clone() for name, p in parameters.items()}
        optimizer = torch.optim.Adam(list(parameters.values()), lr=LEARNING_RATE, fused=True)
        for _ in range(steps):
            for name, g in gradient(parameters).items():
                parameters[name].grad = g
            optimizer.step()

    def autograd_loss(self, theta: Tensor) -> Tensor:
        """Summed over networks `K x P`."""
        return self.negative_log_posterior(self.network.forward(theta, self.X), theta)

    def autograd(self, steps: int) -> None:
        """Batched matrix products, autograd."""
        minimize(self.autograd_loss, self.start, steps=steps, learning_rate=LEARNING_RATE)

    def by_hand(self, steps: int) -> None:
        """Batched matrix products, gradient by hand."""
        posterior = NetworkPosterior(self.network, self.X, self.Y, self.scales, self.noise)
        minimize(posterior.negative_sum, self.start, steps=steps, learning_rate=LEARNING_RATE)

    def ours(self, steps: int) -> None:
        """As the surrogates do it."""
        posterior = NetworkPosterior(self.network, self.X, self.Y, self.scales, self.noise)
        posterior.maximize(self.start, steps=steps, learning_rate=LEARNING_RATE)

    def integrated(self, steps: int) -> None:
        """The same without the output layer."""
        posterior = CollapsedNetworkPosterior(self.network, self.X, self.Y, self.scales, self.noise)
        start = self.start[:, : posterior.num_parameters]
        posterior.maximize(start, steps=steps, learning_rate=LEARNING_RATE)


CASES = ("loop", "vmap", "autograd", "by_hand", "ours", "integrated")


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--n", type=int, nargs="+", default=[20, 100, 300], help="training points")
    parser.add_argument("--width", type=int, nargs="+", default=[32, 64, 128])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--json", type=Path, help="folder to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    dtype = getattr(torch, arguments.dtype)

    def case(name: str, n: int, width: int) -> Callable[[int], Mapping[str, Callable[[], object]]]:
        def work(seed: int) -> Mapping[str, Callable[[], object]]:
            task = Task(n, width, dtype, seed)
            return {"train": lambda: getattr(task, name)(arguments.steps)}

        return work

    for n in arguments.n:
        for width in arguments.width:
            samples = measure({name: case(name, n, width) for name in CASES}, arguments.rounds)
            factor = 1000 / arguments.steps
            rows = summarize(
                [Sample(s.case, s.part, s.round, factor * s.cpu, factor * s.wall) for s in samples],
                REFERENCE,
            )
            title = f"10 networks, 1000 Adam steps, n = {n}, width {width}, {arguments.dtype}"
            name = f"ensembles_n{n}_w{width}_{arguments.dtype}.json"
            report(
                title, rows, REFERENCE, None if arguments.json is None else arguments.json / name
            )
            if (n, width) == (TARGET["n"], TARGET["width"]):
                print(verdict(rows))


def verdict(rows: list[dict[str, Any]]) -> str:
    """Whether the target was met, in words."""
    (cpu,) = (row["cpu"] for row in rows if row["case"] == TARGET["case"])
    factor = cpu / TARGET["cpu"]
    what = f"target {TARGET['cpu']} CPU-s for `{TARGET['case']}`"
    return f"{what}: met" if factor <= 1 else f"{what}: missed by a factor of {factor:.1f}"


if __name__ == "__main__":
    main()
