"""The supernet: every layer holds all its candidates, and is their mixture by a relaxed draw.

In layer l block i is drawn with probability softmax(theta_l)_i. The draw is relaxed by Gumbel noise
g and a temperature tau,

    m_li = exp((theta_li + g_li) / tau) / sum_j exp((theta_lj + g_lj) / tau),
    x_{l+1} = sum_i m_li b_li(x_l),    LAT = sum_l sum_i m_li LUT_li,

so that both the network's output and its latency have gradients in theta. The argmax of theta + g
is an exact draw from the softmax (Gumbel-max).

Source: Wu et al. 2019, FBNet, CVPR, arXiv 1812.03443, section 3.2; the relaxation is that of Jang,
Gu and Poole 2017, arXiv 1611.01144.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from bo_surrogates.errors import InputError
from problems.documented.fbnet.macro import Architecture, FBNet, MacroSpace

SAMPLING = ("soft", "straight-through")
SMALLEST, LARGEST = 1e-9, 1.0 - 1e-7  # of the uniform numbers: their Gumbel variables are finite


def gumbel_noise(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard Gumbel variables -ln(-ln U), of a tensor's shape and device.

    Args:
        like: Whose shape, type and device.
        generator: Of the uniform numbers; None: torch's global one.
    """
    uniform = torch.rand(like.shape, generator=generator, dtype=like.dtype, device=like.device)
    return -(-uniform.clamp(SMALLEST, LARGEST).log()).log()


def relaxed_mask(logits: Tensor, noise: Tensor, temperature: float) -> Tensor:
    """softmax((logits + noise) / temperature) over the last dimension."""
    return ((logits + noise) / temperature).softmax(dim=-1)


def straight_through(mask: Tensor) -> Tensor:
    """One-hot at the largest entry going forward, the mask's own gradient going backward."""
    hard = torch.zeros_like(mask).scatter_(-1, mask.argmax(dim=-1, keepdim=True), 1.0)
    return hard + mask - mask.detach()


class SuperNet(nn.Module):
    """All architectures of a space in one network.

    In training mode every forward pass is of a fresh draw, from torch's global generator; in
    evaluation mode it is of the most probable architecture, and no other block is computed.

    Args:
        space: See `MacroSpace`.
        rows: By layer and candidate, the latencies; see `LatencyTable.rows`.
        temperature: tau > 0; an attribute, to be changed in the course of a training.
        sampling: "soft" or "straight-through".

    Raises:
        InputError: The latencies are not those of the space, or the temperature is not positive.
    """

    def __init__(
        self,
        space: MacroSpace,
        rows: Sequence[Sequence[float]],
        *,
        temperature: float = 5.0,
        sampling: str = "soft",
    ) -> None:
        super().__init__()
        if [len(row) for row in rows] != [len(layer.candidates) for layer in space.layers]:
            raise InputError("the latencies must have a row a layer and an entry a candidate")
        if temperature <= 0:
            raise InputError(f"temperature must be positive, got {temperature:g}")
        if sampling not in SAMPLING:
            raise InputError(f"sampling must be one of {', '.join(SAMPLING)}, got {sampling!r}")
        self.space, self.temperature, self.sampling = space, temperature, sampling
        self.stem = space.stem()
        self.layers = nn.ModuleList(
            nn.ModuleList(layer.make(block) for block in layer.candidates) for layer in space.layers
        )
        self.head = space.head()
        self.logits = nn.ParameterList(
            nn.Parameter(torch.zeros(len(layer.candidates))) for layer in space.layers
        )
        self._rows = len(rows)
        for number, row in enumerate(rows):
            # Sums of a table's entries are exact to more digits than it has.
            self.register_buffer(
                f"latencies_{number}", torch.tensor(row, dtype=torch.float64), persistent=False
            )

    def latencies(self) -> list[Tensor]:
        """The table's rows, by layer."""
        return [self.get_buffer(f"latencies_{number}") for number in range(self._rows)]

    def draw(self, generator: torch.Generator | None = None) -> list[Tensor]:
        """The masks of one draw, by layer: relaxed, or one-hot with a relaxed gradient."""
        masks = [
            relaxed_mask(logits, gumbel_noise(logits, generator), self.temperature)
            for logits in self.logits
        ]
        return masks if self.sampling == "soft" else [straight_through(m) for m in masks]

    def one_hot(self, architecture: Sequence[str]) -> list[Tensor]:
        """The masks of one architecture.

        Raises:
            InputError: It is not in the space.
        """
        chosen = self._indices(self.space.check(architecture))
        return [
            nn.functional.one_hot(torch.tensor(i), len(logits)).to(logits)
            for i, logits in zip(chosen, self.logits, strict=True)
        ]

    def forward(self, images: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        """Logits of classes.

        Args:
            images: `n x channels x h x w`.
            masks: By layer, as many weights as candidates; None: see the class.

        Returns:
            `n x classes`.
        """
        x = self.stem(self.space.scaled(images))
        if masks is None and not self.training:
            chosen = self._indices(self.architecture)
            for blocks, index in zip(self.layers, chosen, strict=True):
                x = _parts(blocks)[index](x)
        else:
            drawn = self.draw() if masks is None else masks
            for blocks, mask in zip(self.layers, drawn, strict=True):
                outputs = [m * block(x) for m, block in zip(mask, _parts(blocks), strict=True)]
                x = torch.stack(outputs).sum(dim=0)
        logits: Tensor = self.head(x)
        return logits

    def latency(self, masks: Sequence[Tensor]) -> Tensor:
        """sum_l sum_i m_li LUT_li, in double precision; of one-hot masks the table's sum."""
        parts = [
            (mask.to(row) * row).sum() for mask, row in zip(masks, self.latencies(), strict=True)
        ]
        return torch.stack(parts).sum()

    def probabilities(self) -> list[Tensor]:
        """softmax(theta_l), by layer."""
        return [logits.detach().softmax(dim=-1) for logits in self.logits]

    def expected_latency(self) -> float:
        """Of an architecture drawn from the probabilities."""
        return float(self.latency(self.probabilities()))

    @property
    def architecture(self) -> Architecture:
        """The most probable one."""
        return self._named([int(logits.argmax()) for logits in self.logits])

    def sample(self, generator: torch.Generator | None = None) -> Architecture:
        """An architecture drawn from the probabilities, by Gumbel-max."""
        drawn = [logits + gumbel_noise(logits, generator) for logits in self.logits]
        return self._named([int(d.argmax()) for d in drawn])

    def extract(self, architecture: Sequence[str]) -> FBNet:
        """One architecture as a network of its own, with copies of the supernet's weights."""
        network = FBNet(self.space, architecture)
        network.stem = copy.deepcopy(self.stem)
        network.head = copy.deepcopy(self.head)
        chosen = zip(self.layers, self._indices(network.architecture), strict=True)
        network.blocks = nn.Sequential(*(copy.deepcopy(_parts(b)[i]) for b, i in chosen))
        return network.train(self.training)

    def _indices(self, architecture: Architecture) -> list[int]:
        pairs = zip(self.space.layers, architecture, strict=True)
        return [layer.candidates.index(block) for layer, block in pairs]

    def _named(self, indices: Sequence[int]) -> Architecture:
        pairs = zip(self.space.layers, indices, strict=True)
        return tuple(layer.candidates[i] for layer, i in pairs)


def _parts(blocks: nn.Module) -> list[nn.Module]:
    return list(blocks.children())
