"""BiPer's two stages, its tuning problem, and what its frequency does."""

import copy

import pytest
import torch

from problems import PROBLEMS
from problems.documented.binarization import convert, set_stage
from problems.documented.binarization.biper import periodic_layers, quantization_errors
from problems.documented.training import error_rate

SHORT = {"epochs": 3, "train_fraction": 0.1, "batch_size": 32}


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["biper"].make(**SHORT)


def stages_of(problem, changes):
    """The trained network, and after every epoch the stages of its layers."""
    stages = []
    point = {**problem.published_default, "width": 8, **changes}
    if not point["penalized"]:
        point = {k: v for k, v in point.items() if not k.startswith("penalty")}

    def look(epoch):
        stages.append({periodic.stage for _, periodic in periodic_layers(epoch.network)})

    return problem.train_best(point, 0, look), stages


def test_the_epochs_are_split_between_the_stages(problem):
    for share, expected in ((0.0, [2, 2, 2]), (0.3, [1, 2, 2]), (0.9, [1, 1, 2])):
        network, stages = stages_of(problem, {"first_stage": share})
        assert stages == [{stage} for stage in expected]
    assert len(list(periodic_layers(network))) == 4


def test_the_second_stage_goes_on_from_the_weights_of_the_first(problem):
    seen = []
    point = {**problem.published_default, "width": 8, "first_stage": 0.6, "learning_rate_2": 1e-4}
    problem.train_best(
        point, 0, lambda e: seen.append([w.detach().clone() for w, _ in periodic_layers(e.network)])
    )
    moved = [(b - a).abs().mean() for a, b in zip(seen[1], seen[2], strict=True)]
    size = [a.abs().mean() for a in seen[1]]
    assert all(m < 0.05 * s for m, s in zip(moved, size, strict=True))


def test_a_trained_network_runs_on_bits(problem):
    network = problem.train_best(problem.published_default, seed=1)
    x, _ = problem.data().part("validation")
    assert torch.equal(convert(network, x[:10])(x), network(x))


def test_the_penalty_lowers_the_sines_amplitude(problem):
    free, _ = stages_of(problem, {"penalized": False})
    penalized, _ = stages_of(problem, {"penalty_1": 1.0, "penalty_2": 1.0})

    def amplitude(network):
        return sum(p.threshold_input(w).square().mean().item() for w, p in periodic_layers(network))

    assert amplitude(penalized) < amplitude(free)


def test_the_quantization_error_is_a_metric_on_demand():
    problem = PROBLEMS["biper"].make(**SHORT, objectives=["error", "quantization_error"])
    point = {**problem.published_default, "width": 8}
    network = problem.train_best(point, seed=0)
    errors = quantization_errors(network)
    found = problem.scores(network, point, "validation")["quantization_error"]
    assert found == pytest.approx(sum(errors) / len(errors))
    assert 0 < found < 0.12


def test_signing_the_weights_of_the_first_stage_costs_less_the_higher_the_frequency():
    # By the paper's argument; in full trainings 0.57 at frequency 1 and 0.04 at 60.
    problem = PROBLEMS["biper"].make(epochs=4, batch_size=32, limit=600)
    x, y = problem.data().part("validation")
    drops = {}
    for frequency in (1.0, 60.0):
        drop = []
        for seed in range(2):
            point = {**problem.published_default, "frequency": frequency, "first_stage": 0.9}
            point |= {"width": 8, "learning_rate_1": 1e-2}
            kept = []

            def look(epoch, kept=kept):
                kept.append(copy.deepcopy(epoch.network))

            problem.train_best(point, seed, look)
            first = kept[2]  # the last epoch of the first stage
            real = error_rate(first, x, y)
            set_stage(first, 2)
            drop.append(error_rate(first, x, y) - real)
        drops[frequency] = sum(drop) / 2
    assert drops[60.0] + 0.05 < drops[1.0]
