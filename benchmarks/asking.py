"""What one ask costs, by kind of search space: CPU seconds on one core, fit included.

    OMP_NUM_THREADS=1 python -m benchmarks.asking
    OMP_NUM_THREADS=1 python -m benchmarks.asking --n 60 --surrogates gp nngp --rounds 5
    OMP_NUM_THREADS=1 python -m benchmarks.asking --spaces "5 mixed" --objectives 2 --conflicting

A campaign (through Ax) and `propose` (on BoTorch alone) are asked for one point by turns, with the
same measurements, seeds and optimizer budget; the first ask of each, which imports and compiles, is
not counted.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.design import sobol_design
from bo_surrogates.loop import propose
from bo_surrogates.objective import Objective
from bo_surrogates.space import Choice, Float, Int, Ordered, Space, Values

FLOATS = [Float(f"x{i}", 0.0, 1.0) for i in range(5)]
MIXED = [
    Float("a", 0.0, 1.0),
    Float("b", 1e-4, 1.0, log=True),
    Int("c", 1, 12),
    Ordered("d", (1, 2, 4, 8, 16)),
    Choice("e", ("u", "v", "w")),
]
SPACES = {
    "5 floats": Space(FLOATS),
    "5 mixed": Space(MIXED),
    "5 choices": Space([Choice(f"k{i}", tuple("abcdef")) for i in range(5)]),
    "conditional": Space(
        [
            *MIXED,
            Float("f", 0.0, 1.0, when={"e": ("u",)}),
            Choice("g", ("p", "q"), when={"e": ("v", "w")}),
        ]
    ),
}


def value(space: Space, point: Values, shift: float = 0.0) -> float:
    """A smooth function of a point's coordinates, each on the unit interval.

    Args:
        space: Where.
        point: One of it.
        shift: Of the function's valley; functions of different shifts are in conflict.
    """
    low, high = space.bounds
    z = (space.encode(point) - low) / (high - low)
    weights = torch.arange(1, space.dim + 1, dtype=torch.float64)
    return float(
        ((z - shift - 0.3 - 0.1 * weights / space.dim).square() * weights).sum() + (5 * z).sin()[0]
    )


def measure(
    name: str, surrogate: str, n: int, objectives: int, rounds: int, *, conflicting: bool
) -> tuple[float, float]:
    """Median CPU seconds of an ask: of the campaign, of `propose`.

    With conflicting objectives no point is best for all; else each is a multiple of the first.
    """
    space = SPACES[name]
    wanted = tuple(Objective(f"y{i}") for i in range(objectives))
    X = sobol_design(space, n + rounds + 1, seed=0)
    points = [space.decode(x) for x in X]
    results = [
        {
            o.name: value(space, p, 0.3 * i) if conflicting else value(space, p) * math.cos(i)
            for i, o in enumerate(wanted)
        }
        for p in points
    ]
    times: dict[str, list[float]] = {"campaign": [], "propose": []}
    with tempfile.TemporaryDirectory() as folder:
        spec = CampaignSpec("asking", space, wanted, surrogate=surrogate, budget=10 * n, initial=n)
        with Campaign.create(spec, Path(folder) / "a.db") as campaign:
            for k in range(n + rounds + 1):
                trial = campaign.add_trial(points[k])
                campaign.tell(trial.index, results[k])
                if k < n - 1:
                    continue

                def ask(campaign: Campaign = campaign) -> None:
                    (asked,) = campaign.ask(1)
                    campaign.abandon(asked.index, "for timing only")

                Y = torch.tensor([list(r.values()) for r in results[: k + 1]], dtype=torch.float64)

                def in_tensors(k: int = k, Y: torch.Tensor = Y) -> None:
                    propose(space, X[: k + 1], Y, objectives=wanted, surrogate=surrogate, seed=k)

                for kind, call in (("campaign", ask), ("propose", in_tensors)):
                    times[kind].append(_cpu(call))
    return median(times["campaign"][1:]), median(times["propose"][1:])


def _cpu(call: Callable[[], None]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n", type=int, default=30)
    parser.add_argument("--surrogates", nargs="+", default=["gp"])
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--objectives", type=int, default=1)
    parser.add_argument(
        "--conflicting", action="store_true", help="valleys apart, instead of multiples of one"
    )
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'surrogate':>12} {'space':>12} {'campaign':>9} {'propose':>9}   CPU s an ask")
    for surrogate in options.surrogates:
        for name in options.spaces:
            found = measure(
                name, surrogate, options.n, options.objectives, options.rounds,
                conflicting=options.conflicting,
            )  # fmt: skip
            print(f"{surrogate:>12} {name:>12} {found[0]:9.2f} {found[1]:9.2f}")


if __name__ == "__main__":
    main()
