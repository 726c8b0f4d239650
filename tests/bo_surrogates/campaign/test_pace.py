"""How long a campaign will still take."""

import pytest

from bo_surrogates.campaign.pace import duration, seconds_left
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space


def spec(**options):
    options = {"budget": 20, "initial": 4, **options}
    return CampaignSpec("p", Space([Float("x", 0.0, 1.0)]), (Objective("y"),), **options)


def trials(n, *, running=0, asking=3.0, evaluation=10.0):
    found = []
    for i in range(n + running):
        seconds = {"fit": asking - 1, "acquisition": 1.0} if i >= 4 else {}
        if i < n:
            seconds["evaluation"] = evaluation
        status = "completed" if i < n else "running"
        found.append(Trial(i, {"x": 0.0}, status, "gp" if i >= 4 else "sobol", seconds=seconds))
    return found


@pytest.mark.parametrize(
    ("options", "n", "running", "left"),
    [
        ({}, 10, 0, 10 * (10 + 3)),
        ({}, 2, 0, 18 * 10.0),  # nothing is known of asking yet
        ({}, 20, 0, 0.0),
        ({}, 10, 1, 10 * 10 + 9 * 3),  # of the running one, the evaluation is left
        ({"workers": 4, "batch_size": 2}, 10, 0, 10 / 2 * 10 + 10 * 3),
        ({"budget": 5}, 10, 0, 0.0),  # more than planned
    ],
)
def test_time_left_is_evaluations_and_asks_to_come(options, n, running, left):
    assert seconds_left(spec(**options), trials(n, running=running)) == pytest.approx(left)


def test_the_last_trials_set_the_pace_and_without_times_there_is_none():
    mixed = trials(6, evaluation=1000.0)[:6] + trials(16)[6:]
    assert seconds_left(spec(), mixed) == pytest.approx(4 * 13)
    assert seconds_left(spec(), [Trial(0, {"x": 0.0}, "completed", "sobol")]) is None
    assert seconds_left(spec(), []) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (0.04, "0.04 s"),
        (59.6, "60 s"),
        (89.0, "89 s"),
        (600.0, "10 min"),
        (5399.0, "90 min"),
        (5400.0, "1 h 30 min"),
        (7200.0, "2 h"),
        (7199.0, "2 h"),
        (3 * 86_400.0 + 7300.0, "3 d 2 h"),
    ],
)
def test_durations_are_said_in_two_units_at_most(seconds, said):
    assert duration(seconds) == said
