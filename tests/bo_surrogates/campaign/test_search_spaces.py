"""Campaigns over conditional, fixed and finite spaces: asked, resumed, exhausted, from a file."""

from dataclasses import replace

import pytest

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.ax_bridge import AxBridge
from bo_surrogates.campaign.black_box import PythonBlackBox
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.campaign_file import campaign_from_mapping, read_campaign_file
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.tables import csv_text, write_table
from bo_surrogates.errors import InputError, SpaceExhausted
from bo_surrogates.objective import Objective
from bo_surrogates.space import (
    Choice,
    Fixed,
    Float,
    Int,
    LinearConstraint,
    Ordered,
    Space,
    parse_constraints,
)

FAST = AcquisitionConfig(mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20)
SPACE = Space(
    [
        Choice("solvent (dry)", ("water", "ethanol", "dmso")),  # no name that Ax could parse
        Float("E", 0.0, 1.0, when={"solvent (dry)": ["ethanol", "dmso"]}),
        Int("lambda", 1, 5),
        Choice("stirred", (True, False)),
        Fixed("lab", "north"),
    ],
    [LinearConstraint({"E": 1.0, "lambda": 0.2}, 1.0)],
)
FIRST = ({"solvent (dry)": "dmso", "E": 0.5, "lambda": 1, "stirred": True},
         {"solvent (dry)": "water", "lambda": 5, "stirred": False})  # fmt: skip
SPEC = CampaignSpec(
    "spaces", SPACE, (Objective("y"),), acquisition=FAST, budget=8, initial=4, seed=2,
    first_points=FIRST,
)  # fmt: skip
FINITE = Space([Choice("c", ("u", "v")), Ordered("g", (1, 2), when={"c": "v"}), Int("n", 0, 1)])


def measure(point):
    assert point["lab"] == "north"
    assert ("E" in point) == (point["solvent (dry)"] != "water")
    return (point.get("E", 0.9) - 0.3) ** 2 + point["lambda"] / 5 + point["stirred"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with Campaign.create(SPEC, tmp_path_factory.mktemp("c") / "c.db") as campaign:
        campaign.run(measure)
        return campaign.trials


def test_first_points_come_first_and_count_towards_the_initial_design(finished):
    origins = [t.origin for t in finished]
    assert origins == ["first", "first", "sobol", "sobol", "gp", "gp", "gp", "gp"]
    assert [t.parameters for t in finished[:2]] == [{**p, "lab": "north"} for p in FIRST]
    assert [t.status for t in finished] == ["completed"] * 8
    for t in finished:
        assert SPACE.validate(t.parameters) == t.parameters


def test_a_resumed_campaign_over_a_conditional_space_equals_an_uninterrupted_one(
    finished, tmp_path
):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        campaign.run(measure, trials=1)
    for n in (4, 8):
        with Campaign.open(tmp_path / "c.db") as campaign:
            campaign.run(measure, trials=n)
    with Campaign.open(tmp_path / "c.db", read_only=True) as campaign:
        assert campaign.spec == SPEC.resolved()
        assert [t.parameters for t in campaign.trials] == [t.parameters for t in finished]


def test_ax_sees_one_flat_box_and_gives_back_what_it_was_given(finished):
    bridge = AxBridge(SPEC)
    for t in finished:
        ax = bridge._to_ax(t.parameters)
        assert set(ax) == {"x0", "x1", "x2", "x3"}
        assert bridge._from_ax(ax) == t.parameters


def test_fixed_values_are_kept_by_every_part_of_an_ask(finished, tmp_path):
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        # No first point has the value, so the design begins.
        asked = campaign.ask(2, fixed={"solvent (dry)": "ethanol"})
        assert [t.origin for t in asked] == ["sobol"] * 2
        asked += campaign.ask(2)
        assert [t.origin for t in asked[2:]] == ["first"] * 2
        for t in asked:
            campaign.tell(t.index, {"y": measure(t.parameters)})
        (trial,) = campaign.ask(fixed={"lambda": 4, "stirred": False})
        assert trial.origin == "gp"
        assert (trial.parameters["lambda"], trial.parameters["stirred"]) == (4, False)
        before = campaign.trials
        with pytest.raises(InputError, match="'E' cannot be fixed: it is inactive where solvent"):
            campaign.ask(fixed={"E": 0.1, "solvent (dry)": "water"})
        with pytest.raises(InputError, match=r"E = 0.5, lambda = 5 satisfies '1\*E"):
            campaign.ask(fixed={"E": 0.5, "lambda": 5})
        assert campaign.trials == before


def test_a_run_over_a_finite_space_ends_when_it_is_exhausted(tmp_path):
    spec = replace(SPEC, space=FINITE, first_points=(), budget=50, initial=3, batch_size=4)

    def fails_once(c, n, g=0):
        if (c, n) == ("u", 1):
            raise OSError("blocked")
        return g + n

    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        assert not campaign.is_exhausted
        campaign.run(fails_once)
        points = {tuple(t.parameters.items()) for t in campaign.trials}
        assert len(points) == len(campaign.trials) == FINITE.size == 6
        assert sum(t.status == "abandoned" for t in campaign.trials) == 1
        assert campaign.is_exhausted
        with pytest.raises(SpaceExhausted, match="all 6 points"):
            campaign.ask()
        campaign.run(fails_once)  # nothing happens
        assert len(campaign.trials) == 6


@pytest.mark.parametrize(
    ("parameters", "equation", "points"),
    [
        ([Float("a", 0.0, 1.0)], "a == 0.5", [{"a": 0.5}]),
        ([Float("a", 0.0, 1.0), Int("bath (°C)", 0, 2)], "2*a == `bath (°C)`",
         [{"a": 0.5 * n, "bath (°C)": n} for n in range(3)]),
    ],
)  # fmt: skip
def test_a_run_ends_where_an_equation_leaves_floats_no_freedom(
    tmp_path, parameters, equation, points
):
    space = Space(parameters, parse_constraints(equation))
    spec = replace(SPEC, space=space, first_points=(), budget=9)
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        assert not campaign.is_exhausted
        campaign.run(lambda point=None, a=None, **_: a if point is None else point["a"])
        found = sorted((t.parameters for t in campaign.trials), key=lambda point: point["a"])
        assert found == [pytest.approx(point) for point in points]
        assert campaign.is_exhausted


def test_an_inactive_int_leaves_the_others_whole_in_a_table(tmp_path):
    space = Space([Choice("c", ("u", "v")), Int("n", 1, 9, when={"c": "v"}), Float("a", 0.0, 1.0)])
    spec = replace(SPEC, space=space, first_points=())
    with Campaign.create(spec, tmp_path / "c.db") as campaign:
        data = [{"c": "u", "a": 0.5, "y": 1.0}, {"c": "v", "n": 4, "a": 0.25, "y": 2.0}]
        campaign.add_data(data)
        frame = campaign.to_dataframe()
    assert [row.split(",")[3:6] for row in csv_text(frame).splitlines()] == [
        ["c", "n", "a"], ["u", "", "0.5"], ["v", "4", "0.25"]
    ]  # fmt: skip
    for kind in ("csv", "json", "parquet"):
        write_table(frame, tmp_path / f"t.{kind}")
        with Campaign.create(replace(spec, name=kind), tmp_path / "c.db") as copy:
            copy.add_data(tmp_path / f"t.{kind}")
            assert [t.parameters for t in copy.trials] == [
                {k: v for k, v in row.items() if k != "y"} for row in data
            ]
            assert type(copy.trials[1].parameters["n"]) is int


def test_mistakes_in_first_points_are_told_together():
    points = [
        {"c": "w", "n": 0},
        {"c": "u", "n": 0},
        {"c": "u", "n": 0.0},
        {"c": "u", "n": 1, "g": 1},
    ]
    with pytest.raises(InputError) as caught:
        replace(SPEC, space=FINITE, first_points=points)
    for text in ("first point 1: parameter 'c' must be", "first point 3: is the same as first",
                 "first point 4: parameter 'g' is inactive where c = 'u'"):  # fmt: skip
        assert text in str(caught.value)
    with pytest.raises(InputError, match="2 points, more than the budget of 1"):
        replace(SPEC, budget=1, initial=1)


def test_a_conditional_argument_needs_a_default():
    PythonBlackBox(lambda c, n, g=None: 0, space=FINITE, metrics=("y",))
    PythonBlackBox(lambda **point: 0, space=FINITE, metrics=("y",))
    with pytest.raises(InputError, match="the argument needs a default, such as g=None"):
        PythonBlackBox(lambda c, n, g: 0, space=FINITE, metrics=("y",))


FILE = """
first_points = "first.csv"
parameter_constraints = ["a + b == 1"]
parameters = [
  {name = "a", type = "float", low = 0, high = 1},
  {name = "b", type = "float", low = 0, high = 1},
  {name = "c", type = "choice", values = ["u", "v"]},
  {name = "d", type = "int", low = 0, high = 9, when = {c = "v"}, default = 3},
  {name = "lab", type = "fixed", value = "north"},
]
objectives = [{name = "y", direction = "minimize"}]
"""


def test_a_campaign_file_holds_conditions_fixed_values_equations_and_first_points(tmp_path):
    (tmp_path / "first.csv").write_text("a;b;c;d\n0,25;0,75;u;\n0,5;0,5;v;7\n")
    (tmp_path / "plan.toml").write_text(FILE)
    spec = read_campaign_file(tmp_path / "plan.toml")
    assert spec.first_points == (
        {"a": 0.25, "b": 0.75, "c": "u", "lab": "north"},
        {"a": 0.5, "b": 0.5, "c": "v", "d": 7, "lab": "north"},
    )
    assert len(spec.space.constraints) == 2
    assert spec.space.parameters[3] == Int("d", 0, 9, when={"c": ("v",)}, default=3)
    assert CampaignSpec.from_dict(spec.to_dict()) == spec
    (tmp_path / "first.csv").write_text("a,b,c,d\n0.25,0.7,u,\n0.5,0.5,u,7\n")
    with pytest.raises(InputError, match=r"row 2: .* violates(.|\n)*row 3: .*'d' is inactive"):
        read_campaign_file(tmp_path / "plan.toml")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"type": "fixed", "name": "x"}, "'value' is missing"),
        ({"type": "fixed", "name": "x", "value": 1, "default": 1}, "unknown key 'default'"),
        (
            {"type": "int", "name": "x", "low": 0, "high": 1, "when": {"y": 1}},
            "unknown parameter 'y'",
        ),
        ({"type": "int", "name": "x", "low": 0, "high": 1, "when": 3}, "when must map"),
    ],
)
def test_mistakes_in_parameters_are_named(parameter, message):
    base = {"type": "float", "name": "a", "low": 0, "high": 1}
    with pytest.raises(InputError, match=message):
        campaign_from_mapping(
            {
                "parameters": [base, parameter],
                "objectives": [{"name": "y", "direction": "minimize"}],
            }
        )
