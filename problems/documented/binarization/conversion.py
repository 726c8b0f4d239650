"""Whole networks on bits.

Where a binary layer's output goes through normalization and activation into the sign of the next
one's input, and nothing else, all of it is a step function of the layer's integer: each operation,
rounding included, is monotone. The step is found by bisection over the integers with the network's
own operations, so that the packed network decides as the network does even where rounding decides.
In exact arithmetic the step of sgn(g (a y - m) / s + b) is at (m / s g - b) s / (g a), rounded up,
or down where g a < 0; where g a = 0 there is none.

A shortcut, an average or a scale that depends on the input (XNOR-Net's K) needs numbers: there the
packed layer returns what the binary layer returns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError, RunError
from problems.documented.binarization.inputs import InputBinarizer
from problems.documented.binarization.layers import BinaryLayer, finish
from problems.documented.binarization.packed import PackedLayer, pack
from problems.documented.binarization.rprelu import RPReLU


def convert(
    network: nn.Module, sample: Tensor, packing: Callable[[BinaryLayer], PackedLayer] = pack
) -> nn.Module:
    """The network with every binary layer on bits, for inference on a CPU.

    Layers that follow each other in a `torch.nn.Sequential` (nested ones are one after the other)
    exchange bits where they can; elsewhere each binary layer is replaced in its place. To load a
    saved packed network, convert a new network of the same architecture and load the state dict.

    Args:
        network: It is not changed.
        sample: Inputs, `n x ...`: the networks' outputs on them are compared.
        packing: Makes the layers on bits.

    Returns:
        The packed network, in evaluation mode.

    Raises:
        InputError: The network has no binary layer, one whose weights are no bits yet, or does not
            take the sample.
        RunError: An output differs.
    """
    original = copy.deepcopy(network).cpu().eval().requires_grad_(False)
    sample = sample.detach().cpu()
    shapes: dict[BinaryLayer, torch.Size] = {}
    hooks = [
        module.register_forward_hook(
            lambda layer, _, output: shapes.__setitem__(layer, output.shape[1:])
        )
        for module in original.modules()
        if isinstance(module, BinaryLayer)
    ]
    if not hooks:
        raise InputError("the network has no binary layer to pack")
    try:
        expected = original(sample)
    except RuntimeError as error:
        raise InputError(
            f"the network does not take a sample of shape {tuple(sample.shape)}: {error}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    packed = _converted(original, shapes, packing)
    found = packed(sample)
    if not torch.equal(found, expected):
        different = (found != expected).flatten(1).any(dim=1)
        raise RunError(
            f"the packed network's outputs differ from the network's on {int(different.sum())} of "
            f"{len(sample)} samples; its operations are not functions of each input alone, or a "
            "module changes its values between calls"
        )
    return packed


def _converted(
    module: nn.Module,
    shapes: dict[BinaryLayer, torch.Size],
    packing: Callable[[BinaryLayer], PackedLayer],
) -> nn.Module:
    if isinstance(module, BinaryLayer):
        return packing(module)
    if _is_sequential(module):
        return _converted_sequence(_flattened(module), shapes, packing)
    result = copy.copy(module)  # children are replaced; the original is needed whole
    result._modules = {
        name: None if child is None else _converted(child, shapes, packing)
        for name, child in module._modules.items()
    }
    return result


def _is_sequential(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _flattened(module: nn.Module) -> list[nn.Module]:
    if not _is_sequential(module):
        return [module]
    return [leaf for child in module.children() for leaf in _flattened(child)]


def _converted_sequence(
    modules: Sequence[nn.Module],
    shapes: dict[BinaryLayer, torch.Size],
    packing: Callable[[BinaryLayer], PackedLayer],
) -> nn.Sequential:
    result: list[nn.Module] = []
    position = 0
    while position < len(modules):
        module = modules[position]
        packed = _converted(module, shapes, packing)
        result.append(packed)
        position += 1
        if not isinstance(module, BinaryLayer) or not isinstance(packed, PackedLayer):
            continue
        end = position
        while end < len(modules) and is_monotone(modules[end]):
            end += 1
        following = modules[end] if end < len(modules) else None
        if isinstance(following, BinaryLayer) and _folds(module, modules[position:end], following):
            if module not in shapes:
                continue
            threshold, flip = find_thresholds(
                module, modules[position:end], following.inputs, shapes[module]
            )
            packed.set_thresholds(threshold, flip, getattr(following, "groups", 1))
            position = end
    return nn.Sequential(*result)


def _folds(layer: BinaryLayer, between: Sequence[nn.Module], following: BinaryLayer) -> bool:
    values = ("sample", "map")  # of the inputs are needed for these scales
    if layer.config.input_scale in values or following.config.input_scale in values:
        return False
    flattens = any(isinstance(module, nn.Flatten) for module in between)
    return flattens or layer.spatial_dims == following.spatial_dims


def is_monotone(module: nn.Module) -> bool:
    """Whether, in evaluation mode, each output is a monotone function of one input, and of that
    input only; `torch.nn.Flatten`, which moves them, too."""
    match module:
        case nn.BatchNorm1d() | nn.BatchNorm2d():
            return module.running_mean is not None
        case nn.PReLU() | RPReLU():
            return bool((module.weight >= 0).all())
        case nn.LeakyReLU():
            return module.negative_slope >= 0
        case nn.Flatten():
            return (module.start_dim, module.end_dim) == (1, -1)
    return isinstance(module, nn.Identity | nn.Hardtanh | nn.ReLU | nn.ReLU6 | nn.Dropout)


@torch.no_grad()
def find_thresholds(
    layer: BinaryLayer, between: Sequence[nn.Module], inputs: InputBinarizer, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Where, as a function of the layer's integers, the sign of the next layer's input changes.

    Args:
        layer: In evaluation mode, as all modules here.
        between: What its outputs go through, each monotone.
        inputs: Of the next layer.
        shape: Of the layer's output without the batch dimension.

    Returns:
        Thresholds and flips, see `PackedLayer`.
    """
    layer_scale = layer.fixed_scale(layer.weights(layer.weight).scale)
    input_scale = layer.inputs.sample_scale(layer.weight)  # a constant, or none
    offset = layer.offset()

    def positive(integers: Tensor) -> Tensor:
        y = finish(integers.to(layer.weight.dtype)[None], layer_scale, input_scale, offset)
        for module in between:
            y = module(y)
        return (inputs.threshold_input(y) >= 0).reshape(integers.shape)

    terms = layer.weight[0].numel()
    low = torch.full(tuple(shape), -terms, dtype=torch.int32)
    high = torch.full(tuple(shape), terms, dtype=torch.int32)
    at_low, at_high = positive(low), positive(high)
    flip = at_low & ~at_high
    constant = at_low == at_high
    # The least integer whose sign is that of the largest: `high` has it, `low` has not.
    while (high - low > 1).any():
        middle = (low + high) // 2
        risen = positive(middle) == at_high
        high = torch.where(risen, middle, high)
        low = torch.where(risen, low, middle)
    threshold = torch.where(constant, torch.where(at_high, -terms, terms + 1), high)
    threshold = threshold.to(torch.int32)
    return _as_images(threshold, layer.spatial_dims), _as_images(flip, layer.spatial_dims)


def _as_images(values: Tensor, spatial_dims: int) -> Tensor:
    """`channels x height x width`, or one a channel where all positions agree."""
    if spatial_dims < 2:
        values = values.reshape(len(values), 1, -1)
    first = values[:, :1, :1]
    return first.clone() if bool((values == first).all()) else values
