"""The campaign file: what it says is what the campaign is, and each mistake has one message."""

import datetime
import json
import math
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bo_surrogates.campaign.campaign_file import (
    TOP_LEVEL,
    campaign_from_mapping,
    read_campaign_file,
)
from bo_surrogates.campaign.early_stopping import EarlyStopping
from bo_surrogates.campaign.spec import BlackBoxSource, CampaignSpec
from bo_surrogates.errors import InputError
from bo_surrogates.objective import Objective, OutcomeConstraint
from bo_surrogates.registry import Registry
from bo_surrogates.space import Choice, Float, Int, LinearConstraint, Ordered, Space
from bo_surrogates.surrogates.gp import GPConfig

EXAMPLES = Path(__file__).parents[3] / "examples"

COMPLETE = """
name = "reaction"
budget = 25
initial = 7
batch_size = 2
workers = 3
seed = 4
timeout = 90
max_consecutive_failures = 6
on_interrupt = "abandon"
python = "lab:measure"
metrics = ["impurity", "cost"]
constraints = ["impurity <= 2e-2", {metric = "cost", op = ">=", bound = 1}]
parameter_constraints = ["T + 2*n <= 300"]

[[parameters]]
name = "T"
type = "float"
low = 20
high = 120.5
unit = "°C"

[[parameters]]
name = "rate"
type = "float"
low = 1e-4
high = 1e-1
log = true

[[parameters]]
name = "n"
type = "int"
low = 1
high = 9

[[parameters]]
name = "grade"
type = "ordered"
values = [1, 2, 5]

[[parameters]]
name = "solvent"
type = "choice"
values = ["water", "dmso"]

[[objectives]]
name = "yield"
direction = "maximize"
reference = 0.2
unit = "%"

[[objectives]]
name = "time"
direction = "minimize"

[surrogate]
name = "gp"
kernel = "matern"

[acquisition]
num_restarts = 2
"""

SHORT = """
python = "lab:measure"
budget = 10

[[parameters]]
name = "x"
type = "float"
low = 0
high = 1

[[parameters]]
name = "y"
type = "float"
low = 0
high = 1

[[objectives]]
name = "loss"
direction = "minimize"
"""

PROBLEM_SPACE = Space([Float("a", 0, 1)])
PROBLEMS = Registry("problem")


class Known:
    name = "bowl"


PROBLEMS.register(Known())


def facts(name, options):
    """One known problem, with one option."""
    PROBLEMS[name]
    if set(options) - {"noise"}:
        raise InputError(f"problem {name!r} has no option {min(set(options) - {'noise'})!r}")
    return PROBLEM_SPACE, (Objective("f"),), (OutcomeConstraint("g", "<=", 1.0),), None


@pytest.fixture
def write(tmp_path):
    def written(text, name="plan.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return written


def test_a_complete_file_says_everything_a_campaign_is(write):
    spec = read_campaign_file(write(COMPLETE))
    assert spec == CampaignSpec(
        name="reaction",
        space=Space(
            [
                Float("T", 20, 120.5, unit="°C"),
                Float("rate", 1e-4, 1e-1, log=True),
                Int("n", 1, 9),
                Ordered("grade", (1, 2, 5)),
                Choice("solvent", ("water", "dmso")),
            ],
            [LinearConstraint({"T": 1.0, "n": 2.0}, 300.0)],
        ),
        objectives=(Objective("yield", "maximize", 0.2, "%"), Objective("time")),
        constraints=(OutcomeConstraint("impurity", "<=", 0.02), OutcomeConstraint("cost", ">=", 1)),
        surrogate="gp",
        surrogate_config=GPConfig(kernel="matern").to_dict(),
        acquisition=spec.acquisition.replace(num_restarts=2),
        budget=25,
        initial=7,
        batch_size=2,
        workers=3,
        seed=4,
        black_box=BlackBoxSource("python", "lab:measure"),
        timeout=90.0,
        max_consecutive_failures=6,
        on_interrupt="abandon",
    )
    assert spec.acquisition.num_restarts == 2


def test_a_short_file_takes_the_defaults_and_its_stem_as_name(write):
    spec = read_campaign_file(write(SHORT))
    plain = CampaignSpec("plan", spec.space, (Objective("loss"),), budget=10)
    assert spec == CampaignSpec.from_dict(
        {**plain.resolved().to_dict(), "black_box": {"kind": "python", "target": "lab:measure"}}
    )


def test_a_problem_brings_its_space_objectives_and_constraints(write):
    text = 'problem = "bowl"\n[problem_options]\nnoise = 0.1\n'
    spec = read_campaign_file(write(text), facts)
    assert spec.space == PROBLEM_SPACE
    assert (spec.objectives, spec.constraints) == facts("bowl", {})[1:3]
    assert spec.black_box == BlackBoxSource("problem", "bowl", {"noise": 0.1})


def test_without_a_black_box_results_are_told_by_hand(write):
    assert read_campaign_file(write(SHORT.replace('python = "lab:measure"', ""))).black_box is None


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda p: p.stem)
def test_the_shipped_examples_are_valid(path):
    from problems import PROBLEMS as REGISTERED

    def registered_facts(name, options):
        problem = REGISTERED[name].make(**options)
        return problem.space, problem.objectives, problem.constraints, problem.fidelity

    assert read_campaign_file(path, registered_facts).name == path.stem


X, LOSS = 'name = "x"\ntype = "float"\nlow = 0\nhigh = 1', 'name = "loss"\ndirection = "minimize"'
TOP = "budget = 10\n"
MISTAKES = {
    # what is replaced in SHORT, by what, and what the message says
    "syntax": ("budget = 10", "budget = = 10", ["not valid TOML", "line 3"]),
    "unknown top-level key": ("budget", "bugdet", ["'bugdet'", "did you mean 'budget'"]),
    "budget 0": ("budget = 10", "budget = 0", ["budget must be >= 1, got 0"]),
    "budget a string": ("budget = 10", 'budget = "10"', ["budget must be an integer"]),
    "integer beyond 64 bits": ("budget = 10", "budget = 99999999999999999999", ["budget", "64"]),
    "initial beyond budget": (TOP, TOP + "initial = 11\n", ["initial (11)", "budget (10)"]),
    "reversed bounds": ("low = 0", "low = 2", ["[[parameters]] 1 ('x')", "reversed"]),
    "equal bounds": ("low = 0", "low = 1", ["[[parameters]] 1 ('x')", "equal"]),
    "NaN bound": ("low = 0", "low = nan", ["[[parameters]] 1 ('x')", "low must be finite", "nan"]),
    "infinite bound": ("low = 0", "low = -inf", ["low must be finite"]),
    "bound a string": ("low = 0", 'low = "0"', ["low must be a number, got '0'"]),
    "log scale from 0": (X, X + "\nlog = true", ["logarithmic scale needs low > 0, got 0"]),
    "log no boolean": (X, X + "\nlog = 1", ["log must be true or false"]),
    "unit no string": (X, X + "\nunit = 1", ["unit must be a string"]),
    "missing bound": ("low = 0\n", "", ["[[parameters]] 1 ('x')", "'low' is missing"]),
    "missing type": ('type = "float"\n', "", ["'type' is missing", "'choice'"]),
    "unknown type": ('"float"', '"flaot"', ["'flaot'", "did you mean 'float'"]),
    "type no string": ('"float"', '["float"]', ["unknown type"]),
    "missing name": ('name = "x"\n', "", ["[[parameters]] 1", "'name' is missing"]),
    "name no string": ('name = "x"', "name = 3", ["name must be a non-empty string"]),
    "unknown parameter key": ("low = 0", "lov = 0", ["'lov'", "did you mean 'low'"]),
    "duplicate parameter": ('name = "y"', 'name = "x"', ["'x' is defined twice"]),
    "no parameters": (SHORT[SHORT.index("[[par") : SHORT.index("[[obj")], "", ["[[parameters]]"]),
    "parameters no tables": (
        SHORT[SHORT.index("[[par") : SHORT.index("[[obj")], "parameters = 3\n", ["[[parameters]]"],
    ),
    "one value": (X, 'name = "x"\ntype = "choice"\nvalues = [1]', ["at least two"]),
    "mixed values": (X, 'name = "x"\ntype = "choice"\nvalues = [1, "a"]', ["all numbers"]),
    "descending": (X, 'name = "x"\ntype = "ordered"\nvalues = [2, 1]', ["must ascend"]),
    "int bound": (X, X.replace("float", "int").replace("1", "1.5"), ["must be an integer"]),
    "no objective": ("[[objectives]]\n" + LOSS, "", ["no objective", "[[objectives]]"]),
    "unknown direction": ("minimize", "minimise", ["did you mean 'minimize'"]),
    "missing direction": ('direction = "minimize"', "", ["[[objectives]] 1", "'direction'"]),
    "unknown objective key": (LOSS, LOSS + "\nref = 1", ["'ref'", "[[objectives]] 1 ('loss')"]),
    "reference NaN": (LOSS, LOSS + "\nreference = nan", ["reference must be a finite number"]),
    "duplicate objective": (LOSS, f"{LOSS}\n[[objectives]]\n{LOSS}", ["'loss' is defined twice"]),
    "top-level key after a table": (LOSS, LOSS + '\nconstraints = ["a <= 1"]', ["top of the file"]),
    "unknown metric": (TOP, TOP + 'constraints = ["lost <= 1"]\n', ["did you mean 'loss'"]),
    "undeclared metric": (TOP, TOP + 'constraints = ["zeta <= 1"]\n', ['metrics = ["zeta"]']),
    "unused metric": (TOP, TOP + 'metrics = ["z"]\n', ["neither an objective nor constrained"]),
    "constrained objective": (TOP, TOP + 'constraints = ["loss <= 1"]\n', ["reference"]),
    "unreadable constraint": (TOP, TOP + 'constraints = ["loss < 1"]\n', ["metric <= number"]),
    "NaN constraint": (
        TOP, TOP + 'metrics = ["z"]\nconstraints = ["z <= nan"]\n', ["bound must be a finite"],
    ),
    "constraints no list": (TOP, TOP + 'constraints = "z <= 1"\n', ["must be a list"]),
    "constraint table": (
        TOP, TOP + 'constraints = [{metric = "z", opp = "<="}]\n', ["did you mean 'op'"],
    ),
    "bad linear constraint": (TOP, TOP + 'parameter_constraints = ["x < 1"]\n', ["x1 + 2*x2 <= 3"]),
    "product": (TOP, TOP + 'parameter_constraints = ["x * y <= 1"]\n', ["not linear"]),
    "unknown in constraint": (
        TOP, TOP + 'parameter_constraints = ["x + z <= 1"]\n', ["unknown parameter 'z'"],
    ),
    "empty space": (TOP, TOP + 'parameter_constraints = ["x + y <= -1"]\n', ["no point"]),
    "jointly empty": (
        TOP, TOP + 'parameter_constraints = ["x >= y + 0.5", "y >= x"]\n', ["no point"],
    ),
    "infinite constraint": (
        TOP, TOP + 'parameter_constraints = ["x <= 1e999"]\n', ["constraint 'x <= 1e999'"],
    ),
    "unknown surrogate": (LOSS, LOSS + '\n[surrogate]\nname = "ensembel"', ["'ensemble'?"]),
    "unknown surrogate key": (
        LOSS, LOSS + '\n[surrogate]\nkernl = "rbf"', ["[surrogate]", "did you mean 'kernel'"],
    ),
    "bad surrogate value": (LOSS, LOSS + '\n[surrogate]\nkernel = "rfb"', ["did you mean 'rbf'"]),
    "surrogate no table": (TOP, TOP + 'surrogate = "gp"\n', ["surrogate must be a table"]),
    "unknown acquisition key": (LOSS, LOSS + "\n[acquisition]\nrestarts = 3", ["[acquisition]"]),
    "acquisition range": (LOSS, LOSS + "\n[acquisition]\nmc_samples = 1", ["mc_samples", "[8, "]),
    "several black boxes": (TOP, TOP + 'command = "ls"\n', ["python and command"]),
    "black box no string": ('python = "lab:measure"', "python = 3", ["python must be a non-empty"]),
    "options without problem": (LOSS, LOSS + "\n[problem_options]\na = 1", ["needs problem"]),
    "timeout 0": (TOP, TOP + "timeout = 0\n", ["timeout"]),
    "a date": (TOP, TOP + "seed = 2026-01-01\n", ["seed must be an integer"]),
    "not UTF-8": (SHORT, b'name = "\xff"', ["UTF-8"]),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_has_one_message_that_names_the_file_and_the_thing(mistake, write):
    old, new, said = MISTAKES[mistake]
    assert old in SHORT
    path = write(new if isinstance(new, bytes) else SHORT.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        read_campaign_file(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    for words in said:
        assert words in message


PROBLEM_MISTAKES = {
    "unknown problem": ('problem = "bowel"', "did you mean 'bowl'"),
    "unknown option": ('problem = "bowl"\n[problem_options]\nloud = 1', "'loud'"),
    "its parameters again": (
        'problem = "bowl"\n' + SHORT[SHORT.index("[[par") :],
        "remove 'parameters'",
    ),
    "its constraints again": ('problem = "bowl"\nconstraints = ["g <= 2"]', "remove 'constraints'"),
    "two black boxes": ('problem = "bowl"\ncommand = "ls"', "problem and command"),
    "a date as option": ('problem = "bowl"\n[problem_options]\nd = 2026-01-01', "problem_options"),
    "NaN as option": ('problem = "bowl"\n[problem_options]\nnoise = nan', "problem_options"),
}


@pytest.mark.parametrize("mistake", PROBLEM_MISTAKES)
def test_a_mistake_about_a_problem_has_one_message(mistake, write):
    text, said = PROBLEM_MISTAKES[mistake]
    with pytest.raises(InputError) as caught:
        read_campaign_file(write(text), facts)
    assert said in str(caught.value)


def test_a_problem_is_refused_where_problems_are_not_available(write):
    with pytest.raises(InputError, match="problem_facts"):
        read_campaign_file(write('problem = "bowl"'))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(InputError, match="no campaign file"):
        read_campaign_file(tmp_path / "none.toml")
    with pytest.raises(InputError, match="cannot be read"):
        read_campaign_file(tmp_path)


# Values of every kind that TOML has, and some that it has not.
scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(
        [
            "float",
            "int",
            "ordered",
            "choice",
            "minimize",
            "x",
            "x <= 1",
            "x + y >= 0",
            "gp",
            "bowl",
            "loss",
            "<=",
            10**400,
            math.nan,
            datetime.date(2026, 1, 1),
            datetime.time(1),
        ]
    )
)
nested = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "name",
                    "type",
                    "low",
                    "high",
                    "log",
                    "values",
                    "unit",
                    "direction",
                    "reference",
                    "metric",
                    "op",
                    "bound",
                    "kernel",
                    "mc_samples",
                    "noise",
                ]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
anything = st.dictionaries(
    st.sampled_from(TOP_LEVEL) | st.text(max_size=5) | st.integers(), nested, max_size=6
)


def parsed_or_refused(data):
    try:
        spec = campaign_from_mapping(data, "fuzz.toml", facts)
    except InputError:
        return
    assert CampaignSpec.from_dict(spec.to_dict()) == spec


@settings(max_examples=300)
@given(anything)
def test_any_mapping_is_a_campaign_or_an_input_error(data):
    parsed_or_refused(data)


@settings(max_examples=300)
@given(st.data())
def test_a_valid_file_with_one_value_replaced_is_a_campaign_or_an_input_error(data):
    import tomllib

    content = tomllib.loads(COMPLETE)
    table = data.draw(
        st.sampled_from(
            [
                content,
                *content["parameters"],
                *content["objectives"],
                content["surrogate"],
                content["acquisition"],
                content["constraints"][1],
            ]
        )
    )
    table[data.draw(st.sampled_from(sorted(table)))] = data.draw(nested)
    parsed_or_refused(content)


@settings(max_examples=300)
@given(
    st.text(st.sampled_from("xyT n+-*/()<=>.0123456789e"), max_size=20)
    | st.text(max_size=20)
    | st.integers(1, 4000).map(lambda k: "x <= 1" + "0" * k)
    | st.integers(1, 4000).map(lambda k: "(" * k + "x" + ")" * k + " <= 1")
    | st.integers(1, 4000).map(lambda k: "-" * k + "x <= 1")
)
def test_any_text_is_a_parameter_constraint_or_an_input_error(text):
    table = {"type": "float", "low": 0, "high": 1}
    parsed_or_refused(
        {
            "parameters": [{"name": n, **table} for n in ("x", "y", "T", "n")],
            "parameter_constraints": [text],
            "objectives": [{"name": "loss", "direction": "minimize"}],
        }
    )


# ---- weighted sums, baselines, noise -------------------------------------------------------------
GOALS = """
metrics = ["impurity"]
constraints = ["impurity <= baseline + 5 %", "cost <= 3"]
baseline = {t = 60}
noise = {yield = "known"}
[[parameters]]
name = "t"
type = "float"
low = 20
high = 80
[[objectives]]
name = "profit"
direction = "maximize"
weights = {yield = 12.0, cost = -1.0}
"""


def test_a_weighted_sum_a_relative_constraint_and_the_noise_are_read():
    spec = campaign_from_mapping(tomllib.loads(GOALS))
    assert spec.objectives == (
        Objective("profit", "maximize", weights={"yield": 12.0, "cost": -1.0}),
    )
    assert spec.constraints == (
        OutcomeConstraint("impurity", "<=", 5.0, relative=True),
        OutcomeConstraint("cost", "<=", 3.0),
    )
    assert spec.metrics == ("yield", "cost", "impurity")
    assert spec.baseline == {"t": 60.0}
    assert spec.noise == {"yield": "known"}
    assert type(spec).from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize("text", ["impurity>=baseline-12.5%", "impurity >= baseline - 12.5 %"])
def test_a_relative_constraint_may_be_spaced_as_one_likes(text):
    data = tomllib.loads(GOALS) | {"constraints": [text]}
    (constraint,) = campaign_from_mapping(data).constraints
    assert constraint == OutcomeConstraint("impurity", ">=", -12.5, relative=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baseline": None}, r"'impurity <= baseline \+ 5 %' needs a baseline"),
        ({"baseline": {"t": 90}}, r"baseline: parameter 't' must be in \[20"),
        ({"baseline": {"u": 60}}, "baseline: "),
        ({"baseline": "first"}, "baseline: expected the index of a trial, or a table"),
        ({"baseline": -1}, "baseline must be >= 0"),
        ({"noise": "knwon"}, "noise of 'yield' must be one of .* did you mean 'known'"),
        ({"noise": {"yeild": "known"}}, "noise: unknown metric 'yeild'; did you mean 'yield'"),
        ({"noise": 3}, "noise: expected one of"),
        ({"constraints": ["impurity <= baseline + 5"]}, "cannot read .* 'metric <= baseline"),
        ({"constraints": ["impurity <= 105 %"]}, "cannot read"),
        ({"constraints": ["profit <= 3", "impurity <= 1"]}, "unknown metric 'profit'"),
    ],
)
def test_mistakes_in_them_are_named(change, said):
    data = {k: v for k, v in (tomllib.loads(GOALS) | change).items() if v is not None}
    with pytest.raises(InputError, match=said):
        campaign_from_mapping(data)


# ---- fidelity, early stopping, trust region ------------------------------------------------------
PLAIN = """
[[parameters]]
name = "epochs"
type = "int"
low = 1
high = 40
[[parameters]]
name = "t"
type = "float"
low = 20
high = 80
[[objectives]]
name = "loss"
direction = "minimize"
"""
TWO_OBJECTIVES = [{"name": n, "direction": "minimize"} for n in ("loss", "size")]


def options(changes):
    """The file with further options; "fidelity" makes epochs one."""
    data = tomllib.loads(PLAIN) | changes
    if "fidelity" in changes:
        data["parameters"][0]["fidelity"] = True
    return data


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"early_stopping": {"strategy": "threshold", "threshold": 2}},
         lambda spec: (spec.early_stopping.strategy, spec.early_stopping.threshold)
         == ("threshold", 2.0)),
        ({"early_stopping": {}}, lambda spec: spec.early_stopping == EarlyStopping()),
        ({"acquisition": {"trust_region": True}},
         lambda spec: spec.acquisition.uses_trust_region(1, 2)),
        ({"acquisition": {"trust_region": "auto"}},
         lambda spec: [spec.acquisition.uses_trust_region(1, d) for d in (20, 21)]
         == [False, True]),
        ({"fidelity": {"weight": 0.5, "target_every": 3}, "budget_cost": 60},
         lambda spec: (spec.fidelity.weight, spec.fidelity.target_every, spec.budget_cost)
         == (0.5, 3, 60.0)),
        ({"baseline": 0}, lambda spec: spec.baseline == 0),
    ],
)  # fmt: skip
def test_what_the_file_says_of_saving_is_what_the_campaign_does(changes, found):
    spec = campaign_from_mapping(options(changes))
    assert found(spec)
    assert CampaignSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"early_stopping": {"strategy": "median"}}, "unknown strategy 'median'.* one of"),
        ({"early_stopping": {"strategy": "threshold"}}, "threshold"),
        ({"early_stopping": {"percentile": 100}}, r"percentile must be a number in \(0, 100\)"),
        ({"early_stopping": {"percentil": 50}}, "percentil.*did you mean 'percentile'"),
        ({"early_stopping": {"metric": "acc"}}, "acc"),
        ({"early_stopping": True}, "early_stopping"),
        ({"acquisition": {"trust_region": "on"}}, "trust_region must be one of"),
        ({"acquisition": {"trust_region": True}, "objectives": TWO_OBJECTIVES},
         "trust_region = true needs one objective"),
        ({"budget_cost": 60}, "budget_cost needs a fidelity"),
        ({"fidelity": {}, "budget_cost": 0}, "budget_cost must be a number above 0, got 0"),
        ({"fidelity": {"target_every": 0}}, "target_every"),
        ({"fidelity": {"weight": -1}}, "epochs = 1 would cost -1, but costs are above 0"),
        ({"fidelity": {"costs": [1, 2]}}, "costs"),
        ({"fidelity": {}, "early_stopping": {}}, "early_stopping and a fidelity exclude"),
        ({"baseline": {"t": 60}}, "baseline: .*'epochs' is missing"),
    ],
)  # fmt: skip
def test_mistakes_in_what_it_says_of_saving_are_named(changes, said):
    with pytest.raises(InputError, match=said):
        campaign_from_mapping(options(changes))
