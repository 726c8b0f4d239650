"""Learning across tasks: with features that move it pays, with a kernel it does not."""

import torch

from benchmarks.meta_learning import INPUTS, META_TRAIN, WAYS, World, meta_train, run
from bo_surrogates.networks.linear_limit import LinearNetwork, infinite_width


def test_what_is_learnt_across_tasks_is_a_metric_and_a_kernel_has_none_to_learn() -> None:
    found = run([256], seed=0, iterations=150, batch=8, test_tasks=100)
    # The standard deviation of a task's accuracy is below 0.2, that of the mean of 100 below 0.02;
    # networks are judged by the same tasks.
    assert found["infinite width"][1] > found["infinite width"][0] + 0.1
    assert found["infinite width"][1] > found["kernel limit"][1] + 0.1
    assert abs(found["kernel limit"][1] - found["kernel limit"][0]) < 0.05
    assert abs(found["width 256"][1] - found["infinite width"][1]) < 0.1


def test_the_limit_learns_what_any_network_of_its_form_learns() -> None:
    """With orthonormal columns in place of random ones, exactly."""
    limit = infinite_width(INPUTS, WAYS)
    normal = torch.randn(100, len(limit.U), generator=torch.Generator().manual_seed(1))
    G = torch.linalg.qr(normal.double()).Q
    metrics = [
        meta_train(network, World(0), 3, 4).metric()
        for network in (limit, LinearNetwork(G @ limit.U, limit.V @ G.mT))
    ]
    torch.testing.assert_close(metrics[1], metrics[0], rtol=1e-10, atol=1e-10)


def test_classes_of_training_and_test_are_apart() -> None:
    world = World(0)
    tasks = world.tasks(50, range(META_TRAIN))
    assert tasks.support.shape == (50, WAYS, INPUTS)
    latent = tasks.support @ world.rotation[:, :6] * world.size
    nearest = torch.cdist(latent.flatten(0, 1), world.prototypes).argmin(dim=-1)
    assert (nearest < META_TRAIN).double().mean() > 0.8
