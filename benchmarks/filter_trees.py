"""Binary filters along minimum spanning trees: what trees, limits and penalties save.

    OMP_NUM_THREADS=1 python -m benchmarks.filter_trees [--seeds 3] [--only random|trained]

`random`: filters of random signs. The ratio of XNORs to those without a tree, the depth, and CPU
milliseconds to find the tree; then those of a 3 x 3 layer of as many filters on 4 images of 8 x 8,
executed on bits with and without its tree.

`trained`: the problem `mst` at its published default, with other penalties and strengths: test
error, ratio, mean depth, and the latency of levels against a network's products without trees, one
after the other; means over seeds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import fmean, median

import numpy as np
import torch

from bo_surrogates.space import Values
from problems.documented.binarization import BinaryConv2d, pack
from problems.documented.mst import MSTLayer, TreeConfig, filter_tree, tree_cost
from problems.documented.mst_tuning import MSTTuning

SHAPES = ((16, 144), (64, 288), (64, 576), (256, 2304))  # filters, signs of each
TREES = {
    "free": TreeConfig(),
    "inverted": TreeConfig(inversions=True),
    "depth 4": TreeConfig(max_depth=4),
    "depth 2": TreeConfig(max_depth=2),
    "depth 1": TreeConfig(max_depth=1),
}
PENALTIES = ("tree", "centre", "mix")
STRENGTHS = (3.0, 10.0, 30.0, 100.0)


def milliseconds(call: Callable[[], object], rounds: int = 3) -> float:
    """CPU time, the median of some calls."""
    taken = []
    for _ in range(rounds):
        begin = time.process_time()
        call()
        taken.append(1e3 * (time.process_time() - begin))
    return median(taken)


def random_filters(seeds: int) -> None:
    """The first table."""
    print("| filters, signs | tree | ratio | depth | found in, ms |\n|---|---|---|---|---|")
    for filters, terms in SHAPES:
        draws = [
            np.random.default_rng(seed).choice([-1, 1], (filters, terms)) for seed in range(seeds)
        ]
        for name, config in TREES.items():
            trees = [filter_tree(signs, config) for signs in draws]
            taken = milliseconds(partial(filter_tree, draws[0], config))
            ratio, depth = fmean(t.ratio for t in trees), fmean(t.depth for t in trees)
            print(f"| {filters}, {terms} | {name} | {ratio:.3f} | {depth:.1f} | {taken:.1f} |")
    print("\n| channels | on bits, ms | along the tree, ms |\n|---|---|---|")
    for channels in (16, 64, 256):
        torch.manual_seed(0)
        layer = BinaryConv2d(channels, channels, 3, padding=1).eval()
        x = torch.randn(4, channels, 8, 8)
        plain, tree = pack(layer), MSTLayer(layer)
        one, other = (milliseconds(partial(m, x), 9) for m in (plain, tree))
        print(f"| {channels} | {one:.2f} | {other:.2f} |")


def trained_filters(seeds: int) -> None:
    """The second table."""
    problem = MSTTuning()
    head = "| penalty | strength | error | ratio | depth | latency |"
    print(head + "\n|---|---|---|---|---|---|")
    for penalty, strength in [("none", 0.0), *((p, s) for s in STRENGTHS for p in PENALTIES)]:
        values = point(problem, penalty, strength)
        rows = []
        for seed in range(seeds):
            network = problem.train_best(values, seed)
            cost = tree_cost(network, problem.shape)
            error = problem.scores(network, values, "test")["error"]
            rows.append((error, cost.ratio, cost.mean_depth, cost.latency / cost.full_xnors))
        error, ratio, depth, latency = (fmean(column) for column in zip(*rows, strict=True))
        print(
            f"| {penalty} | {strength:g} | {error:.3f} | {ratio:.3f} | {depth:.1f} "
            f"| {latency:.3f} |",
            flush=True,
        )


def point(problem: MSTTuning, penalty: str, strength: float) -> Values:
    """The published default with another penalty."""
    values: Values = {**problem.published_default, "penalty": penalty, "strength": strength}
    if penalty == "mix":
        values["tree_share"] = 0.5
    unused = {"none": ("strength", "start", "refresh"), "centre": ("refresh",)}
    return {k: v for k, v in values.items() if k not in unused.get(penalty, ())}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("random", "trained"))
    options = parser.parse_args()
    if options.only != "trained":
        random_filters(options.seeds)
        print()
    if options.only != "random":
        trained_filters(options.seeds)


if __name__ == "__main__":
    main()
