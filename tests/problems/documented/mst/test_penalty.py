"""The penalties on differing filters: values, gradients, when they apply, and resuming."""

import copy

import pytest
import torch
from torch import nn

from bo_surrogates.errors import InputError
from problems.documented.binarization import OPERATORS, BinaryConv2d, BinaryLinear
from problems.documented.mst import (
    TreeConfig,
    TreePenalty,
    centre_loss,
    layer_trees,
    tree_loss,
)
from problems.documented.training import Hooks, Moment, Training, TrainingConfig


def random_signs(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1


def network(operator="bireal", seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 20), BinaryLinear(20, 12, operator), nn.BatchNorm1d(12),
        BinaryLinear(12, 4, operator),
    )  # fmt: skip


def moment(step, steps=20, epochs=2):
    return Moment(step * epochs // steps, epochs, step, steps)


# ---- values and gradients -----------------------------------------------------------------------
@pytest.mark.parametrize("inversions", [False, True])
def test_the_tree_loss_is_the_share_of_signs_that_flip(inversions):
    model = network()
    config = TreeConfig(inversions=inversions)
    penalty = TreePenalty(model, 1.0, config=config)
    assert penalty.loss(model) == 0  # there is no tree yet
    penalty.find_trees(model)
    expected = 0.0
    for layer in (model[1], model[3]):
        (tree,) = layer_trees(layer, config)
        expected += tree.flips.sum() / (tree.filters * tree.terms)
    assert penalty.loss(model).item() == pytest.approx(expected)


def test_gradients_pass_on_differing_signs_within_the_clip():
    model = network("bnn")
    with torch.no_grad():
        model[1].weight.mul_(10)  # some beyond the clip
    penalty = TreePenalty(model, 1.0)
    penalty.find_trees(model)
    penalty.loss(model).backward()
    weight = model[1].weight
    (tree,) = layer_trees(model[1])
    B = torch.where(weight >= 0, 1.0, -1.0)
    expected = torch.zeros_like(B)
    for child, parent in enumerate(tree.parent):
        step = torch.sign(B[child] - B[parent]) / 2 / B.numel()
        expected[child] += step
        expected[parent] -= step
    torch.testing.assert_close(weight.grad, expected * (weight.abs() <= 1))
    assert (expected[weight.abs() > 1] != 0).any()
    assert (expected[weight.abs() <= 1] != 0).any()


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_s_weights_get_a_gradient_whatever_their_scale(operator):
    operator = OPERATORS[operator].replace(output_scale="none")
    torch.manual_seed(0)
    model = nn.Sequential(BinaryConv2d(3, 8, 3, operator))
    model.train()
    penalty = TreePenalty(model, 1.0)
    penalty.find_trees(model)
    loss = penalty.loss(model)
    (tree,) = layer_trees(model[0])
    assert loss.item() == pytest.approx(tree.flips.sum() / (8 * 27))  # no noise in training
    loss.backward()
    assert model[0].weight.grad.abs().sum() > 0
    assert model[0].weight.grad.isfinite().all()


def test_the_centre_loss_is_the_share_of_signs_that_are_in_the_minority():
    signs = random_signs(1, 7, 30).requires_grad_()
    minority = torch.minimum((signs[0] > 0).sum(0), (signs[0] < 0).sum(0)).sum().item()
    loss = centre_loss(signs)
    assert loss.item() == pytest.approx(minority / (7 * 30))
    loss.backward()
    majority = torch.where(signs.detach().sum(1, keepdim=True) >= 0, 1.0, -1.0)
    torch.testing.assert_close(signs.grad, torch.sign(signs.detach() - majority) / 2 / 210)


def test_negatives_of_one_filter_have_no_loss_where_parents_may_be_inverted():
    signs = random_signs(1, 1, 30) * random_signs(1, 9, 1, seed=1)
    assert centre_loss(signs, inversions=True) == 0
    assert centre_loss(signs) > 0
    parent = torch.zeros(9, dtype=torch.long)
    assert tree_loss(signs[0], parent, signs[0] @ signs[0, 0] / 30) == 0
    for seed in range(
        5
    ):  # as a filter is never farther from the nearer of the centre and its negative
        noisy = random_signs(1, 9, 30, seed=seed)
        assert centre_loss(noisy, inversions=True) <= 0.5


def test_groups_have_a_tree_and_a_centre_each():
    torch.manual_seed(0)
    model = nn.Sequential(BinaryConv2d(6, 10, 3, groups=2))
    penalty = TreePenalty(model, 1.0)
    penalty.find_trees(model)
    trees = layer_trees(model[0])
    flips = sum(tree.flips.sum() for tree in trees)
    assert penalty.loss(model).item() == pytest.approx(flips / (10 * 27))
    assert (penalty.parent0[5:] >= 5).all()
    with torch.no_grad():
        model[0].weight[:5], model[0].weight[5:] = 1, -1
    assert TreePenalty(model, 1.0, tree_share=0.0).loss(model) == 0


def test_a_mix_is_between_the_two():
    model = network()
    found = {}
    for share in (0.0, 0.3, 1.0):
        penalty = TreePenalty(model, 1.0, tree_share=share)
        penalty.find_trees(model)
        found[share] = penalty.loss(model).item()
    assert found[0.3] == pytest.approx(0.7 * found[0.0] + 0.3 * found[1.0])


# ---- in the course of a training ----------------------------------------------------------------
def test_the_penalty_begins_late_and_trees_are_found_every_so_many_steps(monkeypatch):
    model = network()
    penalty = TreePenalty(model, 4.0, start=0.25, refresh=6)
    found = []
    find = penalty.find_trees
    monkeypatch.setattr(penalty, "find_trees", lambda n: (found.append(step), find(n)))
    values = []
    for step in range(20):
        values.append(penalty(model, moment(step)).item())
    assert found == [5, 11, 17]
    assert values[:5] == [0] * 5
    assert values[5:] == [pytest.approx(4 * penalty.loss(model).item())] * 15
    assert TreePenalty(model, 0.0)(model, moment(19)) == 0


def make_training(epochs=4):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    y = torch.randint(0, 4, (40,), generator=generator)
    model = network()
    penalty = TreePenalty(model, 20.0, start=0.3, refresh=7)
    config = TrainingConfig(epochs=epochs, batch_size=10, learning_rate=0.02)
    return Training(model, x, y, config, 3, Hooks(penalty=penalty, memory=penalty))


def test_a_training_resumed_between_refreshes_ends_as_it_would_have():
    whole = make_training()
    states = []
    while whole.epoch < whole.epochs:
        whole.run_epoch()
        states.append(whole.state())
    # Trees are found at steps 5 and 12: those of epochs 3 and 4 (steps 8 and 12) are remembered.
    for number in (0, 1, 2):
        resumed = make_training()
        resumed.restore(copy.deepcopy(states[number]))
        while resumed.epoch < resumed.epochs:
            resumed.run_epoch()
        for name, tensor in resumed.state().tensors.items():
            assert torch.equal(tensor, states[-1].tensors[name]), name
    forgotten = make_training()
    forgotten.restore(copy.deepcopy(states[1]))
    forgotten.hooks.memory.load_state_dict(TreePenalty(network(), 1.0).state_dict())
    while forgotten.epoch < forgotten.epochs:
        forgotten.run_epoch()
    assert not torch.equal(forgotten.network[1].weight, whole.network[1].weight)


def test_numbers_out_of_range_and_networks_without_filters_are_refused():
    for name, value in (("strength", -1.0), ("tree_share", 1.5), ("start", 2.0), ("refresh", 0)):
        with pytest.raises(InputError, match=rf"{name} must be in"):
            TreePenalty(network(), **{"strength": 1.0, name: value})
    with pytest.raises(InputError, match="no binary layer"):
        TreePenalty(nn.Linear(3, 4), 1.0)
