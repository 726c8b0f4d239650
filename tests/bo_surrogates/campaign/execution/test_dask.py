"""A real Dask cluster: its own processes, workers killed mid-trial, a campaign killed mid-run."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bo_surrogates.campaign.black_box import PythonBlackBox
from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.execution.executors import open_runner
from bo_surrogates.campaign.execution.resources import Resources
from bo_surrogates.campaign.spec import BlackBoxSource, CampaignSpec
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space

pytest.importorskip("distributed", reason="needs the extra 'distributed'")
ROOT = Path(__file__).parents[4]
PATIENCE = 120.0  # seconds that something certain to happen is waited for

MODULE = '''
import os, random, time

def act(x, trial_index, attempt, report):
    """Trial 1 loses its first worker, trial 2 every one; the file says who waits to be killed."""
    folder = os.environ["BLACK_BOX_FOLDER"]
    with open(os.path.join(folder, "started"), "a") as file:
        file.write(f"{trial_index} {attempt}\\n")
    report(1, y=x)
    if trial_index == 2 or (trial_index == 1 and attempt == 1):
        wait(folder)
    return x + random.random()

def hang(x):
    wait(os.environ["BLACK_BOX_FOLDER"])

def wait(folder):
    """Say who waits, whole or not at all, and wait to be killed."""
    name = os.path.join(folder, f"waiting-{os.getpid()}")
    with open(name + ".part", "w") as file:
        file.write(f"{os.getpid()} {os.getppid()}")
    os.replace(name + ".part", name)
    time.sleep(600)
'''


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab")
    (path / "cluster_deeds.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        patch.setenv("BLACK_BOX_FOLDER", str(path))
        yield path
    sys.modules.pop("cluster_deeds", None)


@pytest.fixture(scope="module")
def scheduler(folder):
    """A scheduler and two worker processes; its scheduler file."""
    file = folder / "scheduler.json"
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    common = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    commands = [
        ["scheduler", "--port", "0", "--scheduler-file", str(file), *common],
        *[
            ["worker", "--scheduler-file", str(file), "--nthreads", "1", "--name", name,
             "--resources", "CPU=2", *common]
            for name in ("one", "two")
        ],
    ]  # fmt: skip
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "dask", *command],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for command in commands
    ]
    try:
        from distributed import Client

        wait_until(file.exists)
        with Client(scheduler_file=str(file), set_as_default=False, timeout=PATIENCE) as client:
            client.wait_for_workers(2, timeout=PATIENCE)
        yield str(file)
    finally:
        for process in processes[::-1]:
            process.terminate()
        for process in processes:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()


def spec(function="act", **more):
    return CampaignSpec(
        name="cluster",
        space=Space([Float("x", 0, 1)]),
        objectives=(Objective("y"),),
        black_box=BlackBoxSource("python", f"cluster_deeds:{function}"),
        **{"budget": 4, "initial": 4, "batch_size": 4, "workers": 2, "executor": "dask",
           "seed": 5, **more},
    )  # fmt: skip


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status not in ("Z", "X")


def next_waiting(folder):
    """The process that waits to be killed, and the worker that it belongs to."""

    def found():
        return [p for p in folder.glob("waiting-*") if p.suffix != ".part"]

    wait_until(found)
    path = found()[0]
    pids = [int(p) for p in path.read_text().split()]
    path.unlink()
    return pids


def started(folder):
    lines = (folder / "started").read_text().splitlines()
    (folder / "started").unlink()
    return sorted(tuple(map(int, line.split())) for line in lines)


def test_a_trial_whose_worker_is_killed_is_run_once_more_and_nothing_is_lost(
    scheduler, folder, tmp_path
):
    def kill_workers():
        for _ in range(3):
            _, worker = next_waiting(folder)
            os.kill(worker, signal.SIGKILL)

    killer = threading.Thread(target=kill_workers, daemon=True)
    killer.start()
    events = []
    with Campaign.create(spec(scheduler=scheduler), tmp_path / "c.db") as campaign:
        campaign.run(on_event=lambda e: events.append((e.kind, e.trial and e.trial.index)))
        trials = campaign.trials
        progress = campaign.progress()
        log = campaign.log(2)
    killer.join(PATIENCE)
    assert [t.status for t in trials] == ["completed", "completed", "abandoned", "completed"]
    assert [t.attempt for t in trials] == [1, 2, 2, 1]
    assert trials[2].reason == "the worker it ran on was lost (attempt 2)"
    assert log.count("the worker it ran on was lost") == 2
    assert started(folder) == [(0, 1), (1, 1), (1, 2), (2, 1), (2, 2), (3, 1)]
    assert sorted(e for e in events if e[0] == "retried") == [("retried", 1), ("retried", 2)]
    assert all([r.step for r in progress[i]] == [1] for i in range(4))
    # What the retried trial measured is what it would have measured undisturbed.
    with Campaign.create(spec(executor=None, workers=1), tmp_path / "here.db") as campaign:
        import cluster_deeds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster_deeds, "wait", lambda folder: None)
            campaign.run()
        here = campaign.trials
    started(folder)
    assert [t.measurements for t in trials if t.index != 2] == [
        t.measurements for t in here if t.index != 2
    ]


def test_a_hung_trial_on_a_worker_is_ended_and_recorded(scheduler, folder, tmp_path):
    with Campaign.create(
        spec("hang", budget=1, initial=1, timeout=1.0), tmp_path / "c.db"
    ) as campaign:
        campaign.run(scheduler=scheduler)
        (trial,) = campaign.trials
    assert trial.reason == "exceeded the time-out of 1 s and was stopped"
    pid, worker = next_waiting(folder)
    wait_until(lambda: not is_alive(pid))
    assert is_alive(worker)


CAMPAIGN = """
import sys
from bo_surrogates.campaign.campaign import Campaign
if __name__ == "__main__":
    with Campaign.open(sys.argv[1]) as campaign:
        campaign.run()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_campaign_leaves_nothing_running_and_is_resumed(scheduler, folder, tmp_path, end):
    database = tmp_path / "c.db"
    Campaign.create(spec(scheduler=scheduler, budget=2, initial=2), database).close()
    (tmp_path / "go.py").write_text(CAMPAIGN)
    running = subprocess.Popen(
        [sys.executable, str(tmp_path / "go.py"), str(database)],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        pid, worker = next_waiting(folder)  # trial 1, at its first attempt
        with Campaign.open(database, read_only=True) as looking:
            wait_until(lambda: looking.trials[0].status == "completed")
            acknowledged = looking.trials[0]
        os.kill(running.pid, end)
        running.wait(PATIENCE)
    finally:
        running.kill()
    wait_until(lambda: not is_alive(pid))
    assert is_alive(worker)
    with Campaign.open(database) as campaign:
        campaign.run()
        trials = campaign.trials
    assert [t.status for t in trials] == ["completed"] * 2
    assert trials[0] == acknowledged
    assert trials[1].attempt == 2
    assert started(folder) == [(0, 1), (1, 1), (1, 2)]


# ---- what is refused -----------------------------------------------------------------------------
def test_resources_that_no_worker_offers_are_refused_at_once(scheduler, tmp_path):
    with Campaign.create(
        spec(scheduler=scheduler, resources=Resources(cpus=2, gpus=1)), tmp_path / "c.db"
    ) as campaign:
        with pytest.raises(InputError, match=r"no worker .* offers GPU = 1 .*--resources"):
            campaign.run()
        assert campaign.trials == []


def test_dask_without_a_scheduler_or_out_of_reach_is_said(monkeypatch, tmp_path):
    from bo_surrogates.campaign.execution import dask_cluster

    with Campaign.create(spec(), tmp_path / "c.db") as campaign:
        with pytest.raises(InputError, match=r"needs the address of a scheduler.*dask scheduler"):
            campaign.run(lambda x: x)
        monkeypatch.setattr(dask_cluster, "CONNECT_SECONDS", 0.5)
        with pytest.raises(RunError, match=r"no Dask scheduler at 'tcp://127.0.0.1:1'"):
            campaign.run(lambda x: x, scheduler="tcp://127.0.0.1:1")


def test_a_missing_extra_is_named_with_the_command_that_installs_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with Campaign.create(spec(scheduler="tcp://nowhere:8786"), tmp_path / "c.db") as campaign:
        with pytest.raises(InputError, match=r"pip install 'bo-surrogates\[distributed\]'"):
            campaign.run(lambda x: x)
        assert campaign.trials == []


def test_an_executor_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="unknown executor 'dusk'; did you mean 'dask'"):
        spec(executor="dusk")
    with pytest.raises(InputError, match="with executor = 'dask' only"):
        spec(executor="processes", scheduler="tcp://host:8786")
    box = PythonBlackBox(fine, space=Space([Float("x", 0, 1)]), metrics=("y",))
    with (
        pytest.raises(InputError, match="unknown executor 'proceses'; did you mean 'processes'"),
        open_runner("proceses", box),
    ):
        pass
    for more, message in (({"workers": 2}, "workers must be 1"), ({"timeout": 1.0}, "time-out")):
        with (
            pytest.raises(InputError, match=f"executor = 'in-process': .*{message}"),
            open_runner("in-process", box, **more),
        ):
            pass


def fine(x):
    return x
