"""What came out: the front, its reference point and its hypervolume, from trials alone."""

import pytest

from bo_surrogates.campaign import results
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Float, Space

SPACE = Space([Float("x", 0.0, 1.0)])


def spec(*objectives, **options):
    return CampaignSpec(name="test", space=SPACE, objectives=objectives, budget=10, **options)


def told(*rows):
    return [
        Trial(i, {"x": 0.1}, "completed", "manual", {k: Measurement(v) for k, v in row.items()})
        for i, row in enumerate(rows)
    ]


def rows(scale=1.0):
    return told(
        *({"f": scale * f, "g": g} for f, g in [(1.0, 5.0), (2.0, 8.0), (3.0, 9.0), (3, 1)])
    )


def test_a_missing_reference_value_lies_a_tenth_of_the_fronts_range_beyond_its_worst():
    campaign = spec(Objective("f"), Objective("g", "maximize", reference=0.0))
    reference = results.reference_point(campaign, rows())
    assert reference.inferred == ("f",)
    assert reference.values == pytest.approx({"f": 3.2, "g": 0.0})
    assert str(reference) == "f = 3.2 (inferred), g = 0"
    # Rectangles from the reference point, in the order of f.
    expected = (3.2 - 1) * 5 + (3.2 - 2) * (8 - 5) + (3.2 - 3) * (9 - 8)
    assert results.hypervolume(campaign, rows()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("scale", [1e-12, 1e9])
def test_the_inferred_reference_follows_the_units(scale):
    campaign = spec(Objective("f"), Objective("g", "maximize", reference=0.0))
    reference = results.reference_point(campaign, rows(scale))
    assert reference.values["f"] == pytest.approx(3.2 * scale, rel=1e-9)


def test_without_a_feasible_trial_nothing_is_inferred_and_nothing_is_dominated():
    objectives = Objective("f"), Objective("g")
    campaign = spec(*objectives, constraints=(OutcomeConstraint("h", "<=", 0.0),))
    trials = told({"f": 1.0, "g": 1.0, "h": 2.0})
    assert results.reference_point(campaign, trials) is None
    assert results.hypervolume(campaign, trials) == 0.0
    assert results.pareto_front(campaign, trials) == []


def test_a_reference_for_what_is_no_objective_is_refused():
    with pytest.raises(InputError, match="'h' is no objective; the objectives are f, g"):
        results.hypervolume(spec(Objective("f"), Objective("g")), rows(), {"h": 1.0})
