"""Unbiased estimates of the gradient of a posterior over network weights, from a part of the data.

With b of n observations drawn without replacement,

    n / b sum_{i in batch} grad log p(y_i | theta) + grad log p(theta)

has the gradient of all data as its expectation (Welling and Teh 2011, equation 3): the likelihood
is scaled up, the prior is not. Each of the K chains has a batch of its own at every call, so that
chains stay independent of each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.networks.posterior import NetworkPosterior


class MinibatchGradient:
    """Random gradients of the log density of all weights, `K x P` to `K x P`.

    Args:
        posterior: Of all data, with a sampled output layer.
        batch_size: b, in 1..n.
        generator: Of the batches; it is advanced at every call.

    Raises:
        InputError: b out of range.
    """

    def __init__(
        self, posterior: NetworkPosterior, batch_size: int, generator: torch.Generator
    ) -> None:
        n = len(posterior.X)
        if type(posterior) is not NetworkPosterior:
            raise InputError(
                "minibatches take a posterior with a sampled output layer, "
                f"got a {type(posterior).__name__}"
            )
        if not 1 <= batch_size <= n:
            raise InputError(f"batch_size must be from 1 to n = {n}, got {batch_size}")
        self.posterior, self.batch_size, self.generator = posterior, batch_size, generator
        noise = _known(posterior)[:0] if posterior.prior is None else posterior.prior
        # The posterior given no data is the prior.
        self.prior = NetworkPosterior(
            posterior.network, posterior.X[:0], posterior.Y[:0], posterior.scales, noise
        )

    def __call__(self, parameters: Tensor) -> Tensor:
        """An estimate of the gradient at `K x P`."""
        n = len(self.posterior.X)
        # The places of the b smallest of n random numbers are b of n without replacement.
        order = torch.rand(
            len(parameters), n, generator=self.generator, device=self.generator.device
        )
        batch = order.topk(self.batch_size, largest=False).indices
        return self.estimate(parameters, batch.to(parameters.device))

    def estimate(self, parameters: Tensor, batch: Tensor) -> Tensor:
        """The estimate from given batches, `K x b` indices."""
        posterior = self.posterior
        X, Y = posterior.X[batch], posterior.Y[batch]
        with torch.enable_grad():
            leaf = parameters.detach().requires_grad_()
            theta, log_variance = posterior.split(leaf)
            square = (Y - posterior.network.forward_each(theta, X)).square()
            if log_variance is None:
                loss = (square / _known(posterior)[batch]).sum()
            else:
                log_variance = log_variance.unsqueeze(-2)
                loss = (square * torch.exp(-log_variance) + log_variance).sum()
            (gradient,) = torch.autograd.grad(loss, leaf)
        _, prior = self.prior(parameters)
        return prior.sub_(gradient, alpha=0.5 * len(posterior.X) / self.batch_size)


def _known(posterior: NetworkPosterior) -> Tensor:
    if posterior.known is None:
        raise InputError("MinibatchGradient: the posterior has neither known variances nor a prior")
    return posterior.known
