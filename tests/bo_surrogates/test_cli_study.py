"""`study`: what it prints, its exit codes, and how one goes on after an interruption."""

import json
import re

import pytest
from typer.testing import CliRunner

import studies.cell
from bo_surrogates.cli import app
from problems.synthetic.branin import Branin

STUDY = """
seeds = 2
initial = 3
iterations = 1
problems = ["branin"]

[acquisition]
mc_samples = 8
num_restarts = 1
raw_samples = 8
maxiter = 2

[[surrogates]]
name = "gp"

[[surrogates]]
name = "rff"
label = "few, far"
features = 32
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(STUDY)
    return tmp_path


def bo(*arguments):
    result = CliRunner().invoke(app, ["study", *arguments])
    return result, re.sub(r"\s+", " ", result.output)


def start(*arguments):
    return bo("run", "mine.toml", "--executor", "in-process", *arguments)


def test_a_run_its_status_and_more_seeds(here):
    result, text = start()
    assert result.exit_code == 0
    assert "4/4 branin / few, far / seed 1: done" in text
    assert "mine: 4 of 4 cells done" in text
    assert "stored in runs/mine" in text
    result, text = bo("status", "runs/mine")
    assert "mine: of 4 cells 4 done" in text
    assert text.count("2/2") == 2
    result, text = start()
    assert result.exit_code == 2
    assert "holds a run already; go on with it by --resume" in text
    result, text = start("--resume", "--seeds", "3", "--surrogate", "few, far")
    assert result.exit_code == 0
    assert "3 of 3 cells done" in text
    result, text = bo("status", "runs/mine", "--json")
    found = json.loads(result.stdout)
    assert found["cells"] == {"done": 5, "partial": 0, "missing": 1, "failed": 0}
    assert not found["running"]
    assert {row["surrogate"]: row["seeds"] for row in found["arms"]} == {"gp": 2, "few, far": 3}
    result, text = start("--resume", "--seeds", "1")  # a part, although more was run
    assert result.exit_code == 0
    (here / "mine.toml").write_text(STUDY.replace("initial = 3", "initial = 4"))
    result, text = start("--resume")
    assert result.exit_code == 2
    assert "problem 'branin': initial 3 -> 4" in text


def test_a_dry_run_checks_everything_and_runs_nothing(here):
    result, text = bo("run", "mine.toml", "--dry-run", "--seeds", "3", "--surrogate", "gp")
    assert result.exit_code == 0
    assert "branin gp 0, 1, 2 3 1 1" in text
    assert "maxiter=2" in text
    assert "3 of the study's 6 cells, 3 iterations" in text
    assert not (here / "runs").exists()
    (here / "mine.toml").write_text(STUDY.replace('"branin"', '"bramin"'))
    result, text = bo("run", "mine.toml", "--dry-run")
    assert result.exit_code == 2
    assert "unknown problem 'bramin'; did you mean 'branin'?" in text


def test_what_is_misspelt_is_refused(here):
    for arguments, message in (
        (("run", "qick"), "no shipped study of that name; did you mean 'quick'"),
        (("run", "mine.toml", "--problem", "brannin"), "did you mean 'branin'"),
        (("run", "mine.toml", "--executor", "proceses"), "did you mean 'processes'"),
        (("run", "other.toml"), "no study file 'other.toml'"),
        (("status", "runs/none"), "holds no run of a study"),
    ):
        result, text = bo(*arguments)
        assert result.exit_code == 2, arguments
        assert message in text


def test_an_interruption_says_how_to_go_on_and_so_it_does(here, monkeypatch):
    real = studies.cell.run
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(studies.cell, "run", interrupted)
    result, text = start()
    assert result.exit_code == 130
    again = "bo-surrogates study run mine.toml --output runs/mine --resume"
    assert f"Continue with: {again}" in text
    result, text = bo(*again.split()[2:], "--executor", "in-process")
    assert result.exit_code == 0
    assert len(calls) == 3 + 2
    assert "4 of 4 cells done" in text


def test_failed_cells_are_told_with_their_reason_and_the_exit_code(here, monkeypatch):
    def breaks(self, X):
        raise ZeroDivisionError("the pump is blocked")

    monkeypatch.setattr(Branin, "_true_metrics", breaks)
    result, text = start("--seeds", "1")
    assert result.exit_code == 1
    assert "branin / gp / seed 0 failed: ZeroDivisionError: the pump is blocked" in text
    assert "2 cell(s) failed" in text
    result, text = bo("status", "runs/mine")
    assert "2 failed" in text
    assert "the pump is blocked" in text


def test_shipped_studies_are_listed():
    rows = {row["name"]: row for row in json.loads(bo("list", "--json")[0].stdout)}
    assert rows["quick"]["problems"] == 3
    assert rows["li2024"]["problems"] == 15
    assert rows["li2024_synthetic"]["problems"] == 7
