"""The posterior over network weights as a Pyro model, sampled by its no-U-turn sampler.

The slow reference. `network_model` writes the model of `networks.posterior.NetworkPosterior` in
Pyro's words, a sample site for each layer's weights, for its biases, and for the log variances;
`NoUTurn` runs Pyro's NUTS (Hoffman and Gelman 2014, arXiv 1111.4246) on it with a diagonal mass
matrix, one chain after the other, each adapted by itself. It shares no code with our sampler but
the data, so that agreement of the two means something. It takes hundreds to thousands of times as
long (`python -m benchmarks.hmc`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyro
import torch
from botorch.exceptions.errors import UnsupportedError
from pyro.distributions import HalfCauchy, Normal, TorchDistribution, TransformedDistribution
from pyro.infer import MCMC, NUTS
from pyro.infer.mcmc.util import initialize_model
from torch import Tensor
from torch.distributions.transforms import AffineTransform, ExpTransform

from bo_surrogates.networks import ACTIVATIONS
from bo_surrogates.networks.noise_priors import HalfCauchyNoisePrior, LogNoisePrior, NoisePrior
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.networks.sampling import Chains, Run
from bo_surrogates.seeding import fixed_seed

LOG_VARIANCE = "log_variance"


def network_model(posterior: NetworkPosterior) -> Callable[[], None]:
    """The Pyro model with the density of a `NetworkPosterior` (output layer sampled).

    Sites: `weight_l` (`in x out`) and `bias_l` (`out`) of each layer l, `log_variance` (`m`) where
    the noise is inferred, and the observed `Y`.
    """
    network, prior = posterior.network, posterior.prior
    scales, _ = posterior.split(posterior.scales.unsqueeze(0))
    layers = [(layer.weight[0], layer.bias[0, 0]) for layer in network.unpack(scales)]
    activation = ACTIVATIONS[network.activation]

    def model() -> None:
        h = posterior.X
        for i, (weight_scale, bias_scale) in enumerate(layers):
            zero = torch.zeros_like
            weight = pyro.sample(
                f"weight_{i}", Normal(zero(weight_scale), weight_scale).to_event(2)
            )
            bias = pyro.sample(f"bias_{i}", Normal(zero(bias_scale), bias_scale).to_event(1))
            h = h @ weight + bias
            if i < network.depth:
                h = activation(h)
        if posterior.known is not None:
            variance = posterior.known
        elif prior is not None:
            log_variance = pyro.sample(LOG_VARIANCE, _log_variance(prior, posterior.Y).to_event(1))
            variance = log_variance.exp()
        pyro.sample("Y", Normal(h, variance.sqrt()).to_event(2), obs=posterior.Y)

    return model


def _log_variance(prior: NoisePrior, Y: Tensor) -> TorchDistribution:
    """A prior of log variances, for each output."""
    like = Y[0]
    if isinstance(prior, LogNoisePrior):
        return Normal(torch.full_like(like, prior.mean), torch.full_like(like, prior.std))
    if isinstance(prior, HalfCauchyNoisePrior):
        transforms = [ExpTransform().inv, AffineTransform(0.0, 2.0)]
        return TransformedDistribution(HalfCauchy(torch.full_like(like, prior.scale)), transforms)
    raise UnsupportedError(f"no Pyro distribution is known for the noise prior {prior!r}")


def to_sites(posterior: NetworkPosterior, parameters: Tensor) -> dict[str, Tensor]:
    """Values `K x ...` of the model's sites, from parameters `K x num_parameters`."""
    theta, log_variance = posterior.split(parameters)
    sites: dict[str, Tensor] = {}
    for i, layer in enumerate(posterior.network.unpack(theta)):
        sites |= {f"weight_{i}": layer.weight, f"bias_{i}": layer.bias.squeeze(-2)}
    return sites if log_variance is None else sites | {LOG_VARIANCE: log_variance}


def from_sites(posterior: NetworkPosterior, sites: Mapping[str, Tensor]) -> Tensor:
    """Inverse of `to_sites`."""
    order = [
        f"{kind}_{i}" for i in range(posterior.network.depth + 1) for kind in ("weight", "bias")
    ]
    order += [] if posterior.prior is None else [LOG_VARIANCE]
    return torch.cat([sites[name].flatten(start_dim=1) for name in order], dim=-1)


@dataclass(frozen=True)
class NoUTurn:
    """Pyro's no-U-turn sampler, with the call of `networks.sampling.Sampler`.

    Attributes:
        posterior: Of the networks, output layer sampled.
        points: `q x d` network inputs at which predictions are watched.
        max_leapfrog: Leapfrog steps in a transition at most; a tree has fewer than twice as many
            nodes as the largest power of 2 below it.
        target_acceptance: Of the step size's adaptation.
    """

    posterior: NetworkPosterior
    points: Tensor
    max_leapfrog: int
    target_acceptance: float

    def __call__(
        self, generator: torch.Generator, chains: Chains, warmup: int, samples: int, draws: int
    ) -> Run:
        """Warm up and sample; see `networks.sampling.Sampler.__call__`.

        Each chain adapts a step size and a mass matrix of its own; the step size returned is their
        mean.
        """
        posterior, K = self.posterior, len(chains.position)
        seeds = torch.randint(2**31 - 1, (K,), generator=generator).tolist()
        runs = [
            self._chain(seed, start.unsqueeze(0), chains.step_size, warmup, samples)
            for seed, start in zip(seeds, chains.position, strict=True)
        ]
        position = torch.stack([run.draws for run in runs])  # K x samples x num_parameters
        kept_steps = -(-draws // K)
        kept = [samples * (i + 1) // kept_steps - 1 for i in range(kept_steps)]
        weights, noise = posterior.networks(
            position[:, kept].transpose(0, 1).flatten(end_dim=1), generator
        )
        predictions = torch.stack(
            [
                posterior.network.forward(posterior.networks(q, generator)[0], self.points)
                for q in position.unbind(dim=1)
            ],
            dim=1,
        ).flatten(start_dim=2)
        return Run(
            Chains(position[:, -1], sum(run.step_size for run in runs) / K, chains.metric),
            weights[-draws:], noise[-draws:], predictions,
            sum(run.acceptance for run in runs) / K, sum(run.divergences for run in runs),
            sum(run.gradients for run in runs),
        )  # fmt: skip

    def _chain(
        self, seed: int, start: Tensor, step_size: float, warmup: int, samples: int
    ) -> _Chain:
        with fixed_seed(seed):
            pyro.clear_param_store()
            first = {k: v[0] for k, v in to_sites(self.posterior, start).items()}
            _, potential, transforms, _ = initialize_model(
                network_model(self.posterior), initial_params=first, jit_compile=True,
                skip_jit_warnings=True,
            )  # fmt: skip
            gradients = 0

            def counted(values: dict[str, Tensor]) -> Tensor:
                nonlocal gradients
                gradients += 1
                return potential(values)

            kernel = NUTS(
                potential_fn=counted, transforms=transforms, step_size=step_size or 0.1,
                target_accept_prob=self.target_acceptance,
                max_tree_depth=max(1, int(math.log2(self.max_leapfrog))),
            )  # fmt: skip
            sampler = MCMC(
                kernel, num_samples=samples, warmup_steps=warmup, initial_params=first,
                disable_progbar=True,
            )  # fmt: skip
            sampler.run()
            sites, diagnostics = sampler.get_samples(), sampler.diagnostics()
        return _Chain(
            from_sites(self.posterior, sites),
            float(kernel.step_size),
            float(diagnostics["acceptance rate"]["chain 0"]),
            len(diagnostics["divergences"]["chain 0"]),
            gradients,
        )


@dataclass(frozen=True)
class _Chain:
    """One chain: `samples x num_parameters` draws, and how it went."""

    draws: Tensor
    step_size: float
    acceptance: float
    divergences: int
    gradients: int
