"""Classifiers of wide and deep networks, for outcomes that are yes or no: feasible, crashed.

Both take points with bounds to the sphere, z = (x, 1) / |(x, 1)| with x scaled to [0, 1]^d, where
all cosines are positive, and its dimension is d. Theory and kernels: `kernels/singular.py`.

* `HilbertClassifier` is the limit of infinite width and depth: P(yes) = sum_i p_i y_i, with weights
  p_i proportional to |z - z_i|^{-alpha} (the Hilbert kernel: Devroye, Gyorfi and Krzyzak 1998;
  arXiv 2204.14126). It repeats its data exactly, and has nothing to train but alpha.
* `DeepKernelClassifier` is the limit of infinite width at a finite depth: a Gaussian process with
  that kernel times v, regressed on labels -1 and 1, P(yes) = Phi(mean / sqrt(variance + noise)).
  Depth, noise and v maximize the evidence. Where it has no data it says so: P is 1/2.

They are no surrogates of the registry, whose outcomes are numbers. Probabilities are differentiable
in the inputs, finite and with finite gradients at the data too, and serve as the probability of
feasibility that an acquisition function is multiplied by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal, Self

import torch
from torch import Tensor

from bo_surrogates.errors import InputError, RunError
from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.kernels.singular import Dual, log_nngp, ntk, optimal_dual

SQUARED_DISTANCE_FLOOR = 1e-12
EXPONENTS = tuple(0.25 * i for i in range(1, 13))  # relative to d, searched
DEPTHS = (1, 2, 3, 5, 8, 12, 20)
NOISES = tuple(10.0 ** (0.5 * i) for i in range(-12, 3))


class BinaryClassifier(ABC):
    """Labels on the sphere; see the module's docstring.

    Args:
        bounds: `2 x d` bounds of the inputs; None where they are in the unit cube already.
    """

    def __init__(self, bounds: Tensor | None = None) -> None:
        if bounds is not None and not (
            bounds.ndim == 2
            and len(bounds) == 2
            and torch.isfinite(bounds).all()
            and (bounds[0] < bounds[1]).all()
        ):
            raise InputError(
                "bounds must be 2 x d, finite, each lower bound below its upper bound, got "
                f"{tuple(bounds.shape)}"
            )
        self.bounds = bounds
        self._z: Tensor | None = None
        self._labels: Tensor | None = None

    def fit(self, X: Tensor, y: Tensor) -> Self:
        """Learn from labelled points.

        Args:
            X: `n x d` inputs.
            y: `n` or `n x 1` labels: bool, or 0 and 1.

        Raises:
            InputError: The shapes do not match, a value is not finite or outside the bounds by more
                than rounding, a label is neither 0 nor 1, or two labels of one point differ.
        """
        if X.ndim != 2 or not len(X) or not X.is_floating_point() or not torch.isfinite(X).all():
            raise InputError(
                f"X must be n x d, n >= 1, floating-point and finite, got {tuple(X.shape)}"
            )
        labels = y.reshape(-1).to(X.device, torch.float64)
        if len(labels) != len(X) or not ((labels == 0) | (labels == 1)).all():
            raise InputError(f"y must hold {len(X)} labels, each 0 or 1, got {tuple(y.shape)}")
        unit = self._scaled(X)
        if ((unit < -1e-9) | (unit > 1 + 1e-9)).any():
            raise InputError("X must lie within the bounds (the unit cube, if there are none)")
        z, inverse = self.embed(X).unique(dim=0, return_inverse=True)
        count = torch.zeros(len(z), dtype=torch.float64, device=X.device)
        ones = count.index_add(0, inverse, labels)
        count = count.index_add(0, inverse, torch.ones_like(labels))
        if not ((ones == 0) | (ones == count)).all():
            raise InputError("two labels of one point differ; these classifiers repeat their data")
        self._z, self._labels = z, (ones > 0).double()
        self._learn(z, self._labels)
        return self

    def embed(self, X: Tensor) -> Tensor:
        """Points on the sphere, float64.

        Args:
            X: `... x n x d` inputs.

        Returns:
            `... x n x (d + 1)`, of norm 1.
        """
        unit = self._scaled(X)
        lifted = torch.cat([unit, torch.ones_like(unit[..., :1])], dim=-1)
        return lifted / lifted.norm(dim=-1, keepdim=True)

    def probability(self, X: Tensor) -> Tensor:
        """P(yes).

        Args:
            X: `... x n x d` inputs.

        Returns:
            `... x n` in the dtype of X, differentiable.

        Raises:
            RunError: The classifier has not been fitted.
        """
        if self._z is None or self._labels is None:
            raise RunError(f"this {type(self).__name__} has not been fitted; call fit(X, y)")
        return self._probability(self.embed(X), self._z, self._labels).to(X.dtype)

    def predict_proba(self, X: Tensor) -> Tensor:
        """`... x n x 2`: P(no) and P(yes), as scikit-learn orders them; see `probability`."""
        yes = self.probability(X)
        return torch.stack([1.0 - yes, yes], dim=-1)

    def predict(self, X: Tensor) -> Tensor:
        """`... x n` labels, bool; a tie is a no."""
        return self.probability(X) > 0.5

    def _scaled(self, X: Tensor) -> Tensor:
        X = X.double()
        if self.bounds is None:
            return X
        low, high = self.bounds.to(X)
        return (X - low) / (high - low)

    def _learn(self, z: Tensor, labels: Tensor) -> None:  # noqa: B027
        """What there is to learn from `n x (d + 1)` points and `n` labels."""

    @abstractmethod
    def _probability(self, query: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        """`... x n` of `... x n x (d + 1)` queries."""


class HilbertClassifier(BinaryClassifier):
    """The singular kernel itself; see the module's docstring.

    Args:
        exponent: alpha > 0; d if "dimension", which is consistent as n grows; if "learnt" the best
            of a grid from d / 4 to 3 d by the leave-one-out likelihood, which n points may prefer
            to be less.
        bounds: See `BinaryClassifier`.

    Raises:
        InputError: `exponent` is not positive, or bad bounds.
    """

    def __init__(
        self,
        exponent: float | Literal["dimension", "learnt"] = "learnt",
        bounds: Tensor | None = None,
    ) -> None:
        super().__init__(bounds)
        known = exponent in ("dimension", "learnt")
        if not known and (isinstance(exponent, str) or not 0 < exponent < float("inf")):
            raise InputError(
                f'exponent must be positive, "dimension" or "learnt", got {exponent!r}'
            )
        self.exponent = exponent
        self.alpha: float | None = None

    def _learn(self, z: Tensor, labels: Tensor) -> None:
        d = z.shape[-1] - 1
        if isinstance(self.exponent, float | int):
            self.alpha = float(self.exponent)
        elif self.exponent == "dimension" or len(z) < 3:
            self.alpha = float(d)
        else:
            scores = self.leave_one_out([d * e for e in EXPONENTS])
            self.alpha = d * EXPONENTS[int(scores.argmax())]

    def leave_one_out(self, exponents: list[float]) -> Tensor:
        """Mean log probability of each label given all the others, one number an exponent.

        Probabilities are kept 1 / (2 n) away from 0 and 1: what n labels can tell.

        Args:
            exponents: Values of alpha.

        Raises:
            RunError: The classifier has not been fitted.
        """
        if self._z is None or self._labels is None:
            raise RunError("this HilbertClassifier has not been fitted; call fit(X, y)")
        log_distance = _log_squared_distance(self._z, self._z)
        log_distance.fill_diagonal_(torch.inf)  # its own weight is 0
        labels, margin = self._labels, 0.5 / len(self._labels)
        scores = []
        for alpha in exponents:
            yes = torch.softmax(-0.5 * alpha * log_distance, dim=-1) @ labels
            right = torch.where(labels > 0, yes, 1.0 - yes).clamp(margin, 1.0 - margin)
            scores.append(right.log().mean())
        return torch.stack(scores)

    def _probability(self, query: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        if self.alpha is None:
            raise RunError("this HilbertClassifier has not been fitted; call fit(X, y)")
        return torch.softmax(-0.5 * self.alpha * _log_squared_distance(query, z), dim=-1) @ labels


class DeepKernelClassifier(BinaryClassifier):
    """A Gaussian process with the kernel of a deep network; see the module's docstring.

    Args:
        depth: L, 1 to 10 000; "learnt" is one of `DEPTHS`.
        dual: The activation; of exponent d by default.
        kernel: "nngp" or "ntk".
        noise: Variance of a label about the process, relative to the process's, >= 1e-10; "learnt"
            is one of `NOISES`.
        bounds: See `BinaryClassifier`.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        depth: int | Literal["learnt"] = "learnt",
        dual: Dual | None = None,
        kernel: Literal["nngp", "ntk"] = "nngp",
        noise: float | Literal["learnt"] = "learnt",
        bounds: Tensor | None = None,
    ) -> None:
        super().__init__(bounds)
        if depth != "learnt" and not (isinstance(depth, int) and 1 <= depth <= 10_000):
            raise InputError(f'depth must be in 1..10000, or "learnt", got {depth!r}')
        if kernel not in ("nngp", "ntk"):
            raise InputError(f'kernel must be "nngp" or "ntk", got {kernel!r}')
        if noise != "learnt" and (isinstance(noise, str) or not 1e-10 <= noise < float("inf")):
            raise InputError(f'noise must be at least 1e-10, or "learnt", got {noise!r}')
        self.dual, self.kernel = dual, kernel
        self._depths = DEPTHS if isinstance(depth, str) else (depth,)
        self._noises = NOISES if isinstance(noise, str) else (float(noise),)
        self.depth, self.noise, self.variance = self._depths[0], self._noises[0], 1.0

    def _learn(self, z: Tensor, labels: Tensor) -> None:
        self._dual = self.dual or optimal_dual(z.shape[-1] - 1)
        y = (2.0 * labels - 1.0).unsqueeze(-1)
        noises = torch.tensor(self._noises, dtype=y.dtype, device=y.device)
        found = []
        for depth in self._depths:
            K = self._gram(z, depth)
            values, vectors = torch.linalg.eigh(K)
            power = (vectors.mT @ y).square().squeeze(-1)
            spectrum = values.clamp_min(0.0) + noises.unsqueeze(-1)  # noises x n
            variance = (power / spectrum).mean(dim=-1)  # the best v, given the rest
            evidence = -0.5 * (len(y) * variance.log() + spectrum.log().sum(dim=-1))
            best = int(evidence.argmax())
            found.append((evidence[best].item(), depth, self._noises[best], variance[best].item()))
        _, self.depth, self.noise, self.variance = max(found)
        K = self._gram(z, self.depth)
        K.diagonal().add_(self.noise)
        self._root = psd_safe_cholesky(K)
        self._alpha = torch.cholesky_solve(y, self._root)

    def _gram(self, z: Tensor, depth: int) -> Tensor:
        K = self._log_kernel(z, z, depth).exp()
        K.diagonal().fill_(1.0)
        return K

    def decision_function(self, X: Tensor) -> Tensor:
        """y' K^{-1} k(X, x) up to a positive factor, whose sign is the class at any depth.

        Args:
            X: `... x n x d` inputs.

        Returns:
            `... x n`; k is divided by its largest entry, which may be too small for its type.
        """
        if self._z is None:
            raise RunError("this DeepKernelClassifier has not been fitted; call fit(X, y)")
        log_k = self._log_kernel(self.embed(X), self._z, self.depth)
        k = (log_k - log_k.amax(dim=-1, keepdim=True)).exp()
        return (k @ self._alpha).squeeze(-1).to(X.dtype)

    def predict(self, X: Tensor) -> Tensor:
        """`... x n` labels, bool, by `decision_function`; a tie is a no."""
        return self.decision_function(X) > 0

    def _log_kernel(self, query: Tensor, z: Tensor, depth: int) -> Tensor:
        # The cosine by the distance: exact where it counts, near 1.
        t = (1.0 - 0.5 * _squared_distance(query, z)).clamp(0.0, 1.0)
        if self.kernel == "nngp":
            return log_nngp(self._dual, t, depth)
        return ntk(self._dual, t, depth).clamp_min(torch.finfo(t.dtype).tiny).log()

    def _probability(self, query: Tensor, z: Tensor, labels: Tensor) -> Tensor:
        k = self._log_kernel(query, z, self.depth).exp()
        mean = (k @ self._alpha).squeeze(-1)
        explained = torch.linalg.solve_triangular(self._root, k.mT, upper=False).square()
        variance = (1.0 - explained.sum(dim=-2)).clamp_min(0.0) + self.noise
        return torch.special.ndtr(mean / (self.variance * variance).sqrt())


def _squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """`... x n x m`, by differences: exact for near points, and differentiable at equal ones."""
    return (a.unsqueeze(-2) - b).square().sum(dim=-1)


def _log_squared_distance(a: Tensor, b: Tensor) -> Tensor:
    return (_squared_distance(a, b) + SQUARED_DISTANCE_FLOOR).log()
