"""Lunar lander: twelve numbers of a hand-written controller.

With the lander's state s (position s0, s1, velocity s2, s3, angle s4, its rate s5, legs s6, s7 on
the ground) and weights w,

    wanted angle = clip(w0 s0 + w1 s2, -w2, w2),      wanted height = w3 |s0|,
    turn = w4 (wanted angle - s4) - w5 s5,            lift = w6 (wanted height - s1) - w7 s3,

and once a leg touches, turn = w8 and lift = -w9 s3. The main engine fires if lift > |turn| and
lift > w10, else the right one if turn < -w11, else the left one if turn > w11. Weights in [0, 2];
maximize the mean return over 50 worlds. Gymnasium's own hand-set weights are
(0.5, 1, 0.4, 0.55, 0.5, 1, 0.5, 0.5, 0, 0.5, 0.05, 0.05); a return above 200 is called solved.

The reference study used version 2 of the environment, whose engines differ in detail from
version 3 here: returns are of the same kind, not the same.

Source: Eriksson et al. 2019, NeurIPS, arXiv 1910.01003; Li, Rudner and Wilson 2024, ICLR, arXiv
2305.20028. Needs the extra `control`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from bo_surrogates.config import Config, flag, integer
from bo_surrogates.space import Float, Space
from problems.control.episodes import Array, EpisodeReturn

HAND_SET = (0.5, 1.0, 0.4, 0.55, 0.5, 1.0, 0.5, 0.5, 0.0, 0.5, 0.05, 0.05)
NOTHING, LEFT, MAIN, RIGHT = range(4)


@dataclass(frozen=True)
class LunarLanderConfig(Config):
    """Options of `lunar_lander`.

    Attributes:
        episodes: Worlds of one evaluation.
        random_worlds: Whether each observation has worlds of its own.
        max_steps: Of an episode.
    """

    episodes: int = integer(50, 1, 10_000)
    random_worlds: bool = flag(False)
    max_steps: int = integer(1000, 1, 100_000)


class LunarLander(EpisodeReturn):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = LunarLanderConfig
    environment_name = "LunarLander-v3"

    def __init__(
        self,
        config: LunarLanderConfig | None = None,
        *,
        noise_std: float | Sequence[float] | None = None,
        negate: bool = False,
    ) -> None:
        super().__init__(
            Space([Float(f"w{i}", 0.0, 2.0) for i in range(12)]),
            config or LunarLanderConfig(),
            noise_std=noise_std,
            negate=negate,
        )

    def act(self, weights: Array, state: Array) -> int:
        """See `EpisodeReturn.act`."""
        # Numbers of Python's own: NumPy's cost more than the physics.
        w, s = weights.tolist(), state.tolist()
        angle = min(max(w[0] * s[0] + w[1] * s[2], -w[2]), w[2])
        turn = (angle - s[4]) * w[4] - s[5] * w[5]
        lift = (w[3] * abs(s[0]) - s[1]) * w[6] - s[3] * w[7]
        if s[6] or s[7]:
            turn, lift = w[8], -s[3] * w[9]
        if lift > abs(turn) and lift > w[10]:
            return MAIN
        if turn < -w[11]:
            return RIGHT
        return LEFT if turn > w[11] else NOTHING
