"""Databases of earlier versions: read as they are, upgraded when first written, all or nothing."""

import sqlite3

import pytest
from sqlalchemy import create_engine, inspect

from bo_surrogates.campaign.storage import SCHEMA_VERSION, Journal, schema
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError

VERSION_1 = """
CREATE TABLE bo_surrogates_schema (version INTEGER NOT NULL, PRIMARY KEY (version));
CREATE TABLE campaign (
    id INTEGER NOT NULL, name VARCHAR(200) NOT NULL, spec TEXT NOT NULL,
    created VARCHAR(40) NOT NULL, writer TEXT, PRIMARY KEY (id), UNIQUE (name));
CREATE TABLE trial (
    campaign_id INTEGER NOT NULL, number INTEGER NOT NULL, parameters TEXT NOT NULL,
    status VARCHAR(20) NOT NULL, origin VARCHAR(100) NOT NULL, reason TEXT, seconds TEXT NOT NULL,
    diagnostics TEXT NOT NULL, created VARCHAR(40) NOT NULL, finished VARCHAR(40),
    PRIMARY KEY (campaign_id, number), FOREIGN KEY(campaign_id) REFERENCES campaign (id));
CREATE TABLE measurement (
    campaign_id INTEGER NOT NULL, number INTEGER NOT NULL, metric VARCHAR(200) NOT NULL,
    mean FLOAT NOT NULL, sem FLOAT, PRIMARY KEY (campaign_id, number, metric),
    FOREIGN KEY(campaign_id, number) REFERENCES trial (campaign_id, number));
INSERT INTO bo_surrogates_schema VALUES (1);
INSERT INTO campaign VALUES (1, 'old', '{"k": 1}', '2026-01-01T00:00:00.000+00:00', NULL);
INSERT INTO trial VALUES (1, 0, '{"x": 0.5}', 'completed', 'sobol', NULL, '{"evaluation": 2.0}',
    '{}', '2026-01-01T00:00:00.000+00:00', '2026-01-01T00:00:02.000+00:00');
INSERT INTO trial VALUES (1, 1, '{"x": 0.25}', 'running', 'gp', NULL, '{}', '{}',
    '2026-01-01T00:00:03.000+00:00', NULL);
INSERT INTO measurement VALUES (1, 0, 'y', 1.25, 0.5);
"""


@pytest.fixture
def old(tmp_path):
    path = tmp_path / "old.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(VERSION_1)
    return path


def columns(path):
    inspector = inspect(create_engine(f"sqlite:///{path}"))
    return {
        table: {(c["name"], c["nullable"]) for c in inspector.get_columns(table)}
        for table in inspector.get_table_names()
    }


def dump(path):
    with sqlite3.connect(path) as connection:
        return list(connection.iterdump())


def check(trials):
    first, second = trials
    assert first.parameters == {"x": 0.5}
    assert first.measurements == {"y": Measurement(1.25, 0.5)}
    assert dict(first.seconds) == {"evaluation": 2.0}
    assert (second.status, second.attempt) == ("running", 1)


def test_a_database_of_version_1_is_read_as_it_is(old):
    before = dump(old)
    journal = Journal(old, read_only=True)
    assert journal.find_campaign(None) == (1, "old", {"k": 1})
    check(journal.trials(1))
    assert journal.progress(1) == {}
    assert journal.replicates(1) == {}
    assert journal.log(1, 0) is None
    assert dump(old) == before


def test_the_first_writer_upgrades_it_and_loses_nothing(old, tmp_path):
    reader = Journal(old, read_only=True)
    journal = Journal(old)
    assert journal.version == SCHEMA_VERSION
    check(journal.trials(1))
    check(reader.trials(1))  # opened before the upgrade
    Journal(tmp_path / "fresh.db", create=True)
    assert columns(old) == columns(tmp_path / "fresh.db")
    journal.finish_trial(1, 1, measurements={"y": Measurement(2.0)})
    journal.add_trials(1, [Trial(2, {"x": 0.75}, "running", "gp")])
    journal.note_attempt(1, 2, 2)
    assert [t.attempt for t in Journal(old).trials(1)] == [1, 1, 2]


def test_a_database_of_version_2_gains_what_a_server_needs(old, tmp_path):
    Journal(old)
    with sqlite3.connect(old) as connection:  # what version 2 lacked
        connection.executescript(
            "DROP TABLE assignment; UPDATE bo_surrogates_schema SET version = 2"
        )
    check(Journal(old, read_only=True).trials(1))
    journal = Journal(old)
    check(journal.trials(1))
    journal.assign(1, [1], "request", "worker")
    assert journal.assignments(1) == {1: "request"}
    Journal(tmp_path / "fresh.db", create=True)
    assert columns(old) == columns(tmp_path / "fresh.db")


def test_an_upgrade_that_fails_midway_leaves_the_old_database(old, monkeypatch):
    before = dump(old)

    def fail(*_args, **_options):
        raise OSError("the power went")

    monkeypatch.setattr(schema.metadata, "create_all", fail)  # after the columns were added
    with pytest.raises(OSError, match="the power went"):
        Journal(old)
    assert dump(old) == before
    check(Journal(old, read_only=True).trials(1))


def test_an_upgrade_of_a_read_only_file_says_so(old):
    with pytest.raises(RunError, match="read-only"):
        Journal(f"sqlite:///file:{old}?mode=ro&uri=true")
    with pytest.raises(InputError, match="no database"):
        Journal(old.with_name("none.db"), read_only=True, create=False)


def test_what_is_added_to_running_trials_comes_back(tmp_path):
    journal = Journal(tmp_path / "c.db", create=True)
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [Trial(i, {}, "running", "sobol") for i in range(2)])
    journal.add_progress(c, 0, 2.0, {"y": Measurement(0.5, 0.1), "z": Measurement(3.0)})
    journal.add_progress(c, 0, 1.0, {"y": Measurement(0.7)})
    journal.add_progress(c, 0, 2.0, {"y": Measurement(0.4)})  # corrected
    journal.add_progress(c, 1, 1.0, {"y": Measurement(9.0)})
    found = [(r.step, r.metric, r.measurement) for r in journal.progress(c, 0)[0]]
    assert found == [
        (1.0, "y", Measurement(0.7)),
        (2.0, "y", Measurement(0.4)),
        (2.0, "z", Measurement(3.0)),
    ]
    assert list(journal.progress(c)) == [0, 1]
    journal.add_replicate(c, 0, 0, {"y": Measurement(1.0)})
    journal.add_replicate(c, 0, 1, {"y": Measurement(2.0, 0.5)})
    with pytest.raises(InputError, match="trial 0 has its repeat 1 already"):
        journal.add_replicate(c, 0, 1, {"y": Measurement(3.0)})
    repeats = {0: {"y": Measurement(1.0)}, 1: {"y": Measurement(2.0, 0.5)}}
    assert journal.replicates(c) == {0: repeats}
    journal.note_log(c, 0, "started\nlone \ud800, NUL \0, ünï\n")
    assert journal.log(c, 0) == "started\nlone \\ud800, NUL \\x00, ünï\n"
    assert journal.log(c, 1) is None
    journal.note_attempt(c, 0, 2)  # the curve starts anew, what was measured is kept
    assert list(journal.progress(c)) == [1]
    assert journal.replicates(c) == {0: repeats}
    assert [t.attempt for t in journal.trials(c)] == [2, 1]
    journal.finish_trial(c, 0, reason="x")
    for add in (
        lambda: journal.add_progress(c, 0, 3.0, {"y": Measurement(1.0)}),
        lambda: journal.add_replicate(c, 0, 2, {"y": Measurement(1.0)}),
        lambda: journal.note_attempt(c, 0, 3),
    ):
        with pytest.raises(InputError, match="trial 0 is abandoned already"):
            add()
    with pytest.raises(InputError, match="no trial 7; running trials: 1"):
        journal.add_progress(c, 7, 1.0, {"y": Measurement(1.0)})
    with pytest.raises(InputError, match="no trial 7"):
        journal.log(c, 7)
