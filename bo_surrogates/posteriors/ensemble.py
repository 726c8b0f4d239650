"""The posterior of an ensemble of functions, with observation noise.

A member is a function drawn from (an approximation of) the posterior. The predictive distribution
is the mixture p(y | x) = sum_s w_s delta(y - f_s(x)), or with observation noise
p(y | x) = sum_s w_s N(y; f_s(x), v_s(x)). BoTorch's `EnsemblePosterior` has the former; this adds
noise, exact quantiles and densities, and a sampler for sample average approximation in which a
sample is one member at all points and in all t-batches.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from botorch.exceptions.errors import UnsupportedError
from botorch.posteriors.ensemble import EnsemblePosterior
from botorch.posteriors.posterior import Posterior
from botorch.sampling.base import MCSampler
from botorch.sampling.get_sampler import GetSampler
from torch import Tensor
from torch.quasirandom import SobolEngine

from bo_surrogates.errors import InputError

_BISECTIONS = 60  # halves the bracket of a quantile to 1e-18 of its width


class EnsembleMixturePosterior(EnsemblePosterior):
    """An ensemble of functions as a mixture, noise-free or with Gaussian observation noise.

    Args:
        values: `batch_shape x s x q x m` values of s members.
        noise_variance: Variance of the observation noise, broadcastable to `values`; None for the
            noise-free functions.
        weights: `s` weights of the members, equal if None.

    Raises:
        InputError: `noise_variance` cannot be broadcast to `values`.
    """

    def __init__(
        self, values: Tensor, noise_variance: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        super().__init__(values, weights)
        if noise_variance is not None:
            try:
                noise_variance = noise_variance.to(values).expand_as(values)
            except RuntimeError:
                raise InputError(
                    f"noise_variance of shape {tuple(noise_variance.shape)} cannot be broadcast to "
                    f"the values' shape {tuple(values.shape)} (batch_shape x s x q x m)"
                ) from None
        self.noise_variance = noise_variance

    @property
    def variance(self) -> Tensor:
        """`batch_shape x q x m`: mean noise variance plus variance between members.

        This is the law of total variance. The variance between members is BoTorch's, the unbiased
        estimate for reliability weights (divisor s - 1 where they are equal), because members are
        draws from a posterior; one member has none.
        """
        return self._with_noise(super().variance, self.weights[..., None, None], [-3])

    @property
    def mixture_variance(self) -> Tensor:
        """`q x m`: as `variance`, with the batch as part of the mixture (read by Ax)."""
        if self.mixture_size == 1:
            between = torch.zeros_like(self.mixture_mean)  # BoTorch's formula is 0 / 0 here
        else:
            between = super().mixture_variance
        return self._with_noise(
            between, self.mixture_weights[..., None, None], list(self.mixture_dims)
        )

    def _with_noise(self, between: Tensor, weights: Tensor, dims: list[int]) -> Tensor:
        if self.noise_variance is None:
            return between
        return between + (weights * self.noise_variance).sum(dim=dims)

    def scalarize(self, weights: Tensor, offset: float | Tensor = 0.0) -> EnsembleMixturePosterior:
        """The posterior of `offset + Y @ weights`: exact, member by member.

        Args:
            weights: `m` weights of the outputs.
            offset: Added to the sum.

        Returns:
            A posterior with one output. Noise is independent between outputs.
        """
        weights = weights.to(self.values)
        noise = self.noise_variance
        return EnsembleMixturePosterior(
            (self.values @ weights).unsqueeze(-1) + offset,
            None if noise is None else (noise @ weights.square()).unsqueeze(-1),
            self._weights,
        )

    # ---- marginal distributions --------------------------------------------------------------
    def quantile(self, value: Tensor) -> Tensor:
        """Exact marginal quantiles of the mixture.

        Noise-free, this is the generalized inverse of the members' distribution function,
        inf{y: F(y) >= p}: always the value of a member. With noise it is the root of the Gaussian
        mixture's distribution function, bracketed by the members' own quantiles and found by
        bisection; gradients are those of the implicit function.

        Args:
            value: Levels in (0, 1), of any shape.

        Returns:
            `value.shape x batch_shape x q x m`.
        """
        levels = value.to(self.values).reshape(-1)
        shape = value.shape + self._extended_shape()
        if self.noise_variance is None:
            order = self.values.sort(dim=-3)
            cumulative = self.weights.expand_as(self.values.movedim(-3, -1)).movedim(-1, -3)
            cumulative = cumulative.gather(-3, order.indices).cumsum(dim=-3)
            # A level that is a sum of weights up to rounding belongs to the lower member.
            slack = 4 * torch.finfo(self.dtype).eps
            results = [
                order.values.gather(
                    -3,
                    (cumulative < p - slack).sum(dim=-3, keepdim=True).clamp_max(
                        self.ensemble_size - 1
                    ),
                ).squeeze(-3)
                for p in levels
            ]  # fmt: skip
        else:
            results = [self._gaussian_mixture_quantile(p) for p in levels]
        return torch.stack(results).reshape(shape)

    def _gaussian_mixture_quantile(self, p: Tensor) -> Tensor:
        scale = self._noise_scale()
        with torch.no_grad():
            ends = self.values + scale * torch.special.ndtri(p)
            low, high = ends.amin(dim=-3), ends.amax(dim=-3)
            for _ in range(_BISECTIONS):
                middle = 0.5 * (low + high)
                below = self.cdf(middle) < p
                low, high = torch.where(below, middle, low), torch.where(below, high, middle)
            root = 0.5 * (low + high)
            slope = self.density(root).clamp_min(torch.finfo(self.dtype).tiny)
        if not self.values.requires_grad:
            return root
        # F(root; f, v) = p at every f and v: d root = - dF / F'(root).
        cdf = self.cdf(root)
        return root - (cdf - cdf.detach()) / slope

    def cdf(self, value: Tensor) -> Tensor:
        """Marginal distribution function at `value`, broadcastable to `batch_shape x q x m`.

        Returns:
            P(y <= value), of the broadcast shape.
        """
        deviation = value.unsqueeze(-3) - self.values
        if self.noise_variance is None:
            below = (deviation >= 0).to(self.values)
        else:
            below = torch.special.ndtr(deviation / self._noise_scale())
        return (self.weights[..., None, None] * below).sum(dim=-3)

    def log_density(self, value: Tensor) -> Tensor:
        """Log of the marginal density of observations.

        Args:
            value: Observations, broadcastable to `batch_shape x q x m`.

        Returns:
            Log densities, in 1 / units of the outcome, of the broadcast shape.

        Raises:
            UnsupportedError: The posterior is noise-free: a discrete distribution has no density.
        """
        if self.noise_variance is None:
            raise UnsupportedError(
                "a noise-free ensemble is a discrete distribution and has no density; ask for the "
                "posterior with observation_noise=True"
            )
        scale = self._noise_scale()
        z = (value.unsqueeze(-3) - self.values) / scale
        log_normal = -0.5 * z.square() - scale.log() - 0.5 * math.log(2 * math.pi)
        return (self.weights.log()[..., None, None] + log_normal).logsumexp(dim=-3)

    def density(self, value: Tensor) -> Tensor:
        """Exponential of `log_density`."""
        return self.log_density(value).exp()

    def _noise_scale(self) -> Tensor:
        if self.noise_variance is None:
            return torch.zeros_like(self.values)
        return self.noise_variance.clamp_min(torch.finfo(self.dtype).tiny).sqrt()

    # ---- samples -----------------------------------------------------------------------------
    def rsample(self, sample_shape: torch.Size | None = None) -> Tensor:
        """Samples by torch's global generator, independent between t-batches.

        Args:
            sample_shape: Shape of the sample; one sample if None or empty.

        Returns:
            `sample_shape x batch_shape x q x m`.
        """
        shape = torch.Size(sample_shape) if sample_shape else torch.Size([1])
        if self.values.numel() == 0:
            return self.values.new_empty(self._extended_shape(shape))
        count = (shape + self.batch_shape).numel()
        members = torch.multinomial(self.weights, count, replacement=True)
        normals = None
        if self.noise_variance is not None:
            normals = torch.randn(self._extended_shape(shape), dtype=self.dtype, device=self.device)
        return self.rsample_from_base_samples(
            shape, members.reshape(shape + self.batch_shape), normals
        )

    def rsample_from_base_samples(
        self, sample_shape: torch.Size, base_samples: Tensor, base_normals: Tensor | None = None
    ) -> Tensor:
        """Samples as a deterministic, differentiable function of base samples.

        Args:
            sample_shape: Shape of the sample.
            base_samples: Indices of members, `sample_shape` (the same member in all t-batches) or
                `sample_shape x batch_shape`.
            base_normals: Standard normal numbers for the observation noise, broadcastable to
                `sample_shape x batch_shape x q x m`; needed if and only if there is noise.

        Returns:
            `sample_shape x batch_shape x q x m`.

        Raises:
            InputError: The shapes do not match, or the normal numbers are missing.
        """
        if (self.noise_variance is None) != (base_normals is None):
            raise InputError(
                "base_normals are needed where the posterior has observation noise, only there: "
                "use the sampler that get_sampler returns"
            )
        samples = self._members(self.values, sample_shape, base_samples)
        if self.noise_variance is None or base_normals is None:
            return samples
        variance = self._members(self.noise_variance, sample_shape, base_samples)
        return samples + variance.sqrt() * base_normals

    def _members(self, tensor: Tensor, sample_shape: torch.Size, index: Tensor) -> Tensor:
        """Entries of a `batch_shape x s x q x m` tensor by member."""
        lead = len(sample_shape)
        if index.shape == sample_shape:  # shared by all t-batches
            first = tensor.movedim(-3, 0)
            return first[index]
        if index.shape != sample_shape + self.batch_shape:
            raise InputError(
                f"base_samples must have shape {tuple(sample_shape)} or "
                f"{tuple(sample_shape + self.batch_shape)}, got {tuple(index.shape)}"
            )
        full = tensor.expand(*sample_shape, *tensor.shape)
        where = index[..., None, None, None].expand(*index.shape, 1, *tensor.shape[-2:])
        return full.gather(lead + len(self.batch_shape), where).squeeze(-3)


class EnsembleSampler(MCSampler):
    """Fixed base samples of an `EnsembleMixturePosterior` for sample average approximation.

    The member of each sample depends on the seed and the sample shape alone, so that a sample is
    the same function wherever and together with whatever points it is evaluated; a t-batch does
    not change another's value. Members are drawn systematically (each appears as often as its
    weight says, to within one) in random order, and the noise is a scrambled Sobol sequence: lower
    variance than independent draws at the same cost.

    Args:
        sample_shape: Shape of the sample.
        seed: Of the base samples; drawn from torch's global generator if None.
    """

    base_samples: Tensor | None
    base_normals: Tensor | None

    def __init__(self, sample_shape: torch.Size, seed: int | None = None, **_: Any) -> None:
        super().__init__(sample_shape, seed=seed)
        self.register_buffer("base_normals", None)

    def forward(self, posterior: Posterior) -> Tensor:
        """`sample_shape x batch_shape x q x m` samples; see `Posterior.rsample`."""
        if not isinstance(posterior, EnsembleMixturePosterior):
            raise InputError(
                "EnsembleSampler draws from an EnsembleMixturePosterior, "
                f"got a {type(posterior).__name__}"
            )
        members = self.members(posterior)
        normals = self.base_normals
        if normals is not None:
            between = [1] * len(posterior.batch_shape)
            normals = normals.reshape(*self.sample_shape, *between, *normals.shape[-2:])
        return posterior.rsample_from_base_samples(self.sample_shape, members, normals)

    def members(self, posterior: EnsembleMixturePosterior) -> Tensor:
        """Index of each sample's member, `sample_shape`; drawn when it is first asked for."""
        return self._construct_base_samples(posterior)

    def _construct_base_samples(self, posterior: EnsembleMixturePosterior) -> Tensor:
        """Fill what is missing of the base samples; the indices of members are returned."""
        count = self.sample_shape.numel()
        generator = torch.Generator().manual_seed(self.seed)
        chosen = self.base_samples
        if chosen is None or chosen.device != posterior.device:
            order = torch.randperm(count, generator=generator)
            offset = torch.rand((), generator=generator, dtype=torch.float64)
            points = (order + offset) / count  # one in each of `count` equal parts of (0, 1)
            edges = posterior.weights.detach().to("cpu", torch.float64).cumsum(dim=0)
            members = torch.searchsorted(edges, points, right=True)
            members = members.clamp_max(posterior.ensemble_size - 1)
            chosen = members.reshape(self.sample_shape).to(posterior.device)
            self.base_samples = chosen
        if posterior.noise_variance is None:
            self.base_normals = None
            return chosen
        event = posterior.values.shape[-2:]
        old = self.base_normals
        if old is None or old.shape[-2:] != event or old.device != posterior.device:
            if event.numel() <= SobolEngine.MAXDIM:
                engine = SobolEngine(event.numel(), scramble=True, seed=self.seed)
                uniform = engine.draw(count, dtype=torch.float64)
                # 0 and 1 occur and have no finite normal quantile.
                normals = torch.special.ndtri(uniform.clamp(1e-10, 1 - 1e-10))
            else:
                normals = torch.randn(
                    count, event.numel(), generator=generator, dtype=torch.float64
                )
            self.base_normals = normals.reshape(self.sample_shape + event).to(posterior.values)
        return chosen

    def _update_base_samples(self, posterior: Posterior, base_sampler: MCSampler) -> None:
        """Nothing to do: a sample's member does not depend on the points (see the class)."""


@GetSampler.register(EnsembleMixturePosterior)
def _get_ensemble_sampler(
    posterior: EnsembleMixturePosterior, sample_shape: torch.Size, *, seed: int | None = None
) -> MCSampler:
    return EnsembleSampler(sample_shape, seed=seed)
