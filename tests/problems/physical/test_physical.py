import numpy as np
import pytest
import torch
from botorch.utils.multi_objective.box_decompositions.dominated import DominatedPartitioning
from botorch.utils.multi_objective.pareto import is_non_dominated
from scipy.optimize import minimize

from problems import PROBLEMS
from problems.physical import cell_coverage
from problems.physical.interferometer import _normal, _second_beam, frames_visibility


# ---- interferometer ------------------------------------------------------------------------------
def test_untilted_mirrors_send_the_second_beam_along_the_first():
    screws = torch.zeros(1, 4, dtype=torch.float64)
    x = torch.tensor([[0.0, 0.5]], dtype=torch.float64)
    along, across = _second_beam(screws, x, torch.zeros_like(x))
    torch.testing.assert_close(across[0, 0], x[0].square(), atol=1e-9, rtol=0)
    torch.testing.assert_close(along[0, 0], torch.full((2,), 100.0, dtype=torch.float64))


def test_a_tilted_mirror_turns_the_beam_by_twice_its_tilt():
    tilt = torch.tensor([[1e-3, 0.0]], dtype=torch.float64)
    normal, upright = _normal(tilt, 0.0), _normal(torch.zeros_like(tilt), 0.0)
    assert normal.norm().item() == pytest.approx(1.0, abs=1e-15)
    incoming = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    out = [incoming - 2 * (incoming @ n) * n for n in (normal[0], upright[0])]
    assert torch.arccos(out[0] @ out[1]).item() == pytest.approx(2e-3, rel=1e-5)


def test_the_visibility_is_one_where_aligned_and_falls_as_published():
    at = torch.tensor([[0, 0, 0, 0], [0.1, 0, 0, 0]], dtype=torch.float64)
    aligned, off = frames_visibility(at, seed=0).tolist()
    assert 0.96 < aligned <= 1.0  # noise in 16 frames of 8 bits
    assert off == pytest.approx(0.44, abs=0.01)
    problem = PROBLEMS["interferometer"].make(shifted=False)
    X = 2 * torch.rand(300, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1
    assert problem(X, seed=0).median().item() == pytest.approx(0.0015, abs=0.001)


def test_the_aligned_position_moves_with_the_shift_and_nothing_near_it_is_better():
    problem = PROBLEMS["interferometer"].make(shift_seed=4)
    best = problem.optimizers
    assert best.abs().max() > 0.1
    generator = torch.Generator().manual_seed(1)
    near = best + 0.02 * torch.randn(100, 4, generator=generator, dtype=torch.float64)
    assert problem(best, noise=False).item() >= problem(near, noise=False).max().item()


# ---- oil sorbent ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ((0, 0, 0, 0, 0, 0, 0), (115.13213, 16.81323, -5.13001)),
        ((0.5, 0.5, 2, 2, 2, 1, 1), (159.29227, 76.95967, -1.18503)),
        ((0.3, 0.8, 1, 3, 0, 2, 3), (128.50866, 163.88351, -18.34241)),
        ((1, 1, 4, 4, 4, 3, 3), (48.6414, -101.7424, -9.2195)),
    ],
)
def test_the_oil_sorbent_has_the_values_of_the_reference_study(point, expected):
    problem = PROBLEMS["oil_sorbent"].make()
    values = problem(torch.tensor([point], dtype=torch.float64))[0]
    assert values.tolist() == pytest.approx(expected, abs=6e-5)


def test_a_front_of_few_points_comes_near_the_largest_hypervolume_of_the_oil_sorbent():
    problem = PROBLEMS["oil_sorbent"].make()
    shares = torch.linspace(0, 1, 7, dtype=torch.float64)
    levels = [torch.arange(n, dtype=torch.float64) for n in (5, 5, 5, 4, 4)]
    Y = problem(torch.cartesian_prod(shares, shares, *levels))
    Y = Y[(problem.ref_point < Y).all(dim=-1)]
    gain = (Y - problem.ref_point).prod(dim=-1)
    Y = Y[gain.topk(400).indices]  # those that dominate most by themselves
    front = Y[is_non_dominated(Y)]
    reached = DominatedPartitioning(problem.ref_point, front).compute_hypervolume().item()
    assert 0.8 * problem.max_hv < reached < problem.max_hv


# ---- cell coverage -------------------------------------------------------------------------------
def test_coverage_is_counted_as_place_by_place(monkeypatch):
    problem = PROBLEMS["cell_coverage"].make(map_seed=1)
    rng = np.random.default_rng(0)
    power, tilt = rng.uniform(30, 50, 15), rng.integers(0, 6, 15)
    maps = cell_coverage.received_gain(1)
    weak = over = 0
    places = maps.shape[-1]
    for place in range(places):
        received = np.array([maps[s, tilt[s], place] + power[s] for s in range(15)])
        best = received.argmax()
        others = sum(10 ** (received[s] / 10 - 3) for s in range(15) if s != best)
        interference = 10 * np.log10(max(others, 1e-24)) + 30
        weak += received[best] < -80
        over += received[best] >= -80 and interference + 6 > received[best]
    x = torch.tensor([*power, *tilt], dtype=torch.float64)
    assert problem(x[None])[0].tolist() == pytest.approx([weak / places, over / places])


def test_the_maps_follow_the_path_loss_and_the_antenna_s_pattern(monkeypatch):
    monkeypatch.setattr(cell_coverage, "SHADOWING", 0.0)
    maps = cell_coverage.received_gain(0)
    # 900 m north of the middle station, in the beam of none of its sectors but best of the second.
    side = np.arange(cell_coverage.PIXEL / 2, cell_coverage.SIDE, cell_coverage.PIXEL)
    i, j = np.argmin(abs(side - 3060)), np.argmin(abs(side - 3900))
    east, north = side[i] - 3000, side[j] - 3000
    along = np.hypot(east, north)
    loss = 128.1 + 37.6 * np.log10(np.hypot(along, 23.5) / 1000)
    off = (np.degrees(np.arctan2(north, east)) - 150 + 180) % 360 - 180
    below = np.degrees(np.arctan2(23.5, along))
    horizontal = min(12 * (off / 70) ** 2, 30)
    for k, tilt in enumerate(cell_coverage.TILTS):
        vertical = min(12 * ((below - tilt) / 10) ** 2, 20)
        expected = 15 - min(horizontal + vertical, 30) - loss
        assert maps[7, k, i * len(side) + j] == pytest.approx(expected)


def test_more_power_everywhere_means_less_weak_coverage_and_more_interference():
    problem = PROBLEMS["cell_coverage"].make()
    X = torch.tensor([[p] * 15 + [2] * 15 for p in (30.0, 41.0, 50.0)], dtype=torch.float64)
    weak, over = problem(X).T
    assert (weak.diff() < 0).all()
    assert (over.diff() > 0).all()
    assert ((weak < 0.35) & (over < 0.35)).any()  # within the reference point


# ---- adapters ------------------------------------------------------------------------------------
def test_penicillin_is_botorch_s_with_the_yield_maximized():
    from botorch.test_functions.multi_objective import Penicillin

    problem, theirs = PROBLEMS["penicillin"].make(), Penicillin()
    low, high = problem.bounds
    unit = torch.rand(3, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    X = low + (high - low) * unit
    torch.testing.assert_close(problem(X) * torch.tensor([-1.0, 1, 1]), theirs(X))
    torch.testing.assert_close(problem.signs * problem.ref_point, -theirs.ref_point.double())


def test_heavier_plates_make_a_heavier_car():
    problem = PROBLEMS["vehicle_safety"].make()
    middle = torch.full((1, 5), 2.0, dtype=torch.float64)
    mass = problem(torch.cat([middle, middle + 0.5]))[:, 0]
    # The sum of the coefficients of its linear formula, times half a millimetre.
    slope = 2.3573285 + 2.3220035 + 4.5688768 + 7.7213633 + 4.4559504
    assert (mass[1] - mass[0]).item() == pytest.approx(0.5 * slope)
    result = minimize(lambda x: problem(torch.tensor(x)[None])[0, 0].item(), [2.0] * 5,
                      bounds=[(1, 3)] * 5)  # fmt: skip
    assert result.x == pytest.approx([1.0] * 5)
