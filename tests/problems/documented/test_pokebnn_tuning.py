"""The tuning problem: both faces, exact effort, reproducible noise, options.

Trainings here are real; where only their reproducibility matters they are short.
"""

import math

import pytest
import torch

from bo_surrogates.errors import InputError
from bo_surrogates.seeding import derive_seed
from problems import PROBLEMS

POINT = {
    "activation_bound": 3.0,
    "width": 6,
    "blocks": 2,
    "local_shortcut": "zeropad",
    "block_shortcut": "tile",
    "learning_rate": 1e-2,
}


SHORT = {"epochs": 1, "train_fraction": 0.1, "batch_size": 32}


@pytest.fixture(scope="module")
def problem():
    return PROBLEMS["pokebnn"].make(**SHORT)


@pytest.fixture(scope="module")
def measured(problem):
    return problem.evaluate(POINT, seed=1)


def test_a_network_is_trained_on_one_thread(problem):
    threads, seen = torch.get_num_threads(), []
    torch.set_num_threads(2)
    try:
        problem.measure(POINT, 0, lambda epoch: seen.append(torch.get_num_threads()))
    finally:
        torch.set_num_threads(threads)
    assert seen == [1]


def test_other_seeds_are_other_observations_of_the_error_and_the_same_effort(problem, measured):
    others = [problem.evaluate(POINT, seed=s) for s in (2, 3)]
    assert len({m["error"] for m in [measured, *others]}) > 1
    assert {m["log_ace"] for m in others} == {measured["log_ace"]}


def test_the_tensor_face_measures_every_row_and_is_negated_on_demand(problem, measured):
    X = problem.space.encode(POINT).expand(1, 2, -1)
    negated = PROBLEMS["pokebnn"].make(**SHORT, negate=True)
    Y = negated(X, seed=1)
    assert Y.shape == (1, 2, 2)
    assert (-Y[0, 0]).tolist() == [measured["error"], measured["log_ace"]]
    second = problem.measure(POINT, derive_seed(1, "point", 1))
    assert (-Y[0, 1]).tolist() == list(second.values())


def test_without_noise_the_configured_seed_is_used(problem):
    x = problem.space.encode(POINT)
    assert torch.equal(problem(x, noise=False), problem.evaluate_true(x))
    other = PROBLEMS["pokebnn"].make(**SHORT, training_seed=5)
    assert other(x, noise=False).tolist() == list(problem.measure(POINT, 5).values())


def test_the_effort_counted_by_hand_is_exact(problem, measured):
    f, stem = 6, 16
    binary = 64 * (stem * f) + 64 * 9 * f * f + 64 * f * 4 * f  # the first block, 8 x 8
    # The second: 8 x 8 before its stride, 4 x 4 after.
    binary += 64 * (4 * f * f) + 16 * 9 * f * f + 16 * f * 4 * f
    gates = 0
    for c_in, c_out in ((stem, f), (f, f), (f, 4 * f), (4 * f, f), (f, f), (f, 4 * f)):
        hidden = max(c_in // 8, 1)
        gates += c_in * hidden + hidden * c_out
    eight = 64 * 9 * stem + 4 * f * 10
    ace = binary + 16 * gates + 64 * eight
    assert problem.cost(POINT).ace == ace
    assert measured["log_ace"] == math.log10(ace)


def test_effort_grows_with_width_and_depth_and_not_with_what_has_no_macs(problem):
    ace = {w: problem.cost({**POINT, "width": w}).ace for w in (4, 12, 32)}
    assert ace[4] < ace[12] < ace[32]
    assert problem.cost(POINT).ace < problem.cost({**POINT, "blocks": 3}).ace
    free = {"activation_bound": 0.5, "local_shortcut": "none", "block_shortcut": "none"}
    assert problem.cost({**POINT, **free}).ace == problem.cost(POINT).ace


def test_the_reference_point_is_beyond_the_largest_network(problem):
    largest = problem.space.decode(problem.space.bounds[1])
    error, log_ace = problem.ref_point.tolist()
    assert math.log10(problem.cost(largest).ace) < log_ace
    assert 0 < error < 0.9  # chance


def test_a_short_training_beats_chance_by_far():
    # Chance is 0.9.
    problem = PROBLEMS["pokebnn"].make(epochs=3, squeeze_excite=False)
    assert problem.evaluate({**POINT, "width": 8, "blocks": 3}, seed=0)["error"] < 0.5


def test_the_hook_sees_every_epoch_s_loss_fall(problem):
    losses = []
    metrics = (
        PROBLEMS["pokebnn"]
        .make(epochs=3, batch_size=32, train_fraction=0.3)
        .measure({**POINT, "learning_rate": 2e-2}, 0, lambda e: losses.append(e.loss))
    )
    assert len(losses) == 3
    assert losses[2] < losses[1] < losses[0]
    assert set(metrics) == set(problem.metrics)


def test_a_budget_makes_effort_a_constraint_and_error_the_only_objective(measured):
    ace = 10 ** measured["log_ace"]
    tight, loose = (PROBLEMS["pokebnn"].make(**SHORT, ace_budget=b * ace) for b in (0.9, 1.1))
    assert [o.name for o in tight.objectives] == ["error"]
    assert not hasattr(tight, "ref_point")
    assert tight.evaluate(POINT, seed=1) == measured
    x = tight.space.encode(POINT)
    assert tight(x, seed=1).item() == measured["error"]
    slack = tight.evaluate_slack(x, seed=1)
    torch.testing.assert_close(slack, torch.tensor([math.log10(0.9)], dtype=torch.float64))
    assert not tight.is_feasible(x, seed=1)
    assert loose.is_feasible(x, seed=1)


def test_parameters_of_the_wider_searches_reach_the_network_and_its_training(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = PROBLEMS["pokebnn"].make(**SHORT, search="all")
    point = {**problem.published_default, "bits": 2, "se_bits": 8, "stem_bits": 4, "head_bits": 16}
    del point["weight_bound"]  # inactive where weights are not binary
    assert set(problem.cost(point).macs) == {(2, 2), (8, 8), (4, 4), (16, 16)}
    with_teacher, alone = (
        problem.measure({**point, "teacher_weight": w, "temperature": 2.0}, 0) for w in (1.0, 0.0)
    )
    assert with_teacher["error"] != alone["error"]
    late = problem.train_best({**point, "bits": 1, "weight_bound": "mean", "float_phase": 0.3}, 0)
    phases = [v for k, v in late.state_dict().items() if k.endswith("weights.binary")]
    assert len(phases) == 6
    assert all(phases)
    no_gate = {k: v for k, v in point.items() if k not in ("se_bits", "se_ratio")}
    assert problem.cost({**no_gate, "squeeze_excite": False}).ace < problem.cost(point).ace


def test_the_width_may_be_the_fidelity():
    space = PROBLEMS["pokebnn"].make(fidelity="width").space
    assert (space.fidelity.name, space.fidelity.target) == ("width", 32)


def test_images_too_small_for_two_resolutions_are_refused_by_name(tmp_path):
    from PIL import Image

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(10):
            Image.new("L", (3, 3), i).save(tmp_path / name / f"{i}.png")
    with pytest.raises(InputError, match="3 x 3 pixels are too small"):
        PROBLEMS["pokebnn"].make(data="folder", folder=str(tmp_path))


def test_options_reach_the_network():
    options = {"squeeze_excite": False, "activation": "relu", "stem_bits": 16, "head_bits": 4}
    cost = PROBLEMS["pokebnn"].make(**options, stem_channels=8).cost(POINT)
    assert set(cost.macs) == {(1, 1), (16, 16), (4, 4)}
    assert cost.macs[16, 16] == 64 * 9 * 8
    assert cost.macs[4, 4] == 24 * 10
    assert set(PROBLEMS["pokebnn"].make(bits=2).cost(POINT).macs) == {(2, 2), (4, 4), (8, 8)}


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("epochs", 0),
        ("activation", "gelu"),
        ("train_fraction", 1.0),
        ("se_bits", 1),
        ("ace_budget", 0.5),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option, value):
    with pytest.raises(InputError, match=f"PokeBNNTuningConfig.{option} must be"):
        PROBLEMS["pokebnn"].make(**{option: value})


@pytest.mark.parametrize(
    ("device", "message"),
    [("tpu9", 'device must be "cpu", "cuda" or, .*got \'tpu9\''),
     ("cuda:99", "device 'cuda:99' cannot be used here")],
)  # fmt: skip
def test_an_unknown_device_is_refused_by_name(device, message):
    with pytest.raises(InputError, match=message):
        PROBLEMS["pokebnn"].make(device=device)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [("activation_bound", 20.0), ("width", 3), ("local_shortcut", "pad"), ("blocks", 1.5)],
)
def test_a_parameter_out_of_range_is_refused_by_name(problem, parameter, value):
    with pytest.raises(InputError, match=f"parameter '{parameter}' must be"):
        problem.evaluate({**POINT, parameter: value})
