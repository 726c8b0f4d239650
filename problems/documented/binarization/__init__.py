"""Binary neural networks: layers of +-1 weights and inputs, and their exact execution on bits.

    conv = BinaryConv2d(64, 128, 3, "reactnet", padding=1)     # one of `OPERATORS`, or your own
    conv = BiPerConv2d(64, 128, 3, frequency=20.0, padding=1)

    packed = convert(trained_network, sample)                  # the same outputs, on bits

`anneal` before every epoch sets what depends on the progress of the training.
"""

from problems.documented.binarization.biper import (
    BiPerConv2d,
    BiPerLinear,
    amplitude_penalty,
    set_stage,
)
from problems.documented.binarization.conversion import convert
from problems.documented.binarization.estimators import anneal, sign
from problems.documented.binarization.layers import (
    BinaryConv1d,
    BinaryConv2d,
    BinaryLayer,
    BinaryLinear,
    clamp_latent_weights,
)
from problems.documented.binarization.operators import BIBENCH, OPERATORS, BinarizerConfig
from problems.documented.binarization.packed import (
    PackedBinaryConv1d,
    PackedBinaryConv2d,
    PackedBinaryLinear,
    PackedLayer,
    pack,
)
from problems.documented.binarization.rprelu import RPReLU

__all__ = [
    "BIBENCH",
    "OPERATORS",
    "BiPerConv2d",
    "BiPerLinear",
    "BinarizerConfig",
    "BinaryConv1d",
    "BinaryConv2d",
    "BinaryLayer",
    "BinaryLinear",
    "PackedBinaryConv1d",
    "PackedBinaryConv2d",
    "PackedBinaryLinear",
    "PackedLayer",
    "RPReLU",
    "amplitude_penalty",
    "anneal",
    "clamp_latent_weights",
    "convert",
    "pack",
    "set_stage",
    "sign",
]
