"""`bo-surrogates report`: from the folder of a run to its page."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from bo_surrogates.cli import app
from reports.study import report


def cli(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(autouse=True)
def few_figures(monkeypatch):
    """The figures have tests of their own."""
    monkeypatch.setattr(report, "FIGURES", {"coverage": report.draw_coverage})


def test_a_finished_run_is_reported(finished, tmp_path):
    result = cli("report", finished, "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "the best average rank over 2 problems" in " ".join(result.stdout.split())
    assert result.stdout.strip().endswith("index.html")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "unfinished" not in page
    assert json.loads((finished / "environment.json").read_text())["platform"] in page
    assert (tmp_path / "out" / "figures" / "coverage.svg").exists()


def test_a_run_that_lacks_a_cell_is_reported_as_unfinished(copied):
    next((copied / "cells").glob("branin--gp--0.jsonl")).unlink()
    result = cli("report", copied)
    assert result.exit_code == 0, result.output
    assert "unfinished: 1 of 8 runs have not ended" in result.stderr
    page = (copied / "report" / "index.html").read_text(encoding="utf-8")
    assert "This run is unfinished:</strong> 7 of 8 runs have ended" in page


def test_what_is_no_run_or_has_no_results_is_said(copied, tmp_path):
    result = cli("report", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "holds no run of a study" in result.stderr
    shutil.rmtree(copied / "cells")
    (copied / "cells").mkdir()
    result = cli("report", copied)
    assert result.exit_code == 2
    assert "nothing was evaluated yet" in result.stderr
    assert not (copied / "report").exists()


def test_an_output_that_is_something_else_is_left_alone(finished, tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    result = cli("report", finished, "-o", tmp_path)
    assert result.exit_code == 2
    assert "holds other things (thesis.tex) and no report" in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
