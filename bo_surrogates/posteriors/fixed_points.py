"""Joint Gaussian predictions at points that are fixed once, and at others that vary.

Noisy expected improvement asks, at every step of its optimizer, for samples at a few new points
jointly with the same observed ones. With L L' the covariance of the fixed values f_F, and c the
covariance of f_F and f(x), the values at new points are

    f(x) = mean(x) + c' L^-T z + e,   f_F = mean_F + L z,   z ~ N(0, I),
    e ~ N(0, cov(x, x) - (L^-1 c)' (L^-1 c)),

so that only L^-1 c, the coordinates of x, is needed of the fixed points: they are neither predicted
nor factorized again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from botorch.models.transforms.outcome import Standardize
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky

SMALLEST_VARIANCE = 1e-10  # of standardized outcomes; GPyTorch's own, in float64


@dataclass(frozen=True)
class FixedPoints:
    """Of one outcome, standardized; r fixed points.

    Attributes:
        mean: `r`, at the fixed points.
        root: L, `r x r`.
        others: From inputs `batch_shape x q x d` to their means `batch_shape x q`, coordinates
            `batch_shape x q x r`, and covariance given the fixed values, `batch_shape x q x q`.
        offset: Added to a value after it is multiplied by `scale`, for the user's units.
        scale: Positive.
    """

    mean: Tensor
    root: Tensor
    others: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
    offset: Tensor
    scale: Tensor

    def marginals(self, X: Tensor) -> tuple[Tensor, Tensor]:
        """Means and variances in the user's units, `n x 1` each, at `n x d` inputs."""
        mean, coordinates, covariance = self.others(X.unsqueeze(-2))
        variance = covariance.squeeze(-1) + coordinates.square().sum(dim=-1)
        return rescaled_marginals(mean, variance, self.offset, self.scale, X)

    def fixed_samples(self, normal: Tensor) -> Tensor:
        """f_F in the user's units, `k x r`, from standard normal numbers of that shape."""
        return self.offset + self.scale * (self.mean + normal @ self.root.mT)

    def samples(self, X: Tensor, normal: Tensor) -> Tensor:
        """Values at X in the user's units, `k x batch_shape x q`.

        Args:
            X: `batch_shape x q x d` inputs.
            normal: `k x (r + q)` standard normal numbers; the first r are those of
                `fixed_samples`.
        """
        mean, coordinates, covariance = self.others(X)
        fixed, own = normal.to(mean).split([self.mean.shape[-1], X.shape[-2]], dim=-1)
        if covariance.shape[-1] == 1:
            root = covariance.clamp_min(SMALLEST_VARIANCE).sqrt()
        else:
            root = psd_safe_cholesky(covariance)
        values = mean.unsqueeze(-1) + coordinates @ fixed.mT + root @ own.mT
        return (self.offset + self.scale * values).movedim(-1, 0)


def rescaled_marginals(
    mean: Tensor, variance: Tensor, offset: Tensor, scale: Tensor, like: Tensor
) -> tuple[Tensor, Tensor]:
    """Means and variances of standardized outcomes in the user's units, of the dtype of `like`."""
    variance = variance.clamp_min(SMALLEST_VARIANCE) * scale.square()
    return (offset + scale * mean).to(like), variance.to(like)


def positions(X: Tensor, points: Tensor) -> Tensor | None:
    """Where each row of X is among the points, `n`; None unless all are there.

    Args:
        X: `n x d`.
        points: `r x d`.
    """
    rows = {point: i for i, point in enumerate(map(tuple, points.tolist()))}
    found = [rows.get(x, -1) for x in map(tuple, X.tolist())]
    return None if -1 in found else torch.tensor(found, dtype=torch.long, device=X.device)


def scaling(transform: object, like: Tensor) -> tuple[Tensor, Tensor] | None:
    """Offset and scale of one outcome's transform; None if it is not affine.

    Args:
        transform: An outcome transform, or None for none.
        like: The result's dtype and device.
    """
    if transform is None:
        return like.new_zeros(()), like.new_ones(())
    if not isinstance(transform, Standardize):
        return None
    means, stdvs = torch.as_tensor(transform.means), torch.as_tensor(transform.stdvs)
    return means.reshape(()).to(like), stdvs.reshape(()).to(like)
