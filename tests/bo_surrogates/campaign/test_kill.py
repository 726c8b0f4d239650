"""kill -9 at every kind of moment: nothing acknowledged is lost, and a resume continues exactly."""

import json
import signal
import subprocess
import sys
import textwrap

import pytest

from bo_surrogates.campaign.campaign import Campaign

# Imports once, then runs the campaign in a fork for each line that it reads.
PARENT = textwrap.dedent(
    """
    import json, os, signal, sys, traceback
    from contextlib import contextmanager
    import torch
    torch.set_num_threads(1)
    from bo_surrogates.acquisition.config import AcquisitionConfig
    from bo_surrogates.campaign import ax_bridge
    from bo_surrogates.campaign.campaign import Campaign
    from bo_surrogates.campaign.spec import CampaignSpec
    from bo_surrogates.campaign.storage import Journal
    from bo_surrogates.objective import Objective
    from bo_surrogates.space import Choice, Float, Space

    moment, count, seen = "never", 0, 0

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

    def run(database, acknowledgements):
        def report(event):
            if event.kind == "completed":
                line = json.dumps([event.trial.index, event.trial.value("y")])
                print(line, file=acknowledgements, flush=True)
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

    for line in sys.stdin:
        database, moment, count, acknowledgements = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                with open(acknowledgements, "a") as told:
                    run(database, told)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    """
)


@pytest.fixture(scope="module")
def run_child():
    """Run the campaign in a process of its own, to be killed at a moment; its exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:

        def run(database, moment="never", count=0):
            line = json.dumps([str(database), moment, count, f"{database}.acknowledged"])
            print(line, file=parent.stdin, flush=True)
            return int(parent.stdout.readline())

        yield run
        parent.stdin.close()


def acknowledged(database):
    with open(f"{database}.acknowledged") as lines:
        return dict(json.loads(line) for line in lines)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, run_child):
    database = tmp_path_factory.mktemp("whole") / "c.db"
    assert run_child(database) == 0
    with Campaign.open(database, read_only=True) as campaign:
        return campaign.trials


def test_nothing_acknowledged_is_lost_and_the_resumed_campaign_equals_an_uninterrupted_one(
    tmp_path, uninterrupted, run_child
):
    database = tmp_path / "c.db"
    for moment, count in [
        ("before commit", 4),  # in the transaction of the first asked batch, or near it
        ("after commit", 4),  # a result on disk, not yet acknowledged
        ("evaluating", 2),
        ("asking", 2),
        ("before commit", 3),  # in the transaction of a result
        ("completed", 1),
    ]:
        assert run_child(database, moment, count) == -signal.SIGKILL
        known = acknowledged(database)
        with Campaign.open(database, read_only=True) as campaign:
            recorded = {t.index: t.value("y") for t in campaign.trials if t.status == "completed"}
        assert known.items() <= recorded.items()
    assert run_child(database) == 0
    with Campaign.open(database, read_only=True) as campaign:
        trials = campaign.trials
    assert [t.parameters for t in trials] == [t.parameters for t in uninterrupted]
    assert [t.value("y") for t in trials] == [t.value("y") for t in uninterrupted]
    assert [t.status for t in trials] == ["completed"] * 11
    assert known.items() <= {t.index: t.value("y") for t in trials}.items()
