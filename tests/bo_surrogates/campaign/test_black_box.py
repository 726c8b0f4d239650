"""Black boxes: what they are given, what they may return, and what is refused before any trial."""

import json
import math
import pickle
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bo_surrogates.campaign.black_box import (
    BlackBox,
    ProblemBlackBox,
    PythonBlackBox,
    TrialFailure,
    describe_exit,
    make_black_box,
    read_result,
)
from bo_surrogates.campaign.command import CommandBlackBox
from bo_surrogates.campaign.execution.runner import as_measurements
from bo_surrogates.campaign.spec import BlackBoxSource
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError
from bo_surrogates.space import Float, Space

SPACE = Space([Float("x", 0, 1), Float("y", 0, 1)])
ODD = Space([Float("flow rate", 0, 1), Float("class", 0, 1)])


def box(kind, target, space=SPACE, metrics=("loss",)):
    return make_black_box(BlackBoxSource(kind, target), space=space, metrics=metrics)


# ---- results -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("raw", "metrics", "measured"),
    [
        (1.5, ("a",), {"a": Measurement(1.5)}),
        (2, ("a",), {"a": Measurement(2.0)}),
        (Fraction(1, 4), ("a",), {"a": Measurement(0.25)}),
        (np.float32(0.5), ("a",), {"a": Measurement(0.5)}),
        (np.int64(3), ("a",), {"a": Measurement(3.0)}),
        (np.array([[0.5]]), ("a",), {"a": Measurement(0.5)}),
        (torch.tensor(0.5), ("a",), {"a": Measurement(0.5)}),
        (torch.ones(1, 1, requires_grad=True), ("a",), {"a": Measurement(1.0)}),
        ({"a": (1.0, 0.1)}, ("a",), {"a": Measurement(1.0, 0.1)}),
        ({"a": [1.0, 0]}, ("a",), {"a": Measurement(1.0, 0.0)}),
        ({"a": [1.0, None]}, ("a",), {"a": Measurement(1.0)}),
        ({"b": 2, "a": 1, "more": "text"}, ("a", "b"), {"a": Measurement(1), "b": Measurement(2)}),
    ],
)
def test_numbers_and_pairs_of_every_make_are_measurements(raw, metrics, measured):
    assert as_measurements(read_result(raw, metrics)) == measured


@pytest.mark.parametrize(
    ("raw", "metrics", "said"),
    [
        (math.nan, ("a",), "'a' is NaN"),
        (-math.inf, ("a",), "'a' is infinite"),
        (10**400, ("a",), "'a' is infinite"),
        (torch.tensor(math.nan), ("a",), "'a' is NaN"),
        (None, ("a",), "must be a number, got None"),
        ("1.5", ("a",), "must be a number, got '1.5' (str)"),
        (True, ("a",), "must be a number, got True"),
        (np.bool_(True), ("a",), "must be a number"),
        (1j, ("a",), "must be a number"),
        (np.zeros(2), ("a",), "must be a number"),
        (object(), ("a",), "must be a number"),
        (1.0, ("a", "b"), "a mapping with the metrics a, b"),
        ({}, ("a",), "'a' is missing; got nothing"),
        ({"A": 1.0}, ("a",), "'a' is missing; got 'A'"),
        ({"a": 1.0}, ("a", "b"), "'b' is missing"),
        ({"a": 1.0, "b": math.nan}, ("a", "b"), "'b' is NaN"),
        ({"a": (1.0, -0.1)}, ("a",), "standard error must be >= 0"),
        ({"a": (1.0, math.nan)}, ("a",), "standard error is NaN"),
        ({"a": (1.0, 0.1, 3)}, ("a",), "(mean, standard error)"),
        ({"a": (math.inf, 0.1)}, ("a",), "'a' is infinite"),
    ],
)
def test_anything_else_is_a_failure_with_a_reason(raw, metrics, said):
    with pytest.raises(TrialFailure) as caught:
        read_result(raw, metrics)
    assert said in str(caught.value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b"]) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_any_value_is_finite_readings_or_a_failure(raw):
    try:
        readings = read_result(raw, ("a", "b"))
    except TrialFailure:
        return
    for mean, sem in readings.values():
        assert math.isfinite(mean)
        assert sem is None or 0 <= sem < math.inf


# ---- Python functions ----------------------------------------------------------------------------
@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A user's folder, current, with a module to fill."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(text):
        (tmp_path / "lab.py").write_text(text)

    yield write
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "lab":
            del sys.modules[name]


def test_a_function_is_called_with_keywords_from_the_current_folder(lab):
    lab("def measure(y, x): return x - y\nclass Rig:\n    go = staticmethod(lambda **p: p)")
    assert box("python", "lab:measure")({"x": 3.0, "y": 1.0}, 0, 0) == 2.0
    assert box("python", "lab:Rig.go")({"x": 3.0, "y": 1.0}, 0, 0) == {"x": 3.0, "y": 1.0}


def test_a_function_gets_one_mapping_where_a_name_is_no_identifier(lab):
    lab("def measure(parameters): return parameters")
    point = {"flow rate": 0.5, "class": 0.1}
    assert box("python", "lab:measure", ODD)(point, 0, 0) == point


def test_a_function_that_asks_for_seed_and_trial_index_gets_the_trials(lab):
    lab("def measure(x, y, seed, *, trial_index=None): return seed, trial_index")
    assert box("python", "lab:measure")({"x": 0.0, "y": 0.0}, 7, 11) == (11, 7)


def test_a_parameter_named_seed_is_the_campaigns(lab):
    lab("def measure(seed): return seed")
    space = Space([Float("seed", 0, 1)])
    assert box("python", "lab:measure", space)({"seed": 0.5}, 7, 11) == 0.5


def test_a_function_by_name_is_pickled_by_name_and_a_function_itself_by_reference(lab):
    lab("def measure(x, y): return x")
    copy = pickle.loads(pickle.dumps(box("python", "lab:measure")))
    copy.prepare()
    assert copy({"x": 0.25, "y": 0.0}, 0, 0) == 0.25
    itself = make_black_box(math.hypot, space=SPACE, metrics=("r",))
    assert isinstance(itself, PythonBlackBox)
    assert make_black_box(itself, space=SPACE, metrics=("r",)) is itself


@pytest.mark.parametrize(
    ("target", "text", "said"),
    [
        ("lab", "", "expected 'module:function'"),
        (":f", "", "expected 'module:function'"),
        ("labb:f", "", "no module 'labb'"),
        ("lab.sub:f", "", "lab"),
        ("lab:f", "import nowhere_to_be_found", "nowhere_to_be_found"),
        ("lab:f", "raise ValueError('no power')", "ValueError: no power"),
        ("lab:f", "import sys; sys.exit(3)", "SystemExit: 3"),
        ("lab:f", "def f(:", "SyntaxError"),
        ("lab:mesure", "def measure(x, y): ...", "did you mean 'measure'"),
        ("lab:f", "f = 3", "expected a function, found a int"),
        ("lab:f", "def f(x): ...", "f(x=..., y=...)"),
        ("lab:f", "def f(x, y, z): ...", "missing a required argument: 'z'"),
        ("lab:f", "def f(x, /, y): ...", "signature is (x, /, y)"),
    ],
)
def test_a_function_that_cannot_serve_is_refused_before_any_trial(lab, target, text, said):
    lab(text)
    with pytest.raises(InputError) as caught:
        box("python", target)
    assert said in str(caught.value)


def test_a_function_for_odd_names_must_take_one_mapping(lab):
    lab("def f(a, b): ...")
    with pytest.raises(InputError, match="not a Python identifier"):
        box("python", "lab:f", ODD)


# ---- commands ------------------------------------------------------------------------------------
@pytest.fixture
def command(tmp_path, monkeypatch):
    """Makes a command of a Python program's text."""
    monkeypatch.chdir(tmp_path)

    def make(text):
        (tmp_path / "program.py").write_text(text)
        return box("command", f"{sys.executable} program.py", metrics=("loss",))

    return make


def test_a_command_gets_the_point_the_trial_and_the_seed_and_its_last_line_counts(command):
    run = command(
        "import json, os, sys\n"
        "point = json.load(sys.stdin)\n"
        "print('working ...')\n"
        "point['trial'] = int(os.environ['BO_SURROGATES_TRIAL'])\n"
        "point['seed'] = int(os.environ['BO_SURROGATES_SEED'])\n"
        "print(json.dumps(point))\n"
        "print()\n"
    )
    assert run({"x": 0.1, "y": 1e-17}, 3, 17) == {"x": 0.1, "y": 1e-17, "trial": 3, "seed": 17}


def test_a_command_that_reads_nothing_is_not_disturbed_by_its_unread_input(command):
    run = command("print('{\"loss\": [1.5, 0.1]}')")
    assert run({"x": 0.1, "y": 0.2}, 0, 0) == {"loss": [1.5, 0.1]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import sys; print('out of acid', file=sys.stderr); sys.exit(4)", "code 4: out of acid"),
        ("raise SystemExit(1)", "exit code 1, with nothing on its standard error"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "was killed by SIGTERM"),
        ("", "printed nothing"),
        ("print('loss = 3')", "not a JSON object of metrics: 'loss = 3'"),
        ("print('[1]')", "not a JSON object"),
        ("print('[' * 100000)", "not a JSON object"),
        ("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')", "not a JSON object"),
    ],
)
def test_a_command_that_fails_says_why(command, text, said):
    with pytest.raises(TrialFailure) as caught:
        command(text)({"x": 0.0, "y": 0.0}, 0, 0)
    assert said in str(caught.value)


def test_only_the_end_of_a_long_standard_error_is_quoted(command):
    run = command(
        "import sys\nfor i in range(9999): print('line', i, file=sys.stderr)\nsys.exit(1)"
    )
    with pytest.raises(TrialFailure) as caught:
        run({"x": 0.0, "y": 0.0}, 0, 0)
    assert str(caught.value).endswith("line 9998")
    assert len(str(caught.value)) < 1000


def test_no_shell_interprets_a_command(command):
    run = command("import json, sys; print(json.dumps({'loss': len(sys.argv)}))")
    run.words += ["$HOME", "|", "cat"]
    assert run({"x": 0.0, "y": 0.0}, 0, 0) == {"loss": 4}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("'unclosed", "No closing quotation"),
        ("#", "no program '#'"),
        ("''", "no program ''"),
        ("no-such-program-anywhere --fast", "no program 'no-such-program-anywhere'"),
    ],
)
def test_a_command_that_cannot_start_is_refused_before_any_trial(line, said):
    with pytest.raises(InputError) as caught:
        box("command", line)
    assert said in str(caught.value)


# ---- problems ------------------------------------------------------------------------------------
class Bowl:
    space = SPACE

    def __init__(self, **options):
        self.options = options

    def evaluate(self, parameters, seed=None):
        return {"loss": parameters["x"] + self.options["shift"], "seed": seed}


def test_a_problem_is_made_from_its_options_and_evaluated_with_the_seed():
    made = make_black_box(
        BlackBoxSource("problem", "bowl", {"shift": 2.0}),
        space=SPACE,
        metrics=("loss",),
        resolve_problem=lambda name, options: {"bowl": Bowl}[name](**options),
    )
    assert isinstance(made, ProblemBlackBox)
    assert made({"x": 0.5, "y": 0.0}, 0, 9) == {"loss": 2.5, "seed": 9}


def test_a_problem_whose_parameters_have_changed_is_refused():
    with pytest.raises(InputError, match="has the parameters x, y, but the campaign"):
        make_black_box(
            BlackBoxSource("problem", "bowl"),
            space=ODD,
            metrics=("loss",),
            resolve_problem=lambda name, options: Bowl(),
        )


def test_a_problem_needs_something_that_makes_it():
    with pytest.raises(InputError, match="resolve_problem"):
        box("problem", "bowl")


def test_something_that_cannot_be_called_is_refused():
    with pytest.raises(InputError, match="expected a function"):
        make_black_box(3, space=SPACE, metrics=("loss",))


def test_only_commands_need_a_process():
    assert CommandBlackBox.needs_process
    assert not BlackBox.needs_process


@pytest.mark.parametrize(
    ("code", "words"),
    [(0, "exit code 0"), (-9, "SIGKILL (out of memory?)"), (-11, "SIGSEGV"), (-250, "signal 250")],
)
def test_an_exit_code_is_said_in_words(code, words):
    assert words in describe_exit(code)


def test_parameters_reach_a_command_as_exact_json(command):
    run = command("import sys; print(sys.stdin.read())")
    point = {"x": 0.1 + 0.2, "y": 5e-324, "mode": "ü", "flag": True, "n": 3}
    assert json.dumps(run(point, 0, 0), sort_keys=True) == json.dumps(point, sort_keys=True)
