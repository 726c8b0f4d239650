"""Campaigns that are killed with kill -9: a few random moments, and what the harness would find."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import crashes

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "options",
    [("--kills", "1", "--modes", "processes"),
     ("--kills", "1", "--modes", "in-process", "--database", "postgresql")],
    ids=["sqlite", "postgresql"],
)  # fmt: skip
def test_campaigns_survive_kills_at_random_moments(options, request):
    if "postgresql" in options:
        request.getfixturevalue("postgresql_server")  # or skip, with the reason
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.crashes", *options],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "none lost, none twice, all campaigns ended as the uninterrupted one" in done.stdout


def trial(index, value):
    return json.loads(json.dumps([index, {"x": 0.5}, "completed", {"y": value}, ""]))


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ([trial(0, 1.0)], "was acknowledged; found None"),
        ([trial(0, 1.0), trial(1, 9.0)], "was acknowledged; found"),
    ],
)
def test_a_lost_or_changed_result_is_found(monkeypatch, stored, message):
    whole = [trial(i, float(i)) for i in range(crashes.BUDGET)]
    answers = iter([whole, stored])
    runs = iter([(0, []), (-signal.SIGKILL, [trial(1, 1.0)])])
    monkeypatch.setattr(crashes, "_stored", lambda database: next(answers))
    monkeypatch.setattr(crashes, "_run", lambda *args: next(runs))
    with pytest.raises(crashes.LostResultError, match=message):
        crashes.crash("in-process", 3, 0, lambda: "c.db", None)


def test_a_campaign_that_ends_otherwise_is_found(monkeypatch):
    whole = [trial(i, float(i)) for i in range(crashes.BUDGET)]
    other = [*whole[:-1], trial(crashes.BUDGET - 1, 99.0)]
    answers = iter([whole, other])
    monkeypatch.setattr(crashes, "_stored", lambda database: next(answers))
    monkeypatch.setattr(crashes, "_run", lambda *args: (0, []))
    with pytest.raises(crashes.LostResultError, match="ended with"):
        crashes.crash("in-process", 3, 0, lambda: "c.db", None)
