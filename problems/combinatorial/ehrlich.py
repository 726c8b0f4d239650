"""Ehrlich functions: sequences that must carry hidden motifs, as a protein must to bind.

A sequence x of L letters out of v. Of c hidden motifs a^(i) of k letters each, with spacings
s^(i) (offsets 0 = s_1 < s_2 < ... < s_k), the quality of the best place for each counts,

    h_i(x) = max_l floor(q / k * #{j : x_{l + s_j} = a_j}) / q,        f(x) = prod_i h_i(x),

maximized; q quantizes the share of a motif that is there. f is 0 until something of every motif is
in place (epistasis), and 1, its maximum, where all are. Some letters never follow some others: a
sequence with such a pair is infeasible, which here is the outcome constraint
`banned_transitions <= 0`; its value is 0.

The motifs share no letter where v >= c k. Each letter may follow itself, and what the motifs need
is never banned; so the maximum exists: motif after motif, each letter repeated until the next is
due.

All is drawn by `function_seed`. Drawing follows the paper's rules in spirit, not its code, so that
functions of the same numbers are other functions.

Source: Stanton et al. 2024, Closed-form test functions for biophysical sequence design
benchmarking, arXiv 2407.00236, section 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bo_surrogates.config import Config, integer, real
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Space
from problems.base import Optimum, Problem

LETTERS = "ACDEFGHIKLMNPQRSTVWYBJOUXZabcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class EhrlichConfig(Config):
    """Options of `ehrlich`.

    Attributes:
        length: L, letters of a sequence.
        letters: v, size of the alphabet.
        motifs: c, number of motifs; c * motif_length <= length.
        motif_length: k, letters of each, at most v.
        quantization: q, levels of a motif's quality, a divisor of motif_length.
        banned: Share of the pairs of different letters that may not follow each other, of those
            that no motif needs.
        function_seed: Of the motifs, spacings and banned pairs.
    """

    length: int = integer(32, 2, 1000)
    letters: int = integer(20, 2, len(LETTERS))
    motifs: int = integer(4, 1, 50)
    motif_length: int = integer(4, 2, 50)
    quantization: int = integer(4, 1, 50)
    banned: float = real(0.2, 0.0, 0.9)
    function_seed: int = integer(0, 0, 2**31 - 1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motifs * self.motif_length > self.length:
            raise InputError(
                f"EhrlichConfig: {self.motifs} motifs of {self.motif_length} letters do not fit in "
                f"a sequence of {self.length}; raise length"
            )
        if self.motif_length > self.letters:
            raise InputError(
                f"EhrlichConfig.motif_length must be at most letters ({self.letters}), "
                f"got {self.motif_length}"
            )
        if self.motif_length % self.quantization:
            raise InputError(
                f"EhrlichConfig.quantization must divide motif_length ({self.motif_length}), "
                f"got {self.quantization}"
            )


class Ehrlich(Problem):
    """See the module's docstring; keywords as for `Problem`.

    Attributes:
        motif: `c x k` letters.
        spacing: `c x k` offsets, the first 0.
        allowed: `v x v`, whether a letter (column) may follow another (row).
    """

    config_class: ClassVar[type[Config]] = EhrlichConfig
    motif: Tensor
    spacing: Tensor
    allowed: Tensor

    def __init__(
        self,
        config: EhrlichConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or EhrlichConfig()
        motif, spacing, allowed = draw(config)
        solution = _solution(motif, spacing, config.length)
        super().__init__(
            Space(
                [
                    Choice(f"position_{i + 1}", tuple(LETTERS[: config.letters]))
                    for i in range(config.length)
                ]
            ),
            [Objective("quality", "maximize")],
            constraints=[OutcomeConstraint("banned_transitions", "<=", 0.0)],
            config=config,
            optimum=Optimum(1.0, (tuple(map(float, solution)),), "construction"),
            noise_std=noise_std,
            negate=negate,
        )
        self.register_buffer("motif", torch.from_numpy(motif))
        self.register_buffer("spacing", torch.from_numpy(spacing))
        self.register_buffer("allowed", torch.from_numpy(allowed))

    def _true_metrics(self, X: Tensor) -> Tensor:
        options: Any = self.config
        x = X.long()
        allowed = self.allowed.to(X.device)
        banned = (~allowed[x[..., :-1], x[..., 1:]]).sum(dim=-1)
        quality = torch.ones(X.shape[:-1], dtype=torch.float64, device=X.device)
        levels, k = options.quantization, options.motif_length
        for letters, offsets in zip(self.motif, self.spacing, strict=True):
            places = options.length - int(offsets[-1])
            starts = torch.arange(places, device=X.device).unsqueeze(-1)
            found = x[..., starts + offsets.to(X.device)] == letters.to(X.device)
            best = found.sum(dim=-1).amax(dim=-1)  # over places
            # k / levels is whole, so whole numbers decide.
            quality = quality * (best // (k // levels)).double() / levels
        quality = torch.where(banned > 0, 0.0, quality)
        return torch.stack([quality, banned.double()], dim=-1).to(X)


def draw(config: EhrlichConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Motifs `c x k`, spacings `c x k` and allowed transitions `v x v` of a function."""
    rng = np.random.default_rng(config.function_seed)
    c, k, v = config.motifs, config.motif_length, config.letters
    if c * k <= v:
        motif = rng.permutation(v)[: c * k].reshape(c, k)
    else:
        motif = np.stack([rng.permutation(v)[:k] for _ in range(c)])
    room = config.length // c  # what each motif may span, so that all fit
    spacing = np.stack(
        [
            np.concatenate([[0], np.sort(rng.permutation(np.arange(1, room))[: k - 1])])
            for _ in range(c)
        ]
    )
    needed = np.eye(v, dtype=bool)
    line = motif.reshape(-1)
    needed[line[:-1], line[1:]] = True
    free = np.argwhere(~needed)
    allowed = np.ones((v, v), dtype=bool)
    banned = free[rng.permutation(len(free))[: round(config.banned * len(free))]]
    allowed[banned[:, 0], banned[:, 1]] = False
    return motif.astype(np.int64), spacing.astype(np.int64), allowed


def _solution(motif: np.ndarray, spacing: np.ndarray, length: int) -> np.ndarray:
    """Motif after motif, each letter repeated until the next is due, the last to the end."""
    room = length // len(motif)
    solution: list[int] = []
    for letters, offsets in zip(motif, spacing, strict=True):
        ends = [*offsets[1:], room]
        solution += [
            int(a) for a, (o, e) in zip(letters, zip(offsets, ends, strict=True), strict=True)
            for _ in range(e - o)
        ]  # fmt: skip
    return np.array(solution + [solution[-1]] * (length - len(solution)))
