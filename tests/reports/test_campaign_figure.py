"""Figures of campaigns show what the campaign holds."""

from dataclasses import replace

import pytest

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Float, Space
from reports.campaign_figure import draw_campaign
from reports.style import new_figure, save

SPEC = CampaignSpec(
    name="figure",
    space=Space([Float("x", 0.0, 1.0)]),
    objectives=(Objective("f", unit="s"), Objective("g", "maximize")),
    constraints=(OutcomeConstraint("h", "<=", 1.0),),
    budget=10,
)
POINTS = [(3.0, 1.0, 0), (1.0, 0.5, 0), (2.0, 2.0, 0), (0.5, 3.0, 5)]


@pytest.fixture
def campaign(tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        for trial, (f, g, h) in zip(campaign.ask(4), POINTS, strict=True):
            campaign.tell(trial.index, {"f": f, "g": g, "h": h})
        yield campaign


def offsets(figure, label):
    (axes,) = figure.axes
    (found,) = [c for c in axes.collections if c.get_label() == label]
    return sorted(map(tuple, found.get_offsets().tolist()))


def test_the_front_and_the_infeasible_trials_are_where_they_belong(campaign):
    figure = draw_campaign(campaign)
    assert offsets(figure, "Pareto front") == [(1.0, 0.5), (2.0, 2.0)]
    assert offsets(figure, "violates a constraint") == [(0.5, 3.0)]
    assert offsets(figure, "initial design") == [(1.0, 0.5), (2.0, 2.0), (3.0, 1.0)]
    assert figure.axes[0].get_xlabel() == "f [s] (minimize)"


def test_one_objective_shows_the_best_feasible_value_so_far(tmp_path):
    spec = replace(SPEC, objectives=(Objective("f"),))
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        for trial, (f, _, h) in zip(campaign.ask(4), POINTS, strict=True):
            campaign.tell(trial.index, {"f": f, "h": h})
        (axes,) = draw_campaign(campaign).axes
    assert axes.lines[0].get_ydata().tolist() == [3.0, 1.0, 1.0]
    assert axes.lines[0].get_xdata().tolist() == [0, 1, 2]


def test_three_objectives_are_drawn_in_pairs(tmp_path):
    spec = replace(
        SPEC, objectives=(Objective("f"), Objective("g"), Objective("h")), constraints=()
    )
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        (trial,) = campaign.ask()
        campaign.tell(trial.index, {"f": 1.0, "g": 2.0, "h": 3.0})
        assert len(draw_campaign(campaign).axes) == 3


def test_a_campaign_without_results_has_no_figure(tmp_path):
    with (
        Campaign.create(SPEC, tmp_path / "c.db") as campaign,
        pytest.raises(InputError, match="no completed trial yet"),
    ):
        draw_campaign(campaign)


def test_files_are_written_by_their_ending(campaign, tmp_path):
    figure = draw_campaign(campaign)
    assert save(figure, tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in save(figure, tmp_path / "a.svg").read_bytes()
    with pytest.raises(InputError, match=r"one of \.png, \.svg, \.pdf, not '\.bmp'"):
        save(new_figure(), tmp_path / "a.bmp")
    with pytest.raises(RunError, match="cannot write the figure"):
        save(new_figure(), tmp_path / "no" / "a.png")
