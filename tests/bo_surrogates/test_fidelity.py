"""Fidelities: parameters and spaces that have one, costs, when the target is due, designs."""

import json
from collections import Counter

import pytest
import torch

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.design import initial_design
from bo_surrogates.errors import InputError, SpaceExhausted
from bo_surrogates.fidelity import FidelityConfig, check_fidelity, levels
from bo_surrogates.space import Choice, Fixed, Float, Int, LinearConstraint, Ordered, Space

X = Float("x", 0.0, 1.0)
EPOCHS = Int("epochs", 1, 50, log=True, fidelity=True)
SPACE = Space([Choice("c", ("a", "b", "d")), EPOCHS, X])
MESH = Ordered("mesh", ("coarse", "medium", "fine"), fidelity=True)
SHARE = Float("share", 0.0, 1.0, fidelity=True)


# ---- parameters and spaces -----------------------------------------------------------------------
def test_the_target_is_the_last_value_unless_it_is_given():
    assert (EPOCHS.target, MESH.target, SHARE.target) == (50, "fine", 1.0)
    assert Int("epochs", 1, 50, fidelity=True, target=20).target == 20


def test_what_is_no_fidelity_is_written_as_before():
    """Databases made before there were fidelities read the same, and so do ones made now."""
    assert X.to_dict() == {"type": "float", "low": 0.0, "high": 1.0, "log": False, "unit": "",
                           "name": "x"}  # fmt: skip
    when = Choice("b", (True, False), when={"c": ["a"]}, default=False)
    assert when.to_dict()["default"] is False


def test_a_space_with_a_fidelity_survives_json():
    data = json.loads(json.dumps(SPACE.to_dict()))
    assert data["parameters"][1]["target"] == 50
    again = Space.from_dict(data)
    assert again == SPACE
    assert again.fidelity == EPOCHS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Choice("c", ("a", "b"), fidelity=True), "needs an order"),
        (lambda: Int("n", 1, 9, when={"c": ["a"]}, fidelity=True), "active everywhere"),
        (lambda: Int("n", 1, 9, target=3), "fidelity = true as well"),
        (lambda: Int("n", 1, 9, fidelity=True, target=12), r"target: .*in \[1, 9\], got 12"),
        (lambda: Int("n", 1, 9, fidelity="yes"), "true or false"),
        (lambda: Space([EPOCHS]), "nothing to optimize"),
        (lambda: Space([EPOCHS, Fixed("a", 1)]), "nothing to optimize"),
        (lambda: Space([X, EPOCHS, SHARE]), "at most one fidelity, got epochs, share"),
        (lambda: Space([EPOCHS, X, Float("y", 0, 1, when={"epochs": [50]})]), "'when' names the"),
        (lambda: Space([X, SHARE], [LinearConstraint({"x": 1.0, "share": 1.0}, 1.0)]),
         "names the fidelity 'share'"),
    ],
)  # fmt: skip
def test_a_fidelity_that_makes_no_sense_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_points_are_told_from_those_at_the_target_and_moved_there():
    values = {"c": "b", "epochs": 5, "x": 0.25}
    assert SPACE.target == {"epochs": 50}
    assert not SPACE.is_at_target(values)
    assert SPACE.is_at_target(values | SPACE.target)
    points = torch.stack([SPACE.encode(values), SPACE.encode(values | SPACE.target)])
    assert SPACE.at_target(points).tolist() == [False, True]
    assert SPACE.decode(SPACE.to_target(points)[0]) == values | SPACE.target
    plain = Space([X])
    assert plain.target == {}
    assert plain.is_at_target({"x": 0.1})
    assert plain.at_target(torch.zeros(3, 1)).all()


# ---- costs ---------------------------------------------------------------------------------------
def test_costs_are_affine_in_the_fidelity_or_listed():
    assert FidelityConfig(fixed_cost=2.0, weight=0.5).cost(EPOCHS, 50) == 27.0
    listed = FidelityConfig(costs=(1, 4, 20)).checked(Space([X, MESH]))
    assert [listed.cost(MESH, v) for v in MESH.values] == [1.0, 4.0, 20.0]
    assert listed.point_cost(Space([X, MESH]), {"x": 0.5, "mesh": "medium"}) == 4.0
    assert FidelityConfig.from_dict(json.loads(json.dumps(listed.to_dict()))) == listed


@pytest.mark.parametrize(
    ("config", "fidelity", "message"),
    [
        (FidelityConfig(), SHARE, "would cost 0, but costs are above 0; give fixed_cost"),
        (FidelityConfig(), MESH, "give the cost of each"),
        (FidelityConfig(costs=(1, 2)), MESH, "3 in all, got 2"),
        (FidelityConfig(costs=(1, 2)), EPOCHS, "not ordered: give fixed_cost and weight"),
        (FidelityConfig(weight=0.0, fixed_cost=1.0), EPOCHS, "no value .* is cheaper"),
        (FidelityConfig(initial=(1, 99)), EPOCHS, "initial: .*must be in"),
        (FidelityConfig(), None, "no parameter is one"),
    ],
)
def test_costs_that_do_not_fit_the_space_are_refused(config, fidelity, message):
    with pytest.raises(InputError, match=message):
        config.checked(Space([X] if fidelity is None else [X, fidelity]))


@pytest.mark.parametrize(
    ("field", "value"),
    [("fixed_cost", "1"), ("weight", float("nan")), ("costs", 3), ("costs", ["1"]),
     ("initial", "spred"), ("initial", []), ("target_every", 0), ("target_every", True)],
)  # fmt: skip
def test_a_bad_setting_names_itself(field, value):
    with pytest.raises(InputError, match=f"fidelity: .*{field}"):
        FidelityConfig.from_dict({field: value})


def test_an_unknown_setting_is_named_with_its_neighbour():
    with pytest.raises(InputError, match="unknown key 'fix_cost'.*fixed_cost"):
        FidelityConfig.from_dict({"fix_cost": 1})


def test_a_trust_region_excludes_a_fidelity():
    with pytest.raises(InputError, match="trust_region"):
        check_fidelity(SPACE, None, AcquisitionConfig(trust_region=True))
    assert check_fidelity(SPACE, None, AcquisitionConfig(trust_region="auto")) == FidelityConfig()
    assert check_fidelity(Space([X]), None, AcquisitionConfig(trust_region=True)) is None


def test_levels_of_a_long_range_are_evenly_spread_on_its_scale_with_both_ends():
    found = levels(EPOCHS)
    assert (found[0], found[-1]) == (1, 50)
    assert found == sorted(set(found))
    wide = torch.tensor(levels(Float("s", 1e-3, 10.0, log=True))).log()
    torch.testing.assert_close(wide.diff(), wide.diff()[:1].expand(15), rtol=1e-4, atol=0)
    assert levels(MESH) == ["coarse", "medium", "fine"]


def test_the_target_is_due_when_cheap_trials_have_cost_as_much_or_are_many():
    config = FidelityConfig(target_every=10).checked(SPACE)
    assert not config.is_due(SPACE, [])
    assert not config.is_due(SPACE, [50, 25, 24])
    assert config.is_due(SPACE, [50, 25, 24, 1])  # they have cost 50
    assert not config.is_due(SPACE, [25, 25, 50])
    assert not config.is_due(SPACE, [50] + [1] * 8)
    assert config.is_due(SPACE, [50] + [1] * 9)
    assert FidelityConfig(target_every=1).is_due(SPACE, [50])


# ---- designs -------------------------------------------------------------------------------------
NONE = torch.empty(0, 3, dtype=torch.float64)


def test_a_design_has_every_third_point_at_the_target_and_the_others_by_one_over_their_cost():
    ordered = Ordered("epochs", (1, 2, 4, 100), fidelity=True)
    config = FidelityConfig()
    values = Counter(config.design_value(ordered, k) for k in range(3000))
    assert values[100] == 1000
    for value, share in ((1, 4 / 7), (2, 2 / 7), (4, 1 / 7)):
        assert abs(values[value] / 2000 - share) < 0.005
    assert {config.design_value(ordered, k) for k in range(6)} >= {1, 100}


def test_a_design_may_be_at_the_target_or_list_its_fidelities():
    at_target = initial_design(SPACE, 6, 0, NONE, FidelityConfig(initial="target").checked(SPACE))
    assert SPACE.at_target(at_target).all()
    listed = FidelityConfig(initial=(1, 5, 50)).checked(SPACE)
    assert initial_design(SPACE, 6, 0, NONE, listed)[:, 1].tolist() == [1, 5, 50, 1, 5, 50]


def test_a_design_that_is_asked_in_parts_is_the_same():
    config = FidelityConfig().checked(SPACE)
    whole = initial_design(SPACE, 7, 3, NONE, config)
    first = initial_design(SPACE, 3, 3, NONE, config)
    rest = initial_design(SPACE, 4, 3, first, config)
    torch.testing.assert_close(torch.cat([first, rest]), whole, rtol=0, atol=0)
    assert len(SPACE.to_target(whole).unique(dim=0)) == 7  # no point twice, at any fidelity


def test_a_design_keeps_a_fidelity_that_is_asked_for_and_trials_that_must_be_at_the_target():
    config = FidelityConfig(initial=(1,)).checked(SPACE)
    assert initial_design(SPACE, 4, 0, NONE, config, {"epochs": 7})[:, 1].tolist() == [7.0] * 4
    assert initial_design(SPACE, 4, 0, NONE, config, always=(2,))[:, 1].tolist() == [1, 1, 50, 1]


def test_a_finite_space_is_exhausted_when_all_its_points_were_asked_at_the_target():
    space = Space([Choice("c", ("a", "b", "d")), Int("epochs", 1, 50, fidelity=True)])
    config = FidelityConfig(initial=(1,)).checked(space)
    nothing = torch.empty(0, 2, dtype=torch.float64)
    tried = initial_design(space, 3, 0, nothing, config)
    assert tried[:, 1].tolist() == [1, 1, 1]
    assert sorted(tried[:, 0].tolist()) == [0, 1, 2]
    rest = initial_design(space, 9, 0, tried, config)
    assert rest[:, 1].tolist() == [50, 50, 50]
    assert sorted(rest[:, 0].tolist()) == [0, 1, 2]
    with pytest.raises(SpaceExhausted, match="epochs = 50"):
        initial_design(space, 1, 0, torch.cat([tried, rest]), config)
