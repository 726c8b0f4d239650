"""Relative constraints: the baseline is measured first, and its value decides what is feasible."""

from dataclasses import replace

import pytest

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Float, Space

BASELINE = {"x": 0.25}
SPEC = CampaignSpec(
    name="relative",
    space=Space([Float("x", 0.0, 1.0)]),
    objectives=(Objective("yield", "maximize"),),
    constraints=(OutcomeConstraint("impurity", "<=", 20.0, relative=True),),
    baseline=BASELINE,
    budget=10,
    initial=3,
    seed=2,
    acquisition=AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20),
)


def measure(x):
    """The best of all is at 1, the best that is allowed where x = 0.3: 1.2 times 0.25."""
    return {"yield": x, "impurity": x}


@pytest.fixture
def campaign(tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as made:
        yield made


def test_the_baseline_is_asked_first_and_the_design_goes_on_while_it_runs(campaign):
    asked = campaign.ask(2)
    assert asked[0].parameters == BASELINE
    for t in [asked[1], *campaign.ask(4)]:  # more than the initial design holds
        assert t.origin == "sobol"
        campaign.tell(t.index, measure(**t.parameters))
    assert campaign.best() is None  # nothing is known to be feasible yet
    assert [t.origin for t in campaign.ask(1)] == ["sobol"]
    campaign.tell(0, measure(**BASELINE))
    assert [t.origin for t in campaign.ask(1)] == ["gp"]


def test_the_best_respects_the_bound_that_the_baseline_sets(campaign):
    campaign.run(measure)
    done = campaign.trials
    allowed = [t for t in done if t.value("impurity") <= 1.2 * 0.25]
    best = campaign.best()
    assert len(allowed) < len(done)
    assert best.value("yield") == max(t.value("yield") for t in allowed)
    assert 0.28 < best.value("yield") <= 0.3  # the surrogate searched at the bound


def test_the_baselines_value_is_the_mean_of_all_that_was_measured_there(campaign):
    for impurity in (0.2, 0.4):
        t = campaign.add_trial(BASELINE)
        campaign.tell(t.index, {"yield": 0.25, "impurity": impurity})
    for x in (0.35, 0.37):  # the bound is at 1.2 * 0.3 = 0.36
        t = campaign.add_trial({"x": x})
        campaign.tell(t.index, measure(x))
    assert campaign.best().parameters == {"x": 0.35}


def test_an_abandoned_baseline_is_a_clear_error_until_it_is_measured_again(campaign):
    first, *others = campaign.ask(4)
    campaign.abandon(first.index, "the flask broke")
    for t in others:
        campaign.tell(t.index, measure(**t.parameters))
    with pytest.raises(
        RunError,
        match=r"'impurity <= baseline \+ 20 %' needs the baseline, which has not been measured: "
        r"trial 0 is abandoned \(the flask broke\); add a trial at the baseline's parameters",
    ):
        campaign.ask(1)
    assert len(campaign.trials) == 4
    assert campaign.best() is None
    again = campaign.add_trial(BASELINE)
    assert [t.origin for t in campaign.ask(1)] == ["sobol"]  # it is awaited once more
    campaign.tell(again.index, measure(**BASELINE))
    assert [t.origin for t in campaign.ask(1)] == ["gp"]


def test_a_trial_may_be_the_baseline_and_a_zero_there_is_refused(tmp_path):
    with Campaign.create(replace(SPEC, baseline=1), tmp_path / "c.db") as campaign:
        asked = campaign.ask(3)
        assert all(t.origin == "sobol" for t in asked)
        for t, impurity in zip(asked, (0.1, 0.0, 0.3), strict=True):
            campaign.tell(t.index, {"yield": 1.0, "impurity": impurity})
        with pytest.raises(InputError, match="'impurity' is 0 at the baseline"):
            campaign.ask(1)
        with pytest.raises(InputError, match="'impurity' is 0 at the baseline"):
            campaign.best()
