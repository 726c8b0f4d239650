"""Does a trust region help with many parameters?

    python -m benchmarks.trust_regions --dim 30 --iterations 60 --seeds 3

Shifted Ackley and Levy functions, whose optimum is not in the middle of the box; the best value
found with and without a trust region, from the same initial design.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from botorch.test_functions import Ackley, Levy
from torch import Tensor

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.loop import run
from bo_surrogates.seeding import derive_seed


def shifted(kind: type[Ackley] | type[Levy], dim: int, seed: int) -> Ackley | Levy:
    """The function with its optimum moved by up to a quarter of the range in each coordinate."""
    low, high = (-5.0, 10.0) if kind is Ackley else (-10.0, 10.0)
    generator = torch.Generator().manual_seed(derive_seed(seed, "shift"))
    shift = (torch.rand(dim, generator=generator, dtype=torch.float64) - 0.5) * (high - low) / 2

    class Shifted(kind):  # type: ignore[misc, valid-type]
        def _evaluate_true(self, X: Tensor) -> Tensor:
            return super()._evaluate_true(X - shift)

    return Shifted(dim=dim, bounds=[(low, high)] * dim).double()


def main() -> None:
    """Run the comparison and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--surrogate", default="gp")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'function':10} {'region':7} {'best (median; all)':50} {'CPU s':>7}")
    for kind in (Ackley, Levy):
        for region in (False, True):
            config = AcquisitionConfig(trust_region=region)
            start, best = time.process_time(), []
            for seed in range(options.seeds):
                found = run(
                    shifted(kind, options.dim, seed), surrogate=options.surrogate, seed=seed,
                    acquisition=config, iterations=options.iterations, q=options.batch,
                )  # fmt: skip
                best.append(float(found.best[-1]))
            seconds = (time.process_time() - start) / options.seeds
            figures = f"{statistics.median(best):.3g}; {', '.join(f'{b:.3g}' for b in best)}"
            name = f"{kind.__name__}-{options.dim}"
            print(f"{name:10} {region!s:7} {figures:50} {seconds:7.1f}", flush=True)


if __name__ == "__main__":
    main()
