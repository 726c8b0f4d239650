"""The journal, in SQLite and in PostgreSQL: what is committed stays; clear words for bad files."""

import itertools
import sqlite3

import pytest
from sqlalchemy import event

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.storage import SCHEMA_VERSION, Journal
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space


@pytest.fixture
def journal(database):
    journal = Journal(database, create=True)
    yield journal
    journal.close()


@pytest.fixture
def file(tmp_path):
    journal = Journal(tmp_path / "c.db", create=True)
    yield journal
    journal.close()


def running(index, **parameters):
    return Trial(index, parameters, "running", "sobol", seconds={"fit": 0.25})


def test_trials_and_measurements_come_back_exactly(journal):
    c = journal.create_campaign("a", {"k": [1, None, "x"]})
    assert journal.find_campaign("a") == (c, "a", {"k": [1, None, "x"]})
    journal.add_trials(c, [running(0, x=0.1 + 0.2, n=3, flag=True, s="µ"), running(1, x=1e-300)])
    value = 1 / 3 * 1e6
    journal.finish_trial(
        c, 0, measurements={"y": Measurement(value, 5e-324), "z": Measurement(-0.0)},
        seconds={"evaluation": 2.0},
    )  # fmt: skip
    journal.finish_trial(c, 1, reason="it broke")
    first, second = journal.trials(c)
    assert first.parameters == {"x": 0.1 + 0.2, "n": 3, "flag": True, "s": "µ"}
    assert [type(v) for v in first.parameters.values()] == [float, int, bool, str]
    assert first.measurements == {"y": Measurement(value, 5e-324), "z": Measurement(0.0)}
    assert first.status == "completed"
    assert dict(first.seconds) == {"fit": 0.25, "evaluation": 2.0}
    assert first.created <= first.finished
    assert (second.status, second.reason, second.measurements) == ("abandoned", "it broke", {})
    assert journal.trials(c, 1) == [second]


def test_a_finished_trial_is_never_overwritten(journal):
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [running(0)])
    journal.finish_trial(c, 0, measurements={"y": Measurement(1.0)})
    for result in ({"measurements": {"y": Measurement(2.0)}}, {"reason": "no"}):
        with pytest.raises(InputError, match="trial 0 is completed already"):
            journal.finish_trial(c, 0, **result)
    assert journal.trials(c)[0].value("y") == 1.0


def test_telling_an_unknown_trial_names_those_that_run(journal):
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [running(0), running(1)])
    journal.finish_trial(c, 0, reason="x")
    with pytest.raises(InputError, match="no trial 7; running trials: 1"):
        journal.finish_trial(c, 7, reason="x")


def test_a_transaction_that_fails_leaves_nothing_behind(journal):
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [running(0)])
    with pytest.raises(RunError, match="one of the numbers 1, 0 already"):
        journal.add_trials(c, [running(1), running(0)])
    assert [t.index for t in journal.trials(c)] == [0]


def test_campaigns_in_one_database_are_apart(journal):
    a, b = journal.create_campaign("a", {}), journal.create_campaign("b", {})
    journal.add_trials(a, [running(0, x=1)])
    journal.add_trials(b, [running(0, x=2)])
    assert journal.trials(a)[0].parameters == {"x": 1}
    assert journal.trials(b)[0].parameters == {"x": 2}
    with pytest.raises(InputError, match="2 campaigns; name one of: a, b"):
        journal.find_campaign(None)
    with pytest.raises(InputError, match="did you mean|known: a, b"):
        journal.find_campaign("c")
    with pytest.raises(InputError, match="holds a campaign 'a' already"):
        journal.create_campaign("a", {})


def test_odd_characters_come_back(journal):
    odd = "µ ' \" \\ % :x ; -- \u2028 🧪"
    c = journal.create_campaign(odd, {odd: odd})
    assert journal.find_campaign(odd) == (c, odd, {odd: odd})
    trial = Trial(0, {odd: odd, "nul": "\0"}, "running", odd * 10)
    journal.add_trials(c, [trial])
    journal.finish_trial(c, 0, measurements={odd: Measurement(1.0)}, reason=odd + "\ud800\0")
    (found,) = journal.trials(c)
    assert (found.parameters, found.origin) == (trial.parameters, trial.origin)
    assert found.measurements == {odd: Measurement(1.0)}
    assert found.reason == odd + "\\ud800\\x00"


def test_the_writer_need_not_read_what_it_wrote(journal, database):
    """And what it knows is what a reader finds."""
    c = journal.create_campaign("a", {})
    lock = journal.lock(c, "a")
    reader = Journal(database)
    journal.add_trials(c, [running(0, x=0.1), running(1), running(2)])
    assert journal.trials(c) == reader.trials(c)
    journal.finish_trial(c, 1, measurements={"y": Measurement(1.0, 0.5)}, seconds={"evaluation": 1})
    journal.finish_trial(c, 0, reason="broke")
    journal.note_attempt(c, 2, 2)
    journal.add_trials(c, [running(3)])
    read = []
    original, journal.database.read = journal.database.read, lambda: read.append(1) or original()
    assert journal.trials(c) == reader.trials(c)
    assert journal.trials(c, 1) == reader.trials(c, 1)
    assert journal.trials(c, 9) == reader.trials(c, 9) == []
    assert not read
    with pytest.raises(InputError):
        journal.finish_trial(c, 1, reason="again")
    assert journal.trials(c) == reader.trials(c)  # read again after an error
    assert read
    lock.release()
    reader.finish_trial(c, 2, reason="by another")
    assert journal.trials(c)[2].reason == "by another"  # not ours to know any more


def test_a_missing_database_is_named(tmp_path):
    with pytest.raises(InputError, match=r"no database .*nope\.db"):
        Journal(tmp_path / "nope.db")
    with pytest.raises(InputError, match="folder .* does not exist"):
        Journal(tmp_path / "no" / "c.db", create=True)
    with pytest.raises(InputError, match="is a folder"):
        Journal(tmp_path, create=True)


def test_a_file_that_is_no_database_is_refused_untouched(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("my precious notes, longer than a hundred bytes " * 20)
    with pytest.raises(InputError, match="not an SQLite database"):
        Journal(path, create=True)
    assert path.read_text().startswith("my precious notes")


def test_a_database_of_another_program_is_refused_untouched(tmp_path):
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table campaign (id integer)")
    with pytest.raises(InputError, match="database of another program"):
        Journal(path, create=True)
    with sqlite3.connect(path) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("campaign",)]


def test_a_database_of_a_newer_version_is_refused(file):
    with sqlite3.connect(file.path) as connection:
        connection.execute("update bo_surrogates_schema set version = ?", (SCHEMA_VERSION + 1,))
    with pytest.raises(InputError, match="newer version .* upgrade"):
        Journal(file.path)


def test_a_read_only_database_can_be_read_and_says_why_it_cannot_be_written(file):
    c = file.create_campaign("a", {})
    file.add_trials(c, [running(0, x=1)])
    reader = Journal(f"sqlite:///file:{file.path}?mode=ro&uri=true")
    assert len(reader.trials(c)) == 1
    with pytest.raises(RunError, match="read-only"):
        reader.finish_trial(c, 0, reason="x")
    with pytest.raises(RunError, match="read-only"):
        reader.lock(c, "a")
    assert file.trials(c)[0].status == "running"
    file.lock(c, "a").release()  # the failed attempt above let go of it


def test_a_database_locked_by_another_program_says_so(file):
    c = file.create_campaign("a", {})
    impatient = Journal(f"sqlite:///{file.path}?timeout=0.05")
    blocker = sqlite3.connect(file.path, isolation_level=None)
    blocker.execute("BEGIN EXCLUSIVE")
    try:
        with pytest.raises(RunError, match="another program holds it locked"):
            impatient.add_trials(c, [running(0)])
    finally:
        blocker.execute("ROLLBACK")
        blocker.close()
    impatient.add_trials(c, [running(0)])
    assert len(file.trials(c)) == 1


@pytest.mark.parametrize("text", ["mysql://host/db", "nonsense://"])
def test_other_kinds_of_database_are_refused(text):
    with pytest.raises(InputError, match="only SQLite|not a valid URL"):
        Journal(text, create=True)


def test_what_a_trial_costs_the_database_does_not_grow_with_the_number_of_trials(tmp_path):
    """Counted in steps of SQLite's own machine, over an ask, a report and a tell."""
    space = Space([Float("x", 0.0, 1.0)])
    steps = {}
    for n in (20, 1000):
        spec = CampaignSpec(f"c{n}", space, (Objective("y"),), budget=5000, initial=5000)
        with Campaign.create(spec, tmp_path / f"{n}.db") as campaign:
            campaign.add_data([{"x": i / n, "y": float(i)} for i in range(n)])
            campaign.tell(campaign.ask()[0].index, {"y": 0.0})  # reads them all, once
            count = itertools.count()
            event.listen(
                campaign.journal.database.engine,
                "connect",
                lambda connection, _, count=count: connection.set_progress_handler(
                    lambda: next(count) and 0, 1
                ),
            )
            (trial,) = campaign.ask()
            campaign.report(trial.index, 1, {"y": 1.0})
            campaign.tell(trial.index, {"y": 0.5})
            steps[n] = next(count)
    assert steps[20] > 100
    assert steps[1000] <= 1.05 * steps[20]
