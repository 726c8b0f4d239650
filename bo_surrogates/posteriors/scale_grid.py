"""A scale mixture of Gaussians whose scale has a discrete law: f = loc + s L z, s on K nodes.

Joint samples have one s at all points, drawn by inversion of its distribution function. All
marginal distributions are finite mixtures of centred normal distributions, exactly.
"""

from __future__ import annotations

import torch
from botorch.acquisition.analytic import _log_ei_helper
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.posteriors.scale_mixture import ScaleMixturePosterior

_BISECTIONS = 64


class ScaleGridPosterior(ScaleMixturePosterior):
    """See the module's docstring.

    Args:
        loc: `batch_shape x q x m` locations, in units of the outcomes.
        scale_matrix: `batch_shape x m x q x q` covariances at s = 1, in squared units of `unit`.
        log_scale: `... x m x K`, log s^2; the dots are the last dimensions of `batch_shape`, of
            laws that differ between t-batches (none, as a rule).
        log_weight: As `log_scale`: log probabilities, of sum 1.
        unit: See `ScaleMixturePosterior`.
        shared_scale: See `ScaleMixturePosterior`.

    Raises:
        InputError: Shapes do not match.
    """

    def __init__(
        self,
        loc: Tensor,
        scale_matrix: Tensor,
        log_scale: Tensor,
        log_weight: Tensor,
        unit: Tensor | None = None,
        shared_scale: bool = False,
    ) -> None:
        super().__init__(loc, scale_matrix, unit, shared_scale)
        m = loc.shape[-1]
        if log_scale.shape != log_weight.shape or log_scale.shape[-2:-1] != (m,):
            raise InputError(
                f"log_scale and log_weight must both have shape ... x {m} x K, got "
                f"{tuple(log_scale.shape)} and {tuple(log_weight.shape)}"
            )
        self.log_scale, self.log_weight = log_scale.to(loc), log_weight.to(loc)

    def with_parts(
        self, loc: Tensor, scale_matrix: Tensor, unit: Tensor, outputs: list[int]
    ) -> ScaleGridPosterior:
        """See `ScaleMixturePosterior`."""
        return ScaleGridPosterior(
            loc,
            scale_matrix,
            self.log_scale[..., outputs, :],
            self.log_weight[..., outputs, :],
            unit,
            self.shared_scale,
        )

    def _nodes(self) -> tuple[Tensor, Tensor]:
        """log s and log probabilities, to be broadcast with `batch_shape x q x m x K`."""
        return self.log_scale.unsqueeze(-3) / 2, self.log_weight.unsqueeze(-3)

    @property
    def mean_square_scale(self) -> Tensor:
        """The mean of s^2; see `ScaleMixturePosterior`."""
        log_s, log_w = self._nodes()
        return (2 * log_s + log_w).logsumexp(dim=-1).exp()

    def standard_log_density(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        log_s, log_w = self._nodes()
        normal = torch.distributions.Normal(0.0, log_s.exp())
        return (log_w + normal.log_prob(z.unsqueeze(-1))).logsumexp(dim=-1)

    def standard_cdf(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`."""
        log_s, log_w = self._nodes()
        return (log_w.exp() * torch.special.ndtr(z.unsqueeze(-1) / log_s.exp())).sum(dim=-1)

    def standard_quantile(self, levels: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`; by bisection between the narrowest and the widest normal."""
        log_s, log_w = (x.detach().double() for x in self._nodes())
        between = [1] * self.loc.ndim
        p = levels.detach().double().reshape(*levels.shape, *between)
        tail = torch.minimum(p, 1 - p)
        widest = -torch.special.ndtri(tail)  # minus the quantile at s = 1
        s, w = log_s.exp(), log_w.exp()
        low, high = (widest * s.amin(dim=-1)), (widest * s.amax(dim=-1))
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            beyond = (w * torch.special.ndtr(-middle.unsqueeze(-1) / s)).sum(dim=-1) > tail
            low, high = middle.where(beyond, low), high.where(beyond, middle)
        z = (low + high) / 2
        return torch.where(p < 0.5, -z, z).to(self.loc)

    def log_improvement(self, z: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`: the sum over nodes of w s h(z / s), h that of a normal.

        Its tail is that of the widest normal distribution, beyond what the nodes resolve.
        """
        log_s, log_w = self._nodes()
        terms = log_w + log_s + _log_ei_helper(z.unsqueeze(-1) / log_s.exp())
        return terms.logsumexp(dim=-1)

    def scale_multiplier(self, normal: Tensor) -> Tensor:
        """See `ScaleMixturePosterior`: the quantile of s at the normal numbers' levels."""
        m = normal.shape[-1]
        log_s, log_w = (x.detach()[..., :m, :] for x in self._nodes())
        # Entries repeated by `expand` (t-batches share base samples) are computed once.
        few = normal[tuple(slice(0, 1) if s == 0 else slice(None) for s in normal.stride())]
        edges = log_w.double().exp().cumsum(dim=-1)[..., :-1]
        node = (torch.special.ndtr(few.double()).unsqueeze(-1) > edges).sum(dim=-1)
        nodes = log_s.expand(*node.shape, log_s.shape[-1])
        chosen = nodes.gather(-1, node.unsqueeze(-1)).squeeze(-1)
        return (chosen.exp()).to(normal).expand(torch.broadcast_shapes(chosen.shape, normal.shape))
