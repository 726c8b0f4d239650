"""Which exponent of the singular kernel comes nearest to the best classifier there is?

`OMP_NUM_THREADS=1 python -m benchmarks.singular_kernels [--seeds 6] [--n 200 800 3200]`

Two classes on the triangle, Dirichlet (3, 1, 2) with probability 0.4 and Dirichlet (1, 2, 2), whose
Bayes rule is known; two inputs, and 2000 test points a seed. Wide and deep networks become
classifiers by the singular kernel |z - z'|^-alpha, consistent for alpha = d, here 2, as n grows; or
the nearest neighbour, or the majority (Radhakrishnan et al. 2023, arXiv 2204.14126).
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd
import torch
from rich.console import Console
from torch import Tensor
from torch.distributions import Dirichlet

from bo_surrogates.classifiers import HilbertClassifier
from bo_surrogates.seeding import derive_seed, fixed_seed

CLASSES = (3.0, 1.0, 2.0), (1.0, 2.0, 2.0)
FIRST = 0.4  # probability of the first class
TEST = 2000
EXPONENTS = (0.5, 1.5, 2.0, 6.0)


def draw(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """`n x 2` inputs, labels, and what the Bayes rule says of them."""
    one, two = (Dirichlet(torch.tensor(a, dtype=torch.float64)) for a in CLASSES)
    with fixed_seed(seed):  # Dirichlet numbers come from torch's global generator
        labels = torch.rand(n) < FIRST
        x = torch.where(labels.unsqueeze(-1), one.sample((n,)), two.sample((n,)))
    prior = torch.tensor(FIRST / (1.0 - FIRST)).log()
    return x[:, :2], labels, one.log_prob(x) - two.log_prob(x) + prior > 0


def accuracies(n: int, seed: int) -> dict[str, float]:
    """Of each rule."""
    x, labels, bayes = draw(n + TEST, derive_seed(seed, "singular kernels", n))
    train, test, y, truth = x[:n], x[n:], labels[:n], labels[n:]
    learnt = HilbertClassifier("learnt").fit(train, y)
    rules = {
        "Bayes": bayes[n:],
        **{
            f"alpha {a:g}": HilbertClassifier(a).fit(train, y).predict(test).bool()
            for a in EXPONENTS
        },
        "alpha learnt": learnt.predict(test).bool(),
        "nearest": y[torch.cdist(learnt.embed(test), learnt.embed(train)).argmin(dim=-1)],
        "majority": (y.double().mean() > 0.5).expand(TEST),
    }
    found = {name: (rule == truth).double().mean().item() for name, rule in rules.items()}
    return found | {"the alpha": learnt.alpha or 0.0}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--n", type=int, nargs="+", default=[200, 800, 3200])
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = [{"n": n, **accuracies(n, seed)} for n in options.n for seed in range(options.seeds)]
    table = pd.DataFrame(rows).groupby("n").mean()
    Console().print(table.to_string(float_format=lambda v: f"{v:.3f}"))


if __name__ == "__main__":
    main()
