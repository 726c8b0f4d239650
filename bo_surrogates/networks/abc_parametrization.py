"""How a network's training scales with its width: abc-parametrizations.

A network with L hidden layers of n units has weights W^l = n^{-a_l} w^l, trained by gradient
descent on w^l ~ N(0, n^{-2 b_l}) at the rate eta n^{-c} (Yang and Hu 2021, arXiv 2011.14522,
section 3). The exponents decide what happens as n grows. With

    r = min(a_out + b_out, 2 a_out + c) + c - 1 + min_l (2 a_l + [l = 1]),    l = 1, ..., L,

hidden features move by an amount of order n^{-r}. A parametrization is stable if

    a_1 + b_1 = 0;   a_l + b_l = 1/2, l = 2, ..., L;   a_out + b_out >= 1/2,
    r >= 0;   2 a_out + c >= 1;   a_out + b_out + r >= 1,

and its function moves at all if one of the last two is an equality. If it does both, it learns
features where r = 0, and is gradient descent with a fixed kernel, the tangent kernel, where r > 0
(the paper's dynamical dichotomy). The maximal update parametrization has r = 0 and moves every
layer as much as stability allows. The triple (a + t, b - t, c - 2 t) trains to the same functions
as (a, b, c).

Here n is counted in units of a base width n0, m = n / n0: at m = 1 all parametrizations are the
same ordinary network, and hyper-parameters found there transfer to any width (Yang et al. 2022,
arXiv 2203.03466). Biases of hidden layers are weights of an input that is constantly 1, and scale
like the first layer. The output's bias does not touch the width: its exponents are
(-c / 2, c / 2), which leave its start and its rate as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bo_surrogates.errors import InputError
from bo_surrogates.networks import BatchedMLP, Layer

TOLERANCE = 1e-9  # of the conditions on exponents


class Exponents(NamedTuple):
    """One number a kind of layer.

    Attributes:
        input: First layer, and biases of hidden layers.
        hidden: Weights between hidden layers.
        output: Weights of the last layer.
    """

    input: float
    hidden: float
    output: float


@dataclass(frozen=True)
class Parametrization:
    """The exponents (a, b, c) of the module's docstring.

    Attributes:
        multiplier: a.
        start: b.
        rate: c, of gradient descent.
    """

    multiplier: Exponents
    start: Exponents
    rate: float

    def feature_exponent(self, depth: int) -> float:
        """r: hidden features move by an amount of order n^{-r}.

        Args:
            depth: Number of hidden layers L.
        """
        a, b, c = self.multiplier, self.start, self.rate
        layers = [2 * a.input + 1, 2 * a.hidden][: 1 if depth == 1 else 2]
        return min(a.output + b.output, 2 * a.output + c) + c - 1 + min(layers)

    def is_stable(self, depth: int) -> bool:
        """Whether nothing grows without bound with the width.

        Args:
            depth: Number of hidden layers L.
        """
        a, b, r = self.multiplier, self.start, self.feature_exponent(depth)
        equal = [a.input + b.input]
        if depth > 1:
            equal.append(a.hidden + b.hidden - 0.5)
        at_least = [a.output + b.output - 0.5, r, *self._function_exponents(r)]
        return all(abs(x) < TOLERANCE for x in equal) and all(x > -TOLERANCE for x in at_least)

    def is_nontrivial(self, depth: int) -> bool:
        """Whether it is stable and the function moves, at any width.

        Args:
            depth: Number of hidden layers L.
        """
        moves = self._function_exponents(self.feature_exponent(depth))
        return self.is_stable(depth) and min(moves) < TOLERANCE

    def learns_features(self, depth: int) -> bool:
        """Whether it is nontrivial and hidden features move, at any width.

        Args:
            depth: Number of hidden layers L.
        """
        return self.is_nontrivial(depth) and self.feature_exponent(depth) < TOLERANCE

    def _function_exponents(self, r: float) -> tuple[float, float]:
        """How the function's moves vanish: through the last layer, and through the features."""
        a, b = self.multiplier.output, self.start.output
        return 2 * a + self.rate - 1, a + b + r - 1

    def shifted(self, t: float) -> Parametrization:
        """(a + t, b - t, c - 2 t), which trains to the same functions."""
        return Parametrization(
            Exponents(*(a + t for a in self.multiplier)),
            Exponents(*(b - t for b in self.start)),
            self.rate - 2 * t,
        )

    def multipliers(self, network: BatchedMLP, base_width: int) -> Tensor:
        """m^{-a} of each parameter, `P`, float64: the network has the weights m^{-a} w."""
        return _by_kind(network, base_width, self.multiplier, output_bias=-self.rate / 2)

    def start_scales(self, network: BatchedMLP, base_width: int, scales: Tensor) -> Tensor:
        """Standard deviations of the first w, `P`, float64.

        Args:
            network: Shape of the network.
            base_width: n0.
            scales: `P` standard deviations as of `BatchedMLP.scales`, for this network; the base
                network has the same but for its fan-in.
        """
        fan_in = _by_kind(network, base_width, Exponents(0.0, -0.5, -0.5))
        factor = _by_kind(network, base_width, self.start, output_bias=self.rate / 2)
        return scales.double() * (fan_in * factor).to(scales.device)

    def learning_rate(self, network: BatchedMLP, base_width: int) -> float:
        """m^{-c}, the factor of gradient descent's rate for w."""
        return float((network.width / base_width) ** -self.rate)


STANDARD = Parametrization(Exponents(0, 0, 0), Exponents(0, 0.5, 0.5), 0)
"""PyTorch's, with one rate at all widths: its first steps grow with the width."""
STANDARD_SMALL_RATE = Parametrization(Exponents(0, 0, 0), Exponents(0, 0.5, 0.5), 1)
NEURAL_TANGENT = Parametrization(Exponents(0, 0.5, 0.5), Exponents(0, 0, 0), 0)
MEAN_FIELD = Parametrization(Exponents(0, 0.5, 1), Exponents(0, 0, 0), -1)
"""Of one hidden layer; the shift of `MAXIMAL_UPDATE` by 1/2, which extends it to any depth."""
MAXIMAL_UPDATE = Parametrization(Exponents(-0.5, 0, 0.5), Exponents(0.5, 0.5, 0.5), 0)


def adam_rates(network: BatchedMLP, base_width: int) -> Tensor:
    """Factors of Adam's learning rate for W in the maximal update parametrization, `P`, float64.

    Adam moves every weight by about its rate, whatever the gradient's size. A sum over n weights
    that move alike moves by n times as much, hence 1/m for weights that leave hidden units, and 1
    for the first layer and all biases (Yang et al. 2022, arXiv 2203.03466, table 3).

    Args:
        network: Shape of the network.
        base_width: n0.
    """
    return _by_kind(network, base_width, Exponents(0.0, 1.0, 1.0))


def _by_kind(
    network: BatchedMLP, base_width: int, exponents: Exponents, output_bias: float = 0.0
) -> Tensor:
    """m^{-exponent} of each parameter, `P`, float64."""
    if base_width < 1:
        raise InputError(f"base_width must be at least 1, got {base_width}")
    m = network.width / base_width
    ones = torch.ones(1, network.num_parameters, dtype=torch.float64)
    layers = []
    for i, (weight, bias) in enumerate(network.unpack(ones)):
        last = i == network.depth
        kind = exponents.input if i == 0 else exponents.output if last else exponents.hidden
        of_bias = output_bias if last else exponents.input
        layers.append(Layer(weight * m**-kind, bias * m**-of_bias))
    return network.pack(layers).squeeze(0)
