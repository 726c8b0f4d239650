"""The cases that are timed against each other do the same arithmetic."""

import torch

from benchmarks.ensembles import CASES, MEMBERS, TARGET, Task, verdict
from bo_surrogates.networks.posterior import NetworkPosterior


def test_all_cases_have_the_same_gradient():
    task = Task(12, 8, torch.float64, seed=0)
    theta = task.start.clone().requires_grad_()
    (expected,) = torch.autograd.grad(task.autograd_loss(theta), theta)

    parameters, gradient = task.stacked_gradient()
    stacked = gradient(parameters)
    for k, module in enumerate(task.modules()):
        loss = task.negative_log_posterior(
            module(task.X), task.flat(dict(module.named_parameters()))
        )
        loss.backward()
        by_module = task.flat({name: p.grad for name, p in module.named_parameters()})
        torch.testing.assert_close(by_module, expected[k])
        torch.testing.assert_close(task.flat({n: g[k] for n, g in stacked.items()}), expected[k])

    posterior = NetworkPosterior(task.network, task.X, task.Y, task.scales, task.noise)
    torch.testing.assert_close(-posterior(task.start)[1], expected)
    assert len(task.start) == MEMBERS


def test_every_case_runs():
    task = Task(5, 4, torch.float32, seed=0)
    for name in CASES:
        getattr(task, name)(2)


def test_a_missed_target_is_said_by_which_factor():
    row = {"case": TARGET["case"], "cpu": 3 * TARGET["cpu"]}
    assert "missed by a factor of 3.0" in verdict([row])
    assert verdict([{**row, "cpu": TARGET["cpu"]}]).endswith("met")
