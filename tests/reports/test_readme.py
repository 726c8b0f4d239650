"""The README tells the truth: its table is the registry's, its example runs."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.calibration import README as CALIBRATION
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.cli import app
from bo_surrogates.errors import InputError
from bo_surrogates.surrogates import SURROGATES
from problems import PROBLEMS
from reports.readme import (
    PROBLEMS_README,
    README,
    with_problems,
    with_table,
)


def test_the_table_of_surrogates_is_the_registrys():
    text = README.read_text()
    assert with_table(text) == text, "run: python -m reports.readme"
    assert [name for name in SURROGATES if f"| `{name}` |" not in text] == []


def test_the_table_of_problems_is_the_registrys():
    pytest.importorskip("ioh")
    pytest.importorskip("mujoco")
    text = PROBLEMS_README.read_text()
    assert with_problems(text) == text, "run: python -m reports.readme"
    assert [name for name in PROBLEMS if f"| `{name}` |" not in text] == []


def test_the_problem_that_the_readme_writes_is_one():
    (example,) = [
        b
        for b in re.findall(r"```python\n(.*?)```", PROBLEMS_README.read_text(), re.DOTALL)
        if "class Bowl" in b
    ]
    names = {}
    exec(compile(example, "README", "exec"), names)
    problem = names["Bowl"](noise_std=0.1)
    assert problem(problem.optimizers, noise=False).tolist() == [0.0]
    assert problem.evaluate({"x": 1.0, "y": 1.0}, seed=0) != {"f": 3.0}


def test_a_readme_without_markers_is_refused():
    with pytest.raises(InputError, match="lacks the markers"):
        with_table("# no markers")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def test_the_command_line_example_runs_as_printed(tmp_path, monkeypatch):
    (campaign,) = blocks("toml")
    (experiment,) = [b for b in blocks("python") if b.startswith("# experiment.py")]
    monkeypatch.chdir(tmp_path)
    Path("reaction.toml").write_text(campaign)
    Path("experiment.py").write_text(experiment)
    commands = [line[2:].split("#")[0] for line in blocks("console")[1].splitlines()]
    assert [c.split()[1] for c in commands[:5]] == ["run", "resume", "status", "best", "plot"]
    runner = CliRunner()
    for command in commands:
        if command.split()[1] == "tell":
            # The README tells the first of the trials that were asked for by hand.
            assert shlex.split(command)[3] == "20"
        result = runner.invoke(app, shlex.split(command)[1:])
        assert result.exit_code == 0, (command, result.output)
    with Campaign.open("reaction.db", read_only=True) as done:
        assert done.best().parameters["temperature"] == pytest.approx(70, abs=5)
        assert len(done.trials) == 24
    assert Path("reaction.png").exists()


def test_the_example_runs_and_finds_the_optimum(tmp_path, monkeypatch, capsys):
    """As printed, with fewer trials and a cheaper surrogate: it is the code that is on trial."""
    example = blocks("python")[0]
    example = example.replace("budget=25", "budget=14").replace('"nngp"', '"gp"')
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "README", "exec"), {})
    # The optimum is 0.9, in ethanol.
    assert "'solvent': 'ethanol'" in capsys.readouterr().out
    assert (tmp_path / "reaction.db").exists()


def test_every_surrogate_has_a_row_in_the_table_of_calibration():
    text = CALIBRATION.read_text()
    missing = [name for name in SURROGATES if f"| `{name}` |" not in text]
    assert not missing, "run: python -m benchmarks.calibration --readme"
