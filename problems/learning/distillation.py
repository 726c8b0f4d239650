"""Knowledge distillation: all weights of a small network, so that it judges as a large one does.

The teacher, a network with one hidden layer of 64 units, is trained on scikit-learn's handwritten
digits (8 x 8 pixels, ten classes). The student has one hidden layer of `hidden` tanh units on the
images averaged over 2 x 2 pixels; every one of its weights and biases is an input in
[-bound, bound], so the default has 16 * 8 + 8 + 8 * 10 + 10 = 226. Minimize the mean over fixed
images of

    KL(teacher || student) = sum_class t log(t / s),

in nats: 0 where the student gives the teacher's probabilities. A problem of the reference study is
meant so, but maximizes a divergence with its arguments exchanged, on other images each time.

Of an observation, the images may be a random batch, as in training by minibatches (`batch`); the
noise is then that of the batch. The best value is not known.

Source: Hinton, Vinyals and Dean 2015, arXiv 1503.02531; as a problem, Li, Rudner and Wilson 2024,
ICLR, arXiv 2305.20028 ("KD").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from bo_surrogates.config import Config, integer, real
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space
from problems.base import Problem

SIDE, CLASSES = 4, 10
TEACHER_HIDDEN, TEMPERATURE = 64, 2.0  # softened probabilities carry more, as in the paper
BLOCK = 16  # students evaluated together


@dataclass(frozen=True)
class DistillationConfig(Config):
    """Options of `distillation`.

    Attributes:
        hidden: Units of the student's hidden layer.
        bound: Largest absolute weight.
        images: Number of fixed images, the first of the data.
        batch: Images of an observation, drawn by its seed; None for all.
    """

    hidden: int = integer(8, 1, 256)
    bound: float = real(3.0, 1e-3, 1e3)
    images: int = integer(1000, 1, 1797)
    batch: int | None = integer(None, 1, 1797, optional=True)


class Distillation(Problem):
    """See the module's docstring; keywords as for `Problem`."""

    config_class: ClassVar[type[Config]] = DistillationConfig

    def __init__(
        self,
        config: DistillationConfig | None = None,
        *,
        noise_std: float | None = None,
        negate: bool = False,
    ) -> None:
        config = config or DistillationConfig()
        h = config.hidden
        names = (
            [f"w1_{i}_{j}" for i in range(SIDE**2) for j in range(h)]
            + [f"b1_{j}" for j in range(h)]
            + [f"w2_{j}_{k}" for j in range(h) for k in range(CLASSES)]
            + [f"b2_{k}" for k in range(CLASSES)]
        )
        super().__init__(
            Space([Float(name, -config.bound, config.bound) for name in names]),
            [Objective("divergence", "minimize", unit="nats")],
            config=config,
            noise_std=noise_std,
            negate=negate,
        )
        small, log_teacher = _teacher()
        self._images, self._log_teacher = small[: config.images], log_teacher[: config.images]

    def _true_metrics(self, X: Tensor) -> Tensor:
        return self._divergence(X, self._images, self._log_teacher)

    def _observed_metrics(self, X: Tensor, seed: int | None) -> Tensor:
        options: Any = self.config
        if options.batch is None:
            return super()._observed_metrics(X, seed)
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        drawn = torch.randperm(len(self._images), generator=generator)[: options.batch]
        values = self._divergence(X, self._images[drawn], self._log_teacher[drawn])
        return self._with_noise(values, generator)

    def _divergence(self, X: Tensor, images: Tensor, log_teacher: Tensor) -> Tensor:
        options: Any = self.config
        rows = X.reshape(-1, self.dim)
        images, log_teacher = images.to(X), log_teacher.to(X)
        values = []
        for block in rows.split(BLOCK):
            log_student = student(block, images, options.hidden)
            divergence = log_teacher.exp() * (log_teacher - log_student)
            values.append(divergence.sum(dim=-1).mean(dim=-1))
        found = torch.cat(values) if values else rows[:, 0]
        return found.reshape(*X.shape[:-1], 1)


def student(weights: Tensor, images: Tensor, hidden: int) -> Tensor:
    """Log probabilities `n x images x 10` of n students with weights `n x d`."""
    sizes = (SIDE**2 * hidden, hidden, hidden * CLASSES, CLASSES)
    w1, b1, w2, b2 = weights.split(sizes, dim=-1)
    n = len(weights)
    units = (images @ w1.reshape(n, SIDE**2, hidden) + b1.unsqueeze(1)).tanh()
    return log_softmax(units @ w2.reshape(n, hidden, CLASSES) + b2.unsqueeze(1), dim=-1)


@cache
def _teacher() -> tuple[Tensor, Tensor]:
    """Averaged images `1797 x 16` in [-1, 1], and the teacher's log probabilities, softened."""
    import warnings

    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.neural_network import MLPClassifier

    from bo_surrogates.threads import limited_threads

    digits = load_digits()
    pixels = digits.data / 8.0 - 1.0
    with limited_threads(1):  # sums in one order: the same teacher everywhere
        teacher = MLPClassifier((TEACHER_HIDDEN,), max_iter=60, random_state=0, tol=0.0,
                                n_iter_no_change=60)  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it could be trained longer
            teacher.fit(pixels, digits.target)
        hidden = np.maximum(pixels @ teacher.coefs_[0] + teacher.intercepts_[0], 0.0)
        logits = hidden @ teacher.coefs_[1] + teacher.intercepts_[1]
    small = pixels.reshape(-1, SIDE, 2, SIDE, 2).mean(axis=(2, 4)).reshape(-1, SIDE**2)
    log_probabilities = log_softmax(torch.from_numpy(logits) / TEMPERATURE, dim=-1)
    return torch.from_numpy(small), log_probabilities
