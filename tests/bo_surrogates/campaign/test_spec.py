"""Campaign specifications: what they refuse, and that they survive storage."""

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.acquisition.config import AcquisitionConfig
from bo_surrogates.campaign.spec import BlackBoxSource, CampaignSpec
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space
from bo_surrogates.surrogates import SURROGATES, Capabilities, SurrogateEntry
from bo_surrogates.surrogates.gp import GP, GPConfig

SPACE = Space([Float("x", 0, 1), Int("n", 1, 9)])


def spec(**changes):
    return CampaignSpec(**{"name": "c", "space": SPACE, "objectives": (Objective("y"),), **changes})


finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=12)
positive = st.integers(1, 10**6)


@st.composite
def spaces(draw):
    low, high = sorted(draw(st.lists(finite, min_size=2, max_size=2, unique=True)))
    values = sorted(draw(st.lists(finite, min_size=2, max_size=5, unique=True)))
    words = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    a, b, c, d = draw(st.lists(names, min_size=4, max_size=4, unique=True))
    linear = LinearConstraint({a: draw(finite.filter(bool))}, draw(finite))
    return Space(
        [
            Float(a, low, high, unit=draw(names)),
            Int(b, 1, draw(st.integers(2, 10**9)), log=draw(st.booleans())),
            Ordered(c, values),
            Choice(d, words),
        ],
        [linear] if draw(st.booleans()) else [],
    )


@st.composite
def specs(draw):
    y, z, w = draw(st.lists(names, min_size=3, max_size=3, unique=True))
    budget = draw(positive)
    directions = st.sampled_from(["minimize", "maximize"])
    objectives = [Objective(y, draw(directions), draw(st.none() | finite))]
    if draw(st.booleans()):
        objectives.append(Objective(z, draw(directions)))
    return CampaignSpec(
        name=draw(names),
        space=draw(spaces()),
        objectives=objectives,
        constraints=[OutcomeConstraint(w, draw(st.sampled_from(["<=", ">="])), draw(finite))],
        surrogate_config=draw(st.dictionaries(names, finite | names | st.booleans(), max_size=3)),
        acquisition=AcquisitionConfig(mc_samples=draw(st.integers(8, 4096))),
        budget=budget,
        initial=draw(st.none() | st.integers(1, budget)),
        batch_size=draw(positive),
        workers=draw(positive),
        seed=draw(st.integers(0, 2**63 - 1)),
        black_box=draw(
            st.none()
            | st.builds(
                BlackBoxSource,
                st.sampled_from(["problem", "python", "command"]),
                names,
                st.dictionaries(names, finite | st.lists(finite), max_size=2),
            )
        ),
        timeout=draw(st.none() | st.floats(1e-3, 1e9)),
        max_consecutive_failures=draw(positive),
        on_interrupt=draw(st.sampled_from(["rerun", "abandon"])),
    )


@given(specs())
def test_a_specification_survives_json_exactly(original):
    text = json.dumps(original.to_dict(), allow_nan=False)
    assert CampaignSpec.from_dict(json.loads(text)) == original


@pytest.mark.parametrize(
    ("dim", "budget", "size"),
    [(1, 30, 5), (2, 30, 6), (6, 30, 14), (6, 10, 10), (1, 3, 3)],
)
def test_the_default_initial_design_has_twice_d_plus_one_points_within_the_budget(
    dim, budget, size
):
    space = Space([Float(f"x{i}", 0, 1) for i in range(dim)])
    assert spec(space=space, budget=budget).initial_design_size == size


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": ""}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "n" * 201}, "name"),
        ({"objectives": ()}, "objective"),
        ({"objectives": (Objective("y"), Objective("y", "maximize"))}, "'y' is defined twice"),
        ({"constraints": (OutcomeConstraint("y", "<=", 1.0),)}, "reference"),
        (
            {"constraints": (OutcomeConstraint("z", "<=", 1.0), OutcomeConstraint("z", "<=", 2.0))},
            "two constraints",
        ),
        ({"budget": 0}, "budget must be >= 1, got 0"),
        ({"budget": 2.5}, "budget must be an integer"),
        ({"budget": True}, "budget must be an integer"),
        ({"initial": 0}, "initial"),
        ({"initial": 31}, "must not exceed budget"),
        ({"batch_size": 0}, "batch_size"),
        ({"workers": -1}, "workers"),
        ({"device": "gpu"}, 'device must be "cpu", "cuda" or'),
        ({"device": 0}, 'device must be "cpu", "cuda" or'),
        ({"seed": -1}, "seed"),
        ({"seed": 2**63}, "seed"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": math.inf}, "timeout"),
        ({"timeout": math.nan}, "timeout"),
        ({"timeout": "1 min"}, "timeout"),
        ({"max_consecutive_failures": 0}, "max_consecutive_failures"),
        ({"on_interrupt": "abandom"}, "did you mean 'abandon'"),
        ({"surrogate_config": {"a": math.nan}}, "surrogate_config"),
        ({"surrogate_config": [1]}, "surrogate_config"),
        ({"acquisition": AcquisitionConfig(name="qlognehvi")}, "does not fit 1 objective"),
        ({"black_box": "branin"}, "BlackBoxSource"),
        ({"space": [Float("x", 0, 1)]}, "Space"),
    ],
)
def test_a_bad_field_is_refused_by_name(changes, named):
    with pytest.raises(InputError) as caught:
        spec(**changes)
    assert named in str(caught.value)


def test_a_black_box_of_unknown_kind_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'python'"):
        BlackBoxSource("pyton", "module:function")


def test_stored_data_with_an_unknown_field_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="did you mean 'budget'"):
        CampaignSpec.from_dict({**spec().to_dict(), "budgets": 3})


@pytest.mark.parametrize("missing", ["name", "space", "objectives"])
def test_stored_data_without_an_essential_field_is_refused(missing):
    data = spec().to_dict()
    del data[missing]
    with pytest.raises(InputError, match=missing):
        CampaignSpec.from_dict(data)


def test_resolving_completes_the_surrogates_configuration_and_changes_nothing_else():
    resolved = spec(surrogate_config={"kernel": "matern"}).resolved()
    assert resolved.surrogate_config == GPConfig(kernel="matern").to_dict()
    assert spec().resolved().surrogate_config == GPConfig().to_dict()
    assert resolved.resolved() == resolved


def test_the_stored_data_shares_nothing_with_what_was_passed():
    options = {"noise": [1.0]}
    source = BlackBoxSource("problem", "branin", options)
    options["noise"].append(2.0)
    assert source.options == {"noise": [1.0]}


def test_categorical_inputs_are_refused_by_a_surrogate_that_does_not_take_them(monkeypatch):
    capabilities = Capabilities("gaussian", categorical=False)
    stub = SurrogateEntry("numbers-only", GP, "Stub", "none", capabilities)
    monkeypatch.setitem(SURROGATES._entries, stub.name, stub)
    message = "'numbers-only' does not take categorical inputs .*{}.*; choose one of: .*dkl, .*gp"
    space = Space([Float("t", 0.0, 1.0), Choice("solvent", ["water", "acetone", "toluene"])])
    with pytest.raises(InputError, match=message.format("'solvent'")) as caught:
        spec(space=space, surrogate="numbers-only").resolved()
    assert "numbers-only" not in str(caught.value).split("choose")[1]
    X = torch.tensor([[0.1, 0.0], [0.5, 1.0], [0.9, 2.0]], dtype=torch.float64)
    with pytest.raises(InputError, match=message.format("input 1")):
        stub.build(X, X[:, :1], categorical_features={1: 3}, seed=0)
    numbers = Space([Float("t", 0.0, 1.0), Int("k", 1, 3)])
    assert spec(space=numbers, surrogate="numbers-only").resolved().surrogate == "numbers-only"
    assert spec(space=space).resolved().surrogate == "gp"
