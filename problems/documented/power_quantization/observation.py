"""What calibration looks at: the order of a network's layers, what goes into them and comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.power_quantization.layers import QUANTIZABLE, PowerLayer

BATCH = 256  # inputs a forward pass


class _ReachedError(Exception):
    """Ends a forward pass at the layer that is looked at."""


def layers_in_order(network: nn.Module, x: Tensor) -> list[str]:
    """Names of the layers that can be quantized, as a forward pass comes to them.

    Args:
        network: In evaluation mode.
        x: Inputs, on its device; the first two are used.

    Raises:
        InputError: There is none; the network is itself a layer; one is used more than once in a
            pass; or the network does not take the inputs.
    """
    calls: list[str] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, __, name=name: calls.append(name))
        for name, module in network.named_modules()
        if isinstance(module, QUANTIZABLE)
    ]
    try:
        with torch.no_grad():
            network(x[:2])
    except RuntimeError as error:
        raise InputError(
            f"the network does not take inputs of shape {tuple(x.shape[1:])}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    if not calls:
        raise InputError("the network has no linear layer or two-dimensional convolution")
    if "" in calls:
        raise InputError("a layer on its own cannot be replaced; put it into a torch.nn.Sequential")
    for name, number in Counter(calls).items():
        if number > 1:
            raise InputError(
                f"layer {name!r} is used {number} times in one pass; a layer that is quantized "
                "must be used once"
            )
    return calls


@torch.no_grad()
def observed(network: nn.Module, name: str, x: Tensor, what: str) -> Tensor:
    """The inputs ("inputs") or outputs ("outputs") of a layer, for all of x, on x's device."""
    found: list[Tensor] = []

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor | None = None) -> None:
        found.append(inputs[0] if output is None else output)
        raise _ReachedError

    layer = network.get_submodule(name)
    register: Callable[..., torch.utils.hooks.RemovableHandle] = (
        layer.register_forward_pre_hook if what == "inputs" else layer.register_forward_hook
    )
    hook = register(look)
    try:
        for batch in x.split(BATCH):
            try:
                network(batch)
            except _ReachedError:
                continue
    finally:
        hook.remove()
    return torch.cat(found)


@dataclass(frozen=True)
class Moments:
    """Second moments of a layer's inputs and of the outputs it should have.

    They are all that the squared error of the outputs depends on, so that a step of learning costs
    the same for any number of inputs.

    Attributes:
        gram: X'X, `groups x inputs x inputs`, float64 as all of them.
        cross: Y'X, `groups x outputs of a group x inputs`.
        target: Sum of Y^2.
        mean_input: `groups x inputs`.
        mean_output: Of Y, `groups x outputs of a group`.
        positions: Rows of X.
    """

    gram: Tensor
    cross: Tensor
    target: float
    mean_input: Tensor
    mean_output: Tensor
    positions: int

    def error(self, weights: Tensor) -> Tensor:
        """|| W X - Y ||^2 by position, summed over outputs; W is `outputs x inputs`."""
        w = weights.reshape(self.cross.shape)
        return (self.target + (w * (w @ self.gram - 2.0 * self.cross)).sum()) / self.positions

    @property
    def power(self) -> float:
        """|| Y ||^2 by position: the error of weights of 0."""
        return self.target / self.positions


@torch.no_grad()
def moments(layer: PowerLayer, x: Tensor, y: Tensor) -> Moments:
    """Of a layer.

    Args:
        layer: Quantizes the inputs as it does now.
        x: What goes into it.
        y: What should come out, its bias not yet added.
    """
    gram = cross = mean_input = mean_output = torch.zeros((), dtype=torch.float64, device=x.device)
    positions, target = 0, 0.0
    for part, wanted in zip(x.split(BATCH), y.split(BATCH), strict=True):
        rows = layer.patches(layer.quantized_inputs(part)).double()
        outputs = wanted.movedim(1, -1) if wanted.ndim == 4 else wanted
        outputs = outputs.double().reshape(rows.shape[1], layer.groups, -1).movedim(1, 0)
        gram = gram + rows.mT @ rows
        cross = cross + outputs.mT @ rows
        target += float(outputs.square().sum())
        mean_input = mean_input + rows.sum(dim=1)
        mean_output = mean_output + outputs.sum(dim=1)
        positions += rows.shape[1]
    return Moments(gram, cross, target, mean_input / positions, mean_output / positions, positions)
