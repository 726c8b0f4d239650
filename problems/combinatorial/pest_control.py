"""Pest control: which of four pesticides, or none, to use at each of 25 stages.

One hundred farms are simulated. A share p of each farm's products carries pests, at first
p ~ Beta(1, 30). At every stage the products of farms with p > 0.1 are lost (their share is added to
the score); then

* without control pests spread, p <- p + s (1 - p) with s ~ Beta(1, 17/3);
* with pesticide k, p <- (1 - c) p with c ~ Beta(1, beta_k), and pests grow resistant: beta_k rises
  by tolerance_k / 25. It costs price_k (1 - discount_k n_k / 25), n_k being how often the plan uses
  it.

| pesticide | price | discount | tolerance | beta at first |
|---|---|---|---|---|
| 1 | 1.0 | 0.2 | 1/7 | 2/7 |
| 2 | 0.8 | 0.3 | 5/14 | 3/7 |
| 3 | 0.7 | 0.3 | 2/7 | 3/7 |
| 4 | 0.5 | 0.0 | 1/14 | 5/7 |

Minimize losses plus costs. All random numbers are fixed by `farm_seed`: as in the reference, every
draw starts the generator anew, so that a farm has the same luck at every stage.

Source: Oh, Tomczak, Gavves and Welling 2019, NeurIPS, arXiv 1902.00448; as in Li, Rudner and Wilson
2024, ICLR, arXiv 2305.20028.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from bo_surrogates.config import Config, integer
from bo_surrogates.objective import Objective
from bo_surrogates.space import Choice, Space
from problems.base import Optimum, Problem

STAGES, FARMS = 25, 100
PRICE = (0.0, 1.0, 0.8, 0.7, 0.5)  # of no control, then of each pesticide
DISCOUNT = (0.0, 0.2, 0.3, 0.3, 0.0)
TOLERANCE = (1 / 7, 2.5 / 7, 2 / 7, 0.5 / 7)
BETA = (2 / 7, 3 / 7, 3 / 7, 5 / 7)
LIMIT = 0.1  # share of pests above which products are lost
BEST_KNOWN = Optimum(
    11.9916,
    ((3.0,) * (STAGES - 1) + (0.0,),),
    "local search over single and double changes from random plans",
    proven=False,
)
OPTIONS = ("none", "pesticide 1", "pesticide 2", "pesticide 3", "pesticide 4")


@dataclass(frozen=True)
class PestControlConfig(Config):
    """Options of `pest_control`.

    Attributes:
        farm_seed: Of all random numbers.
    """

    farm_seed: int = integer(1, 0, 2**32 - 1)


class PestControl(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = PestControlConfig

    def __init__(
        self,
        config: PestControlConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or PestControlConfig()
        super().__init__(
            Space([Choice(f"stage_{i + 1}", OPTIONS) for i in range(STAGES)]),
            [Objective("loss_and_cost")],
            config=config,
            optimum=BEST_KNOWN if config.farm_seed == 1 else None,
            noise_std=noise_std,
            negate=negate,
        )

        def draw(beta: float) -> np.ndarray:
            return np.random.RandomState(config.farm_seed).beta(1.0, beta, size=FARMS)

        self._start, self._spread = (torch.from_numpy(draw(b)) for b in (30.0, 17 / 3))
        # What pesticide k does when it has been used u times before.
        self._control = torch.from_numpy(
            np.array([[draw(b + u * t / STAGES) for u in range(STAGES)]
                      for b, t in zip(BETA, TOLERANCE, strict=True)])
        )  # fmt: skip

    def _true_metrics(self, X: Tensor) -> Tensor:
        plans = X.reshape(-1, STAGES).long()
        n = len(plans)
        counts = torch.nn.functional.one_hot(plans, len(OPTIONS)).sum(dim=1)  # n x 5
        price, discount = (torch.tensor(t, dtype=torch.float64) for t in (PRICE, DISCOUNT))
        costs = price * (1 - discount / STAGES * counts.double())
        score = costs.gather(1, plans).sum(dim=1)
        used = torch.zeros(n, len(BETA), dtype=torch.long)
        pests = self._start.expand(n, FARMS)
        rows = torch.arange(n)
        for stage in range(STAGES):
            score = score + (pests > LIMIT).double().mean(dim=1)
            kind = (plans[:, stage] - 1).clamp_min(0)
            control = self._control[kind, used[rows, kind]]
            treated = (plans[:, stage] > 0).unsqueeze(-1)
            pests = torch.where(treated, (1 - control) * pests, pests + self._spread * (1 - pests))
            used[rows, kind] += treated.squeeze(-1).long()
        return score.to(X).reshape(*X.shape[:-1], 1)
