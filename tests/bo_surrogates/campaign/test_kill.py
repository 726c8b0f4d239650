"""kill -9 at every kind of moment: nothing acknowledged is lost, and a resume continues exactly."""

import signal
import subprocess
import sys
import textwrap

import pytest

from bo_surrogates.campaign.campaign import Campaign

CHILD = textwrap.dedent(
    """
    import os, signal, sys
    from contextlib import contextmanager
    import torch
    torch.set_num_threads(1)
    from bo_surrogates.acquisition.config import AcquisitionConfig
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.spec import CampaignSpec
    from bo_surrogates.campaign.storage import Journal
    from bo_surrogates.objective import Objective
    from bo_surrogates.space import Choice, Float, Space

    database, moment, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    seen = 0

    def die_at(what):
        global seen
        if what == moment:
            seen += 1
            if seen == count:
                os.kill(os.getpid(), signal.SIGKILL)

    write = Journal.write

    @contextmanager
    def dying_write(self):
        with write(self) as connection:
            yield connection
            die_at("before commit")
        die_at("after commit")

    Journal.write = dying_write

    def black_box(x, kind):
        die_at("evaluating")
        return (x - 0.3) ** 2 + (0.5 if kind == "u" else 0.0)

    def report(event):
        if event.kind == "completed":
            print("ack", event.trial.index, repr(event.trial.value("y")), flush=True)
        die_at(event.kind)

    if os.path.exists(database):
        campaign = Campaign.open(database)
    else:
        campaign = Campaign.create(
            CampaignSpec(
                name="killed",
                space=Space([Float("x", 0.0, 1.0), Choice("kind", ("u", "v"))]),
                objectives=(Objective("y"),),
                budget=11,
                initial=5,
                batch_size=2,
                seed=7,
                acquisition=AcquisitionConfig(
                    mc_samples=16, num_restarts=2, raw_samples=16, maxiter=20
                ),
            ),
            database,
        )
    campaign.run(black_box, on_event=report)
    """
)


def run_child(database, moment="never", count=0):
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(database), moment, str(count)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def acknowledged(output):
    lines = [line.split() for line in output.splitlines() if line.startswith("ack")]
    return {int(index): float(value) for _, index, value in lines}


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    database = tmp_path_factory.mktemp("whole") / "c.db"
    result = run_child(database)
    assert result.returncode == 0, result.stderr
    with Campaign.open(database, read_only=True) as campaign:
        return campaign.trials


def test_nothing_acknowledged_is_lost_and_the_resumed_campaign_equals_an_uninterrupted_one(
    tmp_path, uninterrupted
):
    database = tmp_path / "c.db"
    known = {}
    for moment, count in [
        ("before commit", 4),  # in the transaction of the first asked batch, or near it
        ("after commit", 4),  # a result on disk, not yet acknowledged
        ("evaluating", 2),
        ("asking", 2),
        ("before commit", 3),  # in the transaction of a result
        ("completed", 1),
    ]:
        killed = run_child(database, moment, count)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        known |= acknowledged(killed.stdout)
        with Campaign.open(database, read_only=True) as campaign:
            recorded = {t.index: t.value("y") for t in campaign.trials if t.status == "completed"}
        assert known.items() <= recorded.items()
    finished = run_child(database)
    assert finished.returncode == 0, finished.stderr
    with Campaign.open(database, read_only=True) as campaign:
        trials = campaign.trials
    assert [t.parameters for t in trials] == [t.parameters for t in uninterrupted]
    assert [t.value("y") for t in trials] == [t.value("y") for t in uninterrupted]
    assert [t.status for t in trials] == ["completed"] * 11
    assert known.items() <= {t.index: t.value("y") for t in trials}.items()
