"""Any executor will do, and none can lose, repeat or hold a trial unnoticed."""

import os
import queue
import signal
import socket
import sys
import threading
import time
from concurrent.futures import (
    Future,
    InvalidStateError,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextlib import suppress
from pathlib import Path

import pytest

from bo_surrogates.campaign.black_box import PythonBlackBox
from bo_surrogates.campaign.execution import future_runner
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.future_runner import FutureRunner
from bo_surrogates.campaign.execution.lifeline import Switchboard, connect
from bo_surrogates.campaign.execution.process_pool import ProcessPool
from bo_surrogates.campaign.execution.remote import Return
from bo_surrogates.campaign.execution.runner import InProcessRunner
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.space import Choice, Float, Space

PATIENCE = 60.0  # seconds that something certain to happen is waited for

MODULE = """
import os, random, signal, sys, time

def act(deed, x, seed, report):
    print("deed", deed)
    if deed == "draw":
        return random.random() + seed
    if deed == "report":
        for step in range(5):
            if not report(step, y=x + step, other=1.0):
                return -1.0
        return x
    if deed == "deaf":
        while True:
            try:
                report(1.0, y=x)
            except Exception:
                time.sleep(0.01)
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "raise":
        raise ValueError("no power")
    if deed == "hang":
        with open(os.environ["BLACK_BOX_PIDS"], "a") as file:
            file.write(f"{os.getpid()} {os.getppid()}\\n")
        time.sleep(600)
    return x
"""
DEEDS = ("return", "draw", "report", "deaf", "kill", "raise", "hang")
SPACE = Space([Choice("deed", DEEDS), Float("x", 0, 10)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("lab")
    (path / "deeds.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        patch.setenv("BLACK_BOX_PIDS", str(path / "pids"))
        yield path
    sys.modules.pop("deeds", None)


@pytest.fixture(scope="module")
def box(folder):
    return PythonBlackBox("deeds:act", space=SPACE, metrics=("y",))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def tasks(*deeds, log=None):
    return [
        Task(i, {"deed": deed, "x": float(i)}, 100 + i, log=log and str(log / f"{i}.log"))
        for i, deed in enumerate(deeds)
    ]


def run(runner, *deeds, log=None):
    outcomes = list(runner.run(tasks(*deeds, log=log)))
    assert sorted(o.index for o in outcomes) == list(range(len(deeds)))
    return {o.index: o for o in outcomes}


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status not in ("Z", "X")


def hung(folder):
    path = folder / "pids"
    wait_until(lambda: path.exists() and path.read_text().endswith("\n"))
    pids = [int(p) for p in path.read_text().split()]
    path.unlink()
    return pids


# ---- sameness ------------------------------------------------------------------------------------
def test_results_do_not_depend_on_the_executor(box, threads):
    deeds = ("draw", "draw", "raise", "return", "report")
    reports = {}

    def of(name, runner):
        reports[name] = []
        runner.on_report = lambda task, step, m: bool(reports[name].append((step, m))) or True
        with runner:
            return {
                i: (o.measurements, o.reason, o.failure) for i, o in run(runner, *deeds).items()
            }

    here = of("here", InProcessRunner(box))
    assert of("pool", ProcessPool(box)) == here
    assert of("threads", FutureRunner(threads, box, workers=2)) == here
    with ProcessPoolExecutor(1) as processes:
        assert of("processes", FutureRunner(processes, box)) == here
    assert here[0][0] != here[1][0]
    assert [step for step, _ in reports["here"]] == [0, 1, 2, 3, 4]
    assert reports["here"][2][1] == {"y": Measurement(6.0), "other": Measurement(1.0)}
    assert reports["pool"] == reports["threads"] == reports["processes"] == reports["here"]


def test_at_most_as_many_tasks_as_workers_are_with_the_executor(box):
    class Counting:
        most = now = 0

        def submit(self, function, argument):
            self.now += 1
            self.most = max(self.most, self.now)
            future = Future()

            def work():
                with suppress(InvalidStateError):  # cancelled: it was lost
                    future.set_result(function(argument))

            future.add_done_callback(lambda _: setattr(self, "now", self.now - 1))
            threading.Thread(target=work).start()
            return future

    executor = Counting()
    with FutureRunner(executor, box, workers=2) as runner:
        run(runner, *["return"] * 4)
    assert executor.most == 2


# ---- what a trial may do -------------------------------------------------------------------------
def test_a_dying_evaluation_does_not_break_the_executor(box):
    with ProcessPoolExecutor(1) as executor, FutureRunner(executor, box) as runner:
        outcomes = run(runner, "kill", "return")
    assert outcomes[0].failure == "died"
    assert "killed by SIGKILL" in outcomes[0].reason
    assert outcomes[1].measurements == {"y": Measurement(1.0)}


def test_a_hung_trial_is_ended_and_the_executor_goes_on(box, threads, folder):
    with FutureRunner(threads, box, timeout=1.0) as runner:
        outcomes = run(runner, "hang", "return")
    assert outcomes[0].failure == "timeout"
    assert "exceeded the time-out of 1 s" in outcomes[0].reason
    assert outcomes[1].measurements == {"y": Measurement(1.0)}
    pid, _ = hung(folder)
    wait_until(lambda: not is_alive(pid))


@pytest.mark.parametrize("kind", ["here", "pool", "threads"])
def test_a_trial_told_to_stop_does_not_report_again(kind, box, threads):
    runner = {
        "here": lambda: InProcessRunner(box),
        "pool": lambda: ProcessPool(box),
        "threads": lambda: FutureRunner(threads, box),
    }[kind]()
    seen = []
    runner.on_report = lambda task, step, m: bool(seen.append(step)) or step < 2
    with runner:
        outcome = run(runner, "report")[0]
    assert seen == [0, 1, 2]
    assert outcome.measurements == {"y": Measurement(-1.0)}  # it saw False and returned


@pytest.mark.parametrize("kind", ["pool", "threads"])
def test_a_trial_that_does_not_stop_when_told_is_killed(kind, box, threads, monkeypatch):
    from bo_surrogates.campaign.execution import child_process

    monkeypatch.setattr(child_process, "STOPPING_SECONDS", 0.2)
    runner = ProcessPool(box) if kind == "pool" else FutureRunner(threads, box)
    runner.on_report = lambda task, step, m: False
    with runner:
        outcome = run(runner, "deaf")[0]
    assert outcome.failure == "timeout"
    assert "told to stop" in outcome.reason


@pytest.mark.parametrize("kind", ["pool", "threads"])
def test_what_a_trial_prints_is_in_its_log(kind, box, threads, tmp_path, capfd):
    with ProcessPool(box) if kind == "pool" else FutureRunner(threads, box) as runner:
        run(runner, "return", "kill", log=tmp_path)
    assert (tmp_path / "0.log").read_text().splitlines() == [
        "--- trial 0, attempt 1, seed 100",
        "deed return",
    ]
    assert (tmp_path / "1.log").read_text().startswith("--- trial 1, attempt 1, seed 101\n")
    captured = capfd.readouterr()
    assert "deed" not in captured.out + captured.err


# ---- ends ----------------------------------------------------------------------------------------
def test_closing_the_runner_ends_what_runs_on_the_executor(box, threads, folder):
    with FutureRunner(threads, box) as runner:
        runner.submit(tasks("hang")[0])
        reader = threading.Thread(target=runner.wait)  # answers the worker's call
        reader.start()
        pid, _ = hung(folder)
        reader.join(PATIENCE)
        assert is_alive(pid)
    wait_until(lambda: not is_alive(pid))


def test_a_worker_killed_mid_trial_gives_a_lost_trial_and_a_broken_pool_is_said_to_be(box, folder):
    executor = ProcessPoolExecutor(1)
    try:
        with FutureRunner(executor, box) as runner:
            runner.submit(tasks("hang")[0])
            killer = threading.Thread(
                target=lambda: os.kill(hung(folder)[1], signal.SIGKILL), daemon=True
            )
            killer.start()
            lost = []

            def use_up():
                while True:
                    for outcome in runner.wait():
                        lost.append(outcome.failure)
                        runner.submit(tasks("return")[0])

            with pytest.raises(RunError, match=r"executor.*run again by a resume"):
                use_up()
            assert lost in ([], ["lost"])  # whichever news comes first
    finally:
        executor.shutdown(wait=False)


class Poll:
    """An executor as submitit's: its jobs can be asked, but do not call back."""

    def __init__(self, error=None):
        self.error = error

    def submit(self, function, argument):
        outer, results = self, []
        worker = threading.Thread(target=lambda: results.append(function(argument)))
        worker.start()

        class Job:
            def done(self):
                if outer.error:
                    raise outer.error
                return bool(results)

            def result(self):
                return results[0]

        return Job()


def test_futures_that_cannot_call_back_are_asked(box, monkeypatch):
    monkeypatch.setattr(future_runner, "POLL_SECONDS", 0.05)
    with FutureRunner(Poll(), box, workers=2) as runner:
        outcomes = run(runner, "return", "raise", "return")
    assert outcomes[2].measurements == {"y": Measurement(2.0)}
    assert "no power" in outcomes[1].reason


def test_a_poll_that_raises_ends_the_run_and_abandons_nothing(box, monkeypatch):
    monkeypatch.setattr(future_runner, "POLL_SECONDS", 0.05)
    with (
        FutureRunner(Poll(OSError("squeue: no such job")), box) as runner,
        pytest.raises(RunError, match="does not say how trial 0 is: OSError: squeue.*resume"),
    ):
        run(runner, "return")


def test_an_executor_that_cancels_or_fails_loses_the_trial_only(box):
    class Bad:
        def submit(self, function, argument):
            future = Future()
            if argument.task.index == 0:
                future.cancel()
                future.set_running_or_notify_cancel()
            elif argument.task.index == 1:
                future.set_exception(ModuleNotFoundError("no bo_surrogates here"))
            else:
                future.set_result(Return(None, "withdrawn", "the campaign has ended", 0.0, ""))
            return future

    with FutureRunner(Bad(), box) as runner:
        outcomes = run(runner, *["return"] * 3)
    assert [outcomes[i].failure for i in range(3)] == ["lost"] * 3
    assert "cancelled" in outcomes[0].reason
    assert "ModuleNotFoundError: no bo_surrogates here" in outcomes[1].reason


def test_what_an_executor_starts_a_second_time_by_itself_is_refused(box):
    class Twice:
        """Loses the first worker after its call, and starts the task anew, as Dask does."""

        def submit(self, function, argument):
            future = Future()

            def work():
                if argument.task.attempt == 1:
                    first = connect(argument.address)
                    first.send((argument.token, "hello"))
                    assert first.recv() is True
                with suppress(InvalidStateError):  # cancelled: it was lost
                    future.set_result(function(argument))

            threading.Thread(target=work).start()
            return future

    with FutureRunner(Twice(), box) as runner:
        outcome = run(runner, "return")[0]
    assert outcome.failure == "lost"


def test_workers_that_cannot_call_the_campaign_evaluate_all_the_same(box, threads, monkeypatch):
    monkeypatch.setattr("bo_surrogates.campaign.execution.remote.connect", lambda address: None)
    seen = []
    with FutureRunner(threads, box) as runner:
        runner.on_report = lambda task, step, m: bool(seen.append(step)) or True
        outcomes = run(runner, "return", "report")
    assert outcomes[0].measurements == {"y": Measurement(0.0)}
    assert outcomes[1].measurements == {"y": Measurement(1.0)}
    assert seen == [0, 1, 2, 3, 4]


def test_a_worker_whose_campaign_has_ended_does_nothing(box, threads):
    runner = FutureRunner(threads, box)
    runner.submit(tasks("hang")[0])
    (submitted,) = runner._submitted.values()
    runner.close()
    assert submitted.future.cancelled() or submitted.future.result(PATIENCE).evaluation is None


def test_who_does_not_know_the_secret_gets_nowhere():
    messages = queue.SimpleQueue()
    board = Switchboard(messages, local=True)
    try:
        from dataclasses import replace

        assert connect(replace(board.address, secret=b"guess")) is None
        with socket.create_connection(("127.0.0.1", board.address.port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 10)
        line = connect(board.address)
        line.send(("token", "hello"))
        assert messages.get(timeout=PATIENCE).content == ("hello",)
        line.close()
        assert messages.get(timeout=PATIENCE).content == ("broken",)
        assert messages.empty()
    finally:
        board.close()
    assert connect(board.address) is None


# ---- what is refused -----------------------------------------------------------------------------
def test_what_is_no_executor_is_refused(box):
    with pytest.raises(InputError, match="executor must have a method submit"):
        FutureRunner(object(), box)


def test_a_black_box_that_a_worker_cannot_load_is_refused(box, monkeypatch):
    with ThreadPoolExecutor(1) as executor, FutureRunner(executor, box) as runner:
        monkeypatch.setattr(sys, "path", [p for p in sys.path if "lab" not in Path(p).name])
        with pytest.raises(InputError, match=r"cannot be loaded on a worker.*deeds"):
            run(runner, "return")


def test_a_function_that_no_worker_can_import_is_sent_by_value(threads):
    space = Space([Float("x", 0, 1)])
    offset = 2.0
    with FutureRunner(
        threads, PythonBlackBox(lambda x: x + offset, space=space, metrics=("y",))
    ) as runner:
        (outcome,) = runner.run([Task(0, {"x": 0.5}, 0)])
    assert outcome.measurements == {"y": Measurement(2.5)}
