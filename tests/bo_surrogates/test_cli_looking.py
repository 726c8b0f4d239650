"""Commands that look at a campaign: what they say, and that they change nothing."""

import json
import re

import pandas as pd
import pytest
from scipy.stats import binom
from typer.testing import CliRunner

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Trial
from bo_surrogates.cli import app
from bo_surrogates.cli.status import at_most
from bo_surrogates.design import sobol_design
from bo_surrogates.objective import Objective
from bo_surrogates.space import Choice, Float, Space

SPACE = Space([Float("heat", 20.0, 80.0, unit="°C"), Choice("solvent", ("water", "dmso", "none"))])
BUMP = {"water": 0.0, "dmso": 2.0, "none": 0.5}


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """A campaign of ten trials, one failed and one running."""
    path = tmp_path_factory.mktemp("looking") / "lab.db"
    spec = CampaignSpec("lab", SPACE, (Objective("yield", "maximize", unit="%"),), budget=20)
    with Campaign.create(spec, path) as campaign:
        for x in sobol_design(SPACE, 12, seed=0):
            trial = campaign.add_trial(SPACE.decode(x))
            if trial.index == 10:
                campaign.abandon(trial.index, "no [power]")
            elif trial.index < 10:
                heat, solvent = trial.parameters.values()
                campaign.tell(
                    trial.index,
                    {"yield": 50 - ((heat - 50) / 10) ** 2 + BUMP[solvent]},
                    seconds=2.0,
                )
    return path


# ---- predict -------------------------------------------------------------------------------------
def test_predict_says_mean_and_interval_at_a_point(database):
    arguments = ("predict", database, "--at", "heat=50", "--at", "solvent=dmso")
    result = cli(*arguments, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["surrogate"], told["trials"], told["level"], told["noise"]) == (
        "gp",
        10,
        0.9,
        False,
    )
    (prediction,) = told["predictions"]
    assert prediction["parameters"] == {"heat": 50.0, "solvent": "dmso"}
    yield_ = prediction["metrics"]["yield"]
    low, high = yield_["interval"]
    assert low < yield_["mean"] < high
    assert abs(yield_["mean"] - 52) < 3
    text = cli(*arguments, "--noise", "--level", 0.5).stdout
    assert "a measurement, mean and 50 % interval" in " ".join(text.split())
    assert "yield [%]" in text


def test_predict_takes_a_trial_changed_in_places_and_tables(database, tmp_path):
    same = json.loads(cli("predict", database, "--trial", 3, "--json").stdout)
    with Campaign.open(database, read_only=True) as campaign:
        trials = campaign.trials
        expected = campaign.predict([t.parameters for t in trials])
    assert same["predictions"][0]["parameters"] == trials[3].parameters
    changed = json.loads(cli("predict", database, "--trial", 3, "--at", "heat=21", "--json").stdout)
    point = changed["predictions"][0]["parameters"]
    assert point == {**trials[3].parameters, "heat": 21.0}
    table, out = tmp_path / "points.csv", tmp_path / "out.csv"
    pd.DataFrame([{**t.parameters, "remark": "x"} for t in trials]).to_csv(table, index=False)
    result = cli("predict", database, "--csv", table, "--output", out)
    assert result.exit_code == 0, result.output
    pd.testing.assert_frame_equal(pd.read_csv(out), expected, check_exact=False)
    shown = cli("predict", database, "--csv", table).stdout
    assert all(f"solvent={t.parameters['solvent']}" in shown for t in trials)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "predict takes a point"),
        ("--trial 3 --csv x.csv", "not both"),
        ("--at heat", "write NAME=VALUE"),
        ("--at heta=3", "did you mean 'heat'"),
        ("--at heat=hot --at solvent=dmso", "must be a number"),
        ("--at heat=81 --at solvent=dmso", "must be in [20.0, 80.0]"),
        ("--at heat=50 --at solvent=dsmo", "did you mean 'dmso'"),
        ("--at heat=50", "'solvent' is missing"),
        ("--at heat=50 --at heat=51", "given twice"),
        ("--trial 99", "there is no trial 99; the campaign has 12"),
        ("--trial 3 --level 90", "level must be"),
        ("--csv missing.csv", "there is no file 'missing.csv'"),
        ("--trial 3 --output a.xlsx", "written as .csv"),
    ],
)
def test_mistakes_are_one_message(database, arguments, said):
    result = cli("predict", database, *arguments.split())
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


# ---- explain -------------------------------------------------------------------------------------
def test_explain_ranks_parameters_and_says_how_far_to_trust_that(database, tmp_path):
    result = cli("explain", database, "--json", "--output", tmp_path / "why.png")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)["metrics"]["yield"]
    heat, solvent = told["parameters"]["heat"], told["parameters"]["solvent"]
    assert heat["total"] > 0.7 > 0.3 > solvent["total"]
    assert heat["total_interval"][0] <= heat["total_interval"][1]
    assert heat["lengthscale"] < 1
    assert told["cross_validation"]["folds"] == 5
    assert told["converged"] is True
    assert (tmp_path / "why.png").stat().st_size > 5_000
    text = " ".join(cli("explain", database).stdout.split())
    assert text.index("heat") < text.index("solvent")
    assert "trials that it has not seen: R2 =" in text
    assert "R2" not in cli("explain", database, "--quick").stdout


def test_explain_names_unknown_metrics_and_constant_outcomes(database, tmp_path):
    result = cli("explain", database, "--metric", "yeild")
    assert (result.exit_code, "did you mean 'yield'" in result.stderr) == (2, True)
    spec = CampaignSpec("flat", SPACE, (Objective("loss"),), budget=5)
    with Campaign.create(spec, tmp_path / "flat.db") as campaign:
        for x in sobol_design(SPACE, 3, seed=0):
            campaign.tell(campaign.add_trial(SPACE.decode(x)).index, {"loss": 7.0})
    told = json.loads(cli("explain", tmp_path / "flat.db", "--json").stdout)["metrics"]["loss"]
    assert told["stdv"] == 0
    assert told["cross_validation"]["r2"] is None
    text = cli("explain", tmp_path / "flat.db", "-o", tmp_path / "flat.png").stdout
    assert "no effect of any parameter" in text
    assert "there is nothing to explain" in text


@pytest.mark.parametrize("command", ["predict --trial 0", "explain"])
def test_before_two_results_there_is_no_model(tmp_path, command):
    spec = CampaignSpec("new", SPACE, (Objective("loss"),), budget=5)
    with Campaign.create(spec, tmp_path / "new.db") as campaign:
        campaign.add_trial({"heat": 30.0, "solvent": "dmso"})
    first, *rest = command.split()
    result = cli(first, tmp_path / "new.db", *rest)
    assert result.exit_code == 2
    assert "no completed trials; a surrogate needs at least 2" in " ".join(result.stderr.split())


# ---- status --------------------------------------------------------------------------------------
def test_status_tells_what_runs_what_failed_the_best_and_the_time_left(database):
    text = " ".join(cli("status", database).stdout.split())
    assert "11 of 20 trials done, 1 of them without a result" in text
    assert re.search(r"trial 11 has been running for [\d.]+ (s|min): heat=", text)
    assert "trial 10 gave no result: no [power]" in text
    assert "about 18 s of running left" in text  # nine evaluations of 2 s
    told = json.loads(cli("status", database, "--json").stdout)
    with Campaign.open(database, read_only=True) as campaign:
        best = campaign.best().index
    assert told["best_trial"] == best
    assert told["seconds_left"] == pytest.approx(18.0)
    assert told["unconverged_fits"] == []
    assert told["calibration"] == {"yield": {"level": 0.9, "inside": 0, "of": 0}}
    assert f"{9 - best} trials since" in text or "the latest trial" in text


def test_status_warns_of_a_surrogate_that_is_too_sure_or_did_not_converge(tmp_path):
    spec = CampaignSpec("sure", SPACE, (Objective("yield"),), budget=20)
    with Campaign.create(spec, tmp_path / "sure.db") as campaign:
        for i in range(8):
            figures = {"predicted:yield": 0.0, "predicted_sd:yield": 1.0, "converged": float(i < 6)}
            trial = Trial(
                i, {"heat": 20.0 + i, "solvent": "dmso"}, "running", "gp", diagnostics=figures
            )
            campaign.journal.add_trials(campaign._id, [trial])
            campaign.tell(i, {"yield": 0.5 if i < 4 else 50.0})
    text = " ".join(cli("status", tmp_path / "sure.db").stdout.split())
    assert "4 of 8 measured values of yield lay inside the 90 % intervals" in text
    assert "too sure of itself" in text
    assert "2 of the last 8 fits of the surrogate did not converge (trial 6, 7)" in text
    told = json.loads(cli("status", tmp_path / "sure.db", "--json").stdout)
    assert told["unconverged_fits"] == [6, 7]
    assert told["calibration"]["yield"] == {"level": 0.9, "inside": 4, "of": 8}


def test_failures_for_the_same_reason_are_told_together(tmp_path):
    spec = CampaignSpec("bad", SPACE, (Objective("yield"),), budget=40)
    with Campaign.create(spec, tmp_path / "bad.db") as campaign:
        for i in range(20):
            campaign.add_trial({"heat": 20.0 + i, "solvent": "dmso"})
            campaign.abandon(i, "no power" if i < 15 else f"reason {i}")
    text = " ".join(cli("status", tmp_path / "bad.db").stdout.split())
    assert "trials 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 3 more gave no result: no power" in text
    assert "trial 19 gave no result: reason 19" in text


def test_a_share_of_at_most_k_is_the_binomial():
    for k, n, p in ((0, 5, 0.9), (9, 13, 0.9), (13, 13, 0.9)):
        assert at_most(k, n, p) == pytest.approx(binom.cdf(k, n, p))


# ---- best ----------------------------------------------------------------------------------------
def test_best_predicted_adds_the_best_by_the_mean(database):
    told = json.loads(cli("best", database, "--predicted", "--json").stdout)
    tried, space = told["predicted_best_tried"], told["predicted_best_space"]
    assert told["best"]["parameters"].keys() == space["parameters"].keys()
    assert tried["trial"] is not None
    assert space["metrics"]["yield"]["mean"] >= tried["metrics"]["yield"]["mean"]
    assert abs(space["parameters"]["heat"] - 50) < 3
    text = " ".join(cli("best", database, "--predicted").stdout.split())
    assert "best of the trials by the surrogate's mean: trial" in text
    assert "best of the whole space by the surrogate's mean" in text
