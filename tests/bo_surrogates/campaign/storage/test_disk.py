"""A disk that is full, a folder that cannot be written: a clear error, and nothing lost."""

import os
import subprocess
import sys

import pytest

from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import RunError

FULL = """
import os, resource, signal, sys
from bo_surrogates.campaign.storage import Journal
from bo_surrogates.campaign.trial import Measurement, Trial
from bo_surrogates.errors import RunError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(sys.argv[1])
lock = journal.lock(1, "a")
limit = os.path.getsize(sys.argv[1]) + 8192
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
told = 0
try:
    while True:
        journal.add_trials(1, [Trial(told, {"x": "y" * 500}, "running", "sobol")])
        journal.finish_trial(1, told, measurements={"y": Measurement(told)})
        told += 1
except RunError as error:
    print(told, error)
    print([t.status for t in journal.trials(1)].count("completed"))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
known = journal.trials(1)
if len(known) == told:  # the last trial was not even asked
    journal.add_trials(1, [Trial(told, {}, "running", "sobol")])
journal.finish_trial(1, told, measurements={"y": Measurement(told)})  # space was made: it goes on
"""


def test_a_full_disk_loses_nothing_and_the_campaign_goes_on_once_there_is_space(tmp_path):
    path = tmp_path / "c.db"
    Journal(path, create=True).create_campaign("a", {})
    child = subprocess.run(
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    first, second = child.stdout.splitlines()
    told = int(first.split()[0])
    assert told > 0
    assert (
        "free space on the disk, or check that it works; nothing recorded so far is lost" in first
    )
    assert int(second) == told
    values = [t.value("y") for t in Journal(path).trials(1) if t.status == "completed"]
    assert values == list(range(told + 1))


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder nobody may write to")
def test_a_folder_that_cannot_be_written_is_named():
    """/proc: not even the superuser may make a file there."""
    with pytest.raises(RunError, match=r"database /proc/c\.db: unable to open .* its permissions"):
        Journal("/proc/c.db", create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write in any folder")
def test_a_campaign_in_a_read_only_folder_is_read_and_not_written(tmp_path):
    folder = tmp_path / "f"
    folder.mkdir()
    journal = Journal(folder / "c.db", create=True)
    c = journal.create_campaign("a", {})
    journal.add_trials(c, [Trial(0, {}, "running", "sobol")])
    folder.chmod(0o555)
    try:
        assert len(Journal(folder / "c.db", read_only=True).trials(c)) == 1
        with pytest.raises(RunError, match="lock file .* permissions of the folder"):
            journal.lock(c, "a")
        with pytest.raises(RunError, match="permissions"):
            journal.finish_trial(c, 0, measurements={"y": Measurement(1.0)})
    finally:
        folder.chmod(0o755)
    journal.finish_trial(c, 0, measurements={"y": Measurement(1.0)})
