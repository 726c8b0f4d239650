"""Backups: whole, consistent and usable, made while a campaign is written; all or nothing."""

import threading

import pytest
from typer.testing import CliRunner

from bo_surrogates.campaign.storage import Journal, backup
from bo_surrogates.campaign.storage.backup import backup as copy
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.cli import app
from bo_surrogates.errors import InputError, RunError


def trial(index):
    return Trial(index, {"x": index / 7}, "running", "sobol")


@pytest.fixture
def journal(database):
    journal = Journal(database, create=True)
    for c in (journal.create_campaign("a", {"k": 1}), journal.create_campaign("µ", {})):
        journal.add_trials(c, [trial(i) for i in range(3)])
        journal.finish_trial(c, 0, measurements={"y": Measurement(1 / 3, 0.1)})
        journal.finish_trial(c, 1, reason="broke")
        journal.add_progress(c, 2, 1.5, {"y": Measurement(2.0)})
        journal.add_replicate(c, 2, 0, {"y": Measurement(3.0)})
        journal.note_log(c, 2, "said")
    yield journal
    journal.close()


def content(journal):
    found = {}
    for name in journal.campaigns():
        c, _, spec = journal.find_campaign(name)
        rest = (journal.progress(c), journal.replicates(c), journal.log(c, 2))
        found[name] = spec, journal.trials(c), *rest
    return found


def test_the_copy_holds_everything_and_can_be_written(journal, tmp_path):
    path = copy(journal, tmp_path / "copy.db")
    other = Journal(path)
    assert content(other) == content(journal)
    lock = other.lock(1, "a")
    other.finish_trial(1, 2, measurements={"y": Measurement(5.0)})
    lock.release()
    assert journal.trials(1)[2].status == "running"
    assert [p.name for p in tmp_path.iterdir() if "part" in p.name] == []


def test_a_backup_overwrites_nothing(journal, tmp_path):
    (tmp_path / "copy.db").write_text("precious")
    with pytest.raises(InputError, match="a backup overwrites nothing"):
        copy(journal, tmp_path / "copy.db")
    assert (tmp_path / "copy.db").read_text() == "precious"
    with pytest.raises(InputError, match="folder .* does not exist"):
        copy(journal, tmp_path / "no" / "copy.db")


def test_a_backup_that_fails_leaves_nothing(journal, tmp_path, monkeypatch):
    def fail(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(backup, "_to_disk", fail)
    (tmp_path / "to").mkdir()
    with pytest.raises(RunError, match="No space left on device; nothing is left of it"):
        copy(journal, tmp_path / "to" / "copy.db")
    assert list((tmp_path / "to").iterdir()) == []


def test_a_backup_of_a_campaign_that_is_being_written_is_one_consistent_view(journal, tmp_path):
    lock = journal.lock(1, "a")
    stop = threading.Event()

    def write():
        number = 3
        while not stop.is_set():
            journal.add_trials(1, [trial(number)])
            journal.finish_trial(1, number, measurements={"y": Measurement(number)})
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for k in range(3):
            path = copy(Journal(journal.label, read_only=True), tmp_path / f"{k}.db")
            found = Journal(path).trials(1)
            assert [t.index for t in found] == list(range(len(found)))
            assert all(t.measurements for t in found if t.status == "completed")
    finally:
        stop.set()
        thread.join()
        lock.release()


def test_the_command_copies_and_says_where(journal, tmp_path):
    result = CliRunner().invoke(app, ["backup", journal.label, str(tmp_path / "copy.db")])
    assert result.exit_code == 0, result.output
    assert f"wrote {tmp_path / 'copy.db'}" in result.stdout
    assert Journal(tmp_path / "copy.db").campaigns() == ["a", "µ"]
    again = CliRunner().invoke(app, ["backup", journal.label, str(tmp_path / "copy.db")])
    assert again.exit_code == 2
