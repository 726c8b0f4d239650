"""The loss of a student, against its formula."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from bo_surrogates.errors import InputError
from problems.documented.distillation import Distillation, Distiller, distillation_loss


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(6, 4, generator=generator), torch.arange(6) % 3


def test_the_loss_is_its_formula():
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 0, 1])
    p, q = (t / 4).softmax(-1), (z / 4).softmax(-1)
    expected = 0.7 * functional.cross_entropy(z, y) + 0.3 * 16 * (p * (p / q).log()).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(z, y, t, 0.3, 4.0), expected)


def test_the_teacher_is_asked_once_where_inputs_stay_as_they_are(batch):
    x, y = batch
    calls = []
    teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    teacher.register_forward_hook(lambda *_: calls.append(1))
    kept = Distiller(Distillation(teacher, 0.5), student, x)
    losses = [kept.loss(x[i], y[i], i, 0.0) for i in (torch.arange(3), torch.arange(3, 6))]
    assert len(calls) == 1
    asked = Distiller(Distillation(teacher, 0.5), student, None)
    torch.testing.assert_close(losses[1], asked.loss(x[3:], y[3:], torch.arange(3, 6), 0.0))


def test_features_of_two_layers_are_brought_together(batch):
    x, y = batch
    student = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    teacher = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    told = Distillation(teacher, 0.0, features=("0", "1"), feature_weight=2.0)
    loss = Distiller(told, student, x).loss(x, y, torch.arange(6), 0.0)
    gap = (student[0](x) - teacher[:2](x)).square().mean()
    torch.testing.assert_close(loss, functional.cross_entropy(student(x), y) + 2 * gap)


def test_what_does_not_fit_is_refused_by_name(batch):
    x, _y = batch
    student, teacher = nn.Sequential(nn.Linear(4, 3)), nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(InputError, match="student has no layer 'stem'"):
        Distiller(Distillation(teacher, features=("stem", "0")), student, x)
    with pytest.raises(InputError, match="weight of a teacher"):
        Distillation(teacher, weight=1.5)
    with pytest.raises(InputError, match="temperature"):
        Distillation(teacher, temperature=0.0)
