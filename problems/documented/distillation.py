"""Learning from a teacher: a network that is trained already.

With temperature T, weight a and the logits z of student and z_t of teacher, the loss is

    (1 - a) CE(z, labels) + a T^2 KL(softmax(z_t / T) || softmax(z / T))
        + b mean((features - teacher's features)^2)

Source: Hinton, Vinyals and Dean 2015, arXiv 1503.02531; features: Romero et al. 2015,
arXiv 1412.6550.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bo_surrogates.errors import InputError


@dataclass(frozen=True)
class Distillation:
    """What is learnt from a teacher.

    Attributes:
        teacher: Maps the student's inputs to as many logits; in evaluation mode.
        weight: a, in [0, 1].
        temperature: T > 0.
        features: Of two layers, by their paths in student and teacher, whose outputs are to agree;
            None: logits only.
        feature_weight: b >= 0.

    Raises:
        InputError: A number is out of range.
    """

    teacher: nn.Module
    weight: float = 0.5
    temperature: float = 1.0
    features: tuple[str, str] | None = None
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError(f"the weight of a teacher must be in [0, 1], got {self.weight!r}")
        if not self.temperature > 0:
            raise InputError(f"the temperature must be above 0, got {self.temperature!r}")
        if not self.feature_weight >= 0:
            raise InputError(f"feature_weight must be at least 0, got {self.feature_weight!r}")


def distillation_loss(
    logits: Tensor,
    labels: Tensor,
    teacher: Tensor,
    weight: float,
    temperature: float,
    label_smoothing: float = 0.0,
) -> Tensor:
    """See the module's docstring; without features.

    Args:
        logits: `n x classes`, the student's.
        labels: `n` class numbers.
        teacher: `n x classes`, the teacher's logits.
        weight: a.
        temperature: T.
        label_smoothing: Of the cross-entropy with the labels.
    """
    divergence = functional.kl_div(
        functional.log_softmax(logits / temperature, dim=-1),
        functional.log_softmax(teacher / temperature, dim=-1),
        reduction="batchmean",
        log_target=True,
    )
    hard = functional.cross_entropy(logits, labels, label_smoothing=label_smoothing)
    return (1 - weight) * hard + weight * temperature**2 * divergence


class Distiller:
    """The loss of a student in training.

    Args:
        distillation: See `Distillation`.
        student: The network in training.
        x: The training inputs where they stay as they are: the teacher sees each once. None where
            they are augmented.

    Raises:
        InputError: A layer does not exist.
    """

    def __init__(self, distillation: Distillation, student: nn.Module, x: Tensor | None) -> None:
        self.distillation, self.student = distillation, student
        self.teacher = distillation.teacher.eval()
        self.layers: tuple[nn.Module, nn.Module] | None = None
        if distillation.features is not None:
            mine, its = distillation.features
            self.layers = (_layer(student, mine, "student"), _layer(self.teacher, its, "teacher"))
        self.known: Tensor | None = None
        if x is not None and self.layers is None:
            with torch.no_grad():
                self.known = torch.cat([self.teacher(part) for part in x.split(1024)])

    def loss(self, x: Tensor, y: Tensor, indices: Tensor, label_smoothing: float) -> Tensor:
        """Of a batch: inputs, labels, and their places in the training set."""
        d = self.distillation
        if self.layers is None:
            logits = self.student(x)
            with torch.no_grad():
                target = self.teacher(x) if self.known is None else self.known[indices]
            return distillation_loss(logits, y, target, d.weight, d.temperature, label_smoothing)
        logits, mine = _with_output(self.student, self.layers[0], x)
        with torch.no_grad():
            target, its = _with_output(self.teacher, self.layers[1], x)
        if mine.shape != its.shape:
            raise InputError(
                f"the features of student and teacher must have one shape, got "
                f"{tuple(mine.shape[1:])} and {tuple(its.shape[1:])}"
            )
        loss = distillation_loss(logits, y, target, d.weight, d.temperature, label_smoothing)
        return loss + d.feature_weight * functional.mse_loss(mine, its)


def _layer(network: nn.Module, path: str, whose: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        raise InputError(f"the {whose} has no layer {path!r}: {error}") from None


def _with_output(network: nn.Module, layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """The network's output, and that of one of its layers on the way."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    try:
        result: Tensor = network(x)
    finally:
        handle.remove()
    return result, outputs[-1]
