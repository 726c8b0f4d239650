"""Runs: the same whatever the workers and interruptions, and nothing recorded is ever lost."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from filelock import FileLock

from bo_surrogates.design import sobol_design
from bo_surrogates.errors import FitError, InputError, RunError
from bo_surrogates.seeding import derive_seed
from problems.synthetic.branin import Branin
from studies.cell_file import read_cell
from studies.results import load
from studies.run_folder import RunFolder
from studies.runner import run_study
from studies.study import ProblemArm, SurrogateArm
from tests.studies.conftest import small

ROOT = Path(__file__).parents[2]
TIMES = ("seconds", "cpu_seconds", "peak_memory_mb", "diagnostics")  # which may tell times, too


def lines(folder):
    """All that decides a run: what was evaluated, and what the models said; no times."""
    found = {}
    for path in sorted((folder / "cells").glob("*.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[path.name] = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    return found


def test_a_run_killed_with_two_workers_and_resumed_in_one_process_equals_an_uninterrupted_one(
    finished, tmp_path
):
    folder = tmp_path / "run"
    code = (
        "from tests.studies.conftest import small; from studies.runner import run_study\n"
        f"if __name__ == '__main__': run_study(small(), {str(folder)!r}, workers=2)"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, env=environment)
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None:
            stored = [p.read_bytes().count(b"\n") for p in (folder / "cells").glob("*.jsonl")]
            if sum(stored) >= 7:  # two headers, two designs, and more
                break
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = {p.name: p.read_bytes() for p in (folder / "cells").glob("*.jsonl")}
    assert len(before) < 8  # it was in the midst
    results = run_study(small(), folder, resume=True)
    assert (results.cells["state"] == "done").all()
    assert lines(folder) == lines(finished)
    for name, content in before.items():  # what was there is there
        kept = content[: content.rfind(b"\n") + 1]
        assert (folder / "cells" / name).read_bytes().startswith(kept)


def test_a_cell_cut_anywhere_is_completed_as_if_it_had_not_been(copied, finished):
    path = copied / "cells" / "noisy--few--1.jsonl"
    whole = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(whole) if byte == ord("\n")]
    for cut in (0, ends[0] + 9, ends[2] - 1, ends[3], ends[-1] - 2):
        path.write_bytes(whole[:cut])
        run_study(small(), copied, resume=True)
        assert lines(copied) == lines(finished), cut
    path.write_bytes(whole[: ends[2]] + b"\0" * 80 + b"\n")  # blocks lost in a power failure
    run_study(small(), copied, resume=True)
    assert lines(copied) == lines(finished)


def test_a_longer_run_equals_a_short_one_that_is_extended(copied, tmp_path):
    study = small(problems=[ProblemArm("branin", "branin")], iterations=4)
    long_cells = [("branin", "gp", 0), ("branin", "few", 0)]
    with pytest.raises(InputError, match="problem 'noisy': no longer there"):
        run_study(study, copied, resume=True)
    more = small(iterations=4, seeds=3)
    run_study(
        more, copied, resume=True, only=lambda c: c.key in (*long_cells, ("branin", "few", 2))
    )
    run_study(study, tmp_path / "long", only=lambda c: c.key in long_cells)
    extended, long = load(copied), load(tmp_path / "long")
    states = extended.cells["state"].value_counts().to_dict()
    assert states == {"done": 3, "partial": 6, "missing": 3}
    chosen = extended.evaluations.query("problem == 'branin' and seed == 0")
    pd.testing.assert_frame_equal(
        chosen.drop(columns="seconds"), long.evaluations.drop(columns="seconds")
    )


def test_a_damaged_cell_is_set_aside_and_run_again(copied, finished):
    path = copied / "cells" / "branin--few--0.jsonl"
    content = path.read_bytes()
    for damaged in (
        content.replace(b'"iteration":1', b'"iteration":7'),
        content.replace(b'"seed":0', b'"seed":1'),
        content.replace(b'{"iteration":1,', b"not JSON,"),
        b"\xff\xfe nonsense\n" + content,
        content.replace(b'"Y":[[', b'"Y":[["x"],['),
    ):
        path.write_bytes(damaged)
        state = load(copied).cells.set_index(["problem", "surrogate", "seed"])
        assert "damaged" in state.loc[("branin", "few", 0), "reason"]
        events = []
        run_study(small(), copied, resume=True, on_event=events.append)
        (note,) = [e.text for e in events if e.kind == "note"]
        assert "set aside" in note
        assert lines(copied) == lines(finished)
    assert len(list((copied / "cells").glob("*.damaged-*"))) == 5


def test_a_folder_with_a_run_is_not_touched_unless_that_is_wanted(copied, tmp_path):
    before = lines(copied)
    with pytest.raises(InputError, match="holds a run already; go on with it by --resume"):
        run_study(small(), copied)
    changed = small(surrogates=[SurrogateArm("gp", "nngp"), *small().surrogates[1:]])
    with pytest.raises(InputError, match="surrogate 'gp': was 'gp', is 'nngp'"):
        run_study(changed, copied, resume=True)
    with FileLock(copied / ".locks" / "run.lock"), pytest.raises(RunError, match="being written"):
        run_study(small(), copied, resume=True)
    assert lines(copied) == before
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    with pytest.raises(InputError, match=r"holds other things \(thesis.tex\)"):
        run_study(small(), tmp_path / "full")
    with pytest.raises(InputError, match="holds no run"):
        load(tmp_path / "full")
    assert [p.name for p in (tmp_path / "full").iterdir()] == ["thesis.tex"]


def test_a_cell_that_another_process_writes_is_failed_and_the_rest_done(
    copied, finished, monkeypatch
):
    monkeypatch.setattr("studies.cell.LOCK_SECONDS", 0.0)
    (copied / "cells" / "branin--gp--0.jsonl").unlink()
    folder = RunFolder(copied)
    cell = small().resolve().cells[0]
    with FileLock(folder.cell_lock(cell)):
        results = run_study(small(), copied, resume=True)
    assert list(results.cells["state"]) == ["failed"] + ["done"] * 7
    assert "being written by another process" in results.cells["reason"][0]
    assert (run_study(small(), copied, resume=True).cells["state"] == "done").all()
    assert lines(copied) == lines(finished)


def test_a_problem_that_raises_fails_its_cells_and_they_can_be_run_again(tmp_path, monkeypatch):
    study = small(seeds=1, iterations=1)
    real = Branin._true_metrics
    calls = []

    def breaks(self, X):
        calls.append(X)
        if self.noise_std is not None and len(X) == 2:
            raise ZeroDivisionError("the pump is blocked")
        return real(self, X)

    monkeypatch.setattr(Branin, "_true_metrics", breaks)
    results = run_study(study, tmp_path / "run")
    assert list(results.cells["state"]) == ["done", "done", "failed", "failed"]
    assert results.cells["reason"].str.contains("the pump is blocked").sum() == 2
    assert list(results.cells["iterations"]) == [1, 1, 0, 0]
    assert len(results.evaluations.query("problem == 'noisy'")) == 8  # the initial designs
    monkeypatch.setattr(Branin, "_true_metrics", real)
    again = run_study(study, tmp_path / "run", resume=True)
    assert (again.cells["state"] == "done").all()
    assert again.cells["reason"].isna().all()


def test_an_outcome_that_is_not_finite_fails_the_cell(tmp_path, monkeypatch):
    monkeypatch.setattr(Branin, "_true_metrics", lambda self, X: X.sum(-1, keepdim=True) / 0.0)
    study = small(problems=[ProblemArm("branin", "branin")], seeds=1)
    results = run_study(study, tmp_path / "run")
    assert results.cells["reason"].str.contains("not finite").all()
    assert results.evaluations.empty


def test_a_fit_that_fails_is_replaced_by_a_random_batch_and_counted(tmp_path, monkeypatch):
    from bo_surrogates import loop

    real = loop.fit

    def fails(space, X, *args, **kwargs):
        if len(X) == 5:
            raise FitError("no luck")
        return real(space, X, *args, **kwargs)

    monkeypatch.setattr(loop, "fit", fails)
    study = small(problems=[ProblemArm("branin", "branin")], seeds=1)
    results = run_study(study, tmp_path / "run")
    assert (results.cells["state"] == "done").all()
    failed = results.iterations.query("iteration == 2")
    assert list(failed["failed"]) == ["FitError: no luck"] * 2
    assert failed["nlpd"].isna().all()
    assert results.iterations.query("iteration != 2")["failed"].isna().all()
    two = results.evaluations.query("evaluation == 6")["values"].tolist()
    assert two[0] == two[1]  # the random batch depends on the seed only


def test_the_global_generators_of_the_caller_are_not_touched(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    run_study(small(seeds=1, iterations=1), tmp_path / "run", only=lambda c: str(c)[0] == "b")
    assert torch.equal(torch.rand(3), expected)


def test_random_search_takes_part_as_the_design_that_goes_on(tmp_path):
    study = small(problems=["branin"], surrogates=["random"], seeds=1, iterations=2)
    results = run_study(study, tmp_path / "run")
    (cell,) = study.resolve().cells
    record = read_cell(tmp_path / "run" / "cells" / f"{cell.name}.jsonl", cell)
    X = torch.tensor([x for i in record.iterations for x in i["X"]], dtype=torch.float64)
    assert [len(i["X"]) for i in record.iterations] == [4, 1, 1]  # the design, two batches
    problem = cell.problem.make()
    torch.testing.assert_close(X, sobol_design(problem.space, len(X), derive_seed(0, "sobol")))
    assert results.cells["state"].tolist() == ["done"]
    assert results.iterations["nlpd"].isna().all()  # nothing was predicted
    with pytest.raises(InputError, match="random has no options, got 'features'"):
        small(surrogates=[SurrogateArm("r", "random", {"features": 3})]).resolve()
