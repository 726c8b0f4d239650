"""A network as a linear model in its weights: values, Jacobians and their products, by hand.

Around the weights theta*, f(x; theta) = f(x; theta*) + J(x) (theta - theta*) + ..., where J(x) is
the m x P matrix of derivatives. Of a layer with inputs h (those of layer l), outputs a = h W + b
and backpropagated derivatives delta_c = d f_c / d a, the Jacobian is an outer product,

    d f_c / d W_ij = h_i delta_cj,    d f_c / d b_j = delta_cj,

so that J is never formed unless it is asked for: products with vectors cost a pass through the
network, and with a diagonal prior covariance S = diag(v), constant in each weight matrix and each
bias vector,

    (J(x) S J(x')')_cc' = sum_l (v_Wl h_l . h'_l + v_bl) (delta_lc . delta'_lc'),

which is the neural tangent kernel of the finite network (Jacot et al. 2018, arXiv 1806.07572).
All of it is differentiable in x.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bo_surrogates.networks import ACTIVATIONS, BatchedMLP

# Derivative of each activation, given the pre-activation a and the activation h.
DERIVATIVES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda a, h: 1.0 - h.square(),
    "relu": lambda a, h: (a > 0).to(a),
    "silu": lambda a, h: a.sigmoid() + h * (1.0 - a.sigmoid()),
    "sine": lambda a, h: a.cos(),
}


@dataclass(frozen=True)
class Linearization:
    """A network of parameters `theta` linearized at inputs X, `batch_shape x n x d`.

    Attributes:
        network: The network.
        theta: `P` parameters.
        values: `batch_shape x n x m` outputs f(x; theta).
        inputs: Of each layer the h, `batch_shape x n x in`.
        deltas: Of each layer but the last the delta, `batch_shape x n x m x out`; that of the last
            is the identity.
    """

    network: BatchedMLP
    theta: Tensor
    values: Tensor
    inputs: tuple[Tensor, ...]
    deltas: tuple[Tensor, ...]

    @property
    def batch_shape(self) -> torch.Size:
        """Batch shape of the inputs."""
        return self.values.shape[:-2]

    def expand(self, batch_shape: torch.Size) -> Linearization:
        """The same at inputs repeated to a larger batch shape."""
        return Linearization(
            self.network,
            self.theta,
            self.values.expand(*batch_shape, *self.values.shape[-2:]),
            tuple(h.expand(*batch_shape, *h.shape[-2:]) for h in self.inputs),
            tuple(d.expand(*batch_shape, *d.shape[-3:]) for d in self.deltas),
        )

    def cat(self, other: Linearization) -> Linearization:
        """At these inputs and those of `other`, of the same network, batches broadcast."""
        shape = torch.broadcast_shapes(self.batch_shape, other.batch_shape)
        a, b = self.expand(shape), other.expand(shape)
        return Linearization(
            self.network,
            self.theta,
            torch.cat([a.values, b.values], dim=-2),
            tuple(torch.cat(pair, dim=-2) for pair in zip(a.inputs, b.inputs, strict=True)),
            tuple(torch.cat(pair, dim=-3) for pair in zip(a.deltas, b.deltas, strict=True)),
        )

    def last_layer(self) -> Linearization:
        """The same with hidden weights held: their derivatives are zero."""
        deltas = tuple(torch.zeros_like(delta) for delta in self.deltas)
        return Linearization(self.network, self.theta, self.values, self.inputs, deltas)

    def jvp(self, tangent: Tensor) -> Tensor:
        """J v for k vectors at once.

        Args:
            tangent: `k x P`.

        Returns:
            `k x batch_shape x n x m`.
        """
        k, shape = tangent.shape[0], self.values.shape
        layers = self.network.unpack(tangent)
        total = self.values.new_zeros(k, shape[:-1].numel(), shape[-1])
        for index, (weight, bias) in enumerate(layers):
            h = self.inputs[index]
            change = torch.baddbmm(
                bias, h.reshape(-1, h.shape[-1]).expand(k, -1, -1), weight
            )  # k x N x out, that of a
            if index < len(self.deltas):
                delta = self.deltas[index].flatten(end_dim=-3)
                change = torch.einsum("kno,nmo->knm", change, delta)
            total = total + change
        return total.unflatten(1, shape[:-1])

    def vjp(self, cotangent: Tensor) -> Tensor:
        """J' u, summed over the inputs, for k vectors at once; the inputs have no batch.

        Args:
            cotangent: `k x n x m`.

        Returns:
            `k x P`.
        """
        parts = []
        for index, h in enumerate(self.inputs):
            delta = cotangent
            if index < len(self.deltas):
                delta = torch.einsum("knm,nmo->kno", cotangent, self.deltas[index])
            parts += [(h.T @ delta).flatten(start_dim=-2), delta.sum(dim=-2)]
        return torch.cat(parts, dim=-1)

    def jacobian(self) -> Tensor:
        """J itself, `batch_shape x n x m x P`."""
        m = self.values.shape[-1]
        parts = []
        for index, h in enumerate(self.inputs):
            if index < len(self.deltas):
                delta = self.deltas[index]
            else:
                delta = torch.eye(m).to(h).expand(*self.values.shape, m)
            weight = h.unsqueeze(-2).unsqueeze(-1) * delta.unsqueeze(-2)
            parts += [weight.flatten(start_dim=-2), delta]
        return torch.cat(parts, dim=-1)

    def gram(self, other: Linearization) -> Tensor:
        """J S J' between two sets of inputs, for each block of S alone: `kernel` is their sum.

        Returns:
            `2 (depth + 1) x batch_shape x n m x n' m`, for v = 1 in one weight matrix or bias
            vector and 0 elsewhere, in the order of `theta`. Rows run over points, then outputs.
        """
        return torch.stack([part for pair in self._products(other) for part in pair])

    def kernel(self, other: Linearization, variances: Tensor) -> Tensor:
        """J S J' between two sets of inputs.

        Args:
            other: The same network at `batch_shape x n' x d` inputs.
            variances: `2 (depth + 1)` prior variances, of each weight matrix and bias vector in
                the order of `theta`.

        Returns:
            `batch_shape x n m x n' m`.
        """
        total: Tensor | None = None
        weight_variance, bias_variance = variances[::2], variances[1::2]
        m = self.values.shape[-1]
        for index, (h, g) in enumerate(zip(self.inputs, other.inputs, strict=True)):
            scaled = weight_variance[index] * (h @ g.mT) + bias_variance[index]
            part = self._times_outputs(other, index, scaled, m)
            total = part if total is None else total + part
        if total is None:
            raise ValueError("a network has at least one layer")
        return total

    def _products(self, other: Linearization) -> list[tuple[Tensor, Tensor]]:
        m = self.values.shape[-1]
        pairs = []
        for index, (h, g) in enumerate(zip(self.inputs, other.inputs, strict=True)):
            product = h @ g.mT
            pairs.append(
                (
                    self._times_outputs(other, index, product, m),
                    self._times_outputs(other, index, torch.ones_like(product), m),
                )
            )
        return pairs

    def _times_outputs(self, other: Linearization, index: int, product: Tensor, m: int) -> Tensor:
        """`n x n'` products of a layer's inputs times those of its deltas: `n m x n' m`."""
        n, n_other = product.shape[-2:]
        if index < len(self.deltas):
            a = self.deltas[index].flatten(start_dim=-3, end_dim=-2)
            b = other.deltas[index].flatten(start_dim=-3, end_dim=-2)
            deltas = a @ b.mT
            if m == 1:
                return product * deltas
            deltas = deltas.unflatten(-1, (n_other, m)).unflatten(-3, (n, m))
        else:
            if m == 1:
                return product
            eye = torch.eye(m).to(product)
            deltas = eye.unsqueeze(-2).expand(*product.shape[:-2], n, m, n_other, m)
        grid = product.unsqueeze(-2).unsqueeze(-1) * deltas
        return grid.flatten(start_dim=-2).flatten(start_dim=-3, end_dim=-2)


def linearize(network: BatchedMLP, theta: Tensor, X: Tensor) -> Linearization:
    """Linearize one network at inputs.

    Args:
        network: The network.
        theta: `P` parameters.
        X: `batch_shape x n x d` inputs.
    """
    activation, derivative = ACTIVATIONS[network.activation], DERIVATIVES[network.activation]
    layers = [(w.squeeze(0), b.squeeze(0)) for w, b in network.unpack(theta.unsqueeze(0))]
    inputs, slopes = [X], []
    for weight, bias in layers[:-1]:
        a = inputs[-1] @ weight + bias
        h = activation(a)
        inputs.append(h)
        slopes.append(derivative(a, h))
    weight, bias = layers[-1]
    values = inputs[-1] @ weight + bias
    deltas: list[Tensor] = []
    back = weight.T  # m x width; batched below the first use
    for index in reversed(range(len(slopes))):
        delta = back * slopes[index].unsqueeze(-2)
        deltas.insert(0, delta)
        back = delta @ layers[index][0].T
    return Linearization(network, theta, values, tuple(inputs), tuple(deltas))
