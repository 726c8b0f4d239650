from __future__ import annotations

import torch
from torch import Tensor

from bo_surrogates.inference.adam import minimize


def rosenbrock(state: Tensor) -> Tensor:
    x, y = state[..., 0], state[..., 1]
    return ((1 - x).square() + 20 * (y - x.square()).square()).sum()


START = torch.tensor([[-1.0, 1.5], [0.3, -0.8], [2.0, 2.0]], dtype=torch.float64)


def test_steps_equal_those_of_torch() -> None:
    state = START.clone().requires_grad_()
    optimizer = torch.optim.Adam([state], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=60)
    for _ in range(60):
        optimizer.zero_grad()
        rosenbrock(state).backward()
        optimizer.step()
        schedule.step()
    minimum = minimize(rosenbrock, START, steps=60, learning_rate=0.1)
    torch.testing.assert_close(minimum.state, state.detach(), rtol=1e-10, atol=1e-12)


def test_stacked_problems_are_solved_as_if_alone() -> None:
    together = minimize(rosenbrock, START, steps=30, learning_rate=0.1)
    for i in range(3):
        alone = minimize(rosenbrock, START[i : i + 1], steps=30, learning_rate=0.1)
        torch.testing.assert_close(together.state[i : i + 1], alone.state)


def test_it_reaches_the_minimum_of_a_strongly_convex_function() -> None:
    curvature = torch.tensor([1.0, 5.0, 25.0], dtype=torch.float64)
    centre = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    minimum = minimize(
        lambda x: (curvature * (x - centre).square()).sum(),
        torch.zeros(3, dtype=torch.float64),
        steps=2000,
        learning_rate=0.1,
    )
    torch.testing.assert_close(minimum.state, centre, rtol=0, atol=1e-6)
    assert minimum.first == (curvature * centre.square()).sum().item()
    assert minimum.last < 1e-10


def test_the_start_and_outer_gradients_are_left_alone() -> None:
    start = START.clone().requires_grad_()
    minimum = minimize(rosenbrock, start, steps=3, learning_rate=0.1)
    assert torch.equal(start, START)
    assert start.grad is None
    assert not minimum.state.requires_grad
