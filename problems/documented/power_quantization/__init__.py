"""Post-training quantization on the grid of a power: PowerQuant's search, NUPES' learnt codes.

    quantized = quantize(network, x, CalibrationConfig(), weight_bits=4, input_bits=8)
    integer = on_tables(quantized)               # on codes, by tables of products

* `grid`: codes, bounds, and what a code stands for;
* `quantizer`: of activations;
* `search`: PowerQuant's exponent, without data;
* `rounding`: NUPES' free codes, AdaRound's up or down;
* `configuration`, `layers`, `learning`, `calibration`: quantized layers, and how a trained network
  comes to have them;
* `tables`: inference on integer codes.
"""

from problems.documented.power_quantization.calibration import (
    Calibration,
    quantize,
    quantized_like,
)
from problems.documented.power_quantization.configuration import GRIDS, METHODS, CalibrationConfig
from problems.documented.power_quantization.grid import GRANULARITIES, decode, encode, levels
from problems.documented.power_quantization.layers import (
    PowerConv2d,
    PowerLayer,
    PowerLinear,
    fold_normalizations,
)
from problems.documented.power_quantization.observation import layers_in_order
from problems.documented.power_quantization.quantizer import PowerQuantizer
from problems.documented.power_quantization.search import search_exponent, weight_error
from problems.documented.power_quantization.tables import TableLayer, on_tables

__all__ = [
    "GRANULARITIES",
    "GRIDS",
    "METHODS",
    "Calibration",
    "CalibrationConfig",
    "PowerConv2d",
    "PowerLayer",
    "PowerLinear",
    "PowerQuantizer",
    "TableLayer",
    "decode",
    "encode",
    "fold_normalizations",
    "layers_in_order",
    "levels",
    "on_tables",
    "quantize",
    "quantized_like",
    "search_exponent",
    "weight_error",
]
