"""A campaign's tables: filled-in forms are told, data are added, all of a table or nothing."""

import io
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bo_surrogates import (
    Campaign,
    CampaignSpec,
    Choice,
    Float,
    InputError,
    Int,
    LinearConstraint,
    Measurement,
    Objective,
    Ordered,
    OutcomeConstraint,
    Space,
    Trial,
)
from bo_surrogates.campaign.spec import PriorData
from bo_surrogates.campaign.tables import csv_text, read_table, write_table
from bo_surrogates.campaign.trial_table import columns_of, points_frame, trials_frame

SPEC = CampaignSpec(
    name="suzuki",
    space=Space(
        [
            Float("T", 20, 120, unit="°C"),
            Float("loading", 1e-4, 1e-1, log=True),
            Int("equivalents", 1, 9),
            Ordered("stirring", (100, 200, 400), unit="rpm"),
            Choice("solvent", ("water", "1,4-dioxane", "DMF")),
            Choice("degassed", (False, True)),
        ],
        [LinearConstraint({"T": 1.0, "equivalents": 10.0}, 180.0)],
    ),
    objectives=(Objective("yield", "maximize", unit="%"),),
    constraints=(OutcomeConstraint("impurity", "<=", 0.1),),
    budget=20,
    initial=5,
)
POINT = {"T": 70.25, "loading": 0.003, "equivalents": 3, "stirring": 200, "solvent": "1,4-dioxane",
         "degassed": True}  # fmt: skip
ROW = {**POINT, "yield": 71.5, "impurity": 0.02}


@pytest.fixture
def campaign(tmp_path):
    """Four points of the initial design, running."""
    with Campaign.create(SPEC, tmp_path / "c.db") as campaign:
        campaign.ask(4)
        yield campaign


def form(campaign, **options):
    return points_frame(SPEC, campaign.trials, **options)


def filled(campaign, **columns):
    frame = form(campaign, sem=True)
    frame["yield"], frame["impurity"] = [10.5, 20.25, 30.0, 40.125], 0.05
    for name, values in columns.items():
        frame[name] = values
    return frame


def snapshot(campaign):
    return campaign.trials


def through_excel(frame, tmp_path, *, decimal="point", digits=10):
    """Saved as a spreadsheet would: fewer digits, TRUE for True, semicolons with decimal commas."""
    frame = frame.map(
        lambda v: str(v).upper() if isinstance(v, bool)
        else f"{v:.{digits}g}" if isinstance(v, float) and not math.isnan(v) else v
    )  # fmt: skip
    if decimal == "comma":
        frame = frame.map(lambda v: v.replace(".", ",") if isinstance(v, str) else v)
    path = tmp_path / "form.csv"
    text = csv_text(frame.astype(object), decimal=decimal)
    path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    return path


# ---- telling -------------------------------------------------------------------------------------
@pytest.mark.parametrize("decimal", ["point", "comma"])
@pytest.mark.parametrize("digits", [17, 10, 4])
def test_a_form_filled_in_with_a_spreadsheet_is_recorded(campaign, tmp_path, decimal, digits):
    frame = filled(campaign)
    frame.loc[1, "yield (sem)"] = 0.25
    path = through_excel(frame, tmp_path, decimal=decimal, digits=digits)
    told = campaign.tell_table(path)
    assert [t.index for t in told.finished] == [0, 1, 2, 3]
    assert [t.status for t in campaign.trials] == ["completed"] * 4
    shown = [float(f"{v:.{digits}g}") for v in frame["yield"]]
    assert [t.value("yield") for t in campaign.trials] == shown
    assert campaign.trials[1].measurements["yield"].sem == 0.25
    assert campaign.trials[0].measurements["yield"].sem is None


def test_a_form_may_be_told_in_parts_and_twice(campaign):
    frame = filled(campaign, failed=[None, None, "spilt it", None])
    frame.loc[2, ["yield", "impurity"]] = None
    partly = frame.copy()
    partly.loc[[1, 2, 3], ["yield", "impurity", "failed"]] = None
    assert campaign.tell_table(partly).waiting == (1, 2, 3)
    told = campaign.tell_table(frame)
    assert ([t.index for t in told.finished], told.unchanged) == ([1, 2, 3], (0,))
    before = snapshot(campaign)
    assert campaign.tell_table(frame).unchanged == (0, 1, 2, 3)
    assert campaign.tell_table(partly).waiting == ()
    assert campaign.tell_table(trials_frame(SPEC, before)).unchanged == (0, 1, 2, 3)
    assert snapshot(campaign) == before
    assert (before[2].status, before[2].reason) == ("abandoned", "spilt it")


def test_a_different_result_never_replaces_a_recorded_one(campaign):
    frame = filled(campaign)
    campaign.tell_table(frame.iloc[:1])
    before = snapshot(campaign)
    frame.loc[0, "yield"] = 11.5
    with pytest.raises(
        InputError, match=r"row 1: trial 0 is completed already with impurity = 0.05, yield = 10.5"
    ):
        campaign.tell_table(frame)
    frame.loc[0, ["yield", "impurity"]], frame.loc[0, "failed"] = None, "lost"
    with pytest.raises(InputError, match=r"the table says no result \(lost\)"):
        campaign.tell_table(frame)
    assert snapshot(campaign) == before


@pytest.mark.parametrize(
    ("failed", "reason", "kept"),
    [
        ("yes", None, "no reason given"),
        ("X", "no acid", "no acid"),
        (True, "no acid", "no acid"),
        ("broke", None, "broke"),
        (None, "no acid", "no acid"),
        ("no", None, None),
        (0, None, None),
    ],
)
def test_a_failure_is_said_in_every_way(campaign, failed, reason, kept):
    frame = filled(campaign, failed=[failed, None, None, None], reason=[reason, None, None, None])
    frame.loc[0, ["yield", "impurity"]] = None
    told = campaign.tell_table(frame.iloc[:1])
    assert campaign.trials[0].reason == kept
    assert told.waiting == (() if kept else (0,))


def change(**cells):
    def apply(frame):
        for name, value in cells.items():
            frame[name] = frame.get(name, pd.Series(None, index=frame.index)).astype(object)
            frame.loc[1, name] = value
        return frame

    return apply


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (change(trial=0), ["row 3, column 'trial'", "trial 0 is in row 2 already"]),
        (change(trial=17), ["no trial 17", "running trials: 0, 1, 2, 3"]),
        (change(trial=-1), ["no trial -1"]),
        (change(trial=1.5), ["expected the number of a trial"]),
        (change(trial="one"), ["expected a number, got 'one'"]),
        (change(trial=None), ["row 3, column 'trial'", "every row needs"]),
        (change(**{"yield": "O.5"}), ["row 3, column 'yield'", "expected a number, got 'O.5'"]),
        (change(**{"yield": "inf"}), ["expected a number"]),
        (change(impurity=None), ["row 3, column 'impurity'", "empty, but 'yield' is given"]),
        (change(failed="spilt"), ["both a result and a failure"]),
        (change(failed="71.5", **{"yield": None, "impurity": None}),
         ["'failed'", "'71.5' is a number, not a reason"]),
        (change(**{"yield (sem)": -1}), ["column 'yield (sem)'", "must be >= 0"]),
        (change(**{"yield": None, "impurity": None, "yield (sem)": 1}),
         ["a standard error without a value"]),
        (change(T=21), ["row 3, column 'T'", "not what trial 1 was asked at"]),
        (change(solvent="toluene"), ["did you mean", "known:"]),
        (change(equivalents=3.5), ["must be an integer"]),
        (lambda f: f.rename(columns={"yield": "yeild"}),
         ["column 'yeild'; did you mean 'yield'"]),
        (lambda f: f.rename(columns={"yield": "Ausbeute"}),
         ["column 'yield' is missing", "another campaign"]),
        (lambda f: f.rename(columns={"yield (sem)": "yield (sme)"}),
         ["did you mean 'yield (sem)'"]),
        (lambda f: f.rename(columns={"T": "T (K)"}), ["the campaign's unit of 'T' is '°C'"]),
        (lambda f: f.assign(Yield=1), ["columns 'yield' and 'Yield' are the same"]),
        (lambda f: f.drop(columns="trial"), ["column 'trial' is missing"]),
    ],
)  # fmt: skip
def test_a_wrong_form_is_refused_by_row_and_column_and_nothing_is_recorded(
    campaign, tmp_path, edit, said
):
    path = tmp_path / "form.csv"
    path.write_text(csv_text(edit(filled(campaign))))
    before = snapshot(campaign)
    with pytest.raises(InputError) as error:
        campaign.tell_table(path)
    if "known:" in said:
        assert "must be one of" in str(error.value)
    else:
        for words in said:
            assert words in str(error.value)
    assert str(path) in str(error.value)
    assert snapshot(campaign) == before


def test_all_mistakes_are_named_at_once(campaign):
    frame = filled(campaign, **{"yield": ["a", "b", 3.0, 4.0]})
    with pytest.raises(InputError, match="2 mistakes, nothing was recorded") as error:
        campaign.tell_table(frame)
    assert "row 1, column 'yield'" in str(error.value)
    assert "row 2, column 'yield'" in str(error.value)
    assert {t.status for t in campaign.trials} == {"running"}


def test_further_columns_and_units_behind_names_are_harmless(campaign):
    frame = filled(campaign).rename(columns={"T": "T [°C]", "yield": "Yield (%)"})
    told = campaign.tell_table(frame.assign(operator="Kim", notes="fine"))
    assert told.ignored == ("operator", "notes")
    assert len(told.finished) == 4


@settings(max_examples=150,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(data=st.data())
def test_any_scribble_in_a_form_is_recorded_right_or_refused_whole(campaign, data):
    frame = filled(campaign).astype(object)
    for _ in range(data.draw(st.integers(1, 4))):
        row = data.draw(st.integers(0, 3))
        column = data.draw(st.sampled_from([str(c) for c in frame.columns]))
        frame.loc[row, column] = data.draw(
            st.none() | st.text(max_size=8) | st.floats() | st.integers() | st.booleans()
            | st.sampled_from(["0,5", "1e3", "-", "nan", "NaN", "1.000,5", "=1", "yes"])
        )  # fmt: skip
    before = snapshot(campaign)
    recorded = []
    campaign.journal.finish_trials = lambda number, trials: recorded.extend(trials)
    try:
        campaign.tell_table(frame)
    except InputError:
        assert not recorded
    for trial in recorded:
        assert (trial.status == "completed") == (set(trial.measurements) == set(SPEC.metrics))
        assert trial.parameters == before[trial.index].parameters
    del campaign.journal.finish_trials


# ---- columns -------------------------------------------------------------------------------------
def test_names_that_collide_are_told_apart_in_columns(tmp_path):
    spec = CampaignSpec(
        name="odd",
        space=Space([Float("trial", 0, 1), Float("x", 0, 1), Float("y (sem)", 0, 1)]),
        objectives=(Objective("x"), Objective("status"), Objective("y")),
    )
    columns = columns_of(spec)
    assert len(set(columns.names)) == len(columns.names)
    with Campaign.create(spec, tmp_path / "odd.db") as campaign:
        campaign.ask(2)
        frame = points_frame(spec, campaign.trials, sem=True)
        for metric in spec.metrics:
            frame[columns.metrics[metric]] = 1.5
        path = tmp_path / "odd.csv"
        write_table(frame, path)
        assert len(campaign.tell_table(path).finished) == 2
        assert campaign.trials[1].measurements["x"] == Measurement(1.5)


def test_the_data_frame_holds_every_trial_exactly(campaign):
    campaign.tell(0, {"yield": (71.5, 0.5), "impurity": 0.1 + 0.2}, seconds=1.25)
    campaign.abandon(1, "no power")
    frame = campaign.to_dataframe()
    assert list(frame["trial"]) == [0, 1, 2, 3]
    for name in SPEC.space.names:
        assert list(frame[name]) == [t.parameters[name] for t in campaign.trials]
    first = frame.iloc[0]
    assert (first["impurity"], first["yield (sem)"]) == (0.1 + 0.2, 0.5)
    assert first["seconds evaluation"] == 1.25
    assert frame.iloc[1]["reason"] == "no power"
    assert "impurity (sem)" not in frame


# ---- data ----------------------------------------------------------------------------------------
def rows(n, **changes):
    return [{**ROW, "T": 20.0 + i, **changes} for i in range(n)]


def test_data_inform_the_surrogate_and_cost_no_budget(campaign):
    added = campaign.add_data(rows(6))
    assert [t.index for t in added.trials] == list(range(4, 10))
    assert {t.origin for t in added.trials} == {"data"}
    assert campaign.spent == 4
    assert campaign.trials[4].measurements["yield"] == Measurement(71.5)
    # The design of 5 is complete with them.
    assert campaign.ask()[0].origin == "gp"
    assert campaign.spent == 5


def test_the_surrogate_is_fitted_to_data_as_to_trials_of_its_own(tmp_path):
    spec = CampaignSpec(
        name="c", space=Space([Float("x", 0, 1)]), objectives=(Objective("y"),), initial=1, budget=9
    )
    results = [(x, (x - 0.3) ** 2) for x in (0.0, 0.2, 0.5, 0.75, 1.0)]
    with Campaign.create(spec, tmp_path / "a.db") as ours:
        ours.add_data([{"x": x, "y": y} for x, y in results])
        proposed = ours.ask()[0]
    with Campaign.create(spec, tmp_path / "b.db") as theirs:
        for x, y in results:
            theirs.tell(theirs.add_trial({"x": x}).index, {"y": y})
        assert theirs.ask()[0].parameters == proposed.parameters
    assert abs(proposed.parameters["x"] - 0.3) < 0.1


def test_a_run_spends_its_whole_budget_beside_the_data(tmp_path):
    spec = CampaignSpec(
        name="c", space=Space([Float("x", 0, 1)]), objectives=(Objective("y"),), initial=2, budget=3
    )
    with Campaign.create(spec, tmp_path / "a.db") as campaign:
        campaign.add_data([{"x": 0.1 * i, "y": 1.0} for i in range(4)])
        campaign.run(lambda x: x)
        assert campaign.spent == 3
        assert len(campaign.trials) == 7


def test_data_are_read_from_frames_files_and_mappings_alike(campaign, tmp_path):
    frame = pd.DataFrame(rows(2)).astype({"equivalents": np.int32})
    frame["degassed"] = np.array([True, True])
    write_table(frame, tmp_path / "d.csv", decimal="comma")
    write_table(frame, tmp_path / "d.json")
    write_table(frame, tmp_path / "d.parquet")
    added = campaign.add_data(rows(2)).trials
    for again in (frame, tmp_path / "d.csv", str(tmp_path / "d.json"), tmp_path / "d.parquet"):
        repeated = campaign.add_data(again)
        assert (repeated.trials, repeated.known) == ((), 2)
    assert campaign.trials[4:] == [
        Trial(**{**vars(t), "created": s.created, "finished": s.finished})
        for t, s in zip(added, campaign.trials[4:], strict=True)
    ]


def test_replicates_are_kept_and_files_added_twice_are_not(campaign):
    twice = [ROW, ROW, {**ROW, "yield": 70.0}]
    assert len(campaign.add_data(twice).trials) == 3
    assert campaign.add_data(twice).known == 3
    assert len(campaign.add_data([*twice, ROW]).trials) == 1


def test_failures_are_data_and_running_rows_are_skipped(campaign):
    table = trials_frame(SPEC, campaign.trials)
    failed = {**POINT, "yield": None, "impurity": None, "failed": "burnt"}
    assert campaign.add_data(table).skipped == (1, 2, 3, 4)
    (trial,) = campaign.add_data([failed]).trials
    assert (trial.status, trial.reason) == ("abandoned", "burnt")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"T": 130}, ["row 2, column 'T'", "must be in [20.0, 120.0], got 130"]),
        ({"T": 119.0, "equivalents": 9}, ["row 2: the point violates the parameter constraint"]),
        ({"solvent": "watre"}, ["column 'solvent'", "did you mean 'water'"]),
        ({"stirring": 300}, ["column 'stirring'", "[100, 200, 400]"]),
        ({"degassed": "maybe"}, ["is yes or no, got 'maybe'"]),
        ({"equivalents": 2.5}, ["integer"]),
        ({"loading": 0.0}, ["must be in"]),
        ({"yield": None}, ["column 'yield'", "empty, but 'impurity' is given"]),
        ({"yield": None, "impurity": None}, ["row 2: no result"]),
        ({"yield": "high"}, ["expected a number"]),
        ({"T": None}, ["'T'", "missing"]),
    ],
)
def test_wrong_data_are_refused_by_row_and_nothing_is_recorded(campaign, changes, said):
    before = snapshot(campaign)
    with pytest.raises(InputError) as error:
        campaign.add_data([ROW, {**ROW, **changes}])
    for words in said:
        assert words in str(error.value)
    assert snapshot(campaign) == before


def test_a_missing_column_is_named_once(campaign):
    with pytest.raises(InputError, match="column 'T' is missing") as error:
        campaign.add_data(pd.DataFrame(rows(30)).drop(columns="T"))
    assert "row" not in str(error.value)
    with pytest.raises(InputError, match="outside must be"):
        campaign.add_data([ROW], outside="drop")


def test_prior_data_of_a_specification_begin_the_campaign(tmp_path):
    write_table(pd.DataFrame(rows(3)), tmp_path / "old.csv")
    prior = PriorData(str(tmp_path / "old.csv"))
    spec = replace(SPEC, prior_data=prior)
    assert CampaignSpec.from_dict(spec.to_dict()) == spec
    with Campaign.create(spec, tmp_path / "new.db") as campaign:
        assert [t.origin for t in campaign.trials] == ["data"] * 3
    write_table(pd.DataFrame([ROW, {**ROW, "T": 300}]), tmp_path / "old.csv")
    with pytest.raises(InputError, match=r"old.csv, row 3, column 'T'"):
        Campaign.create(spec, tmp_path / "other.db")
    assert not (tmp_path / "other.db").exists()
    with pytest.raises(InputError, match="outside must be 'refuse' or 'keep'"):
        PriorData("old.csv", outside="discard")


def test_a_table_from_standard_input_is_told(campaign, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(csv_text(filled(campaign)).encode())

    monkeypatch.setattr("sys.stdin", Stdin)
    assert len(campaign.tell_table(read_table("-", names=columns_of(SPEC).names)).finished) == 4


# ---- data outside the space ----------------------------------------------------------------------
NARROW = CampaignSpec(
    name="narrow",
    space=Space(
        [Float("x", 0, 1), Float("z", 1, 100, log=True), Int("k", 1, 5)],
        [LinearConstraint({"x": 1.0, "k": 1.0}, 5.5)],
    ),
    objectives=(Objective("y"),),
    initial=2,
    budget=9,
)
OUTSIDE = [
    {"x": -1.0, "z": 10.0, "k": 3, "y": -5.0},
    {"x": 0.5, "z": 500.0, "k": 2, "y": -4.0},
    {"x": 0.5, "z": 2.0, "k": 7, "y": -3.0},
    {"x": 0.9, "z": 2.0, "k": 5, "y": -2.0},  # against the constraint
]
INSIDE = [{"x": 0.1 + 0.2 * i, "z": 10.0, "k": i + 1, "y": 1.0 - i} for i in range(3)]


def test_points_outside_the_space_are_refused_unless_they_are_wanted(tmp_path):
    with Campaign.create(NARROW, tmp_path / "n.db") as campaign:
        with pytest.raises(InputError, match="4 mistakes, nothing was recorded"):
            campaign.add_data([*INSIDE, *OUTSIDE])
        assert campaign.trials == []
        for wrong in ({"z": 0.0}, {"k": 2.5}, {"x": "a"}):
            with pytest.raises(InputError, match="row 1"):
                campaign.add_data([{**OUTSIDE[0], **wrong}], outside="keep")
        campaign.add_data([*INSIDE, *OUTSIDE], outside="keep")
        # They are the better ones, and none is what was looked for.
        assert campaign.best().value("y") == -1.0


def test_the_surrogate_learns_from_points_outside_and_proposes_inside(tmp_path):
    proposed = []
    for data in (INSIDE, [*INSIDE, *OUTSIDE]):
        with Campaign.create(NARROW, tmp_path / f"{len(data)}.db") as campaign:
            campaign.add_data(data, outside="keep")
            trials = campaign.ask(2)
            proposed.append([t.parameters for t in trials])
            assert all(NARROW.space.contains(t.parameters) for t in trials)
            assert all(t.origin == "gp" for t in trials)
            surrogate = campaign._ax()._adapter.generator.surrogate
            assert len(surrogate.Xs[0]) == len(data)
    assert proposed[0] != proposed[1]


def test_where_all_data_lie_outside_the_best_of_them_is_to_be_beaten(tmp_path):
    """Nothing inside to improve on: the points outside are the baseline, and the ask is inside."""
    with Campaign.create(NARROW, tmp_path / "n.db") as campaign:
        outside = [{**row, "x": row["x"] + 3.5} for row in (*OUTSIDE, *INSIDE)]
        campaign.add_data(outside, outside="keep")
        (trial,) = campaign.ask()
        assert trial.origin == "gp"
        assert NARROW.space.contains(trial.parameters)
        assert campaign.best() is None
        search = campaign._ax()._adapter.generator.asked.search
        assert torch.equal(search.X_baseline, search.X_observed)
        # One measurement inside, and it alone is what is to be improved on.
        campaign.tell(trial.index, {"y": 5.0})
        campaign.ask()
        assert campaign.best().index == trial.index
        search = campaign._ax()._adapter.generator.asked.search
        assert len(search.X_observed) == len(outside) + 1
        assert torch.equal(search.X_baseline, search.X_observed[-1:])
