"""Ensemble of networks trained in the maximal update parametrization: wide, and learning features.

Model of member k (outcomes standardized): y_i = f(x_i) + e_i, f = g + beta p_k, with e_i ~ N(0, v),
v learnt, fixed, or given per point; g is a trained network, p_k a fixed random one (Osband et al.
2018, arXiv 1806.03335).

Inference, in three steps.

1. Scales of p_k and of the starts, and v, by the evidence of the Gaussian process of an untrained
   network (`networks/evidence.py`).
2. g is trained by full-batch Adam on its squared error, for a fixed number of steps, in the maximal
   update parametrization (Yang and Hu 2021, arXiv 2011.14522; Adam's rules: Yang et al. 2022, arXiv
   2203.03466, table 3). With m = width / base_width, weights that leave hidden units have 1/m of
   the learning rate; the output layer starts at zero, where it tends to. Every layer's features
   then move by an amount that does not depend on the width, where in other parametrizations they
   stand still (the tangent kernel, surrogate `ntk`) or blow up: what is tuned at the base width
   holds at any (`python -m benchmarks.width`).
3. The output layer is drawn anew, several times a member, from its exact conditional given the
   hidden layers, with prior N(0, s^2 / width) and the noise v (`networks/posterior.py`). With
   `output_layer="trained"` the trained one is kept, and a member is one function.

There is no prior on the trained weights: beside a Gaussian one of the usual size, moving features
at any width costs a log density that grows with the width, and none would move. What holds the
features back is the number of steps.

Prediction: the functions, `output_draws` a member, are an equally weighted mixture.

Without step 3 and without p_k members differ by their starts alone, and in this limit a start is
forgotten: the variance of the ensemble falls as 1 / width. Uncertainty comes from what is added to
it, and is not a posterior of these networks. Their limit is a computation that grows with every
step, except for linear networks (`networks/linear_limit.py`): a wide network is its approximation.

The defaults were chosen among a dozen on the functions of `benchmarks/calibration.py`: there it
predicts many inputs and jumps better than `ensemble`, which costs less, and as well or worse where
functions are smooth and inputs few; `gp` is far better at the latter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from bo_surrogates.config import Config, choice, integer, real
from bo_surrogates.inference.adam import Minimum
from bo_surrogates.networks import ACTIVATIONS, Layer
from bo_surrogates.networks.abc_parametrization import adam_rates
from bo_surrogates.networks.posterior import NetworkPosterior
from bo_surrogates.surrogates.base import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.ensemble import DeepEnsemble, EnsembleConfig


@dataclass(frozen=True)
class MaximalUpdateConfig(EnsembleConfig):
    """Configuration of `mup`: that of `ensemble`, trained differently.

    `output_layer` is "integrated" where it is drawn anew, "trained" where it is kept;
    `learning_rate` is in prior standard deviations of a weight of a network of the base width.

    Attributes:
        base_width: n0, the width at which the learning rate means what it says.
    """

    _searched: ClassVar[tuple[str, ...] | None] = (
        "width", "depth", "activation", "steps", "learning_rate", "input_scale", "prior_function",
    )  # fmt: skip

    width: int = integer(128, 1, 4096, log=True, search=(32, 512))
    activation: str = choice("tanh", tuple(ACTIVATIONS))
    scales: str = choice("learnt", ("per-input", "learnt", "fixed"))
    steps: int = integer(200, 1, 100_000, log=True, search=(50, 1000))
    learning_rate: float = real(5e-2, 1e-6, 10.0, log=True, search=(1e-3, 0.3))
    prior_function: float = real(0.5, 0.0, 100.0, search=(0.0, 3.0))
    base_width: int = integer(32, 1, 4096, log=True)


class MaximalUpdateEnsemble(DeepEnsemble):
    """See the module's docstring."""

    config_class: ClassVar[type[Config]] = MaximalUpdateConfig
    config: MaximalUpdateConfig

    @property
    def width_ratio(self) -> float:
        """m."""
        return self.config.width / self.config.base_width

    def _start_scales(self) -> Tensor:
        """The output layer starts at zero, where it tends to at large widths."""
        *hidden, output = self.member.unpack(super()._start_scales().unsqueeze(0))
        zero = Layer(torch.zeros_like(output.weight), torch.zeros_like(output.bias))
        return self.member.pack([*hidden, zero]).squeeze(0)

    def _minimize(
        self, whitened: Tensor, X: Tensor, Y: Tensor, variance: Tensor, steps: int, threads: int
    ) -> Minimum:
        """Train all layers on the squared error; the parameters that `_posterior` has."""
        member, scales = self.member, self.prior_scales.to(X)
        flat = torch.full_like(scales, torch.inf)
        # In units of the prior standard deviations of a network of the base width.
        *hidden, output = member.unpack(scales.unsqueeze(0))
        root = self.width_ratio**0.5
        at_base = [hidden[0], *(Layer(h.weight * root, h.bias) for h in hidden[1:])]
        units = member.pack([*at_base, Layer(output.weight * root, output.bias)]).squeeze(0)
        minimum = NetworkPosterior(member, X, Y, flat, variance, threads).maximize(
            whitened * scales,
            steps=steps,
            learning_rate=self.config.learning_rate,
            scale=units * adam_rates(member, self.config.base_width).to(units),
        )
        kept = self._posterior(X, Y, variance, threads).num_parameters
        return minimum._replace(state=minimum.state[:, :kept])


SURROGATES.register(
    SurrogateEntry(
        name="mup",
        model_class=MaximalUpdateEnsemble,
        summary="Ensemble of wide networks in the maximal update parametrization",
        paper="Yang and Hu 2021, arXiv 2011.14522; Yang et al. 2022, arXiv 2203.03466",
        capabilities=Capabilities(posterior="ensemble", max_n=10_000, max_d=500),
    )
)
