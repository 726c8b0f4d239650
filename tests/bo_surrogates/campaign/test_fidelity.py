"""Campaigns with a fidelity: the answer is at the target, trials cost what they cost."""

import json
import tomllib
from dataclasses import replace

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.acquisition.defaults import make_acquisition
from bo_surrogates.acquisition.fidelity import FidelityChoice, baseline_points, choose_fidelity
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.campaign_file import campaign_from_mapping
from bo_surrogates.campaign.early_stopping import EarlyStopping
from bo_surrogates.campaign.recommendation import recommend, recommend_tried
from bo_surrogates.campaign.slices import default_point
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.spending import at_target
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.cli import app
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError
from bo_surrogates.fidelity import FidelityConfig
from bo_surrogates.loop import _standardized, fit
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.seeding import derive_seed, fixed_seed
from bo_surrogates.space import Choice, Float, Int, Space

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
# The choice comes first: Ax's one-hot columns shift the fidelity's.
SPACE = Space(
    [Choice("c", ("a", "b", "d")), Int("epochs", 1, 50, log=True, fidelity=True), Float("x", 0, 1)]
)
SPEC = CampaignSpec(
    "tuning", SPACE, (Objective("loss"),), budget=12, initial=6, acquisition=FAST, seed=2
)


def loss(c, epochs, x):
    """Better at few epochs than at the target: what is cheap must not count as the answer."""
    return (x - 0.3) ** 2 + {"a": 0.0, "b": 0.2, "d": 0.5}[c] - 0.5 / epochs


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    database = tmp_path_factory.mktemp("fidelity") / "c.db"
    with Campaign.create(SPEC, database) as campaign:
        campaign.run(loss)
    with Campaign.open(database, read_only=True) as campaign:
        yield campaign


def told(n, seed=1):
    trials = []
    for i, x in enumerate(sobol_design(SPACE, n, seed)):
        values = SPACE.decode(x) | ({"epochs": 50} if i % 3 == 0 else {})
        result = {"loss": Measurement(loss(**values))}
        trials.append(Trial(i, values, "completed", "sobol", result))
    return trials


# ---- the course of a campaign --------------------------------------------------------------------
def test_trials_are_cheap_and_at_the_target_and_the_best_is_at_the_target(finished):
    epochs = [t.parameters["epochs"] for t in finished.trials]
    assert min(epochs[:6]) < 10
    assert epochs[:6].count(50) == 2
    at_target = [t for t in finished.trials if t.parameters["epochs"] == 50]
    best = min(at_target, key=lambda t: t.value("loss"))
    assert finished.best() == best
    assert finished.pareto_front() == [best]
    assert min(t.value("loss") for t in finished.trials) < best.value("loss")


def test_the_last_trial_of_the_budget_is_at_the_target(finished):
    assert finished.trials[-1].parameters["epochs"] == 50
    cheap = [Trial(k, {"c": "a", "epochs": 1, "x": 0.5}, "completed", "sobol") for k in range(8)]
    assert at_target(SPEC, cheap, 3) == frozenset()
    assert at_target(SPEC, cheap, 5) == {11}
    data = [replace(t, origin="data") for t in cheap]
    assert at_target(SPEC, data, 5) == frozenset()
    limited = replace(SPEC, budget_cost=59.0)
    assert at_target(limited, cheap, 1) == frozenset()
    assert at_target(replace(SPEC, budget_cost=58.0), cheap, 1) == {8}


def test_the_cost_is_counted_by_fidelity(finished):
    epochs = [t.parameters["epochs"] for t in finished.trials]
    assert finished.spent_cost == sum(epochs)
    found = CliRunner().invoke(app, ["status", finished.database, "--json"])
    status = json.loads(found.stdout)
    assert status["cost"] == sum(epochs)
    assert {f["value"]: f["trials"] for f in status["fidelities"]} == {
        e: epochs.count(e) for e in sorted(set(epochs))
    }
    shown = CliRunner().invoke(app, ["status", finished.database]).stdout
    assert f"at a cost of {sum(epochs)}" in shown
    assert "50 (target)" in shown


def test_what_is_recommended_is_at_the_target(finished):
    model = finished.model()
    tried, anywhere = recommend_tried(model), recommend(model)
    assert tried.trial.parameters["epochs"] == 50
    assert anywhere.parameters["epochs"] == 50
    assert default_point(model)["epochs"] == 50


def test_an_interrupted_campaign_goes_on_as_an_uninterrupted_one(finished, tmp_path):
    for trials in (7, 12):
        with (
            Campaign.create(SPEC, tmp_path / "c.db")
            if trials == 7
            else Campaign.open(tmp_path / "c.db")
        ) as campaign:
            campaign.run(loss, trials=trials - len(campaign.trials))
            assert [t.parameters for t in campaign.trials] == [
                t.parameters for t in finished.trials[:trials]
            ]


def test_without_a_trial_at_the_target_there_is_no_best_and_it_is_said(tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        campaign.tell(campaign.add_trial({"c": "a", "epochs": 5, "x": 0.3}).index, {"loss": -9.0})
        assert campaign.best() is None
        assert campaign.hypervolume({"loss": 10.0}) == 0.0
    shown = CliRunner().invoke(app, ["best", str(tmp_path / "c.db")]).stdout
    assert "no completed trial at the target epochs = 50 yet" in shown


def test_the_cost_may_be_limited_and_the_limit_raised(tmp_path):
    spec = replace(SPEC, budget=1000, budget_cost=120.0, surrogate="rff")
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        campaign.run(loss)
        costs = [t.parameters["epochs"] for t in campaign.trials]
        assert sum(costs[:-1]) < 120 <= sum(costs)
        assert campaign.left() == 0
        campaign.extend(1)
        assert campaign.spec.budget_cost == 170.0
        assert campaign.left() > 0


def test_a_fixed_fidelity_is_asked_and_a_form_carries_it(tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        asked = campaign.ask(2, fixed={"epochs": 5})
        assert [t.parameters["epochs"] for t in asked] == [5, 5]
        campaign.tell_table(
            pd.DataFrame([{"trial": t.index, **t.parameters, "loss": 1.0} for t in asked])
        )
        campaign.add_data([{"c": "a", "epochs": 3, "x": 0.2, "loss": 0.1}])
        frame = campaign.to_dataframe()
        assert frame["epochs"].tolist() == [5, 5, 3]
        surrogate = campaign.ask(1, fixed={"epochs": 7})  # the design goes on
        assert surrogate[0].parameters["epochs"] == 7


def test_first_points_are_asked_at_their_own_fidelity(tmp_path):
    first = ({"c": "a", "epochs": 5, "x": 0.2}, {"c": "b", "epochs": 50, "x": 0.4})
    with Campaign.create(replace(SPEC, first_points=first), tmp_path / "c.db") as campaign:
        assert [t.parameters for t in campaign.ask(2)] == list(first)


def test_a_finite_space_is_exhausted_at_the_target(tmp_path):
    space = Space([Choice("c", ("a", "b", "d")), Int("epochs", 1, 50, fidelity=True)])
    with Campaign.create(replace(SPEC, space=space, budget=99), tmp_path / "c.db") as campaign:
        campaign.run(lambda c, epochs: loss(c, epochs, 0.0))
        points = [t.parameters["c"] for t in campaign.trials if t.parameters["epochs"] == 50]
        assert sorted(points) == ["a", "b", "d"]
        assert campaign.is_exhausted


# ---- parity with the loop ------------------------------------------------------------------------
def test_the_acquisition_function_and_the_choice_equal_those_of_the_loop():
    trials = told(9)
    waiting = Trial(9, {"c": "b", "epochs": 4, "x": 0.6}, "running", "manual")
    bridge = AxBridge(SPEC)
    adapter = bridge._fitted([*trials, waiting])
    with fixed_seed(0):
        run = adapter.gen(1)

    X = torch.stack([SPACE.encode(t.parameters) for t in trials])
    running = SPACE.encode(waiting.parameters).unsqueeze(0)
    Y = torch.tensor([[t.value("loss")] for t in trials], dtype=torch.float64)
    model = fit(SPACE, X, Y, seed=derive_seed(SPEC.seed, "fit", 10))
    ours = make_acquisition(
        _standardized(model), config=FAST, weights=torch.tensor([[-1.0]], dtype=torch.float64),
        X_baseline=SPACE.to_model(baseline_points(SPACE, X)),
        X_pending=SPACE.to_model(SPACE.to_target(running)),
        seed=derive_seed(SPEC.seed, "acquisition", 10),
    )  # fmt: skip
    Z = SPACE.to_model(SPACE.to_target(sobol_design(SPACE, 16, seed=9)))
    values = ours(Z.unsqueeze(1))
    theirs = adapter.generator.acquisition(Z.unsqueeze(1))
    torch.testing.assert_close(theirs, values, atol=1e-3, rtol=1e-3)
    assert values.std() > 0

    point = SPACE.encode(bridge._from_ax(run.arms[0].parameters))
    known = FidelityChoice(SPEC.fidelity, torch.cat([X, running]), running)
    assert point.tolist() == choose_fidelity(model, SPACE, SPACE.to_target(point), known).tolist()


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"early_stopping": EarlyStopping()}, "early_stopping and a fidelity exclude"),
        ({"acquisition": replace(FAST, trust_region=True)}, "trust_region = true and a fidelity"),
        ({"baseline": {"c": "a", "epochs": 5, "x": 0.1}}, "baseline must be at the target"),
        ({"budget_cost": -1}, "budget_cost must be a number above 0"),
        ({"space": Space([Float("x", 0, 1)]), "budget_cost": 9}, "budget_cost needs a fidelity"),
        ({"space": Space([Float("x", 0, 1)]), "fidelity": FidelityConfig()}, "no parameter is one"),
        ({"fidelity": FidelityConfig(fixed_cost=-3.0)}, "would cost -2, but costs are above 0"),
    ],
)
def test_what_contradicts_a_fidelity_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        replace(SPEC, **{"fidelity": None, **changes})


def test_a_baseline_by_its_trial_is_asked_at_the_target_and_refused_elsewhere(tmp_path):
    spec = replace(
        SPEC, baseline=1, constraints=(OutcomeConstraint("size", "<=", 10.0, relative=True),)
    )
    with Campaign.create(spec, tmp_path / "a.db") as campaign:
        assert campaign.ask(2)[1].parameters["epochs"] == 50
    with Campaign.create(replace(spec, baseline=0), tmp_path / "b.db") as campaign:
        trial = campaign.add_trial({"c": "a", "epochs": 5, "x": 0.1})
        campaign.tell(trial.index, {"loss": 0.1, "size": 1.0})
        with pytest.raises(InputError, match="trial 0 is at epochs = 5"):
            campaign.best()


# ---- the campaign file ---------------------------------------------------------------------------
FILE = """
name = "net"
budget = 40
budget_cost = 500

[[parameters]]
name = "epochs"
type = "int"
low = 1
high = 50
fidelity = true
target = 40

[[parameters]]
name = "x"
type = "float"
low = 0
high = 1

[[objectives]]
name = "loss"
direction = "minimize"

[fidelity]
fixed_cost = 2.5
initial = [1, 10, 40]
"""


def test_a_campaign_file_says_the_fidelity_and_its_cost():
    spec = campaign_from_mapping(tomllib.loads(FILE))
    assert spec.space.target == {"epochs": 40}
    assert spec.fidelity == FidelityConfig(fixed_cost=2.5, initial=(1, 10, 40))
    assert spec.budget_cost == 500.0
    assert CampaignSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_a_problem_brings_the_cost_of_its_fidelity_which_the_file_may_change():
    from bo_surrogates.cli.targets import problem_facts

    data = {"problem": "augmented_branin"}
    assert campaign_from_mapping(data, problem_facts=problem_facts).fidelity.fixed_cost == 0.1
    changed = data | {"fidelity": {"target_every": 5}}
    found = campaign_from_mapping(changed, problem_facts=problem_facts).fidelity
    assert (found.fixed_cost, found.target_every) == (0.1, 5)


def test_mistakes_in_the_file_are_named():
    data = tomllib.loads(FILE)
    with pytest.raises(InputError, match="unknown key 'fixd_cost'"):
        campaign_from_mapping(data | {"fidelity": {"fixd_cost": 1}})
    data["parameters"][0]["target"] = 60
    with pytest.raises(InputError, match=r"\[\[parameters\]\] 1 \('epochs'\): target: "):
        campaign_from_mapping(data)
