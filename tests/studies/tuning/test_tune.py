"""Tuning campaigns from name to saved network; the networks are trained in a blink."""

import json
import math
import shutil

import pandas as pd
import pytest
import torch

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.errors import InputError
from problems.documented.trained_model import load_model, read_description, tuning_problem
from reports.tuning_figure import draw_comparison, draw_tuning
from reports.tuning_report import write_tuning_report
from studies.tuning import (
    TuneSettings,
    against_default,
    compare_tuning,
    markdown,
    progress,
    read_configuration,
    read_trials,
    retrain,
    summarize_tuning,
    tune,
)
from studies.tuning.tune import TUNED, _rows

OPTIONS = {"epochs": 1, "limit": 64, "batch_size": 32, "squeeze_excite": False}
SETTINGS = {"options": OPTIONS, "budget": 4, "workers": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tuned")


@pytest.fixture(scope="module")
def tuned(folder):
    return tune("pokebnn", folder, random=True, **SETTINGS)


@pytest.fixture(scope="module")
def trained(tuned, folder):
    return retrain(folder / "best.toml", folder)


def test_the_first_trial_is_the_published_default_and_both_arms_spend_the_budget(tuned):
    counts = tuned.trials.groupby("arm").size()
    assert counts.to_dict() == {"tuned": 4, "random": 4}
    (published,) = tuned.trials[tuned.trials["published"]].to_dict("records")
    assert (published["arm"], published["trial"], published["width"]) == ("tuned", 0, 12)


def test_random_searchs_own_trial_of_the_default_is_not_the_published_one(tuned, folder):
    problem = tuning_problem("pokebnn", OPTIONS)
    with Campaign.open(folder / "campaigns.db", TUNED, read_only=True) as campaign:
        for arm, count in (("tuned", 1), ("random", 0)):
            assert sum(row["published"] for row in _rows(campaign, arm, problem)) == count


@pytest.mark.parametrize(("budget", "initial"), [(4, 2), (20, 5), (1000, 14)])
def test_most_of_a_small_budget_is_left_to_the_surrogate(budget, initial):
    spec = TuneSettings("pokebnn", budget=budget).spec()
    assert spec.space.dim == 6
    assert spec.initial == initial
    assert TuneSettings("pokebnn", budget=budget).spec(random=True).initial == budget


def test_the_front_is_what_no_other_trial_of_its_arm_dominates(tuned):
    for _, its in tuned.trials.groupby("arm"):
        for _, row in its.iterrows():
            dominated = (
                (its["error"] <= row["error"])
                & (its["log_ace"] <= row["log_ace"])
                & ((its["error"] < row["error"]) | (its["log_ace"] < row["log_ace"]))
            ).any()
            assert row["front"] == (not dominated)


def test_tables_and_configurations_are_written(tuned, folder):
    table = pd.read_csv(folder / "trials.csv")
    assert len(table) == 8
    assert len(pd.read_csv(folder / "front.csv")) == table["front"].sum()
    files = sorted(p.name for p in (folder / "front").iterdir())
    assert files == [f"{i + 1}.toml" for i in range(len(tuned.front))]
    assert read_configuration(folder / "best.toml") == tuned.front[0]
    errors = [c.measured["error"] for c in tuned.front]
    assert errors == sorted(errors)


def test_a_configuration_trains_the_very_network_that_was_measured(tuned, trained):
    network, description = trained
    assert description.scores["validation"]["error"] == tuned.front[0].measured["error"]
    problem = tuning_problem("pokebnn", OPTIONS)
    cost = problem.network_cost(network, tuned.front[0].parameters)
    assert math.log10(cost.ace) == tuned.front[0].measured["log_ace"]


def test_a_saved_network_is_loaded_without_a_pickle(trained, folder):
    network, description = trained
    loaded = load_model(folder)
    x = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))
    assert not loaded.training
    assert read_description(folder).scores == description.scores
    assert {p.suffix for p in folder.glob("model.*")} == {".safetensors", ".json"}


def test_a_model_that_cannot_be_read_is_refused_by_name(trained, folder, tmp_path):
    with pytest.raises(InputError, match=r"no model in .*: there is no model\.json"):
        load_model(tmp_path)
    facts = json.loads((folder / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(InputError, match="format 99, expected 1"):
        load_model(tmp_path)
    (tmp_path / "model.json").write_text("{")
    with pytest.raises(InputError, match="not the description of a model"):
        load_model(tmp_path)


def test_the_same_call_runs_nothing_again_and_a_larger_budget_goes_on(tuned, folder):
    asked = []

    def watch(campaign):
        from contextlib import nullcontext

        return nullcontext(lambda event: asked.append(event.kind))

    again = tune("pokebnn", folder, random=True, watch=watch, **SETTINGS)
    pd.testing.assert_frame_equal(again.trials, tuned.trials)
    assert "asked" not in asked
    more = tune("pokebnn", folder, watch=watch, **{**SETTINGS, "budget": 5})
    assert asked.count("asked") == 1
    kept = more.trials[more.trials["trial"] < 4]
    assert kept["error"].tolist() == tuned.trials["error"].tolist()


def test_a_folder_of_another_campaign_is_refused(tuned, folder):
    with pytest.raises(InputError, match=r"other settings \(seed\)"):
        tune("pokebnn", folder, seed=1, **SETTINGS)
    with pytest.raises(InputError, match="black_box"):
        tune("pokebnn", folder, **{**SETTINGS, "options": {**OPTIONS, "epochs": 3}})


def test_the_figure_shows_both_arms_and_the_default(tuned):
    (axes,) = draw_tuning(tuned).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["tuned: front", "random: front", "published default"]
    assert axes.get_ylabel() == "error (minimize)"


def test_what_trains_no_network_cannot_be_tuned(tmp_path):
    with pytest.raises(InputError, match="'branin' trains no network; .*pokebnn"):
        tune("branin", tmp_path, budget=2)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("problem = 'pokebnn'", "'parameters' is missing"),
        ("problem = 'pokebn'\n[parameters]\nwidth = 4", "did you mean 'pokebnn'"),
        ("problem = 3\n[parameters]\nwidth = 4", "'problem' must be a registered name"),
        ("problem = 'pokebnn'\n[parameters]\nwidth = 4", "'activation_bound' is missing"),
        ("problem = 'pokebnn'\nsed = 1\n[parameters]\nwidth = 4", "unknown key 'sed'"),
        ("problem = 'pokebnn'\n[options]\nbits = 9\n[parameters]\nwidth = 4", "bits must be in"),
    ],
)
def test_a_configuration_with_a_mistake_is_refused_with_its_place(tmp_path, text, complaint):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"c\.toml: .*{complaint}"):
        read_configuration(path)


# ---- comparison ----------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    return folder, compare_tuning("pokebnn", folder, seeds=[0, 1], **{**SETTINGS, "budget": 2})


def test_each_arm_is_there_with_every_seed_and_scored_on_the_test_part(compared):
    _, table = compared
    assert set(zip(table["arm"], table["seed"], strict=True)) == {
        (arm, seed) for arm in ("tuned", "random", "published default") for seed in (0, 1)
    }
    assert table["test_error"].between(0, 1).all()
    assert (table["test_error"] != table["error"]).any()


def test_a_comparison_is_not_run_twice(compared, monkeypatch):
    folder, table = compared
    monkeypatch.setattr("studies.tuning.comparison.retrain", None)
    again = compare_tuning("pokebnn", folder, seeds=[0, 1], **{**SETTINGS, "budget": 2})
    pd.testing.assert_frame_equal(again[table.columns], table, check_dtype=False)


def test_a_summary_is_the_mean_over_seeds_of_what_each_arm_chose():
    problem = tuning_problem("pokebnn", OPTIONS)  # reference: error 0.5
    reference = problem.objectives[1].reference
    rows = [
        ("tuned", 0, 0.9, 0.1, reference - 2),
        ("tuned", 0, 0.0, 0.3, reference - 3),
        ("tuned", 1, 0.0, 0.2, reference - 2),
        ("random", 0, 0.0, 0.4, reference - 1),
        ("random", 1, 0.0, 0.4, reference - 1),
    ]
    table = pd.DataFrame(rows, columns=["arm", "seed", "error", "test_error", "log_ace"])
    summary = summarize_tuning(problem, table).set_index("arm")
    assert list(summary.index) == ["tuned", "random"]
    # Of the first seed 0.3, because it was measured as the better one.
    assert summary.loc["tuned", "test_error mean"] == pytest.approx(0.25)
    assert summary.loc["tuned", "test_error sem"] == pytest.approx(0.05)
    volumes = [0.4 * 2 + 0.2 * 1, 0.3 * 2]
    assert summary.loc["tuned", "hypervolume mean"] == pytest.approx(sum(volumes) / 2)
    assert summary.loc["random", "hypervolume mean"] == pytest.approx(0.1)


def test_costs_and_errors_are_set_against_the_published_default():
    problem = tuning_problem("pokebnn", OPTIONS)
    rows = [
        ("tuned", 0, 0.20, 0.22, 5.0),
        ("tuned", 0, 0.10, 0.13, 5.4),
        ("tuned", 0, 0.05, 0.06, 6.0),  # dearer than the default
        ("published default", 0, 0.15, 0.16, 5.5),
        ("tuned", 1, 0.30, 0.28, 5.0),  # worse than the default
        ("published default", 1, 0.20, 0.25, 5.5),
    ]
    table = pd.DataFrame(rows, columns=["arm", "seed", "error", "test_error", "log_ace"])
    found = against_default(problem, table).set_index("arm")
    assert found.loc["tuned", "test_error at the default's log_ace mean"] == pytest.approx(
        (0.13 + 0.28) / 2
    )
    assert found.loc["tuned", "log_ace at the default's error mean"] == pytest.approx(5.4)
    default = found.loc["published default"]
    assert default["test_error at the default's log_ace mean"] == pytest.approx(0.205)
    assert default["log_ace at the default's error mean"] == pytest.approx(5.5)
    assert "| tuned | 2 | " in markdown(found.reset_index())


def test_progress_is_what_the_feasible_trials_so_far_have_reached():
    problem = tuning_problem("pokebnn", {**OPTIONS, "objectives": ["error"]})
    trials = pd.DataFrame(
        [(0, 0.4, False), (1, 0.3, True), (2, 0.1, False), (3, 0.35, True), (4, 0.2, True)],
        columns=["trial", "error", "feasible"],
    ).assign(arm="tuned", seed=0)
    values = progress(problem, trials)["value"].tolist()
    assert values == pytest.approx([float("nan"), 0.3, 0.3, 0.3, 0.2], nan_ok=True)


def test_the_page_of_a_comparison_holds_its_tables_and_says_what_was_run(compared, tmp_path):
    folder, table = compared
    copy = shutil.copytree(folder, tmp_path / "copy")
    settings = TuneSettings(**{**SETTINGS, "budget": 2}, problem="pokebnn")
    path = write_tuning_report(copy, settings, table, command="bo-surrogates tune pokebnn")
    text = path.read_text()
    assert markdown(summarize_tuning(tuning_problem("pokebnn", OPTIONS), table)).strip() in text
    assert "in 0 of 2 seeds" in text or "in 1 of 2 seeds" in text or "in 2 of 2 seeds" in text
    assert "cannot give less than 0.5" in text
    assert "- `bo-surrogates tune pokebnn`" in text
    assert {p.name for p in copy.iterdir()} >= {"comparison.png", "summary.csv", "default.csv"}


def test_the_figure_of_a_comparison_shows_all_arms(compared):
    folder, table = compared
    problem = tuning_problem("pokebnn", OPTIONS)
    course = progress(problem, read_trials(folder))
    left, right = draw_comparison(problem, table, course).axes
    labels = [text.get_text() for text in right.get_legend().get_texts()]
    assert sorted(labels) == ["published default", "random", "tuned"]
    assert (left.get_ylabel(), right.get_ylabel()) == ("hypervolume", "test_error")
    one = tuning_problem("pokebnn", {**OPTIONS, "objectives": ["error"]})
    left, right = draw_comparison(one, table, progress(one, read_trials(folder))).axes
    assert (left.get_ylabel(), right.get_ylabel()) == ("best error", "test_error")
