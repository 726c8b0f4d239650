"""What only PostgreSQL has: passwords, other programs' tables, connections that are lost."""

import sys
import traceback

import pytest

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.storage.database import without_password
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space


def trial(index):
    return Trial(index, {"x": index}, "running", "sobol")


def test_a_connection_that_is_lost_loses_nothing_that_was_acknowledged(
    postgresql_server, postgresql
):
    journal = Journal(postgresql, create=True)
    c = journal.create_campaign("a", {})
    lock = journal.lock(c, "a")
    journal.add_trials(c, [trial(0), trial(1)])
    journal.finish_trial(c, 0, measurements={"y": Measurement(1.0)})
    postgresql_server.crash()
    try:
        with pytest.raises(RunError, match=r"check that the server is running.*then resume"):
            journal.finish_trial(c, 1, measurements={"y": Measurement(2.0)})
        with pytest.raises(RunError, match="nothing recorded so far is lost"):
            Journal(postgresql)
        lock._sign_of_life()  # no server: nothing happens
    finally:
        postgresql_server.start()
    assert [t.status for t in journal.trials(c)] == ["completed", "running"]
    journal.finish_trial(c, 1, measurements={"y": Measurement(2.0)})  # connected anew
    lock._sign_of_life()  # and the lock, which was lost with its session, is taken again
    with pytest.raises(RunError, match="is being written by"):
        Journal(postgresql).lock(c, "a")
    lock.release()
    Journal(postgresql).lock(c, "a").release()


def test_a_campaign_whose_connection_is_lost_says_so_and_is_opened_again(
    postgresql_server, postgresql
):
    spec = CampaignSpec(
        "lost", Space([Float("x", 0.0, 1.0)]), (Objective("y"),), budget=6, initial=6
    )
    told = []

    def measure(x):
        told.append(x)
        if len(told) == 3:
            postgresql_server.crash()  # while the trial is evaluated
        return x

    with Campaign.create(spec, postgresql) as campaign:
        try:
            with pytest.raises(RunError, match=r"check that the server is running.*then resume"):
                campaign.run(measure)
        finally:
            postgresql_server.start()
    with Campaign.open(postgresql) as campaign:
        assert [t.status for t in campaign.trials] == ["completed"] * 2 + ["running"]
        assert [t.value("y") for t in campaign.trials[:2]] == told[:2]
        campaign.run(measure)
        assert told[3] == told[2]  # the one whose result was lost, again
        assert [t.value("y") for t in campaign.trials] == [*told[:2], *told[3:]]
        assert len(campaign.trials) == 6


def test_a_campaign_survives_the_end_of_its_session_alone(postgresql_server, postgresql):
    spec = CampaignSpec("ended", Space([Float("x", 0.0, 1.0)]), (Objective("y"),), initial=6)
    with Campaign.create(spec, postgresql) as campaign:
        first, second = campaign.ask(2)
        campaign.tell(first.index, {"y": 1.0})
        postgresql_server.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE "
            "'bo-surrogates%'"
        )
        campaign.tell(second.index, {"y": 2.0})
        assert [t.value("y") for t in campaign.trials] == [1.0, 2.0]
    with Campaign.open(postgresql, read_only=True) as campaign:
        assert [t.value("y") for t in campaign.trials] == [1.0, 2.0]


def test_whoever_takes_the_lock_first_after_a_lost_session_is_the_writer(
    postgresql_server, postgresql
):
    journal = Journal(postgresql, create=True)
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [trial(0)])
    lock = journal.lock(c, "a")
    postgresql_server.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE "
        "'bo-surrogates writes a'"
    )
    other = Journal(postgresql)
    taken = other.lock(c, "a")
    lock._sign_of_life()
    other.finish_trial(c, 0, reason="by the other")
    with pytest.raises(RunError, match="was taken over by"):
        journal.add_trials(c, [trial(1)])
    lock.release()
    taken.release()


def test_no_password_is_ever_shown(postgresql_server, postgresql):
    database = postgresql.partition("@/")[2].partition("?")[0]
    port = postgresql_server.port
    postgresql_server.query("ALTER USER tester PASSWORD 'sekret'")
    for good in (
        f"postgresql://tester:sekret@127.0.0.1:{port}/{database}",
        f"postgres://tester@127.0.0.1:{port}/{database}?password=sekret",
    ):
        journal = Journal(good, create=True)
        assert "sekret" not in journal.label
        assert "***" in journal.label
    journal.create_campaign("a", {})
    with pytest.raises(InputError) as caught:
        journal.create_campaign("a", {})
    assert "sekret" not in str(caught.value)
    assert "sekret" not in postgresql_server.query("SELECT * FROM campaign", database)
    for bad, message in (
        (f"postgresql://tester:seKret@127.0.0.1:{port}/{database}", "check the user and the pass"),
        (f"postgresql://tester:seKret@127.0.0.1:{port}/nope", "authentication failed"),
        (f"postgresql://tester:sekret@127.0.0.1:{port}/nope", "create it with 'createdb'"),
        ("postgresql://tester:se Kr@e:/t@127.0.0.1:port/x", "not a valid URL"),
        ("postgresql+psycopg2://tester:sekret@h/d", "the driver is psycopg"),
        ("mysql://tester:sekret@h/d", "only SQLite and PostgreSQL are supported"),
        ("postgresql://tester:sekret@127.0.0.1:1/d", "Connection refused"),
        ("postgresql://tester@127.0.0.1:1/d?sslpassword=sekret", "server is running"),
    ):
        with pytest.raises((InputError, RunError), match=message) as caught:
            Journal(bad, create=True)
        told = str(caught.value) + "".join(traceback.format_exception(caught.value, chain=False))
        told = told.replace(bad, "")  # the line of this test
        assert "sekret" not in told.lower()
        assert "se kr" not in told.lower()


def test_a_path_or_a_url_without_a_password_is_shown_as_it_is():
    for plain in ("my.db", "a:b@c.db", "postgresql://me@host:5432/db", "sqlite:///x.db?timeout=1"):
        assert without_password(plain) == plain


def test_tables_of_other_programs_are_left_alone(postgresql_server, postgresql):
    database = postgresql.partition("@/")[2].partition("?")[0]
    with pytest.raises(InputError, match="is empty; .* Start a campaign"):
        Journal(postgresql)
    postgresql_server.query("CREATE TABLE trial (id integer)", database)
    with pytest.raises(InputError, match="database of another program"):
        Journal(postgresql, create=True)
    assert postgresql_server.query(r"SELECT count(*) FROM pg_tables WHERE schemaname = 'public'",
                                   database) == "1"  # fmt: skip
    postgresql_server.query("ALTER TABLE trial RENAME TO others", database)
    journal = Journal(postgresql, create=True)
    assert journal.campaigns() == []


def test_a_user_who_may_not_write_reads_and_is_told(postgresql_server, postgresql):
    database = postgresql.partition("@/")[2].partition("?")[0]
    journal = Journal(postgresql, create=True)
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [trial(0)])
    postgresql_server.query("DROP ROLE IF EXISTS guest")
    postgresql_server.query("CREATE ROLE guest LOGIN")
    postgresql_server.query("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest", database)
    guest = Journal(postgresql.replace("tester", "guest"), read_only=True)
    assert len(guest.trials(c)) == 1
    with pytest.raises(RunError, match="permission denied .* ask its owner"):
        guest.finish_trial(c, 0, reason="x")
    with pytest.raises(RunError, match="permission denied"):
        guest.lock(c, "a")
    journal.lock(c, "a").release()  # the guest's attempt has let go of it
    guest.close()
    postgresql_server.query("DROP OWNED BY guest", database)


def test_a_database_of_another_encoding_is_refused(postgresql_server):
    postgresql_server.query("DROP DATABASE IF EXISTS latin")
    postgresql_server.query("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(InputError, match="encoding is LATIN1; create one with 'createdb -E UTF8'"):
        Journal(postgresql_server.url("latin"), create=True)


def test_a_missing_driver_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InputError, match=r"pip install 'bo-surrogates\[postgresql\]'"):
        Journal("postgresql://me@host/db")


def test_commits_wait_for_the_disk_whatever_the_servers_default(postgresql_server, postgresql):
    database = postgresql.partition("@/")[2].partition("?")[0]
    postgresql_server.query(f'ALTER DATABASE "{database}" SET synchronous_commit = off')
    journal = Journal(postgresql, create=True)
    with journal.write() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
