"""How a campaign runs: retries, replicates, logs, asynchronous asking; and that nothing is lost."""

import math
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bo_surrogates.campaign.campaign import Campaign
from bo_surrogates.campaign.execution.resources import Resources
from bo_surrogates.campaign.running import evaluation_seed
from bo_surrogates.campaign.spec import CampaignSpec
from bo_surrogates.campaign.trial import Measurement
from bo_surrogates.errors import InputError, RunError
from bo_surrogates.objective import Objective
from bo_surrogates.space import Float, Space

PATIENCE = 60.0


def start(path, **more):
    return Campaign.create(
        CampaignSpec(
            name="a run / of mine",
            space=Space([Float("x", 0, 1)]),
            objectives=(Objective("y"),),
            **{"budget": 4, "initial": 4, "batch_size": 2, "seed": 11, **more},
        ),
        path / "c.db",
    )


# ---- functions that worker processes import ------------------------------------------------------
def dies_at_first(x, trial_index, attempt):
    print(f"attempt {attempt} at trial {trial_index}")
    if trial_index == 1 and attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def draws(x, seed):
    return x + np.random.default_rng(seed).normal()


def the_first_waits_for_the_fourth(x, trial_index):
    """Trial 0 ends when trial 3 has begun, which in batches of two it never does."""
    mark = os.path.join(os.environ["BLACK_BOX_FOLDER"], "fourth")
    if trial_index == 3:
        open(mark, "w").close()
    deadline = time.monotonic() + PATIENCE
    while trial_index == 0 and not os.path.exists(mark):
        if time.monotonic() > deadline:
            raise TimeoutError("trial 3 never began")
        time.sleep(0.02)
    return x


# ---- retries -------------------------------------------------------------------------------------
@pytest.mark.parametrize("retries", [0, 1])
def test_a_trial_whose_process_died_is_run_again_where_retries_are_allowed(retries, tmp_path):
    with start(tmp_path, retries=retries, executor="processes", workers=2) as campaign:
        campaign.run(dies_at_first)
        trials = campaign.trials
        assert [t.attempt for t in trials] == [1, 1 + retries, 1, 1]
        assert trials[1].status == ("completed" if retries else "abandoned")
        assert [t.value("y") for t in trials if t.index != 1] == [
            t.parameters["x"] for t in trials if t.index != 1
        ]
        log = campaign.log(1).splitlines()
        assert log[:2] == [f"--- trial 1, attempt 1, seed {evaluation_seed(11, 1)}",
                           "attempt 1 at trial 1"]  # fmt: skip
        assert len(log) == 2 + 2 * retries


@pytest.mark.parametrize("retry_on", ["died", "failed"])
def test_a_trial_that_raised_is_run_again_only_on_demand_and_with_the_same_seed(retry_on, tmp_path):
    calls = []

    def flaky(x, trial_index, attempt, seed):
        calls.append((trial_index, attempt, seed))
        if trial_index == 0 and attempt < 3:
            raise OSError("the instrument is busy")
        return math.nan if trial_index == 2 else x

    with start(tmp_path, retries=2, retry_on=retry_on) as campaign:
        campaign.run(flaky)
        trials = campaign.trials
    if retry_on == "died":
        assert [t.attempt for t in trials] == [1] * 4
        assert "the instrument is busy" in trials[0].reason
    else:
        assert [t.attempt for t in trials] == [3, 1, 3, 1]
        assert trials[0].status == "completed"
        assert trials[2].reason == "metric 'y' is NaN (not a number) (attempt 3)"
        assert {seed for i, _, seed in calls if i == 0} == {evaluation_seed(11, 0)}


# ---- replicates ----------------------------------------------------------------------------------
def test_replicates_have_seeds_of_their_own_and_give_mean_and_standard_error(tmp_path):
    with start(tmp_path, replicates=3, budget=2, initial=2) as campaign:
        campaign.run(draws)
        for t in campaign.trials:
            x = t.parameters["x"]
            y = [draws(x, evaluation_seed(11, t.index, r)) for r in range(3)]
            assert len(set(y)) == 3
            assert t.value("y") == pytest.approx(np.mean(y), rel=1e-12)
            assert t.measurements["y"].sem == pytest.approx(np.std(y, ddof=1) / 3**0.5, rel=1e-12)
            recorded = campaign.replicates(t.index)
            assert [recorded[r]["y"].mean for r in range(3)] == y


def test_replicates_do_not_depend_on_workers_or_executor(tmp_path):
    results = []
    with ThreadPoolExecutor(2) as threads:
        for name, how in (("a", {}), ("b", {"workers": 3}), ("c", {"executor": threads})):
            (tmp_path / name).mkdir()
            with start(tmp_path / name, replicates=2, budget=2, initial=2) as campaign:
                campaign.run(draws, **how)
                results.append([t.measurements for t in campaign.trials])
    assert results[0] == results[1] == results[2]


def test_a_crash_after_two_of_three_replicates_loses_neither(tmp_path):
    calls = []

    def interrupted(x, seed):
        calls.append(seed)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return draws(x, seed)

    with start(tmp_path, replicates=3, budget=1, initial=1) as campaign:
        with pytest.raises(KeyboardInterrupt):
            campaign.run(interrupted)
        assert sorted(campaign.replicates(0)) == [0, 1]
        campaign.run(interrupted)
        assert calls[3:] == [evaluation_seed(11, 0, 2)]
        assert campaign.trials[0].status == "completed"
        x = campaign.trials[0].parameters["x"]
        y = [draws(x, evaluation_seed(11, 0, r)) for r in range(3)]
        assert campaign.trials[0].value("y") == pytest.approx(np.mean(y), rel=1e-12)


def test_a_trial_with_a_failing_replicate_is_abandoned_and_says_which(tmp_path):
    def sometimes(x, seed):
        if seed == evaluation_seed(11, 1, 1):
            raise ValueError("no power")
        return x

    with start(tmp_path, replicates=3) as campaign:
        campaign.run(sometimes)
        trials = campaign.trials
    assert [t.status for t in trials] == ["completed", "abandoned", "completed", "completed"]
    assert trials[1].reason.startswith("replicate 2 of 3: ValueError: no power")


def test_a_measurement_from_replicates_is_their_mean_and_its_standard_error():
    m = Measurement.from_replicates([1.0, 2.0, 6.0])
    assert (m.mean, m.sem) == (3.0, pytest.approx(7**0.5 / 3**0.5))
    assert Measurement.from_replicates([2.0]) == Measurement(2.0, None)
    with pytest.raises(InputError, match="at least one"):
        Measurement.from_replicates([])
    with pytest.raises(InputError, match="finite"):
        Measurement.from_replicates([1.0, math.inf])


# ---- asynchronous --------------------------------------------------------------------------------
def test_an_asynchronous_run_asks_while_others_run(tmp_path, monkeypatch):
    monkeypatch.setenv("BLACK_BOX_FOLDER", str(tmp_path))
    with start(tmp_path, workers=2, asynchronous=True) as campaign:
        finished = []
        campaign.run(
            the_first_waits_for_the_fourth,
            on_event=lambda e: finished.append(e.trial.index) if e.kind == "completed" else None,
        )
        assert [t.status for t in campaign.trials] == ["completed"] * 4
    assert finished.index(0) >= 2


def test_an_asynchronous_run_with_one_worker_is_one_in_batches_of_one(tmp_path):
    courses = []
    for asynchronous in (False, True):
        (tmp_path / str(asynchronous)).mkdir()
        with start(tmp_path / str(asynchronous), batch_size=1) as campaign:
            campaign.run(draws, asynchronous=asynchronous)
            courses.append([(t.parameters, t.measurements) for t in campaign.trials])
    assert courses[0] == courses[1]


def test_an_asynchronous_run_stops_where_it_is_told_to_and_after_failures(tmp_path):
    with start(tmp_path, asynchronous=True, max_consecutive_failures=2, workers=2) as campaign:
        campaign.run(draws, trials=1)
        assert len(campaign.trials) == 1
        with pytest.raises(RunError, match="the last 2 trials failed"):
            campaign.run(fails)
        campaign.run(draws)
        assert len(campaign.trials) == 4
        assert "running" not in [t.status for t in campaign.trials]


def fails(x):
    raise ValueError("no power")


# ---- logs ----------------------------------------------------------------------------------------
def test_what_a_trial_prints_here_is_shown_and_kept_and_silence_leaves_no_file(tmp_path, capsys):
    def talks(x, trial_index):
        if trial_index == 1:
            print("out")
            print("err", file=sys.stderr)
        return x

    with start(tmp_path) as campaign:
        campaign.run(talks)
        assert campaign.log(0) == ""
        assert campaign.log(1).splitlines()[1:] == ["out", "err"]
        assert [p.name for p in campaign.log_folder.iterdir()] == ["trial-0001.log"]
        assert campaign.log_folder.parent == tmp_path / "c.db.logs"
        assert campaign.journal.log(campaign._id, 1) == "c.db.logs/a_run_of_mine/trial-0001.log"
        with pytest.raises(InputError, match="no trial 9"):
            campaign.log(9)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("out\n", "err\n")


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path):
    from bo_surrogates.campaign.execution.logs import shorten

    path = tmp_path / "log"
    path.write_text("begin" + "x" * 10_000 + "end")
    shorten(path, 1000)
    text = path.read_text()
    assert text.startswith("beginxxx")
    assert text.endswith("xxxend")
    assert "9008 bytes left out" in text
    assert len(text) < 1100


# ---- resources -----------------------------------------------------------------------------------
def test_cpus_are_the_threads_of_an_evaluation(tmp_path):
    def count(x):
        import torch

        return float(torch.get_num_threads())

    with start(tmp_path, resources=Resources(cpus=2, memory="4GB")) as campaign:
        campaign.run(count, trials=1)
        assert campaign.trials[0].value("y") == 2.0


@pytest.mark.parametrize(
    ("memory", "size"), [("4GB", 4 * 10**9), ("1.5 GiB", 1610612736), ("512mib", 2**29), (7, 7)]
)
def test_memory_is_read_in_the_usual_units(memory, size):
    assert Resources(memory=memory).bytes == size
    assert Resources.from_dict(Resources(memory=memory).to_dict()) == Resources(memory=memory)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"gpu": 1}, "unknown hint 'gpu'; did you mean 'gpus'"),
        ({"cpus": 0}, "cpus must be an integer >= 1"),
        ({"cpus": True}, "cpus must be an integer"),
        ({"gpus": -1}, "gpus must be an integer >= 0"),
        ({"memory": "lots"}, "cannot read memory = 'lots'"),
        ({"memory": 0}, "memory must be above 0"),
    ],
)
def test_a_bad_hint_is_refused(data, message):
    with pytest.raises(InputError, match=message):
        Resources.from_dict(data)
