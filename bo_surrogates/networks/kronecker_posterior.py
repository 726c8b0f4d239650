"""Posteriors over weights that take the layers apart: Kronecker-factored, and of the last layer.

In a layer with inputs h (whitened by the prior: scaled by the prior standard deviations, with one
more entry for the bias) and backpropagated derivatives delta, the generalized Gauss-Newton matrix
of a Gaussian likelihood is sum_ic (h_i h_i') x (delta_ic delta_ic' / v_ic), x the Kronecker
product.

- `Kronecker`: products between layers are dropped, and the sum of products becomes a product of
  sums, A x B with A = sum_i h_i h_i' and B = sum_ic delta_ic delta_ic' / (n v_ic) (Martens and
  Grosse 2015, arXiv 1503.05671; Ritter et al. 2018, "A scalable Laplace approximation for neural
  networks"; with linearized predictions, Immer et al. 2021, arXiv 2008.08217). The prior is added
  exactly, in the eigenbases of A and B. Exact for one observation of one outcome and one layer.
- `LastLayer`: hidden weights are held. Each output is Bayesian linear regression on the last hidden
  units, exact, p x p with p = width + 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from botorch.exceptions.errors import UnsupportedError
from torch import Tensor

from bo_surrogates.inference.cholesky import psd_safe_cholesky
from bo_surrogates.inference.linear_regression import inverse_triangular, standard_normal
from bo_surrogates.networks import Layer
from bo_surrogates.networks.linearization import Linearization
from bo_surrogates.networks.linearized_posterior import WeightPrior


def _whitened_inputs(at: Linearization, prior: WeightPrior, layer: int) -> Tensor:
    """`batch_shape x n x (in + 1)`: h and 1, times prior standard deviations."""
    weight, bias = prior.variances[2 * layer].sqrt(), prior.variances[2 * layer + 1].sqrt()
    h = at.inputs[layer]
    return torch.cat([weight * h, bias.expand(*h.shape[:-1], 1)], dim=-1)


def _deltas(at: Linearization, layer: int) -> Tensor:
    """`batch_shape x n m x out`."""
    m = at.values.shape[-1]
    if layer < len(at.deltas):
        return at.deltas[layer].flatten(start_dim=-3, end_dim=-2)
    return torch.eye(m).to(at.values).expand(*at.values.shape, m).flatten(-3, -2)


@dataclass(frozen=True)
class Factors:
    """Posterior of one layer's whitened weights, `(in + 1) x out`.

    Attributes:
        inputs: Eigenvectors of A, `(in + 1) x (in + 1)`.
        outputs: Eigenvectors of B, `out x out`.
        variance: `(in + 1) x out` variances in these eigenbases.
    """

    inputs: Tensor
    outputs: Tensor
    variance: Tensor


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker-factored posterior around the weights where the network is linearized.

    Attributes:
        prior: Of the weights.
        mode: `P` weights, the mean.
        factors: Of each layer.
    """

    prior: WeightPrior
    mode: Tensor
    factors: tuple[Factors, ...]

    @classmethod
    def of(
        cls, observed: Linearization, prior: WeightPrior, targets: Tensor, noise: Tensor
    ) -> Kronecker:
        """Condition the prior; arguments as for `FunctionSpace.of`.

        The targets do not matter: the mean is where the network is linearized.
        """
        factors = []
        for layer in range(len(observed.inputs)):
            h, delta = _whitened_inputs(observed, prior, layer), _deltas(observed, layer)
            A = h.mT @ h
            B = delta.mT @ (delta / noise.reshape(-1, 1)) / len(targets)
            (a, U), (b, V) = torch.linalg.eigh(A), torch.linalg.eigh(B)
            precision = 1.0 + a.clamp_min(0.0).unsqueeze(-1) * b.clamp_min(0.0)
            factors.append(Factors(U, V, precision.reciprocal()))
        return cls(prior, observed.theta, tuple(factors))

    @property
    def batch_shape(self) -> torch.Size:
        """Empty."""
        return torch.Size()

    @property
    def mean_weights(self) -> Tensor:
        """See `LinearizedPosterior`."""
        return self.mode

    def joint(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """See `LinearizedPosterior`."""
        m = at.values.shape[-1]
        covariance: Tensor | float = 0.0
        for layer, (U, V, variance) in enumerate(
            (f.inputs, f.outputs, f.variance) for f in self.factors
        ):
            h = (_whitened_inputs(at, self.prior, layer) @ U).repeat_interleave(m, dim=-2)
            delta = _deltas(at, layer) @ V
            # For each pair of values: sum_ij h_i h'_i variance_ij delta_j delta'_j. A pair's
            # vectors are shorter than one value's features, (in + 1) out.
            pairs = h.unsqueeze(-2) * h.unsqueeze(-3)
            others = delta.unsqueeze(-2) * delta.unsqueeze(-3)
            covariance = covariance + ((pairs @ variance) * others).sum(dim=-1)
        return at.values.flatten(start_dim=-2), torch.as_tensor(covariance)

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """See `LinearizedPosterior`."""
        network = self.prior.network
        scale = network.unpack(self.prior.diagonal.sqrt().unsqueeze(0))
        layers = []
        for f, prior in zip(self.factors, scale, strict=True):
            normal = standard_normal((k, *f.variance.shape), f.variance, generator)
            white = f.inputs @ (f.variance.sqrt() * normal) @ f.outputs.mT
            layers.append(Layer(prior.weight * white[:, :-1], prior.bias * white[:, -1:]))
        return self.mode + network.pack(layers)

    def extend(self, at: Linearization, targets: Tensor, noise: Tensor) -> Kronecker:
        """Not available.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(
            "a Kronecker-factored posterior cannot be conditioned on new observations exactly; "
            "use structure='full' or 'last-layer', or build the model again on all data with "
            "warm_start=model"
        )


@dataclass(frozen=True)
class LastLayer:
    """Bayesian linear regression of each output on the last hidden units.

    Attributes:
        prior: Of the weights; those of hidden layers are not used.
        hidden: `P` weights of the network, of which the hidden layers' are kept.
        inverse_root: R^-1, `batch_shape x m x p x p`, with R R' = I + Phi' N_c^-1 Phi for each
            output c and whitened features Phi.
        whitened: R^-1 Phi' N_c^-1 r_c, `... x m x p`.
    """

    prior: WeightPrior
    hidden: Tensor
    inverse_root: Tensor
    whitened: Tensor

    @classmethod
    def of(
        cls, observed: Linearization, prior: WeightPrior, targets: Tensor, noise: Tensor
    ) -> LastLayer:
        """Condition the prior; arguments as for `FunctionSpace.of`."""
        m, p = observed.values.shape[-1], observed.inputs[-1].shape[-1] + 1
        eye = torch.eye(p, dtype=targets.dtype, device=targets.device).expand(m, p, p)
        empty = cls(prior, observed.theta, eye, targets.new_zeros(m, p))
        return empty.extend(observed, targets, noise)

    @property
    def batch_shape(self) -> torch.Size:
        """Of the observations: empty unless the model was conditioned on batches of them."""
        return self.whitened.shape[:-2]

    @property
    def mean_weights(self) -> Tensor:
        """See `LinearizedPosterior`."""
        return self._weights(self.whitened.unsqueeze(0)).squeeze(0)

    def _weights(self, white: Tensor) -> Tensor:
        """`k x P` weights from `k x m x p` whitened weights of the last layer."""
        network = self.prior.network
        change = (self.inverse_root.mT @ white.unsqueeze(-1)).squeeze(-1).mT  # k x p x m
        kept = self.hidden.expand(len(white), -1)
        prior = network.unpack(self.prior.mean.unsqueeze(0))[-1]
        scale = network.unpack(self.prior.diagonal.sqrt().unsqueeze(0))[-1]
        *hidden, _ = network.unpack(kept)
        last = Layer(
            prior.weight + scale.weight * change[:, :-1], prior.bias + scale.bias * change[:, -1:]
        )
        return network.pack([*hidden, last])

    def _features(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """Means `batch_shape x m x n` of the prior, whitened features `batch_shape x m x n x p`."""
        layer = len(at.inputs) - 1
        last = self.prior.network.unpack(self.prior.mean.unsqueeze(0))[-1]
        mean = at.inputs[-1] @ last.weight.squeeze(0) + last.bias.squeeze(0)
        phi = _whitened_inputs(at, self.prior, layer).unsqueeze(-3)
        return mean.mT, phi @ self.inverse_root.mT

    def joint(self, at: Linearization) -> tuple[Tensor, Tensor]:
        """See `LinearizedPosterior`; outputs are independent."""
        prior, psi = self._features(at)
        mean = prior + (psi @ self.whitened.unsqueeze(-1)).squeeze(-1)
        blocks = psi @ psi.mT  # ... x m x q x q
        m, q = blocks.shape[-3], blocks.shape[-1]
        if m == 1:
            return mean.squeeze(-2), blocks.squeeze(-3)
        eye = torch.eye(m).to(blocks)
        grid = torch.einsum("...cab,ce->...acbe", blocks, eye)
        return mean.mT.flatten(start_dim=-2), grid.reshape(*grid.shape[:-4], q * m, q * m)

    def draw(self, k: int, generator: torch.Generator) -> Tensor:
        """See `LinearizedPosterior`."""
        normal = standard_normal((k, *self.whitened.shape), self.whitened, generator)
        return self._weights(self.whitened + normal)

    def extend(self, at: Linearization, targets: Tensor, noise: Tensor) -> LastLayer:
        """See `LinearizedPosterior`: the recursive least-squares update, a block at a time."""
        prior, psi = self._features(at)
        noise = noise.expand(*at.batch_shape, *targets.shape[-2:]).mT
        weighted = psi / noise.unsqueeze(-1)
        eye = torch.eye(psi.shape[-1], dtype=psi.dtype, device=psi.device)
        # In coordinates whitened by the posterior so far, that is the prior.
        W_new = inverse_triangular(psd_safe_cholesky(eye + psi.mT @ weighted))
        residual = (targets.mT - prior).unsqueeze(-1)
        pulled = (weighted.mT @ residual).squeeze(-1) + self.whitened
        whitened = (W_new @ pulled.unsqueeze(-1)).squeeze(-1)
        return LastLayer(self.prior, self.hidden, W_new @ self.inverse_root, whitened)
