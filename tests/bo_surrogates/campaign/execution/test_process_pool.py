"""The trial runner: results do not depend on where trials run, and nothing they do breaks it."""

import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from bo_surrogates.campaign.black_box import PythonBlackBox, make_black_box
from bo_surrogates.campaign.execution.evaluation import Task
from bo_surrogates.campaign.execution.executors import open_runner
from bo_surrogates.campaign.execution.process_pool import ProcessPool
from bo_surrogates.campaign.execution.runner import InProcessRunner
from bo_surrogates.campaign.execution.worker import serve
from bo_surrogates.campaign.spec import BlackBoxSource
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.space import Choice, Float, Space

ROOT = Path(__file__).parents[4]
PATIENCE = 30.0  # seconds that something certain to happen is waited for

MODULE = '''
import ctypes, os, random, signal, subprocess, sys, threading, time

def act(deed, x):
    """Do what is asked; a worker's worst days."""
    if deed == "return":
        return x
    if deed == "draw":
        import numpy
        return random.random() + numpy.random.random()
    if deed == "print":
        print("a word from the black box")
        return x
    if deed == "exit":
        os._exit(3)
    if deed == "sys.exit":
        sys.exit("that was all")
    if deed == "crash":
        ctypes.string_at(0)
    if deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if deed == "interrupt":
        raise KeyboardInterrupt
    if deed == "raise":
        raise ValueError("no power")
    if deed == "nan":
        return float("nan")
    if deed == "forget":
        return {}
    if deed == "unpicklable":
        return {"y": x, "lock": __import__("threading").Lock()}
    if deed == "die later":
        threading.Timer(0.1, os._exit, [1]).start()
        return os.getpid()
    if deed == "hang":
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        with open(os.environ["BLACK_BOX_PIDS"], "a") as file:
            file.write(f"{os.getpid()} {child.pid}\\n")
        time.sleep(600)
'''
DEEDS = ("return", "draw", "print", "exit", "sys.exit", "crash", "kill", "interrupt", "raise",
         "nan", "forget", "unpicklable", "hang")  # fmt: skip
SPACE = Space([Choice("deed", DEEDS), Float("x", 0, 10)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The user's folder with the module `worst_days`, importable here and in workers."""
    path = tmp_path_factory.mktemp("lab")
    (path / "worst_days.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path))
        patch.setenv("BLACK_BOX_PIDS", str(path / "pids"))
        yield path
    sys.modules.pop("worst_days", None)


@pytest.fixture(scope="module")
def act(folder):
    return make_black_box(BlackBoxSource("python", "worst_days:act"), space=SPACE, metrics=("y",))


@pytest.fixture(scope="module")
def two_workers(act):
    with ProcessPool(act, workers=2) as runner:
        yield runner


def run(runner, *deeds):
    """Outcomes by index of trials that do these deeds with x = 0, 1, ..."""
    tasks = [Task(i, {"deed": deed, "x": float(i)}, 100 + i) for i, deed in enumerate(deeds)]
    outcomes = list(runner.run(tasks))
    assert sorted(o.index for o in outcomes) == list(range(len(deeds)))
    return {o.index: o for o in outcomes}


def is_alive(pid):
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status not in ("Z", "X")  # a zombie waits to be reaped by whoever adopts it


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def pids_of_hung(folder):
    path = folder / "pids"
    pids = [int(p) for p in path.read_text().split()] if path.exists() else []
    path.unlink(missing_ok=True)
    return pids


# ---- what a trial may do -------------------------------------------------------------------------
RAISING_LINE = MODULE[: MODULE.index("raise ValueError")].count("\n") + 1
FAILURES = {
    "exit": "its process ended with exit code 3",
    "sys.exit": "sys.exit('that was all')",
    "crash": "its process was killed by SIGSEGV",
    "kill": "its process was killed by SIGKILL",
    "interrupt": "KeyboardInterrupt",
    "raise": f"ValueError: no power (worst_days.py, line {RAISING_LINE})",
    "nan": "'y' is NaN",
    "forget": "'y' is missing",
}


@pytest.mark.parametrize("deed", FAILURES)
def test_a_trial_that_fails_has_its_reason_and_the_others_their_results(deed, two_workers):
    outcomes = run(two_workers, "return", deed, "return", "return")
    assert FAILURES[deed] in outcomes[1].reason
    assert outcomes[1].measurements is None
    for i in (0, 2, 3):
        assert outcomes[i].measurements == {"y": Measurement(float(i))}
        assert outcomes[i].reason is None


def test_every_one_of_many_dying_workers_is_a_failed_trial(two_workers):
    outcomes = run(two_workers, *["exit"] * 8)
    assert all("exit code 3" in o.reason for o in outcomes.values())


def test_a_worker_that_dies_between_trials_is_replaced(two_workers):
    pid = int(run(two_workers, "die later")[0].measurements["y"].mean)
    wait_until(lambda: not is_alive(pid))
    outcomes = run(two_workers, "return", "return", "return")
    assert all(o.measurements == {"y": Measurement(float(i))} for i, o in outcomes.items())


def test_what_a_result_holds_besides_its_metrics_need_not_be_picklable(two_workers):
    assert run(two_workers, "unpicklable")[0].measurements == {"y": Measurement(0.0)}


def test_what_a_black_box_prints_in_a_worker_stays_off_standard_output(two_workers, capfd):
    run(two_workers, "print")
    captured = capfd.readouterr()
    assert "a word" not in captured.out


def test_a_trial_beyond_its_time_is_killed_with_all_it_started_and_the_rest_goes_on(act, folder):
    with ProcessPool(act, workers=2, timeout=1.0) as runner:
        outcomes = run(runner, "hang", "return", "return", "return")
        assert "exceeded the time-out of 1 s" in outcomes[0].reason
        assert [outcomes[i].measurements["y"].mean for i in (1, 2, 3)] == [1.0, 2.0, 3.0]
        pids = pids_of_hung(folder)
        assert len(pids) == 2
        wait_until(lambda: not any(is_alive(p) for p in pids))


def test_closing_the_runner_kills_what_is_still_running(act, folder):
    with ProcessPool(act, workers=2) as runner:
        outcomes = runner.run(
            [Task(0, {"deed": "hang", "x": 0.0}, 0), Task(1, {"deed": "return", "x": 1.0}, 1)]
        )
        assert next(outcomes).index == 1
        wait_until((folder / "pids").exists)
        wait_until(lambda: len((folder / "pids").read_text().split()) == 2)
    pids = pids_of_hung(folder)
    wait_until(lambda: not any(is_alive(p) for p in pids))


def test_a_command_beyond_its_time_is_killed_with_all_it_started(tmp_path):
    pids = tmp_path / "pids"
    line = f"sh -c 'sleep 600 & echo $$ $! > {pids}; wait'"
    box = make_black_box(BlackBoxSource("command", line), space=SPACE, metrics=("y",))
    with open_runner(None, box, timeout=1.0) as runner:
        assert "time-out" in run(runner, "return")[0].reason
    started = [int(p) for p in pids.read_text().split()]
    assert len(started) == 2
    wait_until(lambda: not any(is_alive(p) for p in started))


@pytest.mark.parametrize("threads", ["3", None])
def test_a_command_has_the_users_environment(monkeypatch, threads):
    if threads is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    line = "sh -c 'echo {\\\"y\\\": ${OMP_NUM_THREADS:-0}}'"
    box = make_black_box(BlackBoxSource("command", line), space=SPACE, metrics=("y",))
    with open_runner(None, box) as runner:
        measured = run(runner, "return")[0].measurements
    assert measured == {"y": Measurement(float(threads or 0))}


def test_what_a_command_leaves_running_ends_with_the_runner(tmp_path):
    pid = tmp_path / "pid"
    line = f"sh -c 'sleep 600 >/dev/null 2>&1 & echo $! > {pid}; echo {{\\\"y\\\": 1}}'"
    box = make_black_box(BlackBoxSource("command", line), space=SPACE, metrics=("y",))
    with open_runner(None, box) as runner:
        assert run(runner, "return")[0].measurements == {"y": Measurement(1.0)}
        left = int(pid.read_text())
        assert is_alive(left)
    wait_until(lambda: not is_alive(left))


# ---- sameness ------------------------------------------------------------------------------------
def test_results_do_not_depend_on_where_trials_run_also_with_global_generators(act, two_workers):
    import numpy as np

    numpy_state = np.random.get_state()[1].tolist()
    with InProcessRunner(act) as runner:
        here = run(runner, "draw", "draw", "return", "draw")
    there = run(two_workers, "draw", "draw", "return", "draw")
    assert {i: o.measurements for i, o in here.items()} == {
        i: o.measurements for i, o in there.items()
    }
    assert here[0].measurements != here[1].measurements
    assert np.random.get_state()[1].tolist() == numpy_state  # the caller's stream is untouched


def test_a_failure_in_this_process_has_the_reason_it_has_in_a_worker(act):
    with InProcessRunner(act) as runner:
        outcomes = run(runner, "raise", "nan", "forget", "sys.exit", "return")
    for i, deed in enumerate(("raise", "nan", "forget", "sys.exit")):
        assert FAILURES[deed] in outcomes[i].reason
    assert outcomes[4].measurements == {"y": Measurement(4.0)}


def test_an_interrupt_in_this_process_is_not_a_trials_failure(act):
    with InProcessRunner(act) as runner, pytest.raises(KeyboardInterrupt):
        run(runner, "interrupt")


def test_torch_runs_one_thread_during_a_trial_and_as_before_after_it():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        box = PythonBlackBox(
            lambda x: torch.get_num_threads(), space=Space([Float("x", 0, 1)]), metrics=("y",)
        )
        with InProcessRunner(box) as runner:
            (outcome,) = runner.run([Task(0, {"x": 0.0}, 0)])
        assert outcome.measurements == {"y": Measurement(1.0)}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- what is refused -----------------------------------------------------------------------------
@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2"])
def test_a_bad_number_of_workers_is_refused(act, workers):
    with pytest.raises(InputError, match="workers must be"):
        ProcessPool(act, workers=workers)


@pytest.mark.parametrize("timeout", [0, -1.0, math.nan, "1"])
def test_a_bad_time_out_is_refused(act, timeout):
    with pytest.raises(InputError, match="timeout must be"):
        ProcessPool(act, timeout=timeout)


def test_a_function_that_cannot_be_sent_to_a_worker_is_refused_before_any_trial():
    box = PythonBlackBox(lambda x: x, space=Space([Float("x", 0, 1)]), metrics=("y",))
    InProcessRunner(box).close()
    with pytest.raises(InputError, match="cannot be sent to worker processes"):
        ProcessPool(box, workers=2)


# ---- whole programs ------------------------------------------------------------------------------
def program(folder, name, text, **options):
    path = folder / name
    path.write_text(textwrap.dedent(text))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.Popen(
        [sys.executable, str(path)],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A background job ignores Ctrl-C, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        **options,
    )


HANGING = """
    from bo_surrogates.campaign.black_box import PythonBlackBox
    from bo_surrogates.campaign.execution.evaluation import Task
    from bo_surrogates.campaign.execution.process_pool import ProcessPool
    from bo_surrogates.space import Choice, Float, Space

    if __name__ == "__main__":
        space = Space([Choice("deed", ("hang", "return")), Float("x", 0, 1)])
        box = PythonBlackBox("worst_days:act", space=space, metrics=("y",))
        with ProcessPool(box, workers=2) as runner:
            list(runner.run([Task(i, {"deed": "hang", "x": 0.0}, i) for i in range(2)]))
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_survives_the_program_that_started_it(folder, end):
    running = program(folder, "hanging.py", HANGING, start_new_session=True)
    pids = folder / "pids"
    try:
        wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 4)
        hung = pids_of_hung(folder)
        assert all(is_alive(p) for p in hung)
        # As the terminal does on Ctrl-C: to the whole foreground group.
        (os.killpg if end == signal.SIGINT else os.kill)(running.pid, end)
        running.communicate(timeout=PATIENCE)
    finally:
        running.kill()
    assert running.returncode == -end
    wait_until(lambda: not any(is_alive(p) for p in hung))


def test_a_script_without_a_main_guard_is_told_so(folder):
    text = """
        from bo_surrogates.campaign.black_box import PythonBlackBox
        from bo_surrogates.campaign.execution.evaluation import Task
        from bo_surrogates.campaign.execution.process_pool import ProcessPool
        from bo_surrogates.errors import RunError
        from bo_surrogates.space import Choice, Float, Space

        space = Space([Choice("deed", ("hang", "return")), Float("x", 0, 1)])
        box = PythonBlackBox("worst_days:act", space=space, metrics=("y",))
        with ProcessPool(box, workers=2) as runner:
            try:
                list(runner.run([Task(0, {"deed": "return", "x": 0.0}, 0)]))
            except RunError as error:
                print(error)
    """
    out, _ = program(folder, "unguarded.py", text).communicate(timeout=PATIENCE)
    assert "if __name__ == '__main__':" in out


def test_a_function_that_a_worker_cannot_import_is_refused(act, monkeypatch):
    runner = ProcessPool(act, workers=2)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "lab" not in Path(p).name])
    with runner, pytest.raises((InputError, RunError), match="worst_days"):
        run(runner, "return")


def halved(a):
    return a / 2


def test_a_worker_that_starts_when_its_campaign_is_gone_ends_in_silence(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    space = Space([Float("a", 0.0, 1.0)])
    black_box = pickle.dumps(PythonBlackBox(halved, space=space, metrics=("y",)))
    ours.close()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            with open(tmp_path / "said", "w") as said:
                os.dup2(said.fileno(), 2)
            serve(theirs, black_box, 0, None)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert (tmp_path / "said").read_text() == ""
