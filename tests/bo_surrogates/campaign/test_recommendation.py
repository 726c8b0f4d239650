"""Recommended points: the best by the posterior mean, of those tried and of the space."""

import pytest
import torch

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.recommendation import recommend, recommend_tried
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.design import sobol_design
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, LinearConstraint, Space

SPACE = Space(
    [Float("x", 0.0, 1.0), Float("y", 0.0, 1.0), Choice("kind", ("a", "b", "c"))],
    [LinearConstraint({"x": 1.0, "y": 1.0}, 1.5)],
)


def started(path, noise=0.0, n=24, surrogate="gp", space=SPACE, **options):
    spec = CampaignSpec(
        "r", space, **{"objectives": (Objective("gain", "maximize"),), **options},
        surrogate=surrogate, seed=1,
    )  # fmt: skip
    draws = torch.randn(n, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    campaign = Campaign.create(spec, path / "r.db")
    for x, e in zip(sobol_design(space, n, seed=3), draws.tolist(), strict=True):
        trial = campaign.add_trial(space.decode(x))
        v = trial.parameters
        told = {
            "gain": 1e3 * (v["x"] + (v["kind"] == "b") - (v["y"] - 0.4) ** 2 + noise * e),
            "cost": 1e-3 * v["x"],
        }
        campaign.tell(trial.index, {m: told[m] for m in campaign.metrics})
    return campaign


@pytest.mark.parametrize("surrogate", ["gp", "ensemble"])
def test_the_recommended_point_is_feasible_by_the_means_and_beats_a_random_search(
    tmp_path, surrogate
):
    limit = OutcomeConstraint("cost", "<=", 0.6e-3)
    with started(tmp_path, surrogate=surrogate, constraints=(limit,)) as campaign:
        model = campaign.model()
        tried, best = recommend_tried(model), recommend(model)
        design = sobol_design(SPACE, 512, seed=9)
        gain, cost = (model.marginals(m, design).mean for m in ("gain", "cost"))
        assert best.mean["gain"] >= float(gain[cost <= limit.bound].max()) - 20.0  # of 1e3
        assert best.mean["gain"] >= tried.mean["gain"]
        assert best.mean["cost"] <= limit.bound
        SPACE.validate(best.parameters)
        assert best.parameters["kind"] == "b"
        low, high = best.interval["gain"]
        assert low < best.mean["gain"] < high


def test_the_best_tried_point_is_not_that_of_one_lucky_measurement(tmp_path):
    """Two levels with known noise; at the worse one, a measurement that is far too good."""
    line = Space([Float("x", 0.0, 1.0)])
    with Campaign.create(
        CampaignSpec("luck", line, (Objective("loss"),), budget=40, seed=0), tmp_path / "l.db"
    ) as campaign:
        for i in range(30):
            x = i / 29
            loss = 1.0 - 0.5 * (x > 0.7) + (0.05 if i % 2 else -0.05)
            campaign.tell(
                campaign.add_trial({"x": x}).index, {"loss": (loss - 0.6 * (i == 8), 0.2)}
            )
        assert campaign.best().index == 8
        found = recommend_tried(campaign.model())
        assert found.trial.parameters["x"] > 0.7
        assert found.mean["loss"] == pytest.approx(0.5, abs=0.1)


def test_what_cannot_be_recommended(tmp_path):
    impossible = OutcomeConstraint("cost", ">=", 1.0)
    with started(tmp_path, n=8, constraints=(impossible,)) as campaign:
        assert recommend_tried(campaign.model()) is None
        assert recommend(campaign.model()) is None
    (tmp_path / "two").mkdir()
    two = (Objective("gain", "maximize"), Objective("cost"))
    with (
        started(tmp_path / "two", n=4, objectives=two) as campaign,
        pytest.raises(InputError, match="2 objectives"),
    ):
        recommend_tried(campaign.model())


def test_of_an_exhausted_space_the_best_tried_point_is_recommended(tmp_path):
    space = Space([Choice("kind", ("a", "b", "c"))])
    with Campaign.create(
        CampaignSpec("small", space, (Objective("gain", "maximize"),), budget=5), tmp_path / "s.db"
    ) as campaign:
        for kind, gain in (("a", 1.0), ("b", 3.0), ("c", 2.0)):
            campaign.tell(campaign.add_trial({"kind": kind}).index, {"gain": gain})
        assert recommend(campaign.model()).trial.index == 1
