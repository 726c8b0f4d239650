"""One writer a campaign: the second is refused by name, the dead let go, the living keep it."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bo_surrogates.campaign.storage import Journal, holder, journal, writer_lock
from bo_surrogates.campaign.storage.holder import Holder, process_started
from bo_surrogates.campaign.storage.writer_lock import living
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import RunError

CHILD = """
import os, sys, time
from bo_surrogates.campaign.storage import Journal
from bo_surrogates.errors import RunError
j = Journal(sys.argv[1])
"""


def child(database, code, **options):
    return subprocess.run(
        [sys.executable, "-c", CHILD + code, database],
        capture_output=True, text=True, check=False, timeout=60, **options,
    )  # fmt: skip


@pytest.fixture
def ours(database):
    j = Journal(database, create=True)
    c = j.create_campaign("a", {})
    j.add_trials(c, [Trial(0, {}, "running", "sobol"), Trial(1, {}, "running", "sobol")])
    yield j
    j.close()


def test_the_second_writer_is_refused_and_told_who_the_first_is(ours, database):
    lock = ours.lock(1, "a")
    other = child(
        database,
        "try:\n    j.lock(1, 'a')\nexcept RunError as e:\n    print(e)\nprint(len(j.trials(1)))",
    )
    assert f"process {os.getpid()} on {socket.gethostname()} (since 20" in other.stdout
    assert "read-only" in other.stdout
    assert other.stdout.endswith("2\n")  # reading is always possible
    with pytest.raises(RunError, match="is being written by process"):
        ours.lock(1, "a")
    lock.release()
    ours.lock(1, "a").release()


def test_another_campaign_of_the_database_is_free(ours, database):
    c = ours.create_campaign("b", {})
    lock = ours.lock(1, "a")
    other = Journal(database).lock(c, "b")
    other.release()
    lock.release()


def test_the_lock_of_a_killed_process_is_free(ours, database):
    killed = child(database, "lock = j.lock(1, 'a')\nos.kill(os.getpid(), 9)")
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 20  # PostgreSQL's server takes a moment to see it
    while True:
        try:
            ours.lock(1, "a").release()
            return
        except RunError:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_a_living_holder_is_not_robbed(ours, database):
    lock = ours.lock(1, "a")
    thief = child(
        database, "try:\n    j.lock(1, 'a', steal=True)\nexcept RunError as e:\n    print(e)"
    )
    assert f"not taken over: process {os.getpid()} on" in thief.stdout
    assert "is running" in thief.stdout
    ours.finish_trial(1, 0, reason="still ours")
    lock.release()


@pytest.fixture
def orphan(ours, database):
    """A lock that outlives its holder, as on a network file system or after a cut connection.

    Here another process keeps what it holds open: the locked file, or the session's socket.
    """
    code = (
        "import subprocess\nlock = j.lock(1, 'a')\n"
        "for fd in range(3, 64):\n"
        "    try:\n        os.set_inheritable(fd, True)\n    except OSError:\n        pass\n"
        "subprocess.Popen(['sleep', '600'], close_fds=False, stdout=subprocess.DEVNULL)\n"
        "print(os.getpid(), flush=True)\nos.kill(os.getpid(), 9)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD + code, database],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    assert int(process.stdout.readline()) == process.pid
    process.wait()
    yield process.pid
    os.killpg(process.pid, signal.SIGKILL)


def test_a_lock_that_outlives_its_holder_is_stolen_once_that_is_shown_dead(
    ours, orphan, monkeypatch
):
    with pytest.raises(RunError, match=f"written by process {orphan} on"):
        ours.lock(1, "a")
    with pytest.raises(
        RunError, match=r"gave a sign of life \d+ s ago; it counts as dead after 30"
    ):
        ours.lock(1, "a", steal=True)
    monkeypatch.setattr(writer_lock, "HEARTBEAT", 0.05)
    time.sleep(0.2)
    with pytest.raises(RunError, match="add --steal"):
        ours.lock(1, "a")  # never without being asked
    lock = ours.lock(1, "a", steal=True)
    ours.finish_trial(1, 0, reason="ours now")
    lock.release()
    ours.lock(1, "a").release()


def test_a_holder_elsewhere_is_judged_by_its_signs_of_life(ours, database, monkeypatch):
    monkeypatch.setattr(holder, "HEARTBEAT", 0.1)
    monkeypatch.setattr(writer_lock, "HEARTBEAT", 0.1)
    monkeypatch.setattr(writer_lock, "SILENCE", 1.0)
    lock = ours.lock(1, "a")
    elsewhere = replace(ours._claims[1][1], host="far", machine="another machine", pid=1)
    with ours.write() as connection:
        connection.execute(journal.schema.campaign.update().values(writer=elsewhere.to_json()))
    thief = Journal(database)
    time.sleep(1.2)  # it is silent for no longer than a beat
    with pytest.raises(RunError, match="process 1 on far .* gave a sign of life 0 s ago"):
        thief.lock(1, "a", steal=True)
    lock._released.set()  # its machine loses power: the beat stops, the lock stays
    lock._thread.join()
    time.sleep(1.2)
    stolen = thief.lock(1, "a", steal=True)
    assert thief.trials(1) == ours.trials(1)
    stolen.release()


def test_a_holder_that_was_taken_for_dead_writes_nothing_any_more(ours, database, monkeypatch):
    """A laptop that slept, say: it wakes up and goes on."""
    lock = ours.lock(1, "a")
    monkeypatch.setattr(Holder, "alive", lambda self: False)
    monkeypatch.setattr(writer_lock, "HEARTBEAT", 0.0)
    time.sleep(0.05)
    thief = Journal(database)
    stolen = thief.lock(1, "a", steal=True)
    thief.finish_trial(1, 0, measurements={"y": Measurement(1.0)})
    for act in (
        lambda: ours.finish_trial(1, 1, measurements={"y": Measurement(2.0)}),
        lambda: ours.add_trials(1, [Trial(2, {}, "running", "sobol")]),
        lambda: ours.note_attempt(1, 1, 2),
        lambda: ours.update_spec(1, {"budget": 3}),
    ):
        with pytest.raises(RunError, match="was taken over by process .* writes nothing any more"):
            act()
    assert [t.status for t in ours.trials(1)] == ["completed", "running"]
    lock._sign_of_life()
    lock.release()
    with pytest.raises(RunError, match="is being written"):  # what it released was not the thief's
        ours.lock(1, "a")
    stolen.release()


def test_a_process_is_told_from_a_later_one_of_the_same_id():
    me = Holder.this_process()
    assert me.alive() is True
    assert replace(me, started="1").alive() is False
    assert replace(me, machine="another").alive() is None
    gone = subprocess.Popen([sys.executable, "-c", ""])
    started = process_started(gone.pid)
    assert started is not None
    gone.wait()
    assert replace(me, pid=gone.pid, started=started).alive() is False
    assert Holder.from_json(me.to_json()) == me
    assert Holder.from_json(None) is None


def test_what_speaks_against_a_holders_death():
    me = Holder.this_process()
    dead, far = replace(me, started="1"), replace(me, machine="far")
    assert "is running" in living(me, 1e9)
    assert "sign of life 20 s ago" in living(dead, 20.0)  # whose was it? not the dead one's
    assert living(dead, 31.0) is None
    assert "counts as dead after 90 s" in living(far, 31.0)
    assert living(far, 91.0) is None
    assert living(None, 91.0) is None
    assert "leaves no signs of life" in living(far, None)
    version_1 = Holder(pid=1, host="h", since="2026")
    assert "leaves no signs of life" in living(version_1, 1e9)
