"""Binary layers executed on bits: the same numbers as in floating point, bit for bit.

A packed layer computes the integers of `BinaryLayer.integers` by XOR and bit counts. Then it either
multiplies by scales and adds the bias as the binary layer does, in the same order, or compares each
integer with a threshold, which `conversion` finds, and hands packed bits to the next layer.

A padded position counts as 0: with its bits set to 0 it differs from the weights where these are 1,
a number that depends on position and output only and is taken back.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.binarization.bits import (
    PackedBits,
    Words,
    as_words,
    count_differing,
    pack_bytes,
)
from problems.documented.binarization.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    finish,
)
from problems.documented.binarization.weights import PeriodicWeights

Dots = NDArray[np.int32]


class PackedLayer(nn.Module):
    """A binary layer on bits, for inference on a CPU; made by `pack`.

    Takes the layer's inputs, or the `PackedBits` of their signs. Returns its outputs, or after
    `set_thresholds` the `PackedBits` of their signs.

    Attributes:
        words: The weights' bits, `groups x outputs of a group x words`, int64.
        fixed_scale: Factor of the outputs, or None.
        offset: What is added to them, or None.
        threshold: Integers from which on an output is +1, `channels x height x width` or with 1 in
            place of the last two; None where outputs are numbers.
        flip: Where it is -1 instead, of the same shape.

    Args:
        layer: The layer to pack; it is not changed.
    """

    words: Tensor
    fixed_scale: Tensor | None
    offset: Tensor | None
    threshold: Tensor | None
    flip: Tensor | None

    def __init__(self, layer: BinaryLayer) -> None:
        super().__init__()
        if isinstance(layer.weights, PeriodicWeights) and layer.weights.stage == 1:
            raise InputError(
                "weights in the first stage of BiPer are no bits; call set_stage(network, 2) first"
            )
        layer = copy.deepcopy(layer).cpu().eval().requires_grad_(False)
        weights = layer.weights(layer.weight)
        self.inputs = layer.inputs
        self.inputs.noise = None
        self.spatial_dims = layer.spatial_dims
        self.spatial_scale = layer.config.input_scale == "map"
        self.dtype = layer.weight.dtype
        self.weight_count = layer.weight.numel()
        self.groups = getattr(layer, "groups", 1)
        self.output_groups = 1
        self.windows = layer.windows()
        self.register_buffer("words", self._packed_weights(weights.signs))
        self.register_buffer("fixed_scale", layer.fixed_scale(weights.scale))
        self.register_buffer("offset", layer.offset())
        self.register_buffer("threshold", None)
        self.register_buffer("flip", None)
        self._zeros: dict[tuple[int, int], Dots] = {}

    def _packed_weights(self, signs: Tensor) -> Tensor:
        # outputs x channels of a group x positions -> groups x outputs x (positions, channels)
        positive = signs.numpy() > 0
        split = positive.reshape(self.groups, len(signs) // self.groups, signs.shape[1], -1)
        packed = pack_bytes(np.moveaxis(split, 2, -1))
        return torch.from_numpy(
            as_words(packed.reshape(*packed.shape[:2], -1)).view(np.int64).copy()
        )

    def set_thresholds(self, threshold: Tensor, flip: Tensor, groups: int) -> None:
        """Let the outputs be bits.

        Args:
            threshold: See the class, int32.
            flip: See the class, bool.
            groups: Of the layer that takes the bits.
        """
        self.threshold, self.flip = threshold, flip
        self.fixed_scale = self.offset = None
        self.output_groups = groups

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        # Thresholds are one a channel or one a position, as they turned out.
        for name in ("threshold", "flip"):
            own, given = getattr(self, name), state_dict.get(prefix + name)
            if own is not None and given is not None and own.shape != given.shape:
                setattr(self, name, torch.empty_like(given))
        self._zeros = {}
        super()._load_from_state_dict(state_dict, prefix, *args)

    def bits(self, x: Tensor) -> PackedBits:
        """The signs of the inputs.

        Raises:
            InputError: One of them is not a number, or they are not on the CPU.
        """
        if x.device.type != "cpu":
            raise InputError(f"packed layers run on the CPU; these inputs are on {x.device}")
        if x.isnan().any():
            raise InputError("inputs of a packed layer must be numbers, got nan")
        positive = self.inputs.threshold_input(x) >= 0
        return PackedBits.of(self._as_images(positive).movedim(1, -1).numpy(), self.groups)

    def dots(self, bits: PackedBits) -> Dots:
        """The integers, `n x height x width x outputs`."""
        height, width = bits.packed.shape[1:3]
        windows = as_words(self.windows.gather(bits.packed))
        parts = [
            self._differing(w.reshape(-1, w.shape[-1]), group) for group, w in enumerate(windows)
        ]
        differing = np.concatenate(parts, axis=1).reshape(*windows.shape[1:4], -1)
        differing *= -2
        differing += self._without_padding(height, width)
        return differing

    def _differing(self, windows: Words, group: int) -> Dots:
        """The number of bits in which each window, `rows x words`, and each output of a group
        differ, `rows x outputs`; bits that are padded are 0."""
        return count_differing(windows, self.words[group].numpy().view(np.uint64))

    def _without_padding(self, height: int, width: int) -> Dots:
        """What an integer is where no bit of a valid position differs: the number of valid terms,
        and twice the bits by which the padding's zeros differ from the weights."""
        if (height, width) not in self._zeros:
            channels = self.inputs.channels
            ones = PackedBits.of(np.ones((1, height, width, channels), bool), self.groups)
            valid = as_words(self.windows.gather(ones.packed))
            weights = self.words.numpy().view(np.uint64)
            parts = []
            for v, w in zip(valid, weights, strict=True):
                rows = v.reshape(-1, 1, v.shape[-1])
                terms = np.bitwise_count(rows).sum(axis=-1, dtype=np.int32)
                padded = np.bitwise_count(w & ~rows).sum(axis=-1, dtype=np.int32)
                parts.append(terms + 2 * padded)
            self._zeros = {
                (height, width): np.concatenate(parts, axis=1).reshape(*valid.shape[2:4], -1)
            }
        return self._zeros[height, width]

    @torch.no_grad()
    def integers(self, x: Tensor) -> Tensor:
        """As `BinaryLayer.integers`, in int32."""
        dots = torch.from_numpy(self.dots(self.bits(x)))
        return self._from_images(dots.movedim(-1, 1), x)

    @torch.no_grad()
    def forward(self, x: Tensor | PackedBits) -> Any:
        """See the class."""
        bits = x if isinstance(x, PackedBits) else self.bits(x)
        if self.spatial_dims == 0 and bits.packed.shape[1:3] != (1, 1):
            bits = bits.flat()
        dots = self.dots(bits)
        if self.threshold is not None and self.flip is not None:
            positive = dots >= np.moveaxis(self.threshold.numpy(), 0, -1)
            positive ^= np.moveaxis(self.flip.numpy(), 0, -1)
            return PackedBits.of(positive, self.output_groups)
        y = torch.from_numpy(dots).movedim(-1, 1).to(self.dtype).contiguous()
        y = self._from_images(y, x)
        return finish(y, self.fixed_scale, self._input_scale(x), self.offset)

    def _input_scale(self, x: Tensor | PackedBits) -> Tensor | None:
        if isinstance(x, PackedBits):
            if self.spatial_scale or self.inputs.scale == "sample":
                raise InputError(
                    "this layer scales its outputs by the size of its inputs (XNOR-Net's K): it "
                    "takes numbers, not bits"
                )
            return self.inputs.sample_scale(torch.empty(0, dtype=self.dtype))
        return self.windows.mean_abs(x) if self.spatial_scale else self.inputs.sample_scale(x)

    def _as_images(self, x: Tensor) -> Tensor:
        match self.spatial_dims:
            case 0:
                return x.reshape(-1, x.shape[-1], 1, 1)
            case 1:
                return x.unsqueeze(2)
        return x

    def _from_images(self, y: Tensor, x: Tensor | PackedBits) -> Tensor:
        match self.spatial_dims:
            case 0:
                leading = x.shape[:-1] if isinstance(x, Tensor) else y.shape[:1]
                return y.reshape(*leading, -1)
            case 1:
                return y.squeeze(2)
        return y

    def stored_bits(self) -> int:
        """Size of the layer: 1 bit a weight and a flip, 32 a scale, bias, threshold or shift.

        Bits that fill up words are not counted.
        """
        numbers = (self.fixed_scale, self.offset, self.threshold, self.inputs.shift)
        size = self.weight_count + sum(32 * t.numel() for t in numbers if t is not None)
        return size + (0 if self.flip is None else self.flip.numel())

    def extra_repr(self) -> str:
        """The weights' shape and what comes out."""
        groups, outputs, words = self.words.shape
        what = "numbers" if self.threshold is None else "bits"
        return f"{groups} x {outputs} x {words} words, to {what}"


class PackedBinaryConv2d(PackedLayer):
    """A packed `BinaryConv2d`."""


class PackedBinaryConv1d(PackedLayer):
    """A packed `BinaryConv1d`."""


class PackedBinaryLinear(PackedLayer):
    """A packed `BinaryLinear`."""


def pack(layer: BinaryLayer) -> PackedLayer:
    """The layer on bits.

    Args:
        layer: It is not changed.

    Raises:
        InputError: Its weights are no bits yet (the first stage of BiPer), or there is no packed
            layer of its kind.
    """
    match layer:
        case BinaryConv2d():
            return PackedBinaryConv2d(layer)
        case BinaryConv1d():
            return PackedBinaryConv1d(layer)
        case BinaryLinear():
            return PackedBinaryLinear(layer)
    raise InputError(f"only binary layers can be packed, got {type(layer).__name__}")
