"""Campaigns: ask, tell, the guard on results, runs and resumes, the best and the Pareto front."""

import math
from dataclasses import replace

import pytest
import torch
from threadpoolctl import threadpool_info

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Space
from bo_surrogates.surrogates.gp import GPConfig
from tests.bo_surrogates.campaign.black_boxes import loss
from tests.bo_surrogates.campaign.thread_counter import count_threads

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
ONE = CampaignSpec(
    name="one",
    space=Space([Float("x", 0.0, 1.0), Choice("kind", ("u", "v"))]),
    objectives=(Objective("loss"),),
    budget=8,
    initial=4,
    seed=5,
    acquisition=FAST,
)
TWO = replace(
    ONE,
    name="two",
    objectives=(Objective("f", reference=1.0), Objective("g", "maximize", reference=-1.0)),
    constraints=(OutcomeConstraint("h", "<=", 0.8),),
)


@pytest.fixture
def one(tmp_path):
    with Campaign.create(ONE, tmp_path / "c.db") as campaign:
        yield campaign


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    database = tmp_path_factory.mktemp("done") / "c.db"
    with Campaign.create(ONE, database) as campaign:
        campaign.run(loss)
    with Campaign.open(database, read_only=True) as campaign:
        yield campaign


def test_a_run_spends_its_budget_and_finds_the_optimum(finished):
    assert [t.status for t in finished.trials] == ["completed"] * 8
    assert [t.origin for t in finished.trials] == ["sobol"] * 4 + ["gp"] * 4
    for t in finished.trials:
        assert t.value("loss") == loss(**t.parameters)
    best = finished.best()
    assert best.value("loss") == min(t.value("loss") for t in finished.trials)
    assert best.value("loss") < min(t.value("loss") for t in finished.trials[:4])


def test_the_same_seed_gives_the_same_campaign_and_another_seed_another(finished, tmp_path):
    def parameters(seed):
        with Campaign.create(replace(ONE, seed=seed), tmp_path / f"{seed}.db") as campaign:
            campaign.run(loss)
            return [t.parameters for t in campaign.trials]

    expected = [t.parameters for t in finished.trials]
    assert parameters(ONE.seed) == expected
    assert parameters(ONE.seed + 1) != expected


def test_a_campaign_stopped_and_resumed_equals_an_uninterrupted_one(finished, tmp_path):
    with Campaign.create(ONE, tmp_path / "c.db") as campaign:
        campaign.run(loss, trials=3)
    with Campaign.open(tmp_path / "c.db") as campaign:
        assert len(campaign.trials) == 3
        campaign.run(loss, trials=3)
    with Campaign.open(tmp_path / "c.db") as campaign:
        campaign.run(loss)
        campaign.run(loss)  # the budget is spent: nothing happens
        assert [t.parameters for t in campaign.trials] == [t.parameters for t in finished.trials]


def test_ask_and_tell_by_hand_equal_a_run(finished, one):
    for expected in finished.trials:
        (trial,) = one.ask()
        assert trial.parameters == expected.parameters
        told = one.tell(trial.index, {"loss": loss(**trial.parameters)})
        assert (told.status, told.index) == ("completed", trial.index)


def test_results_do_not_depend_on_the_number_of_workers(tmp_path):
    batches = replace(ONE, batch_size=2, black_box=None)
    courses = []
    for workers in (1, 2):
        with Campaign.create(batches, tmp_path / f"{workers}.db") as campaign:
            campaign.run(loss, workers=workers)
            courses.append([(t.parameters, t.value("loss")) for t in campaign.trials])
    assert courses[0] == courses[1]


def test_points_of_the_users_own_count_as_data(one):
    trial = one.add_trial({"x": 0.25, "kind": "v"})
    assert trial.origin == "manual"
    one.tell(trial.index, {"loss": (0.5, 0.1)})
    assert one.best().parameters == {"x": 0.25, "kind": "v"}
    assert one.best().measurements["loss"] == Measurement(0.5, 0.1)
    with pytest.raises(InputError, match=r"'x' must be in \[0.0, 1.0\]"):
        one.add_trial({"x": 2, "kind": "v"})
    with pytest.raises(InputError, match="did you mean 'kind'"):
        one.add_trial({"x": 0.5, "kin": "v"})


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({"los": 1.0}, "unknown metric 'los'; did you mean 'loss'"),
        ({}, "metric 'loss' is missing"),
        ({"loss": "1.0"}, "'loss': a measurement's value must be a number, got '1.0'"),
        ({"loss": True}, "must be a number, got True"),
        ({"loss": None}, "must be a number, got None"),
        ({"loss": float("nan")}, "must be finite, got nan.*abandon the trial"),
        ({"loss": -math.inf}, "must be finite, got -inf"),
        ({"loss": (1.0, -0.1)}, "standard error must be >= 0"),
        ({"loss": (1.0, 0.1, 3)}, "expected a value or a pair"),
        (1.5, "a result maps metrics to values"),
    ],
)
def test_a_bad_result_is_refused_by_name_and_the_trial_stays_open(one, result, message):
    (trial,) = one.ask()
    with pytest.raises(InputError, match=message):
        one.tell(trial.index, result)
    assert one.trials[0].status == "running"
    one.tell(trial.index, {"loss": 1.0})


def test_wrong_indices_are_refused(one):
    one.ask(2)
    for index, message in ((5, "no trial 5; running trials: 0, 1"), ("0", "an integer"),
                           (True, "an integer"), (-1, "no trial -1")):  # fmt: skip
        with pytest.raises(InputError, match=message):
            one.tell(index, {"loss": 1.0})
        with pytest.raises(InputError, match=message):
            one.abandon(index, "why")
    one.tell(0, {"loss": 1.0})
    with pytest.raises(InputError, match="trial 0 is completed already"):
        one.abandon(0, "changed my mind")
    for n in (0, -1, 1.5, True):
        with pytest.raises(InputError, match="positive number"):
            one.ask(n)


def test_failures_are_recorded_with_their_reason_and_the_campaign_goes_on(one):
    def sometimes(x, kind):
        if x > 0.6:
            raise ValueError("the pump is blocked")
        return float("nan") if x < 0.1 else loss(x, kind)

    one.run(sometimes)
    by_status = {s: [t for t in one.trials if t.status == s] for s in ("completed", "abandoned")}
    assert len(one.trials) == 8
    assert by_status["completed"]
    for t in by_status["abandoned"]:
        assert ("pump is blocked" in t.reason) == (t.parameters["x"] > 0.6)
        assert ("nan" in t.reason.lower()) == (t.parameters["x"] < 0.1)
    assert any("pump" in t.reason for t in by_status["abandoned"])
    assert len({tuple(t.parameters.values()) for t in one.trials}) == 8


def test_a_black_box_that_always_fails_stops_the_run(one):
    def broken(x, kind):
        raise OSError("no such device")

    with pytest.raises(RunError, match="last 5 trials failed, the last with: .*no such device"):
        one.run(broken)
    assert [t.status for t in one.trials] == ["abandoned"] * 5
    assert one.best() is None
    one.run(loss)  # mended
    assert len(one.trials) == 8


def test_interrupted_trials_are_run_again_or_abandoned_by_policy(tmp_path):
    for policy in ("rerun", "abandon"):
        database = tmp_path / f"{policy}.db"
        with Campaign.create(replace(ONE, on_interrupt=policy, budget=4), database) as campaign:
            asked = campaign.ask(2)
        with Campaign.open(database) as campaign:
            campaign.run(loss)
            first = campaign.trials[:2]
            assert [t.parameters for t in first] == [t.parameters for t in asked]
            expected = "completed" if policy == "rerun" else "abandoned"
            assert [t.status for t in first] == [expected] * 2
            assert len(campaign.trials) == 4


def test_ctrl_c_leaves_the_trial_running_and_a_resume_runs_it_again(finished, tmp_path):
    calls = []

    def interrupted(x, kind):
        calls.append(x)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return loss(x, kind)

    with Campaign.create(ONE, tmp_path / "c.db") as campaign:
        with pytest.raises(KeyboardInterrupt):
            campaign.run(interrupted)
        assert [t.status for t in campaign.trials] == ["completed"] * 5 + ["running"]
    with Campaign.open(tmp_path / "c.db") as campaign:
        campaign.run(loss)
        assert [t.parameters for t in campaign.trials] == [t.parameters for t in finished.trials]


def test_the_budget_can_be_extended_for_good(tmp_path):
    with Campaign.create(replace(ONE, budget=2, initial=2), tmp_path / "c.db") as campaign:
        campaign.run(loss)
        campaign.extend(1)
    with Campaign.open(tmp_path / "c.db") as campaign:
        assert campaign.spec.budget == 3
        campaign.run(loss)
        assert len(campaign.trials) == 3
        with pytest.raises(InputError, match="positive number"):
            campaign.extend(0)


def test_a_reader_may_look_while_a_writer_writes_but_not_write(one):
    one.ask()
    with Campaign.open(one.database, read_only=True) as reader:
        assert len(reader.trials) == 1
        assert reader.spec == one.spec
        assert reader.journal.campaigns() == ["one"]
        for act in (
            lambda: reader.ask(),
            lambda: reader.tell(0, {"loss": 1.0}),
            lambda: reader.abandon(0, "x"),
            lambda: reader.run(loss),
        ):
            with pytest.raises(RunError, match="read-only"):
                act()
    with pytest.raises(RunError, match="is being written by process"):
        Campaign.open(one.database)


def test_several_objectives_have_a_front_with_its_hypervolume(tmp_path):
    with Campaign.create(TWO, tmp_path / "c.db") as campaign:
        points = [(0.2, 0.5, 0.0), (0.5, 0.9, 0.0), (0.6, 0.8, 0.0), (0.1, 0.1, 0.9), (2, 5, 0.0)]
        for trial, (f, g, h) in zip(campaign.ask(5), points, strict=True):
            campaign.tell(trial.index, {"f": f, "g": g, "h": h})
        front = campaign.pareto_front()
        # (0.6, 0.8) is dominated by (0.5, 0.9); (0.1, 0.1) is infeasible (h > 0.8).
        assert [(t.value("f"), t.value("g")) for t in front] == [(0.2, 0.5), (0.5, 0.9), (2, 5)]
        # f is minimized from 1, g maximized from -1; (2, 5) lies outside the reference box.
        expected = (1 - 0.2) * (0.5 + 1) + (1 - 0.5) * (0.9 - 0.5)
        assert campaign.hypervolume() == pytest.approx(expected, rel=1e-12)
        assert campaign.hypervolume({"f": 0.0}) == 0.0
        with pytest.raises(InputError, match="several|2 objectives"):
            campaign.best()


def test_a_run_with_several_objectives_and_a_constraint(tmp_path):
    def f(x, kind):
        return {"f": x, "g": -((x - 1) ** 2), "h": 0.5 if kind == "v" else 1.0}

    with Campaign.create(TWO, tmp_path / "c.db") as campaign:
        campaign.run(f)
        assert len(campaign.trials) == 8
        assert all(t.parameters["kind"] == "v" for t in campaign.pareto_front())


def test_the_data_frame_holds_a_row_a_trial(finished):
    frame = finished.to_dataframe()
    assert list(frame["trial"]) == list(range(8))
    assert torch.allclose(
        torch.tensor(frame["loss"].to_numpy()),
        torch.tensor([loss(x, k) for x, k in zip(frame["x"], frame["kind"], strict=True)]).double(),
    )


def test_a_campaign_of_the_same_name_is_not_overwritten(one):
    one.ask()
    with pytest.raises(InputError, match="holds a campaign 'one' already; resume it"):
        Campaign.create(ONE, one.database)
    assert len(one.trials) == 1


def test_a_function_that_cannot_take_the_parameters_is_refused_before_any_trial(one):
    with pytest.raises(InputError, match="kind"):
        one.run(lambda x: x)
    assert one.trials == []


def test_a_campaign_without_a_black_box_says_what_to_do(one):
    with pytest.raises(InputError, match="no black box to run: give run"):
        one.run()


@pytest.mark.parametrize("executor", ["in-process", "processes"])
def test_an_evaluation_may_use_the_threads_the_campaign_says(tmp_path, executor):
    spec = replace(ONE, budget=1, initial=1, threads=3)
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        before = torch.get_num_threads()
        campaign.run(count_threads, executor=executor)
        assert [t.value("loss") for t in campaign.trials] == [3.0]
        assert torch.get_num_threads() == before


def test_a_stored_campaign_keeps_the_surrogates_defaults_of_its_day(one):
    with Campaign.open(one.database, read_only=True) as campaign:
        assert campaign.spec.surrogate_config == GPConfig().to_dict()


def test_an_unknown_surrogate_is_refused_before_anything_is_stored(tmp_path):
    with pytest.raises(InputError, match="unknown surrogate 'gpp'; did you mean 'gp'"):
        Campaign.create(replace(ONE, surrogate="gpp"), tmp_path / "c.db")
    assert not (tmp_path / "c.db").exists()


def test_a_proposal_uses_one_thread_so_that_rounding_does_not_depend_on_the_cores(one, monkeypatch):
    ask, seen = AxBridge.ask, []

    def spy(self, n, trials, fixed):
        seen.append({torch.get_num_threads()} | {p["num_threads"] for p in threadpool_info()})
        return ask(self, n, trials, fixed)

    monkeypatch.setattr(AxBridge, "ask", spy)
    torch.set_num_threads(2)
    try:
        one.ask()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [{1}]


def test_a_value_without_its_standard_error_is_refused_where_the_noise_is_declared_known(tmp_path):
    spec = replace(ONE, noise={ONE.objectives[0].name: "known"})
    metric = ONE.objectives[0].name
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        (trial,) = campaign.ask()
        with pytest.raises(InputError, match=f"metric '{metric}' lacks its standard error"):
            campaign.tell(trial.index, {metric: 1.0})
        assert campaign.trials[trial.index].status == "running"
        campaign.tell(trial.index, {metric: (1.0, 0.1)})
        assert campaign.trials[trial.index].status == "completed"
