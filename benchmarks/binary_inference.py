"""Binary convolutions and a binary network on bits, against floating point.

    OMP_NUM_THREADS=1 python -m benchmarks.binary_inference [--rounds 5] [--json FOLDER]

Of a 3 x 3 convolution of as many channels in as out, on a batch of images:

    float       torch's convolution of the same shape, in single precision: no binary work at all
    binary      the binary layer in floating point (Bi-Real's): what is trained
    numbers     the packed layer, from numbers to numbers
    bits        the packed layer, from bits to bits (with thresholds)
    numpy       as "numbers", without the compiled kernel

then of a network of six such layers with normalizations, 64 to 256 channels, on 3 x 32 x 32 images,
its first and last layers in floating point. Every packed result is checked to be that of the binary
layer, bit for bit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.timing import measure, report, summarize
from bo_surrogates.errors import RunError
from problems.documented.binarization import BinaryConv2d, PackedLayer, bits, convert, pack

SHAPES = ((16, 8, 64), (64, 32, 8), (256, 14, 8), (512, 7, 8))  # channels, side, images


def network(*, binary: bool) -> nn.Sequential:
    """Six convolutions between a first one and a linear layer.

    Args:
        binary: Whether they are.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.Hardtanh()]
    channels = 64
    for outputs, stride in ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (256, 2)):
        conv = (
            BinaryConv2d(channels, outputs, 3, stride=stride, padding=1)
            if binary
            else nn.Conv2d(channels, outputs, 3, stride=stride, padding=1, bias=False)
        )
        layers += [conv, nn.BatchNorm2d(outputs), nn.Hardtanh()]
        channels = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))


def layer_cases(channels: int, side: int, images: int) -> dict[str, Callable[[], object]]:
    """What is timed for one shape, checked once."""
    torch.manual_seed(0)
    layer = BinaryConv2d(channels, channels, 3, padding=1).eval()
    plain = nn.Conv2d(channels, channels, 3, padding=1, bias=False).eval()
    x = torch.randn(images, channels, side, side)
    packed, to_bits = pack(layer), pack(layer)
    zeros = torch.zeros(channels, 1, 1)
    to_bits.set_thresholds(zeros.int(), zeros.bool(), 1)
    packed_x = packed.bits(x)
    expected = layer(x)
    if not torch.equal(packed(x), expected) or not torch.equal(
        to_bits(packed_x).signs() > 0, layer.integers(x) >= 0
    ):
        raise RunError("a packed layer's output differs from the binary layer's")

    def without_kernel() -> Tensor:
        with mock.patch.object(bits, "compiled", return_value=None):
            result: Tensor = packed(x)
        return result

    return {
        "float": lambda: plain(x),
        "binary": lambda: layer(x),
        "numbers": lambda: packed(x),
        "bits": lambda: to_bits(packed_x),
        "numpy": without_kernel,
    }


def network_cases(images: int) -> dict[str, Callable[[], object]]:
    """What is timed of the network."""
    torch.manual_seed(0)
    plain, binary = network(binary=False).eval(), network(binary=True)
    x = torch.randn(images, 3, 32, 32)
    with torch.no_grad():
        binary(x)  # statistics of the normalizations
    packed = convert(binary, x)
    if sum(isinstance(m, PackedLayer) for m in packed.modules()) != 6:
        raise RunError("not all binary layers were packed")
    binary.eval()
    return {"float": lambda: plain(x), "binary": lambda: binary(x), "packed": lambda: packed(x)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="folder to keep the figures in")
    options = parser.parse_args()
    if options.json:
        options.json.mkdir(parents=True, exist_ok=True)
    tables = {
        f"3 x 3, {c} channels, {s} x {s}, {n} images": layer_cases(c, s, n) for c, s, n in SHAPES
    }
    tables["network, 8 images of 3 x 32 x 32"] = network_cases(8)
    for title, cases in tables.items():

        def work(run: Callable[[], object]) -> Callable[[int], Mapping[str, Callable[[], object]]]:
            return lambda _: {"forward": run}

        with torch.no_grad():
            samples = measure({name: work(run) for name, run in cases.items()}, options.rounds)
        path = (
            options.json / f"binary_{title.split(',')[0]}_{len(title)}.json"
            if options.json
            else None
        )
        report(title, summarize(samples, "float"), "float", path)


if __name__ == "__main__":
    main()
