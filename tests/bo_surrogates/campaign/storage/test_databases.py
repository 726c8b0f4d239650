"""Several databases and campaigns at a time: in one process, and in several."""

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from typer.testing import CliRunner

from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.cli import app

WRITER = """
import sys
from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.trial import Measurement, Trial
journal = Journal(sys.argv[1], create=True)
name = sys.argv[2]
c = journal.create_campaign(name, {})
lock = journal.lock(c, name)
for i in range(12):
    journal.add_trials(c, [Trial(i, {"by": name}, "running", "sobol")])
    journal.finish_trial(c, i, measurements={"y": Measurement(i)})
"""


def trial(index, **parameters):
    return Trial(index, parameters, "running", "sobol")


def test_databases_in_one_process_are_apart(tmp_path, request):
    """Ax's store has one database a process: a second one is silently written to the first."""
    places = [tmp_path / "one.db", f"sqlite:///{tmp_path / 'two.db'}"]
    with suppress(pytest.skip.Exception):  # without a server, files will do
        places.append(request.getfixturevalue("postgresql"))
    journals = [Journal(place, create=True) for place in places]
    ids = [j.create_campaign("same", {}) for j in journals]
    locks = [j.lock(c, "same") for j, c in zip(journals, ids, strict=True)]
    for i in range(3):  # by turns
        for k, (j, c) in enumerate(zip(journals, ids, strict=True)):
            j.add_trials(c, [trial(i, k=k)])
            j.finish_trial(c, i, measurements={"y": Measurement(k)})
    for k, place in enumerate(places):
        found = Journal(place).trials(ids[k])
        assert [(t.parameters["k"], t.value("y")) for t in found] == [(k, k)] * 3
    for lock in locks:
        lock.release()


def test_campaigns_of_one_database_are_written_by_processes_at_a_time(database):
    """The tables are made by whoever comes first; nothing is lost, nothing mixed up."""
    names = ["a", "b", "c"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, database, name], stderr=subprocess.PIPE, text=True
        )
        for name in names
    ]
    errors = [process.communicate()[1] for process in processes]
    assert [p.returncode for p in processes] == [0, 0, 0], errors
    journal = Journal(database)
    assert sorted(journal.campaigns()) == names
    for name in names:
        found = journal.trials(journal.find_campaign(name)[0])
        assert [t.value("y") for t in found] == list(range(12))
        assert {t.parameters["by"] for t in found} == {name}


CAMPAIGN = """
name = "by hand"
[[parameters]]
name = "x"
type = "float"
low = 0.0
high = 1.0
[[objectives]]
name = "y"
direction = "minimize"
"""


def test_the_command_line_asks_and_tells_in_either_kind_of_database(database, tmp_path):
    file = tmp_path / "hand.toml"
    file.write_text(CAMPAIGN)
    runner = CliRunner()

    def bo(*arguments):
        result = runner.invoke(app, [*arguments])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    (trial,) = bo("ask", str(file), "--database", database, "--json")  # starts the campaign
    told = bo("tell", str(file), "0", "y=1.5", "--database", database, "--json")
    assert told["parameters"] == trial["parameters"]
    (second,) = bo("ask", str(file), "--database", database, "--steal", "--json")
    assert second["trial"] == 1
    assert [t["status"] for t in bo("status", database, "--json")["trials"]] == [
        "completed", "running"
    ]  # fmt: skip
    (other := tmp_path / "other.toml").write_text(CAMPAIGN.replace("by hand", "another"))
    assert bo("ask", str(other), "--database", database, "--json")[0]["trial"] == 0
